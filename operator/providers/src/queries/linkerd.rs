//! Counters of Linkerd's proxies beside the pods.
//!
//! What a pod's proxy received is asked for, not what the pod itself sends. Linkerd's own classification tells a failure: a
//! response that broke off has no status, and a failed gRPC call has status 200.

use sluice_core::evidence::{PodCounters, Trouble};

use super::parts::halves;
use super::pods::PodsQuery;
use crate::prometheus::Series;

const METRIC: &str = "response_total";
/// Label of the code that is counted: 0 for a failure, else the status.
const CODE: &str = "sluice_code";

/// Counters of Linkerd's proxies, by pod name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LinkerdQuery {
    pods: PodsQuery,
}

impl LinkerdQuery {
    /// Whose, and under which conditions; metric and label are Linkerd's.
    pub fn new(pods: PodsQuery) -> Self {
        let (metric, code_label) = (Some(METRIC.to_owned()), Some(CODE.to_owned()));
        Self { pods: PodsQuery { metric, code_label, ..pods } }
    }

    pub(super) fn promql(&self) -> Result<String, Trouble> {
        let selector = format!("{METRIC}{{direction=\"inbound\",{}}}", self.pods.conditions()?);
        let status = format!("label_replace({selector}, \"{CODE}\", \"$1\", \"status_code\", \"(.+)\")");
        let coded = format!("label_replace({status}, \"{CODE}\", \"0\", \"classification\", \"failure\")");
        Ok(halves(&coded, &selector, "pod", CODE, "job, instance"))
    }

    pub(super) fn counters(&self, series: &[Series]) -> Result<Vec<PodCounters>, Trouble> {
        self.pods.counters(series)
    }
}
