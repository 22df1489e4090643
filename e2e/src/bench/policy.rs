//! One edit of a policy over many held templates: how long until the plan of each is another one, and that an edit which
//! changes no plan writes none.
//!
//! The applications have no pods: their templates are held by `spec.suspend`, and a plan is all that a policy changes of
//! them. Scrape and evaluation interval are the 15 s of an installation.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde::Serialize;
use serde_json::{Value, json};
use sluice_core::api::ClusterRiskPolicy;

use super::costs::{Audit, Meter};
use super::members::{Kind, Members, key};
use super::{rounded, say};
use crate::cluster::Cluster;
use crate::cluster::process::Usage;
use crate::world::World;

/// Every plan has changed within this time.
const PROMISE: Duration = Duration::from_secs(10);
/// How long nothing may be written after an edit that changes no plan.
const QUIET: Duration = Duration::from_secs(20);
/// Nothing changed for so long, longer than an interval: what came before is over, the last bound on harm included.
const SETTLED: Duration = Duration::from_secs(20);
/// How long anything may take.
const LIMIT: Duration = Duration::from_secs(900);
/// Name of the policy that is edited.
const POLICY: &str = "bench";

/// What is written to `target/bench/policy.json`.
#[derive(Debug, Serialize)]
struct Report {
    /// Rollouts, each with a held template.
    n: usize,
    /// From the edit that tightens all plans to the watch event with the new digest, in seconds.
    updated: Quantiles,
    /// CPU seconds meanwhile, by part.
    cpu_seconds: BTreeMap<&'static str, f64>,
    /// Requests of the controllers meanwhile, by the audit log.
    api_requests: BTreeMap<String, u64>,
    /// What edits did that change no plan.
    idle: Vec<Idle>,
    /// Resident memory of the leading controller in 2^20 bytes, and the most that it had, before the first edit and at the end.
    before: Memory,
    after: Memory,
}

/// An edit that changes no plan, and the 20 s after it.
#[derive(Debug, Serialize)]
struct Idle {
    edit: &'static str,
    /// Events of rollouts.
    events: usize,
    /// Writes of the controllers to rollouts, by the audit log.
    writes: u64,
}

#[derive(Debug, Serialize)]
struct Quantiles {
    p50: f64,
    p99: f64,
    max: f64,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Memory {
    resident_mb: f64,
    peak_mb: f64,
}

impl Memory {
    fn of(usage: Usage) -> Self {
        let mb = |bytes: u64| rounded(bytes as f64 / f64::from(1 << 20));
        Self { resident_mb: mb(usage.resident_bytes), peak_mb: mb(usage.peak_bytes) }
    }
}

/// Runs it with `n` rollouts and writes the report.
pub async fn run(cluster: &Cluster, n: usize) -> Result<()> {
    ensure!(n > 0, "--rollouts must be at least 1");
    let evaluation = format!("evaluationIntervalSeconds={}", super::fleet::INTERVAL.as_secs());
    let world = World::install(cluster, &["--set", &evaluation, "--set", "logLevel=info"]).await?;
    println!("{n} rollouts, each with a held template and no pods");
    edit(cluster, &json!({}), &json!({})).await?;
    let kind = Kind { replicas: 0, rollout: json!({"suspend": true}) };
    let members = Members::enrol(cluster, n, &kind, LIMIT).await?;
    let begin = Instant::now();
    members.declare().await?;
    members.ship().await?;
    let held = || members.statuses(|status| digest(status).is_some());
    members.until("every held template has a plan", LIMIT, held).await?;
    say(begin, "all templates are held, with a plan");
    let changes = Changes::of(&members)?;
    changes.settled().await?;

    let meter = Meter::of(&world).await?;
    let before = Memory::of(meter.usage()?);
    let (spent, asked) = (meter.spent()?, meter.asked().await?);
    let audit = Audit::from_here(cluster)?;
    let updated = changes.tightened(&members).await?;
    changes.settled().await?;
    let now = meter.spent()?;
    let cpu_seconds = spent.iter().zip(&now).map(|((part, from), (_, to))| (*part, rounded(to - from)));
    let cpu_seconds = cpu_seconds.collect();
    meter.tell_spent(&spent)?;
    meter.tell_asked(&asked, n).await?;
    let api_requests = audit.count(|verb, resource| format!("{verb} {resource}"))?;

    let annotation = (json!({"example.com/reviewed": "yes"}), json!({}));
    let loose = (json!({}), json!({"limits": {"maxFirstStepPercent": 100}}));
    let mut idle = Vec::new();
    for (name, (annotations, spec)) in [("an annotation", annotation), ("a limit that does not bind", loose)]
    {
        let (audit, seen) = (Audit::from_here(cluster)?, changes.len());
        edit(cluster, &annotations, &spec).await?;
        tokio::time::sleep(QUIET).await;
        let written = audit.count(|verb, resource| format!("{verb} {resource}"))?.into_iter();
        let ours = written.filter(|(name, _)| name.contains(" progressiverollouts") && !is_read(name));
        let writes = ours.map(|(_, count)| count).sum();
        idle.push(Idle { edit: name, events: changes.len() - seen, writes });
    }
    let report =
        Report { n, updated, cpu_seconds, api_requests, idle, before, after: Memory::of(meter.usage()?) };
    meter.still_leads(&world).await?;
    table(&report);
    super::report("policy", &report)?;
    let (took, promise) = (report.updated.max, PROMISE.as_secs_f64());
    ensure!(took <= promise, "the last plan changed after {took:.2} s, more than {promise} s");
    for Idle { edit, events, writes } in &report.idle {
        let none = (*events, *writes) == (0, 0);
        ensure!(
            none,
            "{edit} changes no plan, and there were {events} events and {writes} writes of rollouts"
        );
    }
    Ok(())
}

fn is_read(name: &str) -> bool {
    ["get ", "list ", "watch "].iter().any(|verb| name.starts_with(verb))
}

fn digest(status: &Value) -> Option<&str> {
    status["plan"]["digest"].as_str()
}

/// Merges annotations and spec into the policy, or makes it.
async fn edit(cluster: &Cluster, annotations: &Value, spec: &Value) -> Result<()> {
    let api: Api<ClusterRiskPolicy> = Api::all(cluster.client.clone());
    let patch = json!({"metadata": {"annotations": annotations}, "spec": spec});
    if api.get_opt(POLICY).await?.is_some() {
        api.patch(POLICY, &PatchParams::default(), &Patch::Merge(&patch)).await?;
        return Ok(());
    }
    let object = json!({
        "apiVersion": "sluice.dev/v1alpha1", "kind": "ClusterRiskPolicy",
        "metadata": {"name": POLICY, "annotations": annotations}, "spec": spec,
    });
    cluster.apply(&object.to_string()).await
}

fn table(report: &Report) {
    let Report { updated, before, after, .. } = report;
    println!("\n{:<52} {:>9} {:>9} {:>9}", "", "p50", "p99", "max");
    println!(
        "{:<52} {:>7.2} s {:>7.2} s {:>7.2} s",
        format!("from the edit to the new plan, {} rollouts", report.n),
        updated.p50,
        updated.p99,
        updated.max
    );
    for Idle { edit, events, writes } in &report.idle {
        println!("after {edit}: {events} events of rollouts, {writes} writes in {} s", QUIET.as_secs());
    }
    println!(
        "the controller's memory: {:.1} MB resident before, {:.1} MB after; at most {:.1} MB before, {:.1} MB in all",
        before.resident_mb, after.resident_mb, before.peak_mb, after.peak_mb
    );
}

/// The events of all rollouts.
#[derive(Default)]
struct Seen {
    events: usize,
    /// The digest of each plan, and since when it is this one.
    plans: BTreeMap<String, (String, Instant)>,
}

/// What the members' watch delivers.
struct Changes(Arc<Mutex<Seen>>);

impl Changes {
    fn of(members: &Members<'_>) -> Result<Self> {
        let seen: Arc<Mutex<Seen>> = Arc::default();
        let told = seen.clone();
        members.rollouts.listen(move |rollout| {
            let at = Instant::now();
            let mut seen = told.lock().unwrap_or_else(PoisonError::into_inner);
            seen.events += 1;
            let digest = digest(&rollout.data["status"]).unwrap_or_default();
            let plan = seen.plans.entry(key(rollout)).or_insert_with(|| (String::new(), at));
            if plan.0 != digest {
                *plan = (digest.to_owned(), at);
            }
        })?;
        Ok(Self(seen))
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn len(&self) -> usize {
        self.seen().events
    }

    /// Waits until nothing has changed for a while.
    async fn settled(&self) -> Result<()> {
        let begin = Instant::now();
        let mut last = (self.len(), Instant::now());
        while last.1.elapsed() < SETTLED {
            ensure!(begin.elapsed() < LIMIT, "rollouts change all the time: {} events", last.0);
            tokio::time::sleep(Duration::from_millis(100)).await;
            if self.len() != last.0 {
                last = (self.len(), Instant::now());
            }
        }
        Ok(())
    }

    /// Tightens all plans by one edit, and waits until each is another one than before.
    async fn tightened(&self, members: &Members<'_>) -> Result<Quantiles> {
        let rollouts = members.rollouts.by_key();
        let before =
            rollouts.iter().filter_map(|(key, rollout)| Some((key, digest(&rollout.data["status"])?)));
        let before: BTreeMap<&String, &str> = before.collect();
        let begin = Instant::now();
        edit(members.cluster, &json!({}), &json!({"floors": [{"class": "R3"}]})).await?;
        let new = |seen: &Seen| -> Vec<f64> {
            let another = seen.plans.iter().filter(|(key, (digest, at))| {
                *at > begin && before.get(key).is_some_and(|known| known != digest)
            });
            another.map(|(_, (_, at))| (*at - begin).as_secs_f64()).collect()
        };
        members.until("every plan is another one", LIMIT, || new(&self.seen()).len()).await?;
        let mut seconds = new(&self.seen());
        seconds.sort_by(f64::total_cmp);
        Quantiles::of(&seconds).context("no rollouts")
    }
}

impl Quantiles {
    /// Of sorted values.
    fn of(sorted: &[f64]) -> Option<Self> {
        let at = |share: f64| sorted.get(((share * sorted.len() as f64).ceil() as usize).max(1) - 1).copied();
        Some(Self { p50: rounded(at(0.5)?), p99: rounded(at(0.99)?), max: rounded(*sorted.last()?) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_were_measured() {
        let hundred: Vec<f64> = (1..=100).map(f64::from).collect();
        let of = |values: &[f64]| Quantiles::of(values).map(|q| (q.p50, q.p99, q.max));
        assert_eq!(of(&hundred), Some((50.0, 99.0, 100.0)));
        assert_eq!(of(&[7.0]), Some((7.0, 7.0, 7.0)));
        assert_eq!(of(&[]), None);
    }
}
