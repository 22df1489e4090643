//! Runs scenarios by name, says what each showed and how long it took, and ends with the usual line of a test runner.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use futures::future::BoxFuture;

use crate::cluster::Cluster;

/// One promise and the run that proves it.
pub struct Scenario {
    /// The name that a filter is compared with.
    pub name: &'static str,
    /// After this long it has failed: every wait has a deadline, and so has their sum.
    pub limit: Duration,
    pub run: for<'a> fn(&'a Cluster) -> BoxFuture<'a, Result<()>>,
}

/// Runs those whose name contains the filter, one after the other. An error when one failed or none was found.
pub async fn run(cluster: &Cluster, scenarios: &[Scenario], filter: Option<&str>) -> Result<()> {
    let chosen: Vec<&Scenario> =
        scenarios.iter().filter(|s| filter.is_none_or(|f| s.name.contains(f))).collect();
    if chosen.is_empty() {
        let names: Vec<&str> = scenarios.iter().map(|s| s.name).collect();
        bail!(
            "no scenario's name contains {:?}; there are: {}",
            filter.unwrap_or_default(),
            names.join(", ")
        );
    }
    println!("running {} scenarios", chosen.len());
    let mut failed = Vec::new();
    for scenario in &chosen {
        let begin = Instant::now();
        let result = match tokio::time::timeout(scenario.limit, (scenario.run)(cluster)).await {
            Ok(result) => result,
            Err(_) => Err(anyhow::anyhow!("not done within {} s", scenario.limit.as_secs())),
        };
        let seconds = begin.elapsed().as_secs_f64();
        match result {
            Ok(()) => println!("scenario {} ... ok ({seconds:.1} s)", scenario.name),
            Err(error) => {
                println!("scenario {} ... FAILED ({seconds:.1} s)\n    {error:#}", scenario.name);
                failed.push(scenario.name);
            }
        }
    }
    println!("\n{} passed, {} failed", chosen.len() - failed.len(), failed.len());
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(())
}
