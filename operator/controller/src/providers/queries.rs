//! Built-in queries for the error ratio: which PromQL to ask, and how its answer becomes counters.
//!
//! Raw counters of both arms are read in one query at one time and subtracted in the core. The same query
//! brings the time of the newest sample and the scrape targets behind each counter, so that both come from the
//! same evaluation: a target that is scraped twice would be counted twice.
//!
//! - **Pods**: counters that the pods export themselves. A pod's name is its ReplicaSet's name, a dash and five
//!   characters, so any scrape that keeps the `pod` label tells the revisions apart without relabelling.
//! - **Traefik**: counters per Service of the Gateway API provider, summed per Traefik instance, because a restart of
//!   one instance would otherwise look like a reset of all.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use jiff::Timestamp;
use sluice_core::evidence::{Arm, CodePoint, DataState, Outcome, PodCounters, Sample, Trouble, by_code};

use super::{
    excerpt,
    prometheus::{Prometheus, Series},
};

/// Request counter of pods, unless the guard names another.
pub const DEFAULT_METRIC: &str = "http_requests_total";
/// Labels in which a status code is looked for, unless the guard names one.
pub const CODE_LABELS: [&str; 3] = ["code", "status", "status_code"];
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

impl RatioQuery {
    /// The query, or what is wrong with its parameters.
    pub fn promql(&self) -> Result<String, Trouble> {
        match self {
            Self::Pods(query) => query.promql(),
            Self::Traefik(query) => query.promql(),
        }
    }

    /// The counters in an answer to [`RatioQuery::promql`].
    pub fn counters(&self, series: &[Series]) -> Result<Vec<PodCounters>, Trouble> {
        match self {
            Self::Pods(query) => query.counters(series),
            Self::Traefik(query) => query.counters(series),
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
        if !is_metric_name(self.metric()) {
            return Err(invalid(format!("metric {:?} is not the name of a metric", self.metric())));
        }
        if let Some(label) = self.code_labels().iter().find(|label| !is_label_name(label)) {
            return Err(invalid(format!("codeLabel {label:?} is not the name of a label")));
        }
        let bases: BTreeSet<String> = self.bases()?.into_keys().collect();
        if bases.is_empty() {
            return Err(Trouble::new(DataState::NoData, "there are no ReplicaSets to measure yet".into()));
        }
        let pods = bases.iter().map(|base| regex_escape(base)).collect::<Vec<_>>().join("|");
        let mut selector = format!(
            "{}{{namespace={},pod=~{}",
            self.metric(),
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
        Ok(combined(&selector, "pod", &self.code_labels().join(", "), "job, instance"))
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
        let bases = self.bases()?;
        let arm = |pod: &str| pod.len().checked_sub(5).and_then(|at| bases.get(pod.get(..at)?)).copied();
        let labels = self.code_labels();
        let parts = Parts::split(series, |s| Some((s.label("pod").to_string(), arm(s.label("pod"))?)))?;
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
            points.add(key, code, series.value, parts.newest_of(key, |target| {
                format!(
                    "pod {} is scraped {} times, which would count its requests as often: add a matcher such as job={:?}",
                    key.0, target.len(), target[0].0
                )
            })?, self.metric())?;
        }
        let mut counters = points.counters()?;
        for pod in &mut counters {
            pod.created = self.created.get(&pod.id).copied();
        }
        Ok(counters)
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
