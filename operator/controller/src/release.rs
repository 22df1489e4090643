//! `release`: the uninstall hook. Every rollout lets go, with or without a controller running.
//!
//! The controller's Deployment is scaled to zero, its Lease is taken, and the same passes run with `releasing`
//! set, until no rollout holds anything. It exits 0 only when that is so.

use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::Deployment;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use sluice_core::api::{FINALIZER, Phase};
use tracing::{info, warn};

use crate::client::{FORWARD_LIMIT, bounded};
use crate::context::Context;
use crate::error::CallError;
use crate::watch::{Key, Watched};

/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(500);

/// Why the release did not finish.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// Rollouts still hold something.
    #[error(
        "{left} rollouts still hold something after {seconds} s, the first is {first}: {why}. Run the uninstall again, or use break-glass"
    )]
    TimedOut {
        /// How many.
        left: usize,
        /// After how long.
        seconds: u64,
        /// Namespace and name of the first.
        first: String,
        /// What it waits for.
        why: String,
    },
    /// The controller could not be stopped.
    #[error(transparent)]
    Call(#[from] CallError),
}

/// Scales the controller's own Deployment to zero; one that does not exist is fine.
pub async fn stop_controller(ctx: &Context, deployment: &str) -> Result<(), CallError> {
    let api: Api<Deployment> = Api::namespaced(ctx.clients.normal.clone(), &ctx.clients.namespace);
    let patch = Patch::Merge(json!({"spec": {"replicas": 0}}));
    let scaled = bounded(
        format!("scale Deployment {deployment} to 0"),
        FORWARD_LIMIT,
        api.patch_scale(deployment, &PatchParams::default(), &patch),
    )
    .await;
    match scaled {
        Ok(_) => Ok(()),
        Err(error) if error.is_not_found() => Ok(()),
        Err(error) => Err(error),
    }
}

/// Waits until no rollout holds anything.
pub async fn wait(ctx: &Arc<Context>, timeout: Duration) -> Result<usize, ReleaseError> {
    let started = Instant::now();
    loop {
        tokio::time::sleep(LOOK).await;
        if !ctx.stores.ready(Watched::Rollout) {
            // Without the kind there is nothing to release.
            if started.elapsed() > timeout / 4 {
                warn!("ProgressiveRollouts can't be listed; nothing to release is assumed");
                return Ok(0);
            }
            continue;
        }
        let rollouts = ctx.stores.rollouts();
        let left: Vec<(Key, String)> = rollouts
            .iter()
            .filter_map(|object| {
                let key = Key::of(object);
                let finalizers = object.metadata.finalizers.clone().unwrap_or_default();
                let held = finalizers.iter().any(|name| name == FINALIZER);
                let status = ctx.newest(&key)?.ok()?.status.clone().unwrap_or_default();
                let why = status.waiting.map_or_else(|| "not looked at yet".to_owned(), |w| w.message);
                let done = !held && status.run.is_none() && status.phase == Phase::Released;
                (!done).then_some((key, why))
            })
            .collect();
        if left.is_empty() {
            info!(rollouts = rollouts.len(), "every rollout has let go");
            return Ok(rollouts.len());
        }
        if started.elapsed() > timeout {
            let (key, why) = left[0].clone();
            return Err(ReleaseError::TimedOut {
                left: left.len(),
                seconds: timeout.as_secs(),
                first: format!("{}/{}", key.namespace, key.name),
                why,
            });
        }
    }
}
