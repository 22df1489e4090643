//! Reasons to go back, asked before anything else moves.
//!
//! None of them needs a router, a metric or another object to be readable: what can't be read holds, it
//! never keeps an abort from happening.

use jiff::Timestamp;

use crate::api::{Outcome, RiskClass, Run, RunKind, Stage};

use super::back;
use super::draft::Draft;
use super::traffic;

/// Reason of returns for counted requests.
const GUARD_TRIPPED: &str = "GuardTripped";
/// Reason of holds and returns while stable fails as well.
pub(super) const SHARED_INCIDENT: &str = "SharedIncident";

/// How long stable may lack pods that it had before the canary makes room, in seconds.
const STABLE_SHORT_SECONDS: i32 = 60;
const SHORT: &str = "StableShort";
/// How long an incident that stable and the canary share may last without a break before the canary makes room, in
/// seconds.
const INCIDENT_SECONDS: i32 = 600;
/// The class from which on it does.
const INCIDENT_CLASS: RiskClass = RiskClass::R2;

/// Sets `going_back` when a reason is found; the first one counts.
pub(super) fn reasons(d: &mut Draft<'_>, run: &mut Run) {
    if run.going_back.is_some() || run.stage == Stage::Finishing {
        return;
    }
    if let Some((outcome, reason)) = traffic::abort_mark(run, d.seen) {
        let alone = judged_alone(run, &reason);
        d.go_back(run, outcome, &reason, "it was already going back when the controller restarted");
        judge_stable(run, alone);
        return;
    }
    if d.input.verdict.run_id == run.id
        && let Some(why) = d.input.verdict.abort.clone()
    {
        let alone = judged_alone(run, &why.reason);
        d.go_back(run, Outcome::Rejected, &why.reason, why.message);
        judge_stable(run, alone);
        return;
    }
    crashing(d, run);
    no_data(d, run);
    shared_incident(d, run);
    superseded(d, run);
    if !run.released
        && let Some(problem) = traffic::problem(&run.plan, d.seen)
    {
        // It sends the canary whatever it likes, and no weight can be asked of it.
        d.go_back(run, Outcome::NotProven, "RouteMissingBackends", problem);
    }
    if matches!(run.stage, Stage::Preparing | Stage::Stepping) {
        stable_short(d, run);
    }
}

/// Whether a guard judged it at weight 100, where no stable beside it tells a fault of the change from one of something it
/// depends on.
fn judged_alone(run: &Run, reason: &str) -> bool {
    let alone = run.released || run.weight.is_some_and(|weight| weight.percent >= 100);
    alone && run.kind == RunKind::Canary && reason == GUARD_TRIPPED
}

fn judge_stable(run: &mut Run, alone: bool) {
    if let Some(back) = &mut run.going_back {
        back.judges_stable |= alone;
    }
}

/// A canary container that crashes again and again will not get better by waiting.
fn crashing(d: &mut Draft<'_>, run: &mut Run) {
    let Some(trouble) = d.seen.trouble.as_ref().filter(|trouble| trouble.crashing) else {
        return;
    };
    let (reason, message) = (trouble.reason.clone(), format!("pod {}: {}", trouble.pod, trouble.message));
    d.go_back(run, Outcome::Rejected, &reason, message);
}

/// A monitoring outage is neither a bad canary nor a good one: it holds, and in the end returns to stable.
fn no_data(d: &mut Draft<'_>, run: &mut Run) {
    if !d.input.verdict.is_about(&run.id, run.stage, run.step) {
        return;
    }
    let Some((since, what)) = d.input.verdict.no_data.clone() else {
        return;
    };
    let limit = run.plan.no_data_seconds;
    if run.released {
        // After promotion there is no safer side to return to without evidence: the old revision stays warm
        // until the watched period can be completed.
        return;
    }
    if d.passed(since, limit) {
        d.go_back(run, Outcome::NotProven, "NoData", format!("{what}; no fresh data for {limit} s"));
    }
}

/// Stable fails as well. That is no evidence against the canary, but the canary may be what overloads something that both
/// depend on: a riskier one makes room, without blame.
fn shared_incident(d: &mut Draft<'_>, run: &mut Run) {
    let seen = d.input.verdict.incident.map(|(_, seen)| seen);
    // Seen for as long, not only waited for.
    if incident_deadline(d, run).is_none_or(|until| seen < Some(until)) {
        return;
    }
    let what = d.input.verdict.holds.iter().find(|hold| hold.reason == SHARED_INCIDENT);
    let what = what.map_or_else(|| "stable itself fails".to_owned(), |hold| hold.message.clone());
    let message = format!(
        "{what}; for {} min without a break: what both depend on may be overloaded by the canary, which makes room",
        INCIDENT_SECONDS / 60
    );
    d.go_back(run, Outcome::NotProven, SHARED_INCIDENT, message);
}

/// When a shared incident sends the canary back, if it lasts; never while nobody meets it, and below the class that does.
pub(super) fn incident_deadline(d: &Draft<'_>, run: &Run) -> Option<Timestamp> {
    let verdict = d.input.verdict;
    let exposed = run.stage == Stage::Stepping && run.weight.is_some_and(|weight| weight.percent > 0);
    let (since, _) = verdict.incident.filter(|_| {
        exposed
            && run.kind == RunKind::Canary
            && run.plan.risk_class >= INCIDENT_CLASS
            && verdict.is_about(&run.id, run.stage, run.step)
    })?;
    // What was before anybody met the canary is not its doing.
    Some(d.after(since.max(run.exposed_since.unwrap_or(since)), INCIDENT_SECONDS))
}

/// A newer template takes the place of the one that is tried.
fn superseded(d: &mut Draft<'_>, run: &mut Run) {
    let Some(workload) = d.workload() else {
        return;
    };
    if workload.digest == run.canary.digest || d.workload_is_old() {
        return;
    }
    let back_to_stable = workload.digest == run.stable.digest;
    if run.released {
        if back_to_stable {
            let message = "the template of the old revision was applied again";
            d.go_back(run, Outcome::Superseded, "TemplateReturned", message);
        }
        return;
    }
    let (reason, message) = if back_to_stable {
        ("TemplateReturned", "the template went back to the stable revision")
    } else {
        ("NewerTemplate", "a newer template was applied")
    };
    d.go_back(run, Outcome::Superseded, reason, message);
}

/// Stable must be able to take all traffic at any time; when it loses pods, the canary makes room. Pods that are new
/// because the workload was scaled up are no loss: no weight rises until they are ready, within the time that the
/// workload gives its pods.
fn stable_short(d: &mut Draft<'_>, run: &mut Run) {
    let Some(wanted) = d.workload().map(|w| w.replicas) else {
        return;
    };
    if wanted == 0 {
        let message = "the workload was scaled to zero; the revision starts again when it has pods";
        d.go_back(run, Outcome::NotProven, "ScaledToZero", message);
        return;
    }
    if back::stable_is_gone(d, run) {
        let message = format!(
            "ReplicaSet {} of the stable revision was deleted from outside; the pods that are left serve",
            run.stable.replica_set
        );
        d.go_back(run, Outcome::NotProven, "StableGone", message);
        return;
    }
    let Some(available) = d.seen.replica_set(&run.stable.replica_set).map(|set| set.available) else {
        return;
    };
    let had = run.stable_size.unwrap_or(wanted).min(wanted);
    run.stable_size = Some(had.max(available).min(wanted));
    if available > had {
        run.stable_growing_since = None; // a larger size makes progress
    }
    if available >= wanted {
        run.stable_short_since = None;
        if run.stable_growing_since.take().is_some() {
            // Time that other pods took does not count against the evidence.
            run.resumed_at = Some(d.now);
        }
        return;
    }
    if available >= had {
        run.stable_short_since = None;
        run.stable_growing_since.get_or_insert(d.now);
    } else {
        run.stable_short_since.get_or_insert(d.now);
    }
    let shortages = [
        (run.stable_short_since, STABLE_SHORT_SECONDS, "ready"),
        (run.stable_growing_since, growth_seconds(run), "ready after it was scaled up"),
    ];
    for (since, seconds, what) in shortages {
        if since.is_some_and(|since| d.passed(since, seconds)) {
            let message = format!(
                "stable has {available} of {wanted} pods {what} for {seconds} s (quota, nodes or probes?); the canary makes room"
            );
            d.go_back(run, Outcome::NotProven, SHORT, message);
        }
    }
}

/// How long pods that a larger size asks for may take: what the workload itself gives its pods.
fn growth_seconds(run: &Run) -> i32 {
    run.plan.progress_deadline_seconds.max(STABLE_SHORT_SECONDS)
}

/// Whether stable has fewer ready pods than the workload's size.
pub(super) fn stable_lacks_pods(run: &Run) -> bool {
    run.stable_short_since.is_some() || run.stable_growing_since.is_some()
}

/// No weight rises while stable lacks pods. True when that has to be waited for.
pub(super) fn wait_for_stable(d: &mut Draft<'_>, run: &Run) -> bool {
    let lost = run.stable_short_since.map(|since| d.after(since, STABLE_SHORT_SECONDS));
    let grows = run.stable_growing_since.map(|since| d.after(since, growth_seconds(run)));
    let Some(deadline) = lost.into_iter().chain(grows).min() else {
        return false;
    };
    d.wait(SHORT, "waits until stable has all the pods of its size; the weight stays", Some(deadline));
    true
}
