//! Limits of the class, the policies and the rollout, joined; where each comes from, and which of the rollout's own is not
//! used because a tighter one holds anyhow.

use std::collections::BTreeMap;

use crate::api::{LimitSource, PolicyLimits, ProgressiveRolloutSpec, RiskClass, StepSpec, TolerancePpm};
use crate::policy::Policy;

use super::join;

/// Steps and the pause, as all limits together have them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Composed {
    /// Steps, the last at 100 percent.
    pub steps: Vec<StepSpec>,
    /// The longest last bake of the schedules, in seconds: the join may spend it below 100 %.
    pub last_bake_seconds: i32,
    /// Wait for a person before this weight.
    pub pause_before_percent: Option<i32>,
    /// The smallest of the largest first weights, and whose it is.
    first: Option<(i32, String)>,
    /// The longest of the shortest bakes, and whose it is.
    bake: Option<(i32, String)>,
    /// Whose the pause is.
    pause_from: String,
}

/// What the rollout says of itself.
const OWN: &str = "spec.limits";

/// Joins all limits of a change of this class.
pub(super) fn compose(spec: &ProgressiveRolloutSpec, policy: &Policy, class: RiskClass) -> Composed {
    let own = PolicyLimits {
        max_first_step_percent: spec.limits.max_first_step_percent,
        min_bake_seconds: spec.limits.min_bake_seconds,
        pause_before_percent: spec.limits.pause_before_percent,
    };
    let limits = || {
        let policies = policy.limits.iter().map(|limits| (limits.value, limits.from.as_str()));
        policies.chain([(own, OWN)])
    };
    // Of equal ones the policy's: what the rollout repeats changes nothing.
    let of = |value: fn(&PolicyLimits) -> Option<i32>| {
        limits().filter_map(move |(limits, from)| Some((value(&limits)?, from)))
    };
    let named = |found: Option<(i32, &str)>| found.map(|(value, from)| (value, from.to_owned()));
    let first = named(of(|limits| limits.max_first_step_percent).min_by_key(|found| found.0));
    let bake = of(|limits| limits.min_bake_seconds);
    let bake = named(bake.reduce(|one, other| if other.0 > one.0 { other } else { one }));
    let pause = of(|limits| limits.pause_before_percent).min_by_key(|found| found.0);
    let most = first.as_ref().map_or(100, |found| found.0);
    let least = bake.as_ref().map_or(0, |found| found.0);
    let (steps, last_bake_seconds) = schedule(spec, policy, class, most, least);
    Composed {
        steps,
        last_bake_seconds,
        pause_before_percent: pause.map(|(percent, _)| percent),
        first,
        bake,
        pause_from: pause.map_or_else(String::new, |(_, from)| from.to_owned()),
    }
}

/// The join of all schedules under these limits, and the longest last bake of them.
fn schedule(
    spec: &ProgressiveRolloutSpec,
    policy: &Policy,
    class: RiskClass,
    most: i32,
    least: i32,
) -> (Vec<StepSpec>, i32) {
    let own_steps = Some(&spec.limits.steps).filter(|steps| !steps.is_empty());
    // Those of all looser classes too: in a table that is in order they change nothing by themselves, but a limit delays each
    // of them by its own measure.
    let rows = policy.table.iter().filter(|row| row.row.name <= class);
    let schedules = rows.flat_map(|row| &row.schedules).map(|schedule| &schedule.value).chain(own_steps);
    let limited: Vec<Vec<StepSpec>> = schedules.map(|steps| limit(steps, most, least)).collect();
    let last = |steps: &Vec<StepSpec>| steps.last().map_or(0, |step| step.bake_seconds);
    let last_bake_seconds = limited.iter().map(last).max().unwrap_or(0);
    let steps = limited.into_iter().reduce(|one, other| join(&one, &other)).unwrap_or_default();
    (steps, last_bake_seconds)
}

/// A schedule with a step of at most this weight before it, if its first is larger, and bakes of at least so many seconds.
/// Both only delay weights, for each schedule by itself: so their join is as tight as each, in whatever order they come.
fn limit(steps: &[StepSpec], most: i32, least: i32) -> Vec<StepSpec> {
    let first = steps.first().filter(|step| step.weight_percent > most);
    let before = first.map(|step| StepSpec { weight_percent: most, bake_seconds: step.bake_seconds });
    let all = before.into_iter().chain(steps.iter().copied());
    all.map(|step| StepSpec { bake_seconds: step.bake_seconds.max(least), ..step }).collect()
}

/// Where each limit of a plan comes from. One that does not bind is no source of it.
pub fn sources(spec: &ProgressiveRolloutSpec, policy: &Policy, class: RiskClass) -> Vec<LimitSource> {
    let row = policy.row(class);
    let composed = compose(spec, policy, class);
    let Composed { first, bake, pause_before_percent, pause_from, .. } = &composed;
    let (most, least) =
        (first.as_ref().map_or(100, |found| found.0), bake.as_ref().map_or(0, |found| found.0));
    let binds = |most, least| {
        schedule(spec, policy, class, most, least) != (composed.steps.clone(), composed.last_bake_seconds)
    };
    let first = first.clone().filter(|_| binds(100, least));
    let bake = bake.clone().filter(|_| binds(most, 0));
    let of = |field: &'static str, value: String, from: &str| (field, value, from.to_owned());
    let steps = |steps: &[StepSpec]| {
        let steps: Vec<String> =
            steps.iter().map(|step| format!("{}/{}", step.weight_percent, step.bake_seconds)).collect();
        steps.join(" ")
    };
    let ppm = |ppm: TolerancePpm| format!("{} of stable + {}", ppm.relative, ppm.absolute);
    let ppm_or = |found: Option<TolerancePpm>| found.map_or_else(String::new, ppm);
    let number = |found: Option<i32>| found.map_or_else(String::new, |number| number.to_string());
    let (columns, from) = (&row.row, &row.from);
    let schedules = row.schedules.iter().map(|schedule| of("steps", steps(&schedule.value), &schedule.from));
    let mut sources: Vec<(&str, String, String)> = schedules.collect();
    if !spec.limits.steps.is_empty() {
        sources.push(of("steps", steps(&spec.limits.steps), OWN));
    }
    sources.extend(first.map(|(value, from)| of("maxFirstStepPercent", value.to_string(), &from)));
    sources.extend(bake.map(|(value, from)| of("minBakeSeconds", value.to_string(), &from)));
    sources.extend(pause_before_percent.map(|value| of("pauseBeforePercent", value.to_string(), pause_from)));
    sources.extend([
        of("tolerancePpm", ppm(columns.tolerance_ppm), &from.tolerance_ppm),
        of("marginPpm", ppm_or(columns.margin_ppm), &from.margin_ppm),
        of("capitalPpm", number(columns.capital_ppm), &from.capital_ppm),
        of("gateErrorPpm", number(columns.gate_error_ppm), &from.gate_error_ppm),
        of("minSamples", columns.min_samples.to_string(), &from.min_samples),
        of("noDataSeconds", columns.no_data_seconds.to_string(), &from.no_data_seconds),
    ]);
    sources.extend(row.start.named().into_iter().map(|(field, value, from)| of(field, value, from)));
    by_object(sources)
}

/// Limits by the object that they come from. One with two values of a limit has an entry for each.
fn by_object(limits: Vec<(&str, String, String)>) -> Vec<LimitSource> {
    let mut sources: Vec<LimitSource> = Vec::new();
    for (field, value, from) in limits {
        let source =
            sources.iter_mut().find(|source| source.from == from && !source.limits.contains_key(field));
        let limit = (field.to_owned(), value);
        match source {
            Some(source) => drop(source.limits.insert(limit.0, limit.1)),
            None => sources.push(LimitSource { from, limits: BTreeMap::from([limit]) }),
        }
    }
    sources
}

/// Limits of the rollout's own that are looser than what holds anyhow, in words.
pub fn clamped(spec: &ProgressiveRolloutSpec, policy: &Policy, class: RiskClass) -> Vec<String> {
    let without = ProgressiveRolloutSpec { limits: crate::api::Limits::default(), ..spec.clone() };
    let anyhow = compose(&without, policy, class);
    let class_name = class.as_str();
    // A policy's limit wins only if it is what holds.
    let winner = |limit: &Option<(i32, String)>, holds: i32| {
        let by_policy = limit.as_ref().filter(|(value, _)| *value == holds);
        by_policy.map_or_else(|| format!("class {class_name}"), |(_, from)| from.clone())
    };
    let mut found = Vec::new();
    let first = anyhow.steps.first().map_or(100, |step| step.weight_percent);
    if let Some(own) = spec.limits.max_first_step_percent.filter(|own| *own > first) {
        found.push(format!("maxFirstStepPercent {own} -> {first} ({})", winner(&anyhow.first, first)));
    }
    let shortest = anyhow.steps.iter().map(|step| step.bake_seconds).min().unwrap_or(0);
    if let Some(own) = spec.limits.min_bake_seconds.filter(|own| *own < shortest) {
        found.push(format!("minBakeSeconds {own} -> {shortest} ({})", winner(&anyhow.bake, shortest)));
    }
    if let (Some(own), Some(holds)) = (spec.limits.pause_before_percent, anyhow.pause_before_percent)
        && own > holds
    {
        found.push(format!("pauseBeforePercent {own} -> {holds} ({})", anyhow.pause_from));
    }
    if !spec.limits.steps.is_empty()
        && join(&anyhow.steps, &spec.limits.steps) != super::schedule::normal(&spec.limits.steps)
    {
        found.push(format!(
            "steps: some are joined with those of class {class_name}, which come later or bake longer"
        ));
    }
    found
}
