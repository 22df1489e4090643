//! Weighs the evidence of a run: counted requests, firing alerts and values out of range.
//!
//! `observe` takes in one sample of one guard, `report` says what it means, `combine` joins all guards. All
//! are pure and total: the clock is an argument, and no input panics. What is bounded and what is not:
//! `docs/evidence.md`.

pub mod alerts;
pub mod classify;
pub mod counts;
pub mod engine;
pub mod gauge;
pub mod kills;
pub mod matcher;
pub mod packed;
pub mod report;
pub mod source;
pub mod state;
pub mod template;

#[cfg(test)]
mod tests;

pub use alerts::{
    AlertGuardState, AlertPlan, AlertReport, AlertState, DEAD_PATH, KnownAlert, first_firing, known_alerts,
    observe_alerts, path_is_alive, report_alerts,
};
pub use classify::{CODE_LABELS, Class, CodePoint, by_code, classify};
pub use counts::{Arm, PodCounters, Point, Trouble, join};
pub use engine::{GuardPlan, Outcome, Sample, is_incident, observe, stable_too};
pub use gauge::{
    GaugeLook, GaugePlan, GaugeReport, GaugeState, GaugeValues, observe_gauge, report_gauge, with_gauges,
};
pub use kills::Kills;
pub use matcher::{Matchers, check_matchers};
pub use report::{
    Evidence, GuardReport, Hold, HoldReason, Reason, combine, last_five_minutes, milliseconds, report,
};
pub use source::{Alert, AlertStatus, Poll, Silence, SourceState};
pub(crate) use state::is_ahead;
pub use state::{DataState, EvidenceState, GuardState};
