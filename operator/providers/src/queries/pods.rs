//! Counters that the pods export themselves.
//!
//! A pod's name is its ReplicaSet's name, a dash and five characters, so any scrape that keeps the `pod` label tells the
//! revisions apart without relabelling.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use jiff::Timestamp;
use sluice_core::evidence::{Arm, CODE_LABELS, DataState, PodCounters, Trouble};

use super::parts::{METRIC, PART, Parts, Points, combined, combined_any, invalid};
use super::promql::{is_label_name, is_metric_name, matchers_of, quote, regex_escape};
use crate::prometheus::Series;

/// Request counters of pods as common client libraries name them: any of them is found, unless the guard names one.
pub const DEFAULT_METRICS: [&str; 6] = [
    "http_requests_total",
    // Ruby's client.
    "http_server_requests_total",
    // prometheus-net.
    "http_requests_received_total",
    // Micrometer: Spring Boot, Quarkus.
    "http_server_requests_seconds_count",
    // OpenTelemetry's conventions.
    "http_server_request_duration_seconds_count",
    // Middleware with a histogram only, such as express-prom-bundle.
    "http_request_duration_seconds_count",
];
/// Longest part of a pod's name before the five characters that Kubernetes adds.
const MAX_POD_BASE: usize = 58;

/// Counters that the pods export, by pod name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodsQuery {
    /// Namespace of the pods.
    pub namespace: String,
    /// Names of the ReplicaSets of the stable revision.
    pub stable: Vec<String>,
    /// Names of the ReplicaSets of the canary.
    pub canary: Vec<String>,
    /// Counter of requests; default any of [`DEFAULT_METRICS`].
    pub metric: Option<String>,
    /// Its label with the status code; default the first of [`CODE_LABELS`] that a series has.
    pub code_label: Option<String>,
    /// More conditions on its labels, as in a PromQL selector without braces.
    pub matchers: Option<String>,
    /// When each pod was created: tells a new pod, which counts from 0, from one that was there before.
    pub created: BTreeMap<String, Timestamp>,
}

/// What the names of a ReplicaSet's pods begin with. Kubernetes cuts long names to make room for its five characters.
pub(super) fn pod_base(replica_set: &str) -> String {
    format!("{replica_set}-").chars().take(MAX_POD_BASE).collect()
}

impl PodsQuery {
    pub(super) fn code_labels(&self) -> Vec<&str> {
        self.code_label.as_deref().map_or_else(|| CODE_LABELS.to_vec(), |label| vec![label])
    }

    pub(super) fn promql(&self) -> Result<String, Trouble> {
        if let Some(label) = self.code_labels().iter().find(|label| !is_label_name(label)) {
            return Err(invalid(format!("codeLabel {label:?} is not the name of a label")));
        }
        self.ask(&self.metrics(&DEFAULT_METRICS, ""), &self.code_labels().join(", "))
    }

    /// The metric that the guard names, or else any of the usual ones; `suffix` belongs to each.
    pub(super) fn metrics(&self, usual: &[&str], suffix: &str) -> Vec<String> {
        let names = self.metric.as_deref().map_or_else(|| usual.to_vec(), |name| vec![name]);
        names.into_iter().map(|name| format!("{name}{suffix}")).collect()
    }

    /// Both halves for these metrics of all pods of both revisions.
    pub(super) fn ask(&self, metrics: &[String], by: &str) -> Result<String, Trouble> {
        if let Some(metric) = metrics.iter().find(|metric| !is_metric_name(metric)) {
            return Err(invalid(format!("metric {metric:?} is not the name of a metric")));
        }
        let conditions = self.conditions()?;
        Ok(match metrics {
            [metric] => combined(&format!("{metric}{{{conditions}}}"), "pod", by, "job, instance"),
            _ => combined_any(metrics, &conditions, "pod", by, "job, instance"),
        })
    }

    /// What all series of the pods have in common.
    pub(super) fn conditions(&self) -> Result<String, Trouble> {
        let bases: BTreeSet<String> = self.bases()?.into_keys().collect();
        if bases.is_empty() {
            return Err(Trouble::new(DataState::NoData, "there are no ReplicaSets to measure yet".into()));
        }
        let pods = bases.iter().map(|base| regex_escape(base)).collect::<Vec<_>>().join("|");
        let mut conditions =
            format!("namespace={},pod=~{}", quote(&self.namespace), quote(&format!("({pods})[a-z0-9]{{5}}")));
        if let Some(matchers) = matchers_of(self.matchers.as_deref())? {
            let _ = write!(conditions, ",{matchers}");
        }
        Ok(conditions)
    }

    /// Halves of an answer by pod. Where several metrics were asked for, only those of the one that a pod has, of the
    /// series that `counts` says can be counted.
    ///
    /// # Errors
    /// A pod has two of the metrics: which of them counts its requests, nobody can know.
    pub(super) fn parts<'a>(
        &self,
        series: &'a [Series],
        counts: impl Fn(&Series) -> bool,
    ) -> Result<Parts<'a>, Trouble> {
        let bases = self.bases()?;
        let mut chosen: BTreeMap<&str, &str> = BTreeMap::new();
        let named = |s: &&Series| s.label(PART) == "count" && !s.label("__name__").is_empty();
        for one in series.iter().filter(named).filter(|one| counts(one)) {
            let (pod, name) = (one.label("pod"), one.label("__name__"));
            let first = *chosen.entry(pod).or_insert(name);
            if first != name {
                return Err(invalid(format!(
                    "pod {pod} has both {} and {}: name the one that counts its requests in metric",
                    first.trim_end_matches("_bucket"),
                    name.trim_end_matches("_bucket")
                )));
            }
        }
        let of_chosen = |s: &Series| {
            let name = if s.label(PART) == "count" { s.label("__name__") } else { s.label(METRIC) };
            chosen.get(s.label("pod")).is_none_or(|chosen| *chosen == name)
        };
        let arm = |pod: &str| pod.len().checked_sub(5).and_then(|at| bases.get(pod.get(..at)?)).copied();
        Parts::split(series, |s| {
            of_chosen(s).then(|| Some((s.label("pod").to_string(), arm(s.label("pod"))?))).flatten()
        })
    }

    /// What pod names begin with, and the arm that it stands for.
    pub(super) fn bases(&self) -> Result<BTreeMap<String, Arm>, Trouble> {
        let mut bases = BTreeMap::new();
        for (names, arm) in [(&self.stable, Arm::Stable), (&self.canary, Arm::Canary)] {
            for name in names {
                if bases.insert(pod_base(name), arm).is_some_and(|other| other != arm) {
                    return Err(invalid(format!(
                        "the names of stable's and the canary's pods begin alike, since ReplicaSet {name} has more \
                         than {} characters: use source Traefik, or a shorter Deployment name",
                        MAX_POD_BASE - 1
                    )));
                }
            }
        }
        Ok(bases)
    }

    pub(super) fn counters(&self, series: &[Series]) -> Result<Vec<PodCounters>, Trouble> {
        let labels = self.code_labels();
        let code = |s: &Series| {
            labels.iter().map(|label| s.label(label)).find(|code| !code.is_empty()).map(str::to_owned)
        };
        let parts = self.parts(series, |s| code(s).is_some())?;
        let mut points = Points::default();
        for (key, series) in &parts.counts {
            let metric = match (&self.metric, series.label("__name__")) {
                (Some(metric), _) => metric,
                (None, "") => DEFAULT_METRICS[0],
                (None, name) => name,
            };
            let Some(code) = code(series) else {
                return Err(invalid(format!(
                    "{metric} of pod {} has no label {}: name the label with the status code in codeLabel, or another \
                     counter in metric",
                    key.0,
                    labels.join(", ")
                )));
            };
            points.add(key, &code, series.value, parts.newest_of_pod(key)?, metric)?;
        }
        let mut counters = points.counters()?;
        for pod in &mut counters {
            pod.created = self.created.get(&pod.id).copied();
        }
        Ok(counters)
    }
}
