//! From the cumulative counters of a trace to the counts of disjoint windows.
//!
//! A counter that falls was reset: all of its pod's new values count. A canary's first sample counts from 0, stable's
//! only starts it. A series that is absent for a while keeps its last value. After a gap with the same pods at the same
//! weight the whole gap is one window; otherwise nobody knows what was missed, and counting starts anew.

use std::collections::BTreeMap;

use super::format::{Arms, Header, Record, Series, State};
use crate::statistics::Cell;

/// A series' last counters, and its number in the run.
#[derive(Clone, Debug)]
struct Known {
    pod: u32,
    /// None after a gap that lost count.
    last: Option<Series>,
}

/// The last record with counters.
#[derive(Clone, Debug)]
struct Last {
    t: f64,
    weight: f64,
    /// Ids of its series: stable's, then the canary's.
    ids: [Vec<String>; 2],
}

/// Which buckets tell slow requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slow {
    /// Index of the smallest bound at or above the limit: what lies above it is surely slow.
    pub surely: usize,
    /// Index of the largest bound at or below the limit: what lies above it may be slow.
    pub maybe: usize,
}

impl Slow {
    /// The buckets around a limit in seconds; none when the bounds don't enclose it.
    pub fn of(les: &[f64], limit: f64) -> Option<Self> {
        let surely = les.iter().position(|le| *le >= limit)?;
        let maybe = les.iter().rposition(|le| *le <= limit)?;
        Some(Self { surely, maybe })
    }
}

/// Counts of one window.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Deltas {
    /// Its end.
    pub end: f64,
    /// Its length in seconds.
    pub seconds: f64,
    /// Whether pods can be told apart.
    pub by_pod: bool,
    /// Pods of the canary and of stable.
    pub pods: (usize, usize),
    /// Failed requests: stable's pods, and the canary's.
    pub errors: [Vec<Cell>; 2],
    /// Slow requests likewise; none where a series has no buckets.
    pub slow: Option<[Vec<Cell>; 2]>,
}

/// What was last seen.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    known: [BTreeMap<String, Known>; 2],
    last: Option<Last>,
    gap: bool,
}

impl Counters {
    /// Takes in a record; the window that it ends, if it ends one.
    pub fn window(&mut self, record: &Record, slow: Option<Slow>) -> Option<Deltas> {
        let Some(arms) = record.arms.as_ref().filter(|_| record.state == State::Ok) else {
            self.gap = self.last.is_some();
            return None;
        };
        let ids = [ids(&arms.stable), ids(&arms.canary)];
        let gap = std::mem::take(&mut self.gap);
        let last = self.last.replace(Last { t: record.t, weight: record.weight, ids: ids.clone() });
        let lost = match &last {
            Some(last) => gap && (last.ids != ids || last.weight != record.weight),
            None => true,
        };
        if lost {
            self.known.iter_mut().flat_map(BTreeMap::values_mut).for_each(|known| known.last = None);
        }
        let deltas = self.deltas(arms, slow, lost);
        let last = last.filter(|_| !lost)?;
        Some(Deltas { end: record.t, seconds: record.t - last.t, ..deltas })
    }

    fn deltas(&mut self, arms: &Arms, slow: Option<Slow>, lost: bool) -> Deltas {
        let pods = (arms.canary.len(), arms.stable.len());
        let mut deltas = Deltas { pods, slow: slow.map(|_| Default::default()), ..Deltas::default() };
        for (arm, series) in [&arms.stable, &arms.canary].into_iter().enumerate() {
            let known = &mut self.known[arm];
            for one in series {
                deltas.by_pod |= !one.id.is_empty();
                let pods = known.len() as u32;
                // Only a canary's counters began in this run.
                let first = arm == 1 && !lost && !known.contains_key(&one.id);
                let known = known.entry(one.id.clone()).or_insert(Known { pod: pods, last: None });
                let zero = Series { le: vec![0.0; one.le.len()], ..Series::default() };
                let before = known.last.replace(one.clone()).or(first.then_some(zero));
                let Some(before) = before else { continue };
                let delta = |now: f64, was: f64| if fell(&before, one) { now } else { now - was };
                let (n, x) = (delta(one.req, before.req), delta(one.err, before.err));
                deltas.errors[arm].push(Cell { pod: known.pod, n, x, x_gate: x });
                let Some(slow) = slow else { continue };
                let above = |at: usize| Some((n - delta(*one.le.get(at)?, *before.le.get(at)?)).max(0.0));
                match (above(slow.surely), above(slow.maybe), &mut deltas.slow) {
                    (Some(x), Some(x_gate), Some(cells)) => {
                        cells[arm].push(Cell { pod: known.pod, n, x, x_gate });
                    }
                    _ => deltas.slow = None,
                }
            }
        }
        deltas
    }
}

/// Whether the pod was restarted: its counters fall together.
fn fell(before: &Series, now: &Series) -> bool {
    now.req < before.req || now.err < before.err || now.le.iter().zip(&before.le).any(|(now, was)| now < was)
}

fn ids(series: &[Series]) -> Vec<String> {
    let mut ids: Vec<String> = series.iter().map(|one| one.id.clone()).collect();
    ids.sort_unstable();
    ids
}

/// The buckets that a header's limit lies between.
pub fn slow(header: &Header) -> Option<Slow> {
    Slow::of(&header.les, header.latency_slo_seconds?)
}
