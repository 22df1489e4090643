//! Levels of risk as people and policies write them, and what a plan says of them.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Provenance, RiskClass};

/// How much of the traffic, or of the users, a fault of the workload can hurt. Ordered by risk.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum BlastRadius {
    /// One cell: up to 1 %.
    Cell,
    /// One zone: up to 10 %.
    #[default]
    Zone,
    /// One region: up to 50 %.
    Region,
    /// Everything.
    Global,
}

/// How critical a workload is. Ordered by risk: tier 0 is the most critical.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum Tier {
    /// Nobody waits for it.
    Tier3,
    /// It can be away for a while.
    Tier2,
    /// Users notice at once.
    #[default]
    Tier1,
    /// Everything else depends on it.
    Tier0,
}

/// How new the kind of change is for the workload. Ordered by risk.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum Novelty {
    /// As often before.
    Routine,
    /// A kind of change that the workload did not have lately.
    #[default]
    NewKind,
    /// The first rollout, a migration or a new dependency.
    First,
}

/// What the owner of a workload says of its risk besides. It can only raise what the policies say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeclaredRisk {
    /// How much of the traffic a fault can hurt: Cell (up to 1 %), Zone (up to 10 %), Region (up to 50 %) or Global. The
    /// larger of this and what the policies say counts. Default: what the policies say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "BlastRadius")]
    pub blast_radius: Option<BlastRadius>,
    /// How critical the workload is: Tier3, Tier2, Tier1 or Tier0, the most critical. The more critical of this and what the
    /// policies say counts. Default: what the policies say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Tier")]
    pub tier: Option<Tier>,
    /// How new the kind of change is: Routine, NewKind, or First (the first rollout, a migration, a new dependency). The
    /// higher of this and what is known counts. Default: what is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Novelty")]
    pub novelty: Option<Novelty>,
}

/// Which changes a floor is about: those at or above every level that is set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FloorWhen {
    /// Changes of at least this provenance, in the order Human, GenAIAssisted, Unknown, GenAIAutonomous. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Provenance")]
    pub provenance_at_least: Option<Provenance>,
    /// Workloads of this tier or a more critical one: Tier1 means Tier1 and Tier0. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Tier")]
    pub tier_at_most: Option<Tier>,
    /// Workloads of at least this blast radius, in the order Cell, Zone, Region, Global. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "BlastRadius")]
    pub blast_radius_at_least: Option<BlastRadius>,
}

/// The lowest class that some changes can have, whatever their points.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Floor {
    /// Which changes it is about.
    #[serde(default)]
    pub when: FloorWhen,
    /// Their lowest class, R0 to R4.
    pub class: RiskClass,
}

/// One input of the risk of a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Factor {
    /// Which one: provenance, blastRadius, tier, size, novelty, authorHistory, lastFailure or errorBudget; floor for a lowest
    /// class that decided.
    pub name: String,
    /// Its level.
    pub level: String,
    /// Points that it adds.
    pub points: i32,
    /// Where the level comes from.
    pub source: String,
}

/// The limits of a plan that come from one object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LimitSource {
    /// The object, such as `class R2` or `RiskPolicy/shop`.
    pub from: String,
    /// Their values by the names of their fields, which have the units.
    #[serde(default)]
    pub limits: BTreeMap<String, String>,
}
