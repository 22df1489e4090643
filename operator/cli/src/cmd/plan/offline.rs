//! A plan without a cluster: from a rollout and policies on disk, for the worst case of what only a cluster knows.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::json;
use sluice_core::api::{
    ChangeFreeze, LABEL_TIER, Outcome, ProgressiveRollout, Provenance, RiskClass, RunRecord,
};
use sluice_core::config::Config;
use sluice_core::limits;
use sluice_core::policy::{self, Assessment, Freeze, Freezes, Policy, Sourced};
use sluice_core::provenance;
use sluice_core::risk::ErrorBudget;
use sluice_core::view::Workload;

use super::subject::{NO_TEMPLATE, names_a_template, next};
use super::{About, Planned, clamped};
use crate::manifests::Manifests;

/// What only a cluster knows, at its best or its worst.
struct Case<'a> {
    tier: &'a str,
    history: Vec<RunRecord>,
    left: ErrorBudget,
}

/// The plan of the change that `rollout` declares, and what it may be at best.
pub fn planned(
    rollout: &ProgressiveRollout,
    manifests: &Manifests,
    class: Option<RiskClass>,
    now: Timestamp,
) -> Planned {
    let (spec, meta) = (&rollout.spec, &rollout.metadata);
    let namespace = meta.namespace.clone().unwrap_or_default();
    let config = Config::default();
    let describes = names_a_template(&spec.change);
    let labels = manifests.namespaces.iter().find(|(name, _)| *name == namespace).map(|(_, labels)| labels);
    let assess = |case: &Case<'_>| -> (Policy, Assessment) {
        let keys = manifests.cluster.iter().map(|policy| policy.spec.tier_mapping.namespace_label.clone());
        let assumed: BTreeMap<String, String> =
            keys.chain([LABEL_TIER.to_owned()]).map(|key| (key, case.tier.to_owned())).collect();
        // One without a namespace is applied to whichever is asked for, so it may be this one.
        let own = manifests
            .own
            .iter()
            .filter(|policy| policy.metadata.namespace.as_ref().is_none_or(|own| *own == namespace));
        let policy = Policy::resolve(&config, &manifests.cluster, own, labels.unwrap_or(&assumed));
        let view = next(&spec.change);
        let risk = policy::assess(spec, &view, &policy, &case.history, left(&policy, case.left), now);
        (policy, risk)
    };
    let worst = Case { tier: "Tier0", history: vec![failed_now(now)], left: ErrorBudget::Spent };
    let (policy, worst) = assess(&worst);
    let (_, best) = assess(&Case { tier: "Tier3", history: Vec::new(), left: ErrorBudget::Ample });
    let workload =
        Workload::read(&json!({"metadata": {"name": spec.workload_ref.name}, "spec": {"template": {}}}));
    let plan = limits::make_plan(
        spec,
        &config,
        &policy,
        &workload,
        (worst.provenance, class.unwrap_or(worst.class)),
    );
    let mut cautions = vec![
        "a forecast for the worst case: without a cluster nobody knows when a run of the workload last failed, which is taken as \
         less than a day ago"
            .to_owned(),
        "what the Deployment's annotations say, and what an earlier run tried the template as, can still raise its provenance"
            .to_owned(),
    ];
    if labels.is_none() {
        cautions.push(format!(
            "no Namespace {namespace:?} is among the policies, so its tier is taken as the most critical one; add its manifest with \
             the label {LABEL_TIER}"
        ));
    }
    let mut why = worst.explain(spec, &policy, &plan);
    for factor in why.factors.iter_mut().filter(|factor| factor.name == "tier" && labels.is_none()) {
        "not known, taken at its worst".clone_into(&mut factor.source);
    }
    let spent = left(&policy, ErrorBudget::Spent);
    let undescribed =
        policy::assess(spec, &provenance::undeclared(), &policy, &[failed_now(now)], spent, now);
    if let Some(asks) = policy.error_budgets.first() {
        cautions.push(format!("{} asks for the error budget, which is taken as less than 5 %", asks.from));
    }
    if !describes {
        cautions.push(NO_TEMPLATE.to_owned());
    }
    if undescribed.class > worst.class {
        cautions.push(format!(
            "of class {} if spec.change does not describe the template that is applied",
            undescribed.class.as_str()
        ));
    }
    if manifests.cluster.is_empty() {
        let preset = config.default_policy.as_str();
        cautions.push(format!("no ClusterRiskPolicy is among the policies: preset {preset} is taken"));
    }
    for policy in manifests.own.iter().filter(|policy| policy.metadata.namespace.is_none()) {
        let name = policy.metadata.name.as_deref().unwrap_or_default();
        cautions
            .push(format!("RiskPolicy {name} has no metadata.namespace, and is taken as one of {namespace}"));
    }
    let selects = |found: &ChangeFreeze| {
        found.spec.scope.as_ref().is_some_and(|scope| scope.namespace_selector.is_some())
    };
    if labels.is_none() && manifests.freezes.iter().any(selects) {
        cautions.push(format!(
            "a ChangeFreeze is for namespaces with some labels, and no Namespace {namespace:?} is among the policies: only the names in its scope count"
        ));
    }
    let kind = spec.change.kind.filter(|_| describes);
    let freezes = manifests.freezes.iter().map(|found| Arc::new(Freeze::of(found)));
    let freezes = Freezes::of(freezes, &namespace, labels.unwrap_or(&BTreeMap::new()));
    let frozen = super::freeze::of(&freezes, plan.risk_class, kind, now);
    cautions.extend(clamped(spec, &policy, &plan));
    Planned {
        name: meta.name.clone().unwrap_or_default(),
        namespace,
        about: About::Manifest,
        why,
        least: class.is_none().then_some(best.class),
        declared: describes && spec.change.provenance != Provenance::Unknown,
        commit: spec.change.commit.clone(),
        replicas: 0,
        forecasts: Vec::new(),
        frozen,
        plan,
        cautions,
    }
}

/// What is left of the error budget, if a policy asks for it.
fn left(policy: &Policy, taken: ErrorBudget) -> Sourced<ErrorBudget> {
    match policy.error_budgets.first() {
        Some(asks) => Sourced::new(taken, format!("{}: not known without a cluster", asks.from)),
        None => policy::error_budget(&[]),
    }
}

/// A run that failed just now.
fn failed_now(now: Timestamp) -> RunRecord {
    RunRecord {
        id: "not known".to_owned(),
        outcome: Outcome::Rejected,
        reason: "the worst case".to_owned(),
        message: String::new(),
        risk_class: RiskClass::R4,
        plan_digest: String::new(),
        provenance: Provenance::Unknown,
        digest: String::new(),
        images: Vec::new(),
        commit: None,
        max_weight_percent: 0,
        started_at: now,
        ended_at: now,
        exposed_since: None,
        exposed_until: None,
    }
}
