//! Why canary pods are not ready, in the pod's own words.

use serde_json::Value;

use super::{shorten, text};

/// The worst thing that keeps a pod from being ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodTrouble {
    /// Name of the pod.
    pub pod: String,
    /// The pod's own reason, such as `ImagePullBackOff`.
    pub reason: String,
    /// The pod's own message.
    pub message: String,
    /// Whether waiting will not help: the container crashes again and again.
    pub crashing: bool,
}

/// Longest message kept: events and status are for people.
const MESSAGE_LIMIT: usize = 200;

/// The worst trouble among pods: a crash loop first, then any waiting reason, then unschedulable.
pub fn worst_trouble(pods: &[Value]) -> Option<PodTrouble> {
    pods.iter().filter_map(trouble).max_by_key(|trouble| (trouble.crashing, trouble.reason != "NotReady"))
}

fn trouble(pod: &Value) -> Option<PodTrouble> {
    let name = text(pod, "/metadata/name").to_owned();
    let statuses = ["/status/initContainerStatuses", "/status/containerStatuses"];
    for status in
        statuses.into_iter().filter_map(|list| pod.pointer(list).and_then(Value::as_array)).flatten()
    {
        let waiting = text(status, "/state/waiting/reason");
        if !waiting.is_empty() && waiting != "ContainerCreating" && waiting != "PodInitializing" {
            return Some(PodTrouble {
                pod: name,
                reason: waiting.to_owned(),
                message: shorten(text(status, "/state/waiting/message"), MESSAGE_LIMIT),
                crashing: waiting == "CrashLoopBackOff",
            });
        }
        let ended = text(status, "/state/terminated/reason");
        if !ended.is_empty() && ended != "Completed" {
            return Some(PodTrouble {
                pod: name,
                reason: ended.to_owned(),
                message: shorten(text(status, "/state/terminated/message"), MESSAGE_LIMIT),
                crashing: false,
            });
        }
    }
    let conditions = pod.pointer("/status/conditions").and_then(Value::as_array);
    for condition in conditions.into_iter().flatten() {
        let (kind, status) = (text(condition, "/type"), text(condition, "/status"));
        let unschedulable = kind == "PodScheduled" && status == "False";
        let not_ready = kind == "Ready" && status == "False";
        if unschedulable || not_ready {
            let reason = if unschedulable { "Unschedulable" } else { "NotReady" };
            return Some(PodTrouble {
                pod: name,
                reason: reason.to_owned(),
                message: shorten(text(condition, "/message"), MESSAGE_LIMIT),
                crashing: false,
            });
        }
    }
    None
}
