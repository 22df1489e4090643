//! `release`: the uninstall hook. Every rollout lets go, with or without a controller running.
//!
//! The controller's Deployment is scaled to zero, its Lease is taken, and the same passes run with `releasing`
//! set, until no rollout holds anything. It exits 0 only when that is so.

use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use sluice_core::api::{FINALIZER, Phase, ProgressiveRollout};
use tracing::{info, warn};

use crate::client::{FORWARD_LIMIT, bounded};
use crate::context::Context;
use crate::error::CallError;
use crate::store::Object;
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
    /// What can't be read may hold something.
    #[error(
        "ProgressiveRollouts can't be listed after {seconds} s: {why}. They may still hold something. Give the controller's account that permission, or take a namespace that is gone out of watchNamespaces, and run the uninstall again"
    )]
    Unseen {
        /// After how long.
        seconds: u64,
        /// The server's words.
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
            match unlisted(&ctx.clients.normal, &ctx.config.watch_namespaces).await {
                None if started.elapsed() > timeout / 4 => {
                    warn!("the cluster does not know ProgressiveRollouts: there is nothing to release");
                    return Ok(0);
                }
                Some(why) if started.elapsed() > timeout => {
                    return Err(ReleaseError::Unseen { seconds: timeout.as_secs(), why });
                }
                _ => continue,
            }
        }
        let rollouts = ctx.stores.rollouts();
        let left: Vec<(Key, String)> = rollouts
            .iter()
            .filter_map(|object| {
                let key = Key::of(object);
                let why = holds(&ctx.newest(&key)?)?;
                Some((key, why))
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

/// Why ProgressiveRollouts can't be listed; `None` when the cluster does not know the kind.
async fn unlisted(client: &Client, namespaces: &[String]) -> Option<String> {
    let resource = Watched::Rollout.resource();
    let apis: Vec<(String, Api<Object>)> = match namespaces {
        [] => vec![("in all namespaces".to_owned(), Api::all_with(client.clone(), &resource))],
        some => some
            .iter()
            .map(|name| (format!("in {name}"), Api::namespaced_with(client.clone(), name, &resource)))
            .collect(),
    };
    let params = ListParams::default().limit(1);
    let mut known = None;
    for (place, api) in apis {
        match bounded(format!("list ProgressiveRollouts {place}"), FORWARD_LIMIT, api.list(&params)).await {
            Ok(_) => known = Some("not listed yet".to_owned()),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Some(error.to_string()),
        }
    }
    known
}

/// What a rollout still waits for; `None` when it has let go of everything.
fn holds(newest: &Result<Arc<ProgressiveRollout>, String>) -> Option<String> {
    let rollout = match newest {
        Ok(rollout) => rollout,
        Err(error) => return Some(format!("it can't be read by this version of the controller: {error}")),
    };
    let status = rollout.status.clone().unwrap_or_default();
    let held = rollout.finalizers().iter().any(|name| name == FINALIZER);
    let done = !held && status.run.is_none() && status.phase == Phase::Released;
    (!done).then(|| status.waiting.map_or_else(|| "not looked at yet".to_owned(), |w| w.message))
}

#[cfg(test)]
mod tests {
    use axum::http::{StatusCode, Uri};

    use super::*;
    use crate::testing::api_server;

    /// An API server that answers a path with the code of the first part that it contains, else with an empty list.
    async fn server(codes: &'static [(&'static str, u16)]) -> Client {
        let app = axum::Router::new().fallback(move |uri: Uri| async move {
            let code = codes.iter().find(|(part, _)| uri.path().contains(part)).map_or(200, |(_, code)| *code);
            let body = if code == 200 {
                json!({"kind": "ProgressiveRolloutList", "apiVersion": "sluice.dev/v1alpha1", "metadata": {}, "items": []})
            } else {
                json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "no", "code": code})
            };
            (StatusCode::from_u16(code).expect("a code"), body.to_string())
        });
        api_server(app).await.normal
    }

    #[tokio::test]
    async fn what_may_not_be_listed_is_not_taken_for_nothing() {
        let both = ["shop".to_owned(), "gone".to_owned()];
        let refused = server(&[("/namespaces/gone/", 403)]).await;
        let why = unlisted(&refused, &both).await.expect("403 hides what is there");
        assert_eq!(why, "list ProgressiveRollouts in gone: no");
        for code in [401, 429, 500, 503] {
            let codes: &'static [(&str, u16)] = vec![("sluice.dev", code)].leak();
            assert!(unlisted(&server(codes).await, &[]).await.is_some(), "{code}");
        }
        assert_eq!(unlisted(&server(&[]).await, &both).await.as_deref(), Some("not listed yet"));
        let unknown = server(&[("sluice.dev", 404)]).await;
        assert_eq!((unlisted(&unknown, &both).await, unlisted(&unknown, &[]).await), (None, None));
    }

    #[test]
    fn a_rollout_that_can_not_be_read_is_not_taken_for_released() {
        let read = |value| Object::new(value).unwrap().rollout();
        let foreign = json!({"apiVersion": "sluice.dev/v1alpha1", "kind": "ProgressiveRollout", "metadata": {"name": "web"},
            "spec": {"workloadRef": {"name": "web"}, "routing": {"service": "web", "routes": [{"name": "web"}]}, "mode": "Later"}});
        assert!(
            holds(&read(foreign.clone())).is_some_and(|why| why.contains("can't be read by this version"))
        );
        let mut known = foreign;
        known["spec"]["mode"] = json!("Enforce");
        assert_eq!(holds(&read(known.clone())).as_deref(), Some("not looked at yet"));
        known["status"] = json!({"phase": "Released"});
        assert_eq!(holds(&read(known.clone())), None);
        known["metadata"]["finalizers"] = json!([FINALIZER]);
        assert!(holds(&read(known)).is_some());
    }
}
