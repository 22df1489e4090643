//! The first lines: who, where it stands, what is shipped.

use sluice_core::api::{Outcome, Phase, Plan, ProgressiveRolloutStatus, Revision, Run, RunKind, Stage};

use super::{Look, words};
use crate::model::{Controller, stalled};
use crate::out::{Line, Role, flow};

/// Characters of a commit on the screen.
const COMMIT_LEN: usize = 12;

/// Name, namespace, run, and the controller at the right edge.
pub(super) fn title(look: &Look<'_>, status: &ProgressiveRolloutStatus) -> Line {
    let mut line =
        Line::default().add(Role::Strong, look.seen.name()).plain(format!("  ns {}", look.seen.namespace()));
    if let Some(run) = &status.run {
        line = line.plain(format!("  run {}", run.id));
    }
    line.right(controller(look.seen.controller.as_ref()), look.width)
}

fn controller(found: Option<&Controller>) -> Line {
    let Some(controller) = found else {
        return Line::default().add(Role::Dim, "controller -");
    };
    let text = format!("controller {}/{} ready", controller.ready, controller.wanted);
    let role = if controller.ready > 0 { Role::Dim } else { Role::Bad };
    Line::default().add(role, text)
}

/// Phase, step and class, with times at the right edge.
pub(super) fn headline(look: &Look<'_>, status: &ProgressiveRolloutStatus) -> Line {
    let (role, word) = phase(look, status);
    let mut line = Line::default().add(role, word);
    if let Some(run) = &status.run {
        if matches!(run.stage, Stage::Stepping) && run.kind != RunKind::Observe {
            line = line.plain(format!("   step {}/{}", run.step + 1, run.plan.steps.len()));
        }
        let class = run.plan.risk_class.as_str();
        line = line.plain(format!("   class {class}"));
        let left = match remaining(look, run) {
            Some(seconds) => format!(", at least {} to go", words::span(seconds)),
            None => String::new(),
        };
        return line.right(Line::new(format!("{}{left}", look.ago(run.started_at))), look.width);
    }
    let summary = &status.summary;
    if status.held.is_some() && !summary.risk_class.is_empty() {
        line = line.plain(format!("   class {}", summary.risk_class));
    }
    // The phase in status is not the one on the screen when the controller is behind.
    match status.phase_since.filter(|_| !look.seen.held_unseen()) {
        Some(since) => line.right(Line::new(format!("for {}", look.ago(since))), look.width),
        None => line,
    }
}

/// The phase as a headline, and its colour.
pub(super) fn phase(look: &Look<'_>, status: &ProgressiveRolloutStatus) -> (Role, String) {
    if look.seen.held_unseen() {
        return (Role::Attention, "HELD   not seen yet".to_owned());
    }
    let percent = status.traffic.as_ref().map_or(0, |traffic| traffic.weight_percent);
    match (&status.run, status.phase) {
        (Some(run), _) if run.kind == RunKind::Observe => (Role::Running, "OBSERVING".to_owned()),
        (Some(run), _) => match run.stage {
            Stage::Preparing => (Role::Running, format!("CANARY {percent}%   preparing")),
            Stage::Stepping => (Role::Running, format!("CANARY {percent}%")),
            Stage::Promoting => (Role::Running, format!("PROMOTING {percent}%")),
            Stage::Watching => (Role::Running, format!("WATCHING {percent}%")),
            Stage::Finishing => (Role::Running, format!("FINISHING {percent}%")),
            Stage::Returning => (Role::Bad, format!("RETURNING {percent}%")),
        },
        (None, Phase::Idle) => (Role::Ok, "IDLE".to_owned()),
        (None, Phase::Rejected) => (Role::Bad, "REJECTED   stable serves".to_owned()),
        (None, Phase::NotProven) => (Role::Bad, "NOT PROVEN   stable serves".to_owned()),
        (None, phase) => {
            let word = phase.as_str().to_uppercase();
            if stalled(status) { (Role::Bad, format!("{word}   stalled")) } else { (Role::Running, word) }
        }
    }
}

/// Colour of an outcome.
pub(super) fn outcome_role(outcome: Outcome) -> Role {
    match outcome {
        Outcome::Promoted => Role::Ok,
        Outcome::Superseded | Outcome::Abandoned => Role::Attention,
        Outcome::Rejected | Outcome::NotProven | Outcome::Reverted => Role::Bad,
    }
}

/// The least time that a run still takes, in seconds: bakes and the watched period, without waits for evidence.
fn remaining(look: &Look<'_>, run: &Run) -> Option<i64> {
    let plan: &Plan = &run.plan;
    let bakes =
        |from: usize| plan.steps.iter().skip(from).map(|step| i64::from(step.bake_seconds)).sum::<i64>();
    let watch = i64::from(plan.watch_seconds);
    let spent = words::seconds(run.weight.and_then(|w| w.settled_at).unwrap_or(look.now), look.now);
    match (run.kind, run.stage) {
        (RunKind::Observe, _) | (_, Stage::Finishing | Stage::Returning) => None,
        (_, Stage::Preparing) => Some(bakes(0) + watch),
        (_, Stage::Stepping) => {
            let index = usize::try_from(run.step).unwrap_or(0);
            let bake = i64::from(plan.steps.get(index).map_or(0, |step| step.bake_seconds));
            Some((bake - spent).max(0) + bakes(index + 1) + watch)
        }
        (_, Stage::Promoting) => Some(watch),
        (_, Stage::Watching) => Some((watch - words::seconds(run.stage_since, look.now)).max(0)),
    }
}

/// What is shipped, or what serves.
pub(super) fn change(look: &Look<'_>, status: &ProgressiveRolloutStatus) -> Vec<Line> {
    if let Some(run) = &status.run {
        let mut text = commit(&run.canary);
        text.push(run.plan.provenance.as_str().to_owned());
        if run.kind == RunKind::Return {
            text.push("return to a recorded good revision".to_owned());
        }
        text.extend(images(&run.canary, Some(&run.stable)));
        return pieces("change", text, look.width);
    }
    let mut lines = Vec::new();
    if let Some(held) = &status.held {
        let mut text: Vec<String> = Vec::new();
        if !status.summary.commit.is_empty() {
            text.push(status.summary.commit.clone());
        }
        text.push(held.provenance.as_str().to_owned());
        if let Some(workload) = look.seen.workload.as_ref().filter(|w| w.digest == held.digest) {
            let stable = status.stable.as_ref().map(|stable| stable.images.clone()).unwrap_or_default();
            let new = workload.images().into_iter().filter(|image| !stable.contains(image));
            text.extend(new.map(|image| words::image(&image)));
        }
        lines.extend(pieces("change", text, look.width));
    }
    if let Some(stable) = &status.stable {
        let mut text = commit(stable);
        text.extend(images(stable, None));
        text.push(format!("(revision {})", short_hash(&stable.hash)));
        lines.extend(pieces("serves", text, look.width));
    }
    lines
}

fn pieces(label: &str, text: Vec<String>, width: usize) -> Vec<Line> {
    flow(label, text.into_iter().map(Line::new).collect(), "  ", width)
}

fn commit(revision: &Revision) -> Vec<String> {
    revision.commit.iter().map(|commit| commit.chars().take(COMMIT_LEN).collect()).collect()
}

fn images(revision: &Revision, other: Option<&Revision>) -> Vec<String> {
    let new = |image: &&String| other.is_none_or(|other| !other.images.contains(image));
    let mut found: Vec<String> =
        revision.images.iter().filter(new).map(|image| words::image(image)).collect();
    if found.is_empty() && !revision.images.is_empty() {
        found.push("same images".to_owned());
    }
    found
}

/// A revision's hash, shortened.
pub(super) fn short_hash(hash: &str) -> String {
    hash.chars().take(10).collect()
}
