//! When nothing may start: a freeze that holds, what it lets through, and one that is not in order.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use sluice_core::api::{ChangeFreeze, Phase, Provenance, RunKind};

use super::Scenario;
use super::cli::cli;
use super::expect::{LOOK, RUN, SOON, at_rest, clean, ended, event, forget, serving};
use crate::cluster::until;
use crate::shared;
use crate::world::{App, NAME, World};

/// Those of this file.
pub fn scenarios() -> Vec<Scenario> {
    vec![shared!(freeze_holds_starts_and_never_a_rollback), shared!(freeze_that_is_not_in_order_says_why)]
}

/// A freeze of the application's namespace alone, by the name of that.
fn freeze(app: &App<'_>, change: Value) -> Value {
    let mut spec = json!({
        "reason": "stock-taking", "zone": "Europe/Berlin",
        "windows": [{"start": "2026-01-01T00:00:00", "duration": "P1D", "recurrence": "FREQ=DAILY"}],
        "scope": {"namespaces": [app.spec.namespace]},
    });
    for (key, value) in change.as_object().into_iter().flatten() {
        spec[key] = value.clone();
    }
    json!({
        "apiVersion": "sluice.dev/v1alpha1", "kind": "ChangeFreeze",
        "metadata": {"name": app.spec.namespace}, "spec": spec,
    })
}

async fn delete(app: &App<'_>) -> Result<()> {
    app.kubectl(&["delete", "changefreeze", &app.spec.namespace]).await.map(drop)
}

/// Waits until status says this of the newest version, and which one is in force.
async fn said(app: &App<'_>, wanted: &str, texts: &[&str], in_force: i64) -> Result<()> {
    until("the word on the freeze", SOON, LOOK, || async {
        let text = app.kubectl(&["get", "changefreeze", &app.spec.namespace, "-o", "json"]).await?;
        let freeze: ChangeFreeze = serde_json::from_str(&text)?;
        let status = freeze.status.context("no status")?.policy;
        ensure!(Some(status.observed_generation) == freeze.metadata.generation, "not looked at yet");
        let condition = status.conditions.first().context("no condition")?;
        let is =
            json!(condition.status) == wanted && texts.iter().all(|text| condition.message.contains(text));
        ensure!(is && status.accepted_generation == in_force, "{status:?}");
        Ok(())
    })
    .await
}

async fn frozen(app: &App<'_>) -> Result<sluice_core::api::Waiting> {
    let is = |waiting: &sluice_core::api::Waiting| waiting.reason == "Frozen";
    let status =
        app.wait("the freeze holds it", SOON, |status| status.waiting.as_ref().is_some_and(is)).await?;
    ensure!(status.run.is_none() && status.phase == Phase::Held, "{:?} {:?}", status.phase, status.run);
    status.waiting.context("no wait")
}

async fn freeze_holds_starts_and_never_a_rollback(world: &World<'_>) -> Result<()> {
    let app = serving(world, clean("freeze-holds")).await?;
    let first = app.status().await?.stable.context("no stable revision")?;
    // What is under way goes on: the freeze begins in the middle of it.
    app.ship(&app.spec.image("2"), Provenance::Human).await?;
    app.wait_weight(10, RUN).await?;
    app.apply_object(&freeze(&app, json!({}))).await?;
    said(&app, "True", &["in force"], 1).await?;
    app.wait_weight(50, RUN).await?;
    ended(&app, 0, RUN).await?;
    at_rest(&app, Phase::Idle).await?;

    app.ship(&app.spec.image("3"), Provenance::Human).await?;
    let waiting = frozen(&app).await?;
    ensure!(waiting.deadline.is_some(), "no end: {waiting:?}");
    let name = &app.spec.namespace;
    let words = format!("ChangeFreeze {name} (Hard, until ");
    ensure!(waiting.message.starts_with(&words) && waiting.message.contains("stock-taking"), "{waiting:?}");
    event(&app, "Frozen", "Europe/Berlin): stock-taking").await?;
    cli(&app, &["status", NAME]).await?.with(0)?.says("stock-taking")?;
    cli(&app, &["plan", NAME]).await?.with(0)?.says("now: ChangeFreeze")?;
    tokio::time::sleep(LOOK * 25).await;
    ensure!(app.status().await?.run_count == 1, "it started");

    // The recorded good revision goes through.
    app.set_image(&app.spec.image("1")).await?;
    let begun = app.wait("the return", RUN, |status| status.run_count == 2).await?;
    ensure!(begun.run.as_ref().is_none_or(|run| run.kind == RunKind::Return), "{:?}", begun.run);
    ended(&app, 1, RUN).await?;
    let status = at_rest(&app, Phase::Idle).await?;
    ensure!(status.stable.context("no stable revision")?.digest == first.digest, "it serves another one");

    app.ship(&app.spec.image("4"), Provenance::Human).await?;
    frozen(&app).await?;
    // Without it the held one starts.
    delete(&app).await?;
    app.wait("the start", SOON, |status| status.run_count == 3).await?;
    forget(&app).await
}

async fn freeze_that_is_not_in_order_says_why(world: &World<'_>) -> Result<()> {
    let app = serving(world, clean("freeze-wrong")).await?;
    // Never in order: it holds, and says why.
    app.apply_object(&freeze(&app, json!({"zone": "Europe/Berln"}))).await?;
    said(&app, "False", &["spec.zone \"Europe/Berln\" is no zone", "no change starts in its scope"], 0)
        .await?;
    app.ship(&app.spec.image("2"), Provenance::Human).await?;
    let waiting = frozen(&app).await?;
    ensure!(waiting.deadline.is_none() && waiting.message.contains("Europe/Berln"), "{waiting:?}");

    // Corrected, between two windows: it holds nothing.
    let over = json!([{"start": "2026-01-01T00:00:00", "end": "2026-01-02T00:00:00"}]);
    app.apply_object(&freeze(&app, json!({"windows": over}))).await?;
    said(&app, "True", &["in force"], 2).await?;
    app.wait("the start", SOON, |status| status.run_count == 1).await?;

    // A mistake later on changes nothing.
    let again =
        json!([{"start": "2026-01-02T18:00:00", "duration": "PT8H", "recurrence": "FREQ=WEEKLY;BYDAI=FR"}]);
    app.apply_object(&freeze(&app, json!({"windows": again}))).await?;
    let says = [
        "spec.windows[0].recurrence \"FREQ=WEEKLY;BYDAI=FR\": BYDAI=FR is not known",
        "generation 2 stays in force",
    ];
    said(&app, "False", &says, 2).await?;

    // What the schema can tell is refused at once.
    for (change, says) in [
        (json!({"mode": "Medium"}), "spec.mode"),
        (json!({"windows": []}), "spec.windows"),
        (json!({"windows": [{"start": "tomorrow", "duration": "PT8H"}]}), "spec.windows[0].start"),
        (json!({"windows": [{"start": "2026-01-02T18:00:00"}]}), "write either end or duration"),
        (json!({"scope": {}}), "write namespaces or namespaceSelector.matchLabels"),
        (json!({"reason": null}), "spec.reason"),
    ] {
        let refused = app.apply_object(&freeze(&app, change)).await;
        let refused = refused.err().map(|error| format!("{error:#}")).unwrap_or_default();
        ensure!(refused.contains(says), "{says}: {refused}");
    }
    delete(&app).await?;
    forget(&app).await
}
