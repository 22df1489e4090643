//! Every input of the controller: one stream per kind into a store, and from there to the rollouts it concerns.
//!
//! Foreign objects stay dynamic, so that a field that our types don't know neither stops a stream nor gets lost.
//! A stream that fails says why: its kind is then unseen, and nothing moves forward on it.

use std::sync::{Arc, Mutex, PoisonError};

use futures::StreamExt;
use jiff::Timestamp;
use kube::api::{ApiResource, DynamicObject};
use kube::core::GroupVersionKind;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::{WatchStreamExt, reflector, watcher};
use kube::{Api, Client, ResourceExt};
use serde_json::Value;
use sluice_core::api::LABEL_ROLLOUT;
use sluice_core::limits;
use sluice_core::observed::Seen;
use tokio::sync::mpsc::UnboundedSender;
use tracing::{debug, warn};

use crate::metrics::Metrics;
use crate::panics::essential;

/// Watches end and start again after this long, so that a dead connection is noticed.
const WATCH_TIMEOUT_SECONDS: u32 = 60;

/// The kinds that are watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watched {
    /// Our own kind.
    Rollout,
    /// `apps/v1` Deployment.
    Deployment,
    /// `apps/v1` ReplicaSet.
    ReplicaSet,
    /// `v1` Service.
    Service,
    /// `discovery.k8s.io/v1` EndpointSlice.
    EndpointSlice,
    /// `gateway.networking.k8s.io/v1` HTTPRoute.
    HttpRoute,
}

impl Watched {
    const ALL: [Self; 6] = [
        Self::Rollout,
        Self::Deployment,
        Self::ReplicaSet,
        Self::Service,
        Self::EndpointSlice,
        Self::HttpRoute,
    ];

    /// Name of the stream in metrics and messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rollout => "progressiverollouts",
            Self::Deployment => "deployments",
            Self::ReplicaSet => "replicasets",
            Self::Service => "services",
            Self::EndpointSlice => "endpointslices",
            Self::HttpRoute => "httproutes",
        }
    }

    /// The kind as the API server knows it.
    pub fn resource(self) -> ApiResource {
        let (group, version, kind) = match self {
            Self::Rollout => ("sluice.dev", "v1alpha1", "ProgressiveRollout"),
            Self::Deployment => ("apps", "v1", "Deployment"),
            Self::ReplicaSet => ("apps", "v1", "ReplicaSet"),
            Self::Service => ("", "v1", "Service"),
            Self::EndpointSlice => ("discovery.k8s.io", "v1", "EndpointSlice"),
            Self::HttpRoute => ("gateway.networking.k8s.io", "v1", "HTTPRoute"),
        };
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), self.as_str())
    }
}

/// One kind in all watched namespaces.
struct Stream {
    kind: Watched,
    parts: Vec<Part>,
}

/// One kind in one namespace, or in all of them. Each part is seen or unseen by itself: one that is not listed yet
/// must not look empty because another one is.
struct Part {
    namespace: Option<String>,
    store: Store<DynamicObject>,
    /// Why it is not seen now; `None` when it is.
    trouble: Arc<Mutex<Option<String>>>,
}

impl Part {
    fn covers(&self, namespace: &str) -> bool {
        self.namespace.as_deref().is_none_or(|own| own == namespace)
    }

    fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// All stores.
#[derive(Clone)]
pub struct Stores {
    streams: Arc<Vec<Stream>>,
}

/// Namespace and name of a rollout.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl Key {
    /// The key of an object.
    pub fn of(object: &DynamicObject) -> Self {
        Self { namespace: object.namespace().unwrap_or_default(), name: object.name_any() }
    }

    /// As the queue wants it.
    pub fn reference(&self) -> ObjectRef<DynamicObject> {
        ObjectRef::new_with(&self.name, Watched::Rollout.resource()).within(&self.namespace)
    }
}

impl Stores {
    /// Starts all streams. Every change is sent to `queue` as the rollouts that it concerns.
    pub fn start(
        client: &Client,
        namespaces: &[String],
        metrics: &Metrics,
        queue: &UnboundedSender<Key>,
    ) -> Self {
        let mut streams = Vec::new();
        let mut runs = Vec::new();
        for kind in Watched::ALL {
            let resource = kind.resource();
            let covered: Vec<Option<String>> = match namespaces {
                [] => vec![None],
                some => some.iter().cloned().map(Some).collect(),
            };
            let mut parts = Vec::new();
            for namespace in covered {
                let api: Api<DynamicObject> = match &namespace {
                    Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
                    None => Api::all_with(client.clone(), &resource),
                };
                let trouble = Arc::new(Mutex::new(Some("not listed yet".to_owned())));
                let writer = reflector::store::Writer::new(resource.clone());
                parts.push(Part { namespace, store: writer.as_reader(), trouble: trouble.clone() });
                runs.push((kind, api, writer, trouble));
            }
            streams.push(Stream { kind, parts });
        }
        let all = Self { streams: Arc::new(streams) };
        for (kind, api, writer, trouble) in runs {
            let work = follow(kind, api, writer, trouble, all.clone(), metrics.clone(), queue.clone());
            essential("watch", work);
        }
        all
    }

    fn stream(&self, kind: Watched) -> Option<&Stream> {
        self.streams.iter().find(|stream| stream.kind == kind)
    }

    /// Objects of a kind in a namespace that `keep` wants.
    pub fn list(
        &self,
        kind: Watched,
        namespace: &str,
        keep: impl Fn(&DynamicObject) -> bool,
    ) -> Seen<Vec<Value>> {
        let Some(stream) = self.stream(kind) else {
            return Seen::Unseen("not watched".to_owned());
        };
        let covering: Vec<&Part> = stream.parts.iter().filter(|part| part.covers(namespace)).collect();
        if covering.is_empty() {
            return Seen::Unseen(format!("namespace {namespace} is not watched"));
        }
        if let Some(why) = covering.iter().find_map(|part| part.trouble()) {
            return Seen::Unseen(why);
        }
        let found = covering.iter().flat_map(|part| {
            part.store.state_filter(|object| object.namespace().as_deref() == Some(namespace) && keep(object))
        });
        Seen::Seen(found.filter_map(|object| serde_json::to_value(&*object).ok()).collect())
    }

    /// Objects of a kind in all watched namespaces that `keep` wants.
    pub fn all(&self, kind: Watched, keep: impl Fn(&DynamicObject) -> bool) -> Vec<Arc<DynamicObject>> {
        let parts = self.stream(kind).map(|stream| stream.parts.as_slice()).unwrap_or_default();
        parts.iter().flat_map(|part| part.store.state_filter(&keep)).collect()
    }

    /// All rollouts.
    pub fn rollouts(&self) -> Vec<Arc<DynamicObject>> {
        self.stream(Watched::Rollout)
            .map(|stream| stream.parts.iter().flat_map(|part| part.store.state()).collect())
            .unwrap_or_default()
    }

    /// One rollout.
    pub fn rollout(&self, key: &Key) -> Option<Arc<DynamicObject>> {
        self.stream(Watched::Rollout)?.parts.iter().find_map(|part| part.store.get(&key.reference()))
    }

    /// Whether a kind is listed in every watched namespace.
    pub fn ready(&self, kind: Watched) -> bool {
        self.stream(kind).is_some_and(|stream| stream.parts.iter().all(|part| part.trouble().is_none()))
    }

    /// Which rollouts an object concerns.
    fn concerned(&self, kind: Watched, object: &DynamicObject) -> Vec<Key> {
        if kind == Watched::Rollout {
            return vec![Key::of(object)];
        }
        let namespace = object.namespace().unwrap_or_default();
        let names = names_of(kind, object);
        let concerns = |rollout: &&Arc<DynamicObject>| {
            if rollout.namespace().as_deref() != Some(namespace.as_str()) {
                return false;
            }
            let spec = &rollout.data["spec"];
            let is = |pointer: &str| {
                spec.pointer(pointer)
                    .and_then(Value::as_str)
                    .is_some_and(|name| names.iter().any(|n| n == name))
            };
            match kind {
                Watched::Rollout => true,
                Watched::Deployment => is("/workloadRef/name"),
                Watched::ReplicaSet => {
                    is("/workloadRef/name") || object.labels().get(LABEL_ROLLOUT) == Some(&rollout.name_any())
                }
                Watched::Service | Watched::EndpointSlice => {
                    let apex = spec.pointer("/routing/service").and_then(Value::as_str).unwrap_or_default();
                    let pair = [apex.to_owned(), limits::stable_service(apex), limits::canary_service(apex)];
                    names.iter().any(|name| pair.contains(name))
                }
                Watched::HttpRoute => {
                    let routes = spec.pointer("/routing/routes").and_then(Value::as_array);
                    routes.into_iter().flatten().any(|route| {
                        route["name"].as_str().is_some_and(|name| names.iter().any(|n| n == name))
                    })
                }
            }
        };
        self.rollouts().iter().filter(concerns).map(|rollout| Key::of(rollout)).collect()
    }
}

/// The names by which a rollout may refer to an object.
fn names_of(kind: Watched, object: &DynamicObject) -> Vec<String> {
    match kind {
        Watched::ReplicaSet => object
            .owner_references()
            .iter()
            .filter(|o| o.kind == "Deployment")
            .map(|o| o.name.clone())
            .collect(),
        Watched::EndpointSlice => {
            object.labels().get("kubernetes.io/service-name").cloned().into_iter().collect()
        }
        _ => vec![object.name_any()],
    }
}

async fn follow(
    kind: Watched,
    api: Api<DynamicObject>,
    writer: reflector::store::Writer<DynamicObject>,
    trouble: Arc<Mutex<Option<String>>>,
    stores: Stores,
    metrics: Metrics,
    queue: UnboundedSender<Key>,
) {
    let config = watcher::Config::default().timeout(WATCH_TIMEOUT_SECONDS);
    let stream = watcher(api, config).default_backoff().modify(|object: &mut DynamicObject| {
        // managedFields are most of an object's bytes, and nothing here reads them.
        object.managed_fields_mut().clear();
    });
    let mut stream = std::pin::pin!(stream.reflect(writer));
    let set = |state: Option<String>| *trouble.lock().unwrap_or_else(PoisonError::into_inner) = state;
    while let Some(event) = stream.next().await {
        metrics.stream_event(kind.as_str(), Timestamp::now());
        let object = match event {
            Ok(watcher::Event::Apply(object) | watcher::Event::Delete(object)) => object,
            Ok(watcher::Event::InitApply(_) | watcher::Event::Init) => continue,
            Ok(watcher::Event::InitDone) => {
                set(None);
                debug!(stream = kind.as_str(), "listed");
                for rollout in stores.rollouts() {
                    let _ = queue.send(Key::of(&rollout));
                }
                continue;
            }
            Err(error) => {
                // A store that was filled stays usable; live reads decide before anything moves forward.
                let message = crate::error::innermost(&error);
                warn!(stream = kind.as_str(), error = %message, "watch failed, it is tried again");
                if trouble.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
                    set(Some(message));
                }
                continue;
            }
        };
        for key in stores.concerned(kind, &object) {
            // The receiver lives as long as the process.
            let _ = queue.send(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(kind: Watched, namespace: &str, name: &str, data: Value) -> DynamicObject {
        let mut object = DynamicObject::new(name, &kind.resource()).within(namespace);
        object.data = data;
        object
    }

    /// A part that is listed with these objects, or not listed yet.
    fn part(kind: Watched, namespace: Option<&str>, listed: Option<Vec<DynamicObject>>) -> Part {
        let mut writer = reflector::store::Writer::new(kind.resource());
        let store = writer.as_reader();
        let trouble = listed.is_none().then(|| "not listed yet".to_owned());
        for object in listed.into_iter().flatten() {
            writer.apply_watcher_event(&watcher::Event::Apply(object));
        }
        Part { namespace: namespace.map(ToOwned::to_owned), store, trouble: Arc::new(Mutex::new(trouble)) }
    }

    fn stores(kind: Watched, parts: Vec<Part>) -> Stores {
        Stores { streams: Arc::new(vec![Stream { kind, parts }]) }
    }

    #[test]
    fn a_namespace_that_is_not_listed_yet_is_unseen_though_another_is() {
        let web = object(Watched::Deployment, "a", "web", json!({}));
        let stores = stores(
            Watched::Deployment,
            vec![
                part(Watched::Deployment, Some("a"), Some(vec![web])),
                part(Watched::Deployment, Some("b"), None),
            ],
        );
        let list = |namespace| stores.list(Watched::Deployment, namespace, |_| true);
        assert_eq!(list("a").get().map(Vec::len), Some(1));
        assert_eq!(list("b"), Seen::Unseen("not listed yet".to_owned()));
        assert_eq!(list("c"), Seen::Unseen("namespace c is not watched".to_owned()));
        assert!(!stores.ready(Watched::Deployment));
    }

    #[test]
    fn a_change_concerns_the_rollouts_that_name_the_object() {
        let spec = json!({"spec": {"workloadRef": {"name": "web"}, "routing": {"service": "front", "routes": [{"name": "site"}]}}});
        let rollout = object(Watched::Rollout, "a", "guard", spec);
        let stores = stores(Watched::Rollout, vec![part(Watched::Rollout, None, Some(vec![rollout]))]);
        let concerned = |kind: Watched, namespace: &str, name: &str| {
            !stores.concerned(kind, &object(kind, namespace, name, json!({}))).is_empty()
        };
        for (kind, name) in [
            (Watched::Deployment, "web"),
            (Watched::Service, "front"),
            (Watched::Service, "front-stable"),
            (Watched::Service, "front-canary"),
            (Watched::HttpRoute, "site"),
        ] {
            assert!(concerned(kind, "a", name), "{kind:?} {name}");
            assert!(!concerned(kind, "b", name), "{kind:?} {name} of another namespace");
            assert!(!concerned(kind, "a", "other"), "{kind:?} other");
        }
        let mut slice = object(Watched::EndpointSlice, "a", "front-canary-x7k", json!({}));
        assert!(stores.concerned(Watched::EndpointSlice, &slice).is_empty(), "no label, no Service");
        slice.labels_mut().insert("kubernetes.io/service-name".to_owned(), "front-canary".to_owned());
        assert_eq!(stores.concerned(Watched::EndpointSlice, &slice).len(), 1);
        let mut set = object(Watched::ReplicaSet, "a", "web-1", json!({}));
        set.labels_mut().insert(LABEL_ROLLOUT.to_owned(), "guard".to_owned());
        assert_eq!(stores.concerned(Watched::ReplicaSet, &set).len(), 1);
    }
}
