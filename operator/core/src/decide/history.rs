//! ReplicaSets while no run is under way: which of them the Deployment sees, and pods that were left behind.

use crate::action::Lane;
use crate::render;
use crate::view::{ReplicaSet, Workload};

use super::draft::Draft;

/// History older than stable is visible (so `kubectl rollout undo` works), newer is hidden: a scale to zero
/// revives the newest that the Deployment sees. While it is scaled to zero nothing but stable is visible.
pub(super) fn tidy(d: &mut Draft<'_>, workload: &Workload, stable: &str) {
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
        }
    }
}

/// While a template is held the Deployment sees stable's ReplicaSet only: scaled to zero and back it would revive
/// the one that the held template names, or the newest.
pub(super) fn hide(d: &mut Draft<'_>, workload: &Workload) {
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

/// Pods of a hidden ReplicaSet while no run is under way, as when a write arrived late or a run ended without its stable
/// pods: the un-pinned Services lead to them. They go before anything starts. True when there are some.
pub(super) fn left_behind(d: &mut Draft<'_>, workload: &Workload) -> bool {
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
        d.wait("CanaryGoing", format!("pods of {} were left behind, they go", first.name), None);
    }
    !left.is_empty()
}
