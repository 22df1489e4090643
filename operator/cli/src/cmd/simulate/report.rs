//! Past rollouts, for people and for programs.

use jiff::Timestamp;
use serde::Serialize;
use sluice_core::statistics::Counts;
use sluice_core::trace::{Decision, Outcome, Trace};

use super::find::Ended;
use super::record::totals;
use super::table;
use crate::cmd::API_VERSION;
use crate::out::{LABEL, Line, Role, labelled};
use crate::view::words;

/// The guard that counts failures.
const ERRORS: &str = "error-ratio";

/// A past rollout and what each class would have made of it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PastRollout {
    /// Version of this document.
    pub api_version: &'static str,
    /// What it is.
    pub kind: &'static str,
    /// Id of its trace.
    pub trace: String,
    /// Namespace and name.
    pub workload: String,
    /// When the canary appeared.
    pub started: Timestamp,
    /// How long it is seen from then on.
    pub seconds: i64,
    /// How it ended.
    pub ended: Ended,
    /// Seconds between two scrapes.
    pub scrape_seconds: i64,
    /// The older revision.
    pub stable: Arm,
    /// The newer one.
    pub canary: Arm,
    /// What each class would have decided.
    pub classes: Vec<Verdict>,
    /// What should be known about the data.
    pub notes: Vec<String>,
}

/// A revision's requests while both served, and in the time after that is watched.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Arm {
    /// Its hash.
    pub revision: String,
    /// Requests.
    pub requests: i64,
    /// Failed ones.
    pub failed: i64,
}

/// What a class would have decided.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// When, from the canary's first requests on.
    pub after_seconds: i64,
    /// Requests that met the canary until then.
    pub canary_requests: i64,
    /// Failed ones.
    pub canary_failed: i64,
    /// For Hold: the weight that it would have kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held_at_percent: Option<i64>,
    /// The result of the replay.
    #[serde(flatten)]
    pub outcome: Outcome,
}

impl Arm {
    /// A revision with its counts.
    pub fn new(revision: &str, counts: Counts) -> Self {
        Self {
            revision: revision.to_owned(),
            requests: counts.n.round() as i64,
            failed: counts.x.round() as i64,
        }
    }
}

impl Verdict {
    /// An outcome of a trace whose canary appeared at a time.
    pub fn new(trace: &Trace, exposed: f64, outcome: Outcome) -> Self {
        let [_, canary] = totals(trace, outcome.t);
        let first = trace.records.iter().map(|record| record.weight).find(|weight| *weight > 0.0);
        let closed = outcome.gates.iter().position(|gate| gate.open_at.is_none());
        let weight = closed.and_then(|at| match at.checked_sub(1) {
            Some(before) => outcome.gates.get(before).map(|gate| gate.weight),
            None => first,
        });
        Self {
            after_seconds: (outcome.t - exposed) as i64,
            canary_requests: canary.n.round() as i64,
            canary_failed: canary.x.round() as i64,
            held_at_percent: weight
                .filter(|_| outcome.decision == Decision::Hold)
                .map(|weight| weight as i64),
            outcome,
        }
    }
}

impl PastRollout {
    /// The kind and its version.
    pub const KIND: (&'static str, &'static str) = (API_VERSION, "PastRollout");

    /// Whether a class would have waited.
    pub fn is_held(&self) -> bool {
        self.classes.iter().any(|verdict| verdict.outcome.decision == Decision::Hold)
    }
}

/// The screen.
pub fn lines(past: &PastRollout, width: usize) -> Vec<Line> {
    let PastRollout { stable, canary, .. } = past;
    let ended = match past.ended {
        Ended::Promoted => "promoted",
        Ended::RolledBack => "rolled back",
        Ended::Superseded => "superseded",
        Ended::Gone => "both gone",
        Ended::UnderWay => "under way",
    };
    let head = Line::default()
        .add(Role::Strong, past.started.to_string())
        .plain(format!("  {} -> {}  {ended}  seen for ", stable.revision, canary.revision))
        .plain(words::span(past.seconds));
    let mut lines = vec![Line::default(), head];
    for (label, arm) in [("stable", stable), ("canary", canary)] {
        let text = format!(
            "{} requests, {} failed ({})",
            words::count(arm.requests),
            words::count(arm.failed),
            words::ratio(arm.failed, arm.requests)
        );
        lines.push(Line::default().add(Role::Dim, label).pad(LABEL).plain(text));
    }
    for verdict in &past.classes {
        let class = verdict.outcome.risk_class.as_str();
        let role = table::role(verdict.outcome.decision);
        lines.push(
            Line::default().add(Role::Dim, class).pad(LABEL).mark(role).plain(format!(" {}", told(verdict))),
        );
    }
    for note in &past.notes {
        lines.extend(labelled("note", Role::Attention, note, width));
    }
    lines
}

fn told(verdict: &Verdict) -> String {
    let Verdict { outcome, .. } = verdict;
    let mut until = format!(
        "after {}, {} canary requests",
        words::span(verdict.after_seconds),
        words::count(verdict.canary_requests)
    );
    // Of latency the failures say nothing.
    if outcome.reason == ERRORS {
        until += &format!(", {} of them failed", words::count(verdict.canary_failed));
    }
    match outcome.decision {
        Decision::Abort => format!("stopped {until}: {}", outcome.reason),
        Decision::Revert => format!("reverted {until}: {}", outcome.reason),
        Decision::Promote => "promoted: every step had its evidence in time".to_owned(),
        Decision::Hold => {
            let at = verdict.held_at_percent.map_or_else(String::new, |weight| format!(" at {weight}%"));
            format!("held{at}: {}", outcome.reason)
        }
    }
}

/// What a hold of the past means.
pub fn about_held(width: usize) -> Vec<Line> {
    let text = "the weight would have stayed there until the evidence was in; what that wait would have shown is not \
                in the past";
    std::iter::once(Line::default()).chain(labelled("held", Role::Dim, text, width)).collect()
}
