//! What may happen: time, faults of machines and networks, git, people. A schedule is a list of these.

use serde_json::json;
use sluice_core::api::{ANNOTATION_BREAK_GLASS, ANNOTATION_HELD, LABEL_MANAGED, Provenance};

use crate::admission::Actor;
use crate::api::{Res, int};
pub use sluice_core::api::Verb;

use crate::fixture::{self, CANARY, NAME, STABLE};
use crate::pods::later;
use crate::shell::Fault;
use crate::view::Watch;
use crate::world::World;

/// One thing that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Seconds with one pass each.
    Tick(u8),
    /// One second with a pass that goes wrong.
    Faulty(Fault),
    /// A write that a stalled instance had sent arrives.
    Thaw,
    /// The other instance leads from here on.
    Failover,
    /// An instance that does not lead makes a pass.
    OldLeader,
    /// Seconds without any controller.
    Down(u8),
    /// A watch of both instances delivers nothing for so many seconds.
    Lag(Watch, u8),
    /// Native controllers do nothing for so many seconds.
    NativeLag(u8),
    /// Endpoints are not followed for so many seconds.
    EndpointLag(u8),
    /// The gateway acknowledges nothing for so many seconds.
    SilentGateway(u8),
    /// A kind can't be read for so many seconds.
    Unreadable(Res, u8),
    /// Native controllers act between two writes of a pass, or not.
    Eager(bool),
    /// Prometheus is gone, or back.
    Outage(bool),
    /// An alert fires against the run.
    Alert,
    /// An alert fires that is no revision's fault, or stops.
    Incident(bool),
    /// All canary pods but so many are lost with their nodes.
    LosePods(u8),
    /// The canary begins to fail requests.
    TurnBad,
    /// Canary pods are not ready for so many seconds.
    Flap(u8),
    /// One stable pod dies with its node.
    KillPod,
    /// Pods that are made from here on take so many seconds longer to be ready.
    SlowStart(u8),
    /// Git applies this image, by number; the flag says whether the manifest says `paused: false`.
    Apply(u8, bool),
    /// Git applies the live template again, with `paused: false`.
    ReApply,
    /// Somebody restarts the pods.
    Restart(u8),
    /// Git resets weights to 100 and 0.
    ResetWeights,
    /// Somebody gives the canary this weight.
    ForeignWeight(u8),
    /// The workload gets another size.
    Scale(u8),
    /// A person's verb for the run under way, or for the last one.
    Request(Verb),
    /// `spec.change` describes whatever image is tried, with a provenance of rising risk from 0 to 3.
    Declare(u8),
    /// `spec.suspend`.
    Suspend(bool),
    /// `kubectl rollout resume`.
    RolloutResume,
    /// `kubectl rollout pause`.
    RolloutPause,
    /// A person frees the Deployment with a new reason.
    BreakGlass,
    /// Somebody deletes one of the pair: stable's Service, or the canary's.
    DeleteService(bool),
    /// Somebody deletes the ReplicaSet of the stable revision.
    DeleteStable,
    /// A person without the verb writes a new reason, and nothing else.
    GlassReason,
    /// The Deployment is deleted; the flag says whether its ReplicaSets stay.
    DeleteDeployment(bool),
    /// The Deployment is created again with this image.
    CreateDeployment(u8),
    /// The rollout is deleted.
    DeleteRollout,
    /// The rollout is created again.
    CreateRollout,
    /// The installation is being removed.
    Uninstall,
}

/// Images that git may apply, by number.
pub const IMAGES: [&str; 9] = [
    "web:good-1",
    "web:good-2",
    "web:good-3",
    "web:bad-4",
    "web:slow-5",
    "web:never-6",
    "web:crash-7",
    "web:late-8",
    "web:good-0",
];

/// Who may have written a change, by rising risk.
const PROVENANCES: [Provenance; 4] =
    [Provenance::Human, Provenance::GenAIAssisted, Provenance::Unknown, Provenance::GenAIAutonomous];

fn image(number: u8) -> &'static str {
    IMAGES[usize::from(number) % IMAGES.len()]
}

impl World {
    /// Lets it happen.
    pub fn happen(&mut self, event: Event) {
        if !matches!(event, Event::Tick(_)) {
            self.tell(format!("{event:?}"));
        }
        self.rested = None;
        match event {
            Event::Tick(seconds) => self.tick(u32::from(seconds)),
            Event::Faulty(fault) => {
                self.hinder(3);
                self.faulty_tick(fault);
            }
            Event::Thaw => {
                self.thaw();
                self.look();
            }
            Event::Failover => self.leader = 1 - self.leader,
            Event::OldLeader => {
                self.pass(1 - self.leader, None);
                self.look();
            }
            Event::Down(seconds) => {
                self.hinder(i64::from(seconds));
                self.elapse(u32::from(seconds));
            }
            Event::Lag(_, _)
            | Event::NativeLag(_)
            | Event::EndpointLag(_)
            | Event::SilentGateway(_)
            | Event::Unreadable(_, _)
            | Event::Eager(_)
            | Event::Incident(_)
            | Event::Outage(_) => self.machine(event),
            Event::Alert | Event::TurnBad | Event::Flap(_) | Event::KillPod | Event::LosePods(_) => {
                self.canary_event(event)
            }
            Event::SlowStart(seconds) => self.pods.delay = i64::from(seconds),
            Event::Apply(_, _)
            | Event::ReApply
            | Event::Restart(_)
            | Event::ResetWeights
            | Event::ForeignWeight(_)
            | Event::Scale(_) => self.git(event),
            Event::Request(_)
            | Event::Suspend(_)
            | Event::Declare(_)
            | Event::RolloutResume
            | Event::RolloutPause
            | Event::BreakGlass
            | Event::GlassReason => {
                self.person(event);
            }
            Event::DeleteDeployment(_)
            | Event::CreateDeployment(_)
            | Event::DeleteService(_)
            | Event::DeleteStable
            | Event::DeleteRollout
            | Event::CreateRollout
            | Event::Uninstall => self.birth_and_death(event),
        }
    }

    fn machine(&mut self, event: Event) {
        let at = self.now;
        let until = |seconds: u8| later(at, i64::from(seconds));
        match event {
            Event::Lag(watch, seconds) => {
                self.hinder(i64::from(seconds));
                let now = self.api.now.clone();
                for instance in &mut self.instances {
                    instance.caches.freeze(watch, &now, until(seconds));
                }
            }
            Event::NativeLag(seconds) => {
                self.hinder(i64::from(seconds) + 10);
                self.native_until = Some(until(seconds));
            }
            Event::EndpointLag(seconds) => {
                self.disturb(i64::from(seconds));
                self.endpoints_until = Some(until(seconds));
            }
            Event::SilentGateway(seconds) => {
                self.hinder(i64::from(seconds));
                self.router.silent_until = Some(until(seconds));
            }
            Event::Unreadable(res, seconds) => {
                self.hinder(i64::from(seconds));
                self.unreadable_until.push((res, until(seconds)));
            }
            Event::Eager(eager) => self.eager = eager,
            Event::Outage(out) => self.judge.set_outage(out, at),
            Event::Incident(begins) => {
                self.judge.incident = begins.then(|| self.judge.incident.unwrap_or(at));
            }
            _ => {}
        }
    }

    fn canary_event(&mut self, event: Event) {
        let Some(run) = self.run().cloned() else {
            return;
        };
        match event {
            Event::Alert => {
                self.judge.alerted.insert(run.id);
            }
            Event::TurnBad => {
                self.judge.bad.insert(run.canary.digest);
            }
            Event::Flap(seconds) => {
                self.disturb(i64::from(seconds));
                let until = later(self.now, i64::from(seconds));
                self.pods.flapping.push((run.canary.hash, until));
            }
            Event::LosePods(keep) => {
                self.disturb(0);
                let pods = self.pods.of(&run.canary.replica_set).map(|pod| pod.name.clone());
                for name in pods.skip(usize::from(keep)).collect::<Vec<_>>() {
                    self.pods.kill(&name);
                }
            }
            _ => {
                self.disturb(0);
                let name = self.pods.of(&run.stable.replica_set).next().map(|pod| pod.name.clone());
                if let Some(name) = name {
                    self.pods.kill(&name);
                }
            }
        }
    }

    fn git(&mut self, event: Event) {
        match event {
            Event::Apply(number, unpaused) => self.apply(image(number), None, unpaused.then_some(false)),
            Event::ReApply => {
                self.truth.lawless |= !self.is_guarded();
                let _ = self
                    .api
                    .update(Res::Deployment, NAME, Actor::GitOps, |d| d["spec"]["paused"] = json!(false));
            }
            Event::Restart(number) => {
                let current = self.applied.last().cloned().unwrap_or_else(|| image(1).to_owned());
                self.apply(&current, Some(&format!("2026-11-{:02}", number % 28 + 1)), None);
            }
            Event::ResetWeights => self.overwrite(0),
            Event::ForeignWeight(percent) => self.overwrite(percent % 101),
            Event::Scale(replicas) => {
                let replicas = i64::from(replicas);
                self.disturb(0);
                self.resized();
                self.woken_past_the_hold(replicas);
                let _ = self.api.update(Res::Deployment, NAME, Actor::Native, |d| {
                    d["spec"]["replicas"] = json!(replicas);
                });
            }
            _ => {}
        }
    }

    /// A stated exception: scaled to zero and back while the controller could not hide the history, the Deployment
    /// revives what its template names.
    fn woken_past_the_hold(&mut self, replicas: i64) {
        let Some(deployment) = self.api.now.get(Res::Deployment, NAME).cloned() else {
            return;
        };
        if int(&deployment, "/spec/replicas") == Some(0) && replicas > 0 {
            let stable = self.status().stable.map(|stable| stable.replica_set).unwrap_or_default();
            self.truth.lawless |= self.visible().iter().any(|name| *name != stable);
        }
    }

    fn overwrite(&mut self, percent: u8) {
        if percent > 0 {
            self.truth.foreign = true;
            self.truth.unguarded = !self.is_guarded();
            self.disturb(0);
        }
        for route in fixture::ROUTES {
            let _ = self.api.update(Res::Route, route, Actor::GitOps, |route| {
                for rule in route["spec"]["rules"].as_array_mut().into_iter().flatten() {
                    for backend in rule["backendRefs"].as_array_mut().into_iter().flatten() {
                        if backend["name"] == STABLE {
                            backend["weight"] = json!(100 - percent);
                        } else if backend["name"] == CANARY {
                            backend["weight"] = json!(percent);
                        }
                    }
                }
            });
        }
        // After promotion a reset leads to the new pods: what was reached does not count any more.
        self.truth.forget_least();
        self.wrote();
    }

    fn person(&mut self, event: Event) {
        match event {
            Event::Request(verb) => {
                let last = self.status().history.first().map(|run| run.id.clone());
                let id = self.run().map(|run| run.id.clone()).or(last).unwrap_or_default();
                let verb = verb.as_str();
                self.request(&format!("{verb}/{id}"));
            }
            Event::Declare(risk) => {
                let provenance = PROVENANCES[usize::from(risk) % PROVENANCES.len()];
                let _ = self.api.edit_rollout(|rollout| {
                    rollout.spec.change.provenance = provenance;
                    rollout.spec.change.images = IMAGES.iter().map(ToString::to_string).collect();
                });
            }
            Event::Suspend(suspend) => {
                let _ = self.api.edit_rollout(|rollout| rollout.spec.suspend = suspend);
            }
            Event::RolloutResume | Event::RolloutPause => {
                let paused = event == Event::RolloutPause;
                self.truth.lawless |= !paused && !self.is_guarded();
                let _ = self
                    .api
                    .update(Res::Deployment, NAME, Actor::Person, |d| d["spec"]["paused"] = json!(paused));
            }
            Event::GlassReason => {
                let value = format!("MAYBE-{}", self.second());
                let _ = self.api.update(Res::Deployment, NAME, Actor::Person, |d| {
                    d["metadata"]["annotations"][ANNOTATION_BREAK_GLASS] = json!(value);
                });
            }
            Event::BreakGlass => {
                self.truth.lawless = true;
                let value = format!("INC-{}", self.second());
                let _ = self.api.update(Res::Deployment, NAME, Actor::Responder, |d| {
                    d["metadata"]["annotations"][ANNOTATION_BREAK_GLASS] = json!(value);
                    for (map, key) in [("annotations", ANNOTATION_HELD), ("labels", LABEL_MANAGED)] {
                        if let Some(map) = d["metadata"][map].as_object_mut() {
                            map.remove(key);
                        }
                    }
                    d["spec"]["paused"] = json!(false);
                });
            }
            _ => {}
        }
    }

    fn birth_and_death(&mut self, event: Event) {
        let at = self.now;
        match event {
            Event::DeleteDeployment(orphan) => {
                self.disturb(0);
                self.truth.lawless = true;
                if orphan {
                    self.api.orphan_replica_sets();
                }
                let _ = self.api.delete(Res::Deployment, NAME, None);
            }
            Event::DeleteService(stable) => {
                self.disturb(0);
                let name = if stable { STABLE } else { CANARY };
                let _ = self.api.delete(Res::Service, name, None);
                let _ = self.api.delete(Res::EndpointSlice, &format!("{name}-slice"), None);
            }
            Event::DeleteStable => {
                // Its template is nowhere any more: what runs then is not promised.
                self.disturb(0);
                self.truth.lawless = true;
                let stable = self.run().map(|run| run.stable.replica_set.clone());
                let stable = stable.or_else(|| self.status().stable.map(|stable| stable.replica_set));
                let _ = self.api.delete(Res::ReplicaSet, &stable.unwrap_or_default(), None);
            }
            Event::CreateDeployment(number) => {
                self.disturb(0);
                if self.api.create(Res::Deployment, fixture::deployment(image(number), 4), at).is_ok() {
                    // It is not enrolled yet: weights that somebody wrote before are told, not written over.
                    self.truth.unguarded |= self.truth.foreign;
                    self.truth.lawless = true;
                    self.applied.push(image(number).to_owned());
                }
            }
            Event::DeleteRollout => self.api.delete_rollout(at),
            Event::CreateRollout => {
                let _ = self.api.create_rollout(fixture::rollout());
            }
            Event::Uninstall => self.releasing = true,
            _ => {}
        }
    }
}
