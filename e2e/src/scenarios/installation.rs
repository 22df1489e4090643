//! The installation comes and goes while runs are under way: the process that leads, Sluice itself and its namespace.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;
use rustix::process::Signal;
use serde_json::{Value, json};
use sluice_core::api::{Outcome, Phase, Provenance};

use super::Scenario;
use super::expect::{
    LOOK, RUN, SOON, answers, at_rest, clean, ended, event, forget, kept, no_failures, ordinary, outcome,
    served, serving,
};
use super::kill::short_steps;
use crate::alone;
use crate::cluster::until;
use crate::world::{App, AppSpec, NAME, SLUICE, World, project};

/// Those of this file.
pub fn scenarios() -> Vec<Scenario> {
    vec![
        alone!(next_leader_finishes_what_a_killed_one_began),
        alone!(upgrade_mid_way_goes_on),
        alone!(two_processes_that_both_lead_do_no_harm),
        alone!(uninstall_mid_way_leaves_ordinary_objects_and_reinstall_adopts_them),
        alone!(deleted_namespace_is_survived_with_break_glass),
        alone!(defaults_of_the_chart_hold_expose_and_abort),
    ]
}

/// Waits until the processes are those of the newest settings.
pub(super) async fn rolled(world: &World<'_>) -> Result<()> {
    let args = ["-n", SLUICE, "rollout", "status", "deployment/sluice", "--timeout=90s"];
    world.cluster.kubectl_run(&args).await?;
    let pods: Api<Pod> = Api::namespaced(world.cluster.client.clone(), SLUICE);
    until("the old processes are gone", Duration::from_secs(60), LOOK, || async {
        let left = pods.list(&ListParams::default()).await?.items;
        let going = left.iter().filter(|pod| pod.metadata.deletion_timestamp.is_some()).count();
        ensure!(going == 0, "{going} are left");
        Ok(())
    })
    .await
}

/// The same, and one of them leads.
pub(super) async fn settled(world: &World<'_>) -> Result<()> {
    rolled(world).await?;
    world.wait_leading().await
}

/// Installs or upgrades to the usual settings.
pub(super) async fn installed_again(world: &World<'_>) -> Result<()> {
    world.helm_install(&[]).await?;
    settled(world).await
}

/// Plays on an installation with other settings, which it gets back at the end.
async fn with_settings(
    world: &World<'_>,
    extra: &[&str],
    work: impl AsyncFnOnce() -> Result<()>,
) -> Result<()> {
    let result = async {
        world.helm_install(extra).await?;
        rolled(world).await?;
        work().await
    }
    .await;
    result.and(installed_again(world).await)
}

/// The container whose process leads.
async fn leader(world: &World<'_>) -> Result<crate::kubelet::Running> {
    let identity = world.leader().await?;
    let running = world.cluster.kubelet.running(SLUICE);
    let found = running.into_iter().find(|process| identity.starts_with(&format!("{}_", process.pod)));
    found.with_context(|| format!("{identity} is no process here"))
}

/// Ends a promotion that is under way, with every tested pod kept and nobody harmed.
async fn promoted(app: &App<'_>, runs: usize, begin: &crate::load::Snapshot, when: &str) -> Result<()> {
    let status = app.wait_weight(100, RUN).await?;
    let hash = status.run.context("no run at weight 100")?.canary.hash;
    let tested = app.pods_of(&hash).await?;
    outcome(&ended(app, runs, RUN).await?, Outcome::Promoted, "Proven")?;
    let status = at_rest(app, Phase::Idle).await?;
    ensure!(status.run_count == i64::try_from(runs)? + 1, "{} runs were started", status.run_count);
    kept(app, &hash, &tested).await?;
    no_failures(app, begin, when).map(drop)
}

async fn next_leader_finishes_what_a_killed_one_began(world: &World<'_>) -> Result<()> {
    let steps = short_steps();
    with_settings(world, &["--set-json", &steps], async || killed_and_asleep(world).await).await
}

async fn killed_and_asleep(world: &World<'_>) -> Result<()> {
    world.wait_leading().await?;
    let app = serving(world, clean("leader-killed")).await?;
    let begin = app.load.snapshot();
    app.ship(&app.spec.image("2"), Provenance::Human).await?;
    app.wait_weight(50, RUN).await?;
    let (identity, process) = (world.leader().await?, leader(world).await?);
    world.cluster.kubelet.signal(&process, Signal::KILL)?;
    until("another process leads", SOON, LOOK, || async {
        let now = world.leader().await?;
        ensure!(now != identity, "the Lease is still {now}'s");
        Ok(())
    })
    .await?;
    promoted(&app, 0, &begin, "while the leader was killed").await?;

    // One that is not dead but cut off wakes up after its time, and must not go on.
    let begin = app.load.snapshot();
    app.ship(&app.spec.image("3"), Provenance::Human).await?;
    app.wait_weight(50, RUN).await?;
    let (identity, process) = (world.leader().await?, leader(world).await?);
    world.cluster.kubelet.signal(&process, Signal::STOP)?;
    let taken = until("another process leads", SOON, LOOK, || async {
        let now = world.leader().await?;
        ensure!(now != identity, "the Lease is still {now}'s");
        Ok(())
    })
    .await;
    world.cluster.kubelet.signal(&process, Signal::CONT)?;
    taken?;
    promoted(&app, 1, &begin, "while the leader slept through its own time").await?;
    let log = std::fs::read_to_string(world.cluster.kubelet.log(SLUICE, &process.pod, "controller"))?;
    ensure!(log.contains("leadership was lost"), "{} did not notice that it leads no more", process.pod);
    forget(&app).await
}

async fn upgrade_mid_way_goes_on(world: &World<'_>) -> Result<()> {
    let app = serving(world, clean("upgraded")).await?;
    let begin = app.load.snapshot();
    app.ship(&app.spec.image("2"), Provenance::Human).await?;
    let status = app.wait_weight(10, RUN).await?;
    let run = status.run.context("no run")?.id;
    let before: Vec<_> = world.cluster.kubelet.running(SLUICE);
    with_settings(
        world,
        &["--set", "podAnnotations.release=next", "--set", "defaultGuards=null"],
        async || {
            world.wait_leading().await?;
            let after = world.cluster.kubelet.running(SLUICE);
            ensure!(after.iter().all(|process| !before.contains(process)), "the upgrade replaced nothing");
            let status = app.status().await?;
            let now = status
                .run
                .map(|run| run.id)
                .or_else(|| status.history.first().map(|record| record.id.clone()));
            ensure!(now.as_deref() == Some(run.as_str()), "run {run} became {now:?}");
            promoted(&app, 0, &begin, "while Sluice was upgraded").await
        },
    )
    .await?;
    forget(&app).await
}

/// Without leader election two processes act on everything at once. Compare-and-swap on status and the tests in each
/// patch are all that is left, and they are enough.
async fn two_processes_that_both_lead_do_no_harm(world: &World<'_>) -> Result<()> {
    let steps = short_steps();
    let extra = ["--set", "extraArgs[0]=--no-leader-election", "--set-json", &steps];
    with_settings(world, &extra, async || {
        ensure!(world.leader().await.is_err(), "somebody holds the Lease");
        let processes = world.cluster.kubelet.running(SLUICE);
        ensure!(processes.len() == 2, "processes: {processes:?}");
        let app = serving(world, clean("both-lead")).await?;
        let begin = app.load.snapshot();
        app.ship(&app.spec.image("2"), Provenance::Human).await?;
        promoted(&app, 0, &begin, "while two led a promotion").await?;
        app.ship(&app.spec.image("3"), Provenance::Human).await?;
        app.wait_weight(50, RUN).await?;
        app.request("abort").await?;
        outcome(&ended(&app, 1, RUN).await?, Outcome::Rejected, "AbortedByUser")?;
        let status = at_rest(&app, Phase::Rejected).await?;
        ensure!(status.run_count == 2 && status.history.len() == 2, "{} runs", status.run_count);
        no_failures(&app, &begin, "while two led an abort")?;
        for process in &processes {
            let log = std::fs::read_to_string(world.cluster.kubelet.log(SLUICE, &process.pod, "controller"))?;
            let acted = log.lines().any(|line| line.contains("both-lead") && line.contains("\"written\""));
            ensure!(acted, "{} did nothing, so this showed nothing", process.pod);
        }
        ensure!(world.cluster.kubelet.running(SLUICE) == processes, "a process died");
        forget(&app).await
    })
    .await
}

async fn uninstall_mid_way_leaves_ordinary_objects_and_reinstall_adopts_them(
    world: &World<'_>,
) -> Result<()> {
    let waiting = json!({"limits": {"pauseBeforePercent": 50}});
    let midway = serving(world, AppSpec { rollout: waiting, ..clean("uninstall-midway") }).await?;
    let idle = serving(world, clean("uninstall-idle")).await?;
    let rejected = serving(world, clean("uninstall-rejected")).await?;
    let (second, bad) = (midway.spec.image("2"), "shop:2-crash");
    let begin = [&midway, &idle, &rejected].map(|app| app.load.snapshot());
    rejected.ship(bad, Provenance::Human).await?;
    midway.ship(&second, Provenance::Human).await?;
    at_rest(&rejected, Phase::Rejected).await?;
    midway.wait_weight(10, RUN).await?;
    let stable = idle.status().await?.stable.context("no stable revision")?;
    let pods = idle.pods_of(&stable.hash).await?;

    let result = async {
        world.cluster.helm_run(&["uninstall", "sluice", "-n", SLUICE]).await?;
        let apps =
            [(&midway, true, second.as_str()), (&idle, false, "shop:1-errors0"), (&rejected, true, bad)];
        for ((app, paused, image), begin) in apps.into_iter().zip(&begin) {
            ordinary(app, paused, image).await?;
            let rollout = app.rollout().await?;
            let finalizers = rollout.metadata.finalizers.unwrap_or_default();
            ensure!(finalizers.is_empty(), "{}: finalizers {finalizers:?}", app.spec.namespace);
            let phase = rollout.status.map(|status| status.phase);
            ensure!(phase == Some(Phase::Released), "{}: {phase:?}", app.spec.namespace);
            no_failures(app, begin, "while Sluice was uninstalled")?;
        }
        hook_was_a_process(world)?;
        world.cluster.kubectl_run(&["get", "crd", "progressiverollouts.sluice.dev"]).await?;
        let kinds = "deployment,job,pod,serviceaccount,configmap,lease";
        let left = world.cluster.kubectl_run(&["-n", SLUICE, "get", kinds, "-o", "name"]).await?;
        let ours: Vec<&str> = left.lines().filter(|name| name.contains("sluice")).collect();
        ensure!(ours.iter().all(|name| name.starts_with("lease")), "left behind: {ours:?}");
        let kinds = "mutatingadmissionpolicy,validatingadmissionpolicy,clusterrole,clusterrolebinding";
        let left = world.cluster.kubectl_run(&["get", kinds, "-o", "name"]).await?;
        ensure!(!left.contains("sluice"), "left behind: {left}");

        // Nobody guards it any more: kubectl alone releases it.
        let deployment = format!("deployment/{NAME}");
        midway.kubectl(&["rollout", "resume", &deployment]).await?;
        midway.kubectl(&["rollout", "status", &deployment, "--timeout=60s"]).await
    }
    .await;
    installed_again(world).await?;
    result?;

    let status = at_rest(&idle, Phase::Idle).await?;
    ensure!(status.stable.is_some_and(|s| s.hash == stable.hash), "another revision is stable");
    kept(&idle, &stable.hash, &pods).await?;
    let status = at_rest(&midway, Phase::Idle).await?;
    ensure!(status.stable.is_some_and(|s| s.images == [second.clone()]), "{second} is not stable");
    event(&rejected, "WorkloadPaused", "kubectl rollout resume").await?;
    idle.ship(&idle.spec.image("2"), Provenance::Human).await?;
    idle.wait_weight(10, RUN).await?;
    no_failures(&idle, &begin[1], "from the uninstallation to the next run")?;
    no_failures(&rejected, &begin[2], "from the uninstallation to the next run")?;
    for app in [&midway, &idle, &rejected] {
        forget(app).await?;
    }
    Ok(())
}

/// The README's `helm install`, without a value of the demo; the rollout names its Prometheus.
async fn defaults_of_the_chart_hold_expose_and_abort(world: &World<'_>) -> Result<()> {
    let prometheus = json!({"prometheus": {"url": world.cluster.addresses.prometheus}});
    let chart = project().join("charts/sluice").display().to_string();
    let result = async {
        world.cluster.helm_run(&["uninstall", "sluice", "-n", SLUICE]).await?;
        world.cluster.helm_run(&["install", "sluice", &chart, "-n", SLUICE]).await?;
        settled(world).await?;
        ensure!(world.cluster.kubelet.running(SLUICE).len() == 2, "two replicas are the default");
        let app = serving(world, AppSpec { rollout: prometheus, ..clean("defaults") }).await?;
        let begin = app.load.snapshot();
        app.ship(&app.spec.image("2"), Provenance::GenAIAssisted).await?;
        let status = app.wait_weight(1, RUN).await?;
        let plan = status.run.context("no run")?.plan;
        let first = plan.steps.first().context("no steps")?;
        ensure!(first.weight_percent <= 5 && first.bake_seconds >= 600, "not the built-in table: {first:?}");
        app.request("abort").await?;
        outcome(&ended(&app, 0, RUN).await?, Outcome::Rejected, "AbortedByUser")?;
        at_rest(&app, Phase::Rejected).await?;
        no_failures(&app, &begin, "from the hold to the abort")?;
        forget(&app).await
    }
    .await;
    installed_again(world).await?;
    result
}

/// The hook Job's pod was a process of the node `local` that printed what it did.
fn hook_was_a_process(world: &World<'_>) -> Result<()> {
    let dir = world.cluster.paths.run_dir.join("kubelet");
    for entry in std::fs::read_dir(&dir).with_context(|| dir.display().to_string())?.flatten() {
        if entry.file_name().to_string_lossy().starts_with("sluice-system_sluice-release-") {
            let log = std::fs::read_to_string(entry.path().join("controller.log")).unwrap_or_default();
            if log.contains("every rollout has let go") {
                return Ok(());
            }
        }
    }
    bail!("no process of the hook says that every rollout has let go")
}

/// The commands that the docs give for break-glass, for this application.
fn commands_of_the_docs(namespace: &str) -> Result<[String; 2]> {
    let docs = std::fs::read_to_string(project().join("docs/install.md")).context("docs/install.md")?;
    let section = docs.split("## Break-glass").nth(1).context("no section on break-glass")?;
    let command = |begins: &str| {
        let found =
            section.lines().find_map(|line| line.find(begins).map(|at| line[at..].trim_end_matches('`')));
        let command = found.with_context(|| format!("the docs have no `{begins}`"))?;
        let command = command.replace("-n shop", &format!("-n {namespace}"));
        anyhow::Ok(
            command.replace("X-stable", &format!("{NAME}-stable")).replace(" NAME ", &format!(" {NAME} ")),
        )
    };
    Ok([command("kubectl -n shop patch service")?, command("kubectl -n shop patch deployment")?])
}

async fn shell(world: &World<'_>, command: &str) -> Result<String> {
    let output = world.cluster.tool("sh").args(["-c", command]).output().await.context("sh")?;
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{command}: {said}");
    Ok(said)
}

async fn deleted_namespace_is_survived_with_break_glass(world: &World<'_>) -> Result<()> {
    let waiting = json!({"limits": {"pauseBeforePercent": 50}});
    let app = serving(world, AppSpec { rollout: waiting, ..clean("namespace-deleted") }).await?;
    let begin = app.load.snapshot();
    let image = app.spec.image("2");
    app.ship(&image, Provenance::Human).await?;
    app.wait_weight(10, RUN).await?;
    let result = async {
        world.cluster.kubectl_run(&["delete", "namespace", SLUICE, "--timeout=90s"]).await?;
        freed_by_hand(world, &app, &begin, &image).await
    }
    .await;
    installed_again(world).await?;
    result?;
    // What the docs promise: a controller that comes back ends the run, tidies up and enrols it again.
    outcome(&ended(&app, 0, RUN).await?, Outcome::Abandoned, "BreakGlass")?;
    let status = at_rest(&app, Phase::Idle).await?;
    ensure!(status.stable.is_some_and(|s| s.images == [image.clone()]), "{image} is not stable");
    answers(&app.spec.namespace, &[&app.load]).await?;
    forget(&app).await
}

async fn freed_by_hand(
    world: &World<'_>,
    app: &App<'_>,
    begin: &crate::load::Snapshot,
    image: &str,
) -> Result<()> {
    let held = async || {
        let deployment = app.deployment().await?;
        let paused = deployment.spec.and_then(|spec| spec.paused).unwrap_or(false);
        let annotations = deployment.metadata.annotations.unwrap_or_default();
        anyhow::Ok(paused && annotations.get("sluice.dev/held").is_some_and(|mark| mark == "held"))
    };
    // The policies are the cluster's: nobody is there, and still nothing is released.
    let _ = app.kubectl(&["rollout", "resume", &format!("deployment/{NAME}")]).await;
    ensure!(held().await?, "`kubectl rollout resume` released a held Deployment");
    let [unpin, free] = commands_of_the_docs(&app.spec.namespace)?;
    let account = format!("system:serviceaccount:{}:git", app.spec.namespace);
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": {"name": "git", "namespace": app.spec.namespace},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "name": "git", "namespace": app.spec.namespace}],
    });
    world.cluster.apply(&binding.to_string()).await?;
    let _ = shell(world, &format!("{free} --as {account}").replace("INC-1", "INC-0")).await;
    ensure!(held().await?, "a ServiceAccount used break-glass");
    no_failures(app, begin, "while the namespace of Sluice was deleted")?;

    app.apply_object(&app.spec.route_manifest(100, 0)).await?;
    answers(&app.spec.namespace, &[&app.load]).await?;
    let before = app.load.snapshot();
    shell(world, &unpin).await?;
    until("the canary is out of the routes", SOON, Duration::from_secs(3), || async {
        no_failures(app, &before, "after the weights and the pin were put back by hand")?;
        traffic_is_nearly_home(app).await
    })
    .await?;
    shell(world, &free).await?;
    app.kubectl(&["rollout", "status", &format!("deployment/{NAME}"), "--timeout=60s"]).await?;
    let deployment = app.deployment().await?;
    let updated = deployment.status.and_then(|status| status.updated_replicas).unwrap_or(0);
    ensure!(updated == app.spec.replicas, "{updated} pods run {image}");
    answers(&app.spec.namespace, &[&app.load]).await?;
    ensure!(served(app, image) > 0, "{image} does not serve");
    Ok(())
}

/// By hand the weights and the pin are put back, and nothing else.
async fn traffic_is_nearly_home(app: &App<'_>) -> Result<()> {
    let weights = app.weights().await?;
    ensure!(weights == (100, 0), "weights {weights:?}");
    let text = app.kubectl(&["get", "service", &format!("{NAME}-stable"), "-o", "json"]).await?;
    let service: Value = serde_json::from_str(&text)?;
    let pin = &service["spec"]["selector"]["pod-template-hash"];
    ensure!(pin.is_null(), "the stable Service selects hash {pin}");
    Ok(())
}
