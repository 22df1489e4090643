//! How long an abort takes: from the scrape that contains the deciding evidence until the router sends the canary
//! nothing any more. Scrapes and evaluations come every second.
//!
//! Nothing is taken from the controller's own clock. The decision names the failures that it was made on; the scrape
//! that first showed so many is looked up in Prometheus. The end is the later of two moments: Traefik's own
//! configuration has weight 0, and the last request that the canary answered was sent. Between weights or endpoints
//! that change within 2 s Traefik waits (`providersThrottleDuration`), so nothing may have changed in the 3 s before.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use serde_json::{Value, json};
use sluice_core::api::{Outcome, Phase, Provenance};
use tokio::task::JoinHandle;

use super::stats::{Mean, median};
use crate::cluster::{ADDRESSES, Cluster};
use crate::http;
use crate::scenarios::expect::{RUN, at_rest, clean, ended, outcome, serving};
use crate::workload::{Fault, Select};
use crate::world::{App, AppSpec, NAME, World};

/// Longest median that is promised, in seconds.
const PROMISE: f64 = 2.0;
/// Nothing changes in the router for this long before the deciding scrape.
const QUIET: Duration = Duration::from_secs(3);
/// Failures of the canary, in permille, from one moment on.
const FAILING: u32 = 200;
/// How often the router is asked.
const LOOK: Duration = Duration::from_millis(20);
/// Scrape and evaluation interval.
const INTERVAL_SECONDS: u64 = 1;

/// What is written to `target/bench/abort.json`.
#[derive(Debug, Serialize)]
struct Report {
    /// Seconds between scrapes, and between evaluations.
    interval_seconds: u64,
    /// From the deciding scrape to weight 0 live in the router.
    median_seconds: f64,
    min_seconds: f64,
    max_seconds: f64,
    /// Mean with its 95 % interval by Student's t.
    seconds: Mean,
    aborts: Vec<Abort>,
}

/// One abort; all times in seconds since the deciding scrape, but the first.
#[derive(Debug, Serialize)]
struct Abort {
    /// From the last change in the router to the deciding scrape.
    quiet_seconds: f64,
    /// The API server had stored weight 0.
    written_seconds: f64,
    /// The router's configuration had weight 0.
    configured_seconds: f64,
    /// The last request that the canary answered was sent; negative when that was before the scrape.
    last_canary_request_seconds: f64,
    /// The later of the last two.
    seconds: f64,
    /// What the controller decided on.
    evidence: String,
}

/// Aborts one change after the other and writes the report.
pub async fn run(cluster: &Cluster, aborts: usize) -> Result<()> {
    ensure!(aborts > 0, "--aborts must be at least 1");
    let world = World::install(cluster, &[]).await?;
    // The run stays at the first step's weight until the fault comes.
    let rollout = json!({"limits": {"pauseBeforePercent": 50}});
    let app = serving(&world, AppSpec { rollout, ..clean("bench-abort") }).await?;
    println!(
        "{aborts} aborts; {} requests per second, {FAILING} of 1,000 fail from one moment on\n",
        app.spec.rps
    );
    println!(
        "{:>5} {:>9} {:>12} {:>14} {:>9}  evidence",
        "abort", "written", "configured", "last request", "live"
    );
    let mut measured = Vec::new();
    for number in 0..aborts {
        let abort = one(&app, number).await.with_context(|| format!("abort {}", number + 1))?;
        println!(
            "{:>5} {:>7.2} s {:>10.2} s {:>12.2} s {:>7.2} s  {}",
            number + 1,
            abort.written_seconds,
            abort.configured_seconds,
            abort.last_canary_request_seconds,
            abort.seconds,
            abort.evidence
        );
        measured.push(abort);
    }
    let seconds: Vec<f64> = measured.iter().map(|abort| abort.seconds).collect();
    let report = Report {
        interval_seconds: INTERVAL_SECONDS,
        median_seconds: median(&seconds),
        min_seconds: seconds.iter().copied().fold(f64::INFINITY, f64::min),
        max_seconds: seconds.iter().copied().fold(0.0, f64::max),
        seconds: Mean::of(&seconds),
        aborts: measured,
    };
    println!(
        "\nfrom the deciding scrape to weight 0 live in the router: median {:.2} s, {:.2} to {:.2} s, mean {:.2} s \
         (95 % interval {:.2} to {:.2} s)",
        report.median_seconds,
        report.min_seconds,
        report.max_seconds,
        report.seconds.mean,
        report.seconds.low,
        report.seconds.high
    );
    super::report("abort", &report)?;
    ensure!(
        report.median_seconds <= PROMISE,
        "the median is {:.2} s, more than {PROMISE} s",
        report.median_seconds
    );
    Ok(())
}

async fn one(app: &App<'_>, number: usize) -> Result<Abort> {
    let cluster = app.cluster;
    let image = app.spec.image(&format!("{}", number + 2));
    app.ship(&image, Provenance::Human).await?;
    let status = app.wait_weight(1, RUN).await?;
    let canary = status.run.context("no run")?.canary.replica_set;
    let router = Router::watch(&app.spec.namespace).await?;
    // Time enough that what settles late does not fall into the quiet time.
    tokio::time::sleep(QUIET * 2).await;
    cluster.workload.inject(Select::image(&app.spec.namespace, &image), Fault::errors(FAILING));
    let record = ended(app, number, RUN).await?;
    outcome(&record, Outcome::Rejected, "GuardTripped")?;
    at_rest(app, Phase::Rejected).await?;

    let failed = failures_in(&record.message)?;
    let scrape = scrape_with(cluster, &app.spec.namespace, &canary, failed).await?;
    let since = |at: Instant| seconds_between(scrape, at);
    let (changed, zero) = router.zero(scrape)?;
    let last =
        app.load.snapshot().last_by_image.get(&image).copied().context("the canary answered nothing")?;
    let abort = Abort {
        quiet_seconds: -since(changed),
        written_seconds: written(cluster, &app.spec.namespace, scrape)?,
        configured_seconds: since(zero),
        last_canary_request_seconds: since(last),
        seconds: since(zero.max(last)),
        evidence: record.message,
    };
    ensure!(
        abort.quiet_seconds >= QUIET.as_secs_f64(),
        "the router changed {:.1} s before the deciding scrape: this measured its throttle",
        abort.quiet_seconds
    );
    Ok(abort)
}

/// Failed canary requests that the decision was made on: `error-rate 4/20 against ...`.
fn failures_in(message: &str) -> Result<u64> {
    let ratio = message.split_whitespace().find_map(|word| word.split_once('/')?.0.parse().ok());
    ratio.with_context(|| format!("no counts in {message:?}"))
}

/// Seconds from a time of day to a moment; negative when the moment was earlier.
fn seconds_between(from: SystemTime, to: Instant) -> f64 {
    let (now, today) = (Instant::now(), SystemTime::now());
    let age = today.duration_since(from).map_or(0.0, |age| age.as_secs_f64());
    age - now.saturating_duration_since(to).as_secs_f64()
}

/// When Prometheus first had this many failures of the canary's pods.
async fn scrape_with(cluster: &Cluster, namespace: &str, canary: &str, failed: u64) -> Result<SystemTime> {
    let query =
        format!("http_requests_total{{namespace=\"{namespace}\",pod=~\"{canary}-.*\",code=~\"5..\"}}[5m]");
    let series = cluster.monitoring.query(&query).await?;
    let mut samples: Vec<(f64, usize, f64)> = Vec::new();
    for (number, series) in series.iter().enumerate() {
        for value in series["values"].as_array().into_iter().flatten() {
            let at = value[0].as_f64().context("time of a sample")?;
            let count: f64 = value[1].as_str().unwrap_or_default().parse().context("value of a sample")?;
            samples.push((at, number, count));
        }
    }
    samples.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut counts = vec![0.0; series.len()];
    for (at, number, count) in samples {
        counts[number] = count;
        if counts.iter().sum::<f64>() >= failed as f64 {
            return Ok(UNIX_EPOCH + Duration::from_secs_f64(at));
        }
    }
    anyhow::bail!("no scrape of {canary} shows {failed} failures")
}

/// When the API server had stored the first write to the route after the scrape, by its audit log.
fn written(cluster: &Cluster, namespace: &str, scrape: SystemTime) -> Result<f64> {
    let path = cluster.paths.run_dir.join("audit.log");
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let scrape = scrape.duration_since(UNIX_EPOCH)?.as_secs_f64();
    let writes =
        text.lines().filter(|line| line.contains("\"resource\":\"httproutes\"")).filter_map(|line| {
            let entry: Value = serde_json::from_str(line).ok()?;
            let ours = entry["verb"] == "patch"
                && entry["objectRef"]["namespace"] == namespace
                && entry["objectRef"]["name"] == NAME
                && entry["responseStatus"]["code"] == 200;
            let at: jiff::Timestamp = entry["stageTimestamp"].as_str()?.parse().ok()?;
            ours.then(|| at.as_microsecond() as f64 / 1e6 - scrape)
        });
    let first = writes.filter(|seconds| *seconds > 0.0).min_by(f64::total_cmp);
    first.context("the audit log has no write to the route after the scrape")
}

/// What Traefik's own configuration had, and when.
struct Router {
    seen: Arc<Mutex<Vec<Seen>>>,
    task: JoinHandle<()>,
}

/// A configuration that differs from the one before.
struct Seen {
    at: Instant,
    canary: Option<i64>,
}

impl Drop for Router {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Router {
    async fn watch(namespace: &str) -> Result<Self> {
        let (prefix, seen) = (format!("httproute-{namespace}-{NAME}-"), Arc::new(Mutex::new(Vec::new())));
        let mut last = configuration().await?;
        seen.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Seen { at: Instant::now(), canary: canary_weight(&last, &prefix) });
        let changes = seen.clone();
        let task = tokio::spawn(async move {
            loop {
                tokio::time::sleep(LOOK).await;
                // One that is missed is late by one look.
                let Ok(now) = configuration().await else { continue };
                if now != last {
                    let change = Seen { at: Instant::now(), canary: canary_weight(&now, &prefix) };
                    changes.lock().unwrap_or_else(PoisonError::into_inner).push(change);
                    last = now;
                }
            }
        });
        Ok(Self { seen, task })
    }

    /// The last change before the scrape, and the first configuration after it with weight 0.
    fn zero(&self, scrape: SystemTime) -> Result<(Instant, Instant)> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let before = seen.iter().rev().find(|seen| seconds_between(scrape, seen.at) < 0.0);
        let before = before.context("the router was not watched before the scrape")?;
        ensure!(before.canary.is_some_and(|weight| weight > 0), "the canary had weight {:?}", before.canary);
        let after =
            seen.iter().find(|seen| seconds_between(scrape, seen.at) >= 0.0 && seen.canary == Some(0));
        Ok((before.at, after.context("the router never had weight 0")?.at))
    }
}

/// Routes, Services and their servers as Traefik has them.
async fn configuration() -> Result<Value> {
    let body = http::get(&format!("{}/api/rawdata", ADDRESSES.traefik_admin)).await?;
    serde_json::from_slice(&body).context("Traefik's configuration")
}

/// The canary's weight on the application's route.
fn canary_weight(configuration: &Value, prefix: &str) -> Option<i64> {
    let services = configuration["services"].as_object()?;
    let (_, pair) = services
        .iter()
        .find(|(name, service)| name.starts_with(prefix) && service["weighted"].is_object())?;
    let canary = format!("-{NAME}-canary-");
    let members = pair["weighted"]["services"].as_array()?;
    members.iter().find(|m| m["name"].as_str().is_some_and(|name| name.contains(&canary)))?["weight"].as_i64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counts_of_a_decision_are_read_from_its_words() {
        assert_eq!(failures_in("error-rate 4/20 against 2/284, score 1.19 >= 1").ok(), Some(4));
        assert!(failures_in("alert QueueBacklog fires").is_err());
    }

    #[test]
    fn the_canarys_weight_is_that_of_its_own_route() {
        let pair = |weight: i64| {
            json!({"weighted": {"services": [
                {"name": "httproute-a-shop-gw-svc-a-shop-stable-0", "weight": 100 - weight},
                {"name": "httproute-a-shop-gw-svc-a-shop-canary-1", "weight": weight},
            ]}})
        };
        let all = json!({"services": {
            "httproute-b-shop-gw-wrr@kubernetesgateway": pair(50),
            "httproute-a-shop-gw-svc-a-shop-canary-1@kubernetesgateway": {"loadBalancer": {}},
            "httproute-a-shop-gw-wrr@kubernetesgateway": pair(10),
        }});
        assert_eq!(canary_weight(&all, "httproute-a-shop-"), Some(10));
        assert_eq!(canary_weight(&all, "httproute-c-shop-"), None);
    }
}
