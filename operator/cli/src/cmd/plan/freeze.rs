//! What the freezes say of a change: the one that holds it now, and the one that begins next.

use jiff::Timestamp;
use serde_json::{Value, json};
use sluice_core::api::{ChangeKind, RiskClass};
use sluice_core::policy::{Freezes, Hold};

use crate::out::{Line, Role, labelled};

/// How far ahead a freeze is shown, in days.
const AHEAD_DAYS: i32 = 7;

/// The freeze that holds a change of this class and kind now, and the next one.
pub fn of(freezes: &Freezes, class: RiskClass, kind: Option<ChangeKind>, now: Timestamp) -> Vec<Hold> {
    let ahead = freezes.ahead(now, AHEAD_DAYS, class, kind);
    freezes.in_force(now, class, kind).into_iter().chain(ahead).collect()
}

/// For people.
pub fn lines(frozen: &[Hold], width: usize) -> Vec<Line> {
    let line = |hold: &Hold| {
        let (role, begin) = match hold.from {
            None => (Role::Attention, "now: "),
            Some(_) => (Role::Plain, "ahead: "),
        };
        labelled("frozen", role, &format!("{begin}{}", hold.words()), width)
    };
    frozen.iter().flat_map(line).collect()
}

/// For programs.
pub fn document(frozen: &[Hold]) -> Vec<Value> {
    let one = |hold: &Hold| {
        let Hold { from, until, name, reason, mode, .. } = hold;
        json!({"name": name, "mode": mode, "reason": reason, "from": from, "until": until})
    };
    frozen.iter().map(one).collect()
}
