//! The controller's own HTTP server: `/livez`, `/readyz` and `/metrics`.
//!
//! Probes read two atomics and call nothing, so they cost the same with one rollout and with ten thousand, and
//! a slow API server can't get the controller killed.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::IntoResponse,
    routing::get,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

/// How long the main loop may stay silent before the process counts as stuck.
pub const BEAT_LIMIT: Duration = Duration::from_secs(60);
/// How long open requests may take after shutdown began.
const DRAIN_LIMIT: Duration = Duration::from_secs(2);

/// What the probes answer. Clones share it.
#[derive(Clone)]
pub struct Health {
    inner: Arc<HealthInner>,
}

struct HealthInner {
    started: Instant,
    ready: AtomicBool,
    /// Milliseconds after `started` of the last beat; 0 before the first.
    beat: AtomicU64,
    beat_limit: Duration,
}

impl Default for Health {
    fn default() -> Self {
        Self::new(BEAT_LIMIT)
    }
}

impl Health {
    /// Not ready, and alive until `beat_limit` passes after the first beat without another.
    pub fn new(beat_limit: Duration) -> Self {
        let inner = HealthInner {
            started: Instant::now(),
            ready: AtomicBool::new(false),
            beat: AtomicU64::new(0),
            beat_limit,
        };
        Self { inner: Arc::new(inner) }
    }

    /// Ready: the stores are filled; a standby is ready too. Not ready again: shutdown began.
    pub fn set_ready(&self, ready: bool) {
        self.inner.ready.store(ready, Ordering::Relaxed);
    }

    /// The main loop turns. Call it at least every few seconds, from the loop itself and not from a timer of its
    /// own, or it proves nothing.
    pub fn beat(&self) {
        let now = self.inner.started.elapsed().as_millis().max(1);
        self.inner.beat.store(u64::try_from(now).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn silent_for(&self) -> Option<Duration> {
        match self.inner.beat.load(Ordering::Relaxed) {
            0 => None,
            beat => Some(self.inner.started.elapsed().saturating_sub(Duration::from_millis(beat))),
        }
    }

    fn live(&self) -> (StatusCode, String) {
        match self.silent_for() {
            Some(silent) if silent > self.inner.beat_limit => (
                StatusCode::SERVICE_UNAVAILABLE,
                format!("the main loop has not turned for {} s\n", silent.as_secs()),
            ),
            _ => (StatusCode::OK, "ok\n".into()),
        }
    }

    fn ready(&self) -> (StatusCode, &'static str) {
        if self.inner.ready.load(Ordering::Relaxed) {
            (StatusCode::OK, "ok\n")
        } else {
            (StatusCode::SERVICE_UNAVAILABLE, "the first lists are not complete, or shutdown began\n")
        }
    }
}

/// Why the server does not run.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The address is taken or not ours.
    #[error("can't listen on {address}: {source}; choose another with --listen")]
    Listen {
        /// The address as given.
        address: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// The server broke.
    #[error("the HTTP server stopped: {0}")]
    Serve(#[source] std::io::Error),
}

/// Listens on `address`, so that a wrong address is found out at once.
pub async fn listen(address: SocketAddr) -> Result<TcpListener, HttpError> {
    TcpListener::bind(address).await.map_err(|source| HttpError::Listen { address, source })
}

/// Serves until `stop`, then at most 2 s more for open requests.
pub async fn serve(
    listener: TcpListener,
    health: Health,
    metrics: Metrics,
    stop: CancellationToken,
) -> Result<(), HttpError> {
    let server =
        axum::serve(listener, router(health, metrics)).with_graceful_shutdown(stop.clone().cancelled_owned());
    let overdue = async {
        stop.cancelled().await;
        tokio::time::sleep(DRAIN_LIMIT).await;
    };
    tokio::select! {
        done = async { server.await } => done.map_err(HttpError::Serve),
        () = overdue => Ok(()),
    }
}

fn router(health: Health, metrics: Metrics) -> Router {
    Router::new()
        .route("/livez", get(|State(health): State<Health>| async move { health.live() }))
        .route("/readyz", get(|State(health): State<Health>| async move { health.ready() }))
        .with_state(health)
        .route(
            "/metrics",
            get(|State(metrics): State<Metrics>| async move {
                match metrics.encode() {
                    Ok(text) => ([(CONTENT_TYPE, Metrics::CONTENT_TYPE)], text).into_response(),
                    Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
                }
            })
            .with_state(metrics),
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Server {
        base: String,
        health: Health,
        stop: CancellationToken,
        task: tokio::task::JoinHandle<Result<(), HttpError>>,
    }

    async fn start(health: Health) -> Server {
        let listener = listen(([127, 0, 0, 1], 0).into()).await.expect("a free port");
        let base = format!("http://{}", listener.local_addr().expect("an address"));
        let stop = CancellationToken::new();
        let task = tokio::spawn(serve(listener, health.clone(), Metrics::new(), stop.clone()));
        Server { base, health, stop, task }
    }

    async fn ask(server: &Server, path: &str) -> (u16, String, String) {
        crate::client::install_crypto();
        let answer = reqwest::get(format!("{}{path}", server.base)).await.expect("an answer");
        let kind = answer
            .headers()
            .get("content-type")
            .and_then(|v| v.to_str().ok())
            .unwrap_or_default()
            .to_string();
        (answer.status().as_u16(), kind, answer.text().await.expect("a body"))
    }

    #[tokio::test]
    async fn ready_follows_what_it_is_told() {
        let server = start(Health::default()).await;
        assert_eq!(ask(&server, "/readyz").await.0, 503);
        server.health.set_ready(true);
        assert_eq!(ask(&server, "/readyz").await.0, 200);
        server.health.set_ready(false);
        assert_eq!(ask(&server, "/readyz").await.0, 503);
        assert_eq!(ask(&server, "/livez").await.0, 200);
    }

    #[tokio::test]
    async fn a_stuck_loop_is_not_alive() {
        // A busy machine may take a while for an answer; it must not look like a stuck loop.
        let server = start(Health::new(Duration::from_millis(1500))).await;
        assert_eq!(ask(&server, "/livez").await.0, 200, "before the first beat it starts up");
        server.health.beat();
        tokio::time::sleep(Duration::from_millis(1700)).await;
        let (code, _, text) = ask(&server, "/livez").await;
        assert_eq!(code, 503);
        assert!(text.contains("main loop"), "{text}");
        server.health.beat();
        assert_eq!(ask(&server, "/livez").await.0, 200);
    }

    #[tokio::test]
    async fn metrics_are_served_and_shutdown_ends_the_server() {
        let server = start(Health::default()).await;
        let (code, kind, text) = ask(&server, "/metrics").await;
        assert_eq!((code, kind.as_str()), (200, Metrics::CONTENT_TYPE));
        assert!(text.contains("sluice_build_info"), "{text}");
        server.stop.cancel();
        let ended = tokio::time::timeout(Duration::from_secs(4), server.task).await.expect("ends in time");
        assert!(ended.expect("no panic").is_ok());
    }

    #[tokio::test]
    async fn a_taken_port_is_named() {
        let first = listen(([127, 0, 0, 1], 0).into()).await.expect("a free port");
        let address = first.local_addr().expect("an address");
        let error = listen(address).await.expect_err("taken");
        assert!(error.to_string().contains(&address.to_string()) && error.to_string().contains("--listen"));
    }
}
