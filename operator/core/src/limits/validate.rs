//! What the schema can't say about a spec: each problem names the field, the value and what to write.

use std::collections::BTreeSet;

use crate::api::{Counted, Guard, GuardAction, MetricGuard, ProgressiveRolloutSpec, ProviderConfig};
use crate::config::Config;
use crate::evidence::{check_matchers, template};
use crate::limits::{schedule, table_problem};

/// Problems of a spec, in the order of its fields.
pub fn problems(spec: &ProgressiveRolloutSpec) -> Vec<String> {
    let mut found = Vec::new();
    if let Some(commit) = &spec.change.commit
        && !(7..=64).contains(&commit.len()) | !commit.bytes().all(|b| b.is_ascii_hexdigit())
    {
        found.push(format!("spec.change.commit {commit:?}: write 7 to 64 hexadecimal digits"));
    }
    let mut routes = BTreeSet::new();
    for route in &spec.routing.routes {
        if !routes.insert(&route.name) {
            found.push(format!(
                "spec.routing.routes names {} twice: list all its rules in one entry",
                route.name
            ));
        }
    }
    if !spec.limits.steps.is_empty()
        && let Some(problem) = schedule::problem(&spec.limits.steps)
    {
        found.push(format!("spec.limits.steps: {problem}"));
    }
    found.extend(guard_problems("spec.guards", &spec.guards));
    let providers = [("spec.prometheus", &spec.prometheus), ("spec.alertmanager", &spec.alertmanager)];
    for (field, provider) in providers {
        if let Some(Err(problem)) = provider.as_ref().map(ProviderConfig::validate) {
            found.push(format!("{field}.{problem}"));
        }
    }
    found
}

/// What is wrong with the settings of an installation, in words.
pub fn config_problem(config: &Config) -> Option<String> {
    let (interval, grace) = (config.evaluation_interval_seconds, config.declaration_grace_seconds);
    if !(1..=300).contains(&interval) {
        return Some(format!("evaluationIntervalSeconds {interval}: write 1 to 300"));
    }
    if !(0..=3600).contains(&grace) {
        return Some(format!("declarationGraceSeconds {grace}: write 0 to 3600"));
    }
    let providers = [("prometheus", &config.prometheus), ("alertmanager", &config.alertmanager)];
    for (field, provider) in providers {
        if let Some(Err(problem)) = provider.as_ref().map(ProviderConfig::validate) {
            return Some(format!("{field}.{problem}"));
        }
    }
    guard_problems("defaultGuards", &config.default_guards)
        .into_iter()
        .next()
        .or_else(|| table_problem(config))
}

/// Problems of a list of guards; an empty list means the defaults.
fn guard_problems(field: &str, guards: &[Guard]) -> Vec<String> {
    let mut found = Vec::new();
    let mut names = BTreeSet::new();
    for guard in guards {
        let name = &guard.name;
        if !names.insert(name) {
            found.push(format!("{field} has two guards named {name}: give each a name of its own"));
        }
        let kinds = [
            guard.error_ratio.is_some(),
            guard.latency.is_some(),
            guard.restarts.is_some(),
            guard.alert.is_some(),
            guard.metric.is_some(),
        ];
        if kinds.into_iter().filter(|set| *set).count() != 1 {
            found.push(format!(
                "{field}[{name}]: set exactly one of errorRatio, latency, restarts, alert and metric"
            ));
        }
        if let Some(problem) = guard.metric.as_ref().and_then(metric_problem) {
            found.push(format!("{field}[{name}].metric.{problem}"));
        }
        if let Some(counted) = guard.counted() {
            found.extend(warmup_problem(&counted).map(|problem| format!("{field}[{name}].{problem}")));
        }
        if let Some(alert) = &guard.alert {
            for (list, matchers) in [("matchers", &alert.matchers), ("watchdog", &alert.watchdog)] {
                if let Err(problem) = check_matchers(matchers) {
                    found.push(format!("{field}[{name}].alert.{list}: {problem}"));
                }
            }
        }
    }
    let judges = guards.iter().any(|g| g.error_ratio.is_some() && g.action == GuardAction::Abort);
    if !guards.is_empty() && !judges {
        found.push(format!(
            "{field}: at least one errorRatio guard with action Abort is needed, since alerts and values alone can't show that a canary is good"
        ));
    }
    found
}

/// What is wrong with the requests of new pods that a guard leaves out.
fn warmup_problem(counted: &Counted<'_>) -> Option<String> {
    let requests = counted.warmup_requests();
    let kind = match counted {
        Counted::Errors(_) => "errorRatio",
        Counted::Latency(_) => "latency",
        Counted::Restarts(_) => "restarts",
    };
    if !(0..=2000).contains(&requests) {
        return Some(format!("{kind}.warmupRequests {requests}: write 0 to 2000"));
    }
    (requests > 0 && !counted.by_pod()).then(|| {
        format!(
            "{kind}.warmupRequests {requests}: this source does not tell pods apart; write 0, or source Pods"
        )
    })
}

/// Longest query of a person, in characters.
const LONGEST_QUERY: usize = 2000;

/// What is wrong with a person's PromQL, from the field on.
pub fn query_problem(query: &str, placeholders: &[&str]) -> Option<String> {
    let length = query.chars().count();
    if query.trim().is_empty() || length > LONGEST_QUERY {
        return Some(format!(
            "query has {length} characters: write PromQL of 1 to {LONGEST_QUERY} characters"
        ));
    }
    if let Some(name) = template::unknown(query, placeholders) {
        let known: Vec<String> = placeholders.iter().map(|name| format!("${name}")).collect();
        return Some(format!(
            "query has ${name}, which is no placeholder here: write one of {}",
            known.join(", ")
        ));
    }
    None
}

/// What is wrong with a guard on a value, from the field on.
fn metric_problem(metric: &MetricGuard) -> Option<String> {
    let MetricGuard { query, min, max, min_ratio, max_ratio, for_seconds } = metric;
    if let Some(problem) = query_problem(query, &template::PLACEHOLDERS) {
        return Some(problem);
    }
    if [min, max, min_ratio, max_ratio].into_iter().all(Option::is_none) {
        return Some("query has no range: set at least one of min, max, minRatio and maxRatio".to_owned());
    }
    let limits = [("min", min), ("max", max), ("minRatio", min_ratio), ("maxRatio", max_ratio)];
    for (field, limit) in limits {
        let value = limit.as_ref().map(|limit| (limit.text(), limit.value()));
        match value {
            Some((text, None)) => {
                return Some(format!("{field} {text:?}: write a quantity such as 5, 0.5, 500m or 900Mi"));
            }
            Some((text, Some(value))) if field.ends_with("Ratio") && value <= 0.0 => {
                return Some(format!("{field} {text}: write a number above 0"));
            }
            _ => {}
        }
    }
    for [(from, low), (to, high)] in [[limits[0], limits[1]], [limits[2], limits[3]]] {
        if let (Some(low), Some(high)) = (low, high)
            && low.value() > high.value()
        {
            return Some(format!("{from} {} is above {to} {}: write a range", low.text(), high.text()));
        }
    }
    if metric.compares() && !template::tells_revisions_apart(query) {
        return Some(
            "query yields the same for both revisions, so a ratio says nothing: use $pods or $service in it"
                .to_owned(),
        );
    }
    if !(0..=3600).contains(for_seconds) {
        return Some(format!("forSeconds {for_seconds}: write 0 to 3600"));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{
        AlertGuard, AlertMatcher, AlertSource, ErrorRatioGuard, LatencyGuard, MatchOp, RatioSource,
    };

    fn ratio(name: &str) -> Guard {
        Guard {
            name: name.to_owned(),
            action: GuardAction::Abort,
            error_ratio: Some(ErrorRatioGuard::default()),
            ..Guard::default()
        }
    }

    fn alert(value: &str) -> Guard {
        let matcher =
            AlertMatcher { label: "alertname".to_owned(), op: MatchOp::Matches, value: value.to_owned() };
        let alert = AlertGuard {
            source: AlertSource::Alertmanager,
            matchers: vec![matcher],
            min_firing_seconds: 0,
            watchdog: Vec::new(),
        };
        Guard { error_ratio: None, alert: Some(alert), ..ratio("alerts") }
    }

    #[test]
    fn each_problem_names_the_guard_and_what_to_write() {
        for (guards, says) in [
            (vec![ratio("a"), ratio("a")], "spec.guards has two guards named a"),
            (vec![Guard { error_ratio: None, ..ratio("a") }], "spec.guards[a]: set exactly one of"),
            (
                vec![Guard { latency: Some(LatencyGuard::default()), ..ratio("a") }],
                "spec.guards[a]: set exactly one of errorRatio, latency, restarts, alert and metric",
            ),
            (
                vec![ratio("a"), alert("(")],
                "spec.guards[alerts].alert.matchers: matcher on label \"alertname\"",
            ),
            (vec![alert("Web.*")], "at least one errorRatio guard with action Abort"),
        ] {
            let found = guard_problems("spec.guards", &guards);
            assert!(found.iter().any(|problem| problem.contains(says)), "{says}: {found:?}");
        }
        assert_eq!(guard_problems("spec.guards", &[ratio("a"), alert("Web.*")]), Vec::<String>::new());
    }

    #[test]
    fn requests_of_new_pods_are_left_out_only_where_pods_are_told_apart() {
        let with = |source, warmup_requests| Guard {
            error_ratio: Some(ErrorRatioGuard { source, warmup_requests, ..ErrorRatioGuard::default() }),
            ..ratio("a")
        };
        let slow = Guard {
            error_ratio: None,
            latency: Some(LatencyGuard { warmup_requests: -1, ..LatencyGuard::default() }),
            ..ratio("slow")
        };
        let found = |guard| guard_problems("spec.guards", &[ratio("b"), guard]);
        assert_eq!(found(with(RatioSource::Pods, 2000)), Vec::<String>::new());
        assert_eq!(found(with(RatioSource::Traefik, 0)), Vec::<String>::new());
        for (guard, says) in [
            (with(RatioSource::Pods, 2001), "spec.guards[a].errorRatio.warmupRequests 2001: write 0 to 2000"),
            (
                with(RatioSource::Traefik, 200),
                "spec.guards[a].errorRatio.warmupRequests 200: this source does not tell pods apart; write 0, or source Pods",
            ),
            (slow, "spec.guards[slow].latency.warmupRequests -1: write 0 to 2000"),
        ] {
            assert_eq!(found(guard), [says]);
        }
    }

    #[test]
    fn a_range_of_a_value_is_checked() {
        let problem = |metric: serde_json::Value| {
            let guard = serde_json::json!({"name": "queue", "metric": metric});
            let guards = [ratio("a"), serde_json::from_value(guard).unwrap()];
            guard_problems("spec.guards", &guards).join("; ")
        };
        let one = "max(queue{pod=~\"$pods\"})";
        assert_eq!(problem(serde_json::json!({"query": one, "max": "5"})), "");
        assert_eq!(
            problem(serde_json::json!({"query": one, "min": "0.5", "max": "500m", "maxRatio": "2"})),
            ""
        );
        for (metric, says) in [
            (serde_json::json!({"query": " ", "max": "5"}), ".metric.query has 1 characters: write PromQL"),
            (serde_json::json!({"query": "x".repeat(2001), "max": "5"}), "query has 2001 characters"),
            (serde_json::json!({"query": one}), "set at least one of min, max, minRatio and maxRatio"),
            (
                serde_json::json!({"query": "x{a=\"$pod\"}", "max": "1"}),
                "$pod, which is no placeholder here: write one of",
            ),
            (serde_json::json!({"query": one, "min": "2", "max": "1.5"}), "min 2 is above max 1.5"),
            (
                serde_json::json!({"query": one, "minRatio": "2", "maxRatio": "1"}),
                "minRatio 2 is above maxRatio 1",
            ),
            (serde_json::json!({"query": one, "maxRatio": "0"}), "maxRatio 0: write a number above 0"),
            (serde_json::json!({"query": one, "max": "much"}), "max \"much\": write a quantity such as 5"),
            (serde_json::json!({"query": "x", "maxRatio": "2"}), "use $pods or $service"),
            (
                serde_json::json!({"query": one, "max": "1", "forSeconds": 3601}),
                "forSeconds 3601: write 0 to 3600",
            ),
        ] {
            assert!(problem(metric).contains(says), "{says}");
        }
        let alone =
            serde_json::json!({"name": "queue", "action": "Abort", "metric": {"query": one, "max": "5"}});
        let alone: Guard = serde_json::from_value(alone).unwrap();
        assert!(guard_problems("spec.guards", &[alone])[0].contains("at least one errorRatio guard"));
    }

    #[test]
    fn settings_of_an_installation_are_checked_before_anything_runs() {
        assert_eq!(config_problem(&Config::default()), None);
        let bad = |change: fn(&mut Config)| {
            let mut config = Config::default();
            change(&mut config);
            config_problem(&config).unwrap_or_default()
        };
        assert!(
            bad(|c| c.evaluation_interval_seconds = 0)
                .contains("evaluationIntervalSeconds 0: write 1 to 300")
        );
        assert!(bad(|c| c.declaration_grace_seconds = -1).contains("declarationGraceSeconds -1"));
        assert!(bad(|c| c.default_guards = vec![alert("x")]).starts_with("defaultGuards: at least one"));
        let provider = |url: &str| Some(ProviderConfig { url: url.to_owned(), ..ProviderConfig::default() });
        assert_eq!(config_problem(&Config { prometheus: provider("http://a"), ..Config::default() }), None);
        let problem = config_problem(&Config { prometheus: provider("a:9090"), ..Config::default() });
        assert!(problem.unwrap_or_default().starts_with("prometheus.url \"a:9090\": the scheme must be"));
    }
}
