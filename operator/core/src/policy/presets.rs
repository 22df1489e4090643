//! Policies that are shipped: for a start, for most, for what must not fail, and for the demo.

use serde::{Deserialize, Serialize};

use crate::api::{
    BlastRadius, ClusterRiskPolicySpec, Floor, FloorWhen, PolicyClass, PolicyLimits, Provenance,
    ProvenancePolicy, RiskClass, Tier, TierMapping,
};

const MINUTE: i32 = 60;

/// Rows that only say when a change may start, R0 to R4: most in flight of the namespace, not `Human` and of the class, and the
/// cooldown in seconds.
fn starts(columns: [(i32, i32, i32, i32); 5]) -> Vec<PolicyClass> {
    let row = |(name, (namespace, not_human, of_class, cooldown))| PolicyClass {
        max_in_flight_per_namespace: Some(namespace),
        max_in_flight_not_human: Some(not_human),
        max_in_flight_of_class: Some(of_class),
        cooldown_seconds: Some(cooldown),
        ..PolicyClass::of(name)
    };
    RiskClass::ALL.into_iter().zip(columns).map(row).collect()
}

/// A policy that is shipped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Preset {
    /// Few users, many releases a day: a workload is harmless unless its namespace says otherwise.
    Startup,
    /// A workload is critical unless its namespace says otherwise, and a person's word needs a scan there.
    #[default]
    Standard,
    /// What must not fail: nothing is below R2, what no scan confirmed is no person's, and the first step is 1 %.
    Critical,
    /// The demo and the tests. Not for production: every workload is harmless.
    Demo,
}

impl Preset {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Startup, Self::Standard, Self::Critical, Self::Demo];

    /// The name as it appears in settings.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Startup => "startup",
            Self::Standard => "standard",
            Self::Critical => "critical",
            Self::Demo => "demo",
        }
    }

    /// The policy.
    pub fn spec(self) -> ClusterRiskPolicySpec {
        let tier = |default| TierMapping { default, ..TierMapping::default() };
        let floor = |provenance_at_least, class| Floor {
            when: FloorWhen { provenance_at_least, ..FloorWhen::default() },
            class,
        };
        let assisted = |applies_to_tier_at_most| {
            Some(ProvenancePolicy { unverified_human_as: Provenance::GenAIAssisted, applies_to_tier_at_most })
        };
        match self {
            Self::Startup => ClusterRiskPolicySpec {
                tier_mapping: tier(Tier::Tier3),
                classes: starts([
                    (20, 20, 1000, 0),
                    (20, 20, 1000, 0),
                    (10, 10, 1000, 15 * MINUTE),
                    (5, 5, 1000, 60 * MINUTE),
                    (2, 2, 2, 240 * MINUTE),
                ]),
                ..Default::default()
            },
            Self::Standard => {
                ClusterRiskPolicySpec { provenance: assisted(Some(Tier::Tier1)), ..Default::default() }
            }
            Self::Critical => ClusterRiskPolicySpec {
                blast_radius: BlastRadius::Region,
                floors: vec![
                    floor(None, RiskClass::R2),
                    floor(Some(Provenance::GenAIAssisted), RiskClass::R3),
                ],
                provenance: assisted(None),
                limits: PolicyLimits { max_first_step_percent: Some(1), ..PolicyLimits::default() },
                classes: starts([
                    (3, 2, 1000, 60 * MINUTE),
                    (3, 2, 1000, 60 * MINUTE),
                    (3, 2, 1000, 240 * MINUTE),
                    (1, 1, 2, 1440 * MINUTE),
                    (1, 1, 1, 1440 * MINUTE),
                ]),
                ..Default::default()
            },
            Self::Demo => ClusterRiskPolicySpec {
                tier_mapping: tier(Tier::Tier3),
                blast_radius: BlastRadius::Cell,
                floors: vec![floor(Some(Provenance::GenAIAutonomous), RiskClass::R3)],
                classes: starts([(1000, 1000, 1000, 0); 5]),
                ..Default::default()
            },
        }
    }
}
