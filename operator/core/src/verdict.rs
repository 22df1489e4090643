//! What the evidence says about the run under way, in the few words that decisions need.

use jiff::Timestamp;

use crate::api::{GuardStatus, Stage};
use crate::evidence::{EvidenceState, KnownAlert};

/// A reason with its sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Why {
    /// One CamelCase word for programs.
    pub reason: String,
    /// A sentence for people.
    pub message: String,
}

/// The verdict on one run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Verdict {
    /// The run that was judged.
    pub run_id: String,
    /// Stage and step that was judged; a verdict on another one opens no gate.
    pub at: Option<(Stage, i32)>,
    /// Digest of the plan that it was judged by: one that became tighter since opens no gate before the next evaluation.
    pub plan: String,
    /// Why the run must go back.
    pub abort: Option<Why>,
    /// Why the weight may not rise now.
    pub holds: Vec<Why>,
    /// Whether every required guard's gate is open.
    pub gate_open: bool,
    /// What the gate still needs, in words.
    pub needs: String,
    /// Healthy observation time since the window of this step began, in seconds: the least of all guards.
    pub healthy_seconds: f64,
    /// Since when a required guard has had no fresh data, and what it said.
    pub no_data: Option<(Timestamp, String)>,
    /// Seconds of this step in which a required guard had no data.
    pub unseen_seconds: i64,
    /// First and last evaluation of those in which stable itself failed, without a break up to now.
    pub incident: Option<(Timestamp, Timestamp)>,
    /// Once stable has the traffic back from a revision that was judged without it: that stable does what the revision was
    /// held against, in words.
    pub stable_too: Option<String>,
    /// Requests that met the canary, and all requests, since the window of this step began.
    pub share: Option<(f64, f64)>,
    /// First and newest scrape between which no request reached the canary, if known.
    pub quiet: Option<(Timestamp, Timestamp)>,
    /// Each guard, for status.
    pub guards: Vec<GuardStatus>,
    /// State to keep, so that a restart neither forgets nor refreshes it.
    pub state: Option<EvidenceState>,
    /// Alerts firing now that match a guard of the rollout, whatever their onset.
    pub firing: Vec<KnownAlert>,
    /// While no run is under way: what the alerts say about starting one; absent before the first look.
    pub at_rest: Option<AlertsAtRest>,
}

/// What the alerts say about starting a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AlertsAtRest {
    /// When they were last read.
    pub read_at: Option<Timestamp>,
    /// An alert that a guard watches and that fired then, in words: the guard, the alert, since when.
    pub firing: Option<String>,
    /// Why the last look was none.
    pub trouble: Option<String>,
}

impl Verdict {
    /// Whether it is about this stage and step of this run.
    pub fn is_about(&self, run_id: &str, stage: Stage, step: i32) -> bool {
        self.run_id == run_id && self.at == Some((stage, step))
    }
}
