//! The bound on harm as status shows it: the forecast of a plan in whole numbers, and when another one is worth writing.

use jiff::Timestamp;

use crate::api::{GuardAction, GuardHarm, Plan, PlanHarm};
use crate::forecast::{Forecast, GuardForecast};
use crate::view::shorten;

/// Longest message, in characters.
const MESSAGE_LIMIT: usize = 600;
const PPM: f64 = 1_000_000.0;
const HOUR: f64 = 3600.0;
/// A number that differs by no more than this share of itself is not worth a write.
const NOTICEABLE: f64 = 0.1;

impl PlanHarm {
    /// While it is not known, for this reason.
    pub fn unknown(why: &str) -> Self {
        Self { message: shorten(why, MESSAGE_LIMIT), ..Self::default() }
    }

    /// Whether it is known, by any guard.
    pub fn is_known(&self) -> bool {
        !self.guards.is_empty()
    }

    /// Whether `newer` says something else: another guard, a message more or less, or a number that differs by more than a
    /// tenth.
    pub fn differs_from(&self, newer: &Self) -> bool {
        let same = |one: &GuardHarm, other: &GuardHarm| {
            let mut pairs = numbers(one).into_iter().zip(numbers(other));
            one.name == other.name && pairs.all(|(one, other)| near(one, other))
        };
        // What is known has numbers in its message, what is not known has its reason there.
        let message = match self.is_known() && newer.is_known() {
            true => self.message.is_empty() == newer.message.is_empty(),
            false => self.message == newer.message,
        };
        !message
            || self.guards.len() != newer.guards.len()
            || !self.guards.iter().zip(&newer.guards).all(|(one, other)| same(one, other))
    }
}

fn numbers(harm: &GuardHarm) -> [Option<i64>; 7] {
    [
        Some(harm.stable_requests_per_hour),
        Some(harm.stable_failed_ppm.into()),
        Some(harm.supposed_failed_ppm.into()),
        harm.first_step_aborts_from_ppm.map(i64::from),
        harm.excess_failed_requests,
        harm.excess_failed_requests_p95,
        Some(harm.excess_failed_requests_at_most),
    ]
}

fn near(one: Option<i64>, other: Option<i64>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => {
            let (one, other) = (one as f64, other as f64);
            // Of small numbers one more is no news.
            (one - other).abs() <= (NOTICEABLE * one.abs().max(other.abs())).max(1.0)
        }
        (one, other) => one == other,
    }
}

/// The forecasts of a plan as status shows them: of the guards that decide.
pub fn shown(plan: &Plan, forecasts: &[Forecast], read_at: Timestamp) -> PlanHarm {
    let deciding = || forecasts.iter().filter(|forecast| forecast.action != GuardAction::Observe);
    let guards: Vec<GuardHarm> = deciding()
        .filter_map(|forecast| Some(of_guard(&forecast.guard, forecast.outcome.as_ref().ok()?)))
        .collect();
    let troubles = deciding().filter_map(|forecast| {
        let (state, message) = forecast.outcome.as_ref().err()?;
        Some(format!("not known by {}: {}: {message}", forecast.guard, state.as_str()))
    });
    let messages: Vec<String> =
        troubles.chain(deciding().filter_map(|forecast| forecast.too_low(plan))).collect();
    PlanHarm {
        read_at: (!guards.is_empty()).then_some(read_at),
        guards,
        message: shorten(&messages.join(". "), MESSAGE_LIMIT),
    }
}

fn of_guard(name: &str, found: &GuardForecast) -> GuardHarm {
    let record = &found.record;
    let harm = found.plan.harm;
    let first = found.plan.steps.first().and_then(|step| step.smallest);
    GuardHarm {
        name: name.to_owned(),
        stable_requests_per_hour: whole(record.requests / record.seconds * HOUR).unwrap_or_default(),
        stable_failed_ppm: ppm(record.failed / record.requests),
        supposed_failed_ppm: ppm(found.supposed),
        first_step_aborts_from_ppm: first.map(ppm),
        excess_failed_requests: whole(harm.mean),
        excess_failed_requests_p95: whole(harm.p95),
        excess_failed_requests_at_most: whole(found.plan.never_more).unwrap_or_default(),
    }
}

/// A whole number, rounded up: a bound says no less than it is.
#[allow(clippy::cast_possible_truncation)] // finite, and far below i64
fn whole(number: f64) -> Option<i64> {
    number.is_finite().then(|| number.ceil() as i64)
}

#[allow(clippy::cast_possible_truncation)] // a ratio is between 0 and 1
fn ppm(ratio: f64) -> i32 {
    (ratio.clamp(0.0, 1.0) * PPM).round() as i32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::DataState;
    use crate::forecast::testing::{INTERVAL, REPLICAS, hour, plan};
    use crate::forecast::{self, forecast};

    fn found(per_second: f64) -> (Plan, Vec<Forecast>) {
        let plan = plan(&[(5, 1200), (100, 3600)], crate::api::RiskClass::R2);
        let forecasts = forecast(&plan, REPLICAS, &hour(per_second, 1000.0), None, INTERVAL);
        (plan, forecasts)
    }

    fn harm(per_second: f64) -> PlanHarm {
        let (plan, forecasts) = found(per_second);
        shown(&plan, &forecasts, Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn the_numbers_are_those_of_the_forecast() {
        let (plan, forecasts) = found(40.0);
        let told = forecasts[0].outcome.clone().unwrap();
        let harm = shown(&plan, &forecasts, Timestamp::UNIX_EPOCH);
        let guard = &harm.guards[0];
        assert_eq!(guard.name, "errors");
        assert_eq!((guard.stable_requests_per_hour, guard.stable_failed_ppm), (144_000, 1000));
        assert_eq!((guard.supposed_failed_ppm, harm.read_at), (10_000, Some(Timestamp::UNIX_EPOCH)));
        let near = |shown: Option<i64>, exact: f64| (shown.unwrap() as f64 - exact).abs() <= 1.0;
        assert!(near(guard.excess_failed_requests, told.plan.harm.mean));
        assert!(near(guard.excess_failed_requests_p95, told.plan.harm.p95));
        assert!(guard.excess_failed_requests_at_most as f64 >= told.plan.never_more);
        let first = f64::from(guard.first_step_aborts_from_ppm.unwrap()) / PPM;
        assert!((first - told.plan.steps[0].smallest.unwrap()).abs() < 1e-6);
    }

    #[test]
    fn too_little_traffic_and_no_data_are_said_in_words() {
        let low = harm(1.0);
        assert!(low.is_known() && low.message.contains("would end as NotProven"), "{}", low.message);
        let (plan, mut forecasts) = found(40.0);
        forecasts[0].outcome = Err((DataState::ProviderDown, "no answer".to_owned()));
        let down = shown(&plan, &forecasts, Timestamp::UNIX_EPOCH);
        assert_eq!(down, PlanHarm::unknown("not known by errors: ProviderDown: no answer"));
        let none = forecast::forecast(&plan, REPLICAS, &[], None, INTERVAL);
        assert!(!shown(&plan, &none, Timestamp::UNIX_EPOCH).message.is_empty());
        forecasts[0].action = GuardAction::Observe;
        let observed = shown(&plan, &forecasts, Timestamp::UNIX_EPOCH);
        assert_eq!(observed, PlanHarm::default(), "what decides nothing bounds nothing");
    }

    #[test]
    fn only_what_is_noticeable_is_worth_a_write() {
        let (before, same, more) = (harm(40.0), harm(42.0), harm(60.0));
        assert_ne!(before, same);
        assert!(!before.differs_from(&same) && before.differs_from(&more));
        let silent = PlanHarm { message: String::new(), ..before.clone() };
        assert!(!before.message.is_empty() && before.differs_from(&silent), "a message less");
        let unknown = PlanHarm::unknown("down");
        assert!(before.differs_from(&unknown) && unknown.differs_from(&before));
        assert!(
            unknown.differs_from(&PlanHarm::unknown("refused")) && !unknown.differs_from(&unknown.clone())
        );
        let mut never = before.clone();
        never.guards[0].first_step_aborts_from_ppm = None;
        assert!(before.differs_from(&never));
    }
}
