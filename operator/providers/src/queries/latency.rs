//! Histograms that the pods export themselves. Requests above a bound are a counter too.

use std::collections::BTreeMap;

use sluice_core::evidence::{DataState, PodCounters, Trouble};

use super::parts::{Key, invalid};
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

/// Histograms that the pods export, by pod name and bound.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LatencyQuery {
    /// Whose, and under which conditions; `metric` is the histogram without `_bucket`.
    pub pods: PodsQuery,
    /// Requests that take longer are slow, in seconds.
    pub slo_seconds: f64,
}

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

    pub(super) fn counters(&self, series: &[Series]) -> Result<Vec<PodCounters>, Trouble> {
        let parts = self.pods.parts(series, |_| true)?;
        let mut pods: BTreeMap<&Key, Vec<(f64, f64)>> = BTreeMap::new();
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
        if pods.is_empty() {
            return Ok(Vec::new());
        }
        let (surely, maybe) = self.bounds(pods.values())?;
        let counters = pods.iter().map(|(key, buckets)| {
            let at = |bound: f64| {
                let bucket = buckets.iter().find(|(le, _)| *le == bound).map(|(_, count)| *count);
                bucket.ok_or_else(|| {
                    invalid(format!("{} of pod {} has no bucket le={bound}", self.metric(), key.0))
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

    /// The smallest bound at or above the limit, and the largest at or below it, of those that all pods have.
    pub(super) fn bounds<'a>(
        &self,
        pods: impl Iterator<Item = &'a Vec<(f64, f64)>> + Clone,
    ) -> Result<(f64, f64), Trouble> {
        let first = pods.clone().next().map_or(&[][..], Vec::as_slice);
        let everywhere = |le: f64| pods.clone().all(|pod| pod.iter().any(|(other, _)| *other == le));
        let mut common: Vec<f64> =
            first.iter().map(|(le, _)| *le).filter(|le| le.is_finite() && everywhere(*le)).collect();
        common.sort_by(f64::total_cmp);
        let surely = common.iter().find(|le| **le >= self.slo_seconds);
        let maybe = common.iter().rfind(|le| **le <= self.slo_seconds);
        surely.copied().zip(maybe.copied()).ok_or_else(|| {
            let bounds = common.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            Trouble::new(
                DataState::NoCommonBuckets,
                format!(
                    "{} has no bounds around {} s that all pods share, only {}: set sloMilliseconds to one of them, or give \
                     the histogram a bound there",
                    self.metric(),
                    self.slo_seconds,
                    if bounds.is_empty() { "none" } else { &bounds }
                ),
            )
        })
    }
}
