//! Applications in number: each a Deployment, a Service, a route and a rollout of its own, spread over ten namespaces, and
//! followed by watches.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use kube::Api;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::runtime::reflector::Store;
use kube::runtime::{WatchStreamExt, reflector, watcher};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::say;
use crate::cluster::Cluster;
use crate::world::merge;

/// Namespaces that the applications are spread over.
pub const NAMESPACES: usize = 10;
/// The image that they begin with, and the one that follows.
pub const OLD: &str = "shop:1";
pub const NEW: &str = "shop:2";
/// Writes of this program under way at the same time.
const WRITERS: usize = 50;
/// How often the stores are looked at.
const LOOK: Duration = Duration::from_millis(20);

/// What the applications of a benchmark have in common.
pub struct Kind {
    /// Pods of each Deployment.
    pub replicas: i32,
    /// Further fields of the rollout's spec.
    pub rollout: Value,
}

/// One application.
#[derive(Clone, Debug)]
pub struct Member {
    pub namespace: String,
    pub name: String,
}

impl Member {
    fn all(n: usize) -> Vec<Self> {
        let member = |i: usize| Self { namespace: namespace(i % NAMESPACES), name: format!("app-{i:03}") };
        (0..n).map(member).collect()
    }

    /// Namespace and name, as [`Followed::by_key`] has them.
    pub fn key(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    fn manifests(&self, kind: &Kind) -> String {
        let Self { namespace, name } = self;
        let meta = json!({"name": name, "namespace": namespace});
        let mut rollout = json!({
            "apiVersion": "sluice.dev/v1alpha1", "kind": "ProgressiveRollout", "metadata": meta,
            "spec": {
                "workloadRef": {"name": name},
                "routing": {"service": name, "routes": [{"name": name}], "apexCallers": "None"},
            },
        });
        merge(&mut rollout["spec"], &kind.rollout);
        let documents = [
            json!({
                "apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta,
                "spec": {
                    "replicas": kind.replicas, "selector": {"matchLabels": {"app": name}}, "template": template(name, OLD),
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
            rollout,
        ];
        documents.iter().map(|document| format!("---\n{document}\n")).collect()
    }
}

/// Name of a namespace of theirs.
pub fn namespace(number: usize) -> String {
    format!("fleet-{number}")
}

/// A template of one container on a fake node.
pub fn template(app: &str, image: &str) -> Value {
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
pub struct Followed {
    resource: ApiResource,
    store: Store<DynamicObject>,
    listener: Arc<OnceLock<Listener>>,
    task: JoinHandle<()>,
}

/// Who is told of each object as its watch delivers it.
type Listener = Box<dyn Fn(&DynamicObject) + Send + Sync>;

impl Drop for Followed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Followed {
    /// Lists the objects of all namespaces, and goes on from there.
    pub async fn start(
        cluster: &Cluster,
        group: &str,
        version: &str,
        kind: &str,
        plural: &str,
    ) -> Result<Self> {
        let resource =
            ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural);
        let api: Api<DynamicObject> = Api::all_with(cluster.client.clone(), &resource);
        let writer = reflector::store::Writer::new(resource.clone());
        let store = writer.as_reader();
        let stream = watcher(api, watcher::Config::default()).default_backoff().reflect(writer);
        let listener: Arc<OnceLock<Listener>> = Arc::default();
        let told = listener.clone();
        let task = tokio::spawn(stream.applied_objects().for_each(move |object| {
            if let (Ok(object), Some(tell)) = (object, told.get()) {
                tell(&object);
            }
            std::future::ready(())
        }));
        store.wait_until_ready().await.with_context(|| kind.to_owned())?;
        Ok(Self { resource, store, listener, task })
    }

    /// Tells of each object from now on. One listener at most.
    pub fn listen(&self, listener: impl Fn(&DynamicObject) + Send + Sync + 'static) -> Result<()> {
        ensure!(self.listener.set(Box::new(listener)).is_ok(), "somebody listens already");
        Ok(())
    }

    /// The kind in a member's namespace.
    pub fn api(&self, cluster: &Cluster, member: &Member) -> Api<DynamicObject> {
        Api::namespaced_with(cluster.client.clone(), &member.namespace, &self.resource)
    }

    /// The objects by namespace and name.
    pub fn by_key(&self) -> BTreeMap<String, Arc<DynamicObject>> {
        self.store.state().into_iter().map(|object| (key(&object), object)).collect()
    }
}

/// Namespace and name of an object.
pub fn key(object: &DynamicObject) -> String {
    let meta = &object.metadata;
    format!("{}/{}", meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
}

/// All of them.
pub struct Members<'a> {
    pub cluster: &'a Cluster,
    pub all: Vec<Member>,
    pub rollouts: Followed,
    pub deployments: Followed,
}

impl<'a> Members<'a> {
    /// Makes `n` of a kind and waits until every one is enrolled and at rest.
    pub async fn enrol(cluster: &'a Cluster, n: usize, kind: &Kind, limit: Duration) -> Result<Self> {
        let members = Self {
            cluster,
            all: Member::all(n),
            rollouts: Followed::start(
                cluster,
                "sluice.dev",
                "v1alpha1",
                "ProgressiveRollout",
                "progressiverollouts",
            )
            .await?,
            deployments: Followed::start(cluster, "apps", "v1", "Deployment", "deployments").await?,
        };
        let begin = Instant::now();
        for i in 0..n.min(NAMESPACES) {
            cluster.make_namespace(&namespace(i)).await?;
        }
        members.each(|member| async move { cluster.apply(&member.manifests(kind)).await }).await?;
        say(begin, "all objects are made");
        members
            .until("every rollout is enrolled and at rest", limit, || {
                members.statuses(|status| status["phase"] == "Idle" && status["waiting"].is_null())
            })
            .await?;
        say(begin, "all rollouts are enrolled");
        members.acquaint().await?;
        Ok(members)
    }

    /// One write to an enrolled Deployment, as anybody makes them: the first that the mutating policy sees makes the API
    /// server read the schema of its group, once in its life. Without this it does so in as many writes as come at once.
    async fn acquaint(&self) -> Result<()> {
        let Some(member) = self.all.first() else { return Ok(()) };
        let note = json!({"metadata": {"annotations": {"example.com/owner": "shop"}}});
        self.merge(&self.deployments, member, &note).await
    }

    /// Declares the new image as a person's.
    pub async fn declare(&self) -> Result<()> {
        let change = json!({"spec": {"change": {"provenance": "Human", "images": [NEW]}}});
        self.each(|member| self.merge(&self.rollouts, member, &change)).await
    }

    /// Puts the new image into every template.
    pub async fn ship(&self) -> Result<()> {
        let patch = json!({"spec": {"template": {"spec": {"containers": [{"name": "shop", "image": NEW}]}}}});
        self.each(|member| {
            let patch = &patch;
            async move {
                let api = self.deployments.api(self.cluster, member);
                api.patch(&member.name, &PatchParams::default(), &Patch::Strategic(patch)).await?;
                Ok(())
            }
        })
        .await
    }

    /// Members that satisfy `wanted`.
    pub fn count(&self, wanted: impl Fn(&Member) -> bool) -> usize {
        self.all.iter().filter(|member| wanted(member)).count()
    }

    /// Members whose rollout's status satisfies `wanted`.
    pub fn statuses(&self, wanted: impl Fn(&Value) -> bool) -> usize {
        let rollouts = self.rollouts.by_key();
        self.count(|member| {
            rollouts.get(&member.key()).is_some_and(|rollout| wanted(&rollout.data["status"]))
        })
    }

    /// Waits until `count` gives the number of members.
    pub async fn until(&self, what: &str, limit: Duration, count: impl Fn() -> usize) -> Result<()> {
        let begin = Instant::now();
        loop {
            let done = count();
            if done >= self.all.len() {
                return Ok(());
            }
            ensure!(
                begin.elapsed() < limit,
                "waited {} s in vain until {what}: {done} of {}",
                limit.as_secs(),
                self.all.len()
            );
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Does something for each member, many at the same time.
    pub async fn each<'s, F>(&'s self, work: impl Fn(&'s Member) -> F) -> Result<()>
    where
        F: Future<Output = Result<()>>,
    {
        stream::iter(&self.all).map(|m| Ok(work(m))).try_buffer_unordered(WRITERS).try_collect().await
    }

    /// Merges into a member's object of a kind.
    pub async fn merge(&self, kind: &Followed, member: &Member, patch: &Value) -> Result<()> {
        let api = kind.api(self.cluster, member);
        api.patch(&member.name, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop)?;
        Ok(())
    }
}
