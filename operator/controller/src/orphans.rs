//! Releases workloads that carry our label but belong to no rollout any more: their ProgressiveRollout went without
//! its finalizer, as when a namespace or the kind was removed by force. Nobody would ever lift their hold.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::ResourceExt;
use serde_json::json;
use sluice_core::api::{LABEL_HASH, LABEL_MANAGED, LABEL_ROLLOUT, ProgressiveRollout};
use sluice_core::decide::{Input, decide};
use sluice_core::verdict::Verdict;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::actuate;
use crate::context::Context;
use crate::observe;
use crate::store::Object;
use crate::watch::{Key, Watched};

/// How often orphans are looked for; one is released when it is seen twice in a row.
const INTERVAL: Duration = Duration::from_secs(30);

/// Looks for orphans until `stop`.
pub async fn watch(ctx: Arc<Context>, stop: CancellationToken) {
    let mut seen: BTreeSet<Key> = BTreeSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(INTERVAL) => {}
        }
        if !ctx.stores.ready(Watched::Rollout) || !ctx.leader.is_leader() {
            continue;
        }
        let now = orphans(&ctx);
        for key in now.intersection(&seen) {
            if let Err(error) = release(&ctx, key).await {
                warn!(namespace = %key.namespace, deployment = %key.name, %error, "an orphan was not released, it is tried again");
            }
        }
        seen = now;
    }
}

/// Deployments with our label that no rollout names.
fn orphans(ctx: &Context) -> BTreeSet<Key> {
    let rollouts = ctx.stores.rollouts();
    let named = |object: &Object| {
        rollouts.iter().any(|rollout| {
            rollout.namespace() == object.namespace()
                && rollout.value["spec"]["workloadRef"]["name"].as_str() == Some(&object.name_any())
        })
    };
    let labelled = ctx.stores.all(Watched::Deployment, |object| {
        object.labels().get(LABEL_MANAGED).is_some_and(|value| value == "true") && !named(object)
    });
    labelled.iter().map(|object| Key::of(object)).collect()
}

/// The rollout that a Deployment belonged to, and its apex Service, as what it left behind says. Never those of a
/// rollout that exists, in `alive`: its ReplicaSets and Services are in use, perhaps in the middle of a run. Without a
/// trace the rollout has no name, and so nothing that carries one is touched.
fn belonged_to(
    deployment: &Object,
    sets: &[Arc<Object>],
    services: &[Arc<Object>],
    alive: &BTreeSet<String>,
) -> (String, String) {
    let rollout_of =
        |object: &Object| object.labels().get(LABEL_ROLLOUT).filter(|name| !alive.contains(*name)).cloned();
    let uid = deployment.uid().unwrap_or_default();
    let owned = sets
        .iter()
        .filter(|set| set.owner_references().iter().any(|o| o.uid == uid))
        .find_map(|s| rollout_of(s));
    let labels = &deployment.value["spec"]["template"]["metadata"]["labels"];
    let selects = |service: &Object| {
        let selector = service.value["spec"]["selector"].as_object();
        selector.is_some_and(|selector| {
            selector.iter().all(|(key, value)| key == LABEL_HASH || labels.get(key) == Some(value))
        })
    };
    let pair = services.iter().find_map(|service| {
        let apex = service.name_any().strip_suffix("-stable")?.to_owned();
        let rollout = rollout_of(service).filter(|name| owned.as_ref().is_none_or(|owned| owned == name))?;
        selects(service).then_some((rollout, apex))
    });
    match (owned, pair) {
        (_, Some(pair)) => pair,
        (owned, None) => (owned.unwrap_or_default(), deployment.name_any()),
    }
}

/// Lets go of one, as if its rollout were being deleted now: history visible, Services un-pinned, label and mark off.
async fn release(ctx: &Context, key: &Key) -> Result<(), crate::error::CallError> {
    let near = |object: &Object| object.namespace().as_deref() == Some(key.namespace.as_str());
    let labelled = |object: &Object| near(object) && object.labels().contains_key(LABEL_ROLLOUT);
    let deployments =
        ctx.stores.all(Watched::Deployment, |object| near(object) && object.name_any() == key.name);
    let Some(deployment) = deployments.first() else {
        return Ok(());
    };
    let rollouts = ctx.stores.rollouts();
    let alive = rollouts.iter().filter(|rollout| near(rollout)).map(|rollout| rollout.name_any()).collect();
    let sets = ctx.stores.all(Watched::ReplicaSet, labelled);
    let services = ctx.stores.all(Watched::Service, labelled);
    let (name, apex) = belonged_to(deployment, &sets, &services, &alive);
    let stand_in = json!({
        "apiVersion": "sluice.dev/v1alpha1", "kind": "ProgressiveRollout",
        "metadata": {"name": name, "namespace": key.namespace, "deletionTimestamp": Timestamp::now().to_string()},
        "spec": {"workloadRef": {"name": key.name}, "routing": {"service": apex, "routes": []}},
    });
    let Ok(rollout) = serde_json::from_value::<ProgressiveRollout>(stand_in) else {
        return Ok(());
    };
    let rollout_key = Key { namespace: key.namespace.clone(), name };
    let seen = observe::of(ctx, &rollout_key, &rollout).await;
    let exists = seen.workload().is_some_and(|workload| workload.managed);
    if !exists {
        return Ok(());
    }
    let policy = ctx.policy(&key.namespace);
    let decision = decide(Input {
        rollout: &rollout,
        seen: &seen,
        verdict: &Verdict::default(),
        config: &ctx.config,
        policy: &policy,
        turn: None,
        releasing: false,
        now: Timestamp::now(),
    });
    info!(namespace = %key.namespace, deployment = %key.name, "no ProgressiveRollout names this Deployment any more: it is released");
    actuate::execute(ctx, &rollout_key, &decision.actions).await.map(drop)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn object(value: Value) -> Arc<Object> {
        Arc::new(Object::new(value).unwrap())
    }

    fn deployment(name: &str) -> Arc<Object> {
        object(json!({"metadata": {"name": name, "uid": format!("uid-{name}")},
                "spec": {"template": {"metadata": {"labels": {"app": name}}}}}))
    }

    fn set(rollout: &str, deployment: &str) -> Arc<Object> {
        object(json!({"metadata": {"name": format!("{deployment}-1"), "labels": {LABEL_ROLLOUT: rollout},
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "Deployment", "name": deployment,
                    "uid": format!("uid-{deployment}")}]}}))
    }

    fn stable(rollout: &str, apex: &str, app: &str) -> Arc<Object> {
        object(json!({"metadata": {"name": format!("{apex}-stable"), "labels": {LABEL_ROLLOUT: rollout}},
                "spec": {"selector": {"app": app, LABEL_HASH: "x"}}}))
    }

    fn named(name: &str, apex: &str) -> (String, String) {
        (name.to_owned(), apex.to_owned())
    }

    #[test]
    fn a_copied_deployment_takes_nothing_from_the_rollout_of_its_neighbour() {
        // A manifest of `web` with its label, applied as `copy`: `web` is in the middle of a run.
        let alive = BTreeSet::from(["web".to_owned()]);
        let (sets, services) = ([set("web", "web")], [stable("web", "web", "web")]);
        for name in ["copy", "web-2"] {
            assert_eq!(belonged_to(&deployment(name), &sets, &services, &alive), named("", name));
        }
        // Nor does one that shares the labels, or has the name of a rollout of another workload.
        let services = [stable("web", "front", "copy")];
        assert_eq!(belonged_to(&deployment("copy"), &sets, &services, &alive), named("", "copy"));
        assert_eq!(belonged_to(&deployment("web"), &[], &[], &alive), named("", "web"));
    }

    #[test]
    fn what_it_left_behind_tells_the_rollout_that_is_gone() {
        let alive = BTreeSet::from(["web".to_owned()]);
        let services = [stable("web", "web", "web"), stable("gone", "front", "shop")];
        let sets = [set("web", "web"), set("gone", "shop")];
        assert_eq!(belonged_to(&deployment("shop"), &sets, &services, &alive), named("gone", "front"));
        assert_eq!(belonged_to(&deployment("shop"), &[], &services, &alive), named("gone", "front"));
        assert_eq!(belonged_to(&deployment("shop"), &sets, &[], &alive), named("gone", "shop"));
    }
}
