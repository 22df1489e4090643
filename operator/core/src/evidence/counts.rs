//! From raw cumulative counters to the counts of disjoint windows.
//!
//! Counters are read per pod (or router instance) and arm at one aligned time and subtracted here, because a
//! rate function of the monitoring system extrapolates, misses the first errors of a new pod and counts an
//! error in several overlapping windows. Units: requests, failed requests.
//!
//! - A counter that falls was reset: its new value is the delta.
//! - A pod's requests count from the first sample of it that was taken after counting began (`from`), whenever the
//!   others' samples were taken: none from before is counted, and none twice.
//! - The first sample of a canary pod that was not there at the last evaluation counts from 0, likewise that
//!   of a stable pod created since then. Other new series only start their baseline.
//! - A router keeps counting for a Service from one run to the next, so its age says nothing about the canary's. The
//!   first sample of its series for the canary counts from 0 only where the same router instance was seen at the last
//!   evaluation without it. An instance that comes into view only now may bring what an earlier run was answered.
//! - A pod that was not seen before is new by its counter: until it has answered as many requests as the guard's
//!   `warmupRequests`, its windows don't count. One that is restarted later is not new.
//! - Numbers tell pods apart in the statistics. The canary's have a row of their own, so that groups of them are of equal
//!   size; all of them are kept for the run.
//! - A request series without an error series: nothing failed. An error series that is missing for a while
//!   keeps its last value.

use super::state::{ColdCounts, DataState, PodStart};
use crate::statistics::{Cell, Counts, is_warm};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// Which revision a counter belongs to. The arms stay those of the run, after promotion too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Arm {
    /// The revision that served when the run began.
    #[default]
    Stable,
    /// The revision that is tried.
    Canary,
}

impl fmt::Display for Arm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stable => "stable",
            Self::Canary => "canary",
        })
    }
}

/// Cumulative counters of one pod or router instance.
#[derive(Clone, Debug, PartialEq)]
pub struct PodCounters {
    /// Pod, or router instance and Service (`<instance>/<service>`); empty for a source without them.
    pub id: String,
    /// The revision that these requests met.
    pub arm: Arm,
    /// All counted requests.
    pub total: f64,
    /// Bad requests; none when there is no series of them.
    pub bad: Option<f64>,
    /// Requests that may be bad, where the measure is coarse; none where they are those above.
    pub maybe_bad: Option<f64>,
    /// Time of the newest sample behind the counters.
    pub newest_sample: Timestamp,
    /// When the pod was created, if known.
    pub created: Option<Timestamp>,
    /// Whether its last restart was for want of memory; of a source of restarts only.
    pub out_of_memory: bool,
}

/// Why a sample can't be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// Kind of trouble, never `Ok`.
    pub state: DataState,
    /// A sentence for people.
    pub message: String,
}

impl Trouble {
    /// A trouble with its message.
    pub fn new(state: DataState, message: String) -> Self {
        Self { state, message }
    }
}

/// One series of a counter by pod.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// Pod or router instance; empty for a source without them.
    pub id: String,
    /// Cumulative value.
    pub value: f64,
    /// Time of the newest sample behind the value.
    pub newest_sample: Timestamp,
}

pub(super) fn check_value(arm: Arm, id: &str, value: f64) -> Result<(), Trouble> {
    if value.is_finite() && value >= 0.0 {
        return Ok(());
    }
    let message = format!("a counter of {arm} {id:?} is {value}: a counter is a number of at least 0");
    Err(Trouble::new(DataState::NotANumber, message))
}

/// Joins the answers of a query for all requests and one for failed requests, both by pod.
///
/// # Errors
/// `MultipleSeries` when a pod appears twice in one answer, `NotANumber` for NaN, infinite or negative
/// values, `QueryError` when a pod has failed requests but no requests.
pub fn join(arm: Arm, total: &[Point], bad: &[Point]) -> Result<Vec<PodCounters>, Trouble> {
    let mut pods: BTreeMap<&str, PodCounters> = BTreeMap::new();
    let twice = |id: &str, what: &str| {
        let message = format!("{arm} {id:?} has several {what} series where one is expected: sum by pod");
        Trouble::new(DataState::MultipleSeries, message)
    };
    for p in total {
        check_value(arm, &p.id, p.value)?;
        let counters = PodCounters {
            id: p.id.clone(),
            arm,
            total: p.value,
            bad: None,
            maybe_bad: None,
            newest_sample: p.newest_sample,
            created: None,
            out_of_memory: false,
        };
        if pods.insert(p.id.as_str(), counters).is_some() {
            return Err(twice(&p.id, "request"));
        }
    }
    for p in bad {
        check_value(arm, &p.id, p.value)?;
        let Some(pod) = pods.get_mut(p.id.as_str()) else {
            let message =
                format!("{arm} {:?} has failed requests but no request series: the two queries differ", p.id);
            return Err(Trouble::new(DataState::QueryError, message));
        };
        if pod.bad.replace(p.value).is_some() {
            return Err(twice(&p.id, "error"));
        }
    }
    Ok(pods.into_values().collect())
}

/// Windows for which the last value of a stable pod that has gone is kept, in case it comes back. A canary pod's is
/// kept for the run: unknown, it would count from 0 again.
const KEEP_GONE: i32 = 20;

/// Requests of both arms, by pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Cells {
    pub canary: Vec<Cell>,
    pub stable: Vec<Cell>,
}

impl Cells {
    fn add(&mut self, arm: Arm, pod: u32, counts: Counts, maybe_bad: Option<f64>) {
        let x_gate = maybe_bad.map_or(counts.x, |maybe| Counts::new(counts.n, maybe).x);
        let cell = Cell { pod, n: counts.n, x: counts.x, x_gate };
        match arm {
            Arm::Canary => self.canary.push(cell),
            Arm::Stable => self.stable.push(cell),
        }
    }
}

/// What happened between the starting counters and a sample.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Deltas {
    /// All requests.
    pub all: Cells,
    /// Those after counting began.
    pub counted: Cells,
    /// Requests after counting began that met cold pods; those are in neither.
    pub cold: ColdCounts,
    /// Restarts for want of memory, of the canary's and of stable's containers.
    pub killed: (f64, f64),
    /// Whether any request reached the canary, cold or not.
    pub canary_moved: bool,
    /// Whether every pod of the canary is cold.
    pub canary_cold: bool,
    /// Whether the set of pods is another one.
    pub pods_changed: bool,
}

/// A pod that was there when the window began and of which there is no sample of this window's end.
pub(super) fn behind(
    starts: &[PodStart],
    pods: &[PodCounters],
    fresh_since: Timestamp,
) -> Option<(Arm, String)> {
    let fresh = |start: &PodStart| {
        pods.iter().any(|p| p.id == start.id && p.arm == start.arm && p.newest_sample >= fresh_since)
    };
    starts.iter().find(|start| start.gone == 0 && !fresh(start)).map(|start| (start.arm, start.id.clone()))
}

/// Whether there is a pod that was not there when the window began.
pub(super) fn newcomers(starts: &[PodStart], pods: &[PodCounters]) -> bool {
    pods.iter().any(|p| !starts.iter().any(|s| s.gone == 0 && s.id == p.id && s.arm == p.arm))
}

/// Subtracts the starting counters from a sample and makes the sample the new start. `last` is the time of
/// the evaluation that the starting counters come from; `from` is when counting began, if it did; `warmup`: requests of a
/// new pod that don't count.
pub(super) fn advance(
    starts: &mut Vec<PodStart>,
    next_pod: &mut u32,
    pods: &[PodCounters],
    last: Option<Timestamp>,
    from: Option<Timestamp>,
    warmup: f64,
) -> Deltas {
    let mut deltas = Deltas::default();
    // As they are kept, unless somebody else wrote them.
    starts.sort_by(|one, other| place(one).cmp(&place(other)));
    let before: Vec<bool> = starts.iter().map(|start| start.gone == 0).collect();
    let mut present = vec![false; starts.len()];
    let mut new: Vec<PodStart> = Vec::new();
    let numbers =
        starts.iter().filter(|start| start.arm == Arm::Canary).map(|start| start.pod.saturating_add(1));
    let mut next_canary = numbers.max().unwrap_or(0);
    let (mut cold_canaries, mut warm_canaries) = (0, 0);
    for p in pods {
        let own = find(starts, p.arm, &p.id);
        // A Service that leads to the other revision now keeps its counter: what it counted before is not the canary's.
        let other = if p.arm == Arm::Canary { Arm::Stable } else { Arm::Canary };
        let other = if own.is_none() && !p.id.is_empty() { find(starts, other, &p.id) } else { None };
        let start = own.or(other).map(|at| &starts[at]);
        let known = own.map(|at| &starts[at]);
        let seen_before = |router: &str| {
            starts
                .iter()
                .zip(&before)
                .any(|(start, before)| *before && router_instance(&start.id) == Some(router))
        };
        // All that the counter has added since this time is in `counts`.
        let (counts, since) = match start {
            Some(start) => (delta(start, p), Some(start.at)),
            None if from_zero(p, last, seen_before) => {
                (Counts::new(p.total, p.bad.unwrap_or(0.0)), p.created.or(last))
            }
            None => (Counts::default(), None),
        };
        let maybe_bad = p.maybe_bad.map(|now| {
            let was = start.filter(|start| p.total >= start.total).and_then(|start| start.maybe_bad);
            now - was.filter(|was| now >= *was).unwrap_or(0.0)
        });
        let next = if p.arm == Arm::Canary { &mut next_canary } else { &mut *next_pod };
        let pod = known.map_or(*next, |start| start.pod);
        *next = (*next).max(pod.saturating_add(1));
        // How many requests it has answered before the window and by now; none of a pod that is warm for good.
        let answered = match known {
            Some(start) => start.cold.map(|before| (before, before + counts.n)),
            None => Some((p.total - counts.n, p.total)),
        };
        let cold = answered.is_some_and(|(before, _)| !is_warm(before, warmup));
        if p.arm == Arm::Canary {
            *if cold { &mut cold_canaries } else { &mut warm_canaries } += 1;
        }
        // A pod whose counters only begin here has no cell: it did not take part in the window.
        if let Some(since) = since {
            let counting = from.is_some_and(|from| since >= from);
            if p.out_of_memory {
                *match p.arm {
                    Arm::Canary => &mut deltas.killed.0,
                    Arm::Stable => &mut deltas.killed.1,
                } += counts.x;
            }
            deltas.canary_moved |= p.arm == Arm::Canary && counts.n > 0.0;
            if cold && counting {
                deltas.cold.add(p.arm, counts.n);
            } else if !cold {
                deltas.all.add(p.arm, pod, counts, maybe_bad);
                if counting {
                    deltas.counted.add(p.arm, pod, counts, maybe_bad);
                }
            }
        }
        // A missing error series keeps its value, unless the whole pod was reset.
        let kept = known.filter(|s| p.total >= s.total).and_then(|s| s.bad);
        let id = own.map_or_else(|| p.id.clone(), |at| std::mem::take(&mut starts[at].id));
        let start = PodStart {
            id,
            arm: p.arm,
            pod,
            at: p.newest_sample,
            total: p.total,
            bad: p.bad.or(kept),
            maybe_bad: p.maybe_bad,
            gone: 0,
            cold: answered.map(|(_, now)| now).filter(|now| !is_warm(*now, warmup)),
        };
        match own {
            Some(at) => (starts[at], present[at]) = (start, true),
            None => new.push(start),
        }
    }
    deltas.pods_changed = before != present || !new.is_empty();
    deltas.canary_cold = cold_canaries > 0 && warm_canaries == 0;
    for (start, present) in starts.iter_mut().zip(present) {
        start.gone = if present { 0 } else { start.gone.saturating_add(1) };
    }
    starts.retain(|start| start.gone <= KEEP_GONE || start.arm == Arm::Canary);
    starts.append(&mut new);
    starts.sort_by(|one, other| place(one).cmp(&place(other)));
    deltas
}

/// Where a pod stands among starting counters.
fn place(start: &PodStart) -> (Arm, &str) {
    (start.arm, &start.id)
}

fn find(starts: &[PodStart], arm: Arm, id: &str) -> Option<usize> {
    starts.binary_search_by(|start| place(start).cmp(&(arm, id))).ok()
}

fn delta(start: &PodStart, p: &PodCounters) -> Counts {
    let bad = p.bad.unwrap_or(0.0);
    if p.total < start.total {
        return Counts::new(p.total, bad);
    }
    let x = match (p.bad, start.bad) {
        (Some(b), Some(s)) if b >= s => b - s,
        (Some(b), _) => b,
        (None, _) => 0.0,
    };
    Counts::new(p.total - start.total, x)
}

/// Whether the first sample of a series holds only requests since the last evaluation. A canary series that
/// was there before anything was read may be the router's counter of an earlier run.
fn from_zero(p: &PodCounters, last: Option<Timestamp>, seen_before: impl Fn(&str) -> bool) -> bool {
    match (p.arm, router_instance(&p.id)) {
        // One target shows all its series at once: had there been this one, it would have been seen.
        (Arm::Canary, Some(router)) => seen_before(router),
        (Arm::Canary, None) => last.is_some(),
        (Arm::Stable, _) => matches!((last, p.created), (Some(t), Some(c)) if c > t),
    }
}

/// The router instance that an id `<instance>/<service>` names; a pod's name has no slash.
fn router_instance(id: &str) -> Option<&str> {
    id.rsplit_once('/').map(|(instance, _)| instance)
}
