//! Crash injection for tests of debug builds: the process dies right after its n-th step.
//!
//! A step is a write that changed an object, or a status that brings a run further. A status with other words and
//! numbers is none: how many of those there are depends on the time of day, and the steps of a run can be counted.
//! The folder named by `SLUICE_CRASH_DIR` holds a file per namespace with the number of steps to survive there. The
//! process that reaches zero removes the file and aborts, so that its successor lives on. Release builds have none of
//! this.

#[cfg(debug_assertions)]
use std::sync::{Mutex, PoisonError};

use sluice_core::api::ProgressiveRolloutStatus;

/// Steps are taken by several tasks at once.
#[cfg(debug_assertions)]
static COUNTING: Mutex<()> = Mutex::new(());

/// Dies here if the count of the namespace says so.
#[cfg(debug_assertions)]
pub fn after_step(namespace: &str, name: &str) {
    let Some(dir) = std::env::var_os("SLUICE_CRASH_DIR") else {
        return;
    };
    let path = std::path::Path::new(&dir).join(namespace);
    let _counting = COUNTING.lock().unwrap_or_else(PoisonError::into_inner);
    let Ok(text) = std::fs::read_to_string(&path) else {
        return;
    };
    let Ok(left) = text.trim().parse::<u64>() else {
        return;
    };
    if left > 1 {
        let _ = std::fs::write(&path, (left - 1).to_string());
        return;
    }
    let _ = std::fs::remove_file(&path);
    tracing::warn!(namespace, after = name, "crash injected");
    std::process::abort();
}

/// Release builds do not crash on request.
#[cfg(not(debug_assertions))]
pub fn after_step(_namespace: &str, _name: &str) {}

/// Dies after a written status, if that was a step.
pub fn after_status(namespace: &str, before: &ProgressiveRolloutStatus, after: &ProgressiveRolloutStatus) {
    if cfg!(debug_assertions) && milestones(before) != milestones(after) {
        after_step(namespace, "write-status");
    }
}

/// What a run has behind it.
fn milestones(status: &ProgressiveRolloutStatus) -> impl PartialEq {
    let run = status.run.as_ref().map(|run| {
        let weight = run.weight.as_ref().map(|weight| (weight.percent, weight.settled_at.is_some()));
        let back = run.going_back.as_ref().map(|back| (back.back_at.is_some(), back.verified_at.is_some()));
        (run.id.clone(), run.stage, run.step, weight, run.released, back)
    });
    let stable = status.stable.as_ref().map(|stable| stable.digest.clone());
    let request = status.request.as_ref().map(|request| request.value.clone());
    (status.phase, run, stable, request, status.history.len())
}
