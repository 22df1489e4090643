//! Reads what stands beside a Deployment: autoscalers, and the claims that its pods share.
//!
//! They matter before a workload is enrolled and before a run starts, so they are not watched: they are read for the
//! decision that needs them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use kube::api::{ApiResource, ListParams};
use kube::core::GroupVersionKind;
use kube::{Api, Client};
use serde_json::Value;
use sluice_core::api::{Mode, ProgressiveRollout};
use sluice_core::observed::Seen;
use sluice_core::view::shared_claims;

use crate::context::Context;
use crate::observe::{listed, named};

/// How old a list of autoscalers may be. They are selected by namespace only: rollouts that start together share one.
const FRESH: Duration = Duration::from_secs(1);

/// Autoscalers that were read just now, by namespace.
#[derive(Default)]
pub struct Autoscalers(Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<Option<List>>>>>);

struct List {
    asked: Instant,
    /// A failure is shared too: else those that wait would ask one after the other, as long as each takes.
    answer: Seen<Vec<Value>>,
}

impl Autoscalers {
    async fn of(&self, client: &Client, namespace: &str) -> Seen<Vec<Value>> {
        let place = {
            let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            // What is old is dropped, unless it is being asked for.
            let fresh = |list: &Option<List>| list.as_ref().is_some_and(|list| list.asked.elapsed() < FRESH);
            known.retain(|_, list| list.try_lock().map_or(true, |list| fresh(&list)));
            known.entry(namespace.to_owned()).or_default().clone()
        };
        // Those that start together wait for the one that asks, and take its answer.
        let came = Instant::now();
        let mut list = place.lock().await;
        if let Some(list) = list.as_ref().filter(|list| list.asked >= came || list.asked.elapsed() < FRESH) {
            return list.answer.clone();
        }
        let asked = Instant::now();
        let answer = autoscalers(client, namespace).await;
        *list = Some(List { asked, answer: answer.clone() });
        answer
    }
}

/// Autoscalers of the namespace, and claims of the Deployment; `None` where they can't matter.
pub async fn read(
    ctx: &Context,
    namespace: &str,
    rollout: &ProgressiveRollout,
    deployment: Option<&Value>,
) -> (Option<Seen<Vec<Value>>>, Option<Seen<Vec<Value>>>) {
    let Some(deployment) = deployment.filter(|_| matters(rollout)) else {
        return (None, None);
    };
    let client = &ctx.clients.normal;
    let (autoscalers, claims) =
        tokio::join!(ctx.autoscalers.of(client, namespace), claims(client, namespace, deployment));
    (Some(autoscalers), Some(claims))
}

/// Whether a decision on this rollout may enrol its workload or start a run.
fn matters(rollout: &ProgressiveRollout) -> bool {
    rollout.spec.mode == Mode::Enforce
        && rollout.metadata.deletion_timestamp.is_none()
        && rollout.status.as_ref().is_none_or(|status| status.run.is_none())
}

/// All autoscalers of a namespace: the API server can't select them by what they scale.
async fn autoscalers(client: &Client, namespace: &str) -> Seen<Vec<Value>> {
    let gvk = GroupVersionKind::gvk("autoscaling", "v2", "HorizontalPodAutoscaler");
    let resource = ApiResource::from_gvk_with_plural(&gvk, "horizontalpodautoscalers");
    let api = Api::namespaced_with(client.clone(), namespace, &resource);
    listed(api, "horizontalpodautoscalers", &ListParams::default()).await
}

/// The claims that the pods of this Deployment share; one that does not exist is left out, the pods wait for it.
async fn claims(client: &Client, namespace: &str, deployment: &Value) -> Seen<Vec<Value>> {
    let names = shared_claims(&deployment["spec"]["template"]);
    let gvk = GroupVersionKind::gvk("", "v1", "PersistentVolumeClaim");
    let resource = ApiResource::from_gvk_with_plural(&gvk, "persistentvolumeclaims");
    let api = Api::namespaced_with(client.clone(), namespace, &resource);
    named(api, "persistentvolumeclaims", &names).await
}
