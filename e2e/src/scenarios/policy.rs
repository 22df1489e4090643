//! How much risk a platform team allows: policies of the cluster and of a namespace, edited while templates are held and tried.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use sluice_core::api::{Outcome, PlanStatus, ProgressiveRolloutStatus, Provenance, RiskClass, Waiting};

use super::Scenario;
use super::cli::cli;
use super::expect::{LOOK, RUN, SOON, clean, ended, event, forget, outcome, serving};
use crate::cluster::until;
use crate::shared;
use crate::world::{App, NAME, World};

/// Those of this file.
pub fn scenarios() -> Vec<Scenario> {
    vec![
        shared!(policy_that_tightens_in_the_middle_of_a_run_counts_at_once),
        shared!(policy_that_is_refused_changes_nothing),
        shared!(the_namespace_says_how_critical_its_workloads_are),
        shared!(policy_holds_starts_for_sign_offs_and_after_a_failure),
        shared!(abort_takes_no_longer_at_the_highest_class),
    ]
}

/// Applies a policy of the application's namespace.
async fn apply(app: &App<'_>, spec: Value) -> Result<()> {
    let object = json!({
        "apiVersion": "sluice.dev/v1alpha1", "kind": "RiskPolicy",
        "metadata": {"name": "shop", "namespace": app.spec.namespace}, "spec": spec,
    });
    app.apply_object(&object).await
}

async fn plan(app: &App<'_>, what: &str, class: RiskClass) -> Result<PlanStatus> {
    let is = |plan: &PlanStatus| plan.risk_class == Some(class);
    let status = app.wait(what, SOON, |status| status.plan.as_ref().is_some_and(is)).await?;
    status.plan.context("no plan")
}

fn source<'a>(plan: &'a PlanStatus, factor: &str) -> Result<&'a str> {
    let found = plan.factors.iter().find(|found| found.name == factor);
    Ok(found.with_context(|| format!("no factor {factor}: {:?}", plan.factors))?.source.as_str())
}

async fn policy_that_tightens_in_the_middle_of_a_run_counts_at_once(world: &World<'_>) -> Result<()> {
    let app = serving(world, clean("policy-tightens")).await?;
    app.ship(&app.spec.image("2"), Provenance::Human).await?;
    let run = app.wait_weight(10, RUN).await?.run.context("no run")?;
    ensure!(run.plan.risk_class == RiskClass::R1, "{:?}", run.plan.risk_class);
    let steps = run.plan.steps;

    apply(&app, json!({"floors": [{"class": "R3"}], "limits": {"pauseBeforePercent": 30}})).await?;
    let shown = plan(&app, "the tighter class", RiskClass::R3).await?;
    ensure!(source(&shown, "floor")? == "RiskPolicy/shop: every change", "{shown:?}");
    event(&app, "PlanTightened", "it was of class R1: class R3, steps from here 10, 30, 60, 100 %").await?;
    let tight = app.status().await?.run.context("no run")?.plan;
    ensure!(tight.digest == shown.digest && tight.pause_before_percent == Some(30), "{tight:?}");
    ensure!(tight.steps[0].weight_percent == 10, "the weight in force moved: {:?}", tight.steps);
    ensure!(tight.steps[0].bake_seconds > steps[0].bake_seconds, "{:?} after {steps:?}", tight.steps);
    ensure!(app.weights().await? == (90, 10), "weights {:?}", app.weights().await?);

    // What loosens again is for the next run.
    app.kubectl(&["delete", "riskpolicy", "shop"]).await?;
    tokio::time::sleep(LOOK * 10).await;
    let later = app.status().await?.run.context("no run")?.plan;
    ensure!(later == tight, "the plan of the run became another one: {later:?}");
    cli(&app, &["plan", NAME]).await?.with(0)?.says("class R3")?.says("RiskPolicy/shop")?;
    app.request("abort").await?;
    let record = ended(&app, 0, RUN).await?;
    ensure!(record.risk_class == RiskClass::R3, "{record:?}");
    forget(&app).await
}

/// What status says of the namespace's policy: whether its newest version is in force, the message, and which one is.
async fn accepted(app: &App<'_>) -> Result<(String, String, i64)> {
    let text = app.kubectl(&["get", "riskpolicy", "shop", "-o", "json"]).await?;
    let policy: Value = serde_json::from_str(&text)?;
    let condition = &policy["status"]["conditions"][0];
    ensure!(policy["status"]["observedGeneration"] == policy["metadata"]["generation"], "not looked at yet");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let in_force = policy["status"]["acceptedGeneration"].as_i64().context("acceptedGeneration")?;
    Ok((text(&condition["status"]), text(&condition["message"]), in_force))
}

/// Waits until status says this of the namespace's policy, while its first version is in force.
async fn said(app: &App<'_>, wanted: &str, text: &str) -> Result<()> {
    until("the word on the policy", SOON, LOOK, || async {
        let (status, message, in_force) = accepted(app).await?;
        ensure!(status == wanted && message.contains(text) && in_force == 1, "{status} {message} {in_force}");
        Ok(())
    })
    .await
}

async fn policy_that_is_refused_changes_nothing(world: &World<'_>) -> Result<()> {
    let app = serving(world, clean("policy-refused")).await?;
    app.patch_rollout(json!({"spec": {"suspend": true}})).await?;
    app.ship(&app.spec.image("2"), Provenance::Human).await?;
    plan(&app, "the plan of the held template", RiskClass::R1).await?;

    apply(&app, json!({"floors": [{"class": "R2"}]})).await?;
    plan(&app, "the policy's class", RiskClass::R2).await?;
    said(&app, "True", "in force").await?;
    apply(&app, json!({"floors": [{"class": "R0"}]})).await?;
    said(&app, "False", "spec.floors[0].class R0 is the lowest class anyhow: write R1 to R4").await?;
    let kept = app.status().await?.plan.context("no plan")?;
    ensure!(kept.risk_class == Some(RiskClass::R2), "a version that was refused counts: {kept:?}");

    // What the schema refuses never gets that far, and what is out of order is no policy.
    let refused = apply(&app, json!({"limits": {"maxFirstStepPercent": -5}})).await;
    let refused = refused.err().map(|error| format!("{error:#}")).unwrap_or_default();
    ensure!(refused.contains("spec.limits.maxFirstStepPercent"), "{refused}");
    let name = format!("odd-{}", app.spec.namespace);
    let odd = json!({
        "apiVersion": "sluice.dev/v1alpha1", "kind": "ClusterRiskPolicy", "metadata": {"name": name},
        "spec": {"classes": [{"name": "R3", "minSamples": 1}], "tierMapping": {"default": "Tier0"}},
    });
    app.apply_object(&odd).await?;
    let got = until("the word on the cluster's policy", SOON, LOOK, || async {
        let text = app.kubectl(&["get", "clusterriskpolicy", &name, "-o", "json"]).await?;
        let policy: Value = serde_json::from_str(&text)?;
        let condition = policy["status"]["conditions"][0].clone();
        let message = condition["message"].as_str().unwrap_or_default();
        let is = condition["status"] == "False"
            && message.contains("spec.classes[R3] is looser than classes[R2] in minSamples");
        ensure!(is, "{condition}");
        Ok(())
    })
    .await;
    let kept = app.status().await?.plan.context("no plan")?;
    app.kubectl(&["delete", "clusterriskpolicy", &name]).await?;
    got?;
    ensure!(kept.risk_class == Some(RiskClass::R2) && kept.points == 5, "it counts: {kept:?}");
    let all = app.kubectl(&["get", "clusterriskpolicies"]).await?;
    ensure!(all.lines().any(|line| line.starts_with("default ")), "the default policy is not there: {all}");
    forget(&app).await
}

async fn the_namespace_says_how_critical_its_workloads_are(world: &World<'_>) -> Result<()> {
    let app = serving(world, clean("tier-label")).await?;
    app.patch_rollout(json!({"spec": {"suspend": true}})).await?;
    app.ship(&app.spec.image("2"), Provenance::Human).await?;
    let shown = plan(&app, "the plan of the held template", RiskClass::R1).await?;
    let default = source(&shown, "tier")?;
    ensure!(
        default == "ClusterRiskPolicy/default, since the namespace has no label sluice.dev/tier",
        "{default}"
    );
    let namespace = app.spec.namespace.clone();
    app.kubectl(&["label", "namespace", &namespace, "sluice.dev/tier=Tier0"]).await?;
    let shown = plan(&app, "the class of a critical namespace", RiskClass::R2).await?;
    ensure!(
        source(&shown, "tier")? == "label sluice.dev/tier of the namespace" && shown.points == 9,
        "{shown:?}"
    );
    // A change that a machine wrote is of the highest class there.
    app.declare(&app.spec.image("2"), Provenance::GenAIAutonomous).await?;
    let shown = plan(&app, "the class of an agent's change", RiskClass::R4).await?;
    ensure!(source(&shown, "floor")?.starts_with("always: "), "{shown:?}");
    cli(&app, &["plan", NAME, "-o", "json"]).await?.with(0)?.says("\"riskClass\": \"R4\"")?;
    // A word that is no tier counts as the most critical one, and is said.
    for (label, class) in [("Tier3", RiskClass::R3), ("gold", RiskClass::R4)] {
        let label = format!("sluice.dev/tier={label}");
        app.kubectl(&["label", "namespace", &namespace, "--overwrite", &label]).await?;
        let shown = plan(&app, &format!("the class by {label}"), class).await?;
        let odd = format!("label {label} of the namespace is none of Tier3, Tier2, Tier1, Tier0");
        ensure!((source(&shown, "tier")? == odd) == (class == RiskClass::R4), "{shown:?}");
    }
    forget(&app).await
}

async fn policy_holds_starts_for_sign_offs_and_after_a_failure(world: &World<'_>) -> Result<()> {
    let app = serving(world, clean("start-gates")).await?;
    let senior = json!([{"role": "senior", "count": 2}]);
    apply(&app, json!({"classes": [{"name": "R0", "requiredSignoffs": senior, "cooldownSeconds": 600}]}))
        .await?;
    said(&app, "True", "in force; no change of class R0 or riskier starts").await?;
    app.ship("shop:2-crash", Provenance::Human).await?;
    let held = waits(&app, "SignoffMissing").await?;
    plans_a_file_while_another_template_is_held(&app).await?;
    ensure!(held.message.contains("needs sign-offs (2 senior; RiskPolicy/shop)"), "{}", held.message);
    event(&app, "SignoffMissing", "nobody can give one yet").await?;
    let approved = app.kubectl(&[
        "get",
        "prollout",
        NAME,
        "-o",
        "jsonpath={.status.conditions[?(@.type=='Approved')].status}",
    ]);
    ensure!(approved.await? == "False", "there is no condition Approved");

    // It starts once nobody has to sign, and fails.
    apply(&app, json!({"classes": [{"name": "R0", "cooldownSeconds": 600}]})).await?;
    let record = ended(&app, 0, RUN).await?;
    outcome(&record, Outcome::Rejected, "CrashLoopBackOff")?;
    app.ship(&app.spec.image("3"), Provenance::Human).await?;
    let held = waits(&app, "Cooldown").await?;
    let left = held.deadline.context("no deadline")?.duration_since(record.ended_at).as_secs();
    ensure!(
        left == 600 && held.message.contains("cooldownSeconds of RiskPolicy/shop"),
        "{left} s: {}",
        held.message
    );
    // Its screen is of two objects, of which one may be newer for a moment.
    until("the screen says what is waited for", SOON, LOOK, || async {
        cli(&app, &["status", NAME]).await?.with(0)?.says("good revision does not wait").map(drop)
    })
    .await?;

    apply(&app, json!({"classes": [{"name": "R0", "cooldownSeconds": 0}]})).await?;
    app.wait("the run without a cooldown", RUN, |status| status.run.is_some()).await?;
    forget(&app).await
}

/// A gate is about the change that the file declares, whatever waits in the cluster.
async fn plans_a_file_while_another_template_is_held(app: &App<'_>) -> Result<()> {
    let file = app.cluster.paths.run_dir.join(format!("{}-change.json", app.spec.namespace));
    let path = file.display().to_string();
    let held = "shop:2-crash";
    for (image, provenance, about, code) in [
        (held, "Human", "the plan of the held template", 0),
        ("shop:9", "Human", "the plan of the next change", 0),
        ("shop:9", "GenAIAutonomous", "the plan of the next change", 6),
    ] {
        let mut rollout = app.spec.rollout_manifest();
        rollout["spec"]["change"] = json!({"provenance": provenance, "images": [image]});
        std::fs::write(&file, rollout.to_string()).with_context(|| path.clone())?;
        let planned = cli(app, &["plan", "-f", &path, "--fail-at", "R3", "--require-declared"]).await?;
        planned.with(code)?.says(about)?.says(&format!("({provenance}"))?;
    }
    Ok(())
}

/// I9: how fast traffic returns does not depend on the class.
async fn abort_takes_no_longer_at_the_highest_class(world: &World<'_>) -> Result<()> {
    let apps = tokio::try_join!(serving(world, clean("abort-low")), serving(world, clean("abort-high")))?;
    let (low, high) = &apps;
    apply(high, json!({"floors": [{"class": "R4"}]})).await?;
    said(high, "True", "in force").await?;
    let (low, high) = tokio::try_join!(aborts_after(low, RiskClass::R1), aborts_after(high, RiskClass::R4))?;
    // Others play beside it, which moves either by a second. What would wait for something of the class waits far longer.
    ensure!(high <= low + Duration::from_secs(3), "{high:?} at R4, {low:?} at R1");
    println!("from the request to weight 0 on the route: {low:?} at R1, {high:?} at R4, medians of three");
    Ok(())
}

/// The median time from a request to abort to weight 0 on the route, of three runs.
async fn aborts_after(app: &App<'_>, class: RiskClass) -> Result<Duration> {
    app.ship(&app.spec.image("2"), Provenance::Human).await?;
    let mut took = Vec::new();
    for run in 0..3 {
        let status = app.wait_weight(1, RUN).await?;
        let is = status.run.context("no run")?.plan.risk_class;
        ensure!(is == class, "the run is of class {is:?}, not {class:?}");
        let begin = Instant::now();
        app.request("abort").await?;
        until("weight 0", SOON, Duration::from_millis(20), || async {
            ensure!(app.weights().await? == (100, 0), "the canary still has traffic");
            Ok(())
        })
        .await?;
        took.push(begin.elapsed());
        outcome(&ended(app, run, RUN).await?, Outcome::Rejected, "AbortedByUser")?;
        app.request("retry").await?;
    }
    took.sort();
    Ok(took[1])
}

/// Waits until the start waits for this.
async fn waits(app: &App<'_>, reason: &str) -> Result<Waiting> {
    let is = |status: &ProgressiveRolloutStatus| {
        status.waiting.as_ref().is_some_and(|waiting| waiting.reason == reason)
    };
    let status = app.wait(reason, RUN, is).await?;
    ensure!(status.run.is_none(), "a run is under way");
    status.waiting.context("no wait")
}
