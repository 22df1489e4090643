//! Tests of the whole room: windows and data states, laws that hold for any input, seeded simulations,
//! alert onsets, and what goes into status.

#![allow(clippy::unwrap_used)]

mod alerts;
mod gauges;
mod laws;
mod outages;
mod reports;
mod restarts;
mod status;
mod support;
mod warmup;
mod windows;
