//! The Deployment controller of Kubernetes 1.36, as far as a run can meet it: adoption by labels and template
//! equality (oldest first), what it does while paused, scaling events, rolling updates, clean-up of history.
//!
//! Written after `pkg/controller/deployment/{sync,rolling}.go`; names follow that source where it helps.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Value, json};
use sluice_core::api::LABEL_HASH;
use sluice_core::digest;

use crate::admission::Actor;
use crate::api::{Api, Res, at, int, map, text};

const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
const MAX: &str = "deployment.kubernetes.io/max-replicas";
const REVISION: &str = "deployment.kubernetes.io/revision";

/// Digests by UID and generation: a template that did not change is not hashed again.
#[derive(Clone, Debug, Default)]
pub struct Memo(BTreeMap<(String, i64), String>);

impl Memo {
    /// Digest of the pod template of a Deployment or ReplicaSet.
    pub fn template(&mut self, object: &Value) -> String {
        let key = (
            text(object, "/metadata/uid").to_owned(),
            int(object, "/metadata/generation").unwrap_or_default(),
        );
        let template = object.pointer("/spec/template");
        self.0.entry(key).or_insert_with(|| digest::template(template.unwrap_or(&Value::Null))).clone()
    }
}

/// A template that the native controller rolls out by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rolled {
    /// Digest of the template.
    pub digest: String,
}

struct Set {
    name: String,
    created: String,
    replicas: i64,
    status_replicas: i64,
    available: i64,
    observed: bool,
    digest: String,
    desired: Option<i64>,
    max: Option<i64>,
    revision: i64,
}

struct Deployment {
    name: String,
    uid: String,
    replicas: i64,
    paused: bool,
    digest: String,
    surge: i64,
    unavailable: i64,
    history: i64,
    status_replicas: i64,
}

impl Deployment {
    fn read(object: &Value, memo: &mut Memo) -> Self {
        let rolling = |field: &str, fallback| {
            int(object, &format!("/spec/strategy/rollingUpdate/{field}")).unwrap_or(fallback)
        };
        Self {
            name: text(object, "/metadata/name").to_owned(),
            uid: text(object, "/metadata/uid").to_owned(),
            replicas: int(object, "/spec/replicas").unwrap_or(1),
            paused: at(object, "/spec/paused").and_then(Value::as_bool).unwrap_or(false),
            digest: memo.template(object),
            surge: rolling("maxSurge", 1),
            unavailable: rolling("maxUnavailable", 0),
            history: int(object, "/spec/revisionHistoryLimit").unwrap_or(10),
            status_replicas: int(object, "/status/replicas").unwrap_or(0),
        }
    }
}

/// One sync of every Deployment. Returns the templates that it rolls out by itself.
pub fn sync(api: &mut Api, memo: &mut Memo, at: Timestamp) -> Vec<Rolled> {
    let names: Vec<String> =
        api.now.list(Res::Deployment).map(|d| text(d, "/metadata/name").to_owned()).collect();
    names.iter().filter_map(|name| sync_one(api, memo, name, at)).collect()
}

fn sync_one(api: &mut Api, memo: &mut Memo, name: &str, at: Timestamp) -> Option<Rolled> {
    let object = api.now.get(Res::Deployment, name)?.clone();
    let d = Deployment::read(&object, memo);
    claim(api, &object, &d.uid);
    let mut sets = visible(api, memo, &object, &d.uid);
    let new = find_new(&sets, &d.digest);
    if let Some(index) = new {
        sync_revision(api, &mut sets, index);
    }
    let scaling = sets.iter().any(|set| set.replicas > 0 && set.desired.is_some_and(|n| n != d.replicas));
    let mut rolled = None;
    if d.paused {
        scale(api, &d, &sets, new);
        clean_up(api, &d, &sets, new);
    } else if scaling {
        scale(api, &d, &sets, new);
    } else {
        rolled = roll(api, &d, &sets, new, &object, at);
    }
    let sets = visible(api, memo, &object, &d.uid);
    write_status(api, &d, &sets, &object);
    rolled
}

fn selects(object: &Value, labels: &serde_json::Map<String, Value>) -> bool {
    map(object, "/spec/selector/matchLabels").iter().all(|(key, value)| labels.get(key) == Some(value))
}

fn controller_of(set: &Value) -> Option<&str> {
    let owners = at(set, "/metadata/ownerReferences").and_then(Value::as_array)?;
    let found = owners.iter().find(|o| o.get("controller").and_then(Value::as_bool) == Some(true))?;
    Some(text(found, "/uid"))
}

/// Adopts matching orphans, releases what no longer matches.
fn claim(api: &mut Api, deployment: &Value, uid: &str) {
    let sets: Vec<_> = api.now.list(Res::ReplicaSet).cloned().collect();
    for set in sets {
        let name = text(&set, "/metadata/name").to_owned();
        let matches = selects(deployment, &map(&set, "/metadata/labels"));
        let owner = json!([{
            "apiVersion": "apps/v1", "kind": "Deployment", "name": text(deployment, "/metadata/name"),
            "uid": uid, "controller": true, "blockOwnerDeletion": true,
        }]);
        match controller_of(&set) {
            None if matches => {
                let _ = api.update(Res::ReplicaSet, &name, Actor::Native, |set| {
                    set["metadata"]["ownerReferences"] = owner;
                });
            }
            Some(controller) if controller == uid && !matches => {
                let _ = api.update(Res::ReplicaSet, &name, Actor::Native, |set| {
                    set["metadata"]["ownerReferences"] = json!([]);
                });
            }
            _ => {}
        }
    }
}

/// ReplicaSets that the controller sees as the Deployment's, oldest first.
fn visible(api: &Api, memo: &mut Memo, deployment: &Value, uid: &str) -> Vec<Set> {
    let mut sets: Vec<Set> = api
        .now
        .list(Res::ReplicaSet)
        .filter(|set| controller_of(set) == Some(uid) && selects(deployment, &map(set, "/metadata/labels")))
        .map(|set| {
            let note = |key: &str| {
                let notes = at(set, "/metadata/annotations");
                notes.and_then(|n| n.get(key)).and_then(Value::as_str).and_then(|n| n.parse().ok())
            };
            let generation = int(set, "/metadata/generation").unwrap_or(0);
            Set {
                name: text(set, "/metadata/name").to_owned(),
                created: text(set, "/metadata/creationTimestamp").to_owned(),
                replicas: int(set, "/spec/replicas").unwrap_or(1),
                status_replicas: int(set, "/status/replicas").unwrap_or(0),
                available: int(set, "/status/availableReplicas").unwrap_or(0),
                observed: int(set, "/status/observedGeneration").unwrap_or(0) >= generation,
                digest: memo.template(set),
                desired: note(DESIRED),
                max: note(MAX),
                revision: note(REVISION).unwrap_or(0),
            }
        })
        .collect();
    sets.sort_by(|a, b| (&a.created, &a.name).cmp(&(&b.created, &b.name)));
    sets
}

fn find_new(sets: &[Set], digest: &str) -> Option<usize> {
    sets.iter().position(|set| set.digest == digest)
}

/// The newest template has the highest revision number among the visible ones.
fn sync_revision(api: &mut Api, sets: &mut [Set], new: usize) {
    let most =
        sets.iter().enumerate().filter(|(i, _)| *i != new).map(|(_, set)| set.revision).max().unwrap_or(0);
    if sets[new].revision > most {
        return;
    }
    sets[new].revision = most + 1;
    let _ = api.update(Res::ReplicaSet, &sets[new].name.clone(), Actor::Native, |set| {
        set["metadata"]["annotations"][REVISION] = json!((most + 1).to_string());
    });
}

fn set_replicas(api: &mut Api, d: &Deployment, set: &Set, replicas: i64) {
    let _ = api.update(Res::ReplicaSet, &set.name, Actor::Native, |object| {
        object["spec"]["replicas"] = json!(replicas);
        object["metadata"]["annotations"][DESIRED] = json!(d.replicas.to_string());
        object["metadata"]["annotations"][MAX] = json!((d.replicas + d.surge).to_string());
    });
}

fn scale(api: &mut Api, d: &Deployment, sets: &[Set], new: Option<usize>) {
    let active: Vec<usize> = (0..sets.len()).filter(|i| sets[*i].replicas > 0).collect();
    let only = match active.as_slice() {
        // Nothing active: the new one, else the newest by creation, whatever it is.
        [] => new.or_else(|| sets.len().checked_sub(1)),
        [one] => Some(*one),
        _ => None,
    };
    if active.len() <= 1 {
        if let Some(only) = only.filter(|only| sets[*only].replicas != d.replicas) {
            set_replicas(api, d, &sets[only], d.replicas);
        }
        return;
    }
    let saturated = new.is_some_and(|i| {
        let set = &sets[i];
        set.replicas == d.replicas && set.desired == Some(d.replicas) && set.available == d.replicas
    });
    if saturated {
        for old in active.iter().filter(|i| Some(**i) != new) {
            set_replicas(api, d, &sets[*old], 0);
        }
        return;
    }
    proportional(api, d, sets, &active);
}

fn proportional(api: &mut Api, d: &Deployment, sets: &[Set], active: &[usize]) {
    let total: i64 = active.iter().map(|i| sets[*i].replicas).sum();
    let allowed = if d.replicas > 0 { d.replicas + d.surge } else { 0 };
    let to_add = allowed - total;
    let mut order = active.to_vec();
    // Larger first; among equals newer first on the way up, older first on the way down.
    order.sort_by_key(|i| {
        (
            -sets[*i].replicas,
            if to_add > 0 { -(i64::try_from(*i).unwrap_or(0)) } else { i64::try_from(*i).unwrap_or(0) },
        )
    });
    let mut added = 0;
    let mut sizes: Vec<i64> = Vec::new();
    for i in &order {
        let set = &sets[*i];
        let share = if to_add == 0 {
            0
        } else {
            fraction(d, set).clamp((to_add - added).min(0), (to_add - added).max(0))
        };
        added += share;
        sizes.push(set.replicas + share);
    }
    if let Some(first) = sizes.first_mut() {
        *first = (*first + to_add - added).max(0);
    }
    for (i, size) in order.iter().zip(sizes) {
        let set = &sets[*i];
        let annotated = set.desired == Some(d.replicas) && set.max == Some(d.replicas + d.surge);
        if set.replicas != size || !annotated {
            set_replicas(api, d, set, size);
        }
    }
}

/// Change of one ReplicaSet in proportion to the Deployment's change.
#[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)] // pod counts are small
fn fraction(d: &Deployment, set: &Set) -> i64 {
    if d.replicas == 0 {
        return -set.replicas;
    }
    let before = set.max.filter(|max| *max > 0).unwrap_or(d.status_replicas);
    if before == 0 {
        return 0;
    }
    let wanted = (set.replicas * (d.replicas + d.surge)) as f64 / before as f64;
    wanted.round() as i64 - set.replicas
}

fn roll(
    api: &mut Api,
    d: &Deployment,
    sets: &[Set],
    new: Option<usize>,
    object: &Value,
    at: Timestamp,
) -> Option<Rolled> {
    let total: i64 = sets.iter().map(|set| set.replicas).sum();
    let room = (d.replicas + d.surge - total).max(0);
    let Some(new) = new else {
        let replicas = room.min(d.replicas);
        create(api, d, object, replicas, at);
        return Some(Rolled { digest: d.digest.clone() });
    };
    let newest = &sets[new];
    let others = total - newest.replicas;
    let rolled = (others > 0).then(|| Rolled { digest: d.digest.clone() });
    if newest.replicas != d.replicas {
        let wanted = if newest.replicas > d.replicas {
            d.replicas
        } else {
            newest.replicas + room.min(d.replicas - newest.replicas)
        };
        if wanted != newest.replicas {
            set_replicas(api, d, newest, wanted);
            return rolled;
        }
    }
    if others > 0 {
        scale_down_old(api, d, sets, new, total);
        return rolled;
    }
    if newest.status_replicas == d.replicas && newest.available == d.replicas {
        clean_up(api, d, sets, Some(new));
    }
    rolled
}

fn scale_down_old(api: &mut Api, d: &Deployment, sets: &[Set], new: usize, total: i64) {
    let least = d.replicas - d.unavailable;
    let most = total - least - (sets[new].replicas - sets[new].available);
    if most <= 0 {
        return;
    }
    let mut sizes: BTreeMap<usize, i64> = BTreeMap::new();
    let mut cleaned = 0;
    for (i, set) in sets.iter().enumerate().filter(|(i, set)| *i != new && set.replicas > 0) {
        let unhealthy = (set.replicas - set.available).min(most - cleaned).max(0);
        cleaned += unhealthy;
        sizes.insert(i, set.replicas - unhealthy);
    }
    let available: i64 = sets.iter().map(|set| set.available).sum();
    let mut down = (available - least).max(0);
    for size in sizes.values_mut() {
        let step = down.min(*size);
        *size -= step;
        down -= step;
    }
    for (i, size) in sizes {
        if size != sets[i].replicas {
            set_replicas(api, d, &sets[i], size);
        }
    }
}

fn create(api: &mut Api, d: &Deployment, object: &Value, replicas: i64, at: Timestamp) {
    let mut template = object.pointer("/spec/template").cloned().unwrap_or_default();
    // Any hash will do, as long as it is not ours; a name that is taken gets another one.
    for collision in 0..5 {
        let hash = digest::hash_label(&format!("native {} {collision}", d.digest));
        let name = format!("{}-{hash}", d.name);
        template["metadata"]["labels"][LABEL_HASH] = json!(hash);
        let mut selector = object.pointer("/spec/selector").cloned().unwrap_or_default();
        selector["matchLabels"][LABEL_HASH] = json!(hash);
        let made = api.create(
            Res::ReplicaSet,
            json!({
                "apiVersion": "apps/v1", "kind": "ReplicaSet",
                "metadata": {
                    "name": name, "namespace": text(object, "/metadata/namespace"),
                    "labels": template["metadata"]["labels"],
                    "annotations": {
                        DESIRED: d.replicas.to_string(), MAX: (d.replicas + d.surge).to_string(), REVISION: "0",
                    },
                    "ownerReferences": [{
                        "apiVersion": "apps/v1", "kind": "Deployment", "name": d.name, "uid": d.uid,
                        "controller": true, "blockOwnerDeletion": true,
                    }],
                },
                "spec": {"replicas": replicas, "selector": selector, "template": template},
            }),
            at,
        );
        if made.is_ok() {
            return;
        }
    }
}

fn clean_up(api: &mut Api, d: &Deployment, sets: &[Set], new: Option<usize>) {
    let mut old: Vec<&Set> =
        sets.iter().enumerate().filter(|(i, _)| Some(*i) != new).map(|(_, set)| set).collect();
    old.sort_by_key(|set| set.revision);
    let excess = i64::try_from(old.len()).unwrap_or(0) - d.history;
    for set in old.iter().take(usize::try_from(excess).unwrap_or(0)) {
        if set.replicas == 0 && set.status_replicas == 0 && set.observed {
            let _ = api.delete(Res::ReplicaSet, &set.name, None);
        }
    }
}

fn write_status(api: &mut Api, d: &Deployment, sets: &[Set], seen: &Value) {
    let sum = |field: fn(&Set) -> i64| sets.iter().map(field).sum::<i64>();
    let (replicas, available) = (sum(|set| set.status_replicas), sum(|set| set.available));
    let updated = find_new(sets, &d.digest).map_or(0, |i| sets[i].status_replicas);
    let generation = int(seen, "/metadata/generation").unwrap_or(0);
    let _ = api.update(Res::Deployment, &d.name, Actor::Native, |object| {
        object["status"] = json!({
            "observedGeneration": generation, "replicas": replicas, "updatedReplicas": updated,
            "availableReplicas": available, "readyReplicas": available,
        });
    });
}
