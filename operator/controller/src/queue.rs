//! The work queue: each rollout at most once at a time, again when something changed meanwhile, later when asked.
//!
//! Passes of different rollouts run side by side without a limit here; what is limited is forward work, inside
//! the pass.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::future::Future;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::error;

use crate::http::Health;
use crate::metrics::Metrics;
use crate::panics::contained;
use crate::watch::Key;

/// A pass that panicked is tried again after this long.
const AFTER_PANIC: Duration = Duration::from_secs(60);
/// The loop turns at least this often, for the liveness probe.
const BEAT: Duration = Duration::from_secs(5);
/// How long passes in flight may take after shutdown began.
const DRAIN: Duration = Duration::from_secs(10);

#[derive(Default)]
struct Plan {
    due: HashMap<Key, Instant>,
    order: BTreeSet<(Instant, Key)>,
    running: HashSet<Key>,
    dirty: HashSet<Key>,
}

impl Plan {
    /// Schedules a rollout; the earlier of two times counts.
    fn at(&mut self, key: Key, when: Instant) {
        if let Some(known) = self.due.get(&key).copied() {
            if known <= when {
                return;
            }
            self.order.remove(&(known, key.clone()));
        }
        self.order.insert((when, key.clone()));
        self.due.insert(key, when);
    }

    fn changed(&mut self, key: Key) {
        if self.running.contains(&key) {
            self.dirty.insert(key);
        } else {
            self.at(key, Instant::now());
        }
    }

    /// The next rollout that is due, which counts as running from here.
    fn take_due(&mut self, now: Instant) -> Option<Key> {
        let (when, key) = self.order.first().cloned()?;
        if when > now {
            return None;
        }
        self.order.remove(&(when, key.clone()));
        self.due.remove(&key);
        self.running.insert(key.clone());
        Some(key)
    }

    fn finished(&mut self, key: &Key, again: Option<Duration>) {
        self.running.remove(key);
        if self.dirty.remove(key) {
            self.at(key.clone(), Instant::now());
        } else if let Some(delay) = again {
            self.at(key.clone(), Instant::now() + delay);
        }
    }
}

/// Runs passes until `stop`, then waits for those in flight. `pass` says when to look again, or `None` when the
/// rollout is gone.
pub async fn run<F>(
    mut changes: UnboundedReceiver<Key>,
    health: Health,
    metrics: Metrics,
    stop: CancellationToken,
    pass: impl Fn(Key) -> F,
) where
    F: Future<Output = Option<Duration>> + Send + 'static,
{
    let mut plan = Plan::default();
    let mut tasks: JoinSet<(Key, Option<Duration>)> = JoinSet::new();
    loop {
        health.beat();
        metrics.set_queue_depth(plan.due.len());
        let next = plan.order.first().map_or(Instant::now() + BEAT, |(when, _)| *when);
        let timer = tokio::time::sleep_until(next.min(Instant::now() + BEAT).into());
        tokio::select! {
            () = stop.cancelled() => break,
            key = changes.recv() => match key {
                Some(key) => plan.changed(key),
                None => break,
            },
            Some(ended) = tasks.join_next() => match ended {
                Ok((key, again)) => plan.finished(&key, again),
                Err(cause) => error!(%cause, "a pass ended badly"),
            },
            () = timer => {}
        }
        while let Some(key) = plan.take_due(Instant::now()) {
            let work = pass(key.clone());
            let metrics = metrics.clone();
            tasks.spawn(async move {
                let again = contained("pass", work).await.unwrap_or_else(|| {
                    metrics.reconcile_failed("Panicked");
                    Some(AFTER_PANIC)
                });
                (key, again)
            });
        }
    }
    let drain = async { while tasks.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN, drain).await.is_err() {
        error!("passes did not end in time; every action is safe to repeat");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key { namespace: "ns".to_owned(), name: name.to_owned() }
    }

    #[test]
    fn a_change_during_a_pass_is_not_lost() {
        let mut plan = Plan::default();
        plan.changed(key("a"));
        assert_eq!(plan.take_due(Instant::now()), Some(key("a")));
        plan.changed(key("a"));
        assert_eq!(plan.take_due(Instant::now()), None, "never two passes at once");
        plan.finished(&key("a"), Some(Duration::from_secs(300)));
        assert_eq!(plan.take_due(Instant::now()), Some(key("a")));
    }

    #[tokio::test]
    async fn a_pass_that_panics_stops_neither_the_others_nor_its_own_rollout() {
        let (queue, changes) = tokio::sync::mpsc::unbounded_channel();
        let (told, mut passes) = tokio::sync::mpsc::unbounded_channel();
        let stop = CancellationToken::new();
        let running =
            tokio::spawn(run(changes, Health::default(), Metrics::new(), stop.clone(), move |key| {
                let told = told.clone();
                async move {
                    told.send(key.name.clone()).expect("the test listens");
                    assert_ne!(key.name, "poisoned");
                    None
                }
            }));
        for name in ["poisoned", "sound", "poisoned"] {
            queue.send(key(name)).expect("the queue runs");
            assert_eq!(passes.recv().await.as_deref(), Some(name));
        }
        stop.cancel();
        running.await.expect("the queue ends well");
    }

    #[test]
    fn the_earlier_of_two_times_counts() {
        let mut plan = Plan::default();
        let now = Instant::now();
        plan.at(key("a"), now + Duration::from_secs(100));
        plan.at(key("a"), now);
        plan.at(key("a"), now + Duration::from_secs(50));
        assert_eq!(plan.take_due(now), Some(key("a")));
        assert!(plan.order.is_empty() && plan.due.is_empty());
    }
}
