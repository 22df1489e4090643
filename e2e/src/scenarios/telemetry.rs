//! What Sluice tells of a run besides status and events: its metrics, as Prometheus scraped them from the pods of the
//! installation, and its log.

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use serde_json::Value;
use sluice_core::api::RunRecord;

use super::expect::{LOOK, SOON};
use crate::cluster::until;
use crate::world::{App, NAME, SLUICE, World};

/// Waits until Prometheus has each of these: a query, and the least and most that its sum may be.
async fn shown(app: &App<'_>, expected: &[(String, f64, f64)]) -> Result<()> {
    for (query, least, most) in expected {
        until(&format!("{query} is {least} to {most}"), SOON, LOOK, || async {
            let sum = app.cluster.monitoring.sum(query).await?;
            ensure!(sum.is_some_and(|sum| (*least..=*most).contains(&sum)), "it is {sum:?}");
            Ok(())
        })
        .await?;
    }
    Ok(())
}

/// A series of this rollout.
fn of(app: &App<'_>, metric: &str, labels: &str) -> String {
    format!("{metric}{{namespace=\"{}\",name=\"{NAME}\"{labels}}}", app.spec.namespace)
}

/// While a run is exposed at 2 % in class R3: whose it is, where it stands, and what is known of it.
pub async fn measured_during(app: &App<'_>) -> Result<()> {
    let many = f64::INFINITY;
    shown(
        app,
        &[
            (of(app, "sluice_rollout_info", ",risk_class=\"R3\",provenance=\"GenAIAutonomous\""), 1.0, 1.0),
            (of(app, "sluice_rollout_phase", ",phase=\"Canary\""), 1.0, 1.0),
            (of(app, "sluice_traffic_weight_ratio", ",arm=\"canary\""), 0.02, 0.02),
            (of(app, "sluice_traffic_weight_ratio", ",arm=\"stable\""), 0.98, 0.98),
            (of(app, "sluice_traffic_observed_ratio", ",arm=\"canary\""), 0.001, 0.1),
            (of(app, "sluice_gate_progress_ratio", ""), 0.001, 1.0),
            (of(app, "sluice_evidence_samples", ",arm=\"canary\""), 1.0, many),
            (of(app, "sluice_evidence_score", ",guard=\"router\""), 0.0, 0.999),
            (of(app, "sluice_guard_value", ",guard=\"router\",arm=\"stable\""), 0.0, 0.0),
            (of(app, "sluice_guard_threshold", ",guard=\"router\",bound=\"max\""), 0.1, 0.1),
            (format!("time() - {}", of(app, "sluice_last_reconcile_timestamp_seconds", "")), -1.0, 30.0),
        ],
    )
    .await
}

/// After the run: how it ended, what it cost, and that nothing is exposed any more.
pub async fn measured_after(app: &App<'_>, record: &RunRecord) -> Result<()> {
    let many = f64::INFINITY;
    let ended = format!(
        "sluice_runs_total{{outcome=\"{}\",cause=\"{}\",risk_class=\"{}\",provenance=\"{}\"}}",
        record.outcome.as_str(),
        record.reason,
        record.risk_class.as_str(),
        record.provenance.as_str()
    );
    let duration = format!("sluice_run_duration_seconds_count{{outcome=\"{}\"}}", record.outcome.as_str());
    shown(
        app,
        &[
            // No other scenario ships a change of this class.
            (ended, 1.0, 1.0),
            (duration, 1.0, many),
            (of(app, "sluice_rollout_phase", ",phase=\"Rejected\""), 1.0, 1.0),
            (of(app, "sluice_rollout_phase", ""), 1.0, 1.0),
            (of(app, "sluice_rollout_info", ",risk_class=\"\",provenance=\"\""), 1.0, 1.0),
            (of(app, "sluice_traffic_weight_ratio", ",arm=\"canary\""), 0.0, 0.0),
            (of(app, "sluice_traffic_weight_ratio", ",arm=\"stable\""), 1.0, 1.0),
            ("sluice_detection_seconds_count".into(), 1.0, many),
            ("sluice_abort_verified_seconds_count".into(), 1.0, many),
            ("sluice_provider_requests_total{provider=\"prometheus\",result=\"ok\"}".into(), 1.0, many),
            ("sluice_api_requests_total{verb=\"update\",code=\"200\"}".into(), 1.0, many),
            ("sluice_leader".into(), 1.0, 1.0),
            ("sluice_guardrails_intact == 1 and sluice_leader == 1".into(), 1.0, 1.0),
            ("count(sluice_build_info{version!=\"\"})".into(), 2.0, 2.0),
            (format!("sum({})", of(app, "sluice_hold_seconds_total", "")), 1.0, many),
            ("sluice_harmed_requests_total".into(), 0.1, many),
        ],
    )
    .await
}

/// Every line of the log about this rollout from the run's first moment to its last has the run's id.
pub fn logged(world: &World<'_>, app: &App<'_>, record: &RunRecord) -> Result<()> {
    let mut written = Vec::new();
    for process in world.cluster.kubelet.running(SLUICE) {
        let file = world.cluster.kubelet.log(SLUICE, &process.pod, &process.container);
        let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        for line in text.lines() {
            let entry: Value = serde_json::from_str(line).with_context(|| format!("no JSON: {line}"))?;
            let field = |name: &str| entry["span"][name].as_str().or(entry[name].as_str());
            if field("namespace") != Some(&app.spec.namespace) {
                continue;
            }
            let at: Timestamp = field("timestamp").context("no time")?.parse()?;
            if at < record.started_at || at > record.ended_at {
                continue;
            }
            ensure!(field("run") == Some(&record.id), "a line of run {} lacks its id: {line}", record.id);
            ensure!(field("rollout") == Some(NAME), "a line does not name its rollout: {line}");
            written.extend(field("action").map(String::from));
        }
    }
    for action in ["create-canary", "set-weights"] {
        ensure!(written.iter().any(|is| is == action), "{action} is not in the log of {written:?}");
    }
    Ok(())
}
