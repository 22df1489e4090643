//! A freeze: while one holds a change, no run of it starts. What is under way goes on, and going back is held by nothing.

use std::time::Duration;

use crate::action::EventKind;
use crate::api::{ChangeKind, RiskClass};

use super::draft::{BUSY_WAKE, Draft};
use super::start;

/// What a held revision waits for.
const FROZEN: &str = "Frozen";

/// Whether a freeze holds a new change of this class and kind; then it waits for the end of that.
pub(super) fn frozen(d: &mut Draft<'_>, class: RiskClass, kind: Option<ChangeKind>) -> bool {
    let Some(hold) = d.input.policy.freezes.in_force(d.now, class, kind) else {
        return false;
    };
    let message = format!("{}. A return to a recorded good revision is not held", hold.words());
    start::hold(d, EventKind::Normal, FROZEN, message, hold.until);
    if let Some(until) = hold.until {
        d.wake_within(Duration::try_from(until.duration_since(d.now)).unwrap_or(BUSY_WAKE));
    }
    true
}
