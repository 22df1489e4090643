//! What scenarios expect of every end: no request failed, nothing of a run is left behind, and status says so in the
//! form that kubectl, Helm and GitOps tools understand.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{Event, Service};
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use sluice_core::api::{
    ConditionStatus, ConditionType, LABEL_HASH, Outcome, Phase, ProgressiveRollout, ProgressiveRolloutStatus,
    RunRecord,
};
use sluice_core::render::NOTHING;

use crate::cluster::until;
use crate::load::{Load, Snapshot};
use crate::world::{App, AppSpec, NAME, World};

/// How long a run may take on a busy machine.
pub const RUN: Duration = Duration::from_secs(150);
/// How long a single change may take.
pub const SOON: Duration = Duration::from_secs(40);
/// How often objects are looked at.
pub const LOOK: Duration = Duration::from_millis(200);

/// An application none of whose requests fails by itself, so that every failure has a cause. Its clients send what two
/// processors can answer for several such at once.
pub fn clean(namespace: &str) -> AppSpec {
    AppSpec { baseline_permille: 0, rps: 60, ..AppSpec::new(namespace) }
}

/// The same, whose pods answer for ten more seconds once they are told to go, as every application with a `preStop` hook does:
/// while many scenarios share two processors, the router may take half of that to follow.
pub fn draining(namespace: &str) -> AppSpec {
    let spec = clean(namespace);
    let deployment = json!({
        "template": {"spec": {"containers": [{
            "name": NAME, "image": spec.image("1"), "ports": [{"containerPort": 8080}],
            "lifecycle": {"preStop": {"sleep": {"seconds": 10}}},
        }]}},
    });
    AppSpec { deployment, ..spec }
}

/// An application that the router has known for a while: from here on every failure is somebody's.
pub async fn serving<'a>(world: &World<'a>, spec: AppSpec) -> Result<App<'a>> {
    let app = world.app(spec).await?;
    answers(&app.spec.namespace, &[&app.load]).await?;
    Ok(app)
}

/// Waits until all these loads got nothing but 200 for longer than the router takes to follow a change.
pub async fn answers(namespace: &str, loads: &[&Load]) -> Result<()> {
    until(&format!("{namespace}: every request is answered"), SOON, LOOK, || async {
        let before: Vec<Snapshot> = loads.iter().map(|load| load.snapshot()).collect();
        tokio::time::sleep(Duration::from_millis(2500)).await;
        for (load, before) in loads.iter().zip(&before) {
            let counts = load.snapshot().since(before);
            let good = counts.by_status.get(&200).copied().unwrap_or(0);
            ensure!(counts.requests > 0 && good == counts.requests, "{}", failures(&counts));
        }
        Ok(())
    })
    .await
}

/// No request failed since then.
pub fn no_failures(app: &App<'_>, since: &Snapshot, when: &str) -> Result<Snapshot> {
    let counts = app.load.snapshot().since(since);
    ensure!(counts.requests > 0, "{}: no requests {when}", app.spec.namespace);
    let bad = counts.requests - counts.by_status.get(&200).copied().unwrap_or(0);
    ensure!(
        bad == 0,
        "{}: {when}, {bad} of {} requests had no 200: {}",
        app.spec.namespace,
        counts.requests,
        failures(&counts)
    );
    Ok(counts)
}

/// What failed, and how many seconds before now.
pub fn failures(counts: &Snapshot) -> String {
    let last = counts.seconds.len();
    let failed = counts.seconds.iter().enumerate().filter(|(_, second)| second.failed > 0);
    let when: Vec<String> =
        failed.map(|(i, second)| format!("{} at -{} s", second.failed, last - i)).collect();
    format!("{} ({})", counts.failures(), when.join(", "))
}

/// Requests that an image has answered so far.
pub fn served(app: &App<'_>, image: &str) -> u64 {
    app.load.snapshot().by_image.get(image).copied().unwrap_or(0)
}

/// Waits until the run after `runs` ended ones has ended too; the next one may have begun already.
pub async fn ended(app: &App<'_>, runs: usize, limit: Duration) -> Result<RunRecord> {
    let status =
        app.wait(&format!("{} ended runs", runs + 1), limit, |status| status.history.len() > runs).await?;
    status.history.iter().rev().nth(runs).cloned().context("no run is recorded")
}

/// The outcome and reason that a run was expected to have.
pub fn outcome(record: &RunRecord, outcome: Outcome, reason: &str) -> Result<()> {
    ensure!(
        record.outcome == outcome && record.reason == reason,
        "run {} ended {} ({}: {}), not {} ({reason})",
        record.id,
        record.outcome.as_str(),
        record.reason,
        record.message,
        outcome.as_str()
    );
    Ok(())
}

/// Reason and message of all events on the rollout.
pub async fn events(app: &App<'_>) -> Result<Vec<(String, String)>> {
    let api: Api<Event> = Api::namespaced(app.cluster.client.clone(), &app.spec.namespace);
    let events = api.list(&ListParams::default()).await?.items.into_iter();
    let ours = events.filter(|e| e.involved_object.kind.as_deref() == Some("ProgressiveRollout"));
    Ok(ours.map(|e| (e.reason.unwrap_or_default(), e.message.unwrap_or_default())).collect())
}

/// Waits for an event with this reason whose message contains the text.
pub async fn event(app: &App<'_>, reason: &str, text: &str) -> Result<()> {
    until(&format!("{}: an event {reason} says {text:?}", app.spec.namespace), SOON, LOOK, || async {
        let all = events(app).await?;
        ensure!(all.iter().any(|(r, m)| r == reason && m.contains(text)), "{all:#?}");
        Ok(())
    })
    .await
}

/// Scales the workload as an autoscaler does: by its subresource.
pub async fn scale(app: &App<'_>, replicas: i32) -> Result<()> {
    let api: Api<Deployment> = Api::namespaced(app.cluster.client.clone(), &app.spec.namespace);
    let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
    api.patch_scale(NAME, &PatchParams::default(), &patch).await?;
    Ok(())
}

/// Wanted and available pods of a ReplicaSet; nothing when there is none.
pub async fn pods_in(app: &App<'_>, replica_set: &str) -> Result<(i32, i32)> {
    let sets = app.replica_sets().await?;
    let found = sets.into_iter().find(|set| set.metadata.name.as_deref() == Some(replica_set));
    Ok(found.map_or((0, 0), |set| {
        let available = set.status.and_then(|s| s.available_replicas).unwrap_or(0);
        (set.spec.and_then(|s| s.replicas).unwrap_or(0), available)
    }))
}

/// Waits until a ReplicaSet has exactly this many pods, all available.
pub async fn sized(app: &App<'_>, replica_set: &str, replicas: i32) -> Result<()> {
    let what = format!("{}: {replica_set} has {replicas} pods", app.spec.namespace);
    until(&what, SOON, LOOK, || async {
        let is = pods_in(app, replica_set).await?;
        ensure!(is == (replicas, replicas), "it wants {} and has {}", is.0, is.1);
        Ok(())
    })
    .await
}

/// Keeps the tested pods in mind: waits for promotion to begin and returns revision hash and pods.
pub async fn tested(app: &App<'_>) -> Result<(String, BTreeSet<String>)> {
    let status = app.wait_phase(Phase::Promoting, RUN).await?;
    let hash = status.run.context("no run while it promotes")?.canary.hash;
    let pods = app.pods_of(&hash).await?;
    Ok((hash, pods))
}

/// Every one of these pods is still there.
pub async fn kept(app: &App<'_>, hash: &str, pods: &BTreeSet<String>) -> Result<()> {
    let now = app.pods_of(hash).await?;
    let lost = pods.difference(&now).count();
    ensure!(
        !pods.is_empty() && lost == 0,
        "{}: {lost} of {} pods were not kept",
        app.spec.namespace,
        pods.len()
    );
    Ok(())
}

/// All HTTPRoutes of the namespace.
pub async fn routes(app: &App<'_>) -> Result<Vec<Value>> {
    let text = app.kubectl(&["get", "httproutes", "-o", "json"]).await?;
    let mut list: Value = serde_json::from_str(&text)?;
    Ok(list["items"].as_array_mut().map(std::mem::take).unwrap_or_default())
}

/// Weights of the pair in every rule of every route, stable first.
pub fn pairs(routes: &[Value]) -> Vec<(i64, i64)> {
    let rules = routes.iter().flat_map(|route| route["spec"]["rules"].as_array().into_iter().flatten());
    rules
        .filter_map(|rule| {
            let refs = rule["backendRefs"].as_array()?;
            let weight = |suffix: &str| {
                let name = format!("{NAME}-{suffix}");
                refs.iter().find(|r| r["name"] == name.as_str()).map(|r| r["weight"].as_i64().unwrap_or(1))
            };
            Some((weight("stable")?, weight("canary")?))
        })
        .collect()
}

/// Waits until no run is under way in this phase and nothing of one is left.
pub async fn at_rest(app: &App<'_>, phase: Phase) -> Result<ProgressiveRolloutStatus> {
    let what = format!("at rest as {}", phase.as_str());
    app.wait(&what, RUN, |status| status.phase == phase && status.run.is_none()).await?;
    until(&format!("{}: nothing of a run is left", app.spec.namespace), SOON, LOOK, || async {
        let rollout = app.rollout().await?;
        let status = rollout.status.clone().context("no status")?;
        ensure!(status.phase == phase && status.run.is_none(), "phase {}", status.phase.as_str());
        clean_conditions(&rollout, &status)?;
        routed_home(app).await?;
        unpinned(app).await?;
        let stable = status.stable.context("no stable revision")?;
        let labels =
            |set: &ReplicaSet| set.spec.as_ref()?.template.as_ref()?.metadata.as_ref()?.labels.clone();
        let ours =
            |set: &ReplicaSet| labels(set).is_some_and(|l| l.get("app").is_some_and(|app| app == NAME));
        for set in app.replica_sets().await?.into_iter().filter(ours) {
            let name = set.metadata.name.clone().unwrap_or_default();
            let pods = set.status.as_ref().map_or(0, |s| s.replicas);
            let wanted = set.spec.as_ref().and_then(|s| s.replicas).unwrap_or(0);
            ensure!(name == stable.replica_set || (pods == 0 && wanted == 0), "{name} has {pods} pods");
        }
        let deployment = app.deployment().await?;
        let wanted = deployment.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1);
        let (_, available) = pods_in(app, &stable.replica_set).await?;
        ensure!(available == wanted, "stable has {available} of {wanted} pods");
        let paused = deployment.spec.as_ref().and_then(|s| s.paused).unwrap_or(false);
        ensure!(paused == (phase != Phase::Idle), "the Deployment has paused: {paused}");
        Ok(())
    })
    .await?;
    app.status().await
}

async fn routed_home(app: &App<'_>) -> Result<()> {
    let routes = routes(app).await?;
    let pairs = pairs(&routes);
    ensure!(!pairs.is_empty() && pairs.iter().all(|pair| *pair == (100, 0)), "weights {pairs:?}");
    let marked = routes.iter().any(|r| !r["metadata"]["annotations"]["sluice.dev/traffic"].is_null());
    ensure!(!marked, "a route still has the annotation of a run");
    Ok(())
}

async fn unpinned(app: &App<'_>) -> Result<()> {
    let api: Api<Service> = Api::namespaced(app.cluster.client.clone(), &app.spec.namespace);
    let selector = |name: String| {
        let api = api.clone();
        async move { anyhow::Ok(api.get(&name).await?.spec.and_then(|s| s.selector).unwrap_or_default()) }
    };
    let apex = selector(NAME.to_owned()).await?;
    let stable = selector(format!("{NAME}-stable")).await?;
    ensure!(stable == apex, "the stable Service selects {stable:?}");
    let canary = selector(format!("{NAME}-canary")).await?;
    ensure!(
        canary.get(LABEL_HASH).map(String::as_str) == Some(NOTHING),
        "the canary Service selects {canary:?}"
    );
    Ok(())
}

/// kstatus: Ready, Reconciling and Stalled never contradict each other, and all are of this generation.
fn clean_conditions(rollout: &ProgressiveRollout, status: &ProgressiveRolloutStatus) -> Result<()> {
    use ConditionStatus::{False, True};
    let is = |kind| status.conditions.iter().find(|c| c.kind == kind).map(|c| c.status);
    let all = [ConditionType::Ready, ConditionType::Reconciling, ConditionType::Stalled].map(is);
    let wanted = match status.phase {
        Phase::Idle => [Some(True), Some(False), Some(False)],
        _ => [Some(False), Some(False), Some(True)],
    };
    ensure!(all == wanted, "Ready, Reconciling, Stalled are {all:?}, not {wanted:?}");
    let generation = rollout.metadata.generation.unwrap_or_default();
    let current = status.observed_generation == generation
        && status.conditions.iter().all(|c| c.observed_generation == generation);
    ensure!(current, "generation {generation}, status of {}", status.observed_generation);
    Ok(())
}

/// Deletes the namespace of an application that has done its part, and does not wait.
pub async fn forget(app: &App<'_>) -> Result<()> {
    app.cluster.kubectl_run(&["delete", "namespace", &app.spec.namespace, "--wait=false"]).await.map(drop)
}

/// The names of what is left in the namespace, by kubectl.
pub async fn names(app: &App<'_>, kind: &str) -> Result<Vec<String>> {
    let text = app.kubectl(&["get", kind, "-o", "name"]).await?;
    Ok(text.lines().map(String::from).collect())
}

/// The rollout's Services select what the apex Service does, or nothing; the routes are home.
pub async fn traffic_is_home(app: &App<'_>) -> Result<()> {
    let weights = app.weights().await?;
    ensure!(weights == (100, 0), "weights {weights:?}");
    let text = app.kubectl(&["get", "service,httproute", "-o", "json"]).await?;
    let list: Value = serde_json::from_str(&text)?;
    for object in list["items"].as_array().into_iter().flatten() {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let pin = object["spec"]["selector"]["pod-template-hash"].as_str();
        let wanted = if name.ends_with("-canary") { Some("none") } else { None };
        ensure!(object["kind"] != "Service" || pin == wanted, "Service {name} selects hash {pin:?}");
        ensure!(
            object["metadata"]["annotations"]["sluice.dev/traffic"].is_null(),
            "{name} has a mark of a run"
        );
    }
    Ok(())
}

/// The Deployment and its ReplicaSets are ordinary objects: nothing of ours is on them, and history is visible.
pub async fn ordinary(app: &App<'_>, paused: bool, image: &str) -> Result<()> {
    until(&format!("{}: ordinary objects", app.spec.namespace), SOON, LOOK, || async {
        let deployment = app.deployment().await?;
        let metadata = deployment.metadata;
        let keys = metadata.labels.into_iter().flatten().chain(metadata.annotations.into_iter().flatten());
        let ours: Vec<String> =
            keys.map(|(key, _)| key).filter(|key| key.starts_with("sluice.dev/")).collect();
        ensure!(ours.iter().all(|key| key == "sluice.dev/break-glass"), "the Deployment has {ours:?}");
        let spec = deployment.spec.context("spec")?;
        let is = spec.paused.unwrap_or(false);
        ensure!(is == paused, "paused is {is}");
        let images: Vec<_> =
            spec.template.spec.into_iter().flat_map(|s| s.containers).map(|c| c.image).collect();
        ensure!(images == [Some(image.to_owned())], "git's template became {images:?}");
        for set in app.replica_sets().await? {
            let name = set.metadata.name.clone().unwrap_or_default();
            let labels = set.metadata.labels.unwrap_or_default();
            let ours = labels.keys().any(|key| key.starts_with("sluice.dev/"));
            ensure!(!ours && labels.get("app").is_some_and(|app| app == NAME), "{name} has {labels:?}");
            let owners = set.metadata.owner_references.unwrap_or_default();
            let owned =
                owners.iter().any(|o| o.controller == Some(true) && Some(&o.uid) == metadata.uid.as_ref());
            ensure!(owned, "{name} is not the Deployment's own: {owners:?}");
        }
        traffic_is_home(app).await
    })
    .await
}
