//! The error budget as an input of risk: what is known of what is left, and the level that follows.
//!
//! Not to know never loosens: an answer that is missing counts as the last one, and as 5 to 25 % at best; where there never was
//! one, as less than 5 %.

use jiff::Timestamp;

use super::Sourced;
use crate::api::ErrorBudgetStatus;
use crate::risk::{ErrorBudget, Level};
use crate::view::shorten;

/// Longest reason in the source of a level, in characters.
const WHY_LIMIT: usize = 200;

/// What is known of what is left of an error budget, by one policy's query.
#[derive(Clone, Debug, PartialEq)]
pub enum Left {
    /// This share of it, just now: 1 is all of it, 0 or less is nothing.
    Now(f64),
    /// It was this much when it was last known, in whole percent.
    Last {
        /// Percent, rounded down.
        percent: i32,
        /// When.
        seen_at: Timestamp,
        /// Why it is not known now, in words.
        why: String,
    },
    /// It was never known.
    Never {
        /// Why not, in words.
        why: String,
    },
}

impl Left {
    /// What counts while there is no answer, for this reason: the last one that is remembered, if there is any.
    pub fn without_answer(known: Option<&ErrorBudgetStatus>, why: &str) -> Self {
        let why = shorten(why, WHY_LIMIT);
        match known {
            Some(known) => Self::Last { percent: known.remaining_percent, seen_at: known.seen_at, why },
            None => Self::Never { why },
        }
    }

    /// The level that it stands for.
    pub fn level(&self) -> ErrorBudget {
        match self {
            Self::Now(ratio) => ErrorBudget::of(*ratio),
            Self::Last { percent, .. } => {
                ErrorBudget::of(f64::from(*percent) / 100.0).max(ErrorBudget::Quarter)
            }
            Self::Never { .. } => ErrorBudget::Spent,
        }
    }

    /// Whether nothing is left, as far as it was ever known. An answer that is missing takes nothing back.
    pub fn is_spent(&self) -> bool {
        match self {
            Self::Now(ratio) => *ratio <= 0.0,
            Self::Last { percent, .. } => *percent <= 0,
            Self::Never { .. } => false,
        }
    }

    /// In words.
    pub fn words(&self) -> String {
        match self {
            Self::Now(ratio) => format!("{} % left", percent(*ratio)),
            Self::Last { percent, seen_at, why } => {
                format!("{percent} % left at {seen_at:.0}, and no answer now: {why}")
            }
            Self::Never { why } => format!("not known: {why}"),
        }
    }
}

/// A share in whole percent, rounded down.
#[allow(clippy::cast_possible_truncation)] // clamped before
pub fn percent(ratio: f64) -> i32 {
    // A share such as 0.29 is a little less than itself.
    (ratio * 100.0 + 1e-9).floor().clamp(f64::from(i32::MIN), f64::from(i32::MAX)) as i32
}

/// The level of what is known by each policy that asks: the least that is left.
pub fn error_budget(known: &[Sourced<Left>]) -> Sourced<ErrorBudget> {
    let levels = known
        .iter()
        .map(|left| Sourced::new(left.value.level(), format!("{}: {}", left.from, left.value.words())));
    levels.reduce(Sourced::max).unwrap_or_else(|| Sourced::new(ErrorBudget::Ample, "no error budget is set"))
}

/// The level of this name in a plan that was shown, as it was when its run began.
pub fn error_budget_named(level: &str, from: &str) -> Option<Sourced<ErrorBudget>> {
    let found = ErrorBudget::POINTS.iter().find(|(known, _)| known.name() == level)?;
    Some(Sourced::new(found.0, from))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn last(percent: i32) -> Left {
        let known = ErrorBudgetStatus {
            policy: "RiskPolicy/shop".to_owned(),
            remaining_percent: percent,
            seen_at: Timestamp::UNIX_EPOCH,
        };
        Left::without_answer(Some(&known), "down")
    }

    #[test]
    fn levels_follow_from_what_is_left() {
        use ErrorBudget::{Ample, Half, Quarter, Spent};
        let levels = [
            (1.0, Ample),
            (0.501, Ample),
            (0.5, Half),
            (0.25, Half),
            (0.249, Quarter),
            (0.05, Quarter),
            (0.0499, Spent),
            (0.0, Spent),
            (-3.0, Spent),
        ];
        for (ratio, level) in levels {
            assert_eq!(Left::Now(ratio).level(), level, "{ratio}");
        }
        assert_eq!([0.29, 0.999, 0.0, -0.001, -1e12].map(percent), [29, 99, 0, -1, i32::MIN]);
    }

    #[test]
    fn to_lose_the_query_loosens_nothing() {
        // I8, over every whole percent and what lies between them.
        for permille in -1500..=1010 {
            let ratio = f64::from(permille) / 1000.0;
            let (now, lost) = (Left::Now(ratio), last(percent(ratio)));
            let never = Left::without_answer(None, "down");
            assert!(lost.level() >= now.level() && never.level() >= lost.level(), "{ratio}");
            assert!(lost.level() >= ErrorBudget::Quarter && lost.level().points() >= now.level().points());
            assert!(lost.is_spent() || !now.is_spent(), "what held starts holds them still: {ratio}");
        }
        assert!(!Left::without_answer(None, "down").is_spent(), "what was never known holds nothing");
    }

    #[test]
    fn of_several_policies_the_least_that_is_left_counts() {
        let of = |left: Vec<(&str, Left)>| {
            let known: Vec<_> = left.into_iter().map(|(from, left)| Sourced::new(left, from)).collect();
            error_budget(&known)
        };
        let none = of(Vec::new());
        assert_eq!((none.value, none.from.as_str()), (ErrorBudget::Ample, "no error budget is set"));
        let two = of(vec![("a", Left::Now(0.6)), ("b", Left::Now(0.125))]);
        assert_eq!((two.value, two.from.as_str()), (ErrorBudget::Quarter, "b: 12 % left"));
        let lost = of(vec![("a", Left::Now(0.6)), ("b", last(70))]);
        assert_eq!(lost.from, "b: 70 % left at 1970-01-01T00:00:00Z, and no answer now: down");
        let never = of(vec![("a", Left::without_answer(None, "down")), ("b", last(70))]);
        assert_eq!((never.value, never.from.as_str()), (ErrorBudget::Spent, "a: not known: down"));
        let level = error_budget_named(never.value.name(), &never.from);
        assert_eq!(level, Some(never));
    }
}
