//! What the commands know about one rollout, and where it stands. Pure: no client, no clock.

use serde::Serialize;
use sluice_core::api::{
    ConditionStatus, ConditionType, Outcome, Phase, ProgressiveRollout, ProgressiveRolloutStatus, Run,
    RunKind, RunRecord, Stage, Waiting,
};
use sluice_core::provenance::{self, Before};
use sluice_core::view::{ReplicaSet, Workload};

use crate::exit::Code;

/// Waits that only a person ends.
const PERSON: [&str; 5] = ["Paused", "PausedBeforePercent", "Suspended", "UserPaused", "RouteOverwritten"];

/// Everything a screen is drawn from.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The rollout.
    pub rollout: ProgressiveRollout,
    /// Its Deployment, when it can be read.
    pub workload: Option<Workload>,
    /// ReplicaSets of the Deployment; `None` when they can't be read.
    pub replica_sets: Option<Vec<ReplicaSet>>,
    /// The controller, when it can be found.
    pub controller: Option<Controller>,
    /// Newest events, oldest first.
    pub events: Vec<Event>,
}

/// The controller's Deployment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Controller {
    /// Namespace.
    pub namespace: String,
    /// Name of the Deployment.
    pub name: String,
    /// Version label.
    pub version: String,
    /// Image of the controller.
    pub image: String,
    /// Ready pods.
    pub ready: i32,
    /// Wanted pods.
    pub wanted: i32,
}

/// One event about the rollout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// When it last happened.
    pub at: jiff::Timestamp,
    /// Whether it is a warning.
    pub warning: bool,
    /// One CamelCase word.
    pub reason: String,
    /// A sentence.
    pub message: String,
}

/// Where a rollout stands, in the terms of exit codes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nothing to do.
    Idle,
    /// Something moves, or will move by itself.
    UnderWay,
    /// Only a person moves it on.
    Person(String),
    /// The controller can't work with it: reason and sentence.
    Stalled(String, String),
    /// The last run of the held revision ended: reason and sentence.
    Ended(Outcome, String, String),
    /// A run goes back; its outcome is decided.
    GoingBack(Outcome),
}

impl Standing {
    /// The exit code that describes it.
    pub fn code(&self) -> Code {
        match self {
            Self::Idle | Self::UnderWay => Code::Fine,
            Self::Person(_) => Code::Person,
            Self::Stalled(..) => Code::Error,
            Self::Ended(outcome, ..) | Self::GoingBack(outcome) => code_of(*outcome),
        }
    }
}

/// The exit code of a run's outcome. A run that was abandoned did not arrive either.
pub fn code_of(outcome: Outcome) -> Code {
    match outcome {
        Outcome::Promoted => Code::Fine,
        Outcome::Rejected | Outcome::NotProven | Outcome::Reverted | Outcome::Abandoned => Code::Rejected,
        Outcome::Superseded => Code::Superseded,
    }
}

impl Seen {
    /// Name.
    pub fn name(&self) -> &str {
        self.rollout.metadata.name.as_deref().unwrap_or_default()
    }

    /// Namespace.
    pub fn namespace(&self) -> &str {
        self.rollout.metadata.namespace.as_deref().unwrap_or_default()
    }

    /// Status, empty when the controller has not written one.
    pub fn status(&self) -> std::borrow::Cow<'_, ProgressiveRolloutStatus> {
        self.rollout.status.as_ref().map_or_else(Default::default, std::borrow::Cow::Borrowed)
    }

    /// What the controller has not looked at yet, in words: status may be older than what stands in the cluster.
    pub fn unseen(&self) -> Option<String> {
        let Some(status) = self.rollout.status.as_ref() else {
            return Some("the controller has not looked at this ProgressiveRollout yet".to_owned());
        };
        let generation = self.rollout.metadata.generation.unwrap_or_default();
        if status.observed_generation < generation {
            return Some("the controller has not seen the newest spec yet".to_owned());
        }
        let workload = &self.rollout.spec.workload_ref.name;
        self.held_unseen().then(|| {
            format!("Deployment {workload} holds a new template that the controller has not seen yet")
        })
    }

    /// Whether the Deployment holds a template that the controller has not seen yet.
    pub fn held_unseen(&self) -> bool {
        let (Some(status), Some(workload)) = (self.rollout.status.as_ref(), self.workload.as_ref()) else {
            return false;
        };
        let ahead = status.observed_workload_generation.is_some_and(|seen| seen < workload.generation);
        ahead && workload.held.is_some() && status.run.is_none()
    }

    /// The commit that the held template's run would have.
    pub fn held_commit(&self) -> Option<String> {
        let status = self.status();
        let stable = status.stable.clone().unwrap_or_default();
        match &self.workload {
            Some(workload) => {
                provenance::describe(&self.rollout.spec.change, workload, Before::held(&stable, &status))
                    .commit
            }
            // Without the Deployment, what the controller shows of it, or what is declared.
            None => Some(status.summary.commit.clone())
                .filter(|commit| !commit.is_empty())
                .or_else(|| self.rollout.spec.change.commit.clone()),
        }
    }

    /// Where it stands.
    pub fn standing(&self) -> Standing {
        let status = self.status();
        let reason = status.waiting.as_ref().map(|w| w.reason.as_str()).unwrap_or_default();
        if let Some(run) = &status.run {
            if run.kind == RunKind::Observe {
                return Standing::UnderWay;
            }
            if let Some(back) = &run.going_back {
                return Standing::GoingBack(back.outcome);
            }
            return match person(run, reason) {
                Some(reason) => Standing::Person(reason),
                None => Standing::UnderWay,
            };
        }
        if self.unseen().is_some() {
            return Standing::UnderWay;
        }
        let said = |fallback: &str| {
            status.waiting.as_ref().map_or_else(|| fallback.to_owned(), |w| w.message.clone())
        };
        let ended = |outcome| {
            let last = self.last_of_held();
            let reason = last.as_ref().map_or_else(|| reason.to_owned(), |(_, reason)| reason.clone());
            Standing::Ended(outcome, reason, said("stable serves"))
        };
        match status.phase {
            Phase::Rejected => ended(self.held_outcome().unwrap_or(Outcome::Rejected)),
            Phase::NotProven => ended(Outcome::NotProven),
            _ if stalled(&status) => {
                Standing::Stalled(reason.to_owned(), said("nothing moves until somebody acts"))
            }
            Phase::Held if PERSON.contains(&reason) => Standing::Person(reason.to_owned()),
            Phase::Pending | Phase::Held => Standing::UnderWay,
            Phase::Idle | Phase::Observing | Phase::Released if status.waiting.is_none() => Standing::Idle,
            _ => Standing::UnderWay,
        }
    }

    /// The run that the held revision may not repeat, and why it ended: what `retry` names.
    pub fn last_of_held(&self) -> Option<(String, String)> {
        let status = self.status();
        let held = status.held.as_ref();
        let ended = held.and_then(|held| held.ended.as_ref());
        let ended = ended.map(|ended| (ended.run_id.clone(), ended.reason.clone()));
        ended.or_else(|| {
            let restart = self.workload.as_ref().map(|w| w.restart_digest.as_str());
            let by_digest =
                |q: &&sluice_core::api::Quarantined| held.is_some_and(|held| held.digest == q.digest);
            let by_restart = |q: &&sluice_core::api::Quarantined| restart == Some(q.restart_digest.as_str());
            let found = status.quarantine.iter().find(by_digest);
            let found =
                found.or_else(|| status.quarantine.iter().filter(|_| held.is_some()).find(by_restart));
            found.map(|q| (q.run_id.clone(), q.reason.clone()))
        })
    }

    /// How the run ended that the held revision may not repeat.
    fn held_outcome(&self) -> Option<Outcome> {
        let (id, _) = self.last_of_held()?;
        self.record(&id).map(|record| record.outcome)
    }

    /// The record of an ended run.
    pub fn record(&self, id: &str) -> Option<RunRecord> {
        self.rollout.status.as_ref()?.history.iter().find(|record| record.id == id).cloned()
    }

    /// A ReplicaSet by name.
    pub fn replica_set(&self, name: &str) -> Option<&ReplicaSet> {
        self.replica_sets.as_ref()?.iter().find(|set| set.name == name)
    }
}

/// Whether only a person moves this run on, and why.
fn person(run: &Run, reason: &str) -> Option<String> {
    let moving = matches!(run.stage, Stage::Preparing | Stage::Stepping);
    if !moving {
        return None;
    }
    if run.paused {
        return Some("Paused".to_owned());
    }
    if run.overwritten {
        return Some("RouteOverwritten".to_owned());
    }
    PERSON.contains(&reason).then(|| reason.to_owned())
}

/// Whether the controller says that nothing moves until somebody acts.
pub fn stalled(status: &ProgressiveRolloutStatus) -> bool {
    status.conditions.iter().any(|c| c.kind == ConditionType::Stalled && c.status == ConditionStatus::True)
}

/// What a run waits for when status does not say it: never an empty line while something is under way.
pub fn fallback_wait(run: &Run) -> Waiting {
    let message = match run.stage {
        Stage::Preparing => "the canary is being prepared",
        Stage::Stepping => "the next step begins",
        Stage::Promoting => "the canary becomes the workload's own revision",
        Stage::Watching => "the new revision is watched",
        Stage::Finishing => "the run is being tidied up",
        Stage::Returning => "traffic and pods go back to stable",
    };
    Waiting {
        reason: "Moving".to_owned(),
        message: message.to_owned(),
        since: run.stage_since,
        deadline: None,
    }
}
