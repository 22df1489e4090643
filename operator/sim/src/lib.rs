//! A model of the cluster that the pure core is checked against.
//!
//! [`world`] holds everything: objects with versions ([`api`]) behind admission policies ([`admission`]), the native
//! controllers ([`native`], [`pods`]), a gateway that lags ([`router`]), evidence ([`judge`]) and instances of the
//! controller ([`shell`]) with caches of their own ([`view`]). An [`event`] is one thing that happens to it. After
//! every write [`truth`] asks what callers and pods met; [`rest`] asks whether a story came to a good end.
//!
//! The model is written after the sources and measurements of real Kubernetes; the end-to-end tests play the same
//! stories there. [`decisions`] is apart from it: it measures how good the core's statistics are.

pub mod admission;
pub mod api;
pub mod decisions;
pub mod event;
pub mod fixture;
pub mod judge;
pub mod native;
pub mod pods;
pub mod rest;
pub mod router;
pub mod shell;
pub mod truth;
pub mod view;
pub mod world;
