//! A held template: is it stable's own, a recorded good one, a rejected one, or new?

use crate::action::Lane;
use crate::api::{
    AlertGuard, AlertSource, EndedRun, Guard, GuardAction, HeldRevision, Outcome, Phase, Plan, Revision, Run,
    RunKind,
};
use crate::digest;
use crate::limits;
use crate::provenance::{self, Before, ChangeView};
use crate::render;
use crate::verdict::AlertsAtRest;
use crate::view::{HeldMark, Workload};

use super::draft::{BUSY_WAKE, Draft};
use super::{budget, ground, promote, rest, start};

/// Characters of the revision hash in a run's name.
const RUN_HASH_LEN: usize = 5;
/// While no run is under way, alerts are looked at no oftener than this, in seconds; an answer counts for so many looks.
const LOOK_SECONDS: i32 = 10;
const LOOKS: i32 = 3;
/// What a held revision waits for before its run starts.
const PRE_EXISTING: &str = "PreExistingAlert";
const NOT_READ: &str = "AlertSourceMissing";
const READING: &str = "ReadingAlerts";

/// Decides what becomes of a held template while no run is under way.
pub(super) fn step(d: &mut Draft<'_>, workload: &Workload) {
    d.status.phase = Phase::Held;
    let stable = d.status.stable.clone().unwrap_or_default();
    if workload.held == Some(HeldMark::UserPaused) {
        let message = format!(
            "Deployment {} was paused by a person: kubectl rollout resume deployment/{} -n {}",
            workload.name, workload.name, d.namespace
        );
        d.wait_to_be_woken("UserPaused", message, None);
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
    let before = Before::held(&stable, &d.status);
    let view = provenance::describe(&d.spec.change, workload, before);
    let spent = before.has_spent(workload);
    let known = d.status.held.as_ref().is_some_and(|held| held.digest == workload.digest);
    if !known {
        d.normal("Held", format!("a new template is held; {} serves", stable.replica_set));
        let earlier = d.status.held.take().and_then(|held| held.commit.or(held.earlier_commit));
        d.status.held = Some(HeldRevision {
            digest: workload.digest.clone(),
            since: d.now,
            provenance: view.provenance,
            commit: None,
            earlier_commit: earlier,
            known_alerts: d.input.verdict.firing.clone(),
            alerts_since: None,
            ended: None,
        });
    }
    if let Some(held) = d.status.held.as_mut() {
        held.provenance = view.provenance;
        held.commit = workload.commit.clone().filter(|_| !spent);
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
    // Going back to a recorded good revision is gated by nothing.
    let returning = d.status.good.iter().find(|good| good.digest == workload.digest).cloned();
    if returning.is_none() && d.spec.suspend {
        d.wait_to_be_woken(
            "Suspended",
            "spec.suspend is true: set it to false to let the held revision start",
            None,
        );
        return;
    }
    if workload.replicas == 0 {
        d.wait_to_be_woken(
            "ScaledToZero",
            "the workload has no replicas; the held revision starts when it has",
            None,
        );
        return;
    }
    if returning.is_none() && !(ready_to_judge(d, &view) && ground::volumes_in_order(d, workload)) {
        return;
    }
    if returning.is_none()
        && let Some(why) = &d.input.policy.trouble
    {
        d.wait("PoliciesUnknown", format!("{why}; nothing starts before the limits are known"), None);
        return;
    }
    let risk = rest::assess(d, &view, budget::level(d));
    let change = (risk.provenance, risk.class);
    let (kind, plan) = match &returning {
        Some(_) => {
            (RunKind::Return, limits::return_plan(d.spec, d.input.config, d.input.policy, workload, change))
        }
        None => {
            (RunKind::Canary, limits::make_plan(d.spec, d.input.config, d.input.policy, workload, change))
        }
    };
    if returning.is_none() && !start::may(d, risk.class, view.kind) {
        return;
    }
    let commit = view.commit.clone().or_else(|| returning.and_then(|good| good.commit));
    let run = Run { known_change: view.known(), ..new_run(d, workload, commit, stable, kind, plan) };
    match alerts_hold(d, &run) {
        Start::Now if run.kind == RunKind::Canary && start::waits_in_queue(d, risk.class) => {}
        Start::Now => {
            d.status.plan = Some(risk.explain(d.spec, d.input.policy, &run.plan));
            begin(d, run, view.declared);
        }
        Start::Later => {}
        Start::Never(reason, message) => refuse(d, workload, run, reason, message),
    }
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
fn ready_to_judge(d: &mut Draft<'_>, view: &ChangeView) -> bool {
    let grace = d.input.config.declaration_grace_seconds;
    let since = d.status.held.as_ref().map_or(d.now, |held| held.since);
    if !view.declared && !d.passed(since, grace) {
        let deadline = d.after(since, grace);
        let why = view.obstacle.as_deref().unwrap_or(
            "neither spec.change (images or commit) nor the Deployment's annotations describe the held template",
        );
        let message = format!("{why}; after {grace} s it starts with provenance Unknown");
        d.wait_to_be_woken("DeclarationGrace", message, Some(deadline));
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
    let by_alertmanager = |alert: &AlertGuard| alert.source == AlertSource::Alertmanager;
    let alerts = guards.iter().filter_map(|guard| guard.alert.as_ref()).any(by_alertmanager);
    if alerts && d.spec.alertmanager.is_none() && d.input.config.alertmanager.is_none() {
        d.stall("NoAlertmanager", "a guard watches alerts, but no Alertmanager is configured: set spec.alertmanager.url here or alertmanager.url in the chart, or source: Prometheus in the guard");
        return false;
    }
    true
}

/// Whether a run may start as far as the alerts say.
enum Start {
    Now,
    Later,
    /// The wait is over: reason and message.
    Never(&'static str, String),
}

/// Nobody begins a change in the middle of an incident: an alert that a guard watches and that fires already keeps the
/// canary from being made. So does not knowing: the alerts are read at least once after the template was held. Once the
/// run is under way, its onset tells whose fault an alert is.
fn alerts_hold(d: &mut Draft<'_>, run: &Run) -> Start {
    let watches = |guard: &Guard| guard.alert.is_some() && guard.action != GuardAction::Observe;
    if run.kind != RunKind::Canary || !run.plan.guards.iter().any(watches) {
        return Start::Now;
    }
    let held_since = d.status.held.as_ref().map_or(d.now, |held| held.since);
    let look = d.input.verdict.at_rest.clone();
    let fresh = d.input.config.evaluation_interval_seconds.max(LOOK_SECONDS).saturating_mul(LOOKS);
    let read = |read_at| read_at >= held_since && d.now < d.after(read_at, fresh);
    let (reason, why) = match &look {
        Some(look) if look.read_at.is_some_and(read) => match &look.firing {
            None => return Start::Now,
            Some(alert) => (PRE_EXISTING, alert.clone()),
        },
        Some(AlertsAtRest { trouble: Some(trouble), .. }) => {
            (NOT_READ, format!("the alerts can't be read: {trouble}"))
        }
        _ => (READING, "the alerts are read once more before the run starts".to_owned()),
    };
    // As long as the first step would wait for them.
    let seconds = limits::step_seconds(run.plan.steps.first().map_or(0, |step| step.bake_seconds));
    let since = match d.status.held.as_mut() {
        Some(held) => *held.alerts_since.get_or_insert(d.now),
        None => d.now,
    };
    // A process that has just begun looks first, whatever time has passed without one.
    if d.passed(since, seconds) && (look.is_some() || d.passed(since, seconds.saturating_mul(2))) {
        return Start::Never(reason, format!("{why}; the run did not start within {seconds} s"));
    }
    let message = format!("{why}; nothing of the canary is made before that is over, at most {seconds} s");
    if reason == PRE_EXISTING && !d.told(PRE_EXISTING) {
        d.warn(PRE_EXISTING, message.clone());
    }
    let deadline = d.after(since, if look.is_some() { seconds } else { seconds.saturating_mul(2) });
    d.wait(reason, message, Some(deadline));
    Start::Later
}

/// Ends a run that never began: stable serves, and the revision waits as any that could not be proven.
fn refuse(d: &mut Draft<'_>, workload: &Workload, run: Run, reason: &str, message: String) {
    let ended = EndedRun {
        run_id: run.id.clone(),
        outcome: Outcome::NotProven,
        reason: reason.to_owned(),
        message: message.clone(),
        change_digest: digest::of(&d.spec.change),
    };
    d.status.run_count += 1;
    promote::end(d, run, Outcome::NotProven, reason, message);
    if let Some(held) = d.status.held.as_mut() {
        held.alerts_since = None;
        held.known_alerts.clear();
        held.ended = Some(ended);
    }
    not_proven(d, workload);
}

fn begin(d: &mut Draft<'_>, run: Run, declared: bool) {
    d.status.run_count += 1;
    let declared = if declared { "declared" } else { "undeclared" };
    let steps: Vec<String> = run.plan.steps.iter().map(|step| step.weight_percent.to_string()).collect();
    let what = if run.kind == RunKind::Return { "return to a recorded good revision" } else { "canary" };
    d.normal(
        "RunStarted",
        format!(
            "run {}: {what}, provenance {} ({declared}), class {}, steps {} %",
            run.id,
            run.plan.provenance.as_str(),
            run.plan.risk_class.as_str(),
            steps.join(", ")
        ),
    );
    let held = d.status.held.take();
    let (known_alerts, earlier_commit) =
        held.map(|held| (held.known_alerts, held.earlier_commit)).unwrap_or_default();
    d.status.run = Some(Run { known_alerts, earlier_commit, ..run });
    d.wake_within(BUSY_WAKE);
}

/// The run that a held template would have.
fn new_run(
    d: &Draft<'_>,
    workload: &Workload,
    commit: Option<String>,
    stable: Revision,
    kind: RunKind,
    plan: Plan,
) -> Run {
    let existing = d
        .seen
        .replica_sets()
        .find(|set| set.digest == workload.digest && set.owner_uids.contains(&workload.uid));
    let canary = match existing {
        Some(set) => set.revision(commit),
        None => {
            let hash = digest::hash_label(&workload.digest);
            Revision {
                digest: workload.digest.clone(),
                restart_digest: workload.restart_digest.clone(),
                replica_set: render::replica_set_name(&workload.name, &hash),
                hash,
                images: workload.images(),
                commit,
            }
        }
    };
    let tail: String = canary.hash.chars().take(RUN_HASH_LEN).collect();
    let id = format!("{}-{tail}", d.status.run_count + 1);
    Run { stable_size: Some(workload.replicas), ..Run::new(id, kind, canary, stable, plan, d.now) }
}
