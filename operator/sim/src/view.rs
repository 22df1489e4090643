//! What one instance of the controller sees: its own caches, which may lag, or the API server itself.

use std::collections::BTreeMap;
use std::rc::Rc;

use jiff::Timestamp;
use serde_json::Value;
use sluice_core::observed::{self, Observed, Seen};
use sluice_core::view::{ReplicaSet, Workload};

use crate::api::{Objects, Res, text};
use crate::fixture::NAME;
use crate::pods::Pods;

/// What a lagging watch is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watch {
    /// Objects of a kind.
    Of(Res),
    /// The rollout.
    Rollout,
}

/// Caches of one instance: those that lag still show an older state.
#[derive(Debug, Default)]
pub struct Caches(Vec<(Watch, Objects, Timestamp)>);

impl Caches {
    /// Stops a watch at what is there now, until then.
    pub fn freeze(&mut self, watch: Watch, now: &Objects, until: Timestamp) {
        self.0.retain(|(frozen, _, _)| *frozen != watch);
        self.0.push((watch, now.clone(), until));
    }

    /// The rollout is known as it is now.
    pub fn caught_up(&mut self) {
        self.0.retain(|(watch, _, _)| *watch != Watch::Rollout);
    }

    /// Forgets everything: a new process lists first.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// What the caches show.
    pub fn show(&mut self, now: &Objects, at: Timestamp) -> Objects {
        self.0.retain(|(_, _, until)| *until > at);
        let mut shown = now.clone();
        for (watch, old, _) in &self.0 {
            match watch {
                Watch::Rollout => shown.rollout.clone_from(&old.rollout),
                Watch::Of(res) => {
                    shown.raw.retain(|(kind, _), _| kind != res);
                    shown.raw.extend(
                        old.raw
                            .iter()
                            .filter(|((kind, _), _)| kind == res)
                            .map(|(k, v)| (k.clone(), v.clone())),
                    );
                }
            }
        }
        shown
    }
}

/// Views that were read before, by resourceVersion.
#[derive(Debug, Default)]
pub struct Views {
    workloads: BTreeMap<String, Workload>,
    sets: BTreeMap<String, ReplicaSet>,
}

impl Views {
    fn workload(&mut self, object: &Value) -> Workload {
        let version = text(object, "/metadata/resourceVersion").to_owned();
        self.workloads.entry(version).or_insert_with(|| Workload::read(object)).clone()
    }

    fn set(&mut self, object: &Value) -> ReplicaSet {
        let version = text(object, "/metadata/resourceVersion").to_owned();
        self.sets.entry(version).or_insert_with(|| ReplicaSet::read(object)).clone()
    }

    /// What a decision sees of these objects; kinds that can't be read are unseen.
    pub fn observe(&mut self, objects: &Objects, pods: &Pods, unreadable: &[Res], at: Timestamp) -> Observed {
        let list = |res: Res| -> Seen<Vec<Value>> {
            if unreadable.contains(&res) {
                return Seen::Unseen("forbidden".to_owned());
            }
            Seen::Seen(objects.list(res).map(|object| (**object).clone()).collect())
        };
        let run = objects.rollout.as_ref().and_then(|r| r.status.as_ref()).and_then(|s| s.run.as_ref());
        let canary_pods = run.map(|run| pods.of(&run.canary.replica_set).map(|pod| pod.json(at)).collect());
        let mut seen = Observed::read(observed::Objects {
            deployment: Seen::Seen(None),
            replica_sets: Seen::Seen(Vec::new()),
            services: list(Res::Service),
            endpoint_slices: list(Res::EndpointSlice),
            routes: list(Res::Route),
            canary_pods: Seen::Seen(canary_pods.unwrap_or_default()),
            rivals: Vec::new(),
        });
        // Digests are dear in a test build: an object that did not change is read once.
        if unreadable.contains(&Res::Deployment) {
            seen.workload = Seen::Unseen("forbidden".to_owned());
        } else {
            let object: Option<Rc<Value>> = objects.get(Res::Deployment, NAME).cloned();
            seen.workload = Seen::Seen(object.map(|object| self.workload(&object)));
        }
        if unreadable.contains(&Res::ReplicaSet) {
            seen.replica_sets = Seen::Unseen("forbidden".to_owned());
        } else {
            let mut sets: Vec<ReplicaSet> = objects.list(Res::ReplicaSet).map(|set| self.set(set)).collect();
            sets.sort_by(|a, b| (&a.created, &a.name).cmp(&(&b.created, &b.name)));
            seen.replica_sets = Seen::Seen(sets);
        }
        seen
    }
}
