//! Judges that know what nobody knows: the rates before and after the fault, and one of them its time.
//!
//! Wald's sequential probability ratio test begins at the fault; Page's CUSUM has to find it. They bound what can be
//! reached with counts of the canary alone.

use sluice_core::statistics::Counts;

use super::draw::Draw;
use super::traffic::WINDOW;

/// Probability of a false abort: of ever, for the SPRT; of one within `SPAN`, for the CUSUM.
pub const ALPHA: f64 = 0.01;
/// 4 hours.
const SPAN: f64 = 14_400.0;
/// Runs by which the CUSUM's threshold is found.
const CALIBRATION: usize = 4_000;

/// Log of the likelihood ratio of a window, bad rate against good. A good rate of 0 is taken as one in a million.
fn ln_ratio(counts: Counts, good: f64, bad: f64) -> f64 {
    let good = good.max(1e-6);
    counts.x * (bad / good).ln() + (counts.n - counts.x) * ((1.0 - bad) / (1.0 - good)).ln()
}

/// Sequential probability ratio test that only ever rejects.
#[derive(Clone, Copy, Debug)]
pub struct Sprt {
    sum: f64,
}

impl Sprt {
    /// Begins at the fault.
    pub fn new() -> Self {
        Self { sum: 0.0 }
    }

    /// Takes in a window after the fault.
    pub fn window(&mut self, canary: Counts, good: f64, bad: f64) -> bool {
        self.sum += ln_ratio(canary, good, bad);
        self.sum >= -ALPHA.ln()
    }
}

impl Default for Sprt {
    fn default() -> Self {
        Self::new()
    }
}

/// CUSUM with a threshold of its own for each scenario.
#[derive(Clone, Copy, Debug)]
pub struct Cusum {
    good: f64,
    bad: f64,
    threshold: f64,
    sum: f64,
}

impl Cusum {
    /// Finds the threshold that a good canary of `rps` requests per second reaches in 1 % of 4 h runs.
    pub fn calibrated(rps: f64, good: f64, bad: f64, draw: &mut Draw) -> Self {
        let rate = good.max(1e-6);
        let mut highest: Vec<f64> = (0..CALIBRATION)
            .map(|_| {
                let mut cusum = Self { good, bad, threshold: f64::INFINITY, sum: 0.0 };
                let mut highest = 0.0_f64;
                for _ in 0..(SPAN / WINDOW) as usize {
                    let n = draw.poisson(rps * WINDOW);
                    cusum.window(Counts::new(n, draw.binomial(n, rate)));
                    highest = highest.max(cusum.sum);
                }
                highest
            })
            .collect();
        highest.sort_unstable_by(f64::total_cmp);
        let allowed = (CALIBRATION as f64 * ALPHA) as usize;
        // Above all but the highest 1 %; sums of few failures are lumpy, so equal ones must not pass.
        let threshold = highest[CALIBRATION - 1 - allowed].max(f64::MIN_POSITIVE) * (1.0 + 1e-9);
        Self { good, bad, threshold, sum: 0.0 }
    }

    /// Takes in a window.
    pub fn window(&mut self, canary: Counts) -> bool {
        self.sum = (self.sum + ln_ratio(canary, self.good, self.bad)).max(0.0);
        self.sum >= self.threshold
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ratio_is_that_of_the_textbook() {
        let got = ln_ratio(Counts::new(10.0, 2.0), 0.1, 0.5);
        let want = 2.0 * 5.0_f64.ln() + 8.0 * (0.5_f64 / 0.9).ln();
        assert!((got - want).abs() < 1e-12);
        // One failure where there were none proves the fault.
        assert!(Sprt::new().window(Counts::new(37.0, 1.0), 0.0, 0.005));
    }

    #[test]
    fn sprt_rejects_a_good_canary_in_at_most_1_percent() {
        let mut draw = Draw::new(3, "sprt", 0);
        let rejected = (0..1_000).filter(|_| {
            let mut sprt = Sprt::new();
            (0..100).any(|_| {
                let n = draw.poisson(37.5);
                sprt.window(Counts::new(n, draw.binomial(n, 0.01)), 0.01, 0.1)
            })
        });
        assert!(rejected.count() <= 20);
    }

    #[test]
    fn cusum_keeps_its_false_alarms_and_finds_the_fault() {
        let mut draw = Draw::new(3, "cusum", 0);
        // Few requests: the calibration is quick, and one failure is not enough.
        let cusum = Cusum::calibrated(0.5, 0.001, 0.1, &mut draw);
        let one = ln_ratio(Counts::new(1.0, 1.0), 0.001, 0.1);
        assert!(cusum.threshold > one, "{} of {one}", cusum.threshold);
        let alarmed = (0..500).filter(|_| {
            let mut cusum = cusum;
            (0..960).any(|_| {
                let n = draw.poisson(7.5);
                cusum.window(Counts::new(n, draw.binomial(n, 0.001)))
            })
        });
        assert!(alarmed.count() <= 15);
        let mut bad = cusum;
        assert!((0..40).any(|_| bad.window(Counts::new(7.0, 1.0))));
    }
}
