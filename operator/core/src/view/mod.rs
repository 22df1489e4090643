//! Narrow views of foreign objects: raw JSON in, the few fields that decisions need out.
//!
//! Foreign objects stay raw, so that a field our types don't know is neither lost nor stops a watch.

mod beside;
mod pod;
mod replica_set;
mod route;
mod service;
mod workload;

pub use beside::{Autoscaler, Claim, shared_claims};
pub use pod::{PodTrouble, worst_trouble};
pub use replica_set::ReplicaSet;
pub use route::{PairWeights, Route, RouteProblem};
pub use service::{Service, ready_pods};
pub use workload::{HeldMark, Workload};

use serde_json::{Map, Value};

pub(crate) fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

pub(crate) fn int(value: &Value, pointer: &str) -> Option<i32> {
    value.pointer(pointer).and_then(Value::as_i64).and_then(|n| i32::try_from(n).ok())
}

pub(crate) fn map(value: &Value, pointer: &str) -> Map<String, Value> {
    value.pointer(pointer).and_then(Value::as_object).cloned().unwrap_or_default()
}

/// The text with at most `limit` characters, and dots where it was cut: what others wrote may be of any length, and
/// our status and events may not.
pub fn shorten(text: &str, limit: usize) -> String {
    match text.char_indices().nth(limit) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

/// Escapes one token of a JSON pointer (RFC 6901).
pub fn token(raw: &str) -> String {
    raw.replace('~', "~0").replace('/', "~1")
}
