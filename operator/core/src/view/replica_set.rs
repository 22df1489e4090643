//! ReplicaSets: the native controller's and ours.

use serde_json::{Map, Value};

use super::{Workload, int, map, text};
use crate::api::{LABEL_HASH, LABEL_ROLE, Revision};
use crate::digest;

/// Annotations in which the native controller keeps the size that it gave last. A ReplicaSet with pods whose noted size
/// is not the Deployment's is a scaling event to it, and during one it rolls nothing.
const SIZE_NOTES: [&str; 2] =
    ["deployment.kubernetes.io/desired-replicas", "deployment.kubernetes.io/max-replicas"];

/// A ReplicaSet that has the Deployment as an owner, or carries our label.
#[derive(Clone, Debug)]
pub struct ReplicaSet {
    /// Name.
    pub name: String,
    /// UID.
    pub uid: String,
    /// Version that a compare-and-swap tests.
    pub resource_version: String,
    /// Creation time, RFC 3339: the native controller takes the oldest of equals.
    pub created: String,
    /// `metadata.labels`: free text, they need not be the template's.
    pub labels: Map<String, Value>,
    /// UID of the controlling owner.
    pub controller_uid: Option<String>,
    /// UIDs of all owners.
    pub owner_uids: Vec<String>,
    /// `spec.replicas`.
    pub replicas: i32,
    /// `status.replicas`.
    pub status_replicas: i32,
    /// `status.availableReplicas`, 0 while the status is older than the spec.
    pub available: i32,
    /// Annotations with the size that the native controller gave last, those that it has.
    pub size_notes: Vec<&'static str>,
    /// Our role label.
    pub role: String,
    /// `pod-template-hash` of its pods.
    pub hash: String,
    /// `spec.template`.
    pub template: Value,
    /// Digest of the template.
    pub digest: String,
    /// Digest of the template without restarts.
    pub restart_digest: String,
    /// Whether it is being deleted.
    pub deleting: bool,
}

impl ReplicaSet {
    /// Reads a ReplicaSet.
    pub fn read(object: &Value) -> Self {
        let template = object.pointer("/spec/template").cloned().unwrap_or_default();
        let labels = map(object, "/metadata/labels");
        let owners = object.pointer("/metadata/ownerReferences").and_then(Value::as_array);
        let owners: Vec<&Value> = owners.into_iter().flatten().collect();
        Self {
            name: text(object, "/metadata/name").to_owned(),
            uid: text(object, "/metadata/uid").to_owned(),
            resource_version: text(object, "/metadata/resourceVersion").to_owned(),
            created: text(object, "/metadata/creationTimestamp").to_owned(),
            controller_uid: owners
                .iter()
                .find(|owner| owner.get("controller").and_then(Value::as_bool) == Some(true))
                .map(|owner| text(owner, "/uid").to_owned()),
            owner_uids: owners.iter().map(|owner| text(owner, "/uid").to_owned()).collect(),
            replicas: int(object, "/spec/replicas").unwrap_or(1),
            status_replicas: int(object, "/status/replicas").unwrap_or(0),
            available: int(object, "/status/availableReplicas").unwrap_or(0),
            size_notes: {
                let annotations = map(object, "/metadata/annotations");
                SIZE_NOTES.into_iter().filter(|note| annotations.contains_key(*note)).collect()
            },
            role: labels.get(LABEL_ROLE).and_then(Value::as_str).unwrap_or_default().to_owned(),
            hash: text(&template, &format!("/metadata/labels/{LABEL_HASH}")).to_owned(),
            digest: digest::template(&template),
            restart_digest: digest::template_without_restarts(&template),
            deleting: object.pointer("/metadata/deletionTimestamp").is_some_and(Value::is_string),
            labels,
            template,
        }
    }

    /// Whether the native Deployment controller sees it as the Deployment's.
    pub fn visible_to(&self, workload: &Workload) -> bool {
        self.controller_uid.as_deref() == Some(workload.uid.as_str()) && workload.selects(&self.labels)
    }

    /// The revision that it runs.
    pub fn revision(&self, commit: Option<String>) -> Revision {
        Revision {
            digest: self.digest.clone(),
            restart_digest: self.restart_digest.clone(),
            hash: self.hash.clone(),
            replica_set: self.name.clone(),
            images: super::workload::images(&self.template),
            commit,
        }
    }
}
