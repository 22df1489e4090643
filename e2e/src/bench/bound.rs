//! Whether `kubectl sluice plan` keeps its word: before each bad change it says how many failed requests the change costs at
//! most, with 95 %; then the change is shipped, and the clients count.
//!
//! What counts as harm is what the pods of the change failed beyond stable's configured rate, whatever the controller
//! says. Changes differ in size and in declared provenance, and several applications go side by side, each with clients,
//! pods and route of its own.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use serde::Serialize;
use serde_json::Value;
use sluice_core::api::{Phase, Provenance};

use super::stats::{Share, median};
use crate::cluster::Cluster;
use crate::scenarios::cli::cli;
use crate::scenarios::expect::{RUN, at_rest, serving};
use crate::world::{App, AppSpec, NAME, World};

/// Applications at the same time.
const LANES: usize = 4;
/// Failures of the bad changes, in permille.
const FAILING: [u32; 3] = [30, 50, 100];
/// Fewer runs say nothing of a share of 95 %.
const LEAST: usize = 30;
/// How long stable is observed before the first change.
const RECORD: Duration = Duration::from_secs(60);
/// Share of runs that the bound promises to cover.
const PROMISED: f64 = 0.95;

/// What is written to `target/bench/bound.json`.
#[derive(Debug, Serialize)]
struct Report {
    /// Runs whose harm was within the bound, with the interval of Wilson (JASA 22, 1927).
    within: Share,
    /// Median of the harm in multiples of the mean that was planned, and of the bound.
    median_of_mean: f64,
    median_of_bound: f64,
    runs: Vec<Played>,
}

/// One bad change.
#[derive(Clone, Debug, Serialize)]
struct Played {
    class: &'static str,
    failing_permille: u32,
    /// What was planned, on average and with 95 %.
    planned: f64,
    bound: f64,
    /// What the clients counted.
    harm: f64,
    canary_requests: u64,
    max_weight_percent: i32,
    outcome: String,
    reason: String,
}

/// Plays `runs` bad changes and writes the report.
pub async fn run(cluster: &Cluster, runs: usize) -> Result<()> {
    ensure!(runs >= LEAST, "--runs {runs}: at least {LEAST}, since fewer say nothing of a share of 95 %");
    let world = World::install(cluster, &[]).await?;
    let apps = (0..LANES).map(|lane| AppSpec::new(&format!("bound-{lane}")));
    let apps = try_join_all(apps.map(|spec| serving(&world, spec))).await?;
    // The less is known of stable, the looser is what can be promised.
    tokio::time::sleep(RECORD).await;
    let begin = Instant::now();
    println!("{runs} bad changes; {LANES} applications side by side, 100 requests per second for each");
    println!("{:>9} {:<6} {:>8} {:>9} {:>9} {:>9}", "", "class", "failing", "planned", "at most", "counted");
    let played = apps.iter().enumerate().map(async |(lane, app)| {
        let mut played = Vec::new();
        for number in (lane..runs).step_by(LANES) {
            let one = one(app, number).await?;
            println!(
                "[{:>5.0} s] {:<6} {:>6.1} % {:>9.1} {:>9.1} {:>9.1}   {} at {} %{}",
                begin.elapsed().as_secs_f64(),
                one.class,
                f64::from(one.failing_permille) / 10.0,
                one.planned,
                one.bound,
                one.harm,
                one.outcome,
                one.max_weight_percent,
                if one.harm > one.bound { "   beyond" } else { "" },
            );
            played.push(one);
        }
        anyhow::Ok(played)
    });
    let runs: Vec<Played> = try_join_all(played).await?.into_iter().flatten().collect();
    let of = |value: &dyn Fn(&Played) -> f64| median(&runs.iter().map(value).collect::<Vec<f64>>());
    let report = Report {
        within: Share::of(runs.iter().filter(|run| run.harm <= run.bound).count(), runs.len()),
        median_of_mean: of(&|run| run.harm / run.planned),
        median_of_bound: of(&|run| run.harm / run.bound),
        runs,
    };
    let within = &report.within;
    println!(
        "\nwithin the bound: {} of {} ({:.1} %, 95 % interval {:.1} to {:.1} %); harm is {:.2} times the planned mean and {:.2} \
         times the bound (medians)",
        within.of,
        within.runs,
        100.0 * within.share,
        100.0 * within.low,
        100.0 * within.high,
        report.median_of_mean,
        report.median_of_bound,
    );
    super::report("bound", &report)?;
    ensure!(
        within.high >= PROMISED,
        "the bound covers {} of {}: that is less than the {} % that it promises",
        within.of,
        within.runs,
        100.0 * PROMISED
    );
    Ok(())
}

/// Asks what a change would cost, ships it, and counts until it has ended.
async fn one(app: &App<'_>, number: usize) -> Result<Played> {
    let failing = FAILING[number % FAILING.len()];
    let (provenance, class) = match number / FAILING.len() % 2 {
        0 => (Provenance::Human, "R1"),
        _ => (Provenance::GenAIAssisted, "R2"),
    };
    let image = format!("{NAME}:{}-errors{failing}", number + 2);
    let suppose = format!("{}%", f64::from(failing) / 10.0);
    let said =
        cli(app, &["plan", NAME, "--class", class, "--suppose", &suppose, "-o", "json"]).await?.with(0)?;
    let plan: Value = serde_json::from_str(&said.out).with_context(|| said.out.clone())?;
    let excess = &plan["guards"][0]["excess"];
    let number = |name: &str| excess[name].as_f64().with_context(|| format!("no excess.{name} in {plan}"));
    let (planned, bound) = (number("mean")?, number("p95")?);
    let runs = app.status().await?.run_count;
    let before = app.load.snapshot();
    app.ship(&image, provenance).await?;
    let record = app.wait_end(runs, RUN).await?;
    at_rest(app, if record.outcome.as_str() == "Promoted" { Phase::Idle } else { Phase::Rejected }).await?;
    let counts = app.load.snapshot().since(&before);
    let count = |by: &std::collections::BTreeMap<String, u64>| by.get(&image).copied().unwrap_or(0);
    let (requests, failed) = (count(&counts.by_image), count(&counts.failed_by_image));
    let usual = requests as f64 * f64::from(app.spec.baseline_permille) / 1000.0;
    Ok(Played {
        class,
        failing_permille: failing,
        planned,
        bound,
        harm: failed as f64 - usual,
        canary_requests: requests,
        max_weight_percent: record.max_weight_percent,
        outcome: record.outcome.as_str().to_owned(),
        reason: record.message,
    })
}
