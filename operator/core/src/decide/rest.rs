//! At rest: is the workload enrolled, and is a template held?

use crate::action::Lane;
use crate::api::{Phase, Plan, Revision};
use crate::config::Hold;
use crate::limits;
use crate::policy::{self, Assessment, Sourced};
use crate::provenance::{self, Before, ChangeView};
use crate::render;
use crate::risk::ErrorBudget;
use crate::view::{HeldMark, ReplicaSet, Workload};

use super::draft::Draft;
use super::{budget, forward, ground, held, history, leave};

/// A template that a run rejected is what the Deployment runs.
const REJECTED_LIVE: &str = "RejectedRevisionLive";

/// No run is under way.
pub(super) fn step(d: &mut Draft<'_>) {
    d.status.phase = Phase::Pending;
    if let Some(why) = d.seen.unseen() {
        d.stall("CannotRead", format!("{why}. Does the ServiceAccount have the chart's roles, and are the Gateway API CRDs installed?"));
        return;
    }
    let Some(workload) = ground::in_order(d) else {
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
    if !workload.managed && !ground::volumes_in_order(d, workload) {
        return;
    }
    if !ground::pair_in_order(d, workload) {
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
        history::hide(d, workload);
        if history::left_behind(d, workload) {
            d.status.phase = if before == Phase::Pending { Phase::Held } else { before };
        } else {
            held::step(d, workload);
        }
    } else {
        idle(d, workload);
    }
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
    // A commit that needed no new template, but not the one of a template that was taken back.
    let other = workload.commit.is_some() && workload.commit != stable.commit;
    if other && !Before::held(&stable, &d.status).has_spent(workload) {
        if let Some(known) = d.status.stable.as_mut() {
            known.commit.clone_from(&workload.commit);
        }
        d.status.stable_commit.clone_from(&workload.commit);
    }
    history::left_behind(d, workload);
    history::tidy(d, workload, &stable.replica_set);
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

/// The risk of the change that `view` describes, with this much left of the error budget.
pub(super) fn assess(d: &Draft<'_>, view: &ChangeView, left: Sourced<ErrorBudget>) -> Assessment {
    policy::assess(d.spec, view, d.input.policy, &d.status.history, left, d.now)
}

/// What is known of the change that a held template is.
pub(super) fn view(d: &Draft<'_>, workload: &Workload) -> ChangeView {
    let none = Revision::default();
    let stable = d.status.stable.as_ref().unwrap_or(&none);
    provenance::describe(&d.spec.change, workload, Before::held(stable, &d.status))
}

/// The plan that it would have.
pub(super) fn preview(d: &Draft<'_>, workload: &Workload, view: &ChangeView) -> (Plan, Assessment) {
    let risk = assess(d, view, budget::level(d));
    let change = (risk.provenance, risk.class);
    (limits::make_plan(d.spec, d.input.config, d.input.policy, workload, change), risk)
}
