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
    stores: Vec<Store<DynamicObject>>,
    /// Why the kind is not seen now; `None` when it is.
    trouble: Arc<Mutex<Option<String>>>,
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
            let apis: Vec<Api<DynamicObject>> = if namespaces.is_empty() {
                vec![Api::all_with(client.clone(), &resource)]
            } else {
                namespaces.iter().map(|ns| Api::namespaced_with(client.clone(), ns, &resource)).collect()
            };
            let trouble = Arc::new(Mutex::new(Some("not listed yet".to_owned())));
            let mut stores = Vec::new();
            for api in apis {
                let writer = reflector::store::Writer::new(resource.clone());
                stores.push(writer.as_reader());
                runs.push((kind, api, writer, trouble.clone()));
            }
            streams.push(Stream { kind, stores, trouble });
        }
        let all = Self { streams: Arc::new(streams) };
        for (kind, api, writer, trouble) in runs {
            tokio::spawn(follow(kind, api, writer, trouble, all.clone(), metrics.clone(), queue.clone()));
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
        if let Some(why) = stream.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone() {
            return Seen::Unseen(why);
        }
        let found = stream.stores.iter().flat_map(|store| {
            store.state_filter(|object| object.namespace().as_deref() == Some(namespace) && keep(object))
        });
        Seen::Seen(found.filter_map(|object| serde_json::to_value(&*object).ok()).collect())
    }

    /// Objects of a kind in all watched namespaces that `keep` wants.
    pub fn all(&self, kind: Watched, keep: impl Fn(&DynamicObject) -> bool) -> Vec<Arc<DynamicObject>> {
        let stores = self.stream(kind).map(|stream| stream.stores.as_slice()).unwrap_or_default();
        stores.iter().flat_map(|store| store.state_filter(&keep)).collect()
    }

    /// All rollouts.
    pub fn rollouts(&self) -> Vec<Arc<DynamicObject>> {
        self.stream(Watched::Rollout)
            .map(|s| s.stores.iter().flat_map(Store::state).collect())
            .unwrap_or_default()
    }

    /// One rollout.
    pub fn rollout(&self, key: &Key) -> Option<Arc<DynamicObject>> {
        self.stream(Watched::Rollout)?.stores.iter().find_map(|store| store.get(&key.reference()))
    }

    /// The store that the queue looks rollouts up in. With several namespaces there are several; the first one
    /// that has the object answers in [`Stores::rollout`].
    pub fn ready(&self, kind: Watched) -> bool {
        self.stream(kind).is_some_and(|s| s.trouble.lock().unwrap_or_else(PoisonError::into_inner).is_none())
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
