//! What a change would meet, before it starts: what stable's record says of the traffic of each guard that counts
//! requests, and what the planner makes of it. The same windows and the same bets as in a run, so that a forecast is about
//! what would happen.

use jiff::Timestamp;

use crate::api::{ApexCallers, GuardAction, Plan, Run};
use crate::evidence::{Arm, DataState, GuardPlan, GuardState, Outcome, Sample, observe};
use crate::judge::{Weighed, weighed};
use crate::limits::pods_for;
use crate::statistics::planner::{self, Step, Traffic};

/// Without another word, the supposed fault is so many times as frequent as stable's failures are.
const SUPPOSED_TIMES: f64 = 10.0;
/// And this much where stable does not fail at all.
const SUPPOSED_LEAST: f64 = 0.01;
const PERCENT: f64 = 100.0;

/// Stable's record, as one guard counts it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Record {
    /// Requests.
    pub requests: f64,
    /// Failed, or slow, requests.
    pub failed: f64,
    /// Seconds from its first sample to its last.
    pub seconds: f64,
    /// How much more failures cluster than independent ones would: 1 is not at all.
    pub burst_factor: f64,
    /// Factor on the tolerated ratio, for pods that differ.
    pub widen: f64,
}

/// What a guard would see of a change.
#[derive(Clone, Debug, PartialEq)]
pub struct GuardForecast {
    /// Stable's record.
    pub record: Record,
    /// The supposed rate of failures of the change, as a fraction.
    pub supposed: f64,
    /// Steps, and harm.
    pub plan: planner::Plan,
}

/// A guard, and its forecast or why there is none.
#[derive(Clone, Debug, PartialEq)]
pub struct Forecast {
    /// Name of the guard.
    pub guard: String,
    /// What it does when it trips.
    pub action: GuardAction,
    /// The forecast, or the trouble with its data, in words.
    pub outcome: Result<GuardForecast, (DataState, String)>,
}

impl Forecast {
    /// Steps whose bake can't show in time that a good change is good: index and forecast.
    pub fn steps_too_low(&self) -> Vec<(usize, &planner::Forecast)> {
        let steps = self.outcome.iter().flat_map(|found| found.plan.steps.iter().enumerate());
        steps.filter(|(_, step)| step.too_low()).collect()
    }

    /// Why steps of this plan would end as not proven, and what helps; none if the traffic is enough.
    pub fn too_low(&self, plan: &Plan) -> Option<String> {
        let steps = self.steps_too_low();
        let (index, worst) = steps.iter().max_by(|a, b| a.1.stretch().total_cmp(&b.1.stretch()))?;
        let names: Vec<String> = steps.iter().map(|(index, _)| (index + 1).to_string()).collect();
        let needed = worst.gate.map_or(f64::INFINITY, |gate| gate.mean);
        let head = format!(
            "step {} would end as NotProven, after {} times its bake: for {}, step {} needs about {} canary requests to show \
             that a good change is good, and its bake has {}",
            names.join(", "),
            planner::STRETCH,
            self.guard,
            index + 1,
            amount(needed),
            amount(worst.requests),
        );
        let bake = |index: usize| plan.steps.get(index).map_or(0, |step| step.bake_seconds);
        let seconds = |(index, step): &(usize, &planner::Forecast)| f64::from(bake(*index)) * step.stretch();
        let longest = steps.iter().map(seconds).fold(0.0, f64::max);
        if !longest.is_finite() {
            return Some(format!("{head}. No bake would do: send more traffic through the route first"));
        }
        let minutes = (longest / planner::STRETCH / 60.0).ceil();
        Some(format!(
            "{head}. What helps: limits.minBakeSeconds of {} ({minutes} min) or more, more traffic through the route, or a \
             change of less risk",
            minutes * 60.0
        ))
    }
}

/// A number of requests.
fn amount(number: f64) -> String {
    match number {
        n if !n.is_finite() => "any number of".to_owned(),
        n if n < 10.0 => format!("{n:.1}"),
        n => format!("{n:.0}"),
    }
}

/// What the time before a run says of its plan; nothing once the canary has traffic, or without a sample. `history` is that
/// of the run's guards, by name, oldest first.
pub fn before_run(run: &Run, history: &[(String, Sample)], interval: i32) -> Vec<Forecast> {
    if run.exposed_since.is_some() {
        return Vec::new();
    }
    let mut samples: Vec<(String, Vec<Sample>)> = Vec::new();
    for (name, sample) in history {
        match samples.iter_mut().find(|(guard, _)| guard == name) {
            Some((_, of)) => of.push(sample.clone()),
            None => samples.push((name.clone(), vec![sample.clone()])),
        }
    }
    let pods = |sample: &Sample| match &sample.outcome {
        Outcome::Counters(pods) => pods.iter().filter(|pod| pod.arm == Arm::Stable).count(),
        Outcome::Trouble(_) => 0,
    };
    let Some(replicas) = samples.iter().filter_map(|(_, samples)| samples.last()).map(pods).max() else {
        return Vec::new();
    };
    let replicas = i32::try_from(replicas).unwrap_or(i32::MAX);
    forecast(&run.plan, replicas, &samples, None, interval)
}

/// That the traffic is too low for the plan, in words, if it is for a guard that decides.
pub fn traffic_too_low(plan: &Plan, forecasts: &[Forecast]) -> Option<String> {
    let mut deciding = forecasts.iter().filter(|guard| guard.action != GuardAction::Observe);
    deciding.find_map(|guard| guard.too_low(plan))
}

/// Forecasts a plan for a workload of `replicas` pods. `samples` of each guard, by name, are those of the time before,
/// oldest first, `interval` seconds apart; `suppose` is a rate of failures, a fraction.
pub fn forecast(
    plan: &Plan,
    replicas: i32,
    samples: &[(String, Vec<Sample>)],
    suppose: Option<f64>,
    interval: i32,
) -> Vec<Forecast> {
    let forecast = |weighed: Weighed<'_>| {
        let name = &weighed.guard.name;
        let found = samples.iter().find(|(guard, _)| guard == name).map_or(&[][..], |(_, samples)| samples);
        Forecast {
            guard: name.clone(),
            action: weighed.guard.action,
            outcome: of_guard(plan, replicas, &weighed, found, suppose, interval),
        }
    };
    weighed(plan).into_iter().filter(|weighed| weighed.judged.needs_evidence).map(forecast).collect()
}

fn of_guard(
    plan: &Plan,
    replicas: i32,
    weighed: &Weighed<'_>,
    samples: &[Sample],
    suppose: Option<f64>,
    interval: i32,
) -> Result<GuardForecast, (DataState, String)> {
    let at_rest = weighed.at_rest(interval);
    let state = take_in(&at_rest, samples);
    let first = plan.steps.first().map_or(1, |step| step.weight_percent);
    let pods = |count: i32| usize::try_from(count).unwrap_or(0);
    let outlook = state.weighed.outlook(
        &weighed.judged,
        at_rest.by_pod,
        (pods(pods_for(replicas, first)), pods(replicas)),
    );
    let seconds = span(samples);
    if outlook.stable.n <= 0.0 || seconds <= 0.0 {
        return Err(match state.data {
            DataState::Ok => (DataState::NoData, "no request was counted in the time before".to_owned()),
            trouble => (trouble, state.data_message),
        });
    }
    let record = Record {
        requests: outlook.stable.n,
        failed: outlook.stable.x,
        seconds,
        burst_factor: outlook.phi,
        widen: outlook.frozen.widen,
    };
    let supposed = suppose.unwrap_or_else(|| match outlook.stable.rate() {
        rate if rate > 0.0 => (SUPPOSED_TIMES * rate).min(1.0),
        _ => SUPPOSED_LEAST,
    });
    // The weight is live this long before the first window begins, and after it was taken back; and a sample is half a scrape
    // old on average, and so is an evaluation when the next one comes.
    let window_seconds = f64::from(interval.max(1));
    let act_seconds = 2.0 * f64::from(plan.settle_seconds) + window_seconds;
    let traffic = Traffic::seen(&outlook, seconds, window_seconds, act_seconds);
    let steps: Vec<Step> = plan
        .steps
        .iter()
        .map(|step| {
            let weight = f64::from(step.weight_percent) / PERCENT;
            Step {
                weight,
                exposure: exposure(plan, replicas, step.weight_percent).max(weight),
                bake_seconds: f64::from(step.bake_seconds),
            }
        })
        .collect();
    Ok(GuardForecast { record, supposed, plan: planner::plan(&weighed.judged, &traffic, &steps, supposed) })
}

/// The share of callers past the route that meet the canary.
fn exposure(plan: &Plan, replicas: i32, percent: i32) -> f64 {
    if plan.apex_callers == ApexCallers::None || percent >= 100 {
        return 0.0;
    }
    let (canary, stable) = (f64::from(pods_for(replicas, percent)), f64::from(replicas.max(0)));
    if canary + stable > 0.0 { canary / (canary + stable) } else { 0.0 }
}

/// The state of a guard after these samples, in which no canary is.
fn take_in(plan: &GuardPlan, samples: &[Sample]) -> GuardState {
    let mut state = GuardState::default();
    samples.iter().for_each(|sample| observe(&mut state, sample, plan, false, sample.at));
    state
}

fn span(samples: &[Sample]) -> f64 {
    let counted = |sample: &&Sample| matches!(sample.outcome, Outcome::Counters(_));
    let at = |sample: &Sample| sample.at;
    let (first, last) = (samples.iter().find(counted).map(at), samples.iter().rfind(counted).map(at));
    let seconds = |(first, last): (Timestamp, Timestamp)| last.duration_since(first).as_secs_f64();
    first.zip(last).map_or(0.0, seconds)
}

#[cfg(test)]
pub(crate) mod testing {
    //! A plan, and an hour of stable's record.

    use super::*;
    use crate::api::RiskClass;
    use crate::evidence::PodCounters;

    pub const REPLICAS: i32 = 4;
    pub const INTERVAL: i32 = 15;

    /// A plan of these weights and bakes.
    pub fn plan(steps: &[(i32, i32)], class: RiskClass) -> Plan {
        let steps: Vec<_> = steps
            .iter()
            .map(|(weight, bake)| serde_json::json!({"weightPercent": weight, "bakeSeconds": bake}))
            .collect();
        let plan = serde_json::json!({
            "digest": "", "riskClass": class, "provenance": "Human", "minSamples": 1, "steps": steps,
            "tolerancePpm": {"relative": 0, "absolute": 0}, "noDataSeconds": 60, "watchSeconds": 60,
            "progressDeadlineSeconds": 60, "service": "web", "stableService": "web-stable",
            "canaryService": "web-canary", "routes": [], "apexCallers": "None", "settleSeconds": 5,
            "drainSeconds": 1, "guards": [{"name": "errors", "errorRatio": {}}],
        });
        serde_json::from_value(plan).unwrap()
    }

    /// An hour of four pods, at so many requests a second in all; every so many of a pod's fails.
    pub fn hour(per_second: f64, every: f64) -> Vec<(String, Vec<Sample>)> {
        let sample = |window: i64| {
            let at = Timestamp::from_second(1_767_225_600 + window * i64::from(INTERVAL)).unwrap();
            let total = per_second / f64::from(REPLICAS) * (window * i64::from(INTERVAL)) as f64;
            let pod = |pod: i32| PodCounters {
                id: format!("web-1-{pod}"),
                arm: Arm::Stable,
                total,
                bad: Some((total / every).floor()),
                maybe_bad: None,
                newest_sample: at,
                created: None,
                out_of_memory: false,
            };
            Sample { bound: None, at, outcome: Outcome::Counters((0..REPLICAS).map(pod).collect()) }
        };
        vec![("errors".to_owned(), (0..=240).map(sample).collect())]
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{INTERVAL, REPLICAS, hour, plan};
    use super::*;
    use crate::api::{Revision, RiskClass, RunKind};
    use crate::evidence::Trouble;
    use crate::statistics::planner::Need;

    fn told(plan: &Plan, samples: &[(String, Vec<Sample>)], suppose: Option<f64>) -> GuardForecast {
        forecast(plan, REPLICAS, samples, suppose, INTERVAL).remove(0).outcome.unwrap()
    }

    #[test]
    fn the_record_is_that_of_the_hour() {
        let plan = plan(&[(5, 1200), (100, 3600)], RiskClass::R2);
        let found = told(&plan, &hour(40.0, 1000.0), None);
        assert_eq!((found.record.requests, found.record.seconds), (144_000.0, 3600.0));
        assert_eq!(found.record.failed, 144.0);
        assert!((found.supposed - 0.01).abs() < 1e-9, "ten times stable's 0.1 %");
        assert!((found.plan.steps[0].requests - 40.0 * 0.05 * 1200.0).abs() < 1e-6);
        assert!(found.plan.steps[1].gate.is_none(), "nothing comes after the last step");
    }

    #[test]
    fn a_tighter_class_promises_less_harm_and_a_slower_route_more() {
        let steps = [(5, 1200), (20, 1200), (100, 3600)];
        let samples = hour(40.0, 1000.0);
        let harm = |plan: &Plan| told(plan, &samples, Some(0.05)).plan.harm;
        let (loose, tight) = (harm(&plan(&steps, RiskClass::R0)), harm(&plan(&steps, RiskClass::R3)));
        assert!(tight.p95 <= loose.p95 && tight.mean < tight.p95, "{tight:?} {loose:?}");
        let slow = Plan { settle_seconds: 60, ..plan(&steps, RiskClass::R3) };
        assert!(harm(&slow).mean > tight.mean + 40.0 * 0.05 * 0.049 * 100.0, "110 s more at 5 %");
    }

    #[test]
    fn callers_past_the_route_meet_the_canarys_pods() {
        let known = plan(&[(5, 1200), (100, 3600)], RiskClass::R2);
        let unknown = Plan { apex_callers: ApexCallers::Some, ..known.clone() };
        let samples = hour(40.0, 1000.0);
        let excess = |plan: &Plan| -> Need { told(plan, &samples, Some(0.05)).plan.steps[0].harm.excess };
        // One pod beside four: 20 % instead of 5 %.
        assert!((excess(&unknown).mean / excess(&known).mean - 4.0).abs() < 1e-6);
    }

    #[test]
    fn without_failures_one_percent_is_supposed_and_without_requests_nothing_is_told() {
        let plan = plan(&[(5, 1200), (100, 3600)], RiskClass::R2);
        assert_eq!(told(&plan, &hour(40.0, 1e12), None).supposed, 0.01);
        let silent = forecast(&plan, REPLICAS, &hour(0.0, 1.0), None, INTERVAL).remove(0);
        assert_eq!(silent.outcome.unwrap_err().0, DataState::NoData);
        let at = Timestamp::from_second(1_767_225_600).unwrap();
        let refused = Outcome::Trouble(Trouble::new(DataState::QueryError, "parse error".to_owned()));
        let refused = vec![("errors".to_owned(), vec![Sample { bound: None, at, outcome: refused }])];
        let found = forecast(&plan, REPLICAS, &refused, None, INTERVAL).remove(0);
        assert_eq!(found.outcome.unwrap_err(), (DataState::QueryError, "parse error".to_owned()));
        let none = forecast(&plan, REPLICAS, &[], None, INTERVAL).remove(0);
        assert!(none.outcome.is_err());
    }

    #[test]
    fn too_little_traffic_is_said() {
        let plan = plan(&[(2, 1200), (100, 3600)], RiskClass::R3);
        let revision = |hash: &str| -> Revision {
            serde_json::from_value(
                serde_json::json!({"digest": hash, "restartDigest": hash, "hash": hash, "replicaSet": hash}),
            )
            .unwrap()
        };
        let at = Timestamp::from_second(1_767_225_600).unwrap();
        let mut run =
            Run::new("1-a".to_owned(), RunKind::Canary, revision("c"), revision("s"), plan.clone(), at);
        let history = |per_second| -> Vec<(String, Sample)> {
            let (guard, samples) = hour(per_second, 1000.0).remove(0);
            samples.into_iter().map(|sample| (guard.clone(), sample)).collect()
        };
        let too_low = |run: &Run, history: &[(String, Sample)]| {
            traffic_too_low(&run.plan, &before_run(run, history, INTERVAL))
        };
        let said = too_low(&run, &history(1.0)).unwrap();
        assert!(said.starts_with(
            "step 1 would end as NotProven, after 5 times its bake: for errors, step 1 needs about "
        ));
        assert!(said.contains(" and its bake has 24. What helps: limits.minBakeSeconds of "), "{said}");
        assert_eq!(too_low(&run, &history(5000.0)), None);
        assert_eq!(too_low(&run, &[]), None, "what is not known is not said");
        run.exposed_since = Some(at);
        assert_eq!(too_low(&run, &history(1.0)), None, "it is under way");
        assert!(told(&plan, &hour(1.0, 1000.0), None).plan.steps[0].too_low());
        assert!(!told(&plan, &hour(5000.0, 1000.0), None).plan.steps[0].too_low());
    }
}
