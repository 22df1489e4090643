//! Built-in queries: which PromQL to ask for failed or slow requests, and how its answer becomes counters.
//!
//! Raw counters of both arms are read in one query at one time and subtracted in the core. The same query
//! brings the time of the newest sample and the scrape targets behind each counter, so that both come from the
//! same evaluation: a target that is scraped twice would be counted twice.
//!
//! - **Pods**: counters that the pods export themselves. A pod's name is its ReplicaSet's name, a dash and five
//!   characters, so any scrape that keeps the `pod` label tells the revisions apart without relabelling.
//! - **Latency**: the pods' own histograms, likewise. Requests above a bound are a counter too.
//! - **Traefik**: counters per Service of the Gateway API provider, summed per Traefik instance, because a restart of
//!   one instance would otherwise look like a reset of all.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt::Write as _,
};

use jiff::{SignedDuration, Timestamp};
use sluice_core::evidence::{
    Arm, CODE_LABELS, CodePoint, DataState, Outcome, PodCounters, Sample, Trouble, by_code,
};
use tracing::warn;

use super::{
    excerpt,
    prometheus::{Prometheus, Series},
};

/// Request counter of pods, unless the guard names another.
pub const DEFAULT_METRIC: &str = "http_requests_total";
/// Histogram of pods, without `_bucket`, unless the guard names another.
pub const DEFAULT_HISTOGRAM: &str = "http_request_duration_seconds";
/// Label that tells the two halves of an answer apart.
const PART: &str = "sluice_part";
/// Longest part of a pod's name before the five characters that Kubernetes adds.
const MAX_POD_BASE: usize = 58;

/// Where to count requests.
#[derive(Clone, Debug, PartialEq)]
pub enum RatioQuery {
    /// Counters that the pods export.
    Pods(PodsQuery),
    /// Traefik's counters of the two Services.
    Traefik(TraefikQuery),
    /// Histograms that the pods export.
    Latency(LatencyQuery),
}

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

/// Histograms that the pods export, by pod name and bound.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LatencyQuery {
    /// Whose, and under which conditions; `metric` is the histogram without `_bucket`.
    pub pods: PodsQuery,
    /// Requests that take longer are slow, in seconds.
    pub slo_seconds: f64,
}

/// Traefik's counters, by Service of a route.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TraefikQuery {
    /// Namespace of routes and Services.
    pub namespace: String,
    /// Names of the HTTPRoutes.
    pub routes: Vec<String>,
    /// Whether both Services lead to the canary: so it is from its promotion on.
    pub promoted: bool,
    /// Service of the stable revision, `X-stable`.
    pub stable_service: String,
    /// Service of the canary, `X-canary`.
    pub canary_service: String,
}

/// Asks at `at` and reads the answer.
pub async fn ask(prometheus: &Prometheus, query: &RatioQuery, at: Timestamp) -> Sample {
    // Prometheus counts milliseconds: the sample carries the very time that was asked for.
    let at = Timestamp::from_millisecond(at.as_millisecond()).unwrap_or(at);
    let counters = async { query.counters(&prometheus.instant(&query.promql()?, at).await?) };
    let outcome = counters.await.map_or_else(Outcome::Trouble, Outcome::Counters);
    Sample { at, outcome }
}

/// Windows of the hour before the start at a scrape interval of 15 s, asked for in parts: an answer for many pods is large.
const HISTORY_WINDOWS: i64 = 240;
const HISTORY_PARTS: i64 = 4;

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
    let promql = query.promql()?;
    let interval = i64::from(interval.max(1));
    let mut samples = VecDeque::new();
    for part in 0..HISTORY_PARTS {
        let windows = HISTORY_WINDOWS / HISTORY_PARTS;
        let before = |windows: i64| end - SignedDuration::from_secs(windows.saturating_mul(interval));
        // Both ends are asked for.
        let range = (before((part + 1) * windows - 1), before(part * windows));
        let times = match prometheus.range(&promql, range, interval as f64).await {
            Ok(times) => times,
            Err(trouble) if trouble.state == DataState::ProviderDown && part == 0 => return Err(trouble),
            Err(trouble) => {
                let (address, message) = (prometheus.address(), trouble.message);
                warn!(address, message, "the record of stable before the start is incomplete");
                break;
            }
        };
        // A time without a series is one before the workload: no trouble of a source that answers.
        for (at, series) in times.into_iter().rev() {
            if let Some(pods) = query.counters(&series).ok().filter(|pods| !pods.is_empty()) {
                samples.push_front(Sample { at, outcome: Outcome::Counters(pods) });
            }
        }
    }
    Ok(samples.into())
}

impl RatioQuery {
    /// The query, or what is wrong with its parameters.
    pub fn promql(&self) -> Result<String, Trouble> {
        match self {
            Self::Pods(query) => query.promql(),
            Self::Traefik(query) => query.promql(),
            Self::Latency(query) => query.promql(),
        }
    }

    /// The counters in an answer to [`RatioQuery::promql`].
    pub fn counters(&self, series: &[Series]) -> Result<Vec<PodCounters>, Trouble> {
        match self {
            Self::Pods(query) => query.counters(series),
            Self::Traefik(query) => query.counters(series),
            Self::Latency(query) => query.counters(series),
        }
    }
}

impl PodsQuery {
    fn metric(&self) -> &str {
        self.metric.as_deref().unwrap_or(DEFAULT_METRIC)
    }

    fn code_labels(&self) -> Vec<&str> {
        self.code_label.as_deref().map_or_else(|| CODE_LABELS.to_vec(), |label| vec![label])
    }

    fn promql(&self) -> Result<String, Trouble> {
        if let Some(label) = self.code_labels().iter().find(|label| !is_label_name(label)) {
            return Err(invalid(format!("codeLabel {label:?} is not the name of a label")));
        }
        let selector = self.selector(self.metric())?;
        Ok(combined(&selector, "pod", &self.code_labels().join(", "), "job, instance"))
    }

    /// The series of `metric` of all pods of both revisions.
    fn selector(&self, metric: &str) -> Result<String, Trouble> {
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
    fn parts<'a>(&self, series: &'a [Series]) -> Result<Parts<'a>, Trouble> {
        let bases = self.bases()?;
        let arm = |pod: &str| pod.len().checked_sub(5).and_then(|at| bases.get(pod.get(..at)?)).copied();
        Parts::split(series, |s| Some((s.label("pod").to_string(), arm(s.label("pod"))?)))
    }

    /// What pod names begin with, and the arm that it stands for.
    fn bases(&self) -> Result<BTreeMap<String, Arm>, Trouble> {
        let mut bases = BTreeMap::new();
        for (names, arm) in [(&self.stable, Arm::Stable), (&self.canary, Arm::Canary)] {
            for name in names {
                // Kubernetes cuts long names to make room for its five characters.
                let base: String = format!("{name}-").chars().take(MAX_POD_BASE).collect();
                if bases.insert(base, arm).is_some_and(|other| other != arm) {
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

    fn counters(&self, series: &[Series]) -> Result<Vec<PodCounters>, Trouble> {
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

impl LatencyQuery {
    fn metric(&self) -> String {
        format!("{}_bucket", self.pods.metric.as_deref().unwrap_or(DEFAULT_HISTOGRAM))
    }

    fn promql(&self) -> Result<String, Trouble> {
        Ok(combined(&self.pods.selector(&self.metric())?, "pod", "le", "job, instance"))
    }

    fn counters(&self, series: &[Series]) -> Result<Vec<PodCounters>, Trouble> {
        let parts = self.pods.parts(series)?;
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
            })
        });
        counters.collect()
    }

    /// The smallest bound at or above the limit, and the largest at or below it, of those that all pods have.
    fn bounds<'a>(
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

impl TraefikQuery {
    fn promql(&self) -> Result<String, Trouble> {
        let routes =
            self.routes.iter().map(|route| regex_escape(&normalized(route))).collect::<Vec<_>>().join("|");
        let services = regex_escape(&self.stable_service) + "|" + &regex_escape(&self.canary_service);
        let namespace = regex_escape(&normalized(&self.namespace));
        // httproute-<namespace>-<route>-gw-<gateway>-ep-<entry point>-<rule>-<hash>-svc-<namespace>-<service>-<index>
        let name = format!(
            "httproute-{namespace}-({routes})-gw-.+-svc-{}-({services})-[0-9]+@kubernetesgateway",
            regex_escape(&self.namespace)
        );
        let selector = format!("traefik_service_requests_total{{service=~{}}}", quote(&name));
        Ok(combined(&selector, "instance, service", "code", "job"))
    }

    fn counters(&self, series: &[Series]) -> Result<Vec<PodCounters>, Trouble> {
        let arm = |service: &str| {
            let (route, _) = service.rsplit_once('@')?.0.rsplit_once('-')?;
            let ends = |name: &str| route.ends_with(&format!("-svc-{}-{name}", self.namespace));
            // `a-stable` must not take what belongs to `x-svc-ns-a-stable`: the longer name is asked first.
            let stable = if self.promoted { Arm::Canary } else { Arm::Stable };
            let mut arms = [(&self.stable_service, stable), (&self.canary_service, Arm::Canary)];
            arms.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
            arms.into_iter().find(|(name, _)| ends(name)).map(|(_, arm)| arm)
        };
        let parts = Parts::split(series, |s| {
            let (instance, service) = (s.label("instance"), s.label("service"));
            // Service names are long, and the id is kept in status: a short hash tells them apart.
            Some((format!("{instance}/{:08x}", fnv1a(service)), arm(service)?))
        })?;
        let mut points = Points::default();
        let metric = "traefik_service_requests_total";
        for (key, series) in &parts.counts {
            let newest = parts.newest_of(key, |targets| {
                format!(
                    "Traefik {} is scraped {} times, by the jobs {}: keep one of them",
                    series.label("instance"),
                    targets.len(),
                    targets.iter().map(|(job, _)| job.as_str()).collect::<Vec<_>>().join(", ")
                )
            })?;
            points.add(key, series.label("code"), series.value, newest, metric)?;
        }
        points.counters()
    }
}

/// Id and arm of a counter.
type Key = (String, Arm);
/// Job and instance of a scrape target.
type Target = (String, String);

/// The two halves of an answer.
struct Parts<'a> {
    counts: Vec<(Key, &'a Series)>,
    newest: BTreeMap<Key, BTreeMap<Target, Timestamp>>,
}

impl<'a> Parts<'a> {
    /// `key` answers `None` for a series that is not ours.
    fn split(series: &'a [Series], key: impl Fn(&Series) -> Option<Key>) -> Result<Self, Trouble> {
        let mut parts = Self { counts: Vec::new(), newest: BTreeMap::new() };
        for series in series {
            let Some(key) = key(series) else { continue };
            if series.label(PART) == "count" {
                parts.counts.push((key, series));
                continue;
            }
            let at = (series.value * 1000.0).round();
            // A saturating cast: NaN is 0, and a nonsense time is refused below or is merely stale.
            let newest = Timestamp::from_millisecond(at as i64).map_err(|_| {
                Trouble::new(
                    DataState::NotANumber,
                    format!("the time of the newest sample is {}", series.value),
                )
            })?;
            let target = (series.label("job").to_string(), series.label("instance").to_string());
            parts.newest.entry(key).or_default().insert(target, newest);
        }
        Ok(parts)
    }

    fn newest_of_pod(&self, key: &Key) -> Result<Timestamp, Trouble> {
        self.newest_of(key, |target| {
            format!(
                "pod {} is scraped {} times, which would count its requests as often: add a matcher such as job={:?}",
                key.0,
                target.len(),
                target[0].0
            )
        })
    }

    fn newest_of(&self, key: &Key, several: impl Fn(&[Target]) -> String) -> Result<Timestamp, Trouble> {
        let targets = self.newest.get(key);
        match targets.map(|targets| (targets.len(), targets.values().max())) {
            Some((1, Some(newest))) => Ok(*newest),
            Some((2.., _)) => {
                let targets: Vec<Target> =
                    targets.into_iter().flatten().map(|(target, _)| target.clone()).collect();
                Err(Trouble::new(DataState::MultipleSeries, several(&targets)))
            }
            _ => Err(invalid(format!("the answer has no sample time for {}", key.0))),
        }
    }
}

/// Counters by code, per arm.
#[derive(Default)]
struct Points {
    stable: Vec<CodePoint>,
    canary: Vec<CodePoint>,
}

impl Points {
    fn add(
        &mut self,
        (id, arm): &Key,
        code: &str,
        value: f64,
        newest_sample: Timestamp,
        metric: &str,
    ) -> Result<(), Trouble> {
        if !is_status_code(code) {
            return Err(invalid(format!(
                "{metric} of {id} has code {:?}, which is no HTTP status code: name another label in codeLabel",
                excerpt(code, 40)
            )));
        }
        let point = CodePoint { id: id.clone(), code: code.into(), value, newest_sample };
        match arm {
            Arm::Stable => self.stable.push(point),
            Arm::Canary => self.canary.push(point),
        }
        Ok(())
    }

    fn counters(&self) -> Result<Vec<PodCounters>, Trouble> {
        let mut counters = by_code(Arm::Stable, &self.stable)?;
        counters.extend(by_code(Arm::Canary, &self.canary)?);
        Ok(counters)
    }
}

/// Sums by id and code, and the time of the newest sample by id and scrape target, in one answer.
fn combined(selector: &str, id: &str, codes: &str, target: &str) -> String {
    let part = |query: String, part: &str| format!(r#"label_replace({query}, "{PART}", "{part}", "", "")"#);
    let counts = part(format!("sum by ({id}, {codes}) ({selector})"), "count");
    let newest = part(format!("max by ({id}, {target}) (timestamp({selector}))"), "newest");
    format!("{counts} or {newest}")
}

fn invalid(message: String) -> Trouble {
    Trouble::new(DataState::QueryError, message)
}

/// `200`, `5xx`, and the `0` and `000` of proxies.
fn is_status_code(code: &str) -> bool {
    let b = code.as_bytes();
    match b {
        b"0" | b"000" => true,
        [b'1'..=b'5', rest @ ..] if rest.len() == 2 => {
            rest.iter().all(u8::is_ascii_digit) || rest.eq_ignore_ascii_case(b"xx")
        }
        _ => false,
    }
}

fn is_metric_name(name: &str) -> bool {
    is_name(name, true)
}

fn is_label_name(name: &str) -> bool {
    is_name(name, false)
}

fn is_name(name: &str, colon: bool) -> bool {
    !name.starts_with(|c: char| c.is_ascii_digit())
        && !name.is_empty()
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || (colon && c == ':'))
}

/// Escapes for RE2, the regular expressions of PromQL.
fn regex_escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if r"\.+*?()|[]{}^$".contains(c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// A PromQL string.
fn quote(text: &str) -> String {
    let escaped = text.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n");
    format!("\"{escaped}\"")
}

/// The form of a route's name in Traefik's names: other characters than letters and digits separate.
fn normalized(name: &str) -> String {
    name.split(|c: char| !c.is_alphanumeric()).filter(|part| !part.is_empty()).collect::<Vec<_>>().join("-")
}

/// FNV-1a: the same in every version of this program, as an id in status has to be.
fn fnv1a(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// Checks `name="value",...`: a condition must not end the selector and go on as another query.
fn check_matchers(matchers: &str) -> Result<(), String> {
    let mut rest = matchers.trim_start();
    loop {
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        if !is_label_name(&rest[..end]) {
            return Err(format!("a label name is expected at {:?}", excerpt(rest, 30)));
        }
        if matches!(&rest[..end], "namespace" | "pod") {
            return Err(format!("{} is already in the query", &rest[..end]));
        }
        rest = rest[end..].trim_start();
        let Some(after) = ["=~", "!~", "!=", "="].iter().find_map(|op| rest.strip_prefix(op)) else {
            return Err(format!("=, !=, =~ or !~ is expected at {:?}", excerpt(rest, 30)));
        };
        rest = after.trim_start();
        rest = after_string(rest)
            .ok_or_else(|| format!("a quoted value is expected at {:?}", excerpt(rest, 30)))?
            .trim_start();
        match rest.strip_prefix(',').map(str::trim_start) {
            Some("") => return Ok(()),
            Some(next) => rest = next,
            None if rest.is_empty() => return Ok(()),
            None => return Err(format!("a comma is expected at {:?}", excerpt(rest, 30))),
        }
    }
}

/// What comes after a quoted string, if `text` begins with one.
fn after_string(text: &str) -> Option<&str> {
    let quote = text.chars().next().filter(|c| matches!(c, '"' | '\'' | '`'))?;
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' if quote != '`' => escaped = true,
            '\n' if quote != '`' => return None,
            c if c == quote => return Some(&text[at + 1..]),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
#[path = "queries_tests.rs"]
mod tests;
