//! The evidence fails, or speaks: a Prometheus that goes away and comes back, one that was never there, a query it
//! refuses, an Alertmanager that hangs, and alerts that are the revision's fault or not. Less evidence never means more
//! trust.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use jiff::{SignedDuration, Timestamp};
use rustix::process::Signal;
use serde_json::{Value, json};
use sluice_core::api::{
    ConditionStatus, ConditionType, Outcome, Phase, ProgressiveRolloutStatus, Provenance,
};

use super::Scenario;
use super::expect::{
    LOOK, RUN, SOON, at_rest, clean, ended, event, kept, no_failures, outcome, served, serving, tested,
};
use crate::cluster::process::Processes;
use crate::cluster::{ADDRESSES, Cluster, until};
use crate::workload::{Fault, Select};
use crate::world::{App, AppSpec, World};
use crate::{alone, http, shared};

/// Those of this file.
pub fn scenarios() -> Vec<Scenario> {
    vec![
        shared!(guards_that_cannot_be_asked_expose_nobody_and_end_not_proven),
        shared!(alerts_count_when_they_are_the_revisions_own),
        alone!(prometheus_outage_holds_good_and_bad_and_promotes_only_the_good),
        alone!(hanging_alertmanager_delays_no_abort),
    ]
}

fn metrics_available(status: &ProgressiveRolloutStatus) -> Option<(ConditionStatus, String)> {
    let found = status.conditions.iter().find(|c| c.kind == ConditionType::MetricsAvailable)?;
    Some((found.status, format!("{}: {}", found.reason, found.message)))
}

/// Waits until the run says that it lacks data, and why.
async fn without_data(app: &App<'_>, says: &str) -> Result<ProgressiveRolloutStatus> {
    let status = app.wait("a wait for data", SOON, |status| status.summary.reason == "NoData").await?;
    let waiting = status.waiting.clone().context("no wait")?;
    ensure!(waiting.message.contains(says), "the wait says {:?}", waiting.message);
    let condition = metrics_available(&status).context("no condition MetricsAvailable")?;
    ensure!(
        condition.0 == ConditionStatus::False && condition.1.contains(says),
        "MetricsAvailable is {condition:?}"
    );
    event(app, "MetricsUnavailable", says).await?;
    Ok(status)
}

/// A query that Prometheus refuses, a Prometheus that is not there, a metric that does not exist, a limit beyond all
/// bounds of the histogram: nobody meets the new revision.
async fn guards_that_cannot_be_asked_expose_nobody_and_end_not_proven(world: &World<'_>) -> Result<()> {
    let malformed = json!({"guards": [{"name": "errors", "errorRatio": {"matchers": "job=\"shop"}}]});
    let nowhere = json!({"prometheus": {"url": "http://127.0.0.1:9099"}});
    let nothing = json!({"guards": [{"name": "errors", "errorRatio": {"metric": "nothing_total"}}]});
    let boundless = json!({"guards": [
        {"name": "latency", "latency": {"sloMilliseconds": 20_000}},
        {"name": "errors", "errorRatio": {}},
    ]});
    let unable = |namespace: &str, rollout| AppSpec { rollout, rps: 30, ..clean(namespace) };
    let (malformed, nowhere, nothing, boundless) = tokio::try_join!(
        serving(world, unable("malformed-query", malformed)),
        serving(world, unable("no-prometheus", nowhere)),
        serving(world, unable("no-metric", nothing)),
        serving(world, unable("no-buckets", boundless)),
    )?;
    let one = async |app: &App<'_>, says: &str, state: &str| -> Result<()> {
        let begin = app.load.snapshot();
        let second = app.spec.image("2");
        app.ship(&second, Provenance::Human).await?;
        let status = without_data(app, says).await?;
        let guard = status.guards.first().context("no guard in status")?;
        ensure!(guard.state == state, "guard {} is {}: {}", guard.name, guard.state, guard.message);
        ensure!(guard.message.contains(says), "guard {} says {:?}", guard.name, guard.message);
        let record = ended(app, 0, RUN).await?;
        outcome(&record, Outcome::NotProven, "NoData")?;
        ensure!(record.message.contains(says), "the record says {:?}", record.message);
        ensure!(record.max_weight_percent == 0, "it was exposed to {} %", record.max_weight_percent);
        at_rest(app, Phase::NotProven).await?;
        ensure!(served(app, &second) == 0, "{} requests met it", served(app, &second));
        no_failures(app, &begin, "while nothing could be asked").map(drop)
    };
    tokio::try_join!(
        one(&malformed, "job=\\\"shop", "QueryError"),
        one(&nowhere, "127.0.0.1:9099", "ProviderDown"),
        one(&nothing, "no request series of stable", "NoData"),
        one(&boundless, "no bounds around 20 s that all pods share", "NoCommonBuckets"),
    )?;
    // Corrected, the same revision is tried again by request, and passes.
    malformed.patch_rollout(json!({"spec": {"guards": null}})).await?;
    malformed.request("retry").await?;
    malformed.wait_weight(10, RUN).await.map(drop)
}

/// An alert of the application, as Prometheus sends it; it fires until `ends_at`.
fn alert(app: &App<'_>, name: &str, severity: &str, starts_at: Timestamp, ends_at: Timestamp) -> Value {
    json!([{
        "labels": {"alertname": name, "namespace": app.spec.namespace, "severity": severity},
        "startsAt": starts_at.to_string(), "endsAt": ends_at.to_string(),
    }])
}

async fn alerts_count_when_they_are_the_revisions_own(world: &World<'_>) -> Result<()> {
    let namespace = "alerted";
    let matchers = |severity: &str| json!({"matchers": [{"label": "namespace", "value": namespace}, {"label": "severity", "value": severity}]});
    let rollout = json!({"guards": [
        {"name": "error-rate", "errorRatio": {}},
        {"name": "pages", "alert": matchers("critical")},
        {"name": "tickets", "action": "Hold", "alert": matchers("warning")},
    ]});
    let app = serving(world, AppSpec { rollout, ..clean(namespace) }).await?;
    let begin = app.load.snapshot();
    let monitoring = &world.cluster.monitoring;
    let now = Timestamp::now();
    let later = now + SignedDuration::from_mins(30);

    // It fires before the revision comes: not its fault, but nobody meets a change in the middle of an incident.
    let long_ago = now - SignedDuration::from_mins(20);
    monitoring.send_alerts(&alert(&app, "DiskFull", "critical", long_ago, later)).await?;
    let second = app.spec.image("2");
    app.ship(&second, Provenance::Human).await?;
    let status =
        app.wait("it waits for the old alert", RUN, |s| s.summary.reason == "PreExistingAlert").await?;
    ensure!(status.phase == Phase::Held && status.run.is_none(), "it started: {:?}", status.phase);
    let waiting = status.waiting.context("no wait")?;
    ensure!(waiting.message.contains("DiskFull"), "the wait says {:?}", waiting.message);
    ensure!(waiting.deadline.is_some(), "the wait has no end");
    ensure!(app.replica_sets().await?.len() == 1, "a canary was made while an alert fired");
    ensure!(served(&app, &second) == 0, "it was exposed while an alert fired");
    monitoring.send_alerts(&alert(&app, "DiskFull", "critical", long_ago, Timestamp::now())).await?;

    // One that begins while the revision serves, under a guard that only holds: the weight stays, nothing else.
    app.wait_weight(10, RUN).await?;
    let started = Timestamp::now();
    monitoring.send_alerts(&alert(&app, "QueueBacklog", "warning", started, later)).await?;
    app.wait("it holds", SOON, |status| status.summary.reason == "AlertFiring").await?;
    tokio::time::sleep(Duration::from_secs(12)).await;
    let status = app.status().await?;
    let run = status.run.context("the guard that only holds ended the run")?;
    ensure!(run.step == 0 && run.going_back.is_none(), "step {} under a hold", run.step);
    ensure!(app.weights().await? == (90, 10), "the weights moved during the hold");
    monitoring.send_alerts(&alert(&app, "QueueBacklog", "warning", started, Timestamp::now())).await?;

    // The next one aborts.
    app.wait_weight(50, RUN).await?;
    let started = Timestamp::now();
    monitoring.send_alerts(&alert(&app, "Checkout5xx", "critical", started, later)).await?;
    let record = ended(&app, 0, RUN).await?;
    outcome(&record, Outcome::Rejected, "AlertFired")?;
    ensure!(record.message.contains("Checkout5xx"), "the record says {:?}", record.message);
    event(&app, "Rejected", "Checkout5xx").await?;
    monitoring.send_alerts(&alert(&app, "Checkout5xx", "critical", started, Timestamp::now())).await?;
    at_rest(&app, Phase::Rejected).await?;
    no_failures(&app, &begin, "while alerts came and went").map(drop)
}

async fn prometheus_is_ready(cluster: &Cluster) -> Result<()> {
    let url = format!("{}/-/ready", ADDRESSES.prometheus);
    until("Prometheus is ready again", SOON, LOOK, || async { http::get(&url).await.map(drop) }).await?;
    until("it scrapes", SOON, LOOK, || async {
        ensure!(cluster.monitoring.sum("sum(up)").await?.unwrap_or(0.0) > 0.0, "no target is up");
        Ok(())
    })
    .await
}

async fn prometheus_outage_holds_good_and_bad_and_promotes_only_the_good(world: &World<'_>) -> Result<()> {
    let (good, bad) =
        tokio::try_join!(serving(world, clean("outage-good")), serving(world, clean("outage-bad")))?;
    let begin = good.load.snapshot();
    let (second, third) = (good.spec.image("2"), bad.spec.image("3"));
    tokio::try_join!(good.ship(&second, Provenance::Human), bad.ship(&third, Provenance::Human))?;
    tokio::try_join!(good.wait_weight(10, RUN), bad.wait_weight(10, RUN))?;
    // Mid-way: Prometheus has found the new pods, which takes it seconds.
    let counts = async |app: &App<'_>| {
        let counted =
            |status: &ProgressiveRolloutStatus| status.guards.iter().any(|g| g.canary_requests > Some(0));
        app.wait("its requests are counted", SOON, counted).await
    };
    tokio::try_join!(counts(&good), counts(&bad))?;

    world.cluster.processes.kill("prometheus").await?;
    world.cluster.workload.inject(Select::image("outage-bad", &third), Fault::errors(200));
    let held = async |app: &App<'_>| -> Result<()> {
        let status = without_data(app, "127.0.0.1:9090").await?;
        let before = app.weights().await?;
        ensure!(before == (90, 10), "weights {before:?} when the data stopped");
        ensure!(status.run.is_some_and(|run| run.going_back.is_none()), "an outage took the revision back");
        // Twice as long as the bake: time without data is no healthy time.
        for _ in 0..80 {
            let weights = app.weights().await?;
            ensure!(weights == before, "weights {weights:?} without data");
            tokio::time::sleep(LOOK).await;
        }
        let status = app.status().await?;
        ensure!(status.summary.reason == "NoData", "it waits for {}", status.summary.reason);
        Ok(())
    };
    let during = tokio::try_join!(held(&good), held(&bad));
    world.cluster.processes.start_again("prometheus")?;
    during?;
    prometheus_is_ready(world.cluster).await?;

    let (tested, rejected) = tokio::try_join!(tested(&good), ended(&bad, 0, RUN))?;
    outcome(&rejected, Outcome::Rejected, "GuardTripped")?;
    ensure!(rejected.max_weight_percent == 10, "the bad one reached {} %", rejected.max_weight_percent);
    outcome(&ended(&good, 0, RUN).await?, Outcome::Promoted, "Proven")?;
    at_rest(&good, Phase::Idle).await?;
    kept(&good, &tested.0, &tested.1).await?;
    at_rest(&bad, Phase::Rejected).await?;
    no_failures(&good, &begin, "of the good change during the outage").map(drop)
}

/// A process that accepts connections and says nothing, until this is dropped.
struct Hanging<'a>(&'a Processes, &'static str);

impl<'a> Hanging<'a> {
    fn new(processes: &'a Processes, name: &'static str) -> Result<Self> {
        processes.signal(name, Signal::STOP)?;
        Ok(Self(processes, name))
    }
}

impl Drop for Hanging<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.0.signal(self.1, Signal::CONT) {
            println!("{} was left hanging: {error:#}", self.1);
        }
    }
}

/// One source that accepts connections and says nothing must not keep questions to the other waiting.
async fn hanging_alertmanager_delays_no_abort(world: &World<'_>) -> Result<()> {
    /// What the evidence takes with both sources, and no more.
    const AT_ONCE: Duration = Duration::from_secs(8);
    let namespace = "alertmanager-hangs";
    let rollout = json!({"guards": [
        {"name": "error-rate", "errorRatio": {}},
        {"name": "pages", "alert": {"matchers": [{"label": "namespace", "value": namespace}]}},
    ]});
    let app = serving(world, AppSpec { rollout, rps: 100, ..clean(namespace) }).await?;
    let second = app.spec.image("2");
    app.ship(&second, Provenance::Human).await?;
    app.wait_weight(10, RUN).await?;
    let monitoring = &world.cluster.monitoring;
    let asked = async || -> Result<f64> {
        let sum = monitoring.sum("sum(sluice_provider_requests_total{provider=\"prometheus\"})").await?;
        sum.context("Sluice's own metrics are not scraped")
    };
    let hanging = Hanging::new(&world.cluster.processes, "alertmanager")?;
    let (since, before) = (Instant::now(), asked().await?);
    // A question to it is under way by now.
    tokio::time::sleep(Duration::from_secs(2)).await;
    ensure!(app.weights().await? == (90, 10), "the bad canary would not stand at 10 %");
    world.cluster.workload.inject(Select::image(namespace, &second), Fault::errors(500));
    until("nobody meets the bad canary any more", AT_ONCE, LOOK, || async {
        let before = served(&app, &second);
        let weights = app.weights().await?;
        ensure!(weights == (100, 0), "weights {weights:?}");
        tokio::time::sleep(Duration::from_millis(500)).await;
        let more = served(&app, &second) - before;
        ensure!(more == 0, "{more} requests met it");
        Ok(())
    })
    .await?;
    tokio::time::sleep(Duration::from_secs(6).saturating_sub(since.elapsed())).await;
    // One in 5 s if the questions waited for each other, else one a second, less what is not scraped yet.
    let (seconds, more) = (since.elapsed().as_secs_f64(), asked().await? - before);
    ensure!(more >= seconds / 2.0, "Prometheus was asked {more} times in {seconds:.1} s");
    drop(hanging);
    outcome(&ended(&app, 0, RUN).await?, Outcome::Rejected, "GuardTripped")?;
    at_rest(&app, Phase::Rejected).await.map(drop)
}
