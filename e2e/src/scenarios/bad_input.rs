//! Input that cannot work: each is refused by the API server in words, or stalls with a reason, an event and a
//! sentence that says what to do. The application does not notice.

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::Event;
use kube::Api;
use kube::api::ListParams;
use serde_json::{Value, json};
use sluice_core::api::{ConditionStatus, ConditionType, Phase, ProgressiveRollout};

use super::Scenario;
use super::expect::{LOOK, SOON, answers, at_rest, clean, no_failures};
use super::installation::{installed_again, rolled};
use crate::cluster::until;
use crate::load::Snapshot;
use crate::world::{App, NAME, SLUICE, World};
use crate::{alone, shared};

/// Those of this file.
pub fn scenarios() -> Vec<Scenario> {
    vec![
        shared!(bad_input_stalls_with_a_sentence_and_touches_nothing),
        shared!(invalid_fields_are_refused_in_words),
        alone!(missing_permissions_stall_and_heal),
    ]
}

/// The application with a route that names its Service only, and no rollout yet.
async fn plain_app<'a>(world: &World<'a>, namespace: &str) -> Result<App<'a>> {
    let app = world.bare_app(clean(namespace)).await?;
    app.kubectl(&["delete", "progressiverollout", NAME]).await?;
    app.kubectl(&["delete", "service", "-l", "sluice.dev/rollout"]).await?;
    route(&app, NAME, &[(NAME, 1)]).await?;
    answers(namespace, &[&app.load]).await?;
    Ok(app)
}

/// A route of the application's host with these backends.
async fn route(app: &App<'_>, name: &str, backends: &[(&str, i32)]) -> Result<()> {
    let mut manifest = app.spec.route_manifest(100, 0);
    manifest["metadata"]["name"] = json!(name);
    if name != NAME {
        manifest["spec"]["hostnames"] = json!([format!("{name}.local")]);
    }
    let refs: Vec<Value> =
        backends.iter().map(|(name, weight)| json!({"name": name, "port": 80, "weight": weight})).collect();
    manifest["spec"]["rules"][0]["backendRefs"] = json!(refs);
    app.apply_object(&manifest).await
}

/// A rollout of any name and spec.
async fn rollout(app: &App<'_>, name: &str, workload: &str, routing: &Value) -> Result<()> {
    let mut manifest = app.spec.rollout_manifest();
    manifest["metadata"]["name"] = json!(name);
    manifest["spec"]["workloadRef"]["name"] = json!(workload);
    manifest["spec"]["routing"] = routing.clone();
    app.apply_object(&manifest).await
}

/// Waits until the rollout says this in its conditions and in an event.
async fn stalled(app: &App<'_>, name: &str, reason: &str, says: &[&str]) -> Result<()> {
    let rollouts: Api<ProgressiveRollout> = Api::namespaced(app.cluster.client.clone(), &app.spec.namespace);
    let events: Api<Event> = Api::namespaced(app.cluster.client.clone(), &app.spec.namespace);
    until(&format!("rollout {name} is Stalled: {reason}"), SOON, LOOK, || async {
        let rollout = rollouts.get(name).await?;
        let generation = rollout.metadata.generation.unwrap_or_default();
        let status = rollout.status.context("no status")?;
        let of = |kind| status.conditions.iter().find(|c| c.kind == kind);
        let condition = of(ConditionType::Stalled).context("no condition Stalled")?;
        let is = (condition.status, condition.reason.as_str(), condition.message.as_str());
        ensure!(condition.status == ConditionStatus::True && condition.reason == reason, "{is:?}");
        for text in says {
            ensure!(condition.message.contains(text), "{is:?} does not say {text:?}");
        }
        ensure!(condition.observed_generation == generation, "it is about an older generation");
        for kind in [ConditionType::Ready, ConditionType::Reconciling] {
            let other = of(kind).map(|c| c.status);
            ensure!(other == Some(ConditionStatus::False), "{} is {other:?}", kind.as_str());
        }
        let all = events.list(&ListParams::default()).await?.items;
        let told = all.iter().any(|event| {
            let about = event.involved_object.name.as_deref() == Some(name);
            let warns = event.type_.as_deref() == Some("Warning") && event.reason.as_deref() == Some(reason);
            let message = event.message.clone().unwrap_or_default();
            about && warns && says.iter().all(|text| message.contains(text))
        });
        ensure!(told, "no event {reason} says so");
        Ok(())
    })
    .await
}

/// The Deployment is as its owner made it, and no request failed.
async fn untouched(app: &App<'_>, begin: &Snapshot) -> Result<()> {
    let deployment = app.deployment().await?;
    let paused = deployment.spec.as_ref().and_then(|s| s.paused).unwrap_or(false);
    let generation = deployment.metadata.generation;
    ensure!(!paused && generation == Some(1), "paused {paused}, generation {generation:?}");
    let keys = deployment.metadata.labels.into_iter().flatten().map(|(key, _)| key);
    let keys = keys.chain(deployment.metadata.annotations.into_iter().flatten().map(|(key, _)| key));
    let ours: Vec<String> = keys.filter(|key| key.starts_with("sluice.dev/")).collect();
    ensure!(ours.is_empty(), "the Deployment has {ours:?}");
    for set in app.replica_sets().await? {
        let labels = set.metadata.labels.unwrap_or_default();
        ensure!(!labels.contains_key("sluice.dev/rollout"), "a ReplicaSet of ours exists");
    }
    no_failures(app, begin, "while its rollout could not work").map(drop)
}

async fn bad_input_stalls_with_a_sentence_and_touches_nothing(world: &World<'_>) -> Result<()> {
    let app = plain_app(world, "bad-input").await?;
    let begin = app.load.snapshot();
    let routed = |service: &str, route: &str| json!({"service": service, "routes": [{"name": route}]});

    rollout(&app, "unknown", "nobody", &routed(NAME, NAME)).await?;
    stalled(&app, "unknown", "WorkloadNotFound", &["Deployment nobody", "spec.workloadRef.name"]).await?;

    let mut recreate = app.spec.deployment_manifest(&app.spec.image("1"));
    recreate["metadata"]["name"] = json!("single");
    recreate["spec"]["strategy"] = json!({"type": "Recreate"});
    recreate["spec"]["replicas"] = json!(1);
    recreate["spec"]["selector"]["matchLabels"] = json!({"app": "single"});
    recreate["spec"]["template"]["metadata"]["labels"] = json!({"app": "single"});
    app.apply_object(&recreate).await?;
    rollout(&app, "recreate", "single", &routed(NAME, NAME)).await?;
    stalled(&app, "recreate", "UnsupportedStrategy", &["Recreate", "RollingUpdate"]).await?;

    rollout(&app, NAME, NAME, &routed("nothing", NAME)).await?;
    stalled(&app, NAME, "ServiceNotFound", &["Service nothing", "spec.routing.service"]).await?;
    let other = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "other", "namespace": app.spec.namespace},
        "spec": {"selector": {"app": "other"}, "ports": [{"port": 80, "targetPort": 8080}]},
    });
    app.apply_object(&other).await?;
    rollout(&app, NAME, NAME, &routed("other", NAME)).await?;
    stalled(&app, NAME, "ServiceSelectsOthers", &["Service other", "selector"]).await?;
    rollout(&app, NAME, NAME, &routed(NAME, "nowhere")).await?;
    stalled(&app, NAME, "RouteNotFound", &["HTTPRoute nowhere", "spec.routing.routes"]).await?;
    rollout(&app, NAME, NAME, &routed(NAME, NAME)).await?;
    stalled(&app, NAME, "RouteMissingBackends", &["shop-stable", "shop-canary"]).await?;
    route(&app, "half", &[("shop-stable", 100)]).await?;
    rollout(&app, NAME, NAME, &routed(NAME, "half")).await?;
    stalled(&app, NAME, "RouteMissingBackends", &["half", "shop-canary"]).await?;
    route(&app, "moved", &[("shop-stable", 60), ("shop-canary", 40)]).await?;
    rollout(&app, NAME, NAME, &routed(NAME, "moved")).await?;
    stalled(&app, NAME, "ForeignWeights", &["60", "40", "write 100 and 0"]).await?;
    let steps = json!([{"weightPercent": 50, "bakeSeconds": 1}, {"weightPercent": 20, "bakeSeconds": 1},
        {"weightPercent": 100, "bakeSeconds": 1}]);
    app.patch_rollout(json!({"spec": {"limits": {"steps": steps}}})).await?;
    stalled(&app, NAME, "InvalidSpec", &["spec.limits.steps"]).await?;
    app.patch_rollout(json!({"spec": {"limits": null}})).await?;

    rollout(&app, "second", NAME, &routed(NAME, NAME)).await?;
    stalled(&app, "second", "WorkloadClaimed", &["ProgressiveRollout shop", "delete one of the two"]).await?;
    untouched(&app, &begin).await?;

    app.kubectl(&["delete", "httproute", "half", "moved"]).await?;
    // Done as the sentences say: it is enrolled, and still nobody notices.
    route(&app, NAME, &[("shop-stable", 100), ("shop-canary", 0)]).await?;
    rollout(&app, NAME, NAME, &routed(NAME, NAME)).await?;
    app.kubectl(&["delete", "progressiverollout", "second"]).await?;
    at_rest(&app, Phase::Idle).await?;
    no_failures(&app, &begin, "until it was enrolled").map(drop)
}

async fn invalid_fields_are_refused_in_words(world: &World<'_>) -> Result<()> {
    let namespace = "invalid-fields";
    let cluster = world.cluster;
    cluster.make_namespace(namespace).await?;
    let spec = clean(namespace);
    let good = spec.rollout_manifest();
    let both = json!([{"name": "two", "errorRatio": {}, "alert": {"matchers": []}}]);
    let cases = [
        (
            "/spec/guards",
            both,
            "each guard has exactly one of errorRatio, latency, restarts, alert and metric",
        ),
        (
            "/spec/guards",
            json!([{"name": "none"}]),
            "each guard has exactly one of errorRatio, latency, restarts, alert and metric",
        ),
        (
            "/spec/limits",
            json!({"steps": [{"weightPercent": 50, "bakeSeconds": 60}]}),
            "the last step must have weightPercent 100",
        ),
        ("/spec/limits", json!({"steps": [{"weightPercent": 101, "bakeSeconds": 60}]}), "weightPercent"),
        ("/spec/workloadRef/kind", json!("StatefulSet"), "only Deployment is supported"),
        ("/spec/routing/routes", json!([]), "spec.routing.routes"),
        ("/spec/routing/wiring", json!("Swap"), "spec.routing.wiring"),
        ("/spec/watchSeconds", json!(-1), "spec.watchSeconds"),
        ("/spec/mode", json!("enforce"), "spec.mode"),
        ("/spec/change", json!({"provenance": "Robot"}), "spec.change.provenance"),
        ("/metadata/name", json!("n".repeat(64)), "metadata.name is longer than 63 characters"),
    ];
    for (field, value, says) in cases {
        let mut bad = good.clone();
        let (parent, key) = field.rsplit_once('/').context("field")?;
        bad.pointer_mut(parent).with_context(|| parent.to_owned())?[key] = value.clone();
        match cluster.apply(&bad.to_string()).await {
            Ok(()) => bail!("{field}: {value} was accepted"),
            Err(error) => {
                let text = format!("{error:#}");
                ensure!(text.contains(says), "{field}: {value}: the refusal does not say {says:?}: {text}");
            }
        }
    }
    cluster.apply(&good.to_string()).await?;
    let mut longest = good.clone();
    longest["metadata"]["name"] = json!("n".repeat(63));
    cluster.apply(&longest.to_string()).await.context("a name of 63 characters")?;
    let mut moved = good.clone();
    moved["spec"]["workloadRef"]["name"] = json!("another");
    let refused = cluster.apply(&moved.to_string()).await.err().map(|error| format!("{error:#}"));
    let says = "workloadRef is immutable: delete this ProgressiveRollout";
    ensure!(refused.as_ref().is_some_and(|text| text.contains(says)), "another workload: {refused:?}");
    cluster.kubectl_run(&["delete", "namespace", namespace, "--wait=false"]).await.map(drop)
}

async fn missing_permissions_stall_and_heal(world: &World<'_>) -> Result<()> {
    let result = without_routes(world).await;
    installed_again(world).await?;
    result?;
    // Helm has put the rule back: the same rollout goes on by itself.
    Ok(())
}

async fn without_routes(world: &World<'_>) -> Result<()> {
    let cluster = world.cluster;
    let text = cluster.kubectl_run(&["get", "clusterrole", "sluice", "-o", "json"]).await?;
    let role: Value = serde_json::from_str(&text)?;
    let mut less = role.clone();
    let rules = less["rules"].as_array_mut().context("rules")?;
    let all = rules.len();
    rules.retain(|rule| rule["resources"] != json!(["httproutes"]));
    ensure!(rules.len() < all, "the role names no httproutes: {text}");
    let patch = json!({"rules": less["rules"]}).to_string();
    cluster.kubectl_run(&["patch", "clusterrole", "sluice", "--type=merge", "-p", &patch]).await?;
    // As after an installation with too few rights: the processes start without them.
    cluster.kubectl_run(&["-n", SLUICE, "rollout", "restart", "deployment/sluice"]).await?;
    rolled(world).await?;

    let app = plain_app(world, "no-permission").await?;
    let begin = app.load.snapshot();
    let routing = json!({"service": NAME, "routes": [{"name": NAME}]});
    rollout(&app, NAME, NAME, &routing).await?;
    stalled(&app, NAME, "CannotRead", &["httproutes", "roles"]).await?;
    untouched(&app, &begin).await?;

    let patch = json!({"rules": role["rules"]}).to_string();
    cluster.kubectl_run(&["patch", "clusterrole", "sluice", "--type=merge", "-p", &patch]).await?;
    stalled(&app, NAME, "RouteMissingBackends", &["shop-stable"]).await?;
    route(&app, NAME, &[("shop-stable", 100), ("shop-canary", 0)]).await?;
    at_rest(&app, Phase::Idle).await?;
    no_failures(&app, &begin, "while permissions were missing").map(drop)
}
