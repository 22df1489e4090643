//! What a flow left behind, in a form that two plays of it share.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Service;
use kube::Api;
use serde_json::{Value, json};

use crate::scenarios::expect::{LOOK, SOON, routes};
use crate::world::App;

/// Objects that stay the same for this long are at their end.
const STILL: Duration = Duration::from_secs(3);

/// What a flow left behind once its last steps are taken, which no phase tells: marks and history come after it. That is
/// the wanted end, as soon as it is there; without one, what stays the same for a while.
pub async fn at_its_end(app: &App<'_>, wanted: Option<&Value>) -> Result<Value> {
    let (begin, mut since) = (Instant::now(), Instant::now());
    let mut now = left_behind(app).await?;
    loop {
        let over = match wanted {
            Some(wanted) => now == *wanted,
            None => since.elapsed() >= STILL,
        };
        if over || begin.elapsed() >= SOON {
            return Ok(now);
        }
        tokio::time::sleep(LOOK).await;
        let next = left_behind(app).await?;
        if next != now {
            (now, since) = (next, Instant::now());
        }
    }
}

/// The objects of an application as users find them, without names, times and counts of one play.
async fn left_behind(app: &App<'_>) -> Result<Value> {
    let rollout = app.rollout().await?;
    let status = rollout.status.unwrap_or_default();
    let deployment = app.deployment().await?;
    let spec = deployment.spec.context("spec")?;
    let annotations = deployment.metadata.annotations.unwrap_or_default();
    let services: Api<Service> = Api::namespaced(app.cluster.client.clone(), &app.spec.namespace);
    let mut selectors = Vec::new();
    for service in services.list(&Default::default()).await?.items {
        selectors.push(json!([service.metadata.name, service.spec.and_then(|s| s.selector)]));
    }
    let mut sets = Vec::new();
    for set in app.replica_sets().await? {
        let metadata = set.metadata;
        let owners: Vec<Value> = metadata
            .owner_references
            .iter()
            .flatten()
            .map(|owner| json!([owner.kind, owner.name, owner.controller.unwrap_or(false)]))
            .collect();
        let status = set.status.unwrap_or_default();
        sets.push(json!({
            "name": metadata.name, "labels": metadata.labels, "owners": owners,
            "replicas": set.spec.and_then(|s| s.replicas), "pods": status.replicas,
            "available": status.available_replicas.unwrap_or(0),
        }));
    }
    let routes: Vec<Value> = routes(app)
        .await?
        .into_iter()
        .map(|route| json!([route["spec"]["rules"], route["metadata"]["annotations"]["sluice.dev/traffic"]]))
        .collect();
    Ok(json!({
        "phase": status.phase,
        "run": status.run.is_some(),
        "stable": status.stable.map(|revision| revision.images),
        "held": status.held.map(|held| held.ended.map(|ended| json!([ended.outcome, ended.reason]))),
        "good": status.good.iter().map(|revision| &revision.images).collect::<Vec<_>>(),
        "quarantine": status.quarantine.iter().map(|entry| &entry.digest).collect::<Vec<_>>(),
        "history": status.history.iter().map(|r| json!([r.id, r.outcome, r.images])).collect::<Vec<_>>(),
        "conditions": status.conditions.iter().map(|c| json!([c.kind, c.status, c.reason])).collect::<Vec<_>>(),
        "finalizers": rollout.metadata.finalizers,
        "deployment": {
            "paused": spec.paused.unwrap_or(false),
            "held": annotations.get("sluice.dev/held"),
            "labels": deployment.metadata.labels,
            "images": spec.template.spec.map(|s| s.containers.into_iter().map(|c| c.image).collect::<Vec<_>>()),
            "replicas": spec.replicas,
        },
        "selectors": selectors,
        "sets": sets,
        "routes": routes,
    }))
}
