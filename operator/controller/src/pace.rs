//! How often something may happen, whoever wants it: so many times a second, and a few at once.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// A bucket of turns that fills at an even pace.
pub struct Pace {
    per_second: f64,
    most: f64,
    /// Turns that are left, and when that was reckoned.
    left: Mutex<(f64, Instant)>,
}

impl Pace {
    /// So many times a second, and `most` at once after a pause.
    pub fn new(per_second: f64, most: f64) -> Self {
        Self { per_second, most, left: Mutex::new((most, Instant::now())) }
    }

    /// Whether there is a turn now.
    pub fn is_ready(&self) -> bool {
        self.at(Instant::now(), 0.0, 1.0)
    }

    /// Whether half of the turns that may be taken at once are left: nobody wants them in a hurry.
    pub fn is_calm(&self) -> bool {
        self.at(Instant::now(), 0.0, self.most / 2.0)
    }

    /// Takes a turn, also one that is not there yet: then the next comes later.
    pub fn take(&self) {
        self.at(Instant::now(), 1.0, 1.0);
    }

    /// Takes so many turns; whether there were at least `wanted`.
    fn at(&self, now: Instant, taken: f64, wanted: f64) -> bool {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let (turns, at) = *left;
        let turns = (turns + now.duration_since(at).as_secs_f64() * self.per_second).min(self.most);
        *left = ((turns - taken).max(-self.most), now);
        turns >= wanted
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_few_at_once_and_then_at_an_even_pace() {
        let pace = Pace::new(10.0, 3.0);
        let begin = Instant::now();
        let taken = |millis: u64| {
            let now = begin + Duration::from_millis(millis);
            (0..100).filter(|_| pace.at(now, 0.0, 1.0) && pace.at(now, 1.0, 1.0)).count()
        };
        assert_eq!([0, 50, 110, 150, 230].map(taken), [3, 0, 1, 0, 1]);
        assert_eq!(taken(60_000), 3, "what nobody took is not saved up");
        (0..1000).for_each(|_| {
            pace.at(begin + Duration::from_millis(60_000), 1.0, 1.0);
        });
        assert_eq!(taken(60_410), 1, "and what was taken beyond is forgotten soon");
        let calm = |millis: u64| pace.at(begin + Duration::from_millis(millis), 0.0, pace.most / 2.0);
        assert_eq!([60_450, 60_570].map(calm), [false, true], "calm is when half of them are left");
    }
}
