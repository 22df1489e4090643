//! Traces: a rollout's counters, evaluation by evaluation, on paper. `format` reads and writes them, `counters` turns
//! them into windows, `replay` plays one through the statistics as if it happened now, `record` writes one of a run.

pub mod counters;
pub mod format;
pub mod record;
pub mod replay;

#[cfg(test)]
mod tests;

pub use format::{Arms, Header, Problem, Record, Series, State, Trace};
pub use record::Recorder;
pub use replay::{Decision, Options, Outcome, Policy, replay};
