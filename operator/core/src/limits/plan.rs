//! From a change to its frozen plan.

use crate::api::{
    ErrorRatioGuard, Guard, GuardAction, Plan, ProgressiveRolloutSpec, Provenance, RiskClass, StepSpec,
};
use crate::config::Config;
use crate::digest;
use crate::limits::{class_of, evidence_rows, join, row};
use crate::view::Workload;

/// Longest watched period after promotion.
const LONGEST_WATCH_SECONDS: i32 = 3600;

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
