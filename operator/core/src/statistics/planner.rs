//! What a plan would catch, computed before the start: requests until a fault of a given size stops the canary, until
//! the gate opens for a canary that is as good as stable, and the harm until then.
//!
//! Per canary request a bet drifts by `J` with variance `V`, and has to climb `L = ln(1/capital)` (Wald's
//! approximation, with ln 2 off for the other bets that help): `n = L/J` on average, and with 95 % (`z = 1.645`) the `n`
//! at which the drift is `z` standard deviations beyond `L`. Whichever bet gets there first decides, so every need is
//! the least over rows and alternatives. Rates are fractions of 1, times are seconds.

use super::bet::{Burst, Tolerance, multipliers};
use super::guard::{Guard, KEY_ODDS, Outlook};
use super::process::{ALTERNATIVES, WEIGHTS};
use super::rows::Row;

/// 95 % and 80 % quantiles of the normal distribution.
const Z95: f64 = 1.645;
const Z80: f64 = 0.84;
/// A bake stretches to this many times its length before the change is given up as not proven.
pub const STRETCH: f64 = 5.0;
/// Beyond this share the ceiling's approximation is too good; its harm is a little larger.
const LARGE_SHARE: f64 = 0.4;
const LARGE_SHARE_FACTOR: f64 = 1.15;

/// Requests until something happens: on average, and with 95 %.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Need {
    /// On average.
    pub mean: f64,
    /// With a probability of 95 %.
    pub p95: f64,
}

impl Need {
    const NEVER: Self = Self { mean: f64::INFINITY, p95: f64::INFINITY };

    fn of(climb: f64, drift: f64, variance: f64, z: f64) -> Self {
        if drift.is_nan() || drift <= 0.0 {
            return Self::NEVER;
        }
        let mean = climb.max(0.0) / drift;
        let s = z * variance.max(0.0).sqrt() / drift;
        let root = (s + (s * s + 4.0 * mean).sqrt()) / 2.0;
        Self { mean, p95: root * root }
    }

    fn min(self, other: Self) -> Self {
        Self { mean: self.mean.min(other.mean), p95: self.p95.min(other.p95) }
    }

    fn max(self, other: Self) -> Self {
        Self { mean: self.mean.max(other.mean), p95: self.p95.max(other.p95) }
    }
}

/// When the fault begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Onset {
    /// With the canary's first request.
    Start,
    /// With the step: only a larger share of the traffic shows it.
    Step,
}

/// What is known before the start.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Traffic {
    /// Requests per second to both revisions.
    pub per_second: f64,
    /// Stable's rate of failures.
    pub stable: f64,
    /// Upper bound of it; none without a baseline.
    pub bound: Option<f64>,
    /// Burst factor of its failures.
    pub phi: f64,
    /// Factor on the tolerated ratio.
    pub widen: f64,
    /// Seconds between two evaluations.
    pub window_seconds: f64,
    /// From a decision to the last request that meets the canary, in seconds.
    pub act_seconds: f64,
}

impl Traffic {
    /// What was seen of stable in so many seconds, as the first window of a canary would begin with.
    pub fn seen(outlook: &Outlook, seconds: f64, window_seconds: f64, act_seconds: f64) -> Self {
        Self {
            per_second: outlook.stable.n / seconds,
            stable: outlook.stable.rate(),
            bound: outlook.frozen.bound,
            phi: outlook.phi,
            widen: outlook.frozen.widen,
            window_seconds,
            act_seconds,
        }
    }
}

/// Drift and variance of one bet per canary request, with `k` stable requests to each.
fn comparison(p_c: f64, p_s: f64, k: f64, tolerance: Tolerance, q: f64, burst: Burst) -> (f64, f64) {
    let (m, w) = multipliers(1.0, k, tolerance.relative, q);
    let (ln_m, ln_w) = (burst.t(m).ln(), burst.t(w).ln());
    let drift = x_times(p_c, ln_m) + k * x_times(p_s, ln_w) - tolerance.absolute * (m - 1.0) / burst.b();
    (drift, burst.phi() * (x_times(p_c, ln_m * ln_m) + k * x_times(p_s, ln_w * ln_w)))
}

fn one_sample(p_c: f64, ceiling: f64, q: f64, burst: Burst) -> (f64, f64) {
    let ln = burst.t(q).ln();
    (p_c * ln - ceiling * (q - 1.0) / burst.b(), burst.phi() * p_c * ln * ln)
}

/// `p x` with `0 inf = 0`.
fn x_times(p: f64, x: f64) -> f64 {
    if p == 0.0 { 0.0 } else { p * x }
}

/// Canary requests until a fault of rate `bad` stops the canary at weight `share`, a fraction below 1.
pub fn until_stopped(guard: &Guard, traffic: &Traffic, share: f64, bad: f64, onset: Onset) -> Need {
    let burst = Burst::new(traffic.phi);
    let k = (1.0 - share) / share;
    let climb =
        |odds: f64, row: &Row, weight: f64| (odds / (staked(row, onset) * weight)).ln() - 2.0_f64.ln();
    let mut least = Need::NEVER;
    for row in &guard.rows {
        let tolerance = Tolerance {
            relative: (1.0 + row.tolerance.relative) * traffic.widen - 1.0,
            absolute: row.tolerance.absolute,
        };
        let bets = || ALTERNATIVES.into_iter().zip(WEIGHTS);
        let mut key = Need::NEVER;
        for (q, weight) in bets() {
            let (drift, variance) = comparison(bad, traffic.stable, k, tolerance, q, burst);
            let capital = guard.shares.comparison * row.capital;
            least = least.min(Need::of(climb(1.0 / capital, row, weight), drift, variance, Z95));
            key = key.min(Need::of(climb(KEY_ODDS, row, weight), drift, variance, Z95));
        }
        let Some(bound) = traffic.bound.filter(|_| guard.shares.ceiling > 0.0) else { continue };
        let ceiling = (1.0 + tolerance.relative) * bound + tolerance.absolute;
        for (q, weight) in bets() {
            let (drift, variance) = one_sample(bad, ceiling, q, burst);
            let capital = guard.shares.ceiling * row.capital;
            let need = Need::of(climb(1.0 / capital, row, weight), drift, variance, Z95);
            least = least.min(need.max(key));
        }
    }
    least
}

/// Requests at weight 100 until a fault of rate `bad` is reverted, against twice the bound of stable's record.
pub fn until_reverted(guard: &Guard, traffic: &Traffic, bad: f64) -> Need {
    let burst = Burst::new(traffic.phi);
    let Some(bound) = traffic.bound else { return Need::NEVER };
    let mut least = Need::NEVER;
    for row in &guard.rows {
        let ceiling = (2.0 * bound + row.tolerance.absolute).min(1.0);
        for (q, weight) in ALTERNATIVES.into_iter().zip(WEIGHTS) {
            let (drift, variance) = one_sample(bad, ceiling, q, burst);
            // Three quarters of the capital bet at once.
            let climb = -(guard.shares.watch * row.capital * 0.75 * weight).ln() - 2.0_f64.ln();
            least = least.min(Need::of(climb, drift, variance, Z95));
        }
    }
    least
}

/// Canary requests until the gate from `share` to `next` opens for a canary that is as good as stable: on average, and
/// with 80 %.
pub fn until_open(guard: &Guard, traffic: &Traffic, share: f64, next: f64) -> Need {
    let burst = Burst::new(traffic.phi);
    let k = (1.0 - share) / share;
    let mut most = Need { mean: 0.0, p95: 0.0 };
    for row in &guard.rows {
        let margin = row.margin_at(next);
        let one_r = 1.0 + margin.relative;
        let mut least = Need::NEVER;
        for rho in [0.0, 0.25, 1.0, one_r.sqrt()] {
            // A canary that fails at all refutes the alternative in which it never does.
            if rho == 0.0 && traffic.stable > 0.0 {
                continue;
            }
            let (drift, variance) = comparison(traffic.stable, traffic.stable, k, margin, rho / one_r, burst);
            least = least.min(Need::of((4.0 / row.beta).ln(), drift, variance, Z80));
        }
        let minimum = row.min_requests * next;
        most = most.max(least).max(Need { mean: minimum, p95: minimum });
    }
    most
}

/// Share of the capital that meets a fault.
fn staked(row: &Row, onset: Onset) -> f64 {
    match onset {
        Onset::Start if row.steps <= 1 => 0.75,
        Onset::Start => 0.5,
        Onset::Step if row.steps <= 1 => 0.75,
        Onset::Step => 0.25 / f64::from(row.steps - 1),
    }
}

/// Harm of a fault at one weight, until no request meets the canary any more.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Harm {
    /// Seconds on average, and with 95 %.
    pub seconds: Need,
    /// Failed requests beyond stable's rate, on average, and with 95 %.
    pub excess: Need,
}

/// Harm in a step when `need` canary requests decide.
pub fn harm(traffic: &Traffic, step: &Step, bad: f64, need: Need, onset: Onset) -> Harm {
    let share = step.weight;
    let per_window = traffic.per_second * share * traffic.window_seconds;
    // A factor is capped, so what is left of the capital after healthy hours takes two windows.
    let least = if onset == Onset::Start { 1.0 } else { 2.0 };
    let seconds =
        |n: f64, wait: f64| (n / per_window + wait).max(least) * traffic.window_seconds + traffic.act_seconds;
    let seconds = Need { mean: seconds(need.mean, 0.5), p95: seconds(need.p95, 1.0) };
    let rate = traffic.per_second * step.exposure * (bad - traffic.stable).max(0.0);
    let large = if share >= LARGE_SHARE { LARGE_SHARE_FACTOR } else { 1.0 };
    Harm { seconds, excess: Need { mean: rate * seconds.mean, p95: rate * seconds.p95 * large } }
}

/// One step of a schedule.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// Weight as a fraction.
    pub weight: f64,
    /// The larger of weight and the share of pods, for callers that come past the route.
    pub exposure: f64,
    /// Length in seconds.
    pub bake_seconds: f64,
}

/// What a plan says about one step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Forecast {
    /// Canary requests in the bake.
    pub requests: f64,
    /// The smallest rate of failures that is stopped within the bake with 95 %; none if not even all failing is.
    pub smallest: Option<f64>,
    /// Canary requests until the gate opens, on average and with 80 %; at weight 100 there is no gate.
    pub gate: Option<Need>,
    /// Harm of the supposed fault, if it begins with this step.
    pub harm: Harm,
}

impl Forecast {
    /// How many times its length the bake takes until the gate opens.
    pub fn stretch(&self) -> f64 {
        self.gate.map_or(1.0, |gate| (gate.mean / self.requests).max(1.0))
    }

    /// Whether the traffic is too low to show in time that a good canary is good.
    pub fn too_low(&self) -> bool {
        self.stretch() > STRETCH
    }
}

/// What a schedule would do.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Its steps.
    pub steps: Vec<Forecast>,
    /// Excess failures of the supposed fault from the first request on, on average and with 95 %.
    pub harm: Need,
    /// No fault of this size does more harm: each bake stretched to its end.
    pub never_more: f64,
}

/// Forecasts a schedule for one guard and a supposed fault of rate `bad`.
pub fn plan(guard: &Guard, traffic: &Traffic, steps: &[Step], bad: f64) -> Plan {
    let need = |step: &Step, bad: f64, onset| match step.weight < 1.0 {
        true => until_stopped(guard, traffic, step.weight, bad, onset),
        false => until_reverted(guard, traffic, bad),
    };
    let forecast = |(index, step): (usize, &Step)| {
        let next = steps.get(index + 1).map_or(1.0, |next| next.weight);
        let requests = traffic.per_second * step.weight * step.bake_seconds;
        let onset = if index == 0 { Onset::Start } else { Onset::Step };
        Forecast {
            requests,
            smallest: smallest(|bad| need(step, bad, onset).p95 <= requests),
            gate: (step.weight < 1.0).then(|| until_open(guard, traffic, step.weight, next)),
            harm: harm(traffic, step, bad, need(step, bad, onset), onset),
        }
    };
    let forecasts: Vec<Forecast> = steps.iter().enumerate().map(forecast).collect();
    let rate = |step: &Step| traffic.per_second * step.exposure * (bad - traffic.stable).max(0.0);
    // A weight is met while it becomes live, too.
    let exposed = |step: &Step, bakes: f64| rate(step) * (step.bake_seconds * bakes + traffic.act_seconds);
    let never_more = steps.iter().map(|step| exposed(step, STRETCH)).sum();
    // A gate lets a fault beyond its margin pass with the probability that the class states; such a one stays in its step
    // until it is stopped or given up.
    let barred = |next: f64| {
        let beyond = |margin: Tolerance| bad > (1.0 + margin.relative) * traffic.stable + margin.absolute;
        guard.rows.iter().any(|row| beyond(row.margin_at(next)))
    };
    let total = |quantile: &dyn Fn(&Need) -> f64| {
        let (mut passed, mut worst) = (0.0, 0.0_f64);
        for (index, (step, forecast)) in steps.iter().zip(&forecasts).enumerate() {
            // Wealth is carried along, so a fault from the start is met by the first step's capital throughout.
            let harm = harm(traffic, step, bad, need(step, bad, Onset::Start), Onset::Start);
            worst = worst.max(passed + quantile(&harm.excess).min(exposed(step, STRETCH)));
            let found = quantile(&harm.seconds) - traffic.act_seconds <= step.bake_seconds;
            if found || steps.get(index + 1).is_some_and(|next| barred(next.weight)) {
                break;
            }
            let bakes = forecast.gate.map_or(1.0, |gate| quantile(&gate) / forecast.requests);
            passed += exposed(step, bakes.clamp(1.0, STRETCH));
        }
        worst
    };
    let harm = Need { mean: total(&|need| need.mean), p95: total(&|need| need.p95) };
    Plan { steps: forecasts, harm, never_more }
}

/// The smallest rate for which `stops`, by bisection; it stops every larger one too.
fn smallest(stops: impl Fn(f64) -> bool) -> Option<f64> {
    if !stops(1.0) {
        return None;
    }
    let (mut passes, mut stopped) = (0.0, 1.0);
    // To a ten-millionth of the requests.
    for _ in 0..24 {
        let middle = (passes + stopped) / 2.0;
        if stops(middle) { stopped = middle } else { passes = middle }
    }
    Some(stopped)
}
