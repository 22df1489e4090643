//! The published numbers, and laws that hold for all.

mod joined;
mod laws;
mod size;
mod spread;
mod vectors;
