//! The error budget that a policy reads from Prometheus, and the bound on harm beside a plan.

use anyhow::{Context, Result, ensure};
use serde_json::json;
use sluice_core::api::{Outcome, Phase, PlanHarm, PlanStatus, ProgressiveRolloutStatus, Provenance, RunKind};

use super::Scenario;
use super::cli::cli;
use super::expect::{RUN, SOON, at_rest, clean, ended, event, forget, served, serving};
use crate::shared;
use crate::world::{App, NAME, World};

/// Those of this file.
pub fn scenarios() -> Vec<Scenario> {
    vec![
        shared!(spent_error_budget_holds_what_is_new_and_no_return),
        shared!(error_budget_is_a_risk_and_not_to_know_it_is_a_greater_one),
    ]
}

/// Applies a policy of the application's namespace that reads the error budget by this query.
async fn policy(app: &App<'_>, query: &str) -> Result<()> {
    let object = json!({
        "apiVersion": "sluice.dev/v1alpha1", "kind": "RiskPolicy",
        "metadata": {"name": "shop", "namespace": app.spec.namespace}, "spec": {"errorBudget": {"query": query}},
    });
    app.apply_object(&object).await
}

/// Level and source of the error budget in a plan.
fn budget(plan: &PlanStatus) -> Result<(&str, &str)> {
    let found = plan.factors.iter().find(|factor| factor.name == "errorBudget");
    let found = found.with_context(|| format!("no errorBudget among {:?}", plan.factors))?;
    Ok((&found.level, &found.source))
}

/// Waits until the bound on harm of the plan is known, and finds it plausible for the load of the application.
async fn harm(app: &App<'_>) -> Result<PlanHarm> {
    let of = |status: &ProgressiveRolloutStatus| status.plan.as_ref().and_then(|plan| plan.harm.clone());
    let known = |status: &ProgressiveRolloutStatus| of(status).is_some_and(|harm| harm.read_at.is_some());
    let harm = of(&app.wait("the bound on harm", SOON, known).await?).context("no bound")?;
    let guard = harm.guards.first().context("no guard")?;
    let sent = i64::from(app.spec.rps) * 3600;
    // Stable may have been a canary not long ago.
    ensure!((sent / 10..sent * 2).contains(&guard.stable_requests_per_hour), "{guard:?} of {sent} an hour");
    let (mean, p95) = (guard.excess_failed_requests, guard.excess_failed_requests_p95);
    ensure!(mean.is_some() && mean <= p95, "{guard:?}");
    ensure!(p95 <= Some(guard.excess_failed_requests_at_most), "{guard:?}");
    ensure!(guard.supposed_failed_ppm >= 10 * guard.stable_failed_ppm.min(1000), "{guard:?}");
    Ok(harm)
}

async fn spent_error_budget_holds_what_is_new_and_no_return(world: &World<'_>) -> Result<()> {
    let app = serving(world, clean("budget-spent")).await?;
    let (first, third) = (app.spec.image("1"), app.spec.image("3"));
    app.ship(&app.spec.image("2"), Provenance::Human).await?;
    ensure!(ended(&app, 0, RUN).await?.outcome == Outcome::Promoted, "the second revision did not pass");

    policy(&app, "vector(0)").await?;
    app.ship(&third, Provenance::Human).await?;
    let spent = |status: &ProgressiveRolloutStatus| status.summary.reason == "ErrorBudgetSpent";
    let status = app.wait("a spent error budget", SOON, spent).await?;
    let message = status.waiting.context("no wait")?.message;
    ensure!(message.starts_with("RiskPolicy/shop: of the error budget 0 % left"), "{message}");
    event(&app, "ErrorBudgetSpent", "RiskPolicy/shop").await?;
    harm(&app).await?;
    let status = app.status().await?;
    let plan = status.plan.context("no plan")?;
    ensure!(budget(&plan)? == ("less than 5 % left", "RiskPolicy/shop: 0 % left"), "{plan:?}");
    ensure!(
        status.error_budgets.first().map(|known| known.remaining_percent) == Some(0),
        "{:?}",
        status.error_budgets
    );
    ensure!(status.run.is_none() && served(&app, &third) == 0, "something of it was made");
    cli(&app, &["plan", NAME]).await?.with(0)?.says("less than 5 % left: RiskPolicy/shop: 0 % left")?;

    // A step back to what was good is never held.
    app.ship(&first, Provenance::Human).await?;
    let back = |status: &ProgressiveRolloutStatus| {
        status.run.as_ref().is_some_and(|run| run.kind == RunKind::Return) || status.history.len() > 1
    };
    app.wait("the return", SOON, back).await?;
    ensure!(ended(&app, 1, RUN).await?.outcome == Outcome::Promoted, "the return did not pass");
    at_rest(&app, Phase::Idle).await?;

    // What is left again lets the held one start.
    app.ship(&third, Provenance::Human).await?;
    app.wait("a spent error budget", SOON, spent).await?;
    policy(&app, "vector(0.9)").await?;
    app.wait("the run", SOON, |status| status.run.is_some()).await?;
    app.request("abort").await?;
    ended(&app, 2, RUN).await?;
    forget(&app).await
}

async fn error_budget_is_a_risk_and_not_to_know_it_is_a_greater_one(world: &World<'_>) -> Result<()> {
    let (low, unknown) =
        tokio::try_join!(serving(world, clean("budget-low")), serving(world, clean("budget-unknown")),)?;
    let one = async |app: &App<'_>, query: &str, level: &str, source: &str| -> Result<()> {
        policy(app, query).await?;
        app.ship(&app.spec.image("2"), Provenance::Human).await?;
        let plan = app.wait("the run", RUN, |status| status.run.is_some()).await?.plan.context("no plan")?;
        let (is, from) = budget(&plan)?;
        ensure!(is == level && from.starts_with(source), "{plan:?}");
        harm(app).await?;
        app.request("abort").await?;
        ended(app, 0, RUN).await?;
        forget(app).await
    };
    tokio::try_join!(
        one(&low, "vector(0.1)", "5 to 25 % left", "RiskPolicy/shop: 10 % left"),
        one(
            &unknown,
            "nothing_ratio{namespace=\"$namespace\"}",
            "less than 5 % left",
            "RiskPolicy/shop: not known: spec.errorBudget.query yields nothing",
        ),
    )?;
    Ok(())
}
