//! A policy's PromQL for what is left of a workload's error budget: one number, or words that say what to write instead.

use jiff::Timestamp;
use sluice_core::evidence::{DataState, Trouble, template};

use super::metric::pods;
use crate::prometheus::{Prometheus, Query, Series};

/// More than all of it can't be left; what is beyond rounding is most likely percent.
const MOST: f64 = 1.01;
const WANTED: &str = "write PromQL that yields one number for the workload, 1 when nothing of the budget is spent and 0 when all is";

/// The query of a policy, filled for a workload at rest: its namespace, the ReplicaSet of its stable revision and its Service,
/// that of `spec.routing.service`.
pub fn promql(namespace: &str, stable: &str, service: &str, query: &str) -> String {
    template::fill(query, |name| match name {
        "namespace" => Some(namespace.to_owned()),
        "service" => Some(service.to_owned()),
        "pods" | "stablePods" => Some(pods(stable)),
        _ => None,
    })
}

/// Asks at `at` which share of the budget is left: 1 is all of it, 0 or less is nothing.
///
/// # Errors
/// There is no answer, or one that is no such share: what the policy has to write is in the message.
pub async fn left(prometheus: &Prometheus, promql: &str, at: Timestamp) -> Result<f64, Trouble> {
    let query = Query { promql, correct: "correct spec.errorBudget.query" };
    share(&prometheus.instant(query, at).await?)
}

fn share(series: &[Series]) -> Result<f64, Trouble> {
    let trouble = |state, problem: String| {
        Err(Trouble::new(state, format!("spec.errorBudget.query yields {problem}: {WANTED}")))
    };
    match series {
        [] => trouble(DataState::NoData, "nothing".to_owned()),
        [one] if !one.value.is_finite() => trouble(DataState::NotANumber, one.value.to_string()),
        [one] if one.value > MOST => {
            trouble(DataState::NotANumber, format!("{}, which is more than all of it", one.value))
        }
        [one] => Ok(one.value),
        several => trouble(DataState::MultipleSeries, format!("{} series", several.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::SecretData;
    use crate::testing::{providers, serve};
    use sluice_core::api::ProviderConfig;

    fn series(value: f64) -> Series {
        Series { labels: Default::default(), value, at: Timestamp::UNIX_EPOCH }
    }

    #[test]
    fn the_query_is_about_the_workload() {
        let query = r#"b{ns="$namespace",s="$service",p=~"$pods"} or c{p=~"$stablePods$"}"#;
        let pods = "web[.]v1-6d4b75cb6d-[a-z0-9]{5}";
        assert_eq!(
            promql("shop", "web.v1-6d4b75cb6d", "web", query),
            format!(r#"b{{ns="shop",s="web",p=~"{pods}"}} or c{{p=~"{pods}$"}}"#)
        );
    }

    #[tokio::test]
    async fn a_refused_query_is_the_policys() {
        let app = axum::Router::new().fallback(|| async {
            let body = r#"{"status":"error","errorType":"bad_data","error":"no argument"}"#;
            (axum::http::StatusCode::BAD_REQUEST, body)
        });
        let config = ProviderConfig { url: serve(app).await, ..ProviderConfig::default() };
        let prometheus = providers().prometheus("ns", &config, &SecretData::default()).expect("a client");
        let trouble = left(&prometheus, "sum()", Timestamp::UNIX_EPOCH).await.expect_err("no answer");
        assert_eq!(trouble.state, DataState::QueryError);
        let says = "refuses the query: no argument; correct spec.errorBudget.query; the query: sum()";
        assert!(trouble.message.ends_with(says), "{}", trouble.message);
    }

    #[test]
    fn one_share_is_an_answer_and_anything_else_says_what_to_write() {
        for value in [1.0, 0.25, 0.0, -3.5] {
            assert_eq!(share(&[series(value)]), Ok(value));
        }
        for (answer, state, says) in [
            (vec![], DataState::NoData, "yields nothing: write PromQL that yields one number"),
            (vec![series(0.1), series(0.2)], DataState::MultipleSeries, "yields 2 series"),
            (vec![series(f64::NAN)], DataState::NotANumber, "yields NaN"),
            (vec![series(f64::NEG_INFINITY)], DataState::NotANumber, "yields -inf"),
            (vec![series(87.0)], DataState::NotANumber, "yields 87, which is more than all of it"),
        ] {
            let trouble = share(&answer).expect_err("no share");
            assert_eq!(trouble.state, state);
            assert!(trouble.message.starts_with("spec.errorBudget.query yields "), "{}", trouble.message);
            assert!(trouble.message.contains(says), "{}", trouble.message);
        }
    }
}
