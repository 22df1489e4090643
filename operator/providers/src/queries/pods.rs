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

use super::parts::{Parts, Points, combined, invalid};
use super::promql::{check_matchers, is_label_name, is_metric_name, quote, regex_escape};
use crate::prometheus::Series;

/// Request counter of pods, unless the guard names another.
pub const DEFAULT_METRIC: &str = "http_requests_total";
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
    /// Counter of requests; default [`DEFAULT_METRIC`].
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
    pub(super) fn metric(&self) -> &str {
        self.metric.as_deref().unwrap_or(DEFAULT_METRIC)
    }

    pub(super) fn code_labels(&self) -> Vec<&str> {
        self.code_label.as_deref().map_or_else(|| CODE_LABELS.to_vec(), |label| vec![label])
    }

    pub(super) fn promql(&self) -> Result<String, Trouble> {
        if let Some(label) = self.code_labels().iter().find(|label| !is_label_name(label)) {
            return Err(invalid(format!("codeLabel {label:?} is not the name of a label")));
        }
        let selector = self.selector(self.metric())?;
        Ok(combined(&selector, "pod", &self.code_labels().join(", "), "job, instance"))
    }

    /// The series of `metric` of all pods of both revisions.
    pub(super) fn selector(&self, metric: &str) -> Result<String, Trouble> {
        if !is_metric_name(metric) {
            return Err(invalid(format!("metric {metric:?} is not the name of a metric")));
        }
        let bases: BTreeSet<String> = self.bases()?.into_keys().collect();
        if bases.is_empty() {
            return Err(Trouble::new(DataState::NoData, "there are no ReplicaSets to measure yet".into()));
        }
        let pods = bases.iter().map(|base| regex_escape(base)).collect::<Vec<_>>().join("|");
        let mut selector = format!(
            "{metric}{{namespace={},pod=~{}",
            quote(&self.namespace),
            quote(&format!("({pods})[a-z0-9]{{5}}"))
        );
        if let Some(matchers) =
            self.matchers.as_deref().map(str::trim).filter(|matchers| !matchers.is_empty())
        {
            check_matchers(matchers).map_err(|problem| {
                invalid(format!(
                    "matchers {matchers:?}: {problem}; write conditions such as job=\"checkout\",path!=\"/healthz\""
                ))
            })?;
            let _ = write!(selector, ",{}", matchers.trim_end_matches(','));
        }
        selector.push('}');
        Ok(selector)
    }

    /// Halves of an answer by pod.
    pub(super) fn parts<'a>(&self, series: &'a [Series]) -> Result<Parts<'a>, Trouble> {
        let bases = self.bases()?;
        let arm = |pod: &str| pod.len().checked_sub(5).and_then(|at| bases.get(pod.get(..at)?)).copied();
        Parts::split(series, |s| Some((s.label("pod").to_string(), arm(s.label("pod"))?)))
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
        let parts = self.parts(series)?;
        let mut points = Points::default();
        for (key, series) in &parts.counts {
            let code = labels.iter().map(|label| series.label(label)).find(|code| !code.is_empty());
            let Some(code) = code else {
                return Err(invalid(format!(
                    "{} of pod {} has no label {}: name the label with the status code in codeLabel",
                    self.metric(),
                    key.0,
                    labels.join(", ")
                )));
            };
            points.add(key, code, series.value, parts.newest_of_pod(key)?, self.metric())?;
        }
        let mut counters = points.counters()?;
        for pod in &mut counters {
            pod.created = self.created.get(&pod.id).copied();
        }
        Ok(counters)
    }
}
