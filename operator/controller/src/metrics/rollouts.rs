//! What is shown of each rollout: made anew from one snapshot at each scrape, so that no series outlives its rollout, guard
//! or phase.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, NoLabelSet},
    metrics::MetricType,
};

use super::seconds;

/// Namespace and name of a rollout.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RolloutKey {
    /// Namespace of the rollout.
    pub namespace: String,
    /// Name of the rollout.
    pub name: String,
}

impl RolloutKey {
    /// Key of `namespace/name`.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

/// Everything shown of one rollout after a pass. Ratios are 0 to 1.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RolloutSnapshot {
    /// Risk class of the run, empty when there is none.
    pub risk_class: &'static str,
    /// Provenance of the run's change, empty when there is none.
    pub provenance: &'static str,
    /// Phase of the rollout.
    pub phase: &'static str,
    /// Share of traffic asked for the canary.
    pub weight_ratio: f64,
    /// Share of requests that met the canary, when it is known.
    pub observed_ratio: Option<f64>,
    /// How much of the step's minima is met, 1 when the next step may start.
    pub gate_progress_ratio: Option<f64>,
    /// Canary requests weighed since the step began.
    pub canary_samples: f64,
    /// Stable requests weighed since the step began.
    pub stable_samples: f64,
    /// One entry per guard.
    pub guards: Vec<GuardSnapshot>,
    /// Why the run stands still now, and since when.
    pub waiting: Option<(&'static str, Timestamp)>,
    /// When the pass ended.
    pub reconciled_at: Timestamp,
}

/// What is shown of one guard.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GuardSnapshot {
    /// Name of the guard.
    pub name: String,
    /// Canary's error ratio since the step began.
    pub canary: Option<f64>,
    /// Stable's error ratio since the step began.
    pub stable: Option<f64>,
    /// Absolute limit of the guard.
    pub max: Option<f64>,
    /// Score of the evidence: the run is aborted at 1.
    pub score: Option<f64>,
    /// How stable's failures cluster: variance over mean.
    pub bursts: Option<f64>,
}

#[derive(Debug, Default)]
pub(super) struct Rollouts {
    entries: Mutex<BTreeMap<RolloutKey, Entry>>,
}

#[derive(Debug, Default)]
pub(super) struct Entry {
    pub snapshot: Option<RolloutSnapshot>,
    pub hold_seconds: BTreeMap<&'static str, f64>,
    pub route_overwrites: u64,
}

impl Entry {
    /// Seconds of each reason, with those of the wait that lasts.
    pub(super) fn hold_seconds(&self, now: Timestamp) -> BTreeMap<&'static str, f64> {
        let mut held = self.hold_seconds.clone();
        if let Some((reason, since)) = self.snapshot.as_ref().and_then(|snapshot| snapshot.waiting) {
            *held.entry(reason).or_default() += now.duration_since(since).as_secs_f64().max(0.0);
        }
        held
    }
}

impl Rollouts {
    pub fn lock(&self) -> MutexGuard<'_, BTreeMap<RolloutKey, Entry>> {
        // Every write under the lock is one assignment: a panic elsewhere leaves no half-written entry.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type Labels<'a> = Vec<(&'a str, &'a str)>;

/// One gauge of the snapshots: name, help, and the samples of one rollout (extra labels and value).
struct SnapshotGauge {
    name: &'static str,
    help: &'static str,
    samples: for<'a> fn(&'a RolloutSnapshot) -> Vec<(Labels<'a>, f64)>,
}

const SNAPSHOT_GAUGES: [SnapshotGauge; 11] = [
    SnapshotGauge {
        name: "rollout_info",
        help: "1 for each rollout: risk class and provenance of its run",
        samples: |s| vec![(vec![("risk_class", s.risk_class), ("provenance", s.provenance)], 1.0)],
    },
    SnapshotGauge {
        name: "rollout_phase",
        help: "1 for the phase that the rollout is in",
        samples: |s| vec![(vec![("phase", s.phase)], 1.0)],
    },
    SnapshotGauge {
        name: "traffic_weight_ratio",
        help: "Share of traffic asked of the router, 0 to 1",
        samples: |s| arms(Some(s.weight_ratio), Some(1.0 - s.weight_ratio)),
    },
    SnapshotGauge {
        name: "traffic_observed_ratio",
        help: "Share of requests that were seen, 0 to 1",
        samples: |s| arms(s.observed_ratio, s.observed_ratio.map(|canary| 1.0 - canary)),
    },
    SnapshotGauge {
        name: "gate_progress_ratio",
        help: "How much of the evidence for the next weight is there, 0 to 1",
        samples: |s| s.gate_progress_ratio.map(|v| (vec![], v)).into_iter().collect(),
    },
    SnapshotGauge {
        name: "evidence_samples",
        help: "Requests weighed since the step began",
        samples: |s| arms(Some(s.canary_samples), Some(s.stable_samples)),
    },
    SnapshotGauge {
        name: "guard_value",
        help: "Value of a guard since the step began: error ratios are 0 to 1",
        samples: |s| {
            let of = |g: &GuardSnapshot| [("canary", g.canary), ("stable", g.stable)];
            let samples = s.guards.iter().flat_map(|g| of(g).map(|(arm, v)| (g.name.as_str(), arm, v)));
            samples.filter_map(|(guard, arm, v)| Some((vec![("guard", guard), ("arm", arm)], v?))).collect()
        },
    },
    SnapshotGauge {
        name: "guard_threshold",
        help: "Absolute limit of a guard",
        samples: |s| {
            let labels = |g| vec![("guard", g), ("bound", "max")];
            s.guards.iter().filter_map(|g| Some((labels(g.name.as_str()), g.max?))).collect()
        },
    },
    SnapshotGauge {
        name: "evidence_score",
        help: "Score of the evidence against the canary: the run is aborted at 1",
        samples: |s| {
            s.guards.iter().filter_map(|g| Some((vec![("guard", g.name.as_str())], g.score?))).collect()
        },
    },
    SnapshotGauge {
        name: "evidence_burst_factor",
        help: "How stable's failures cluster: variance over mean, 1 when they are independent",
        samples: |s| {
            s.guards.iter().filter_map(|g| Some((vec![("guard", g.name.as_str())], g.bursts?))).collect()
        },
    },
    SnapshotGauge {
        name: "last_reconcile_timestamp_seconds",
        help: "When the last pass over the rollout ended",
        samples: |s| vec![(vec![], seconds(s.reconciled_at))],
    },
];

fn arms<'a>(canary: Option<f64>, stable: Option<f64>) -> Vec<(Labels<'a>, f64)> {
    let of = |arm, value: Option<f64>| value.map(|value| (vec![("arm", arm)], value));
    of("canary", canary).into_iter().chain(of("stable", stable)).collect()
}

impl Collector for Rollouts {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let entries = self.lock();
        for gauge in &SNAPSHOT_GAUGES {
            let mut metric = encoder.encode_descriptor(gauge.name, gauge.help, None, MetricType::Gauge)?;
            for (key, entry) in entries.iter() {
                for (extra, value) in entry.snapshot.iter().flat_map(gauge.samples) {
                    metric.encode_family(&labels_of(key, extra))?.encode_gauge(&value)?;
                }
            }
        }
        let help = "Time that the rollout stood still";
        let mut metric = encoder.encode_descriptor("hold_seconds", help, None, MetricType::Counter)?;
        let now = Timestamp::now();
        for (key, entry) in entries.iter() {
            for (reason, value) in entry.hold_seconds(now) {
                let labels = labels_of(key, vec![("reason", reason)]);
                metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, f64>(&value, None)?;
            }
        }
        let help = "Times that somebody else changed our weights on a route";
        let mut metric = encoder.encode_descriptor("route_overwrites", help, None, MetricType::Counter)?;
        for (key, entry) in entries.iter() {
            let labels = labels_of(key, vec![]);
            metric
                .encode_family(&labels)?
                .encode_counter::<NoLabelSet, _, f64>(&entry.route_overwrites, None)?;
        }
        Ok(())
    }
}

fn labels_of<'a>(key: &'a RolloutKey, extra: Labels<'a>) -> Labels<'a> {
    let mut labels = vec![("namespace", key.namespace.as_str()), ("name", key.name.as_str())];
    labels.extend(extra);
    labels
}
