//! Forward: bring up the canary, expose it step by step, and judge each step.
//!
//! The order is always pods, endpoints, capacity, weight, acknowledgement, settle time, evidence. Every wait
//! here ends by itself: in the next step, or back at stable.

mod canary;
mod gate;
mod weight;
mod wiring;

use crate::action::Lane;
use crate::api::{FINALIZER, Outcome, Run, RunKind, Stage};
use crate::render;
use crate::view::Workload;

use super::draft::Draft;
use super::stop;

pub(super) use canary::{canary_set, changed_set, exposure_by_pods};
pub(super) use gate::AT_GATE;
pub(super) use wiring::apex_selector;

use canary::{capacity, changed, overloaded, ready_or_back};
use gate::{may_advance, may_rise};
use weight::{keep_weight, overwritten, weight_is_foreign, weight_is_live};
use wiring::{PINNING, hide_history, pin_pair, unpinned};

/// What waits for an input that can't be read.
const CANNOT_READ: &str = "CannotRead";

/// Hide history, pin the pair, bring up the first canary pod: as much of it in one pass as can follow in order.
pub(super) fn prepare(d: &mut Draft<'_>, mut run: Run) {
    let Some(workload) = readable(d, &mut run) else {
        finish_pass(d, run);
        return;
    };
    if add_finalizer(d) || weight_is_foreign(d, &run) || hide_history(d, &run, workload) {
        prepared_in_time(d, &mut run);
        finish_pass(d, run);
        return;
    }
    let set = canary_set(d, &run, workload);
    if set.is_none() && changed_set(d, &run).is_some() {
        changed(d, &mut run);
        finish_pass(d, run);
        return;
    }
    // Pods come only behind a pair that is pinned: what follows is not written if that fails.
    let pins = pin_pair(d, &run);
    match set {
        None => d.act(render::create_canary(&d.name, &d.namespace, workload, 1)),
        Some(set) if set.replicas == 0 => d.act(render::scale(Lane::Forward, "scale-canary", set, 1)),
        Some(set)
            if !pins && set.available > 0 && d.seen.ready_behind(&run.plan.canary_service, &set.name) > 0 =>
        {
            run.canary = set.revision(run.canary.commit.clone());
            run.stage = Stage::Stepping;
            run.step = 0;
            run.stage_since = d.now;
            run.canary_short_since = None;
            step(d, run);
            return;
        }
        Some(_) => {}
    }
    if pins {
        // The pods' own time begins once the pair leads to them.
        run.canary_short_since = None;
        if d.input.rollout.status.as_ref().is_some_and(|status| status.run.is_some()) {
            d.wait(PINNING, "the pair of Services is pinned to its two revisions", None);
        }
        prepared_in_time(d, &mut run);
    }
    ready_or_back(d, &mut run, 1);
    finish_pass(d, run);
}

/// What comes before the canary's first pod may take as long as the workload gives its pods; the run goes back after
/// that.
fn prepared_in_time(d: &mut Draft<'_>, run: &mut Run) {
    let seconds = run.plan.progress_deadline_seconds;
    d.wait_until(d.after(run.stage_since, seconds));
    if d.passed(run.stage_since, seconds) {
        let wait =
            d.wait.as_ref().map_or_else(|| "nothing got ready".to_owned(), |wait| wait.message.clone());
        let message = format!("the canary could not be prepared within {seconds} s: {wait}");
        d.go_back(run, Outcome::NotProven, "NotPrepared", message);
    }
}

/// One step: capacity, weight, acknowledgement, settle, evidence, next.
pub(super) fn step(d: &mut Draft<'_>, mut run: Run) {
    let Some(workload) = readable(d, &mut run) else {
        finish_pass(d, run);
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
    if unpinned(d, &mut run) {
        finish_pass(d, run);
        return;
    }
    if overloaded(d, &mut run, workload) {
        finish_pass(d, run);
        return;
    }
    let rises = run.weight.is_none_or(|weight| weight.percent != step.weight_percent);
    if rises && stop::stable_lacks_pods(&run) {
        // Nothing more is asked of the cluster before stable has what it needs; what is in force stays in force.
        let percent = run.weight.map_or(0, |weight| weight.percent);
        if capacity(d, &mut run, workload, percent) {
            keep_weight(d, &mut run);
        }
        stop::wait_for_stable(d, &run);
        finish_pass(d, run);
        return;
    }
    if !capacity(d, &mut run, workload, step.weight_percent) {
        if rises {
            keep_weight(d, &mut run);
        }
        finish_pass(d, run);
        return;
    }
    if rises && run.kind == RunKind::Canary && !may_rise(d, &mut run, step.bake_seconds) {
        keep_weight(d, &mut run);
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

/// The Deployment, when everything was read. Else waits: nothing moves forward on a guess, and after as long as the plan
/// allows without data the run goes back. A revision that is the workload's own already has no safer side.
pub(super) fn readable<'a>(d: &mut Draft<'a>, run: &mut Run) -> Option<&'a Workload> {
    let why = match (d.seen.unseen(), d.workload()) {
        (None, Some(workload)) => return Some(workload),
        (Some(why), _) => why,
        (None, None) => "the Deployment does not exist".to_owned(),
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
    None
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

/// The next step, or promotion after the last.
fn advance(d: &mut Draft<'_>, run: &mut Run) {
    let steps = run.plan.steps.len();
    let passed = run.step + 1;
    let guards: Vec<String> = d.input.verdict.guards.iter().map(|g| g.message.clone()).collect();
    run.hold_since = None;
    run.resumed_at = None;
    run.overwrites = 0;
    run.lowered = 0;
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
