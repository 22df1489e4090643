//! Everybody who writes to a held Deployment: kubectl's own verbs, manifests from git, people with more or fewer
//! rights. A hold ends by Sluice or by break-glass, and by nothing else.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use serde_json::{Value, json};
use sluice_core::api::{Outcome, Phase, Provenance};

use super::Scenario;
use super::expect::{LOOK, RUN, SOON, answers, at_rest, clean, ended, no_failures, outcome, served, serving};
use crate::cluster::until;
use crate::shared;
use crate::world::{App, AppSpec, NAME, World};

/// Those of this file.
pub fn scenarios() -> Vec<Scenario> {
    vec![
        shared!(no_writer_releases_a_hold_and_re_applies_change_nothing),
        shared!(break_glass_frees_mid_way_and_each_reason_works_once),
        shared!(a_persons_own_pause_is_kept_until_they_resume),
    ]
}

/// What a hold protects, as it is now.
#[derive(Debug, PartialEq)]
struct Hold {
    paused: bool,
    mark: Option<String>,
    managed: Option<String>,
    spec: Value,
}

fn hold(deployment: &Deployment) -> Result<Hold> {
    let metadata = &deployment.metadata;
    let spec = deployment.spec.as_ref().context("spec")?;
    Ok(Hold {
        paused: spec.paused.unwrap_or(false),
        mark: metadata.annotations.as_ref().and_then(|a| a.get("sluice.dev/held").cloned()),
        managed: metadata.labels.as_ref().and_then(|l| l.get("sluice.dev/managed").cloned()),
        spec: serde_json::to_value(spec)?,
    })
}

/// A write may be refused or have no effect. Either way the hold is what it was.
async fn in_vain(app: &App<'_>, args: &[&str]) -> Result<()> {
    let before = hold(&app.deployment().await?)?;
    ensure!(before.paused && before.mark.is_some(), "not held before `kubectl {}`", args.join(" "));
    let answer = app.kubectl(args).await;
    let after = hold(&app.deployment().await?)?;
    let said = answer.unwrap_or_else(|error| format!("{error:#}"));
    ensure!(
        before == after,
        "`kubectl {}` changed the hold ({said}):\n{before:#?}\n{after:#?}",
        args.join(" ")
    );
    Ok(())
}

fn file(app: &App<'_>, name: &str, object: &Value) -> Result<String> {
    let file = app.cluster.paths.run_dir.join(format!("{}-{name}.json", app.spec.namespace));
    std::fs::write(&file, object.to_string()).with_context(|| file.display().to_string())?;
    Ok(file.display().to_string())
}

/// The break-glass patch of the docs with this reason.
fn free(reason: &str) -> String {
    json!({
        "metadata": {
            "annotations": {"sluice.dev/break-glass": reason, "sluice.dev/held": null},
            "labels": {"sluice.dev/managed": null},
        },
        "spec": {"paused": null},
    })
    .to_string()
}

/// Gives a name a role in the application's namespace.
async fn bind(app: &App<'_>, name: &str, role: &str, subject: &Value) -> Result<()> {
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": {"name": name, "namespace": app.spec.namespace},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [subject],
    });
    app.cluster.apply(&binding.to_string()).await
}

fn person(name: &str) -> Value {
    json!({"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": name})
}

/// The Deployment's version once its controller has answered the last change.
async fn settled(app: &App<'_>) -> Result<Option<String>> {
    until("the Deployment's controller has seen the change", SOON, LOOK, || async {
        let deployment = app.deployment().await?;
        let seen = deployment.status.and_then(|status| status.observed_generation);
        ensure!(seen == deployment.metadata.generation, "it has seen generation {seen:?}");
        Ok(())
    })
    .await?;
    Ok(app.deployment().await?.metadata.resource_version)
}

async fn no_writer_releases_a_hold_and_re_applies_change_nothing(world: &World<'_>) -> Result<()> {
    let app = serving(world, AppSpec { rollout: json!({"suspend": true}), ..clean("writers") }).await?;
    let begin = app.load.snapshot();
    let image = app.spec.image("2");
    app.ship(&image, Provenance::Human).await?;
    app.wait("the wait for suspend to end", SOON, |status| {
        status.phase == Phase::Held && status.waiting.as_ref().is_some_and(|w| w.reason == "Suspended")
    })
    .await?;
    let deployment = format!("deployment/{NAME}");
    for verb in ["resume", "undo", "restart", "pause"] {
        in_vain(&app, &["rollout", verb, &deployment]).await?;
    }

    // Git's manifest says `paused: false` and knows neither mark nor label.
    let mut manifest = app.spec.deployment_manifest(&image);
    manifest["spec"]["paused"] = json!(false);
    let path = file(&app, "git", &manifest)?;
    let client_side: &[&str] = &["apply", "-f", &path];
    let server_side: &[&str] =
        &["apply", "--server-side", "--force-conflicts", "--field-manager=git", "-f", &path];
    for apply in [client_side, server_side] {
        in_vain(&app, apply).await?;
        let version = settled(&app).await?;
        in_vain(&app, apply).await?;
        let again = settled(&app).await?;
        ensure!(version == again, "an identical `kubectl {}` wrote something", apply.join(" "));
    }

    in_vain(&app, &["label", "deployment", NAME, "sluice.dev/managed-"]).await?;
    in_vain(&app, &["annotate", "deployment", NAME, "sluice.dev/held-"]).await?;
    in_vain(&app, &["annotate", "deployment", NAME, "--overwrite", "sluice.dev/held=user-paused"]).await?;
    let unmark = r#"{"metadata":{"annotations":{"sluice.dev/held":null}}}"#;
    in_vain(&app, &["patch", "deployment", NAME, "--subresource=status", "--type=merge", "-p", unmark])
        .await?;
    in_vain(&app, &["patch", "deployment", NAME, "--type=merge", "-p", r#"{"spec":{"paused":false}}"#])
        .await?;

    // Break-glass is for people with its verb: not for those who may edit, and for no ServiceAccount, whatever its role.
    let ns = app.spec.namespace.clone();
    bind(&app, "erin", "edit", &person("erin")).await?;
    bind(&app, "git", "cluster-admin", &json!({"kind": "ServiceAccount", "name": "git", "namespace": ns}))
        .await?;
    for (number, name) in ["erin".to_owned(), format!("system:serviceaccount:{ns}:git")].iter().enumerate() {
        let patch = free(&format!("INC-{number}"));
        in_vain(&app, &["patch", "deployment", NAME, "--type=merge", "-p", &patch, "--as", name]).await?;
    }
    ensure!(served(&app, &image) == 0, "{image} answered requests while it was held");
    let status = app.status().await?;
    ensure!(status.phase == Phase::Held && status.run_count == 0, "phase {}", status.phase.as_str());
    no_failures(&app, &begin, "while many wrote to a held Deployment")?;

    // The hold itself still works: it ends as soon as Sluice may go on.
    app.patch_rollout(json!({"spec": {"suspend": false}})).await?;
    app.wait_weight(10, RUN).await?;
    app.request("abort").await?;
    outcome(&ended(&app, 0, RUN).await?, Outcome::Rejected, "AbortedByUser")?;
    at_rest(&app, Phase::Rejected).await?;
    no_failures(&app, &begin, "while the held revision was tried").map(drop)
}

async fn break_glass_frees_mid_way_and_each_reason_works_once(world: &World<'_>) -> Result<()> {
    let app = serving(world, clean("break-glass")).await?;
    let begin = app.load.snapshot();
    bind(&app, "olga", "admin", &person("olga")).await?;
    bind(&app, "olga-breakglass", "sluice-breakglass", &person("olga")).await?;
    let patch = free("INC-1");
    let args = ["patch", "deployment", NAME, "--type=merge", "-p", patch.as_str(), "--as", "olga"];
    let second = app.spec.image("2");
    app.ship(&second, Provenance::Human).await?;
    app.wait_weight(10, RUN).await?;
    // From here Kubernetes rolls by itself, and pods that end at once cost requests.
    no_failures(&app, &begin, "before break-glass")?;
    app.kubectl(&args).await?;
    outcome(&ended(&app, 0, RUN).await?, Outcome::Abandoned, "BreakGlass")?;
    app.kubectl(&["rollout", "status", &format!("deployment/{NAME}"), "--timeout=60s"]).await?;
    let status = at_rest(&app, Phase::Idle).await?;
    let stable = status.stable.context("no stable revision")?;
    ensure!(stable.images == [second.clone()], "stable is {:?}", stable.images);

    let third = app.spec.image("3");
    app.patch_rollout(json!({"spec": {"suspend": true}})).await?;
    app.ship(&third, Provenance::Human).await?;
    app.wait_phase(Phase::Held, SOON).await?;
    in_vain(&app, &args).await?;
    ensure!(served(&app, &third) == 0, "a used reason released {third}");

    let patch = free("INC-2");
    app.kubectl(&["patch", "deployment", NAME, "--type=merge", "-p", &patch, "--as", "olga"]).await?;
    app.kubectl(&["rollout", "status", &format!("deployment/{NAME}"), "--timeout=60s"]).await?;
    let status = at_rest(&app, Phase::Idle).await?;
    ensure!(status.stable.is_some_and(|s| s.images == [third.clone()]), "{third} is not stable");
    answers(&app.spec.namespace, &[&app.load]).await
}

async fn a_persons_own_pause_is_kept_until_they_resume(world: &World<'_>) -> Result<()> {
    let app = serving(world, clean("own-pause")).await?;
    let begin = app.load.snapshot();
    let (image, deployment) = (app.spec.image("2"), format!("deployment/{NAME}"));
    app.kubectl(&["rollout", "pause", &deployment]).await?;
    app.ship(&image, Provenance::Human).await?;
    let status = app
        .wait("the wait for the person", SOON, |status| {
            status.waiting.as_ref().is_some_and(|waiting| waiting.reason == "UserPaused")
        })
        .await?;
    let says = status.waiting.map(|waiting| waiting.message).unwrap_or_default();
    ensure!(says.contains("kubectl rollout resume"), "it says {says:?}");
    let mark = hold(&app.deployment().await?)?.mark;
    ensure!(mark.as_deref() == Some("user-paused"), "the mark is {mark:?}");
    // Whoever applies a manifest does not resume what a person has paused.
    app.apply_manifest(&image).await?;
    until("the pause is still the person's", Duration::from_secs(10), LOOK, || async {
        let now = hold(&app.deployment().await?)?;
        ensure!(now.paused && now.mark.as_deref() == Some("user-paused"), "{now:?}");
        Ok(())
    })
    .await?;
    ensure!(app.status().await?.run_count == 0, "a run started under a person's pause");

    app.kubectl(&["rollout", "resume", &deployment]).await?;
    app.wait_weight(10, RUN).await?;
    app.request("abort").await?;
    outcome(&ended(&app, 0, RUN).await?, Outcome::Rejected, "AbortedByUser")?;
    at_rest(&app, Phase::Rejected).await?;
    no_failures(&app, &begin, "around a person's pause").map(drop)
}
