//! How Argo Rollouts and Flagger judge a success rate, after their sources.
//!
//! Both ask Prometheus for the canary's success rate of the last minute, once a minute, and compare it with a fixed
//! threshold. Argo: `analysis/analysis.go`, `utils/evaluate/evaluate.go`. Flagger: `pkg/controller/scheduler.go`,
//! `scheduler_metrics.go`, `pkg/metrics/providers/prometheus.go`.

use sluice_core::statistics::Counts;

use super::traffic::WINDOW;

/// Interval of both, and span of the rate that they ask for, in seconds.
const MINUTE: f64 = 60.0;
/// Argo asks again after this time when Prometheus gave no answer.
const ARGO_RETRY: f64 = 10.0;
/// Errors in a row that Argo tolerates.
const ARGO_ERROR_LIMIT: u32 = 4;

/// The canary's counts of the last minute.
#[derive(Clone, Debug, Default)]
pub struct Minute {
    windows: Vec<Counts>,
}

impl Minute {
    /// Takes in a window.
    pub fn add(&mut self, canary: Counts) {
        if self.windows.len() as f64 >= MINUTE / WINDOW {
            self.windows.remove(0);
        }
        self.windows.push(canary);
    }

    /// `sum(rate(good)) / sum(rate(all))`: NaN without requests.
    pub fn success_rate(&self) -> f64 {
        let sum = self.windows.iter().fold(Counts::default(), |sum, window| sum.plus(*window));
        if sum.n > 0.0 { 1.0 - sum.x / sum.n } else { f64::NAN }
    }
}

/// A metric of Argo with `successCondition: result[0] >= threshold`, `interval: 60s`, and no count.
#[derive(Clone, Copy, Debug)]
pub struct Argo {
    /// The threshold.
    pub threshold: f64,
    /// Failed measurements that are tolerated; 0 by default.
    pub failure_limit: u32,
    failed: u32,
    errors: u32,
    due: f64,
}

impl Argo {
    /// The first measurement is after a minute: `initialDelay: 60s`, or the rate would have no data.
    pub fn new(threshold: f64, failure_limit: u32) -> Self {
        Self { threshold, failure_limit, failed: 0, errors: 0, due: MINUTE }
    }

    /// Passes the time up to `now`. `answer` is Prometheus' answer, none while it is down. Whether the rollout aborts.
    pub fn pass(&mut self, now: f64, answer: Option<f64>) -> bool {
        while self.due <= now {
            match answer {
                // An error doesn't count as a measurement, and comes again soon.
                None => {
                    self.errors += 1;
                    self.due += ARGO_RETRY;
                    if self.errors > ARGO_ERROR_LIMIT {
                        return true;
                    }
                }
                Some(rate) => {
                    self.errors = 0;
                    self.due += MINUTE;
                    // NaN compares false: not successful, and the failure condition is its negation.
                    let successful = rate >= self.threshold;
                    self.failed += u32::from(!successful);
                    if self.failed > self.failure_limit {
                        return true;
                    }
                }
            }
        }
        false
    }
}

/// Flagger's built-in check of the success rate.
#[derive(Clone, Copy, Debug)]
pub struct Flagger {
    /// The least success rate.
    pub success: f64,
    /// Failed checks from which on it rolls back.
    pub threshold: u32,
    /// Cumulative: a good check lowers nothing.
    failed: u32,
    due: f64,
}

impl Flagger {
    /// The first tick only sets the weight.
    pub fn new(success: f64, threshold: u32) -> Self {
        Self { success, threshold, failed: 0, due: MINUTE }
    }

    /// Passes the time up to `now`. Whether the rollout is rolled back.
    pub fn pass(&mut self, now: f64, answer: Option<f64>) -> bool {
        while self.due <= now {
            self.due += MINUTE;
            // One tick after the last failed check.
            if self.failed >= self.threshold {
                return true;
            }
            // No answer and NaN are failed checks; fails if the threshold is above the value.
            let failed = answer.is_none_or(|rate| rate.is_nan() || self.success > rate);
            self.failed += u32::from(failed);
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// When a judge gives up, of one answer a window.
    fn ends(
        mut pass: impl FnMut(f64, Option<f64>) -> bool,
        answer: impl Fn(f64) -> Option<f64>,
    ) -> Option<f64> {
        (1..=400).map(|window| f64::from(window) * WINDOW).find(|now| pass(*now, answer(*now)))
    }

    fn argo(limit: u32, answer: impl Fn(f64) -> Option<f64>) -> Option<f64> {
        let mut judge = Argo::new(0.95, limit);
        ends(|now, answer| judge.pass(now, answer), answer)
    }

    fn flagger(threshold: u32, answer: impl Fn(f64) -> Option<f64>) -> Option<f64> {
        let mut judge = Flagger::new(0.99, threshold);
        ends(|now, answer| judge.pass(now, answer), answer)
    }

    #[test]
    fn argo_aborts_at_one_bad_sample_by_default() {
        assert_eq!(argo(0, |_| Some(0.95)), None);
        assert_eq!(argo(0, |now| Some(if now == 300.0 { 0.949 } else { 1.0 })), Some(300.0));
        assert_eq!(argo(3, |now| Some(if now == 300.0 { 0.949 } else { 1.0 })), None);
        assert_eq!(argo(3, |_| Some(0.5)), Some(240.0));
        // Failures are cumulative: good samples between them forgive nothing.
        assert_eq!(argo(3, |now| Some(if now % 120.0 == 0.0 { 0.5 } else { 1.0 })), Some(480.0));
    }

    #[test]
    fn argo_takes_nan_for_failed_and_infinity_for_success() {
        assert_eq!(argo(0, |_| Some(f64::NAN)), Some(60.0));
        assert_eq!(argo(0, |_| Some(f64::INFINITY)), None);
    }

    #[test]
    fn argo_aborts_40_s_into_an_outage_of_prometheus() {
        // Errors at 300, 310, 320, 330 and 340 s; windows end at 345 s.
        assert_eq!(argo(0, |now| (now < 300.0).then_some(1.0)), Some(345.0));
        assert_eq!(argo(3, |now| (now < 300.0).then_some(1.0)), Some(345.0));
        // Back before the fifth: the count of errors begins anew.
        assert_eq!(argo(0, |now| (!(300.0..335.0).contains(&now)).then_some(1.0)), None);
    }

    #[test]
    fn flagger_rolls_back_one_tick_after_the_last_failed_check() {
        assert_eq!(flagger(1, |_| Some(0.99)), None);
        assert_eq!(flagger(1, |now| Some(if now == 300.0 { 0.98 } else { 1.0 })), Some(360.0));
        assert_eq!(flagger(5, |_| Some(0.5)), Some(360.0));
        assert_eq!(flagger(10, |_| Some(0.5)), Some(660.0));
        assert_eq!(flagger(5, |now| Some(if now % 120.0 == 0.0 { 0.5 } else { 1.0 })), Some(660.0));
    }

    #[test]
    fn flagger_fails_a_check_without_data() {
        assert_eq!(flagger(1, |_| Some(f64::NAN)), Some(120.0));
        assert_eq!(flagger(5, |now| (!(300.0..600.0).contains(&now)).then_some(1.0)), Some(600.0));
        assert_eq!(flagger(10, |now| (!(300.0..600.0).contains(&now)).then_some(1.0)), None);
    }

    #[test]
    fn a_minute_is_four_windows() {
        let mut minute = Minute::default();
        assert!(minute.success_rate().is_nan());
        minute.add(Counts::new(10.0, 10.0));
        (0..4).for_each(|_| minute.add(Counts::new(10.0, 1.0)));
        assert!((minute.success_rate() - 0.9).abs() < 1e-12);
        (0..4).for_each(|_| minute.add(Counts::default()));
        assert!(minute.success_rate().is_nan());
    }
}
