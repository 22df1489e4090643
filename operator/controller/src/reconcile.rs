//! One pass: observe, decide, and act.
//!
//! What only returns traffic acts on the stores at once. Numbers for people, the plan of a template that waits, and what the
//! evidence remembers, are written as they are. Everything else is decided a second time on live objects, of which a run that
//! nobody meets yet needs the Deployment alone; its status is written first, by compare-and-swap, so that two controllers
//! never both go forward and a crash leaves a record of what was intended.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use kube::api::{Api, PostParams};
use sluice_core::action::{Event, EventKind};
use sluice_core::api::{ProgressiveRollout, ProgressiveRolloutStatus, Summary, Waiting};
use sluice_core::check;
use sluice_core::decide::{Decision, Input, decide};
use sluice_core::observed::Observed;
use sluice_core::policy::Policy;
use sluice_core::verdict::Verdict;
use tracing::{Instrument, error, info_span, warn};

use crate::actuate::Moved;
use crate::client::{ABORT_LIMIT, FORWARD_LIMIT, bounded};
use crate::context::Context;
use crate::error::CallError;
use crate::store::Object;
use crate::watch::{Key, Watched};
use crate::{actuate, crash, observe, pods, report};

/// Longest wait between two passes of a rollout that fails.
const LONGEST_RETRY: Duration = Duration::from_secs(60);
/// What failed on the way back is tried again after this long.
const BACK_RETRY: Duration = Duration::from_millis(200);
/// A decision that breaks an invariant is made again after this long.
const VIOLATION_RETRY: Duration = Duration::from_secs(5);
/// A watch delivers what somebody else wrote after about this long.
const CONFLICT_RETRY: Duration = Duration::from_millis(50);
/// A status that differs only in numbers for people is written at most this often, and more seldom with many runs under way.
const DISPLAY_INTERVAL: Duration = Duration::from_secs(2);
/// One that differs only in what the evidence remembers, while nobody would see a change, at most this often. What a
/// restart finds older than that is made up for by the counters.
const MEMORY_INTERVAL: Duration = Duration::from_secs(60);

/// One pass over a rollout: when to look again, or `None` when it is gone.
pub async fn pass(ctx: Arc<Context>, key: Key) -> Option<Duration> {
    let span =
        info_span!("pass", namespace = %key.namespace, rollout = %key.name, run = tracing::field::Empty);
    let started = Instant::now();
    let answer = run(&ctx, &key).instrument(span.clone()).await;
    ctx.metrics.reconciled(started.elapsed());
    match answer {
        Ok(again) => {
            ctx.succeeded(&key);
            if again.is_none() {
                ctx.forget(&key);
            }
            again
        }
        Err(error) => {
            let _entered = span.enter();
            warn!(%error, kind = error.kind.as_str(), "the pass failed, it is tried again");
            ctx.metrics.reconcile_failed(error.kind.as_str());
            Some(retry_after(&ctx, &key))
        }
    }
}

/// Going back is tried again at once, anything else with growing patience.
fn retry_after(ctx: &Context, key: &Key) -> Duration {
    let failures = ctx.failed(key);
    if ctx.evidence.wants_back(key) {
        return BACK_RETRY;
    }
    Duration::from_millis(500).saturating_mul(2_u32.saturating_pow(failures.min(8))).min(LONGEST_RETRY)
}

async fn run(ctx: &Arc<Context>, key: &Key) -> Result<Option<Duration>, CallError> {
    let rollout = match ctx.newest(key) {
        None => return Ok(None),
        Some(Ok(rollout)) => rollout,
        Some(Err(error)) => {
            warn!(%error, "the object can't be read by this version of the controller; it is left alone");
            return Ok(Some(LONGEST_RETRY));
        }
    };
    if let Some(run) = rollout.status.as_ref().and_then(|status| status.run.as_ref()) {
        tracing::Span::current().record("run", run.id.as_str());
    }
    let policy = ctx.policy(&key.namespace);
    let verdict = ctx.evidence.verdict(key);
    let seen = observe::cached(ctx, key, &rollout);
    pods::look(ctx, key, &rollout, &seen);
    let mut stored = input(ctx, &policy, &rollout, &seen, &verdict);
    if rollout.status.as_ref().is_some_and(|status| status.queue.is_some()) {
        stored.turn = ctx.turns.look(ctx, key, &rollout);
    }
    let first = decide(stored);
    let change = Change::of(&rollout, &first);
    if first.actions.is_empty() && !due(ctx, key, change) {
        report::metrics(ctx, key, &first.status);
        return Ok(Some(first.wake));
    }
    if !first.actions.is_empty() && first.only_returns() {
        return Ok(soon(ctx, go_back(ctx, key, &rollout, first).await));
    }
    let _place = ctx.forward.acquire().await;
    // Nothing goes forward by numbers, which with many runs under way are nearly all that is written, nor by the plans of
    // templates that wait, which one edit of a policy changes all at once.
    if first.actions.is_empty() && change < Change::Matter {
        return go_forward(ctx, key, &stored, first).await;
    }
    // They may have changed while this waited for its place.
    let (policy, verdict) = (ctx.policy(&key.namespace), ctx.evidence.verdict(key));
    if first.only_prepares(rollout.status.as_ref()) {
        let seen = observe::for_preparing(ctx, key, &rollout, seen).await;
        let live = input(ctx, &policy, &rollout, &seen, &verdict);
        let second = decide(live);
        if second.only_prepares(rollout.status.as_ref()) {
            return go_forward(ctx, key, &live, second).await;
        }
    }
    let Some((rollout, seen)) = observe::live(ctx, key).await? else {
        return Ok(None);
    };
    let verdict = ctx.evidence.verdict(key);
    let live = input(ctx, &policy, &rollout, &seen, &verdict);
    let mut second = decide(live);
    if !second.actions.is_empty() && second.only_returns() {
        return Ok(soon(ctx, go_back(ctx, key, &rollout, second).await));
    }
    enrol_only_behind_guardrails(ctx, &rollout, &mut second);
    go_forward(ctx, key, &live, second).await
}

/// Records what was decided, by compare-and-swap, and does it.
async fn go_forward(
    ctx: &Context,
    key: &Key,
    input: &Input<'_>,
    mut decision: Decision,
) -> Result<Option<Duration>, CallError> {
    let (rollout, mut input) = (input.rollout, *input);
    if decision.begins(rollout.status.as_ref()).is_some()
        && let Err(turn) = ctx.turns.take(ctx, key, rollout, &decision.status)
    {
        input.turn = Some(turn);
        decision = decide(input);
    }
    // A run that starts here has no name before.
    let began = rollout.status.as_ref().is_none_or(|status| status.run.is_none());
    if let Some(run) = decision.status.run.as_ref().filter(|_| began) {
        tracing::Span::current().record("run", run.id.as_str());
    }
    if !allowed(ctx, &input, &decision) {
        ctx.turns.give_back(key);
        return Ok(Some(VIOLATION_RETRY));
    }
    let change = Change::of(rollout, &decision);
    if due(ctx, key, change) {
        match write_status(ctx, key, rollout, &decision, change, FORWARD_LIMIT).await {
            // Somebody wrote meanwhile: decide again on the newer object, once it is here.
            Err(error) if error.is_conflict() => return Ok(Some(CONFLICT_RETRY)),
            other => other?,
        }
    }
    let moved = actuate::execute(ctx, key, &decision.actions).await?;
    report::metrics(ctx, key, &decision.status);
    Ok(Some(again(ctx, key, moved, decision.wake)))
}

/// An enrolled workload whose next template is not held would be a broken promise: the enrolment waits instead.
fn enrol_only_behind_guardrails(ctx: &Context, rollout: &ProgressiveRollout, decision: &mut Decision) {
    let Some(problem) = ctx.guardrails.problem() else {
        return;
    };
    let before = decision.actions.len();
    decision.actions.retain(|action| action.name != "enrol");
    if decision.actions.len() == before {
        return;
    }
    let reason = "PoliciesNotInEffect";
    let known = rollout.status.as_ref().and_then(|status| status.waiting.as_ref());
    let since = known.filter(|waiting| waiting.reason == reason).map(|waiting| waiting.since);
    decision.status.waiting = Some(Waiting {
        reason: reason.to_owned(),
        message: format!("{problem}; the workload is enrolled once they are in effect"),
        since: since.unwrap_or_else(|| whole_millis(Timestamp::now())),
        deadline: None,
    });
    reason.clone_into(&mut decision.status.summary.reason);
    decision.wake = decision.wake.min(Duration::from_secs(1));
}

fn input<'a>(
    ctx: &'a Context,
    policy: &'a Policy,
    rollout: &'a ProgressiveRollout,
    seen: &'a Observed,
    verdict: &'a Verdict,
) -> Input<'a> {
    let now = whole_millis(Timestamp::now());
    Input { rollout, seen, verdict, config: &ctx.config, policy, turn: None, releasing: ctx.releasing, now }
}

/// Times in status have milliseconds: more is noise in `kubectl get -o yaml`.
fn whole_millis(now: Timestamp) -> Timestamp {
    Timestamp::from_millisecond(now.as_millisecond()).unwrap_or(now)
}

/// Returns traffic first, then records why. The mark on the route stands for the record if this process dies
/// between the two.
async fn go_back(
    ctx: &Context,
    key: &Key,
    rollout: &ProgressiveRollout,
    decision: Decision,
) -> Result<Option<Duration>, CallError> {
    let executed = actuate::execute(ctx, key, &decision.actions).await;
    let change = Change::of(rollout, &decision);
    if due(ctx, key, change) {
        match write_status(ctx, key, rollout, &decision, change, ABORT_LIMIT).await {
            Err(error) if error.is_conflict() => {
                // Somebody wrote meanwhile: decide again on the newer object, once it is here.
                return executed.map(|_| Some(CONFLICT_RETRY));
            }
            other => other?,
        }
    }
    let moved = executed?;
    report::metrics(ctx, key, &decision.status);
    Ok(Some(again(ctx, key, moved, decision.wake.min(Duration::from_millis(250)))))
}

/// Going back is tried again at once, whoever asked for it and however often other passes failed before.
fn soon(ctx: &Context, answer: Result<Option<Duration>, CallError>) -> Option<Duration> {
    answer.unwrap_or_else(|error| {
        warn!(%error, kind = error.kind.as_str(), "the way back failed, it is tried again at once");
        ctx.metrics.reconcile_failed(error.kind.as_str());
        Some(BACK_RETRY)
    })
}

/// Whether the invariants, said a second time, allow what goes forward. Returning traffic never asks.
fn allowed(ctx: &Context, input: &Input<'_>, decision: &Decision) -> bool {
    let found = check::violations(input, decision);
    for violation in &found {
        error!(%violation, "the decision breaks an invariant and is not carried out; please report it");
        let message = format!("{violation}; this is not carried out, please report it");
        let event = Event { kind: EventKind::Warning, reason: "InvariantViolated", message };
        ctx.events.tell(input.rollout, &[event]);
    }
    if !found.is_empty() {
        ctx.metrics.reconcile_failed("InvariantViolated");
    }
    found.is_empty()
}

/// When to look again: at once when the world moved, with patience when it keeps moving.
fn again(ctx: &Context, key: &Key, moved: Moved, wake: Duration) -> Duration {
    match moved {
        Moved::No => {
            ctx.settled(key);
            wake
        }
        Moved::Yes => Duration::from_millis(20).saturating_mul(2_u32.saturating_pow(ctx.moved(key).min(9))),
    }
}

/// What a decision changes in the status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Change {
    /// Nothing.
    Nothing,
    /// What the evidence remembers.
    Memory,
    /// Numbers for people.
    Numbers,
    /// That somebody is there to attend the run.
    Attended,
    /// What a template that waits would be allowed.
    Outlook,
    /// What is decided on, or of which people are told.
    Matter,
}

impl Change {
    fn of(rollout: &ProgressiveRollout, decision: &Decision) -> Self {
        let none = ProgressiveRolloutStatus::default();
        let (before, after) = (rollout.status.as_ref().unwrap_or(&none), &decision.status);
        if !decision.events.is_empty() {
            return Self::Matter;
        }
        if before == after {
            return Self::Nothing;
        }
        let [mut before, mut after] = [before, after].map(ProgressiveRolloutStatus::clone);
        [&mut before, &mut after].into_iter().for_each(drop_memory);
        if before == after {
            return Self::Memory;
        }
        [&mut before, &mut after].into_iter().for_each(drop_numbers);
        if before == after {
            return Self::Numbers;
        }
        [&mut before, &mut after].into_iter().for_each(drop_attended);
        if before == after {
            return Self::Attended;
        }
        // The plan of a run is what it goes by.
        if before.run.is_some() || after.run.is_some() {
            return Self::Matter;
        }
        [&mut before, &mut after].into_iter().for_each(drop_outlook);
        if before == after { Self::Outlook } else { Self::Matter }
    }
}

/// Whether a status that changes so has to be written now.
fn due(ctx: &Context, key: &Key, change: Change) -> bool {
    let unwritten = ctx.written_at(key).map_or(MEMORY_INTERVAL, |at| at.elapsed());
    match change {
        Change::Nothing => false,
        Change::Memory => unwritten >= MEMORY_INTERVAL,
        Change::Numbers => {
            unwritten >= MEMORY_INTERVAL || (unwritten >= DISPLAY_INTERVAL && ctx.numbers.is_ready())
        }
        Change::Attended | Change::Outlook | Change::Matter => true,
    }
}

/// Drops what the evidence remembers.
fn drop_memory(status: &mut ProgressiveRolloutStatus) {
    if let Some(run) = &mut status.run {
        run.evidence = None;
    }
}

/// Drops the numbers that move on every pass.
fn drop_numbers(status: &mut ProgressiveRolloutStatus) {
    if let Some(waiting) = &mut status.waiting {
        waiting.message.clear();
    }
    for condition in &mut status.conditions {
        condition.message.clear();
    }
    if let Some(traffic) = &mut status.traffic {
        traffic.observed_permille = None;
    }
    if let Some(plan) = &mut status.plan {
        plan.harm = None;
    }
    status.summary.observed.clear();
    status.guards.clear();
    status.queue = None;
}

/// Drops when the run was last attended.
fn drop_attended(status: &mut ProgressiveRolloutStatus) {
    if let Some(run) = &mut status.run {
        run.attended_at = None;
    }
}

/// Drops what is foretold of a template that waits.
fn drop_outlook(status: &mut ProgressiveRolloutStatus) {
    status.plan = None;
    status.error_budgets.clear();
    status.summary = Summary::default();
}

/// Compare-and-swap of the whole status, then its events.
async fn write_status(
    ctx: &Context,
    key: &Key,
    rollout: &ProgressiveRollout,
    decision: &Decision,
    change: Change,
    limit: Duration,
) -> Result<(), CallError> {
    let none = ProgressiveRolloutStatus::default();
    let before = rollout.status.as_ref().unwrap_or(&none);
    let next = ProgressiveRollout {
        metadata: rollout.metadata.clone(),
        spec: rollout.spec.clone(),
        status: Some(decision.status.clone()),
    };
    if matches!(change, Change::Numbers | Change::Attended) {
        ctx.numbers.take();
    }
    let client = if limit == ABORT_LIMIT { &ctx.clients.abort } else { &ctx.clients.normal };
    let api: Api<Object> = Api::namespaced_with(client.clone(), &key.namespace, &Watched::Rollout.resource());
    let params =
        PostParams { field_manager: Some(sluice_core::api::MANAGER.to_owned()), ..PostParams::default() };
    let began = Instant::now();
    let write = api.replace_subresource("status", &key.name, &params, &next);
    let written = bounded("write status", limit, write).await;
    ctx.metrics.api_request("update", written.as_ref().map_or_else(|error| error.code, |_| 200));
    let mut written = written?;
    written.quiet = change < Change::Matter;
    crash::after_status(&key.namespace, before, &decision.status);
    report::transitions(ctx, key, before, &decision.status);
    ctx.wrote(key, written, began);
    ctx.events.tell(rollout, &decision.events);
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use sluice_core::api::{Phase, PlanStatus};

    use super::*;

    /// What a decision changes that leaves `after` where `before` was.
    fn change(before: &ProgressiveRolloutStatus, after: &ProgressiveRolloutStatus) -> Change {
        let rollout = json!({"metadata": {"name": "web"}, "spec": {"workloadRef": {"name": "web"},
            "routing": {"service": "web", "routes": []}}, "apiVersion": "sluice.dev/v1alpha1", "kind": "ProgressiveRollout"});
        let mut rollout: ProgressiveRollout = serde_json::from_value(rollout).unwrap();
        rollout.status = Some(before.clone());
        let status = after.clone();
        let decision = Decision { status, actions: Vec::new(), events: Vec::new(), wake: Duration::ZERO };
        Change::of(&rollout, &decision)
    }

    /// A status with a run under way.
    fn running() -> ProgressiveRolloutStatus {
        let run: Value = json!({"run": {
            "id": "1-abcde", "stage": "Stepping", "startedAt": "2026-01-01T00:00:00Z",
            "stageSince": "2026-01-01T00:00:00Z",
            "canary": {"digest": "b", "restartDigest": "b", "hash": "b", "replicaSet": "web-b"},
            "stable": {"digest": "a", "restartDigest": "a", "hash": "a", "replicaSet": "web-a"},
            "plan": {"digest": "p", "riskClass": "R1", "provenance": "Human", "steps": [],
                "tolerancePpm": {"relative": 0, "absolute": 0}, "minSamples": 0, "noDataSeconds": 60,
                "watchSeconds": 0, "progressDeadlineSeconds": 600, "service": "web", "stableService": "web-stable",
                "canaryService": "web-canary", "routes": [], "apexCallers": "Some", "settleSeconds": 5,
                "drainSeconds": 30, "guards": []}}});
        serde_json::from_value(run).unwrap()
    }

    #[test]
    fn what_only_the_evidence_remembers_is_no_change_for_people() {
        let before = running();
        let mut after = before.clone();
        if let Some(run) = &mut after.run {
            run.evidence = Some(Arc::default());
        }
        assert_eq!(change(&before, &before), Change::Nothing);
        assert_eq!(change(&before, &after), Change::Memory);
        after.summary.observed = "10.0%".to_owned();
        assert_eq!(change(&before, &after), Change::Numbers);
        if let Some(run) = &mut after.run {
            run.attended_at = Some(Timestamp::UNIX_EPOCH);
        }
        assert_eq!(change(&before, &after), Change::Attended);
        after.phase = Phase::Rejected;
        assert_eq!(change(&before, &after), Change::Matter);
    }

    #[test]
    fn another_plan_is_an_outlook_while_the_template_waits_and_matters_in_a_run() {
        let tighter = |before: &ProgressiveRolloutStatus| {
            let mut after = before.clone();
            after.plan = Some(PlanStatus { digest: "q".to_owned(), ..PlanStatus::default() });
            after.summary.risk_class = "R3".to_owned();
            after
        };
        let waits = ProgressiveRolloutStatus { phase: Phase::Held, ..ProgressiveRolloutStatus::default() };
        assert_eq!(change(&waits, &tighter(&waits)), Change::Outlook);
        assert_eq!(change(&running(), &tighter(&running())), Change::Matter);
        // A run that starts takes the place of what was foretold.
        let started = ProgressiveRolloutStatus { run: running().run, ..tighter(&waits) };
        assert_eq!(change(&waits, &started), Change::Matter);
    }
}
