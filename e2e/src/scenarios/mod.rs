//! The end-to-end scenarios: promises to users, each on real parts and judged by what clients saw.
//!
//! Scenarios that keep to their own namespace run side by side; those that touch the installation itself run
//! alone, after them, on the same cluster.

pub mod bad_input;
pub mod budget;
pub mod canary;
pub mod cli;
pub mod expect;
pub mod freeze;
pub mod installation;
pub mod kill;
pub mod lifecycle;
pub mod local_cluster;
pub mod monitoring;
pub mod observe;
pub mod policy;
pub mod provenance;
pub mod signals;
pub mod telemetry;
pub mod traefik;
pub mod traffic;
pub mod writers;

use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use futures::StreamExt;
use futures::stream;

use crate::world::World;

/// Scenarios that run at the same time, beside the other lane.
const SIDE_BY_SIDE: usize = 6;
/// No scenario takes longer.
const LIMIT: Duration = Duration::from_secs(420);

/// What a scenario returns.
pub type Played<'a> = Pin<Box<dyn Future<Output = Result<()>> + 'a>>;

/// One promise.
pub struct Scenario {
    /// The promise, as a name.
    pub name: &'static str,
    /// Whether it needs the installation for itself.
    pub alone: bool,
    /// Plays it.
    pub play: for<'a> fn(&'a World<'a>) -> Played<'a>,
}

/// A scenario that keeps to its own namespace.
#[macro_export]
macro_rules! shared {
    ($play:path) => {
        $crate::scenarios::Scenario {
            name: stringify!($play),
            alone: false,
            play: |world| Box::pin($play(world)),
        }
    };
}

/// A scenario that needs the installation for itself.
#[macro_export]
macro_rules! alone {
    ($play:path) => {
        $crate::scenarios::Scenario {
            name: stringify!($play),
            alone: true,
            play: |world| Box::pin($play(world)),
        }
    };
}

/// All scenarios, in the order in which they start.
pub fn all() -> Vec<Scenario> {
    let mut all = local_cluster::scenarios();
    all.extend(canary::scenarios());
    all.extend(traffic::scenarios());
    all.extend(monitoring::scenarios());
    all.extend(signals::scenarios());
    all.extend(writers::scenarios());
    all.extend(cli::scenarios());
    all.extend(provenance::scenarios());
    all.extend(policy::scenarios());
    all.extend(freeze::scenarios());
    all.extend(budget::scenarios());
    all.extend(observe::scenarios());
    all.extend(traefik::scenarios());
    all.extend(bad_input::scenarios());
    all.extend(lifecycle::scenarios());
    all.extend(installation::scenarios());
    all.extend(kill::scenarios());
    all
}

/// Plays the scenarios whose name contains `filter`. The closing line counts them.
pub async fn run(world: &World<'_>, scenarios: Vec<Scenario>, filter: &str) -> Result<()> {
    let begin = Instant::now();
    let chosen: Vec<Scenario> = scenarios.into_iter().filter(|s| s.name.contains(filter)).collect();
    let (alone, side_by_side): (Vec<_>, Vec<_>) = chosen.into_iter().partition(|s| s.alone);
    let mut results: Vec<(&'static str, Result<()>)> = stream::iter(side_by_side)
        .map(|scenario| play(world, scenario, begin))
        .buffer_unordered(SIDE_BY_SIDE)
        .collect()
        .await;
    for scenario in alone {
        results.push(play(world, scenario, begin).await);
    }
    let failed: Vec<_> =
        results.iter().filter_map(|(name, result)| Some((name, result.as_ref().err()?))).collect();
    for (name, error) in &failed {
        println!("\nFAILED {name}: {error:#}");
    }
    println!("\nend-to-end scenarios in {:.0} s", begin.elapsed().as_secs_f64());
    println!("{} passed, {} failed", results.len() - failed.len(), failed.len());
    if failed.is_empty() { Ok(()) } else { Err(anyhow!("{} scenarios failed", failed.len())) }
}

async fn play(world: &World<'_>, scenario: Scenario, begin: Instant) -> (&'static str, Result<()>) {
    let started = Instant::now();
    let result = match tokio::time::timeout(LIMIT, (scenario.play)(world)).await {
        Ok(result) => result,
        Err(_) => Err(anyhow!("not done after {} s", LIMIT.as_secs())),
    };
    let (mark, why) = match &result {
        Ok(()) => ("ok    ", String::new()),
        Err(error) => ("FAILED", format!(": {error:#}")),
    };
    println!(
        "[{:6.1} s] {mark} {} ({:.1} s){why}",
        begin.elapsed().as_secs_f64(),
        scenario.name,
        started.elapsed().as_secs_f64()
    );
    (scenario.name, result)
}
