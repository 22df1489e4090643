//! Histograms that the pods export themselves. Requests above a bound are a counter too.

use std::collections::BTreeMap;

use sluice_core::evidence::{Arm, DataState, PodCounters, Trouble};

use super::parts::{Key, Parts, invalid};
use super::pods::PodsQuery;
use crate::{excerpt, prometheus::Series};

/// Histograms of pods as common client libraries name them, without `_bucket`: any of them is found, unless the guard
/// names one.
pub const DEFAULT_HISTOGRAMS: [&str; 3] = [
    "http_request_duration_seconds",
    // Micrometer, with percentile histograms switched on: Spring Boot, Quarkus.
    "http_server_requests_seconds",
    // OpenTelemetry's conventions, and Ruby's client.
    "http_server_request_duration_seconds",
];

/// Which requests are slow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Slow {
    /// Those that take longer than this, in seconds.
    Over(f64),
    /// Those that take longer than half of stable's do: than this bound of the histogram, in seconds, once it is known.
    OverUsual(Option<f64>),
}

/// Histograms that the pods export, by pod name and bound.
#[derive(Clone, Debug, PartialEq)]
pub struct LatencyQuery {
    /// Whose, and under which conditions; `metric` is the histogram without `_bucket`.
    pub pods: PodsQuery,
    /// What is counted.
    pub slow: Slow,
}

/// Cumulative counts of a pod by bound.
type Buckets = Vec<(f64, f64)>;

impl LatencyQuery {
    /// Its name, for messages.
    pub(super) fn metric(&self) -> String {
        self.pods
            .metric
            .as_deref()
            .map_or_else(|| "the histogram".to_owned(), |name| format!("{name}_bucket"))
    }

    pub(super) fn promql(&self) -> Result<String, Trouble> {
        self.pods.ask(&self.pods.metrics(&DEFAULT_HISTOGRAMS, "_bucket"), "le")
    }

    fn buckets<'a>(&self, parts: &'a Parts<'_>) -> Result<BTreeMap<&'a Key, Buckets>, Trouble> {
        let mut pods: BTreeMap<&Key, Buckets> = BTreeMap::new();
        for (key, series) in &parts.counts {
            let le = match series.label("le") {
                "+Inf" => f64::INFINITY,
                le => le.parse().map_err(|_| {
                    invalid(format!(
                        "{} of pod {} has le {:?}, which is no number",
                        self.metric(),
                        key.0,
                        excerpt(le, 40)
                    ))
                })?,
            };
            pods.entry(key).or_default().push((le, series.value));
        }
        Ok(pods)
    }

    pub(super) fn counters(&self, series: &[Series]) -> Result<Vec<PodCounters>, Trouble> {
        let parts = self.pods.parts(series, |_| true)?;
        let pods = self.buckets(&parts)?;
        if pods.is_empty() {
            return Ok(Vec::new());
        }
        let (surely, maybe) = match self.slow {
            Slow::Over(seconds) => self.bounds(seconds, pods.values())?,
            Slow::OverUsual(Some(bound)) => (bound, bound),
            Slow::OverUsual(None) => {
                let bound = self.usual(&pods)?;
                (bound, bound)
            }
        };
        let counters = pods.iter().map(|(key, buckets)| {
            let at = |bound: f64| {
                count(buckets, bound).ok_or_else(|| {
                    let message = format!("{} of pod {} has no bucket le={bound}", self.metric(), key.0);
                    Trouble::new(DataState::NoCommonBuckets, message)
                })
            };
            let total = at(f64::INFINITY)?;
            Ok(PodCounters {
                id: key.0.clone(),
                arm: key.1,
                total,
                bad: Some((total - at(surely)?).max(0.0)),
                maybe_bad: Some((total - at(maybe)?).max(0.0)),
                newest_sample: parts.newest_of_pod(key)?,
                created: self.pods.created.get(&key.0).copied(),
                out_of_memory: false,
            })
        });
        counters.collect()
    }

    /// The bound of what is usual, from an answer.
    pub(super) fn usual_in(&self, series: &[Series]) -> Result<f64, Trouble> {
        let parts = self.pods.parts(series, |_| true)?;
        self.usual(&self.buckets(&parts)?)
    }

    /// The bound that is nearest to what half of stable's requests take, of those that all pods have. Counted since each of
    /// stable's pods began.
    fn usual(&self, pods: &BTreeMap<&Key, Buckets>) -> Result<f64, Trouble> {
        let stable = || pods.iter().filter(|(key, _)| key.1 == Arm::Stable).map(|(_, buckets)| buckets);
        let within = |bound: f64| stable().filter_map(|buckets| count(buckets, bound)).sum::<f64>();
        let all = within(f64::INFINITY);
        if all <= 0.0 {
            let message =
                "stable has answered no request yet, so what is usual for it is not known".to_owned();
            return Err(Trouble::new(DataState::NoData, message));
        }
        let from_half = |bound: &f64| (within(*bound) / all - 0.5).abs();
        let met = common(pods.values()).into_iter().filter(|bound| within(*bound) > 0.0);
        met.min_by(|one, other| from_half(one).total_cmp(&from_half(other))).ok_or_else(|| {
            let message = format!(
                "{} has no bound that all pods share and that some of stable's requests meet: set sloMilliseconds, or give \
                 the histogram a bound near what half of them take",
                self.metric()
            );
            Trouble::new(DataState::NoCommonBuckets, message)
        })
    }

    /// The smallest bound at or above the limit, and the largest at or below it, of those that all pods have.
    pub(super) fn bounds<'a>(
        &self,
        limit: f64,
        pods: impl Iterator<Item = &'a Buckets> + Clone,
    ) -> Result<(f64, f64), Trouble> {
        let common = common(pods);
        let surely = common.iter().find(|le| **le >= limit);
        let maybe = common.iter().rfind(|le| **le <= limit);
        surely.copied().zip(maybe.copied()).ok_or_else(|| {
            let bounds = common.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            Trouble::new(
                DataState::NoCommonBuckets,
                format!(
                    "{} has no bounds around {limit} s that all pods share, only {}: set sloMilliseconds to one of them, or \
                     give the histogram a bound there",
                    self.metric(),
                    if bounds.is_empty() { "none" } else { &bounds }
                ),
            )
        })
    }
}

fn count(buckets: &Buckets, bound: f64) -> Option<f64> {
    buckets.iter().find(|(le, _)| *le == bound).map(|(_, count)| *count)
}

/// Finite bounds that all pods have, in order.
fn common<'a>(pods: impl Iterator<Item = &'a Buckets> + Clone) -> Vec<f64> {
    let first = pods.clone().next().map_or(&[][..], Vec::as_slice);
    let everywhere = |le: f64| pods.clone().all(|buckets| count(buckets, le).is_some());
    let mut common: Vec<f64> =
        first.iter().map(|(le, _)| *le).filter(|le| le.is_finite() && everywhere(*le)).collect();
    common.sort_by(f64::total_cmp);
    common
}
