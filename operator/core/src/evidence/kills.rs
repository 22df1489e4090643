//! Containers that are killed for want of memory. A few are plain enough: no comparison of rates is needed.

use super::state::millis;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// How long a kill is remembered, in milliseconds.
const MEMORY_MILLIS: i64 = 600_000;
/// So many of the canary's in that time, and none of stable's, are its own fault.
const ENOUGH: f64 = 2.0;

/// Containers that were killed in one window.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Kills {
    /// End of the window.
    pub at: Timestamp,
    /// The canary's.
    pub canary: f64,
    /// Stable's.
    pub stable: f64,
}

/// Takes in a window's.
pub(super) fn remember(kills: &mut Vec<Kills>, at: Timestamp, (canary, stable): (f64, f64)) {
    kills.retain(|kill| (0..MEMORY_MILLIS).contains(&millis(kill.at, at)));
    if canary > 0.0 || stable > 0.0 {
        kills.push(Kills { at, canary, stable });
    }
}

/// What the kills of the last ten minutes say against the canary, in words.
pub(super) fn against(kills: &[Kills]) -> Option<String> {
    let sum = |of: fn(&Kills) -> f64| kills.iter().map(of).sum::<f64>();
    let canary = sum(|kill| kill.canary);
    (canary >= ENOUGH && sum(|kill| kill.stable) <= 0.0).then(|| {
        format!("{canary:.0} containers of the canary were killed for want of memory within 10 minutes, and none of stable's")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_767_225_600 + seconds).unwrap()
    }

    #[test]
    fn two_in_ten_minutes_are_enough_unless_stable_has_them_too() {
        let mut kills = Vec::new();
        let mut then = |seconds, killed| {
            remember(&mut kills, after(seconds), killed);
            against(&kills).is_some()
        };
        assert!(!then(0, (1.0, 0.0)));
        assert!(!then(300, (0.0, 0.0)));
        assert!(then(599, (1.0, 0.0)));
        assert!(!then(600, (0.0, 0.0)), "the first is ten minutes ago");
        assert!(then(700, (2.0, 0.0)));
        assert!(!then(710, (0.0, 1.0)));
        assert!(then(1400, (2.0, 0.0)), "stable's is long ago");
        assert!(!then(500, (0.0, 0.0)), "those of a clock that was ahead are forgotten");
    }
}
