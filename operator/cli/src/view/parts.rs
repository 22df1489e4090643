//! The middle of the screen: steps, traffic, the two arms, guards.

use sluice_core::api::{GuardStatus, ProgressiveRolloutStatus, Revision, Run, RunKind, Stage};

use super::{Look, head, words};
use crate::out::{Line, Role, flow, labelled};

/// Score in thousandths from which the weight does not rise.
const SUSPICION: i64 = 100;
/// Score in thousandths that aborts.
const ABORT: i64 = 1000;
/// From this burst factor on, in thousandths, people are told.
const BURSTS: i64 = 1500;
/// Width of a mark and the space behind it.
const MARK_WIDTH: usize = 4;
/// Width of the column of guard names.
const GUARD_NAME: usize = 14;

/// The schedule, with a mark for each step.
pub(super) fn steps(look: &Look<'_>, run: &Run) -> Vec<Line> {
    if run.kind == RunKind::Observe {
        return Vec::new();
    }
    let at = usize::try_from(run.step).unwrap_or(0);
    let back = run.going_back.is_some();
    let passed_all = matches!(run.stage, Stage::Promoting | Stage::Watching | Stage::Finishing);
    let marks = run.plan.steps.iter().enumerate().map(|(index, step)| {
        let role = match index {
            _ if index < at || (passed_all && !back) => Role::Ok,
            _ if index == at && back => Role::Bad,
            _ if index == at && run.stage == Stage::Stepping => Role::Running,
            _ => Role::Plain,
        };
        Line::default().mark(role).plain(format!(" {}%", step.weight_percent))
    });
    let mut pieces: Vec<Line> = marks.collect();
    let watch = match run.stage {
        Stage::Watching => Role::Running,
        Stage::Finishing => Role::Ok,
        _ => Role::Plain,
    };
    if run.plan.watch_seconds > 0 && !back {
        pieces.push(Line::default().mark(watch).plain(" watch"));
    }
    flow("steps", pieces, "  ", look.width)
}

/// The weight asked for, what was seen of it, and who is really exposed.
pub(super) fn traffic(look: &Look<'_>, status: &ProgressiveRolloutStatus, run: &Run) -> Vec<Line> {
    let Some(traffic) = status.traffic.as_ref().filter(|_| run.kind != RunKind::Observe) else {
        return Vec::new();
    };
    let observed = traffic.observed_permille.map_or_else(|| "-".to_owned(), words::permille);
    let route = match (traffic.accepted, traffic.settled) {
        (_, true) => Line::new("live"),
        (true, false) => Line::default().add(Role::Running, "accepted, settling"),
        (false, false) if run.weight.is_some() => Line::default().add(Role::Running, "not accepted yet"),
        (false, false) => Line::new("not asked for"),
    };
    let mut pieces = vec![
        Line::new(format!("set {}%", traffic.weight_percent)),
        Line::new(format!("observed {observed}")),
        Line::new(format!("exposure {}", words::permille(traffic.exposure_permille))),
        Line::new("route ").join(route),
    ];
    if traffic.overwrites > 0 {
        pieces.push(Line::default().add(Role::Attention, format!("{} overwrites", traffic.overwrites)));
    }
    flow("traffic", pieces, "  ", look.width)
}

/// Stable and canary: pods, and the counts of the guard with the most requests.
pub(super) fn arms(look: &Look<'_>, status: &ProgressiveRolloutStatus, run: &Run) -> Vec<Line> {
    let busiest =
        status.guards.iter().max_by_key(|g| g.canary_requests.unwrap_or(-1) + g.stable_requests.unwrap_or(0));
    let counts = busiest.filter(|guard| guard.canary_requests.is_some());
    let row = |arm: &str, revision: &Revision, requests: Option<i64>, failed: Option<i64>| {
        let name = format!("{arm} {}", head::short_hash(&revision.hash));
        let number = |n: Option<i64>| n.map_or_else(|| "-".to_owned(), words::count);
        let rate = requests.zip(failed).map_or_else(|| "-".to_owned(), |(all, bad)| words::ratio(bad, all));
        [name, pods(look, &revision.replica_set), number(requests), number(failed), rate]
            .map(Line::new)
            .to_vec()
    };
    let header =
        ["", "PODS", "REQUESTS", "FAILED", "RATE"].map(|text| Line::default().add(Role::Dim, text)).to_vec();
    let stable = row(
        "stable",
        &run.stable,
        counts.and_then(|g| g.stable_requests),
        counts.and_then(|g| g.stable_failed),
    );
    let canary = row(
        "canary",
        &run.canary,
        counts.and_then(|g| g.canary_requests),
        counts.and_then(|g| g.canary_failed),
    );
    crate::out::table(vec![header, stable, canary])
}

/// Available and wanted pods of a ReplicaSet.
fn pods(look: &Look<'_>, name: &str) -> String {
    match (&look.seen.replica_sets, look.seen.replica_set(name)) {
        (None, _) => "-".to_owned(),
        (Some(_), None) => "0/0".to_owned(),
        (Some(_), Some(set)) => format!("{}/{}", set.available, set.replicas),
    }
}

/// One guard a line; a sentence below it when it does not simply let the run pass.
pub(super) fn guards(look: &Look<'_>, status: &ProgressiveRolloutStatus) -> Vec<Line> {
    if status.guards.is_empty() {
        return labelled("guards", Role::Dim, "not evaluated yet", look.width);
    }
    let mut lines = Vec::new();
    for (index, guard) in status.guards.iter().enumerate() {
        let label = if index == 0 { "guards" } else { "" };
        let role = role(guard);
        let name = Line::new(&guard.name).pad(GUARD_NAME);
        let head = Line::default()
            .add(Role::Dim, label)
            .pad(crate::out::LABEL)
            .mark(role)
            .plain(" ")
            .join(name)
            .plain("  ");
        let (text, explained) = match (guard.score_permille, guard.state.as_str()) {
            (Some(score), "Ok") => (format!("score {}, aborts at 1", words::score(score)), false),
            (Some(score), state) => (format!("{state}, score {}, aborts at 1", words::score(score)), true),
            (None, "Clear") => ("no alert fires".to_owned(), false),
            (None, state) => (state.to_owned(), true),
        };
        let line = head.add(if role == Role::Ok { Role::Plain } else { role }, text);
        let evidence = Line::new(evidence(guard));
        if evidence.width() > 0 && line.width() + 2 + evidence.width() > look.width {
            lines.extend([line, Line::default().pad(crate::out::LABEL + MARK_WIDTH).join(evidence)]);
        } else {
            lines.push(line.plain("  ").join(evidence));
        }
        if explained || role != Role::Ok {
            let indent = MARK_WIDTH;
            let below = labelled("", role, &guard.message, look.width.saturating_sub(indent));
            lines.extend(below.into_iter().map(|line| Line::new(" ".repeat(indent)).join(line)));
        }
    }
    lines
}

/// How much evidence there is of what the next weight needs, and how stable's failures cluster if they do.
fn evidence(guard: &GuardStatus) -> String {
    let mut parts = Vec::new();
    if let (Some(have), Some(need)) = (guard.canary_requests, guard.needed_requests) {
        parts.push(format!("{} of {} requests", words::count(have), words::count(need)));
    }
    if let Some(gate) = guard.gate_permille {
        parts.push(format!("gate {} of 1", words::score(gate)));
    }
    if let Some(burst) = guard.burst_permille.filter(|burst| *burst >= BURSTS) {
        parts.push(format!("bursts {:.1}x", burst as f64 / 1000.0));
    }
    parts.join("  ")
}

/// How a guard looks at a glance.
pub(super) fn role(guard: &GuardStatus) -> Role {
    match (guard.state.as_str(), guard.score_permille) {
        (_, Some(score)) if score >= ABORT => Role::Bad,
        ("Firing", _) => Role::Bad,
        ("Ok", Some(score)) if score >= SUSPICION => Role::Attention,
        ("Ok" | "Clear", _) => Role::Ok,
        _ => Role::Attention,
    }
}
