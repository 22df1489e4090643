//! Requests are counted at the router instead of in the pods, in the class of changes that nobody looked at; and what
//! Sluice tells of such a run afterwards, in its metrics and its log.

use anyhow::{Context, Result, ensure};
use serde_json::json;
use sluice_core::api::{Outcome, Phase, Provenance, RiskClass};

use super::Scenario;
use super::expect::{RUN, SOON, at_rest, clean, ended, failures, outcome, served, serving};
use super::telemetry;
use crate::load::{Load, Target};
use crate::shared;
use crate::workload::{Fault, PORT, Select};
use crate::world::{App, AppSpec, World};

/// Those of this file.
pub fn scenarios() -> Vec<Scenario> {
    vec![shared!(autonomous_change_is_rejected_in_its_first_step_by_what_the_router_counts)]
}

async fn autonomous_change_is_rejected_in_its_first_step_by_what_the_router_counts(
    world: &World<'_>,
) -> Result<()> {
    let rollout = json!({"guards": [
        {"name": "router", "errorRatio": {"source": "Traefik", "maxPpm": 100_000}},
        {"name": "pods", "action": "Observe", "errorRatio": {}},
    ]});
    let app = serving(world, AppSpec { rollout, ..clean("router-counts") }).await?;
    let begin = app.load.snapshot();
    let second = app.spec.image("2");
    app.ship(&second, Provenance::GenAIAutonomous).await?;
    let run = app.wait_weight(2, RUN).await?.run.context("no run")?;
    let steps: Vec<i32> = run.plan.steps.iter().map(|step| step.weight_percent).collect();
    ensure!(run.plan.risk_class == RiskClass::R3, "class {:?}", run.plan.risk_class);
    ensure!(steps == [2, 10, 30, 60, 100], "steps {steps:?}");
    ensure!(app.weights().await? == (98, 2), "weights {:?}", app.weights().await?);

    counted_at_the_router(&app, &second).await?;
    telemetry::measured_during(&app).await?;
    world.cluster.workload.inject(Select::image(&app.spec.namespace, &second), Fault::errors(500));
    let record = ended(&app, 0, RUN).await?;
    outcome(&record, Outcome::Rejected, "GuardTripped")?;
    ensure!(record.message.contains("router"), "the record says {:?}", record.message);
    ensure!(record.max_weight_percent == 2, "it had {} %", record.max_weight_percent);
    at_rest(&app, Phase::Rejected).await?;

    let counts = app.load.snapshot().since(&begin);
    let others: Vec<&String> = counts.failed_by_image.keys().filter(|image| **image != second).collect();
    ensure!(counts.failed > 0 && others.is_empty(), "requests failed by {others:?}: {}", failures(&counts));
    let share = counts.share_percent(&second);
    ensure!(share < 3.0, "{share:.1} % of the requests met it");
    telemetry::logged(world, &app, &record)?;
    telemetry::measured_after(&app, &record).await
}

/// A caller that passes the routes is counted in the pods, and not at the router: there the counts are the clients'.
async fn counted_at_the_router(app: &App<'_>, image: &str) -> Result<()> {
    let pods = app.cluster.workload.pods();
    let pod = pods.iter().find(|pod| pod.namespace == app.spec.namespace && pod.image == image);
    let address = format!("{}:{PORT}", pod.context("the canary has no pod")?.address);
    let past = Target { address, host: "past-the-routes".into(), path: "/".into(), requests_per_second: 20 };
    let past = Load::start(past);
    let of = |status: &sluice_core::api::ProgressiveRolloutStatus, name: &str| {
        let guard = status.guards.iter().find(|guard| guard.name == name)?;
        guard.canary_requests.filter(|_| guard.state == "Ok")
    };
    let status = app
        .wait("both guards have counted", SOON, |status| {
            let (router, pods) = (of(status, "router"), of(status, "pods"));
            router.zip(pods).is_some_and(|(router, pods)| router >= 5 && pods >= router + 60)
        })
        .await?;
    let counted = of(&status, "router").unwrap_or(0);
    let met = served(app, image);
    ensure!(u64::try_from(counted)? <= met, "the router's count is {counted}, {met} requests came by it");
    let bypassed = past.snapshot();
    ensure!(bypassed.requests > 60 && bypassed.non_200 == 0, "past the routes: {}", bypassed.failures());
    Ok(())
}
