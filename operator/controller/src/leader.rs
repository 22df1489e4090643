//! Leader election on a Lease: the clock and the client around [`sluice_core::elect`].
//!
//! Only the leader reconciles. Forward writes also ask for [`Leader::time_left`] before they are sent; abort does
//! not, since it only moves towards safety. When leadership is lost the process has to end: its stores and
//! its work in flight belong to the past.

use std::{
    future::Future,
    hash::{BuildHasher, RandomState},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{Api, Client, api::PostParams};
use sluice_core::elect::{
    ElectionConfig, ElectionConfigError, Elector, LeaseRecord, LeaseWrite, LostReason, Seen, Step,
};
use tokio::{
    sync::{Notify, mpsc, oneshot},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::{client::bounded, error::CallError, metrics::Metrics, panics::essential};

/// How long giving the Lease back may take at the end; then its time runs out by itself.
const RELEASE_LIMIT: Duration = Duration::from_secs(2);

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

struct Driver {
    api: Api<Lease>,
    settings: LeaderSettings,
    elector: Elector,
    /// The Lease as last read or written: what a write is based on.
    seen: Option<Lease>,
    /// The last failure that was logged, so that an outage is one line.
    complaint: Option<String>,
    shared: Arc<Shared>,
    lost: CancellationToken,
}

impl Driver {
    async fn run(mut self, mut requests: mpsc::Receiver<oneshot::Sender<()>>) {
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

#[cfg(test)]
mod tests {
    //! A server with one Lease and compare-and-swap, for the wire format, the timeouts and the driver's order. The
    //! algorithm is proven in the core, and on a real API server in the end-to-end tests.

    use super::*;
    use crate::testing::api_server;
    use axum::{
        Json, Router,
        extract::State,
        http::StatusCode,
        response::{IntoResponse, Response},
        routing::{get, post},
    };
    use serde_json::{Value, json};
    use std::sync::{Mutex, PoisonError, atomic::AtomicBool};

    #[derive(Clone, Default)]
    struct Server {
        lease: Arc<Mutex<Option<Value>>>,
        version: Arc<AtomicU64>,
        silent: Arc<AtomicBool>,
    }

    impl Server {
        fn lease(&self) -> Option<Value> {
            self.lease.lock().unwrap_or_else(PoisonError::into_inner).clone()
        }

        fn holder(&self) -> String {
            self.lease()
                .map_or_else(String::new, |l| l["spec"]["holderIdentity"].as_str().unwrap_or_default().into())
        }

        fn put(&self, mut lease: Value, expected: Option<&str>) -> Response {
            let mut stored = self.lease.lock().unwrap_or_else(PoisonError::into_inner);
            let now = stored.as_ref().map(|l| l["metadata"]["resourceVersion"].clone());
            if now.as_ref().map(|v| v.as_str().unwrap_or_default()) != expected {
                let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure",
                    "reason": "Conflict", "message": "the object has been modified", "code": 409});
                return (StatusCode::CONFLICT, Json(status)).into_response();
            }
            let version = self.version.fetch_add(1, Ordering::SeqCst) + 1;
            lease["metadata"]["resourceVersion"] = json!(version.to_string());
            *stored = Some(lease.clone());
            (if expected.is_none() { StatusCode::CREATED } else { StatusCode::OK }, Json(lease))
                .into_response()
        }

        async fn read(State(server): State<Server>) -> Response {
            if server.silent.load(Ordering::SeqCst) {
                std::future::pending::<()>().await;
            }
            match server.lease() {
                Some(lease) => Json(lease).into_response(),
                None => {
                    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure",
                        "reason": "NotFound", "message": "leases \"sluice\" not found", "code": 404});
                    (StatusCode::NOT_FOUND, Json(status)).into_response()
                }
            }
        }

        async fn start(&self) -> Client {
            let path = "/apis/coordination.k8s.io/v1/namespaces/sluice-system/leases";
            let app = Router::new()
                .route(
                    path,
                    post(
                        |State(s): State<Server>, Json(lease): Json<Value>| async move { s.put(lease, None) },
                    ),
                )
                .route(
                    &format!("{path}/sluice"),
                    get(Self::read).put(|State(s): State<Server>, Json(lease): Json<Value>| async move {
                        let version =
                            lease["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_string();
                        s.put(lease, Some(&version))
                    }),
                )
                .with_state(self.clone());
            api_server(app).await.normal
        }
    }

    const QUICK: ElectionConfig = ElectionConfig {
        lease_duration: Duration::from_secs(3),
        renew_deadline: Duration::from_millis(1200),
        retry_period: Duration::from_millis(60),
    };

    fn candidate(client: &Client, identity: &str) -> Leader {
        let settings = LeaderSettings {
            namespace: "sluice-system".into(),
            name: "sluice".into(),
            identity: identity.into(),
            election: QUICK,
        };
        Leader::start(client.clone(), settings, Metrics::new()).expect("a usable configuration")
    }

    async fn within<T>(limit_ms: u64, future: impl Future<Output = T>) -> T {
        tokio::time::timeout(Duration::from_millis(limit_ms), future).await.expect("in time")
    }

    #[tokio::test]
    async fn one_leads_and_a_graceful_stop_hands_over_at_once() {
        let server = Server::default();
        let client = server.start().await;
        let first = candidate(&client, "a");
        within(1000, first.acquired()).await;
        let second = candidate(&client, "b");
        tokio::time::sleep(Duration::from_millis(3500)).await;
        assert!(first.is_leader() && !second.is_leader(), "the first renews, the second waits");
        assert!(first.time_left() > Duration::from_millis(300), "{:?}", first.time_left());
        assert!(server.holder().starts_with("a_"));

        within(1000, first.resign()).await;
        assert!(!first.is_leader() && !first.lost.is_cancelled());
        within(1500, second.acquired()).await; // half of the lease duration
        let lease = server.lease().expect("a lease");
        assert!(server.holder().starts_with("b_"));
        assert_eq!(lease["spec"]["leaseTransitions"], 1);
        assert_eq!(lease["spec"]["leaseDurationSeconds"], 3);
        assert!(
            lease["spec"]["renewTime"]
                .as_str()
                .is_some_and(|t| t.len() == "2026-01-01T00:00:00.000000Z".len())
        );
    }

    #[tokio::test]
    async fn a_leader_that_gets_no_answer_is_lost_in_time() {
        let server = Server::default();
        let client = server.start().await;
        let leader = candidate(&client, "a");
        within(1000, leader.acquired()).await;
        server.silent.store(true, Ordering::SeqCst);
        within(2500, leader.lost.cancelled()).await; // before anybody else may lead
        assert!(!leader.is_leader());
        assert_eq!(leader.time_left(), Duration::ZERO);
        within(1000, leader.resign()).await; // must not hang after the driver ended
    }

    #[tokio::test]
    async fn a_leader_that_is_replaced_is_lost_and_leaves_the_lease_alone() {
        let server = Server::default();
        let client = server.start().await;
        let leader = candidate(&client, "a");
        within(1000, leader.acquired()).await;
        let mut lease = server.lease().expect("a lease");
        lease["spec"]["holderIdentity"] = json!("intruder");
        lease["metadata"]["resourceVersion"] = json!("1000");
        *server.lease.lock().unwrap_or_else(PoisonError::into_inner) = Some(lease);
        within(1000, leader.lost.cancelled()).await;
        leader.resign().await;
        assert_eq!(server.holder(), "intruder");
    }

    #[tokio::test]
    async fn foreign_metadata_survives_a_takeover() {
        let server = Server::default();
        server.put(
            json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                "metadata": {"name": "sluice", "namespace": "sluice-system", "labels": {"team": "x"}}, "spec": {}}),
            None,
        );
        let client = server.start().await;
        let leader = candidate(&client, "a");
        within(1000, leader.acquired()).await;
        assert_eq!(server.lease().expect("a lease")["metadata"]["labels"]["team"], "x");
    }

    #[tokio::test]
    async fn alone_leads_for_ever() {
        let leader = Leader::alone(Metrics::new());
        within(100, leader.acquired()).await;
        assert!(leader.time_left() > Duration::from_secs(3600));
        within(100, leader.resign()).await;
        assert!(!leader.is_leader());
    }
}
