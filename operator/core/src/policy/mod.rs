//! The policies in force for a namespace, joined: of each limit the tightest, so that no order can loosen one.
//!
//! The installation's class table is the ground. A cluster's policy overlays it; of several the tables are joined. A
//! namespace's policy can only tighten that. Without any, the preset that the installation names holds.

mod assess;
mod budget;
mod freezes;
mod presets;
mod start;
mod table;
#[cfg(test)]
mod tests;
mod validate;

use std::collections::BTreeMap;

use crate::api::{
    BlastRadius, ClusterRiskPolicy, ClusterRiskPolicySpec, ErrorBudgetPolicy, Floor, PolicyLimits,
    ProvenancePolicy, RiskClass, RiskPolicy, RiskPolicySpec, Tier, TierMapping,
};
use crate::config::{ClassRow, Config};
use crate::limits;

pub use assess::{Assessment, assess, last_failed};
pub use budget::{Left, error_budget, error_budget_named, percent};
pub use freezes::{Freeze, Freezes, Hold};
pub use presets::Preset;
pub use start::{StartRules, UNCAPPED, while_room};
pub use table::Row;
pub use validate::{cluster_problem, cluster_status, own_problem, own_status};

/// A value, and the object that it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sourced<T> {
    /// The value.
    pub value: T,
    /// The object, in words.
    pub from: String,
}

impl<T> Sourced<T> {
    /// A value from an object.
    pub fn new(value: T, from: impl Into<String>) -> Self {
        Self { value, from: from.into() }
    }
}

impl<T: Ord> Sourced<T> {
    /// The riskier of two; of equal ones the first.
    fn max(self, other: Self) -> Self {
        if other.value > self.value { other } else { self }
    }
}

/// What holds for the workloads of a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// How critical they are.
    pub tier: Sourced<Tier>,
    /// How much a fault can hurt.
    pub blast_radius: Sourced<BlastRadius>,
    /// Lowest classes, besides those that always hold.
    pub floors: Vec<Sourced<Floor>>,
    /// What is believed of a claim that a person wrote a change.
    pub humans: Vec<Sourced<ProvenancePolicy>>,
    /// Limits of every plan.
    pub limits: Vec<Sourced<PolicyLimits>>,
    /// Where to read what is left of the error budget.
    pub error_budgets: Vec<Sourced<ErrorBudgetPolicy>>,
    /// The class table, loosest class first.
    pub table: Vec<Row>,
    /// When no change may start.
    pub freezes: Freezes,
    /// Why the policies are not known now: then nothing starts.
    pub trouble: Option<String>,
}

impl Policy {
    /// What holds where no policy is: the installation's preset.
    pub fn of_installation(config: &Config) -> Self {
        Self::joined(config, &[], &[], &BTreeMap::new())
    }

    /// What holds while the policies are not known. It is shown, and nothing starts on it.
    pub fn unknown(config: &Config, why: String) -> Self {
        Self { trouble: Some(why), ..Self::of_installation(config) }
    }

    /// What holds in a namespace with these labels: the policies of the cluster and its own, each as far as it is in force.
    pub fn resolve<'a>(
        config: &Config,
        cluster: impl IntoIterator<Item = &'a ClusterRiskPolicy>,
        own: impl IntoIterator<Item = &'a RiskPolicy>,
        labels: &BTreeMap<String, String>,
    ) -> Self {
        let cluster = cluster.into_iter().filter_map(|object| {
            let problem = cluster_problem(&object.spec, config);
            let spec = validate::in_force(&object.spec, problem.as_deref(), object.status.as_ref())?;
            Some((object.metadata.name.clone().unwrap_or_default(), spec.clone()))
        });
        let own = own.into_iter().filter_map(|object| {
            let problem = own_problem(&object.spec);
            let spec = validate::in_force(&object.spec, problem.as_deref(), object.status.as_ref())?;
            Some((object.metadata.name.clone().unwrap_or_default(), spec.clone()))
        });
        let (mut cluster, mut own): (Vec<_>, Vec<_>) = (cluster.collect(), own.collect());
        // Values do not depend on the order, but of equal ones the first is named.
        cluster.sort_by(|one, other| one.0.cmp(&other.0));
        own.sort_by(|one, other| one.0.cmp(&other.0));
        Self::joined(config, &cluster, &own, labels)
    }

    /// The policies in force of a cluster and of one of its namespaces by name, and the namespace's labels.
    pub fn joined(
        config: &Config,
        cluster: &[(String, ClusterRiskPolicySpec)],
        own: &[(String, RiskPolicySpec)],
        labels: &BTreeMap<String, String>,
    ) -> Self {
        let preset = config.default_policy.spec();
        let built_in = format!("preset {}", config.default_policy.as_str());
        let cluster: Vec<(String, &ClusterRiskPolicySpec)> = match cluster {
            [] => vec![(built_in, &preset)],
            some => some.iter().map(|(name, spec)| (format!("ClusterRiskPolicy/{name}"), spec)).collect(),
        };
        let own: Vec<(String, &RiskPolicySpec)> =
            own.iter().map(|(name, spec)| (format!("RiskPolicy/{name}"), spec)).collect();
        let ground = table::installation(config);
        let tables = cluster.iter().map(|(from, spec)| table::overlay(&ground, &spec.classes, from));
        let table = tables.reduce(|one, other| table::join(&one, &other)).unwrap_or_else(|| ground.clone());
        let table = own.iter().fold(table, |table, (from, spec)| table::tighten(&table, &spec.classes, from));
        // A version that was accepted over other settings of the installation may not fit these.
        let rows: Vec<ClassRow> = table.iter().map(|row| row.row.clone()).collect();
        let disorder = limits::order_problem(&rows).or_else(|| start::order_problem(&table));
        let table = if disorder.is_some() { table::in_order(table) } else { table };

        let tiers = cluster.iter().map(|(from, spec)| tier_of(&spec.tier_mapping, from, labels));
        let tier = tiers.reduce(Sourced::max).unwrap_or_else(|| Sourced::new(Tier::default(), "nothing"));
        let own_tiers = own.iter().filter_map(|(from, spec)| Some(Sourced::new(spec.tier?, from)));
        let blast = cluster.iter().map(|(from, spec)| Sourced::new(spec.blast_radius, from));
        let own_blast = own.iter().filter_map(|(from, spec)| Some(Sourced::new(spec.blast_radius?, from)));
        let blast = blast.chain(own_blast).reduce(Sourced::max);
        let floors = cluster.iter().map(|(from, spec)| (from, &spec.floors));
        let floors = floors.chain(own.iter().map(|(from, spec)| (from, &spec.floors)));
        let humans = cluster.iter().map(|(from, spec)| (from, spec.provenance));
        let humans = humans.chain(own.iter().map(|(from, spec)| (from, spec.provenance)));
        let limits = cluster.iter().map(|(from, spec)| (from, spec.limits));
        let limits = limits.chain(own.iter().map(|(from, spec)| (from, spec.limits)));
        let budgets = cluster.iter().map(|(from, spec)| (from, &spec.error_budget));
        let budgets = budgets.chain(own.iter().map(|(from, spec)| (from, &spec.error_budget)));
        Self {
            tier: own_tiers.fold(tier, Sourced::max),
            blast_radius: blast.unwrap_or_else(|| Sourced::new(BlastRadius::default(), "nothing")),
            floors: floors
                .flat_map(|(from, list)| list.iter().map(move |floor| Sourced::new(*floor, from)))
                .collect(),
            humans: humans.filter_map(|(from, human)| Some(Sourced::new(human?, from))).collect(),
            limits: limits.map(|(from, limits)| Sourced::new(limits, from)).collect(),
            error_budgets: budgets
                .filter_map(|(from, budget)| Some(Sourced::new(budget.clone()?, from)))
                .collect(),
            table,
            freezes: Freezes::default(),
            trouble: None,
        }
    }

    /// The row of a class.
    pub fn row(&self, class: RiskClass) -> &Row {
        // The table has a row of each class, in their order.
        &self.table[class as usize]
    }

    /// All rows.
    pub fn rows(&self) -> impl Iterator<Item = &ClassRow> {
        self.table.iter().map(|row| &row.row)
    }
}

/// The tier that a namespace has by a policy.
fn tier_of(mapping: &TierMapping, from: &str, labels: &BTreeMap<String, String>) -> Sourced<Tier> {
    const TIERS: [(Tier, &str); 4] =
        [(Tier::Tier3, "Tier3"), (Tier::Tier2, "Tier2"), (Tier::Tier1, "Tier1"), (Tier::Tier0, "Tier0")];
    let label = &mapping.namespace_label;
    let Some(value) = labels.get(label) else {
        return Sourced::new(mapping.default, format!("{from}, since the namespace has no label {label}"));
    };
    match TIERS.iter().find(|(_, name)| name == value) {
        Some((tier, _)) => Sourced::new(*tier, format!("label {label} of the namespace")),
        // Somebody meant to say something: of what nobody can read the riskiest is taken.
        None => Sourced::new(
            Tier::Tier0,
            format!("label {label}={value} of the namespace is none of Tier3, Tier2, Tier1, Tier0"),
        ),
    }
}
