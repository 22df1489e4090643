//! Queries: which PromQL to ask for failed or slow requests or restarts, and how its answer becomes counters; and people's
//! own.
//!
//! Raw counters of both arms are read in one query at one time and subtracted in the core. The same query
//! brings the time of the newest sample and the scrape targets behind each counter, so that both come from the
//! same evaluation: a target that is scraped twice would be counted twice.
//!
//! `pods`, `latency`, `traefik`, `proxy`, `linkerd`, `restarts`, `metric` and `budget` are what can be asked; `parts` reads the two
//! halves of an answer, `promql` writes names and conditions.

pub mod budget;
mod latency;
mod linkerd;
mod metric;
mod parts;
mod pods;
mod promql;
mod proxy;
mod restarts;
mod traefik;

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};

use jiff::{SignedDuration, Timestamp};
use sluice_core::api::{Counted, Plan, RatioSource, RouteRef, Run};
use sluice_core::evidence::{DataState, Outcome, PodCounters, Sample, Trouble};
use tracing::warn;

use crate::prometheus::{Prometheus, Query, Series};
pub use latency::{DEFAULT_HISTOGRAMS, LatencyQuery, Slow};
pub use linkerd::LinkerdQuery;
pub use metric::{MetricQuery, look};
pub use pods::{DEFAULT_METRICS, PodsQuery};
pub use proxy::{Proxy, ProxyQuery};
pub use restarts::RestartsQuery;
pub use traefik::TraefikQuery;

/// Where to count requests.
#[derive(Clone, Debug, PartialEq)]
pub enum RatioQuery {
    /// Counters that the pods export.
    Pods(PodsQuery),
    /// Traefik's counters of the two Services.
    Traefik(TraefikQuery),
    /// Istio's or Envoy's counters of the two Services.
    Proxy(ProxyQuery),
    /// Counters of Linkerd's proxies beside the pods.
    Linkerd(LinkerdQuery),
    /// Histograms that the pods export.
    Latency(LatencyQuery),
    /// Restarts of the pods' containers.
    Restarts(RestartsQuery),
}

/// Whose requests are told apart.
#[derive(Clone, Copy, Debug)]
pub struct Arms<'a> {
    /// Namespace of the rollout.
    pub namespace: &'a str,
    /// ReplicaSet of the stable revision.
    pub stable: &'a str,
    /// ReplicaSet of the canary; none at rest.
    pub canary: Option<&'a str>,
    /// The routes that carry the pair.
    pub routes: &'a [RouteRef],
    /// Whether both Services lead to the canary: so it is from its promotion on.
    pub promoted: bool,
    /// Service of the stable revision.
    pub stable_service: &'a str,
    /// Service of the canary.
    pub canary_service: &'a str,
}

impl<'a> Arms<'a> {
    /// Those of a run. They stay the same: after promotion both Services lead to the new revision, until the run has gone
    /// back and weight 0 was verified.
    pub fn of(namespace: &'a str, run: &'a Run) -> Self {
        Self {
            namespace,
            stable: &run.stable.replica_set,
            canary: Some(&run.canary.replica_set),
            routes: &run.plan.routes,
            promoted: run.released && run.going_back.as_ref().is_none_or(|back| back.verified_at.is_none()),
            stable_service: &run.plan.stable_service,
            canary_service: &run.plan.canary_service,
        }
    }

    /// Those of a workload at rest, if this plan were its next.
    pub fn at_rest(namespace: &'a str, stable: &'a str, plan: &'a Plan) -> Self {
        Self {
            namespace,
            stable,
            canary: None,
            routes: &plan.routes,
            promoted: false,
            stable_service: &plan.stable_service,
            canary_service: &plan.canary_service,
        }
    }
}

/// What a guard asks.
fn of_a_guard(promql: &str) -> Query<'_> {
    Query { promql, correct: "correct query, metric, codeLabel or matchers of the guard" }
}

/// Asks at `at` and reads the answer.
pub async fn ask(prometheus: &Prometheus, query: &RatioQuery, at: Timestamp) -> Sample {
    // Prometheus counts milliseconds: the sample carries the very time that was asked for.
    let at = Timestamp::from_millisecond(at.as_millisecond()).unwrap_or(at);
    let answer = async {
        let series = prometheus.instant(of_a_guard(&query.promql()?), at).await?;
        let query = query.settled(&series)?;
        Ok((query.bound(), query.counters(&series)?))
    };
    match answer.await {
        Ok((bound, pods)) => Sample { at, bound, outcome: Outcome::Counters(pods) },
        Err(trouble) => Sample { at, bound: query.bound(), outcome: Outcome::Trouble(trouble) },
    }
}

/// Windows of the hour before the start at a scrape interval of 15 s, asked for in parts: an answer for many pods is large.
const HISTORY_WINDOWS: i64 = 240;
const HISTORY_PARTS: i64 = 4;
/// How far back [`recent`] looks, in seconds.
const RECENT_SECONDS: i64 = 300;

/// What the counters were in the windows before `end`, `interval` seconds apart, oldest first: the record of stable that
/// a run begins with, and what is known of a run whose state was lost. As much of it as can be had.
///
/// # Errors
/// The provider is down: it may know when it is back.
pub async fn history(
    prometheus: &Prometheus,
    query: &RatioQuery,
    end: Timestamp,
    interval: i32,
) -> Result<Vec<Sample>, Trouble> {
    let windows = HISTORY_WINDOWS / HISTORY_PARTS;
    let mut parts = VecDeque::new();
    let query = &match settled_at(prometheus, query, end).await {
        Ok(query) => query,
        Err(trouble) if trouble.state == DataState::ProviderDown => return Err(trouble),
        Err(_) => return Ok(Vec::new()),
    };
    for part in 0..HISTORY_PARTS {
        // Both ends are asked for.
        match samples(prometheus, query, end, interval, (part + 1) * windows - 1, part * windows).await {
            Ok(samples) => parts.push_front(samples),
            Err(trouble) if trouble.state == DataState::ProviderDown && part == 0 => return Err(trouble),
            Err(trouble) => {
                let (address, message) = (prometheus.address(), trouble.message);
                warn!(address, message, "the record of stable before the start is incomplete");
                break;
            }
        }
    }
    Ok(parts.into_iter().flatten().collect())
}

/// The same; when there is nothing in it, one sample at `end` says why.
///
/// # Errors
/// The provider is down.
pub async fn record(
    prometheus: &Prometheus,
    query: &RatioQuery,
    end: Timestamp,
    interval: i32,
) -> Result<Vec<Sample>, Trouble> {
    let found = history(prometheus, query, end, interval).await?;
    // A range that is empty does not say why; one question at its end does.
    Ok(if found.is_empty() { vec![ask(prometheus, query, end).await] } else { found })
}

/// A query that lacks its bound gets it from the answer at one time.
async fn settled_at<'a>(
    prometheus: &Prometheus,
    query: &'a RatioQuery,
    at: Timestamp,
) -> Result<Cow<'a, RatioQuery>, Trouble> {
    match query.lacks_bound() {
        true => query.settled(&prometheus.instant(of_a_guard(&query.promql()?), at).await?),
        false => Ok(Cow::Borrowed(query)),
    }
}

/// What the counters were in the windows of the last five minutes, oldest first, up to one window before `end`.
///
/// # Errors
/// As those of a question.
pub async fn recent(
    prometheus: &Prometheus,
    query: &RatioQuery,
    end: Timestamp,
    interval: i32,
) -> Result<Vec<Sample>, Trouble> {
    let windows = RECENT_SECONDS / i64::from(interval.max(1));
    let query = &settled_at(prometheus, query, end).await?;
    samples(prometheus, query, end, interval, windows.max(1), 1).await
}

/// The counters of a query that lacks nothing `first` windows before `end`, and so on up to `last` windows before it.
async fn samples(
    prometheus: &Prometheus,
    query: &RatioQuery,
    end: Timestamp,
    interval: i32,
    first: i64,
    last: i64,
) -> Result<Vec<Sample>, Trouble> {
    let interval = i64::from(interval.max(1));
    let before = |windows: i64| end - SignedDuration::from_secs(windows.saturating_mul(interval));
    let range = (before(first), before(last));
    let times = prometheus.range(of_a_guard(&query.promql()?), range, interval as f64).await?;
    // A time without a series is one before the workload: no trouble of a source that answers.
    let counted = |(at, series): (Timestamp, Vec<Series>)| {
        let pods = query.counters(&series).ok().filter(|pods| !pods.is_empty())?;
        Some(Sample { at, bound: query.bound(), outcome: Outcome::Counters(pods) })
    };
    Ok(times.into_iter().filter_map(counted).collect())
}

impl RatioQuery {
    /// What a guard asks for. `created` is when each pod was created, as far as it is known.
    pub fn new(arms: &Arms<'_>, counted: Counted<'_>, created: &BTreeMap<String, Timestamp>) -> Self {
        let pods =
            |metric: &Option<String>, code_label: Option<String>, matchers: &Option<String>| PodsQuery {
                namespace: arms.namespace.to_owned(),
                stable: vec![arms.stable.to_owned()],
                canary: arms.canary.iter().map(|set| (*set).to_owned()).collect(),
                metric: metric.clone(),
                code_label,
                matchers: matchers.clone(),
                created: created.clone(),
            };
        let proxy = |proxy, matchers: &Option<String>| ProxyQuery {
            proxy,
            namespace: arms.namespace.to_owned(),
            promoted: arms.promoted,
            stable_service: arms.stable_service.to_owned(),
            canary_service: arms.canary_service.to_owned(),
            matchers: matchers.clone(),
        };
        match counted {
            Counted::Latency(latency) => Self::Latency(LatencyQuery {
                pods: pods(&latency.metric, None, &latency.matchers),
                slow: match latency.slo_milliseconds {
                    Some(milliseconds) => Slow::Over(f64::from(milliseconds) / 1000.0),
                    None => Slow::OverUsual(None),
                },
            }),
            Counted::Restarts(restarts) => {
                Self::Restarts(RestartsQuery { pods: pods(&None, None, &restarts.matchers) })
            }
            Counted::Errors(ratio) => match ratio.source {
                RatioSource::Pods => {
                    Self::Pods(pods(&ratio.metric, ratio.code_label.clone(), &ratio.matchers))
                }
                RatioSource::Linkerd => Self::Linkerd(LinkerdQuery::new(pods(&None, None, &ratio.matchers))),
                RatioSource::Istio => Self::Proxy(proxy(Proxy::Istio, &ratio.matchers)),
                RatioSource::Envoy => Self::Proxy(proxy(Proxy::Envoy, &ratio.matchers)),
                RatioSource::Traefik => Self::Traefik(TraefikQuery {
                    namespace: arms.namespace.to_owned(),
                    routes: arms.routes.iter().map(|route| route.name.clone()).collect(),
                    promoted: arms.promoted,
                    stable_service: arms.stable_service.to_owned(),
                    canary_service: arms.canary_service.to_owned(),
                }),
            },
        }
    }

    /// The query with the bound that an earlier answer had, where it lacks one.
    #[must_use]
    pub fn with_bound(mut self, known: Option<f64>) -> Self {
        if let Self::Latency(LatencyQuery { slow: Slow::OverUsual(bound), .. }) = &mut self {
            *bound = bound.or(known);
        }
        self
    }

    /// The bound that follows from what is usual for stable, once it is known, in seconds.
    pub fn bound(&self) -> Option<f64> {
        match self {
            Self::Latency(LatencyQuery { slow: Slow::OverUsual(bound), .. }) => *bound,
            _ => None,
        }
    }

    fn lacks_bound(&self) -> bool {
        matches!(self, Self::Latency(LatencyQuery { slow: Slow::OverUsual(None), .. }))
    }

    /// The query with the bound that this answer yields, where it lacks one.
    ///
    /// # Errors
    /// The answer yields none.
    pub fn settled(&self, series: &[Series]) -> Result<Cow<'_, Self>, Trouble> {
        match self {
            Self::Latency(query) if self.lacks_bound() => {
                let bound = query.usual_in(series)?;
                Ok(Cow::Owned(self.clone().with_bound(Some(bound))))
            }
            _ => Ok(Cow::Borrowed(self)),
        }
    }

    /// The query, or what is wrong with its parameters.
    pub fn promql(&self) -> Result<String, Trouble> {
        match self {
            Self::Pods(query) => query.promql(),
            Self::Traefik(query) => query.promql(),
            Self::Proxy(query) => query.promql(),
            Self::Linkerd(query) => query.promql(),
            Self::Latency(query) => query.promql(),
            Self::Restarts(query) => query.promql(),
        }
    }

    /// The counters in an answer to [`RatioQuery::promql`].
    pub fn counters(&self, series: &[Series]) -> Result<Vec<PodCounters>, Trouble> {
        match self {
            Self::Pods(query) => query.counters(series),
            Self::Traefik(query) => query.counters(series),
            Self::Proxy(query) => query.counters(series),
            Self::Linkerd(query) => query.counters(series),
            Self::Latency(query) => query.counters(series),
            Self::Restarts(query) => query.counters(series),
        }
    }
}

#[cfg(test)]
mod tests;
