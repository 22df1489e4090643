//! The end of a story: after faults stop, everything comes to rest, and nothing of ours is left lying about.

use serde_json::Value;
use sluice_core::api::{
    ANNOTATION_HELD, ANNOTATION_TRAFFIC, ConditionStatus, ConditionType, LABEL_MANAGED, Phase,
};
use sluice_core::digest;

use crate::api::{Res, int, map, text};
use crate::fixture::{CANARY, NAME, ROUTES, STABLE};
use crate::world::World;

/// Seconds in a row without a change that make rest.
const STILL_SECONDS: u32 = 8;

impl World {
    /// Lets time pass until nothing changes any more; says what is wrong with the state then, or that it never rested.
    pub fn come_to_rest(&mut self, seconds: u32) -> Result<(), String> {
        self.calm();
        let mut still = 0;
        let mut last = (self.api.version(), self.pods.all.len());
        for _ in 0..seconds {
            self.nobody_waits_for_a_person();
            self.tick(1);
            if self.violations.len() > 3 {
                break;
            }
            let now = (self.api.version(), self.pods.all.len());
            // A wait with a deadline is not rest.
            let waits = self.status().waiting.is_some_and(|wait| wait.deadline.is_some());
            let freed = self
                .status()
                .waiting
                .is_some_and(|wait| ["BreakGlass", "WorkloadReplaced"].contains(&wait.reason.as_str()));
            still = if now == last && !waits && (self.run().is_none() || freed) { still + 1 } else { 0 };
            last = now;
            if still >= STILL_SECONDS {
                return self.at_rest();
            }
        }
        let status = self.status();
        Err(format!("no rest within {seconds} s: phase {:?}, waiting {:?}", status.phase, status.waiting))
    }

    fn at_rest(&self) -> Result<(), String> {
        let status = self.status();
        let resting = matches!(
            status.phase,
            Phase::Pending | Phase::Idle | Phase::Held | Phase::Rejected | Phase::NotProven | Phase::Released
        );
        if self.run().is_some() && self.truth.lawless {
            // Freed by break-glass, and the Deployment's own roll gets nowhere: the old pods serve until it does.
            return Ok(());
        }
        if !resting {
            return Err(format!("rests in phase {:?}", status.phase));
        }
        self.conditions_agree()?;
        self.routes_are_home()?;
        self.services_are_plain()?;
        match &self.api.now.rollout {
            None => self.nothing_is_left(),
            Some(rollout) if rollout.metadata.deletion_timestamp.is_some() => {
                Err("the rollout was deleted and is still there".to_owned())
            }
            Some(_) if self.releasing => self.nothing_is_left(),
            Some(_) => self.workload_agrees(status.phase),
        }
    }

    /// `Ready`, `Reconciling` and `Stalled` never contradict each other.
    fn conditions_agree(&self) -> Result<(), String> {
        let status = self.status();
        let is = |kind: ConditionType| {
            status.conditions.iter().any(|c| c.kind == kind && c.status == ConditionStatus::True)
        };
        let (ready, busy, stalled) =
            (is(ConditionType::Ready), is(ConditionType::Reconciling), is(ConditionType::Stalled));
        if [ready, busy, stalled].into_iter().filter(|on| *on).count() > 1 {
            return Err(format!("conditions contradict: {:?}", status.conditions));
        }
        Ok(())
    }

    fn routes_are_home(&self) -> Result<(), String> {
        let deployed = self.api.now.get(Res::Deployment, NAME).is_some();
        let told = self.status().waiting.is_some_and(|wait| wait.reason == "ForeignWeights");
        if !deployed || told || self.truth.foreign && self.truth.unguarded {
            return Ok(());
        }
        for name in ROUTES {
            let Some(route) = self.api.now.get(Res::Route, name) else {
                continue;
            };
            for backend in route.pointer("/spec/rules").and_then(Value::as_array).into_iter().flatten() {
                for backend in backend.pointer("/backendRefs").and_then(Value::as_array).into_iter().flatten()
                {
                    let (service, weight) = (text(backend, "/name"), int(backend, "/weight").unwrap_or(1));
                    if service == CANARY && weight != 0 || service == STABLE && weight == 0 {
                        return Err(format!("route {name} rests with {service} at {weight}"));
                    }
                }
            }
            if map(route, "/metadata/annotations").contains_key(ANNOTATION_TRAFFIC) {
                return Err(format!("route {name} rests with our annotation"));
            }
        }
        Ok(())
    }

    fn services_are_plain(&self) -> Result<(), String> {
        let Some(stable) = self.api.now.get(Res::Service, STABLE) else {
            return Ok(());
        };
        let apex =
            self.api.now.get(Res::Service, NAME).map(|apex| map(apex, "/spec/selector")).unwrap_or_default();
        let selector = map(stable, "/spec/selector");
        if selector == apex { Ok(()) } else { Err(format!("{STABLE} rests with selector {selector:?}")) }
    }

    fn pods_are_those_of_one_set(&self) -> Result<(), String> {
        let hidden = |set: &Value| map(set, "/metadata/labels").contains_key("sluice.dev/rollout");
        let ours = self.api.now.list(Res::ReplicaSet).find(|set| {
            hidden(set)
                && (int(set, "/spec/replicas") != Some(0) || int(set, "/status/replicas").unwrap_or(0) > 0)
        });
        // Stable's ReplicaSet is gone: the canary's pods are all there is.
        let alone = self.status().waiting.is_some_and(|wait| wait.reason == "StableGone");
        if let Some(set) = ours.filter(|_| !alone) {
            return Err(format!("pods of {} stay behind", text(set, "/metadata/name")));
        }
        if self.truth.lawless {
            return Ok(());
        }
        let Some(deployment) = self.api.now.get(Res::Deployment, NAME) else {
            return Ok(());
        };
        let replicas = usize::try_from(int(deployment, "/spec/replicas").unwrap_or(1)).unwrap_or(0);
        let sets: std::collections::BTreeSet<&str> =
            self.pods.all.values().map(|pod| pod.set.as_str()).collect();
        if sets.len() > 1 || self.pods.all.len() != replicas {
            return Err(format!("{} pods of {sets:?} rest, {replicas} are wanted", self.pods.all.len()));
        }
        Ok(())
    }

    fn workload_agrees(&self, phase: Phase) -> Result<(), String> {
        self.pods_are_those_of_one_set()?;
        let Some(deployment) = self.api.now.get(Res::Deployment, NAME) else {
            return Ok(());
        };
        let mark = map(deployment, "/metadata/annotations");
        let mark = mark.get(ANNOTATION_HELD).and_then(Value::as_str);
        let paused = deployment.pointer("/spec/paused").and_then(Value::as_bool).unwrap_or(false);
        match phase {
            Phase::Idle if mark.is_some() => Err(format!("Idle with the mark {mark:?}")),
            Phase::Rejected if mark != Some("rejected") || !paused => {
                Err(format!("Rejected with the mark {mark:?}, paused {paused}"))
            }
            Phase::Held | Phase::NotProven if !paused => Err(format!("{phase:?} and not paused")),
            Phase::Idle => {
                let live = digest::template(deployment.pointer("/spec/template").unwrap_or(&Value::Null));
                let stable = self.status().stable.map(|stable| stable.digest);
                if stable.as_deref() == Some(live.as_str()) {
                    Ok(())
                } else {
                    Err("Idle with a template that is not stable's".to_owned())
                }
            }
            _ => Ok(()),
        }
    }

    /// Ordinary objects: no label, no mark, all ReplicaSets with the Deployment, one of them with pods.
    fn nothing_is_left(&self) -> Result<(), String> {
        let Some(deployment) = self.api.now.get(Res::Deployment, NAME) else {
            return self.pods_are_those_of_one_set();
        };
        if map(deployment, "/metadata/labels").contains_key(LABEL_MANAGED) {
            return Err("the label stays behind".to_owned());
        }
        if map(deployment, "/metadata/annotations").contains_key(ANNOTATION_HELD) {
            return Err("the mark stays behind".to_owned());
        }
        for set in self.api.now.list(Res::ReplicaSet) {
            if map(set, "/metadata/labels").contains_key("sluice.dev/rollout") {
                return Err(format!("ReplicaSet {} stays hidden", text(set, "/metadata/name")));
            }
        }
        self.pods_are_those_of_one_set()
    }
}
