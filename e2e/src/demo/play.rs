//! One change from the moment before it is shipped to the line of the report.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use sluice_core::api::{Phase, ProgressiveRolloutStatus, Provenance};

use super::narrator::Narrator;
use super::report::{Client, Scenario};
use crate::load::Snapshot;
use crate::world::App;

/// One scenario under way.
pub struct Play {
    started: Instant,
    /// What the clients had counted before.
    pub before: Snapshot,
    /// Runs before.
    pub runs: i64,
    tested: Option<(String, BTreeSet<String>)>,
    /// Weights of the steps of the plan, as it was at last.
    steps: Vec<i32>,
}

impl Play {
    /// Begins to count.
    pub async fn begin(app: &App<'_>) -> Result<Self> {
        Ok(Self {
            started: Instant::now(),
            before: app.load.snapshot(),
            runs: app.status().await?.run_count,
            tested: None,
            steps: Vec::new(),
        })
    }

    /// Tells the run until it has ended.
    pub async fn follow(&mut self, n: &Narrator, name: &str, app: &App<'_>) -> Result<()> {
        let runs = self.runs;
        let ended = |status: &ProgressiveRolloutStatus| status.run_count > runs && status.run.is_none();
        let steps = RefCell::new(Vec::new());
        let look = |status: &ProgressiveRolloutStatus| {
            if let Some(run) = &status.run {
                steps.replace(run.plan.steps.iter().map(|step| step.weight_percent).collect());
            }
        };
        let status = n
            .follow(name, app, |status| {
                look(status);
                ended(status) || (self.tested.is_none() && status.phase == Phase::Promoting)
            })
            .await?;
        if !ended(&status) {
            // The pods that were tested: every one of them has to be there after promotion.
            if let Some(run) = &status.run {
                self.tested = Some((run.canary.hash.clone(), app.pods_of(&run.canary.hash).await?));
            }
            n.follow(name, app, |status| {
                look(status);
                ended(status)
            })
            .await?;
        }
        self.steps = steps.into_inner();
        Ok(())
    }

    /// The line of a run that has ended; `declared` as its author did, or not at all.
    pub async fn end(
        self,
        n: &Narrator,
        name: &str,
        app: &App<'_>,
        declared: Option<Provenance>,
    ) -> Result<Scenario> {
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
            let deployment = format!("deployment/{}", app.spec.name);
            app.kubectl(&["rollout", "status", &deployment, "--timeout=30s"]).await?;
        }
        let exposed = record.exposed_since.zip(record.exposed_until);
        let client = Client::of(&counts, &record.images);
        n.say(
            name,
            &format!(
                "{}, after at most {} % of traffic; {} of {} requests failed, of those that met it {} of {}",
                record.outcome.as_str(),
                record.max_weight_percent,
                client.failed,
                client.requests,
                client.met_failed,
                client.met
            ),
        );
        Ok(Scenario {
            name: name.to_owned(),
            declared,
            provenance: record.provenance,
            risk_class: Some(record.risk_class),
            plan_digest: Some(record.plan_digest.clone()),
            steps: self.steps,
            outcome: record.outcome.as_str().to_owned(),
            reason: format!("{}: {}", record.reason, record.message),
            excess_failed: excess(app, &counts),
            client,
            max_weight_percent: record.max_weight_percent,
            seconds_exposed: exposed.map_or(0.0, |(from, to)| to.duration_since(from).as_secs_f64()),
            seconds_total,
            pods_restarted,
        })
    }

    /// The line of a change that had no run.
    pub fn without_run(
        self,
        name: &str,
        outcome: &str,
        reason: &str,
        app: &App<'_>,
        image: &str,
    ) -> Scenario {
        let counts = app.load.snapshot().since(&self.before);
        Scenario {
            name: name.to_owned(),
            declared: None,
            provenance: Provenance::Unknown,
            risk_class: None,
            plan_digest: None,
            steps: Vec::new(),
            outcome: outcome.to_owned(),
            reason: reason.to_owned(),
            excess_failed: excess(app, &counts),
            client: Client::of(&counts, &[image.to_owned()]),
            max_weight_percent: 0,
            seconds_exposed: 0.0,
            seconds_total: self.started.elapsed().as_secs_f64(),
            pods_restarted: 0,
        }
    }

    /// Requests that this image has answered since the beginning.
    pub fn served(&self, app: &App<'_>, image: &str) -> u64 {
        app.load.snapshot().since(&self.before).by_image.get(image).copied().unwrap_or(0)
    }
}

impl Client {
    fn of(counts: &Snapshot, images: &[String]) -> Self {
        let sum = |by: &BTreeMap<String, u64>| images.iter().filter_map(|image| by.get(image)).sum();
        Self {
            requests: counts.requests,
            failed: counts.failed,
            met: sum(&counts.by_image),
            met_failed: sum(&counts.failed_by_image),
        }
    }
}

/// Failures beyond the configured baseline.
pub fn excess(app: &App<'_>, counts: &Snapshot) -> f64 {
    counts.failed as f64 - counts.requests as f64 * f64::from(app.spec.baseline_permille) / 1000.0
}
