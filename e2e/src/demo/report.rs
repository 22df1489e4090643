//! The report: one line for each scenario, and what the demo promises of them.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use serde_json::json;
use sluice_core::api::{Provenance, RiskClass};

/// One line of the report.
#[derive(Clone, Debug, Serialize)]
pub struct Scenario {
    /// Its name.
    pub name: String,
    /// What its author declared, if anything.
    pub declared: Option<Provenance>,
    /// What it counted as.
    pub provenance: Provenance,
    /// Risk class of the run; none where none ran.
    pub risk_class: Option<RiskClass>,
    /// Digest of its plan.
    pub plan_digest: Option<String>,
    /// Weights of the plan's steps, in percent.
    pub steps: Vec<i32>,
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
    /// Requests that the new version answered.
    pub met: u64,
    /// Failed ones of those.
    pub met_failed: u64,
}

/// How every scenario has to end.
const EXPECTED: [(&str, &str); 19] = [
    ("good-human", "Promoted"),
    ("good-genai", "Promoted"),
    ("bad-human", "Rejected"),
    ("bad-genai", "Rejected"),
    ("bad-undeclared", "Rejected"),
    ("bad-false-human", "Rejected"),
    ("slow-genai", "Rejected"),
    ("subtle-genai", "Rejected"),
    ("alert", "Rejected"),
    ("quarantine", "Held"),
    ("revert", "Unchanged"),
    ("tightened", "Promoted"),
    ("frozen", "Held"),
    ("rollback", "Promoted"),
    ("queued-1", "Promoted"),
    ("queued-2", "Promoted"),
    ("queued-3", "Promoted"),
    ("controller-down", "Promoted"),
    ("outage", "Promoted"),
];
/// Those that harm nobody.
const HARMLESS: [&str; 12] = [
    "good-human",
    "good-genai",
    "quarantine",
    "revert",
    "tightened",
    "frozen",
    "rollback",
    "queued-1",
    "queued-2",
    "queued-3",
    "controller-down",
    "outage",
];

/// Puts the lines in the order in which they are told, prints them and writes them down.
pub fn write(scenarios: &mut [Scenario], path: &Path) -> Result<()> {
    scenarios.sort_by_key(|s| EXPECTED.iter().position(|(name, _)| *name == s.name));
    table(scenarios);
    let text = serde_json::to_string_pretty(&json!({ "scenarios": scenarios }))?;
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
    }
    std::fs::write(path, text + "\n").with_context(|| path.display().to_string())?;
    println!("\nreport: {}", path.display());
    Ok(())
}

/// The promises of the demo; a broken one fails it.
pub fn check(scenarios: &[Scenario]) -> Result<()> {
    let of = |name: &str| scenarios.iter().find(|s| s.name == name).with_context(|| name.to_owned());
    for (name, outcome) in EXPECTED {
        let found = of(name)?;
        ensure!(found.outcome == outcome, "{name} ended {} ({}), not {outcome}", found.outcome, found.reason);
        let ran = !["Held", "Unchanged"].contains(&outcome);
        let (class, digest) = (found.risk_class, found.plan_digest.as_deref());
        let told = class.is_some() == digest.is_some() && (class.is_some() || !ran);
        ensure!(told, "{name} tells class {class:?} and plan {digest:?}");
        ensure!(found.pods_restarted == 0, "{name}: {} tested pods were not kept", found.pods_restarted);
    }
    for name in HARMLESS {
        let found = of(name)?;
        // Five standard deviations of the injected baseline.
        let noise = 5.0 * (found.client.failed as f64 - found.excess_failed).max(1.0).sqrt();
        ensure!(found.excess_failed <= noise, "{name}: {:.1} requests failed too many", found.excess_failed);
    }
    let slow = of("slow-genai")?;
    ensure!(slow.reason.contains("latency"), "slow-genai: {}", slow.reason);
    // The same fault: who wrote it decides how far it gets, not what its author says of it.
    let (human, assisted) = (of("bad-human")?, of("bad-genai")?);
    for name in ["bad-genai", "bad-undeclared", "bad-false-human"] {
        let found = of(name)?;
        ensure!(
            found.max_weight_percent < human.max_weight_percent,
            "{name} reached {} %, bad-human {} %",
            found.max_weight_percent,
            human.max_weight_percent
        );
        ensure!(found.risk_class >= assisted.risk_class, "{name} was of class {:?}", found.risk_class);
        let first = |s: &Scenario| s.steps.first().copied();
        ensure!(first(found) <= first(assisted), "{name} had the steps {:?}", found.steps);
    }
    let lied = of("bad-false-human")?;
    let as_said = (lied.declared, lied.provenance) == (Some(Provenance::Human), Provenance::GenAIAssisted);
    ensure!(as_said, "bad-false-human counted as {}", lied.provenance.as_str());
    ensure!(
        (lied.risk_class, &lied.steps) == (assisted.risk_class, &assisted.steps),
        "bad-false-human had the steps {:?}, bad-genai {:?}",
        lied.steps,
        assisted.steps
    );
    Ok(())
}

fn table(scenarios: &[Scenario]) {
    println!(
        "\n{:<16} {:<14} {:<14} {:<5} {:<14} {:<10} {:>6} {:>7} {:>7} {:>9} {:>7} {:>7} {:>8} {:>8}  reason",
        "scenario",
        "declared",
        "counts as",
        "class",
        "steps %",
        "outcome",
        "max %",
        "met it",
        "failed",
        "requests",
        "failed",
        "excess",
        "exposed",
        "total"
    );
    for s in scenarios {
        let reason: String = s.reason.chars().take(60).collect();
        let steps: Vec<String> = s.steps.iter().map(i32::to_string).collect();
        println!(
            "{:<16} {:<14} {:<14} {:<5} {:<14} {:<10} {:>6} {:>7} {:>7} {:>9} {:>7} {:>7.1} {:>6.1} s {:>6.1} s  {reason}",
            s.name,
            s.declared.map_or("-", Provenance::as_str),
            s.provenance.as_str(),
            s.risk_class.map_or("-", RiskClass::as_str),
            steps.join(","),
            s.outcome,
            s.max_weight_percent,
            s.client.met,
            s.client.met_failed,
            s.client.requests,
            s.client.failed,
            s.excess_failed,
            s.seconds_exposed,
            s.seconds_total
        );
    }
    println!(
        "\nmax %: the largest share of traffic that the new version had. met it, failed: requests that the new version answered.\n\
         requests, failed: of the whole application, as its clients counted them. excess: failures beyond the 0.2 % that every\n\
         version of these applications has. exposed: from its first traffic until the router gave it none any more, or until it\n\
         was promoted."
    );
}
