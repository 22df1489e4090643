//! The ground that everything stands on: the spec, the Deployment, its volumes, the pair of Services and the routes.
//!
//! Bad input never touches the application: it becomes a condition, an event and a sentence that says what to
//! write instead.

use std::time::Duration;

use serde_json::{Map, Value};

use crate::action::Lane;
use crate::api::{Phase, RouteRef};
use crate::limits;
use crate::observed::Seen;
use crate::render::{self, NOTHING};
use crate::view::Workload;

use super::draft::Draft;
use super::{leave, traffic};

/// Claims that can't be read are asked for again after this long.
const CLAIMS_RETRY: Duration = Duration::from_secs(30);

/// What must hold before anything is touched. Says what is wrong otherwise.
pub(super) fn in_order<'a>(d: &mut Draft<'a>) -> Option<&'a Workload> {
    // What brings back what served before needs no limits.
    if !goes_back(d) {
        if let Some(problem) = limits::problems(d.spec).into_iter().next() {
            d.stall("InvalidSpec", problem);
            return None;
        }
        if let Some(problem) = limits::table_problem(d.input.config) {
            d.stall("InvalidClassTable", format!("{problem}; correct the chart's value `classes`"));
            return None;
        }
    }
    if let Some(rival) = d.seen.rivals.first() {
        d.stall(
            "WorkloadClaimed",
            format!(
                "ProgressiveRollout {rival} already guards Deployment {}; delete one of the two",
                d.spec.workload_ref.name
            ),
        );
        return None;
    }
    let Some(workload) = d.workload() else {
        // What a Deployment that was deleted with its pods kept left behind is an ordinary ReplicaSet again.
        leave::hand_back_orphans(d, None);
        d.stall(
            "WorkloadNotFound",
            format!(
                "Deployment {} is not in namespace {}; correct spec.workloadRef.name or create it",
                d.spec.workload_ref.name, d.namespace
            ),
        );
        return None;
    };
    if workload.strategy != "RollingUpdate" {
        d.stall(
            "UnsupportedStrategy",
            format!(
                "Deployment {} has strategy {}, but two revisions have to run side by side; set spec.strategy.type to RollingUpdate if the application can do that",
                workload.name, workload.strategy
            ),
        );
        return None;
    }
    Some(workload)
}

/// Whether what is held is stable's own template, or a recorded good one.
fn goes_back(d: &Draft<'_>) -> bool {
    let held = d.workload().filter(|workload| workload.held.is_some());
    held.is_some_and(|workload| {
        let mut known = d.status.good.iter().chain(&d.status.stable);
        known.any(|revision| revision.digest == workload.digest)
    })
}

/// Whether the pods of two revisions can have the workload's volumes at the same time. A pass that did not ask has
/// nothing to say: before anything happens another one asks.
pub(super) fn volumes_in_order(d: &mut Draft<'_>, workload: &Workload) -> bool {
    let claims = match &d.seen.claims {
        None => return true,
        Some(Seen::Seen(claims)) => claims,
        Some(Seen::Unseen(why)) => {
            d.stall("CannotRead", format!("PersistentVolumeClaims that the template names can't be read: {why}. Does the ServiceAccount have the chart's roles?"));
            d.wake_within(CLAIMS_RETRY);
            return false;
        }
    };
    let Some((claim, mode)) = claims.iter().find_map(|claim| Some((claim, claim.single_writer()?))) else {
        return true;
    };
    let whom = if mode == "ReadWriteOncePod" { "one pod" } else { "the pods of one node" };
    d.stall(
        "SingleWriterVolume",
        format!(
            "Deployment {} mounts PersistentVolumeClaim {} with access mode {mode}: only {whom} may write it, but two revisions have to run side by side; use a claim with ReadWriteMany, a volume of each pod's own (ephemeral, emptyDir), or mode: Observe",
            workload.name, claim.name
        ),
    );
    false
}

/// The apex Service, the pair and the routes. Makes the pair when it is missing.
pub(super) fn pair_in_order(d: &mut Draft<'_>, workload: &Workload) -> bool {
    let apex_name = &d.spec.routing.service;
    let Some(apex) = d.seen.service(apex_name) else {
        d.stall(
            "ServiceNotFound",
            format!(
                "Service {apex_name} is not in namespace {}; correct spec.routing.service or create it",
                d.namespace
            ),
        );
        return false;
    };
    let labels = workload.template_labels();
    if apex.selector.is_empty() || apex.selector.iter().any(|(key, value)| labels.get(key) != Some(value)) {
        d.stall(
            "ServiceSelectsOthers",
            format!("Service {apex_name} does not select the pods of Deployment {}; its selector must match the template's labels", workload.name),
        );
        return false;
    }
    let (stable, canary) = (limits::stable_service(apex_name), limits::canary_service(apex_name));
    // As a run leaves it: a route of an enrolled workload that names the canary Service, and has no weights that could be
    // written, has its requests answered until somebody corrects it.
    let astray = |named: &RouteRef| {
        let route = d.seen.route(&named.name);
        route.is_some_and(|r| r.names(&canary) && r.pairs(&stable, &canary, &named.rules).is_err())
    };
    let alone = workload.managed && d.spec.routing.routes.iter().any(astray);
    let emptied = if alone { apex.selector.clone() } else { render::pinned(&apex.selector, NOTHING) };
    let wanted: [(&str, Map<String, Value>); 2] = [(&stable, apex.selector.clone()), (&canary, emptied)];
    let mut made = false;
    for (name, selector) in wanted {
        match d.seen.service(name) {
            None => {
                d.act(render::create_pair_service(
                    Lane::Forward,
                    &d.name,
                    &d.namespace,
                    name,
                    apex,
                    selector,
                ));
                made = true;
            }
            Some(service) if service.rollout.as_deref() != Some(d.name.as_str()) => {
                d.stall(
                    "ServiceNotOurs",
                    format!("Service {name} exists and was not made for this rollout; delete or rename it, the controller makes its own"),
                );
                return false;
            }
            Some(service) if service.selector != selector => {
                // At rest the stable Service has the workload's selector and the canary's selects nothing.
                d.act(render::select(Lane::Tidy, service, selector));
                made = true;
            }
            Some(service) if render::pair_ports(service) != render::pair_ports(apex) => {
                d.act(render::follow_ports(service, apex));
                made = true;
            }
            Some(_) => {}
        }
    }
    if made {
        d.wait("MakingServices", format!("Services {stable} and {canary} are made from {apex_name}"), None);
        return false;
    }
    routes_in_order(d, &stable, &canary, workload.managed)
}

fn routes_in_order(d: &mut Draft<'_>, stable: &str, canary: &str, enrolled: bool) -> bool {
    let mut in_order = true;
    for named in &d.spec.routing.routes {
        let Some(route) = d.seen.route(&named.name) else {
            d.stall(
                "RouteNotFound",
                format!(
                    "HTTPRoute {} is not in namespace {}; correct spec.routing.routes or create it",
                    named.name, d.namespace
                ),
            );
            return false;
        };
        let pairs = match route.pairs(stable, canary, &named.rules) {
            Ok(pairs) => pairs,
            Err(problem) => {
                d.stall("RouteMissingBackends", problem.to_string());
                return false;
            }
        };
        let foreign = pairs.into_iter().find(|pair| pair.canary != 0 || pair.stable <= 0);
        // No run is under way: a mark of ours is a left-over. One of a run may belong to another rollout, as long as
        // this one has not enrolled its workload.
        let left_over = |mark: &String| enrolled || mark == traffic::REST_MARK;
        if foreign.is_none() && route.traffic.as_ref().is_some_and(left_over) {
            d.act(render::unmark_route(route));
        }
        if let Some(pair) = foreign {
            if enrolled {
                // At rest the canary Service has no pods: whoever set this, stable is the safe side.
                if !d.told("RouteOverwritten") {
                    d.warn(
                        "RouteOverwritten",
                        format!(
                            "HTTPRoute {} gave {canary} weight {} while no run is under way; it goes back to 0",
                            named.name, pair.canary
                        ),
                    );
                }
                let weights = traffic::at_rest(named, stable, canary);
                d.act(render::set_weights(Lane::Abort, &named.name, weights));
                in_order = false;
                continue;
            }
            d.stall(
                "ForeignWeights",
                format!(
                    "HTTPRoute {} rule {} has weights {} for {stable} and {} for {canary}; write 100 and 0, the controller moves them",
                    named.name, pair.rule, pair.stable, pair.canary
                ),
            );
            return false;
        }
    }
    if !in_order {
        // Where the rollout stands does not change by it.
        d.status.phase = d.input.rollout.status.as_ref().map_or(Phase::Pending, |status| status.phase);
        d.wait("RouteOverwritten", "the weights of the routes go back to 100 and 0", None);
    }
    in_order
}
