//! Start and stop: clients, leadership, streams, queue, in order; and back.

use std::sync::Arc;
use std::time::Duration;

use sluice_core::config::Config;
use sluice_core::limits;
use sluice_providers::Providers;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::args::{Common, Release, Run};
use crate::client::{ClientError, Clients, user_agent};
use crate::context::Context;
use crate::http::{self, Health};
use crate::leader::{Leader, LeaderSettings};
use crate::metrics::Metrics;
use crate::panics::essential;
use crate::watch::{Key, Stores, Watched};
use crate::{evidence, guardrails, orphans, policies, queue, reconcile, release as uninstall, telemetry};

/// Providers whose answers are counted.
fn providers(metrics: &Metrics) -> Providers {
    let metrics = metrics.clone();
    Providers::new(
        &user_agent(),
        Arc::new(move |provider, result| metrics.provider_request(provider, result)),
    )
}

/// Why the process ends with an error.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The settings can't be read.
    #[error("--config {path}: {problem}")]
    Config {
        /// The file.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Logging can't start.
    #[error(transparent)]
    Telemetry(#[from] telemetry::TelemetryError),
    /// No client.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Probes and metrics can't be served.
    #[error(transparent)]
    Http(#[from] http::HttpError),
    /// Leader election is misconfigured.
    #[error(transparent)]
    Election(#[from] sluice_core::elect::ElectionConfigError),
    /// The release did not finish.
    #[error(transparent)]
    Release(#[from] uninstall::ReleaseError),
    /// Signals can't be received.
    #[error("signals can't be received: {0}")]
    Signal(#[from] std::io::Error),
    /// Another process leads now.
    #[error("leadership was lost; the process ends so that its successor starts fresh")]
    LostLeadership,
}

fn read_config(common: &Common) -> Result<Config, StartError> {
    let Some(path) = &common.config else {
        return Ok(Config::default());
    };
    let fail = |problem: String| StartError::Config { path: path.display().to_string(), problem };
    let text = std::fs::read_to_string(path).map_err(|error| fail(error.to_string()))?;
    let config: Config = if text.trim().is_empty() {
        Config::default()
    } else {
        serde_saphyr::from_str(&text).map_err(|error| fail(error.to_string()))?
    };
    if let Some(problem) = limits::config_problem(&config) {
        return Err(fail(problem));
    }
    Ok(config)
}

struct Parts {
    ctx: Arc<Context>,
    changes: mpsc::UnboundedReceiver<Key>,
}

async fn prepare(
    common: &Common,
    metrics: &Metrics,
    alone: bool,
    releasing: bool,
) -> Result<Parts, StartError> {
    let config = read_config(common)?;
    let mut clients = Clients::connect(common.kubeconfig.clone()).await?;
    if let Some(namespace) = &common.namespace {
        clients.namespace.clone_from(namespace);
    }
    let leader = if alone {
        Leader::alone(metrics.clone())
    } else {
        let settings = LeaderSettings {
            namespace: clients.namespace.clone(),
            name: common.lease.clone(),
            identity: common.identity.clone(),
            election: sluice_core::elect::ElectionConfig::default(),
        };
        Leader::start(clients.normal.clone(), settings, metrics.clone())?
    };
    let (sender, changes) = mpsc::unbounded_channel();
    let stores = Stores::start(&clients.normal, &config.watch_namespaces, metrics, &sender);
    let ctx = Context::new(
        clients,
        stores,
        leader,
        config,
        releasing,
        metrics.clone(),
        sender,
        common.identity.clone(),
    );
    Ok(Parts { ctx: Arc::new(ctx), changes })
}

/// `run`.
pub async fn run(args: Run) -> Result<(), StartError> {
    telemetry::init(args.common.log_format, &args.common.log)?;
    info!(version = env!("CARGO_PKG_VERSION"), "starting");
    let metrics = Metrics::new();
    let health = Health::default();
    let stop = CancellationToken::new();
    let listener = http::listen(args.listen).await?;
    essential("http", http::serve(listener, health.clone(), metrics.clone(), stop.clone()));
    let mut term = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;

    let Parts { ctx, mut changes } = prepare(&args.common, &metrics, args.no_leader_election, false).await?;
    let warm = wait_warm(&ctx, &health, &mut changes);
    tokio::select! {
        () = warm => {}
        _ = term.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    }
    // A standby keeps its stores warm and its queue empty.
    loop {
        tokio::select! {
            () = ctx.leader.acquired() => break,
            _ = changes.recv() => health.beat(),
            () = tokio::time::sleep(Duration::from_secs(5)) => health.beat(),
            _ = term.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
        }
    }
    info!("leading");
    for rollout in ctx.stores.rollouts() {
        let _ = ctx.queue.send(Key::of(&rollout));
    }
    essential("evidence", evidence::poll(ctx.clone(), providers(&metrics), stop.clone()));
    essential("guardrails", guardrails::watch(ctx.clone(), stop.clone()));
    essential("policies", policies::watch(ctx.clone(), stop.clone()));
    essential("orphans", orphans::watch(ctx.clone(), stop.clone()));
    let worker = essential("queue", work(ctx.clone(), changes, health.clone(), metrics, stop.clone()));
    let lost = tokio::select! {
        _ = term.recv() => false,
        _ = interrupt.recv() => false,
        () = ctx.leader.lost.cancelled() => true,
    };
    health.set_ready(false);
    stop.cancel();
    if worker.await.is_err() {
        warn!("the queue ended badly");
    }
    ctx.events.finish().await;
    if lost {
        return Err(StartError::LostLeadership);
    }
    ctx.leader.resign().await;
    info!("stopped");
    Ok(())
}

/// Waits until every kind is listed once, or for a short while: a kind that can't be listed is said in the status
/// of the rollouts that need it.
async fn wait_warm(ctx: &Context, health: &Health, changes: &mut mpsc::UnboundedReceiver<Key>) {
    const PATIENCE: Duration = Duration::from_secs(10);
    let started = tokio::time::Instant::now();
    while started.elapsed() < PATIENCE {
        if Watched::ALL.into_iter().all(|kind| ctx.stores.ready(kind)) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        while changes.try_recv().is_ok() {}
    }
    health.set_ready(true);
}

async fn work(
    ctx: Arc<Context>,
    changes: mpsc::UnboundedReceiver<Key>,
    health: Health,
    metrics: Metrics,
    stop: CancellationToken,
) {
    queue::run(changes, health, metrics, stop, move |key| reconcile::pass(ctx.clone(), key)).await;
}

/// `release`.
pub async fn release(args: Release) -> Result<(), StartError> {
    telemetry::init(args.common.log_format, &args.common.log)?;
    let metrics = Metrics::new();
    let stop = CancellationToken::new();
    let Parts { ctx, changes } = prepare(&args.common, &metrics, false, true).await?;
    uninstall::stop_controller(&ctx, &args.deployment).await.map_err(uninstall::ReleaseError::from)?;
    info!("waits for the controller's Lease");
    // The Job's deadline covers one timeout: waiting for the Lease and for the rollouts share it.
    let begin = tokio::time::Instant::now();
    if tokio::time::timeout(args.timeout / 2, ctx.leader.acquired()).await.is_err() {
        warn!("the Lease was not free in time; traffic returns to stable without it");
    }
    for rollout in ctx.stores.rollouts() {
        let _ = ctx.queue.send(Key::of(&rollout));
    }
    essential("evidence", evidence::poll(ctx.clone(), providers(&metrics), stop.clone()));
    let worker = essential("queue", work(ctx.clone(), changes, Health::default(), metrics, stop.clone()));
    let outcome = uninstall::wait(&ctx, args.timeout.saturating_sub(begin.elapsed())).await;
    stop.cancel();
    let _ = worker.await;
    ctx.events.finish().await;
    ctx.leader.resign().await;
    outcome?;
    Ok(())
}
