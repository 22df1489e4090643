//! The shell of Sluice: clocks, clients and servers around the pure core.

pub mod actuate;
pub mod args;
pub mod beside;
pub mod client;
pub mod context;
pub mod crash;
pub mod crds;
pub mod error;
pub mod events;
pub mod evidence;
pub mod guardrails;
pub mod http;
pub mod leader;
pub mod metrics;
pub mod observe;
pub mod orphans;
pub mod pace;
pub mod panics;
pub mod pods;
pub mod policies;
pub mod queue;
pub mod reconcile;
pub mod release;
pub mod report;
pub mod start;
pub mod store;
pub mod telemetry;
#[cfg(test)]
mod testing;
pub mod turns;
pub mod watch;
