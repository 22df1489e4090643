//! Letting go: the rollout is deleted, the installation is removed, the workload is gone, or break-glass.
//!
//! Traffic returns first; what stays behind are ordinary Kubernetes objects. A held or rejected revision keeps
//! `paused: true` and git's template: `kubectl rollout resume` releases it, nobody else.

use serde_json::Value;

use crate::action::Lane;
use crate::api::{FINALIZER, LABEL_ROLLOUT, Outcome, Phase, Run, Stage};
use crate::render;
use crate::view::{ReplicaSet, Workload};

use super::draft::Draft;
use super::traffic;

/// Whether every rollout, or this one, lets go.
pub(super) fn leaving(d: &Draft<'_>) -> bool {
    d.input.releasing || d.input.rollout.metadata.deletion_timestamp.is_some()
}

/// Sends a run back whose ground has gone.
pub(super) fn abandon(d: &mut Draft<'_>, run: &mut Run) {
    let freed = d.workload().is_some_and(|workload| broken_glass(d, workload));
    if run.stage == Stage::Finishing && !freed {
        // It is proven and live: it ends first, and then lets go.
        return;
    }
    if leaving(d) {
        let why = if d.input.releasing {
            "the installation is being removed"
        } else {
            "the ProgressiveRollout is being deleted"
        };
        d.go_back(run, Outcome::Abandoned, "Removed", why);
        return;
    }
    if d.seen.workload.get().is_some_and(Option::is_none) {
        d.go_back(run, Outcome::Abandoned, "WorkloadGone", "the Deployment was deleted");
        return;
    }
    let Some(workload) = d.workload() else {
        return;
    };
    if replaced(d, workload) {
        d.go_back(
            run,
            Outcome::Abandoned,
            "WorkloadReplaced",
            "the Deployment was deleted and created again",
        );
        return;
    }
    if broken_glass(d, workload) {
        d.go_back(run, Outcome::Abandoned, "BreakGlass", "the Deployment was freed by break-glass");
    }
}

/// Whether this is another Deployment than the one that was enrolled, with its name.
pub(super) fn replaced(d: &Draft<'_>, workload: &Workload) -> bool {
    d.status.workload_uid.as_ref().is_some_and(|uid| *uid != workload.uid)
}

/// Whether a person freed the workload with a new break-glass value. Everybody who may edit can write the annotation;
/// only a write that the policies accept as break-glass takes the label off.
pub(super) fn broken_glass(d: &Draft<'_>, workload: &Workload) -> bool {
    !workload.managed && workload.break_glass.is_some() && workload.break_glass != d.status.break_glass
}

/// No run: give the workload back, then let the finalizer go.
pub(super) fn step(d: &mut Draft<'_>) {
    if let Some(why) = d.seen.unseen() {
        d.wait("CannotRead", format!("{why}; letting go waits"), None);
        return;
    }
    let acted = match d.workload() {
        Some(workload) => restore(d, workload),
        None => hand_back_orphans(d, None),
    };
    if acted {
        d.wait("LettingGo", "history, Services and the Deployment become ordinary objects again", None);
        return;
    }
    d.status.phase = Phase::Released;
    d.status.held = None;
    let meta = &d.input.rollout.metadata;
    let finalizers = meta.finalizers.clone().unwrap_or_default();
    if finalizers.iter().any(|name| name == FINALIZER) {
        let uid = meta.uid.clone().unwrap_or_default();
        d.act(render::remove_finalizer(&d.name, &uid, &finalizers));
    }
}

/// Un-hides history, un-pins the pair, takes label and mark off. True when there was something to do.
pub(super) fn restore(d: &mut Draft<'_>, workload: &Workload) -> bool {
    // Label and mark go last: until then nothing new rolls, and when it may, the native controller finds all its history.
    // A paused Deployment keeps its pause.
    let mut acted = false;
    let hidden: Vec<_> = d
        .seen
        .replica_sets()
        .filter(|set| set.owner_uids.contains(&workload.uid) && !set.visible_to(workload))
        .collect();
    for set in hidden {
        d.act(render::show(Lane::Tidy, "show-history", workload, set));
        acted = true;
    }
    acted |= hand_back_orphans(d, Some(workload));
    let apex_name = d.spec.routing.service.clone();
    let apex = d.seen.service(&apex_name).map(|service| service.selector.clone());
    let pair = [crate::limits::stable_service(&apex_name), crate::limits::canary_service(&apex_name)];
    if let (Some(apex), Some(stable)) = (apex, d.seen.service(&pair[0]))
        && stable.rollout.as_deref() == Some(d.name.as_str())
        && stable.pinned().is_some()
    {
        d.act(render::select(Lane::Tidy, stable, apex));
        acted = true;
    }
    if d.status.workload_uid.is_some() {
        acted |= routes_home(d, &pair[0], &pair[1]);
    }
    if acted {
        return true;
    }
    if workload.managed || workload.held.is_some() {
        d.act(render::disenrol(workload));
        return true;
    }
    false
}

/// Whether a ReplicaSet carries our label: the native controller does not see it.
pub(super) fn is_ours(d: &Draft<'_>, set: &ReplicaSet) -> bool {
    set.labels.get(LABEL_ROLLOUT).and_then(Value::as_str) == Some(d.name.as_str())
}

/// ReplicaSets that we hid and whose Deployment is gone (`--cascade=orphan`) get their own labels back, so that a
/// Deployment that is created again finds them. True when there was something to do.
pub(super) fn hand_back_orphans(d: &mut Draft<'_>, workload: Option<&Workload>) -> bool {
    let owned = |set: &ReplicaSet| workload.is_some_and(|workload| set.owner_uids.contains(&workload.uid));
    let orphans: Vec<&ReplicaSet> =
        d.seen.replica_sets().filter(|set| is_ours(d, set) && !owned(set)).collect();
    for set in &orphans {
        d.act(render::hand_back(set));
    }
    !orphans.is_empty()
}

/// The routes of an enrolled workload rest at 100 and 0, without our mark. True when there was something to do.
fn routes_home(d: &mut Draft<'_>, stable: &str, canary: &str) -> bool {
    let mut acted = false;
    for named in &d.spec.routing.routes {
        let Some(route) = d.seen.route(&named.name) else {
            continue;
        };
        let pairs = route.pairs(stable, canary, &named.rules).unwrap_or_default();
        if pairs.iter().any(|pair| pair.canary != 0 || pair.stable <= 0) {
            // Somebody gave the canary Service weight, and it has no pods.
            d.act(render::set_weights(Lane::Tidy, &named.name, traffic::at_rest(named, stable, canary)));
            acted = true;
        } else if route.traffic.is_some() {
            d.act(render::unmark_route(route));
            acted = true;
        }
    }
    acted
}
