//! A small honest stand-in for the evidence: it sees what callers met, and says what a guard would say.
//!
//! It opens a gate only for a canary that answers well, after healthy time with fresh data; a bad canary is
//! found out after some seconds of exposure. It never judges what it could not have seen.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use sluice_core::api::{Run, Stage};
use sluice_core::verdict::{AlertsAtRest, Verdict, Why};

use crate::pods::later;

/// Seconds of exposure after which a bad canary is found out.
pub const DETECT_SECONDS: i64 = 3;
/// Healthy seconds before a gate opens.
const GATE_SECONDS: f64 = 2.0;

/// A verdict's memory.
#[derive(Clone, Debug, Default)]
pub struct Judge {
    /// Spans without data; an open one has no end.
    outages: Vec<(Timestamp, Option<Timestamp>)>,
    /// Digests whose pods fail requests.
    pub bad: BTreeSet<String>,
    /// Seconds that callers met each bad digest while there was data.
    exposed: BTreeMap<String, i64>,
    /// When callers last could meet a ReplicaSet's pods.
    met: BTreeMap<String, Timestamp>,
    /// Since when an alert fires that is no revision's fault.
    pub incident: Option<Timestamp>,
    /// Whether what every revision depends on fails: stable does too, once it serves alone again.
    pub dependency_fails: bool,
    /// Runs that an alert was fired for.
    pub alerted: BTreeSet<String>,
    /// Gates that were open, by run and step: what promotion must be able to show.
    pub opened: BTreeSet<(String, i32)>,
}

impl Judge {
    /// Starts or ends an outage.
    pub fn set_outage(&mut self, out: bool, at: Timestamp) {
        match (self.outage_since(), out) {
            (None, true) => self.outages.push((at, None)),
            (Some(_), false) => {
                if let Some(last) = self.outages.last_mut() {
                    last.1 = Some(at);
                }
            }
            (None, false) | (Some(_), true) => {}
        }
    }

    fn outage_since(&self) -> Option<Timestamp> {
        self.outages.last().filter(|(_, end)| end.is_none()).map(|(start, _)| *start)
    }

    /// Notes what callers met in the second that ends now: ReplicaSets and digests.
    pub fn note(&mut self, sets: &BTreeSet<String>, digests: &BTreeSet<String>, at: Timestamp) {
        for set in sets {
            self.met.insert(set.clone(), at);
        }
        if self.outage_since().is_some() {
            return;
        }
        for digest in digests.intersection(&self.bad).cloned().collect::<Vec<_>>() {
            *self.exposed.entry(digest).or_default() += 1;
        }
    }

    fn healthy_since(&self, since: Timestamp, at: Timestamp) -> f64 {
        let seconds = |from: Timestamp, to: Timestamp| to.duration_since(from).as_secs_f64().max(0.0);
        let lost: f64 = self
            .outages
            .iter()
            .map(|(start, end)| seconds((*start).max(since), end.unwrap_or(at).min(at)))
            .sum();
        seconds(since, at) - lost
    }

    /// The verdict on the run that a controller sees in status.
    pub fn verdict(&mut self, run: Option<&Run>, at: Timestamp) -> Verdict {
        let incident = self.incident.map(|since| format!("alert DiskFull fires since {since:.0}"));
        let Some(run) = run else {
            let at_rest = AlertsAtRest { read_at: Some(at), firing: incident, trouble: None };
            return Verdict { at_rest: Some(at_rest), ..Verdict::default() };
        };
        let outage = self.outage_since();
        let digest = &run.canary.digest;
        let found_out = self.exposed.get(digest).is_some_and(|seconds| *seconds >= DETECT_SECONDS);
        let abort = if found_out {
            Some(Why {
                reason: "GuardTripped".to_owned(),
                message: "error ratio 5 % against 0.1 %".to_owned(),
            })
        } else if self.alerted.contains(&run.id) && run.exposed_since.is_some() {
            Some(Why { reason: "AlertFired".to_owned(), message: "alert HighErrorRate fires".to_owned() })
        } else {
            None
        };
        let settled = run.weight.and_then(|weight| weight.settled_at);
        let healthy = settled.map_or(0.0, |since| self.healthy_since(since, at));
        let open = incident.is_none()
            && settled.is_some()
            && outage.is_none()
            && healthy >= GATE_SECONDS
            && !self.bad.contains(digest);
        if open && run.stage == Stage::Stepping {
            self.opened.insert((run.id.clone(), run.step));
        }
        let met = self.met.get(&run.canary.replica_set).filter(|_| outage.is_none());
        let quiet = met.map(|last| (later(*last, 1), at));
        Verdict {
            run_id: run.id.clone(),
            at: Some((run.stage, run.step)),
            plan: run.plan.digest.clone(),
            abort,
            holds: incident
                .into_iter()
                .map(|message| Why { reason: "PreExistingAlert".to_owned(), message })
                .collect(),
            gate_open: open,
            needs: format!("{healthy:.0} of {GATE_SECONDS:.0} healthy seconds"),
            healthy_seconds: healthy,
            no_data: outage.map(|since| {
                // A window that began later has been without data only since then.
                (since.max(settled.unwrap_or(since)), "Prometheus does not answer".to_owned())
            }),
            quiet,
            stable_too: run
                .going_back
                .as_ref()
                .filter(|back| self.dependency_fails && back.judges_stable && back.back_at.is_some())
                .map(|_| "stable fails 5 % of its requests".to_owned()),
            ..Verdict::default()
        }
    }
}
