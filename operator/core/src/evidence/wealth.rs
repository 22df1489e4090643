//! How capital is placed and multiplied. Wealth and capital are fractions of 1: a sum of 1 aborts, and the
//! capital ever placed is the bound on the probability of a false abort.

use super::bet::LN_CAP;
use super::state::Wealth;

/// False-abort budget of a run, split among the guards that can abort.
pub const ALPHA: f64 = 0.01;

/// A second budget for the watch at weight 100 and after promotion, as a fraction of the first.
pub const WATCH_EXTRA: f64 = 0.4;

/// Alternatives of the comparison: the canary fails this many times as often as tolerated.
pub const COMPARISON_Q: [f64; 2] = [5.0, 30.0];

/// Alternatives against a fixed ceiling: nearer ones, because a ceiling already has its slack.
pub const CEILING_Q: [f64; 2] = [1.5, 5.0];

/// Wealth beyond this adds nothing.
const MAX_WEALTH: f64 = 1e100;

/// Share of a run's capital that is placed at step `index` (from 0) of `steps`, after `millis` of evaluated
/// windows in the run: half at the first bet, 40 % in equal parts at each further step, and 10 % in time, half
/// of that within 30 minutes. Capital that sat through hours of health is lost; what comes later meets
/// a fault that comes later, or that only a larger share shows.
pub fn placed(index: i32, steps: i32, millis: i64) -> f64 {
    let further = steps.saturating_sub(1);
    let stepped = if further < 1 { 1.0 } else { f64::from(index.clamp(0, further)) / f64::from(further) };
    0.5 + 0.4 * stepped + 0.1 * in_time(millis, 30.0)
}

/// Rises from 0 to 1, and is 1/2 after `half` minutes.
fn in_time(millis: i64, half: f64) -> f64 {
    let minutes = millis.max(0) as f64 / 60_000.0;
    minutes / (minutes + half)
}

/// Share of the watch's capital that is placed after it was evaluated for `millis`: half at once, three
/// quarters after 10 minutes.
pub fn placed_by_watch(millis: i64) -> f64 {
    0.5 + 0.5 * in_time(millis, 10.0)
}

impl Wealth {
    /// Places capital up to `target`, then multiplies by the capped factor of one window. `ln` gives the log
    /// of the factor for each alternative.
    pub(super) fn play(&mut self, target: f64, alternatives: &[f64], max: f64, ln: impl Fn(f64) -> f64) {
        let max = max.min(MAX_WEALTH);
        let due = if target.is_finite() { (target - self.staked).max(0.0) } else { 0.0 };
        self.staked += due;
        self.wealth.resize(alternatives.len(), 0.0);
        let part = due / alternatives.len().max(1) as f64;
        for (w, q) in self.wealth.iter_mut().zip(alternatives) {
            let before = if w.is_nan() { 0.0 } else { w.clamp(0.0, max) };
            // Both are finite and at least 0; the factor is at most 1000.
            *w = ((before + part) * ln(*q).min(LN_CAP).exp()).min(max);
        }
    }

    /// Sum over the alternatives.
    pub fn sum(&self) -> f64 {
        self.wealth.iter().filter(|w| w.is_finite()).map(|w| w.clamp(0.0, MAX_WEALTH)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capital_is_placed_once_and_in_full() {
        let by_step: Vec<f64> = (0..5).map(|i| placed(i, 5, 0)).collect();
        assert_eq!(by_step, [0.5, 0.6, 0.7, 0.8, 0.9]);
        assert_eq!((placed(0, 1, 0), placed(0, 0, 0)), (0.9, 0.9));
        assert_eq!((placed(99, 5, 0), placed(-3, 5, -9)), (0.9, 0.5));
        assert_eq!(placed(0, 5, 1_800_000), 0.55);
        assert!(placed(4, 5, i64::MAX) <= 1.0);
        assert_eq!(placed_by_watch(i64::MIN), 0.5);
        assert_eq!(placed_by_watch(600_000), 0.75);
        assert!(placed_by_watch(i64::MAX) <= 1.0);
    }

    #[test]
    fn going_back_a_step_places_nothing_again() {
        let mut w = Wealth::default();
        for index in [0, 1, 0, 1, 2, 1, 2] {
            w.play(0.01 * placed(index, 3, 0), &COMPARISON_Q, 1e100, |_| 0.0);
        }
        assert!((w.sum() - 0.009).abs() < 1e-12 && (w.staked - 0.009).abs() < 1e-12);
    }

    #[test]
    fn wealth_stays_a_number() {
        let mut w = Wealth { staked: 0.0, wealth: vec![f64::NAN, f64::INFINITY] };
        w.play(f64::NAN, &COMPARISON_Q, f64::INFINITY, |_| f64::INFINITY);
        w.play(0.01, &COMPARISON_Q, f64::INFINITY, |_| f64::INFINITY);
        w.play(0.01, &COMPARISON_Q, f64::INFINITY, |_| f64::NEG_INFINITY);
        assert_eq!(w.sum(), 0.0);
        for _ in 0..200 {
            w.play(1.0, &COMPARISON_Q, f64::INFINITY, |_| 1e9);
        }
        assert!(w.sum().is_finite());
    }
}
