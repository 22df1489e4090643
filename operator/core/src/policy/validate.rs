//! What is wrong with a policy, and which version of it is in force.

use jiff::Timestamp;

use crate::api::{
    ClusterRiskPolicy, ClusterRiskPolicySpec, ClusterRiskPolicyStatus, ConditionStatus, ErrorBudgetPolicy,
    Floor, PolicyClass, PolicyCondition, PolicyConditionType, PolicyStatus, RiskClass, RiskPolicy,
    RiskPolicySpec, RiskPolicyStatus,
};
use crate::config::{ClassRow, Config};
use crate::limits;

use super::{start, table};

/// What is wrong with a policy of the cluster, from the field on. The schema has checked the ranges.
pub fn cluster_problem(spec: &ClusterRiskPolicySpec, config: &Config) -> Option<String> {
    let label = &spec.tier_mapping.namespace_label;
    if !is_label(label) {
        return Some(format!(
            "spec.tierMapping.namespaceLabel {label:?}: write a label key, such as sluice.dev/tier"
        ));
    }
    common(&spec.classes, &spec.floors, spec.error_budget.as_ref()).or_else(|| {
        let table = table::overlay(&table::installation(config), &spec.classes, "");
        let rows: Vec<ClassRow> = table.iter().map(|row| row.row.clone()).collect();
        let problem = limits::order_problem(&rows).or_else(|| start::order_problem(&table));
        let others = RiskClass::ALL.iter().filter(|class| spec.classes.iter().all(|own| own.name != **class));
        let others: Vec<&str> = others.map(|class| class.as_str()).collect();
        let note = match others.as_slice() {
            [] => String::new(),
            names => format!(
                ". Of {}, which the policy does not have, the installation's rows count",
                names.join(", ")
            ),
        };
        problem.map(|problem| format!("spec.{problem}{note}"))
    })
}

/// What is wrong with a policy of a namespace, from the field on. It can't bring the table out of order.
pub fn own_problem(spec: &RiskPolicySpec) -> Option<String> {
    common(&spec.classes, &spec.floors, spec.error_budget.as_ref())
}

fn common(
    classes: &[PolicyClass],
    floors: &[Floor],
    error_budget: Option<&ErrorBudgetPolicy>,
) -> Option<String> {
    for (at, class) in classes.iter().enumerate() {
        let name = class.name.as_str();
        if classes[..at].iter().any(|other| other.name == class.name) {
            return Some(format!("spec.classes has two rows of {name}: write one"));
        }
        if class.margin_ppm.is_some_and(|margin| margin.absolute < 1) {
            return Some(format!(
                "spec.classes[{name}].marginPpm.absolute 0: write 1 or more, or nothing ever passes"
            ));
        }
        let roles: Vec<&str> = class.required_signoffs.iter().map(|signoff| signoff.role.as_str()).collect();
        if let Some(at) = (1..roles.len()).find(|at| roles[..*at].contains(&roles[*at])) {
            let role = roles[at];
            return Some(format!(
                "spec.classes[{name}].requiredSignoffs names {role} twice: write one with the count"
            ));
        }
        if !class.steps.is_empty()
            && let Some(problem) = limits::schedule_problem(&class.steps)
        {
            return Some(format!("spec.classes[{name}].steps: {problem}"));
        }
    }
    let idle = floors.iter().position(|floor| floor.class == RiskClass::R0);
    let idle = idle.map(|at| {
        format!("spec.floors[{at}].class R0 is the lowest class anyhow: write R1 to R4, or take it out")
    });
    idle.or_else(|| Some(format!("spec.errorBudget.{}", budget_problem(error_budget?)?)))
}

/// What is wrong with where to read what is left of the error budget, from the field on.
fn budget_problem(budget: &ErrorBudgetPolicy) -> Option<String> {
    // There is no canary before a start.
    limits::query_problem(&budget.query, &["namespace", "service", "stablePods", "pods"])
}

/// What an author should know of a table that is in order.
fn caution(classes: &[PolicyClass]) -> Option<String> {
    let signed = classes.iter().filter(|class| !class.required_signoffs.is_empty());
    let least = signed.map(|class| class.name).min()?;
    Some(format!(
        "no change of class {} or riskier starts: requiredSignoffs asks for sign-offs, and nobody can give one in this release",
        least.as_str()
    ))
}

/// `[prefix/]name` as Kubernetes has it.
fn is_label(key: &str) -> bool {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    let word = |text: &str, longest: usize, more: &[char]| {
        let ends = |c: char| c.is_ascii_alphanumeric();
        (1..=longest).contains(&text.len())
            && text.chars().all(|c| ends(c) || more.contains(&c))
            && text.starts_with(ends)
            && text.ends_with(ends)
    };
    word(name, 63, &['-', '_', '.']) && prefix.is_none_or(|prefix| word(prefix, 253, &['-', '.']))
}

/// The version that counts: the newest if nothing is wrong with it, else the last accepted one, else none.
pub(super) fn in_force<'a, S>(
    newest: &'a S,
    problem: Option<&str>,
    status: Option<&'a PolicyStatus<S>>,
) -> Option<&'a S> {
    if problem.is_none() { Some(newest) } else { status.and_then(|status| status.accepted.as_ref()) }
}

/// What status says of a policy of the cluster.
pub fn cluster_status(
    policy: &ClusterRiskPolicy,
    config: &Config,
    now: Timestamp,
) -> ClusterRiskPolicyStatus {
    let ClusterRiskPolicy { metadata, spec, status: before } = policy;
    let said = (cluster_problem(spec, config), caution(&spec.classes));
    status(spec, metadata.generation.unwrap_or_default(), said, before.as_ref(), now)
}

/// What status says of a policy of a namespace.
pub fn own_status(policy: &RiskPolicy, now: Timestamp) -> RiskPolicyStatus {
    let RiskPolicy { metadata, spec, status: before } = policy;
    let said = (own_problem(spec), caution(&spec.classes));
    status(spec, metadata.generation.unwrap_or_default(), said, before.as_ref(), now)
}

/// What is wrong with the newest version of a policy, or what to know of it, and which version is in force.
pub(super) fn status<S: Clone>(
    newest: &S,
    generation: i64,
    (problem, caution): (Option<String>, Option<String>),
    before: Option<&PolicyStatus<S>>,
    now: Timestamp,
) -> PolicyStatus<S> {
    let last = before.and_then(|status| Some((status.accepted.clone()?, status.accepted_generation)));
    let (accepted, accepted_generation, holds, reason, message) = match (problem, last) {
        (None, _) => {
            let caution = caution.map_or_else(String::new, |caution| format!("; {caution}"));
            let message = format!("this version is in force{caution}");
            (Some(newest.clone()), generation, ConditionStatus::True, "Valid", message)
        }
        (Some(problem), Some((accepted, at))) => {
            let message = format!("{problem}. The version of generation {at} stays in force");
            (Some(accepted), at, ConditionStatus::False, "Invalid", message)
        }
        (Some(problem), None) => {
            let message = format!(
                "{problem}. No version was accepted yet: the other policies hold, or the built-in one"
            );
            (None, 0, ConditionStatus::False, "Invalid", message)
        }
    };
    let known =
        before.and_then(|status| status.conditions.iter().find(|condition| condition.status == holds));
    let condition = PolicyCondition {
        kind: PolicyConditionType::Accepted,
        status: holds,
        reason: reason.to_owned(),
        message,
        observed_generation: generation,
        last_transition_time: known.map_or(now, |condition| condition.last_transition_time),
    };
    PolicyStatus {
        observed_generation: generation,
        accepted_generation,
        accepted,
        conditions: vec![condition],
    }
}
