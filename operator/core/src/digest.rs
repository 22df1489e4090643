//! Digests: what makes two pod templates, plans or changes the same.
//!
//! SHA-256 over canonical JSON (RFC 8785). A pod template loses its `pod-template-hash` label and its nulls
//! first, so that a Deployment's template equals the one in its ReplicaSet.

use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::api::LABEL_HASH;

/// Annotations that tools add only to restart pods.
const RESTART_ANNOTATIONS: [&str; 2] = ["kubectl.kubernetes.io/restartedAt", "sluice.dev/restartedAt"];
const RESTART_ANNOTATION_PREFIXES: [&str; 1] = ["reloader.stakater.com/"];
/// Environment variables that tools add only to restart pods.
const RESTART_ENV_PREFIXES: [&str; 1] = ["STAKATER_"];
/// Kubernetes' own alphabet for generated names: no vowels, nothing that looks alike.
pub const NAME_ALPHABET: &str = "bcdfghjklmnpqrstvwxz2456789";
/// Characters of our `pod-template-hash`.
const HASH_LEN: usize = 10;

/// `sha256:<hex>` of any value as canonical JSON.
pub fn of<T: Serialize>(value: &T) -> String {
    let bytes = serde_json_canonicalizer::to_vec(value).unwrap_or_default();
    let mut text = String::from("sha256:");
    for byte in Sha256::digest(&bytes) {
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

/// Digest of a pod template.
pub fn template(template: &Value) -> String {
    of(&normal(template))
}

/// Digest of a pod template without what only restarts pods.
pub fn template_without_restarts(template: &Value) -> String {
    let mut normal = normal(template);
    if let Some(annotations) = normal.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        annotations.retain(|key, _| {
            !RESTART_ANNOTATIONS.contains(&key.as_str())
                && !RESTART_ANNOTATION_PREFIXES.iter().any(|prefix| key.starts_with(prefix))
        });
    }
    drop_empty(&mut normal, "annotations");
    for list in ["containers", "initContainers"] {
        let Some(containers) = normal.pointer_mut(&format!("/spec/{list}")).and_then(Value::as_array_mut)
        else {
            continue;
        };
        for container in containers {
            if let Some(env) = container.get_mut("env").and_then(Value::as_array_mut) {
                env.retain(|var| {
                    let name = var.get("name").and_then(Value::as_str).unwrap_or_default();
                    !RESTART_ENV_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
                });
                if env.is_empty()
                    && let Some(object) = container.as_object_mut()
                {
                    object.remove("env");
                }
            }
        }
    }
    of(&normal)
}

/// Our value of `pod-template-hash` for a template digest.
pub fn hash_label(digest: &str) -> String {
    Sha256::digest(digest.as_bytes())
        .iter()
        .take(HASH_LEN)
        .map(|byte| char::from(NAME_ALPHABET.as_bytes()[usize::from(*byte) % NAME_ALPHABET.len()]))
        .collect()
}

/// A template as we compare it: no hash label, no nulls, no empty metadata maps.
fn normal(template: &Value) -> Value {
    let mut value = template.clone();
    drop_nulls(&mut value);
    if let Some(labels) = value.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
        labels.remove(LABEL_HASH);
    }
    drop_empty(&mut value, "labels");
    drop_empty(&mut value, "annotations");
    value
}

fn drop_empty(template: &mut Value, field: &str) {
    if let Some(metadata) = template.get_mut("metadata").and_then(Value::as_object_mut)
        && metadata.get(field).and_then(Value::as_object).is_some_and(serde_json::Map::is_empty)
    {
        metadata.remove(field);
    }
}

fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, inner| !inner.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(drop_nulls),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_hash_label_and_nulls_do_not_make_a_template_another() {
        let deployment = json!({"metadata": {"creationTimestamp": null, "labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "a:1"}]}});
        let replica_set = json!({"metadata": {"labels": {"app": "web", "pod-template-hash": "x"}}, "spec": {"containers": [{"name": "c", "image": "a:1"}]}});
        assert_eq!(template(&deployment), template(&replica_set));
    }

    #[test]
    fn a_restart_changes_only_the_first_digest() {
        let before = json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "a:1"}]}});
        let after = json!({"metadata": {"labels": {"app": "web"}, "annotations": {"kubectl.kubernetes.io/restartedAt": "2026"}},
            "spec": {"containers": [{"name": "c", "image": "a:1", "env": [{"name": "STAKATER_X", "value": "1"}]}]}});
        assert_ne!(template(&before), template(&after));
        assert_eq!(template_without_restarts(&before), template_without_restarts(&after));
    }

    #[test]
    fn another_image_changes_both_digests() {
        let one = json!({"spec": {"containers": [{"name": "c", "image": "a:1"}]}});
        let two = json!({"spec": {"containers": [{"name": "c", "image": "a:2"}]}});
        assert_ne!(template(&one), template(&two));
        assert_ne!(template_without_restarts(&one), template_without_restarts(&two));
    }

    #[test]
    fn a_hash_label_is_ten_safe_characters() {
        let label = hash_label("sha256:00");
        assert_eq!(label.len(), HASH_LEN);
        assert!(label.bytes().all(|b| NAME_ALPHABET.as_bytes().contains(&b)));
    }
}
