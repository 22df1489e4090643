//! Pods before traffic: the canary's ReplicaSet, its size, and how long its pods may take.

use crate::action::Lane;
use crate::api::{Outcome, Run};
use crate::limits::pods_for;
use crate::render::{self, Role};
use crate::view::{ReplicaSet, Workload};

use super::super::draft::Draft;
use super::super::{leave, stop};
use super::weight::lower;

/// What a pod says that no node has room for.
const UNSCHEDULABLE: &str = "Unschedulable";
/// How long pods that are ready may have no endpoints while they have traffic, in seconds.
const ENDPOINT_SECONDS: i32 = 5;
/// What waits for canary pods.
const NOT_READY: &str = "CanaryNotReady";
/// How long ready pods may carry the share of others, in seconds: a container restarts in less, and half as long as a
/// pod's replacement takes on a busy node would be too long for callers.
const OVERLOADED_SECONDS: i32 = 20;
/// How often the weight is lowered in one step for lack of ready pods; then the run goes back.
const LOWERED_PER_STEP: i32 = 2;

/// The ReplicaSet with the run's template: ours first, else the oldest, as the native controller would choose.
pub(in crate::decide) fn canary_set<'a>(
    d: &Draft<'a>,
    run: &Run,
    workload: &Workload,
) -> Option<&'a ReplicaSet> {
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
pub(in crate::decide) fn changed_set<'a>(d: &Draft<'a>, run: &Run) -> Option<&'a ReplicaSet> {
    let named = d.seen.replica_set(&run.canary.replica_set)?;
    (named.digest != run.canary.digest && named.role == Role::Canary.as_str() && leave::is_ours(d, named))
        .then_some(named)
}

pub(super) fn changed(d: &mut Draft<'_>, run: &mut Run) {
    let message = format!(
        "ReplicaSet {} has another template than the one that is tried: does something mutate ReplicaSets?",
        run.canary.replica_set
    );
    d.go_back(run, Outcome::NotProven, "CanaryChanged", message);
}

/// Scales the canary to what the weight needs and waits until that many pods are ready behind its Service.
pub(super) fn capacity(d: &mut Draft<'_>, run: &mut Run, workload: &Workload, percent: i32) -> bool {
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
    let ready = ready_pods(d, run, set);
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

/// Whether ready pods have more traffic than they can carry. Capacity before traffic holds in both directions: the weight
/// falls to what they carry, and stable, which is at its full size, takes the rest.
///
/// Lowering is the milder way than going back, since pods that nodes lose say nothing about the revision; but the window
/// of the evidence starts anew each time, so it is done for a shortage that lasts, and a few times only. A quarter of the
/// pods may be missing, as in a Deployment's own roll.
pub(super) fn overloaded(d: &mut Draft<'_>, run: &mut Run, workload: &Workload) -> bool {
    let percent = run.weight.map_or(0, |weight| weight.percent);
    let set = canary_set(d, run, workload);
    let ready = set.map_or(0, |set| ready_pods(d, run, set));
    let need = pods_for(workload.replicas, percent);
    // Without a single one the run goes back at once; and stable takes nothing more before it has its own pods.
    let short = percent > 0 && ready > 0 && i64::from(ready) * 4 < i64::from(need) * 3;
    if !short || stop::stable_lacks_pods(run) {
        run.overloaded_since = None;
        return false;
    }
    let since = *run.overloaded_since.get_or_insert(d.now);
    if !d.passed(since, OVERLOADED_SECONDS) {
        return false;
    }
    run.overloaded_since = None;
    let carried = i64::from(ready) * 100 / i64::from(workload.replicas.max(1));
    let carried = i32::try_from(carried).unwrap_or(0);
    let what = format!("{ready} of {need} canary pods are ready for weight {percent} %");
    if carried < 1 || run.lowered >= LOWERED_PER_STEP {
        let message = format!("{what} for {OVERLOADED_SECONDS} s, {} times in this step", run.lowered + 1);
        d.go_back(run, Outcome::NotProven, "CanaryUnavailable", message);
        return true;
    }
    run.lowered += 1;
    lower(d, run, carried);
    let message = format!("{what}; they get {carried} % until their number is complete");
    d.warn("WeightLowered", format!("run {}: {message}", run.id));
    let since = *run.canary_short_since.get_or_insert(d.now);
    d.wait(NOT_READY, message, Some(d.after(since, run.plan.progress_deadline_seconds)));
    true
}

/// Pods of the canary that requests can reach.
fn ready_pods(d: &Draft<'_>, run: &Run, set: &ReplicaSet) -> i32 {
    d.seen.ready_behind(&run.plan.canary_service, &set.name).min(set.available)
}

/// Waits for ready pods until the workload's own progress deadline, then goes back with the pod's own reason.
///
/// The deadline counts from when pods were short: one that is replaced, or that a larger workload asks for, has its
/// own time, however long the step has lasted.
pub(super) fn ready_or_back(d: &mut Draft<'_>, run: &mut Run, need: i32) {
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

/// Share of pods that are canary pods: what callers of the apex Service meet.
pub(in crate::decide) fn exposure_by_pods(d: &Draft<'_>, run: &Run) -> f64 {
    let available = |name: &str| d.seen.replica_set(name).map_or(0, |set| set.available);
    let canary = f64::from(available(&run.canary.replica_set));
    let all = canary + f64::from(available(&run.stable.replica_set));
    if all > 0.0 { canary / all } else { 0.0 }
}
