//! The pair of Services during a run: one that somebody deletes is made again, selecting what it selected.
//!
//! Requests for a Service that is not there fail, whichever way the run goes, so this comes before anything else; it
//! is done in the lane that returns traffic.

use serde_json::{Map, Value};

use crate::action::Lane;
use crate::api::{Outcome, Run, Stage, WeightIntent};
use crate::render::{self, NOTHING};

use super::back;
use super::draft::Draft;
use super::forward::apex_selector;
use super::leave;
use super::traffic::{self, Weights};

/// How long a run waits for a Service that can't be made again, in seconds.
const RESTORE_SECONDS: i32 = 120;
const GONE: &str = "ServiceGone";

/// Makes the Services of the pair that are missing. True when one was.
pub(super) fn restore(d: &mut Draft<'_>, run: &mut Run) -> bool {
    if d.seen.services.get().is_none() || d.workload().is_none() {
        // What can't be seen is not gone; and without a Deployment nothing serves.
        return false;
    }
    let plan = &run.plan;
    let (stable, canary) = (&plan.stable_service, &plan.canary_service);
    let missing: Vec<&String> =
        [stable, canary].into_iter().filter(|name| d.seen.service(name).is_none()).collect();
    let like = [&plan.service, stable, canary].into_iter().find_map(|name| d.seen.service(name));
    let Some(like) = like.filter(|_| !missing.is_empty()) else {
        return false;
    };
    for name in &missing {
        let selector = if *name == stable { stable_selector(d, run) } else { canary_selector(d, run) };
        d.act(render::create_pair_service(Lane::Abort, &d.name, &d.namespace, name, like, selector));
        let message = format!("run {}: Service {name} was deleted from outside; it is made again", run.id);
        if !d.told(GONE) {
            d.warn(GONE, message.clone());
        }
        d.wait(GONE, message, None);
    }
    let since = d.waits_since(GONE);
    let before_the_swap = matches!(run.stage, Stage::Preparing | Stage::Stepping | Stage::Promoting);
    if before_the_swap
        && !run.released
        && let Some(weight) = run.weight.as_mut()
    {
        // What failed for want of a Service is not the revision's fault: the window begins anew once the weight is
        // live again.
        *weight = WeightIntent { at: d.now, accepted_at: None, settled_at: None, ..*weight };
    }
    if before_the_swap && d.passed(since, RESTORE_SECONDS) {
        let message = format!("a Service of the pair could not be made again within {RESTORE_SECONDS} s");
        d.go_back(run, Outcome::NotProven, GONE, message);
    }
    true
}

/// What the stable Service selects at this point of the run.
fn stable_selector(d: &Draft<'_>, run: &Run) -> Map<String, Value> {
    let apex = apex_selector(d, run);
    let Some(back) = &run.going_back else {
        return render::pinned(&apex, if run.released { &run.canary.hash } else { &run.stable.hash });
    };
    if back::stable_is_gone(d, run) || d.workload().is_some_and(|workload| leave::broken_glass(d, workload)) {
        return apex;
    }
    // A revert leads it to the old pods as soon as those can take everything.
    let old_serves = || {
        let wanted = d.workload().map_or(0, |workload| workload.replicas);
        let old = d.seen.replica_set(&run.stable.replica_set).map_or(0, |set| set.available);
        old > 0 && old >= wanted
    };
    let home = !run.released || back.back_at.is_some() || old_serves();
    render::pinned(&apex, if home { &run.stable.hash } else { &run.canary.hash })
}

/// What the canary Service selects at this point of the run.
fn canary_selector(d: &Draft<'_>, run: &Run) -> Map<String, Value> {
    let hash = match run.stage {
        Stage::Preparing | Stage::Stepping | Stage::Promoting => run.canary.hash.as_str(),
        Stage::Watching | Stage::Finishing => NOTHING,
        Stage::Returning if traffic::problem(&run.plan, d.seen).is_some() => run.stable.hash.as_str(),
        Stage::Returning if run.going_back.as_ref().is_some_and(|back| back.back_at.is_some()) => NOTHING,
        Stage::Returning if back::stable_is_gone(d, run) => NOTHING,
        // A revert goes home by way of it.
        Stage::Returning if run.released => run.stable.hash.as_str(),
        Stage::Returning if traffic::shown(&run.plan, d.seen) == Weights::All(0) => NOTHING,
        Stage::Returning => run.canary.hash.as_str(),
    };
    render::pinned(&apex_selector(d, run), hash)
}
