//! The published numbers, and laws that hold for all.

mod laws;
mod size;
mod spread;
mod vectors;
