//! What is left of the error budget of a workload, asked by the controller's own queries.

use jiff::Timestamp;
use sluice_core::policy::{self, Left, Policy, Sourced};
use sluice_core::risk::ErrorBudget;
use sluice_providers::queries::budget;

use crate::model::Seen;
use crate::source::Sources;

/// The level that a change would start with now. Without an answer the controller's last one counts, as it does there.
pub async fn level(policy: &Policy, seen: &Seen, sources: &Sources<'_>) -> Sourced<ErrorBudget> {
    let status = seen.status();
    let stable = status.stable.as_ref().map_or("", |stable| stable.replica_set.as_str());
    let service = &seen.rollout.spec.routing.service;
    let mut known = Vec::new();
    for asked in &policy.error_budgets {
        let promql = budget::promql(seen.namespace(), stable, service, &asked.value.query);
        let answer = match sources.prometheus().await {
            Ok(prometheus) => {
                budget::left(&prometheus, &promql, Timestamp::now()).await.map_err(|trouble| trouble.message)
            }
            Err(failure) => Err(failure.text),
        };
        let left = answer.map_or_else(
            |why| {
                let last = status.error_budgets.iter().find(|last| last.policy == asked.from);
                Left::without_answer(last, &why)
            },
            Left::Now,
        );
        known.push(Sourced::new(left, &asked.from));
    }
    policy::error_budget(&known)
}
