//! Forward: bring up the canary, expose it step by step, and judge each step.
//!
//! The order is always pods, endpoints, capacity, weight, acknowledgement, settle time, evidence. Every wait
//! here ends by itself: in the next step, or back at stable.

use serde_json::Map;

use crate::action::Lane;
use crate::api::{ApexCallers, FINALIZER, LABEL_HASH, Outcome, Run, RunKind, Stage, WeightIntent};
use crate::render::{self, Role};
use crate::view::{ReplicaSet, Workload};

use super::draft::Draft;
use super::stop;
use super::traffic::{self, Weights};

/// How long a route may take to show and accept a weight, in seconds.
const ACCEPT_SECONDS: i32 = 60;
/// Foreign overwrites in one step after which the canary goes to weight 0 and waits.
const OVERWRITES_PER_STEP: i32 = 3;
/// A hold for lack of evidence lasts this many bakes, and at least [`SHORTEST_HOLD_SECONDS`].
const HOLD_BAKES: i32 = 4;
const SHORTEST_HOLD_SECONDS: i32 = 60;
/// What a pod says that no node has room for.
const UNSCHEDULABLE: &str = "Unschedulable";
/// What waits for an input that can't be read.
const CANNOT_READ: &str = "CannotRead";
/// How long pods that are ready may have no endpoints while they have traffic, in seconds.
const ENDPOINT_SECONDS: i32 = 5;
const NOT_READY: &str = "CanaryNotReady";
/// Reasons of holds that are told apart here.
const NO_DATA: &str = "NoData";
const NOT_ENOUGH: &str = "NotEnoughEvidence";
/// What waits for a person at `pauseBeforePercent`.
pub(super) const AT_GATE: &str = "PausedBeforePercent";
/// How long a person is waited for, in seconds.
const PERSON_SECONDS: i32 = 72 * 3600;
/// The observed share may differ from the weight by three standard deviations, but at least this much, or this
/// part of the weight: pods are scraped at different moments, and a new pod counts from its first request.
const SHARE_TOLERANCE: f64 = 0.02;
const SHARE_TOLERANCE_RELATIVE: f64 = 0.1;

/// Pods that a weight needs: no more than it needs, at least one.
pub(super) fn pods_for(replicas: i32, percent: i32) -> i32 {
    let wanted = (i64::from(replicas) * i64::from(percent) + 99) / 100;
    i32::try_from(wanted).unwrap_or(replicas).clamp(1, replicas.max(1))
}

/// Hide history, pin the pair, bring up the first canary pod.
pub(super) fn prepare(d: &mut Draft<'_>, mut run: Run) {
    if cannot_read(d, &mut run) {
        finish_pass(d, run);
        return;
    }
    let Some(workload) = d.workload() else {
        d.status.run = Some(run);
        return;
    };
    if add_finalizer(d) || weight_is_foreign(d, &run) || hide_history(d, &run, workload) || pin_pair(d, &run)
    {
        let seconds = run.plan.progress_deadline_seconds;
        d.wait_until(d.after(run.stage_since, seconds));
        if d.passed(run.stage_since, seconds) {
            let wait =
                d.wait.as_ref().map_or_else(|| "nothing got ready".to_owned(), |wait| wait.message.clone());
            let message = format!("the canary could not be prepared within {seconds} s: {wait}");
            d.go_back(&mut run, Outcome::NotProven, "NotPrepared", message);
        }
        finish_pass(d, run);
        return;
    }
    match canary_set(d, &run, workload) {
        None if changed_set(d, &run).is_some() => {
            changed(d, &mut run);
            finish_pass(d, run);
            return;
        }
        None => {
            d.act(render::create_canary(&d.name, &d.namespace, workload, 1));
        }
        Some(set) => {
            if set.visible_to(workload) {
                d.act(render::hide(Lane::Forward, &d.name, workload, set, Role::Canary));
            } else if set.replicas == 0 {
                d.act(render::scale(Lane::Forward, "scale-canary", set, 1));
            }
            if set.replicas > 0
                && set.available > 0
                && d.seen.ready_behind(&run.plan.canary_service, &set.name) > 0
            {
                run.canary = set.revision(run.canary.commit.clone());
                run.stage = Stage::Stepping;
                run.step = 0;
                run.stage_since = d.now;
                run.canary_short_since = None;
                d.status.run = Some(run);
                d.wake_within(super::draft::BUSY_WAKE);
                return;
            }
        }
    }
    ready_or_back(d, &mut run, 1);
    finish_pass(d, run);
}

/// One step: capacity, weight, acknowledgement, settle, evidence, next.
pub(super) fn step(d: &mut Draft<'_>, mut run: Run) {
    if cannot_read(d, &mut run) {
        finish_pass(d, run);
        return;
    }
    let Some(workload) = d.workload() else {
        d.status.run = Some(run);
        return;
    };
    let Some(step) = usize::try_from(run.step).ok().and_then(|index| run.plan.steps.get(index)).copied()
    else {
        // A plan always has the step that a run is in; if not, the safe side is stable.
        d.go_back(&mut run, Outcome::NotProven, "PlanLost", "the plan does not have the step the run is in");
        finish_pass(d, run);
        return;
    };
    if run.overwritten {
        overwritten(d, run);
        return;
    }
    if unpinned(d, &run) {
        finish_pass(d, run);
        return;
    }
    let rises = run.weight.is_none_or(|weight| weight.percent != step.weight_percent);
    if rises && stop::stable_lacks_pods(&run) {
        // Nothing more is asked of the cluster before stable has what it needs; what is in force stays in force.
        let percent = run.weight.map_or(0, |weight| weight.percent);
        if capacity(d, &mut run, workload, percent) && percent > 0 {
            weight_is_live(d, &mut run, percent);
        }
        stop::wait_for_stable(d, &run);
        finish_pass(d, run);
        return;
    }
    if !capacity(d, &mut run, workload, step.weight_percent) {
        finish_pass(d, run);
        return;
    }
    if rises && run.kind == RunKind::Canary && !may_rise(d, &mut run, step.bake_seconds) {
        finish_pass(d, run);
        return;
    }
    if !weight_is_live(d, &mut run, step.weight_percent) {
        finish_pass(d, run);
        return;
    }
    if may_advance(d, &mut run, step.bake_seconds) && !stop::wait_for_stable(d, &run) {
        advance(d, &mut run);
    }
    finish_pass(d, run);
}

/// Keeps the run in status, or lets going back begin in the same pass: an abort never waits for the next one.
pub(super) fn finish_pass(d: &mut Draft<'_>, run: Run) {
    if run.going_back.is_some() {
        d.actions.retain(|action| action.lane == Lane::Abort);
        super::back::step(d, run);
    } else {
        d.status.run = Some(run);
    }
}

/// Waits while something can't be read: nothing moves forward on a guess, and after as long as the plan allows
/// without data the run goes back. A revision that is the workload's own already has no safer side. False when
/// everything was read.
pub(super) fn cannot_read(d: &mut Draft<'_>, run: &mut Run) -> bool {
    let gone = || d.workload().is_none().then(|| "the Deployment does not exist".to_owned());
    let Some(why) = d.seen.unseen().or_else(gone) else {
        return false;
    };
    let seconds = run.plan.no_data_seconds;
    let since = d.waits_since(CANNOT_READ);
    let message = format!("{why}; the weight stays");
    if run.released {
        d.wait(CANNOT_READ, message, None);
    } else if d.passed(since, seconds) {
        d.go_back(run, Outcome::NotProven, CANNOT_READ, format!("{why}, for {seconds} s"));
    } else {
        d.wait(CANNOT_READ, message, Some(d.after(since, seconds)));
    }
    true
}

/// Adds the finalizer if it is missing; true when the pass ends with it.
pub(super) fn add_finalizer(d: &mut Draft<'_>) -> bool {
    let meta = &d.input.rollout.metadata;
    let finalizers = meta.finalizers.clone().unwrap_or_default();
    if finalizers.iter().any(|name| name == FINALIZER) {
        return false;
    }
    let uid = meta.uid.clone().unwrap_or_default();
    d.act(render::add_finalizer(&d.name, &uid, &finalizers));
    true
}

/// Somebody gave the canary Service weight before there is a canary: it goes back to 0 first, since a pod that comes
/// up behind it would be exposed at once. True when that has to be done.
fn weight_is_foreign(d: &mut Draft<'_>, run: &Run) -> bool {
    if !matches!(traffic::shown(&run.plan, d.seen), Weights::All(1..) | Weights::Mixed) {
        return false;
    }
    traffic::set(d, run, Lane::Abort, 0);
    if !d.told("RouteOverwritten") {
        d.warn(
            "RouteOverwritten",
            "the canary Service had weight before the run gave it any; it goes back to 0",
        );
    }
    d.wait(
        "RouteOverwritten",
        "something else writes the weights of a route: let it ignore spec.rules[].backendRefs[].weight",
        None,
    );
    true
}

/// During a run the only ReplicaSet that the Deployment sees is stable's. True when something had to be hidden.
fn hide_history(d: &mut Draft<'_>, run: &Run, workload: &Workload) -> bool {
    let others: Vec<&ReplicaSet> = d
        .seen
        .replica_sets()
        .filter(|set| set.visible_to(workload) && set.name != run.stable.replica_set)
        .collect();
    for set in &others {
        let role = if set.digest == run.canary.digest { Role::Canary } else { Role::History };
        d.act(render::hide(Lane::Forward, &d.name, workload, set, role));
    }
    if !others.is_empty() {
        d.wait(
            "HidingHistory",
            format!("{} older ReplicaSets are hidden from the Deployment", others.len()),
            None,
        );
    }
    !others.is_empty()
}

/// Pins the pair to its two revisions. True when something had to change: pods come only after that.
fn pin_pair(d: &mut Draft<'_>, run: &Run) -> bool {
    let plan = &run.plan;
    let apex = apex_selector(d, run);
    let hashes = [(&plan.stable_service, &run.stable.hash), (&plan.canary_service, &run.canary.hash)];
    let mut changed = false;
    for (name, hash) in hashes {
        // One that is missing is made again before this.
        if let Some(service) = d.seen.service(name)
            && service.pinned() != Some(hash.as_str())
        {
            d.act(render::select(Lane::Forward, service, render::pinned(&apex, hash)));
            changed = true;
        }
    }
    if changed {
        d.wait("PinningServices", "the pair of Services is pinned to its two revisions", None);
    }
    changed
}

/// Somebody took the pin off stable's Service: canary pods would get a share of its traffic, whatever the weight. True
/// when it has to be put back.
fn unpinned(d: &mut Draft<'_>, run: &Run) -> bool {
    let apex = apex_selector(d, run);
    let Some(service) = d.seen.service(&run.plan.stable_service).filter(|s| s.pinned().is_none()) else {
        return false;
    };
    d.act(render::select(Lane::Forward, service, render::pinned(&apex, &run.stable.hash)));
    let message =
        format!("Service {} lost its pin to {}; it is pinned again", service.name, run.stable.replica_set);
    d.wait("PinningServices", message, None);
    true
}

/// Selector that the pair has at rest: the apex Service's, or what one of the pair shows without its pin.
pub(super) fn apex_selector(d: &Draft<'_>, run: &Run) -> Map<String, serde_json::Value> {
    let names = [&run.plan.service, &run.plan.stable_service, &run.plan.canary_service];
    let found = names.into_iter().find_map(|name| d.seen.service(name));
    let mut selector = found.map(|service| service.selector.clone()).unwrap_or_default();
    selector.remove(LABEL_HASH);
    selector
}

/// The ReplicaSet with the run's template: ours first, else the oldest, as the native controller would choose.
pub(super) fn canary_set<'a>(d: &Draft<'a>, run: &Run, workload: &Workload) -> Option<&'a ReplicaSet> {
    let named = d.seen.replica_set(&run.canary.replica_set);
    named.filter(|set| set.digest == run.canary.digest).or_else(|| {
        d.seen.replica_sets().find(|set| {
            set.digest == run.canary.digest
                && set.name != run.stable.replica_set
                && set.owner_uids.contains(&workload.uid)
        })
    })
}

/// The ReplicaSet that we made for this run, with another template than the run's: somebody changed it. It is no canary,
/// but its pods have to go all the same.
pub(super) fn changed_set<'a>(d: &Draft<'a>, run: &Run) -> Option<&'a ReplicaSet> {
    let named = d.seen.replica_set(&run.canary.replica_set)?;
    (named.digest != run.canary.digest
        && named.role == Role::Canary.as_str()
        && super::leave::is_ours(d, named))
    .then_some(named)
}

fn changed(d: &mut Draft<'_>, run: &mut Run) {
    let message = format!(
        "ReplicaSet {} has another template than the one that is tried: does something mutate ReplicaSets?",
        run.canary.replica_set
    );
    d.go_back(run, Outcome::NotProven, "CanaryChanged", message);
}

/// Scales the canary to what the weight needs and waits until that many pods are ready behind its Service.
fn capacity(d: &mut Draft<'_>, run: &mut Run, workload: &Workload, percent: i32) -> bool {
    let Some(set) = canary_set(d, run, workload) else {
        if changed_set(d, run).is_some() {
            changed(d, run);
            return false;
        }
        d.go_back(run, Outcome::NotProven, "CanaryGone", "the canary's ReplicaSet was deleted from outside");
        return false;
    };
    let need = pods_for(workload.replicas, percent);
    let exposed = run.weight.is_some_and(|weight| weight.percent > 0);
    // Scaling down waits until the weight is that of this step: capacity before traffic, in both directions.
    let settled = run.weight.is_some_and(|weight| weight.percent == percent && weight.settled_at.is_some());
    if set.replicas < need || (set.replicas > need && settled) {
        d.act(render::scale(Lane::Forward, "scale-canary", set, need));
    }
    let ready = d.seen.ready_behind(&run.plan.canary_service, &set.name).min(set.available);
    if exposed && ready == 0 {
        let since = *run.canary_short_since.get_or_insert(d.now);
        if set.available > 0 && !d.passed(since, ENDPOINT_SECONDS) {
            // As after its Service was made again: the pods are there, their endpoints follow.
            let deadline = d.after(since, ENDPOINT_SECONDS);
            d.wait(NOT_READY, "canary pods are ready, their endpoints are not there yet", Some(deadline));
            return false;
        }
        let trouble = d.seen.trouble.as_ref().map(|t| format!(": pod {} {} {}", t.pod, t.reason, t.message));
        let message = format!("no canary pod is ready while it has traffic{}", trouble.unwrap_or_default());
        d.go_back(run, Outcome::NotProven, "CanaryUnavailable", message);
        return false;
    }
    if ready >= need {
        run.canary_short_since = None;
        return true;
    }
    ready_or_back(d, run, need);
    // Pods that were ready for this weight and are not now: the weight stays, evidence still counts.
    false
}

/// Waits for ready pods until the workload's own progress deadline, then goes back with the pod's own reason.
///
/// The deadline counts from when pods were short: one that is replaced, or that a larger workload asks for, has its
/// own time, however long the step has lasted.
fn ready_or_back(d: &mut Draft<'_>, run: &mut Run, need: i32) {
    let seconds = run.plan.progress_deadline_seconds;
    let since = *run.canary_short_since.get_or_insert(d.now);
    let trouble = d.seen.trouble.as_ref().map(|t| {
        let message = if t.message.is_empty() { String::new() } else { format!(" ({})", t.message) };
        format!("; pod {} says {}{message}", t.pod, t.reason)
    });
    let trouble = trouble.unwrap_or_default();
    if d.passed(since, seconds) {
        let message = format!("{need} canary pods were not ready within {seconds} s{trouble}");
        if d.seen.trouble.as_ref().is_some_and(|trouble| trouble.reason == UNSCHEDULABLE) {
            // The cluster has no room for it: that says nothing about the revision.
            d.go_back(run, Outcome::NotProven, UNSCHEDULABLE, message);
        } else {
            d.go_back(run, Outcome::Rejected, "ProgressDeadlineExceeded", message);
        }
        return;
    }
    let message = format!("waits for {need} ready canary pods, at most {seconds} s{trouble}");
    d.wait(NOT_READY, message, Some(d.after(since, seconds)));
}

/// Asks for the weight, and waits until it is shown, accepted and settled.
fn weight_is_live(d: &mut Draft<'_>, run: &mut Run, percent: i32) -> bool {
    let asked = run.weight.filter(|weight| weight.percent == percent);
    let Some(mut weight) = asked else {
        run.weight = Some(WeightIntent { percent, at: d.now, accepted_at: None, settled_at: None });
        run.max_weight_percent = run.max_weight_percent.max(percent);
        if run.exposed_since.is_none() {
            run.exposed_since = Some(d.now);
        }
        traffic::set(d, run, Lane::Forward, percent);
        d.wait(
            "SettingWeight",
            format!("weight {percent} % is asked of the routes"),
            Some(d.after(d.now, ACCEPT_SECONDS)),
        );
        return false;
    };
    let shown = traffic::shown(&run.plan, d.seen);
    if shown != Weights::All(percent) {
        if weight.accepted_at.is_some() {
            run.overwrites += 1;
            run.overwrites_total += 1;
            let message = format!(
                "the weights of a route were overwritten from outside ({} in this step); let your GitOps tool ignore spec.rules[].backendRefs[].weight",
                run.overwrites
            );
            d.warn("RouteOverwritten", message);
            if run.overwrites >= OVERWRITES_PER_STEP {
                run.overwritten = true;
                run.hold_since = Some(d.now);
                run.weight = None;
                traffic::set(d, run, Lane::Abort, 0);
                return false;
            }
            // The window is tainted: it starts anew once the weight is live again.
            weight = WeightIntent { percent, at: d.now, accepted_at: None, settled_at: None };
            run.weight = Some(weight);
        }
        traffic::set(d, run, Lane::Forward, percent);
    } else if weight.accepted_at.is_none() && traffic::not_accepted(&run.plan, d.seen).is_none() {
        weight.accepted_at = Some(d.now);
        run.weight = Some(weight);
    }
    let Some(accepted_at) = weight.accepted_at else {
        let deadline = d.after(weight.at, ACCEPT_SECONDS);
        let why = traffic::not_accepted(&run.plan, d.seen)
            .unwrap_or_else(|| "the route does not show it yet".to_owned());
        if d.passed(weight.at, ACCEPT_SECONDS) {
            d.go_back(
                run,
                Outcome::NotProven,
                "WeightNotLive",
                format!("weight {percent} % was not accepted in {ACCEPT_SECONDS} s: {why}"),
            );
            return false;
        }
        d.wait("WeightNotLive", format!("weight {percent} %: {why}"), Some(deadline));
        return false;
    };
    if weight.settled_at.is_none() {
        let settle = run.plan.settle_seconds;
        if !d.passed(accepted_at, settle) {
            let deadline = d.after(accepted_at, settle);
            d.wait(
                "Settling",
                format!("weight {percent} % is accepted; proxies get {settle} s to follow"),
                Some(deadline),
            );
            return false;
        }
        weight.settled_at = Some(d.now);
        run.weight = Some(weight);
        let observed = observed_words(d, run);
        d.normal(
            "TrafficShifted",
            format!("step {}/{}: weight {percent} % is live{observed}", run.step + 1, run.plan.steps.len()),
        );
    }
    true
}

fn observed_words(d: &Draft<'_>, run: &Run) -> String {
    match d.input.verdict.share {
        Some((canary, all)) if all > 0.0 && d.input.verdict.run_id == run.id => {
            format!(", observed {:.1} %", 100.0 * canary / all)
        }
        _ => String::new(),
    }
}

/// Too many overwrites: the canary stays at weight 0 until a person resumes, or the deadline.
fn overwritten(d: &mut Draft<'_>, mut run: Run) {
    if !traffic::none_to_canary(&run.plan, d.seen) {
        traffic::set(d, &run, Lane::Abort, 0);
    }
    let since = *run.hold_since.get_or_insert(d.now);
    let bake = run.plan.steps.iter().map(|step| step.bake_seconds).max().unwrap_or(0);
    let seconds = bake.saturating_mul(HOLD_BAKES).max(SHORTEST_HOLD_SECONDS);
    let message = "something else keeps writing the weights of a route: let it ignore spec.rules[].backendRefs[].weight, then `kubectl sluice resume`";
    if d.passed(since, seconds) {
        d.go_back(&mut run, Outcome::NotProven, "RouteOverwritten", message);
    } else {
        d.wait("RouteOverwritten", message, Some(d.after(since, seconds)));
    }
    finish_pass(d, run);
}

/// Whether a weight may be asked for that is not in force yet. Nobody meets a revision that a person holds, whose
/// guards have no data (a query that is refused, a provider that is not there) or that comes amid an incident.
fn may_rise(d: &mut Draft<'_>, run: &mut Run, bake_seconds: i32) -> bool {
    if waits_for_person(d, run, false) {
        return false;
    }
    let current = d.input.verdict.run_id == run.id;
    let Some((reason, message)) =
        evidence_holds(d, run, current).filter(|hold| !current || hold.0 != NOT_ENOUGH)
    else {
        return true;
    };
    let since = run.resumed_at.map_or(run.stage_since, |resumed| resumed.max(run.stage_since));
    holds_until(d, run, since, bake_seconds, reason, message);
    false
}

/// Waits for the evidence, and goes back when the step's own deadline has passed.
fn holds_until(
    d: &mut Draft<'_>,
    run: &mut Run,
    since: jiff::Timestamp,
    bake_seconds: i32,
    reason: &'static str,
    message: String,
) {
    let wall =
        bake_seconds.saturating_mul(1 + HOLD_BAKES).max(bake_seconds.saturating_add(SHORTEST_HOLD_SECONDS));
    if d.passed(since, wall) {
        let message = format!("{message}; the step was not passed within {wall} s");
        d.go_back(run, Outcome::NotProven, reason, message);
        return;
    }
    if reason == NO_DATA && !d.told(NO_DATA) {
        d.warn("MetricsUnavailable", format!("run {}: {message}; the weight stays", run.id));
    }
    d.wait(reason, message, Some(d.after(since, wall)));
}

/// Whether a person has to act first.
fn waits_for_person(d: &mut Draft<'_>, run: &mut Run, baked: bool) -> bool {
    let Some((reason, message)) = person_holds(d, run, baked) else {
        if run.hold_since.take().is_some() {
            run.resumed_at = Some(d.now);
        }
        return false;
    };
    let since = *run.hold_since.get_or_insert(d.now);
    if d.passed(since, PERSON_SECONDS) {
        let message = format!("{message}; nobody did for {} hours", PERSON_SECONDS / 3600);
        d.go_back(run, Outcome::NotProven, reason, message);
    } else {
        d.wait(reason, message, Some(d.after(since, PERSON_SECONDS)));
    }
    true
}

/// Whether the step is over: healthy long enough, gate open, nothing holds.
fn may_advance(d: &mut Draft<'_>, run: &mut Run, bake_seconds: i32) -> bool {
    if run.kind == RunKind::Return {
        return true;
    }
    let Some(settled_at) = run.weight.and_then(|weight| weight.settled_at) else {
        return false;
    };
    let verdict = d.input.verdict;
    let current = verdict.is_about(&run.id, Stage::Stepping, run.step);
    let healthy = if current { verdict.healthy_seconds } else { 0.0 };
    let baked = healthy >= f64::from(bake_seconds);
    if waits_for_person(d, run, baked) {
        return false;
    }
    let hold = evidence_holds(d, run, current);
    if baked && hold.is_none() {
        return true;
    }
    let (reason, message) = match hold {
        Some((reason, message)) if baked || reason != NOT_ENOUGH => (reason, message),
        _ => ("Baking", format!("observes at this weight, {healthy:.0} of {bake_seconds} healthy seconds")),
    };
    // Time that a person took does not count against the evidence.
    let since = run.resumed_at.map_or(settled_at, |resumed| resumed.max(settled_at));
    holds_until(d, run, since, bake_seconds, reason, message);
    false
}

/// What a person has to do before the weight may rise. The gate at a percentage is asked for only once the step is
/// over otherwise.
fn person_holds(d: &Draft<'_>, run: &Run, baked: bool) -> Option<(&'static str, String)> {
    if d.spec.suspend {
        return Some(("Suspended", "spec.suspend is true: set it to false to go on".to_owned()));
    }
    if run.paused {
        return Some((
            "Paused",
            format!("a person paused it: kubectl sluice resume {} -n {}", d.name, d.namespace),
        ));
    }
    // Before anybody meets the canary, the gate is that of the first step.
    let first = run.exposed_since.is_none();
    let next = if first { 0 } else { run.step + 1 };
    let next = usize::try_from(next).ok().and_then(|index| run.plan.steps.get(index));
    let next = next.map(|step| step.weight_percent);
    match (run.plan.pause_before_percent, next) {
        (Some(limit), Some(next)) if (baked || first) && next >= limit && !run.released_gate => Some((
            AT_GATE,
            format!(
                "waits for a person before {limit} %: kubectl sluice resume {} -n {}",
                d.name, d.namespace
            ),
        )),
        _ => None,
    }
}

/// What the evidence says against a rise of the weight.
fn evidence_holds(d: &Draft<'_>, run: &Run, current: bool) -> Option<(&'static str, String)> {
    let verdict = d.input.verdict;
    if !current {
        return Some((NOT_ENOUGH, "waits for the first evaluation of this step".to_owned()));
    }
    if let Some(why) = verdict.holds.first() {
        let reason = match why.reason.as_str() {
            NO_DATA => NO_DATA,
            "AlertFiring" => "AlertFiring",
            "SharedIncident" => "SharedIncident",
            "Suspicion" => "Suspicion",
            _ => "GuardHolds",
        };
        return Some((reason, why.message.clone()));
    }
    if let Some((_, what)) = &verdict.no_data {
        return Some((NO_DATA, what.clone()));
    }
    if !verdict.gate_open {
        return Some((NOT_ENOUGH, verdict.needs.clone()));
    }
    share_differs(d, run).map(|message| ("WeightNotLive", message))
}

/// The only proof that proxies follow: the observed share of requests. Callers of the apex Service meet the
/// canary by its share of pods, so with those the share may lie anywhere between the two.
fn share_differs(d: &Draft<'_>, run: &Run) -> Option<String> {
    let (canary, all) = d.input.verdict.share.filter(|(_, all)| *all > 0.0)?;
    let weight = f64::from(run.weight?.percent) / 100.0;
    let observed = canary / all;
    let pods = exposure_by_pods(d, run);
    let (low, high) = match run.plan.apex_callers {
        ApexCallers::None => (weight, weight),
        ApexCallers::Some => (weight.min(pods), weight.max(pods)),
    };
    let tolerance = |share: f64| {
        (3.0 * (share * (1.0 - share) / all).sqrt())
            .max(SHARE_TOLERANCE)
            .max(SHARE_TOLERANCE_RELATIVE * share)
    };
    let outside = observed < low - tolerance(low) || observed > high + tolerance(high);
    outside.then(|| {
        format!(
            "{:.1} % of {all:.0} requests met the canary, {:.0} % were asked for: do all requests pass the routes?",
            100.0 * observed,
            100.0 * weight
        )
    })
}

/// Share of pods that are canary pods: what callers of the apex Service meet.
pub(super) fn exposure_by_pods(d: &Draft<'_>, run: &Run) -> f64 {
    let available = |name: &str| d.seen.replica_set(name).map_or(0, |set| set.available);
    let canary = f64::from(available(&run.canary.replica_set));
    let all = canary + f64::from(available(&run.stable.replica_set));
    if all > 0.0 { canary / all } else { 0.0 }
}

/// The next step, or promotion after the last.
fn advance(d: &mut Draft<'_>, run: &mut Run) {
    let steps = run.plan.steps.len();
    let passed = run.step + 1;
    let guards: Vec<String> = d.input.verdict.guards.iter().map(|g| g.message.clone()).collect();
    run.hold_since = None;
    run.resumed_at = None;
    run.overwrites = 0;
    run.stage_since = d.now;
    if usize::try_from(passed).is_ok_and(|index| index < steps) {
        run.step = passed;
        let next = run.plan.steps.get(usize::try_from(passed).unwrap_or(0)).map_or(100, |s| s.weight_percent);
        d.normal("StepPassed", format!("step {passed}/{steps} passed, next {next} %; {}", guards.join("; ")));
    } else {
        run.stage = Stage::Promoting;
        d.normal(
            "StepPassed",
            format!("step {passed}/{steps} passed, promotion begins; {}", guards.join("; ")),
        );
    }
    d.wake_within(std::time::Duration::ZERO);
}
