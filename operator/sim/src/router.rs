//! The data plane: a gateway that acknowledges routes at once and follows them, and endpoints, up to
//! [`LAG_SECONDS`] later. Callers meet any of its states within that time.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::admission::Actor;
use crate::api::{Api, Res, at, int, map, text};
use crate::pods::later;

/// How far proxies may be behind: Traefik's throttle.
pub const LAG_SECONDS: i64 = 2;

/// One backend of one rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Its Service.
    pub service: String,
    /// Its weight.
    pub weight: i64,
}

/// One state of the data plane.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plane {
    /// Rules of all routes, in order.
    pub rules: Vec<Vec<Backend>>,
    /// Ready pods of each Service.
    pub endpoints: BTreeMap<String, BTreeSet<String>>,
}

impl Plane {
    /// The state that the objects ask for.
    pub fn wanted(api: &Api) -> Self {
        let mut plane = Self::default();
        for route in api.now.list(Res::Route) {
            for rule in at(route, "/spec/rules").and_then(Value::as_array).into_iter().flatten() {
                let refs = rule.get("backendRefs").and_then(Value::as_array);
                let backend = |r: &Value| Backend {
                    service: text(r, "/name").to_owned(),
                    weight: int(r, "/weight").unwrap_or(1),
                };
                plane.rules.push(refs.into_iter().flatten().map(backend).collect());
            }
        }
        for slice in api.now.list(Res::EndpointSlice) {
            let service = map(slice, "/metadata/labels").get("kubernetes.io/service-name").cloned();
            let service = service.as_ref().and_then(Value::as_str).unwrap_or_default().to_owned();
            let ready = slice.get("endpoints").and_then(Value::as_array).into_iter().flatten();
            let ready = ready.filter(|e| at(e, "/conditions/ready").and_then(Value::as_bool) == Some(true));
            plane.endpoints.insert(service, ready.map(|e| text(e, "/targetRef/name").to_owned()).collect());
        }
        plane
    }

    /// Pods that may get a request.
    pub fn receivers(&self) -> BTreeSet<&str> {
        let used = self.rules.iter().flatten().filter(|backend| backend.weight > 0);
        used.filter_map(|backend| self.endpoints.get(&backend.service))
            .flatten()
            .map(String::as_str)
            .collect()
    }

    /// Services with weight and no ready pod.
    pub fn dead_ends(&self) -> BTreeSet<&str> {
        let used = self.rules.iter().flatten().filter(|backend| backend.weight > 0);
        used.filter(|b| self.endpoints.get(&b.service).is_some_and(BTreeSet::is_empty))
            .map(|b| b.service.as_str())
            .collect()
    }

    /// Largest percent of a rule that goes to one of these Services.
    pub fn percent_to(&self, services: &[&str]) -> i64 {
        let share = |rule: &Vec<Backend>| {
            let all: i64 = rule.iter().map(|b| b.weight).sum();
            let ours: i64 =
                rule.iter().filter(|b| services.contains(&b.service.as_str())).map(|b| b.weight).sum();
            if all > 0 { (100 * ours + all - 1) / all } else { 0 }
        };
        self.rules.iter().map(share).max().unwrap_or(0)
    }
}

/// The gateway.
#[derive(Clone, Debug, Default)]
pub struct Router {
    /// States and when each began, oldest first; the last one is what the objects ask for.
    states: Vec<(Timestamp, Plane)>,
    seen: u64,
    /// Until then it does not acknowledge routes.
    pub silent_until: Option<Timestamp>,
}

impl Router {
    /// Acknowledges routes and notes the state that the objects ask for now.
    pub fn follow(&mut self, api: &mut Api, at: Timestamp) {
        if self.silent_until.is_none_or(|until| until <= at) {
            self.silent_until = None;
            acknowledge(api);
        }
        if self.seen == api.version() {
            return;
        }
        self.seen = api.version();
        let wanted = Plane::wanted(api);
        if self.states.last().map(|(_, plane)| plane) != Some(&wanted) {
            self.states.push((at, wanted));
        }
    }

    /// States that callers may meet now.
    pub fn possible(&mut self, at: Timestamp) -> impl Iterator<Item = &Plane> {
        let oldest = later(at, -LAG_SECONDS);
        // The state in force at the start of the window, and all that began in it.
        let first = self.states.iter().rposition(|(began, _)| *began <= oldest).unwrap_or(0);
        self.states.drain(..first);
        self.states.iter().map(|(_, plane)| plane)
    }

    /// The state that the objects ask for.
    pub fn wanted(&self) -> Option<&Plane> {
        self.states.last().map(|(_, plane)| plane)
    }
}

fn acknowledge(api: &mut Api) {
    let routes: Vec<_> = api.now.list(Res::Route).cloned().collect();
    for route in routes {
        let generation = int(&route, "/metadata/generation").unwrap_or(0);
        if int(&route, "/status/parents/0/conditions/0/observedGeneration") == Some(generation) {
            continue;
        }
        let condition =
            |kind: &str| json!({"type": kind, "status": "True", "observedGeneration": generation});
        let status = json!({"parents": [{
            "controllerName": "sim/gateway", "conditions": [condition("Accepted"), condition("ResolvedRefs")],
        }]});
        let _ =
            api.update(Res::Route, text(&route, "/metadata/name"), Actor::Native, |r| r["status"] = status);
    }
}
