//! Every input of the controller: one stream per kind into a store, and from there to the rollouts it concerns.
//!
//! Foreign objects stay raw, so that a field that our types don't know neither stops a stream nor gets lost.
//! A stream that fails says why: its kind is then unseen, and nothing moves forward on it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::StreamExt;
use jiff::Timestamp;
use kube::api::ApiResource;
use kube::core::GroupVersionKind;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use serde_json::Value;
use sluice_core::api::LABEL_ROLLOUT;
use sluice_core::limits;
use sluice_core::observed::Seen;
use tokio::sync::mpsc::UnboundedSender;
use tracing::{debug, warn};

use crate::metrics::Metrics;
use crate::panics::essential;
use crate::store::{Object, Store, of_deployment};

/// Watches end and start again after this long, so that a dead connection is noticed.
const WATCH_TIMEOUT_SECONDS: u32 = 60;
/// A watch that fails is tried again within this time.
const TRIED_AGAIN: Duration = Duration::from_secs(60);
/// One that fails for so long is lost: what was known of its objects may have changed since.
const LOST: Duration = Duration::from_secs(60);

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
    /// `v1` Namespace.
    Namespace,
    /// Our own ClusterRiskPolicy.
    ClusterPolicy,
    /// Our own RiskPolicy.
    Policy,
    /// Our own ChangeFreeze.
    Freeze,
}

impl Watched {
    /// Every kind.
    pub const ALL: [Self; 10] = [
        Self::Rollout,
        Self::Deployment,
        Self::ReplicaSet,
        Self::Service,
        Self::EndpointSlice,
        Self::HttpRoute,
        Self::Namespace,
        Self::ClusterPolicy,
        Self::Policy,
        Self::Freeze,
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
            Self::Namespace => "namespaces",
            Self::ClusterPolicy => "clusterriskpolicies",
            Self::Policy => "riskpolicies",
            Self::Freeze => "changefreezes",
        }
    }

    /// Whether its objects have no namespace.
    pub fn is_of_cluster(self) -> bool {
        matches!(self, Self::Namespace | Self::ClusterPolicy | Self::Freeze)
    }

    /// Whether limits, or what may start, depend on it.
    pub fn is_of_policy(self) -> bool {
        matches!(self, Self::Namespace | Self::ClusterPolicy | Self::Policy | Self::Freeze)
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
            Self::Namespace => ("", "v1", "Namespace"),
            Self::ClusterPolicy => ("sluice.dev", "v1alpha1", "ClusterRiskPolicy"),
            Self::Policy => ("sluice.dev", "v1alpha1", "RiskPolicy"),
            Self::Freeze => ("sluice.dev", "v1alpha1", "ChangeFreeze"),
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
#[derive(Clone)]
struct Part {
    namespace: Option<String>,
    store: Store,
    /// Why it is not seen now; `None` when it is.
    trouble: Arc<Mutex<Option<String>>>,
    /// The failures of its watch that follow on one another.
    failing: Arc<Mutex<Option<Failing>>>,
}

/// Failures of a watch, one after another.
#[derive(Clone, Debug)]
struct Failing {
    first: Instant,
    last: Instant,
    why: String,
}

impl Failing {
    /// The same with one more at this time.
    fn again(before: Option<Self>, now: Instant, why: String) -> Self {
        let first =
            before.filter(|before| now.duration_since(before.last) < TRIED_AGAIN).map(|before| before.first);
        Self { first: first.unwrap_or(now), last: now, why }
    }

    /// Whether it goes on, and has for too long.
    fn is_lost(&self, now: Instant) -> bool {
        now.duration_since(self.last) < TRIED_AGAIN && self.last.duration_since(self.first) >= LOST
    }
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
    /// How often something that limits depend on has changed.
    policies: Arc<AtomicU64>,
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
    pub fn of(object: &Object) -> Self {
        Self { namespace: object.namespace().unwrap_or_default(), name: object.name_any() }
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
                some if !some.is_empty() && !kind.is_of_cluster() => some.iter().cloned().map(Some).collect(),
                _ => vec![None],
            };
            let mut parts = Vec::new();
            for namespace in covered {
                let api: Api<Object> = match &namespace {
                    Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
                    None => Api::all_with(client.clone(), &resource),
                };
                let trouble = Arc::new(Mutex::new(Some("not listed yet".to_owned())));
                let part = Part { namespace, store: Store::new(kind), trouble, failing: Arc::default() };
                parts.push(part.clone());
                runs.push((kind, api, part));
            }
            streams.push(Stream { kind, parts });
        }
        let all = Self { streams: Arc::new(streams), policies: Arc::default() };
        for (kind, api, part) in runs {
            let work = follow(kind, api, part, all.clone(), metrics.clone(), queue.clone());
            essential("watch", work);
        }
        all
    }

    /// A number that is another one whenever limits may be.
    pub fn policy_version(&self) -> u64 {
        self.policies.load(Ordering::Acquire)
    }

    fn stream(&self, kind: Watched) -> Option<&Stream> {
        self.streams.iter().find(|stream| stream.kind == kind)
    }

    /// What `find` finds of a kind in a namespace.
    fn find(
        &self,
        kind: Watched,
        namespace: &str,
        find: impl Fn(&Store) -> Vec<Arc<Object>>,
    ) -> Seen<Vec<Arc<Object>>> {
        let Some(stream) = self.stream(kind) else {
            return Seen::Unseen("not watched".to_owned());
        };
        let covering = || stream.parts.iter().filter(|part| part.covers(namespace));
        if covering().next().is_none() {
            return Seen::Unseen(format!("namespace {namespace} is not watched"));
        }
        if let Some(why) = covering().find_map(Part::trouble) {
            return Seen::Unseen(why);
        }
        Seen::Seen(covering().flat_map(|part| find(&part.store)).collect())
    }

    /// Objects of a kind with these names; one that does not exist is left out.
    pub fn named<'a>(
        &self,
        kind: Watched,
        namespace: &str,
        names: impl IntoIterator<Item = &'a String> + Clone,
    ) -> Seen<Vec<Arc<Object>>> {
        self.find(kind, namespace, |store| {
            names.clone().into_iter().filter_map(|name| store.get(namespace, name)).collect()
        })
    }

    /// Objects of a kind that belong to one of these.
    pub fn owned(&self, kind: Watched, namespace: &str, owners: &[String]) -> Seen<Vec<Arc<Object>>> {
        self.find(kind, namespace, |store| store.owned(namespace, owners))
    }

    /// Puts in what this process wrote, in a call that began then.
    pub fn wrote(&self, kind: Watched, object: Object, began: Instant) {
        let Some(stream) = self.stream(kind) else {
            return;
        };
        let namespace = object.namespace().unwrap_or_default();
        if let Some(part) = stream.parts.iter().find(|part| part.covers(&namespace)) {
            part.store.wrote(object, began);
        }
    }

    /// Objects of a kind in all watched namespaces that `keep` wants.
    pub fn all(&self, kind: Watched, keep: impl Fn(&Object) -> bool) -> Vec<Arc<Object>> {
        let parts = self.stream(kind).map(|stream| stream.parts.as_slice()).unwrap_or_default();
        parts.iter().flat_map(|part| part.store.all()).filter(|object| keep(object)).collect()
    }

    /// All rollouts.
    pub fn rollouts(&self) -> Vec<Arc<Object>> {
        self.all(Watched::Rollout, |_| true)
    }

    /// Rollouts of a namespace.
    pub fn rollouts_near(&self, namespace: &str) -> Vec<Arc<Object>> {
        self.rollouts_by(namespace, |store| store.near(namespace))
    }

    /// Rollouts of a workload.
    pub fn rollouts_of(&self, namespace: &str, workload: &str) -> Vec<Arc<Object>> {
        self.rollouts_by(namespace, |store| store.owned(namespace, &[of_deployment(workload)]))
    }

    /// The rollouts that `find` finds in what is known of a namespace, whether it is all or not.
    fn rollouts_by(&self, namespace: &str, find: impl Fn(&Store) -> Vec<Arc<Object>>) -> Vec<Arc<Object>> {
        let parts = self.stream(Watched::Rollout).map(|stream| stream.parts.as_slice()).unwrap_or_default();
        parts.iter().filter(|part| part.covers(namespace)).flat_map(|part| find(&part.store)).collect()
    }

    /// One rollout.
    pub fn rollout(&self, key: &Key) -> Option<Arc<Object>> {
        self.stream(Watched::Rollout)?.parts.iter().find_map(|part| part.store.get(&key.namespace, &key.name))
    }

    /// Why a kind's watch has failed for longer than what it told is worth.
    pub fn lost(&self, kind: Watched) -> Option<String> {
        let now = Instant::now();
        self.stream(kind)?.parts.iter().find_map(|part| {
            let failing = part.failing.lock().unwrap_or_else(PoisonError::into_inner);
            failing.as_ref().filter(|failing| failing.is_lost(now)).map(|failing| failing.why.clone())
        })
    }

    /// Objects of a kind in a namespace, or of the cluster.
    pub fn near(&self, kind: Watched, namespace: &str) -> Seen<Vec<Arc<Object>>> {
        self.find(kind, namespace, |store| store.near(if kind.is_of_cluster() { "" } else { namespace }))
    }

    /// Whether a kind is listed in every watched namespace.
    pub fn ready(&self, kind: Watched) -> bool {
        self.stream(kind).is_some_and(|stream| stream.parts.iter().all(|part| part.trouble().is_none()))
    }

    /// Which rollouts an object concerns.
    fn concerned(&self, kind: Watched, object: &Object) -> Vec<Key> {
        let all = |found: Vec<Arc<Object>>| found.iter().map(|rollout| Key::of(rollout)).collect();
        let namespace = object.meta.namespace.as_deref().unwrap_or_default();
        match kind {
            Watched::Rollout => return vec![Key::of(object)],
            Watched::ClusterPolicy | Watched::Freeze => return all(self.rollouts()),
            Watched::Policy => return all(self.rollouts_near(namespace)),
            Watched::Namespace => return all(self.rollouts_near(object.name())),
            _ => {}
        }
        let names = names_of(kind, object);
        let concerns = |rollout: &&Arc<Object>| {
            let spec = &rollout.value["spec"];
            // A run under way keeps the routing that it started with.
            let plan = &rollout.value["status"]["run"]["plan"];
            let is = |name: &Value| name.as_str().is_some_and(|name| names.contains(&name));
            match kind {
                Watched::Rollout
                | Watched::Namespace
                | Watched::ClusterPolicy
                | Watched::Policy
                | Watched::Freeze => true,
                Watched::Deployment => is(&spec["workloadRef"]["name"]),
                Watched::ReplicaSet => {
                    is(&spec["workloadRef"]["name"]) || object.label(LABEL_ROLLOUT) == Some(rollout.name())
                }
                Watched::Service | Watched::EndpointSlice => {
                    let of = |apex: &str| {
                        [apex.to_owned(), limits::stable_service(apex), limits::canary_service(apex)]
                    };
                    let apexes = [&spec["routing"]["service"], &plan["service"]];
                    let wanted = apexes.into_iter().filter_map(Value::as_str).flat_map(of);
                    wanted.into_iter().any(|wanted| names.contains(&wanted.as_str()))
                }
                Watched::HttpRoute => {
                    let routes = [&spec["routing"]["routes"], &plan["routes"]];
                    let routes = routes.into_iter().filter_map(Value::as_array).flatten();
                    routes.into_iter().any(|route| is(&route["name"]))
                }
            }
        };
        self.rollouts_near(namespace).iter().filter(concerns).map(|rollout| Key::of(rollout)).collect()
    }
}

/// The names by which a rollout may refer to an object.
fn names_of(kind: Watched, object: &Object) -> Vec<&str> {
    match kind {
        Watched::ReplicaSet => object.owning_deployments().collect(),
        Watched::EndpointSlice => object.service_name().into_iter().collect(),
        _ => vec![object.name()],
    }
}

async fn follow(
    kind: Watched,
    api: Api<Object>,
    part: Part,
    stores: Stores,
    metrics: Metrics,
    queue: UnboundedSender<Key>,
) {
    let config = watcher::Config::default().timeout(WATCH_TIMEOUT_SECONDS);
    let mut stream = std::pin::pin!(watcher(api, config).default_backoff());
    let set = |state: Option<String>| *part.trouble.lock().unwrap_or_else(PoisonError::into_inner) = state;
    let count = || kind.is_of_policy().then(|| stores.policies.fetch_add(1, Ordering::AcqRel));
    while let Some(event) = stream.next().await {
        metrics.stream_event(kind.as_str(), Timestamp::now());
        let object = match event {
            Ok(watcher::Event::Apply(object)) => {
                let object = Arc::new(object);
                if !part.store.changed(object.clone()) {
                    continue;
                }
                object
            }
            Ok(watcher::Event::Delete(object)) => {
                part.store.gone(&object);
                Arc::new(object)
            }
            Ok(watcher::Event::Init) => {
                part.store.begin_list();
                continue;
            }
            Ok(watcher::Event::InitApply(object)) => {
                part.store.list_one(object);
                continue;
            }
            Ok(watcher::Event::InitDone) => {
                part.store.end_list();
                set(None);
                count();
                debug!(stream = kind.as_str(), "listed");
                for rollout in stores.rollouts() {
                    let _ = queue.send(Key::of(&rollout));
                }
                continue;
            }
            Err(error) => {
                // A store that was filled stays usable; live reads decide before anything moves forward.
                let message = sluice_providers::innermost(&error);
                warn!(stream = kind.as_str(), error = %message, "watch failed, it is tried again");
                let mut failing = part.failing.lock().unwrap_or_else(PoisonError::into_inner);
                *failing = Some(Failing::again(failing.take(), Instant::now(), message.clone()));
                drop(failing);
                if part.trouble().is_some() {
                    set(Some(message));
                }
                count();
                continue;
            }
        };
        count();
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

    fn object(namespace: &str, name: &str, labels: Value, spec: Value) -> Object {
        let meta = json!({"namespace": namespace, "name": name, "uid": name, "labels": labels});
        Object::new(json!({"metadata": meta, "spec": spec})).unwrap()
    }

    /// A part that is listed with these objects, or not listed yet.
    fn part(kind: Watched, namespace: Option<&str>, listed: Option<Vec<Object>>) -> Part {
        let store = Store::new(kind);
        let trouble = listed.is_none().then(|| "not listed yet".to_owned());
        store.begin_list();
        for object in listed.into_iter().flatten() {
            store.list_one(object);
        }
        store.end_list();
        let trouble = Arc::new(Mutex::new(trouble));
        Part { namespace: namespace.map(ToOwned::to_owned), store, trouble, failing: Arc::default() }
    }

    fn stores(kind: Watched, parts: Vec<Part>) -> Stores {
        Stores { streams: Arc::new(vec![Stream { kind, parts }]), policies: Arc::default() }
    }

    #[test]
    fn a_namespace_that_is_not_listed_yet_is_unseen_though_another_is() {
        let web = object("a", "web", json!({}), json!({}));
        let stores = stores(
            Watched::Deployment,
            vec![
                part(Watched::Deployment, Some("a"), Some(vec![web])),
                part(Watched::Deployment, Some("b"), None),
            ],
        );
        let list = |namespace| {
            stores.named(Watched::Deployment, namespace, [&"web".to_owned()]).map(|found| found.len())
        };
        assert_eq!(list("a"), Seen::Seen(1));
        assert_eq!(list("b"), Seen::Unseen("not listed yet".to_owned()));
        assert_eq!(list("c"), Seen::Unseen("namespace c is not watched".to_owned()));
        assert!(!stores.ready(Watched::Deployment));
    }

    #[test]
    fn a_watch_is_lost_when_it_fails_again_and_again_for_a_minute() {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut failing = None;
        for second in [0, 10, 30, 59] {
            failing = Some(Failing::again(failing, at(second), "forbidden".to_owned()));
            assert!(!failing.as_ref().unwrap().is_lost(at(second)), "{second} s");
        }
        failing = Some(Failing::again(failing, at(61), "forbidden".to_owned()));
        let lost = failing.clone().unwrap();
        assert!(lost.is_lost(at(61)) && lost.is_lost(at(120)));
        // No failure for longer than it takes to try again: it works.
        assert!(!lost.is_lost(at(122)));
        assert!(!Failing::again(failing, at(200), "forbidden".to_owned()).is_lost(at(200)));
    }

    #[test]
    fn a_change_concerns_the_rollouts_that_name_the_object() {
        let spec = json!({"workloadRef": {"name": "web"}, "routing": {"service": "front", "routes": [{"name": "site"}]}});
        let rollout = object("a", "guard", json!({}), spec);
        let stores = stores(Watched::Rollout, vec![part(Watched::Rollout, None, Some(vec![rollout]))]);
        let labelled =
            |namespace: &str, name: &str, labels: Value| object(namespace, name, labels, json!({}));
        let concerned = |kind: Watched, object: &Object| stores.concerned(kind, object).len();
        for (kind, name) in [
            (Watched::Deployment, "web"),
            (Watched::Service, "front"),
            (Watched::Service, "front-stable"),
            (Watched::Service, "front-canary"),
            (Watched::HttpRoute, "site"),
        ] {
            let named = |namespace: &str, name: &str| concerned(kind, &labelled(namespace, name, json!({})));
            assert_eq!(named("a", name), 1, "{kind:?} {name}");
            assert_eq!(named("b", name), 0, "{kind:?} {name} of another namespace");
            assert_eq!(named("a", "other"), 0, "{kind:?} other");
        }
        let slice =
            |labels: Value| concerned(Watched::EndpointSlice, &labelled("a", "front-canary-x7k", labels));
        assert_eq!(slice(json!({})), 0, "no label, no Service");
        assert_eq!(slice(json!({"kubernetes.io/service-name": "front-canary"})), 1);
        let set = labelled("a", "web-1", json!({LABEL_ROLLOUT: "guard"}));
        assert_eq!(concerned(Watched::ReplicaSet, &set), 1);
    }

    #[test]
    fn a_run_under_way_is_concerned_by_what_it_started_with() {
        let mut running = object(
            "a",
            "guard",
            json!({}),
            json!({"workloadRef": {"name": "web"}, "routing": {"service": "new"}}),
        );
        running.value["status"] = json!({"run": {"plan": {"service": "old", "routes": [{"name": "old"}]}}});
        let stores = stores(Watched::Rollout, vec![part(Watched::Rollout, None, Some(vec![running]))]);
        for (kind, name) in
            [(Watched::HttpRoute, "old"), (Watched::Service, "old-canary"), (Watched::Service, "new")]
        {
            let found = stores.concerned(kind, &object("a", name, json!({}), json!({})));
            assert_eq!(found.len(), 1, "{kind:?} {name} of the run under way");
        }
    }
}
