//! The shell of Sluice: clocks, clients and servers around the pure core.

pub mod client;
pub mod error;
pub mod http;
pub mod leader;
pub mod metrics;
pub mod telemetry;
