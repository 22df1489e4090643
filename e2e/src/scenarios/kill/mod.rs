//! The controller dies after a step, again and again, while clients look on: promotion, abort, warm revert and
//! uninstall end as if it had never happened.
//!
//! Each flow is played once undisturbed. That counts its steps and shows its end. Then it is played again, and the
//! process that acts is killed right after steps that a seed picks (`SLUICE_SEED` repeats a run), or, for
//! `make test-kill`, after every single one. Debug builds of the controller die on request; see its module `crash`.

mod crashes;
mod end;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::DeleteParams;
use serde_json::{Value, json};
use sluice_core::api::{Outcome, Phase, Provenance};

use self::crashes::{Crashes, KILLS, Kills, MANY, Plan};
use self::end::at_its_end;
use super::Scenario;
use super::expect::{at_rest, clean, ended, failures, outcome, serving};
use super::installation::{installed_again, settled};
use crate::alone;
use crate::cluster::Cluster;
use crate::load::Snapshot;
use crate::world::{App, AppSpec, NAME, SLUICE, World};

/// Those of this file.
pub fn scenarios() -> Vec<Scenario> {
    vec![alone!(promotion_abort_and_revert_survive_seeded_kills), alone!(uninstall_survives_seeded_kills)]
}

/// How long a flow may take with a kill after every step.
const LONG: Duration = Duration::from_secs(600);
/// How often `helm uninstall` is tried: each try survives one crash of the hook.
const UNINSTALLS: usize = 40;
/// Failures of the bad image, in permille.
const BAD: &str = "shop:2-errors200";

async fn promotion_abort_and_revert_survive_seeded_kills(world: &World<'_>) -> Result<()> {
    with_crashes(world, Kills::seeded(), async |play| {
        play.side_by_side(&[Flow::Promotion, Flow::Abort, Flow::Revert]).await
    })
    .await
}

async fn uninstall_survives_seeded_kills(world: &World<'_>) -> Result<()> {
    with_crashes(world, Kills::seeded(), async |play| play.uninstall().await).await
}

/// All flows with a kill after every step. One at a time: each has deadlines of its own, and a process that lives for
/// one step must not be needed by several.
pub async fn every_step(cluster: &Cluster) -> Result<()> {
    let world = World::install(cluster, &[]).await?;
    with_crashes(&world, Kills::Every, async |play| {
        for flow in [Flow::Promotion, Flow::Abort, Flow::Revert] {
            play.side_by_side(&[flow]).await?;
        }
        play.uninstall().await
    })
    .await
}

#[derive(Clone, Copy)]
enum Flow {
    Promotion,
    Abort,
    Revert,
    Uninstall,
}

impl Flow {
    fn name(self) -> &'static str {
        match self {
            Self::Promotion => "promotion",
            Self::Abort => "abort",
            Self::Revert => "revert",
            Self::Uninstall => "uninstall",
        }
    }
}

/// Installs Sluice so that it dies on request and steps are short, plays, and installs it again as it was.
async fn with_crashes(
    world: &World<'_>,
    kills: Kills,
    work: impl AsyncFnOnce(&Play<'_>) -> Result<()>,
) -> Result<()> {
    let crashes = Crashes::new()?;
    let play = Play { world, kills, crashes: &crashes };
    let result = async {
        play.install().await?;
        tokio::select! {
            done = work(&play) => done,
            failed = crashes.keep_killing(world) => failed,
        }
    }
    .await;
    result.and(installed_again(world).await)
}

/// A setting of Helm: the classes of people's changes with two short steps.
pub(super) fn short_steps() -> String {
    let class = |name| {
        json!({
            "name": name, "steps": [{"weightPercent": 50, "bakeSeconds": 3}, {"weightPercent": 100, "bakeSeconds": 3}],
            "tolerancePpm": {"relative": 250_000, "absolute": 300},
            "marginPpm": {"relative": 500_000, "absolute": 50_000}, "minSamples": 100, "noDataSeconds": 1800,
        })
    };
    format!("classes={}", json!([class("R0"), class("R1")]))
}

/// What a flow is played with.
struct Play<'a> {
    world: &'a World<'a>,
    kills: Kills,
    crashes: &'a Crashes,
}

/// How a flow ended: what it left behind, and how many steps or kills there were.
struct Played {
    end: Value,
    counted: u64,
    took: Duration,
}

impl Play<'_> {
    async fn install(&self) -> Result<()> {
        let dir = format!("extraEnv[0].value={}", self.crashes.dir().display());
        // A process that died waits before it is started again; with several, one is always there.
        let replicas = if matches!(self.kills, Kills::Every) { "replicas=5" } else { "replicas=3" };
        let env = "extraEnv[0].name=SLUICE_CRASH_DIR";
        let steps = short_steps();
        self.world
            .helm_install(&["--set", replicas, "--set", env, "--set", &dir, "--set-json", &steps])
            .await?;
        settled(self.world).await
    }

    /// Plays the flows undisturbed, then with kills, and compares their ends.
    async fn side_by_side(&self, flows: &[Flow]) -> Result<()> {
        let calm = try_join_all(flows.iter().map(|flow| self.one(*flow, None))).await?;
        let ends = calm.iter().map(|calm| &calm.end);
        let plans = flows.iter().zip(&calm).map(|(flow, calm)| (*flow, self.kills.plan(*flow, calm.counted)));
        let killed =
            try_join_all(plans.zip(ends).map(|((flow, plan), end)| self.one(flow, Some((plan, end)))))
                .await?;
        for (flow, (calm, killed)) in flows.iter().zip(calm.iter().zip(&killed)) {
            self.compare(*flow, calm, killed)?;
        }
        Ok(())
    }

    async fn uninstall(&self) -> Result<()> {
        let calm = self.one(Flow::Uninstall, None).await?;
        self.install().await?;
        let plan = self.kills.plan(Flow::Uninstall, calm.counted);
        let killed = self.one(Flow::Uninstall, Some((plan, &calm.end))).await?;
        self.compare(Flow::Uninstall, &calm, &killed)
    }

    fn compare(&self, flow: Flow, calm: &Played, killed: &Played) -> Result<()> {
        let name = flow.name();
        println!("  {name}: {} steps undisturbed, {} kills, {:?}", calm.counted, killed.counted, killed.took);
        // That there were kills at all: each step that a killed play took was one. It may take fewer than the undisturbed
        // play, since a status that a dead process did not write any more is one with the next.
        let every = matches!(self.kills, Kills::Every);
        let wanted =
            if every { calm.counted * 3 / 4 } else { (KILLS as u64).min(calm.counted.saturating_sub(4)) };
        ensure!(killed.counted >= wanted, "{name}: {} kills, not {wanted}", killed.counted);
        ensure!(
            calm.end == killed.end,
            "{name} left something else behind when the controller was killed:\n{:#}\nundisturbed:\n{:#}",
            killed.end,
            calm.end
        );
        Ok(())
    }

    /// Plays one flow undisturbed, or with kills and the end that it shall come to.
    async fn one(&self, flow: Flow, kills: Option<(Plan, &Value)>) -> Result<Played> {
        let (calm, started) = (kills.is_none(), Instant::now());
        let namespace = format!("kill-{}-{}", flow.name(), if calm { "calm" } else { "killed" });
        let spec = match flow {
            Flow::Promotion | Flow::Abort => clean(&namespace),
            Flow::Revert => AppSpec { rollout: json!({"watchSeconds": 300}), ..clean(&namespace) },
            Flow::Uninstall => {
                AppSpec { rollout: json!({"limits": {"pauseBeforePercent": 100}}), ..clean(&namespace) }
            }
        };
        let app = serving(self.world, spec).await?;
        let begin = app.load.snapshot();
        let (plan, wanted) = match kills {
            Some((plan, end)) => (plan, Some(end)),
            None => (Plan::new(vec![MANY], false), None),
        };
        match flow {
            Flow::Promotion => self.promotion(&app, plan).await,
            Flow::Abort => self.abort(&app, plan).await,
            Flow::Revert => self.revert(&app, plan).await,
            Flow::Uninstall => self.release(&app, plan).await,
        }
        .with_context(|| namespace.clone())?;
        let end = at_its_end(&app, wanted).await?;
        let counted = if calm { self.crashes.counted(&namespace)? } else { 0 };
        let kills = self.crashes.end(&namespace) as u64;
        unharmed(&app, &begin)?;
        let namespaces: Api<Namespace> = Api::all(self.world.cluster.client.clone());
        namespaces.delete(&namespace, &DeleteParams::default()).await?;
        Ok(Played { end, counted: if calm { counted } else { kills }, took: started.elapsed() })
    }

    async fn promotion(&self, app: &App<'_>, plan: Plan) -> Result<()> {
        self.crashes.begin(&app.spec.namespace, plan)?;
        app.ship(&app.spec.image("2"), Provenance::Human).await?;
        let status = app.wait_weight(100, LONG).await?;
        let hash = status.run.context("no run at weight 100")?.canary.hash;
        let tested = app.pods_of(&hash).await?;
        outcome(&ended(app, 0, LONG).await?, Outcome::Promoted, "Proven")?;
        at_rest(app, Phase::Idle).await?;
        app.kubectl(&["rollout", "status", &format!("deployment/{NAME}"), "--timeout=30s"]).await?;
        same_pods(&tested, &app.pods_of(&hash).await?, "tested pods")
    }

    async fn abort(&self, app: &App<'_>, plan: Plan) -> Result<()> {
        self.crashes.begin(&app.spec.namespace, plan)?;
        app.ship(BAD, Provenance::Human).await?;
        let record = ended(app, 0, LONG).await?;
        ensure!(record.outcome == Outcome::Rejected, "{}: {}", record.outcome.as_str(), record.message);
        at_rest(app, Phase::Rejected).await.map(drop)
    }

    async fn revert(&self, app: &App<'_>, plan: Plan) -> Result<()> {
        let stable = app.status().await?.stable.context("no stable revision")?.hash;
        let warm = app.pods_of(&stable).await?;
        app.ship(&app.spec.image("2"), Provenance::Human).await?;
        app.wait_phase(Phase::Watching, LONG).await?;
        self.crashes.begin(&app.spec.namespace, plan)?;
        app.request("abort").await?;
        let record = ended(app, 0, LONG).await?;
        outcome(&record, Outcome::Reverted, "AbortedByUser")?;
        at_rest(app, Phase::Rejected).await?;
        same_pods(&warm, &app.pods_of(&stable).await?, "warm pods")
    }

    async fn release(&self, app: &App<'_>, plan: Plan) -> Result<()> {
        app.ship(&app.spec.image("2"), Provenance::Human).await?;
        app.wait_weight(50, LONG).await?;
        self.crashes.begin(&app.spec.namespace, plan)?;
        let mut last = None;
        for _ in 0..UNINSTALLS {
            match self.world.cluster.helm_run(&["uninstall", "sluice", "-n", SLUICE]).await {
                Ok(_) => return released(app).await,
                // The hook died as often as its Job allows. The message says what to do: once more.
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| anyhow::anyhow!("never tried"))).context("helm uninstall")
    }
}

/// No request failed but those that the bad image itself answered.
fn unharmed(app: &App<'_>, begin: &Snapshot) -> Result<()> {
    let counts = app.load.snapshot().since(begin);
    let by_image = counts.failed_by_image.get(BAD).copied().unwrap_or(0);
    let bad = counts.requests - counts.by_status.get(&200).copied().unwrap_or(0) - by_image;
    ensure!(counts.requests > 0, "no requests");
    ensure!(
        bad == 0,
        "{}: {bad} of {} requests were harmed: {}",
        app.spec.namespace,
        counts.requests,
        failures(&counts)
    );
    Ok(())
}

fn same_pods(before: &BTreeSet<String>, now: &BTreeSet<String>, what: &str) -> Result<()> {
    let lost = before.difference(now).count();
    ensure!(!before.is_empty() && lost == 0, "{lost} of {} {what} were not kept", before.len());
    Ok(())
}

/// What an uninstall leaves behind: traffic at stable, ordinary objects, nothing of ours.
async fn released(app: &App<'_>) -> Result<()> {
    let rollout = app.rollout().await?;
    let finalizers = rollout.metadata.finalizers.clone().unwrap_or_default();
    ensure!(finalizers.is_empty(), "the rollout still has {finalizers:?}");
    let status = rollout.status.unwrap_or_default();
    ensure!(status.phase == Phase::Released && status.run.is_none(), "phase {}", status.phase.as_str());
    let deployment = app.deployment().await?;
    let labels = deployment.metadata.labels.unwrap_or_default();
    let annotations = deployment.metadata.annotations.unwrap_or_default();
    for key in labels.keys().chain(annotations.keys()) {
        if key.starts_with("sluice.dev/") {
            bail!("the Deployment still has {key}");
        }
    }
    let weights = app.weights().await?;
    ensure!(weights == (100, 0), "weights {weights:?}");
    Ok(())
}
