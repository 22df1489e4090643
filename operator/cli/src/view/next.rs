//! The last lines: what comes next, and how it is stopped.

use sluice_core::api::{Outcome, Phase, ProgressiveRolloutStatus, Run, RunKind, Stage};

use super::{Look, words};
use crate::model::stalled;
use crate::out::{Line, Role, labelled};

/// What comes next, and the command that stops it, or moves it on.
pub(super) fn lines(look: &Look<'_>, status: &ProgressiveRolloutStatus) -> Vec<Line> {
    let mut lines = Vec::new();
    if let Some(text) = next(look, status) {
        lines.extend(labelled("next", Role::Plain, &text, look.width));
    }
    for (label, command) in commands(look, status) {
        // A command is one line, however long: it is there to be copied.
        lines.push(Line::default().add(Role::Dim, label).pad(crate::out::LABEL).plain(command));
    }
    lines
}

fn next(look: &Look<'_>, status: &ProgressiveRolloutStatus) -> Option<String> {
    if let Some(run) = &status.run {
        return Some(match run.stage {
            _ if run.kind == RunKind::Observe => {
                "the native roll goes on; nothing is held or returned in mode Observe".to_owned()
            }
            Stage::Preparing => {
                let first = run.plan.steps.first().map_or(0, |step| step.weight_percent);
                format!("{first}% of traffic once a canary pod is ready")
            }
            Stage::Stepping => after_step(status, run),
            Stage::Promoting => format!(
                "watched for {}, the old revision warm",
                words::span(i64::from(run.plan.watch_seconds))
            ),
            Stage::Watching => {
                "the old revision goes, the run ends as Promoted; a fault before that takes it back"
                    .to_owned()
            }
            Stage::Finishing => "the run ends as Promoted".to_owned(),
            Stage::Returning => after_return(run),
        });
    }
    if look.seen.held_unseen() {
        return Some(
            "the template stays held, and stable serves, until the controller has seen it".to_owned(),
        );
    }
    if stalled(status) {
        return match status.phase {
            Phase::Rejected => {
                Some("nothing until another template is applied, or somebody retries".to_owned())
            }
            Phase::NotProven => Some(
                "nothing until another template is applied, spec.change changes, or somebody retries"
                    .to_owned(),
            ),
            Phase::Pending => {
                Some("enrolled by itself once this is in order; the application is untouched".to_owned())
            }
            _ => Some("goes on by itself once this is in order; stable serves".to_owned()),
        };
    }
    match status.phase {
        Phase::Idle => Some(format!(
            "the next template of Deployment {} is held",
            look.seen.rollout.spec.workload_ref.name
        )),
        Phase::Held => {
            let steps = status.summary.step.split_once('/').map_or("", |(_, steps)| steps);
            let once = if status.waiting.is_some() { ", once this is over" } else { "" };
            Some(format!(
                "the run starts by itself{once}: {steps} steps, class {}",
                status.summary.risk_class
            ))
        }
        _ => None,
    }
}

fn after_step(status: &ProgressiveRolloutStatus, run: &Run) -> String {
    let index = usize::try_from(run.step).unwrap_or(0);
    let needed = status.guards.iter().filter_map(|guard| guard.needed_requests).max();
    let bake = run.plan.steps.get(index).map_or(0, |step| step.bake_seconds);
    let mut conditions = vec![format!("{} of healthy time", words::span(i64::from(bake)))];
    if let Some(needed) = needed {
        conditions.push(format!("{} canary requests", words::count(needed)));
    }
    if status.guards.iter().any(|guard| guard.gate_permille.is_some()) {
        conditions.push("open gates".to_owned());
    }
    conditions.push("scores below 0.1".to_owned());
    let gate = run.plan.steps.get(index + 1).map(|step| step.weight_percent);
    let person = match (run.plan.pause_before_percent, gate) {
        (Some(limit), Some(next)) if next >= limit && !run.released_gate => ", then a person (resume)",
        _ => "",
    };
    let what = gate.map_or_else(|| "promotion".to_owned(), |percent| format!("{percent}%"));
    format!("{what} after {}{person}", conditions.join(", "))
}

fn after_return(run: &Run) -> String {
    match run.going_back.as_ref().map(|back| back.outcome) {
        Some(Outcome::Superseded) => "the newer template starts a run of its own".to_owned(),
        Some(Outcome::Abandoned) => "the workload is let go".to_owned(),
        Some(Outcome::NotProven) => {
            "the revision stays held; it starts again by retry, or with another template".to_owned()
        }
        _ => "the revision stays held as Rejected; it can't run again without retry".to_owned(),
    }
}

/// Commands that fit the moment, each with its label.
fn commands(look: &Look<'_>, status: &ProgressiveRolloutStatus) -> Vec<(&'static str, String)> {
    let command = |verb| look.call.command(verb, look.seen);
    if let Some(run) = &status.run {
        if run.kind == RunKind::Observe || run.going_back.is_some() || run.stage == Stage::Finishing {
            return Vec::new();
        }
        let waiting = status.waiting.as_ref().map(|w| w.reason.as_str());
        let mut list = Vec::new();
        if run.paused || run.overwritten || waiting == Some("PausedBeforePercent") {
            list.push(("go on", command("resume")));
        }
        list.push(("stop", command("abort")));
        return list;
    }
    match status.phase {
        Phase::Rejected | Phase::NotProven if look.seen.last_of_held().is_some() => {
            vec![("retry", command("retry"))]
        }
        _ => Vec::new(),
    }
}
