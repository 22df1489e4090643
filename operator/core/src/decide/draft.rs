//! A decision in the making: the next status, and what is to be done.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::action::{Action, Event, EventKind};
use crate::api::{
    GoingBack, Outcome, ProgressiveRollout, ProgressiveRolloutSpec, ProgressiveRolloutStatus, Run, Waiting,
};
use crate::config::Config;
use crate::observed::Observed;
use crate::policy::Policy;
use crate::queue::Turn;
use crate::verdict::Verdict;
use crate::view::{Workload, shorten};

/// Everything that a decision depends on. No clock, no client.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// The rollout, with the status of the last pass.
    pub rollout: &'a ProgressiveRollout,
    /// The cluster.
    pub seen: &'a Observed,
    /// The evidence.
    pub verdict: &'a Verdict,
    /// Settings of the installation.
    pub config: &'a Config,
    /// The policies in force for the rollout's namespace.
    pub policy: &'a Policy,
    /// Why there is no room for a held template to start, once the shell has asked; none: there is, as far as is known.
    pub turn: Option<Turn>,
    /// Whether the installation is being removed: every rollout lets go.
    pub releasing: bool,
    /// Now.
    pub now: Timestamp,
}

/// What to do now.
#[derive(Clone, Debug)]
pub struct Decision {
    /// The whole next status.
    pub status: ProgressiveRolloutStatus,
    /// Writes, in order.
    pub actions: Vec<Action>,
    /// Events to emit once the status is written.
    pub events: Vec<Event>,
    /// When to look again at the latest.
    pub wake: Duration,
}

/// Look again at the latest after this long, when nothing else is due.
const IDLE_WAKE: Duration = Duration::from_secs(300);
/// Look again while something is under way.
pub(super) const BUSY_WAKE: Duration = Duration::from_secs(1);
/// After this long at the latest while the next step is somebody else's, who wakes the rollout; and not before two
/// evaluations have passed, of which each does.
const CALM_WAKE: Duration = Duration::from_secs(10);

/// Longest sentence in status, in characters.
pub(super) const MESSAGE_LIMIT: usize = 600;
/// Longest message of an event, in characters: the API server takes 1024 bytes.
const EVENT_LIMIT: usize = 1000;

/// A wait that this pass found.
#[derive(Clone, Debug)]
pub(super) struct Wait {
    pub reason: &'static str,
    pub message: String,
    pub deadline: Option<Timestamp>,
}

/// Why nothing can move until a person acts.
#[derive(Clone, Debug)]
pub(super) struct Problem {
    pub reason: &'static str,
    pub message: String,
}

pub(super) struct Draft<'a> {
    pub input: Input<'a>,
    pub name: String,
    pub namespace: String,
    pub spec: &'a ProgressiveRolloutSpec,
    pub seen: &'a Observed,
    pub now: Timestamp,
    pub status: ProgressiveRolloutStatus,
    pub actions: Vec<Action>,
    pub events: Vec<Event>,
    pub wake: Duration,
    pub wait: Option<Wait>,
    pub problem: Option<Problem>,
}

impl<'a> Draft<'a> {
    pub fn new(input: Input<'a>) -> Self {
        let meta = &input.rollout.metadata;
        Self {
            name: meta.name.clone().unwrap_or_default(),
            namespace: meta.namespace.clone().unwrap_or_default(),
            spec: &input.rollout.spec,
            seen: input.seen,
            now: input.now,
            // A place in the queue is for one pass: whoever waits for something else has none.
            status: ProgressiveRolloutStatus {
                queue: None,
                ..input.rollout.status.clone().unwrap_or_default()
            },
            actions: Vec::new(),
            events: Vec::new(),
            wake: IDLE_WAKE,
            wait: None,
            problem: None,
            input,
        }
    }

    pub fn workload(&self) -> Option<&'a Workload> {
        self.seen.workload()
    }

    /// Whether a lagging cache shows an older Deployment than an earlier pass saw: nothing is concluded from its
    /// template.
    pub fn workload_is_old(&self) -> bool {
        let Some(workload) = self.workload() else {
            return false;
        };
        let status = self.input.rollout.status.as_ref();
        status.is_some_and(|status| {
            status.workload_uid.as_ref() == Some(&workload.uid)
                && status.observed_workload_generation.is_some_and(|seen| workload.generation < seen)
        })
    }

    /// Whether the last pass waited for this reason already: then its event was told, and is not told again while a
    /// write is refused or lost.
    pub fn told(&self, reason: &str) -> bool {
        self.waited(reason).is_some()
    }

    /// The wait that the last pass left, if it was for this reason.
    fn waited(&self, reason: &str) -> Option<&'a Waiting> {
        let waiting = self.input.rollout.status.as_ref().and_then(|status| status.waiting.as_ref());
        waiting.filter(|waiting| waiting.reason == reason)
    }

    /// Since when the last passes waited for this reason; now, when they did not.
    pub fn waits_since(&self, reason: &str) -> Timestamp {
        self.waited(reason).map_or(self.now, |waiting| waiting.since)
    }

    /// Gives the wait that this pass found a deadline, if it has none of its own.
    pub fn wait_until(&mut self, deadline: Timestamp) {
        if let Some(wait) = &mut self.wait {
            wait.deadline.get_or_insert(deadline);
        }
    }

    pub fn act(&mut self, action: Action) {
        self.actions.push(action);
        self.wake_within(BUSY_WAKE);
    }

    pub fn event(&mut self, kind: EventKind, reason: &'static str, message: impl Into<String>) {
        let message = shorten(&message.into(), EVENT_LIMIT);
        self.events.push(Event { kind, reason, message });
    }

    pub fn normal(&mut self, reason: &'static str, message: impl Into<String>) {
        self.event(EventKind::Normal, reason, message);
    }

    pub fn warn(&mut self, reason: &'static str, message: impl Into<String>) {
        self.event(EventKind::Warning, reason, message);
    }

    pub fn wake_within(&mut self, delay: Duration) {
        self.wake = self.wake.min(delay);
    }

    /// Notes what the pass waits for; the first wait of a pass is the one that counts.
    pub fn wait(&mut self, reason: &'static str, message: impl Into<String>, deadline: Option<Timestamp>) {
        self.wake_within(BUSY_WAKE);
        self.wait_to_be_woken(reason, message, deadline);
    }

    /// The same for what only evidence or a person can end: a verdict wakes the rollout, as does a change of its object.
    pub fn wait_to_be_woken(
        &mut self,
        reason: &'static str,
        message: impl Into<String>,
        deadline: Option<Timestamp>,
    ) {
        let interval = u64::try_from(self.input.config.evaluation_interval_seconds).unwrap_or(0);
        self.wake_within(CALM_WAKE.max(2 * Duration::from_secs(interval)));
        if self.wait.is_none() {
            let message = shorten(&message.into(), MESSAGE_LIMIT);
            self.wait = Some(Wait { reason, message, deadline });
        }
    }

    pub fn stall(&mut self, reason: &'static str, message: impl Into<String>) {
        if self.problem.is_none() {
            self.problem = Some(Problem { reason, message: shorten(&message.into(), MESSAGE_LIMIT) });
        }
    }

    /// Decides that the run goes back. The first reason stays.
    pub fn go_back(&mut self, run: &mut Run, outcome: Outcome, reason: &str, message: impl Into<String>) {
        if run.going_back.is_some() {
            return;
        }
        let message = shorten(&message.into(), MESSAGE_LIMIT);
        let outcome = if run.released && outcome == Outcome::Rejected { Outcome::Reverted } else { outcome };
        let kind = match outcome {
            Outcome::Superseded | Outcome::Abandoned => EventKind::Normal,
            _ => EventKind::Warning,
        };
        let word = if run.released { "Reverting" } else { "Aborted" };
        self.event(kind, word, format!("run {}: {reason}: {message}; traffic returns to stable", run.id));
        run.going_back = Some(GoingBack {
            outcome,
            reason: reason.to_owned(),
            message,
            since: self.now,
            judges_stable: false,
            back_at: None,
            verified_at: None,
        });
        run.stage = crate::api::Stage::Returning;
        run.stage_since = self.now;
    }

    pub fn after(&self, since: Timestamp, seconds: i32) -> Timestamp {
        since.checked_add(SignedDuration::from_secs(i64::from(seconds))).unwrap_or(Timestamp::MAX)
    }

    /// Whether this many seconds have passed; wakes when they have.
    pub fn passed(&mut self, since: Timestamp, seconds: i32) -> bool {
        let due = self.after(since, seconds);
        if self.now >= due {
            return true;
        }
        let left = due.duration_since(self.now);
        self.wake_within(Duration::try_from(left).unwrap_or(BUSY_WAKE));
        false
    }
}

/// Whole seconds between two instants, never negative.
pub(super) fn seconds_between(since: Timestamp, now: Timestamp) -> i64 {
    now.duration_since(since).as_secs().max(0)
}
