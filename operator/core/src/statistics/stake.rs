//! When capital begins to bet. Wealth that sat through hours of health is gone, so part of the capital waits for later
//! steps, and part for later hours.
//!
//! The schedule is the class table's, not the rollout's: a row of a looser class bets the same in every class, which is
//! what makes a tighter class never stop later.

use super::rows::Row;

/// Share of a row's capital for the first window; all but the time's share when the row has a single step.
const FIRST: f64 = 0.50;
/// Share for the starts of the further steps, in equal parts.
const STEPS: f64 = 0.25;
/// Share for the time, half of it within two thirds of the planned time.
const TIME: f64 = 0.25;

/// Share of the row's capital that has been placed once `started` steps (at least 1) have begun and `seconds` of
/// exposed windows were evaluated. Rises to 1.
pub fn placed(row: &Row, started: u32, seconds: f64) -> f64 {
    let further = row.steps.saturating_sub(1);
    let stepped = if further == 0 {
        1.0
    } else {
        f64::from(started.saturating_sub(1).min(further)) / f64::from(further)
    };
    FIRST + STEPS * stepped + in_time(seconds, row.planned_seconds)
}

/// Share that has been placed at weight 100, where the watch has a single step.
pub fn placed_by_watch(row: &Row, seconds: f64) -> f64 {
    FIRST + STEPS + in_time(seconds, row.last_bake_seconds)
}

/// Share for the time: each further planned time places three quarters of what is left, evenly.
pub fn in_time(seconds: f64, planned: f64) -> f64 {
    let plans = seconds.max(0.0) / planned.max(1.0);
    if !plans.is_finite() {
        return 0.0;
    }
    // Beyond 30 plans 4^-k is below a double's resolution of the rest.
    let whole = plans.floor().min(30.0);
    let part = (plans - whole).min(1.0);
    TIME * (1.0 - 0.25_f64.powi(whole as i32) * (1.0 - 0.75 * part))
}
