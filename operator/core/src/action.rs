//! What a decision asks the shell to do: everything spelled out, nothing left to choose.
//!
//! Each action is idempotent: repeated after a crash it finds its work done, or its `test` fails and the
//! world is read and decided on again.

use serde::Serialize;
use serde_json::Value;

/// Which queue an action runs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Returns traffic. Not fenced by leadership, tries every action, never waits for the others.
    Abort,
    /// Raises exposure or changes which revision the workload runs. Fenced, and decided on live objects.
    Forward,
    /// Tidies up. Fenced, decided on live objects.
    Tidy,
}

/// Kinds of object that we write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Kind {
    /// `apps/v1` Deployment.
    Deployment,
    /// `apps/v1` ReplicaSet.
    ReplicaSet,
    /// `v1` Service.
    Service,
    /// `gateway.networking.k8s.io/v1` HTTPRoute.
    HTTPRoute,
    /// Our own kind.
    ProgressiveRollout,
}

/// One operation of a JSON Patch (RFC 6902).
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "op", rename_all = "lowercase")]
pub enum PatchOp {
    /// Fails the patch unless the value is there.
    Test {
        /// JSON pointer.
        path: String,
        /// The value expected.
        value: Value,
    },
    /// Adds or replaces.
    Add {
        /// JSON pointer.
        path: String,
        /// The value.
        value: Value,
    },
    /// Removes.
    Remove {
        /// JSON pointer.
        path: String,
    },
}

/// Weights of the pair on one route. The shell reads the route live and renders the patch with
/// [`crate::render::weights`], since indexes may have moved.
#[derive(Clone, Debug, PartialEq)]
pub struct SetWeights {
    /// Service that carries stable's share.
    pub stable_service: String,
    /// Service that carries the canary's share.
    pub canary_service: String,
    /// Rules that carry the pair; empty: every rule that names it.
    pub rules: Vec<i32>,
    /// Percent for the canary; stable gets the rest.
    pub canary_percent: i32,
    /// Value of the traffic annotation that goes with it.
    pub mark: String,
}

/// The write itself.
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    /// Creates the object; one that exists already is success.
    Create(Value),
    /// JSON Patch; a failed `test` means that the world moved.
    Patch(Vec<PatchOp>),
    /// Weights of the pair.
    Weights(SetWeights),
    /// Deletes the object with this UID; one that is gone is success.
    Delete {
        /// UID that the object must have.
        uid: String,
    },
}

/// One write to one object.
#[derive(Clone, Debug, PartialEq)]
pub struct Action {
    /// Queue.
    pub lane: Lane,
    /// What it is for, as a log line and a metric label: `scale-canary`.
    pub name: &'static str,
    /// Kind of the object.
    pub kind: Kind,
    /// Name of the object, in the rollout's namespace.
    pub object: String,
    /// The write.
    pub write: Write,
}

/// Severity of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// Something happened as it should.
    Normal,
    /// Somebody should look.
    Warning,
}

/// An event on the rollout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Severity.
    pub kind: EventKind,
    /// One CamelCase word for programs.
    pub reason: &'static str,
    /// A sentence with numbers for people.
    pub message: String,
}
