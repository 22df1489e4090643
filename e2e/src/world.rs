//! Sluice installed by its chart, and applications behind routes under load: what every scenario stands on.

use std::collections::BTreeSet;
use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use sluice_core::api::{
    LABEL_HASH, Phase, ProgressiveRollout, ProgressiveRolloutStatus, Provenance, RunRecord,
};

use crate::cluster::{Cluster, leftovers, until};
use crate::load::{Load, Target};
use crate::record::Recording;

/// Namespace of the installation.
pub const SLUICE: &str = "sluice-system";
/// How often objects are looked at.
const LOOK: Duration = Duration::from_millis(200);
/// How long an application, or the installation, may take to be up.
const UP: Duration = Duration::from_secs(90);

/// Folder of the project.
pub fn project() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// A cluster with Sluice installed.
#[derive(Clone)]
pub struct World<'a> {
    /// The cluster.
    pub cluster: &'a Cluster,
    /// How often the runs of its applications are recorded, in seconds; none: not at all.
    records: Option<u32>,
}

impl<'a> World<'a> {
    /// The same; what runs from now on leaves a trace, with a record every so many seconds, if that is wanted.
    #[must_use]
    pub fn recording(self, records: Option<u32>) -> Self {
        Self { records, ..self }
    }

    /// Installs the chart with Helm and waits until a controller leads. `extra` are further arguments of Helm.
    pub async fn install(cluster: &'a Cluster, extra: &[&str]) -> Result<Self> {
        let world = Self { cluster, records: None };
        cluster.apply(GATEWAY).await?;
        world.helm_install(extra).await?;
        world.wait_leading().await?;
        Ok(world)
    }

    /// `helm upgrade --install` with the settings of the demo.
    pub async fn helm_install(&self, extra: &[&str]) -> Result<()> {
        let chart = project().join("charts/sluice").display().to_string();
        let values = project().join("e2e/demo/values.yaml").display().to_string();
        let mut args = vec!["upgrade", "--install", "sluice", &chart, "-n", SLUICE, "-f", &values];
        args.extend(extra);
        if self.cluster.is_local() {
            args.push("--create-namespace");
        } else {
            // Made by the run, to be known as its own when it is taken away.
            self.cluster.make_namespace(SLUICE).await?;
        }
        self.cluster.helm_run(&args).await.map(drop).context("helm upgrade --install")
    }

    /// Waits until every replica is ready and one leads.
    pub async fn wait_leading(&self) -> Result<()> {
        let deployments: Api<Deployment> = Api::namespaced(self.cluster.client.clone(), SLUICE);
        until("the controller is ready", UP, LOOK, || async {
            let found = deployments.get("sluice").await?;
            let wanted = found.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1);
            let ready = found.status.and_then(|s| s.ready_replicas).unwrap_or(0);
            ensure!(wanted > 0 && ready >= wanted, "{ready} of {wanted} replicas ready");
            self.leader().await.map(drop)
        })
        .await
    }

    /// Name of the process that leads.
    pub async fn leader(&self) -> Result<String> {
        let leases: Api<k8s_openapi::api::coordination::v1::Lease> =
            Api::namespaced(self.cluster.client.clone(), SLUICE);
        let lease = leases.get("sluice").await.context("Lease sluice")?;
        let holder = lease.spec.and_then(|spec| spec.holder_identity).filter(|holder| !holder.is_empty());
        holder.context("nobody leads")
    }

    /// Scales the controller; 0 stops it.
    pub async fn scale_controller(&self, replicas: i32) -> Result<()> {
        let api: Api<Deployment> = Api::namespaced(self.cluster.client.clone(), SLUICE);
        let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
        api.patch_scale("sluice", &PatchParams::default(), &patch).await?;
        if replicas == 0 {
            let pods: Api<Pod> = Api::namespaced(self.cluster.client.clone(), SLUICE);
            until("the controller is stopped", UP, LOOK, || async {
                let left = pods.list(&ListParams::default()).await?.items.len();
                ensure!(left == 0, "{left} pods left");
                Ok(())
            })
            .await
        } else {
            self.wait_leading().await
        }
    }

    /// An application with its Service, route and rollout, enrolled and under load.
    pub async fn app(&self, spec: AppSpec) -> Result<App<'a>> {
        let app = self.bare_app(spec).await?;
        app.wait_phase(Phase::Idle, UP).await?;
        Ok(app)
    }

    /// The same, without waiting for the enrolment.
    pub async fn bare_app(&self, spec: AppSpec) -> Result<App<'a>> {
        let load = Load::start(Target::gateway(&spec.host(), spec.rps));
        let mut app = App { cluster: self.cluster, load, spec, recording: None };
        self.cluster.apply(&app.spec.manifests()).await?;
        if let Some(seconds) = self.records {
            app.recording = Recording::begin(self.cluster, &app.spec, seconds)?;
        }
        let deployments: Api<Deployment> = Api::namespaced(self.cluster.client.clone(), &app.spec.namespace);
        let wanted = app.spec.replicas;
        until("the application is available", UP, LOOK, || async {
            let status = deployments.get(&app.spec.name).await?.status;
            let ready = status.and_then(|s| s.available_replicas).unwrap_or(0);
            ensure!(ready >= wanted, "{ready} of {wanted} pods");
            Ok(())
        })
        .await?;
        Ok(app)
    }
}

/// Name of the objects of an application that has its namespace for itself; of every application's container and images.
pub const NAME: &str = "shop";

const GATEWAY: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: web, namespace: default}
spec:
  gatewayClassName: traefik
  listeners: [{name: web, protocol: HTTP, port: 8000, allowedRoutes: {namespaces: {from: All}}}]
";

/// What an application is made of.
#[derive(Clone, Debug)]
pub struct AppSpec {
    /// Its namespace, also part of its host name.
    pub namespace: String,
    /// Name of its objects: [`NAME`], but for applications that share a namespace.
    pub name: String,
    /// Pods of the Deployment.
    pub replicas: i32,
    /// Requests per second of its clients.
    pub rps: u32,
    /// Failures that are normal for it, in permille; part of the image tag.
    pub baseline_permille: u32,
    /// Further fields of the rollout's spec.
    pub rollout: Value,
    /// Further fields of the Deployment's spec.
    pub deployment: Value,
}

impl AppSpec {
    /// Four pods, 100 requests per second, 0.2 % failures, the default guards.
    pub fn new(namespace: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            name: NAME.to_owned(),
            replicas: 4,
            rps: 100,
            baseline_permille: 2,
            rollout: json!({}),
            deployment: json!({}),
        }
    }

    /// The image of a version with the baseline's failures.
    pub fn image(&self, version: &str) -> String {
        format!("{NAME}:{version}-errors{}", self.baseline_permille)
    }

    fn host(&self) -> String {
        if self.name == NAME {
            return format!("{}.local", self.namespace);
        }
        format!("{}.{}.local", self.name, self.namespace)
    }

    fn manifests(&self) -> String {
        let mut documents = vec![leftovers::namespace(&self.namespace)];
        documents.push(self.deployment_manifest(&self.image("1")));
        documents.push(json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": self.name, "namespace": self.namespace},
            "spec": {"selector": {"app": self.name}, "ports": [{"port": 80, "targetPort": 8080}]},
        }));
        documents.push(self.route_manifest(100, 0));
        documents.push(self.rollout_manifest());
        documents.iter().map(|document| format!("---\n{document}\n")).collect()
    }

    /// The Deployment as git has it.
    pub fn deployment_manifest(&self, image: &str) -> Value {
        let mut object = json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": self.name, "namespace": self.namespace},
            "spec": {
                "replicas": self.replicas,
                "selector": {"matchLabels": {"app": self.name}},
                "template": {
                    "metadata": {"labels": {"app": self.name}},
                    "spec": {
                        "nodeSelector": {"type": "kwok"},
                        "tolerations": [{"key": "kwok.x-k8s.io/node", "operator": "Exists"}],
                        "containers": [{"name": NAME, "image": image, "ports": [{"containerPort": 8080}]}],
                    },
                },
            },
        });
        merge(&mut object["spec"], &self.deployment);
        object
    }

    /// The route as git has it.
    pub fn route_manifest(&self, stable: i32, canary: i32) -> Value {
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
            "metadata": {"name": self.name, "namespace": self.namespace},
            "spec": {
                "parentRefs": [{"name": "web", "namespace": "default"}],
                "hostnames": [self.host()],
                "rules": [{"backendRefs": [
                    {"name": format!("{}-stable", self.name), "port": 80, "weight": stable},
                    {"name": format!("{}-canary", self.name), "port": 80, "weight": canary},
                ]}],
            },
        })
    }

    /// The rollout as git has it.
    pub fn rollout_manifest(&self) -> Value {
        let mut object = json!({
            "apiVersion": "sluice.dev/v1alpha1", "kind": "ProgressiveRollout",
            "metadata": {"name": self.name, "namespace": self.namespace},
            "spec": {
                "workloadRef": {"name": self.name},
                "routing": {"service": self.name, "routes": [{"name": self.name}], "apexCallers": "None"},
            },
        });
        merge(&mut object["spec"], &self.rollout);
        object
    }
}

/// Puts the fields of `over` into `base`, at every depth.
pub fn merge(base: &mut Value, over: &Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                merge(base.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (base, over) => *base = over.clone(),
    }
}

/// A running application.
pub struct App<'a> {
    /// The cluster it runs on.
    pub cluster: &'a Cluster,
    /// What it is made of.
    pub spec: AppSpec,
    /// Its clients.
    pub load: Load,
    /// Traces of its runs, while it is there.
    pub recording: Option<Recording>,
}

impl App<'_> {
    fn rollouts(&self) -> Api<ProgressiveRollout> {
        Api::namespaced(self.cluster.client.clone(), &self.spec.namespace)
    }

    /// The rollout's status now.
    pub async fn status(&self) -> Result<ProgressiveRolloutStatus> {
        Ok(self.rollouts().get(&self.spec.name).await?.status.unwrap_or_default())
    }

    /// The rollout now.
    pub async fn rollout(&self) -> Result<ProgressiveRollout> {
        Ok(self.rollouts().get(&self.spec.name).await?)
    }

    /// The Deployment now.
    pub async fn deployment(&self) -> Result<Deployment> {
        let api: Api<Deployment> = Api::namespaced(self.cluster.client.clone(), &self.spec.namespace);
        Ok(api.get(&self.spec.name).await?)
    }

    /// Declares a change and ships its image, as a pipeline does.
    pub async fn ship(&self, image: &str, provenance: Provenance) -> Result<()> {
        self.declare(image, provenance).await?;
        self.set_image(image).await
    }

    /// Declares a change.
    pub async fn declare(&self, image: &str, provenance: Provenance) -> Result<()> {
        self.patch_rollout(
            json!({"spec": {"change": {"provenance": provenance.as_str(), "images": [image]}}}),
        )
        .await
    }

    /// Merges into the rollout object.
    pub async fn patch_rollout(&self, patch: Value) -> Result<()> {
        self.rollouts().patch(&self.spec.name, &PatchParams::default(), &Patch::Merge(patch)).await?;
        Ok(())
    }

    /// `kubectl set image`.
    pub async fn set_image(&self, image: &str) -> Result<()> {
        let deployment = format!("deployment/{}", self.spec.name);
        self.kubectl(&["set", "image", &deployment, &format!("{NAME}={image}")]).await.map(drop)
    }

    /// Applies the Deployment's manifest with this image, as a GitOps tool does: server-side, taking conflicts.
    pub async fn apply_manifest(&self, image: &str) -> Result<()> {
        self.apply_object(&self.spec.deployment_manifest(image)).await
    }

    /// Applies any manifest in that way.
    pub async fn apply_object(&self, object: &Value) -> Result<()> {
        let file = self.cluster.paths.run_dir.join(format!("{}-manifest.json", self.spec.namespace));
        std::fs::write(&file, object.to_string()).with_context(|| file.display().to_string())?;
        let path = file.display().to_string();
        self.kubectl(&["apply", "--server-side", "--force-conflicts", "--field-manager=git", "-f", &path])
            .await
            .map(drop)
    }

    /// Runs kubectl in the application's namespace.
    pub async fn kubectl(&self, args: &[&str]) -> Result<String> {
        let mut all = vec!["-n", self.spec.namespace.as_str()];
        all.extend(args);
        self.cluster.kubectl_run(&all).await
    }

    /// Asks for a verb on the run under way, or the one that ended last.
    pub async fn request(&self, verb: &str) -> Result<()> {
        let status = self.status().await?;
        let id = match &status.run {
            Some(run) => run.id.clone(),
            None => status.history.first().context("no run")?.id.clone(),
        };
        self.patch_rollout(
            json!({"metadata": {"annotations": {"sluice.dev/request": format!("{verb}/{id}")}}}),
        )
        .await
    }

    /// Waits until the status satisfies `wanted`; the description says what for.
    pub async fn wait(
        &self,
        what: &str,
        limit: Duration,
        wanted: impl Fn(&ProgressiveRolloutStatus) -> bool,
    ) -> Result<ProgressiveRolloutStatus> {
        let what = format!("{}: {what}", self.spec.namespace);
        let found = std::sync::Mutex::new(None);
        until(&what, limit, LOOK, || async {
            let status = self.status().await?;
            if wanted(&status) {
                *found.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(status);
                return Ok(());
            }
            let waiting = status.waiting.map(|w| format!("{}: {}", w.reason, w.message)).unwrap_or_default();
            bail!("{} {} {} {waiting}", status.phase.as_str(), status.summary.step, status.summary.weight)
        })
        .await?;
        found.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner).context("status")
    }

    /// Waits for a phase.
    pub async fn wait_phase(&self, phase: Phase, limit: Duration) -> Result<ProgressiveRolloutStatus> {
        self.wait(&format!("phase {}", phase.as_str()), limit, |status| {
            status.phase == phase && (phase != Phase::Idle || status.waiting.is_none())
        })
        .await
    }

    /// Waits until at least this weight is live.
    pub async fn wait_weight(&self, percent: i32, limit: Duration) -> Result<ProgressiveRolloutStatus> {
        self.wait(&format!("weight {percent} %"), limit, |status| {
            let weight = status.run.as_ref().and_then(|run| run.weight);
            weight.is_some_and(|weight| weight.percent >= percent && weight.settled_at.is_some())
        })
        .await
    }

    /// Waits until the run after `runs` earlier ones has ended, and gives its record.
    pub async fn wait_end(&self, runs: i64, limit: Duration) -> Result<RunRecord> {
        let status = self
            .wait("the end of the run", limit, |status| status.run_count > runs && status.run.is_none())
            .await?;
        status.history.first().cloned().context("no run is recorded")
    }

    /// UIDs of the pods of one revision.
    pub async fn pods_of(&self, hash: &str) -> Result<BTreeSet<String>> {
        let api: Api<Pod> = Api::namespaced(self.cluster.client.clone(), &self.spec.namespace);
        let pods = api.list(&ListParams::default().labels(&format!("{LABEL_HASH}={hash}"))).await?;
        let alive = pods.items.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
        Ok(alive.filter_map(|pod| pod.metadata.uid).collect())
    }

    /// All ReplicaSets of the namespace.
    pub async fn replica_sets(&self) -> Result<Vec<ReplicaSet>> {
        let api: Api<ReplicaSet> = Api::namespaced(self.cluster.client.clone(), &self.spec.namespace);
        Ok(api.list(&ListParams::default()).await?.items)
    }

    /// Weights of the pair on the route, stable first.
    pub async fn weights(&self) -> Result<(i64, i64)> {
        let text = self.kubectl(&["get", "httproute", &self.spec.name, "-o", "json"]).await?;
        let route: Value = serde_json::from_str(&text)?;
        let refs = &route["spec"]["rules"][0]["backendRefs"];
        Ok((refs[0]["weight"].as_i64().unwrap_or(1), refs[1]["weight"].as_i64().unwrap_or(1)))
    }
}

/// Runs `work`, and says which application it was when it fails.
pub async fn named<T>(name: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
    work.await.with_context(|| format!("scenario {name}"))
}
