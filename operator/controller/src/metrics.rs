//! What the controller measures of itself and of its rollouts, for Prometheus.
//!
//! Every name starts with `sluice_`. Label values are either fixed words (`&'static str`), so that their number
//! is bounded by the source code, or the names of a rollout and its guards; series of a rollout are made anew
//! from one snapshot at each scrape, so none outlives its rollout, guard or phase.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicU64},
    time::Duration,
};

use jiff::Timestamp;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, NoLabelSet, text},
    metrics::{MetricType, counter::Counter, family::Family, gauge::Gauge, histogram::Histogram, info::Info},
    registry::Registry,
};

/// Seconds of one pass: from a cached no-op to every write of an abort at its limit.
const PASS_BUCKETS: [f64; 10] = [0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Seconds of an abort. The promise is 2 s to weight 0; 30 s pages somebody.
const ABORT_BUCKETS: [f64; 11] = [0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0, 300.0];
/// Seconds from the first exposure to the decision to go back.
const DETECTION_BUCKETS: [f64; 10] = [1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0, 14_400.0];
/// Seconds of a whole run: a demo takes a minute, the tightest class days.
const RUN_BUCKETS: [f64; 10] =
    [30.0, 120.0, 600.0, 1800.0, 3600.0, 10_800.0, 21_600.0, 86_400.0, 259_200.0, 604_800.0];

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
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RunLabels {
    outcome: &'static str,
    cause: &'static str,
    risk_class: &'static str,
    provenance: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ProviderLabels {
    provider: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ApiLabels {
    verb: &'static str,
    code: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StreamLabel {
    stream: &'static str,
}

type FloatCounter = Counter<f64, AtomicU64>;
type FloatGauge = Gauge<f64, AtomicU64>;

/// The metrics of this process. Clones share them.
#[derive(Clone)]
pub struct Metrics {
    inner: Arc<Inner>,
}

struct Inner {
    registry: Registry,
    rollouts: Arc<Rollouts>,
    runs: Family<RunLabels, Counter>,
    run_duration: Family<OutcomeLabel, Histogram>,
    harmed: FloatCounter,
    detection: Histogram,
    abort_verified: Histogram,
    reconcile_duration: Histogram,
    reconcile_errors: Family<ReasonLabel, Counter>,
    queue_depth: Gauge,
    leader: Gauge,
    guardrails: Gauge,
    provider_requests: Family<ProviderLabels, Counter>,
    api_requests: Family<ApiLabels, Counter>,
    stream_event: Family<StreamLabel, FloatGauge>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Media type of [`Metrics::encode`].
    pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

    /// All metrics at zero.
    pub fn new() -> Self {
        let run_histogram: fn() -> Histogram = || Histogram::new(RUN_BUCKETS);
        let mut inner = Inner {
            registry: Registry::with_prefix("sluice"),
            rollouts: Arc::default(),
            runs: Family::default(),
            run_duration: Family::new_with_constructor(run_histogram),
            harmed: FloatCounter::default(),
            detection: Histogram::new(DETECTION_BUCKETS),
            abort_verified: Histogram::new(ABORT_BUCKETS),
            reconcile_duration: Histogram::new(PASS_BUCKETS),
            reconcile_errors: Family::default(),
            queue_depth: Gauge::default(),
            leader: Gauge::default(),
            guardrails: Gauge::default(),
            provider_requests: Family::default(),
            api_requests: Family::default(),
            stream_event: Family::default(),
        };
        inner.register();
        Self { inner: Arc::new(inner) }
    }

    /// The text that `/metrics` serves.
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let mut out = String::new();
        text::encode(&mut out, &self.inner.registry)?;
        Ok(out)
    }

    /// Shows this snapshot for the rollout from now on.
    pub fn set_rollout(&self, key: &RolloutKey, snapshot: RolloutSnapshot) {
        self.inner.rollouts.lock().entry(key.clone()).or_default().snapshot = Some(snapshot);
    }

    /// Removes every series of a rollout that is gone.
    pub fn forget_rollout(&self, key: &RolloutKey) {
        self.inner.rollouts.lock().remove(key);
    }

    /// The rollout stood still for `held` because of `reason`, and does not any more. While it does, the snapshot says so.
    pub fn held(&self, key: &RolloutKey, reason: &'static str, held: Duration) {
        *self
            .inner
            .rollouts
            .lock()
            .entry(key.clone())
            .or_default()
            .hold_seconds
            .entry(reason)
            .or_default() += held.as_secs_f64();
    }

    /// Somebody else changed our weights on a route of the rollout.
    pub fn route_overwritten(&self, key: &RolloutKey) {
        self.inner.rollouts.lock().entry(key.clone()).or_default().route_overwrites += 1;
    }

    /// A run ended. `cause` is the reason of the outcome, such as `GuardTripped`.
    pub fn run_ended(
        &self,
        outcome: &'static str,
        cause: &'static str,
        risk_class: &'static str,
        provenance: &'static str,
        took: Duration,
    ) {
        self.inner.runs.get_or_create(&RunLabels { outcome, cause, risk_class, provenance }).inc();
        self.inner.run_duration.get_or_create(&OutcomeLabel { outcome }).observe(took.as_secs_f64());
    }

    /// Failed canary requests beyond stable's own ratio, counted when a run ends.
    pub fn harmed_requests(&self, count: f64) {
        if count.is_finite() && count > 0.0 {
            self.inner.harmed.inc_by(count);
        }
    }

    /// Time from the first exposure to the decision to go back.
    pub fn detected(&self, after: Duration) {
        self.inner.detection.observe(after.as_secs_f64());
    }

    /// Time from the decision to go back to weight 0 verified in the router.
    pub fn abort_verified(&self, after: Duration) {
        self.inner.abort_verified.observe(after.as_secs_f64());
    }

    /// A pass ended.
    pub fn reconciled(&self, took: Duration) {
        self.inner.reconcile_duration.observe(took.as_secs_f64());
    }

    /// A pass failed.
    pub fn reconcile_failed(&self, reason: &'static str) {
        self.inner.reconcile_errors.get_or_create(&ReasonLabel { reason }).inc();
    }

    /// Rollouts that wait for their pass.
    pub fn set_queue_depth(&self, depth: usize) {
        self.inner.queue_depth.set(i64::try_from(depth).unwrap_or(i64::MAX));
    }

    /// Whether this process leads.
    pub fn set_leader(&self, leader: bool) {
        self.inner.leader.set(leader.into());
    }

    /// Whether the admission policies are as the chart made them.
    pub fn set_guardrails_intact(&self, intact: bool) {
        self.inner.guardrails.set(intact.into());
    }

    /// A request to `prometheus` or `alertmanager` ended as `result`.
    pub fn provider_request(&self, provider: &'static str, result: &'static str) {
        self.inner.provider_requests.get_or_create(&ProviderLabels { provider, result }).inc();
    }

    /// A call to the API server ended with the status code, 0 when there was no answer.
    pub fn api_request(&self, verb: &'static str, code: u16) {
        self.inner.api_requests.get_or_create(&ApiLabels { verb, code: code.to_string() }).inc();
    }

    /// A watch delivered something. An old time on a busy cluster means a dead watch.
    pub fn stream_event(&self, stream: &'static str, at: Timestamp) {
        self.inner.stream_event.get_or_create(&StreamLabel { stream }).set(seconds(at));
    }
}

impl Inner {
    fn register(&mut self) {
        let r = &mut self.registry;
        r.register("build", "Version of the controller", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        r.register("runs", "Runs that ended", self.runs.clone());
        r.register("run_duration_seconds", "Time from hold to the end of the run", self.run_duration.clone());
        r.register(
            "harmed_requests",
            "Failed canary requests beyond stable's own error ratio, in runs that ended",
            self.harmed.clone(),
        );
        r.register(
            "detection_seconds",
            "Time from the first exposure to the decision to go back",
            self.detection.clone(),
        );
        r.register(
            "abort_verified_seconds",
            "Time from the decision to go back to weight 0 verified in the router",
            self.abort_verified.clone(),
        );
        r.register("reconcile_duration_seconds", "Time of one pass", self.reconcile_duration.clone());
        r.register("reconcile_errors", "Passes that failed", self.reconcile_errors.clone());
        r.register("queue_depth", "Rollouts that wait for their pass", self.queue_depth.clone());
        r.register("leader", "1 when this process leads", self.leader.clone());
        r.register(
            "guardrails_intact",
            "1 when the admission policies are in place as installed",
            self.guardrails.clone(),
        );
        r.register(
            "provider_requests",
            "Requests to metric and alert providers",
            self.provider_requests.clone(),
        );
        r.register("api_requests", "Calls to the API server; code 0: no answer", self.api_requests.clone());
        r.register(
            "stream_last_event_timestamp_seconds",
            "When a watch last delivered something",
            self.stream_event.clone(),
        );
        r.register_collector(Box::new(self.rollouts.clone()));
    }
}

#[derive(Debug, Default)]
struct Rollouts {
    entries: Mutex<BTreeMap<RolloutKey, Entry>>,
}

#[derive(Debug, Default)]
struct Entry {
    snapshot: Option<RolloutSnapshot>,
    hold_seconds: BTreeMap<&'static str, f64>,
    route_overwrites: u64,
}

impl Entry {
    /// Seconds of each reason, with those of the wait that lasts.
    fn hold_seconds(&self, now: Timestamp) -> BTreeMap<&'static str, f64> {
        let mut held = self.hold_seconds.clone();
        if let Some((reason, since)) = self.snapshot.as_ref().and_then(|snapshot| snapshot.waiting) {
            *held.entry(reason).or_default() += now.duration_since(since).as_secs_f64().max(0.0);
        }
        held
    }
}

impl Rollouts {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<RolloutKey, Entry>> {
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

const SNAPSHOT_GAUGES: [SnapshotGauge; 10] = [
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
        help: "How much of the step's minima is met, 0 to 1",
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

fn seconds(at: Timestamp) -> f64 {
    at.as_millisecond() as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot() -> RolloutSnapshot {
        RolloutSnapshot {
            risk_class: "R3",
            provenance: "GenAIAutonomous",
            phase: "Progressing",
            weight_ratio: 0.25,
            observed_ratio: Some(0.24),
            gate_progress_ratio: Some(0.5),
            canary_samples: 120.0,
            stable_samples: 360.0,
            guards: vec![GuardSnapshot {
                name: "errors".into(),
                canary: Some(0.05),
                stable: Some(0.001),
                max: Some(0.02),
                score: Some(0.7),
            }],
            waiting: None,
            reconciled_at: Timestamp::from_millisecond(1_700_000_000_500).expect("in range"),
        }
    }

    #[test]
    fn a_wait_counts_while_it_lasts_and_not_twice() {
        let begin = Timestamp::from_second(1_700_000_000).expect("in range");
        let mut entry = Entry::default();
        entry.hold_seconds.insert("NoData", 5.0);
        entry.snapshot = Some(RolloutSnapshot { waiting: Some(("NoData", begin)), ..snapshot() });
        let after = |seconds: i64| Timestamp::from_second(1_700_000_000 + seconds).expect("in range");
        assert_eq!(entry.hold_seconds(after(7200))["NoData"], 7205.0);
        assert_eq!(entry.hold_seconds(after(-1))["NoData"], 5.0, "another machine's clock");
        entry.hold_seconds.insert("NoData", 7205.0);
        entry.snapshot = Some(snapshot());
        assert_eq!(entry.hold_seconds(after(9000))["NoData"], 7205.0);
    }

    #[test]
    fn a_rollout_is_shown_whole_and_gone_without_a_trace() {
        let metrics = Metrics::new();
        let (web, api) = (RolloutKey::new("shop", "web"), RolloutKey::new("shop", "api"));
        metrics.set_rollout(&web, snapshot());
        metrics.set_rollout(&api, RolloutSnapshot { phase: "Idle", ..Default::default() });
        metrics.held(&web, "NoData", Duration::from_millis(1500));
        metrics.held(&web, "NoData", Duration::from_millis(500));
        metrics.route_overwritten(&web);
        let text = metrics.encode().expect("encodes");
        let of = r#"namespace="shop",name="web""#;
        for line in [
            format!(r#"sluice_rollout_info{{{of},risk_class="R3",provenance="GenAIAutonomous"}} 1.0"#),
            format!(r#"sluice_rollout_phase{{{of},phase="Progressing"}} 1.0"#),
            format!(r#"sluice_traffic_weight_ratio{{{of},arm="canary"}} 0.25"#),
            format!(r#"sluice_traffic_weight_ratio{{{of},arm="stable"}} 0.75"#),
            format!(r#"sluice_traffic_observed_ratio{{{of},arm="canary"}} 0.24"#),
            format!(r#"sluice_gate_progress_ratio{{{of}}} 0.5"#),
            format!(r#"sluice_evidence_samples{{{of},arm="stable"}} 360.0"#),
            format!(r#"sluice_guard_value{{{of},guard="errors",arm="canary"}} 0.05"#),
            format!(r#"sluice_guard_threshold{{{of},guard="errors",bound="max"}} 0.02"#),
            format!(r#"sluice_evidence_score{{{of},guard="errors"}} 0.7"#),
            format!(r#"sluice_last_reconcile_timestamp_seconds{{{of}}} 1700000000.5"#),
            format!(r#"sluice_hold_seconds_total{{{of},reason="NoData"}} 2.0"#),
            format!(r#"sluice_route_overwrites_total{{{of}}} 1"#),
        ] {
            assert!(text.lines().any(|l| l == line), "missing: {line}\nin:\n{text}");
        }
        metrics.forget_rollout(&web);
        let text = metrics.encode().expect("encodes");
        assert!(!text.contains(r#"name="web""#), "{text}");
        assert!(text.contains(r#"name="api""#), "{text}");
    }

    #[test]
    fn a_new_snapshot_replaces_the_phase_and_keeps_the_counters() {
        let metrics = Metrics::new();
        let web = RolloutKey::new("shop", "web");
        metrics.set_rollout(&web, snapshot());
        metrics.route_overwritten(&web);
        metrics.set_rollout(&web, RolloutSnapshot { phase: "Promoted", guards: vec![], ..snapshot() });
        let text = metrics.encode().expect("encodes");
        assert_eq!(text.matches("sluice_rollout_phase{").count(), 1, "{text}");
        assert!(!text.contains("guard=\"errors\""), "{text}");
        assert!(
            text.contains("sluice_route_overwrites_total{namespace=\"shop\",name=\"web\"} 1\n"),
            "{text}"
        );
    }

    #[test]
    fn outcomes_and_machine_metrics_are_named_as_documented() {
        let metrics = Metrics::new();
        metrics.run_ended("Rejected", "GuardTripped", "R2", "Unknown", Duration::from_secs(90));
        metrics.harmed_requests(12.5);
        metrics.harmed_requests(f64::NAN);
        metrics.harmed_requests(-3.0);
        metrics.detected(Duration::from_secs(20));
        metrics.abort_verified(Duration::from_millis(1200));
        metrics.reconciled(Duration::from_millis(3));
        metrics.reconcile_failed("TimedOut");
        metrics.set_queue_depth(4);
        metrics.set_leader(true);
        metrics.set_guardrails_intact(false);
        metrics.provider_request("prometheus", "ok");
        metrics.api_request("patch", 422);
        metrics.stream_event("rollouts", Timestamp::UNIX_EPOCH);
        let text = metrics.encode().expect("encodes");
        for line in [
            r#"sluice_runs_total{outcome="Rejected",cause="GuardTripped",risk_class="R2",provenance="Unknown"} 1"#,
            r#"sluice_run_duration_seconds_count{outcome="Rejected"} 1"#,
            "sluice_harmed_requests_total 12.5",
            r#"sluice_detection_seconds_bucket{le="15.0"} 0"#,
            r#"sluice_detection_seconds_bucket{le="30.0"} 1"#,
            r#"sluice_abort_verified_seconds_bucket{le="1.5"} 1"#,
            "sluice_reconcile_duration_seconds_count 1",
            r#"sluice_reconcile_errors_total{reason="TimedOut"} 1"#,
            "sluice_queue_depth 4",
            "sluice_leader 1",
            "sluice_guardrails_intact 0",
            r#"sluice_provider_requests_total{provider="prometheus",result="ok"} 1"#,
            r#"sluice_api_requests_total{verb="patch",code="422"} 1"#,
            r#"sluice_stream_last_event_timestamp_seconds{stream="rollouts"} 0.0"#,
        ] {
            assert!(text.lines().any(|l| l == line), "missing: {line}\nin:\n{text}");
        }
        assert!(text.contains(&format!(r#"sluice_build_info{{version="{}"}} 1"#, env!("CARGO_PKG_VERSION"))));
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn label_values_are_escaped() {
        let metrics = Metrics::new();
        let mut s = snapshot();
        s.guards[0].name = "a\"b\\c\n".into();
        metrics.set_rollout(&RolloutKey::new("shop", "web"), s);
        let text = metrics.encode().expect("encodes");
        assert!(text.contains(r#"guard="a\"b\\c\n""#), "{text}");
    }
}
