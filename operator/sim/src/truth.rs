//! The invariants of the world: what callers, pods and the Deployment may never meet, whatever the status says.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde_json::Value;
use sluice_core::api::{LABEL_HASH, Run, RunKind, Stage};

use crate::api::{Res, at, int, map, text};
use crate::fixture::{self, NAME};
use crate::native::Rolled;
use crate::pods::later;
use crate::router::{LAG_SECONDS, Plane};
use crate::world::World;

/// An abort before promotion brings weight 0 within so many undisturbed seconds.
const ABORT_SECONDS: i64 = 15;
/// A revert may have to start the old pods again.
const REVERT_SECONDS: i64 = 150;
/// A Service of the pair that is deleted in a run is back within so many undisturbed seconds.
const RESTORE_SECONDS: i64 = 2;
/// A canary whose ready pods have more traffic than they can carry has less within so many unhindered seconds.
const LOWER_SECONDS: i64 = 26;
/// What people and nodes did may be felt for so long.
const AFTER_SECONDS: i64 = 20;

/// What the invariants remember from step to step.
#[derive(Clone, Debug, Default)]
pub struct Truth {
    /// Templates that the native controller rolled out by itself since the last look.
    pub rolled: Vec<Rolled>,
    /// Somebody went past Sluice with every right to: what the Deployment runs is no longer promised.
    pub lawless: bool,
    /// Weights that somebody else wrote stand in a route.
    pub foreign: bool,
    /// They were written while nothing of ours guarded the route.
    pub unguarded: bool,
    /// Until then missing pods and endpoints are not our doing.
    pub disturbed_until: Option<Timestamp>,
    /// Until then nothing is bounded in time.
    pub hindered_until: Option<Timestamp>,
    /// Whether the size changed during this run.
    resized: BTreeSet<String>,
    /// Pods of the canary when promotion began, by run.
    tested: BTreeMap<String, BTreeSet<String>>,
    /// Least exposure since the abort of a run.
    least: BTreeMap<String, i64>,
    /// Sizes of the Deployment that were in force lately.
    sizes: Vec<(Timestamp, i64)>,
    /// Runs that were proven and being tidied: a person may still abort them, but the old pods were going.
    finishing: BTreeSet<String>,
    /// Since when stable has a ready pod.
    served_since: Option<Timestamp>,
    /// Since when the stable Service does not exist in a run.
    no_service_since: Option<Timestamp>,
    /// Since when the canary's ready pods have more traffic than they can carry.
    overloaded_since: Option<Timestamp>,
    looked_at: (u64, i64),
}

impl Truth {
    /// Exposure may rise once: somebody else wrote weights.
    pub fn forget_least(&mut self) {
        self.least.clear();
    }
}

impl World {
    /// Pods and endpoints may be missing from here on, and it is not our doing.
    pub fn disturb(&mut self, seconds: i64) {
        let until = later(self.now, seconds + AFTER_SECONDS);
        self.truth.disturbed_until = Some(self.truth.disturbed_until.map_or(until, |old| old.max(until)));
    }

    /// Nothing is bounded in time from here on.
    pub fn hinder(&mut self, seconds: i64) {
        if self.truth.lawless && self.stable_service_is_pinned() {
            // Freed by break-glass, or replaced, it rolls beside a pinned Service until a controller un-pins it.
            self.disturb(seconds);
        }
        let until = later(self.now, seconds);
        self.truth.hindered_until = Some(self.truth.hindered_until.map_or(until, |old| old.max(until)));
    }

    fn stable_service_is_pinned(&self) -> bool {
        let service = self.api.now.get(Res::Service, fixture::STABLE);
        service.is_some_and(|service| map(service, "/spec/selector").contains_key(LABEL_HASH))
    }

    /// Notes that the Deployment's size changed.
    pub fn resized(&mut self) {
        if let Some(id) = self.run().map(|run| run.id.clone()) {
            self.truth.resized.insert(id);
        }
    }

    /// Checks every invariant of the world as it is now.
    pub fn look(&mut self) {
        let key = (self.api.version(), self.second());
        if self.truth.looked_at == key && self.pods.ended.is_empty() {
            return;
        }
        self.truth.looked_at = key;
        self.note_size();
        let run = self.run().cloned();
        self.nothing_rolls_by_itself(run.as_ref());
        self.no_request_meets_a_dead_end(run.as_ref());
        self.exposure_is_planned(run.as_ref());
        self.rejected_stays_away(run.as_ref());
        if let Some(run) = &run {
            if run.stage == Stage::Finishing {
                self.truth.finishing.insert(run.id.clone());
            }
            self.stable_service_is_there();
            self.nothing_starts_in_an_incident(run);
            self.ready_pods_carry_their_weight(run);
            self.one_set_is_visible(run);
            self.stable_keeps_its_size(run);
            self.tested_pods_stay(run);
            self.an_abort_goes_down(run);
        }
    }

    fn note_size(&mut self) {
        let size =
            self.api.now.get(Res::Deployment, NAME).and_then(|d| int(d, "/spec/replicas")).unwrap_or(0);
        if self.truth.sizes.last().map(|(_, n)| *n) != Some(size) {
            self.truth.sizes.push((self.now, size));
        }
    }

    /// Smallest size of the Deployment within these seconds.
    fn least_size(&self, seconds: i64) -> i64 {
        let since = later(self.now, -seconds);
        let first = self.truth.sizes.iter().rposition(|(at, _)| *at <= since).unwrap_or(0);
        self.truth.sizes.iter().skip(first).map(|(_, size)| *size).min().unwrap_or(0)
    }

    fn hindered(&self) -> bool {
        self.truth.hindered_until.is_some_and(|until| self.now < later(until, 5))
    }

    fn disturbed(&self) -> bool {
        self.truth.disturbed_until.is_some_and(|until| self.now < until)
    }

    /// Digests that may have pods.
    fn lawful(&self, run: Option<&Run>) -> BTreeSet<String> {
        let mut digests: BTreeSet<String> = BTreeSet::new();
        if let Some(run) = run {
            digests.extend([run.canary.digest.clone(), run.stable.digest.clone()]);
        }
        digests.extend(self.status().stable.map(|stable| stable.digest));
        digests
    }

    /// Whether the Deployment is enrolled and law holds.
    pub fn is_guarded(&self) -> bool {
        let deployment = self.api.now.get(Res::Deployment, NAME);
        let label = deployment.and_then(|d| d.pointer("/metadata/labels/sluice.dev~1managed").cloned());
        label.as_ref().and_then(Value::as_str) == Some("true") && !self.truth.lawless
    }

    fn nothing_rolls_by_itself(&mut self, run: Option<&Run>) {
        let rolled = std::mem::take(&mut self.truth.rolled);
        if !self.is_guarded() || self.status().stable.is_none() {
            return;
        }
        let lawful = self.lawful(run);
        for rolled in rolled {
            let promoted = run.is_some_and(|run| run.released && run.canary.digest == rolled.digest);
            let stable = self.status().stable.is_some_and(|stable| stable.digest == rolled.digest);
            if !promoted && !stable {
                self.violate("the Deployment rolls a template that was not promoted");
            }
        }
        if let Some(pod) = self.pods.all.values().find(|pod| !lawful.contains(&pod.digest)).cloned() {
            self.violate(&format!(
                "pod {} runs {}, which is neither stable nor the canary",
                pod.name, pod.image
            ));
        }
    }

    /// Since when a pod is ready that requests for stable may go to.
    fn served_since(&mut self, run: Option<&Run>) -> Option<Timestamp> {
        let stable = run.map(|run| run.stable.replica_set.clone());
        let stable =
            stable.or_else(|| self.status().stable.map(|stable| stable.replica_set)).unwrap_or_default();
        let stable_is_ready = self.pods.of(&stable).any(|pod| pod.ready);
        // Its ReplicaSet was deleted from outside: whatever pods are left serve.
        let gone = run.is_some() && self.api.now.get(Res::ReplicaSet, &stable).is_none();
        let left = gone && !self.hindered() && self.pods.all.values().any(|pod| pod.ready);
        self.truth.served_since =
            (stable_is_ready || left).then(|| self.truth.served_since.unwrap_or(self.now));
        self.truth.served_since
    }

    /// No self-made outage: where there is weight there is a ready pod, and pods go only when no caller can meet them.
    fn no_request_meets_a_dead_end(&mut self, run: Option<&Run>) {
        let ended = std::mem::take(&mut self.pods.ended);
        let at = self.now;
        // Before stable had a ready pod there was nobody to ask, and proxies are as far behind.
        let served = self.served_since(run).is_some_and(|since| at > later(since, LAG_SECONDS));
        let asleep = self.truth.sizes.last().is_some_and(|(_, size)| *size == 0);
        if self.disturbed() || self.truth.foreign || asleep {
            return;
        }
        let planes: Vec<Plane> = self.router.possible(at).cloned().collect();
        if served {
            for plane in &planes {
                let ends: Vec<String> = plane.dead_ends().into_iter().map(ToOwned::to_owned).collect();
                for service in ends {
                    self.violate(&format!("requests meet Service {service}, which has no ready pod"));
                }
            }
        }
        for pod in ended {
            // Freed by break-glass, the Deployment rolls as it does without us.
            if pod.ready
                && !self.truth.lawless
                && planes.iter().any(|plane| plane.receivers().contains(pod.name.as_str()))
            {
                self.violate(&format!("pod {} of {} goes while callers can meet it", pod.name, pod.image));
            }
        }
    }

    /// Largest percent of a rule that meets pods of this digest, as the objects ask for.
    fn exposure(&self, digest: &str) -> i64 {
        let Some(plane) = self.router.wanted() else {
            return 0;
        };
        let share = |service: &str| {
            let pods = plane.endpoints.get(service);
            let all = pods.map_or(0, BTreeSet::len);
            let met = |name: &&String| self.pods.all.get(*name).is_some_and(|pod| pod.digest == digest);
            let ours = pods.map_or(0, |pods| pods.iter().filter(met).count());
            (i64::try_from(ours).unwrap_or(0), i64::try_from(all).unwrap_or(0))
        };
        let of_rule = |rule: &Vec<crate::router::Backend>| {
            let weights: i64 = rule.iter().map(|backend| backend.weight).sum();
            let met: i64 = rule
                .iter()
                .map(|backend| {
                    let (ours, all) = share(&backend.service);
                    if all == 0 || weights == 0 { 0 } else { 100 * backend.weight * ours / (all * weights) }
                })
                .sum();
            met
        };
        plane.rules.iter().map(of_rule).max().unwrap_or(0)
    }

    /// Weights of others stand in a route, or no longer do; proxies follow a little later.
    fn foreign_stands(&mut self, stands: bool) {
        if self.truth.foreign && !stands {
            self.truth.foreign = false;
            self.disturb(0);
        }
    }

    fn exposure_is_planned(&mut self, run: Option<&Run>) {
        let Some(run) = run.filter(|_| !self.truth.lawless) else {
            let canary = self.router.wanted().map_or(0, |plane| plane.percent_to(&[fixture::CANARY]));
            self.foreign_stands(canary > 0);
            return;
        };
        let step = usize::try_from(run.step).ok().and_then(|step| run.plan.steps.get(step));
        let allowed = match run.stage {
            Stage::Preparing => 0,
            Stage::Stepping => step.map_or(0, |step| i64::from(step.weight_percent)),
            Stage::Promoting | Stage::Watching | Stage::Finishing => 100,
            Stage::Returning => i64::from(run.max_weight_percent),
        };
        let exposure = self.exposure(&run.canary.digest);
        let asked = self.router.wanted().map_or(0, |plane| plane.percent_to(&[fixture::CANARY]));
        self.foreign_stands(exposure > allowed || asked > allowed);
        if exposure <= allowed {
            return;
        }
        if !self.truth.foreign {
            self.violate(&format!("exposure {exposure} % in stage {:?}, {allowed} % is planned", run.stage));
        }
    }

    fn rejected_stays_away(&mut self, run: Option<&Run>) {
        if self.truth.lawless {
            return;
        }
        let rejected: BTreeSet<String> = self.status().quarantine.into_iter().map(|q| q.digest).collect();
        if rejected.is_empty() {
            return;
        }
        let at = self.now;
        let met: BTreeSet<String> = self
            .router
            .possible(at)
            .flat_map(|plane| plane.receivers().into_iter().map(ToOwned::to_owned).collect::<Vec<_>>())
            .collect();
        let found =
            met.iter().filter_map(|name| self.pods.all.get(name)).find(|pod| rejected.contains(&pod.digest));
        if let Some(pod) = found.cloned()
            && run.is_none_or(|run| run.canary.digest != pod.digest)
        {
            self.violate(&format!("callers meet {} of {}, which was rejected", pod.name, pod.image));
        }
    }

    /// ReplicaSets that the native controller sees as the Deployment's.
    pub fn visible(&self) -> Vec<String> {
        let Some(deployment) = self.api.now.get(Res::Deployment, NAME) else {
            return Vec::new();
        };
        let uid = text(deployment, "/metadata/uid");
        let owned = |set: &Value| {
            let owners = at(set, "/metadata/ownerReferences").and_then(Value::as_array);
            owners.into_iter().flatten().any(|owner| {
                text(owner, "/uid") == uid && owner.get("controller").and_then(Value::as_bool) == Some(true)
            })
        };
        let sets = self.api.now.list(Res::ReplicaSet).filter(|set| owned(set));
        sets.map(|set| text(set, "/metadata/name").to_owned()).collect()
    }

    /// Stable's share of the requests has a Service: one that is deleted is soon made again.
    fn stable_service_is_there(&mut self) {
        let deployed = self.api.now.get(Res::Deployment, NAME).is_some();
        if !deployed || self.hindered() || self.api.now.get(Res::Service, fixture::STABLE).is_some() {
            self.truth.no_service_since = None;
            return;
        }
        let since = *self.truth.no_service_since.get_or_insert(self.now);
        if self.now > later(since, RESTORE_SECONDS) {
            self.violate("the stable Service was deleted and is not made again");
        }
    }

    /// A run begins only while no alert fires; going back to a good revision is gated by nothing.
    fn nothing_starts_in_an_incident(&mut self, run: &Run) {
        let fired = self.judge.incident.is_some_and(|since| run.started_at > since);
        if fired && run.kind == RunKind::Canary && run.stage == Stage::Preparing {
            self.violate(&format!("run {} began while an alert fired", run.id));
        }
    }

    /// The canary's ready pods carry what the routes send to them: at least three quarters of those that it takes.
    fn ready_pods_carry_their_weight(&mut self, run: &Run) {
        let percent = self.router.wanted().map_or(0, |plane| plane.percent_to(&[fixture::CANARY]));
        let size =
            self.api.now.get(Res::Deployment, NAME).and_then(|d| int(d, "/spec/replicas")).unwrap_or(0);
        let ready =
            |set: &str| i64::try_from(self.pods.of(set).filter(|pod| pod.ready).count()).unwrap_or(i64::MAX);
        let need = ((size * percent + 99) / 100).max(1);
        let stable_is_whole = ready(&run.stable.replica_set) >= size;
        let carried = ready(&run.canary.replica_set) * 4 >= need * 3;
        let excused = self.truth.foreign || self.truth.lawless || self.hindered() || !stable_is_whole;
        if run.stage != Stage::Stepping || percent == 0 || carried || excused {
            self.truth.overloaded_since = None;
            return;
        }
        let since = *self.truth.overloaded_since.get_or_insert(self.now);
        if self.now > later(since, LOWER_SECONDS) {
            self.violate(&format!("too few canary pods are ready for weight {percent} % since {since:.0}"));
        }
    }

    /// While requests meet two revisions the Deployment sees one ReplicaSet, and it is stable's; after release the
    /// new one's.
    fn one_set_is_visible(&mut self, run: &Run) {
        if self.truth.lawless || self.api.now.get(Res::Deployment, NAME).is_none() {
            return;
        }
        let visible = self.visible();
        let (stable, canary) = (&run.stable.replica_set, &run.canary.replica_set);
        let wrong = match run.stage {
            Stage::Stepping => visible != [stable.clone()],
            Stage::Promoting | Stage::Returning => {
                let with_pods = |name: &&String| self.pods.of(name).next().is_some();
                visible.iter().filter(with_pods).filter(|name| [stable, canary].contains(name)).count() > 1
            }
            Stage::Watching => visible.contains(stable),
            Stage::Preparing | Stage::Finishing => false,
        };
        if wrong {
            self.violate(&format!("in stage {:?} the Deployment sees {visible:?}", run.stage));
        }
    }

    /// Stable can take everything back: its size is the Deployment's until the watched period is over.
    fn stable_keeps_its_size(&mut self, run: &Run) {
        if self.truth.lawless || run.stage == Stage::Finishing || self.hindered() {
            return;
        }
        let Some(stable) = self.api.now.get(Res::ReplicaSet, &run.stable.replica_set) else {
            return;
        };
        let (wanted, least) = (int(stable, "/spec/replicas").unwrap_or(0), self.least_size(AFTER_SECONDS));
        let gone = self.truth.finishing.contains(&run.id);
        let gone = gone || run.going_back.as_ref().is_some_and(|back| back.verified_at.is_some());
        if wanted < least && !gone {
            self.violate(&format!("stable wants {wanted} pods of {least} in stage {:?}", run.stage));
        }
    }

    /// The pods that were tested are the pods that are promoted.
    fn tested_pods_stay(&mut self, run: &Run) {
        let promoting = matches!(run.stage, Stage::Promoting | Stage::Watching | Stage::Finishing);
        if !promoting || run.going_back.is_some() {
            return;
        }
        let pods: BTreeSet<String> =
            self.pods.of(&run.canary.replica_set).map(|pod| pod.name.clone()).collect();
        let tested = self.truth.tested.entry(run.id.clone()).or_insert_with(|| pods.clone()).clone();
        if self.disturbed() || self.truth.lawless || self.truth.resized.contains(&run.id) {
            self.truth.tested.insert(run.id.clone(), pods);
            return;
        }
        if let Some(lost) = tested.difference(&pods).next() {
            self.violate(&format!("promotion lost the tested pod {lost}"));
            self.truth.tested.insert(run.id.clone(), pods);
        }
    }

    /// Once an abort is decided exposure only falls, and is 0 in bounded time.
    fn an_abort_goes_down(&mut self, run: &Run) {
        let Some(back) = &run.going_back else {
            return;
        };
        if self.truth.lawless {
            return;
        }
        let exposure = self.exposure(&run.canary.digest);
        let least = *self.truth.least.entry(run.id.clone()).or_insert(exposure);
        if exposure > least && !self.truth.foreign && !self.disturbed() {
            self.violate(&format!(
                "exposure rose from {least} to {exposure} % after the abort of run {}",
                run.id
            ));
        }
        self.truth.least.insert(run.id.clone(), exposure.min(least));
        let bound = if run.released { REVERT_SECONDS } else { ABORT_SECONDS };
        let since = self.truth.hindered_until.map_or(back.since, |until| until.max(back.since));
        let since = self.truth.disturbed_until.map_or(since, |until| until.max(since));
        if exposure > 0 && self.now > later(since, bound + LAG_SECONDS) && !self.truth.foreign {
            self.violate(&format!(
                "run {} still has {exposure} % exposure {bound} s after its abort",
                run.id
            ));
        }
    }
}
