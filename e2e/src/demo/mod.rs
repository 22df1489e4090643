//! The demo: applications under load, good and bad changes by people and with generative AI, side by side.

mod freeze;
mod narrator;
mod play;
mod provenance;
mod queue;
mod report;
mod scenes;
mod tightened;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use sluice_core::api::Provenance;
use sluice_core::statistics::SUSPICION;

use crate::cluster::Cluster;
use crate::record;
use crate::world::{AppSpec, NAME, World, named};
use narrator::Narrator;
pub use play::excess;
use report::Scenario;
pub use scenes::{alert_rule, with_alert_guard, with_latency_guard};
use scenes::{alerted, controller_down, outage, quarantine, revert, ship};

/// No run of the demo takes longer.
const RUN_LIMIT: Duration = Duration::from_secs(600);
/// How long an application serves before its change: stable's pods are taken to differ until twenty windows have shown
/// whether they do.
pub const PAST: Duration = Duration::from_secs(25);
/// Settings of the demo alone: a minute without data, and the time until it is back, end no run.
const SETTINGS: [&str; 6] = [
    "--set",
    "classes[0].noDataSeconds=180",
    "--set",
    "classes[1].noDataSeconds=180",
    "--set",
    "classes[2].noDataSeconds=180",
];

/// Plays the demo and writes the report.
pub async fn run(cluster: &Cluster, report: &Path) -> Result<()> {
    let narrator = Narrator::since(Instant::now() - cluster.started_in);
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
        "nineteen scenarios: the same fault four times, declared otherwise each, beside two good changes; then, as there is room, what \
         is hard to see, what follows on a rejection, a policy that tightens, a freeze, a queue, and two outages; 7 minutes in all",
    );
    let mut scenarios = play_all(&narrator, &world).await?;
    report::write(&mut scenarios, report)?;
    report::check(&scenarios)?;
    replayed(cluster).await
}

/// At most ten applications at a time, three of them with less load: one whose part is over takes its clients along, and what comes later has the machine for
/// itself.
async fn play_all(n: &Narrator, world: &World<'_>) -> Result<Vec<Scenario>> {
    let (good_human, good_genai, bad_human, bad_genai, undeclared, false_human) = tokio::try_join!(
        world.app(AppSpec { baseline_permille: 5, ..AppSpec::new("good-human") }),
        world.app(AppSpec::new("good-genai")),
        world.app(AppSpec::new("bad-human")),
        world.app(AppSpec::new("bad-genai")),
        world.app(AppSpec::new("bad-undeclared")),
        world.app(AppSpec::new("bad-false-human")),
    )?;
    let past = PAST.as_secs();
    n.say(
        "applications",
        &format!(
            "six Deployments of 4 pods, 100 requests per second each; 0.2 % of them fail before any change, of good-human's 0.5 %; for {past} s they show what is normal"
        ),
    );
    tokio::time::sleep(PAST).await;

    let good = good_genai.spec.image("2");
    let as_before = good_human.spec.image("2");
    let bad = format!("{NAME}:2-errors50");
    // The four at once, and what follows on each; then what is hard to see has their place.
    let faulty = async {
        let (human, genai, silent, lied) = tokio::try_join!(
            named("bad-human", ship(n, "bad-human", &bad_human, &bad, Provenance::Human)),
            named("bad-genai", ship(n, "bad-genai", &bad_genai, &bad, Provenance::GenAIAssisted)),
            named("bad-undeclared", provenance::undeclared(n, &undeclared, &bad)),
            named("bad-false-human", provenance::falsely_declared(n, &false_human, &bad)),
        )?;
        drop((undeclared, false_human));
        let after = async {
            let (held, back) = tokio::try_join!(
                named("quarantine", quarantine(n, &bad_genai, &bad)),
                named("revert", revert(n, &bad_human, &bad)),
            )?;
            drop((bad_genai, bad_human));
            anyhow::Ok([held, back])
        };
        let queue = named("queued", queue::queued(n, world));
        let (after, hard, queue) = tokio::try_join!(after, hard_to_see(n, world), queue)?;
        let all = [human, genai, silent, lied].into_iter().chain(after).chain(hard).chain(queue);
        anyhow::Ok(all.collect::<Vec<_>>())
    };
    let good_ones = async {
        let by_human = async {
            let first = ship(n, "good-human", &good_human, &as_before, Provenance::Human);
            let first = named("good-human", first).await?;
            let tightened = named("tightened", tightened::tightened(n, &good_human)).await?;
            let [frozen, back] = named("frozen", freeze::frozen(n, &good_human)).await?;
            anyhow::Ok([first, tightened, frozen, back])
        };
        let by_genai = ship(n, "good-genai", &good_genai, &good, Provenance::GenAIAssisted);
        let (human, genai) = tokio::try_join!(by_human, named("good-genai", by_genai))?;
        let down = named("controller-down", controller_down(n, world, &good_human)).await?;
        drop(good_human);
        let outage = named("outage", outage(n, world, &good_genai)).await?;
        anyhow::Ok(human.into_iter().chain([genai, down, outage]).collect::<Vec<_>>())
    };
    let (mut scenarios, faulty) = tokio::try_join!(good_ones, faulty)?;
    scenarios.extend(faulty);
    Ok(scenarios)
}

/// What shows late, or not in errors at all: little more failures, slow answers, an alert.
async fn hard_to_see(n: &Narrator, world: &World<'_>) -> Result<[Scenario; 3]> {
    let (slow_genai, subtle_genai, alert) = tokio::try_join!(
        world.app(with_latency_guard(AppSpec::new("slow-genai"), 100)),
        world.app(scenes::subtle()),
        world.app(with_alert_guard(AppSpec::new("alert"))),
    )?;
    let past = PAST.as_secs();
    n.say(
        "applications",
        &format!("three more; of subtle-genai's requests 0.1 % fail before any change, for {past} s"),
    );
    tokio::time::sleep(PAST).await;
    let good = slow_genai.spec.image("2");
    let (slow, little) = (format!("{good}-latency150"), format!("{NAME}:2-errors8"));
    // Each goes with its clients when its part is over.
    let slow = async {
        let app = slow_genai;
        named("slow-genai", ship(n, "slow-genai", &app, &slow, Provenance::GenAIAssisted)).await
    };
    let subtle =
        named("subtle-genai", ship(n, "subtle-genai", &subtle_genai, &little, Provenance::GenAIAssisted));
    let alert = async {
        let app = alert;
        named("alert", alerted(n, &app, &good)).await
    };
    tokio::try_join!(slow, subtle, alert).map(<[Scenario; 3]>::from)
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
