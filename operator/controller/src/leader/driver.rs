//! The task that reads and writes the Lease: one turn after the other, each with a limit, and the release at the end.

use std::{
    future::Future,
    hash::{BuildHasher, RandomState},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{Api, api::PostParams};
use sluice_core::elect::{Elector, LeaseRecord, LeaseWrite, LostReason, Seen, Step};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{LeaderSettings, Shared};
use crate::{client::bounded, error::CallError};

/// How long giving the Lease back may take at the end; then its time runs out by itself.
const RELEASE_LIMIT: Duration = Duration::from_secs(2);

/// What asks for the Lease, in turns, until this process resigns or has lost it.
pub(super) struct Driver {
    pub api: Api<Lease>,
    pub settings: LeaderSettings,
    pub elector: Elector,
    /// The Lease as last read or written: what a write is based on.
    pub seen: Option<Lease>,
    /// The last failure that was logged, so that an outage is one line.
    pub complaint: Option<String>,
    pub shared: Arc<Shared>,
    pub lost: CancellationToken,
}

impl Driver {
    /// Runs until then.
    pub async fn run(mut self, mut requests: mpsc::Receiver<oneshot::Sender<()>>) {
        info!(lease = %self.settings.name, me = self.elector.me(), "asking for the lease");
        loop {
            let mut asked = None;
            let turn = {
                let turn = self.turn();
                tokio::pin!(turn);
                tokio::select! {
                    biased;
                    request = requests.recv() => {
                        asked = Some(request);
                        // A renewal on its way would make our release a conflict.
                        let _ = tokio::time::timeout(RELEASE_LIMIT / 2, turn).await;
                        Ok(Duration::ZERO)
                    }
                    turn = &mut turn => turn,
                }
            };
            match (&asked, turn) {
                (None, Ok(wait)) => {
                    // A leader looks again no later than its leadership ends.
                    let wait = self.elector.leads_until().map_or(wait, |until| {
                        wait.min(until.saturating_sub(self.shared.now()) + Duration::from_millis(1))
                    });
                    tokio::select! {
                        biased;
                        request = requests.recv() => asked = Some(request),
                        () = tokio::time::sleep(wait) => {}
                    }
                }
                (None, Err(reason)) => {
                    self.shared.set(None);
                    warn!(lease = %self.settings.name, %reason, "leadership is lost; this process has to end");
                    self.lost.cancel();
                    return;
                }
                (Some(_), _) => {}
            }
            if let Some(request) = asked {
                self.release().await; // also when every Leader was dropped
                if let Some(done) = request {
                    let _ = done.send(()); // an error means that nobody waits any more
                }
                return;
            }
        }
    }

    /// Reads, decides, writes. Answers how long to wait for the next turn.
    async fn turn(&mut self) -> Result<Duration, LostReason> {
        let seen = match self.call("get", self.api.get_opt(&self.settings.name)).await {
            Ok(Some(lease)) => {
                let record = record_of(&lease);
                self.seen = Some(lease);
                Seen::Record(record)
            }
            Ok(None) => {
                self.seen = None;
                Seen::Absent
            }
            Err(error) => {
                self.complain(&error);
                Seen::Unreadable
            }
        };
        let holder = self.elector.holder().map(str::to_owned);
        let step = self.elector.step(seen, self.shared.now());
        if self.elector.holder() != holder.as_deref() {
            info!(lease = %self.settings.name, holder = self.elector.holder().unwrap_or("nobody"), "lease seen");
        }
        match step {
            Step::Wait(wait) => Ok(wait),
            Step::Lost(reason) => Err(reason),
            Step::Acquire(write) | Step::Renew(write) => {
                let led = self.elector.leads(self.shared.now());
                self.write(write).await?;
                if !led && self.elector.leads(self.shared.now()) {
                    info!(lease = %self.settings.name, me = self.elector.me(), "leading");
                }
                Ok(self.jittered())
            }
        }
    }

    async fn write(&mut self, write: LeaseWrite) -> Result<(), LostReason> {
        let sent = self.shared.now();
        match self.send(write, self.call_limit()).await {
            Ok(lease) => {
                self.complaint = None;
                self.elector.wrote(record_of(&lease), sent, self.shared.now())?;
                self.seen = Some(lease);
                self.shared.set(self.elector.leads_until());
            }
            // Somebody was faster, or our own lost write landed: the next read tells.
            Err(error) if error.is_conflict() || error.is_not_found() => {
                debug!(%error, "the lease moved on");
            }
            Err(error) => self.complain(&error),
        }
        Ok(())
    }

    async fn release(&mut self) {
        let write = self.elector.release(self.shared.now());
        self.shared.set(None);
        if let Some(write) = write {
            match self.send(write, RELEASE_LIMIT).await {
                Ok(_) => info!(lease = %self.settings.name, "lease given back"),
                Err(error) => {
                    warn!(%error, "the lease could not be given back; the next leader waits it out")
                }
            }
        }
    }

    async fn send(&self, write: LeaseWrite, limit: Duration) -> Result<Lease, CallError> {
        let now = MicroTime(Timestamp::now());
        let params = PostParams::default();
        let what = |verb| format!("{verb} Lease {}/{}", self.settings.namespace, self.settings.name);
        // Based on what was read, so that nobody's labels or annotations are lost.
        let mut lease = self.seen.clone().filter(|_| write.replaces.is_some()).unwrap_or_else(|| Lease {
            metadata: ObjectMeta { name: Some(self.settings.name.clone()), ..Default::default() },
            spec: None,
        });
        lease.metadata.resource_version.clone_from(&write.replaces);
        let spec = lease.spec.get_or_insert_default();
        *spec = LeaseSpec {
            holder_identity: Some(write.holder),
            lease_duration_seconds: i32::try_from(write.duration.as_secs()).ok(),
            lease_transitions: Some(write.transitions),
            acquire_time: if write.acquires { Some(now.clone()) } else { spec.acquire_time.take() },
            renew_time: Some(now),
            ..std::mem::take(spec)
        };
        let (verb, result) = if write.replaces.is_some() {
            (
                "update",
                bounded(what("update"), limit, self.api.replace(&self.settings.name, &params, &lease)).await,
            )
        } else {
            ("create", bounded(what("create"), limit, self.api.create(&params, &lease)).await)
        };
        self.count(verb, &result);
        result
    }

    async fn call<T>(
        &self,
        verb: &'static str,
        call: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, CallError> {
        let what = format!("{verb} Lease {}/{}", self.settings.namespace, self.settings.name);
        let result = bounded(what, self.call_limit(), call).await;
        self.count(verb, &result);
        result
    }

    fn count<T>(&self, verb: &'static str, result: &Result<T, CallError>) {
        let ok = if verb == "create" { 201 } else { 200 };
        self.shared.metrics.api_request(verb, result.as_ref().map_or_else(|error| error.code, |_| ok));
    }

    /// A lost answer must leave time for another try, and a leader must notice its own end in time.
    fn call_limit(&self) -> Duration {
        let limit = self.settings.election.renew_deadline / 2;
        match self.elector.leads_until() {
            Some(until) => limit.min(until.saturating_sub(self.shared.now())),
            None => limit,
        }
    }

    /// Up to a fifth more than the retry period, so that candidates don't knock in step.
    fn jittered(&self) -> Duration {
        let retry = self.settings.election.retry_period;
        let thousandths = RandomState::new().hash_one(0u8) % 200;
        retry + retry.mul_f64(thousandths as f64 / 1000.0)
    }

    fn complain(&mut self, error: &CallError) {
        let text = error.to_string();
        if self.complaint.as_ref() != Some(&text) {
            warn!(
                %error, kind = error.kind.as_str(),
                "the lease can't be used; leader election needs get, create and update on leases here"
            );
            self.complaint = Some(text);
        }
    }
}

fn record_of(lease: &Lease) -> LeaseRecord {
    let spec = lease.spec.as_ref();
    let seconds = spec.and_then(|s| s.lease_duration_seconds).unwrap_or_default();
    LeaseRecord {
        version: lease.metadata.resource_version.clone().unwrap_or_default(),
        holder: spec.and_then(|s| s.holder_identity.clone()).unwrap_or_default(),
        duration: Duration::from_secs(u64::try_from(seconds).unwrap_or_default()),
        transitions: spec.and_then(|s| s.lease_transitions).unwrap_or_default(),
    }
}
