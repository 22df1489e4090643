//! The routes and those who steer: weights that somebody else writes, routes with more in them than our pair, and the
//! verbs of a person. Each is judged by what clients saw.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use sluice_core::api::{Outcome, Phase, Provenance};

use super::Scenario;
use super::expect::{
    LOOK, RUN, SOON, answers, at_rest, clean, ended, event, events, failures, kept, no_failures, outcome,
    pairs, routes, served, serving, tested,
};
use crate::cluster::until;
use crate::load::{Load, Target};
use crate::shared;
use crate::world::{App, AppSpec, NAME, World};

/// Those of this file.
pub fn scenarios() -> Vec<Scenario> {
    vec![
        shared!(weights_overwritten_once_are_written_again_and_the_run_is_promoted),
        shared!(weights_overwritten_again_and_again_hold_at_zero_until_resume),
        shared!(only_the_two_weights_change_in_routes_with_much_else),
        shared!(pause_resume_suspend_and_a_warm_revert_by_request),
        shared!(abort_by_request_mid_step_stays_rejected_until_retry),
    ]
}

/// Applies the route as git has it: all traffic at stable.
async fn overwrite(app: &App<'_>) -> Result<()> {
    app.apply_object(&app.spec.route_manifest(100, 0)).await
}

async fn weights_are(app: &App<'_>, stable: i64, canary: i64) -> Result<()> {
    until(&format!("{}: weights {stable}/{canary}", app.spec.namespace), SOON, LOOK, || async {
        let is = app.weights().await?;
        ensure!(is == (stable, canary), "they are {}/{}", is.0, is.1);
        Ok(())
    })
    .await
}

async fn weights_overwritten_once_are_written_again_and_the_run_is_promoted(world: &World<'_>) -> Result<()> {
    let app = serving(world, clean("overwritten-once")).await?;
    let begin = app.load.snapshot();
    app.ship(&app.spec.image("2"), Provenance::Human).await?;
    let before = app.wait_weight(10, RUN).await?.run.context("no run")?;
    let settled = before.weight.and_then(|weight| weight.settled_at).context("not settled")?;
    overwrite(&app).await?;
    event(&app, "RouteOverwritten", "(1 in this step)").await?;
    weights_are(&app, 90, 10).await?;
    let status = app.wait_weight(10, RUN).await?;
    let run = status.run.context("no run")?;
    let again = run.weight.and_then(|weight| weight.settled_at).context("not settled")?;
    ensure!(run.step == before.step && again > settled, "the window of the step did not begin anew");
    ensure!(status.traffic.is_some_and(|t| t.overwrites == 1), "the overwrite is not counted in status");
    let (hash, pods) = tested(&app).await?;
    outcome(&ended(&app, 0, RUN).await?, Outcome::Promoted, "Proven")?;
    at_rest(&app, Phase::Idle).await?;
    kept(&app, &hash, &pods).await?;
    let times = events(&app).await?.iter().filter(|(reason, _)| reason == "RouteOverwritten").count();
    ensure!(times == 1, "{times} events RouteOverwritten for one overwrite");
    no_failures(&app, &begin, "while the weights were overwritten once").map(drop)
}

async fn weights_overwritten_again_and_again_hold_at_zero_until_resume(world: &World<'_>) -> Result<()> {
    let app = serving(world, clean("overwritten-often")).await?;
    let begin = app.load.snapshot();
    let second = app.spec.image("2");
    app.ship(&second, Provenance::Human).await?;
    app.wait_weight(10, RUN).await?;
    let git = async {
        loop {
            overwrite(&app).await?;
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
    };
    let held = async {
        let status = app.wait("it holds", SOON, |s| s.summary.reason == "RouteOverwritten").await?;
        let run = status.run.context("the run has ended")?;
        ensure!(run.overwritten && run.going_back.is_none(), "the run does not hold");
        let waiting = status.waiting.context("no wait")?;
        ensure!(waiting.message.contains("backendRefs[].weight"), "{}", waiting.message);
        ensure!(waiting.deadline.is_some(), "the hold has no deadline");
        weights_are(&app, 100, 0).await?;
        // While the other writer goes on, nothing is sent to the canary once proxies have followed.
        tokio::time::sleep(Duration::from_secs(3)).await;
        let met = served(&app, &second);
        tokio::time::sleep(Duration::from_secs(4)).await;
        ensure!(served(&app, &second) == met, "the canary met requests at weight 0");
        ensure!(app.weights().await? == (100, 0), "the weights moved during the hold");
        Ok(())
    };
    let stopped: Result<()> = tokio::select! {
        stopped = git => stopped,
        held = held => held,
    };
    stopped?;
    event(&app, "RouteOverwritten", "(3 in this step)").await?;
    app.request("resume").await?;
    app.wait_weight(10, RUN).await?;
    weights_are(&app, 90, 10).await?;
    outcome(&ended(&app, 0, RUN).await?, Outcome::Promoted, "Proven")?;
    at_rest(&app, Phase::Idle).await?;
    no_failures(&app, &begin, "while the weights were overwritten every 2 s").map(drop)
}

/// Two routes, four rules with the pair, filters, timeouts, another backend beside it, and a rule without it.
fn rich_routes(namespace: &str) -> [Value; 2] {
    let stable = json!({"name": format!("{NAME}-stable"), "port": 80, "weight": 100});
    let canary = json!({"name": format!("{NAME}-canary"), "port": 80, "weight": 0});
    let legacy = json!({"name": "legacy", "port": 80, "weight": 25});
    let header = |name: &str| json!({"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [{"name": name, "value": "1"}]}});
    let route = |name: &str, hostnames: Value, rules: Value| {
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
            "metadata": {"name": name, "namespace": namespace, "annotations": {"team": "checkout"}},
            "spec": {"parentRefs": [{"name": "web", "namespace": "default"}], "hostnames": hostnames, "rules": rules},
        })
    };
    let path = |prefix: &str| json!([{"path": {"type": "PathPrefix", "value": prefix}}]);
    [
        route(
            NAME,
            json!([format!("{namespace}.local"), format!("www.{namespace}.local")]),
            json!([
                {"matches": path("/old"), "backendRefs": [legacy]},
                {"matches": path("/mixed"), "filters": [header("x-mixed")], "backendRefs": [canary, legacy, stable]},
                {"matches": path("/"), "filters": [header("x-shop")], "backendRefs": [stable, canary]},
            ]),
        ),
        route(
            "shop-admin",
            json!([format!("admin.{namespace}.local")]),
            json!([
                {"matches": [{"path": {"type": "PathPrefix", "value": "/"}, "method": "GET"}],
                 "filters": [header("x-admin")], "backendRefs": [stable, canary]},
                {"matches": path("/"), "backendRefs": [stable, canary]},
            ]),
        ),
    ]
}

/// Another application behind the same routes.
fn legacy(spec: &AppSpec) -> [Value; 2] {
    let mut deployment = spec.deployment_manifest("legacy:1");
    deployment["metadata"]["name"] = json!("legacy");
    deployment["spec"]["selector"] = json!({"matchLabels": {"app": "legacy"}});
    deployment["spec"]["template"]["metadata"]["labels"] = json!({"app": "legacy"});
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "legacy", "namespace": spec.namespace},
        "spec": {"selector": {"app": "legacy"}, "ports": [{"port": 80, "targetPort": 8080}]},
    });
    [deployment, service]
}

/// The routes without what is ours: the weights of the pair, our annotation, and what the API server counts.
fn without_ours(mut routes: Vec<Value>) -> Vec<Value> {
    for route in &mut routes {
        for key in ["resourceVersion", "generation", "managedFields"] {
            if let Some(meta) = route["metadata"].as_object_mut() {
                meta.remove(key);
            }
        }
        if let Some(annotations) = route["metadata"]["annotations"].as_object_mut() {
            annotations.remove("sluice.dev/traffic");
        }
        if let Some(object) = route.as_object_mut() {
            object.remove("status");
        }
        let rules = route["spec"]["rules"].as_array_mut().into_iter().flatten();
        for backend in rules.flat_map(|rule| rule["backendRefs"].as_array_mut().into_iter().flatten()) {
            let ours = backend["name"] == "shop-stable" || backend["name"] == "shop-canary";
            if let Some(backend) = backend.as_object_mut().filter(|_| ours) {
                backend.remove("weight");
            }
        }
    }
    routes
}

async fn only_the_two_weights_change_in_routes_with_much_else(world: &World<'_>) -> Result<()> {
    let names = json!({"routing": {"routes": [{"name": NAME}, {"name": "shop-admin"}]}});
    let app = world.bare_app(AppSpec { rollout: names, rps: 50, ..clean("rich-routes") }).await?;
    for object in legacy(&app.spec) {
        app.apply_object(&object).await?;
    }
    for route in rich_routes(&app.spec.namespace) {
        app.apply_object(&route).await?;
    }
    app.wait_phase(Phase::Idle, SOON).await?;
    let admin = Load::start(Target::gateway(&format!("admin.{}.local", app.spec.namespace), 20));
    let host = format!("www.{}.local", app.spec.namespace);
    let mixed = Load::start(Target { path: "/mixed/1".into(), ..Target::gateway(&host, 20) });
    let old = Load::start(Target { path: "/old".into(), ..Target::gateway(&host, 10) });
    answers(&app.spec.namespace, &[&app.load, &admin, &mixed, &old]).await?;
    let begin = [&app.load, &admin, &mixed, &old].map(Load::snapshot);
    let before = without_ours(routes(&app).await?);
    ensure!(before.len() == 2, "{} routes", before.len());

    app.ship(&app.spec.image("2"), Provenance::Human).await?;
    app.wait_weight(50, RUN).await?;
    let during = routes(&app).await?;
    ensure!(pairs(&during) == [(50, 50); 4], "weights {:?}", pairs(&during));
    ensure!(without_ours(during) == before, "something else in the routes was changed");
    outcome(&ended(&app, 0, RUN).await?, Outcome::Promoted, "Proven")?;
    at_rest(&app, Phase::Idle).await?;
    ensure!(without_ours(routes(&app).await?) == before, "the routes are not as they were");
    for (path, load, begin) in [
        ("/", &app.load, &begin[0]),
        ("admin", &admin, &begin[1]),
        ("/mixed", &mixed, &begin[2]),
        ("/old", &old, &begin[3]),
    ] {
        let counts = load.snapshot().since(begin);
        let bad = counts.requests - counts.by_status.get(&200).copied().unwrap_or(0);
        ensure!(bad == 0, "{path}: {bad} of {} requests: {}", counts.requests, failures(&counts));
        let images: Vec<&str> = counts.by_image.keys().map(String::as_str).collect();
        let wanted: &[&str] = match path {
            "/old" => &["legacy:1"],
            "/mixed" => &["legacy:1", "shop:1-errors0", "shop:2-errors0"],
            _ => &["shop:1-errors0", "shop:2-errors0"],
        };
        ensure!(images == wanted, "{path} was answered by {images:?}");
    }
    Ok(())
}

/// Asks for a verb and waits until the controller has seen it.
async fn asks(app: &App<'_>, verb: &str) -> Result<()> {
    app.request(verb).await?;
    app.wait(&format!("{verb} is seen"), SOON, |status| {
        status.request.as_ref().is_some_and(|request| request.value.starts_with(&format!("{verb}/")))
    })
    .await
    .map(drop)
}

/// Waits for this reason, and sees that the weight stays for longer than the step's bake.
async fn stays(app: &App<'_>, reason: &str, percent: i64) -> Result<()> {
    app.wait(reason, RUN, |status| status.summary.reason == reason).await?;
    let since = Instant::now();
    while since.elapsed() < Duration::from_secs(6) {
        let weights = app.weights().await?;
        ensure!(weights == (100 - percent, percent), "weights {weights:?} during {reason}");
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

async fn pause_resume_suspend_and_a_warm_revert_by_request(world: &World<'_>) -> Result<()> {
    let rollout = json!({"limits": {"pauseBeforePercent": 50}, "watchSeconds": 60});
    let app = serving(world, AppSpec { rollout, ..clean("steered") }).await?;
    let begin = app.load.snapshot();
    let stable = app.status().await?.stable.context("no stable revision")?.hash;
    let tested_before = app.pods_of(&stable).await?;
    app.ship(&app.spec.image("2"), Provenance::Human).await?;
    app.wait_weight(10, RUN).await?;
    asks(&app, "pause").await?;
    stays(&app, "Paused", 10).await?;
    // The first resume ends the pause; what `pauseBeforePercent` asks for is another decision.
    asks(&app, "resume").await?;
    stays(&app, "PausedBeforePercent", 10).await?;
    // The same value is acted on once; the CLI writes another one between the two.
    asks(&app, "again").await?;
    asks(&app, "resume").await?;
    app.wait_weight(50, RUN).await?;
    app.patch_rollout(json!({"spec": {"suspend": true}})).await?;
    stays(&app, "Suspended", 50).await?;
    app.patch_rollout(json!({"spec": {"suspend": false}})).await?;
    app.wait_phase(Phase::Watching, RUN).await?;
    let rolled = app.kubectl(&["rollout", "status", "deployment/shop", "--timeout=20s"]).await;
    rolled.context("the promoted Deployment is not complete")?;

    app.request("abort").await?;
    let record = ended(&app, 0, SOON).await?;
    outcome(&record, Outcome::Reverted, "AbortedByUser")?;
    let status = at_rest(&app, Phase::Rejected).await?;
    ensure!(status.stable.is_some_and(|s| s.hash == stable), "another revision is stable");
    let now = app.pods_of(&stable).await?;
    ensure!(now == tested_before, "pods of the old revision were restarted: {tested_before:?}, {now:?}");
    no_failures(&app, &begin, "while a person paused, resumed, suspended and reverted").map(drop)
}

async fn abort_by_request_mid_step_stays_rejected_until_retry(world: &World<'_>) -> Result<()> {
    let app = serving(world, clean("aborted")).await?;
    let begin = app.load.snapshot();
    let second = app.spec.image("2");
    let stable = app.status().await?.stable.context("no stable revision")?.hash;
    let pods = app.pods_of(&stable).await?;
    app.ship(&second, Provenance::Human).await?;
    app.wait_weight(10, RUN).await?;
    asks(&app, "abort").await?;
    // A later verb cannot take back an abort, and neither can git.
    app.request("resume").await?;
    outcome(&ended(&app, 0, RUN).await?, Outcome::Rejected, "AbortedByUser")?;
    at_rest(&app, Phase::Rejected).await?;
    let met = served(&app, &second);
    app.apply_manifest(&app.spec.image("1")).await?;
    app.wait_phase(Phase::Idle, SOON).await?;
    app.apply_manifest(&second).await?;
    let status = at_rest(&app, Phase::Rejected).await?;
    ensure!(status.run_count == 1 && served(&app, &second) == met, "the rejected revision ran again");

    app.request("retry").await?;
    app.wait_weight(10, RUN).await?;
    outcome(&ended(&app, 1, RUN).await?, Outcome::Promoted, "Proven")?;
    at_rest(&app, Phase::Idle).await?;
    ensure!(pods.len() == 4, "{} stable pods", pods.len());
    no_failures(&app, &begin, "while a run was aborted and tried again").map(drop)
}
