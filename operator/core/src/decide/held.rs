//! A held template: is it stable's own, a recorded good one, a rejected one, or new?

use crate::action::Lane;
use crate::api::{HeldRevision, Outcome, Phase, Revision, Run, RunKind, Stage};
use crate::digest;
use crate::limits;
use crate::render;
use crate::view::{HeldMark, Workload};

use super::draft::Draft;
use super::{ground, rest};

/// Characters of the revision hash in a run's name.
const RUN_HASH_LEN: usize = 5;

/// Decides what becomes of a held template while no run is under way.
pub(super) fn step(d: &mut Draft<'_>, workload: &Workload) {
    d.status.phase = Phase::Held;
    let stable = d.status.stable.clone().unwrap_or_default();
    if workload.held == Some(HeldMark::UserPaused) {
        let message = format!(
            "Deployment {} was paused by a person: kubectl rollout resume deployment/{} -n {}",
            workload.name, workload.name, d.namespace
        );
        d.wait("UserPaused", message, None);
        return;
    }
    if workload.digest == stable.digest {
        d.act(render::release(Lane::Tidy, workload, true));
        let before = d.input.rollout.status.as_ref();
        if before.is_none_or(|before| before.observed_workload_generation != Some(workload.generation)) {
            d.normal(
                "Unchanged",
                format!("the held template is the one that runs ({}); nothing starts", stable.replica_set),
            );
        }
        d.status.phase = Phase::Idle;
        d.status.held = None;
        return;
    }
    let view = limits::describe(&d.spec.change, workload, &stable.images);
    let known = d.status.held.as_ref().is_some_and(|held| held.digest == workload.digest);
    if !known {
        d.normal("Held", format!("a new template is held; {} serves", stable.replica_set));
        d.status.held = Some(HeldRevision {
            digest: workload.digest.clone(),
            since: d.now,
            provenance: view.provenance,
            known_alerts: d.input.verdict.firing.clone(),
            ended: None,
        });
    }
    if let Some(held) = d.status.held.as_mut() {
        held.provenance = view.provenance;
    }
    let gone = d.seen.replica_set(&stable.replica_set).is_none();
    if gone {
        d.stall(
            "StableGone",
            format!(
                "ReplicaSet {} of the stable revision was deleted; whatever pods are left serve. Apply the stable revision's template again: the Deployment starts it. Or free the Deployment by break-glass",
                stable.replica_set
            ),
        );
    }
    if rejected(d, workload) || not_proven(d, workload) || gone {
        return;
    }
    if workload.held == Some(HeldMark::Rejected) {
        d.act(render::hold(Lane::Tidy, workload, HeldMark::Held));
    }
    if d.spec.suspend {
        d.wait("Suspended", "spec.suspend is true: set it to false to let the held revision start", None);
        return;
    }
    if workload.replicas == 0 {
        d.wait("ScaledToZero", "the workload has no replicas; the held revision starts when it has", None);
        return;
    }
    let returning = d.status.good.iter().find(|good| good.digest == workload.digest).cloned();
    // Going back to a recorded good revision is gated by nothing.
    if returning.is_none() && !(ready_to_judge(d, view.declared) && ground::volumes_in_order(d, workload)) {
        return;
    }
    start(d, workload, view, stable, returning);
}

/// A template that a run rejected, by either digest: it stays held, whoever applies it again.
fn rejected(d: &mut Draft<'_>, workload: &Workload) -> bool {
    let found = d
        .status
        .quarantine
        .iter()
        .find(|q| q.digest == workload.digest || q.restart_digest == workload.restart_digest);
    let Some(bad) = found.cloned() else {
        return false;
    };
    d.status.phase = Phase::Rejected;
    if workload.held != Some(HeldMark::Rejected) {
        d.act(render::hold(Lane::Tidy, workload, HeldMark::Rejected));
    }
    d.stall(
        "Rejected",
        format!(
            "run {} rejected this revision: {}: {}. Stable serves. Apply another template, or kubectl sluice retry {} -n {}",
            bad.run_id, bad.reason, bad.message, d.name, d.namespace
        ),
    );
    true
}

/// A template that could not show that it is good in time waits for a person, a new template or a changed `change`.
fn not_proven(d: &mut Draft<'_>, workload: &Workload) -> bool {
    let Some(ended) = d.status.held.as_ref().and_then(|held| held.ended.clone()) else {
        return false;
    };
    let by_itself = ended.reason == "ScaledToZero" && workload.replicas > 0;
    let changed = ended.change_digest != digest::of(&d.spec.change);
    if ended.outcome != Outcome::NotProven || by_itself || changed {
        if let Some(held) = d.status.held.as_mut() {
            held.ended = None;
        }
        return false;
    }
    d.status.phase = Phase::NotProven;
    d.stall(
        "NotProven",
        format!(
            "run {} could not show that this revision is good: {}: {}. Stable serves. kubectl sluice retry {} -n {}, apply another template, or correct spec.change",
            ended.run_id, ended.reason, ended.message, d.name, d.namespace
        ),
    );
    true
}

/// Whether a canary can be judged at all, and its change had time to be declared.
fn ready_to_judge(d: &mut Draft<'_>, declared: bool) -> bool {
    let grace = d.input.config.declaration_grace_seconds;
    let since = d.status.held.as_ref().map_or(d.now, |held| held.since);
    if !declared && !d.passed(since, grace) {
        let deadline = d.after(since, grace);
        let message = format!(
            "spec.change does not describe the held template (images or commit); after {grace} s it starts with provenance Unknown"
        );
        d.wait("DeclarationGrace", message, Some(deadline));
        return false;
    }
    if d.spec.prometheus.is_none() && d.input.config.prometheus.is_none() {
        d.stall(
            "NoPrometheus",
            "no Prometheus is configured: set spec.prometheus.url here or prometheus.url in the chart",
        );
        return false;
    }
    let guards = if d.spec.guards.is_empty() { &d.input.config.default_guards } else { &d.spec.guards };
    let alerts = guards.iter().any(|guard| guard.alert.is_some());
    if alerts && d.spec.alertmanager.is_none() && d.input.config.alertmanager.is_none() {
        d.stall("NoAlertmanager", "a guard watches alerts, but no Alertmanager is configured: set spec.alertmanager.url here or alertmanager.url in the chart");
        return false;
    }
    true
}

fn start(
    d: &mut Draft<'_>,
    workload: &Workload,
    view: limits::ChangeView,
    stable: Revision,
    returning: Option<Revision>,
) {
    let existing = d
        .seen
        .replica_sets()
        .find(|set| set.digest == workload.digest && set.owner_uids.contains(&workload.uid));
    let canary = match existing {
        Some(set) => set.revision(view.commit.clone()),
        None => {
            let hash = digest::hash_label(&workload.digest);
            Revision {
                digest: workload.digest.clone(),
                restart_digest: workload.restart_digest.clone(),
                replica_set: render::replica_set_name(&workload.name, &hash),
                hash,
                images: workload.images(),
                commit: view.commit.clone(),
            }
        }
    };
    let (kind, plan) = match &returning {
        Some(_) => (RunKind::Return, limits::return_plan(d.spec, d.input.config, workload, view.provenance)),
        None => (RunKind::Canary, rest::preview(d, workload)),
    };
    d.status.run_count += 1;
    let tail: String = canary.hash.chars().take(RUN_HASH_LEN).collect();
    let id = format!("{}-{tail}", d.status.run_count);
    let declared = if view.declared { "declared" } else { "undeclared" };
    let steps: Vec<String> = plan.steps.iter().map(|step| step.weight_percent.to_string()).collect();
    let what = if kind == RunKind::Return { "return to a recorded good revision" } else { "canary" };
    d.normal(
        "RunStarted",
        format!(
            "run {id}: {what}, provenance {} ({declared}), class {}, steps {} %",
            plan.provenance.as_str(),
            plan.risk_class.as_str(),
            steps.join(", ")
        ),
    );
    let known_alerts = d.status.held.take().map(|held| held.known_alerts).unwrap_or_default();
    d.status.run = Some(Run {
        id,
        kind,
        canary,
        stable,
        plan,
        stage: Stage::Preparing,
        step: 0,
        started_at: d.now,
        stage_since: d.now,
        weight: None,
        max_weight_percent: 0,
        exposed_since: None,
        exposed_until: None,
        overwrites: 0,
        overwrites_total: 0,
        overwritten: false,
        paused: false,
        released_gate: false,
        released: false,
        going_back: None,
        stable_short_since: None,
        stable_growing_since: None,
        stable_size: Some(workload.replicas),
        canary_short_since: None,
        hold_since: None,
        resumed_at: None,
        known_alerts,
        evidence: None,
    });
    d.wake_within(std::time::Duration::ZERO);
}
