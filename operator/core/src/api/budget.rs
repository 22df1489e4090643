//! The error budget: how policies ask for it, and what status remembers of the answers.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ChangeKind;

/// What is left of the error budget of workloads, as an input of risk. Of several policies each is asked, and the least
/// that is left counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ErrorBudgetPolicy {
    /// PromQL that yields one number for a workload: the share of its error budget that is left, 1 when nothing is spent and
    /// 0 or less when all is. $namespace, $service (`spec.routing.service`), $pods and $stablePods (a regular expression for
    /// the names of the stable pods) are filled in. 1 to 2000 characters.
    #[schemars(length(min = 1, max = 2000))]
    pub query: String,
    /// What happens while nothing is left: Freeze, no run starts, or Ignore. A return to a recorded good revision and a run
    /// under way go on in either case. Default Freeze.
    #[serde(default)]
    pub on_exhausted: OnExhausted,
    /// Kinds of changes (`spec.change.kind`) that start all the same, at most 8: Code, Config, FeatureFlag, Dependency, Infra
    /// or Security. Default none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub exempt_kinds: Vec<ChangeKind>,
}

/// What happens while nothing is left of an error budget.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnExhausted {
    /// No run starts.
    #[default]
    Freeze,
    /// It counts as a risk, and no more.
    Ignore,
}

/// What was left of the error budget by one policy's query, when it was last known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ErrorBudgetStatus {
    /// The policy that asks, such as `RiskPolicy/shop`.
    pub policy: String,
    /// Share of the budget that was left, in whole percent rounded down; negative when more than all was spent.
    pub remaining_percent: i32,
    /// When this was first seen; renewed every few hours while it stays so.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub seen_at: Timestamp,
}
