//! The controller dies after a step, again and again, while clients look on: promotion, abort, warm revert and
//! uninstall end as if it had never happened.
//!
//! Each flow is played once undisturbed. That counts its steps and shows its end. Then it is played again, and the
//! process that acts is killed right after steps that a seed picks (`SLUICE_SEED` repeats a run), or, for
//! `make test-kill`, after every single one. Debug builds of the controller die on request; see its module `crash`.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use futures::future::try_join_all;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Namespace, Service};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde_json::{Value, json};
use sluice_core::api::{Outcome, Phase, Provenance};

use super::Scenario;
use super::expect::{LOOK, SOON, at_rest, clean, ended, failures, outcome, routes, serving};
use super::lifecycle::{installed_again, settled};
use crate::alone;
use crate::cluster::Cluster;
use crate::load::Snapshot;
use crate::world::{App, AppSpec, NAME, SLUICE, World};

/// Those of this file.
pub fn scenarios() -> Vec<Scenario> {
    vec![alone!(promotion_abort_and_revert_survive_seeded_kills), alone!(uninstall_survives_seeded_kills)]
}

/// Kills of each flow.
const KILLS: usize = 8;
/// Steps of a flow whose kills are only counted.
const MANY: u64 = 1_000_000;
/// How long a flow may take with a kill after every step.
const LONG: Duration = Duration::from_secs(600);
/// Objects that stay the same for this long are at their end.
const STILL: Duration = Duration::from_secs(3);
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

/// When the controller dies.
#[derive(Clone, Copy)]
enum Kills {
    Seeded(u64),
    Every,
}

impl Kills {
    fn seeded() -> Self {
        let given = std::env::var("SLUICE_SEED").ok().and_then(|text| text.parse().ok());
        let now = jiff::Timestamp::now().as_millisecond().unsigned_abs();
        let seed = given.unwrap_or(now % 1_000_000);
        println!("kills: SLUICE_SEED={seed}");
        Self::Seeded(seed)
    }

    /// Numbers of the steps after which the process dies, and how many steps each process may take.
    fn plan(self, flow: Flow, steps: u64) -> Plan {
        match self {
            Self::Every => Plan::new(Vec::new(), true),
            Self::Seeded(seed) => {
                let mut random = ChaCha8Rng::seed_from_u64(seed ^ (flow as u64));
                let mut numbers = BTreeSet::new();
                // Not after the last steps. The flow is at its end then, and a status that a dead process did not
                // write any more is one with the next, so that there may be fewer steps than undisturbed.
                let last = steps.saturating_sub(4).max(1);
                while numbers.len() < KILLS.min(last as usize) {
                    numbers.insert(1 + random.next_u64() % last);
                }
                println!("  {}: {steps} steps, killed after {numbers:?}", flow.name());
                let mut before = 0;
                let mut left: Vec<u64> =
                    numbers.into_iter().map(|n| n - std::mem::replace(&mut before, n)).collect();
                left.reverse();
                Plan::new(left, false)
            }
        }
    }
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

/// Steps that the processes may take, the next one last.
struct Plan {
    left: Vec<u64>,
    every: bool,
    /// A death is on its way.
    armed: bool,
    killed: usize,
}

impl Plan {
    fn new(left: Vec<u64>, every: bool) -> Self {
        Self { left, every, armed: false, killed: 0 }
    }

    /// Steps of the next process that is to die.
    fn next(&mut self) -> Option<u64> {
        let next = if self.every { Some(1) } else { self.left.pop() };
        self.armed = next.is_some();
        next
    }
}

/// The kills under way, by namespace.
struct Crashes {
    dir: PathBuf,
    plans: Mutex<HashMap<String, Plan>>,
}

impl Crashes {
    fn new() -> Result<Self> {
        // Real pods on the node `local` share the machine's /dev, and nothing else that can be written.
        let name = format!("sluice-crash-{}-{}", std::process::id(), jiff::Timestamp::now().as_microsecond());
        let dir = PathBuf::from("/dev/shm").join(name);
        std::fs::create_dir(&dir).with_context(|| dir.display().to_string())?;
        Ok(Self { dir, plans: Mutex::default() })
    }

    fn plans(&self) -> std::sync::MutexGuard<'_, HashMap<String, Plan>> {
        self.plans.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on processes die after the steps of the plan in this namespace.
    fn begin(&self, namespace: &str, mut plan: Plan) -> Result<()> {
        let mut plans = self.plans();
        if let Some(first) = plan.next() {
            self.arm(namespace, first)?;
        }
        plans.insert(namespace.to_owned(), plan);
        Ok(())
    }

    /// No kills any more; says how many there were.
    fn end(&self, namespace: &str) -> usize {
        let plan = self.plans().remove(namespace);
        let _ = std::fs::remove_file(self.dir.join(namespace));
        plan.map_or(0, |plan| plan.killed)
    }

    fn arm(&self, namespace: &str, steps: u64) -> Result<()> {
        let file = self.dir.join(namespace);
        let new = self.dir.join(format!(".{namespace}"));
        std::fs::write(&new, steps.to_string()).with_context(|| new.display().to_string())?;
        std::fs::rename(&new, &file).with_context(|| file.display().to_string())
    }

    /// Steps taken since the count began.
    fn counted(&self, namespace: &str) -> Result<u64> {
        let file = self.dir.join(namespace);
        let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        Ok(MANY - text.trim().parse::<u64>().context("steps left")?)
    }

    /// Notices each death, asks for the next one, and spares the next process the wait for the dead one's Lease:
    /// what happens while nobody leads is another scenario's.
    async fn keep_killing(&self, world: &World<'_>) -> Result<()> {
        let mut dead = String::new();
        loop {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let mut died = false;
            for (namespace, plan) in self.plans().iter_mut() {
                if !plan.armed || self.dir.join(namespace).exists() {
                    continue;
                }
                died = true;
                plan.killed += 1;
                if let Some(next) = plan.next() {
                    self.arm(namespace, next)?;
                }
            }
            if died {
                free_lease(world, &mut dead).await?;
            }
        }
    }
}

impl Drop for Crashes {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// Gives back the Lease of a process that has just died, once.
async fn free_lease(world: &World<'_>, dead: &mut String) -> Result<()> {
    let leases: Api<Lease> = Api::namespaced(world.cluster.client.clone(), SLUICE);
    let Some(lease) = leases.get_opt("sluice").await? else { return Ok(()) };
    let holder = lease.spec.and_then(|spec| spec.holder_identity).unwrap_or_default();
    if holder.is_empty() || holder == *dead {
        return Ok(());
    }
    let patch = json!({
        "metadata": {"resourceVersion": lease.metadata.resource_version},
        "spec": {"holderIdentity": "", "leaseDurationSeconds": 1},
    });
    // A conflict means that somebody leads again.
    let _ = leases.patch("sluice", &PatchParams::default(), &Patch::Merge(patch)).await;
    *dead = holder;
    Ok(())
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
            "tolerancePpm": {"relative": 250_000, "absolute": 300}, "minSamples": 100, "noDataSeconds": 90,
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
        let dir = format!("extraEnv[0].value={}", self.crashes.dir.display());
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
        // Killed after every step, some statuses are one with the next: see `Kills::plan`.
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

/// What a flow left behind once its last steps are taken, which no phase tells: marks and history come after it. That is
/// the wanted end, as soon as it is there; without one, what stays the same for a while.
async fn at_its_end(app: &App<'_>, wanted: Option<&Value>) -> Result<Value> {
    let (begin, mut since) = (Instant::now(), Instant::now());
    let mut now = left_behind(app).await?;
    loop {
        let over = match wanted {
            Some(wanted) => now == *wanted,
            None => since.elapsed() >= STILL,
        };
        if over || begin.elapsed() >= SOON {
            return Ok(now);
        }
        tokio::time::sleep(LOOK).await;
        let next = left_behind(app).await?;
        if next != now {
            (now, since) = (next, Instant::now());
        }
    }
}

/// The objects of an application as users find them, without names, times and counts of one play.
async fn left_behind(app: &App<'_>) -> Result<Value> {
    let rollout = app.rollout().await?;
    let status = rollout.status.unwrap_or_default();
    let deployment = app.deployment().await?;
    let spec = deployment.spec.context("spec")?;
    let annotations = deployment.metadata.annotations.unwrap_or_default();
    let services: Api<Service> = Api::namespaced(app.cluster.client.clone(), &app.spec.namespace);
    let mut selectors = Vec::new();
    for service in services.list(&Default::default()).await?.items {
        selectors.push(json!([service.metadata.name, service.spec.and_then(|s| s.selector)]));
    }
    let mut sets = Vec::new();
    for set in app.replica_sets().await? {
        let metadata = set.metadata;
        let owners: Vec<Value> = metadata
            .owner_references
            .iter()
            .flatten()
            .map(|owner| json!([owner.kind, owner.name, owner.controller.unwrap_or(false)]))
            .collect();
        let status = set.status.unwrap_or_default();
        sets.push(json!({
            "name": metadata.name, "labels": metadata.labels, "owners": owners,
            "replicas": set.spec.and_then(|s| s.replicas), "pods": status.replicas,
            "available": status.available_replicas.unwrap_or(0),
        }));
    }
    let routes: Vec<Value> = routes(app)
        .await?
        .into_iter()
        .map(|route| json!([route["spec"]["rules"], route["metadata"]["annotations"]["sluice.dev/traffic"]]))
        .collect();
    Ok(json!({
        "phase": status.phase,
        "run": status.run.is_some(),
        "stable": status.stable.map(|revision| revision.images),
        "held": status.held.map(|held| held.ended.map(|ended| json!([ended.outcome, ended.reason]))),
        "good": status.good.iter().map(|revision| &revision.images).collect::<Vec<_>>(),
        "quarantine": status.quarantine.iter().map(|entry| &entry.digest).collect::<Vec<_>>(),
        "history": status.history.iter().map(|r| json!([r.id, r.outcome, r.images])).collect::<Vec<_>>(),
        "conditions": status.conditions.iter().map(|c| json!([c.kind, c.status, c.reason])).collect::<Vec<_>>(),
        "finalizers": rollout.metadata.finalizers,
        "deployment": {
            "paused": spec.paused.unwrap_or(false),
            "held": annotations.get("sluice.dev/held"),
            "labels": deployment.metadata.labels,
            "images": spec.template.spec.map(|s| s.containers.into_iter().map(|c| c.image).collect::<Vec<_>>()),
            "replicas": spec.replicas,
        },
        "selectors": selectors,
        "sets": sets,
        "routes": routes,
    }))
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
