//! Releases workloads that carry our label but belong to no rollout any more: their ProgressiveRollout went without
//! its finalizer, as when a namespace or the kind was removed by force. Nobody would ever lift their hold.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::ResourceExt;
use kube::api::DynamicObject;
use serde_json::json;
use sluice_core::api::{LABEL_MANAGED, LABEL_ROLLOUT, ProgressiveRollout};
use sluice_core::decide::{Input, decide};
use sluice_core::verdict::Verdict;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::actuate;
use crate::context::Context;
use crate::observe;
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
    let named = |object: &DynamicObject| {
        rollouts.iter().any(|rollout| {
            rollout.namespace() == object.namespace()
                && rollout.data["spec"]["workloadRef"]["name"].as_str() == Some(&object.name_any())
        })
    };
    let labelled = ctx.stores.all(Watched::Deployment, |object| {
        object.labels().get(LABEL_MANAGED).is_some_and(|value| value == "true") && !named(object)
    });
    labelled.iter().map(|object| Key::of(object)).collect()
}

/// Lets go of one, as if its rollout were being deleted now: history visible, Services un-pinned, label and mark off.
async fn release(ctx: &Context, key: &Key) -> Result<(), crate::error::CallError> {
    let services = ctx.stores.all(Watched::Service, |object| {
        object.namespace().as_deref() == Some(key.namespace.as_str())
            && object.labels().contains_key(LABEL_ROLLOUT)
            && object.name_any().ends_with("-stable")
    });
    let pair = services.first();
    let name = pair.and_then(|s| s.labels().get(LABEL_ROLLOUT).cloned()).unwrap_or_else(|| key.name.clone());
    let apex = pair.map_or_else(|| key.name.clone(), |s| s.name_any().trim_end_matches("-stable").to_owned());
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
    let decision = decide(Input {
        rollout: &rollout,
        seen: &seen,
        verdict: &Verdict::default(),
        config: &ctx.config,
        releasing: false,
        now: Timestamp::now(),
    });
    info!(namespace = %key.namespace, deployment = %key.name, "no ProgressiveRollout names this Deployment any more: it is released");
    actuate::execute(ctx, &rollout_key, &decision.actions).await.map(drop)
}
