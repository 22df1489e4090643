//! Many rollouts at once: how long until every canary is available, until every one of them is aborted, and what
//! that costs, next to as many plain ReplicaSets of one pod in the same run; and what it costs to watch them all in a step.
//!
//! The applications have two pods each and no clients: what is measured ends at the first step, which needs no evidence. Scrape
//! and evaluation interval are the 15 s of an installation, not the second of the demo.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use kube::api::{DynamicObject, PostParams};
use serde::Serialize;
use serde_json::{Value, json};

use super::costs::{Audit, Meter};
use super::members::{Followed, Kind, Member, Members, NAMESPACES, NEW, OLD, template};
use super::{rounded, say, say_seconds};
use crate::cluster::{ADDRESSES, Cluster};
use crate::http;
use crate::world::World;

/// Pods of each Deployment.
const REPLICAS: i32 = 2;
/// Scrape and evaluation interval.
pub const INTERVAL: Duration = Duration::from_secs(15);
/// How long anything may take.
const LIMIT: Duration = Duration::from_secs(240);
/// An abort whose weight is not 0 after this long is lost.
const ABORT_LIMIT: Duration = Duration::from_secs(60);
/// How long the idle controller is watched.
const IDLE: Duration = Duration::from_secs(30);
/// How long the controller is watched while every run is in its first step.
const ACTIVE: Duration = Duration::from_secs(90);
/// The most of one processor that it may take to evaluate so many runs; more of them may take more.
const ACTIVE_CORE: f64 = 0.10;
const ACTIVE_RUNS: f64 = 500.0;
/// Largest ratio to the reference.
const RATIO: f64 = 3.0;

/// What is written to `target/bench/fleet.json`.
#[derive(Clone, Debug, Serialize)]
struct Report {
    /// Rollouts.
    n: usize,
    /// Whether Kubernetes' own controllers could send as much as they can, instead of their default limits.
    unthrottled: bool,
    /// From the first patch of a template until every canary pod of the first step is available.
    canary_seconds: f64,
    /// From the first POST of a ReplicaSet until the pod of each is available.
    reference_seconds: f64,
    /// The first over the second.
    ratio: f64,
    /// From the first request until every route has weight 0.
    abort_seconds: f64,
    /// From the first request until no canary pod and no ReplicaSet of one is left.
    gone_seconds: f64,
    /// CPU time of the leading controller from the first patch until the canaries are gone.
    cpu_seconds: f64,
    /// Largest resident memory of the leading controller that was seen, in 2^20 bytes.
    resident_mb: f64,
    /// CPU time of the leading controller in 30 s in which nothing happens.
    idle_cpu_seconds_per_30s: f64,
    /// Share of one processor that the leading controller takes while all runs are in their first step.
    active_core: f64,
    /// Queries to Prometheus in each second of that time, and the mean time in which it answered them.
    queries_per_second: f64,
    query_milliseconds: f64,
    /// Requests of the controllers by verb, from the first patch until the canaries are gone, by the audit log.
    api_requests: BTreeMap<String, u64>,
    /// Runs whose weight was not 0 within a minute of the request.
    lost_aborts: usize,
}

/// One pod, as a canary of the first step has.
fn reference(member: &Member) -> Value {
    let name = format!("reference-{}", member.name);
    json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet",
        "metadata": {"name": name, "namespace": member.namespace},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"app": name}}, "template": template(&name, OLD)},
    })
}

struct Fleet<'a> {
    members: Members<'a>,
    meter: Meter<'a>,
    replica_sets: Followed,
    routes: Followed,
    pods: Followed,
}

/// Runs it with `n` rollouts and writes the report.
pub async fn run(cluster: &Cluster, n: usize, unthrottled: bool) -> Result<()> {
    ensure!(n > 0, "--rollouts must be at least 1");
    let evaluation = format!("evaluationIntervalSeconds={}", INTERVAL.as_secs());
    let world = World::install(cluster, &["--set", &evaluation, "--set", "logLevel=info"]).await?;
    println!(
        "{n} rollouts in {} namespaces, one route and {REPLICAS} pods each; all pods on fake nodes",
        n.min(NAMESPACES)
    );
    // Nobody calls these applications: the first step lasts as long as the measurement.
    let kind = Kind { replicas: REPLICAS, rollout: json!({"limits": {"minBakeSeconds": 3600}}) };
    let fleet = Fleet {
        members: Members::enrol(cluster, n, &kind, LIMIT).await?,
        meter: Meter::of(&world).await?,
        replica_sets: Followed::start(cluster, "apps", "v1", "ReplicaSet", "replicasets").await?,
        routes: Followed::start(cluster, "gateway.networking.k8s.io", "v1", "HTTPRoute", "httproutes")
            .await?,
        pods: Followed::start(cluster, "", "v1", "Pod", "pods").await?,
    };
    let report = fleet.measure(&world, unthrottled).await?;
    super::report("fleet", &report)?;
    ensure!(report.lost_aborts == 0, "{} aborts were lost", report.lost_aborts);
    let most = ACTIVE_CORE * (n as f64 / ACTIVE_RUNS).max(1.0);
    ensure!(
        report.active_core <= most,
        "{n} runs take {:.1} % of a processor, more than {:.1} %",
        report.active_core * 100.0,
        most * 100.0
    );
    ensure!(
        report.ratio <= RATIO,
        "the canaries took {:.2} times as long as plain ReplicaSets, more than {RATIO}",
        report.ratio
    );
    Ok(())
}

impl Fleet<'_> {
    async fn measure(&self, world: &World<'_>, unthrottled: bool) -> Result<Report> {
        let members = &self.members;
        let n = members.all.len();
        let reference_seconds = self.reference().await?;
        // The garbage of the reference is out of the way before anything else is measured.
        tokio::time::sleep(Duration::from_secs(5)).await;
        let idle = self.meter.usage()?;
        tokio::time::sleep(IDLE).await;
        let before = self.meter.usage()?;
        let idle_cpu = before.cpu_seconds - idle.cpu_seconds;
        say_seconds("CPU time of the idle controller in 30 s", idle_cpu);

        members.declare().await?;
        tokio::time::sleep(Duration::from_secs(2)).await;
        let audit = Audit::from_here(members.cluster)?;
        let spent = self.meter.spent()?;
        let asked = self.meter.asked().await?;
        let begin = Instant::now();
        members.ship().await?;
        say(begin, "all templates are patched");
        members
            .until("every canary pod of the first step is available", LIMIT, || {
                let (rollouts, sets) = (members.rollouts.by_key(), self.replica_sets.by_key());
                members.count(|member| {
                    let Some(rollout) = rollouts.get(&member.key()) else { return false };
                    let run = &rollout.data["status"]["run"];
                    let set = run["canary"]["replicaSet"].as_str().unwrap_or_default();
                    let available = sets
                        .get(&format!("{}/{set}", member.namespace))
                        .and_then(|set| set.data["status"]["availableReplicas"].as_i64())
                        .unwrap_or(0);
                    let weight = run["plan"]["steps"][0]["weightPercent"].as_i64().unwrap_or(100);
                    available > 0 && available * 100 >= i64::from(REPLICAS) * weight
                })
            })
            .await?;
        let canary_seconds = begin.elapsed().as_secs_f64();
        say(begin, "all canary pods of the first step are available");
        self.meter.tell_spent(&spent)?;
        self.meter.tell_asked(&asked, self.members.all.len()).await?;
        let mut most = self.meter.usage()?.resident_bytes;
        members
            .until("every route has the weight of the first step", LIMIT, || {
                self.weights(|weight| weight.is_some_and(|weight| weight > 0))
            })
            .await?;
        say(begin, "all weights of the first step are set");
        let (active_core, queries_per_second, query_milliseconds) = self.active().await?;

        let begin = Instant::now();
        let rollouts = members.rollouts.by_key();
        members
            .each(|member| {
                let run = rollouts
                    .get(&member.key())
                    .map(|rollout| rollout.data["status"]["run"]["id"].clone())
                    .unwrap_or_default();
                let id = run.as_str().unwrap_or_default();
                let patch =
                    json!({"metadata": {"annotations": {"sluice.dev/request": format!("abort/{id}")}}});
                async move { members.merge(&members.rollouts, member, &patch).await }
            })
            .await?;
        say(begin, "all aborts are requested");
        let zero = || self.weights(|weight| weight == Some(0));
        let all_zero = members.until("every weight is 0", ABORT_LIMIT, zero).await;
        let abort_seconds = begin.elapsed().as_secs_f64();
        let lost_aborts = n - zero();
        if let Err(error) = all_zero {
            println!("{error:#}");
        }
        say(begin, "all weights are 0");
        most = most.max(self.meter.usage()?.resident_bytes);
        members
            .until("every canary is gone", LIMIT, || {
                let pods = self.pods.by_key();
                let sets = self.replica_sets.by_key();
                let left = |object: &DynamicObject, pointer: &str| {
                    object.data.pointer(pointer).and_then(Value::as_str) == Some(NEW)
                };
                let in_pods = pods.values().filter(|pod| left(pod, "/spec/containers/0/image")).count();
                let in_sets =
                    sets.values().filter(|set| left(set, "/spec/template/spec/containers/0/image")).count();
                n.saturating_sub(in_pods.max(in_sets))
            })
            .await?;
        let gone_seconds = begin.elapsed().as_secs_f64();
        say(begin, "all canaries are gone");
        let after = self.meter.usage()?;
        self.meter.still_leads(world).await?;
        Ok(Report {
            n,
            unthrottled,
            canary_seconds: rounded(canary_seconds),
            reference_seconds: rounded(reference_seconds),
            ratio: rounded(canary_seconds / reference_seconds),
            abort_seconds: rounded(abort_seconds),
            gone_seconds: rounded(gone_seconds),
            cpu_seconds: rounded(after.cpu_seconds - before.cpu_seconds),
            resident_mb: rounded(most.max(after.resident_bytes) as f64 / f64::from(1 << 20)),
            idle_cpu_seconds_per_30s: rounded(idle_cpu),
            active_core: (active_core * 10_000.0).round() / 10_000.0,
            queries_per_second: rounded(queries_per_second),
            query_milliseconds: rounded(query_milliseconds),
            api_requests: audit.count(|verb, _| verb.to_owned())?,
            lost_aborts,
        })
    }

    /// What the runs cost while they are in their first step: share of a processor, queries per second, and milliseconds that
    /// Prometheus takes for one.
    async fn active(&self) -> Result<(f64, f64, f64)> {
        // The counters are read for the first time, with the hour before.
        tokio::time::sleep(2 * INTERVAL).await;
        let spent = self.meter.spent()?;
        let (cpu, (asked, seconds)) = (self.meter.usage()?.cpu_seconds, queries().await?);
        let begin = Instant::now();
        tokio::time::sleep(ACTIVE).await;
        let took = begin.elapsed().as_secs_f64();
        let core = (self.meter.usage()?.cpu_seconds - cpu) / took;
        let (more, longer) = queries().await?;
        let (count, millis) = (more - asked, (longer - seconds) * 1000.0 / (more - asked).max(1.0));
        println!(
            "            all runs in their first step: the controller takes {:.1} % of a processor; Prometheus is asked {:.1} \
             times a second, {millis:.1} ms each",
            core * 100.0,
            count / took
        );
        self.meter.tell_spent(&spent)?;
        ensure!(count > 0.0, "Prometheus was asked nothing");
        Ok((core, count / took, millis))
    }

    /// As many ReplicaSets of one pod, without any controller of ours; deleted afterwards.
    async fn reference(&self) -> Result<f64> {
        let spent = self.meter.spent()?;
        let asked = self.meter.asked().await?;
        let begin = Instant::now();
        let members = &self.members;
        members
            .each(|member| async move {
                let object: DynamicObject = serde_json::from_value(reference(member))?;
                self.replica_sets
                    .api(members.cluster, member)
                    .create(&PostParams::default(), &object)
                    .await
                    .map(drop)?;
                Ok(())
            })
            .await?;
        let name = |member: &Member| format!("{}/reference-{}", member.namespace, member.name);
        members
            .until("every pod of the reference is available", LIMIT, || {
                let sets = self.replica_sets.by_key();
                members.count(|member| {
                    sets.get(&name(member))
                        .is_some_and(|set| set.data["status"]["availableReplicas"].as_i64() == Some(1))
                })
            })
            .await?;
        let took = begin.elapsed().as_secs_f64();
        say_seconds("reference: plain ReplicaSets, all pods available", took);
        self.meter.tell_spent(&spent)?;
        self.meter.tell_asked(&asked, self.members.all.len()).await?;
        members
            .each(|member| async move {
                let api = self.replica_sets.api(members.cluster, member);
                api.delete(&format!("reference-{}", member.name), &kube::api::DeleteParams::background())
                    .await?;
                Ok(())
            })
            .await?;
        members
            .until("the reference is gone", LIMIT, || {
                let pods = self.pods.by_key();
                let left = pods.keys().filter(|key| key.contains("/reference-")).count();
                members.all.len().saturating_sub(left)
            })
            .await?;
        Ok(took)
    }

    /// Members whose canary weight satisfies `wanted`.
    fn weights(&self, wanted: impl Fn(Option<i64>) -> bool) -> usize {
        let routes = self.routes.by_key();
        self.members.count(|member| {
            routes.get(&member.key()).is_some_and(|route| {
                let canary = &route.data["spec"]["rules"][0]["backendRefs"][1];
                wanted(canary["weight"].as_i64())
            })
        })
    }
}

/// Instant queries that Prometheus has answered, and the seconds that they took.
async fn queries() -> Result<(f64, f64)> {
    let text = http::get(&format!("{}/metrics", ADDRESSES.prometheus)).await?;
    let text = String::from_utf8_lossy(&text).into_owned();
    let value = |name: &str| {
        let series = format!("prometheus_http_request_duration_seconds_{name}{{handler=\"/api/v1/query\"}} ");
        text.lines().find_map(|line| line.strip_prefix(&series)).and_then(|value| value.parse::<f64>().ok())
    };
    Ok((value("count").unwrap_or(0.0), value("sum").unwrap_or(0.0)))
}
