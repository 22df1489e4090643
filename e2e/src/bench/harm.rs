//! What a bad change costs its users, and what a declaration of generative AI saves them: the demo's `bad-human` and
//! `bad-genai`, the same 5 % failures, again and again.
//!
//! Harm is counted by the clients: failed requests beyond the configured baseline, from the moment before the change
//! is shipped until its run has ended. Several pairs run side by side, each application with clients, pods and route
//! of its own.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use serde::Serialize;
use sluice_core::api::{Phase, Provenance};

use super::stats::{Mean, median};
use crate::cluster::Cluster;
use crate::demo::excess;
use crate::scenarios::expect::{RUN, at_rest, serving};
use crate::world::{App, AppSpec, NAME, World};

/// Pairs at the same time: with clients of their own that is less than the demo's five applications.
const PAIRS: usize = 2;
/// Failures of the bad change, in permille.
const FAILING: u32 = 50;

/// What is written to `target/bench/harm.json`.
#[derive(Debug, Serialize)]
struct Report {
    repetitions: usize,
    /// How the intervals are made.
    interval: &'static str,
    bad_human: Kind,
    bad_genai: Kind,
    /// Excess failures of `bad-human` less those of `bad-genai`: mean of the differences of the pairs.
    saved: Mean,
}

/// All repetitions of one change.
#[derive(Debug, Serialize)]
struct Kind {
    excess_failed: Mean,
    exposed_seconds: Mean,
    max_weight_percent: Mean,
    /// Largest weight of any repetition.
    largest_weight_percent: i32,
    runs: Vec<Harm>,
}

/// One repetition.
#[derive(Clone, Debug, Serialize)]
struct Harm {
    requests: u64,
    failed: u64,
    excess_failed: f64,
    max_weight_percent: i32,
    exposed_seconds: f64,
    reason: String,
}

/// Plays both changes `repetitions` times and writes the report.
pub async fn run(cluster: &Cluster, repetitions: usize) -> Result<()> {
    ensure!(repetitions > 1, "--repetitions must be at least 2: one run has no interval");
    let world = World::install(cluster, &[]).await?;
    let lanes = PAIRS.min(repetitions);
    let pair = async |lane: usize| {
        let app = |kind: &str| serving(&world, AppSpec::new(&format!("{kind}-{lane}")));
        tokio::try_join!(app("bad-human"), app("bad-genai"))
    };
    let pairs = try_join_all((0..lanes).map(pair)).await?;
    let begin = Instant::now();
    println!(
        "{repetitions} times each; {lanes} pairs side by side, 100 requests per second for each application"
    );
    println!("{:>9} {:>22} {:>22}", "", "bad-human", "bad-genai");
    let played = pairs.iter().enumerate().map(async |(lane, (human, genai))| {
        let mut harms = Vec::new();
        // Lane 0 plays the pairs 0, n, 2n and so on.
        for number in (lane..repetitions).step_by(lanes) {
            let one = tokio::try_join!(
                one(human, number, Provenance::Human),
                one(genai, number, Provenance::GenAIAssisted),
            )?;
            let told =
                |harm: &Harm| format!("{:.1} excess at {:>3} %", harm.excess_failed, harm.max_weight_percent);
            let seconds = begin.elapsed().as_secs_f64();
            println!("[{seconds:>5.0} s] {:>22} {:>22}", told(&one.0), told(&one.1));
            harms.push(one);
        }
        anyhow::Ok(harms)
    });
    let all: Vec<(Harm, Harm)> = try_join_all(played).await?.into_iter().flatten().collect();
    let saved: Vec<f64> =
        all.iter().map(|(human, genai)| human.excess_failed - genai.excess_failed).collect();
    let (human, genai): (Vec<Harm>, Vec<Harm>) = all.into_iter().unzip();
    let report = Report {
        repetitions,
        interval: "mean -+ t(0.975, n - 1) * s / sqrt(n), Student's t",
        bad_human: Kind::of(human),
        bad_genai: Kind::of(genai),
        saved: Mean::of(&saved),
    };
    table(&report);
    super::report("harm", &report)?;
    let (human, genai) = (report.bad_human.max_weight_percent.mean, report.bad_genai.max_weight_percent.mean);
    ensure!(genai < human, "bad-genai reached {genai:.1} % on average, bad-human {human:.1} %");
    Ok(())
}

/// Ships the bad change as a revision that was never seen, and counts until it is rejected.
async fn one(app: &App<'_>, number: usize, provenance: Provenance) -> Result<Harm> {
    let image = format!("{NAME}:{}-errors{FAILING}", number + 2);
    let runs = app.status().await?.run_count;
    let before = app.load.snapshot();
    app.ship(&image, provenance).await?;
    let record = app.wait_end(runs, RUN).await?;
    let counts = app.load.snapshot().since(&before);
    ensure!(
        record.outcome.as_str() == "Rejected",
        "{} {image} ended {} ({}: {})",
        app.spec.namespace,
        record.outcome.as_str(),
        record.reason,
        record.message
    );
    at_rest(app, Phase::Rejected).await?;
    let exposed = record.exposed_since.zip(record.exposed_until).context("it was never exposed")?;
    Ok(Harm {
        requests: counts.requests,
        failed: counts.failed,
        excess_failed: excess(app, &counts),
        max_weight_percent: record.max_weight_percent,
        exposed_seconds: exposed.1.duration_since(exposed.0).as_secs_f64(),
        reason: record.message,
    })
}

impl Kind {
    fn of(runs: Vec<Harm>) -> Self {
        let of = |value: fn(&Harm) -> f64| runs.iter().map(value).collect::<Vec<f64>>();
        Self {
            excess_failed: Mean::of(&of(|run| run.excess_failed)),
            exposed_seconds: Mean::of(&of(|run| run.exposed_seconds)),
            max_weight_percent: Mean::of(&of(|run| f64::from(run.max_weight_percent))),
            largest_weight_percent: runs.iter().map(|run| run.max_weight_percent).max().unwrap_or(0),
            runs,
        }
    }
}

fn table(report: &Report) {
    let mean = |mean: &Mean| format!("{:.1} ({:.1} to {:.1})", mean.mean, mean.low, mean.high);
    println!(
        "\nmeans of {} runs each with 95 % intervals by Student's t: {}",
        report.repetitions, report.interval
    );
    println!(
        "{:<10} {:>24} {:>24} {:>24} {:>10} {:>8}",
        "", "excess failures", "exposed, s", "max weight, %", "largest, %", "median"
    );
    for (name, kind) in [("bad-human", &report.bad_human), ("bad-genai", &report.bad_genai)] {
        let excess: Vec<f64> = kind.runs.iter().map(|run| run.excess_failed).collect();
        println!(
            "{name:<10} {:>24} {:>24} {:>24} {:>10} {:>8.1}",
            mean(&kind.excess_failed),
            mean(&kind.exposed_seconds),
            mean(&kind.max_weight_percent),
            kind.largest_weight_percent,
            median(&excess)
        );
    }
    println!("bad-genai had {} fewer excess failures than the bad-human beside it", mean(&report.saved));
}
