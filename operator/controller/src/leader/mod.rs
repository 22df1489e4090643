//! Leader election on a Lease: the clock and the client around [`sluice_core::elect`].
//!
//! Only the leader reconciles. Forward writes also ask for [`Leader::time_left`] before they are sent; abort does
//! not, since it only moves towards safety. When leadership is lost the process has to end: its stores and
//! its work in flight belong to the past.

mod driver;
#[cfg(test)]
mod tests;

use std::{
    hash::{BuildHasher, RandomState},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use kube::{Api, Client};
use sluice_core::elect::{ElectionConfig, ElectionConfigError, Elector};
use tokio::{
    sync::{Notify, mpsc, oneshot},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{metrics::Metrics, panics::essential};
use driver::Driver;

/// Which Lease, and who asks for it.
#[derive(Clone, Debug)]
pub struct LeaderSettings {
    /// Namespace of the Lease: the controller's own.
    pub namespace: String,
    /// Name of the Lease.
    pub name: String,
    /// Name of this candidate, usually the pod's. A part that is unique to this process is added.
    pub identity: String,
    /// Times of the election.
    pub election: ElectionConfig,
}

/// Whether this process leads. Clones share the answer, which depends on the clock alone: it ends in time even
/// when the task that renews does not run.
#[derive(Clone)]
pub struct Leader {
    shared: Arc<Shared>,
    /// Cancelled when leadership was had and is over, other than by [`Leader::resign`].
    pub lost: CancellationToken,
    resign: mpsc::Sender<oneshot::Sender<()>>,
}

struct Shared {
    epoch: Instant,
    /// Milliseconds after `epoch` until which this process leads; 0 when it does not.
    until: AtomicU64,
    changed: Notify,
    metrics: Metrics,
}

impl Shared {
    fn new(metrics: Metrics) -> Arc<Self> {
        Arc::new(Self { epoch: Instant::now(), until: AtomicU64::new(0), changed: Notify::new(), metrics })
    }

    fn now(&self) -> Duration {
        self.epoch.elapsed()
    }

    fn set(&self, until: Option<Duration>) {
        let until = until.map_or(0, |until| u64::try_from(until.as_millis()).unwrap_or(u64::MAX));
        self.until.store(until, Ordering::SeqCst);
        self.metrics.set_leader(until != 0);
        self.changed.notify_waiters();
    }

    fn time_left(&self) -> Duration {
        let until = Duration::from_millis(self.until.load(Ordering::SeqCst));
        until.saturating_sub(self.now())
    }
}

impl Leader {
    /// Starts to ask for the Lease, in a task of its own.
    pub fn start(
        client: Client,
        settings: LeaderSettings,
        metrics: Metrics,
    ) -> Result<Self, ElectionConfigError> {
        settings.election.validate()?;
        let shared = Shared::new(metrics);
        let (resign, requests) = mpsc::channel(1);
        let leader = Self { shared: shared.clone(), lost: CancellationToken::new(), resign };
        // Two processes with one pod name, as after a restart of the container, are two candidates.
        let me = format!("{}_{:016x}", settings.identity, RandomState::new().hash_one(std::process::id()));
        let driver = Driver {
            api: Api::namespaced(client, &settings.namespace),
            elector: Elector::new(me, settings.election),
            seen: None,
            complaint: None,
            settings,
            shared,
            lost: leader.lost.clone(),
        };
        essential("leader", driver.run(requests));
        Ok(leader)
    }

    /// Leads without a Lease: for one process on a developer's machine.
    pub fn alone(metrics: Metrics) -> Self {
        let shared = Shared::new(metrics);
        shared.set(Some(Duration::from_millis(u64::MAX)));
        let (resign, _) = mpsc::channel(1);
        Self { shared, lost: CancellationToken::new(), resign }
    }

    /// Whether this process leads now.
    pub fn is_leader(&self) -> bool {
        !self.time_left().is_zero()
    }

    /// How much longer this process surely leads without another renewal. Before a forward write this must be
    /// more than the write's own limit.
    pub fn time_left(&self) -> Duration {
        self.shared.time_left()
    }

    /// Returns when this process leads.
    pub async fn acquired(&self) {
        loop {
            let changed = self.shared.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable(); // before the look, or a change between the two is missed
            if self.is_leader() {
                return;
            }
            changed.await;
        }
    }

    /// Stops to lead and gives the Lease back, so that the next candidate starts at once. The last thing that
    /// a process does: nothing may be written after it. Takes at most 3 s.
    pub async fn resign(&self) {
        let (done, finished) = oneshot::channel();
        if self.resign.send(done).await.is_ok() {
            // The driver bounds the write; an error means that it is gone, and with it the leadership.
            let _ = finished.await;
        }
        self.shared.set(None);
    }
}
