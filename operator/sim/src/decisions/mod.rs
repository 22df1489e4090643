//! How good the decisions are, on simulated traffic: false aborts, missed faults, delay and harm.
//!
//! The engine is the product's own; everything around it is made up here. [`draw`] has the randomness of a run,
//! [`traffic`] the counts that it yields. [`judges`] puts the engine beside [`peers`] and [`oracle`]s. [`scenario`] and
//! [`run`] are one run at a fixed share, [`scenarios`] the list of them; [`rollout`] is a closed loop, [`rollouts`] its
//! list. [`cost`] is what a window takes. [`work`] plays runs side by side, [`interval`] and [`report`] say what came of them.

pub mod cost;
pub mod draw;
pub mod interval;
pub mod judges;
pub mod oracle;
pub mod peers;
pub mod report;
pub mod rollout;
pub mod rollouts;
pub mod run;
pub mod scenario;
pub mod scenarios;
pub mod traffic;
pub mod work;

#[cfg(test)]
mod demo;
#[cfg(test)]
mod tests;
