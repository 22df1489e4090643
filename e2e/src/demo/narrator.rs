//! What is told while the demo runs: one line for each change of an application's status.

use std::cell::RefCell;
use std::time::Instant;

use anyhow::Result;
use sluice_core::api::ProgressiveRolloutStatus;

use super::RUN_LIMIT;
use crate::world::App;

/// Who tells, and since when.
pub struct Narrator {
    started: Instant,
}

impl Narrator {
    /// Counts the seconds from `started`.
    pub fn since(started: Instant) -> Self {
        Self { started }
    }

    /// Prints one line.
    pub fn say(&self, who: &str, what: &str) {
        println!("[{:6.1} s] {who:<16} {what}", self.started.elapsed().as_secs_f64());
    }

    /// Prints each change of an application's status until `done`.
    pub async fn follow(
        &self,
        who: &str,
        app: &App<'_>,
        done: impl Fn(&ProgressiveRolloutStatus) -> bool,
    ) -> Result<ProgressiveRolloutStatus> {
        let last = RefCell::new(String::new());
        app.wait("the end of what is followed", RUN_LIMIT, |status| {
            let line = line(status);
            if *last.borrow() != line {
                self.say(who, &line);
                last.replace(line);
            }
            done(status)
        })
        .await
    }
}

/// One status in one line: what moves, not what counts.
pub fn line(status: &ProgressiveRolloutStatus) -> String {
    let phase = status.phase.as_str();
    match &status.run {
        Some(run) => {
            let why = match &run.going_back {
                Some(back) => format!("{}: {}", back.reason, back.message),
                None => status.waiting.as_ref().map(|w| w.reason.clone()).unwrap_or_default(),
            };
            let class = run.plan.risk_class.as_str();
            format!(
                "{phase:<10} step {} at {:>4}  class {class}  {why}",
                status.summary.step, status.summary.weight
            )
        }
        None => {
            let why = status.waiting.as_ref().map(|w| w.message.clone()).unwrap_or_default();
            format!("{phase:<10} {why}")
        }
    }
}
