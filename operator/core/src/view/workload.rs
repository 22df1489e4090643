//! The Deployment as decisions see it.

use serde_json::{Map, Value};

use super::{int, map, shorten, text};
use crate::api::{
    ANNOTATION_BREAK_GLASS, ANNOTATION_COMMIT, ANNOTATION_HELD, ANNOTATION_PROVENANCE, LABEL_MANAGED,
};
use crate::digest;

/// Longest break-glass reason that is kept as it is, in bytes.
const BREAK_GLASS_LIMIT: usize = 256;
/// Longest commit, in bytes; what is longer is none.
const COMMIT_LIMIT: usize = 64;
/// Longest provenance that is shown when it is none, in characters.
const PROVENANCE_LIMIT: usize = 40;

/// Why a template is not live: the value of `sluice.dev/held`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeldMark {
    /// A new template waits for its run, or is in one.
    Held,
    /// It was paused by a person before the template came; it stays paused until that person resumes it.
    UserPaused,
    /// The template was rejected.
    Rejected,
}

impl HeldMark {
    /// The annotation's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::UserPaused => "user-paused",
            Self::Rejected => "rejected",
        }
    }
}

/// A Deployment.
#[derive(Clone, Debug)]
pub struct Workload {
    /// Name.
    pub name: String,
    /// UID.
    pub uid: String,
    /// Version that a compare-and-swap tests.
    pub resource_version: String,
    /// Generation of the spec.
    pub generation: i64,
    /// Generation that the native controller has seen.
    pub observed_generation: i64,
    /// `spec.replicas`.
    pub replicas: i32,
    /// `status.replicas`.
    pub status_replicas: i32,
    /// `status.updatedReplicas`.
    pub updated_replicas: i32,
    /// `status.availableReplicas`.
    pub available_replicas: i32,
    /// `spec.paused`.
    pub paused: bool,
    /// Whether it carries our label.
    pub managed: bool,
    /// Mark of a held template, if any.
    pub held: Option<HeldMark>,
    /// Value of the break-glass annotation.
    pub break_glass: Option<String>,
    /// Value of the commit annotation.
    pub commit: Option<String>,
    /// Value of the provenance annotation, shortened.
    pub provenance: Option<String>,
    /// `spec.strategy.type`.
    pub strategy: String,
    /// `spec.minReadySeconds`.
    pub min_ready_seconds: i32,
    /// `spec.progressDeadlineSeconds`.
    pub progress_deadline_seconds: i32,
    /// `spec.selector`.
    pub selector: Value,
    /// `spec.template`.
    pub template: Value,
    /// Digest of the template.
    pub digest: String,
    /// Digest of the template without restarts.
    pub restart_digest: String,
    /// Whether it has a `metadata.annotations` map.
    pub has_annotations: bool,
    /// Whether it has a `metadata.labels` map.
    pub has_labels: bool,
    /// Whether it is being deleted.
    pub deleting: bool,
}

impl Workload {
    /// Reads a Deployment.
    pub fn read(object: &Value) -> Self {
        let template = object.pointer("/spec/template").cloned().unwrap_or_default();
        let annotations = map(object, "/metadata/annotations");
        let annotation = |key: &str| {
            annotations.get(key).and_then(Value::as_str).filter(|v| !v.is_empty()).map(ToOwned::to_owned)
        };
        Self {
            name: text(object, "/metadata/name").to_owned(),
            uid: text(object, "/metadata/uid").to_owned(),
            resource_version: text(object, "/metadata/resourceVersion").to_owned(),
            generation: object.pointer("/metadata/generation").and_then(Value::as_i64).unwrap_or_default(),
            observed_generation: object
                .pointer("/status/observedGeneration")
                .and_then(Value::as_i64)
                .unwrap_or_default(),
            replicas: int(object, "/spec/replicas").unwrap_or(1),
            status_replicas: int(object, "/status/replicas").unwrap_or(0),
            updated_replicas: int(object, "/status/updatedReplicas").unwrap_or(0),
            available_replicas: int(object, "/status/availableReplicas").unwrap_or(0),
            paused: object.pointer("/spec/paused").and_then(Value::as_bool).unwrap_or(false),
            managed: map(object, "/metadata/labels").get(LABEL_MANAGED).and_then(Value::as_str)
                == Some("true"),
            held: annotation(ANNOTATION_HELD).map(|value| match value.as_str() {
                "user-paused" => HeldMark::UserPaused,
                "rejected" => HeldMark::Rejected,
                _ => HeldMark::Held,
            }),
            break_glass: annotation(ANNOTATION_BREAK_GLASS).map(|value| {
                // Kept in status, where a new value is told from the last one: a long one by its digest.
                if value.len() > BREAK_GLASS_LIMIT { digest::of(&value) } else { value }
            }),
            commit: annotation(ANNOTATION_COMMIT).filter(|value| value.len() <= COMMIT_LIMIT),
            provenance: annotation(ANNOTATION_PROVENANCE).map(|value| shorten(&value, PROVENANCE_LIMIT)),
            strategy: match text(object, "/spec/strategy/type") {
                "" => "RollingUpdate".to_owned(),
                other => other.to_owned(),
            },
            min_ready_seconds: int(object, "/spec/minReadySeconds").unwrap_or(0),
            progress_deadline_seconds: int(object, "/spec/progressDeadlineSeconds").unwrap_or(600),
            selector: object.pointer("/spec/selector").cloned().unwrap_or_default(),
            digest: digest::template(&template),
            restart_digest: digest::template_without_restarts(&template),
            has_annotations: object.pointer("/metadata/annotations").is_some_and(Value::is_object),
            has_labels: object.pointer("/metadata/labels").is_some_and(Value::is_object),
            deleting: object.pointer("/metadata/deletionTimestamp").is_some_and(Value::is_string),
            template,
        }
    }

    /// Container images of the template, init containers last.
    pub fn images(&self) -> Vec<String> {
        images(&self.template)
    }

    /// Labels of the pod template.
    pub fn template_labels(&self) -> Map<String, Value> {
        map(&self.template, "/metadata/labels")
    }

    /// Whether these labels match the Deployment's selector.
    pub fn selects(&self, labels: &Map<String, Value>) -> bool {
        let equal =
            map(&self.selector, "/matchLabels").iter().all(|(key, value)| labels.get(key) == Some(value));
        let expressions = self.selector.get("matchExpressions").and_then(Value::as_array);
        equal && expressions.into_iter().flatten().all(|expression| matches(expression, labels))
    }

    /// Whether the native controller has finished with the current spec: one revision, all pods available.
    pub fn complete(&self) -> bool {
        self.observed_generation >= self.generation
            && self.updated_replicas == self.replicas
            && self.status_replicas == self.replicas
            && self.available_replicas == self.replicas
    }
}

pub(super) fn images(template: &Value) -> Vec<String> {
    ["/spec/containers", "/spec/initContainers"]
        .into_iter()
        .filter_map(|list| template.pointer(list).and_then(Value::as_array))
        .flatten()
        .map(|container| text(container, "/image").to_owned())
        .collect()
}

fn matches(expression: &Value, labels: &Map<String, Value>) -> bool {
    let found = labels.get(text(expression, "/key")).and_then(Value::as_str);
    let listed = |value: &str| {
        let values = expression.get("values").and_then(Value::as_array);
        values.into_iter().flatten().any(|v| v.as_str() == Some(value))
    };
    match text(expression, "/operator") {
        "In" => found.is_some_and(listed),
        "NotIn" => !found.is_some_and(listed),
        "Exists" => found.is_some(),
        "DoesNotExist" => found.is_none(),
        _ => false,
    }
}
