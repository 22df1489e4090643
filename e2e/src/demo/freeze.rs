//! A freeze that blocks a start and lets a rollback through.

use anyhow::{Context, Result, ensure};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use sluice_core::api::{Provenance, RunKind};

use super::RUN_LIMIT;
use super::narrator::Narrator;
use super::play::Play;
use super::report::Scenario;
use super::scenes::HELD_WATCH;
use crate::world::App;

/// Name of the freeze.
const FREEZE: &str = "demo";
/// It begins so long ago, and ends so long from now.
const WINDOW: SignedDuration = SignedDuration::from_hours(1);

/// A good change comes during a freeze and waits; going back to a recorded good revision does not.
pub async fn frozen(n: &Narrator, app: &App<'_>) -> Result<[Scenario; 2]> {
    let now = Timestamp::now();
    let local = |time: Timestamp| time.strftime("%Y-%m-%dT%H:%M:%S").to_string();
    app.apply_object(&json!({
        "apiVersion": "sluice.dev/v1alpha1", "kind": "ChangeFreeze", "metadata": {"name": FREEZE},
        "spec": {
            "reason": "stock-taking", "mode": "Hard", "zone": "UTC",
            "windows": [{"start": local(now - WINDOW), "end": local(now + WINDOW)}],
            "scope": {"namespaces": [app.spec.namespace]},
        },
    }))
    .await?;
    n.say("frozen", "a freeze of the namespace is in force: stock-taking");
    let played = async { anyhow::Ok([held(n, app).await?, rollback(n, app).await?]) }.await;
    app.kubectl(&["delete", "changefreeze", FREEZE]).await?;
    played
}

async fn held(n: &Narrator, app: &App<'_>) -> Result<Scenario> {
    let name = "frozen";
    let play = Play::begin(app).await?;
    let image = app.spec.image("5");
    n.say(name, &format!("ships {image}, declared Human"));
    app.ship(&image, Provenance::Human).await?;
    let is_held = |status: &sluice_core::api::ProgressiveRolloutStatus| {
        status.waiting.as_ref().is_some_and(|waiting| waiting.reason == "Frozen")
    };
    n.follow(name, app, is_held).await?;
    tokio::time::sleep(HELD_WATCH).await;
    let status = app.status().await?;
    ensure!(is_held(&status) && status.run_count == play.runs, "it started: {:?}", status.run);
    let served = play.served(app, &image);
    ensure!(served == 0, "{served} requests met the new image during the freeze");
    let why = status.waiting.map(|waiting| format!("{}: {}", waiting.reason, waiting.message));
    let plan = status.plan.context("no plan")?;
    let scenario = play.without_run(name, "Held", &why.unwrap_or_default(), app, &image);
    Ok(Scenario {
        declared: Some(Provenance::Human),
        provenance: Provenance::Human,
        risk_class: plan.risk_class,
        plan_digest: Some(plan.digest),
        steps: plan.steps.iter().map(|step| step.weight_percent).collect(),
        ..scenario
    })
}

/// The revision before the one that serves comes back, behind the check of its capacity alone.
async fn rollback(n: &Narrator, app: &App<'_>) -> Result<Scenario> {
    let name = "rollback";
    let mut play = Play::begin(app).await?;
    let image = app.spec.image("2");
    n.say(name, &format!("the freeze is still on; git goes back to {image}"));
    app.set_image(&image).await?;
    let begun = app.wait("the return", RUN_LIMIT, |status| status.run_count > play.runs).await?;
    ensure!(begun.run.as_ref().is_none_or(|run| run.kind == RunKind::Return), "it is a {:?}", begun.run);
    play.follow(n, name, app).await?;
    let scenario = play.end(n, name, app, None).await?;
    n.say(name, &format!("{image} serves again after {:.1} s", scenario.seconds_total));
    Ok(scenario)
}
