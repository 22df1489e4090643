//! A person's own PromQL: one question for the canary, and for stable too where the guard compares.

use jiff::Timestamp;
use sluice_core::api::MetricGuard;
use sluice_core::evidence::{DataState, GaugeLook, GaugeValues, Trouble, template};

use super::parts::{PART, invalid};
use super::pods::pod_base;
use super::{Arms, of_a_guard};
use crate::prometheus::{Prometheus, Series};

const CANARY: &str = "canary";
const STABLE: &str = "stable";

/// A person's query, filled for the revisions of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct MetricQuery {
    canary: String,
    /// Only where the two are compared.
    stable: Option<String>,
}

impl MetricQuery {
    /// What a guard asks for.
    ///
    /// # Errors
    /// There is no canary, or its pods can't be told from stable's by their names.
    pub fn new(arms: &Arms<'_>, metric: &MetricGuard) -> Result<Self, Trouble> {
        let Some(canary) = arms.canary else {
            return Err(Trouble::new(DataState::NoData, "there is no canary to measure yet".to_owned()));
        };
        let (canary_pods, stable_pods) = (pods(canary), pods(arms.stable));
        if canary_pods == stable_pods {
            return Err(invalid(format!(
                "the names of stable's and the canary's pods begin alike, since ReplicaSet {canary} is too long a name: \
                 use $service, or a shorter Deployment name"
            )));
        }
        // From its promotion on both Services lead to the canary, and X-stable has its traffic.
        let canary_service = if arms.promoted { arms.stable_service } else { arms.canary_service };
        let fill = |pods: &str, service: &str| {
            template::fill(&metric.query, |name| match name {
                "namespace" => Some(arms.namespace.to_owned()),
                "pods" => Some(pods.to_owned()),
                "service" => Some(service.to_owned()),
                "canaryPods" => Some(canary_pods.clone()),
                "stablePods" => Some(stable_pods.clone()),
                _ => None,
            })
        };
        Ok(Self {
            canary: fill(&canary_pods, canary_service),
            stable: metric.compares().then(|| fill(&stable_pods, arms.stable_service)),
        })
    }

    /// Both questions as one, told apart by a label.
    pub fn promql(&self) -> String {
        // On lines of its own: a comment at the end of a person's query ends there.
        let part =
            |query: &str, part| format!("label_replace((\n{query}\n), \"{PART}\", \"{part}\", \"\", \"\")");
        let canary = part(&self.canary, CANARY);
        match &self.stable {
            Some(stable) => format!("{canary} or {}", part(stable, STABLE)),
            None => canary,
        }
    }

    /// The values in an answer to [`MetricQuery::promql`].
    pub fn values(series: &[Series]) -> GaugeValues {
        let of = |part: &str| {
            series.iter().filter(|series| series.label(PART) == part).map(|series| series.value).collect()
        };
        GaugeValues { canary: of(CANARY), stable: of(STABLE) }
    }
}

/// Asks at `at` and reads the answer.
pub async fn look(prometheus: &Prometheus, query: &MetricQuery, at: Timestamp) -> GaugeLook {
    let answer = prometheus.instant(of_a_guard(&query.promql()), at).await;
    GaugeLook { at, answer: answer.map(|series| MetricQuery::values(&series)) }
}

/// A regular expression for the names of a ReplicaSet's pods, without a character that a quoted string would change.
pub(super) fn pods(replica_set: &str) -> String {
    format!("{}[a-z0-9]{{5}}", pod_base(replica_set).replace('.', "[.]"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn arms<'a>() -> Arms<'a> {
        Arms {
            namespace: "shop",
            stable: "web.v1-6d4b75cb6d",
            canary: Some("web.v1-7f9c8d5b4a"),
            routes: &[],
            promoted: false,
            stable_service: "web-stable",
            canary_service: "web-canary",
        }
    }

    fn guard(query: &str, more: Value) -> MetricGuard {
        let mut guard = more;
        guard["query"] = json!(query);
        serde_json::from_value(guard).expect("a guard")
    }

    fn promql(arms: &Arms<'_>, guard: &MetricGuard) -> String {
        MetricQuery::new(arms, guard).expect("a query").promql()
    }

    #[test]
    fn one_question_for_the_canary_and_one_for_both() {
        let query = r#"max(queue{namespace="$namespace",pod=~"$pods"}) # mine"#;
        let canary = "label_replace((\nmax(queue{namespace=\"shop\",pod=~\"web[.]v1-7f9c8d5b4a-[a-z0-9]{5}\"}) # mine\n), \
                      \"sluice_part\", \"canary\", \"\", \"\")";
        assert_eq!(promql(&arms(), &guard(query, json!({"max": "1"}))), canary);
        let both = promql(&arms(), &guard(query, json!({"maxRatio": "2"})));
        let (first, second) = both.split_once(" or ").expect("two questions");
        assert_eq!(first, canary);
        assert_eq!(second, canary.replace("7f9c8d5b4a", "6d4b75cb6d").replace("canary", "stable"));
    }

    #[test]
    fn a_revision_can_be_named_outright_and_by_its_service() {
        let query = r#"sum(a{pod=~"$canaryPods"}) / sum(a{pod=~"$stablePods"})"#;
        let asked = promql(&arms(), &guard(query, json!({"max": "1"})));
        assert!(
            asked.contains(r#"sum(a{pod=~"web[.]v1-7f9c8d5b4a-[a-z0-9]{5}"}) / sum(a{pod=~"web[.]v1-6d4b"#),
            "{asked}"
        );
        let service = guard("x{service=\"$service\"}", json!({"minRatio": "2"}));
        let asked = promql(&arms(), &service);
        assert!(asked.find("web-canary") < asked.find("web-stable"), "{asked}");
        let asked = promql(&Arms { promoted: true, ..arms() }, &service);
        assert!(!asked.contains("web-canary"), "X-stable has the canary's traffic then: {asked}");
    }

    #[test]
    fn what_can_not_be_asked_says_why() {
        let any = guard("x", json!({"max": "1"}));
        let none = MetricQuery::new(&Arms { canary: None, ..arms() }, &any).expect_err("no canary");
        assert_eq!(none.state, DataState::NoData);
        let (one, other) = ("a".repeat(58) + "1", "a".repeat(58) + "2");
        let alike = MetricQuery::new(&Arms { stable: &one, canary: Some(&other), ..arms() }, &any);
        assert!(alike.expect_err("alike").message.contains("begin alike"));
    }

    #[test]
    fn values_are_told_apart_by_the_revision() {
        let series = |part: &str, value: f64| Series {
            labels: [(PART.to_owned(), part.to_owned())].into(),
            value,
            at: Timestamp::UNIX_EPOCH,
        };
        let answer = [series("canary", 1.0), series("stable", 2.0), series("canary", 3.0), series("", 4.0)];
        let values = MetricQuery::values(&answer);
        assert_eq!((values.canary, values.stable), (vec![1.0, 3.0], vec![2.0]));
    }
}
