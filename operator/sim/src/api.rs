//! A model of the API server: objects with versions, JSON Patch with `test`, finalizers, garbage collection.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::ops::Deref;
use std::rc::Rc;

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use sluice_core::action::{Kind, PatchOp};
use sluice_core::api::{ProgressiveRollout, ProgressiveRolloutStatus};

use crate::admission::{self, Actor};
use crate::view::View;

/// Kinds that the world keeps as raw JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Res {
    /// `apps/v1` Deployment.
    Deployment,
    /// `apps/v1` ReplicaSet.
    ReplicaSet,
    /// `v1` Service.
    Service,
    /// `discovery.k8s.io/v1` EndpointSlice.
    EndpointSlice,
    /// HTTPRoute.
    Route,
}

impl Res {
    /// All kinds.
    pub const ALL: [Self; 5] =
        [Self::Deployment, Self::ReplicaSet, Self::Service, Self::EndpointSlice, Self::Route];

    /// The kind that an action names; the rollout itself is kept apart.
    pub fn of(kind: Kind) -> Option<Self> {
        match kind {
            Kind::Deployment => Some(Self::Deployment),
            Kind::ReplicaSet => Some(Self::ReplicaSet),
            Kind::Service => Some(Self::Service),
            Kind::HTTPRoute => Some(Self::Route),
            Kind::ProgressiveRollout => None,
        }
    }
}

/// Why a write did not happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// No such object.
    NotFound,
    /// It exists already.
    Exists,
    /// A `test`, a UID or a resourceVersion did not fit: the world moved.
    Moved(String),
    /// Admission said no.
    Denied(String),
}

/// One version of an object, with what was once read from it.
#[derive(Debug)]
pub struct Object {
    value: Value,
    /// The core's view of it.
    pub view: OnceCell<View>,
}

impl Deref for Object {
    type Target = Value;

    fn deref(&self) -> &Value {
        &self.value
    }
}

fn object(value: Value) -> Rc<Object> {
    Rc::new(Object { value, view: OnceCell::new() })
}

/// All objects at one moment. Cloning is cheap: a cache that lags keeps an old one.
#[derive(Clone, Debug, Default)]
pub struct Objects {
    /// Everything but rollouts.
    pub raw: Rc<BTreeMap<(Res, String), Rc<Object>>>,
    /// The one rollout of the world.
    pub rollout: Option<Rc<ProgressiveRollout>>,
}

impl Objects {
    /// One object.
    pub fn get(&self, res: Res, name: &str) -> Option<&Rc<Object>> {
        self.raw.get(&(res, name.to_owned()))
    }

    /// All objects of a kind.
    pub fn list(&self, res: Res) -> impl Iterator<Item = &Rc<Object>> {
        self.raw
            .range((res, String::new())..)
            .take_while(move |(key, _)| key.0 == res)
            .map(|(_, value)| value)
    }
}

/// The API server.
#[derive(Clone, Debug)]
pub struct Api {
    /// Objects now.
    pub now: Objects,
    /// Whether the admission policies of the chart are installed.
    pub policies: bool,
    version: u64,
    uids: u64,
}

impl Default for Api {
    fn default() -> Self {
        Self { now: Objects::default(), policies: true, version: 100, uids: 0 }
    }
}

/// The value at a JSON pointer. Unlike serde's it does not allocate, which is most of what a story costs.
pub fn at<'a>(value: &'a Value, pointer: &str) -> Option<&'a Value> {
    if pointer.contains('~') {
        return value.pointer(pointer);
    }
    pointer.split('/').skip(1).try_fold(value, |value, token| match value {
        Value::Array(list) => list.get(token.parse::<usize>().ok()?),
        _ => value.get(token),
    })
}

/// Text at a pointer, empty when absent.
pub fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    at(value, pointer).and_then(Value::as_str).unwrap_or_default()
}

/// Integer at a pointer.
pub fn int(value: &Value, pointer: &str) -> Option<i64> {
    at(value, pointer).and_then(Value::as_i64)
}

/// Map at a pointer, empty when absent.
pub fn map(value: &Value, pointer: &str) -> Map<String, Value> {
    at(value, pointer).and_then(Value::as_object).cloned().unwrap_or_default()
}

/// Time in the form of `metadata`.
pub fn stamp(at: Timestamp) -> String {
    at.to_string()
}

impl Api {
    /// Version of the last write.
    pub fn version(&self) -> u64 {
        self.version
    }

    fn bump(&mut self) -> String {
        self.version += 1;
        self.version.to_string()
    }

    /// A new UID.
    pub fn uid(&mut self) -> String {
        self.uids += 1;
        format!("uid-{}", self.uids)
    }

    /// Creates an object.
    pub fn create(&mut self, res: Res, mut object: Value, at: Timestamp) -> Result<(), Refused> {
        let name = text(&object, "/metadata/name").to_owned();
        if self.now.raw.contains_key(&(res, name.clone())) {
            return Err(Refused::Exists);
        }
        object["metadata"]["uid"] = json!(self.uid());
        object["metadata"]["creationTimestamp"] = json!(stamp(at));
        object["metadata"]["generation"] = json!(1);
        object["metadata"]["resourceVersion"] = json!(self.bump());
        Rc::make_mut(&mut self.now.raw).insert((res, name), self::object(object));
        Ok(())
    }

    /// Replaces spec, metadata and status as `change` wrote them; nothing happens when nothing differs.
    pub fn update(
        &mut self,
        res: Res,
        name: &str,
        actor: Actor,
        change: impl FnOnce(&mut Value),
    ) -> Result<bool, Refused> {
        let Some(old) = self.now.get(res, name).cloned() else {
            return Err(Refused::NotFound);
        };
        let mut new = (**old).clone();
        change(&mut new);
        self.store(res, name, actor, &old, new)
    }

    fn store(
        &mut self,
        res: Res,
        name: &str,
        actor: Actor,
        old: &Value,
        new: Value,
    ) -> Result<bool, Refused> {
        let mut new = new;
        if res == Res::Deployment && self.policies {
            new = admission::admit(old, new, actor).map_err(Refused::Denied)?;
        }
        if new == *old {
            return Ok(false);
        }
        if new.get("spec") != old.get("spec") {
            let generation = int(old, "/metadata/generation").unwrap_or(0);
            new["metadata"]["generation"] = json!(generation + 1);
        }
        new["metadata"]["resourceVersion"] = json!(self.bump());
        Rc::make_mut(&mut self.now.raw).insert((res, name.to_owned()), object(new));
        Ok(true)
    }

    /// Applies a JSON Patch; false when it changed nothing.
    pub fn patch(&mut self, res: Res, name: &str, actor: Actor, ops: &[PatchOp]) -> Result<bool, Refused> {
        let Some(old) = self.now.get(res, name).cloned() else {
            return Err(Refused::NotFound);
        };
        let mut new = (**old).clone();
        apply(&mut new, ops)?;
        self.store(res, name, actor, &old, new)
    }

    /// Deletes an object, if it has this UID, and what it alone owned.
    pub fn delete(&mut self, res: Res, name: &str, uid: Option<&str>) -> Result<(), Refused> {
        let Some(old) = self.now.get(res, name).cloned() else {
            return Err(Refused::NotFound);
        };
        let found = text(&old, "/metadata/uid").to_owned();
        if uid.is_some_and(|uid| uid != found) {
            return Err(Refused::Moved(format!("{name} has UID {found}")));
        }
        self.bump();
        Rc::make_mut(&mut self.now.raw).remove(&(res, name.to_owned()));
        self.collect();
        Ok(())
    }

    /// Removes ReplicaSets all of whose owners are gone. One without owners stays.
    pub fn collect(&mut self) {
        let alive: Vec<String> =
            self.now.list(Res::Deployment).map(|d| text(d, "/metadata/uid").to_owned()).collect();
        let before = self.now.raw.len();
        Rc::make_mut(&mut self.now.raw).retain(|(res, _), object| {
            let owners = object.pointer("/metadata/ownerReferences").and_then(Value::as_array);
            let owners = owners.filter(|list| *res == Res::ReplicaSet && !list.is_empty());
            owners.is_none_or(|list| {
                list.iter().any(|owner| alive.iter().any(|uid| uid == text(owner, "/uid")))
            })
        });
        if self.now.raw.len() != before {
            self.bump();
        }
    }

    /// Takes all owners of this kind off, as `kubectl delete --cascade=orphan` does.
    pub fn orphan_replica_sets(&mut self) {
        let names: Vec<String> =
            self.now.list(Res::ReplicaSet).map(|set| text(set, "/metadata/name").to_owned()).collect();
        for name in names {
            let _ = self.update(Res::ReplicaSet, &name, Actor::Native, |set| {
                set["metadata"]["ownerReferences"] = json!([]);
            });
        }
    }

    // --- the rollout -----------------------------------------------------------------------------------

    /// Creates or changes the rollout as a person would.
    pub fn edit_rollout(&mut self, change: impl FnOnce(&mut ProgressiveRollout)) -> Result<(), Refused> {
        let Some(old) = self.now.rollout.clone() else {
            return Err(Refused::NotFound);
        };
        let mut new = (*old).clone();
        change(&mut new);
        if new == *old {
            return Ok(());
        }
        if new.spec != old.spec {
            new.metadata.generation = old.metadata.generation.map(|generation| generation + 1);
        }
        self.put_rollout(new);
        Ok(())
    }

    fn put_rollout(&mut self, mut new: ProgressiveRollout) {
        let gone = new.metadata.deletion_timestamp.is_some()
            && new.metadata.finalizers.as_ref().is_none_or(Vec::is_empty);
        new.metadata.resource_version = Some(self.bump());
        self.now.rollout = (!gone).then(|| Rc::new(new));
    }

    /// Creates the rollout.
    pub fn create_rollout(&mut self, mut new: ProgressiveRollout) -> Result<(), Refused> {
        if self.now.rollout.is_some() {
            return Err(Refused::Exists);
        }
        new.metadata.uid = Some(self.uid());
        new.metadata.generation = Some(1);
        self.put_rollout(new);
        Ok(())
    }

    /// Asks for the rollout's deletion: it stays while a finalizer does.
    pub fn delete_rollout(&mut self, at: Timestamp) {
        let Some(old) = self.now.rollout.clone() else {
            return;
        };
        let mut new = (*old).clone();
        if new.metadata.deletion_timestamp.is_none() {
            new.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at));
        }
        self.put_rollout(new);
    }

    /// Writes status by compare-and-swap.
    pub fn write_status(
        &mut self,
        version: &str,
        status: &ProgressiveRolloutStatus,
    ) -> Result<bool, Refused> {
        let Some(old) = self.now.rollout.clone() else {
            return Err(Refused::NotFound);
        };
        if old.metadata.resource_version.as_deref() != Some(version) {
            return Err(Refused::Moved("the rollout changed".to_owned()));
        }
        if old.status.as_ref() == Some(status) {
            return Ok(false);
        }
        let mut new = (*old).clone();
        new.status = Some(status.clone());
        self.put_rollout(new);
        Ok(true)
    }

    /// Applies a JSON Patch to the rollout.
    pub fn patch_rollout(&mut self, ops: &[PatchOp]) -> Result<bool, Refused> {
        let Some(old) = self.now.rollout.clone() else {
            return Err(Refused::NotFound);
        };
        let mut value = serde_json::to_value(&*old).map_err(|e| Refused::Denied(e.to_string()))?;
        apply(&mut value, ops)?;
        let new: ProgressiveRollout =
            serde_json::from_value(value).map_err(|e| Refused::Denied(e.to_string()))?;
        if new == *old {
            return Ok(false);
        }
        self.put_rollout(new);
        Ok(true)
    }
}

/// Applies operations as the API server does: all or none.
fn apply(value: &mut Value, ops: &[PatchOp]) -> Result<(), Refused> {
    let moved = |why: &dyn std::fmt::Display| Refused::Moved(why.to_string());
    let raw = serde_json::to_value(ops).map_err(|e| moved(&e))?;
    let patch: json_patch::Patch = serde_json::from_value(raw).map_err(|e| moved(&e))?;
    json_patch::patch(value, &patch).map_err(|e| moved(&e))
}
