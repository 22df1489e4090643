//! Many rollouts at once: how long until every canary is available, until every one of them is aborted, and what
//! that costs, next to as many plain ReplicaSets of one pod in the same run; and what it costs to watch them all in a step.
//!
//! The applications are spread over ten namespaces, each with a Deployment of two pods, a Service, a route and a
//! rollout of its own. They have no clients: what is measured ends at the first step, which needs no evidence. Scrape
//! and evaluation interval are the 15 s of an installation, not the second of the demo.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use kube::Api;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube::runtime::reflector::Store;
use kube::runtime::{WatchStreamExt, reflector, watcher};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::cluster::process::{Usage, usage};
use crate::cluster::{ADDRESSES, Cluster};
use crate::http;
use crate::world::{SLUICE, World};

/// Namespaces that the applications are spread over.
const NAMESPACES: usize = 10;
/// Pods of each Deployment.
const REPLICAS: i32 = 2;
/// Writes of this program under way at the same time.
const WRITERS: usize = 50;
/// Scrape and evaluation interval.
pub const INTERVAL: Duration = Duration::from_secs(15);
/// How often the stores are looked at.
const LOOK: Duration = Duration::from_millis(20);
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
const OLD: &str = "shop:1";
const NEW: &str = "shop:2";
/// The controller's account in the audit log.
const ACCOUNT: &str = "system:serviceaccount:sluice-system:sluice";

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

/// One application.
#[derive(Clone, Debug)]
struct Member {
    namespace: String,
    name: String,
}

impl Member {
    fn all(n: usize) -> Vec<Self> {
        let member =
            |i: usize| Self { namespace: format!("fleet-{}", i % NAMESPACES), name: format!("app-{i:03}") };
        (0..n).map(member).collect()
    }

    fn key(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    fn manifests(&self) -> String {
        let Self { namespace, name } = self;
        let meta = json!({"name": name, "namespace": namespace});
        let documents = [
            json!({
                "apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta,
                "spec": {
                    "replicas": REPLICAS, "selector": {"matchLabels": {"app": name}}, "template": template(name, OLD),
                },
            }),
            json!({
                "apiVersion": "v1", "kind": "Service", "metadata": meta,
                "spec": {"selector": {"app": name}, "ports": [{"port": 80, "targetPort": 8080}]},
            }),
            json!({
                "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": meta,
                "spec": {
                    "parentRefs": [{"name": "web", "namespace": "default"}],
                    "hostnames": [format!("{name}.local")],
                    "rules": [{"backendRefs": [
                        {"name": format!("{name}-stable"), "port": 80, "weight": 100},
                        {"name": format!("{name}-canary"), "port": 80, "weight": 0},
                    ]}],
                },
            }),
            json!({
                "apiVersion": "sluice.dev/v1alpha1", "kind": "ProgressiveRollout", "metadata": meta,
                "spec": {
                    "workloadRef": {"name": name},
                    "routing": {"service": name, "routes": [{"name": name}], "apexCallers": "None"},
                    // Nobody calls these applications: the first step lasts as long as the measurement.
                    "limits": {"minBakeSeconds": 3600},
                },
            }),
        ];
        documents.iter().map(|document| format!("---\n{document}\n")).collect()
    }

    /// One pod, as a canary of the first step has.
    fn reference(&self) -> Value {
        let name = format!("reference-{}", self.name);
        json!({
            "apiVersion": "apps/v1", "kind": "ReplicaSet",
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": {"replicas": 1, "selector": {"matchLabels": {"app": name}}, "template": template(&name, OLD)},
        })
    }
}

fn template(app: &str, image: &str) -> Value {
    json!({
        "metadata": {"labels": {"app": app}},
        "spec": {
            "nodeSelector": {"type": "kwok"},
            "tolerations": [{"key": "kwok.x-k8s.io/node", "operator": "Exists"}],
            "containers": [{"name": "shop", "image": image, "ports": [{"containerPort": 8080}]}],
        },
    })
}

/// A kind, followed by a watch, so that looking costs the API server nothing.
struct Followed {
    resource: ApiResource,
    store: Store<DynamicObject>,
    task: JoinHandle<()>,
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Followed {
    async fn start(cluster: &Cluster, group: &str, version: &str, kind: &str, plural: &str) -> Result<Self> {
        let resource =
            ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural);
        let api: Api<DynamicObject> = Api::all_with(cluster.client.clone(), &resource);
        let writer = reflector::store::Writer::new(resource.clone());
        let store = writer.as_reader();
        let stream = watcher(api, watcher::Config::default()).default_backoff().reflect(writer);
        let task = tokio::spawn(stream.for_each(|_| std::future::ready(())));
        store.wait_until_ready().await.with_context(|| kind.to_owned())?;
        Ok(Self { resource, store, task })
    }

    fn api(&self, cluster: &Cluster, member: &Member) -> Api<DynamicObject> {
        Api::namespaced_with(cluster.client.clone(), &member.namespace, &self.resource)
    }

    /// The objects by namespace and name.
    fn by_key(&self) -> BTreeMap<String, std::sync::Arc<DynamicObject>> {
        let key = |object: &DynamicObject| {
            let meta = &object.metadata;
            format!(
                "{}/{}",
                meta.namespace.as_deref().unwrap_or_default(),
                meta.name.as_deref().unwrap_or_default()
            )
        };
        self.store.state().into_iter().map(|object| (key(&object), object)).collect()
    }
}

struct Fleet<'a> {
    cluster: &'a Cluster,
    members: Vec<Member>,
    rollouts: Followed,
    deployments: Followed,
    replica_sets: Followed,
    routes: Followed,
    pods: Followed,
}

/// Runs it with `n` rollouts and writes the report.
pub async fn run(cluster: &Cluster, n: usize, unthrottled: bool) -> Result<()> {
    ensure!(n > 0, "--rollouts must be at least 1");
    let evaluation = format!("evaluationIntervalSeconds={}", INTERVAL.as_secs());
    let world = World::install(cluster, &["--set", &evaluation, "--set", "logLevel=info"]).await?;
    let fleet = Fleet {
        cluster,
        members: Member::all(n),
        rollouts: Followed::start(
            cluster,
            "sluice.dev",
            "v1alpha1",
            "ProgressiveRollout",
            "progressiverollouts",
        )
        .await?,
        deployments: Followed::start(cluster, "apps", "v1", "Deployment", "deployments").await?,
        replica_sets: Followed::start(cluster, "apps", "v1", "ReplicaSet", "replicasets").await?,
        routes: Followed::start(cluster, "gateway.networking.k8s.io", "v1", "HTTPRoute", "httproutes")
            .await?,
        pods: Followed::start(cluster, "", "v1", "Pod", "pods").await?,
    };
    println!(
        "{n} rollouts in {} namespaces, one route and {REPLICAS} pods each; all pods on fake nodes",
        n.min(NAMESPACES)
    );
    fleet.enrol().await?;
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
    async fn enrol(&self) -> Result<()> {
        let begin = Instant::now();
        let used = self.members.len().min(NAMESPACES);
        for i in 0..used {
            self.cluster.make_namespace(&format!("fleet-{i}")).await?;
        }
        self.each(|member| async move { self.cluster.apply(&member.manifests()).await }).await?;
        self.until("every rollout is enrolled and at rest", LIMIT, |fleet| {
            let rollouts = fleet.rollouts.by_key();
            fleet.count(|member| {
                rollouts.get(&member.key()).is_some_and(|rollout| {
                    let status = &rollout.data["status"];
                    status["phase"] == "Idle" && status["waiting"].is_null()
                })
            })
        })
        .await?;
        say(begin, "all rollouts are enrolled");
        self.acquaint().await
    }

    /// One write to an enrolled Deployment, as anybody makes them: the first that the mutating policy sees makes the API
    /// server read the schema of its group, once in its life. Without this it does so in as many writes as come at once.
    async fn acquaint(&self) -> Result<()> {
        let Some(member) = self.members.first() else { return Ok(()) };
        let note = json!({"metadata": {"annotations": {"example.com/owner": "shop"}}});
        self.merge(&self.deployments, member, &note).await
    }

    async fn measure(&self, world: &World<'_>, unthrottled: bool) -> Result<Report> {
        let n = self.members.len();
        let leader = world.leader().await?;
        let reference_seconds = self.reference(&leader).await?;
        // The garbage of the reference is out of the way before anything else is measured.
        tokio::time::sleep(Duration::from_secs(5)).await;
        let idle = self.usage(&leader)?;
        tokio::time::sleep(IDLE).await;
        let before = self.usage(&leader)?;
        let idle_cpu = before.cpu_seconds - idle.cpu_seconds;
        say_seconds("CPU time of the idle controller in 30 s", idle_cpu);

        self.each(|member| async move {
            let change = json!({"spec": {"change": {"provenance": "Human", "images": [NEW]}}});
            self.merge(&self.rollouts, member, &change).await
        })
        .await?;
        tokio::time::sleep(Duration::from_secs(2)).await;
        let mut audit = Audit::from_here(self.cluster)?;
        let spent = self.spent(&leader)?;
        let asked = self.asked().await?;
        let begin = Instant::now();
        let patch = json!({"spec": {"template": {"spec": {"containers": [{"name": "shop", "image": NEW}]}}}});
        self.each(|member| {
            let patch = &patch;
            async move {
                let api = self.deployments.api(self.cluster, member);
                api.patch(&member.name, &PatchParams::default(), &Patch::Strategic(patch)).await?;
                Ok(())
            }
        })
        .await?;
        say(begin, "all templates are patched");
        self.until("every canary pod of the first step is available", LIMIT, |fleet| {
            let (rollouts, sets) = (fleet.rollouts.by_key(), fleet.replica_sets.by_key());
            fleet.count(|member| {
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
        self.tell_spent(&spent, &leader)?;
        self.tell_asked(&asked).await?;
        let mut most = self.usage(&leader)?.resident_bytes;
        self.until("every route has the weight of the first step", LIMIT, |fleet| {
            fleet.weights(|weight| weight.is_some_and(|weight| weight > 0))
        })
        .await?;
        say(begin, "all weights of the first step are set");
        let (active_core, queries_per_second, query_milliseconds) = self.active(&leader).await?;

        let begin = Instant::now();
        let rollouts = self.rollouts.by_key();
        self.each(|member| {
            let run = rollouts
                .get(&member.key())
                .map(|rollout| rollout.data["status"]["run"]["id"].clone())
                .unwrap_or_default();
            let id = run.as_str().unwrap_or_default();
            let patch = json!({"metadata": {"annotations": {"sluice.dev/request": format!("abort/{id}")}}});
            async move { self.merge(&self.rollouts, member, &patch).await }
        })
        .await?;
        say(begin, "all aborts are requested");
        let zero = |fleet: &Self| fleet.weights(|weight| weight == Some(0));
        let all_zero = self.until("every weight is 0", ABORT_LIMIT, zero).await;
        let abort_seconds = begin.elapsed().as_secs_f64();
        let lost_aborts = n - zero(self);
        if let Err(error) = all_zero {
            println!("{error:#}");
        }
        say(begin, "all weights are 0");
        most = most.max(self.usage(&leader)?.resident_bytes);
        self.until("every canary is gone", LIMIT, |fleet| {
            let pods = fleet.pods.by_key();
            let sets = fleet.replica_sets.by_key();
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
        let after = self.usage(&leader)?;
        ensure!(
            world.leader().await? == leader,
            "another controller leads now: its numbers can't be compared"
        );
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
            api_requests: audit.count()?,
            lost_aborts,
        })
    }

    /// What the runs cost while they are in their first step: share of a processor, queries per second, and milliseconds that
    /// Prometheus takes for one.
    async fn active(&self, leader: &str) -> Result<(f64, f64, f64)> {
        // The counters are read for the first time, with the hour before.
        tokio::time::sleep(2 * INTERVAL).await;
        let spent = self.spent(leader)?;
        let (cpu, (asked, seconds)) = (self.usage(leader)?.cpu_seconds, queries().await?);
        let begin = Instant::now();
        tokio::time::sleep(ACTIVE).await;
        let took = begin.elapsed().as_secs_f64();
        let core = (self.usage(leader)?.cpu_seconds - cpu) / took;
        let (more, longer) = queries().await?;
        let (count, millis) = (more - asked, (longer - seconds) * 1000.0 / (more - asked).max(1.0));
        println!(
            "            all runs in their first step: the controller takes {:.1} % of a processor; Prometheus is asked {:.1} \
             times a second, {millis:.1} ms each",
            core * 100.0,
            count / took
        );
        self.tell_spent(&spent, leader)?;
        ensure!(count > 0.0, "Prometheus was asked nothing");
        Ok((core, count / took, millis))
    }

    /// As many ReplicaSets of one pod, without any controller of ours; deleted afterwards.
    async fn reference(&self, leader: &str) -> Result<f64> {
        let spent = self.spent(leader)?;
        let asked = self.asked().await?;
        let begin = Instant::now();
        self.each(|member| async move {
            let object: DynamicObject = serde_json::from_value(member.reference())?;
            self.replica_sets
                .api(self.cluster, member)
                .create(&PostParams::default(), &object)
                .await
                .map(drop)?;
            Ok(())
        })
        .await?;
        let name = |member: &Member| format!("{}/reference-{}", member.namespace, member.name);
        self.until("every pod of the reference is available", LIMIT, |fleet| {
            let sets = fleet.replica_sets.by_key();
            fleet.count(|member| {
                sets.get(&name(member))
                    .is_some_and(|set| set.data["status"]["availableReplicas"].as_i64() == Some(1))
            })
        })
        .await?;
        let took = begin.elapsed().as_secs_f64();
        say_seconds("reference: plain ReplicaSets, all pods available", took);
        self.tell_spent(&spent, leader)?;
        self.tell_asked(&asked).await?;
        self.each(|member| async move {
            let api = self.replica_sets.api(self.cluster, member);
            api.delete(&format!("reference-{}", member.name), &kube::api::DeleteParams::background()).await?;
            Ok(())
        })
        .await?;
        self.until("the reference is gone", LIMIT, |fleet| {
            let pods = fleet.pods.by_key();
            let left = pods.keys().filter(|key| key.contains("/reference-")).count();
            fleet.members.len().saturating_sub(left)
        })
        .await?;
        Ok(took)
    }

    /// Members whose canary weight satisfies `wanted`.
    fn weights(&self, wanted: impl Fn(Option<i64>) -> bool) -> usize {
        let routes = self.routes.by_key();
        self.count(|member| {
            routes.get(&member.key()).is_some_and(|route| {
                let canary = &route.data["spec"]["rules"][0]["backendRefs"][1];
                wanted(canary["weight"].as_i64())
            })
        })
    }

    fn count(&self, wanted: impl Fn(&Member) -> bool) -> usize {
        self.members.iter().filter(|member| wanted(member)).count()
    }

    /// Waits until `count` gives the number of members.
    async fn until(&self, what: &str, limit: Duration, count: impl Fn(&Self) -> usize) -> Result<()> {
        let begin = Instant::now();
        loop {
            let done = count(self);
            if done >= self.members.len() {
                return Ok(());
            }
            ensure!(
                begin.elapsed() < limit,
                "waited {} s in vain until {what}: {done} of {}",
                limit.as_secs(),
                self.members.len()
            );
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Does something for each member, many at the same time.
    async fn each<'s, F>(&'s self, work: impl Fn(&'s Member) -> F) -> Result<()>
    where
        F: Future<Output = Result<()>>,
    {
        stream::iter(&self.members).map(|m| Ok(work(m))).try_buffer_unordered(WRITERS).try_collect().await
    }

    async fn merge(&self, kind: &Followed, member: &Member, patch: &Value) -> Result<()> {
        let api = kind.api(self.cluster, member);
        api.patch(&member.name, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop)?;
        Ok(())
    }

    /// CPU seconds of every part until now: where time goes on a machine with few cores.
    fn spent(&self, leader: &str) -> Result<Vec<(&'static str, f64)>> {
        let parts =
            ["kube-apiserver", "etcd", "kube-controller-manager", "kube-scheduler", "traefik", "prometheus"];
        let mut spent: Vec<(&'static str, f64)> = Vec::new();
        for part in parts {
            spent.push((part, self.cluster.processes.usage(part)?.cpu_seconds));
        }
        spent.push(("controller", self.usage(leader)?.cpu_seconds));
        // The process itself: its fake pods, its discovery and this benchmark.
        spent.push(("fake pods and benchmark", usage(std::process::id())?.cpu_seconds));
        Ok(spent)
    }

    fn tell_spent(&self, before: &[(&'static str, f64)], leader: &str) -> Result<()> {
        let now = self.spent(leader)?;
        let parts = before.iter().zip(&now).map(|((part, from), (_, to))| format!("{part} {:.2}", to - from));
        println!("            CPU seconds: {}", parts.collect::<Vec<_>>().join(", "));
        Ok(())
    }

    /// Requests that the API server has answered to anybody, by verb and resource; watches are left out.
    async fn asked(&self) -> Result<BTreeMap<String, f64>> {
        let request = hyper::Request::get("/metrics").body(Vec::new())?;
        let text = self.cluster.client.request_text(request).await?;
        let mut asked = BTreeMap::new();
        for line in text.lines().filter_map(|line| line.strip_prefix("apiserver_request_total{")) {
            let Some((labels, value)) = line.rsplit_once("} ") else { continue };
            let label = |name: &str| {
                let found = labels.split(',').find_map(|label| label.strip_prefix(name));
                found.unwrap_or_default().trim_matches(|c| c == '=' || c == '"')
            };
            let (verb, resource, sub) = (label("verb="), label("resource="), label("subresource="));
            if verb != "WATCH" && !resource.is_empty() {
                let slash = if sub.is_empty() { "" } else { "/" };
                let name = format!("{} {resource}{slash}{sub}", verb.to_lowercase());
                *asked.entry(name).or_default() += value.parse::<f64>().unwrap_or(0.0);
            }
        }
        Ok(asked)
    }

    /// What a member costs in requests, the most frequent first.
    async fn tell_asked(&self, before: &BTreeMap<String, f64>) -> Result<()> {
        let n = self.members.len() as f64;
        let now = self.asked().await?;
        let each = |(name, count): (&String, &f64)| {
            (name.clone(), (count - before.get(name).copied().unwrap_or(0.0)) / n)
        };
        let mut each: Vec<(String, f64)> = now.iter().map(each).collect();
        each.sort_by(|a, b| b.1.total_cmp(&a.1));
        let all: f64 = each.iter().map(|(_, count)| count).sum();
        let listed = each.iter().filter(|(_, count)| *count >= 0.05);
        let listed: Vec<String> = listed.map(|(name, count)| format!("{count:.1} {name}")).collect();
        println!("            requests per member of everybody: {all:.1}: {}", listed.join(", "));
        Ok(())
    }

    fn usage(&self, leader: &str) -> Result<Usage> {
        let running = self.cluster.kubelet.running(SLUICE);
        // A controller calls itself by its pod's name and uid.
        let pod = leader.split('_').next().unwrap_or_default();
        let found = running.iter().find(|r| r.pod == pod).with_context(|| format!("pod {pod}"))?;
        self.cluster.kubelet.usage(found)
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

/// What the API server wrote down since a moment.
struct Audit {
    path: std::path::PathBuf,
    from: usize,
}

impl Audit {
    fn from_here(cluster: &Cluster) -> Result<Self> {
        let path = cluster.paths.run_dir.join("audit.log");
        let from = std::fs::metadata(&path).with_context(|| path.display().to_string())?.len();
        Ok(Self { path, from: usize::try_from(from)? })
    }

    /// Requests of the controllers by verb.
    fn count(&mut self) -> Result<BTreeMap<String, u64>> {
        let bytes = std::fs::read(&self.path).with_context(|| self.path.display().to_string())?;
        let text = String::from_utf8_lossy(bytes.get(self.from..).unwrap_or_default()).into_owned();
        let mut found = BTreeMap::new();
        for line in text.lines() {
            // The last line may be half written.
            let Ok(entry) = serde_json::from_str::<Value>(line) else { continue };
            if entry["user"]["username"] == ACCOUNT
                && entry["stage"] == "ResponseComplete"
                && let Some(verb) = entry["verb"].as_str()
            {
                *found.entry(verb.to_owned()).or_default() += 1;
            }
        }
        Ok(found)
    }
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
