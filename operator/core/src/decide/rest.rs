//! At rest: is everything in order, is the workload enrolled, and is a template held?
//!
//! Bad input never touches the application: it becomes a condition, an event and a sentence that says what to
//! write instead.

use std::time::Duration;

use serde_json::{Map, Value};

use crate::action::Lane;
use crate::api::{Phase, Plan, RouteRef};
use crate::config::Hold;
use crate::limits;
use crate::observed::Seen;
use crate::render::{self, NOTHING};
use crate::view::{HeldMark, ReplicaSet, Workload};

use super::draft::Draft;
use super::{forward, held, leave, traffic};

/// A template that a run rejected is what the Deployment runs.
const REJECTED_LIVE: &str = "RejectedRevisionLive";
/// Claims that can't be read are asked for again after this long.
const CLAIMS_RETRY: Duration = Duration::from_secs(30);

/// No run is under way.
pub(super) fn step(d: &mut Draft<'_>) {
    d.status.phase = Phase::Pending;
    if let Some(why) = d.seen.unseen() {
        d.stall("CannotRead", format!("{why}. Does the ServiceAccount have the chart's roles, and are the Gateway API CRDs installed?"));
        return;
    }
    let Some(workload) = in_order(d) else {
        return;
    };
    if leave::broken_glass(d, workload) {
        broken_glass(d, workload);
        return;
    }
    if d.status.workload_uid.as_deref() != Some(workload.uid.as_str()) {
        d.status.workload_uid = None;
        d.status.stable = None;
        d.status.held = None;
    }
    if !workload.managed && !volumes_in_order(d, workload) {
        return;
    }
    if !pair_in_order(d, workload) {
        return;
    }
    if !workload.managed {
        enrol(d, workload);
        return;
    }
    d.status.observed_workload_generation = Some(workload.generation);
    if d.status.stable.is_none() && !take_stable(d, workload) {
        return;
    }
    let before = d.input.rollout.status.as_ref().map_or(Phase::Pending, |status| status.phase);
    if matches!(before, Phase::Pending | Phase::Released) {
        d.normal("Enrolled", format!("Deployment {}: new templates are held from now on", workload.name));
    }
    let always = d.input.config.hold == Hold::Always;
    let at_stable = d.status.stable.as_ref().is_some_and(|stable| stable.digest == workload.digest);
    if always && at_stable && workload.held != Some(HeldMark::UserPaused) {
        // Before Kubernetes 1.36 nothing pauses a template as it comes: the Deployment is paused at rest, once it has
        // its ReplicaSet (a paused one does not make it).
        if live_set(d, workload).is_none() {
            if workload.held.is_some() {
                d.act(render::release(Lane::Tidy, workload, true));
            }
        } else if workload.held.is_none() || !workload.paused {
            d.act(render::hold(Lane::Tidy, workload, HeldMark::Held));
        }
        idle(d, workload);
    } else if workload.held.is_some() {
        hide_history(d, workload);
        if !left_behind(d, workload) {
            held::step(d, workload);
        }
    } else {
        idle(d, workload);
    }
}

/// What must hold before anything is touched. Says what is wrong otherwise.
fn in_order<'a>(d: &mut Draft<'a>) -> Option<&'a Workload> {
    if let Some(problem) = limits::problems(d.spec).into_iter().next() {
        d.stall("InvalidSpec", problem);
        return None;
    }
    if let Some(problem) = limits::table_problem(d.input.config) {
        d.stall("InvalidClassTable", format!("{problem}; correct the chart's value `classes`"));
        return None;
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
fn pair_in_order(d: &mut Draft<'_>, workload: &Workload) -> bool {
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
    // A route that names the canary Service without the other has its requests answered until somebody corrects it.
    let astray = |named: &RouteRef| {
        let route = d.seen.route(&named.name);
        route.is_some_and(|r| r.names(&canary) && r.pairs(&stable, &canary, &named.rules).is_err())
    };
    let alone = d.spec.routing.routes.iter().any(astray);
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

/// Enrols a complete Deployment: finalizer first, so that we never leave a label behind.
fn enrol(d: &mut Draft<'_>, workload: &Workload) {
    if workload.paused {
        d.stall(
            "WorkloadPaused",
            format!("Deployment {} is paused: resume it (kubectl rollout resume) so that its template is the one that runs", workload.name),
        );
        return;
    }
    if !workload.complete() {
        d.wait(
            "WorkloadRolling",
            format!(
                "Deployment {} is rolling ({} of {} pods updated, {} available); it is enrolled when it is complete",
                workload.name, workload.updated_replicas, workload.replicas, workload.available_replicas
            ),
            None,
        );
        return;
    }
    if leave::hand_back_orphans(d, Some(workload)) || forward::add_finalizer(d) {
        return;
    }
    if take_stable(d, workload) {
        d.act(render::enrol(workload));
    }
}

/// The ReplicaSet that the native controller has for the Deployment's template.
fn live_set<'a>(d: &Draft<'a>, workload: &Workload) -> Option<&'a ReplicaSet> {
    d.seen.replica_sets().find(|set| set.visible_to(workload) && set.digest == workload.digest)
}

/// Records the ReplicaSet of the live template as stable; false while it can't be told.
fn take_stable(d: &mut Draft<'_>, workload: &Workload) -> bool {
    let visible = |set: &&ReplicaSet| set.visible_to(workload);
    // A held workload's stable is the one that has the pods.
    let serving = || d.seen.replica_sets().filter(visible).max_by_key(|set| set.available);
    let found = if workload.held.is_some() { serving() } else { live_set(d, workload) };
    let Some(set) = found else {
        d.wait(
            "WorkloadRolling",
            format!("Deployment {} has no ReplicaSet for its template yet", workload.name),
            None,
        );
        return false;
    };
    let commit = if set.digest == workload.digest { workload.commit.clone() } else { None };
    let revision = set.revision(commit);
    d.status.workload_uid = Some(workload.uid.clone());
    d.status.break_glass.clone_from(&workload.break_glass);
    d.status.stable_commit.clone_from(&revision.commit);
    super::promote::remember_good(d, revision.clone());
    d.status.stable = Some(revision);
    true
}

/// Nothing is held: keep history in order, and notice what changed past us.
fn idle(d: &mut Draft<'_>, workload: &Workload) {
    d.status.phase = Phase::Idle;
    d.status.held = None;
    let stable = d.status.stable.clone().unwrap_or_default();
    if workload.digest != stable.digest {
        unmanaged(d, workload);
        return;
    }
    if d.seen.replica_set(&stable.replica_set).is_none()
        && let Some(set) = live_set(d, workload)
    {
        // Deleted from outside, and made again by the native controller, perhaps under another name.
        let revision = set.revision(stable.commit.clone());
        super::promote::remember_good(d, revision.clone());
        d.status.stable = Some(revision);
        return;
    }
    if workload.commit.is_some() && workload.commit != stable.commit {
        if let Some(known) = d.status.stable.as_mut() {
            known.commit.clone_from(&workload.commit);
        }
        d.status.stable_commit.clone_from(&workload.commit);
    }
    tidy_history(d, workload, &stable.replica_set);
}

/// History older than stable is visible (so `kubectl rollout undo` works), newer is hidden: a scale to zero
/// revives the newest that the Deployment sees. While it is scaled to zero nothing but stable is visible.
fn tidy_history(d: &mut Draft<'_>, workload: &Workload, stable: &str) {
    let Some(stable) = d.seen.replica_set(stable) else {
        return;
    };
    let others =
        d.seen.replica_sets().filter(|set| set.name != stable.name && set.owner_uids.contains(&workload.uid));
    let others: Vec<&ReplicaSet> = others.collect();
    for set in others {
        let older = (&set.created, &set.name) < (&stable.created, &stable.name);
        let visible = set.visible_to(workload);
        let rejected = d.status.quarantine.iter().any(|q| q.digest == set.digest);
        if rejected && set.status_replicas == 0 && set.replicas == 0 {
            d.act(render::delete_replica_set(set));
        } else if older && !visible && set.replicas == 0 && workload.replicas > 0 {
            d.act(render::show(Lane::Tidy, "show-history", workload, set));
        } else if (!older || workload.replicas == 0)
            && visible
            && set.replicas == 0
            && set.status_replicas == 0
        {
            d.act(render::hide(Lane::Tidy, &d.name, workload, set, render::Role::History));
        } else if !visible && set.replicas > 0 && workload.complete() {
            // Left over from a run that a newer state of the cluster ended; it serves until others can.
            d.act(render::scale(Lane::Tidy, "scale-old", set, 0));
        }
    }
}

/// While a template is held the Deployment sees stable's ReplicaSet only: scaled to zero and back it would revive
/// the one that the held template names, or the newest.
fn hide_history(d: &mut Draft<'_>, workload: &Workload) {
    let stable = d.status.stable.clone().unwrap_or_default();
    let idle = |set: &&ReplicaSet| {
        set.name != stable.replica_set
            && set.visible_to(workload)
            && set.replicas == 0
            && set.status_replicas == 0
    };
    let others: Vec<&ReplicaSet> = d.seen.replica_sets().filter(idle).collect();
    for set in others {
        d.act(render::hide(Lane::Tidy, &d.name, workload, set, render::Role::History));
    }
}

/// Pods of a hidden ReplicaSet while no run is under way, as when a write arrived late: the un-pinned Services lead to
/// them. They go before anything starts. True when there are some.
fn left_behind(d: &mut Draft<'_>, workload: &Workload) -> bool {
    let stable = d.status.stable.as_ref().map(|stable| stable.replica_set.clone()).unwrap_or_default();
    // Capacity first: without stable's pods these may be all that serves.
    if d.seen.replica_set(&stable).is_none_or(|set| set.available < workload.replicas) {
        return false;
    }
    let left = |set: &&ReplicaSet| {
        set.name != stable
            && set.owner_uids.contains(&workload.uid)
            && !set.visible_to(workload)
            && (set.replicas > 0 || set.status_replicas > 0)
    };
    let left: Vec<&ReplicaSet> = d.seen.replica_sets().filter(left).collect();
    for set in left.iter().filter(|set| set.replicas > 0) {
        d.act(render::scale(Lane::Tidy, "scale-old", set, 0));
    }
    if let Some(first) = left.first() {
        d.status.phase = d.input.rollout.status.as_ref().map_or(Phase::Held, |status| status.phase);
        d.wait("CanaryGoing", format!("pods of {} were left behind, they go", first.name), None);
    }
    !left.is_empty()
}

/// The live template is not the one we know: a re-created Deployment, or a write past the policies.
fn unmanaged(d: &mut Draft<'_>, workload: &Workload) {
    let known_bad = d
        .status
        .quarantine
        .iter()
        .find(|q| q.digest == workload.digest || q.restart_digest == workload.restart_digest)
        .cloned();
    if let Some(bad) = known_bad {
        // A pause alone may be a person's, who would let it go on unawares.
        if !workload.paused || workload.held != Some(HeldMark::Rejected) {
            d.act(render::hold(Lane::Abort, workload, HeldMark::Rejected));
            if !d.told(REJECTED_LIVE) {
                d.warn(
                    "UnmanagedChange",
                    format!(
                        "the template that run {} rejected went live past the hold; the Deployment is paused",
                        bad.run_id
                    ),
                );
            }
        }
        d.stall(
            REJECTED_LIVE,
            format!("run {} rejected this template ({}); apply another one", bad.run_id, bad.reason),
        );
        return;
    }
    if !workload.complete() {
        d.wait(
            "WorkloadRolling",
            format!("Deployment {} rolls a template that was not held", workload.name),
            None,
        );
        return;
    }
    d.warn(
        "UnmanagedChange",
        format!("Deployment {} runs a template that was not held; it is taken as stable", workload.name),
    );
    d.status.stable = None;
    take_stable(d, workload);
}

/// A person freed the workload: let go of it, remember the value, enrol again once it is complete.
fn broken_glass(d: &mut Draft<'_>, workload: &Workload) {
    d.status.phase = Phase::Released;
    if leave::restore(d, workload) {
        d.wait(
            "BreakGlass",
            "the Deployment was freed by break-glass; everything of ours is taken off it",
            None,
        );
        return;
    }
    let value = workload.break_glass.clone().unwrap_or_default();
    d.warn("BreakGlass", format!("Deployment {} was freed by break-glass ({value}); it is enrolled again once its roll is complete", workload.name));
    d.status.break_glass = Some(value);
    d.status.stable = None;
    d.status.held = None;
    d.status.workload_uid = None;
}

/// The plan that a held template would have, for `status`.
pub(super) fn preview(d: &Draft<'_>, workload: &Workload) -> Plan {
    let images = d.status.stable.as_ref().map(|stable| stable.images.clone()).unwrap_or_default();
    let view = limits::describe(&d.spec.change, workload, &images);
    limits::make_plan(d.spec, d.input.config, workload, view.provenance)
}
