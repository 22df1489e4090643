//! The weight of a step: asked for, shown, accepted, settled; and what others write over it.

use crate::action::Lane;
use crate::api::{Outcome, Run, WeightIntent};
use crate::limits::hold_seconds;

use super::super::draft::Draft;
use super::super::traffic::{self, Weights};
use super::finish_pass;

/// How long a route may take to show and accept a weight, in seconds.
const ACCEPT_SECONDS: i32 = 60;
/// Foreign overwrites in one step after which the canary goes to weight 0 and waits.
const OVERWRITES_PER_STEP: i32 = 3;

/// Somebody gave the canary Service weight before there is a canary: it goes back to 0 first, since a pod that comes
/// up behind it would be exposed at once. True when that has to be done.
pub(super) fn weight_is_foreign(d: &mut Draft<'_>, run: &Run) -> bool {
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

/// Asks for less than before.
pub(super) fn lower(d: &mut Draft<'_>, run: &mut Run, percent: i32) {
    run.weight = Some(WeightIntent { percent, at: d.now, accepted_at: None, settled_at: None });
    traffic::set(d, run, Lane::Forward, percent);
}

/// What is in force stays in force while something else is waited for: it is written again when somebody overwrites it.
pub(super) fn keep_weight(d: &mut Draft<'_>, run: &mut Run) {
    let percent = run.weight.map_or(0, |weight| weight.percent);
    if percent > 0 && run.going_back.is_none() {
        weight_is_live(d, run, percent);
    }
}

/// Asks for the weight, and waits until it is shown, accepted and settled.
pub(super) fn weight_is_live(d: &mut Draft<'_>, run: &mut Run, percent: i32) -> bool {
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
pub(super) fn overwritten(d: &mut Draft<'_>, mut run: Run) {
    if !traffic::none_to_canary(&run.plan, d.seen) {
        traffic::set(d, &run, Lane::Abort, 0);
    }
    let since = *run.hold_since.get_or_insert(d.now);
    let bake = run.plan.steps.iter().map(|step| step.bake_seconds).max().unwrap_or(0);
    let seconds = hold_seconds(bake);
    let message = "something else keeps writing the weights of a route: let it ignore spec.rules[].backendRefs[].weight, then `kubectl sluice resume`";
    if d.passed(since, seconds) {
        d.go_back(&mut run, Outcome::NotProven, "RouteOverwritten", message);
    } else {
        d.wait("RouteOverwritten", message, Some(d.after(since, seconds)));
    }
    finish_pass(d, run);
}
