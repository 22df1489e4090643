//! What a plan would catch, and at what cost, as status shows it.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a plan would catch, from an hour of stable's record before the start. It decides nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlanHarm {
    /// When stable's record was read; absent while it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub read_at: Option<Timestamp>,
    /// What each guard would see that counts requests and decides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub guards: Vec<GuardHarm>,
    /// Why it is not known, or why the traffic is too low for the plan and what helps; empty otherwise.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// What one guard would see of a change whose requests fail ten times as often as stable's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GuardHarm {
    /// Name of the guard.
    pub name: String,
    /// Requests of stable in an hour.
    pub stable_requests_per_hour: i64,
    /// Of them failed, or slow, in parts per million.
    pub stable_failed_ppm: i32,
    /// The supposed fault: requests of the change that fail from the start, in parts per million. Ten times stable's, or 1 %
    /// where stable has none.
    pub supposed_failed_ppm: i32,
    /// The smallest share of failures that the first step takes back within its bake, with 95 %, in parts per million;
    /// absent if not even all failing is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_step_aborts_from_ppm: Option<i32>,
    /// Failed requests more than stable's until traffic is back, of the supposed fault, on average; absent if it is never
    /// found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub excess_failed_requests: Option<i64>,
    /// The same with 95 %.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub excess_failed_requests_p95: Option<i64>,
    /// Never more than this, even if no guard saw the supposed fault.
    pub excess_failed_requests_at_most: i64,
}
