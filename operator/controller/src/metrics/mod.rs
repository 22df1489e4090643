//! What the controller measures of itself and of its rollouts, for Prometheus.
//!
//! Every name starts with `sluice_`. Label values are either fixed words (`&'static str`), so that their number
//! is bounded by the source code, or the names of a rollout and its guards, which `rollouts` shows.

mod rollouts;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use jiff::Timestamp;
use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram, info::Info},
    registry::Registry,
};

use rollouts::Rollouts;
pub use rollouts::{GuardSnapshot, RolloutKey, RolloutSnapshot};

/// Seconds of one pass: from a cached no-op to every write of an abort at its limit.
const PASS_BUCKETS: [f64; 10] = [0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Seconds of an abort. The promise is 2 s to weight 0; 30 s pages somebody.
const ABORT_BUCKETS: [f64; 11] = [0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0, 300.0];
/// Seconds from the first exposure to the decision to go back.
const DETECTION_BUCKETS: [f64; 10] = [1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0, 14_400.0];
/// Seconds of a whole run: a demo takes a minute, the tightest class days.
const RUN_BUCKETS: [f64; 10] =
    [30.0, 120.0, 600.0, 1800.0, 3600.0, 10_800.0, 21_600.0, 86_400.0, 259_200.0, 604_800.0];

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

    /// Failed canary requests beyond stable's own ratio, counted when a run is taken back.
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
            "Failed canary requests beyond stable's own error ratio, in runs that were taken back",
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

fn seconds(at: Timestamp) -> f64 {
    at.as_millisecond() as f64 / 1000.0
}
