//! Wire types of `sluice.dev/v1alpha1`: what people write and what the controller answers.
//!
//! Nothing here decides. A field that people set is validated once, in [`crate::limits`]; a field of
//! status is written only by [`crate::report`] and the rooms of [`crate::decide`].

mod budget;
mod change;
mod condition;
mod freeze;
mod guard;
mod harm;
mod metric;
mod policy;
mod provider;
mod request;
mod risk;
mod rollout;
mod run;
mod status;

pub use budget::{ErrorBudgetPolicy, ErrorBudgetStatus, OnExhausted};
pub use change::{Change, ChangeEvidence, ChangeFinding, ChangeKind, ChangeSize, Provenance};
pub use condition::{Condition, ConditionStatus, ConditionType, PolicyCondition, PolicyConditionType};
pub use freeze::{
    ChangeFreeze, ChangeFreezeSpec, ChangeFreezeStatus, FreezeMode, FreezeScope, FreezeWindow,
    NamespaceSelector,
};
pub use guard::{
    AlertGuard, AlertMatcher, AlertSource, Counted, ErrorRatioGuard, Guard, GuardAction, LatencyGuard,
    MatchOp, RatioSource, RestartsGuard,
};
pub use harm::{GuardHarm, PlanHarm};
pub use metric::{MetricGuard, Quantity};
pub use policy::{
    ClusterRiskPolicy, ClusterRiskPolicySpec, ClusterRiskPolicyStatus, LABEL_TIER, PolicyClass, PolicyLimits,
    PolicyPpm, PolicyStatus, ProvenancePolicy, RiskPolicy, RiskPolicySpec, RiskPolicyStatus, Signoff,
    TierMapping,
};
pub use provider::{Header, PROVIDER_SECRET, ProviderConfig};
pub use request::{Request, Verb};
pub use risk::{BlastRadius, DeclaredRisk, Factor, Floor, FloorWhen, LimitSource, Novelty, Tier};
pub use rollout::{
    ApexCallers, Limits, Mode, Priority, ProgressiveRollout, ProgressiveRolloutSpec, RouteRef, Routing,
    StepSpec, Wiring, WorkloadRef,
};
pub use run::{
    EvidenceRow, GoingBack, KnownChange, Plan, RiskClass, Run, RunKind, Stage, TolerancePpm, WeightIntent,
};
pub use status::*;

/// API group of every kind here.
pub const GROUP: &str = "sluice.dev";
/// Version of every kind here.
pub const VERSION: &str = "v1alpha1";

/// Label on an enrolled Deployment: the admission policies select on it.
pub const LABEL_MANAGED: &str = "sluice.dev/managed";
/// Annotation on a Deployment whose new template is not live; its value says why ([`HeldMark`]).
pub const ANNOTATION_HELD: &str = "sluice.dev/held";
/// Annotation by which a person with the verb `breakglass` frees a Deployment.
pub const ANNOTATION_BREAK_GLASS: &str = "sluice.dev/break-glass";
/// Annotation on a rollout that carries a person's verb: `<verb>/<runID>`, or `<verb>/<runID>/<nonce>` ([`Request`]).
pub const ANNOTATION_REQUEST: &str = "sluice.dev/request";
/// Annotation on a Deployment that names the source commit of its template.
pub const ANNOTATION_COMMIT: &str = "sluice.dev/commit";
/// Annotation on a Deployment that says who wrote the change of its template: a name of [`Provenance`].
pub const ANNOTATION_PROVENANCE: &str = "sluice.dev/provenance";
/// Annotation on a ClusterRiskPolicy that the controller made: the preset that it was made from.
pub const ANNOTATION_PRESET: &str = "sluice.dev/preset";
/// Annotation on a route: `<runID> <weight>` of our last write, with ` aborted` once the run went back.
pub const ANNOTATION_TRAFFIC: &str = "sluice.dev/traffic";
/// Label on every object that we made or keep: the name of the rollout.
pub const LABEL_ROLLOUT: &str = "sluice.dev/rollout";
/// Label on a ReplicaSet that we keep: `canary`, `warm` or `history`.
pub const LABEL_ROLE: &str = "sluice.dev/role";
/// The native controller's label on ReplicaSets and pods.
pub const LABEL_HASH: &str = "pod-template-hash";
/// Finalizer that returns traffic to stable before the rollout object goes.
pub const FINALIZER: &str = "sluice.dev/return-traffic";
/// Field manager of our writes.
pub const MANAGER: &str = "sluice";
