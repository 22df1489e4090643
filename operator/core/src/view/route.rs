//! HTTPRoutes: the two backendRefs that are ours, and whether the gateway accepted them.

use serde_json::Value;

use super::{int, map, text};
use crate::api::ANNOTATION_TRAFFIC;

/// Weight of a backendRef that names none (Gateway API).
const DEFAULT_WEIGHT: i32 = 1;

/// A route.
#[derive(Clone, Debug)]
pub struct Route {
    /// Name.
    pub name: String,
    /// Generation of the spec.
    pub generation: i64,
    /// Whether every parent accepted this generation and resolved its references; and if not, what it said.
    pub accepted: Result<(), String>,
    /// Value of our traffic annotation.
    pub traffic: Option<String>,
    /// `spec.rules`.
    rules: Vec<Value>,
}

/// Weights of the pair in one rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PairWeights {
    /// Index of the rule.
    pub rule: usize,
    /// Index of stable's backendRef.
    pub stable_ref: usize,
    /// Index of the canary's backendRef.
    pub canary_ref: usize,
    /// Weight of stable.
    pub stable: i32,
    /// Weight of the canary.
    pub canary: i32,
    /// Sum of the weights of other backends in the rule, which stay untouched.
    pub others: i32,
}

/// Why a route can't carry the pair.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouteProblem {
    /// No rule names the pair.
    #[error(
        "HTTPRoute {route} names neither {stable} nor {canary}: give one rule two backendRefs, {stable} with weight 100 and {canary} with weight 0"
    )]
    NoPair {
        /// The route.
        route: String,
        /// Name of the stable Service.
        stable: String,
        /// Name of the canary Service.
        canary: String,
    },
    /// A rule names only one of the two.
    #[error(
        "HTTPRoute {route} rule {rule} names {present} but not {missing}: add a backendRef {missing} to it ({stable} with weight 100, {canary} with weight 0)"
    )]
    HalfPair {
        /// The route.
        route: String,
        /// The rule.
        rule: usize,
        /// The Service that it names.
        present: String,
        /// The Service that it lacks.
        missing: String,
        /// Name of the stable Service.
        stable: String,
        /// Name of the canary Service.
        canary: String,
    },
    /// The run goes back: nothing may raise its weight any more.
    #[error("HTTPRoute {route} is on its way back: run {run} was aborted, its weight may only fall")]
    Aborted {
        /// The route.
        route: String,
        /// The run.
        run: String,
    },
    /// `rules` of the rollout names a rule that does not exist.
    #[error(
        "HTTPRoute {route} has no rule {rule}: spec.routing.routes[].rules counts from 0 and the route has {count}"
    )]
    NoSuchRule {
        /// The route.
        route: String,
        /// The rule.
        rule: i32,
        /// How many rules it has.
        count: usize,
    },
}

impl Route {
    /// Reads an HTTPRoute.
    pub fn read(object: &Value) -> Self {
        let generation = object.pointer("/metadata/generation").and_then(Value::as_i64).unwrap_or_default();
        Self {
            name: text(object, "/metadata/name").to_owned(),
            generation,
            accepted: accepted(object, generation),
            traffic: map(object, "/metadata/annotations")
                .get(ANNOTATION_TRAFFIC)
                .and_then(Value::as_str)
                .map(ToOwned::to_owned),
            rules: object.pointer("/spec/rules").and_then(Value::as_array).cloned().unwrap_or_default(),
        }
    }

    /// Whether any rule names this Service as a backend.
    pub fn names(&self, service: &str) -> bool {
        let refs = self.rules.iter().filter_map(|rule| rule.get("backendRefs").and_then(Value::as_array));
        refs.flatten().any(|backend| is_service(backend, service))
    }

    /// The pair's weights in each rule that carries it; `only` restricts to these rules when not empty.
    pub fn pairs(&self, stable: &str, canary: &str, only: &[i32]) -> Result<Vec<PairWeights>, RouteProblem> {
        for rule in only {
            if usize::try_from(*rule).map_or(true, |index| index >= self.rules.len()) {
                let (route, count) = (self.name.clone(), self.rules.len());
                return Err(RouteProblem::NoSuchRule { route, rule: *rule, count });
            }
        }
        let mut found = Vec::new();
        for (index, rule) in self.rules.iter().enumerate() {
            let listed = only.iter().any(|n| usize::try_from(*n) == Ok(index));
            if !only.is_empty() && !listed {
                continue;
            }
            let refs =
                rule.get("backendRefs").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
            let position = |service: &str| refs.iter().position(|r| is_service(r, service));
            match (position(stable), position(canary)) {
                (Some(stable_ref), Some(canary_ref)) => {
                    let others =
                        refs.iter().enumerate().filter(|(i, _)| *i != stable_ref && *i != canary_ref);
                    found.push(PairWeights {
                        rule: index,
                        stable_ref,
                        canary_ref,
                        stable: weight(&refs[stable_ref]),
                        canary: weight(&refs[canary_ref]),
                        others: others.map(|(_, r)| weight(r)).sum(),
                    });
                }
                (None, None) if only.is_empty() => {}
                (stable_ref, _) => {
                    let present = if stable_ref.is_some() { stable } else { canary };
                    let missing = if stable_ref.is_some() { canary } else { stable };
                    return Err(RouteProblem::HalfPair {
                        route: self.name.clone(),
                        rule: index,
                        present: present.to_owned(),
                        missing: missing.to_owned(),
                        stable: stable.to_owned(),
                        canary: canary.to_owned(),
                    });
                }
            }
        }
        if found.is_empty() {
            return Err(RouteProblem::NoPair {
                route: self.name.clone(),
                stable: stable.to_owned(),
                canary: canary.to_owned(),
            });
        }
        Ok(found)
    }
}

fn is_service(backend: &Value, name: &str) -> bool {
    let kind = text(backend, "/kind");
    text(backend, "/name") == name
        && (kind.is_empty() || kind == "Service")
        && text(backend, "/namespace").is_empty()
}

fn weight(backend: &Value) -> i32 {
    int(backend, "/weight").unwrap_or(DEFAULT_WEIGHT)
}

/// Every parent's newest `Accepted` and `ResolvedRefs` must be True at this generation.
fn accepted(object: &Value, generation: i64) -> Result<(), String> {
    let parents =
        object.pointer("/status/parents").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if parents.is_empty() {
        return Err("no gateway has accepted it yet".to_owned());
    }
    for parent in parents {
        let by = text(parent, "/controllerName");
        for wanted in ["Accepted", "ResolvedRefs"] {
            let conditions = parent.get("conditions").and_then(Value::as_array);
            let condition = conditions.into_iter().flatten().find(|c| text(c, "/type") == wanted);
            let Some(condition) = condition else {
                return Err(format!("{by} has not said {wanted} yet"));
            };
            let seen = condition.get("observedGeneration").and_then(Value::as_i64).unwrap_or_default();
            if seen < generation {
                return Err(format!("{by} has seen generation {seen} of {generation}"));
            }
            if text(condition, "/status") != "True" {
                let (reason, message) = (text(condition, "/reason"), text(condition, "/message"));
                return Err(format!("{by} says {wanted}=False, {reason}: {message}"));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn route(rules: Value) -> Route {
        Route::read(&json!({"metadata": {"name": "web", "generation": 3}, "spec": {"rules": rules},
            "status": {"parents": [{"controllerName": "x/y", "conditions": [
                {"type": "Accepted", "status": "True", "observedGeneration": 3},
                {"type": "ResolvedRefs", "status": "True", "observedGeneration": 2}]}]}}))
    }

    #[test]
    fn finds_the_pair_in_several_rules_and_leaves_others_alone() {
        let route = route(json!([
            {"backendRefs": [{"name": "other", "weight": 7}, {"name": "web-canary", "weight": 0}, {"name": "web-stable", "weight": 100}]},
            {"backendRefs": [{"name": "static"}]},
            {"backendRefs": [{"name": "web-stable"}, {"name": "web-canary", "weight": 0}]},
        ]));
        let pairs = route.pairs("web-stable", "web-canary", &[]).unwrap();
        assert_eq!(pairs.len(), 2);
        assert_eq!((pairs[0].stable_ref, pairs[0].canary_ref, pairs[0].others), (2, 1, 7));
        assert_eq!((pairs[1].rule, pairs[1].stable, pairs[1].canary), (2, 1, 0));
    }

    #[test]
    fn says_what_to_write_when_half_of_the_pair_is_missing() {
        let route = route(json!([{"backendRefs": [{"name": "web-stable"}]}]));
        let problem = route.pairs("web-stable", "web-canary", &[]).unwrap_err().to_string();
        assert!(problem.contains("add a backendRef web-canary"), "{problem}");
    }

    #[test]
    fn an_ack_of_an_older_generation_is_none() {
        assert!(route(json!([])).accepted.unwrap_err().contains("generation 2 of 3"));
    }
}
