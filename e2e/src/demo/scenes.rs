//! The scenes with one application each: a change, and what happens beside it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use sluice_core::api::{Phase, ProgressiveRolloutStatus, Provenance};

use super::RUN_LIMIT;
use super::narrator::{Narrator, line};
use super::play::Play;
use super::report::Scenario;
use crate::world::{App, AppSpec, NAME, World};

/// How long Prometheus is away in the middle of a run.
const OUTAGE: Duration = Duration::from_secs(60);
/// How long a held template is watched before it counts as held.
pub const HELD_WATCH: Duration = Duration::from_secs(8);

/// An application whose change fails a little more often than before: eight requests of a thousand for one. Its bakes are
/// long enough for 100 requests a second to show that.
pub fn subtle() -> AppSpec {
    let rollout = json!({"limits": {"minBakeSeconds": 50}});
    AppSpec { baseline_permille: 1, rollout, ..AppSpec::new("subtle-genai") }
}

/// An application with a guard on requests that take longer than so many milliseconds.
pub fn with_latency_guard(mut spec: AppSpec, slo_milliseconds: i32) -> AppSpec {
    spec.rollout = json!({"guards": [
        {"name": "error-rate", "errorRatio": {}},
        {"name": "latency", "latency": {"sloMilliseconds": slo_milliseconds}},
    ]});
    spec
}

/// An application with a guard on alerts of its namespace.
pub fn with_alert_guard(mut spec: AppSpec) -> AppSpec {
    let namespace = spec.namespace.clone();
    spec.rollout = json!({"guards": [
        {"name": "error-rate", "errorRatio": {}},
        {"name": "pages", "alert": {"matchers": [{"label": "namespace", "value": namespace}]}},
    ]});
    spec
}

/// Ships a change and follows it to its end.
pub async fn ship(
    n: &Narrator,
    name: &str,
    app: &App<'_>,
    image: &str,
    provenance: Provenance,
) -> Result<Scenario> {
    let mut play = Play::begin(app).await?;
    n.say(name, &format!("ships {image}, declared {}", provenance.as_str()));
    app.ship(image, provenance).await?;
    play.follow(n, name, app).await?;
    play.end(n, name, app, Some(provenance)).await
}

/// A good image, and an alert that begins to fire while it is exposed.
pub async fn alerted(n: &Narrator, app: &App<'_>, image: &str) -> Result<Scenario> {
    let mut play = Play::begin(app).await?;
    n.say("alert", &format!("ships {image}, declared Human; its metrics are fine"));
    app.ship(image, Provenance::Human).await?;
    app.wait_weight(1, RUN_LIMIT).await?;
    n.say("alert", "an alert begins to fire: QueueBacklog");
    app.cluster.monitoring.set_rules(&alert_rule(&app.spec.namespace)).await?;
    play.follow(n, "alert", app).await?;
    app.cluster.monitoring.set_rules("groups: []\n").await?;
    play.end(n, "alert", app, Some(Provenance::Human)).await
}

/// A rule that fires at once, with the application's namespace as a label.
pub fn alert_rule(namespace: &str) -> String {
    format!(
        "groups:\n- name: demo\n  rules:\n  - alert: QueueBacklog\n    expr: vector(1)\n    labels: {{namespace: {namespace}, severity: critical}}\n"
    )
}

/// Git applies the rejected manifest again: it stays held.
pub async fn quarantine(n: &Narrator, app: &App<'_>, image: &str) -> Result<Scenario> {
    let play = Play::begin(app).await?;
    n.say("quarantine", "git goes back to stable and applies the rejected revision again");
    app.apply_manifest(&app.spec.image("1")).await?;
    app.wait_phase(Phase::Idle, RUN_LIMIT).await?;
    app.apply_manifest(image).await?;
    app.wait_phase(Phase::Rejected, RUN_LIMIT).await?;
    tokio::time::sleep(HELD_WATCH).await;
    let status = app.status().await?;
    n.say("quarantine", &line(&status));
    let served = play.served(app, image);
    ensure!(served == 0, "{served} requests met the rejected image");
    ensure!(status.run_count == play.runs && status.phase == Phase::Rejected, "{}", line(&status));
    let reason = status.waiting.map(|w| w.reason).unwrap_or_default();
    let held = status.held.context("no template is held")?;
    let scenario = play.without_run("quarantine", "Held", &reason, app, image);
    Ok(Scenario { provenance: held.provenance, ..scenario })
}

/// Git returns to the stable template: nothing runs, nothing restarts.
pub async fn revert(n: &Narrator, app: &App<'_>, image: &str) -> Result<Scenario> {
    let play = Play::begin(app).await?;
    let status = app.status().await?;
    let hash = status.stable.context("no stable revision")?.hash;
    let before = app.pods_of(&hash).await?;
    n.say("revert", "git returns to the stable template");
    app.apply_manifest(&app.spec.image("1")).await?;
    let status = app.wait_phase(Phase::Idle, RUN_LIMIT).await?;
    app.kubectl(&["rollout", "status", &format!("deployment/{NAME}"), "--timeout=30s"]).await?;
    n.say("revert", &line(&status));
    let kept = app.pods_of(&hash).await?;
    ensure!(status.run_count == play.runs, "a run was started");
    let mut scenario = play.without_run("revert", "Unchanged", "TemplateEqualsStable", app, image);
    scenario.pods_restarted = before.difference(&kept).count();
    Ok(scenario)
}

/// A new image comes while no controller runs: nothing of it serves until one is back.
pub async fn controller_down(n: &Narrator, world: &World<'_>, app: &App<'_>) -> Result<Scenario> {
    let name = "controller-down";
    n.say(name, "the controller is stopped");
    world.scale_controller(0).await?;
    let mut play = Play::begin(app).await?;
    let image = app.spec.image("4");
    n.say(name, &format!("ships {image} while no controller runs"));
    app.ship(&image, Provenance::Human).await?;
    tokio::time::sleep(HELD_WATCH).await;
    let served = play.served(app, &image);
    ensure!(served == 0, "{served} requests met the new image while no controller ran");
    n.say(name, "nothing of it serves; the controller comes back");
    world.scale_controller(2).await?;
    play.follow(n, name, app).await?;
    play.end(n, name, app, Some(Provenance::Human)).await
}

/// Prometheus is away for a minute in the middle of a good change: the weight stays, and goes on from there.
pub async fn outage(n: &Narrator, world: &World<'_>, app: &App<'_>) -> Result<Scenario> {
    let name = "outage";
    let mut play = Play::begin(app).await?;
    let image = app.spec.image("3");
    n.say(name, &format!("ships {image}, declared Human"));
    app.ship(&image, Provenance::Human).await?;
    let counted = |status: &ProgressiveRolloutStatus| {
        status.run.is_some() && status.guards.iter().any(|guard| guard.canary_requests > Some(0))
    };
    app.wait("requests of the canary are counted", RUN_LIMIT, counted).await?;
    world.cluster.processes.kill("prometheus").await?;
    n.say(name, &format!("Prometheus is gone, for {} s", OUTAGE.as_secs()));
    let status = app.wait("a wait for data", OUTAGE, |status| status.summary.reason == "NoData").await?;
    n.say(name, &line(&status));
    let before = app.weights().await?;
    let begin = Instant::now();
    let steady = async {
        while begin.elapsed() < OUTAGE {
            let weights = app.weights().await?;
            ensure!(weights == before, "weights {weights:?} without data, {before:?} before");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        anyhow::Ok(())
    };
    let steady = steady.await;
    world.cluster.processes.start_again("prometheus")?;
    steady?;
    n.say(name, "Prometheus is back");
    play.follow(n, name, app).await?;
    play.end(n, name, app, Some(Provenance::Human)).await
}
