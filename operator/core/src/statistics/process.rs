//! Wealth: capital, placed by a schedule and multiplied window by window. Wealth and capital are fractions of 1; a
//! sum of 1 stops the canary, and the capital ever placed bounds the probability of that while it is good.

use super::bet::LN_CAP_ABORT;
use serde::{Deserialize, Serialize};

/// How many times the tolerated rate the canary fails, in each alternative.
pub const ALTERNATIVES: [f64; 6] = [1.5, 2.5, 5.0, 10.0, 30.0, 100.0];
/// The capital's share of each.
pub const WEIGHTS: [f64; 6] = [0.10, 0.15, 0.25, 0.25, 0.15, 0.10];
/// Wealth beyond this adds nothing.
pub const MAX_WEALTH: f64 = 1e100;

/// One process of bets, with one wealth per alternative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Process(pub [f64; 6]);

impl Process {
    /// Places `due`, then multiplies each wealth by the capped factor whose log `ln` gives for each alternative.
    pub fn play(&mut self, due: f64, max: f64, ln: impl Fn(f64) -> f64) {
        let due = if due.is_finite() { due.max(0.0) } else { 0.0 };
        let max = max.min(MAX_WEALTH);
        for ((wealth, q), weight) in self.0.iter_mut().zip(ALTERNATIVES).zip(WEIGHTS) {
            let before = if wealth.is_nan() { 0.0 } else { wealth.clamp(0.0, max) } + due * weight;
            *wealth = if before > 0.0 { (before * ln(q).min(LN_CAP_ABORT).exp()).min(max) } else { 0.0 };
        }
    }

    /// Whether nothing was placed, or all of it is lost.
    pub fn is_empty(&self) -> bool {
        self.0 == [0.0; 6]
    }

    /// Sum over the alternatives.
    pub fn sum(&self) -> f64 {
        self.0.iter().sum()
    }
}
