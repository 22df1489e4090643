//! Pods, which are not watched: in a large cluster they are most of what changes. They are asked for when something
//! that is watched says that it is worth it.
//!
//! - While a canary lacks available pods: why, in the pods' own words.
//! - While an EndpointSlice names a pod that is not known yet: when the pods of both revisions were created. A new
//!   stable pod counts its requests from 0 only if it is known to be new, and else its first errors would be missing
//!   on stable's side alone.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use serde_json::Value;
use sluice_core::api::{LABEL_HASH, ProgressiveRollout, Run};
use sluice_core::observed::Observed;
use sluice_core::view::worst_trouble;
use tracing::debug;

use crate::client::bounded;
use crate::context::Context;
use crate::error::CallError;
use crate::watch::{Key, Watched};

/// Limit on one list of pods.
const LIMIT: Duration = Duration::from_secs(5);
/// Limit on asking when pods were created: an evaluation waits for it.
const CREATED_LIMIT: Duration = Duration::from_secs(1);
/// The pods of a canary that lacks some are looked at this often, and first after so long: most pods only need a moment,
/// and many that start at once need all that the API server has.
const TROUBLE_INTERVAL: Duration = Duration::from_secs(4);
/// Creation times are asked for at most this often, however many new pods are named meanwhile.
const CREATED_INTERVAL: Duration = Duration::from_secs(5);

/// What is known of the pods of each run.
#[derive(Default)]
pub struct PodStore {
    entries: Mutex<BTreeMap<Key, Entry>>,
}

#[derive(Default)]
struct Entry {
    run_id: String,
    /// When they were looked at, or when it was found that they are worth it.
    looked_at: Option<Instant>,
    /// The pod in the worst trouble.
    worst: Option<Value>,
    asked_at: Option<Instant>,
    created: BTreeMap<String, Timestamp>,
}

impl PodStore {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, Entry>> {
        // Fields are set whole: a panic elsewhere leaves nothing half-done.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets `f` see and change what is known of a run; what was known of an older run is dropped.
    fn with<T>(&self, key: &Key, run: &Run, f: impl FnOnce(&mut Entry) -> T) -> T {
        let mut entries = self.lock();
        let entry = entries.entry(key.clone()).or_default();
        if entry.run_id != run.id {
            *entry = Entry { run_id: run.id.clone(), ..Entry::default() };
        }
        f(entry)
    }

    /// The pods of a run's canary that are in trouble, as last seen.
    pub fn troubled(&self, key: &Key, run: &Run) -> Vec<Value> {
        self.with(key, run, |entry| entry.worst.clone().into_iter().collect())
    }

    /// Remembers the pods of a run's canary; whether their trouble is another one now.
    pub fn saw(&self, key: &Key, run: &Run, pods: &[Value]) -> bool {
        let worst = worst_trouble(pods);
        let pod = worst.as_ref().and_then(|worst| {
            pods.iter().find(|pod| pod["metadata"]["name"].as_str() == Some(worst.pod.as_str()))
        });
        self.with(key, run, |entry| {
            let before = worst_trouble(entry.worst.as_slice());
            entry.looked_at = Some(Instant::now());
            entry.worst = pod.cloned();
            before != worst
        })
    }

    /// Forgets a rollout.
    pub fn forget(&self, key: &Key) {
        self.lock().remove(key);
    }
}

/// The run whose canary's pods are worth a look: it lacks some, and goes forward.
pub fn worth_a_look<'a>(rollout: &'a ProgressiveRollout, seen: &Observed) -> Option<&'a Run> {
    let run = rollout.status.as_ref()?.run.as_ref().filter(|run| run.going_back.is_none())?;
    let set = seen.replica_set(&run.canary.replica_set)?;
    (set.available < set.replicas).then_some(run)
}

/// Looks at the pods of a canary that lacks some, beside the pass: nothing waits for it, and a new trouble wakes the
/// rollout.
pub fn look(ctx: &Arc<Context>, key: &Key, rollout: &ProgressiveRollout, seen: &Observed) {
    let Some(run) = worth_a_look(rollout, seen).cloned() else {
        return;
    };
    let due = ctx.pods.with(key, &run, |entry| {
        let since = entry.looked_at.get_or_insert_with(Instant::now);
        let due = since.elapsed() >= TROUBLE_INTERVAL;
        if due {
            *since = Instant::now();
        }
        due
    });
    if !due {
        return;
    }
    let (ctx, key) = (ctx.clone(), key.clone());
    tokio::spawn(async move {
        match of_canary(&ctx, &key, &run).await {
            Ok(pods) => {
                if ctx.pods.saw(&key, &run, &pods) {
                    let _ = ctx.queue.send(key);
                }
            }
            Err(error) => debug!(%error, "the canary's pods were not read"),
        }
    });
}

/// The pods of a run's canary.
pub async fn of_canary(ctx: &Context, key: &Key, run: &Run) -> Result<Vec<Value>, CallError> {
    let api: Api<Pod> = Api::namespaced(ctx.clients.normal.clone(), &key.namespace);
    let params = ListParams::default().labels(&format!("{LABEL_HASH}={}", run.canary.hash));
    let pods = bounded("list Pods of the canary", LIMIT, api.list(&params)).await?;
    Ok(pods.items.iter().filter_map(|pod| serde_json::to_value(pod).ok()).collect())
}

/// When each pod of a run was created, as far as known. Asks only when an EndpointSlice names a pod that is not known.
pub async fn created(ctx: &Context, key: &Key, run: &Run) -> BTreeMap<String, Timestamp> {
    let services = [&run.plan.stable_service, &run.plan.canary_service];
    let slices = ctx.stores.owned(Watched::EndpointSlice, &key.namespace, &services.map(Clone::clone));
    let named = pods_of(slices.get().into_iter().flatten().map(|slice| &slice.value));
    let (known, due) = ctx.pods.with(key, run, |entry| {
        let new = named.iter().any(|name| !entry.created.contains_key(name));
        let due = new && entry.asked_at.is_none_or(|at| at.elapsed() >= CREATED_INTERVAL);
        if due {
            entry.asked_at = Some(Instant::now());
        }
        (entry.created.clone(), due)
    });
    if !due {
        return known;
    }
    let api: Api<Pod> = Api::namespaced(ctx.clients.normal.clone(), &key.namespace);
    let labels = format!("{LABEL_HASH} in ({},{})", run.stable.hash, run.canary.hash);
    let params = ListParams::default().labels(&labels);
    match bounded("list metadata of Pods", CREATED_LIMIT, api.list_metadata(&params)).await {
        Ok(pods) => {
            let created: BTreeMap<String, Timestamp> = pods
                .items
                .iter()
                .filter_map(|pod| Some((pod.name_any(), pod.creation_timestamp()?.0)))
                .collect();
            ctx.pods.with(key, run, |entry| entry.created.clone_from(&created));
            created
        }
        Err(error) => {
            debug!(%error, "creation times of pods were not read; new stable pods start their baseline");
            known
        }
    }
}

/// Names of the pods in EndpointSlices, ready or not.
fn pods_of<'a>(slices: impl Iterator<Item = &'a Value>) -> Vec<String> {
    let endpoints = slices.filter_map(|slice| slice["endpoints"].as_array()).flatten();
    endpoints.filter_map(|endpoint| endpoint["targetRef"]["name"].as_str()).map(ToOwned::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use sluice_core::api::{ProgressiveRolloutSpec, ProgressiveRolloutStatus};
    use sluice_core::observed::{Objects, Seen};

    use super::*;

    fn run(id: &str) -> Run {
        let revision = json!({"digest": "d", "restartDigest": "r", "hash": "h", "replicaSet": "web-2"});
        serde_json::from_value(json!({
            "id": id, "canary": revision, "stable": revision, "stage": "Stepping",
            "startedAt": "2026-01-01T00:00:00Z", "stageSince": "2026-01-01T00:00:00Z",
            "plan": {
                "digest": "", "riskClass": "R1", "provenance": "Human", "steps": [], "minSamples": 1,
                "tolerancePpm": {"relative": 0, "absolute": 0}, "noDataSeconds": 1, "watchSeconds": 1,
                "progressDeadlineSeconds": 1, "service": "web", "stableService": "web-stable",
                "canaryService": "web-canary", "routes": [], "apexCallers": "Some", "settleSeconds": 1,
                "drainSeconds": 1, "guards": [],
            },
        }))
        .unwrap()
    }

    fn rollout(run: Option<Run>) -> ProgressiveRollout {
        let spec: ProgressiveRolloutSpec = serde_json::from_value(json!({
            "workloadRef": {"name": "web"}, "routing": {"service": "web", "routes": [{"name": "web"}]},
        }))
        .unwrap();
        let mut rollout = ProgressiveRollout::new("web", spec);
        rollout.status = Some(ProgressiveRolloutStatus { run, ..ProgressiveRolloutStatus::default() });
        rollout
    }

    fn pod(name: &str, reason: &str) -> Value {
        json!({"metadata": {"name": name}, "status": {"containerStatuses": [{"state": {"waiting": {"reason": reason}}}]}})
    }

    #[test]
    fn a_new_trouble_is_told_once_and_ends_with_the_run() {
        let store = PodStore::default();
        let key = Key { namespace: "shop".to_owned(), name: "web".to_owned() };
        let first = run("1-a");
        assert!(store.saw(&key, &first, &[pod("web-2-x", "ImagePullBackOff")]));
        assert!(!store.saw(&key, &first, &[pod("web-2-x", "ImagePullBackOff")]), "the same again");
        assert_eq!(store.troubled(&key, &first).len(), 1);
        assert!(store.saw(&key, &first, &[]), "it is over");
        assert!(store.saw(&key, &first, &[pod("web-2-y", "CrashLoopBackOff")]));
        assert_eq!(store.troubled(&key, &run("2-b")), Vec::<Value>::new(), "another run has pods of its own");
    }

    #[test]
    fn only_a_canary_that_lacks_pods_is_looked_at() {
        let seen = |sets: &[(i64, i64)]| {
            let set = |(replicas, available): &(i64, i64)| {
                json!({"metadata": {"name": "web-2"}, "spec": {"replicas": replicas},
                    "status": {"availableReplicas": available}})
            };
            Observed::read(Objects {
                deployment: Seen::Seen(None),
                replica_sets: Seen::Seen(sets.iter().map(set).collect()),
                services: Seen::Seen(Vec::new()),
                endpoint_slices: Seen::Seen(Vec::new()),
                routes: Seen::Seen(Vec::new()),
                canary_pods: Seen::Seen(Vec::new()),
                rivals: Vec::new(),
                autoscalers: None,
                claims: None,
            })
        };
        let busy = rollout(Some(run("1-a")));
        assert!(worth_a_look(&busy, &seen(&[(2, 1)])).is_some());
        assert!(worth_a_look(&busy, &seen(&[(2, 2)])).is_none());
        assert!(worth_a_look(&busy, &seen(&[])).is_none());
        assert!(worth_a_look(&rollout(None), &seen(&[(2, 1)])).is_none());
    }

    #[test]
    fn pods_are_named_by_slices_whether_ready_or_not() {
        let slices = [
            json!({"endpoints": [{"targetRef": {"name": "a"}}, {"conditions": {"ready": false}, "targetRef": {"name": "b"}}]}),
            json!({"endpoints": null}),
            json!({"endpoints": [{"addresses": ["10.0.0.1"]}]}),
        ];
        assert_eq!(pods_of(slices.iter()), ["a", "b"]);
    }
}
