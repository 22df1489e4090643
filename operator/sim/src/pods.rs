//! The ReplicaSet and EndpointSlice controllers, and pods: ready after a while, never, crashing, flapping.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};
use sluice_core::api::{LABEL_HASH, LABEL_ROLLOUT};

use crate::admission::Actor;
use crate::api::{Api, Res, int, map, text};
use crate::native::Memo;

/// A pod.
#[derive(Clone, Debug)]
pub struct Pod {
    /// Name: its ReplicaSet's, a dash, five characters.
    pub name: String,
    /// Name of its ReplicaSet.
    pub set: String,
    /// UID of its ReplicaSet.
    pub set_uid: String,
    /// Labels.
    pub labels: Map<String, Value>,
    /// Image of its container, which tells how it behaves.
    pub image: String,
    /// Digest of its template.
    pub digest: String,
    /// When it was made.
    pub born: Timestamp,
    /// Whether it is ready.
    pub ready: bool,
    /// Seconds that it takes longer to be ready than others of its image.
    pub delay: i64,
}

impl Pod {
    /// How its image behaves.
    pub fn behaviour(&self) -> Behaviour {
        Behaviour::of(&self.image)
    }

    fn is_due(&self, at: Timestamp) -> bool {
        self.behaviour().ready_after().is_some_and(|seconds| later(self.born, seconds + self.delay) <= at)
    }

    /// As the API server shows it: only what decisions read.
    pub fn json(&self, at: Timestamp) -> Value {
        let mut status = json!({"conditions": [{
            "type": "Ready", "status": if self.ready { "True" } else { "False" }, "message": "",
        }]});
        if self.behaviour() == Behaviour::Crashes && at >= later(self.born, CRASH_SECONDS) {
            status["containerStatuses"] = json!([{
                "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off restarting failed container"}},
            }]);
        }
        json!({"metadata": {"name": self.name, "labels": self.labels}, "status": status})
    }
}

/// Seconds until a crashing container is seen as such.
const CRASH_SECONDS: i64 = 3;

/// How the pods of an image behave: `web:<behaviour>-<number>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// Ready after 2 s, answers well.
    Good,
    /// Ready after 2 s, fails requests.
    Bad,
    /// Ready after 8 s, answers well.
    Slow,
    /// Never ready.
    Never,
    /// Crashes again and again.
    Crashes,
    /// Answers well until it serves everything.
    Late,
}

impl Behaviour {
    /// Reads it from the image.
    pub fn of(image: &str) -> Self {
        let tag = image.split_once(':').map_or(image, |(_, tag)| tag);
        match tag.split('-').next().unwrap_or_default() {
            "bad" => Self::Bad,
            "slow" => Self::Slow,
            "never" => Self::Never,
            "crash" => Self::Crashes,
            "late" => Self::Late,
            _ => Self::Good,
        }
    }

    fn ready_after(self) -> Option<i64> {
        match self {
            Self::Good | Self::Bad | Self::Late => Some(2),
            Self::Slow => Some(8),
            Self::Never | Self::Crashes => None,
        }
    }
}

/// So many seconds later.
pub fn later(at: Timestamp, seconds: i64) -> Timestamp {
    at.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX)
}

/// All pods, and the controllers that make them and their endpoints.
#[derive(Clone, Debug, Default)]
pub struct Pods {
    /// Pods by name.
    pub all: BTreeMap<String, Pod>,
    /// Hashes whose pods are not ready until then.
    pub flapping: Vec<(String, Timestamp)>,
    /// Seconds that pods made from here on take longer to be ready.
    pub delay: i64,
    made: u32,
    /// Pods that went with the last pod of a ReplicaSet that we keep, since the last look.
    pub ended: Vec<Pod>,
}

impl Pods {
    /// Whether some pod will be ready, or stop being so, in the next sync.
    pub fn stir(&self, at: Timestamp) -> bool {
        !self.flapping.is_empty() || self.all.values().any(|pod| pod.is_due(at) != pod.ready)
    }

    /// Pods of a ReplicaSet.
    pub fn of<'a>(&'a self, set: &'a str) -> impl Iterator<Item = &'a Pod> {
        self.all.values().filter(move |pod| pod.set == set)
    }

    /// One sync of every ReplicaSet: pods, readiness, status.
    pub fn sync(&mut self, api: &mut Api, memo: &mut Memo, at: Timestamp) {
        let sets: Vec<_> = api.now.list(Res::ReplicaSet).cloned().collect();
        let uids: BTreeSet<&str> = sets.iter().map(|set| text(set, "/metadata/uid")).collect();
        let gone: Vec<String> = self
            .all
            .values()
            .filter(|p| !uids.contains(p.set_uid.as_str()))
            .map(|p| p.name.clone())
            .collect();
        for name in gone {
            self.remove(&name, true);
        }
        for set in &sets {
            self.fit(set, memo, at);
        }
        self.flapping.retain(|(_, until)| *until > at);
        for pod in self.all.values_mut() {
            let hash = pod.labels.get(LABEL_HASH).and_then(Value::as_str).unwrap_or_default();
            let flaps = self.flapping.iter().any(|(flapping, _)| flapping == hash);
            pod.ready = pod.is_due(at) && !flaps;
        }
        for set in &sets {
            let name = text(set, "/metadata/name");
            let (mut count, mut ready) = (0, 0);
            for pod in self.of(name) {
                count += 1;
                ready += i64::from(pod.ready);
            }
            let generation = int(set, "/metadata/generation").unwrap_or(0);
            let status = json!({
                "observedGeneration": generation, "replicas": count, "readyReplicas": ready, "availableReplicas": ready,
            });
            if set.get("status") != Some(&status) {
                let _ = api.update(Res::ReplicaSet, name, Actor::Native, |set| set["status"] = status);
            }
        }
    }

    fn remove(&mut self, name: &str, ended: bool) {
        if let Some(pod) = self.all.remove(name).filter(|_| ended) {
            self.ended.push(pod);
        }
    }

    /// Kills one pod, as a node would; its ReplicaSet makes another.
    pub fn kill(&mut self, name: &str) {
        self.all.remove(name);
    }

    fn fit(&mut self, set: &Value, memo: &mut Memo, at: Timestamp) {
        let name = text(set, "/metadata/name");
        let wanted = int(set, "/spec/replicas").unwrap_or(1);
        let mut have: Vec<(bool, Timestamp, String)> =
            self.of(name).map(|pod| (pod.ready, pod.born, pod.name.clone())).collect();
        let count = i64::try_from(have.len()).unwrap_or(0);
        if count > wanted {
            let ours = map(set, "/metadata/labels").contains_key(LABEL_ROLLOUT);
            // Not ready first, then the youngest.
            have.sort_by(|a, b| {
                (a.0, std::cmp::Reverse(a.1), &a.2).cmp(&(b.0, std::cmp::Reverse(b.1), &b.2))
            });
            let surplus = usize::try_from(count - wanted).unwrap_or(0);
            for (_, _, pod) in have.into_iter().take(surplus) {
                self.remove(&pod, ours && wanted == 0);
            }
            return;
        }
        for _ in count..wanted {
            self.made += 1;
            let pod = format!("{name}-{:05}", self.made);
            self.all.insert(
                pod.clone(),
                Pod {
                    name: pod,
                    set: name.to_owned(),
                    set_uid: text(set, "/metadata/uid").to_owned(),
                    labels: map(set, "/spec/template/metadata/labels"),
                    image: text(set, "/spec/template/spec/containers/0/image").to_owned(),
                    digest: memo.template(set),
                    born: at,
                    ready: false,
                    delay: self.delay,
                },
            );
        }
    }

    /// One sync of every Service's EndpointSlice.
    pub fn sync_endpoints(&self, api: &mut Api, at: Timestamp) {
        let services: Vec<_> = api.now.list(Res::Service).cloned().collect();
        for service in &services {
            let name = text(service, "/metadata/name");
            let selector = map(service, "/spec/selector");
            let endpoints: Vec<Value> = self
                .all
                .values()
                .filter(|pod| {
                    !selector.is_empty() && selector.iter().all(|(k, v)| pod.labels.get(k) == Some(v))
                })
                .map(|pod| {
                    json!({"targetRef": {"kind": "Pod", "name": pod.name},
                        "conditions": {"ready": pod.ready, "terminating": false}})
                })
                .collect();
            let slice = format!("{name}-slice");
            let endpoints = json!(endpoints);
            match api.now.get(Res::EndpointSlice, &slice) {
                Some(old) if old.get("endpoints") == Some(&endpoints) => {}
                Some(_) => {
                    let _ =
                        api.update(Res::EndpointSlice, &slice, Actor::Native, |s| s["endpoints"] = endpoints);
                }
                None => {
                    let _ = api.create(
                        Res::EndpointSlice,
                        json!({
                            "metadata": {"name": slice, "labels": {"kubernetes.io/service-name": name}},
                            "endpoints": endpoints,
                        }),
                        at,
                    );
                }
            }
        }
    }
}
