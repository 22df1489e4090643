//! Waiting for the controller: its answer, and weight 0.

use std::pin::pin;
use std::time::Duration;

use futures::StreamExt as _;
use sluice_core::api::{Outcome, Verb};
use tokio::time::{Instant, timeout_at};

use super::super::Context;
use crate::cluster::{Cluster, Watched};
use crate::fail::Failure;
use crate::model::Seen;
use crate::view::words;

/// How a run went back.
pub(super) struct End {
    pub outcome: Outcome,
    /// Seconds from the decision to verified weight 0, when traffic had to go back at all.
    pub seconds: Option<i64>,
}

/// Waiting for the controller.
pub(super) struct Wait<'a> {
    pub context: &'a Context,
    pub cluster: &'a Cluster,
    pub verb: Verb,
    pub name: &'a str,
    pub deadline: Instant,
    pub limit: Duration,
}

impl Wait<'_> {
    /// Looks at the rollout until `find` finds something.
    async fn until<T>(
        &self,
        what: &str,
        mut find: impl FnMut(&Seen) -> Option<Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let mut changes = pin!(self.cluster.watch(self.name));
        loop {
            let Ok(change) = timeout_at(self.deadline, changes.next()).await else {
                return Err(self.late(what).await);
            };
            match change {
                Some(Watched::Changed(rollout)) => {
                    let seen = Seen {
                        rollout: *rollout,
                        workload: None,
                        replica_sets: None,
                        controller: None,
                        events: Vec::new(),
                    };
                    if let Some(found) = find(&seen) {
                        return found;
                    }
                }
                Some(Watched::Gone) => {
                    return Err(Failure::new(format!(
                        "ProgressiveRollout {:?} was deleted meanwhile.",
                        self.name
                    )));
                }
                Some(Watched::Failed(failure)) => return Err(failure),
                Some(Watched::Lost(_)) => {}
                None => return Err(Failure::new("the watch ended unexpectedly; run the command again")),
            }
        }
    }

    /// The controller's answer to the request with this value.
    pub async fn answer(&self, value: &str) -> Result<String, Failure> {
        let what = format!("the request {value} is written, but the controller has not answered it");
        self.until(&what, |seen| {
            let latched = seen.rollout.status.as_ref()?.request.as_ref()?;
            (latched.value == value).then(|| Ok(latched.answer.clone()))
        })
        .await
    }

    /// Waits until weight 0 of this run is verified, or the run is over.
    pub async fn verified(&self, id: &str) -> Result<End, Failure> {
        let mut told = false;
        let what = format!("run {id} goes back, but weight 0 is not verified");
        self.until(&what, |seen| {
            let status = seen.status();
            if let Some(run) = status.run.as_ref().filter(|run| run.id == id) {
                let back = run.going_back.as_ref()?;
                if let Some(at) = back.back_at.filter(|_| !told) {
                    told = true;
                    let seconds = words::between(back.since, at);
                    self.tell(&format!("weight 0 is live in the routes, {seconds} after the decision; waiting until it is verified"));
                }
                let at = back.verified_at?;
                let seconds = run.exposed_since.map(|_| words::seconds(back.since, at));
                return Some(Ok(End { outcome: back.outcome, seconds }));
            }
            let Some(record) = seen.record(id) else {
                return Some(Err(Failure::new(format!("run {id} is over, but its record is gone from status.history."))));
            };
            Some(match record.outcome {
                Outcome::Promoted => Err(Failure::new(format!(
                    "run {id} was promoted before the abort was seen. To go back, apply the earlier template: a recorded good revision returns without a canary."
                ))),
                outcome => Ok(End { outcome, seconds: None }),
            })
        })
        .await
    }

    /// A word on the way, for people.
    fn tell(&self, text: &str) {
        if self.context.machine().is_none() {
            eprintln!("{text}");
        }
    }

    async fn late(&self, what: &str) -> Failure {
        let controller = match self.cluster.controller().await {
            Some(c) => format!(
                "The controller {}/{} has {} of {} pods ready.",
                c.namespace, c.name, c.ready, c.wanted
            ),
            None => "Is the controller running?".to_owned(),
        };
        let by_hand = if self.verb == Verb::Abort {
            " It acts on the request as soon as it is back. Without it, set the weights of the routes by hand: <service>-stable 100, <service>-canary 0."
        } else {
            " It acts on the request as soon as it is back."
        };
        let limit = words::span(i64::try_from(self.limit.as_secs()).unwrap_or(0));
        Failure::timeout(format!("{what} after {limit}. {controller}{by_hand}"))
    }
}
