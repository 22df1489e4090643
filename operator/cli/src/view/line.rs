//! One line per change, for logs and pipes.

use sluice_core::api::ProgressiveRolloutStatus;

use super::{Look, head, parts, words};
use crate::out::{Line, Role};

/// Reasons of a wait that somebody should look at, although it ends by itself.
const TROUBLE: [&str; 12] = [
    "NoData",
    "AlertFiring",
    "PreExistingAlert",
    "AlertSilenced",
    "AlertSourceMissing",
    "SharedIncident",
    "Suspicion",
    "GuardHolds",
    "RouteOverwritten",
    "WeightNotLive",
    "CannotRead",
    "ServiceNotFound",
];

/// Whether a wait for this reason deserves attention.
pub(super) fn is_trouble(reason: &str) -> bool {
    TROUBLE.contains(&reason)
}

/// What makes a new line: everything but counters and times.
pub fn change_key(look: &Look<'_>) -> String {
    let status = look.seen.status();
    let reason = status.waiting.as_ref().map(|w| w.reason.as_str()).unwrap_or_default();
    let run = status.run.as_ref().map(|run| {
        let back =
            run.going_back.as_ref().map(|b| (b.reason.clone(), b.back_at.is_some(), b.verified_at.is_some()));
        (run.id.clone(), run.step, run.paused, back)
    });
    let guards: Vec<_> = status.guards.iter().map(|g| (&g.name, &g.state, parts::role(g))).collect();
    let (_, phase) = head::phase(look, &status);
    let live = status.traffic.as_ref().map(|t| (t.settled, t.overwrites));
    format!("{phase} {reason} {run:?} {guards:?} {live:?} {:?}", look.seen.unseen())
}

/// The time before a line.
pub fn time(look: &Look<'_>) -> Line {
    Line::default().add(Role::Dim, look.now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

/// The state in one line.
pub fn change_line(look: &Look<'_>) -> Line {
    let status = look.seen.status();
    let (role, phase) = head::phase(look, &status);
    let phase = phase.split_whitespace().collect::<Vec<_>>().join(" ");
    let place = format!("  {}/{}  ", look.seen.namespace(), look.seen.name());
    let mut line = Line::default().plain(place).add(role, phase);
    if let Some(run) = &status.run {
        line = line.plain(format!("  run {} step {}/{}", run.id, run.step + 1, run.plan.steps.len()));
    }
    let what = said(look, &status);
    if !what.is_empty() {
        line = line.plain(format!("  {what}"));
    }
    let trouble: Vec<String> = status
        .guards
        .iter()
        .filter(|guard| parts::role(guard) != Role::Ok)
        .map(|guard| match guard.score_permille {
            Some(score) => format!("{} {} score {}", guard.name, guard.state, words::score(score)),
            None => format!("{} {}", guard.name, guard.state),
        })
        .collect();
    if trouble.is_empty() { line } else { line.add(Role::Attention, format!("  [{}]", trouble.join("; "))) }
}

fn said(look: &Look<'_>, status: &ProgressiveRolloutStatus) -> String {
    if let Some(unseen) = look.seen.unseen() {
        return unseen;
    }
    let back = status.run.as_ref().and_then(|run| run.going_back.as_ref());
    let why = back.map(|back| format!(" (because of {}: {})", back.reason, back.message)).unwrap_or_default();
    match &status.waiting {
        Some(waiting) => format!("{}: {}{why}", waiting.reason, waiting.message),
        None => why.trim().to_owned(),
    }
}
