//! The live benchmarks: harm of a bad change, whether it was foretold, time of an abort, many rollouts at once, policies
//! over many rollouts, a scan of a long history. Each prints what it measured and writes it to `target/bench/`; all but the
//! last run on the local cluster.

pub mod abort;
pub mod bound;
mod costs;
pub mod fleet;
pub mod harm;
mod members;
pub mod policy;
pub mod scan;
mod stats;

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use serde::Serialize;

/// Writes a report as `target/bench/<name>.json`.
fn report(name: &str, report: &impl Serialize) -> Result<()> {
    let path = Path::new("target/bench").join(format!("{name}.json"));
    std::fs::create_dir_all("target/bench").context("target/bench")?;
    let text = serde_json::to_string_pretty(report)? + "\n";
    std::fs::write(&path, text).with_context(|| path.display().to_string())?;
    println!("\nreport: {}", path.display());
    Ok(())
}

fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

fn say(begin: Instant, what: &str) {
    say_seconds(what, begin.elapsed().as_secs_f64());
}

fn say_seconds(what: &str, seconds: f64) {
    println!("{seconds:8.2} s  {what}");
}
