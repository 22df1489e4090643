//! May the weight rise, and is a step over? People first, then evidence; each wait ends by itself.

use crate::api::{ApexCallers, Outcome, Run, RunKind, Stage};
use crate::limits::step_seconds;

use super::super::draft::Draft;
use super::super::stop::{self, SHARED_INCIDENT};
use super::canary::exposure_by_pods;

/// Reasons of holds that are told apart here.
const NO_DATA: &str = "NoData";
const NOT_ENOUGH: &str = "NotEnoughEvidence";
/// What waits for a person at `pauseBeforePercent`.
pub(in crate::decide) const AT_GATE: &str = "PausedBeforePercent";
/// How long a person is waited for, in seconds.
const PERSON_SECONDS: i32 = 72 * 3600;
/// The observed share may differ from the weight by three standard deviations, but at least this much, or this
/// part of the weight: pods are scraped at different moments, and a new pod counts from its first request.
const SHARE_TOLERANCE: f64 = 0.02;
const SHARE_TOLERANCE_RELATIVE: f64 = 0.1;

/// Whether a weight may be asked for that is not in force yet. Nobody meets a revision that a person holds, whose
/// guards have no data (a query that is refused, a provider that is not there) or that comes amid an incident.
pub(super) fn may_rise(d: &mut Draft<'_>, run: &mut Run, bake_seconds: i32) -> bool {
    if waits_for_person(d, run, false) {
        return false;
    }
    let current = d.input.verdict.run_id == run.id;
    let Some((reason, message)) =
        evidence_holds(d, run, current).filter(|hold| !current || hold.0 != NOT_ENOUGH)
    else {
        return true;
    };
    let since = run.resumed_at.map_or(run.stage_since, |resumed| resumed.max(run.stage_since));
    holds_until(d, run, since, step_seconds(bake_seconds), reason, message);
    false
}

/// Waits for the evidence, and goes back when the step's own deadline has passed.
fn holds_until(
    d: &mut Draft<'_>,
    run: &mut Run,
    since: jiff::Timestamp,
    wall: i32,
    reason: &'static str,
    message: String,
) {
    if d.passed(since, wall) {
        let message = format!("{message}; the step was not passed within {wall} s");
        d.go_back(run, Outcome::NotProven, reason, message);
        return;
    }
    if reason == NO_DATA && !d.told(NO_DATA) {
        d.warn("MetricsUnavailable", format!("run {}: {message}; the weight stays", run.id));
    }
    let mut deadline = d.after(since, wall);
    let mut message = message;
    if let Some((gone, _)) = d.input.verdict.no_data.as_ref().filter(|_| reason == NO_DATA) {
        deadline = steady(d, d.after(*gone, run.plan.no_data_seconds));
    }
    if let Some(incident) = stop::incident_deadline(d, run).filter(|_| reason == SHARED_INCIDENT) {
        message.push_str("; returns to stable after 10 min of it without a break");
        deadline = deadline.min(incident);
    }
    d.wait_to_be_woken(reason, message, Some(deadline));
}

/// The deadline of a wait for data, as it was said before: it is known to a second or so, and what moves to and fro would be
/// written again and again.
fn steady(d: &Draft<'_>, deadline: jiff::Timestamp) -> jiff::Timestamp {
    let before = d.input.rollout.status.as_ref().and_then(|status| status.waiting.as_ref());
    let said = before.filter(|waiting| waiting.reason == NO_DATA).and_then(|waiting| waiting.deadline);
    let near = |said: &jiff::Timestamp| (said.as_second() - deadline.as_second()).abs() <= 2;
    said.filter(near).unwrap_or(deadline)
}

/// Whether a person has to act first.
fn waits_for_person(d: &mut Draft<'_>, run: &mut Run, baked: bool) -> bool {
    let Some((reason, message)) = person_holds(d, run, baked) else {
        if run.hold_since.take().is_some() {
            run.resumed_at = Some(d.now);
        }
        return false;
    };
    let since = *run.hold_since.get_or_insert(d.now);
    if d.passed(since, PERSON_SECONDS) {
        let message = format!("{message}; nobody did for {} hours", PERSON_SECONDS / 3600);
        d.go_back(run, Outcome::NotProven, reason, message);
    } else {
        d.wait_to_be_woken(reason, message, Some(d.after(since, PERSON_SECONDS)));
    }
    true
}

/// Whether the step is over: healthy long enough, gate open, nothing holds.
pub(super) fn may_advance(d: &mut Draft<'_>, run: &mut Run, bake_seconds: i32) -> bool {
    if run.kind == RunKind::Return {
        return true;
    }
    let Some(settled_at) = run.weight.and_then(|weight| weight.settled_at) else {
        return false;
    };
    let verdict = d.input.verdict;
    let current = verdict.is_about(&run.id, Stage::Stepping, run.step) && verdict.plan == run.plan.digest;
    let healthy = if current { verdict.healthy_seconds } else { 0.0 };
    let baked = healthy >= f64::from(bake_seconds);
    if waits_for_person(d, run, baked) {
        return false;
    }
    let hold = evidence_holds(d, run, current);
    if baked && hold.is_none() {
        return true;
    }
    let (reason, message) = match hold {
        Some((reason, message)) if baked || reason != NOT_ENOUGH => (reason, message),
        _ => ("Baking", format!("observes at this weight, {healthy:.0} of {bake_seconds} healthy seconds")),
    };
    // Time that a person took does not count against the evidence; nor does time without data, which has a deadline of its
    // own.
    let since = run.resumed_at.map_or(settled_at, |resumed| resumed.max(settled_at));
    let unseen = if current { i32::try_from(verdict.unseen_seconds).unwrap_or(i32::MAX) } else { 0 };
    holds_until(d, run, since, step_seconds(bake_seconds).saturating_add(unseen), reason, message);
    false
}

/// What a person has to do before the weight may rise. The gate at a percentage is asked for only once the step is
/// over otherwise.
fn person_holds(d: &Draft<'_>, run: &Run, baked: bool) -> Option<(&'static str, String)> {
    if d.spec.suspend {
        return Some(("Suspended", "spec.suspend is true: set it to false to go on".to_owned()));
    }
    if run.paused {
        return Some((
            "Paused",
            format!("a person paused it: kubectl sluice resume {} -n {}", d.name, d.namespace),
        ));
    }
    // Before anybody meets the canary, the gate is that of the first step.
    let first = run.exposed_since.is_none();
    let next = if first { 0 } else { run.step + 1 };
    let next = usize::try_from(next).ok().and_then(|index| run.plan.steps.get(index));
    let next = next.map(|step| step.weight_percent);
    match (run.plan.pause_before_percent, next) {
        (Some(limit), Some(next)) if (baked || first) && next >= limit && !run.released_gate => Some((
            AT_GATE,
            format!(
                "waits for a person before {limit} %: kubectl sluice resume {} -n {}",
                d.name, d.namespace
            ),
        )),
        _ => None,
    }
}

/// What the evidence says against a rise of the weight.
fn evidence_holds(d: &Draft<'_>, run: &Run, current: bool) -> Option<(&'static str, String)> {
    let verdict = d.input.verdict;
    if !current {
        return Some((NOT_ENOUGH, "waits for the first evaluation of this step".to_owned()));
    }
    if let Some(why) = verdict.holds.first() {
        let reason = match why.reason.as_str() {
            NO_DATA => NO_DATA,
            "AlertFiring" => "AlertFiring",
            "GaugeOutOfRange" => "GaugeOutOfRange",
            SHARED_INCIDENT => SHARED_INCIDENT,
            "Suspicion" => "Suspicion",
            "PreExistingAlert" => "PreExistingAlert",
            "AlertSilenced" => "AlertSilenced",
            "AlertSourceMissing" => "AlertSourceMissing",
            _ => "GuardHolds",
        };
        return Some((reason, why.message.clone()));
    }
    if let Some((_, what)) = &verdict.no_data {
        return Some((NO_DATA, what.clone()));
    }
    if !verdict.gate_open {
        return Some((NOT_ENOUGH, verdict.needs.clone()));
    }
    share_differs(d, run).map(|message| ("WeightNotLive", message))
}

/// The only proof that proxies follow: the observed share of requests. Callers of the apex Service meet the
/// canary by its share of pods, so with those the share may lie anywhere between the two.
fn share_differs(d: &Draft<'_>, run: &Run) -> Option<String> {
    let (canary, all) = d.input.verdict.share.filter(|(_, all)| *all > 0.0)?;
    let weight = f64::from(run.weight?.percent) / 100.0;
    let observed = canary / all;
    let pods = exposure_by_pods(d, run);
    let (low, high) = match run.plan.apex_callers {
        ApexCallers::None => (weight, weight),
        ApexCallers::Some => (weight.min(pods), weight.max(pods)),
    };
    let tolerance = |share: f64| {
        (3.0 * (share * (1.0 - share) / all).sqrt())
            .max(SHARE_TOLERANCE)
            .max(SHARE_TOLERANCE_RELATIVE * share)
    };
    let outside = observed < low - tolerance(low) || observed > high + tolerance(high);
    outside.then(|| {
        format!(
            "{:.1} % of {all:.0} requests met the canary, {:.0} % were asked for: do all requests pass the routes?",
            100.0 * observed,
            100.0 * weight
        )
    })
}
