//! What every pass shares: clients, stores, leadership, evidence, and what this process wrote last.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use sluice_core::api::ProgressiveRollout;
use sluice_core::config::Config;
use sluice_core::policy::Policy;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::UnboundedSender;

use crate::beside::Autoscalers;
use crate::client::Clients;
use crate::events::Events;
use crate::evidence::EvidenceStore;
use crate::guardrails::Guardrails;
use crate::leader::Leader;
use crate::metrics::Metrics;
use crate::pace::Pace;
use crate::pods::PodStore;
use crate::policies::Policies;
use crate::store::Object;
use crate::turns::Turns;
use crate::watch::{Key, Stores, Watched};

/// Passes that go forward at the same time; returning traffic does not wait for a place. Few, since they come in order: of
/// many rollouts that start at once all have their pods on the way before the first asks for traffic.
const FORWARD_PLACES: usize = 8;
/// Failed passes in a row from which on a rollout is taken not to come along.
const FAILING: u32 = 3;
/// Statuses that differ only in numbers for people are written so often a second, of all rollouts together, and so many at
/// once: the API server pays for each of them. With few runs under way every evaluation is shown.
const NUMBERS: (f64, f64) = (10.0, 50.0);
/// Records of an hour are read so often a second, of all held templates together, and so many at once: an edit of a policy asks
/// for all of them anew, and none is in a hurry.
const RECORDS: (f64, f64) = (5.0, 20.0);

/// What every pass shares.
pub struct Context {
    /// Clients of the API server.
    pub clients: Clients,
    /// Everything that is watched.
    pub stores: Stores,
    /// Whether this process may go forward.
    pub leader: Leader,
    /// Settings of the installation.
    pub config: Config,
    /// Whether every rollout lets go.
    pub releasing: bool,
    /// Limits by namespace.
    pub policies: Policies,
    /// Room for runs in flight.
    pub turns: Turns,
    /// Verdicts.
    pub evidence: EvidenceStore,
    /// What is known of pods.
    pub pods: PodStore,
    /// Autoscalers that were read just now.
    pub autoscalers: Autoscalers,
    /// Metrics.
    pub metrics: Metrics,
    /// Rollouts to look at.
    pub queue: UnboundedSender<Key>,
    /// Events that wait to be written.
    pub events: Events,
    /// Whether new templates are surely held.
    pub guardrails: Guardrails,
    /// Places for passes that go forward.
    pub forward: Arc<Semaphore>,
    /// Turns to write numbers for people.
    pub numbers: Pace,
    /// Turns to read stable's record.
    pub records: Pace,
    /// When this process last wrote the status of a rollout.
    written: Mutex<BTreeMap<Key, Instant>>,
    /// Failed passes in a row, by rollout.
    failures: Mutex<BTreeMap<Key, u32>>,
    /// Passes in a row under which the world moved, by rollout.
    moves: Mutex<BTreeMap<Key, u32>>,
}

impl Context {
    /// Assembles what passes share.
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        clients: Clients,
        stores: Stores,
        leader: Leader,
        config: Config,
        releasing: bool,
        metrics: Metrics,
        queue: UnboundedSender<Key>,
        identity: String,
    ) -> Self {
        let forward = Arc::new(Semaphore::new(FORWARD_PLACES));
        let events = Events::start(clients.normal.clone(), identity, forward.clone());
        Self {
            clients,
            stores,
            leader,
            config,
            releasing,
            policies: Policies::default(),
            turns: Turns::default(),
            evidence: EvidenceStore::default(),
            pods: PodStore::default(),
            autoscalers: Autoscalers::default(),
            metrics,
            queue,
            events,
            guardrails: Guardrails::default(),
            forward,
            numbers: Pace::new(NUMBERS.0, NUMBERS.1),
            records: Pace::new(RECORDS.0, RECORDS.1),
            written: Mutex::default(),
            failures: Mutex::default(),
            moves: Mutex::default(),
        }
    }

    /// The rollout as newest known here, with what this process wrote.
    pub fn newest(&self, key: &Key) -> Option<Result<Arc<ProgressiveRollout>, String>> {
        Some(self.stores.rollout(key)?.rollout())
    }

    /// What holds for the workloads of a namespace.
    pub fn policy(&self, namespace: &str) -> Arc<Policy> {
        self.policies.of(&self.stores, &self.config, namespace)
    }

    /// Remembers a status that was written, in a call that began then.
    pub fn wrote(&self, key: &Key, rollout: Object, began: Instant) {
        lock(&self.written).insert(key.clone(), Instant::now());
        self.stores.wrote(Watched::Rollout, rollout, began);
    }

    /// When this process last wrote the status of a rollout.
    pub fn written_at(&self, key: &Key) -> Option<Instant> {
        lock(&self.written).get(key).copied()
    }

    /// Forgets a rollout that is gone.
    pub fn forget(&self, key: &Key) {
        lock(&self.written).remove(key);
        lock(&self.failures).remove(key);
        lock(&self.moves).remove(key);
        self.evidence.forget(key);
        self.turns.give_back(key);
        self.pods.forget(key);
        self.metrics.forget_rollout(&crate::metrics::RolloutKey::new(&key.namespace, &key.name));
    }

    /// Counts a failed pass; the number in a row.
    pub fn failed(&self, key: &Key) -> u32 {
        let mut failures = lock(&self.failures);
        let count = failures.entry(key.clone()).or_default();
        *count = count.saturating_add(1);
        *count
    }

    /// Counts a pass under which the world moved; the number in a row.
    pub fn moved(&self, key: &Key) -> u32 {
        let mut moves = lock(&self.moves);
        let count = moves.entry(key.clone()).or_default();
        *count = count.saturating_add(1);
        *count
    }

    /// A pass found the world as it was decided on.
    pub fn settled(&self, key: &Key) {
        lock(&self.moves).remove(key);
    }

    /// Whether passes of a rollout have failed several times in a row.
    pub fn fails(&self, key: &Key) -> bool {
        lock(&self.failures).get(key).is_some_and(|count| *count >= FAILING)
    }

    /// A pass succeeded.
    pub fn succeeded(&self, key: &Key) {
        lock(&self.failures).remove(key);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Entries are inserted whole: a panic elsewhere leaves nothing half-done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
