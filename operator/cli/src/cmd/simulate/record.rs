//! A trace out of past counters.
//!
//! The weight of a record is not known, the share of pods is: it stands for the weight, as a native roll of a Deployment
//! spreads requests over pods. Each new weight of a trace begins a step, so the share is rounded down to the weights of
//! a class's steps, and never falls: a pod that restarts begins no step. Weight 100 is reached when the older revision
//! is gone. The weights decide where gates stand and when capital begins to bet, never what is counted.

use std::collections::{BTreeMap, BTreeSet};

use sluice_core::evidence::{Class, classify};
use sluice_core::statistics::Counts;
use sluice_core::trace::counters::{Counters, Slow};
use sluice_core::trace::format::VERSION;
use sluice_core::trace::{Arms, Header, Record, Series as Pod, State, Trace};

use super::find::Rollout;
use super::prometheus::Series;
use super::query::Query;

/// Seconds of a trace before the canary appears.
pub const BASELINE: i64 = 3600;
/// Seconds at weight 100.
pub const WATCHED: i64 = 900;
/// Share of requests by which the latency histogram may miss those of the counter.
const SAME: f64 = 0.05;
/// From this share of records without data on, somebody should look.
const MANY: f64 = 0.2;

/// What a trace is made of.
pub struct Tape<'a> {
    /// The rollout.
    pub rollout: &'a Rollout,
    /// How it was asked for.
    pub query: &'a Query,
    /// First instant, in Unix seconds.
    pub start: i64,
    /// No instant is later.
    pub end: i64,
    /// Seconds between two instants.
    pub scrape: i64,
    /// Weights of the steps in percent, rising to 100.
    pub weights: &'a [i32],
    /// Requests by pod and code.
    pub counts: &'a [Series],
    /// Limit of latency in seconds, and requests by pod and bound.
    pub latency: Option<(f64, &'a [Series])>,
}

/// Counters of a pod at an instant.
#[derive(Clone, Debug, Default)]
struct At {
    req: f64,
    err: f64,
    /// All requests, those that don't count included: what a histogram counts.
    all: f64,
    les: BTreeMap<u64, f64>,
    bad: bool,
}

/// An arm's pods at an instant.
type Pods<'a> = BTreeMap<&'a str, At>;

impl Tape<'_> {
    /// The trace, and what should be known about it. Its id is the caller's.
    ///
    /// # Errors
    /// Why there is none.
    pub fn trace(&self) -> Result<(Trace, Vec<String>), String> {
        let mut notes = Vec::new();
        let mut grid: Vec<[Pods<'_>; 2]> = Vec::new();
        let instants = ((self.end - self.start) / self.scrape + 1).max(0) as usize;
        grid.resize_with(instants, Default::default);
        self.add_counts(&mut grid)?;
        let with = |arm: usize, grid: &[[Pods<'_>; 2]]| grid.iter().rposition(|pods| !pods[arm].is_empty());
        let Some(stable) = with(0, &grid) else {
            return Err(format!("no counters of the older revision {}", self.rollout.stable));
        };
        if with(1, &grid).is_none() {
            return Err(format!("no counters of the newer revision {}", self.rollout.canary));
        }
        grid.truncate(stable + 1 + (WATCHED / self.scrape) as usize);
        let (les, limit) = match self.latency {
            Some((limit, buckets)) => self.add_buckets(&mut grid, limit, buckets, &mut notes),
            None => (Vec::new(), None),
        };
        let records = self.records(&grid, stable, &les);
        let empty = records.iter().filter(|record| record.weight > 0.0 && record.state != State::Ok).count();
        let exposed = records.iter().filter(|record| record.weight > 0.0).count();
        if empty as f64 > MANY * exposed as f64 {
            notes.push(format!(
                "{empty} of {exposed} evaluations have no data: is {} s the scrape interval (--scrape)?",
                self.scrape
            ));
        }
        if records.first().is_none_or(|record| record.weight > 0.0) {
            notes.push("there is no time before it to compare with: the history begins too late".to_owned());
        }
        let header = Header {
            sluice_trace: VERSION,
            id: String::new(),
            scrape_seconds: self.scrape as f64,
            les,
            risk_class: None,
            latency_slo_seconds: limit,
        };
        Ok((Trace { header, records }, notes))
    }

    fn arm(&self, pod: &str) -> Option<usize> {
        let hash = self.query.revision(pod)?;
        [&self.rollout.stable, &self.rollout.canary].iter().position(|arm| *arm == hash)
    }

    fn index(&self, t: i64) -> usize {
        usize::try_from((t - self.start) / self.scrape).unwrap_or(usize::MAX)
    }

    fn add_counts<'a>(&'a self, grid: &mut [[Pods<'a>; 2]]) -> Result<(), String> {
        let labels = &self.query.code_labels;
        for series in self.counts {
            let pod = series.label("pod");
            let Some(arm) = self.arm(pod) else { continue };
            let metric = &self.query.metric;
            let Some(code) = labels.iter().map(|label| series.label(label)).find(|code| !code.is_empty())
            else {
                return Err(format!(
                    "{metric} of pod {pod} has no label {}: name the label with the status code with --code-label",
                    labels.join(", ")
                ));
            };
            if !is_status_code(code) {
                return Err(format!(
                    "{metric} of pod {pod} has code {code:?}, which is no HTTP status code: name another label with \
                     --code-label"
                ));
            }
            let class = classify(code);
            for (t, value) in &series.points {
                let Some(pods) = grid.get_mut(self.index(*t)) else { continue };
                let at = pods[arm].entry(pod).or_default();
                at.bad |= !(value.is_finite() && *value >= 0.0);
                at.all += value;
                if class != Class::NotCounted {
                    at.req += value;
                }
                if class == Class::Bad {
                    at.err += value;
                }
            }
        }
        Ok(())
    }

    /// Adds buckets to the pods that have requests; the bounds that all of them have, and the limit if it can be judged.
    fn add_buckets<'a>(
        &'a self,
        grid: &mut [[Pods<'a>; 2]],
        limit: f64,
        buckets: &'a [Series],
        notes: &mut Vec<String>,
    ) -> (Vec<f64>, Option<f64>) {
        let mut bounds: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
        let (mut seen, mut all) = (0.0, 0.0);
        for series in buckets {
            let pod = series.label("pod");
            let (Some(arm), Ok(le)) = (self.arm(pod), series.label("le").parse::<f64>()) else { continue };
            if le.is_finite() && le >= 0.0 {
                bounds.entry(pod).or_default().insert(le.to_bits());
            }
            let mut last = (0.0, 0.0);
            for (t, value) in &series.points {
                let at = grid.get_mut(self.index(*t)).and_then(|pods| pods[arm].get_mut(pod));
                let Some(at) = at else { continue };
                at.bad |= !(value.is_finite() && *value >= 0.0);
                at.les.insert(le.to_bits(), *value);
                last = (*value, at.all);
            }
            if le == f64::INFINITY {
                seen += last.0;
                all += last.1;
            }
        }
        let mut pods = bounds.into_values();
        let first = pods.next().unwrap_or_default();
        // Bits of floats of at least 0 rise with them.
        let common: Vec<f64> = pods
            .fold(first, |common, own| common.intersection(&own).copied().collect())
            .into_iter()
            .map(f64::from_bits)
            .collect();
        let problem = if common.is_empty() {
            Some("there is no bucket that all pods have".to_owned())
        } else if Slow::of(&common, limit).is_none() {
            Some(format!("no two buckets enclose {limit} s: their bounds are {common:?}"))
        } else if (seen - all).abs() > SAME * all {
            // Requests without a place in the histogram would all look slow.
            Some(format!("the histogram counts {seen} requests where {} counts {all}", self.query.metric))
        } else {
            None
        };
        match problem {
            Some(problem) => {
                notes.push(format!("latency is not judged: {problem}"));
                (Vec::new(), None)
            }
            None => (common, Some(limit)),
        }
    }

    fn records(&self, grid: &[[Pods<'_>; 2]], last_stable: usize, les: &[f64]) -> Vec<Record> {
        let mut weight = 0.0_f64;
        let record = |(index, pods): (usize, &[Pods<'_>; 2])| {
            let [stable, canary] = pods.each_ref().map(BTreeMap::len);
            if canary > 0 {
                let share = 100.0 * canary as f64 / (canary + stable) as f64;
                weight = weight.max(if index > last_stable { 100.0 } else { self.step(share) });
            }
            let [stable, canary] = pods.each_ref().map(|pods| self::pods(pods, les));
            let state = if pods.iter().all(BTreeMap::is_empty) {
                State::NoData
            } else if pods.iter().flat_map(BTreeMap::values).any(|at| at.bad) {
                State::Nan
            } else {
                State::Ok
            };
            Record {
                t: (self.start + index as i64 * self.scrape) as f64,
                weight,
                state,
                arms: (state == State::Ok).then_some(Arms { stable, canary }),
                gauges: BTreeMap::new(),
                queries: BTreeMap::new(),
            }
        };
        let records = grid.iter().enumerate().map(record);
        // The history may begin later than the baseline.
        records.skip_while(|record| record.state == State::NoData).collect()
    }

    /// The weight of the last step that a share reaches; of the first for a smaller one.
    fn step(&self, share: f64) -> f64 {
        let below = self.weights.iter().map(|weight| f64::from(*weight)).filter(|weight| *weight < 100.0);
        let first = below.clone().next().unwrap_or(share);
        below.take_while(|weight| *weight <= share).last().unwrap_or(first)
    }
}

fn pods(pods: &Pods<'_>, les: &[f64]) -> Vec<Pod> {
    let buckets = |at: &At| -> Vec<f64> {
        // All or none: a pod without one of them can't be judged by latency here.
        les.iter().map(|le| at.les.get(&le.to_bits()).copied()).collect::<Option<_>>().unwrap_or_default()
    };
    let pod =
        |(id, at): (&&str, &At)| Pod { id: (*id).to_owned(), req: at.req, err: at.err, le: buckets(at) };
    pods.iter().map(pod).collect()
}

/// Requests and failures of stable and of the canary, from the first exposure up to a time.
pub fn totals(trace: &Trace, until: f64) -> [Counts; 2] {
    let mut counters = Counters::default();
    let mut totals = [Counts::default(); 2];
    for record in trace.records.iter().take_while(|record| record.t <= until) {
        let Some(deltas) = counters.window(record, None).filter(|_| record.weight > 0.0) else { continue };
        for (total, cells) in totals.iter_mut().zip(&deltas.errors) {
            *total = cells.iter().fold(*total, |sum, cell| sum.plus(Counts::new(cell.n, cell.x)));
        }
    }
    totals
}

/// `200`, `5xx`, and the `0` and `000` of proxies.
fn is_status_code(code: &str) -> bool {
    let rest_is_fine = |rest: &[u8]| rest.iter().all(u8::is_ascii_digit) || rest.eq_ignore_ascii_case(b"xx");
    match code.as_bytes() {
        b"0" | b"000" => true,
        [b'1'..=b'5', rest @ ..] if rest.len() == 2 => rest_is_fine(rest),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::find::Ended;
    use super::*;
    use crate::args::{Cli, Command};
    use clap::Parser as _;

    const OLD: &str = "a-7d4f5-2xk9q";
    const NEW: &str = "a-5bd9c-2xk9q";

    fn series(labels: &[(&str, &str)], points: &[(i64, f64)]) -> Series {
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Series { labels, points: points.to_vec() }
    }

    fn counts(extra: &[Series]) -> Vec<Series> {
        let mut all = vec![
            series(&[("pod", OLD), ("code", "200")], &[(15, 100.0), (30, 200.0), (45, 300.0)]),
            series(&[("pod", OLD), ("status", "499")], &[(15, 50.0), (30, 90.0), (45, 90.0)]),
            series(&[("pod", NEW), ("code", "200")], &[(45, 10.0), (60, 30.0), (75, 60.0), (105, 90.0)]),
            series(&[("pod", NEW), ("code", "5xx")], &[(60, 3.0), (75, 3.0), (105, 3.0)]),
            series(&[("pod", "a-worker-2xk9q"), ("code", "200")], &[(15, 1.0)]),
        ];
        all.extend_from_slice(extra);
        all
    }

    fn trace(counts: &[Series], latency: Option<(f64, &[Series])>) -> Result<(Trace, Vec<String>), String> {
        let words = ["kubectl-sluice", "simulate", "--from-prometheus", "http://p", "--workload", "shop/a"];
        let Command::Simulate(args) = Cli::parse_from(words).command else { unreachable!() };
        let (stable, canary) = ("7d4f5".to_owned(), "5bd9c".to_owned());
        let rollout = Rollout { stable, canary, from: 0, to: 300, next: None, ended: Ended::Promoted };
        let query = Query::new(&args.past, None).unwrap();
        let weights = [10, 50, 100];
        Tape {
            rollout: &rollout,
            query: &query,
            start: 0,
            end: 105,
            scrape: 15,
            weights: &weights,
            counts,
            latency,
        }
        .trace()
    }

    #[test]
    fn counters_become_records() {
        let (trace, notes) = trace(&counts(&[]), None).unwrap();
        let told: Vec<String> = trace.lines().skip(1).collect();
        assert_eq!(notes, Vec::<String>::new());
        // What the client gave up is not counted, nothing comes before the data, and a hole is a hole.
        assert_eq!(
            told,
            [
                r#"{"t":15,"weight":0,"state":"ok","arms":{"stable":[{"id":"a-7d4f5-2xk9q","req":100,"err":0}],"canary":[]}}"#,
                r#"{"t":30,"weight":0,"state":"ok","arms":{"stable":[{"id":"a-7d4f5-2xk9q","req":200,"err":0}],"canary":[]}}"#,
                r#"{"t":45,"weight":50,"state":"ok","arms":{"stable":[{"id":"a-7d4f5-2xk9q","req":300,"err":0}],"canary":[{"id":"a-5bd9c-2xk9q","req":10,"err":0}]}}"#,
                r#"{"t":60,"weight":100,"state":"ok","arms":{"stable":[],"canary":[{"id":"a-5bd9c-2xk9q","req":33,"err":3}]}}"#,
                r#"{"t":75,"weight":100,"state":"ok","arms":{"stable":[],"canary":[{"id":"a-5bd9c-2xk9q","req":63,"err":3}]}}"#,
                r#"{"t":90,"weight":100,"state":"nodata"}"#,
                r#"{"t":105,"weight":100,"state":"ok","arms":{"stable":[],"canary":[{"id":"a-5bd9c-2xk9q","req":93,"err":3}]}}"#,
            ]
        );
        assert_eq!(totals(&trace, 75.0), [Counts::new(100.0, 0.0), Counts::new(63.0, 3.0)]);
        assert_eq!(totals(&trace, 45.0)[1], Counts::new(10.0, 0.0));
    }

    #[test]
    fn what_cannot_be_counted_is_named() {
        let nan = [series(&[("pod", OLD), ("code", "503")], &[(30, f64::NAN)])];
        assert_eq!(trace(&counts(&nan), None).unwrap().0.records[1].state, State::Nan);
        let bare = [series(&[("pod", OLD)], &[(30, 1.0)])];
        assert!(trace(&counts(&bare), None).unwrap_err().contains("has no label code, status, status_code"));
        let word = [series(&[("pod", OLD), ("code", "OK")], &[(30, 1.0)])];
        assert!(
            trace(&counts(&word), None).unwrap_err().contains("code \"OK\", which is no HTTP status code")
        );
        let all = counts(&[]);
        assert_eq!(trace(&all[..2], None).unwrap_err(), "no counters of the newer revision 5bd9c");
        assert_eq!(trace(&all[2..], None).unwrap_err(), "no counters of the older revision 7d4f5");
    }

    #[test]
    fn latency_is_judged_by_the_buckets_that_all_pods_have_or_not_at_all() {
        let bucket = |pod, le, points: &[(i64, f64)]| series(&[("pod", pod), ("le", le)], points);
        let old: [(i64, f64); 3] = [(15, 150.0), (30, 290.0), (45, 390.0)];
        let new: [(i64, f64); 3] = [(45, 10.0), (60, 33.0), (75, 63.0)];
        let mut buckets = vec![
            bucket(OLD, "0.1", &old),
            bucket(OLD, "0.5", &old),
            bucket(OLD, "1", &old),
            bucket(OLD, "+Inf", &old),
            bucket(NEW, "0.5", &new),
            bucket(NEW, "1", &new),
            bucket(NEW, "+Inf", &new),
        ];
        let (judged, notes) = trace(&counts(&[]), Some((0.5, &buckets))).unwrap();
        assert_eq!((&judged.header.les, notes), (&vec![0.5, 1.0], vec![]));
        assert_eq!(judged.header.latency_slo_seconds, Some(0.5));
        let note =
            |limit, buckets: &[Series]| trace(&counts(&[]), Some((limit, buckets))).unwrap().1.join("");
        assert_eq!(
            note(5.0, &buckets),
            "latency is not judged: no two buckets enclose 5 s: their bounds are [0.5, 1.0]"
        );
        assert_eq!(note(5.0, &[]), "latency is not judged: there is no bucket that all pods have");
        buckets[6] = bucket(NEW, "+Inf", &[(75, 20.0)]);
        assert_eq!(
            note(0.5, &buckets),
            "latency is not judged: the histogram counts 410 requests where http_requests_total counts 453"
        );
    }
}
