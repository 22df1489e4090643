//! What else tells on a revision: containers that are killed for want of memory, a value of somebody's own, and the alerts
//! of Prometheus' own rules. Each stops or holds a canary that answers every request well.

use anyhow::{Context, Result, ensure};
use serde_json::json;
use sluice_core::api::{Outcome, Phase, Provenance};

use super::Scenario;
use super::expect::{RUN, SOON, at_rest, clean, ended, event, no_failures, outcome, served, serving};
use crate::demo::PAST;
use crate::shared;
use crate::workload::{Fault, Select};
use crate::world::{AppSpec, World};

/// Those of this file.
pub fn scenarios() -> Vec<Scenario> {
    vec![
        shared!(canary_killed_for_want_of_memory_is_rejected),
        shared!(a_value_out_of_range_holds_until_it_is_back),
        shared!(rules_of_prometheus_reject_without_an_alertmanager),
        shared!(canary_slower_than_is_usual_is_rejected),
    ]
}

async fn canary_killed_for_want_of_memory_is_rejected(world: &World<'_>) -> Result<()> {
    let rollout =
        json!({"guards": [{"name": "error-rate", "errorRatio": {}}, {"name": "restarts", "restarts": {}}]});
    let app = serving(world, AppSpec { rollout, ..clean("out-of-memory") }).await?;
    let second = app.spec.image("2");
    app.ship(&second, Provenance::Human).await?;
    // Some time goes well: the guard has its series, and they stand in nobody's way.
    let counted = |guard: &sluice_core::api::GuardStatus| guard.name == "restarts" && guard.state == "Ok";
    app.wait_weight(10, RUN).await?;
    let status = app.wait("restarts are counted", SOON, |s| s.guards.iter().any(counted)).await?;
    let guard = status.guards.into_iter().find(counted).context("no guard")?;
    ensure!(guard.message.starts_with("restarts 0 in "), "the guard says {:?}", guard.message);
    ensure!(guard.canary_requests.is_none(), "restarts are no requests");
    let killed = Fault { oom_every_ms: Some(1500), ..Fault::default() };
    world.cluster.workload.inject(Select::image("out-of-memory", &second), killed);
    let record = ended(&app, 0, RUN).await?;
    outcome(&record, Outcome::Rejected, "GuardTripped")?;
    ensure!(
        record.message.contains("were killed for want of memory"),
        "the record says {:?}",
        record.message
    );
    ensure!(record.max_weight_percent == 10, "it had {} %", record.max_weight_percent);
    event(&app, "Rejected", "killed for want of memory").await?;
    at_rest(&app, Phase::Rejected).await.map(drop)
}

async fn a_value_out_of_range_holds_until_it_is_back(world: &World<'_>) -> Result<()> {
    // Pods that answer 100 ms later than the others: for this guard that is out of range, for requests no failure.
    let query = "sum(rate(http_request_duration_seconds_sum{namespace=\"$namespace\",pod=~\"$pods\"}[5s])) / \
                 sum(rate(http_request_duration_seconds_count{namespace=\"$namespace\",pod=~\"$pods\"}[5s]))";
    let rollout = json!({"guards": [
        {"name": "error-rate", "errorRatio": {}},
        {"name": "mean-latency", "metric": {"query": query, "max": "50m"}},
    ]});
    let app = serving(world, AppSpec { rollout, ..clean("own-value") }).await?;
    let begin = app.load.snapshot();
    let second = app.spec.image("2");
    app.ship(&second, Provenance::Human).await?;
    app.wait_weight(10, RUN).await?;
    world.cluster.workload.inject(Select::image("own-value", &second), Fault::latency(100));
    let status = app.wait("it holds", RUN, |status| status.summary.reason == "GaugeOutOfRange").await?;
    let waiting = status.waiting.context("no wait")?;
    ensure!(
        waiting.message.contains("mean-latency: canary 0.") && waiting.message.contains("is above max 50m"),
        "the wait says {:?}",
        waiting.message
    );
    let run = status.run.context("a guard that only holds ended the run")?;
    tokio::time::sleep(std::time::Duration::from_secs(12)).await;
    let now = app.status().await?.run.context("a guard that only holds ended the run")?;
    ensure!(now.step == run.step && now.going_back.is_none(), "it went on to step {}", now.step);
    world.cluster.workload.inject(Select::image("own-value", &second), Fault::latency(0));
    outcome(&ended(&app, 0, RUN).await?, Outcome::Promoted, "Proven")?;
    at_rest(&app, Phase::Idle).await?;
    no_failures(&app, &begin, "while a value was out of its range").map(drop)
}

async fn rules_of_prometheus_reject_without_an_alertmanager(world: &World<'_>) -> Result<()> {
    let matchers = json!([{"label": "alertname", "value": "SomebodyElses"}]);
    let of_rule = json!([{"label": "alertname", "value": "CanaryTooSlow"}]);
    let rollout = json!({
        "guards": [
            {"name": "error-rate", "errorRatio": {}},
            {"name": "rules", "alert": {"source": "Prometheus", "matchers": of_rule}},
            {"name": "others", "alert": {"source": "Prometheus", "matchers": matchers}},
        ],
    });
    let app = serving(world, AppSpec { rollout, ..clean("own-rules") }).await?;
    let begin = app.load.snapshot();
    world.cluster.monitoring.add_rules(
        "own-rules",
        "groups: [{name: own, interval: 1s, rules: [{alert: CanaryTooSlow, expr: 'sum(rate(http_request_duration_seconds_sum{namespace=\"own-rules\"}[5s])) / sum(rate(http_request_duration_seconds_count{namespace=\"own-rules\"}[5s])) > 0.03'}]}]",
    ).await?;
    let second = app.spec.image("2");
    app.ship(&second, Provenance::Human).await?;
    app.wait_weight(10, RUN).await?;
    world.cluster.workload.inject(Select::image("own-rules", &second), Fault::latency(400));
    let record = ended(&app, 0, RUN).await?;
    outcome(&record, Outcome::Rejected, "AlertFired")?;
    ensure!(record.message.contains("CanaryTooSlow"), "the record says {:?}", record.message);
    ensure!(served(&app, &second) > 0, "nobody met it");
    at_rest(&app, Phase::Rejected).await?;
    no_failures(&app, &begin, "while a rule fired").map(drop)
}

async fn canary_slower_than_is_usual_is_rejected(world: &World<'_>) -> Result<()> {
    // No limit is set: what half of stable's requests take is the measure.
    let rollout = json!({"guards": [
        {"name": "error-rate", "errorRatio": {}},
        {"name": "usual-latency", "action": "Abort", "latency": {}},
    ]});
    let app = serving(world, AppSpec { rollout, ..clean("usual-latency") }).await?;
    // Until it is known how stable's pods differ, half of all requests and what they may differ are all requests.
    tokio::time::sleep(PAST).await;
    let begin = app.load.snapshot();
    let second = app.spec.image("2");
    app.ship(&second, Provenance::Human).await?;
    app.wait_weight(10, RUN).await?;
    let counted = |guard: &sluice_core::api::GuardStatus| {
        guard.name == "usual-latency" && guard.state == "Ok" && guard.canary_requests > Some(0)
    };
    app.wait("slow requests are counted", SOON, |s| s.guards.iter().any(counted)).await?;
    world.cluster.workload.inject(Select::image("usual-latency", &second), Fault::latency(100));
    let record = ended(&app, 0, RUN).await?;
    outcome(&record, Outcome::Rejected, "GuardTripped")?;
    let says = |what| record.message.contains(what);
    ensure!(says("usual-latency ") && says(" ms against "), "the record says {:?}", record.message);
    at_rest(&app, Phase::Rejected).await?;
    no_failures(&app, &begin, "while the canary was slow").map(drop)
}
