//! The class table's statistical columns, one row per risk class.
//!
//! A class plays its own row and those of all looser classes, each with its own capital, and promotion needs all of
//! them: a tighter class never stops later and never promotes earlier, whatever the numbers are.

use super::bet::Tolerance;
use crate::api::{EvidenceRow, RiskClass};

/// One row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Row {
    /// The class that adds it.
    pub class: RiskClass,
    /// What is tolerated before it counts against the canary.
    pub tolerance: Tolerance,
    /// Capital that the row adds: the false-abort budget of a class is the sum over its rows, as a fraction of 1.
    pub capital: f64,
    /// What promotion to all of the traffic has to rule out; at a smaller next weight `w` it is this over `w`.
    pub margin: Tolerance,
    /// Probability, per step, that the gate opens for a canary at or beyond the margin.
    pub beta: f64,
    /// Canary requests since the step began that promotion to all of the traffic needs, scaled by the next weight.
    pub min_requests: f64,
    /// Steps below weight 100.
    pub steps: u32,
    /// Planned time below weight 100, in seconds.
    pub planned_seconds: f64,
    /// Planned time at weight 100, in seconds.
    pub last_bake_seconds: f64,
}

/// One basis point.
const BP: f64 = 1e-4;
const MINUTE: f64 = 60.0;

/// The built-in row of a class.
pub fn built_in(class: RiskClass) -> Row {
    let row =
        |tolerance: (f64, f64), capital, margin: (f64, f64), beta, min_requests, steps, minutes, last| Row {
            class,
            tolerance: Tolerance { relative: tolerance.0, absolute: tolerance.1 * BP },
            capital,
            margin: Tolerance { relative: margin.0, absolute: margin.1 * BP },
            beta,
            min_requests,
            steps,
            planned_seconds: minutes * MINUTE,
            last_bake_seconds: last * MINUTE,
        };
    match class {
        RiskClass::R0 => row((0.50, 5.0), 0.004, (1.0, 250.0), 0.10, 100.0, 2, 10.0, 15.0),
        RiskClass::R1 => row((0.25, 3.0), 0.002, (0.5, 60.0), 0.05, 500.0, 3, 30.0, 30.0),
        RiskClass::R2 => row((0.15, 2.0), 0.002, (0.5, 15.0), 0.05, 2_000.0, 4, 80.0, 60.0),
        RiskClass::R3 => row((0.10, 1.0), 0.002, (0.25, 4.0), 0.025, 10_000.0, 5, 180.0, 120.0),
        RiskClass::R4 => row((0.05, 1.0), 0.010, (0.20, 2.5), 0.01, 20_000.0, 7, 1_320.0, 240.0),
    }
}

/// The built-in rows that a class plays: its own and those of all looser ones, loosest first.
pub fn chain(class: RiskClass) -> Vec<Row> {
    RiskClass::ALL.into_iter().filter(|looser| *looser <= class).map(built_in).collect()
}

const PPM: f64 = 1e6;

impl From<&EvidenceRow> for Row {
    fn from(row: &EvidenceRow) -> Self {
        let fraction = |ppm: i32| f64::from(ppm.max(0)) / PPM;
        let tolerance = |ppm: crate::api::TolerancePpm| Tolerance {
            relative: fraction(ppm.relative),
            absolute: fraction(ppm.absolute),
        };
        Self {
            class: row.class,
            tolerance: tolerance(row.tolerance_ppm),
            capital: fraction(row.capital_ppm),
            margin: tolerance(row.margin_ppm),
            beta: fraction(row.gate_error_ppm),
            min_requests: f64::from(row.min_samples.max(0)),
            steps: u32::try_from(row.steps).unwrap_or(0),
            planned_seconds: f64::from(row.planned_seconds.max(0)),
            last_bake_seconds: f64::from(row.last_bake_seconds.max(0)),
        }
    }
}

impl Row {
    /// The row for tails of latency: they begin near 1 %, so absolute slack is ten times that of failures.
    #[must_use]
    pub fn for_latency(mut self) -> Self {
        self.tolerance.absolute *= 10.0;
        self.margin.absolute *= 10.0;
        self
    }

    /// The row with another absolute tolerance.
    #[must_use]
    pub fn with_slack(mut self, absolute: f64) -> Self {
        self.tolerance.absolute = absolute;
        self
    }

    /// The margin that the gate to `next`, a fraction of the traffic, has to rule out.
    pub fn margin_at(&self, next: f64) -> Tolerance {
        let next = if next.is_nan() { 1.0 } else { next.clamp(1e-4, 1.0) };
        Tolerance { relative: self.margin.relative / next, absolute: self.margin.absolute / next }
    }
}
