//! The application of every story: a Deployment of four pods, its Service, two routes, a rollout.

use serde_json::{Value, json};
use sluice_core::api::{
    AlertGuard, AlertMatcher, AlertSource, ApexCallers, Change, DeclaredRisk, ErrorRatioGuard, Guard,
    GuardAction, Limits, MatchOp, Mode, Priority, ProgressiveRollout, ProgressiveRolloutSpec, Provenance,
    ProviderConfig, RiskClass, RouteRef, Routing, StepSpec, TolerancePpm, Wiring, WorkloadRef,
};
use sluice_core::config::{ClassRow, Config};
use sluice_core::policy::Preset;

/// Name of the workload, the apex Service, the rollout and the first route.
pub const NAME: &str = "web";
/// Namespace of everything.
pub const NAMESPACE: &str = "shop";
/// Service of stable's share.
pub const STABLE: &str = "web-stable";
/// Service of the canary's share.
pub const CANARY: &str = "web-canary";
/// The routes that carry the pair.
pub const ROUTES: [&str; 2] = ["web", "web-admin"];
/// Seconds of the Deployment's `progressDeadlineSeconds`.
pub const PROGRESS_SECONDS: i32 = 20;
/// Seconds without data after which a run returns to stable.
pub const NO_DATA_SECONDS: i32 = 10;

/// A pod template.
pub fn template(image: &str, restart: Option<&str>) -> Value {
    let mut template = json!({
        "metadata": {"labels": {"app": NAME}},
        "spec": {"containers": [{"name": "app", "image": image}]},
    });
    if let Some(restart) = restart {
        template["metadata"]["annotations"] = json!({"kubectl.kubernetes.io/restartedAt": restart});
    }
    template
}

/// The Deployment.
pub fn deployment(image: &str, replicas: i32) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": NAME, "namespace": NAMESPACE, "labels": {"app": NAME}, "annotations": {"team": "shop"}},
        "spec": {
            "replicas": replicas,
            "paused": false,
            "revisionHistoryLimit": 4,
            "progressDeadlineSeconds": PROGRESS_SECONDS,
            "selector": {"matchLabels": {"app": NAME}},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": template(image, None),
        },
    })
}

/// The apex Service.
pub fn service() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": NAME, "namespace": NAMESPACE},
        "spec": {"selector": {"app": NAME}, "ports": [{"port": 80, "targetPort": 8080}]},
    })
}

/// A route; the first has a rule of another backend and two rules with the pair.
pub fn route(name: &str) -> Value {
    let pair =
        json!([{"name": STABLE, "weight": 100, "port": 80}, {"name": CANARY, "weight": 0, "port": 80}]);
    let other = json!([{"name": "static", "port": 80}]);
    let rules = if name == NAME {
        json!([{"backendRefs": other}, {"backendRefs": pair}, {"backendRefs": pair}])
    } else {
        json!([{"backendRefs": pair}])
    };
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"rules": rules},
    })
}

/// The rollout.
pub fn rollout() -> ProgressiveRollout {
    let mut rollout = ProgressiveRollout::new(
        NAME,
        ProgressiveRolloutSpec {
            workload_ref: WorkloadRef {
                api_version: "apps/v1".to_owned(),
                kind: "Deployment".to_owned(),
                name: NAME.to_owned(),
            },
            change: Change { provenance: Provenance::Human, ..Change::default() },
            routing: Routing {
                service: NAME.to_owned(),
                routes: ROUTES
                    .iter()
                    .map(|name| RouteRef {
                        kind: "HTTPRoute".to_owned(),
                        name: (*name).to_owned(),
                        rules: Vec::new(),
                    })
                    .collect(),
                wiring: Wiring::Pair,
                apex_callers: ApexCallers::None,
                settle_seconds: 5,
                drain_seconds: 12,
            },
            declared_risk: DeclaredRisk::default(),
            priority: Priority::Normal,
            guards: guards(),
            limits: Limits::default(),
            mode: Mode::Enforce,
            suspend: false,
            watch_seconds: Some(10),
            prometheus: None,
            alertmanager: None,
        },
    );
    rollout.metadata.namespace = Some(NAMESPACE.to_owned());
    rollout
}

/// A guard on errors and one on alerts; the stand-in for the evidence speaks for both.
fn guards() -> Vec<Guard> {
    let guard = |name: &str, error_ratio, alert| Guard {
        name: name.to_owned(),
        action: GuardAction::Abort,
        error_ratio,
        alert,
        ..Guard::default()
    };
    let matcher = AlertMatcher { label: "app".to_owned(), op: MatchOp::Equal, value: NAME.to_owned() };
    let alert = AlertGuard {
        source: AlertSource::Alertmanager,
        matchers: vec![matcher],
        min_firing_seconds: 0,
        watchdog: Vec::new(),
    };
    vec![guard("errors", Some(ErrorRatioGuard::default()), None), guard("pages", None, Some(alert))]
}

/// Settings: steps and bakes of seconds.
pub fn config() -> Config {
    let row = |name, steps: &[(i32, i32)]| ClassRow {
        name,
        steps: steps
            .iter()
            .map(|(weight, bake)| StepSpec { weight_percent: *weight, bake_seconds: *bake })
            .collect(),
        tolerance_ppm: TolerancePpm { relative: 50_000, absolute: 100 },
        margin_ppm: None,
        capital_ppm: None,
        gate_error_ppm: None,
        min_samples: 10,
        no_data_seconds: NO_DATA_SECONDS,
    };
    Config {
        declaration_grace_seconds: 2,
        prometheus: Some(ProviderConfig {
            url: "http://prometheus:9090".to_owned(),
            ..ProviderConfig::default()
        }),
        alertmanager: Some(ProviderConfig {
            url: "http://alertmanager:9093".to_owned(),
            ..ProviderConfig::default()
        }),
        classes: vec![
            row(RiskClass::R0, &[(50, 3), (100, 4)]),
            row(RiskClass::R1, &[(25, 3), (50, 3), (100, 4)]),
            row(RiskClass::R2, &[(10, 4), (50, 3), (100, 6)]),
            row(RiskClass::R3, &[(5, 4), (25, 4), (50, 3), (100, 6)]),
            row(RiskClass::R4, &[(5, 4), (25, 4), (50, 3), (100, 6)]),
        ],
        default_policy: Preset::Demo,
        ..Config::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_class_table_is_in_order() {
        assert_eq!(sluice_core::limits::table_problem(&config()), None);
    }
}
