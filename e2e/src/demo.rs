//! The demo: applications under load, good and bad changes by people and with generative AI, side by side.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use serde_json::json;
use sluice_core::api::{Phase, ProgressiveRolloutStatus, Provenance, RiskClass};
use sluice_core::statistics::SUSPICION;

use crate::cluster::Cluster;
use crate::load::Snapshot;
use crate::record;
use crate::world::{App, AppSpec, NAME, World, named};

/// No run of the demo takes longer.
const RUN_LIMIT: Duration = Duration::from_secs(600);
/// How long an application serves before its change: stable's pods are taken to differ until twenty windows have shown
/// whether they do.
pub const PAST: Duration = Duration::from_secs(25);
/// How long Prometheus is away in the middle of a run.
const OUTAGE: Duration = Duration::from_secs(60);
/// Settings of the demo alone: a minute without data, and the time until it is back, end no run.
const SETTINGS: [&str; 6] = [
    "--set",
    "classes[0].noDataSeconds=180",
    "--set",
    "classes[1].noDataSeconds=180",
    "--set",
    "classes[2].noDataSeconds=180",
];
/// How long a held template is watched before it counts as held.
const HELD_WATCH: Duration = Duration::from_secs(8);

/// One line of the report.
#[derive(Clone, Debug, Serialize)]
pub struct Scenario {
    /// Its name.
    pub name: String,
    /// What was declared.
    pub provenance: &'static str,
    /// Risk class of the run; none where none ran.
    pub risk_class: Option<RiskClass>,
    /// Digest of its plan.
    pub plan_digest: Option<String>,
    /// Outcome of the run; Held or Unchanged where none ran.
    pub outcome: String,
    /// Why.
    pub reason: String,
    /// What the clients counted.
    pub client: Client,
    /// Failures beyond the baseline.
    pub excess_failed: f64,
    /// Largest weight that the canary had.
    pub max_weight_percent: i32,
    /// From the first weight above 0 to a verified 0, or to promotion.
    pub seconds_exposed: f64,
    /// From the new image to the end.
    pub seconds_total: f64,
    /// Tested pods that were not kept.
    pub pods_restarted: usize,
}

/// What the clients counted.
#[derive(Clone, Debug, Serialize)]
pub struct Client {
    /// Requests.
    pub requests: u64,
    /// Failed ones.
    pub failed: u64,
}

struct Narrator {
    started: Instant,
}

impl Narrator {
    fn say(&self, who: &str, what: &str) {
        println!("[{:6.1} s] {who:<16} {what}", self.started.elapsed().as_secs_f64());
    }

    /// Prints each change of an application's status until `done`.
    async fn follow(
        &self,
        who: &str,
        app: &App<'_>,
        done: impl Fn(&ProgressiveRolloutStatus) -> bool,
    ) -> Result<ProgressiveRolloutStatus> {
        let begin = Instant::now();
        let mut last = String::new();
        loop {
            let status = app.status().await?;
            let line = line(&status);
            if line != last {
                self.say(who, &line);
                last = line;
            }
            if done(&status) {
                return Ok(status);
            }
            ensure!(
                begin.elapsed() < RUN_LIMIT,
                "{who} did not end within {} s: {last}",
                RUN_LIMIT.as_secs()
            );
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

/// One status in one line: what moves, not what counts.
fn line(status: &ProgressiveRolloutStatus) -> String {
    let phase = status.phase.as_str();
    match &status.run {
        Some(run) => {
            let why = match &run.going_back {
                Some(back) => format!("{}: {}", back.reason, back.message),
                None => status.waiting.as_ref().map(|w| w.reason.clone()).unwrap_or_default(),
            };
            let class = run.plan.risk_class.as_str();
            format!(
                "{phase:<10} step {} at {:>4}  class {class}  {why}",
                status.summary.step, status.summary.weight
            )
        }
        None => {
            let why = status.waiting.as_ref().map(|w| w.message.clone()).unwrap_or_default();
            format!("{phase:<10} {why}")
        }
    }
}

/// Plays the demo and writes the report.
pub async fn run(cluster: &Cluster, report: &Path) -> Result<()> {
    let narrator = Narrator { started: Instant::now() - cluster.started_in };
    narrator.say(
        "cluster",
        &format!(
            "Kubernetes, Traefik, Prometheus and Alertmanager are up after {:.1} s",
            cluster.started_in.as_secs_f64()
        ),
    );
    let world = World::install(cluster, &SETTINGS).await?.recording(record::wanted());
    narrator.say("sluice", "installed by helm: two controllers, one leads");
    narrator.say(
        "demo",
        "eleven scenarios: six side by side, then four one by one; what is hard to see takes longest, beside them; 8 minutes in all",
    );

    let (good_human, good_genai, bad_human, bad_genai, slow_genai, alert) = tokio::try_join!(
        world.app(AppSpec { baseline_permille: 5, ..AppSpec::new("good-human") }),
        world.app(AppSpec::new("good-genai")),
        world.app(AppSpec::new("bad-human")),
        world.app(AppSpec::new("bad-genai")),
        world.app(with_latency_guard(AppSpec::new("slow-genai"), 100)),
        world.app(with_alert_guard(AppSpec::new("alert"))),
    )?;
    narrator.say(
        "applications",
        &format!(
            "six Deployments of 4 pods, 100 requests per second each; 0.2 % of them fail before any change, of good-human's 0.5 %; for {} s they show what is normal",
            PAST.as_secs()
        ),
    );
    tokio::time::sleep(PAST).await;

    let n = &narrator;
    let good = good_genai.spec.image("2");
    let as_before = good_human.spec.image("2");
    let bad = format!("{NAME}:2-errors50");
    let slow = format!("{good}-latency150");
    let little = format!("{NAME}:2-errors8");
    let world = &world;
    // An application whose part is over takes its clients along: what comes later has the machine for itself.
    let hard_to_see = async {
        let slow =
            named("slow-genai", ship(n, "slow-genai", &slow_genai, &slow, Provenance::GenAIAssisted)).await?;
        drop(slow_genai);
        let app = world.app(subtle()).await?;
        let past = PAST.as_secs();
        n.say("subtle-genai", &format!("a Deployment of which 0.1 % of the requests fail, for {past} s"));
        tokio::time::sleep(PAST).await;
        let change = ship(n, "subtle-genai", &app, &little, Provenance::GenAIAssisted);
        anyhow::Ok([slow, named("subtle-genai", change).await?])
    };
    let others = async {
        let mut scenarios: Vec<Scenario> = tokio::try_join!(
            named("good-human", ship(n, "good-human", &good_human, &as_before, Provenance::Human)),
            named("good-genai", ship(n, "good-genai", &good_genai, &good, Provenance::GenAIAssisted)),
            named("bad-human", ship(n, "bad-human", &bad_human, &bad, Provenance::Human)),
            named("bad-genai", ship(n, "bad-genai", &bad_genai, &bad, Provenance::GenAIAssisted)),
            named("alert", alerted(n, &alert, &good)),
        )
        .map(|(a, b, c, d, e)| vec![a, b, c, d, e])?;
        drop(alert);
        scenarios.push(named("quarantine", quarantine(n, &bad_genai, &bad)).await?);
        drop(bad_genai);
        scenarios.push(named("revert", revert(n, &bad_human)).await?);
        drop(bad_human);
        scenarios.push(named("controller-down", controller_down(n, world, &good_human)).await?);
        drop(good_human);
        scenarios.push(named("outage", outage(n, world, &good_genai)).await?);
        anyhow::Ok(scenarios)
    };
    let (mut scenarios, hard_to_see) = tokio::try_join!(others, hard_to_see)?;
    scenarios.splice(4..4, hard_to_see);

    table(&scenarios);
    let text = serde_json::to_string_pretty(&json!({ "scenarios": scenarios }))?;
    if let Some(dir) = report.parent() {
        std::fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
    }
    std::fs::write(report, text + "\n").with_context(|| report.display().to_string())?;
    println!("\nreport: {}", report.display());
    check(&scenarios)?;
    replayed(cluster).await
}

/// A run that was recorded is decided on paper as it was live, if not to the second: the recorder's scrapes are not the
/// controller's, and a trace ends with its run.
async fn replayed(cluster: &Cluster) -> Result<()> {
    if record::wanted() != Some(record::CLOSELY) {
        return Ok(());
    }
    for (names, opposite) in [
        (["good-human", "good-genai"].as_slice(), "Abort"),
        (&["bad-human", "bad-genai", "slow-genai", "subtle-genai"], "Promote"),
    ] {
        for name in names {
            let found = record::replay(cluster, name).await?;
            let suspected = found["score"].as_f64().is_some_and(|score| score >= SUSPICION);
            let agrees = found["decision"] != opposite && suspected == (opposite == "Promote");
            ensure!(agrees, "the trace of {name} replays as {found}");
        }
    }
    println!("traces: {}; replayed, they end as the runs did", record::directory(cluster).display());
    Ok(())
}

/// The promises of the demo; a broken one fails it.
fn check(scenarios: &[Scenario]) -> Result<()> {
    let expected = [
        ("good-human", "Promoted"),
        ("good-genai", "Promoted"),
        ("bad-human", "Rejected"),
        ("bad-genai", "Rejected"),
        ("slow-genai", "Rejected"),
        ("subtle-genai", "Rejected"),
        ("alert", "Rejected"),
        ("quarantine", "Held"),
        ("revert", "Unchanged"),
        ("controller-down", "Promoted"),
        ("outage", "Promoted"),
    ];
    let of = |name: &str| scenarios.iter().find(|s| s.name == name).with_context(|| name.to_owned());
    for (name, outcome) in expected {
        let found = of(name)?;
        ensure!(found.outcome == outcome, "{name} ended {} ({}), not {outcome}", found.outcome, found.reason);
        ensure!(found.pods_restarted == 0, "{name}: {} tested pods were not kept", found.pods_restarted);
    }
    for name in ["good-human", "good-genai", "quarantine", "revert", "controller-down", "outage"] {
        let found = of(name)?;
        // Five standard deviations of the injected baseline.
        let noise = 5.0 * (found.client.failed as f64 - found.excess_failed).max(1.0).sqrt();
        ensure!(found.excess_failed <= noise, "{name}: {:.1} requests failed too many", found.excess_failed);
    }
    let slow = of("slow-genai")?;
    ensure!(slow.reason.contains("latency"), "slow-genai: {}", slow.reason);
    let (human, assisted) = (of("bad-human")?, of("bad-genai")?);
    ensure!(
        assisted.max_weight_percent < human.max_weight_percent,
        "bad-genai reached {} %, bad-human {} %",
        assisted.max_weight_percent,
        human.max_weight_percent
    );
    Ok(())
}

/// An application whose change fails a little more often than before: eight requests of a thousand for one. Its bakes are
/// long enough for 100 requests a second to show that.
fn subtle() -> AppSpec {
    let rollout = json!({"limits": {"minBakeSeconds": 50}});
    AppSpec { baseline_permille: 1, rollout, ..AppSpec::new("subtle-genai") }
}

/// An application with a guard on requests that take longer than so many milliseconds.
pub fn with_latency_guard(mut spec: AppSpec, slo_milliseconds: i32) -> AppSpec {
    spec.rollout = json!({"guards": [
        {"name": "error-rate", "errorRatio": {}},
        {"name": "latency", "latency": {"sloMilliseconds": slo_milliseconds}},
    ]});
    spec
}

/// An application with a guard on alerts of its namespace.
pub fn with_alert_guard(mut spec: AppSpec) -> AppSpec {
    let namespace = spec.namespace.clone();
    spec.rollout = json!({"guards": [
        {"name": "error-rate", "errorRatio": {}},
        {"name": "pages", "alert": {"matchers": [{"label": "namespace", "value": namespace}]}},
    ]});
    spec
}

/// Ships a change and follows it to its end.
async fn ship(
    n: &Narrator,
    name: &str,
    app: &App<'_>,
    image: &str,
    provenance: Provenance,
) -> Result<Scenario> {
    let mut play = Play::begin(app).await?;
    n.say(name, &format!("ships {image}, declared {}", provenance.as_str()));
    app.ship(image, provenance).await?;
    play.follow(n, name, app).await?;
    play.end(n, name, app, provenance).await
}

/// A good image, and an alert that begins to fire while it is exposed.
async fn alerted(n: &Narrator, app: &App<'_>, image: &str) -> Result<Scenario> {
    let mut play = Play::begin(app).await?;
    n.say("alert", &format!("ships {image}, declared Human; its metrics are fine"));
    app.ship(image, Provenance::Human).await?;
    app.wait_weight(1, RUN_LIMIT).await?;
    n.say("alert", "an alert begins to fire: QueueBacklog");
    app.cluster.monitoring.set_rules(&alert_rule(&app.spec.namespace)).await?;
    play.follow(n, "alert", app).await?;
    app.cluster.monitoring.set_rules("groups: []\n").await?;
    play.end(n, "alert", app, Provenance::Human).await
}

/// A rule that fires at once, with the application's namespace as a label.
pub fn alert_rule(namespace: &str) -> String {
    format!(
        "groups:\n- name: demo\n  rules:\n  - alert: QueueBacklog\n    expr: vector(1)\n    labels: {{namespace: {namespace}, severity: critical}}\n"
    )
}

/// Git applies the rejected manifest again: it stays held.
async fn quarantine(n: &Narrator, app: &App<'_>, image: &str) -> Result<Scenario> {
    let play = Play::begin(app).await?;
    n.say("quarantine", "git goes back to stable and applies the rejected revision again");
    app.apply_manifest(&app.spec.image("1")).await?;
    app.wait_phase(Phase::Idle, RUN_LIMIT).await?;
    app.apply_manifest(image).await?;
    app.wait_phase(Phase::Rejected, RUN_LIMIT).await?;
    tokio::time::sleep(HELD_WATCH).await;
    let status = app.status().await?;
    n.say("quarantine", &line(&status));
    let counts = app.load.snapshot().since(&play.before);
    let served = counts.by_image.get(image).copied().unwrap_or(0);
    ensure!(served == 0, "{served} requests met the rejected image");
    ensure!(status.run_count == play.runs && status.phase == Phase::Rejected, "{}", line(&status));
    let reason = status.waiting.map(|w| w.reason).unwrap_or_default();
    let held = status.held.context("no template is held")?;
    let scenario = play.without_run("quarantine", "Held", &reason, app, counts);
    Ok(Scenario { provenance: held.provenance.as_str(), ..scenario })
}

/// Git returns to the stable template: nothing runs, nothing restarts.
async fn revert(n: &Narrator, app: &App<'_>) -> Result<Scenario> {
    let play = Play::begin(app).await?;
    let status = app.status().await?;
    let hash = status.stable.context("no stable revision")?.hash;
    let before = app.pods_of(&hash).await?;
    n.say("revert", "git returns to the stable template");
    app.apply_manifest(&app.spec.image("1")).await?;
    let status = app.wait_phase(Phase::Idle, RUN_LIMIT).await?;
    app.kubectl(&["rollout", "status", &format!("deployment/{NAME}"), "--timeout=30s"]).await?;
    n.say("revert", &line(&status));
    let kept = app.pods_of(&hash).await?;
    let counts = app.load.snapshot().since(&play.before);
    ensure!(status.run_count == play.runs, "a run was started");
    let mut scenario = play.without_run("revert", "Unchanged", "TemplateEqualsStable", app, counts);
    scenario.pods_restarted = before.difference(&kept).count();
    Ok(scenario)
}

/// A new image comes while no controller runs: nothing of it serves until one is back.
async fn controller_down(n: &Narrator, world: &World<'_>, app: &App<'_>) -> Result<Scenario> {
    let name = "controller-down";
    n.say(name, "the controller is stopped");
    world.scale_controller(0).await?;
    let mut play = Play::begin(app).await?;
    let image = app.spec.image("3");
    n.say(name, &format!("ships {image} while no controller runs"));
    app.ship(&image, Provenance::Human).await?;
    tokio::time::sleep(HELD_WATCH).await;
    let served = app.load.snapshot().since(&play.before).by_image.get(&image).copied().unwrap_or(0);
    ensure!(served == 0, "{served} requests met the new image while no controller ran");
    n.say(name, "nothing of it serves; the controller comes back");
    world.scale_controller(2).await?;
    play.follow(n, name, app).await?;
    play.end(n, name, app, Provenance::Human).await
}

/// Prometheus is away for a minute in the middle of a good change: the weight stays, and goes on from there.
async fn outage(n: &Narrator, world: &World<'_>, app: &App<'_>) -> Result<Scenario> {
    let name = "outage";
    let mut play = Play::begin(app).await?;
    let image = app.spec.image("3");
    n.say(name, &format!("ships {image}, declared Human"));
    app.ship(&image, Provenance::Human).await?;
    let counted = |status: &ProgressiveRolloutStatus| {
        status.run.is_some() && status.guards.iter().any(|guard| guard.canary_requests > Some(0))
    };
    app.wait("requests of the canary are counted", RUN_LIMIT, counted).await?;
    world.cluster.processes.kill("prometheus").await?;
    n.say(name, &format!("Prometheus is gone, for {} s", OUTAGE.as_secs()));
    let status = app.wait("a wait for data", OUTAGE, |status| status.summary.reason == "NoData").await?;
    n.say(name, &line(&status));
    let before = app.weights().await?;
    let begin = Instant::now();
    let steady = async {
        while begin.elapsed() < OUTAGE {
            let weights = app.weights().await?;
            ensure!(weights == before, "weights {weights:?} without data, {before:?} before");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        anyhow::Ok(())
    };
    let steady = steady.await;
    world.cluster.processes.start_again("prometheus")?;
    steady?;
    n.say(name, "Prometheus is back");
    play.follow(n, name, app).await?;
    play.end(n, name, app, Provenance::Human).await
}

/// One scenario under way.
struct Play {
    started: Instant,
    before: Snapshot,
    runs: i64,
    tested: Option<(String, std::collections::BTreeSet<String>)>,
}

impl Play {
    async fn begin(app: &App<'_>) -> Result<Self> {
        Ok(Self {
            started: Instant::now(),
            before: app.load.snapshot(),
            runs: app.status().await?.run_count,
            tested: None,
        })
    }

    async fn follow(&mut self, n: &Narrator, name: &str, app: &App<'_>) -> Result<()> {
        let runs = self.runs;
        let ended = |status: &ProgressiveRolloutStatus| status.run_count > runs && status.run.is_none();
        let status = n
            .follow(name, app, |status| {
                ended(status) || (self.tested.is_none() && status.phase == Phase::Promoting)
            })
            .await?;
        if ended(&status) {
            return Ok(());
        }
        // The pods that were tested: every one of them has to be there after promotion.
        if let Some(run) = &status.run {
            self.tested = Some((run.canary.hash.clone(), app.pods_of(&run.canary.hash).await?));
        }
        n.follow(name, app, ended).await.map(drop)
    }

    async fn end(self, n: &Narrator, name: &str, app: &App<'_>, provenance: Provenance) -> Result<Scenario> {
        let seconds_total = self.started.elapsed().as_secs_f64();
        let record = app.status().await?.history.first().cloned().context("no run is recorded")?;
        let counts = app.load.snapshot().since(&self.before);
        let promoted = record.outcome.as_str() == "Promoted";
        ensure!(
            !promoted || self.tested.is_some(),
            "{name}: promoted, and nobody saw which pods were tested"
        );
        let pods_restarted = match &self.tested {
            Some((hash, tested)) => tested.difference(&app.pods_of(hash).await?).count(),
            None => 0,
        };
        if promoted {
            app.kubectl(&["rollout", "status", &format!("deployment/{NAME}"), "--timeout=30s"]).await?;
        }
        let exposed = record.exposed_since.zip(record.exposed_until);
        n.say(
            name,
            &format!(
                "{}, after at most {} % of traffic; {} of {} requests failed",
                record.outcome.as_str(),
                record.max_weight_percent,
                counts.failed,
                counts.requests
            ),
        );
        Ok(Scenario {
            name: name.to_owned(),
            provenance: provenance.as_str(),
            risk_class: Some(record.risk_class),
            plan_digest: Some(record.plan_digest.clone()),
            outcome: record.outcome.as_str().to_owned(),
            reason: format!("{}: {}", record.reason, record.message),
            excess_failed: excess(app, &counts),
            client: Client { requests: counts.requests, failed: counts.failed },
            max_weight_percent: record.max_weight_percent,
            seconds_exposed: exposed.map_or(0.0, |(from, to)| to.duration_since(from).as_secs_f64()),
            seconds_total,
            pods_restarted,
        })
    }

    fn without_run(
        self,
        name: &str,
        outcome: &str,
        reason: &str,
        app: &App<'_>,
        counts: Snapshot,
    ) -> Scenario {
        Scenario {
            name: name.to_owned(),
            provenance: "Unknown",
            risk_class: None,
            plan_digest: None,
            outcome: outcome.to_owned(),
            reason: reason.to_owned(),
            excess_failed: excess(app, &counts),
            client: Client { requests: counts.requests, failed: counts.failed },
            max_weight_percent: 0,
            seconds_exposed: 0.0,
            seconds_total: self.started.elapsed().as_secs_f64(),
            pods_restarted: 0,
        }
    }
}

/// Failures beyond the configured baseline.
pub fn excess(app: &App<'_>, counts: &Snapshot) -> f64 {
    counts.failed as f64 - counts.requests as f64 * f64::from(app.spec.baseline_permille) / 1000.0
}

fn table(scenarios: &[Scenario]) {
    println!(
        "\n{:<16} {:<14} {:<5} {:<10} {:>6} {:>9} {:>7} {:>7} {:>8} {:>8}  reason",
        "scenario",
        "provenance",
        "class",
        "outcome",
        "max %",
        "requests",
        "failed",
        "excess",
        "exposed",
        "total"
    );
    for s in scenarios {
        let reason: String = s.reason.chars().take(60).collect();
        println!(
            "{:<16} {:<14} {:<5} {:<10} {:>6} {:>9} {:>7} {:>7.1} {:>6.1} s {:>6.1} s  {reason}",
            s.name,
            s.provenance,
            s.risk_class.map_or("-", RiskClass::as_str),
            s.outcome,
            s.max_weight_percent,
            s.client.requests,
            s.client.failed,
            s.excess_failed,
            s.seconds_exposed,
            s.seconds_total
        );
    }
    println!(
        "\nmax %: the largest share of traffic that the new version had. requests, failed: as its clients counted them.\n\
         excess: failures beyond the 0.2 % that every version of these applications has.\n\
         exposed: from its first traffic until the router gave it none any more, or until it was promoted."
    );
}
