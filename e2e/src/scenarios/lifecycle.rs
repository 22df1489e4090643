//! An application's own objects come and go while a run is under way: its Deployment, its rollout, its namespace.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use sluice_core::api::{Outcome, Phase, Provenance};

use super::Scenario;
use super::expect::{
    LOOK, RUN, SOON, answers, at_rest, clean, ended, event, forget, kept, names, no_failures, ordinary,
    outcome, served, serving, traffic_is_home,
};
use crate::cluster::until;
use crate::shared;
use crate::world::{App, AppSpec, NAME, World};

/// Those of this file.
pub fn scenarios() -> Vec<Scenario> {
    vec![
        shared!(deleted_deployment_ends_the_run_and_leaves_nothing),
        shared!(orphaned_deployment_serves_on_and_is_found_again),
        shared!(deleted_rollout_gives_everything_back_mid_way_idle_and_rejected),
        shared!(namespace_of_an_application_goes_with_its_run),
    ]
}

/// Gives the object back: without the finalizer that waits for traffic.
async fn delete_rollout(app: &App<'_>) -> Result<()> {
    app.kubectl(&["delete", "progressiverollout", NAME, "--timeout=90s"]).await.map(drop)
}

async fn deleted_deployment_ends_the_run_and_leaves_nothing(world: &World<'_>) -> Result<()> {
    let app = serving(world, clean("deployment-deleted")).await?;
    let image = app.spec.image("2");
    app.ship(&image, Provenance::Human).await?;
    app.wait_weight(10, RUN).await?;
    app.kubectl(&["delete", "deployment", NAME]).await?;
    outcome(&ended(&app, 0, RUN).await?, Outcome::Abandoned, "WorkloadGone")?;
    until("nothing of the run is left", SOON, LOOK, || async {
        let left = names(&app, "replicaset,pod").await?;
        ensure!(left.is_empty(), "{left:?}");
        traffic_is_home(&app).await
    })
    .await?;
    event(&app, "WorkloadNotFound", "create it").await?;

    // The same name is another Deployment: it is enrolled like any new one.
    app.apply_manifest(&app.spec.image("3")).await?;
    let status = at_rest(&app, Phase::Idle).await?;
    ensure!(status.stable.is_some_and(|s| s.images == [app.spec.image("3")]), "another revision is stable");
    answers(&app.spec.namespace, &[&app.load]).await?;
    forget(&app).await
}

async fn orphaned_deployment_serves_on_and_is_found_again(world: &World<'_>) -> Result<()> {
    let app = serving(world, clean("deployment-orphaned")).await?;
    let begin = app.load.snapshot();
    let stable = app.status().await?.stable.context("no stable revision")?;
    let pods = app.pods_of(&stable.hash).await?;
    app.ship(&app.spec.image("2"), Provenance::Human).await?;
    app.wait_weight(10, RUN).await?;
    app.kubectl(&["delete", "deployment", NAME, "--cascade=orphan"]).await?;
    outcome(&ended(&app, 0, RUN).await?, Outcome::Abandoned, "WorkloadGone")?;
    until("stable alone is left, as it was", SOON, LOOK, || async {
        let left = names(&app, "replicaset").await?;
        ensure!(left == [format!("replicaset.apps/{}", stable.replica_set)], "{left:?}");
        traffic_is_home(&app).await
    })
    .await?;
    kept(&app, &stable.hash, &pods).await?;

    app.apply_manifest(&app.spec.image("1")).await?;
    let status = at_rest(&app, Phase::Idle).await?;
    ensure!(status.stable.is_some_and(|s| s.hash == stable.hash), "another revision is stable");
    kept(&app, &stable.hash, &pods).await?;
    no_failures(&app, &begin, "while the Deployment was orphaned and created again")?;
    forget(&app).await
}

async fn deleted_rollout_gives_everything_back_mid_way_idle_and_rejected(world: &World<'_>) -> Result<()> {
    let app = serving(world, clean("rollout-deleted")).await?;
    let (manifest, deployment) = (app.spec.rollout_manifest(), format!("deployment/{NAME}"));
    let (second, bad) = (app.spec.image("2"), "shop:3-crash");
    let begin = app.load.snapshot();
    let stable = app.status().await?.stable.context("no stable revision")?;
    app.ship(&second, Provenance::Human).await?;
    app.wait_weight(10, RUN).await?;
    delete_rollout(&app).await?;
    // The object is gone: all that it promised is done already.
    ordinary(&app, true, &second).await?;
    let sets = names(&app, "replicaset").await?;
    ensure!(sets == [format!("replicaset.apps/{}", stable.replica_set)], "left behind: {sets:?}");
    no_failures(&app, &begin, "while the rollout was deleted mid-way")?;
    let before = served(&app, &second);
    ensure!(before > 0, "{second} was never exposed");

    // A person releases what was held, and Kubernetes rolls it.
    app.kubectl(&["rollout", "resume", &deployment]).await?;
    app.kubectl(&["rollout", "status", &deployment, "--timeout=60s"]).await?;
    app.apply_object(&manifest).await?;
    at_rest(&app, Phase::Idle).await?;
    answers(&app.spec.namespace, &[&app.load]).await?;

    let begin = app.load.snapshot();
    delete_rollout(&app).await?;
    ordinary(&app, false, &second).await?;
    app.apply_object(&manifest).await?;
    at_rest(&app, Phase::Idle).await?;
    app.ship(bad, Provenance::Human).await?;
    at_rest(&app, Phase::Rejected).await?;
    delete_rollout(&app).await?;
    ordinary(&app, true, bad).await?;
    ensure!(
        names(&app, "replicaset").await?.len() == 2,
        "history is lost: {:?}",
        names(&app, "replicaset").await?
    );
    ensure!(served(&app, bad) == 0, "{bad} answered requests");
    no_failures(&app, &begin, "while the rollout was deleted at rest and when it had rejected")?;
    forget(&app).await
}

/// Deployment, Services, route and rollout go at once and in any order: the finalizer must not wait for any of them.
async fn namespace_of_an_application_goes_with_its_run(world: &World<'_>) -> Result<()> {
    let app = serving(world, AppSpec { rps: 30, ..clean("application-deleted") }).await?;
    app.ship(&app.spec.image("2"), Provenance::Human).await?;
    app.wait_weight(10, RUN).await?;
    forget(&app).await?;
    let namespaces: Api<Namespace> = Api::all(world.cluster.client.clone());
    until("the namespace is gone", RUN, LOOK, || async {
        let left = namespaces.get_opt(&app.spec.namespace).await?;
        let conditions = left.as_ref().and_then(|left| left.status.as_ref()?.conditions.as_ref());
        ensure!(left.is_none(), "it is still there: {conditions:?}");
        Ok(())
    })
    .await
}
