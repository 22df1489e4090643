//! Outcomes for people: one row per trace and class.

use sluice_core::trace::{Decision, Outcome, Trace};

use crate::out::{Line, Role, table};
use crate::view::words;

/// From here on a score is only shown as large.
const LARGE: f64 = 1000.0;

/// An outcome and what it takes to tell it.
pub struct Row {
    outcome: Outcome,
    /// When the canary first met traffic.
    exposed: Option<f64>,
}

impl Row {
    /// An outcome of a trace.
    pub fn new(trace: &Trace, outcome: Outcome) -> Self {
        Self { outcome, exposed: exposed(trace) }
    }
}

/// When the canary first met traffic: a record's weight was in force since the record before.
pub fn exposed(trace: &Trace) -> Option<f64> {
    let first = trace.records.iter().position(|record| record.weight > 0.0)?;
    trace.records.get(first.saturating_sub(1)).map(|record| record.t)
}

/// The mark of a decision.
pub fn role(decision: Decision) -> Role {
    match decision {
        Decision::Abort | Decision::Revert => Role::Bad,
        Decision::Promote => Role::Ok,
        Decision::Hold => Role::Attention,
    }
}

/// The table.
pub fn lines(rows: &[Row], wide: bool) -> Vec<Line> {
    let mut header = vec!["TRACE", "CLASS", "DECISION", "AFTER", "SCORE", "REASON", "GATES"];
    if wide {
        header.push("HELD");
    }
    let header = header.into_iter().map(|name| Line::default().add(Role::Dim, name)).collect();
    table(std::iter::once(header).chain(rows.iter().map(|row| cells(row, wide))).collect())
}

fn cells(Row { outcome, exposed }: &Row, wide: bool) -> Vec<Line> {
    let after = |t: f64| exposed.map_or_else(|| "-".to_owned(), |since| words::span((t - since) as i64));
    let role = role(outcome.decision);
    let gates = outcome.gates.iter().map(|gate| {
        let opened = gate.open_at.as_ref().and_then(serde_json::Number::as_f64);
        format!("{}% {}", gate.weight, opened.map_or_else(|| "-".to_owned(), after))
    });
    let mut cells = vec![
        Line::new(&outcome.trace),
        Line::new(outcome.risk_class.as_str()),
        Line::default().mark(role).add(role, format!(" {:?}", outcome.decision)),
        Line::new(after(outcome.t)),
        Line::new(score(outcome.score)),
        Line::new(&outcome.reason),
        Line::new(or_dash(gates.collect())),
    ];
    if wide {
        let held = outcome.holds.iter();
        let held = held.map(|hold| format!("{} {}", hold.reason, words::span((hold.to - hold.from) as i64)));
        cells.push(Line::new(or_dash(held.collect())));
    }
    cells
}

/// Parts behind commas.
fn or_dash(parts: Vec<String>) -> String {
    if parts.is_empty() { "-".to_owned() } else { parts.join(", ") }
}

/// A score, never rounded up to 1.
pub fn score(score: f64) -> String {
    if score < LARGE { words::score((score * 1000.0) as i64) } else { format!("{LARGE}+") }
}
