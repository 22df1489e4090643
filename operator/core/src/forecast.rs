//! What a change would meet, before it starts: what stable's record says of the traffic of each guard that counts
//! requests, and what the planner makes of it. The same windows and the same bets as in a run, so that a forecast is about
//! what would happen.

use jiff::Timestamp;

use crate::api::{ApexCallers, GuardAction, Plan};
use crate::evidence::{DataState, GuardPlan, GuardState, Outcome, Sample, observe};
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
    weighed(plan).into_iter().map(forecast).collect()
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
    let traffic = Traffic {
        per_second: record.requests / seconds,
        stable: outlook.stable.rate(),
        bound: outlook.frozen.bound,
        phi: outlook.phi,
        widen: outlook.frozen.widen,
        window_seconds: f64::from(interval.max(1)),
        // The weight is live this long before the first window begins, and after it was taken back; and a sample is half
        // a scrape old on average, and so is an evaluation when the next one comes.
        act_seconds: 2.0 * f64::from(plan.settle_seconds) + f64::from(interval.max(1)),
    };
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
