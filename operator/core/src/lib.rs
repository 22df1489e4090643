//! The pure core of Sluice: no clock, no client, no runtime, no randomness.
//!
//! Data flows one way, and a room imports only from rooms before it:
//!
//! ```text
//! objects -> observed -> limits -> plan -> evidence -> verdict -> decide -> actions, status, events
//! ```
//!
//! - [`api`]: the wire types of `sluice.dev/v1alpha1`
//! - [`config`]: settings of an installation
//! - [`view`], [`observed`]: raw objects through narrow views
//! - [`judge`]: which guard is judged by what, in which window
//! - [`forecast`]: what a plan would catch, before the start; [`harm`]: the same as status shows it
//! - [`provenance`]: who wrote a template's change, as far as it is known
//! - [`risk`]: inputs on ordered levels, points, classes; [`queue`]: whose turn it is to start
//! - [`freeze`]: when no change may start; [`policy`]: the policies in force, joined
//! - [`limits`]: class table, own limits, their join into a frozen plan
//! - [`evidence`], [`verdict`]: counters to scores, scores to a verdict on the run
//! - [`statistics`]: what counts prove, for and against the canary; [`trace`]: the same on paper
//! - [`decide`]: the questions in the order of safety; [`check`]: what no answer may do, said a second time
//! - [`action`], [`render`]: what the shell has to write, spelled out
//! - [`elect`]: one step of leader election

pub mod action;
pub mod api;
pub mod check;
pub mod config;
pub mod decide;
pub mod digest;
pub mod elect;
pub mod evidence;
pub mod forecast;
pub mod freeze;
pub mod harm;
pub mod judge;
pub mod limits;
pub mod observed;
pub mod policy;
pub mod provenance;
pub mod queue;
pub mod render;
pub mod risk;
pub mod statistics;
pub mod trace;
pub mod verdict;
pub mod view;
