//! A status as metrics.

use std::time::Duration;

use jiff::Timestamp;
use sluice_core::api::{Outcome, ProgressiveRolloutStatus, Provenance};

use crate::context::Context;
use crate::metrics::{GuardSnapshot, RolloutKey, RolloutSnapshot};
use crate::watch::Key;

/// Shows a rollout's status as metrics.
pub fn metrics(ctx: &Context, key: &Key, status: &ProgressiveRolloutStatus) {
    let run = status.run.as_ref();
    let traffic = status.traffic.as_ref();
    let samples = |value: Option<i64>| value.map_or(0.0, |n| n as f64);
    let first = status.guards.first();
    let ratio = |failed: Option<i64>, all: Option<i64>| match (failed, all) {
        (Some(failed), Some(all)) if all > 0 => Some(failed as f64 / all as f64),
        _ => None,
    };
    let limit = |name: &str| {
        let guard = run.and_then(|run| run.plan.guards.iter().find(|guard| guard.name == name));
        guard.and_then(|g| g.error_ratio.as_ref()).and_then(|r| r.max_ppm).map(|ppm| f64::from(ppm) / 1e6)
    };
    let snapshot = RolloutSnapshot {
        risk_class: run.map_or("", |run| run.plan.risk_class.as_str()),
        provenance: run.map_or("", |run| run.plan.provenance.as_str()),
        phase: status.phase.as_str(),
        weight_ratio: traffic.map_or(0.0, |t| f64::from(t.weight_percent) / 100.0),
        observed_ratio: traffic.and_then(|t| t.observed_permille).map(|p| f64::from(p) / 1000.0),
        gate_progress_ratio: first.and_then(|guard| {
            let needed = guard.needed_requests?;
            let requests = (samples(guard.canary_requests) / (needed.max(1) as f64)).min(1.0);
            Some(guard.gate_permille.map_or(requests, |gate| requests.min(gate as f64 / 1000.0)))
        }),
        canary_samples: samples(first.and_then(|guard| guard.canary_requests)),
        stable_samples: samples(first.and_then(|guard| guard.stable_requests)),
        guards: status
            .guards
            .iter()
            .map(|guard| GuardSnapshot {
                name: guard.name.clone(),
                canary: ratio(guard.canary_failed, guard.canary_requests),
                stable: ratio(guard.stable_failed, guard.stable_requests),
                max: limit(&guard.name),
                score: guard.score_permille.map(|score| score as f64 / 1000.0),
                bursts: guard.burst_permille.map(|burst| burst as f64 / 1000.0),
            })
            .collect(),
        waiting: status.waiting.as_ref().filter(|_| run.is_some()).map(|w| (hold(&w.reason), w.since)),
        reconciled_at: Timestamp::now(),
    };
    ctx.metrics.set_rollout(&RolloutKey::new(&key.namespace, &key.name), snapshot);
}

/// Counts what a written status began or ended: holds, overwrites, returns of traffic, runs.
pub fn transitions(
    ctx: &Context,
    key: &Key,
    before: &ProgressiveRolloutStatus,
    after: &ProgressiveRolloutStatus,
) {
    let rollout = RolloutKey::new(&key.namespace, &key.name);
    if let Some(waited) = &before.waiting
        && before.run.is_some()
    {
        let until = after
            .waiting
            .as_ref()
            .filter(|w| w.reason == waited.reason)
            .map_or_else(Timestamp::now, |w| w.since);
        if until != waited.since {
            ctx.metrics.held(&rollout, hold(&waited.reason), between(waited.since, until));
        }
    }
    let overwrites =
        |status: &ProgressiveRolloutStatus| status.run.as_ref().map_or(0, |run| run.overwrites_total);
    if after.run.is_some() && overwrites(after) > overwrites(before) {
        ctx.metrics.route_overwritten(&rollout);
    }
    if let Some(run) = &after.run
        && let Some(back) = &run.going_back
    {
        let was = before.run.as_ref().filter(|old| old.id == run.id).and_then(|old| old.going_back.as_ref());
        if was.is_none() {
            if let Some(exposed) = run.exposed_since {
                ctx.metrics.detected(between(exposed, back.since));
            }
            // On the way back the counts begin anew.
            ctx.metrics.harmed_requests(harm(after));
        }
        if back.verified_at.is_some() && was.is_none_or(|old| old.verified_at.is_none()) {
            ctx.metrics.abort_verified(between(back.since, back.verified_at.unwrap_or(back.since)));
        }
    }
    let Some(record) = after.history.first() else {
        return;
    };
    if before.history.first().is_some_and(|old| old.id == record.id) {
        return;
    }
    ctx.metrics.run_ended(
        outcome(record.outcome),
        cause(&record.reason),
        record.risk_class.as_str(),
        Provenance::as_str(record.provenance),
        between(record.started_at, record.ended_at),
    );
}

/// Failed canary requests beyond stable's ratio in this step, by the first guard.
fn harm(status: &ProgressiveRolloutStatus) -> f64 {
    let beyond = status.guards.first().and_then(|guard| {
        let (n, x) = (guard.canary_requests? as f64, guard.canary_failed? as f64);
        let (sn, sx) = (guard.stable_requests? as f64, guard.stable_failed? as f64);
        Some((x - n * sx / sn.max(1.0)).max(0.0))
    });
    beyond.unwrap_or(0.0)
}

fn outcome(outcome: Outcome) -> &'static str {
    outcome.as_str()
}

/// Causes with a bounded set of names.
fn cause(reason: &str) -> &'static str {
    const KNOWN: [&str; 14] = [
        "Proven",
        "GuardTripped",
        "AlertFired",
        "AbortedByUser",
        "CrashLoopBackOff",
        "ProgressDeadlineExceeded",
        "NewerTemplate",
        "TemplateReturned",
        "NoData",
        "NotEnoughEvidence",
        "ScaledToZero",
        "RouteOverwritten",
        "Removed",
        "BreakGlass",
    ];
    KNOWN.into_iter().find(|known| *known == reason).unwrap_or("Other")
}

/// Reasons of holds with a bounded set of names.
fn hold(reason: &str) -> &'static str {
    const KNOWN: [&str; 14] = [
        "Baking",
        "Settling",
        "CanaryNotReady",
        "WeightNotLive",
        "NotEnoughEvidence",
        "NoData",
        "Suspicion",
        "SharedIncident",
        "AlertFiring",
        "RouteOverwritten",
        "Paused",
        "PausedBeforePercent",
        "Suspended",
        "CannotRead",
    ];
    KNOWN.into_iter().find(|known| *known == reason).unwrap_or("Other")
}

fn between(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}
