//! What the core decides, seen from outside. One binary: each of its own would be linked by itself.
#![allow(clippy::unwrap_used)]

mod support;

mod aborts;
mod attended;
mod beside;
mod blame;
mod budgets;
mod carried;
mod crd;
mod freed;
mod frozen;
mod gates;
mod incidents;
mod laws;
mod leaves_out;
mod observed;
mod plans;
mod provenance;
mod purity;
mod stalled;
mod starts;
mod steps;
mod tightened;
