//! The screen of one rollout: from what was seen, the time and the width to lines of text. Pure.
//!
//! The order is that of the questions people ask: where is it, what is shipped, what does it wait for, how far
//! is it, what does traffic do, what do the guards say, what comes next, how is it stopped.

mod head;
mod line;
mod next;
mod parts;
pub mod words;

use jiff::Timestamp;
use sluice_core::api::{ConditionStatus, ConditionType, Phase, ProgressiveRolloutStatus, RunRecord, Waiting};

use crate::model::{Seen, Standing, fallback_wait, stalled};
use crate::out::{Line, Role, labelled};

pub use line::{change_key, change_line, time};

/// From this width on, events stand beside the screen.
pub const PANE_WIDTH: usize = 110;
/// Width of the screen when events stand beside it.
const LEFT_WIDTH: usize = 78;
/// Seconds after which a passed deadline is worth a word: the controller looks every second.
const OVERDUE_SECONDS: i64 = 15;

/// What a screen is drawn from.
#[derive(Clone, Copy, Debug)]
pub struct Look<'a> {
    /// The rollout and what belongs to it.
    pub seen: &'a Seen,
    /// Now.
    pub now: Timestamp,
    /// Columns.
    pub width: usize,
    /// Whether events are asked for at any width.
    pub wide: bool,
    /// How the program is called.
    pub call: &'a Call,
}

/// How people call this program, for the commands that it prints.
#[derive(Clone, Debug, Default)]
pub struct Call {
    /// `kubectl sluice`, or the name of the binary.
    pub program: String,
    /// Flags that every printed command needs, with a space before each.
    pub flags: String,
}

impl Call {
    /// A command on one rollout.
    pub fn command(&self, verb: &str, seen: &Seen) -> String {
        format!("{} {verb} {} -n {}{}", self.program, seen.name(), seen.namespace(), self.flags)
    }
}

impl Look<'_> {
    pub(crate) fn ago(&self, since: Timestamp) -> String {
        words::between(since, self.now)
    }
}

/// The whole screen.
pub fn screen(look: &Look<'_>) -> Vec<Line> {
    if look.width < PANE_WIDTH {
        let mut lines = left(look);
        if look.wide {
            lines.extend(events(look, look.width));
        }
        return lines;
    }
    let narrow = Look { width: LEFT_WIDTH, ..*look };
    let pane = events(look, look.width - LEFT_WIDTH - 3);
    let left = left(&narrow);
    if pane.is_empty() {
        return left;
    }
    let rows = left.len().max(pane.len());
    let (mut left, mut pane) = (left.into_iter(), pane.into_iter());
    (0..rows)
        .map(|_| {
            let line = left.next().unwrap_or_default().clip(LEFT_WIDTH).pad(LEFT_WIDTH + 1);
            line.add(Role::Dim, "| ").join(pane.next().unwrap_or_default())
        })
        .collect()
}

fn left(look: &Look<'_>) -> Vec<Line> {
    let status = look.seen.status();
    let mut lines = vec![head::title(look, &status), head::headline(look, &status)];
    lines.extend(head::change(look, &status));
    lines.extend(mismatch(look, &status));
    lines.extend(now(look, &status));
    lines.extend(why(look, &status));
    if let Some(run) = &status.run {
        lines.extend(parts::steps(look, run));
        lines.extend(parts::traffic(look, &status, run));
        lines.extend(parts::arms(look, &status, run));
        lines.extend(parts::guards(look, &status));
        let low = run.low_traffic.iter().filter(|_| run.going_back.is_none());
        lines.extend(low.flat_map(|why| labelled("too low", Role::Attention, why, look.width)));
    } else {
        lines.extend(last(look, &status));
    }
    lines.extend(autoscaler(look, &status));
    lines.extend(next::lines(look, &status));
    lines.into_iter().map(|line| line.clip(look.width)).collect()
}

/// A claim of who wrote the change that is less than what is known.
fn mismatch(look: &Look<'_>, status: &ProgressiveRolloutStatus) -> Vec<Line> {
    let found = status.conditions.iter().find(|condition| {
        condition.kind == ConditionType::ProvenanceVerified && condition.reason == "Mismatch"
    });
    found
        .map_or_else(Vec::new, |condition| labelled("claim", Role::Attention, &condition.message, look.width))
}

/// An autoscaler that counts the canary's pods, or that can't be read: nothing stops by it, but a person should know.
fn autoscaler(look: &Look<'_>, status: &ProgressiveRolloutStatus) -> Vec<Line> {
    let found = status.conditions.iter().find(|condition| {
        condition.kind == ConditionType::AutoscalerCompatible && condition.status != ConditionStatus::True
    });
    found.map_or_else(Vec::new, |condition| labelled("hpa", Role::Attention, &condition.message, look.width))
}

/// What it waits for, for how long, and until when. Never empty while something is under way.
fn now(look: &Look<'_>, status: &ProgressiveRolloutStatus) -> Vec<Line> {
    let width = look.width;
    if let Some(unseen) = look.seen.unseen() {
        return labelled("now", Role::Attention, &format!("{unseen}; is the controller running?"), width);
    }
    let waiting = status.waiting.clone().or_else(|| status.run.as_ref().map(fallback_wait));
    let Some(waiting) = waiting else {
        let text = match status.phase {
            Phase::Idle => "nothing to do: the workload runs its template",
            Phase::Observing => "nothing to judge: the workload runs its template (mode Observe)",
            Phase::Released => "the workload is no longer guarded",
            Phase::Pending => "the controller has not said why it waits",
            _ => "the next pass of the controller decides",
        };
        return labelled("now", Role::Plain, text, width);
    };
    let person = matches!(look.seen.standing(), Standing::Person(_));
    let role = if stalled(status) {
        Role::Bad
    } else if person || line::is_trouble(&waiting.reason) {
        Role::Attention
    } else {
        Role::Plain
    };
    labelled("now", role, &format!("{}{}", waiting.message, times(look, &waiting)), width)
}

/// For how long it has waited, and how long it will at most.
fn times(look: &Look<'_>, waiting: &Waiting) -> String {
    let waited = look.ago(waiting.since);
    match waiting.deadline {
        None => format!(" (for {waited})"),
        Some(deadline) if look.now <= deadline => {
            format!(" (for {waited}, ends in {} at most)", words::between(look.now, deadline))
        }
        Some(deadline) if words::seconds(deadline, look.now) <= OVERDUE_SECONDS => {
            format!(" (for {waited}, due now)")
        }
        Some(deadline) => {
            let late = words::between(deadline, look.now);
            format!(" (for {waited}, due {late} ago: is the controller running?)")
        }
    }
}

/// Why a run goes back.
fn why(look: &Look<'_>, status: &ProgressiveRolloutStatus) -> Vec<Line> {
    let Some(back) = status.run.as_ref().and_then(|run| run.going_back.as_ref()) else {
        return Vec::new();
    };
    let text = format!("{}: {}: {}", back.outcome.as_str(), back.reason, back.message);
    let mut lines = labelled("why", head::outcome_role(back.outcome), &text, look.width);
    let since = |at: Timestamp| words::between(back.since, at);
    let mut steps = format!("decided {} ago", look.ago(back.since));
    if let Some(at) = back.back_at {
        steps.push_str(&format!(", weight 0 live after {}", since(at)));
    }
    if let Some(at) = back.verified_at {
        steps.push_str(&format!(", verified after {}", since(at)));
    }
    lines.extend(labelled("back", Role::Plain, &steps, look.width));
    lines
}

/// How the last run ended.
fn last(look: &Look<'_>, status: &ProgressiveRolloutStatus) -> Vec<Line> {
    let Some(record) = status.history.first() else {
        return labelled("last", Role::Dim, "no run yet", look.width);
    };
    // A held revision that may not run again says above why.
    let said = status.waiting.as_ref().is_some_and(|wait| wait.message.contains(&record.message));
    let why = if said { String::new() } else { format!(": {}: {}", record.reason, record.message) };
    let text = format!(
        "run {} {} {} ago after {}, class {}, at most {}% of traffic{why}",
        record.id,
        record.outcome.as_str(),
        look.ago(record.ended_at),
        words::between(record.started_at, record.ended_at),
        record.risk_class.as_str(),
        record.max_weight_percent
    );
    labelled("last", head::outcome_role(record.outcome), &text, look.width)
        .into_iter()
        .chain(exposed(look, record))
        .collect()
}

fn exposed(look: &Look<'_>, record: &RunRecord) -> Vec<Line> {
    let Some((since, until)) = record.exposed_since.zip(record.exposed_until) else {
        return Vec::new();
    };
    labelled("", Role::Dim, &format!("exposed for {}", words::between(since, until)), look.width)
}

/// Newest events, oldest first.
fn events(look: &Look<'_>, width: usize) -> Vec<Line> {
    let newest = look.seen.events.iter().rev().take(8).rev();
    newest
        .flat_map(|event| {
            let role = if event.warning { Role::Attention } else { Role::Plain };
            let at = event.at.strftime("%H:%M:%S").to_string();
            let head = Line::default().add(Role::Dim, at).plain(" ").add(role, &event.reason);
            let mut lines = vec![head.clip(width)];
            lines.extend(labelled("", Role::Dim, &event.message, width).into_iter().take(3));
            lines
        })
        .collect()
}

#[cfg(test)]
pub mod tests;
