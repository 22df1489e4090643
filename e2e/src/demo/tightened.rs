//! A policy that tightens while a change is at 20 %.

use anyhow::{Context, Result, ensure};
use serde_json::json;
use sluice_core::api::{Plan, Provenance, RiskClass};

use super::RUN_LIMIT;
use super::narrator::Narrator;
use super::play::Play;
use super::provenance::scanned;
use super::report::Scenario;
use crate::world::{App, NAME};

/// Weight of the first step of class R0 in the demo's table.
const FIRST: i32 = 20;

/// A small change of a person, of class R0. The platform team asks for more while it is at its first step: the weight stays, and
/// what is ahead takes the steps and bakes of the tighter policy.
pub async fn tightened(n: &Narrator, app: &App<'_>) -> Result<Scenario> {
    let name = "tightened";
    let mut play = Play::begin(app).await?;
    let image = app.spec.image("3");
    n.say(name, &format!("ships {image}, declared Human, 12 changed lines"));
    let change = scanned("Human", &image, 12);
    app.patch_rollout(json!({"spec": {"change": change}})).await?;
    app.set_image(&image).await?;
    let before = app.wait_weight(FIRST, RUN_LIMIT).await?.run.context("no run")?.plan;
    n.say(name, &format!("at {FIRST} % a policy says: nothing below class R1, no bake of less than 15 s"));
    app.apply_object(&json!({
        "apiVersion": "sluice.dev/v1alpha1", "kind": "RiskPolicy",
        "metadata": {"name": NAME, "namespace": app.spec.namespace},
        "spec": {"floors": [{"class": "R1"}], "limits": {"minBakeSeconds": 15}},
    }))
    .await?;
    let digest = before.digest.clone();
    let tighter = app
        .wait("the tighter plan", RUN_LIMIT, |status| {
            status.run.as_ref().is_some_and(|run| run.plan.digest != digest)
        })
        .await?;
    let run = tighter.run.context("it ended before the policy was seen")?;
    let weight = run.weight.map(|weight| weight.percent);
    ensure!(weight == Some(FIRST), "the weight moved to {weight:?} %");
    let classes = (before.risk_class, run.plan.risk_class);
    ensure!(classes == (RiskClass::R0, RiskClass::R1), "the classes were {classes:?}");
    n.say(name, &format!("it was {}", told(&before)));
    n.say(name, &format!("it is  {}", told(&run.plan)));
    play.follow(n, name, app).await?;
    // Neither is about the next change.
    app.kubectl(&["delete", "riskpolicy", NAME]).await?;
    app.patch_rollout(json!({"spec": {"change": {"size": null}}})).await?;
    play.end(n, name, app, Some(Provenance::Human)).await
}

/// Class, weights and bakes of a plan.
fn told(plan: &Plan) -> String {
    let steps =
        plan.steps.iter().map(|step| format!("{} % for {} s", step.weight_percent, step.bake_seconds));
    format!("class {}: {}", plan.risk_class.as_str(), steps.collect::<Vec<_>>().join(", "))
}
