//! What one instance of the controller sees: its own caches, which may lag, or the API server itself.

use std::collections::BTreeSet;
use std::rc::Rc;

use jiff::Timestamp;
use serde_json::Value;
use sluice_core::observed::{Observed, Seen};
use sluice_core::view::{ReplicaSet, Route, Service, Workload, ready_pods, worst_trouble};

use crate::api::{Objects, Res, text};
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
#[derive(Clone, Debug, Default)]
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

    /// Whether they show what is there now.
    pub fn are_current(&self, at: Timestamp) -> bool {
        self.0.iter().all(|(_, _, until)| *until <= at)
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
                Watch::Of(res) => shown = shown.with(*res, old),
            }
        }
        shown
    }
}

impl Objects {
    /// The same with the objects of one kind as they are in `other`.
    #[must_use]
    pub fn with(&self, res: Res, other: &Self) -> Self {
        let mut mixed = self.clone();
        let raw = Rc::make_mut(&mut mixed.raw);
        raw.retain(|(kind, _), _| *kind != res);
        let taken = other.raw.iter().filter(|((kind, _), _)| *kind == res);
        raw.extend(taken.map(|(key, object)| (key.clone(), object.clone())));
        mixed
    }
}

/// The core's view of one object.
#[derive(Clone, Debug)]
pub enum View {
    /// A Deployment.
    Workload(Box<Workload>),
    /// A ReplicaSet.
    Set(Box<ReplicaSet>),
    /// A Service.
    Service(Service),
    /// A route.
    Route(Route),
    /// Ready pods behind a Service.
    Endpoints(String, BTreeSet<String>),
}

impl View {
    fn read(res: Res, object: &Value) -> Self {
        match res {
            Res::Deployment => Self::Workload(Box::new(Workload::read(object))),
            Res::ReplicaSet => Self::Set(Box::new(ReplicaSet::read(object))),
            Res::Service => Self::Service(Service::read(object)),
            Res::Route => Self::Route(Route::read(object)),
            Res::EndpointSlice => {
                let service = text(object, "/metadata/labels/kubernetes.io~1service-name").to_owned();
                Self::Endpoints(service, ready_pods(std::slice::from_ref(object)))
            }
        }
    }
}

/// What a decision sees of these objects; kinds that can't be read are unseen. As [`Observed::read`], but an object
/// that did not change is read once.
pub fn observe(objects: &Objects, pods: &Pods, unreadable: &[Res], at: Timestamp) -> Observed {
    let views = |res: Res| -> Seen<Vec<&View>> {
        if unreadable.contains(&res) {
            return Seen::Unseen("forbidden".to_owned());
        }
        Seen::Seen(
            objects.list(res).map(|object| object.view.get_or_init(|| View::read(res, object))).collect(),
        )
    };
    let workload = views(Res::Deployment).map(|views| {
        views.into_iter().find_map(|view| match view {
            View::Workload(workload) => Some((**workload).clone()),
            _ => None,
        })
    });
    let replica_sets = views(Res::ReplicaSet).map(|views| {
        let sets = views.into_iter().filter_map(|view| match view {
            View::Set(set) => Some((**set).clone()),
            _ => None,
        });
        let mut sets: Vec<ReplicaSet> = sets.collect();
        sets.sort_by(|a, b| (&a.created, &a.name).cmp(&(&b.created, &b.name)));
        sets
    });
    let services = views(Res::Service).map(|views| {
        let services = views.into_iter().filter_map(|view| match view {
            View::Service(service) => Some(service.clone()),
            _ => None,
        });
        services.collect()
    });
    let endpoints = views(Res::EndpointSlice).map(|views| {
        let endpoints = views.into_iter().filter_map(|view| match view {
            View::Endpoints(service, pods) => Some((service.clone(), pods.clone())),
            _ => None,
        });
        endpoints.collect()
    });
    let routes = views(Res::Route).map(|views| {
        let routes = views.into_iter().filter_map(|view| match view {
            View::Route(route) => Some(route.clone()),
            _ => None,
        });
        routes.collect()
    });
    let run = objects.rollout.as_ref().and_then(|r| r.status.as_ref()).and_then(|s| s.run.as_ref());
    let canary = run.map(|run| run.canary.replica_set.as_str()).unwrap_or_default();
    let troubled: Vec<Value> = pods.of(canary).filter(|pod| !pod.ready).map(|pod| pod.json(at)).collect();
    Observed {
        workload,
        replica_sets,
        services,
        endpoints,
        routes,
        trouble: worst_trouble(&troubled),
        rivals: Vec::new(),
        autoscalers: None,
        claims: None,
    }
}
