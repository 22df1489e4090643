//! The evidence loop: asks Prometheus and Alertmanager for every run under way, keeps each run's evidence, and
//! wakes the rollout with a new verdict.
//!
//! Passes never wait for it, and no source waits for another: one that hangs costs freshness, which the verdict says,
//! not reaction. Here is when a rollout is looked at; `round` is one look, `rest` one without a run, `ask` one question of
//! it, and `store` keeps what is known.

mod ask;
mod rest;
mod round;
mod store;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kube::ResourceExt;
use sluice_core::api::{Guard, Phase, ProgressiveRollout, ProgressiveRolloutStatus};
use sluice_core::config::Config;
use sluice_providers::Providers;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::panics::contained;
use crate::store::Object;
use crate::watch::Key;
use ask::in_use;
use round::{Asking, look};
pub use store::EvidenceStore;

/// Whether a look is due is asked so often in an interval, but no more often and no more seldom than this.
const TICKS: u32 = 30;
const TICK: (Duration, Duration) = (Duration::from_millis(100), Duration::from_millis(500));
/// Clients of providers that no rollout names any more are dropped this often.
const CLEANUP_INTERVAL: Duration = Duration::from_secs(60);
/// Alerts are looked at this often while nothing is held.
const HELD_INTERVAL: Duration = Duration::from_secs(10);

/// When a rollout is looked at next, if at all, the version of it that says so, and the tick at which it was last there.
struct Due {
    version: Option<String>,
    at: Option<Instant>,
    tick: u64,
}

/// Looks at every run once per interval, spread over it, until `stop`.
pub async fn poll(ctx: Arc<Context>, providers: Providers, stop: CancellationToken) {
    let interval =
        Duration::from_secs(u64::try_from(ctx.config.evaluation_interval_seconds).unwrap_or(15).max(1));
    // By UID: at most ticks nothing is due, and then nothing is made.
    let mut next: BTreeMap<String, Due> = BTreeMap::new();
    let mut number = 0;
    let mut looks = JoinSet::new();
    let asking = Asking::default();
    let mut tick = tokio::time::interval((interval / TICKS).clamp(TICK.0, TICK.1));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut cleaned = Instant::now();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            Some(_) = looks.join_next() => continue,
            _ = tick.tick() => {}
        }
        let now = Instant::now();
        number += 1;
        let tick = number;
        let rollouts = ctx.stores.rollouts();
        for object in &rollouts {
            let (uid, version) =
                (object.meta.uid.as_deref().unwrap_or_default(), &object.meta.resource_version);
            let mut due = next.get_mut(uid);
            if let Some(due) = &mut due {
                due.tick = tick;
                if due.version == *version && due.at.is_none_or(|at| at > now) {
                    continue;
                }
            }
            let due = due.and_then(|due| due.at);
            let (key, uid, version) = (Key::of(object), uid.to_owned(), version.clone());
            let Some(Ok(rollout)) = ctx.newest(&key) else {
                continue;
            };
            let Some(every) = due_every(&ctx.config, &rollout, interval) else {
                // An old run's verdict has nothing to say any more.
                ctx.evidence.forget(&key);
                next.insert(uid, Due { version, at: None, tick });
                continue;
            };
            // A run that starts is not kept waiting by the longer interval at rest.
            let when = due.map_or_else(|| now + spread(&key, every), |when| when.min(now + every));
            if when > now {
                next.insert(uid, Due { version, at: Some(when), tick });
                continue;
            }
            next.insert(uid, Due { version, at: Some(now + every), tick });
            let (ctx, providers, asking) = (ctx.clone(), providers.clone(), asking.clone());
            looks.spawn(async move {
                contained("evidence", look(&ctx, &providers, &asking, &key, &rollout)).await;
            });
        }
        let before = next.len();
        next.retain(|_, due| due.tick == tick);
        let cleans = cleaned.elapsed() >= CLEANUP_INTERVAL;
        if next.len() == before && !cleans {
            continue;
        }
        let uid = |object: &Object| object.uid().unwrap_or_default();
        let known = rollouts.iter().map(|object| (Key::of(object), uid(object))).collect();
        ctx.evidence.retain(&known);
        if cleans {
            cleaned = now;
            let used = in_use(&ctx, known.keys());
            providers.retain(|provider| used.contains(provider));
        }
    }
}

/// How often a rollout is looked at now, if at all.
fn due_every(config: &Config, rollout: &ProgressiveRollout, interval: Duration) -> Option<Duration> {
    let status = rollout.status.as_ref()?;
    if status.run.is_some() {
        return Some(interval);
    }
    // At rest, the alerts of the last moments before a hold are what tells an old alert from a new one.
    let watches = guards_at_rest(config, rollout).iter().any(|guard| guard.alert.is_some());
    // A held template does not start before such a look.
    let waits = status.held.as_ref().is_some_and(|held| held.ended.is_none());
    (watches || waits_to_start(rollout)).then_some(if waits { interval } else { HELD_INTERVAL.max(interval) })
}

/// Whether a template is held that may still start: not one that was rejected, or could not be proven.
fn waits_to_start(rollout: &ProgressiveRollout) -> bool {
    let held = |status: &ProgressiveRolloutStatus| {
        status.phase == Phase::Held && status.held.as_ref().is_some_and(|held| held.ended.is_none())
    };
    rollout.status.as_ref().is_some_and(|status| status.run.is_none() && held(status))
}

/// The guards that a run would have.
fn guards_at_rest<'a>(config: &'a Config, rollout: &'a ProgressiveRollout) -> &'a Vec<Guard> {
    if rollout.spec.guards.is_empty() { &config.default_guards } else { &rollout.spec.guards }
}

/// Rollouts ask at different moments of the interval; a short interval needs no spreading.
fn spread(key: &Key, every: Duration) -> Duration {
    if every < Duration::from_secs(5) {
        return Duration::ZERO;
    }
    let bytes = key.namespace.bytes().chain(key.name.bytes());
    let hash = bytes.fold(0_u32, |hash, byte| hash.wrapping_mul(31).wrapping_add(u32::from(byte)));
    every.mul_f64(f64::from(hash % 1000) / 1000.0)
}
