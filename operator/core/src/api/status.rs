//! What the controller answers: phase, the run under way, what was learned, what it waits for.
//!
//! Status remembers only what the world cannot tell: the frozen plan, the step, when things began, and
//! what people asked for. Everything else is read from the objects again on every pass.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ApexCallers, Condition, Guard, Provenance, RouteRef, StepSpec};
use crate::evidence::{EvidenceState, KnownAlert};

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
    /// The run under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<Run>,
    /// Runs that were ever started on this object.
    #[serde(default)]
    pub run_count: i64,
    /// Revisions that were promoted and watched, newest first, at most 10: returning to one is a revert.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub good: Vec<Revision>,
    /// Revisions that were rejected, newest first, at most 20: they can't run again without `retry`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub quarantine: Vec<Quarantined>,
    /// Ended runs, newest first, at most 20.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<RunRecord>,
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
    /// when an autoscaler scales the workload.
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

/// Risk class: what a change is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum RiskClass {
    /// Lowest risk.
    R0,
    /// Low risk.
    R1,
    /// Medium risk.
    R2,
    /// High risk.
    R3,
    /// Highest risk.
    R4,
}

impl RiskClass {
    /// All classes, lowest risk first.
    pub const ALL: [Self; 5] = [Self::R0, Self::R1, Self::R2, Self::R3, Self::R4];

    /// The name as it appears in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::R0 => "R0",
            Self::R1 => "R1",
            Self::R2 => "R2",
            Self::R3 => "R3",
            Self::R4 => "R4",
        }
    }
}

/// A tolerated rise of a bad ratio: `relative x stable + absolute`, in parts per million.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TolerancePpm {
    /// Tolerated rise relative to stable's ratio, in parts per million (150000 is 15 % of it).
    pub relative: i32,
    /// Tolerated rise on top, in parts per million of all requests (200 is 0.02 %).
    pub absolute: i32,
}

/// Limits and steps frozen for one revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// SHA-256 over the plan.
    pub digest: String,
    /// Risk class, R0 (lowest risk) to R4.
    pub risk_class: RiskClass,
    /// Provenance that the class follows from.
    pub provenance: Provenance,
    /// Steps, the last at 100 percent.
    pub steps: Vec<StepSpec>,
    /// Tolerance of the comparison with stable.
    pub tolerance_ppm: TolerancePpm,
    /// Canary requests needed before weight 100; scaled by the next weight for lower steps.
    pub min_samples: i32,
    /// Without fresh data for this long, traffic returns to stable, in seconds.
    pub no_data_seconds: i32,
    /// How long the old revision stays warm after promotion, in seconds.
    pub watch_seconds: i32,
    /// How long the canary may take to become ready, in seconds.
    pub progress_deadline_seconds: i32,
    /// Wait for `resume` before the weight rises to this percentage or more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause_before_percent: Option<i32>,
    /// The apex Service.
    pub service: String,
    /// The Service that carries stable's share.
    pub stable_service: String,
    /// The Service that carries the canary's share.
    pub canary_service: String,
    /// Routes that carry the pair.
    pub routes: Vec<RouteRef>,
    /// Whether anything calls the apex Service past the routes.
    pub apex_callers: ApexCallers,
    /// How long a weight needs to reach every proxy after the gateway accepted it, in seconds.
    pub settle_seconds: i32,
    /// How long requests in flight may take after weight 0, in seconds.
    pub drain_seconds: i32,
    /// Guards in force.
    pub guards: Vec<Guard>,
}

/// Why a run exists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RunKind {
    /// A new revision is tried.
    #[default]
    Canary,
    /// A recorded good revision comes back: straight, behind the capacity check only.
    Return,
    /// Mode Observe: a native roll is judged, not touched.
    Observe,
}

/// Where a run stands. Within a stage, progress is read from the objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Stage {
    /// Hide history, pin Services, bring up the first canary pod.
    Preparing,
    /// Expose, observe, decide, step by step.
    Stepping,
    /// Warm swap: the canary becomes the workload's own ReplicaSet.
    Promoting,
    /// The new revision is judged while the old one is warm.
    Watching,
    /// Scale the old revision down, un-pin, restore history.
    Finishing,
    /// Traffic, then pods, go back to stable.
    Returning,
}

/// One plan carried out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Run {
    /// Name of the run, used by requests: `<number>-<hash>`.
    pub id: String,
    /// Why the run exists. Canary: a new revision is tried. Return: a recorded good revision comes back. Observe: a
    /// native roll is judged, not touched.
    #[serde(default)]
    pub kind: RunKind,
    /// The revision that is tried.
    pub canary: Revision,
    /// The revision that served when the run began, and to which traffic returns.
    pub stable: Revision,
    /// Limits and steps.
    pub plan: Plan,
    /// Where it stands: Preparing, Stepping, Promoting, Watching, Finishing or Returning.
    pub stage: Stage,
    /// Index of the step, from 0.
    #[serde(default)]
    pub step: i32,
    /// When the run began.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub started_at: Timestamp,
    /// When the stage, or the step in it, began.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub stage_since: Timestamp,
    /// The weight asked for in this step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<WeightIntent>,
    /// Largest weight that was asked for.
    #[serde(default)]
    pub max_weight_percent: i32,
    /// When the first weight above 0 was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub exposed_since: Option<Timestamp>,
    /// When weight 0 was verified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub exposed_until: Option<Timestamp>,
    /// Foreign overwrites of our weights in this step.
    #[serde(default)]
    pub overwrites: i32,
    /// Foreign overwrites of our weights in this run.
    #[serde(default)]
    pub overwrites_total: i32,
    /// Set after too many overwrites in one step: the canary stays at weight 0 until `resume` or the deadline.
    #[serde(default)]
    pub overwritten: bool,
    /// A person asked to pause.
    #[serde(default)]
    pub paused: bool,
    /// A person let it pass `pauseBeforePercent`.
    #[serde(default)]
    pub released_gate: bool,
    /// The new revision was released to the workload: from here going back is a revert.
    #[serde(default)]
    pub released: bool,
    /// Why the run goes back; once set it stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub going_back: Option<GoingBack>,
    /// Since when stable has fewer ready pods than it had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub stable_short_since: Option<Timestamp>,
    /// Since when stable waits for pods that a larger size asks for, without progress.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub stable_growing_since: Option<Timestamp>,
    /// Stable pods that count as there, as many as the workload had at the start or as were ready since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stable_size: Option<i32>,
    /// Since when fewer canary pods are ready than the weight needs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub canary_short_since: Option<Timestamp>,
    /// Since when ready canary pods have more traffic than they can carry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub overloaded_since: Option<Timestamp>,
    /// How often the weight was lowered in this step to what ready canary pods can carry.
    #[serde(default)]
    pub lowered: i32,
    /// Since when the run waits for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub hold_since: Option<Timestamp>,
    /// When a person last let it go on in this step: the step's deadline counts from here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub resumed_at: Option<Timestamp>,
    /// When it was last noted that a controller attends the run, at most once a minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub attended_at: Option<Timestamp>,
    /// Seconds without any controller by which deadlines of the run's progress were moved, in all.
    #[serde(default)]
    pub absent_seconds: i64,
    /// Alerts that were firing before the revision was exposed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub known_alerts: Vec<KnownAlert>,
    /// State of the evidence, so that a restart neither forgets nor refreshes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<EvidenceState>,
}

impl Run {
    /// A run that begins now.
    pub fn new(
        id: String,
        kind: RunKind,
        canary: Revision,
        stable: Revision,
        plan: Plan,
        at: Timestamp,
    ) -> Self {
        Self {
            id,
            kind,
            canary,
            stable,
            plan,
            stage: Stage::Preparing,
            step: 0,
            started_at: at,
            stage_since: at,
            weight: None,
            max_weight_percent: 0,
            exposed_since: None,
            exposed_until: None,
            overwrites: 0,
            overwrites_total: 0,
            overwritten: false,
            paused: false,
            released_gate: false,
            released: false,
            going_back: None,
            stable_short_since: None,
            stable_growing_since: None,
            stable_size: None,
            canary_short_since: None,
            overloaded_since: None,
            lowered: 0,
            hold_since: None,
            resumed_at: None,
            attended_at: Some(at),
            absent_seconds: 0,
            known_alerts: Vec::new(),
            evidence: None,
        }
    }
}

/// A weight asked of the router.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WeightIntent {
    /// Percent of the traffic for the canary, 0 to 100.
    pub percent: i32,
    /// When it was asked for.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub at: Timestamp,
    /// When every route was seen with this weight and accepted by its gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub accepted_at: Option<Timestamp>,
    /// When the settle time was over: the analysis window starts here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub settled_at: Option<Timestamp>,
}

/// Why and how far a run goes back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GoingBack {
    /// The outcome that the run will have.
    pub outcome: Outcome,
    /// One CamelCase word for programs.
    pub reason: String,
    /// A sentence for people.
    pub message: String,
    /// When it was decided.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub since: Timestamp,
    /// When all routes were seen at weight 0 and accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub back_at: Option<Timestamp>,
    /// When weight 0 was verified: settled, and no request seen or drained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub verified_at: Option<Timestamp>,
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
    /// ProviderDown; for alerts Clear, Firing, PreExisting, Silenced, SourceMissing.
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
