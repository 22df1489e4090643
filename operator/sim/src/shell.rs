//! The controller's shell, as it is promised to behave, and how it dies.
//!
//! A pass decides on the caches. If all that is to be done returns traffic, it is done at once, on what the
//! caches show, and status follows. Otherwise the objects are read again and decided on again (while nobody meets the
//! canary, the Deployment alone); unless that, too, only returns traffic, status is written first, by compare-and-swap;
//! then the actions, in order, until one does not succeed.

use jiff::Timestamp;
use sluice_core::action::{Action, Kind, Lane, PatchOp, Write};
use sluice_core::api::ProgressiveRolloutStatus;
use sluice_core::check;
use sluice_core::decide::{Decision, Input, decide};
use sluice_core::render;

use crate::admission::Actor;
use crate::api::{Refused, Res};
use crate::pods::later;
use crate::view::{self, Caches};
use crate::world::World;

/// What goes wrong in a pass, at which of its writes (the first is 0).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The process dies before this write.
    Crash(u8),
    /// The write fails.
    Fail(u8),
    /// The write happens, but its reply is lost.
    LoseReply(u8),
    /// The process stops with this write already sent; another instance takes over, the write arrives later.
    Stall(u8),
}

/// A request is on its way for so many seconds at most: then it has timed out.
const IN_FLIGHT_SECONDS: i64 = 8;

/// One instance of the controller.
#[derive(Clone, Debug, Default)]
pub struct Instance {
    /// Its caches.
    pub caches: Caches,
    /// A write that was sent and has not arrived.
    pub sent: Option<(Timestamp, Sent)>,
}

/// A write on its way.
#[derive(Clone, Debug)]
pub enum Sent {
    /// Status, by compare-and-swap.
    Status(String, Box<ProgressiveRolloutStatus>),
    /// A patch.
    Patch(Kind, String, Vec<PatchOp>),
    /// A create or delete, as it stands in the action.
    Action(Box<Action>),
}

/// What became of one write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Done,
    Already,
    Failed,
    Dead,
}

struct Pass {
    writes: u8,
    fault: Option<Fault>,
    instance: usize,
}

impl World {
    /// One pass of an instance. Returns how many writes it made.
    pub fn pass(&mut self, instance: usize, fault: Option<Fault>) -> u8 {
        let now = self.api.now.clone();
        let current = self.instances[instance].caches.are_current(self.now);
        let shown = self.instances[instance].caches.show(&now, self.now);
        let mut pass = Pass { writes: 0, fault, instance };
        let Some(rollout) = shown.rollout.clone() else {
            return 0;
        };
        let unreadable = self.unreadable();
        let seen = view::observe(&shown, &self.pods, &unreadable, self.now);
        let run = rollout.status.as_ref().and_then(|status| status.run.as_ref());
        let verdict = self.judge.verdict(run, self.now);
        let (config, policy) = (self.config.clone(), self.policy.clone());
        let input = Input {
            rollout: &rollout,
            seen: &seen,
            verdict: &verdict,
            config: &config,
            policy: &policy,
            turn: None,
            releasing: self.releasing,
            now: self.now,
        };
        let decision = decide(input);
        let version = rollout.metadata.resource_version.clone().unwrap_or_default();
        if decision.only_returns() && !decision.actions.is_empty() {
            self.checked(&input, &decision);
            if self.act(&mut pass, &decision.actions) {
                self.save(&mut pass, &version, &decision);
            }
            return pass.writes;
        }
        if instance != self.leader {
            return 0; // fenced
        }
        if current {
            // The caches show what is there: deciding again on the same gives the same.
            self.forward(&mut pass, &input, &decision);
            return pass.writes;
        }
        let before = rollout.status.as_ref();
        if decision.only_prepares(before) {
            // Of what nobody meets yet only the Deployment is read again.
            let mixed = shown.with(Res::Deployment, &now);
            let seen = view::observe(&mixed, &self.pods, &unreadable, self.now);
            let input = Input { seen: &seen, ..input };
            let decision = decide(input);
            if decision.only_prepares(before) {
                self.forward(&mut pass, &input, &decision);
                return pass.writes;
            }
        }
        let Some(rollout) = now.rollout.clone() else {
            return 0;
        };
        let seen = view::observe(&now, &self.pods, &unreadable, self.now);
        let run = rollout.status.as_ref().and_then(|status| status.run.as_ref());
        let verdict = self.judge.verdict(run, self.now);
        let input = Input { rollout: &rollout, seen: &seen, verdict: &verdict, ..input };
        let decision = decide(input);
        self.forward(&mut pass, &input, &decision);
        pass.writes
    }

    /// Carries out what was decided on the API server's own objects.
    fn forward(&mut self, pass: &mut Pass, input: &Input<'_>, decision: &Decision) {
        self.checked(input, decision);
        let version = input.rollout.metadata.resource_version.clone().unwrap_or_default();
        if decision.only_returns() && !decision.actions.is_empty() {
            if self.act(pass, &decision.actions) {
                self.save(pass, &version, decision);
            }
        } else if self.save(pass, &version, decision) {
            self.act(pass, &decision.actions);
        }
    }

    fn checked(&mut self, input: &Input<'_>, decision: &Decision) {
        for event in &decision.events {
            self.tell(format!("event {}: {}", event.reason, event.message));
        }
        for found in check::violations(input, decision) {
            self.violate(&format!("check: {found}"));
        }
    }

    /// Runs actions in order; false when the instance is dead. Those of the abort lane do not wait for each other.
    fn act(&mut self, pass: &mut Pass, actions: &[Action]) -> bool {
        for action in actions {
            match self.action(pass, action) {
                End::Done | End::Already => {}
                End::Dead => return false,
                End::Failed if action.lane == Lane::Abort => {}
                End::Failed => return true,
            }
        }
        true
    }

    fn action(&mut self, pass: &mut Pass, action: &Action) -> End {
        let sent = match &action.write {
            Write::Weights(weights) => {
                let Some(route) = self.api.now.get(Res::Route, &action.object).cloned() else {
                    return End::Failed;
                };
                match render::weights(&route, weights) {
                    Ok(ops) if ops.is_empty() => return End::Already,
                    Ok(ops) => Sent::Patch(action.kind, action.object.clone(), ops),
                    Err(problem) => {
                        self.tell(format!("{} refused: {problem}", action.name));
                        return End::Failed;
                    }
                }
            }
            Write::Patch(ops) => Sent::Patch(action.kind, action.object.clone(), ops.clone()),
            Write::Create(_) | Write::Delete { .. } => Sent::Action(Box::new(action.clone())),
        };
        let words = format!("{:?} {} {}", action.lane, action.name, action.object);
        self.send(pass, sent, &words)
    }

    /// Writes status if it differs; false when the pass ends here.
    fn save(&mut self, pass: &mut Pass, version: &str, decision: &Decision) -> bool {
        let unchanged = self
            .api
            .now
            .rollout
            .as_ref()
            .is_some_and(|rollout| rollout.status.as_ref() == Some(&decision.status));
        if unchanged {
            return true;
        }
        let sent = Sent::Status(version.to_owned(), Box::new(decision.status.clone()));
        let written = matches!(self.send(pass, sent, "status"), End::Done | End::Already);
        if written {
            // A process knows what it wrote, however late its watch is.
            self.instances[pass.instance].caches.caught_up();
        }
        written
    }

    fn send(&mut self, pass: &mut Pass, sent: Sent, words: &str) -> End {
        let index = pass.writes;
        match pass.fault {
            Some(Fault::Crash(at)) if at == index => {
                self.tell(format!("instance {} dies before write {index}: {words}", pass.instance));
                self.instances[pass.instance].caches.clear();
                self.struck += 1;
                return End::Dead;
            }
            Some(Fault::Fail(at)) if at == index => {
                pass.writes += 1;
                self.struck += 1;
                self.tell(format!("write {index} fails: {words}"));
                return End::Failed;
            }
            Some(Fault::Stall(at)) if at == index => {
                self.tell(format!("instance {} stalls with write {index} sent: {words}", pass.instance));
                self.instances[pass.instance].sent = Some((self.now, sent));
                self.leader = 1 - pass.instance;
                self.struck += 1;
                return End::Dead;
            }
            _ => {}
        }
        pass.writes += 1;
        let end = self.arrive(sent, words);
        if matches!(pass.fault, Some(Fault::LoseReply(at)) if at == index) {
            self.struck += 1;
            self.tell(format!("the reply to write {index} is lost"));
            return End::Failed;
        }
        end
    }

    /// A write reaches the API server.
    fn arrive(&mut self, sent: Sent, words: &str) -> End {
        let at = self.now;
        let result = match sent {
            Sent::Status(version, status) => self.api.write_status(&version, &status),
            Sent::Patch(kind, name, ops) => match Res::of(kind) {
                Some(res) => self.api.patch(res, &name, Actor::Sluice, &ops),
                None => self.api.patch_rollout(&ops),
            },
            Sent::Action(action) => match (Res::of(action.kind), action.write) {
                (Some(res), Write::Create(body)) => match self.api.create(res, body, at) {
                    Err(Refused::Exists) => Ok(false),
                    other => other.map(|()| true),
                },
                (Some(res), Write::Delete { uid }) => {
                    match self.api.delete(res, &action.object, Some(&uid)) {
                        Err(Refused::NotFound) => Ok(false),
                        other => other.map(|()| true),
                    }
                }
                _ => Err(Refused::NotFound),
            },
        };
        let end = match result {
            Ok(true) => {
                if words != "status" {
                    self.tell(format!("writes {words}"));
                }
                End::Done
            }
            Ok(false) => End::Already,
            Err(why) => {
                self.tell(format!("refused {words}: {why:?}"));
                End::Failed
            }
        };
        self.wrote();
        end
    }

    /// The stalled instance goes on: its write arrives; then it learns that it no longer leads.
    pub fn thaw(&mut self) {
        for instance in 0..self.instances.len() {
            if let Some((at, sent)) = self.instances[instance].sent.take() {
                if later(at, IN_FLIGHT_SECONDS) < self.now {
                    continue;
                }
                self.tell(format!("the write that instance {instance} had sent arrives"));
                self.arrive(sent, "late write");
            }
        }
    }
}
