//! From samples to a verdict on a run: which guard is judged by what, in which window.
//!
//! Pure: the shell fetches the samples, keeps the state between two evaluations and stores it in status.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use crate::api::{AlertGuard, AlertSource, Counted, Guard, GuardAction, GuardStatus, Plan, Run, Stage};
use crate::evidence::{
    Alert, AlertPlan, AlertReport, Arm, DEAD_PATH, EvidenceState, GaugeLook, GaugePlan, GaugeReport,
    GuardPlan, GuardReport, HoldReason, KnownAlert, Outcome, Poll, Sample, combine, first_firing, is_ahead,
    is_incident, known_alerts, observe, observe_alerts, observe_gauge, path_is_alive, report, report_alerts,
    report_gauge, stable_too, with_gauges,
};
use crate::statistics::{self, Asked, Joined, Place, Row, Signal, join};
use crate::verdict::{AlertsAtRest, Verdict, Why};

const PPM: f64 = 1_000_000.0;
const PERMILLE: f64 = 1000.0;
/// After so long without an evaluation nobody knows whether an incident had a break, in seconds.
const UNATTENDED_SECONDS: i64 = 300;

/// Requests that reached the canary, as last seen: tells when none does any more.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quiet {
    /// Requests of all canary pods.
    pub total: f64,
    /// Scrape at which this total was first seen.
    pub from: Timestamp,
    /// Newest scrape that still shows it.
    pub to: Timestamp,
}

impl Quiet {
    /// Takes in one sample.
    pub fn update(known: Option<Self>, sample: &Sample) -> Option<Self> {
        let Outcome::Counters(pods) = &sample.outcome else {
            return known;
        };
        let canary: Vec<_> = pods.iter().filter(|pod| pod.arm == Arm::Canary).collect();
        let newest = canary.iter().map(|pod| pod.newest_sample).min()?;
        let total: f64 = canary.iter().map(|pod| pod.total).sum();
        match known {
            Some(known) if (known.total - total).abs() < 0.5 => {
                Some(Self { to: newest.max(known.to), ..known })
            }
            _ => Some(Self { total, from: newest, to: newest }),
        }
    }
}

/// One evaluation of a run.
#[derive(Clone, Debug)]
pub struct Evaluation<'a> {
    /// The run.
    pub run: &'a Run,
    /// Samples of the time before the first ones, by the guard's name, oldest first.
    pub history: &'a [(String, Sample)],
    /// One sample per counting guard, by name.
    pub samples: &'a [(String, Sample)],
    /// One look per guard on a value, by name.
    pub gauges: &'a [(String, GaugeLook)],
    /// The alerts, of the sources that were asked.
    pub polls: Polls<'a>,
    /// Requests that reach the canary.
    pub quiet: Option<Quiet>,
    /// Seconds between two evaluations.
    pub interval_seconds: i32,
    /// Now.
    pub now: Timestamp,
}

/// What sources of alerts answered; none of a source that was not asked.
#[derive(Clone, Copy, Debug, Default)]
pub struct Polls<'a> {
    /// Alertmanager.
    pub alertmanager: Option<&'a Poll>,
    /// Prometheus.
    pub prometheus: Option<&'a Poll>,
}

impl<'a> Polls<'a> {
    /// Of one source.
    pub fn of(self, source: AlertSource) -> Option<&'a Poll> {
        match source {
            AlertSource::Alertmanager => self.alertmanager,
            AlertSource::Prometheus => self.prometheus,
        }
    }

    /// The alerts of one source, if it answered.
    fn alerts(self, source: AlertSource) -> Option<&'a [Alert]> {
        self.of(source)?.answer.as_deref().ok()
    }
}

/// Takes in the samples and says what they mean.
pub fn judge(evaluation: &Evaluation<'_>, state: &mut EvidenceState) -> Verdict {
    let run = evaluation.run;
    let plans = guard_plans(run, state, evaluation.interval_seconds);
    // Known before a sample: what it shows of stable makes the gates stand still from the next one on.
    let incident = |state: &EvidenceState, at: Timestamp| {
        plans.iter().any(|plan| state.guard(&plan.name).is_some_and(|guard| is_incident(guard, plan, at)))
    };
    for (name, sample) in evaluation.history {
        let Some(plan) = plans.iter().find(|plan| plan.name == *name) else { continue };
        let ill = incident(state, sample.at);
        let guard = state.guard_mut(name);
        if guard.start.is_none() {
            // Looks that found nothing usable are no reason to leave out what came before them.
            guard.last_seen = None;
        }
        // Before the present weight was live, only stable is learned from.
        let live = plan.window_start.is_some_and(|live| sample.at >= live);
        let before = GuardPlan { weight: 0, window_start: None, watch: false, ..plan.clone() };
        observe(guard, sample, if live { plan } else { &before }, ill, evaluation.now);
    }
    let ill = incident(state, evaluation.now);
    let seen = state.guards.iter().filter_map(|guard| guard.last_seen).max();
    for (name, sample) in evaluation.samples {
        if let Some(plan) = plans.iter().find(|plan| plan.name == *name) {
            observe(state.guard_mut(name), sample, plan, ill, evaluation.now);
        }
    }
    let attended = |since: &Timestamp| {
        let away = evaluation.now.duration_since(seen.unwrap_or(*since)).as_secs();
        !is_ahead(*since, evaluation.now) && away < UNATTENDED_SECONDS
    };
    let since = state.incident_since.filter(attended);
    state.incident_since = incident(state, evaluation.now).then(|| since.unwrap_or(evaluation.now));
    let alert_plans = alert_plans(run, evaluation.interval_seconds);
    for plan in &alert_plans {
        if let Some(poll) = evaluation.polls.of(plan.source) {
            observe_alerts(state.alert_mut(&plan.name), poll, plan, evaluation.now);
        }
    }
    let gauge_plans = GaugePlan::all(run, evaluation.interval_seconds);
    for (name, look) in evaluation.gauges {
        if let Some(plan) = gauge_plans.iter().find(|plan| plan.name == *name) {
            observe_gauge(state.gauge_mut(name), look, plan, evaluation.now);
        }
    }
    conclude(evaluation, state, &plans, &alert_plans, &gauge_plans)
}

fn conclude(
    evaluation: &Evaluation<'_>,
    state: &mut EvidenceState,
    plans: &[GuardPlan],
    alert_plans: &[AlertPlan],
    gauge_plans: &[GaugePlan],
) -> Verdict {
    let (run, now) = (evaluation.run, evaluation.now);
    let joined = joined(plans, state);
    let scores = joined.parts.iter().chain(std::iter::repeat(&0.0));
    let reports: Vec<GuardReport> = plans
        .iter()
        .zip(scores)
        .map(|(plan, score)| report(state.guard_mut(&plan.name), plan, *score, now))
        .collect();
    let alerts: Vec<AlertReport> =
        alert_plans.iter().map(|plan| report_alerts(state.alert_mut(&plan.name), plan, now)).collect();
    let gauges: Vec<GaugeReport> =
        gauge_plans.iter().map(|plan| report_gauge(state.gauge_mut(&plan.name), plan, now)).collect();
    let statuses = reports.iter().map(guard_status).chain(alerts.iter().map(alert_status));
    let statuses = statuses.chain(gauges.iter().map(gauge_status)).collect();
    let share = reports.iter().filter_map(|guard| guard.met).max_by(|a, b| a.1.total_cmp(&b.1));
    let evidence = with_gauges(combine(reports, alerts, &joined), &gauges);
    let no_data = evidence.holds.iter().find(|hold| hold.reason == HoldReason::NoData).map(|hold| {
        let since = now.checked_sub(SignedDuration::from_secs(evidence.no_data_seconds)).unwrap_or(now);
        (since, hold.message.clone())
    });
    let blocking = |reason: HoldReason| !matches!(reason, HoldReason::NotEnoughEvidence | HoldReason::NoData);
    let needs = evidence.holds.iter().find(|hold| hold.reason == HoldReason::NotEnoughEvidence);
    Verdict {
        run_id: run.id.clone(),
        at: Some((run.stage, run.step)),
        plan: run.plan.digest.clone(),
        abort: evidence.abort.as_ref().map(|reason| Why {
            reason: if reason.alert { "AlertFired" } else { "GuardTripped" }.to_owned(),
            message: reason.message.clone(),
        }),
        holds: evidence
            .holds
            .iter()
            .filter(|hold| blocking(hold.reason))
            .map(|hold| Why { reason: hold.reason.as_str().to_owned(), message: hold.message.clone() })
            .collect(),
        gate_open: evidence.gate_open,
        needs: needs.map_or_else(|| "waits for evidence".to_owned(), |hold| hold.message.clone()),
        healthy_seconds: evidence.healthy_seconds,
        unseen_seconds: evidence.unseen_seconds,
        no_data,
        stable_too: plans.iter().find_map(|plan| stable_too(state.guard(&plan.name)?, plan)),
        incident: state.incident_since.map(|since| (since, now)),
        share,
        quiet: evaluation.quiet.map(|quiet| (quiet.from, quiet.to)),
        guards: statuses,
        state: Some(Arc::new(state.clone())),
        firing: firing(&run.plan.guards, evaluation.polls),
        at_rest: None,
        budgets: Vec::new(),
        harm: None,
    }
}

/// The guards' scores as one.
fn joined(plans: &[GuardPlan], state: &mut EvidenceState) -> Joined {
    for plan in plans {
        state.guard_mut(&plan.name);
    }
    let known = plans.iter().filter_map(|plan| Some((&plan.judged, &state.guard(&plan.name)?.weighed)));
    let guards: Vec<_> = known.collect();
    let rows = guards.iter().map(|(guard, _)| guard.rows.len()).max().unwrap_or(0);
    // A run is at one weight.
    let alone = plans.iter().any(GuardPlan::alone);
    join(&guards, rows, Place { alone, watch: alone })
}

/// Alerts that match a guard now, of the sources that answered: at the time of the hold they are not the new revision's
/// fault.
pub fn firing(guards: &[Guard], polls: Polls<'_>) -> Vec<KnownAlert> {
    let mut known: Vec<KnownAlert> = Vec::new();
    for guard in guards.iter().filter_map(|guard| guard.alert.as_ref()) {
        let alerts = polls.alerts(guard.source).unwrap_or_default();
        for alert in known_alerts(alerts, &guard.matchers).unwrap_or_default() {
            if !known.contains(&alert) {
                known.push(alert);
            }
        }
    }
    known
}

/// What the alerts say while no run is under way. A look that failed changes nothing but its own trouble: how old the
/// last answer may be, the decision knows.
pub fn at_rest(guards: &[Guard], polls: Polls<'_>, before: &Verdict) -> Verdict {
    let asked = || AlertSource::ALL.into_iter().filter_map(|source| polls.of(source));
    let Some(read_at) = asked().map(|poll| poll.at).min() else {
        return Verdict::default();
    };
    let trouble =
        asked().find_map(|poll| poll.answer.as_ref().err().cloned()).or_else(|| dead_path(guards, polls));
    match trouble {
        None => Verdict {
            firing: firing(guards, polls),
            at_rest: Some(AlertsAtRest {
                read_at: Some(read_at),
                firing: watched(guards, polls),
                trouble: None,
            }),
            ..Verdict::default()
        },
        Some(trouble) => Verdict {
            firing: before.firing.clone(),
            at_rest: Some(AlertsAtRest {
                trouble: Some(trouble),
                ..before.at_rest.clone().unwrap_or_default()
            }),
            ..Verdict::default()
        },
    }
}

/// Guards that watch alerts and decide something, with the alerts of their source.
fn watching<'a>(
    guards: &'a [Guard],
    polls: Polls<'a>,
) -> impl Iterator<Item = (&'a Guard, &'a AlertGuard, &'a [Alert])> {
    let deciding = guards.iter().filter(|guard| guard.action != GuardAction::Observe);
    deciding.filter_map(move |guard| {
        let alert = guard.alert.as_ref()?;
        Some((guard, alert, polls.alerts(alert.source)?))
    })
}

/// The guard that decides something and whose watchdog does not fire, in words.
fn dead_path(guards: &[Guard], polls: Polls<'_>) -> Option<String> {
    watching(guards, polls).find_map(|(guard, alert, alerts)| match path_is_alive(alerts, &alert.watchdog) {
        Ok(true) => None,
        Ok(false) => Some(format!("{}: {DEAD_PATH}", guard.name)),
        Err(unusable) => Some(format!("{}: {unusable}", guard.name)),
    })
}

/// The alert that fires under a guard that decides something, in words. Matchers are checked before a spec is accepted;
/// one that can't be used would let everything pass, so it says so instead.
fn watched(guards: &[Guard], polls: Polls<'_>) -> Option<String> {
    watching(guards, polls).find_map(|(guard, alert, alerts)| match first_firing(alerts, &alert.matchers) {
        Ok(firing) => firing.map(|what| format!("{}: {what}", guard.name)),
        Err(unusable) => Some(format!("{}: {unusable}", guard.name)),
    })
}

/// A guard that counts requests, and how its counts are weighed.
#[derive(Clone, Debug, PartialEq)]
pub struct Weighed<'a> {
    /// The guard.
    pub guard: &'a Guard,
    /// What it counts.
    pub counted: Counted<'a>,
    /// Rows, shares of the budget and limit.
    pub judged: statistics::Guard,
}

/// How a plan weighs what its guards count.
pub fn weighed(plan: &Plan) -> Vec<Weighed<'_>> {
    let counting: Vec<(&Guard, Counted<'_>)> =
        plan.guards.iter().filter_map(|guard| Some((guard, guard.counted()?))).collect();
    let asked: Vec<Asked> = counting
        .iter()
        .map(|(guard, counted)| {
            let (signal, max_ppm) = match counted {
                Counted::Errors(ratio) => (Signal::Errors, ratio.max_ppm),
                Counted::Latency(latency) if latency.slo_milliseconds.is_some() => (Signal::Latency, None),
                Counted::Latency(_) => (Signal::Body, None),
                Counted::Restarts(_) => (Signal::Events, None),
            };
            Asked {
                name: guard.name.clone(),
                signal,
                stops: guard.action == GuardAction::Abort,
                limit: max_ppm.map(|ppm| f64::from(ppm.clamp(0, 1_000_000)) / PPM),
                phi_floor: 1.0,
            }
        })
        .collect();
    let judged = statistics::guards(&asked, &rows(plan), plan.abort_needs_two_pods);
    let guards = counting.into_iter().zip(judged);
    guards.map(|((guard, counted), judged)| Weighed { guard, counted, judged }).collect()
}

fn guard_plans(run: &Run, state: &EvidenceState, interval_seconds: i32) -> Vec<GuardPlan> {
    let index = usize::try_from(run.step).unwrap_or(0);
    let next = run.plan.steps.get(index + 1).map_or(100, |step| step.weight_percent);
    // The window of the last step goes on through the swap; on the way back there is nothing to judge.
    let judged = matches!(run.stage, Stage::Stepping | Stage::Promoting | Stage::Watching);
    let settled = run.weight.and_then(|weight| weight.settled_at).filter(|_| judged);
    // An alert taints what was counted while it fired.
    let tainted = state.alerts.iter().filter_map(|alert| alert.tainted_at).max();
    let window_start = settled.map(|at| tainted.map_or(at, |tainted| at.max(tainted)));
    let returned = back_since(run);
    // From then on the canary has nothing.
    let weight = run.weight.filter(|_| returned.is_none()).map_or(0, |weight| weight.percent);
    let now = |weighed: Weighed<'_>| GuardPlan {
        min_samples: run.plan.min_samples,
        weight,
        next_weight: next,
        step: run.step,
        window_start,
        watch: run.stage == Stage::Watching,
        returned,
        ..weighed.at_rest(interval_seconds)
    };
    weighed(&run.plan).into_iter().map(now).collect()
}

impl Weighed<'_> {
    /// What the guard is judged by while no canary has traffic.
    pub fn at_rest(&self, interval_seconds: i32) -> GuardPlan {
        GuardPlan {
            name: self.guard.name.clone(),
            action: self.guard.action,
            judged: self.judged.clone(),
            by_pod: self.counted.by_pod(),
            warmup: f64::from(self.counted.warmup_requests().max(0)),
            min_samples: 0,
            weight: 0,
            next_weight: 100,
            step: 0,
            window_start: None,
            watch: false,
            returned: None,
            scrape_seconds: interval_seconds,
        }
    }
}

/// Since when stable is judged again, by itself: proxies had time to follow.
fn back_since(run: &Run) -> Option<Timestamp> {
    let back = run.going_back.as_ref().filter(|back| back.judges_stable)?;
    back.back_at?.checked_add(SignedDuration::from_secs(i64::from(run.plan.settle_seconds.max(0)))).ok()
}

/// The rows that a plan plays; the built-in ones for a plan that was made before it named them.
fn rows(plan: &Plan) -> Vec<Row> {
    match plan.rows.is_empty() {
        true => statistics::rows::chain(plan.risk_class),
        false => plan.rows.iter().map(Row::from).collect(),
    }
}

fn alert_plans(run: &Run, interval_seconds: i32) -> Vec<AlertPlan> {
    let guards = run.plan.guards.iter().filter_map(|guard| Some((guard, guard.alert.as_ref()?)));
    guards
        .map(|(guard, alert)| AlertPlan {
            name: guard.name.clone(),
            action: guard.action,
            source: alert.source,
            matchers: alert.matchers.clone(),
            min_firing_seconds: alert.min_firing_seconds,
            watchdog: alert.watchdog.clone(),
            known: run.known_alerts.clone(),
            exposure_start: run.exposed_since,
            canary_hash: Some(run.canary.hash.clone()),
            canary_service: Some(run.plan.canary_service.clone()),
            poll_seconds: interval_seconds,
        })
        .collect()
}

#[allow(clippy::cast_possible_truncation)] // capped far below i64
fn permille(score: f64) -> i64 {
    (score.min(1e6) * PERMILLE).floor() as i64
}

#[allow(clippy::cast_possible_truncation)] // scores are capped far below i64
fn guard_status(guard: &GuardReport) -> GuardStatus {
    if guard.met.is_none() {
        return GuardStatus {
            score_permille: Some(permille(guard.score)),
            ..uncounted(&guard.name, guard.state.as_str(), &guard.message)
        };
    }
    GuardStatus {
        name: guard.name.clone(),
        state: guard.state.as_str().to_owned(),
        score_permille: Some(permille(guard.score)),
        canary_requests: Some(guard.n_canary),
        canary_failed: Some(guard.x_canary),
        stable_requests: Some(guard.n_stable),
        stable_failed: Some(guard.x_stable),
        needed_requests: Some(guard.min_samples_needed),
        gate_permille: guard.gate_progress.map(|progress| (progress * PERMILLE).floor() as i64),
        burst_permille: Some((guard.burst_factor * PERMILLE).round() as i64),
        message: guard.message.clone(),
    }
}

fn alert_status(alert: &AlertReport) -> GuardStatus {
    uncounted(&alert.name, alert.state.as_str(), &alert.message)
}

fn gauge_status(gauge: &GaugeReport) -> GuardStatus {
    uncounted(&gauge.name, gauge.state, &gauge.message)
}

/// Of a guard without counts and score.
fn uncounted(name: &str, state: &str, message: &str) -> GuardStatus {
    GuardStatus {
        name: name.to_owned(),
        state: state.to_owned(),
        score_permille: None,
        canary_requests: None,
        canary_failed: None,
        stable_requests: None,
        stable_failed: None,
        needed_requests: None,
        gate_permille: None,
        burst_permille: None,
        message: message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::AlertMatcher;
    use crate::evidence::{DataState, PodCounters, Trouble};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_767_225_600 + second).unwrap()
    }

    fn guards(action: &str) -> Vec<Guard> {
        let matchers = serde_json::json!([{"label": "severity", "value": "page"}]);
        let guards = serde_json::json!([
            {"name": "errors", "errorRatio": {}},
            {"name": "pages", "action": action, "alert": {"matchers": matchers}},
        ]);
        serde_json::from_value(guards).unwrap()
    }

    fn alert(name: &str, severity: &str, starts_at: i64, state: &str) -> Alert {
        let alert = serde_json::json!({
            "fingerprint": name, "labels": {"alertname": name, "severity": severity},
            "startsAt": at(starts_at).to_string(), "status": {"state": state},
        });
        serde_json::from_value(alert).unwrap()
    }

    fn poll(second: i64, answer: Result<Vec<Alert>, String>) -> Poll {
        Poll { at: at(second), answer, silences: Vec::new() }
    }

    fn by_alertmanager(poll: &Poll) -> Polls<'_> {
        Polls { alertmanager: Some(poll), prometheus: None }
    }

    #[test]
    fn a_guard_is_judged_by_the_source_that_it_names() {
        let mut guards = guards("Abort");
        let mut other = guards[1].clone();
        "rules".clone_into(&mut other.name);
        other.alert.as_mut().unwrap().source = AlertSource::Prometheus;
        guards.push(other);
        let (quiet, loud) =
            (poll(100, Ok(Vec::new())), poll(90, Ok(vec![alert("Old", "page", 30, "active")])));
        let rest = |alertmanager, prometheus| {
            let polls = Polls { alertmanager: Some(alertmanager), prometheus: Some(prometheus) };
            at_rest(&guards, polls, &Verdict::default()).at_rest.unwrap()
        };
        let spoken = |rest: AlertsAtRest| rest.firing.unwrap().split(':').next().unwrap().to_owned();
        assert_eq!(spoken(rest(&quiet, &loud)), "rules");
        assert_eq!(spoken(rest(&loud, &quiet)), "pages");
        assert_eq!(rest(&quiet, &quiet).firing, None);
        assert_eq!(rest(&quiet, &loud).read_at, Some(at(90)), "as old as the older of both");
        let down = poll(110, Err("down".into()));
        let half = rest(&quiet, &down);
        assert_eq!((half.read_at, half.trouble.as_deref()), (None, Some("down")), "half is not known");
    }

    #[test]
    fn a_watchdog_that_does_not_fire_is_trouble_before_a_run_too() {
        let mut guards = guards("Abort");
        let dog: Vec<AlertMatcher> =
            serde_json::from_value(serde_json::json!([{"label": "alertname", "value": "Watchdog"}])).unwrap();
        guards[1].alert.as_mut().unwrap().watchdog = dog;
        let look = |state: &str| {
            let alerts = vec![alert("Watchdog", "none", 0, state)];
            at_rest(&guards, by_alertmanager(&poll(60, Ok(alerts))), &Verdict::default()).at_rest.unwrap()
        };
        assert_eq!((look("active").read_at, look("active").trouble), (Some(at(60)), None));
        let silent = look("suppressed");
        assert_eq!(silent.read_at, None);
        assert!(silent.trouble.unwrap().starts_with("pages: the watchdog alert is not firing"));
        guards[1].action = GuardAction::Observe;
        let verdict = at_rest(&guards, by_alertmanager(&poll(60, Ok(Vec::new()))), &Verdict::default());
        assert_eq!(verdict.at_rest.unwrap().trouble, None, "it decides nothing");
    }

    #[test]
    fn the_alert_that_fires_for_longest_speaks_at_rest() {
        let alerts = vec![
            alert("Young", "page", 90, "active"),
            alert("Other", "ticket", 10, "active"),
            alert("Silenced", "page", 20, "suppressed"),
            alert("Old", "page", 30, "unprocessed"),
        ];
        let look = poll(100, Ok(alerts));
        for (action, says) in [("Abort", true), ("Hold", true), ("Observe", false)] {
            let verdict = at_rest(&guards(action), by_alertmanager(&look), &Verdict::default());
            let rest = verdict.at_rest.unwrap();
            assert_eq!((rest.read_at, rest.trouble, rest.firing.is_some()), (Some(at(100)), None, says));
            if let Some(firing) = rest.firing {
                let words =
                    "pages: alert Old fires since 2026-01-01T00:00:30Z (fingerprint Old) severity=page";
                assert_eq!(firing, words);
            }
            assert_eq!(verdict.firing.len(), 3, "all that match are known later, silenced ones too");
        }
        let quiet = poll(100, Ok(vec![alert("Silenced", "page", 20, "suppressed")]));
        let verdict = at_rest(&guards("Abort"), by_alertmanager(&quiet), &Verdict::default());
        assert_eq!(verdict.at_rest.unwrap().firing, None, "who silenced it knew of it");
    }

    #[test]
    fn a_look_that_fails_says_so_and_forgets_nothing() {
        let guards = guards("Abort");
        let look = poll(100, Ok(vec![alert("Old", "page", 30, "active")]));
        let before = at_rest(&guards, by_alertmanager(&look), &Verdict::default());
        let after = at_rest(&guards, by_alertmanager(&poll(110, Err("connection refused".into()))), &before);
        let (was, is) = (before.at_rest.unwrap(), after.at_rest.unwrap());
        assert_eq!((is.read_at, &is.firing), (was.read_at, &was.firing));
        assert_eq!((is.trouble.as_deref(), after.firing), (Some("connection refused"), before.firing));
        let never = at_rest(&guards, by_alertmanager(&poll(110, Err("down".into()))), &Verdict::default());
        assert_eq!(never.at_rest.unwrap().read_at, None);
        assert_eq!(at_rest(&guards, Polls::default(), &Verdict::default()).at_rest, None, "no guard watches");
    }

    /// A run at 10 %, live since second 3600.
    fn run() -> Run {
        let revision = |hash: &str| serde_json::json!({"digest": hash, "restartDigest": hash, "hash": hash, "replicaSet": hash});
        let guards = serde_json::json!([{"name": "errors", "errorRatio": {}}]);
        let since = at(3600).to_string();
        let run = serde_json::json!({
            "id": "1-a", "stable": revision("s"), "canary": revision("c"), "stage": "Stepping",
            "startedAt": since, "stageSince": since, "exposedSince": since,
            "weight": {"percent": 10, "at": since, "acceptedAt": since, "settledAt": since},
            "plan": {
                "digest": "", "riskClass": "R1", "provenance": "Human", "minSamples": 1,
                "steps": [{"weightPercent": 10, "bakeSeconds": 60}, {"weightPercent": 100, "bakeSeconds": 60}],
                "tolerancePpm": {"relative": 250_000, "absolute": 300}, "noDataSeconds": 60,
                "watchSeconds": 60, "progressDeadlineSeconds": 60, "service": "web",
                "stableService": "web-stable", "canaryService": "web-canary", "routes": [],
                "apexCallers": "None", "settleSeconds": 1, "drainSeconds": 1, "guards": guards,
            },
        });
        serde_json::from_value(run).unwrap()
    }

    /// 100 requests a second, and of stable's one in a thousand fails.
    fn counters(second: i64) -> Sample {
        let pod = |arm, rate: f64, bad: f64| PodCounters {
            id: format!("{arm}"),
            arm,
            total: rate * second as f64,
            bad: Some((bad * second as f64).floor()),
            maybe_bad: None,
            newest_sample: at(second),
            created: None,
            out_of_memory: false,
        };
        let pods = vec![pod(Arm::Stable, 100.0, 0.1), pod(Arm::Canary, 10.0, 0.0)];
        Sample { bound: None, at: at(second), outcome: Outcome::Counters(pods) }
    }

    #[test]
    fn the_hour_before_is_stables_record_also_after_looks_in_vain() {
        let run = run();
        let mut state = EvidenceState::default();
        let mut look = |history: &[(String, Sample)], second: i64, sample: Sample| {
            let samples = [("errors".to_owned(), sample)];
            let (polls, quiet) = (Polls::default(), None);
            let evaluation = Evaluation {
                run: &run,
                history,
                samples: &samples,
                gauges: &[],
                polls,
                quiet,
                interval_seconds: 15,
                now: at(second),
            };
            judge(&evaluation, &mut state);
            state.guard("errors").unwrap().weighed.frozen()
        };
        let down = Outcome::Trouble(Trouble::new(DataState::ProviderDown, "down".to_owned()));
        assert_eq!(look(&[], 3600, Sample { bound: None, at: at(3600), outcome: down }), None);
        let history: Vec<(String, Sample)> =
            (0..=241).map(|window| ("errors".to_owned(), counters(15 * window))).collect();
        let frozen = look(&history, 3630, counters(3630)).unwrap();
        // 360 of 360,000 before the weight was live: UCL 0.1127 %.
        assert!((frozen.bound.unwrap() / 0.001_127 - 1.0).abs() < 0.03, "{frozen:?}");
        // Without a record there is no bound.
        let mut state = EvidenceState::default();
        for second in [3600, 3615, 3630] {
            let samples = [("errors".to_owned(), counters(second))];
            let evaluation = Evaluation {
                run: &run,
                history: &[],
                samples: &samples,
                gauges: &[],
                polls: Polls::default(),
                quiet: None,
                interval_seconds: 15,
                now: at(second),
            };
            judge(&evaluation, &mut state);
        }
        assert_eq!(state.guard("errors").unwrap().weighed.frozen().unwrap().bound, None);
    }
}
