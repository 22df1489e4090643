//! The cluster: connecting, finding rollouts, and reading what belongs to one.

use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use k8s_openapi::api::core::v1::Event as CoreEvent;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Client, Config};
use serde_json::{Value, json};
use sluice_core::api::{ANNOTATION_REQUEST, ChangeFreeze, ClusterRiskPolicy, ProgressiveRollout, RiskPolicy};
use sluice_core::policy::{Freeze, Freezes, Policy};
use sluice_core::view::{ReplicaSet, Workload};

use crate::args::Global;
use crate::fail::{self, Asked, Failure, ROLLOUTS, root};
use crate::model::{Controller, Event, Seen};

/// How long opening a connection may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// How long one call may take.
const CALL_LIMIT: Duration = Duration::from_secs(30);
/// Silence after which a connection is dead: longer than the longest watch (290 s, and the watcher's 5 s of patience).
const READ_LIMIT: Duration = Duration::from_secs(320);
/// How long the objects beside the rollout may take: they are left out rather than waited for.
const ASIDE_LIMIT: Duration = Duration::from_secs(3);
/// Field manager of our writes.
const MANAGER: &str = "kubectl-sluice";
/// Labels of the controller's Deployment.
const CONTROLLER: &str = "app.kubernetes.io/name=sluice,app.kubernetes.io/component=controller";
/// Where the controller is looked for when not all namespaces may be read.
const USUAL_NAMESPACE: &str = "sluice-system";

/// A connection to one cluster.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    /// The namespace of this call.
    pub namespace: String,
    /// The API server, and the context that chose it.
    pub server: String,
}

impl Cluster {
    /// Connects as the flags say. Asks nothing of the server yet.
    pub async fn connect(global: &Global) -> Result<Self, Failure> {
        let (mut config, context) = config(global).await?;
        config.connect_timeout = Some(CONNECT_LIMIT);
        config.read_timeout = Some(READ_LIMIT);
        if let Some(user) = &global.act_as {
            config.auth_info.impersonate = Some(user.clone());
        }
        if !global.act_as_group.is_empty() {
            config.auth_info.impersonate_groups = Some(global.act_as_group.clone());
        }
        let url = config.cluster_url.to_string();
        let server = format!("{} ({context})", url.trim_end_matches('/'));
        // An empty one is none, as for kubectl: -n "$UNSET" must not ask for all namespaces.
        let named_here = [global.namespace.as_ref(), Some(&config.default_namespace)];
        let namespace = named_here.into_iter().flatten().find(|name| !name.is_empty());
        let namespace = namespace.map_or_else(|| "default".to_owned(), Clone::clone);
        named("the namespace", &namespace)?;
        let client = Client::try_from(config).map_err(|e| {
            Failure::new(format!("the connection to {server} can't be set up: {}", fail::root(&e)))
        })?;
        Ok(Self { client, namespace, server })
    }

    /// A client, for what has its own words for failures.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    fn rollouts(&self) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &self.namespace, &resource())
    }

    fn asked<'a>(&'a self, verb: &'static str, namespace: Option<&'a str>) -> Asked<'a> {
        Asked { verb, resource: ROLLOUTS, namespace, server: &self.server }
    }

    /// The rollouts of the namespace, or of all of them, sorted, as they stand in the API.
    pub async fn list(&self, all: bool, selector: Option<&str>) -> Result<Vec<Value>, Failure> {
        let api = if all { Api::all_with(self.client.clone(), &resource()) } else { self.rollouts() };
        let mut params = ListParams::default();
        if let Some(selector) = selector {
            params = params.labels(selector);
        }
        let namespace = (!all).then_some(self.namespace.as_str());
        let list = limited(api.list(&params)).await.map_err(|e| self.asked("list", namespace).explain(&e))?;
        let mut items: Vec<Value> = list.items.into_iter().map(raw).collect();
        let text =
            |v: &Value, path: &str| v.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
        items.sort_by_key(|v| (text(v, "/metadata/namespace"), text(v, "/metadata/name")));
        Ok(items)
    }

    /// The name that was given, or the only one of the namespace.
    pub async fn resolve(&self, name: Option<&str>) -> Result<String, Failure> {
        if let Some(name) = name {
            return plain_name(name);
        }
        let items = self.list(false, None).await?;
        let names: Vec<String> =
            items.iter().filter_map(|v| Some(v.pointer("/metadata/name")?.as_str()?.to_owned())).collect();
        match names.as_slice() {
            [only] => Ok(only.clone()),
            [] => Err(self.none_here().await),
            many => Err(Failure::usage(format!(
                "namespace {:?} has {} ProgressiveRollouts, name one of them: {}",
                self.namespace,
                many.len(),
                many.join(", ")
            ))),
        }
    }

    async fn none_here(&self) -> Failure {
        let mut elsewhere: Vec<String> = match self.list(true, None).await {
            Ok(items) => items
                .iter()
                .filter_map(|v| Some(v.pointer("/metadata/namespace")?.as_str()?.to_owned()))
                .collect(),
            Err(_) => Vec::new(),
        };
        elsewhere.dedup();
        let namespace = &self.namespace;
        Failure::new(match elsewhere.as_slice() {
            [] => format!(
                "there is no ProgressiveRollout in namespace {namespace:?}. Choose another one with -n."
            ),
            [only] => format!(
                "there is no ProgressiveRollout in namespace {namespace:?}. {only:?} has some: add -n {only}."
            ),
            many => format!(
                "there is no ProgressiveRollout in namespace {namespace:?}. These have some, choose with -n: {}.",
                many.join(", ")
            ),
        })
    }

    /// One rollout.
    pub async fn get(&self, name: &str) -> Result<ProgressiveRollout, Failure> {
        match limited(self.rollouts().get(name)).await {
            Ok(object) => parse(object),
            Err(kube::Error::Api(status)) if status.code == 404 && !fail::is_unknown_resource(&status) => {
                Err(self.not_found(name).await)
            }
            Err(error) => Err(self.asked("get", Some(&self.namespace)).explain(&error)),
        }
    }

    /// Says where a rollout of this name does exist.
    pub async fn not_found(&self, name: &str) -> Failure {
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource());
        let what = format!("ProgressiveRollout {name:?} not found in namespace {:?}.", self.namespace);
        let params = ListParams::default().fields(&format!("metadata.name={name}"));
        let Ok(Ok(found)) = tokio::time::timeout(ASIDE_LIMIT, api.list(&params)).await else {
            return Failure::new(format!(
                "{what} You may not look into all namespaces: choose another one with -n."
            ));
        };
        let namespaces: Vec<String> =
            found.items.into_iter().filter_map(|object| object.metadata.namespace).collect();
        Failure::new(match namespaces.as_slice() {
            [] => format!("{what} kubectl sluice list -A shows all."),
            [only] => format!("{what} It exists in {only:?}: add -n {only}."),
            many => format!("{what} It exists in {}: choose with -n.", many.join(", ")),
        })
    }

    /// The rollout whenever it changes; `None` once it is gone. Ends only with a failure that waiting can't mend.
    pub fn watch(&self, name: &str) -> impl Stream<Item = Watched> + use<> {
        let cluster = self.clone();
        watcher::watch_object(self.rollouts(), name).default_backoff().map(move |item| match item {
            Ok(Some(object)) => {
                parse(object).map_or_else(Watched::Failed, |rollout| Watched::Changed(Box::new(rollout)))
            }
            Ok(None) => Watched::Gone,
            Err(error) => cluster.trouble(error),
        })
    }

    fn trouble(&self, error: watcher::Error) -> Watched {
        let source = match error {
            watcher::Error::InitialListFailed(e)
            | watcher::Error::WatchStartFailed(e)
            | watcher::Error::WatchFailed(e) => e,
            watcher::Error::WatchError(status) => kube::Error::Api(status),
            watcher::Error::NoResourceVersion => return Watched::Lost("the watch lost its place".to_owned()),
        };
        let failure = self.asked("watch", Some(&self.namespace)).explain(&source);
        match source {
            kube::Error::Api(status) if matches!(status.code, 401 | 403 | 404) => Watched::Failed(failure),
            _ => Watched::Lost(failure.text),
        }
    }

    /// Writes a person's request on a rollout, only at this version of it if one is given; false when it changed.
    pub async fn request(&self, name: &str, value: &str, only: Option<&str>) -> Result<bool, Failure> {
        let mut body = json!({ "metadata": { "annotations": { ANNOTATION_REQUEST: value } } });
        if let Some(version) = only {
            body["metadata"]["resourceVersion"] = json!(version);
        }
        let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        match limited(self.rollouts().patch(name, &params, &Patch::Merge(body))).await {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.code == 409 && only.is_some() => Ok(false),
            Err(error) => Err(self.asked("patch", Some(&self.namespace)).explain(&error)),
        }
    }

    /// The rollout with what belongs to it. What may not be read, or takes too long, is left out.
    pub async fn gather(&self, rollout: ProgressiveRollout, events: bool) -> Seen {
        let deployment = rollout.spec.workload_ref.name.clone();
        let name = rollout.metadata.name.clone().unwrap_or_default();
        let aside = async {
            tokio::join!(self.workload(&deployment), self.replica_sets(), async {
                if events { self.events(&name).await } else { Vec::new() }
            })
        };
        let (workload, sets, events) =
            tokio::time::timeout(ASIDE_LIMIT, aside).await.unwrap_or_else(|_| (None, None, Vec::new()));
        let replica_sets = sets.map(|sets| match &workload {
            Some(workload) => sets.into_iter().filter(|set| set.owner_uids.contains(&workload.uid)).collect(),
            None => sets,
        });
        Seen { rollout, workload, replica_sets, controller: None, events }
    }

    async fn workload(&self, name: &str) -> Option<Workload> {
        let found = self.apps("Deployment").get(name).await.ok()?;
        Some(Workload::read(&raw(found)))
    }

    async fn replica_sets(&self) -> Option<Vec<ReplicaSet>> {
        let found = self.apps("ReplicaSet").list(&ListParams::default()).await.ok()?;
        Some(found.items.into_iter().map(|object| ReplicaSet::read(&raw(object))).collect())
    }

    fn apps(&self, kind: &str) -> Api<DynamicObject> {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("apps", "v1", kind));
        Api::namespaced_with(self.client.clone(), &self.namespace, &resource)
    }

    async fn events(&self, name: &str) -> Vec<Event> {
        let api: Api<CoreEvent> = Api::namespaced(self.client.clone(), &self.namespace);
        let fields = format!("involvedObject.kind=ProgressiveRollout,involvedObject.name={name}");
        let Ok(found) = api.list(&ListParams::default().fields(&fields)).await else {
            return Vec::new();
        };
        let mut events: Vec<Event> = found
            .items
            .into_iter()
            .filter_map(|event| {
                let series = event.series.and_then(|series| series.last_observed_time).map(|time| time.0);
                let last = event.last_timestamp.map(|time| time.0);
                let at = series
                    .or(last)
                    .or(event.event_time.map(|time| time.0))
                    .or(event.first_timestamp.map(|time| time.0));
                Some(Event {
                    at: at?,
                    warning: event.type_.as_deref() == Some("Warning"),
                    reason: event.reason.unwrap_or_default(),
                    message: event.message.unwrap_or_default(),
                })
            })
            .collect();
        events.sort_by_key(|event| event.at);
        events
    }

    /// The controllers of this cluster; the error says what may not be read.
    pub async fn controllers(&self) -> Result<Vec<Controller>, Failure> {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("apps", "v1", "Deployment"));
        let params = ListParams::default().labels(CONTROLLER);
        let all: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource);
        let refused = match limited(all.list(&params)).await {
            Ok(found) => return Ok(found.items.into_iter().map(controller).collect()),
            Err(error) => error,
        };
        let usual: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), USUAL_NAMESPACE, &resource);
        match limited(usual.list(&params)).await {
            Ok(found) if !found.items.is_empty() => Ok(found.items.into_iter().map(controller).collect()),
            _ => {
                let asked = Asked {
                    verb: "list",
                    resource: "deployments.apps",
                    namespace: None,
                    server: &self.server,
                };
                Err(asked.explain(&refused))
            }
        }
    }

    /// The controller, for the corner of a screen.
    pub async fn controller(&self) -> Option<Controller> {
        let found = tokio::time::timeout(ASIDE_LIMIT, self.controllers()).await.ok()?.ok()?;
        found.into_iter().next()
    }

    /// The policies in force for the namespace, as the controller resolves them.
    pub async fn policy(&self, config: &sluice_core::config::Config) -> Policy {
        match self.policies(config).await {
            Ok(policy) => policy,
            Err(error) => Policy::unknown(config, format!("the policies can't be read ({})", root(&error))),
        }
    }

    async fn policies(&self, config: &sluice_core::config::Config) -> kube::Result<Policy> {
        let cluster = Api::<ClusterRiskPolicy>::all(self.client.clone());
        let own = Api::<RiskPolicy>::namespaced(self.client.clone(), &self.namespace);
        let namespaces = Api::<k8s_openapi::api::core::v1::Namespace>::all(self.client.clone());
        let all = ListParams::default();
        let cluster = limited(cluster.list(&all)).await?;
        let own = limited(own.list(&all)).await?;
        let freezes = limited(Api::<ChangeFreeze>::all(self.client.clone()).list(&all)).await?;
        let namespace = limited(namespaces.get_metadata(&self.namespace)).await?;
        let labels = namespace.metadata.labels.unwrap_or_default();
        let freezes = freezes.iter().map(|found| Arc::new(Freeze::of(found)));
        let freezes = Freezes::of(freezes, &self.namespace, &labels);
        Ok(Policy { freezes, ..Policy::resolve(config, &cluster, &own, &labels) })
    }

    /// Names of all namespaces, for completion.
    pub async fn namespaces(&self) -> Vec<String> {
        let api: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(self.client.clone());
        let found = tokio::time::timeout(ASIDE_LIMIT, api.list_metadata(&ListParams::default())).await;
        found
            .into_iter()
            .flatten()
            .flat_map(|list| list.items)
            .filter_map(|item| item.metadata.name)
            .collect()
    }
}

/// What a watch says.
#[derive(Debug)]
pub enum Watched {
    /// The rollout as it is now.
    Changed(Box<ProgressiveRollout>),
    /// It was deleted.
    Gone,
    /// The connection is lost; it is tried again.
    Lost(String),
    /// Waiting does not help.
    Failed(Failure),
}

async fn config(global: &Global) -> Result<(Config, String), Failure> {
    let options = KubeConfigOptions { context: global.context.clone(), ..KubeConfigOptions::default() };
    let file = global
        .kubeconfig
        .as_ref()
        .map_or_else(|| "the kubeconfig".to_owned(), |path| format!("kubeconfig {}", path.display()));
    let explain = |error: KubeconfigError| fail::kubeconfig(&error, global.context.as_deref(), &file);
    let read = global.kubeconfig.as_ref().map_or_else(Kubeconfig::read, Kubeconfig::read_from);
    let found = match read {
        Ok(found) => found,
        // Inside a pod there is no kubeconfig, and none was asked for.
        Err(error) if global.kubeconfig.is_none() && global.context.is_none() => {
            let inside = Config::incluster().map_err(|_| explain(error))?;
            return Ok((inside, "this pod's ServiceAccount".to_owned()));
        }
        Err(error) => return Err(explain(error)),
    };
    let context = global.context.clone().or_else(|| found.current_context.clone()).unwrap_or_default();
    let config = Config::from_custom_kubeconfig(found, &options).await.map_err(explain)?;
    Ok((config, format!("context {context}")))
}

/// An answer within [`CALL_LIMIT`], or an error that says so.
pub async fn limited<T>(call: impl Future<Output = kube::Result<T>>) -> kube::Result<T> {
    let late = |_| kube::Error::Service(format!("no answer within {} s", CALL_LIMIT.as_secs()).into());
    tokio::time::timeout(CALL_LIMIT, call).await.map_err(late)?
}

fn resource() -> ApiResource {
    ApiResource::erase::<ProgressiveRollout>(&())
}

fn raw(object: DynamicObject) -> Value {
    serde_json::to_value(object).unwrap_or_default()
}

fn parse(object: DynamicObject) -> Result<ProgressiveRollout, Failure> {
    let name = object.metadata.name.clone().unwrap_or_default();
    serde_json::from_value(raw(object)).map_err(|e| {
        Failure::new(format!(
            "ProgressiveRollout {name:?} was written by another version of Sluice ({e}): use the kubectl-sluice of the controller's version ({} sluice version)",
            "kubectl"
        ))
    })
}

/// What can't be a name is said here: in a URL it would ask for something else.
fn named(what: &str, name: &str) -> Result<(), Failure> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b);
    if !name.is_empty() && name.len() <= 253 && name.bytes().all(allowed) && !name.starts_with('.') {
        return Ok(());
    }
    Err(Failure::usage(format!(
        "{what} {name:?} can't exist: write lower-case letters, digits, '-' and '.', such as checkout"
    )))
}

/// A name with or without its kind before it.
fn plain_name(name: &str) -> Result<String, Failure> {
    match name.split_once('/') {
        None => named("the name", name).map(|()| name.to_owned()),
        Some((kind, name)) => {
            let kind = kind.to_ascii_lowercase();
            let known = [
                "prollout",
                "progressiverollout",
                "progressiverollouts",
                ROLLOUTS,
                "progressiverollout.sluice.dev",
            ];
            if known.contains(&kind.as_str()) {
                named("the name", name).map(|()| name.to_owned())
            } else {
                Err(Failure::usage(format!(
                    "{kind}/{name} is not a ProgressiveRollout: write prollout/{name}, or the name alone"
                )))
            }
        }
    }
}

fn controller(object: DynamicObject) -> Controller {
    let object = raw(object);
    let text = |path: &str| object.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
    let number = |path: &str| {
        object.pointer(path).and_then(Value::as_i64).and_then(|n| i32::try_from(n).ok()).unwrap_or(0)
    };
    Controller {
        namespace: text("/metadata/namespace"),
        name: text("/metadata/name"),
        version: text("/metadata/labels/app.kubernetes.io~1version"),
        image: text("/spec/template/spec/containers/0/image"),
        ready: number("/status/readyReplicas"),
        wanted: number("/spec/replicas"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_before_the_name_is_understood() {
        assert_eq!(plain_name("checkout").ok().as_deref(), Some("checkout"));
        assert_eq!(plain_name("prollout/checkout").ok().as_deref(), Some("checkout"));
        for wrong in ["", "prollout/", "a/b/c", "..", "we b", "x?y=1", "Checkout", &"a".repeat(254)] {
            assert!(plain_name(wrong).is_err_and(|f| f.code == crate::exit::Code::Usage), "{wrong}");
        }
        assert!(plain_name("deployment/checkout").is_err_and(|f| f.text.contains("write prollout/checkout")));
    }
}
