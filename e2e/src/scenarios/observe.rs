//! Mode Observe: Kubernetes rolls as ever, and Sluice only says what it would have done.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use sluice_core::api::{Outcome, Phase, Provenance, RunKind};

use super::Scenario;
use super::cli::cli;
use super::expect::{LOOK, RUN, SOON, answers, draining, ended, event, failures, names, outcome, routes};
use crate::cluster::until;
use crate::shared;
use crate::world::{App, AppSpec, NAME, World};

/// Those of this file.
pub fn scenarios() -> Vec<Scenario> {
    vec![shared!(mode_observe_holds_nothing_and_says_what_would_have_been_done)]
}

/// Pods that come one by one, and leave only when the router knows: a native roll that harms nobody by itself.
fn rolling(namespace: &str) -> AppSpec {
    let mut spec = draining(namespace);
    spec.deployment["strategy"] = json!({"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}});
    AppSpec { rollout: json!({"mode": "Observe"}), ..spec }
}

/// All that its owner wrote of the route, and what Sluice would write on it.
async fn route(app: &App<'_>) -> Result<Vec<Value>> {
    let of = |route: &Value| {
        let metadata = &route["metadata"];
        json!([metadata["generation"], metadata["annotations"], metadata["finalizers"], route["spec"]])
    };
    Ok(routes(app).await?.iter().map(of).collect())
}

/// Deployment, ReplicaSets, Services and route are as if there were no rollout.
async fn untouched(app: &App<'_>, before: &[Value]) -> Result<()> {
    let deployment = app.deployment().await?;
    ensure!(deployment.spec.and_then(|spec| spec.paused) != Some(true), "the Deployment is paused");
    let mut all = vec![("Deployment".to_owned(), deployment.metadata)];
    for set in app.replica_sets().await? {
        all.push((set.metadata.name.clone().unwrap_or_default(), set.metadata));
    }
    for (name, metadata) in all {
        let keys = metadata.labels.into_iter().flatten().chain(metadata.annotations.into_iter().flatten());
        let ours: Vec<String> = keys.map(|(key, _)| key).filter(|key| key.contains("sluice.dev/")).collect();
        ensure!(ours.is_empty(), "{name} has {ours:?}");
    }
    let now = route(app).await?;
    ensure!(now == before, "the route was {before:?} and is {now:?}");
    let services = names(app, "service").await?;
    ensure!(services == [format!("service/{NAME}")], "there are {services:?}");
    Ok(())
}

/// Waits until Kubernetes has rolled to the template, with everything left to it on the way.
async fn rolls_natively(app: &App<'_>, before: &[Value]) -> Result<()> {
    let begin = Instant::now();
    loop {
        untouched(app, before).await?;
        let deployment = app.deployment().await?;
        let status = deployment.status.context("no status")?;
        let counts = (status.updated_replicas, status.available_replicas, status.replicas);
        let seen = status.observed_generation == deployment.metadata.generation;
        if seen && counts == (Some(4), Some(4), Some(4)) {
            return Ok(());
        }
        ensure!(begin.elapsed() < RUN, "Kubernetes has not rolled: {counts:?}");
        tokio::time::sleep(LOOK).await;
    }
}

async fn mode_observe_holds_nothing_and_says_what_would_have_been_done(world: &World<'_>) -> Result<()> {
    let app = world.bare_app(rolling("observed")).await?;
    // Its owner has no pair of Services, and none is asked for.
    let mut manifest = app.spec.route_manifest(100, 0);
    manifest["spec"]["rules"][0]["backendRefs"] = json!([{"name": NAME, "port": 80}]);
    app.apply_object(&manifest).await?;
    answers(&app.spec.namespace, &[&app.load]).await?;
    app.wait("it is observed", SOON, |s| s.phase == Phase::Observing && s.stable.is_some()).await?;
    let (begin, before) = (app.load.snapshot(), route(&app).await?);

    let bad = format!("{NAME}:2-errors300-slowstart3000");
    app.ship(&bad, Provenance::GenAIAssisted).await?;
    let (natively, judged) = tokio::join!(rolls_natively(&app, &before), judged(&app, &bad));
    natively?;
    judged?;
    outcome(&ended(&app, 0, RUN).await?, Outcome::Rejected, "WouldReject")?;
    event(&app, "Observed", "WouldReject: GuardTripped").await?;
    let status = app.wait("the new revision is stable", SOON, |s| s.stable.is_some()).await?;
    let images = status.stable.map(|stable| stable.images).unwrap_or_default();
    ensure!(images == [bad.clone()], "stable is {images:?}");
    ensure!(status.history.iter().all(|run| run.max_weight_percent == 0), "a weight is recorded");
    answers_only(&app, &bad).await?;

    // What a person does then works at once, and is judged too.
    app.kubectl(&["rollout", "undo", &format!("deployment/{NAME}")]).await?;
    rolls_natively(&app, &before).await?;
    outcome(&ended(&app, 1, RUN).await?, Outcome::Promoted, "WouldNotReject")?;
    answers(&app.spec.namespace, &[&app.load]).await?;
    untouched(&app, &before).await?;
    let counts = app.load.snapshot().since(&begin);
    let by: Vec<&String> = counts.failed_by_image.keys().collect();
    ensure!(by == [&bad], "requests failed by {by:?}: {}", failures(&counts));
    Ok(())
}

/// While Kubernetes rolls: status and events say the plan, and that it would have been aborted.
async fn judged(app: &App<'_>, bad: &str) -> Result<()> {
    let status = app.wait("the roll is observed", SOON, |s| s.summary.reason == "Observing").await?;
    let run = status.run.context("no run")?;
    ensure!(run.kind == RunKind::Observe && status.phase == Phase::Observing, "a run {:?}", run.kind);
    ensure!(run.canary.images == [bad.to_owned()], "it observes {:?}", run.canary.images);
    event(app, "WouldHold", "class R2, steps 5, 20, 50, 100 %").await?;
    cli(app, &["status", NAME]).await?.with(0)?.says("OBSERVING")?;
    let native = format!("kubectl rollout pause deployment/{NAME} -n {}", app.spec.namespace);
    cli(app, &["pause", NAME]).await?.with(1)?.says("nothing is held")?.says(&native)?;
    event(app, "WouldAbort", "GuardTripped: error-rate").await
}

/// Nothing but this image answers, with its failures: nobody was spared, as nobody had asked for it.
async fn answers_only(app: &App<'_>, image: &str) -> Result<()> {
    until(&format!("{}: only {image} answers", app.spec.namespace), SOON, LOOK, || async {
        let before = app.load.snapshot();
        tokio::time::sleep(Duration::from_secs(1)).await;
        let counts = app.load.snapshot().since(&before);
        let by: Vec<&String> = counts.by_image.keys().collect();
        ensure!(by == [image] && counts.failed > 0, "{by:?} answer, {} fail", counts.failed);
        Ok(())
    })
    .await
}
