//! Where the routes send traffic, and how it is asked for.

use crate::action::{Lane, SetWeights};
use crate::api::{Outcome, Plan, RouteRef, Run};
use crate::observed::Observed;
use crate::render::{self, AbortMark};
use crate::view::{Route, RouteProblem};

use super::draft::Draft;

/// Mark of weights that were written while no run was under way.
pub(super) const REST_MARK: &str = "rest 0";

/// What the routes of a plan show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Weights {
    /// Every pair of every route has this canary percent.
    All(i32),
    /// Pairs differ, or are not of our making.
    Mixed,
    /// A route is missing, unreadable or has no pair.
    Unknown,
}

/// The canary percent that the routes of a plan show.
pub(super) fn shown(plan: &Plan, seen: &Observed) -> Weights {
    shown_by(plan.routes.iter(), plan, seen)
}

/// The same on the way back, of the routes that can be written. One that was deleted, or from which somebody took the
/// canary Service, has nothing that could be taken back: with its namespace it never comes again, and nothing may wait
/// for it. One that names the canary Service and can't be written goes home by its [`problem`].
pub(super) fn shown_by_those_left(plan: &Plan, seen: &Observed) -> Weights {
    let left = || plan.routes.iter().filter(|named| writable(named, plan, seen));
    if left().next().is_none() { Weights::All(0) } else { shown_by(left(), plan, seen) }
}

/// Whether no route of a plan can be written any more.
pub(super) fn none_left(plan: &Plan, seen: &Observed) -> bool {
    !plan.routes.iter().any(|named| writable(named, plan, seen))
}

/// Whether weights can be asked of a route. What can't be read may be written.
fn writable(named: &RouteRef, plan: &Plan, seen: &Observed) -> bool {
    !gone(named, plan, seen)
        && seen.route(&named.name).is_none_or(|route| unwritable(route, named, plan).is_none())
}

/// Why a route that names the canary Service has no weights that could be written: it goes on sending requests there,
/// whatever is asked of it, so the Service itself has to lead to the right pods.
fn unwritable(route: &Route, named: &RouteRef, plan: &Plan) -> Option<RouteProblem> {
    let names = route.names(&plan.canary_service);
    names.then(|| route.pairs(&plan.stable_service, &plan.canary_service, &named.rules).err()).flatten()
}

/// Whether a route does not exist, or does not name the canary Service. What can't be read may.
fn gone(named: &RouteRef, plan: &Plan, seen: &Observed) -> bool {
    seen.routes.get().is_some()
        && seen.route(&named.name).is_none_or(|route| !route.names(&plan.canary_service))
}

/// Why a route that names the canary Service can't be written, in words.
pub(super) fn problem(plan: &Plan, seen: &Observed) -> Option<String> {
    let problem = |named: &RouteRef| unwritable(seen.route(&named.name)?, named, plan);
    plan.routes.iter().find_map(problem).map(|problem| problem.to_string())
}

fn shown_by<'a>(routes: impl Iterator<Item = &'a RouteRef>, plan: &Plan, seen: &Observed) -> Weights {
    let mut found: Option<i32> = None;
    for named in routes {
        let Some(route) = seen.route(&named.name) else {
            return Weights::Unknown;
        };
        let Ok(pairs) = route.pairs(&plan.stable_service, &plan.canary_service, &named.rules) else {
            return Weights::Unknown;
        };
        for pair in pairs {
            if pair.stable + pair.canary != 100 || found.is_some_and(|percent| percent != pair.canary) {
                return Weights::Mixed;
            }
            found = Some(pair.canary);
        }
    }
    found.map_or(Weights::Unknown, Weights::All)
}

/// Whether no pair of any route gives the canary Service anything.
pub(super) fn none_to_canary(plan: &Plan, seen: &Observed) -> bool {
    matches!(shown(plan, seen), Weights::All(0))
}

/// What keeps a route from being accepted at its generation, in words.
pub(super) fn not_accepted(plan: &Plan, seen: &Observed) -> Option<String> {
    plan.routes.iter().find_map(|named| match seen.route(&named.name) {
        None => Some(format!("HTTPRoute {} is not there", named.name)),
        Some(route) => route.accepted.as_ref().err().map(|why| format!("HTTPRoute {}: {why}", named.name)),
    })
}

/// Asks every route for this canary percent; on the way back those that are left.
pub(super) fn set(d: &mut Draft<'_>, run: &Run, lane: Lane, percent: i32) {
    let aborted = match &run.going_back {
        Some(back) => format!(" {} {} {}", render::ABORTED, back.outcome.as_str(), back.reason),
        None => String::new(),
    };
    for route in &run.plan.routes {
        if run.going_back.is_some() && !writable(route, &run.plan, d.seen) {
            continue;
        }
        let weights = SetWeights {
            stable_service: run.plan.stable_service.clone(),
            canary_service: run.plan.canary_service.clone(),
            rules: route.rules.clone(),
            canary_percent: percent,
            mark: format!("{} {percent}{aborted}", run.id),
        };
        d.act(render::set_weights(lane, &route.name, weights));
    }
}

/// Weights of a route while no run is under way.
pub(super) fn at_rest(named: &RouteRef, stable: &str, canary: &str) -> SetWeights {
    SetWeights {
        stable_service: stable.to_owned(),
        canary_service: canary.to_owned(),
        rules: named.rules.clone(),
        canary_percent: 0,
        mark: REST_MARK.to_owned(),
    }
}

/// What an aborted run left on a route, if it is this run: a crash may have eaten the status write.
pub(super) fn abort_mark(run: &Run, seen: &Observed) -> Option<(Outcome, String)> {
    run.plan.routes.iter().find_map(|named| {
        let mark = AbortMark::read(seen.route(&named.name)?.traffic.as_deref()?)?;
        (mark.run == run.id).then(|| (mark.outcome, mark.reason.to_owned()))
    })
}
