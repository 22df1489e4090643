//! What is watched, as last known: objects by namespace and name, each read into the core's view once.
//!
//! What this process writes is put in at once, so that its next pass need not wait for its own watch.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Instant;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::ApiResource;
use kube::core::DynamicResourceScope;
use kube::{Resource, ResourceExt};
use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};
use sluice_core::api::{ChangeFreeze, ClusterRiskPolicy, LABEL_ROLLOUT, ProgressiveRollout, RiskPolicy};
use sluice_core::policy::Freeze;
use sluice_core::view::{ReplicaSet, Route, Service, Workload, ready_pods};

use crate::watch::Watched;

/// Label of an EndpointSlice with the name of its Service.
pub const LABEL_SERVICE: &str = "kubernetes.io/service-name";

/// An object of any kind, raw, and what the core reads of it.
#[derive(Clone, Debug)]
pub struct Object {
    /// Its metadata, without `managedFields`.
    pub meta: ObjectMeta,
    /// The whole object, without `managedFields`: they are most of its bytes, and nothing here reads them.
    pub value: Value,
    /// Whether nobody has to look when the watch tells of it: its writer knows it, and it changed numbers only.
    pub quiet: bool,
    view: OnceLock<View>,
}

/// The core's view of an object.
#[derive(Clone, Debug)]
enum View {
    Rollout(Result<Arc<ProgressiveRollout>, String>),
    Workload(Box<Workload>),
    Set(Box<ReplicaSet>),
    Service(Service),
    Route(Route),
    Ready(BTreeSet<String>),
    ClusterPolicy(Result<Arc<ClusterRiskPolicy>, String>),
    Policy(Result<Arc<RiskPolicy>, String>),
    Freeze(Result<Arc<Freeze>, String>),
}

impl Object {
    /// An object from its JSON.
    pub fn new(value: Value) -> Result<Self, serde_json::Error> {
        Self::deserialize(value)
    }

    fn of_fields(fields: Map<String, Value>) -> Result<Self, serde_json::Error> {
        let value = Value::Object(fields);
        let meta = value.get("metadata").map(ObjectMeta::deserialize).transpose()?.unwrap_or_default();
        Ok(Self { meta, value, quiet: false, view: OnceLock::new() })
    }

    /// As a number: versions of one kind can be compared (KEP-5504).
    pub fn version(&self) -> u128 {
        self.meta.resource_version.as_deref().and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.meta.name.as_deref().unwrap_or_default()
    }

    /// Value of a label.
    pub fn label(&self, name: &str) -> Option<&str> {
        self.meta.labels.as_ref()?.get(name).map(String::as_str)
    }

    /// The Service that an EndpointSlice belongs to.
    pub fn service_name(&self) -> Option<&str> {
        self.label(LABEL_SERVICE)
    }

    /// Names of the Deployments that own it.
    pub fn owning_deployments(&self) -> impl Iterator<Item = &str> {
        let owners = self.meta.owner_references.iter().flatten();
        owners.filter(|owner| owner.kind == "Deployment").map(|owner| owner.name.as_str())
    }

    /// As a rollout, or why it can't be read.
    pub fn rollout(&self) -> Result<Arc<ProgressiveRollout>, String> {
        let read = || {
            let parsed = ProgressiveRollout::deserialize(&self.value);
            View::Rollout(parsed.map(Arc::new).map_err(|error| error.to_string()))
        };
        match self.view.get_or_init(read) {
            View::Rollout(rollout) => rollout.clone(),
            _ => Err("not a ProgressiveRollout".to_owned()),
        }
    }

    /// As a Deployment.
    pub fn workload(&self) -> Option<Workload> {
        match self.view.get_or_init(|| View::Workload(Box::new(Workload::read(&self.value)))) {
            View::Workload(workload) => Some((**workload).clone()),
            _ => None,
        }
    }

    /// As a ReplicaSet.
    pub fn replica_set(&self) -> Option<ReplicaSet> {
        match self.view.get_or_init(|| View::Set(Box::new(ReplicaSet::read(&self.value)))) {
            View::Set(set) => Some((**set).clone()),
            _ => None,
        }
    }

    /// As a Service.
    pub fn service(&self) -> Option<Service> {
        match self.view.get_or_init(|| View::Service(Service::read(&self.value))) {
            View::Service(service) => Some(service.clone()),
            _ => None,
        }
    }

    /// As a route.
    pub fn route(&self) -> Option<Route> {
        match self.view.get_or_init(|| View::Route(Route::read(&self.value))) {
            View::Route(route) => Some(route.clone()),
            _ => None,
        }
    }

    /// As a policy of the cluster, or why it can't be read.
    pub fn cluster_policy(&self) -> Result<Arc<ClusterRiskPolicy>, String> {
        let read = || {
            let parsed = ClusterRiskPolicy::deserialize(&self.value);
            View::ClusterPolicy(parsed.map(Arc::new).map_err(|error| error.to_string()))
        };
        match self.view.get_or_init(read) {
            View::ClusterPolicy(policy) => policy.clone(),
            _ => Err("not a ClusterRiskPolicy".to_owned()),
        }
    }

    /// As a policy of a namespace, or why it can't be read.
    pub fn policy(&self) -> Result<Arc<RiskPolicy>, String> {
        let read = || {
            let parsed = RiskPolicy::deserialize(&self.value);
            View::Policy(parsed.map(Arc::new).map_err(|error| error.to_string()))
        };
        match self.view.get_or_init(read) {
            View::Policy(policy) => policy.clone(),
            _ => Err("not a RiskPolicy".to_owned()),
        }
    }

    /// As a freeze, ready to be asked, or why it can't be read.
    pub fn freeze(&self) -> Result<Arc<Freeze>, String> {
        let read = || {
            let parsed = ChangeFreeze::deserialize(&self.value);
            View::Freeze(
                parsed.map(|freeze| Arc::new(Freeze::of(&freeze))).map_err(|error| error.to_string()),
            )
        };
        match self.view.get_or_init(read) {
            View::Freeze(freeze) => freeze.clone(),
            _ => Err("not a ChangeFreeze".to_owned()),
        }
    }

    /// Ready pods that an EndpointSlice names.
    pub fn ready_pods(&self) -> Option<&BTreeSet<String>> {
        let read = || View::Ready(ready_pods(std::slice::from_ref(&self.value)));
        match self.view.get_or_init(read) {
            View::Ready(pods) => Some(pods),
            _ => None,
        }
    }
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let fields = deserializer.deserialize_map(Fields { skipped: "" })?;
        Self::of_fields(fields).map_err(D::Error::custom)
    }
}

/// Reads the fields of an object, all but one; of its metadata all but `managedFields`, which are passed over unread.
struct Fields {
    skipped: &'static str,
}

impl<'de> Visitor<'de> for Fields {
    type Value = Map<String, Value>;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        let mut fields = Map::new();
        while let Some(name) = access.next_key::<String>()? {
            if name == self.skipped {
                access.next_value::<IgnoredAny>()?;
            } else if self.skipped.is_empty() && name == "metadata" {
                fields.insert(
                    name,
                    Value::Object(access.next_value_seed(Fields { skipped: "managedFields" })?),
                );
            } else {
                fields.insert(name, access.next_value()?);
            }
        }
        Ok(fields)
    }
}

impl<'de> DeserializeSeed<'de> for Fields {
    type Value = Map<String, Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl Serialize for Object {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.value.serialize(serializer)
    }
}

impl Resource for Object {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    fn kind(resource: &ApiResource) -> std::borrow::Cow<'_, str> {
        resource.kind.as_str().into()
    }

    fn group(resource: &ApiResource) -> std::borrow::Cow<'_, str> {
        resource.group.as_str().into()
    }

    fn version(resource: &ApiResource) -> std::borrow::Cow<'_, str> {
        resource.version.as_str().into()
    }

    fn plural(resource: &ApiResource) -> std::borrow::Cow<'_, str> {
        resource.plural.as_str().into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.meta
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.meta
    }
}

/// Objects of one kind.
#[derive(Clone)]
pub struct Store {
    kind: Watched,
    inner: Arc<RwLock<Inner>>,
}

#[derive(Default)]
struct Inner {
    objects: Index,
    /// The newest version that the list, or the watch after it, has told.
    told: u128,
    listed_at: Option<Instant>,
    /// The list under way, if one is, and its newest version.
    listing: Option<(Index, u128)>,
}

/// Objects by namespace, then by name; and their names by what they belong to.
#[derive(Default)]
struct Index {
    by_name: HashMap<String, HashMap<String, Arc<Object>>>,
    by_owner: HashMap<String, HashMap<String, BTreeSet<String>>>,
}

impl Index {
    fn get(&self, namespace: &str, name: &str) -> Option<&Arc<Object>> {
        self.by_name.get(namespace)?.get(name)
    }

    fn put(&mut self, kind: Watched, object: Arc<Object>) {
        self.remove(kind, &object);
        let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
        let owners = owners(kind, &object);
        if !owners.is_empty() {
            let known = self.by_owner.entry(namespace.clone()).or_default();
            for owner in owners {
                known.entry(owner).or_default().insert(name.clone());
            }
        }
        self.by_name.entry(namespace).or_default().insert(name, object);
    }

    fn remove(&mut self, kind: Watched, object: &Object) {
        let namespace = object.meta.namespace.as_deref().unwrap_or_default();
        let Some(old) = self.by_name.get_mut(namespace).and_then(|near| near.remove(object.name())) else {
            return;
        };
        let Some(known) = self.by_owner.get_mut(namespace) else {
            return;
        };
        for owner in owners(kind, &old) {
            if let Some(names) = known.get_mut(&owner) {
                names.remove(old.name());
                if names.is_empty() {
                    known.remove(&owner);
                }
            }
        }
    }

    fn owned(&self, namespace: &str, owner: &str) -> impl Iterator<Item = &Arc<Object>> {
        let names = self.by_owner.get(namespace).and_then(|known| known.get(owner));
        names.into_iter().flatten().filter_map(move |name| self.get(namespace, name))
    }
}

/// What an object is looked up by, besides its name.
fn owners(kind: Watched, object: &Object) -> Vec<String> {
    match kind {
        Watched::ReplicaSet => {
            let ours = object.label(LABEL_ROLLOUT).map(of_rollout);
            object.owning_deployments().map(of_deployment).chain(ours).collect()
        }
        Watched::EndpointSlice => object.service_name().map(ToOwned::to_owned).into_iter().collect(),
        Watched::Rollout => {
            object.value["spec"]["workloadRef"]["name"].as_str().map(of_deployment).into_iter().collect()
        }
        _ => Vec::new(),
    }
}

/// What a ReplicaSet with our label belongs to.
pub fn of_rollout(name: &str) -> String {
    format!("rollout/{name}")
}

/// What a ReplicaSet belongs to, and what a rollout is about.
pub fn of_deployment(name: &str) -> String {
    format!("deployment/{name}")
}

impl Store {
    /// An empty one.
    pub fn new(kind: Watched) -> Self {
        Self { kind, inner: Arc::default() }
    }

    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        // Entries are put in whole: a panic elsewhere leaves nothing half-done.
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new list begins; what is known stays until it is complete.
    pub fn begin_list(&self) {
        self.write().listing = Some(<(Index, u128)>::default());
    }

    /// One object of the list.
    pub fn list_one(&self, object: Object) {
        let mut inner = self.write();
        let (objects, told) = inner.listing.get_or_insert_default();
        *told = (*told).max(object.version());
        objects.put(self.kind, Arc::new(object));
    }

    /// The list is complete: it is what there is.
    pub fn end_list(&self) {
        let mut inner = self.write();
        (inner.objects, inner.told) = inner.listing.take().unwrap_or_default();
        inner.listed_at = Some(Instant::now());
    }

    /// The watch told of an object; whether that is news to anybody.
    pub fn changed(&self, object: Arc<Object>) -> bool {
        let mut inner = self.write();
        inner.told = inner.told.max(object.version());
        let known = inner.objects.get(object.meta.namespace.as_deref().unwrap_or_default(), object.name());
        // What this process wrote since may be newer, also under a name that was taken before; and what it wrote last is
        // there already, and read.
        match known {
            Some(known) if known.meta.resource_version == object.meta.resource_version => {
                return !known.quiet;
            }
            Some(known) if known.version() > object.version() => {}
            _ => inner.objects.put(self.kind, object),
        }
        true
    }

    /// The watch told that an object is gone.
    pub fn gone(&self, object: &Object) {
        let mut inner = self.write();
        inner.told = inner.told.max(object.version());
        let known = inner.objects.get(object.meta.namespace.as_deref().unwrap_or_default(), object.name());
        if known.is_some_and(|known| known.uid() == object.uid()) {
            inner.objects.remove(self.kind, object);
        }
    }

    /// Puts in what this process wrote, in a call that began then. What the watch has told already, or a list that ended
    /// since may have known, is not put in again: it may have been deleted since. A list under way replaces it.
    pub fn wrote(&self, object: Object, began: Instant) {
        let mut inner = self.write();
        let listed_since = inner.listed_at.is_none_or(|at| at >= began);
        if !listed_since && object.version() > inner.told {
            let object = Arc::new(object);
            let namespace = object.meta.namespace.as_deref().unwrap_or_default();
            let newer = inner.objects.get(namespace, object.name()).map_or(0, |known| known.version());
            if object.version() > newer {
                inner.objects.put(self.kind, object);
            }
        }
    }

    /// One object.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<Object>> {
        self.read().objects.get(namespace, name).cloned()
    }

    /// Objects of a namespace.
    pub fn near(&self, namespace: &str) -> Vec<Arc<Object>> {
        self.read().objects.by_name.get(namespace).into_iter().flat_map(HashMap::values).cloned().collect()
    }

    /// Objects of a namespace that belong to one of these.
    pub fn owned(&self, namespace: &str, owners: &[String]) -> Vec<Arc<Object>> {
        let inner = self.read();
        let mut found: Vec<Arc<Object>> = Vec::new();
        for object in owners.iter().flat_map(|owner| inner.objects.owned(namespace, owner)) {
            if !found.iter().any(|known| Arc::ptr_eq(known, object)) {
                found.push(object.clone());
            }
        }
        found
    }

    /// All objects.
    pub fn all(&self) -> Vec<Arc<Object>> {
        self.read().objects.by_name.values().flat_map(HashMap::values).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    fn set(name: &str, version: u32, owner: &str) -> Object {
        Object::new(json!({
            "metadata": {"namespace": "shop", "name": name, "uid": name, "resourceVersion": version.to_string(),
                "managedFields": [{"manager": "x"}],
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "Deployment", "name": owner, "uid": "d"}]},
            "spec": {"replicas": version},
        }))
        .expect("an object")
    }

    fn listed(objects: Vec<Object>) -> Store {
        let store = Store::new(Watched::ReplicaSet);
        store.begin_list();
        for object in objects {
            store.list_one(object);
        }
        store.end_list();
        store
    }

    fn version(store: &Store, name: &str) -> Option<u128> {
        store.get("shop", name).map(|object| object.version())
    }

    #[test]
    fn what_was_written_is_there_before_the_watch_tells_it() {
        let store = listed(vec![set("web-1", 5, "web")]);
        let began = Instant::now() + Duration::from_millis(1);
        store.wrote(set("web-1", 8, "web"), began);
        store.wrote(set("web-2", 9, "web"), began);
        assert_eq!((version(&store, "web-1"), version(&store, "web-2")), (Some(8), Some(9)));
        // The watch is late: it tells an older state of what was written.
        store.changed(Arc::new(set("web-1", 7, "web")));
        assert_eq!(version(&store, "web-1"), Some(8));
        let written = store.get("shop", "web-1").expect("it is there");
        assert!(store.changed(Arc::new(set("web-1", 8, "web"))));
        let known = store.get("shop", "web-1").expect("it is there");
        assert!(Arc::ptr_eq(&known, &written), "what was read of it is not read again");
        store.changed(Arc::new(set("web-1", 10, "web")));
        assert_eq!(version(&store, "web-1"), Some(10));
    }

    #[test]
    fn numbers_that_this_process_wrote_are_no_news() {
        let store = listed(vec![set("web-1", 5, "web")]);
        let began = Instant::now() + Duration::from_millis(1);
        store.wrote(Object { quiet: true, ..set("web-1", 8, "web") }, began);
        assert!(store.changed(Arc::new(set("web-1", 7, "web"))), "it is of somebody else");
        assert!(!store.changed(Arc::new(set("web-1", 8, "web"))));
        assert!(store.changed(Arc::new(set("web-1", 9, "web"))));
    }

    #[test]
    fn what_was_deleted_meanwhile_does_not_come_back() {
        let store = listed(vec![set("web-1", 5, "web")]);
        let began = Instant::now() + Duration::from_millis(1);
        store.gone(&set("web-1", 9, "web"));
        store.wrote(set("web-1", 8, "web"), began);
        assert_eq!(version(&store, "web-1"), None, "the answer came after the news of its end");
        // And after a list that did not have it any more.
        let store = listed(Vec::new());
        store.wrote(set("web-1", 8, "web"), Instant::now() - Duration::from_secs(1));
        assert_eq!(version(&store, "web-1"), None);
    }

    #[test]
    fn a_name_that_is_taken_again_is_another_object() {
        let store = listed(vec![set("web-1", 9, "web")]);
        let mut other = set("web-1", 8, "web");
        other.meta.uid = Some("other".to_owned());
        store.gone(&other);
        assert_eq!(version(&store, "web-1"), Some(9));
    }

    #[test]
    fn late_news_of_an_old_object_does_not_hide_the_new_one_of_its_name() {
        let store = listed(vec![set("web-1", 5, "web")]);
        let mut new = set("web-1", 9, "web");
        new.meta.uid = Some("new".to_owned());
        store.wrote(new, Instant::now() + Duration::from_millis(1));
        store.changed(Arc::new(set("web-1", 7, "web")));
        store.gone(&set("web-1", 8, "web"));
        assert_eq!(version(&store, "web-1"), Some(9));
    }

    #[test]
    fn what_was_written_while_a_list_is_under_way_is_known_until_the_list_is_complete() {
        let store = listed(vec![set("web-1", 5, "web")]);
        let began = Instant::now() + Duration::from_millis(1);
        store.begin_list();
        store.list_one(set("web-0", 20, "web"));
        store.wrote(set("web-1", 8, "web"), began);
        assert_eq!(version(&store, "web-1"), Some(8), "lists may fail for long");
        store.end_list();
        assert_eq!(version(&store, "web-1"), None, "the list did not have it any more");
    }

    #[test]
    fn objects_are_found_by_what_they_belong_to() {
        let store = listed(vec![set("web-1", 1, "web"), set("api-1", 2, "api")]);
        let names = |owner: &str| -> Vec<String> {
            store.owned("shop", &[of_deployment(owner)]).iter().map(|object| object.name_any()).collect()
        };
        assert_eq!(names("web"), ["web-1"]);
        store.changed(Arc::new(set("web-1", 3, "api")));
        assert_eq!((names("web").len(), names("api").len()), (0, 2), "it changed hands");
        store.gone(&set("api-1", 4, "api"));
        assert_eq!(names("api"), ["web-1"]);
        assert!(store.owned("elsewhere", &[of_deployment("api")]).is_empty());
    }

    #[test]
    fn fields_that_our_types_do_not_know_are_kept_and_managed_fields_are_not() {
        let object = set("web-1", 3, "web");
        assert!(
            object.value["metadata"].get("managedFields").is_none() && object.meta.managed_fields.is_none()
        );
        assert_eq!(object.value["spec"]["replicas"], 3);
        assert_eq!(serde_json::to_value(&object).ok(), Some(object.value.clone()));
    }
}
