//! What a run leaves on another cluster: nodes, namespaces with all in them, and the policy of the demo. A run takes its own
//! away at its end, and before it begins those of one that was killed. What somebody else made is never taken away.

use std::time::Duration;

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use sluice_core::api::{ANNOTATION_PRESET, ClusterRiskPolicy, ProgressiveRollout};

use super::until;

/// Who wrote what the runs make.
pub const MANAGER: &str = "sluice-e2e";

/// A namespace of a run.
pub fn namespace(name: &str) -> Value {
    // Without a field of its own a writer is not recorded.
    let labels = json!({"app.kubernetes.io/managed-by": MANAGER});
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
}

/// Whether the runs have a part in it.
fn marked(meta: &ObjectMeta) -> bool {
    meta.managed_fields.iter().flatten().any(|entry| entry.manager.as_deref() == Some(MANAGER))
}

/// Whether nobody but the runs wrote it: a namespace that was there before has other writers too.
fn ours(meta: &ObjectMeta) -> bool {
    let mut writers = meta.managed_fields.iter().flatten().filter(|entry| entry.subresource.is_none());
    marked(meta) && writers.all(|entry| entry.manager.as_deref() == Some(MANAGER))
}

/// Refuses a cluster on which something of the run's names belongs to somebody else.
pub async fn refuse_foreign(client: &Client, nodes: &[String], namespace: &str) -> Result<()> {
    let of_cluster: Api<Node> = Api::all(client.clone());
    for name in nodes {
        let found = of_cluster.get_opt(name).await?;
        ensure!(found.is_none_or(|n| marked(&n.metadata)), "this cluster has a node {name} of its own");
    }
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let found = namespaces.get_opt(namespace).await?;
    ensure!(
        found.is_none_or(|n| ours(&n.metadata)),
        "this cluster has a namespace {namespace} already: Sluice is in use there, choose another cluster"
    );
    Ok(())
}

/// Takes the nodes and namespaces of the runs away, at once: no kubelet answers for their pods any more.
pub async fn remove(client: &Client) -> Result<()> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    until(
        "the namespaces of the runs are gone",
        Duration::from_secs(120),
        Duration::from_millis(500),
        || async {
            let mut left = Vec::new();
            for namespace in namespaces.list(&ListParams::default()).await?.items {
                if ours(&namespace.metadata) {
                    empty(client, &namespace.name_any()).await?;
                    let _ = namespaces.delete(&namespace.name_any(), &DeleteParams::background()).await;
                    left.push(namespace.name_any());
                }
            }
            ensure!(left.is_empty(), "left: {}", left.join(", "));
            Ok(())
        },
    )
    .await?;
    // The controller made it from the demo's settings; the next installation must not find it. Without the CRD there is none.
    let policies: Api<ClusterRiskPolicy> = Api::all(client.clone());
    let found = policies.list(&ListParams::default()).await.map(|list| list.items).unwrap_or_default();
    let demo = |policy: &&ClusterRiskPolicy| {
        policy.annotations().get(ANNOTATION_PRESET).is_some_and(|p| p == "demo")
    };
    for policy in found.iter().filter(demo) {
        let _ = policies.delete(&policy.name_any(), &DeleteParams::default()).await;
    }
    let nodes: Api<Node> = Api::all(client.clone());
    for node in nodes.list(&ListParams::default()).await?.items {
        if marked(&node.metadata) {
            let _ = nodes.delete(&node.name_any(), &DeleteParams::default()).await;
        }
    }
    Ok(())
}

/// What would hold a namespace that goes: rollouts whose controller is gone, pods whose node is.
async fn empty(client: &Client, namespace: &str) -> Result<()> {
    let rollouts: Api<ProgressiveRollout> = Api::namespaced(client.clone(), namespace);
    // Without the CRD there are none.
    let found = rollouts.list(&ListParams::default()).await.map(|list| list.items).unwrap_or_default();
    for rollout in found.iter().filter(|rollout| !rollout.finalizers().is_empty()) {
        let free = Patch::Merge(json!({"metadata": {"finalizers": null}}));
        let _ = rollouts.patch(&rollout.name_any(), &PatchParams::default(), &free).await;
    }
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    for pod in pods.list(&ListParams::default()).await?.items {
        let _ = pods.delete(&pod.name_any(), &DeleteParams::default().grace_period(0)).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written_by(managers: &[(&str, Option<&str>)]) -> ObjectMeta {
        let entries: Vec<_> = managers
            .iter()
            .map(|(manager, subresource)| json!({"manager": manager, "subresource": subresource}))
            .collect();
        serde_json::from_value(json!({"managedFields": entries})).expect("metadata")
    }

    #[test]
    fn what_somebody_else_wrote_is_not_ours() {
        let status = ("kube-controller-manager", Some("status"));
        assert!(ours(&written_by(&[(MANAGER, None), status])));
        assert!(!ours(&written_by(&[])) && !ours(&written_by(&[status])));
        let both = written_by(&[("kubectl-create", None), (MANAGER, None)]);
        assert!(!ours(&both) && marked(&both), "a namespace that was there before");
    }
}
