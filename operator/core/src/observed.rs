//! Everything that a decision sees of the cluster.
//!
//! Each input is seen or unseen, never a default: an unseen input can hold a run, but nothing is concluded
//! from it.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::view::{
    Autoscaler, Claim, PodTrouble, ReplicaSet, Route, Service, Workload, ready_pods, worst_trouble,
};

/// An input, or why it could not be read.
#[derive(Clone, Debug, PartialEq)]
pub enum Seen<T> {
    /// Read.
    Seen(T),
    /// Not read, and why.
    Unseen(String),
}

impl<T> Seen<T> {
    /// The value, if it was read.
    pub fn get(&self) -> Option<&T> {
        match self {
            Self::Seen(value) => Some(value),
            Self::Unseen(_) => None,
        }
    }

    /// Applies `f` to a read value.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Seen<U> {
        match self {
            Self::Seen(value) => Seen::Seen(f(value)),
            Self::Unseen(why) => Seen::Unseen(why),
        }
    }
}

/// Raw objects, as the API server gave them.
#[derive(Clone, Debug)]
pub struct Objects {
    /// The Deployment, `None` when it does not exist.
    pub deployment: Seen<Option<Value>>,
    /// ReplicaSets of the namespace that have the Deployment as an owner or carry our label.
    pub replica_sets: Seen<Vec<Value>>,
    /// The apex Service and the pair, those that exist.
    pub services: Seen<Vec<Value>>,
    /// EndpointSlices of the pair.
    pub endpoint_slices: Seen<Vec<Value>>,
    /// The routes that the rollout or the run names, those that exist.
    pub routes: Seen<Vec<Value>>,
    /// Pods of the canary's ReplicaSet.
    pub canary_pods: Seen<Vec<Value>>,
    /// Other rollouts in the namespace that name the same workload, oldest first.
    pub rivals: Vec<String>,
    /// Autoscalers of the namespace; `None` when this pass did not ask.
    pub autoscalers: Option<Seen<Vec<Value>>>,
    /// Claims that the template names, those that exist; `None` when this pass did not ask.
    pub claims: Option<Seen<Vec<Value>>>,
}

/// What a decision sees.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The workload, `None` when it does not exist.
    pub workload: Seen<Option<Workload>>,
    /// ReplicaSets, oldest first.
    pub replica_sets: Seen<Vec<ReplicaSet>>,
    /// Services by name.
    pub services: Seen<Vec<Service>>,
    /// Ready pods behind each Service of the pair.
    pub endpoints: Seen<Vec<(String, BTreeSet<String>)>>,
    /// Routes by name.
    pub routes: Seen<Vec<Route>>,
    /// What keeps canary pods from being ready.
    pub trouble: Option<PodTrouble>,
    /// Other rollouts that name the same workload.
    pub rivals: Vec<String>,
    /// Autoscalers of the workload. They matter before enrolment and before a run: `None` when this pass did not ask.
    pub autoscalers: Option<Seen<Vec<Autoscaler>>>,
    /// Claims that the workload's pods share; `None` when this pass did not ask.
    pub claims: Option<Seen<Vec<Claim>>>,
}

impl Observed {
    /// Reads raw objects.
    pub fn read(objects: Objects) -> Self {
        let slices = objects.endpoint_slices.map(|slices| {
            let mut by_service: Vec<(String, Vec<Value>)> = Vec::new();
            for slice in slices {
                let service =
                    slice.pointer("/metadata/labels/kubernetes.io~1service-name").and_then(Value::as_str);
                let service = service.unwrap_or_default().to_owned();
                match by_service.iter_mut().find(|(name, _)| *name == service) {
                    Some((_, list)) => list.push(slice),
                    None => by_service.push((service, vec![slice])),
                }
            }
            by_service.into_iter().map(|(service, list)| (service, ready_pods(&list))).collect()
        });
        Self {
            workload: Seen::Seen(None),
            replica_sets: objects.replica_sets.map(|list| {
                let mut sets: Vec<ReplicaSet> = list.iter().map(ReplicaSet::read).collect();
                sets.sort_by(|a, b| (&a.created, &a.name).cmp(&(&b.created, &b.name)));
                sets
            }),
            services: objects.services.map(|list| list.iter().map(Service::read).collect()),
            endpoints: slices,
            routes: objects.routes.map(|list| list.iter().map(Route::read).collect()),
            trouble: objects.canary_pods.get().and_then(|pods| worst_trouble(pods)),
            rivals: objects.rivals,
            autoscalers: None,
            claims: None,
        }
        .with_workload(
            objects.deployment.map(|d| d.as_ref().map(Workload::read)),
            objects.autoscalers,
            objects.claims,
        )
    }

    /// The same with another reading of the Deployment, and of what stands beside it.
    #[must_use]
    pub fn with_workload(
        self,
        workload: Seen<Option<Workload>>,
        autoscalers: Option<Seen<Vec<Value>>>,
        claims: Option<Seen<Vec<Value>>>,
    ) -> Self {
        let scaled = workload.get().and_then(Option::as_ref).map(|w| w.name.clone()).unwrap_or_default();
        let autoscaler = |object: &Value| Autoscaler::read(object, &scaled);
        Self {
            autoscalers: autoscalers
                .map(|seen| seen.map(|list| list.iter().filter_map(autoscaler).collect())),
            claims: claims.map(|seen| seen.map(|list| list.iter().map(Claim::read).collect())),
            workload,
            ..self
        }
    }

    /// The first input that could not be read, in words.
    pub fn unseen(&self) -> Option<String> {
        fn why<T>(what: &str, seen: &Seen<T>) -> Option<String> {
            match seen {
                Seen::Seen(_) => None,
                Seen::Unseen(why) => Some(format!("{what} can't be read: {why}")),
            }
        }
        why("the Deployment", &self.workload)
            .or_else(|| why("ReplicaSets", &self.replica_sets))
            .or_else(|| why("Services", &self.services))
            .or_else(|| why("EndpointSlices", &self.endpoints))
            .or_else(|| why("HTTPRoutes", &self.routes))
    }

    /// The workload, when it was read and exists.
    pub fn workload(&self) -> Option<&Workload> {
        self.workload.get().and_then(Option::as_ref)
    }

    /// ReplicaSets that were read, oldest first; those on their way out are left out.
    pub fn replica_sets(&self) -> impl Iterator<Item = &ReplicaSet> {
        self.replica_sets.get().into_iter().flatten().filter(|set| !set.deleting)
    }

    /// A ReplicaSet by name.
    pub fn replica_set(&self, name: &str) -> Option<&ReplicaSet> {
        self.replica_sets().find(|set| set.name == name)
    }

    /// A Service by name.
    pub fn service(&self, name: &str) -> Option<&Service> {
        self.services.get().into_iter().flatten().find(|service| service.name == name)
    }

    /// A route by name.
    pub fn route(&self, name: &str) -> Option<&Route> {
        self.routes.get().into_iter().flatten().find(|route| route.name == name)
    }

    /// How many ready pods stand behind this Service.
    pub fn ready_pods_behind(&self, service: &str) -> i32 {
        let found = self.endpoints.get().into_iter().flatten().find(|(name, _)| name == service);
        found.map_or(0, |(_, pods)| i32::try_from(pods.len()).unwrap_or(i32::MAX))
    }

    /// How many ready pods of this ReplicaSet stand behind this Service.
    pub fn ready_behind(&self, service: &str, replica_set: &str) -> i32 {
        let found = self.endpoints.get().into_iter().flatten().find(|(name, _)| name == service);
        let count = found.map_or(0, |(_, pods)| pods.iter().filter(|pod| owned_by(pod, replica_set)).count());
        i32::try_from(count).unwrap_or(i32::MAX)
    }
}

/// Longest part of a pod's name before the five characters that Kubernetes adds.
const POD_BASE_LIMIT: usize = 58;

/// A pod's name is its ReplicaSet's name, a dash, and five characters; a long name is cut to make room for them.
fn owned_by(pod: &str, replica_set: &str) -> bool {
    let base: String = format!("{replica_set}-").chars().take(POD_BASE_LIMIT).collect();
    pod.strip_prefix(&base).is_some_and(|rest| !rest.contains('-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_of_a_long_named_replica_set_are_its_own() {
        assert!(owned_by("web-5d4f8b7c9d-x7k2p", "web-5d4f8b7c9d"));
        assert!(!owned_by("web-admin-5d4f8b7c9d-x7k2p", "web"));
        // As Helm names it: 53 characters and a hash; the pod's name has lost part of the hash.
        let set = format!("{}-5d4f8b7c9d", "a".repeat(53));
        let pod = format!("{}-5d4fx7k2p", "a".repeat(53));
        assert!(owned_by(&pod, &set));
        assert!(!owned_by(&pod, "other-5d4f8b7c9d"));
    }
}
