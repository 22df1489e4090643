//! Time in which no controller ran is not the run's fault: deadlines of its progress move by it.
//!
//! Status remembers when a run was last attended, at most once a minute. What protects clients does not move: the way
//! back, settle and drain times, stable's capacity, missing data, the watched period, the windows of the evidence. And
//! what a run is given in all is bounded, so that a controller that dies again and again ends every wait as well.

use jiff::{SignedDuration, Timestamp};

use crate::api::{Run, RunKind, Stage};

use super::draft::{Draft, seconds_between};

/// How often it is noted that the run is attended, in seconds.
const NOTE_SECONDS: i64 = 60;
/// Longer than this without a note, nobody was there, in seconds.
const ABSENT_SECONDS: i64 = 90;
/// What a run is given for absences in all, in seconds: a night.
pub(crate) const FORGIVEN_SECONDS: i64 = 12 * 3600;

/// Notes that the run is attended, and gives back the time in which it was not.
pub(super) fn note(d: &mut Draft<'_>, run: &mut Run) {
    if run.kind == RunKind::Observe || run.going_back.is_some() {
        return;
    }
    let Some(seen) = run.attended_at.filter(|seen| *seen <= d.now) else {
        run.attended_at = Some(d.now);
        return;
    };
    let away = seconds_between(seen, d.now);
    if away < NOTE_SECONDS {
        return;
    }
    run.attended_at = Some(d.now);
    let given = away.min(FORGIVEN_SECONDS.saturating_sub(run.absent_seconds));
    if away <= ABSENT_SECONDS || given <= 0 {
        return;
    }
    run.absent_seconds = run.absent_seconds.saturating_add(given);
    let moved = Absence { seen, now: d.now, given }.give_back(run);
    if moved {
        d.normal(
            "Unattended",
            format!("run {}: no controller ran for about {away} s; its deadlines move by {given} s", run.id),
        );
    }
}

struct Absence {
    seen: Timestamp,
    now: Timestamp,
    given: i64,
}

impl Absence {
    /// Moves what the run's progress is measured from; true when there is such a thing.
    fn give_back(&self, run: &mut Run) -> bool {
        if !matches!(run.stage, Stage::Preparing | Stage::Stepping | Stage::Promoting) {
            return false;
        }
        run.stage_since = self.later(run.stage_since);
        run.hold_since = run.hold_since.map(|since| self.later(since));
        if run.stage == Stage::Promoting {
            return true;
        }
        run.canary_short_since = run.canary_short_since.map(|since| self.later(since));
        if let Some(weight) = run.weight.as_mut() {
            if weight.accepted_at.is_none() {
                weight.at = self.later(weight.at);
            }
            // The window of the evidence stays where it is; only the deadline of the step counts from later.
            if let Some(settled) = weight.settled_at {
                let counted = run.resumed_at.map_or(settled, |resumed| resumed.max(settled));
                run.resumed_at = Some(self.later(counted));
            }
        }
        true
    }

    /// A clock that has run since then, without the time in which nobody was there. Never in the future.
    fn later(&self, since: Timestamp) -> Timestamp {
        let lost = seconds_between(since.max(self.seen), self.now).min(self.given);
        since.checked_add(SignedDuration::from_secs(lost)).unwrap_or(since)
    }
}
