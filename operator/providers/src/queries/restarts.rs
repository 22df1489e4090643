//! Restarts of the pods' containers, as kube-state-metrics exports them.
//!
//! What restarts are counted in is the time that pods were there: a pod that restarts once an hour is as bad with many
//! requests as with none. A container that is killed for want of memory restarts too, and is told apart by the reason of its
//! last end.

use std::collections::{BTreeMap, BTreeSet};

use sluice_core::evidence::{PodCounters, Trouble};

use super::parts::{Key, PART, combined};
use super::pods::PodsQuery;
use crate::prometheus::Series;

const RESTARTS: &str = "kube_pod_container_status_restarts_total";
const REASON: &str = "kube_pod_container_status_last_terminated_reason";
const CREATED: &str = "kube_pod_created";
/// Values of the label that tells the parts of an answer apart: seconds since a pod was created, and whether one of its
/// containers was last ended for want of memory.
const AGE: &str = "age";
const KILLED: &str = "killed";

/// Restarts by pod name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RestartsQuery {
    /// Whose, and under which conditions on the series of restarts.
    pub pods: PodsQuery,
}

impl RestartsQuery {
    pub(super) fn promql(&self) -> Result<String, Trouble> {
        let conditions = self.pods.conditions()?;
        let restarts = combined(&format!("{RESTARTS}{{{conditions}}}"), "pod", "container", "job, instance");
        let killed = format!("max by (pod) ({REASON}{{reason=\"OOMKilled\",{conditions}}})");
        // What people add is about containers.
        let every = PodsQuery { matchers: None, ..self.pods.clone() }.conditions()?;
        let age = format!("time() - max by (pod) ({CREATED}{{{every}}})");
        let part = |query: &str, part: &str| format!(r#"label_replace({query}, "{PART}", "{part}", "", "")"#);
        Ok(format!("{restarts} or {} or {}", part(&killed, KILLED), part(&age, AGE)))
    }

    pub(super) fn counters(&self, series: &[Series]) -> Result<Vec<PodCounters>, Trouble> {
        let of = |part: &'static str| series.iter().filter(move |series| series.label(PART) == part);
        let ages: BTreeMap<&str, f64> = of(AGE).map(|age| (age.label("pod"), age.value)).collect();
        let killed: BTreeSet<&str> = of(KILLED).filter(|s| s.value > 0.0).map(|s| s.label("pod")).collect();
        let restarts = series.iter().filter(|series| ![AGE, KILLED].contains(&series.label(PART)));
        let restarts: Vec<Series> = restarts.cloned().collect();
        let parts = self.pods.parts(&restarts, |_| true)?;
        let mut pods: BTreeMap<&Key, f64> = BTreeMap::new();
        for (key, series) in &parts.counts {
            *pods.entry(key).or_default() += series.value;
        }
        // A pod whose age is not there yet is not counted yet.
        let counters = pods.into_iter().filter_map(|(key, bad)| {
            let age = *ages.get(key.0.as_str())?;
            Some(parts.newest_of_pod(key).map(|newest_sample| PodCounters {
                id: key.0.clone(),
                arm: key.1,
                total: age.max(0.0),
                bad: Some(bad),
                maybe_bad: None,
                newest_sample,
                created: self.pods.created.get(&key.0).copied(),
                out_of_memory: killed.contains(key.0.as_str()),
            }))
        });
        counters.collect()
    }
}
