//! From a change to its frozen plan.

use crate::api::{
    ErrorRatioGuard, Guard, GuardAction, Plan, ProgressiveRolloutSpec, Provenance, RiskClass, StepSpec,
};
use crate::config::Config;
use crate::digest;
use crate::limits::compose::{Composed, compose};
use crate::limits::evidence_rows;
use crate::policy::Policy;
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

/// The plan of a change of this class and provenance under the policies.
pub fn make_plan(
    spec: &ProgressiveRolloutSpec,
    config: &Config,
    policy: &Policy,
    workload: &Workload,
    change: (Provenance, RiskClass),
) -> Plan {
    seal(draft(spec, config, policy, workload, change))
}

/// The same without its digest.
pub fn draft(
    spec: &ProgressiveRolloutSpec,
    config: &Config,
    policy: &Policy,
    workload: &Workload,
    (provenance, class): (Provenance, RiskClass),
) -> Plan {
    let row = &policy.row(class).row;
    let Composed { steps, pause_before_percent, last_bake_seconds, .. } = compose(spec, policy, class);
    let guards = if !spec.guards.is_empty() {
        spec.guards.clone()
    } else if !config.default_guards.is_empty() {
        config.default_guards.clone()
    } else {
        default_guards()
    };
    Plan {
        digest: String::new(),
        risk_class: class,
        provenance,
        steps,
        tolerance_ppm: row.tolerance_ppm,
        min_samples: row.min_samples,
        rows: evidence_rows(policy.rows(), class),
        no_data_seconds: row.no_data_seconds,
        watch_seconds: spec.watch_seconds.unwrap_or(last_bake_seconds).clamp(0, LONGEST_WATCH_SECONDS),
        progress_deadline_seconds: workload.progress_deadline_seconds,
        pause_before_percent,
        abort_needs_two_pods: spec.limits.abort_needs_two_pods,
        service: spec.routing.service.clone(),
        stable_service: stable_service(&spec.routing.service),
        canary_service: canary_service(&spec.routing.service),
        routes: spec.routing.routes.clone(),
        apex_callers: spec.routing.apex_callers,
        settle_seconds: spec.routing.settle_seconds,
        drain_seconds: spec.routing.drain_seconds,
        guards,
    }
}

/// The plan of a return to a recorded good revision: straight to 100, behind the capacity check only.
pub fn return_plan(
    spec: &ProgressiveRolloutSpec,
    config: &Config,
    policy: &Policy,
    workload: &Workload,
    change: (Provenance, RiskClass),
) -> Plan {
    let mut plan = draft(spec, config, policy, workload, change);
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
