//! The inputs of a change's risk, each on ordered levels, and the points of each level.

use crate::api::{BlastRadius, Novelty, Provenance, Tier};

/// A level of an input.
pub trait Level: Copy + Ord + Sized + 'static {
    /// All levels with their points, lowest risk first.
    const POINTS: &'static [(Self, i32)];

    /// The name as it appears in the API.
    fn name(self) -> &'static str;

    /// Points that it adds.
    fn points(self) -> i32 {
        Self::POINTS.iter().find(|(level, _)| *level == self).map_or(0, |(_, points)| *points)
    }
}

macro_rules! levels {
    ($type:ident: $($level:ident = $points:literal $name:literal),+) => {
        impl Level for $type {
            const POINTS: &'static [(Self, i32)] = &[$(($type::$level, $points)),+];

            fn name(self) -> &'static str {
                match self {
                    $($type::$level => $name),+
                }
            }
        }
    };
}

/// Changed lines of the source. Ordered by risk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Size {
    /// Up to 200.
    Small,
    /// Up to 400.
    Medium,
    /// Up to 1,000.
    Large,
    /// More, or not known.
    Huge,
}

impl Size {
    /// The level of so many changed lines; `None`: not known.
    pub fn of(lines: Option<i32>) -> Self {
        match lines {
            Some(..=200) => Self::Small,
            Some(..=400) => Self::Medium,
            Some(..=1000) => Self::Large,
            _ => Self::Huge,
        }
    }
}

/// What is known of earlier changes of the authors. Ordered by risk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AuthorHistory {
    /// Twenty or more, failing no oftener than expected.
    Proven,
    /// Five to nineteen, or not known.
    Some,
    /// Fewer, or failing oftener than expected.
    Few,
}

/// When the last run of the workload failed. Ordered by risk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LastFailure {
    /// More than 30 days ago, or never.
    LongAgo,
    /// 7 to 30 days ago.
    WithinMonth,
    /// 1 to 7 days ago.
    WithinWeek,
    /// Less than a day ago.
    WithinDay,
}

impl LastFailure {
    /// The level of a failure so many seconds ago; `None`: no failure is known.
    pub fn of(seconds: Option<i64>) -> Self {
        const DAY: i64 = 86_400;
        match seconds {
            Some(seconds) if seconds < DAY => Self::WithinDay,
            Some(seconds) if seconds < 7 * DAY => Self::WithinWeek,
            Some(seconds) if seconds < 30 * DAY => Self::WithinMonth,
            _ => Self::LongAgo,
        }
    }
}

/// What is left of the error budget. Ordered by risk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ErrorBudget {
    /// More than half, or there is none.
    Ample,
    /// A quarter to a half.
    Half,
    /// 5 % to a quarter.
    Quarter,
    /// Less.
    Spent,
}

impl ErrorBudget {
    /// The level while this share of it is left: 1 is all of it, 0 or less nothing.
    pub fn of(left: f64) -> Self {
        match left {
            left if left > 0.5 => Self::Ample,
            left if left >= 0.25 => Self::Half,
            left if left >= 0.05 => Self::Quarter,
            _ => Self::Spent,
        }
    }
}

levels!(Provenance: Human = 0 "Human", GenAIAssisted = 2 "GenAIAssisted", Unknown = 3 "Unknown", GenAIAutonomous = 4 "GenAIAutonomous");
levels!(BlastRadius: Cell = 0 "Cell", Zone = 1 "Zone", Region = 3 "Region", Global = 4 "Global");
levels!(Tier: Tier3 = 0 "Tier3", Tier2 = 1 "Tier2", Tier1 = 3 "Tier1", Tier0 = 4 "Tier0");
levels!(Size: Small = 0 "200 lines or fewer", Medium = 1 "201 to 400 lines", Large = 2 "401 to 1000 lines", Huge = 3 "more than 1000 lines");
levels!(Novelty: Routine = 0 "Routine", NewKind = 1 "NewKind", First = 3 "First");
levels!(AuthorHistory: Proven = 0 "Proven", Some = 1 "Some", Few = 2 "Few");
levels!(LastFailure: LongAgo = 0 "none in 30 days", WithinMonth = 1 "7 to 30 days ago", WithinWeek = 2 "1 to 7 days ago", WithinDay = 3 "less than a day ago");
levels!(ErrorBudget: Ample = 0 "more than 50 % left", Half = 1 "25 to 50 % left", Quarter = 2 "5 to 25 % left", Spent = 4 "less than 5 % left");

/// What the risk of a change depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Inputs {
    /// Who wrote it.
    pub provenance: Provenance,
    /// How much a fault can hurt.
    pub blast_radius: BlastRadius,
    /// How critical the workload is.
    pub tier: Tier,
    /// How large it is.
    pub size: Size,
    /// How new its kind is.
    pub novelty: Novelty,
    /// What is known of its authors.
    pub authors: AuthorHistory,
    /// When a run of the workload last failed.
    pub last_failure: LastFailure,
    /// What is left of the error budget.
    pub error_budget: ErrorBudget,
}

impl Inputs {
    /// Their points together.
    pub fn points(&self) -> i32 {
        self.provenance.points()
            + self.blast_radius.points()
            + self.tier.points()
            + self.size.points()
            + self.novelty.points()
            + self.authors.points()
            + self.last_failure.points()
            + self.error_budget.points()
    }
}
