//! What the evidence says about the run under way, in the few words that decisions need.

use std::sync::Arc;

use jiff::Timestamp;

use crate::api::{ErrorBudgetPolicy, GuardStatus, PlanHarm, Stage};
use crate::evidence::{EvidenceState, KnownAlert};
use crate::policy::Sourced;

/// The error budget is read this often, in seconds, while a template is held.
pub const BUDGET_LOOK_SECONDS: i32 = 60;

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
    pub state: Option<Arc<EvidenceState>>,
    /// Alerts firing now that match a guard of the rollout, whatever their onset.
    pub firing: Vec<KnownAlert>,
    /// While no run is under way: what the alerts say about starting one; absent before the first look.
    pub at_rest: Option<AlertsAtRest>,
    /// While a template is held: what is left of the error budget, by each policy that asks.
    pub budgets: Vec<BudgetLook>,
    /// The bound on harm of a plan: of a held template's, or of the run's before its first request.
    pub harm: Option<HarmLook>,
}

/// Looks for what is left of the error budget, by one policy's query.
#[derive(Clone, Debug, PartialEq)]
pub struct BudgetLook {
    /// The policy.
    pub from: String,
    /// Its query.
    pub query: String,
    /// When it was last answered, and the share of the budget that was left: 1 is all of it.
    pub answer: Option<(Timestamp, f64)>,
    /// Since when looks fail, and why the last one did.
    pub trouble: Option<(Timestamp, String)>,
}

impl BudgetLook {
    /// Whether it is about what the policy asks now.
    pub fn is_for(&self, budget: &Sourced<ErrorBudgetPolicy>) -> bool {
        self.from == budget.from && self.query == budget.value.query
    }

    /// Whether it is time for the next one: the last answer is old, or there was none.
    pub fn is_due(&self, now: Timestamp) -> bool {
        let answered = self.answer.filter(|_| self.trouble.is_none());
        answered
            .is_none_or(|(at, _)| now.duration_since(at).as_secs().abs() >= i64::from(BUDGET_LOOK_SECONDS))
    }

    /// What is known after a look at this time, and what was known before.
    #[must_use]
    pub fn after(
        before: Option<&Self>,
        budget: &Sourced<ErrorBudgetPolicy>,
        at: Timestamp,
        answer: Result<f64, String>,
    ) -> Self {
        let before = before.filter(|before| before.is_for(budget));
        let (answer, trouble) = match answer {
            Ok(ratio) => (Some((at, ratio)), None),
            Err(why) => {
                let since = before.and_then(|before| before.trouble.as_ref()).map_or(at, |(since, _)| *since);
                (before.and_then(|before| before.answer), Some((since, why)))
            }
        };
        Self { from: budget.from.clone(), query: budget.value.query.clone(), answer, trouble }
    }
}

/// The bound on harm of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HarmLook {
    /// Digest of the plan.
    pub plan: String,
    /// When stable's record was read, or could not be.
    pub at: Timestamp,
    /// The bound, or why it is not known.
    pub harm: PlanHarm,
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
