//! Promotion by warm swap, the watched period, and the tidy end of a good run.
//!
//! Order (each step may be the last before a crash): detach stable, adopt the canary, wait until the native
//! controller recognises it, release the Deployment, point the stable Service at the new pods, weights back
//! to 100/0, empty the canary Service. No pod restarts; until release the way back is an abort, from then on
//! a warm revert.

use std::time::Duration;

use crate::action::Lane;
use crate::api::{Outcome, Quarantined, Revision, Run, RunKind, RunRecord, Stage, WeightIntent};
use crate::policy;
use crate::render::{self, NOTHING, Role};
use crate::view::{HeldMark, ReplicaSet, Workload};

use super::draft::{BUSY_WAKE, Draft};
use super::forward::{apex_selector, canary_set, finish_pass, readable};
use super::traffic::{self, Weights};

/// How long the native controller may take to recognise the adopted ReplicaSet, in seconds.
const RECOGNISE_SECONDS: i32 = 60;
/// How long the new revision's endpoints and weights may take, in seconds, before the run goes back.
const REWIRE_SECONDS: i32 = 120;
/// How long weights that somebody overwrites are written again before the stable Service follows anyway, in seconds.
const OVERWRITTEN_SECONDS: i32 = 10;
/// How long no pod of the new revision may be ready while the old ones are, in seconds.
const UNREADY_SECONDS: i32 = 10;
/// Entries kept of each list in status.
const GOOD_LIMIT: usize = 10;
const QUARANTINE_LIMIT: usize = 20;
const HISTORY_LIMIT: usize = 20;

/// The swap, one step a pass.
pub(super) fn swap(d: &mut Draft<'_>, mut run: Run) {
    if run.going_back.is_some() {
        super::back::step(d, run);
        return;
    }
    let Some(workload) = readable(d, &mut run) else {
        finish_pass(d, run);
        return;
    };
    let Some(canary) = canary_set(d, &run, workload) else {
        d.go_back(
            &mut run,
            Outcome::NotProven,
            "CanaryGone",
            "the canary's ReplicaSet was deleted from outside",
        );
        super::back::step(d, run);
        return;
    };
    if d.passed(run.stage_since, if run.released { REWIRE_SECONDS } else { RECOGNISE_SECONDS }) {
        let what = if run.released {
            "the routes or endpoints of the new revision were not ready"
        } else {
            "the Deployment did not recognise the canary's ReplicaSet as its own"
        };
        let message = format!("{what} in time; does something mutate ReplicaSets or Services?");
        d.go_back(&mut run, Outcome::NotProven, "PromotionStuck", message);
        super::back::step(d, run);
        return;
    }
    let stable = d.seen.replica_set(&run.stable.replica_set);
    if !run.released {
        if !workload.paused {
            // The hold was lifted from outside: hold again before anything is handed over.
            d.act(render::hold(Lane::Forward, workload, HeldMark::Held));
        } else if let Some(stable) = stable.filter(|set| set.visible_to(workload)) {
            d.act(render::hide(Lane::Forward, &d.name, workload, stable, Role::Warm));
        } else if !canary.visible_to(workload) {
            d.act(render::show(Lane::Forward, "adopt-canary", workload, canary));
        } else if recognised(workload, canary.available) {
            d.act(render::release(Lane::Forward, workload, true));
            run.released = true;
            run.stage_since = d.now;
            d.normal(
                "Promoted",
                format!(
                    "run {}: {} is the workload's revision; no pod was restarted",
                    run.id, run.canary.replica_set
                ),
            );
        }
        if d.actions.is_empty() {
            keep_warm(d, &run, workload);
        }
        d.wait(
            "Promoting",
            "the tested ReplicaSet becomes the Deployment's own",
            Some(d.after(run.stage_since, if run.released { REWIRE_SECONDS } else { RECOGNISE_SECONDS })),
        );
        d.status.run = Some(run);
        return;
    }
    if workload.held.is_some() && workload.digest == run.canary.digest {
        // The release was decided but not written before a crash.
        d.act(render::release(Lane::Forward, workload, true));
    }
    keep_warm(d, &run, workload);
    rewire(d, run);
}

/// The native controller counts exactly the adopted pods as updated.
fn recognised(workload: &crate::view::Workload, available: i32) -> bool {
    workload.observed_generation >= workload.generation
        && workload.updated_replicas == workload.replicas
        && workload.status_replicas == workload.replicas
        && available >= workload.replicas
}

/// After release: the stable Service follows, then the weights.
fn rewire(d: &mut Draft<'_>, mut run: Run) {
    let apex = apex_selector(d, &run);
    let need = d.workload().map_or(1, |w| w.replicas);
    let deadline = Some(d.after(run.stage_since, REWIRE_SECONDS));
    let Some(stable) = d.seen.service(&run.plan.stable_service) else {
        d.status.run = Some(run); // it is made again before this
        return;
    };
    let follows = stable.pinned() == Some(run.canary.hash.as_str());
    let away = traffic::shown(&run.plan, d.seen) == Weights::All(100);
    if !follows && !away && !d.passed(run.stage_since, OVERWRITTEN_SECONDS) {
        // Overwritten from outside: a selector is best changed while its Service has no weight. Whoever goes on
        // overwriting gains nothing, since both revisions are ready at full size.
        traffic::set(d, &run, Lane::Forward, 100);
        d.wait("Rewiring", "the weights were overwritten from outside; they are written again", deadline);
    } else if !follows {
        d.act(render::select(Lane::Forward, stable, render::pinned(&apex, &run.canary.hash)));
        d.wait("Rewiring", "the stable Service is pointed at the new revision", deadline);
    } else if d.seen.ready_behind(&stable.name, &run.canary.replica_set) < need {
        d.wait("Rewiring", format!("waits for {need} ready endpoints of {}", stable.name), deadline);
    } else if !traffic::none_to_canary(&run.plan, d.seen) {
        traffic::set(d, &run, Lane::Forward, 0);
        d.wait("Rewiring", "the routes go back to 100/0, now with the new revision", deadline);
    } else {
        run.stage = Stage::Watching;
        run.stage_since = d.now;
        // In the watched period all traffic meets the new revision.
        run.weight =
            Some(WeightIntent { percent: 100, at: d.now, accepted_at: Some(d.now), settled_at: Some(d.now) });
        d.wake_within(Duration::ZERO);
    }
    d.status.run = Some(run);
}

/// The watched period: the old revision is warm, a revert restarts nothing.
pub(super) fn watch(d: &mut Draft<'_>, mut run: Run) {
    if run.going_back.is_some() {
        super::back::step(d, run);
        return;
    }
    if let Some(why) = d.seen.unseen() {
        d.wait("CannotRead", format!("{why}; the watched period goes on"), None);
        d.status.run = Some(run);
        return;
    }
    let Some(workload) = d.workload() else {
        d.status.run = Some(run);
        return;
    };
    if workload.held.is_some() && workload.digest == run.canary.digest {
        d.act(render::release(Lane::Forward, workload, true));
    }
    let serves = new_revision_serves(d, &mut run, workload);
    if run.going_back.is_some() {
        d.actions.clear();
        super::back::step(d, run);
        return;
    }
    if weights_are_home(d, &run) && d.passed(run.stage_since, run.plan.settle_seconds) {
        empty_canary_service(d, &run, Lane::Forward);
    }
    keep_warm(d, &run, workload);
    let seconds = run.plan.watch_seconds;
    d.wait_until(d.after(run.stage_since, seconds));
    let settle = run.plan.settle_seconds;
    let over = d.passed(run.stage_since, seconds.max(settle)) && serves;
    let current = d.input.verdict.is_about(&run.id, Stage::Watching, run.step);
    let blind = current && d.input.verdict.no_data.is_some();
    let limit = seconds.saturating_add(run.plan.no_data_seconds);
    if over
        && run.kind == RunKind::Canary
        && seconds > 0
        && (blind || !current)
        && !d.passed(run.stage_since, limit)
    {
        let message = "the watched period is over, but there is no fresh data: the old revision stays warm";
        d.wait("NoData", message, Some(d.after(run.stage_since, limit)));
    } else if over {
        d.normal("BakePassed", format!("run {}: watched for {seconds} s after promotion", run.id));
        run.stage = Stage::Finishing;
        run.stage_since = d.now;
        d.wake_within(Duration::ZERO);
    } else {
        let deadline = Some(d.after(run.stage_since, seconds));
        let old = if d.seen.replica_set(&run.stable.replica_set).is_some() {
            format!("the old one stays warm for {seconds} s")
        } else {
            "the old one's ReplicaSet was deleted, so nothing can be reverted to".to_owned()
        };
        d.wait("Watching", format!("the new revision serves everything; {old}"), deadline);
    }
    d.status.run = Some(run);
}

/// Whether a pod of the new revision is ready. When none is for a while, and the warm ones are, they take it back: pods
/// that serve nobody fail no request that a guard could count.
fn new_revision_serves(d: &mut Draft<'_>, run: &mut Run, workload: &Workload) -> bool {
    let service = &run.plan.stable_service;
    if workload.replicas == 0 || d.seen.ready_behind(service, &run.canary.replica_set) > 0 {
        run.canary_short_since = None;
        return true;
    }
    let warm = d.seen.replica_set(&run.stable.replica_set).is_some_and(|old| old.available > 0);
    if !warm {
        run.canary_short_since = None;
        return false;
    }
    let since = *run.canary_short_since.get_or_insert(d.now);
    if d.passed(since, UNREADY_SECONDS) {
        let trouble = d.seen.trouble.as_ref().map(|t| format!(": pod {} {} {}", t.pod, t.reason, t.message));
        let message = format!(
            "no pod of the new revision was ready for {UNREADY_SECONDS} s after promotion{}",
            trouble.unwrap_or_default()
        );
        d.go_back(run, Outcome::NotProven, "CanaryUnavailable", message);
    }
    false
}

/// The warm revision follows the workload's size, so that it can take everything back.
fn keep_warm(d: &mut Draft<'_>, run: &Run, workload: &Workload) {
    if let Some(old) = d.seen.replica_set(&run.stable.replica_set)
        && old.replicas != workload.replicas
        && !old.visible_to(workload)
    {
        d.act(render::scale(Lane::Forward, "scale-warm", old, workload.replicas));
    }
}

/// After promotion nothing gives the canary Service weight: somebody who does is written over. True when it has none.
fn weights_are_home(d: &mut Draft<'_>, run: &Run) -> bool {
    if !matches!(traffic::shown(&run.plan, d.seen), Weights::All(1..) | Weights::Mixed) {
        return true;
    }
    let message = "a route gave the canary Service weight after promotion; it goes back to 0";
    if !d.told("RouteOverwritten") {
        d.warn("RouteOverwritten", message);
    }
    d.wait("RouteOverwritten", message, None);
    traffic::set(d, run, Lane::Forward, 0);
    false
}

/// Points the canary Service at nothing; true when it already does. While a route names it that has no weights which
/// could be written, it leads to the workload's pods instead.
pub(super) fn empty_canary_service(d: &mut Draft<'_>, run: &Run, lane: Lane) -> bool {
    let astray = traffic::problem(&run.plan, d.seen).is_some();
    if astray && lane == Lane::Forward {
        return false; // in the watched period it goes on leading to the new pods
    }
    let apex = apex_selector(d, run);
    let wanted = if astray { apex } else { render::pinned(&apex, NOTHING) };
    match d.seen.service(&run.plan.canary_service) {
        Some(service) if service.selector != wanted => {
            d.act(render::select(lane, service, wanted));
            false
        }
        _ => true,
    }
}

/// The old revision goes, the Services are un-pinned, the run ends.
pub(super) fn finish(d: &mut Draft<'_>, run: Run) {
    if let Some(why) = d.seen.unseen() {
        d.wait("CannotRead", format!("{why}; tidying waits"), None);
        d.status.run = Some(run);
        return;
    }
    let workload = d.workload();
    // History that the native controller revived before the run goes with the old revision: the stable Service is
    // un-pinned only when one revision alone has pods.
    let old: Vec<&ReplicaSet> = d
        .seen
        .replica_sets()
        .filter(|set| match workload {
            Some(workload) => set.name != run.canary.replica_set && !set.visible_to(workload),
            None => set.name == run.stable.replica_set && super::leave::is_ours(d, set),
        })
        .collect();
    for set in old.iter().filter(|set| set.replicas > 0) {
        d.act(render::scale(Lane::Tidy, "scale-old", set, 0));
    }
    let left: i32 = old.iter().map(|set| set.status_replicas.max(set.replicas)).sum();
    if left > 0 {
        d.wait("Finishing", format!("{left} pods of the old revision go"), None);
        d.status.run = Some(run);
        return;
    }
    if !weights_are_home(d, &run) {
        d.wait("Finishing", "the routes go back to 100/0", None);
        d.status.run = Some(run);
        return;
    }
    let orphans = workload.is_none() && super::leave::hand_back_orphans(d, None);
    empty_canary_service(d, &run, Lane::Tidy);
    if orphans || !unpin(d, &run) || !unmark(d, &run) {
        d.wait("Finishing", "the stable Service is un-pinned", None);
        d.status.run = Some(run);
        return;
    }
    let message = format!(
        "promoted after {} steps and a watched period of {} s",
        run.plan.steps.len(),
        run.plan.watch_seconds
    );
    d.status.stable = Some(run.canary.clone());
    d.status.stable_commit.clone_from(&run.canary.commit);
    remember_good(d, run.canary.clone());
    end(d, run, Outcome::Promoted, "Proven", message);
}

/// Takes the pin off the stable Service; true when it has none.
pub(super) fn unpin(d: &mut Draft<'_>, run: &Run) -> bool {
    let apex = apex_selector(d, run);
    match d.seen.service(&run.plan.stable_service) {
        Some(service) if service.pinned().is_some() => {
            d.act(render::select(Lane::Tidy, service, apex));
            false
        }
        _ => true,
    }
}

/// Takes our annotation off the routes; true when none is left.
pub(super) fn unmark(d: &mut Draft<'_>, run: &Run) -> bool {
    let mut clean = true;
    for named in &run.plan.routes {
        if let Some(route) = d.seen.route(&named.name)
            && route.traffic.is_some()
        {
            d.act(render::unmark_route(route));
            clean = false;
        }
    }
    clean
}

/// Records a good revision, newest first.
pub(super) fn remember_good(d: &mut Draft<'_>, revision: Revision) {
    d.status.good.retain(|known| known.digest != revision.digest);
    d.status.good.insert(0, revision);
    d.status.good.truncate(GOOD_LIMIT);
}

/// Records a rejected revision, newest first. The list is bounded: one that the Deployment or a ReplicaSet has is at
/// hand and could start again unasked, so the oldest of the others is forgotten first.
fn quarantine(d: &mut Draft<'_>, rejected: Quarantined) {
    let (workload, sets) = (d.workload(), d.seen);
    let at_hand = |known: &Quarantined| {
        workload.is_some_and(|w| w.digest == known.digest || w.restart_digest == known.restart_digest)
            || sets.replica_sets().any(|set| set.digest == known.digest)
    };
    let list = &mut d.status.quarantine;
    list.retain(|known| known.digest != rejected.digest);
    list.insert(0, rejected);
    while list.len() > QUARANTINE_LIMIT {
        let oldest = list.iter().rposition(|known| !at_hand(known)).unwrap_or(QUARANTINE_LIMIT);
        list.remove(oldest);
    }
}

/// Ends a run: one record, the newest first.
pub(super) fn end(d: &mut Draft<'_>, run: Run, outcome: Outcome, reason: &str, message: String) {
    let text = format!("run {} {}: {reason}: {message}", run.id, outcome.as_str());
    match outcome {
        Outcome::Promoted => d.normal("RunPromoted", text),
        Outcome::Superseded => d.normal("Superseded", text),
        Outcome::Abandoned => d.normal("Abandoned", text),
        Outcome::Rejected => d.warn("Rejected", text),
        Outcome::Reverted => d.warn("Reverted", text),
        Outcome::NotProven => d.warn("NotProven", text),
    }
    if matches!(outcome, Outcome::Rejected | Outcome::Reverted) {
        d.status.good.retain(|known| known.digest != run.canary.digest);
        let rejected = Quarantined {
            digest: run.canary.digest.clone(),
            restart_digest: run.canary.restart_digest.clone(),
            run_id: run.id.clone(),
            reason: reason.to_owned(),
            message: message.clone(),
            at: d.now,
        };
        quarantine(d, rejected);
    }
    let exposed_until = run.exposed_until.or_else(|| run.exposed_since.map(|_| d.now));
    d.status.history.insert(
        0,
        RunRecord {
            id: run.id,
            outcome,
            reason: reason.to_owned(),
            message,
            risk_class: run.plan.risk_class,
            plan_digest: run.plan.digest,
            provenance: run.plan.provenance,
            digest: run.canary.digest,
            images: run.canary.images,
            commit: run.canary.commit,
            max_weight_percent: run.max_weight_percent,
            started_at: run.started_at,
            ended_at: d.now,
            exposed_since: run.exposed_since,
            exposed_until,
        },
    );
    forget_oldest(&mut d.status.history);
    d.status.run = None;
    d.status.plan = None;
    d.status.guards.clear();
    d.status.traffic = None;
    d.wake_within(BUSY_WAKE);
}

/// Keeps the newest runs, and of the others the last one that failed: risk and cooldown of the next follow from it.
pub(super) fn forget_oldest(history: &mut Vec<RunRecord>) {
    let failed = policy::last_failed(history).map(|run| run.id.clone());
    while history.len() > HISTORY_LIMIT
        && let Some(oldest) = history.iter().rposition(|run| Some(&run.id) != failed.as_ref())
    {
        history.remove(oldest);
    }
}
