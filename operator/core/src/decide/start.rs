//! Whether a change may start now, apart from what it is: sign-offs, freezes, the error
//! budget, the time since a failed run, and room for it.
//!
//! All of this holds starts only. A run under way goes on and goes back as it would, and a return to a recorded good revision
//! is never asked.

use std::time::Duration;

use jiff::Timestamp;

use crate::action::EventKind;
use crate::api::{ChangeKind, ConditionStatus, ConditionType, QueueRoom, RiskClass};
use crate::policy;

use super::draft::Draft;
use super::{budget, freeze};

const SIGNOFF_MISSING: &str = "SignoffMissing";
/// How often somebody who waits for room looks again: near the head of the queue, and far from it.
const NEAR: (usize, Duration) = (3, Duration::from_secs(2));
const FAR: Duration = Duration::from_secs(15);

/// Whether a canary of this class may start as far as its policies say. Notes what it waits for otherwise.
pub(super) fn may(d: &mut Draft<'_>, class: RiskClass, kind: Option<ChangeKind>) -> bool {
    if let Some(message) = unsigned(d, class) {
        hold(d, EventKind::Normal, SIGNOFF_MISSING, message, None);
        return false;
    }
    !(freeze::frozen(d, class, kind) || budget::spent(d, kind) || cools_down(d, class))
}

/// Says what the start waits for, and once as an event.
pub(super) fn hold(
    d: &mut Draft<'_>,
    kind: EventKind,
    reason: &'static str,
    message: String,
    until: Option<Timestamp>,
) {
    if !d.told(reason) {
        d.event(kind, reason, message.clone());
    }
    d.wait_to_be_woken(reason, message, until);
    not_by_alerts(d);
}

/// The time for alerts begins when this is over: a start that is held by something else is not one that they hold.
pub(super) fn not_by_alerts(d: &mut Draft<'_>) {
    if let Some(held) = d.status.held.as_mut() {
        held.alerts_since = None;
    }
}

/// The sign-offs that a held change of this class lacks, in words.
fn unsigned(d: &Draft<'_>, class: RiskClass) -> Option<String> {
    let missing = &d.input.policy.row(class).start.signoffs;
    let needs: Vec<String> = missing.iter().map(|signoff| signoff.value.to_string()).collect();
    let from = &missing.first()?.from;
    Some(format!(
        "class {} needs sign-offs ({}; {from}), and nobody can give one yet: take requiredSignoffs out of the policy, or lower the risk of the change",
        class.as_str(),
        needs.join(", "),
    ))
}

/// Whether whoever has to sign has signed, while a template is held that needs it.
pub(super) fn approved(d: &Draft<'_>) -> Option<(ConditionType, ConditionStatus, String, String)> {
    if d.status.run.is_some() {
        return None;
    }
    let message = unsigned(d, d.status.plan.as_ref()?.risk_class?)?;
    Some((ConditionType::Approved, ConditionStatus::False, SIGNOFF_MISSING.to_owned(), message))
}

/// After a failed run the next one waits: whoever repairs in haste breaks again.
fn cools_down(d: &mut Draft<'_>, class: RiskClass) -> bool {
    let cooldown = d.input.policy.row(class).start.cooldown_seconds.clone();
    let Some(failed) = policy::last_failed(&d.status.history) else {
        return false;
    };
    let (run, ended) = (failed.id.clone(), failed.ended_at);
    if d.passed(ended, cooldown.value) {
        return false;
    }
    let until = d.after(ended, cooldown.value);
    let message = format!(
        "run {run} failed: a change of class {} starts {} s after that at the earliest (cooldownSeconds of {}). Going back to a recorded good revision does not wait",
        class.as_str(),
        cooldown.value,
        cooldown.from
    );
    hold(d, EventKind::Normal, "Cooldown", message, Some(until));
    true
}

/// Whether there is no room for it now. It takes its place in the queue then.
pub(super) fn waits_in_queue(d: &mut Draft<'_>, class: RiskClass) -> bool {
    let Some(turn) = d.input.turn else {
        return false;
    };
    let queue = turn.status();
    let start = &d.input.policy.row(class).start;
    let (cap, field) = match turn.room {
        QueueRoom::Namespace => (&start.per_namespace, "maxInFlightPerNamespace"),
        QueueRoom::NotHuman => (&start.not_human, "maxInFlightNotHuman"),
        QueueRoom::Class => (&start.of_class, "maxInFlightOfClass"),
    };
    let message = format!(
        "{} of {} in the queue: a change of class {} starts while {} ({field} of {})",
        queue.position,
        queue.length,
        class.as_str(),
        policy::while_room(turn.room, cap.value, &d.namespace, class),
        cap.from
    );
    hold(d, EventKind::Normal, "Queued", message, None);
    d.wake_within(if turn.position <= NEAR.0 { NEAR.1 } else { FAR });
    d.status.queue = Some(queue);
    true
}
