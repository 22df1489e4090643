//! What the controller answers: phase, the run under way, what was learned, what it waits for.
//!
//! Status remembers only what the world cannot tell: the frozen plan, the step, when things began, and
//! what people asked for. Everything else is read from the objects again on every pass.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Condition, ErrorBudgetStatus, Factor, LimitSource, PlanHarm, Provenance, RiskClass, Run, Signoff,
    StepSpec,
};
use crate::evidence::KnownAlert;

/// Observed state of a rollout.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProgressiveRolloutStatus {
    /// Generation of the rollout that this status was computed from.
    #[serde(default)]
    pub observed_generation: i64,
    /// Generation of the workload that this status was computed from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_workload_generation: Option<i64>,
    /// Where the rollout stands: Pending, Idle, Held, Canary, Promoting, Watching, Returning, Rejected, NotProven,
    /// Observing or Released.
    #[serde(default)]
    pub phase: Phase,
    /// When the phase began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub phase_since: Option<Timestamp>,
    /// What it waits for, for how long, and what to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<Waiting>,
    /// Words for printer columns.
    #[serde(default)]
    pub summary: Summary,
    /// UID of the workload that is enrolled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload_uid: Option<String>,
    /// The revision that serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stable: Option<Revision>,
    /// Commit of the stable revision, once known: what `kubectl wait` can look at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stable_commit: Option<String>,
    /// A held template that is not under way, and since when it is held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<HeldRevision>,
    /// Its place in the queue, while there is no room for it to start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<QueueStatus>,
    /// What the held template, or the run under way, is allowed, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<PlanStatus>,
    /// The run under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<Run>,
    /// Runs that were ever started on this object.
    #[serde(default)]
    pub run_count: i64,
    /// Revisions that were promoted and watched, newest first, at most 10: applying one again is a return, in one step.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub good: Vec<Revision>,
    /// Revisions that were rejected, newest first, at most 20: they can't run again without `retry`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub quarantine: Vec<Quarantined>,
    /// Ended runs, newest first, at most 20.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<RunRecord>,
    /// What was left of the error budget when it was last known, by each policy that asks for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub error_budgets: Vec<ErrorBudgetStatus>,
    /// The last request of a person that was acted on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<LatchedRequest>,
    /// The last break-glass value that was seen on the workload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub break_glass: Option<String>,
    /// Each guard's view of the run under way.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub guards: Vec<GuardStatus>,
    /// Weight asked for and seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic: Option<TrafficStatus>,
    /// Conditions: Ready, Reconciling, Stalled; during a run MetricsAvailable and TrafficVerified; AutoscalerCompatible
    /// when an autoscaler scales the workload; ProvenanceVerified while a template is held or tried; Approved while one is held
    /// that needs sign-offs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// Where a rollout stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Phase {
    /// Not enrolled yet: something about the object or the workload is not in order.
    #[default]
    Pending,
    /// The workload runs its template; nothing to do.
    Idle,
    /// A new template is held and has not started.
    Held,
    /// The canary is being prepared or serves a share of the traffic.
    Canary,
    /// The canary becomes the workload's own revision.
    Promoting,
    /// The new revision serves everything; the old one is warm.
    Watching,
    /// Traffic goes back to stable.
    Returning,
    /// The held template was rejected; stable serves.
    Rejected,
    /// The held template could not show that it is good in time; stable serves.
    NotProven,
    /// Mode Observe: a native roll is judged, not touched.
    Observing,
    /// The workload is no longer guarded.
    Released,
}

impl Phase {
    /// The name as it appears in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Idle => "Idle",
            Self::Held => "Held",
            Self::Canary => "Canary",
            Self::Promoting => "Promoting",
            Self::Watching => "Watching",
            Self::Returning => "Returning",
            Self::Rejected => "Rejected",
            Self::NotProven => "NotProven",
            Self::Observing => "Observing",
            Self::Released => "Released",
        }
    }
}

/// Words for printer columns and `status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// Step of the run and number of steps, such as `3/6`.
    #[serde(default)]
    pub step: String,
    /// Weight asked for the canary, such as `20%`.
    #[serde(default)]
    pub weight: String,
    /// Share of requests that met the canary, such as `19.6%`.
    #[serde(default)]
    pub observed: String,
    /// Risk class of the run or the held revision.
    #[serde(default)]
    pub risk_class: String,
    /// Provenance of the run or the held revision.
    #[serde(default)]
    pub provenance: String,
    /// Commit of the run or the held revision, shortened.
    #[serde(default)]
    pub commit: String,
    /// One word for what it waits for.
    #[serde(default)]
    pub reason: String,
}

/// A wait: what for, since when, and until when at most.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Waiting {
    /// One CamelCase word for programs.
    pub reason: String,
    /// A sentence for people.
    pub message: String,
    /// Since when this reason holds.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub since: Timestamp,
    /// When the wait ends by itself; absent when only a person or a new template ends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub deadline: Option<Timestamp>,
}

/// One pod template, and the ReplicaSet that runs it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Revision {
    /// SHA-256 over the pod template (RFC 8785 JSON, without its hash label).
    pub digest: String,
    /// The same without restart annotations: a restart does not make a rejected revision a new one.
    pub restart_digest: String,
    /// Value of `pod-template-hash` on its pods.
    pub hash: String,
    /// Name of its ReplicaSet.
    pub replica_set: String,
    /// Container images in the order of the template.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<String>,
    /// Source commit, when declared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
}

/// What a change is allowed, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlanStatus {
    /// Digest of the plan: SHA-256 over all that it allows.
    pub digest: String,
    /// Risk class, R0 (lowest risk) to R4.
    #[schemars(with = "RiskClass")]
    pub risk_class: Option<RiskClass>,
    /// Points of the inputs together: 0 to 2 is R0, 3 to 5 R1, 6 to 9 R2, 10 to 13 R3, more is R4.
    pub points: i32,
    /// The inputs of the class with their points, and the lowest class that decided, if one did.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub factors: Vec<Factor>,
    /// Where each limit comes from: objects with the limits that they gave.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limit_sources: Vec<LimitSource>,
    /// Steps, the last at 100 percent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<StepSpec>,
    /// Sign-offs that it needs before it starts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub required_signoffs: Vec<Signoff>,
    /// What the plan would catch, from stable's record; no part of its digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub harm: Option<PlanHarm>,
}

impl PlanStatus {
    /// The provenance that counts for limits and caps: what the policies believe, not what is claimed.
    pub fn believed(&self) -> Option<&str> {
        let factor = self.factors.iter().find(|factor| factor.name == "provenance");
        factor.map(|factor| factor.level.as_str())
    }
}

/// A place in the queue of those that wait for the same room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct QueueStatus {
    /// From 1 on; beyond 10 rounded up to tens, beyond 100 to hundreds.
    pub position: i32,
    /// How many wait, rounded in the same way.
    pub length: i32,
    /// The room that there is not: Namespace (rollouts of the namespace), NotHuman (changes of the cluster that are not Human)
    /// or Class (changes of the class or a riskier one).
    pub room: QueueRoom,
}

/// Room for rollouts in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum QueueRoom {
    /// Rollouts of the namespace.
    Namespace,
    /// Changes of the cluster that are not `Human`.
    NotHuman,
    /// Changes of the cluster that are of the class or a riskier one.
    Class,
}

/// A held template that is not under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HeldRevision {
    /// Digest of the held template.
    pub digest: String,
    /// Since when it is held.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub since: Timestamp,
    /// Provenance it would start with.
    pub provenance: Provenance,
    /// Source commit that describes it, as far as it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// Commit of a template that was held before this one and never started. It does not describe this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub earlier_commit: Option<String>,
    /// Alerts that were firing when it was first seen: they are not its fault.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub known_alerts: Vec<KnownAlert>,
    /// Since when alerts keep it from starting: one that fires, or that they can't be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub alerts_since: Option<Timestamp>,
    /// Why the last run of this template ended, when it may not start again by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<EndedRun>,
}

/// The end of a run whose template is still held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EndedRun {
    /// The run.
    pub run_id: String,
    /// How it ended.
    pub outcome: Outcome,
    /// One CamelCase word for programs.
    pub reason: String,
    /// A sentence for people.
    pub message: String,
    /// Digest of `spec.change` then: a changed one may start again after NotProven.
    pub change_digest: String,
}

/// A rejected revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Quarantined {
    /// Digest of its template.
    pub digest: String,
    /// Digest without restart annotations.
    pub restart_digest: String,
    /// The run that rejected it.
    pub run_id: String,
    /// One CamelCase word for programs: why it was rejected.
    pub reason: String,
    /// A sentence for people.
    pub message: String,
    /// When it was rejected.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub at: Timestamp,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Outcome {
    /// The canary became stable and passed its watched period.
    Promoted,
    /// A guard, an alert, its own pods or a person stopped it; it can't run again without `retry`.
    Rejected,
    /// Too little evidence in time; not quarantined.
    NotProven,
    /// It was taken back after promotion.
    Reverted,
    /// A newer template took its place.
    Superseded,
    /// The workload, the rollout or the installation went away, break-glass was used, or a person ended an
    /// observation.
    Abandoned,
}

impl Outcome {
    /// All outcomes.
    pub const ALL: [Self; 6] =
        [Self::Promoted, Self::Rejected, Self::NotProven, Self::Reverted, Self::Superseded, Self::Abandoned];

    /// The name as it appears in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Promoted => "Promoted",
            Self::Rejected => "Rejected",
            Self::NotProven => "NotProven",
            Self::Reverted => "Reverted",
            Self::Superseded => "Superseded",
            Self::Abandoned => "Abandoned",
        }
    }
}

/// An ended run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunRecord {
    /// The run.
    pub id: String,
    /// How it ended: Promoted, Rejected, NotProven, Reverted, Superseded or Abandoned.
    pub outcome: Outcome,
    /// One CamelCase word for programs.
    pub reason: String,
    /// A sentence for people.
    pub message: String,
    /// Risk class of the change, R0 (lowest risk) to R4.
    pub risk_class: RiskClass,
    /// Digest of the plan that was in force at the end.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub plan_digest: String,
    /// Provenance that the class follows from.
    pub provenance: Provenance,
    /// Digest of the template that was tried.
    pub digest: String,
    /// Container images of the template.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<String>,
    /// Source commit, when declared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// Largest weight that was asked for.
    pub max_weight_percent: i32,
    /// When it began.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub started_at: Timestamp,
    /// When it ended.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub ended_at: Timestamp,
    /// When the first weight above 0 was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub exposed_since: Option<Timestamp>,
    /// When weight 0 was verified, or promotion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub exposed_until: Option<Timestamp>,
}

/// A person's request, as it was seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LatchedRequest {
    /// The annotation as written, `<verb>/<runID>` or `<verb>/<runID>/<nonce>`.
    pub value: String,
    /// When it was seen.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub at: Timestamp,
    /// What came of it.
    pub answer: String,
}

/// One guard's view of the run under way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GuardStatus {
    /// Name of the guard.
    pub name: String,
    /// Ok, or the reason why it has no say: NoData, NotANumber, Stale, MultipleSeries, QueryError,
    /// ProviderDown; for alerts Clear, Firing, PreExisting, Silenced, SourceMissing; for a metric InRange or OutOfRange
    /// instead of Ok.
    pub state: String,
    /// Score in thousandths; the run is aborted at 1000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score_permille: Option<i64>,
    /// Canary requests since the step began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary_requests: Option<i64>,
    /// Failed canary requests since the step began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary_failed: Option<i64>,
    /// Stable requests since the step began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stable_requests: Option<i64>,
    /// Failed stable requests since the step began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stable_failed: Option<i64>,
    /// Canary requests that this step needs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub needed_requests: Option<i64>,
    /// Log of the odds for the canary, as a share of what the next weight needs, in thousandths: at 1000, and with the
    /// requests needed, the guard lets the weight rise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate_permille: Option<i64>,
    /// How stable's failures cluster, in thousandths: the variance of their number over its mean, 1000 when they are
    /// independent. The more they cluster, the less each says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst_permille: Option<i64>,
    /// A sentence for people.
    pub message: String,
}

/// Weight asked for and seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TrafficStatus {
    /// Percent of the traffic asked for the canary, 0 to 100.
    pub weight_percent: i32,
    /// Whether every route was accepted by its gateway at this weight.
    pub accepted: bool,
    /// Whether the settle time is over.
    pub settled: bool,
    /// Share of requests that met the canary since the step began, in thousandths.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_permille: Option<i32>,
    /// Larger of weight and pod share: the exposure of callers past the routes, in thousandths.
    pub exposure_permille: i32,
    /// Foreign overwrites in this run.
    pub overwrites: i32,
}
