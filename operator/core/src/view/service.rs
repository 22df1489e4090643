//! Services of the pair, and the endpoints behind them.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::{map, text};
use crate::api::{LABEL_HASH, LABEL_ROLLOUT};

/// A Service.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// Name.
    pub name: String,
    /// `spec.selector`.
    pub selector: Map<String, Value>,
    /// `spec.ports`.
    pub ports: Value,
    /// The rollout that made it, if we did.
    pub rollout: Option<String>,
}

impl Service {
    /// Reads a Service.
    pub fn read(object: &Value) -> Self {
        Self {
            name: text(object, "/metadata/name").to_owned(),
            selector: map(object, "/spec/selector"),
            ports: object.pointer("/spec/ports").cloned().unwrap_or_default(),
            rollout: map(object, "/metadata/labels")
                .get(LABEL_ROLLOUT)
                .and_then(Value::as_str)
                .map(ToOwned::to_owned),
        }
    }

    /// The revision hash that it is pinned to.
    pub fn pinned(&self) -> Option<&str> {
        self.selector.get(LABEL_HASH).and_then(Value::as_str)
    }
}

/// Names of the pods that are ready behind a Service, over all its EndpointSlices.
pub fn ready_pods(slices: &[Value]) -> BTreeSet<String> {
    let endpoints =
        slices.iter().filter_map(|slice| slice.get("endpoints").and_then(Value::as_array)).flatten();
    endpoints
        .filter(|endpoint| {
            // An absent `ready` means ready (EndpointConditions).
            let condition =
                |name: &str| endpoint.pointer(&format!("/conditions/{name}")).and_then(Value::as_bool);
            condition("ready").unwrap_or(true) && !condition("terminating").unwrap_or(false)
        })
        .map(|endpoint| text(endpoint, "/targetRef/name").to_owned())
        .filter(|name| !name.is_empty())
        .collect()
}
