//! The live benchmarks: harm of a bad change, whether it was foretold, time of an abort, many rollouts at once. Each runs on the local
//! cluster, prints what it measured and writes it to `target/bench/`.

pub mod abort;
pub mod bound;
pub mod fleet;
pub mod harm;
mod stats;

use std::path::Path;

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
