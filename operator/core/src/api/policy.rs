//! `ClusterRiskPolicy` and `RiskPolicy`: how much risk a platform team lets a cluster, or a namespace, take.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    BlastRadius, ErrorBudgetPolicy, Floor, PolicyCondition, Provenance, RiskClass, StepSpec, Tier,
    TolerancePpm,
};

/// Label of a namespace that says how critical its workloads are.
pub const LABEL_TIER: &str = "sluice.dev/tier";

/// How much risk the changes of a cluster may take. Of several policies the tightest of each limit counts. A version that is
/// refused changes nothing: the last accepted one stays in force.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[kube(
    group = "sluice.dev",
    version = "v1alpha1",
    kind = "ClusterRiskPolicy",
    plural = "clusterriskpolicies",
    category = "sluice",
    status = "ClusterRiskPolicyStatus",
    derive = "PartialEq",
    doc = "ClusterRiskPolicy says how much risk the changes of a cluster may take: how critical its workloads are, the class table, lowest classes, and limits for all. Of several policies the tightest of each limit counts.",
    printcolumn = r#"{"name":"Accepted","type":"string","jsonPath":".status.conditions[?(@.type=='Accepted')].status","description":"Whether the newest version is in force"}"#,
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.conditions[?(@.type=='Accepted')].reason","description":"Why"}"#,
    printcolumn = r#"{"name":"In force","type":"integer","jsonPath":".status.acceptedGeneration","description":"Generation that is in force"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp","description":"Age of the object"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct ClusterRiskPolicySpec {
    /// How critical workloads are. Default: what the namespace's label `sluice.dev/tier` says, and Tier1 without it.
    #[serde(default)]
    pub tier_mapping: TierMapping,
    /// How much of the traffic a fault of any workload can hurt: Cell (up to 1 %), Zone (up to 10 %), Region (up to 50 %) or
    /// Global. Namespaces and rollouts can raise it. Default Zone.
    #[serde(default)]
    pub blast_radius: BlastRadius,
    /// Rows of the class table, at most one of each class. A column that is left out keeps the value of the installation. A
    /// table in which a riskier class is looser in anything is refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 5))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".to_string()]))]
    pub classes: Vec<PolicyClass>,
    /// Lowest classes of some changes, at most 32, besides those that always hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub floors: Vec<Floor>,
    /// What is believed of who wrote a change. Default: what is claimed, joined with what is found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provenance: Option<ProvenancePolicy>,
    /// Where to read what is left of the error budget of a workload. Default none: it is no risk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_budget: Option<ErrorBudgetPolicy>,
    /// Limits of every plan, whatever its class. Default none.
    #[serde(default)]
    pub limits: PolicyLimits,
}

/// How much risk the changes of a namespace may take. It can only tighten what the cluster's policies say.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[kube(
    group = "sluice.dev",
    version = "v1alpha1",
    kind = "RiskPolicy",
    plural = "riskpolicies",
    category = "sluice",
    namespaced,
    status = "RiskPolicyStatus",
    derive = "PartialEq",
    doc = "RiskPolicy says how much risk the changes of a namespace may take. It can only tighten what the cluster's policies say.",
    printcolumn = r#"{"name":"Accepted","type":"string","jsonPath":".status.conditions[?(@.type=='Accepted')].status","description":"Whether the newest version is in force"}"#,
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.conditions[?(@.type=='Accepted')].reason","description":"Why"}"#,
    printcolumn = r#"{"name":"In force","type":"integer","jsonPath":".status.acceptedGeneration","description":"Generation that is in force"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp","description":"Age of the object"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct RiskPolicySpec {
    /// How critical the workloads of the namespace are: Tier3, Tier2, Tier1 or Tier0, the most critical. The more critical of
    /// this and what the cluster's policies say counts. Default: what they say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Tier")]
    pub tier: Option<Tier>,
    /// How much of the traffic a fault can hurt: Cell, Zone, Region or Global. The larger of this and what the cluster's
    /// policies say counts. Default: what they say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "BlastRadius")]
    pub blast_radius: Option<BlastRadius>,
    /// Rows that are joined with the class table, at most one of each class: of each column the tighter value counts, for the
    /// class and for every riskier one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 5))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".to_string()]))]
    pub classes: Vec<PolicyClass>,
    /// Lowest classes of some changes, at most 32, besides those of the cluster.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub floors: Vec<Floor>,
    /// What is believed of who wrote a change, besides what the cluster's policies say. Default none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provenance: Option<ProvenancePolicy>,
    /// Where to read what is left of the error budget of a workload, besides what the cluster's policies ask: the least that
    /// is left counts. Default none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_budget: Option<ErrorBudgetPolicy>,
    /// Limits of every plan, whatever its class. Default none.
    #[serde(default)]
    pub limits: PolicyLimits,
}

/// How critical workloads are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TierMapping {
    /// Label of the namespace whose value is Tier3, Tier2, Tier1 or Tier0, at most 317 characters. Default `sluice.dev/tier`.
    #[serde(default = "tier_label")]
    #[schemars(length(min = 1, max = 317))]
    pub namespace_label: String,
    /// Tier of a workload whose namespace does not have the label. A value that is no tier counts as Tier0. Default Tier1.
    #[serde(default)]
    pub default: Tier,
}

impl Default for TierMapping {
    fn default() -> Self {
        Self { namespace_label: tier_label(), default: Tier::default() }
    }
}

fn tier_label() -> String {
    LABEL_TIER.to_owned()
}

/// What is believed of who wrote a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProvenancePolicy {
    /// What a change counts as that is said to be Human and that no scan confirmed.
    pub unverified_human_as: Provenance,
    /// Only for workloads of this tier or a more critical one: Tier1 means Tier1 and Tier0. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Tier")]
    pub applies_to_tier_at_most: Option<Tier>,
}

/// Limits of every plan, whatever its class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyLimits {
    /// Largest weight of the first step, in percent, 1 to 100. Default: that of the class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub max_first_step_percent: Option<i32>,
    /// Shortest bake of every step, in seconds, 0 to 604800. Default: that of the class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 604_800))]
    pub min_bake_seconds: Option<i32>,
    /// Wait for a person's `resume` before the weight rises to this percentage or more, 1 to 100. Default: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub pause_before_percent: Option<i32>,
}

/// A row of the class table, or some of its columns.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyClass {
    /// The class, R0 (lowest risk) to R4.
    pub name: RiskClass,
    /// Steps, at most 16, with weights that rise to 100. Default: those that the class has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(validation = Rule::new("size(self) == 0 || self[size(self) - 1].weightPercent == 100").message("the last step must have weightPercent 100"))]
    pub steps: Vec<StepSpec>,
    /// What is tolerated before it counts against the canary. Default: what the class tolerates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tolerance_ppm: Option<PolicyPpm>,
    /// What promotion has to rule out. Default: what the class rules out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub margin_ppm: Option<PolicyPpm>,
    /// Probability that the row stops a good canary, in parts per million, 1 to 200000. Default: that of the class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 200_000))]
    pub capital_ppm: Option<i32>,
    /// Probability, per step, that a canary at the margin passes, in parts per million, 1 to 200000. Default: that of the class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 200_000))]
    pub gate_error_ppm: Option<i32>,
    /// Canary requests needed before weight 100, 1 to 1000000000. Default: that of the class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub min_samples: Option<i32>,
    /// Without fresh data for this long, traffic returns to stable, in seconds, 1 to 604800. Default: that of the class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 604_800))]
    pub no_data_seconds: Option<i32>,
    /// A change of the class starts while fewer rollouts of its namespace are under way, 1 to 1000. Default: that of the class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub max_in_flight_per_namespace: Option<i32>,
    /// A change of the class that is not Human starts while fewer such changes are under way in the cluster, 1 to 1000.
    /// Default: that of the class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub max_in_flight_not_human: Option<i32>,
    /// A change of the class starts while fewer changes of its class or a riskier one are under way in the cluster, 1 to 1000.
    /// Default: that of the class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub max_in_flight_of_class: Option<i32>,
    /// A change of the class starts at the earliest so long after the last failed run of its workload ended, in seconds, 0 to
    /// 604800. Default: that of the class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 604_800))]
    pub cooldown_seconds: Option<i32>,
    /// Sign-offs that a change of the class needs, at most 8, merged by role. Nobody can give one yet: a class that needs any
    /// is held, with condition Approved. Default: those of the class, built in none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["role".to_string()]))]
    pub required_signoffs: Vec<Signoff>,
}

impl PolicyClass {
    /// A row that keeps every column as it is.
    pub fn of(name: RiskClass) -> Self {
        Self {
            name,
            steps: Vec::new(),
            tolerance_ppm: None,
            margin_ppm: None,
            capital_ppm: None,
            gate_error_ppm: None,
            min_samples: None,
            no_data_seconds: None,
            max_in_flight_per_namespace: None,
            max_in_flight_not_human: None,
            max_in_flight_of_class: None,
            cooldown_seconds: None,
            required_signoffs: Vec::new(),
        }
    }
}

/// People who have to sign.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Signoff {
    /// Their role, such as peer, senior or owner: lower-case letters, digits and dashes, at most 63.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub role: String,
    /// How many, 1 to 10. Default 1.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 10))]
    pub count: i32,
}

fn one() -> i32 {
    1
}

impl std::fmt::Display for Signoff {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.count, self.role)
    }
}

/// A tolerated rise of a bad ratio: `relative x stable + absolute`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyPpm {
    /// Rise relative to stable's ratio, in parts per million, 0 to 10000000 (150000 is 15 % of it).
    #[schemars(range(min = 0, max = 10_000_000))]
    pub relative: i32,
    /// Rise on top, in parts per million of all requests, 0 to 1000000 (200 is 0.02 %).
    #[schemars(range(min = 0, max = 1_000_000))]
    pub absolute: i32,
}

impl From<PolicyPpm> for TolerancePpm {
    fn from(ppm: PolicyPpm) -> Self {
        Self { relative: ppm.relative, absolute: ppm.absolute }
    }
}

/// What the controller says of a policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", bound(deserialize = "S: Deserialize<'de>"))]
pub struct PolicyStatus<S> {
    /// Generation that was looked at.
    #[serde(default)]
    pub observed_generation: i64,
    /// Generation that is in force, 0 for none.
    #[serde(default)]
    pub accepted_generation: i64,
    /// The version that is in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted: Option<S>,
    /// Conditions: Accepted, True when the newest version is in force.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<PolicyCondition>,
}

/// Status of a ClusterRiskPolicy.
pub type ClusterRiskPolicyStatus = PolicyStatus<ClusterRiskPolicySpec>;
/// Status of a RiskPolicy.
pub type RiskPolicyStatus = PolicyStatus<RiskPolicySpec>;
