//! From a change to its frozen plan.

use crate::api::{
    Change, ErrorRatioGuard, Guard, GuardAction, Plan, ProgressiveRolloutSpec, Provenance, RiskClass,
    StepSpec,
};
use crate::config::Config;
use crate::digest;
use crate::limits::{class_of, evidence_rows, join, row};
use crate::view::Workload;

/// Longest watched period after promotion.
const LONGEST_WATCH_SECONDS: i32 = 3600;

/// What is known of a held template's change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeView {
    /// Provenance in force: the declared one if it describes the template, else `Unknown`.
    pub provenance: Provenance,
    /// Commit: the declared one if `change` describes the template, else that of the Deployment's annotation.
    pub commit: Option<String>,
    /// Whether the declaration describes the template.
    pub declared: bool,
}

/// Whether `change` describes this template, and what follows.
pub fn describe(change: &Change, workload: &Workload, stable_images: &[String]) -> ChangeView {
    let images = workload.images();
    let mut differing = images.iter().filter(|image| !stable_images.contains(image)).peekable();
    let by_images = differing.peek().is_some() && differing.all(|image| change.images.contains(image));
    let by_commit = change.commit.is_some() && change.commit == workload.commit;
    if by_images || by_commit {
        let commit = change.commit.clone().or_else(|| workload.commit.clone());
        ChangeView { provenance: change.provenance, commit, declared: true }
    } else {
        ChangeView { provenance: Provenance::Unknown, commit: workload.commit.clone(), declared: false }
    }
}

/// The guard of rollouts and installations that name none.
pub fn default_guards() -> Vec<Guard> {
    vec![Guard {
        name: "error-rate".to_owned(),
        action: GuardAction::Abort,
        error_ratio: Some(ErrorRatioGuard::default()),
        ..Guard::default()
    }]
}

/// Name of the Service that carries stable's share.
pub fn stable_service(apex: &str) -> String {
    format!("{apex}-stable")
}

/// Name of the Service that carries the canary's share.
pub fn canary_service(apex: &str) -> String {
    format!("{apex}-canary")
}

/// The plan of a change: the class's row joined with the rollout's own limits.
pub fn make_plan(
    spec: &ProgressiveRolloutSpec,
    config: &Config,
    workload: &Workload,
    provenance: Provenance,
) -> Plan {
    plan_of_class(spec, config, workload, provenance, class_of(provenance))
}

/// The plan of a change as if it were of this class.
pub fn plan_of_class(
    spec: &ProgressiveRolloutSpec,
    config: &Config,
    workload: &Workload,
    provenance: Provenance,
    class: RiskClass,
) -> Plan {
    let row = row(config, class);
    let mut steps = row.steps.clone();
    if !spec.limits.steps.is_empty() {
        steps = join(&steps, &spec.limits.steps);
    }
    if let (Some(most), Some(first)) = (spec.limits.max_first_step_percent, steps.first().copied())
        && first.weight_percent > most
    {
        steps.insert(0, StepSpec { weight_percent: most, bake_seconds: first.bake_seconds });
    }
    if let Some(least) = spec.limits.min_bake_seconds {
        for step in &mut steps {
            step.bake_seconds = step.bake_seconds.max(least);
        }
    }
    // A last bake that is spent below 100 % shortens nothing.
    let last_bake = |steps: &[StepSpec]| steps.last().map_or(0, |step| step.bake_seconds);
    let watched = last_bake(&steps).max(last_bake(&row.steps));
    let guards = if !spec.guards.is_empty() {
        spec.guards.clone()
    } else if !config.default_guards.is_empty() {
        config.default_guards.clone()
    } else {
        default_guards()
    };
    seal(Plan {
        digest: String::new(),
        risk_class: class,
        provenance,
        steps,
        tolerance_ppm: row.tolerance_ppm,
        min_samples: row.min_samples,
        rows: evidence_rows(config, class),
        no_data_seconds: row.no_data_seconds,
        watch_seconds: spec.watch_seconds.unwrap_or(watched).clamp(0, LONGEST_WATCH_SECONDS),
        progress_deadline_seconds: workload.progress_deadline_seconds,
        pause_before_percent: spec.limits.pause_before_percent,
        abort_needs_two_pods: spec.limits.abort_needs_two_pods,
        service: spec.routing.service.clone(),
        stable_service: stable_service(&spec.routing.service),
        canary_service: canary_service(&spec.routing.service),
        routes: spec.routing.routes.clone(),
        apex_callers: spec.routing.apex_callers,
        settle_seconds: spec.routing.settle_seconds,
        drain_seconds: spec.routing.drain_seconds,
        guards,
    })
}

/// The plan of a return to a recorded good revision: straight to 100, behind the capacity check only.
pub fn return_plan(
    spec: &ProgressiveRolloutSpec,
    config: &Config,
    workload: &Workload,
    provenance: Provenance,
) -> Plan {
    let mut plan = make_plan(spec, config, workload, provenance);
    plan.steps = vec![StepSpec { weight_percent: 100, bake_seconds: 0 }];
    plan.pause_before_percent = None;
    plan.watch_seconds = 0;
    seal(plan)
}

pub(super) fn seal(mut plan: Plan) -> Plan {
    plan.digest = String::new();
    plan.digest = digest::of(&plan);
    plan
}
