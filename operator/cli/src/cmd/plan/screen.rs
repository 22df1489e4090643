//! A plan for people: one table per guard, what it would cost, and what to do about too little traffic.

use sluice_core::api::{Provenance, QueueRoom, StepSpec};
use sluice_core::forecast::{Forecast, GuardForecast};
use sluice_core::policy;
use sluice_core::statistics::planner;

use super::{About, Planned};
use crate::out::{Line, Role, labelled, table};
use crate::view::words;

/// Characters of a digest on the screen.
const DIGEST_LEN: usize = 8;
const COMMIT_LEN: usize = 12;
/// From this burst factor on it is worth a word.
const BURSTS: f64 = 1.15;

/// The screen.
pub fn lines(planned: &Planned, width: usize) -> Vec<Line> {
    let mut lines = vec![title(planned), change(planned)];
    lines.extend(super::freeze::lines(&planned.frozen, width));
    lines.extend(risk(planned, width));
    lines.extend(starts(planned, width));
    if let Some(percent) = planned.plan.pause_before_percent {
        let text = format!("before {percent}% or more it waits for a person: kubectl sluice resume");
        lines.extend(labelled("pause", Role::Plain, &text, width));
    }
    // Else the tables of the guards have them.
    if planned.forecasts.iter().all(|forecast| forecast.outcome.is_err()) {
        let steps: Vec<String> = planned
            .plan
            .steps
            .iter()
            .map(|step| format!("{}% {}", step.weight_percent, words::span(i64::from(step.bake_seconds))))
            .collect();
        lines.extend(labelled("steps", Role::Plain, &steps.join(", "), width));
    }
    for forecast in &planned.forecasts {
        lines.push(Line::default());
        lines.extend(guard(planned, forecast, width));
    }
    lines.push(Line::default());
    let told: Vec<&GuardForecast> =
        planned.forecasts.iter().filter_map(|f| f.outcome.as_ref().ok()).collect();
    if !told.is_empty() {
        lines.extend(notes(width));
    }
    for sentence in planned.too_low() {
        lines.extend(labelled("too low", Role::Attention, &sentence, width));
    }
    for caution in &planned.cautions {
        lines.extend(labelled("note", Role::Attention, caution, width));
    }
    lines.into_iter().map(|line| line.clip(width)).collect()
}

impl Planned {
    /// Of each guard whose traffic is too low, why that is and what helps.
    pub fn too_low(&self) -> impl Iterator<Item = String> {
        self.forecasts.iter().filter_map(|guard| guard.too_low(&self.plan))
    }
}

fn title(planned: &Planned) -> Line {
    let about = match planned.about {
        About::Run => "the plan of the run under way",
        About::Held => "the plan of the held template",
        About::Next => "the plan of the next change",
        About::Manifest => "the worst plan of the change in the manifest",
    };
    Line::default()
        .add(Role::Strong, &planned.name)
        .plain(format!("  ns {}  ", planned.namespace))
        .add(Role::Dim, about)
}

fn change(planned: &Planned) -> Line {
    let plan = &planned.plan;
    let class = match planned.least.filter(|least| *least < plan.risk_class) {
        Some(least) => format!("{}..{}, worst case", least.as_str(), plan.risk_class.as_str()),
        None => plan.risk_class.as_str().to_owned(),
    };
    let counts = match planned.why.believed() {
        Some(level) if level != plan.provenance.as_str() => format!(", counts as {level}"),
        _ => String::new(),
    };
    let mut line = Line::new(format!("class {class} ({:?}{counts})", plan.provenance));
    if let Some(commit) = &planned.commit {
        line = line.plain(format!("   commit {}", commit.chars().take(COMMIT_LEN).collect::<String>()));
    }
    let bakes = plan.steps.iter().map(|step| step.bake_seconds);
    let time: i32 = bakes.fold(plan.watch_seconds, i32::saturating_add);
    let least = format!("   at least {}", words::span(i64::from(time)));
    // The digest of a plan that no cluster has made is not the one that it will have.
    if planned.about == About::Manifest {
        return line.plain(least);
    }
    let digest: String = plan.digest.trim_start_matches("sha256:").chars().take(DIGEST_LEN).collect();
    line.plain(format!("   plan {digest}{least}"))
}

/// What the class follows from.
fn risk(planned: &Planned, width: usize) -> Vec<Line> {
    let why = &planned.why;
    let mut lines = Vec::new();
    for (at, factor) in why.factors.iter().enumerate() {
        let label = if at == 0 { "risk" } else { "" };
        let points = if factor.name == "floor" { "lowest".to_owned() } else { format!("+{}", factor.points) };
        let text = format!("{points} {} {}: {}", factor.name, factor.level, factor.source);
        lines.extend(labelled(label, Role::Plain, &text, width));
    }
    if !why.factors.is_empty() {
        lines.extend(labelled("", Role::Dim, &format!("{} points in all", why.points), width));
    }
    lines
}

/// What has to be for it to start, apart from the rollout itself.
fn starts(planned: &Planned, width: usize) -> Vec<Line> {
    let why = &planned.why;
    let value = |field: &str| why.limit_sources.iter().find_map(|source| source.limits.get(field));
    let number = |field: &str| value(field)?.parse::<i32>().ok();
    let mut parts: Vec<String> = Vec::new();
    let human = planned.why.believed() == Some(Provenance::Human.as_str());
    let rooms = [
        (QueueRoom::Namespace, "maxInFlightPerNamespace", true),
        (QueueRoom::NotHuman, "maxInFlightNotHuman", !human),
        (QueueRoom::Class, "maxInFlightOfClass", true),
    ];
    for (room, field, asked) in rooms {
        let cap = number(field).filter(|cap| asked && *cap < policy::UNCAPPED);
        parts.extend(
            cap.map(|cap| policy::while_room(room, cap, &planned.namespace, planned.plan.risk_class)),
        );
    }
    if let Some(seconds) = number("cooldownSeconds").filter(|seconds| *seconds > 0) {
        parts.push(format!("no run of the workload failed within {}", words::span(i64::from(seconds))));
    }
    if !why.required_signoffs.is_empty() {
        let signoffs: Vec<String> = why.required_signoffs.iter().map(ToString::to_string).collect();
        parts.push(format!("it is signed off ({}), which nobody can do yet", signoffs.join(", ")));
    }
    if parts.is_empty() {
        return Vec::new();
    }
    labelled("starts", Role::Plain, &format!("when {}", parts.join(", ")), width)
}

fn guard(planned: &Planned, forecast: &Forecast, width: usize) -> Vec<Line> {
    let head = Line::default()
        .add(Role::Dim, "guard")
        .pad(crate::out::LABEL)
        .add(Role::Strong, &forecast.guard)
        .plain(format!("   {:?}", forecast.action));
    let found = match &forecast.outcome {
        Ok(found) => found,
        Err((state, message)) => {
            let text = format!("{}: {message}", state.as_str());
            return std::iter::once(head).chain(labelled("data", Role::Attention, &text, width)).collect();
        }
    };
    let record = &found.record;
    let per_second = record.requests / record.seconds;
    let mut text = format!(
        "{} of stable: {} requests/s, {} failed ({} of {})",
        words::span(record.seconds as i64),
        decimal(per_second),
        words::share(record.failed / record.requests),
        words::count(record.failed.round() as i64),
        words::count(record.requests.round() as i64),
    );
    if record.burst_factor >= BURSTS {
        text.push_str(&format!(", in bursts ({:.1}x)", record.burst_factor));
    }
    if record.widen > 1.0 {
        text.push_str(&format!(", pods differ (tolerance {:.1}x)", record.widen));
    }
    let mut lines = vec![head];
    lines.extend(labelled("record", Role::Plain, &text, width));
    lines.extend(table(rows(planned, found)));
    let harm = &found.plan.harm;
    let text = format!(
        "if {} of its requests fail from the start: {} failed requests more than stable's before traffic is back, at most {} \
         with 95 %; never more than {}, even if no guard saw \
         it",
        words::share(found.supposed),
        amount(harm.mean),
        amount(harm.p95),
        amount(found.plan.never_more),
    );
    lines.extend(labelled("harm", Role::Plain, &text, width));
    lines
}

fn rows(planned: &Planned, found: &GuardForecast) -> Vec<Vec<Line>> {
    let header = ["STEP", "WEIGHT", "BAKE", "REQUESTS", "ABORTS FROM*", "GATE NEEDS", "EXCESS**", "95%"];
    let header = header.into_iter().map(|name| Line::default().add(Role::Dim, name)).collect();
    let steps = planned.plan.steps.iter().zip(&found.plan.steps).enumerate();
    std::iter::once(header).chain(steps.map(|(index, (step, forecast))| row(index, step, forecast))).collect()
}

fn row(index: usize, step: &StepSpec, forecast: &planner::Forecast) -> Vec<Line> {
    let gate = match forecast.gate {
        None => Line::default().add(Role::Dim, "watched"),
        Some(gate) => {
            let stretch = forecast.stretch();
            let role = if forecast.too_low() { Role::Attention } else { Role::Plain };
            let times = if stretch > 1.05 { format!(" ({}x)", decimal(stretch)) } else { String::new() };
            Line::default().add(role, format!("{}{times}", amount(gate.mean)))
        }
    };
    let smallest = forecast.smallest.map_or_else(|| "nothing".to_owned(), words::share);
    vec![
        Line::new((index + 1).to_string()),
        Line::new(format!("{}%", step.weight_percent)),
        Line::new(words::span(i64::from(step.bake_seconds))),
        Line::new(amount(forecast.requests)),
        Line::new(smallest),
        gate,
        Line::new(amount(forecast.harm.excess.mean)),
        Line::new(amount(forecast.harm.excess.p95)),
    ]
}

fn notes(width: usize) -> Vec<Line> {
    [
        ("*", "the smallest share of failures that is taken back within the bake, with 95 %"),
        (
            "**",
            "failed requests more than stable's until traffic is back, if it is as bad as supposed from this step on: on \
             average, and with 95 %. One that begins late in a step costs up to twice that",
        ),
        (
            "",
            "Not covered: a canary pod's own bad minutes, cold starts, traffic of another kind for the canary (docs: \
             evidence). The present traffic is taken to go on.",
        ),
    ]
    .into_iter()
    .flat_map(|(label, text)| labelled(label, Role::Dim, text, width))
    .collect()
}

/// A number of requests.
fn amount(number: f64) -> String {
    match number {
        n if !n.is_finite() => "-".to_owned(),
        n if n > 0.0 && n < 10.0 => decimal(n),
        n => words::count(n.round() as i64),
    }
}

/// Two or three digits.
fn decimal(number: f64) -> String {
    if number < 10.0 { format!("{number:.1}") } else { words::count(number.round() as i64) }
}
