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
        (if expected.is_none() { StatusCode::CREATED } else { StatusCode::OK }, Json(lease)).into_response()
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
                post(|State(s): State<Server>, Json(lease): Json<Value>| async move { s.put(lease, None) }),
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
        lease["spec"]["renewTime"].as_str().is_some_and(|t| t.len() == "2026-01-01T00:00:00.000000Z".len())
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
