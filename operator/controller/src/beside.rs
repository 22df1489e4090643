//! Reads what stands beside a Deployment: autoscalers, and the claims that its pods share.
//!
//! They matter before a workload is enrolled and before a run starts, so they are not watched: each is read live
//! for the decision that needs it.

use kube::api::{ApiResource, ListParams};
use kube::core::GroupVersionKind;
use kube::{Api, Client};
use serde_json::Value;
use sluice_core::api::{Mode, ProgressiveRollout};
use sluice_core::observed::Seen;
use sluice_core::view::shared_claims;

use crate::observe::{listed, named};

/// Autoscalers of the namespace, and claims of the Deployment; `None` where they can't matter.
pub async fn read(
    client: &Client,
    namespace: &str,
    rollout: &ProgressiveRollout,
    deployment: Option<&Value>,
) -> (Option<Seen<Vec<Value>>>, Option<Seen<Vec<Value>>>) {
    let Some(deployment) = deployment.filter(|_| matters(rollout)) else {
        return (None, None);
    };
    let (autoscalers, claims) =
        tokio::join!(autoscalers(client, namespace), claims(client, namespace, deployment));
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
