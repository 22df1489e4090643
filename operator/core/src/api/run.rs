//! A run: the frozen plan, where it stands in it, and when things began.

use std::sync::Arc;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ApexCallers, Guard, Outcome, Provenance, Revision, RouteRef, StepSpec};
use crate::evidence::{EvidenceState, KnownAlert};

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

/// One row of the class table, as the evidence plays it: a class plays its own and those of all looser classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EvidenceRow {
    /// The class that adds the row.
    pub class: RiskClass,
    /// What is tolerated before it counts against the canary.
    pub tolerance_ppm: TolerancePpm,
    /// What promotion has to rule out: that the canary is worse than stable by this much.
    pub margin_ppm: TolerancePpm,
    /// Probability that a canary within tolerance is stopped by this row, in parts per million (2000 is 0.2 %).
    pub capital_ppm: i32,
    /// Probability, per step, that a canary at the margin passes, in parts per million (50000 is 5 %).
    pub gate_error_ppm: i32,
    /// Canary requests needed before weight 100; scaled by the next weight for lower steps.
    pub min_samples: i32,
    /// Steps of the class below weight 100.
    pub steps: i32,
    /// Planned time of the class below weight 100, in seconds.
    pub planned_seconds: i32,
    /// Planned time of the class at weight 100, in seconds.
    pub last_bake_seconds: i32,
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

impl TolerancePpm {
    /// The smaller of each.
    pub(crate) fn least(self, other: Self) -> Self {
        Self { relative: self.relative.min(other.relative), absolute: self.absolute.min(other.absolute) }
    }
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
    /// Rows of the class table that the evidence plays, loosest class first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rows: Vec<EvidenceRow>,
    /// Without fresh data for this long, traffic returns to stable, in seconds.
    pub no_data_seconds: i32,
    /// How long the old revision stays warm after promotion, in seconds.
    pub watch_seconds: i32,
    /// How long the canary may take to become ready, in seconds.
    pub progress_deadline_seconds: i32,
    /// Wait for `resume` before the weight rises to this percentage or more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause_before_percent: Option<i32>,
    /// Whether one canary pod's failures alone don't stop the rollout.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub abort_needs_two_pods: bool,
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
    /// What is known of the change, so that it counts for the class when `spec.change` goes on to the next one. Absent when
    /// nothing is.
    #[serde(default, skip_serializing_if = "KnownChange::is_nothing")]
    pub known_change: KnownChange,
    /// Commit of a template that was held before this one and never started. It does not describe this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub earlier_commit: Option<String>,
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
    /// Why the traffic of the hour before the run is too low for its plan, so that a good change would end as NotProven, and what
    /// helps. Absent while it is enough, or not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub low_traffic: Option<String>,
    /// What the guards have seen so far, so that a restart of the controller neither forgets nor refreshes it. Packed, and no
    /// API: base64 of zlib of JSON.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "crate::evidence::packed")]
    #[schemars(with = "Option<String>")]
    pub evidence: Option<Arc<EvidenceState>>,
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
            known_change: KnownChange::default(),
            earlier_commit: None,
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
            low_traffic: None,
            evidence: None,
        }
    }
}

/// What is known of a run's change besides who wrote it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KnownChange {
    /// Lines that were added or removed. Absent when nobody knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i32")]
    pub changed_lines: Option<i32>,
    /// Whether a scan confirmed who wrote it.
    #[serde(default)]
    pub scanned: bool,
}

impl KnownChange {
    fn is_nothing(&self) -> bool {
        *self == Self::default()
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
    /// Whether stable is judged for five minutes once it has the traffic back, before the revision is blamed: at weight 100
    /// it was judged without a stable beside it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub judges_stable: bool,
    /// When all routes were seen at weight 0 and accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub back_at: Option<Timestamp>,
    /// When weight 0 was verified: settled, and no request seen or drained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub verified_at: Option<Timestamp>,
}
