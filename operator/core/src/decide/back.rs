//! Back to stable, from anywhere: traffic first, then pods, then names.
//!
//! One path serves abort, revert, supersede and removal. Sending traffic home needs nothing but the frozen
//! plan; the rest is tidied once weight 0 is verified.

use crate::action::Lane;
use crate::api::{EndedRun, GoingBack, HeldRevision, Outcome, Run};
use crate::digest;
use crate::limits::pods_for;
use crate::render::{self, Role};
use crate::view::{HeldMark, Workload, shorten};

use super::draft::{Draft, MESSAGE_LIMIT};
use super::forward::{apex_selector, canary_set, changed_set};
use super::leave;
use super::promote::{empty_canary_service, end, unmark, unpin};
use super::stop::SHARED_INCIDENT;
use super::traffic::{self, Weights};

/// Proxies may lag behind an acknowledgement by their own throttle: never scale down sooner, in seconds.
const SHORTEST_SETTLE_SECONDS: i32 = 5;
/// How long going back waits for ready stable endpoints before it sends traffic there anyway, in seconds.
const ENDPOINT_SECONDS: i32 = 10;
/// How long a revert waits for the old revision to be at full size, in seconds.
const CAPACITY_SECONDS: i32 = 120;
/// How long stable is judged once it has the traffic back, in seconds.
const BLAME_SECONDS: i32 = 300;
/// How long the first evaluation after a restart may take, in seconds.
const FIRST_LOOK_SECONDS: i32 = 60;

/// One pass on the way back.
pub(super) fn step(d: &mut Draft<'_>, mut run: Run) {
    let Some(mut back) = run.going_back.clone() else {
        d.status.run = Some(run);
        return;
    };
    if let Some(workload) = d.workload() {
        if leave::broken_glass(d, workload) || leave::replaced(d, workload) {
            freed(d, run, workload);
            return;
        }
        if stable_is_gone(d, &run) {
            alone(d, run, workload);
            return;
        }
    }
    let home = send_home(d, &run);
    if !home {
        let message = traffic::problem(&run.plan, d.seen).unwrap_or_else(|| {
            format!("weight 0 is written since {:.0}, not yet seen on every route", back.since)
        });
        d.wait("ReturningTraffic", message, None);
        d.status.run = Some(run);
        return;
    }
    let back_at = *back.back_at.get_or_insert(d.now);
    run.going_back = Some(back.clone());
    if let Some(why) = d.seen.unseen() {
        // What can't be seen is not gone: nothing is tidied on a guess.
        d.wait("CannotRead", format!("{why}; traffic is back at stable"), None);
        d.status.run = Some(run);
        return;
    }
    let Some(workload) = d.workload() else {
        without_workload(d, run, back_at);
        return;
    };
    if swap_back(d, &run, workload) {
        d.wait("SwappingBack", "the stable ReplicaSet becomes the Deployment's own again", None);
        d.status.run = Some(run);
        return;
    }
    if back.verified_at.is_none() {
        if !verified(d, &run, back_at) {
            d.status.run = Some(run);
            return;
        }
        back.verified_at = Some(d.now);
        run.going_back = Some(back.clone());
        run.exposed_until = Some(d.now);
        if run.exposed_since.is_some() {
            let seconds = super::draft::seconds_between(back.since, d.now);
            d.normal(
                "TrafficReturned",
                format!("run {}: weight 0 verified {seconds} s after the decision", run.id),
            );
        }
    }
    if !canary_gone(d, &run, workload) {
        d.status.run = Some(run);
        return;
    }
    let emptied = empty_canary_service(d, &run, Lane::Tidy);
    let unpinned = unpin(d, &run);
    let unmarked = unmark(d, &run);
    if !(emptied && unpinned && unmarked) {
        d.wait("Tidying", "the pair of Services is un-pinned", None);
        d.status.run = Some(run);
        return;
    }
    if blame_waits(d, &run, back_at, workload) {
        d.status.run = Some(run);
        return;
    }
    conclude(d, run, workload);
}

/// Whether stable, that has the traffic back, is still judged. Everything is in order by now; only the word on the
/// revision waits, and not for longer than it matters.
fn blame_waits(d: &mut Draft<'_>, run: &Run, back_at: jiff::Timestamp, workload: &Workload) -> bool {
    let judged = run.going_back.as_ref().is_some_and(|back| back.judges_stable);
    if !judged || leave::leaving(d) || workload.digest != run.canary.digest {
        return false;
    }
    let from = d.after(back_at, run.plan.settle_seconds);
    // After a restart the first evaluation says what was counted before.
    let told = d.input.verdict.run_id == run.id;
    let seconds = if told { BLAME_SECONDS } else { BLAME_SECONDS + FIRST_LOOK_SECONDS };
    if d.passed(from, seconds) {
        return false;
    }
    let message = "traffic is back; stable is judged by itself before the revision is blamed, since nothing was beside it";
    let deadline = d.after(from, BLAME_SECONDS);
    d.wait("JudgingStable", message, Some(deadline));
    true
}

/// The outcome, its reason and a sentence: not the revision's fault when stable does the same without it.
fn verdict_on(d: &Draft<'_>, run: &Run, back: &GoingBack) -> (Outcome, String, String) {
    let told = d
        .input
        .verdict
        .stable_too
        .as_ref()
        .filter(|_| back.judges_stable && d.input.verdict.run_id == run.id);
    match told {
        Some(what) => {
            let message = shorten(&format!("{what}; before that: {}", back.message), MESSAGE_LIMIT);
            (Outcome::NotProven, SHARED_INCIDENT.to_owned(), message)
        }
        None => (back.outcome, back.reason.clone(), back.message.clone()),
    }
}

/// A person freed the Deployment, or deleted it and created another of its name: the native controller rolls what the
/// template says, beside our pods. It is not held, and gets no ReplicaSet of ours. Requests go by the un-pinned stable
/// Service to whatever is ready, then our pods go.
fn freed(d: &mut Draft<'_>, mut run: Run, workload: &Workload) {
    let (reason, why) = why_freed(d, workload);
    if !all_pods_serve(d, &mut run, reason, &format!("the Deployment was {why}")) {
        d.status.run = Some(run);
        return;
    }
    if !our_pods_gone(d, &run, workload) {
        d.status.run = Some(run);
        return;
    }
    tidy_and_conclude(d, run, workload);
}

/// Stable's ReplicaSet was deleted from outside, and its template with it: the Deployment's own is another one by now,
/// so nothing makes it again before a person applies it. The new revision's pods are the only ones there are; they
/// stay, at the workload's size, and every request goes to them.
fn alone(d: &mut Draft<'_>, mut run: Run, workload: &Workload) {
    let left = canary_set(d, &run, workload).filter(|set| !set.visible_to(workload));
    if let Some(left) = left.filter(|set| set.replicas < workload.replicas) {
        d.act(render::scale(Lane::Abort, "scale-canary", left, workload.replicas));
    }
    if all_pods_serve(d, &mut run, "StableGone", "the stable revision's ReplicaSet was deleted") {
        tidy_and_conclude(d, run, workload);
    } else {
        d.status.run = Some(run);
    }
}

/// Whether the stable revision can't serve any more since its ReplicaSet does not exist.
pub(super) fn stable_is_gone(d: &Draft<'_>, run: &Run) -> bool {
    // One that is deleted lets go of its ReplicaSets first, when its pods are to be kept.
    let asleep = d.workload().is_none_or(|workload| workload.replicas == 0 || workload.deleting);
    !asleep && d.seen.replica_sets.get().is_some() && d.seen.replica_set(&run.stable.replica_set).is_none()
}

/// Un-pins the stable Service, so that it leads to every pod of the workload, and sends it everything. True when that
/// is so and proxies had time to follow.
fn all_pods_serve(d: &mut Draft<'_>, run: &mut Run, reason: &'static str, why: &str) -> bool {
    let Some(mut back) = run.going_back.clone() else {
        return false;
    };
    let service = run.plan.stable_service.clone();
    let before = d.actions.len();
    // Un-pinned it selects more pods, never fewer, so this is safe under traffic.
    let apex = apex_selector(d, run);
    if let Some(stable) = d.seen.service(&service).filter(|service| service.pinned().is_some()) {
        d.act(render::select(Lane::Abort, stable, apex.clone()));
    }
    let other = d.seen.service(&run.plan.canary_service).filter(|service| service.pinned().is_some());
    if let Some(other) = other.filter(|_| traffic::problem(&run.plan, d.seen).is_some()) {
        d.act(render::select(Lane::Abort, other, apex));
    }
    let home = traffic::shown_by_those_left(&run.plan, d.seen) == Weights::All(0);
    if !home && (d.seen.ready_pods_behind(&service) > 0 || d.passed(back.since, ENDPOINT_SECONDS)) {
        traffic::set(d, run, Lane::Abort, 0);
    }
    if d.actions.len() > before || !home {
        d.wait(reason, format!("{why}; traffic goes to all pods of the workload"), None);
        return false;
    }
    let back_at = *back.back_at.get_or_insert(d.now);
    run.going_back = Some(back);
    if let Some(unseen) = d.seen.unseen() {
        d.wait("CannotRead", format!("{unseen}; {why}"), None);
        return false;
    }
    if !d.passed(back_at, run.plan.settle_seconds.max(SHORTEST_SETTLE_SECONDS)) {
        d.wait("Settling", "proxies get time to follow", None);
        return false;
    }
    true
}

fn tidy_and_conclude(d: &mut Draft<'_>, mut run: Run, workload: &Workload) {
    run.exposed_until = run.exposed_since.map(|_| d.now);
    let emptied = empty_canary_service(d, &run, Lane::Tidy);
    let unmarked = unmark(d, &run);
    if emptied && unmarked {
        conclude(d, run, workload);
    } else {
        d.wait("Tidying", "the canary Service is emptied", None);
        d.status.run = Some(run);
    }
}

fn why_freed(d: &Draft<'_>, workload: &Workload) -> (&'static str, &'static str) {
    if leave::replaced(d, workload) {
        ("WorkloadReplaced", "deleted and created again")
    } else {
        ("BreakGlass", "freed by break-glass")
    }
}

/// Takes our pods away as far as others are ready; true when none is left.
fn our_pods_gone(d: &mut Draft<'_>, run: &Run, workload: &Workload) -> bool {
    let (reason, _) = why_freed(d, workload);
    let service = &run.plan.stable_service;
    if let Some(old) = d.seen.replica_set(&run.stable.replica_set).filter(|set| !set.visible_to(workload))
        && (old.replicas > 0 || old.status_replicas > 0)
    {
        if !workload.complete() {
            let message = format!("{} serves until the Deployment's own roll is complete", old.name);
            d.wait(reason, message, None);
            return false;
        }
        if old.replicas > 0 {
            d.act(render::scale(Lane::Tidy, "scale-old", old, 0));
        }
        d.wait(reason, "the pods that Sluice kept go", None);
        return false;
    }
    let canary = canary_set(d, run, workload).filter(|set| !set.visible_to(workload) && set.replicas > 0);
    if let Some(canary) = canary {
        let others = d.seen.ready_pods_behind(service) - d.seen.ready_behind(service, &canary.name);
        if others <= 0 && workload.replicas > 0 {
            d.wait(reason, "the canary serves until a pod of the Deployment is ready", None);
            return false;
        }
    }
    canary_gone(d, run, workload)
}

/// Sends all traffic to the stable revision; true when it is there.
///
/// A weight never moves to a Service without ready pods, and a selector changes only while its Service
/// carries no weight, except when what can't be seen would hold an abort up.
fn send_home(d: &mut Draft<'_>, run: &Run) -> bool {
    let plan = &run.plan;
    let shown = traffic::shown_by_those_left(plan, d.seen);
    let pinned =
        d.seen.service(&plan.stable_service).and_then(|service| service.pinned().map(ToOwned::to_owned));
    let stable_leads_away = pinned.as_deref() == Some(run.canary.hash.as_str());
    // The canary Service of a route that can't be written leads home itself.
    let apex = apex_selector(d, run);
    let old = render::pinned(&apex, &run.stable.hash);
    let other = d.seen.service(&plan.canary_service);
    let other_is_old = other.is_some_and(|service| service.pinned() == Some(run.stable.hash.as_str()));
    let astray = traffic::problem(plan, d.seen).is_some();
    if !stable_leads_away {
        // Un-pinned, at the end of the run, it leads to stable's pods as well: there are no others by then.
        let ends = run.going_back.as_ref().is_some_and(|back| back.verified_at.is_some());
        let led_home = other_is_old || ends && other.is_some_and(|service| service.pinned().is_none());
        if shown == Weights::All(0) && (!astray || led_home) {
            return true;
        }
        if !stable_can_serve(d, run) {
            return false;
        }
        if shown != Weights::All(0) {
            traffic::set(d, run, Lane::Abort, 0);
        } else if let Some(service) = other {
            d.act(render::select(Lane::Abort, service, old));
        }
        return false;
    }
    // After promotion the stable Service leads to the new pods: traffic goes home by way of the other one.
    let none_left = traffic::none_left(plan, d.seen) && (!astray || other_is_old && old_at_full_size(d, run));
    match shown {
        // Nobody comes by this Service: all go by the other one, or no route leads to the pair any more.
        _ if shown == Weights::All(100) || none_left => {
            if let Some(service) = d.seen.service(&plan.stable_service) {
                d.act(render::select(Lane::Abort, service, old));
            }
        }
        Weights::All(0) if !other_is_old => {
            if let Some(service) = other {
                d.act(render::select(Lane::Abort, service, old));
            }
        }
        Weights::All(0) => {
            if old_at_full_size(d, run) {
                traffic::set(d, run, Lane::Abort, 100);
            }
        }
        // Some routes are at 100/0 and some at 0/100: bring all to the side of the canary Service first. It leads
        // to the new pods or to the old ones; either way no selector changes under traffic.
        Weights::Mixed | Weights::All(_) | Weights::Unknown => traffic::set(d, run, Lane::Abort, 100),
    }
    false
}

/// Whether the stable Service has a ready pod; what can't be seen, or lasts too long, does not hold an abort up.
fn stable_can_serve(d: &mut Draft<'_>, run: &Run) -> bool {
    if d.seen.endpoints.get().is_none() || d.seen.services.get().is_none() {
        return true;
    }
    if d.seen.ready_behind(&run.plan.stable_service, &run.stable.replica_set) > 0 {
        return true;
    }
    let since = run.going_back.as_ref().map_or(d.now, |back| back.since);
    d.passed(since, ENDPOINT_SECONDS)
}

/// Whether the old revision can take everything: warm pods make it so at once.
fn old_at_full_size(d: &mut Draft<'_>, run: &Run) -> bool {
    let Some(workload) = d.workload() else {
        return true;
    };
    let Some(old) = d.seen.replica_set(&run.stable.replica_set) else {
        return false; // what can't be seen can't take anything; one that is gone is told before this
    };
    if old.replicas < workload.replicas && !old.visible_to(workload) {
        d.act(render::scale(Lane::Abort, "scale-warm", old, workload.replicas));
    }
    if workload.replicas == 0 {
        return true; // nothing serves, nothing can be lost
    }
    let need = pods_for(workload.replicas, 100);
    let ready = d.seen.ready_behind(&run.plan.canary_service, &old.name);
    let since = run.going_back.as_ref().map_or(d.now, |back| back.since);
    ready >= need || (ready > 0 && d.passed(since, CAPACITY_SECONDS))
}

/// Makes stable the only ReplicaSet that the Deployment sees, with the Deployment paused. True when there was
/// something to do.
fn swap_back(d: &mut Draft<'_>, run: &Run, workload: &Workload) -> bool {
    let canary = canary_set(d, run, workload);
    let stable = d.seen.replica_set(&run.stable.replica_set);
    let canary_visible = canary.is_some_and(|set| set.visible_to(workload));
    let stable_hidden = stable.is_some_and(|set| !set.visible_to(workload));
    if !canary_visible && !stable_hidden {
        return false;
    }
    if !workload.paused || workload.held.is_none() {
        d.act(render::hold(Lane::Abort, workload, HeldMark::Held));
    } else if let Some(set) = canary.filter(|set| set.visible_to(workload)) {
        d.act(render::hide(Lane::Abort, &d.name, workload, set, Role::Canary));
    } else if let Some(set) = stable.filter(|set| !set.visible_to(workload)) {
        d.act(render::show(Lane::Abort, "adopt-stable", workload, set));
    }
    true
}

/// Weight 0 is verified when the settle time has passed and no request reaches the canary, or the drain time is over.
fn verified(d: &mut Draft<'_>, run: &Run, back_at: jiff::Timestamp) -> bool {
    if run.exposed_since.is_none() {
        return true;
    }
    let settle = run.plan.settle_seconds.max(SHORTEST_SETTLE_SECONDS);
    if !d.passed(back_at, settle) {
        let deadline = d.after(back_at, settle);
        d.wait(
            "Settling",
            format!("weight 0 is live in the API; proxies get {settle} s to follow"),
            Some(deadline),
        );
        return false;
    }
    // A whole scrape after the weight was 0 shows no new request.
    let quiet = d.input.verdict.run_id == run.id
        && d.input.verdict.quiet.is_some_and(|(from, to)| to > from.max(back_at));
    let drain = run.plan.drain_seconds.max(settle);
    if quiet || d.passed(back_at, drain) {
        return true;
    }
    let deadline = d.after(back_at, drain);
    d.wait(
        "Draining",
        format!("waits until no request reaches the canary, at most {drain} s"),
        Some(deadline),
    );
    false
}

/// Scales the canary down and takes it away; true when nothing of it is left.
fn canary_gone(d: &mut Draft<'_>, run: &Run, workload: &Workload) -> bool {
    let set = canary_set(d, run, workload).or_else(|| changed_set(d, run));
    let Some(set) = set.filter(|set| !set.visible_to(workload)) else {
        return true;
    };
    if set.replicas > 0 {
        d.act(render::scale(Lane::Tidy, "scale-canary", set, 0));
    }
    if set.replicas > 0 || set.status_replicas > 0 {
        d.wait("CanaryGoing", format!("{} canary pods go", set.status_replicas), None);
        return false;
    }
    d.act(render::delete_replica_set(set));
    d.wait("CanaryGoing", "the canary's ReplicaSet is deleted", None);
    false
}

/// The workload is gone, and its ReplicaSets with it, unless they were orphaned: then stable goes on serving, ours
/// go or are handed back.
fn without_workload(d: &mut Draft<'_>, run: Run, back_at: jiff::Timestamp) {
    if !verified(d, &run, back_at) {
        d.status.run = Some(run);
        return;
    }
    if let Some(canary) = d.seen.replica_set(&run.canary.replica_set).filter(|set| leave::is_ours(d, set)) {
        d.act(render::delete_replica_set(canary));
        d.wait("CanaryGoing", "the canary's ReplicaSet is deleted", None);
        d.status.run = Some(run);
        return;
    }
    let handed_back = leave::hand_back_orphans(d, None);
    let emptied = empty_canary_service(d, &run, Lane::Tidy);
    let unpinned = unpin(d, &run);
    let unmarked = unmark(d, &run);
    if emptied && unpinned && unmarked && !handed_back {
        end(d, run, Outcome::Abandoned, "WorkloadGone", "the Deployment was deleted".to_owned());
    } else {
        d.status.run = Some(run);
    }
}

/// Ends the run and says what becomes of the held template.
fn conclude(d: &mut Draft<'_>, run: Run, workload: &Workload) {
    let Some(back) = run.going_back.clone() else {
        d.status.run = Some(run);
        return;
    };
    let (digest_tried, run_id) = (run.canary.digest.clone(), run.id.clone());
    let (outcome, reason, message) = verdict_on(d, &run, &back);
    d.status.stable = Some(run.stable.clone());
    d.status.stable_commit.clone_from(&run.stable.commit);
    let ended = EndedRun {
        run_id,
        outcome,
        reason: reason.clone(),
        message: message.clone(),
        change_digest: digest::of(&d.spec.change),
    };
    let (provenance, earlier_commit) = (run.plan.provenance, run.earlier_commit.clone());
    end(d, run, outcome, &reason, message);
    let still_held = workload.digest == digest_tried;
    let blocked = matches!(outcome, Outcome::Rejected | Outcome::Reverted | Outcome::NotProven);
    d.status.held = (still_held && workload.held.is_some()).then(|| HeldRevision {
        digest: digest_tried,
        since: d.now,
        provenance,
        commit: None,
        earlier_commit,
        known_alerts: Vec::new(),
        alerts_since: None,
        ended: blocked.then_some(ended),
    });
}
