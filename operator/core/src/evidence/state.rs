//! What the evidence remembers between two evaluations. It is stored in the rollout's status, so that a
//! restart neither forgets a fault nor refreshes the budget for false aborts.

use super::alerts::AlertGuardState;
use super::counts::Arm;
use super::gauge::GaugeState;
use super::kills::Kills;
use crate::statistics::{self, Counts};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// What is known about a guard's data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum DataState {
    /// Fresh counters of every arm that is needed.
    Ok,
    /// The provider answers, but has no series of an arm.
    #[default]
    NoData,
    /// A value is NaN, infinite or negative.
    NotANumber,
    /// The newest sample is older than two scrapes.
    Stale,
    /// Several series where one is expected.
    MultipleSeries,
    /// The histograms have no bounds around the limit that all pods share.
    NoCommonBuckets,
    /// The provider refused the query.
    QueryError,
    /// The provider can't be reached, or did not answer in time.
    ProviderDown,
}

impl DataState {
    /// The name as it appears in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "Ok",
            Self::NoData => "NoData",
            Self::NotANumber => "NotANumber",
            Self::Stale => "Stale",
            Self::MultipleSeries => "MultipleSeries",
            Self::NoCommonBuckets => "NoCommonBuckets",
            Self::QueryError => "QueryError",
            Self::ProviderDown => "ProviderDown",
        }
    }
}

/// Evidence of one run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EvidenceState {
    /// Guards that count requests.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub guards: Vec<GuardState>,
    /// Guards that watch alerts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alerts: Vec<AlertGuardState>,
    /// Since when stable itself fails, by any guard that decides, without a break.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incident_since: Option<Timestamp>,
    /// Why the traffic before the run is too low for its plan, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub low_traffic: Option<String>,
    /// Guards that watch a value.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gauges: Vec<GaugeState>,
}

impl EvidenceState {
    /// State of a counting guard, new if it has none.
    pub fn guard_mut(&mut self, name: &str) -> &mut GuardState {
        let i = match self.guards.iter().position(|g| g.name == name) {
            Some(i) => i,
            None => {
                self.guards.push(GuardState { name: name.into(), ..GuardState::default() });
                self.guards.len() - 1
            }
        };
        &mut self.guards[i]
    }

    /// State of a counting guard.
    pub fn guard(&self, name: &str) -> Option<&GuardState> {
        self.guards.iter().find(|g| g.name == name)
    }

    /// State of an alert guard, new if it has none.
    pub fn alert_mut(&mut self, name: &str) -> &mut AlertGuardState {
        let i = match self.alerts.iter().position(|g| g.name == name) {
            Some(i) => i,
            None => {
                self.alerts.push(AlertGuardState { name: name.into(), ..AlertGuardState::default() });
                self.alerts.len() - 1
            }
        };
        &mut self.alerts[i]
    }

    /// State of a guard on a value, new if it has none.
    pub fn gauge_mut(&mut self, name: &str) -> &mut GaugeState {
        let i = match self.gauges.iter().position(|g| g.name == name) {
            Some(i) => i,
            None => {
                self.gauges.push(GaugeState { name: name.into(), ..GaugeState::default() });
                self.gauges.len() - 1
            }
        };
        &mut self.gauges[i]
    }

    /// State of an alert guard.
    pub fn alert(&self, name: &str) -> Option<&AlertGuardState> {
        self.alerts.iter().find(|g| g.name == name)
    }
}

/// Evidence of one guard that counts requests.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GuardState {
    /// Name of the guard.
    pub name: String,
    /// How long a request takes that counts, in seconds, where that follows from what was usual for stable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bound: Option<f64>,
    /// What is known about its data.
    #[serde(default)]
    pub data: DataState,
    /// Since when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_since: Option<Timestamp>,
    /// The trouble with the data, for people; empty when there is none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub data_message: String,
    /// Time of the last sample that was taken in, good or not: it is not taken in twice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<Timestamp>,
    /// Milliseconds without usable data; reset by three good windows in a row.
    #[serde(default)]
    pub no_data_millis: i64,
    /// Milliseconds without usable data since the step began.
    #[serde(default, skip_serializing_if = "is_none_yet")]
    pub step_no_data_millis: i64,
    /// Good windows in a row, at most 3.
    #[serde(default)]
    pub good_windows: i32,
    /// Milliseconds of evaluated, usable windows since the step began.
    #[serde(default)]
    pub healthy_millis: i64,
    /// The step that the counts below belong to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<StepKey>,
    /// Requests since the step's window began.
    #[serde(default)]
    pub counts: PairCounts,
    /// Requests in that time that don't count, since they met pods that were cold.
    #[serde(default, skip_serializing_if = "ColdCounts::is_none")]
    pub cold: ColdCounts,
    /// Stable's requests since it has the traffic back from a revision that was judged without it.
    #[serde(default, skip_serializing_if = "ArmCounts::is_none")]
    pub returned: ArmCounts,
    /// Containers that were killed for want of memory in the last ten minutes, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kills: Vec<Kills>,
    /// Counters at the start of the next window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<Start>,
    /// When counting began anew, after a gap that ended with other pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anew: Option<Timestamp>,
    /// When the source was last in trouble, while the end of a gap waits for pods that are not back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub returning: Option<Timestamp>,
    /// Scrapes between which no request reached the canary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quiet: Option<Quiet>,
    /// What the counts prove so far.
    #[serde(default, skip_serializing_if = "is_new")]
    pub weighed: statistics::GuardState,
}

fn is_none_yet(millis: &i64) -> bool {
    *millis == 0
}

fn is_new(state: &statistics::GuardState) -> bool {
    *state == statistics::GuardState::default()
}

/// Which step, in which window, at which weight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StepKey {
    /// Index of the step, from 0.
    pub index: i32,
    /// Weight of the canary in percent.
    pub weight_percent: i32,
    /// Whether this is the watched period after promotion.
    #[serde(default)]
    pub watch: bool,
    /// When the weight was live.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window_start: Option<Timestamp>,
}

impl StepKey {
    /// Whether both mean the same window. Times in objects of Kubernetes may have lost their fractions of a
    /// second.
    pub(super) fn same(&self, other: &Self) -> bool {
        let start = match (self.window_start, other.window_start) {
            (Some(a), Some(b)) => millis(a, b).abs() < 1000,
            (a, b) => a == b,
        };
        start
            && self.index == other.index
            && self.weight_percent == other.weight_percent
            && self.watch == other.watch
    }
}

/// Milliseconds from `from` to `to`, saturating.
pub(super) fn millis(from: Timestamp, to: Timestamp) -> i64 {
    to.as_millisecond().saturating_sub(from.as_millisecond())
}

/// Whether a time was written by a clock that is ahead of ours, as that of another node before a failover. In order,
/// they differ by less.
pub(crate) fn is_ahead(at: Timestamp, now: Timestamp) -> bool {
    millis(now, at) > 30_000
}

/// Requests of one arm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ArmCounts {
    /// Requests.
    #[serde(default)]
    pub n: f64,
    /// Failed requests.
    #[serde(default)]
    pub x: f64,
}

impl ArmCounts {
    fn is_none(&self) -> bool {
        *self == Self::default()
    }

    pub(super) fn get(self) -> Counts {
        Counts::new(self.n, self.x)
    }

    pub(super) fn add(&mut self, more: Counts) {
        let sum = self.get().plus(more);
        *self = Self { n: sum.n, x: sum.x };
    }
}

/// Requests of both arms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PairCounts {
    /// Requests that met the canary.
    #[serde(default)]
    pub canary: ArmCounts,
    /// Requests that met stable.
    #[serde(default)]
    pub stable: ArmCounts,
}

/// Requests that met cold pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ColdCounts {
    /// Of the canary.
    #[serde(default)]
    pub canary: f64,
    /// Of stable.
    #[serde(default)]
    pub stable: f64,
}

impl ColdCounts {
    fn is_none(&self) -> bool {
        *self == Self::default()
    }

    pub(super) fn add(&mut self, arm: Arm, n: f64) {
        match arm {
            Arm::Canary => self.canary += n,
            Arm::Stable => self.stable += n,
        }
    }
}

/// Starting counters of a window.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Start {
    /// When they were read.
    pub at: Timestamp,
    /// The step in force then.
    pub step: StepKey,
    /// The number of the next new pod: none is used twice.
    #[serde(default)]
    pub next_pod: u32,
    /// Counters per pod.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pods: Vec<PodStart>,
}

/// Scrapes of the canary between which its counters did not move.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quiet {
    /// The first of them.
    pub since: Timestamp,
    /// The last of them.
    pub until: Timestamp,
}

/// Starting counters of one pod or router instance.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PodStart {
    /// Pod or router instance; empty for a source without them.
    #[serde(default)]
    pub id: String,
    /// The revision it belongs to.
    pub arm: Arm,
    /// Its number in the run.
    #[serde(default)]
    pub pod: u32,
    /// When the source took the sample.
    #[serde(default = "long_ago")]
    pub at: Timestamp,
    /// All counted requests.
    pub total: f64,
    /// Failed requests; absent while there was no error series.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bad: Option<f64>,
    /// Requests that may be bad, where the measure is coarse; absent where they are those above.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maybe_bad: Option<f64>,
    /// Windows since it was last seen.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub gone: i32,
    /// Requests that a new pod has answered; absent once it has had as many as it needs to be warm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cold: Option<f64>,
}

/// Counters of unknown age only start a window.
fn long_ago() -> Timestamp {
    Timestamp::UNIX_EPOCH
}

fn is_zero(v: &i32) -> bool {
    *v == 0
}
