//! Conditions in the form that kstatus, Helm and `kubectl wait` understand.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Condition types of a rollout. `Ready`, `Reconciling` and `Stalled` follow kstatus.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum ConditionType {
    /// The workload runs the revision that its template names.
    Ready,
    /// A run, or a return to stable, is under way.
    Reconciling,
    /// Nothing moves until a person acts: the reason and message say what to do.
    Stalled,
    /// Every required guard has fresh data.
    MetricsAvailable,
    /// The weight asked for is live in the router.
    TrafficVerified,
    /// No metric of the workload's autoscaler counts the canary's pods as stable's.
    AutoscalerCompatible,
    /// A scan of the source found no more than what is claimed of the change.
    ProvenanceVerified,
    /// A limit of the rollout's own is looser than what holds anyhow, and is not used.
    LimitsClamped,
    /// Whoever has to sign the change has signed it.
    Approved,
}

impl ConditionType {
    /// The name as it appears in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::Reconciling => "Reconciling",
            Self::Stalled => "Stalled",
            Self::MetricsAvailable => "MetricsAvailable",
            Self::TrafficVerified => "TrafficVerified",
            Self::AutoscalerCompatible => "AutoscalerCompatible",
            Self::ProvenanceVerified => "ProvenanceVerified",
            Self::LimitsClamped => "LimitsClamped",
            Self::Approved => "Approved",
        }
    }
}

/// True, False or Unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// It can't be known now.
    Unknown,
}

/// One condition. `lastTransitionTime` moves only when `status` does; the message is always fresh.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition<K = ConditionType> {
    /// What the condition is about.
    #[serde(rename = "type")]
    pub kind: K,
    /// True, False or Unknown.
    pub status: ConditionStatus,
    /// One CamelCase word for programs.
    pub reason: String,
    /// A sentence for people: what, why, and what to do.
    pub message: String,
    /// Generation of the object that this condition was computed from.
    pub observed_generation: i64,
    /// When `status` of this condition last changed.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub last_transition_time: Timestamp,
}

/// One condition of a policy.
pub type PolicyCondition = Condition<PolicyConditionType>;

/// Condition types of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum PolicyConditionType {
    /// The newest version of the policy is in force.
    Accepted,
}
