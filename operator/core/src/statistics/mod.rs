//! The statistics of a rollout: what the counts of an analysis prove, for and against the canary.
//!
//! Every judgement is a bet that the canary can only lose by being bad. A process of such bets is a nonnegative
//! supermartingale while the canary is within its tolerance, so the probability that it ever multiplies its capital
//! by `1/alpha` is at most `alpha`, however often one looks (Ville, 1939). The reading order is that of the
//! data: `cell` (counts of one window), `bet` (the factor of one window), `bursts` (errors that come in clusters),
//! `rows` and `stake` (which tolerance, how much capital, when), `process` (wealth), `gate` (the mirrored bet, for
//! promotion), `guard` (all of it for one signal), `joined` (their scores as one) and `engine` (all signals of a run).
//! Nothing here knows Kubernetes or a clock, and every function is total. Derivations, limits and what is not covered: `docs/evidence.md`.

pub mod bet;
pub mod bursts;
pub mod cell;
pub mod engine;
pub mod gate;
pub mod guard;
pub mod joined;
pub mod planner;
pub mod process;
pub mod rows;
pub mod stake;

#[cfg(test)]
mod tests;

pub use bet::{Counts, Tolerance};
pub use cell::{Cell, Window, is_warm};
pub use engine::{Asked, Engine, EngineState, Signal, Verdict, guards};
pub use guard::{Guard, GuardState, Shares};
pub use joined::{Joined, Place, STOP, SUSPICION, join};
pub use rows::Row;
