//! The canary's pods: those that never get ready, those that are replaced, scaled, or come back from history.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use sluice_core::api::{Outcome, Phase, Provenance, RunKind};

use super::Scenario;
use super::expect::{
    LOOK, RUN, SOON, at_rest, clean, draining, ended, event, kept, no_failures, outcome, pods_in, scale,
    served, serving, sized, tested,
};
use crate::cluster::until;
use crate::shared;
use crate::world::{App, AppSpec, NAME, World};

/// Those of this file.
pub fn scenarios() -> Vec<Scenario> {
    vec![
        shared!(canary_pods_never_ready_are_rejected_with_their_own_reason),
        shared!(newer_template_takes_over_mid_way_and_waits_while_watching),
        shared!(scaling_mid_way_keeps_stable_full_and_every_request),
        shared!(scale_to_zero_mid_way_and_back_starts_again),
        shared!(old_revision_returns_in_its_own_replica_set),
    ]
}

/// A declared deadline or a crash loop ends the wait; the pod's own words are in status and events.
async fn canary_pods_never_ready_are_rejected_with_their_own_reason(world: &World<'_>) -> Result<()> {
    let spec = AppSpec { deployment: json!({"progressDeadlineSeconds": 10}), ..clean("never-ready") };
    let app = serving(world, spec).await?;
    let begin = app.load.snapshot();
    let never = [
        ("shop:2-unready", "ProgressDeadlineExceeded", "NotReady (containers with unready status: [shop])"),
        ("shop:3-nopull", "ProgressDeadlineExceeded", "ImagePullBackOff"),
        ("shop:4-crash", "CrashLoopBackOff", "restarting failed container=shop"),
    ];
    for (index, (image, reason, says)) in never.into_iter().enumerate() {
        if reason == "CrashLoopBackOff" {
            // With the usual deadline of ten minutes a crash loop must still end at once.
            let patch = r#"{"spec":{"progressDeadlineSeconds":600}}"#;
            app.kubectl(&["patch", "deployment", NAME, "--type=merge", "-p", patch]).await?;
        }
        let started = Instant::now();
        app.ship(image, Provenance::Human).await?;
        let record = ended(&app, index, RUN).await?;
        outcome(&record, Outcome::Rejected, reason)?;
        ensure!(started.elapsed() < SOON, "{image} was rejected after {:?}", started.elapsed());
        ensure!(record.message.contains(says), "{image}: the record says {:?}", record.message);
        ensure!(record.max_weight_percent == 0, "{image} had weight {} %", record.max_weight_percent);
        let status = at_rest(&app, Phase::Rejected).await?;
        let waiting = status.waiting.context("nothing is said about the wait")?;
        ensure!(
            waiting.reason == "Rejected" && waiting.message.contains(says),
            "{image}: status says {}: {}",
            waiting.reason,
            waiting.message
        );
        event(&app, "Rejected", says).await?;
        ensure!(served(&app, image) == 0, "{image} answered {} requests", served(&app, image));
    }
    no_failures(&app, &begin, "while three bad revisions came up").map(drop)
}

/// A newer template ends the run under way, but not the watch of one that is promoted.
async fn newer_template_takes_over_mid_way_and_waits_while_watching(world: &World<'_>) -> Result<()> {
    let app = serving(world, clean("newer-template")).await?;
    let begin = app.load.snapshot();
    let [second, third, fourth] = ["2", "3", "4"].map(|version| app.spec.image(version));
    app.ship(&second, Provenance::Human).await?;
    app.wait_weight(10, RUN).await?;
    app.ship(&third, Provenance::Human).await?;
    outcome(&ended(&app, 0, RUN).await?, Outcome::Superseded, "NewerTemplate")?;
    let after = served(&app, &second);
    ensure!(after > 0, "{second} was never exposed");

    let (hash, pods) = tested(&app).await?;
    ensure!(served(&app, &second) == after, "{second} answered requests after its run had ended");
    app.wait_phase(Phase::Watching, RUN).await?;
    app.ship(&fourth, Provenance::Human).await?;
    let record = ended(&app, 1, RUN).await?;
    outcome(&record, Outcome::Promoted, "Proven")?;
    ensure!(record.images == [third.clone()], "promoted {:?}", record.images);
    ensure!(served(&app, &fourth) == 0, "{fourth} answered requests while {third} was watched");
    kept(&app, &hash, &pods).await?;

    app.wait("a run of the waiting template", RUN, |status| {
        status.run.as_ref().is_some_and(|run| run.canary.images == [fourth.clone()])
    })
    .await?;
    app.apply_manifest(&third).await?;
    outcome(&ended(&app, 2, RUN).await?, Outcome::Superseded, "TemplateReturned")?;
    let status = at_rest(&app, Phase::Idle).await?;
    ensure!(status.stable.is_some_and(|s| s.hash == hash), "{third} is not the stable revision");
    kept(&app, &hash, &pods).await?;
    no_failures(&app, &begin, "while templates replaced each other").map(drop)
}

/// Waits until stable has all its pods and the canary its share of them, with the weight as it was.
async fn follows(app: &App<'_>, replicas: i32, canary: i32) -> Result<()> {
    let run = app.status().await?.run.context("no run")?;
    sized(app, &run.stable.replica_set, replicas).await?;
    sized(app, &run.canary.replica_set, canary).await?;
    let weights = app.weights().await?;
    ensure!(weights == (50, 50), "weights {weights:?} after scaling to {replicas}");
    Ok(())
}

async fn scaling_mid_way_keeps_stable_full_and_every_request(world: &World<'_>) -> Result<()> {
    let mut spec = draining("scaling");
    // The canary is scaled up long after this: it is a limit on pods getting ready, not on the run.
    spec.deployment["progressDeadlineSeconds"] = json!(15);
    spec.rollout = json!({"suspend": true, "limits": {"pauseBeforePercent": 100}});
    let app = serving(world, spec).await?;
    let begin = app.load.snapshot();
    let second = app.spec.image("2");
    app.ship(&second, Provenance::Human).await?;
    let status = app.wait_phase(Phase::Held, SOON).await?;
    let stable = status.stable.context("no stable revision")?;
    scale(&app, 6).await?;
    sized(&app, &stable.replica_set, 6).await?;
    ensure!(served(&app, &second) == 0, "a held revision answered requests");

    app.patch_rollout(json!({"spec": {"suspend": false}})).await?;
    app.wait_weight(50, RUN).await?;
    follows(&app, 6, 3).await?;
    app.wait("a person is waited for", RUN, |s| s.summary.reason == "PausedBeforePercent").await?;
    // Longer than the progress deadline: pods that come late in a step have the whole of it.
    tokio::time::sleep(std::time::Duration::from_secs(10)).await;
    app.kubectl(&["scale", "deployment", NAME, "--replicas=8"]).await?;
    follows(&app, 8, 4).await?;
    scale(&app, 4).await?;
    follows(&app, 4, 2).await?;
    app.request("resume").await?;
    let (hash, pods) = tested(&app).await?;
    outcome(&ended(&app, 0, RUN).await?, Outcome::Promoted, "Proven")?;
    at_rest(&app, Phase::Idle).await?;
    kept(&app, &hash, &pods).await?;
    ensure!(pods.len() == 4, "{} pods were promoted", pods.len());
    no_failures(&app, &begin, "while the workload was scaled").map(drop)
}

async fn scale_to_zero_mid_way_and_back_starts_again(world: &World<'_>) -> Result<()> {
    let app = serving(world, clean("scale-to-zero")).await?;
    let begin = app.load.snapshot();
    app.ship(&app.spec.image("2"), Provenance::Human).await?;
    let status = app.wait_weight(10, RUN).await?;
    let canary = status.run.context("no run")?.canary.replica_set;
    no_failures(&app, &begin, "before the workload was scaled to zero")?;
    scale(&app, 0).await?;
    until("the canary went", SOON, LOOK, || async {
        let (wanted, _) = pods_in(&app, &canary).await?;
        ensure!(wanted == 0, "it has {wanted} pods");
        Ok(())
    })
    .await?;
    let weights = app.weights().await?;
    ensure!(weights == (100, 0), "the canary's pods went at weights {weights:?}");
    outcome(&ended(&app, 0, SOON).await?, Outcome::NotProven, "ScaledToZero")?;

    scale(&app, 4).await?;
    let status = app.wait_weight(10, RUN).await?;
    ensure!(status.run_count == 2, "run {} is under way", status.run_count);
    let again = app.load.snapshot();
    app.apply_manifest(&app.spec.image("1")).await?;
    outcome(&ended(&app, 1, RUN).await?, Outcome::Superseded, "TemplateReturned")?;
    at_rest(&app, Phase::Idle).await?;
    no_failures(&app, &again, "after the workload came back").map(drop)
}

/// What history holds is never built a second time: first as a canary, then as a revert, then by `undo`.
async fn old_revision_returns_in_its_own_replica_set(world: &World<'_>) -> Result<()> {
    let spec = clean("old-revision");
    let (old, new) = (spec.image("0"), spec.image("1"));
    // Two revisions from before Sluice: the older one stands in the history that it enrols.
    world.cluster.make_namespace(&spec.namespace).await?;
    world.cluster.apply(&spec.deployment_manifest(&old).to_string()).await?;
    let complete = ["-n", &spec.namespace, "rollout", "status", "deployment/shop", "--timeout=40s"];
    world.cluster.kubectl_run(&complete).await?;
    let app = serving(world, spec.clone()).await?;
    let begin = app.load.snapshot();
    let names = || async {
        let sets = app.replica_sets().await?.into_iter();
        anyhow::Ok(sets.filter_map(|set| set.metadata.uid).collect::<std::collections::BTreeSet<_>>())
    };
    let both = names().await?;
    ensure!(both.len() == 2, "{} ReplicaSets before the first run", both.len());

    for (index, (what, image, kind)) in [
        ("it was never judged, so it is a canary", &old, RunKind::Canary),
        ("it was judged before, so it is a revert", &new, RunKind::Return),
        ("kubectl rollout undo", &old, RunKind::Return),
    ]
    .into_iter()
    .enumerate()
    {
        let started = Instant::now();
        match index {
            0 => app.ship(image, Provenance::Human).await?,
            1 => app.apply_manifest(image).await?,
            _ => app.kubectl(&["rollout", "undo", &format!("deployment/{NAME}")]).await.map(drop)?,
        }
        let status = app.wait("a run", RUN, |s| s.run.is_some() && s.run_count == index as i64 + 1).await?;
        let run = status.run.context("no run")?;
        ensure!(run.kind == kind, "{what}: the run is a {:?}", run.kind);
        ensure!(run.canary.images == [image.clone()], "{what}: {:?}", run.canary.images);
        let (hash, pods) = tested(&app).await?;
        let record = ended(&app, index, RUN).await?;
        outcome(&record, Outcome::Promoted, "Proven")?;
        at_rest(&app, Phase::Idle).await?;
        kept(&app, &hash, &pods).await?;
        ensure!(pods.len() == 4, "{what}: {} pods were promoted", pods.len());
        ensure!(names().await? == both, "{what}: a ReplicaSet was built anew");
        if kind == RunKind::Return {
            ensure!(started.elapsed() < SOON, "{what}: it took {:?}", started.elapsed());
        }
    }
    no_failures(&app, &begin, "while old revisions came back").map(drop)
}
