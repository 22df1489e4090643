//! The names around a run: history that is hidden, and the pair of Services with its pins.

use serde_json::Map;

use crate::action::Lane;
use crate::api::{LABEL_HASH, Outcome, Run};
use crate::render::{self, Role};
use crate::view::{ReplicaSet, Workload};

use super::super::draft::Draft;

/// What waits for the pair's Services to lead to their revisions.
pub(super) const PINNING: &str = "PinningServices";

/// During a run the only ReplicaSet that the Deployment sees is stable's. True when something had to be hidden.
pub(super) fn hide_history(d: &mut Draft<'_>, run: &Run, workload: &Workload) -> bool {
    let others: Vec<&ReplicaSet> = d
        .seen
        .replica_sets()
        .filter(|set| set.visible_to(workload) && set.name != run.stable.replica_set)
        .collect();
    for set in &others {
        let role = if set.digest == run.canary.digest { Role::Canary } else { Role::History };
        d.act(render::hide(Lane::Forward, &d.name, workload, set, role));
    }
    if !others.is_empty() {
        d.wait(
            "HidingHistory",
            format!("{} older ReplicaSets are hidden from the Deployment", others.len()),
            None,
        );
    }
    !others.is_empty()
}

/// Pins the pair to its two revisions. True when something had to change.
pub(super) fn pin_pair(d: &mut Draft<'_>, run: &Run) -> bool {
    let plan = &run.plan;
    let apex = apex_selector(d, run);
    let hashes = [(&plan.stable_service, &run.stable.hash), (&plan.canary_service, &run.canary.hash)];
    let mut changed = false;
    for (name, hash) in hashes {
        // One that is missing is made again before this.
        if let Some(service) = d.seen.service(name)
            && service.pinned() != Some(hash.as_str())
        {
            d.act(render::select(Lane::Forward, service, render::pinned(&apex, hash)));
            changed = true;
        }
    }
    changed
}

/// Somebody took the pin off stable's Service: canary pods would get a share of its traffic, whatever the weight. True
/// when it has to be put back. One that can't be put back ends the run: its traffic is not what the weight says.
pub(super) fn unpinned(d: &mut Draft<'_>, run: &mut Run) -> bool {
    let apex = apex_selector(d, run);
    let Some(service) = d.seen.service(&run.plan.stable_service).filter(|s| s.pinned().is_none()) else {
        return false;
    };
    d.act(render::select(Lane::Forward, service, render::pinned(&apex, &run.stable.hash)));
    let message =
        format!("Service {} lost its pin to {}; it is pinned again", service.name, run.stable.replica_set);
    let since = d.waits_since(PINNING);
    let seconds = run.plan.no_data_seconds;
    if d.passed(since, seconds) {
        d.go_back(run, Outcome::NotProven, "PinLost", format!("{message}, without success for {seconds} s"));
    } else {
        d.wait(PINNING, message, Some(d.after(since, seconds)));
    }
    true
}

/// Selector that the pair has at rest: the apex Service's, or what one of the pair shows without its pin.
pub(in crate::decide) fn apex_selector(d: &Draft<'_>, run: &Run) -> Map<String, serde_json::Value> {
    let names = [&run.plan.service, &run.plan.stable_service, &run.plan.canary_service];
    let found = names.into_iter().find_map(|name| d.seen.service(name));
    let mut selector = found.map(|service| service.selector.clone()).unwrap_or_default();
    selector.remove(LABEL_HASH);
    selector
}
