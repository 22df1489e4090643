//! The gate: evidence for the canary, needed before its weight may rise.
//!
//! The bet is mirrored, and begins anew at each step: what has to be ruled out is that at the next weight `w` the canary
//! adds more than the margin to the failures of the whole, `w (p_c - p_s) >= r p_s + a`. Per step, a canary at or beyond
//! the margin opens the gate with a probability of at most `beta`. No data multiplies by 1, so it never opens one.

use super::bet::{Burst, Counts, LN_CAP_GATE, ln_factor};
use super::rows::Row;
use serde::{Deserialize, Serialize};

/// An alternative that was refuted: finite, as JSON needs it, and not won back in a hundred days of windows.
const LN_LOST: f64 = -1e6;

/// Log wealth of one row's gate since the step began, one per alternative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Gate(pub [f64; 4]);

impl Gate {
    /// Takes in one window, on the way to `next`, a fraction of the traffic.
    pub fn play(&mut self, canary: Counts, stable: Counts, row: &Row, next: f64, burst: Burst) {
        let margin = row.margin_at(next);
        let one_r = 1.0 + margin.relative;
        // The canary's rate as a multiple of stable's: none, a quarter, the same, and half way to the margin.
        let alternatives = [0.0, 0.25, 1.0, one_r.sqrt()];
        for (ln, rho) in self.0.iter_mut().zip(alternatives) {
            let factor = ln_factor(canary, stable, margin, rho / one_r, burst);
            *ln = (*ln + factor.min(LN_CAP_GATE)).max(LN_LOST);
        }
    }

    /// Log of the mean wealth.
    pub fn ln_mean(&self) -> f64 {
        let most = self.0.iter().copied().fold(LN_LOST, f64::max);
        most + (self.0.iter().map(|ln| (ln - most).exp()).sum::<f64>() / self.0.len() as f64).ln()
    }

    /// Whether the evidence is enough, with `n` canary requests since the step began.
    pub fn is_open(&self, row: &Row, next: f64, n: f64) -> bool {
        self.ln_mean() >= -row.beta.ln() && n >= row.min_requests * next
    }
}
