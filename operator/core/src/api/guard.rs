//! Guards: the metrics and alerts that can stop a rollout.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::MetricGuard;

/// What a guard does when it trips.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum GuardAction {
    /// Return all traffic to stable and reject the revision.
    #[default]
    Abort,
    /// Keep the weight where it is until the guard is clear again.
    Hold,
    /// Report it only.
    Observe,
}

/// One guard. Exactly one of `errorRatio`, `latency`, `restarts`, `alert` and `metric` is set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", from = "Written")]
pub struct Guard {
    /// Unique in the rollout.
    pub name: String,
    /// What to do when it trips; written or not, it is known here.
    pub action: GuardAction,
    /// Failed requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_ratio: Option<ErrorRatioGuard>,
    /// Slow requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency: Option<LatencyGuard>,
    /// Restarted containers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restarts: Option<RestartsGuard>,
    /// Alerts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alert: Option<AlertGuard>,
    /// A value of a person's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metric: Option<MetricGuard>,
}

/// A guard as people write it.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Written {
    /// Name of the guard, unique in the rollout, at most 63 characters; it appears in events, status and metrics.
    #[schemars(length(min = 1, max = 63))]
    name: String,
    /// What to do when the guard trips. Abort: return all traffic to stable and reject the revision. Hold: keep the
    /// weight where it is until the guard is clear again. Observe: report it only. Default Abort, and Hold for metric and
    /// for latency without sloMilliseconds: nothing bounds how often a value leaves its range by chance, and slower is not
    /// yet broken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "GuardAction")]
    action: Option<GuardAction>,
    /// Share of failed requests: canary against the concurrent stable, and against an absolute limit. Not together
    /// with another kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error_ratio: Option<ErrorRatioGuard>,
    /// Share of slow requests: canary against the concurrent stable. Not together with another kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    latency: Option<LatencyGuard>,
    /// Containers that restart, killed for want of memory among them: canary against the concurrent stable. Not together
    /// with another kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    restarts: Option<RestartsGuard>,
    /// Alerts that fire in Alertmanager or Prometheus. Not together with another kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    alert: Option<AlertGuard>,
    /// A value that a PromQL expression yields, and the range that it should stay in. Not together with another kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    metric: Option<MetricGuard>,
}

impl From<Written> for Guard {
    /// What is not written depends on the kind.
    fn from(written: Written) -> Self {
        let Written { name, action, error_ratio, latency, restarts, alert, metric } = written;
        let usual = latency.as_ref().is_some_and(|latency| latency.slo_milliseconds.is_none());
        let default = if metric.is_some() || usual { GuardAction::Hold } else { GuardAction::Abort };
        Self { name, action: action.unwrap_or(default), error_ratio, latency, restarts, alert, metric }
    }
}

/// Where the request counts of an error ratio come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RatioSource {
    /// Counters that the pods export themselves, told apart by pod name.
    #[default]
    Pods,
    /// Traefik's counters for the two Services of the route.
    Traefik,
    /// Envoy's counters of clusters that are named after the two Services.
    Envoy,
    /// Istio's counters for the two Services, as those who send requests report them.
    Istio,
    /// The counters of Linkerd's proxies beside the pods.
    Linkerd,
}

/// Failed requests as a share of all requests. Failed: codes 5xx and 0; 499 is not counted at all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ErrorRatioGuard {
    /// Where the counts come from. Pods: counters that the pods export themselves, told apart by the label `pod`.
    /// Traefik: Traefik's counters for the two Services of the route. Envoy: `envoy_cluster_upstream_rq` of clusters that
    /// are named after the two Services, alone or with the namespace. Istio: `istio_requests_total` of the two Services, as
    /// gateways and sidecars that send requests report them. Linkerd: `response_total` of the proxies beside the pods.
    /// Default Pods.
    #[serde(default)]
    pub source: RatioSource,
    /// Name of the counter of requests, for source Pods, at most 200 characters. Default whichever the pods have of
    /// `http_requests_total`, `http_server_requests_total`, `http_requests_received_total`,
    /// `http_server_requests_seconds_count`, `http_server_request_duration_seconds_count` and
    /// `http_request_duration_seconds_count`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 200), regex(pattern = r"^[a-zA-Z_:][a-zA-Z0-9_:]*$"))]
    pub metric: Option<String>,
    /// Label of that counter that holds the HTTP status code, for source Pods, at most 100 characters. Default the first of
    /// `code`, `status`, `status_code`, `http_response_status_code` and `http_status_code` that the series have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 100), regex(pattern = r"^[a-zA-Z_][a-zA-Z0-9_]*$"))]
    pub code_label: Option<String>,
    /// PromQL label matchers (without braces) added to the built-in query, for all sources but Traefik, such as
    /// `job="checkout",path!="/healthz"`, at most 500 characters. Default none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 500))]
    pub matchers: Option<String>,
    /// Absolute limit of the canary's error ratio in parts per million, 1 to 1000000 (50000 is 5 %). It has a budget of
    /// false aborts of its own, and counts only while stable is below it. Default none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_ppm: Option<i32>,
    /// Requests of each new pod, of either revision, that are not counted, 0 to 2000, for source Pods: for a service that
    /// fails while it is cold. A fault that only a pod's first requests show is not seen then. Lowered during a run it
    /// counts at once, raised from the next run on. Default 0.
    #[serde(default, skip_serializing_if = "is_zero")]
    #[schemars(range(min = 0, max = 2000))]
    pub warmup_requests: i32,
}

fn is_alertmanager(source: &AlertSource) -> bool {
    *source == AlertSource::Alertmanager
}

fn is_zero(value: &i32) -> bool {
    *value == 0
}

/// Requests that take longer than a bound, as a share of all requests, from a histogram that the pods export themselves.
/// Between two bounds of the histogram what is surely slow counts against the canary, and what may be slow against its
/// promotion. Without a limit of one's own the bound is the one that about half of stable's requests met before the run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LatencyGuard {
    /// Requests that take longer are slow, in milliseconds, 1 to 3600000. Best one of the histogram's bounds; one of them
    /// must be at or above it, and one at or below. Default: the bound of the histogram that is nearest to what half of
    /// stable's requests took before the run, and 5 % more of the canary's may take longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 3_600_000))]
    pub slo_milliseconds: Option<i32>,
    /// Name of the histogram in seconds, without `_bucket`, at most 200 characters. Default whichever the pods have of
    /// `http_request_duration_seconds`, `http_server_requests_seconds` and `http_server_request_duration_seconds`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 200), regex(pattern = r"^[a-zA-Z_:][a-zA-Z0-9_:]*$"))]
    pub metric: Option<String>,
    /// PromQL label matchers (without braces) added to the built-in query, such as `path!="/healthz"`, at most 500
    /// characters. Default none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 500))]
    pub matchers: Option<String>,
    /// Requests of each new pod, of either revision, that are not counted, 0 to 2000: for a service that is slow while it is
    /// cold. A fault that only a pod's first requests show is not seen then. Lowered during a run it counts at once, raised
    /// from the next run on. Default 0.
    #[serde(default, skip_serializing_if = "is_zero")]
    #[schemars(range(min = 0, max = 2000))]
    pub warmup_requests: i32,
}

/// Restarts of the pods' containers per time, from kube-state-metrics. A container that is killed for want of memory restarts
/// too. One restart per pod and day more than stable's is tolerated. It can stop the canary and hold its weight, but needs
/// no restarts for a promotion, and is not judged at weight 100, where no stable pod serves beside the canary.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RestartsGuard {
    /// PromQL label matchers (without braces) added to the built-in query, such as `container!="istio-proxy"`, at most 500
    /// characters. Default none: all containers but init containers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 500))]
    pub matchers: Option<String>,
}

/// What a guard counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted<'a> {
    /// Failed requests.
    Errors(&'a ErrorRatioGuard),
    /// Slow requests.
    Latency(&'a LatencyGuard),
    /// Restarts.
    Restarts(&'a RestartsGuard),
}

impl Counted<'_> {
    /// Whether the source tells pods apart.
    pub fn by_pod(&self) -> bool {
        match self {
            Self::Errors(ratio) => matches!(ratio.source, RatioSource::Pods | RatioSource::Linkerd),
            Self::Latency(_) | Self::Restarts(_) => true,
        }
    }

    /// Requests of a new pod that don't count.
    pub fn warmup_requests(&self) -> i32 {
        match self {
            Self::Errors(ratio) => ratio.warmup_requests,
            Self::Latency(latency) => latency.warmup_requests,
            Self::Restarts(_) => 0,
        }
    }
}

impl Guard {
    /// What it counts; none for one that watches alerts or a value.
    pub fn counted(&self) -> Option<Counted<'_>> {
        let errors = self.error_ratio.as_ref().map(Counted::Errors);
        let latency = self.latency.as_ref().map(Counted::Latency);
        errors.or(latency).or_else(|| self.restarts.as_ref().map(Counted::Restarts))
    }

    /// Requests of a new pod that it does not count, if it counts any.
    pub fn warmup_requests_mut(&mut self) -> Option<&mut i32> {
        let errors = self.error_ratio.as_mut().map(|ratio| &mut ratio.warmup_requests);
        errors.or_else(|| self.latency.as_mut().map(|latency| &mut latency.warmup_requests))
    }
}

/// Who is asked for alerts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum AlertSource {
    /// Alertmanager, which knows of silences.
    #[default]
    Alertmanager,
    /// The Prometheus that evaluates the rules.
    Prometheus,
}

impl AlertSource {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Alertmanager, Self::Prometheus];
}

/// How an alert's label is compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MatchOp {
    /// The label equals the value.
    #[default]
    Equal,
    /// The label differs from the value.
    NotEqual,
    /// The whole label matches the regular expression.
    Matches,
    /// The whole label does not match the regular expression.
    NotMatches,
}

/// One condition on an alert's labels. A missing label counts as the empty string.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AlertMatcher {
    /// Name of the alert's label, at most 100 characters, such as `alertname`.
    #[schemars(length(min = 1, max = 100))]
    pub label: String,
    /// How the label is compared: Equal, NotEqual, Matches (the whole label matches the regular expression) or
    /// NotMatches. Default Equal.
    #[serde(default)]
    pub op: MatchOp,
    /// Value, or for Matches and NotMatches a regular expression (RE2 syntax), at most 300 characters.
    #[schemars(length(max = 300))]
    pub value: String,
}

/// Alerts that count against the canary. An alert that was firing before the revision was exposed does not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AlertGuard {
    /// Who is asked. Alertmanager: its API v2, which knows of silences and of alerts from everywhere. Prometheus: the alerts of
    /// its own rules, for where there is no Alertmanager or it is out of reach; when a rule's condition became true is known
    /// more exactly, and silences are not. Default Alertmanager.
    #[serde(default, skip_serializing_if = "is_alertmanager")]
    pub source: AlertSource,
    /// All of these must match, 1 to 16.
    #[schemars(length(min = 1, max = 16))]
    pub matchers: Vec<AlertMatcher>,
    /// How long the alert has to fire before the guard trips, in seconds, 0 to 3600. Until then the rollout holds.
    /// Default 0.
    #[serde(default)]
    #[schemars(range(min = 0, max = 3600))]
    pub min_firing_seconds: i32,
    /// All of these must match one alert that fires all the time, such as the Watchdog of kube-prometheus, at most 16. When
    /// none does, nothing shows that alerts arrive: the rollout holds, as when the source does not answer. Default none:
    /// silence is taken for health.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub watchdog: Vec<AlertMatcher>,
}
