//! What is asked of Prometheus, and which revision a pod belongs to.
//!
//! Everything is asked by range queries whose step is the distance of the instants that are wanted, so each point is an
//! instant query at an aligned time. A plain selector would look back up to five minutes and let a series that ended
//! go on as flat, unless Prometheus marked its end, which remote storages don't all keep. So every selector has a range
//! of its own, a whole step for presence and two scrapes for counters: a series is missing as soon as its newest sample
//! is older, and one scrape that fails hides nothing. Two scrapes of a pod that is gone count no requests.

use sluice_core::digest::NAME_ALPHABET;
use sluice_core::evidence::CODE_LABELS;

use super::find::STEP;
use crate::args::Past;
use crate::fail::Failure;

/// Characters after the hash.
const POD: usize = 5;

/// The queries for a workload.
#[derive(Clone, Debug)]
pub struct Query {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The counter of requests.
    pub metric: String,
    /// Labels that may carry the status code.
    pub code_labels: Vec<String>,
    matchers: String,
}

impl Query {
    /// The queries that the command line asks for.
    pub fn new(args: &Past, namespace: Option<&str>) -> Result<Self, Failure> {
        let workload = args.workload.as_deref().unwrap_or_default();
        let (namespace, name) = match (workload.split_once('/'), namespace) {
            (Some((namespace, name)), _) => (namespace, name),
            (None, Some(namespace)) => (namespace, workload),
            (None, None) => ("", workload),
        };
        let is_name = |text: &str| {
            !text.is_empty()
                && text
                    .chars()
                    .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.'))
        };
        if !is_name(namespace) || !is_name(name) {
            return Err(Failure::usage(format!(
                "--workload {workload:?}: write the namespace and the name of the Deployment, such as shop/checkout"
            )));
        }
        let latency = args.latency_metric.iter().map(|metric| ("--latency-metric", metric));
        for (flag, metric) in std::iter::once(("--metric", &args.metric)).chain(latency) {
            if !is_identifier(metric, true) {
                return Err(Failure::usage(format!(
                    "{flag} {metric:?}: write the name of a metric; conditions on its labels go into --matchers"
                )));
            }
        }
        if let Some(label) = args.code_label.as_ref().filter(|label| !is_identifier(label, false)) {
            return Err(Failure::usage(format!("--code-label {label:?}: write the name of a label")));
        }
        let matchers = args.matchers.as_deref().unwrap_or_default().trim();
        let matchers =
            matchers.trim_start_matches('{').trim_end_matches('}').trim_end_matches(',').to_owned();
        let code_labels = match &args.code_label {
            Some(label) => vec![label.clone()],
            None => CODE_LABELS.map(str::to_owned).to_vec(),
        };
        Ok(Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            metric: args.metric.clone(),
            code_labels,
            matchers,
        })
    }

    /// A selector of the workload's pods.
    pub fn selector(&self, metric: &str) -> String {
        let name = self.name.replace('.', "\\\\.");
        let pods = format!("{name}-[{NAME_ALPHABET}]{{1,10}}-[{NAME_ALPHABET}]{{{POD}}}");
        let matchers = if self.matchers.is_empty() { String::new() } else { format!(",{}", self.matchers) };
        format!("{metric}{{namespace=\"{}\",pod=~\"{pods}\"{matchers}}}", self.namespace)
    }

    /// Samples of each pod's counter, and so its presence, in the step before each point. By scrape target: a pod that
    /// has two of them would count twice.
    pub fn presence(&self) -> String {
        format!("max by (pod, job, instance) (count_over_time({}[{STEP}s]))", self.selector(&self.metric))
    }

    /// Each pod's requests by code.
    pub fn counts(&self, scrape: i64) -> String {
        self.newest(&format!("pod, {}", self.code_labels.join(", ")), &self.metric, scrape)
    }

    /// Each pod's requests by bound of latency.
    pub fn buckets(&self, metric: &str, scrape: i64) -> String {
        self.newest("pod, le", metric, scrape)
    }

    fn newest(&self, by: &str, metric: &str, scrape: i64) -> String {
        format!("sum by ({by}) (last_over_time({}[{}s]))", self.selector(metric), 2 * scrape)
    }

    /// The hash in the name of one of the workload's pods.
    pub fn revision<'a>(&self, pod: &'a str) -> Option<&'a str> {
        let (hash, end) = pod.strip_prefix(&self.name)?.strip_prefix('-')?.split_once('-')?;
        let made_up = |text: &str| !text.is_empty() && text.chars().all(|c| NAME_ALPHABET.contains(c));
        (made_up(hash) && made_up(end) && end.len() == POD).then_some(hash)
    }
}

fn is_identifier(text: &str, colon: bool) -> bool {
    !text.is_empty()
        && !text.starts_with(|c: char| c.is_ascii_digit())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || (colon && c == ':'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Command};
    use clap::Parser as _;

    fn query(words: &[&str]) -> Result<Query, Failure> {
        let start = ["kubectl-sluice", "simulate", "--from-prometheus", "http://p", "--workload"];
        let cli = Cli::try_parse_from(start.iter().chain(words)).unwrap();
        let Command::Simulate(args) = cli.command else { unreachable!("{words:?}") };
        Query::new(&args.past, cli.global.namespace.as_deref())
    }

    #[test]
    fn queries_name_the_pods_of_a_deployment() {
        let query = query(&["shop/check.out", "--matchers", "{job=\"a\",}", "--code-label", "rc"]).unwrap();
        let selector = r#"http_requests_total{namespace="shop",pod=~"check\\.out-[bcdfghjklmnpqrstvwxz2456789]{1,10}-[bcdfghjklmnpqrstvwxz2456789]{5}",job="a"}"#;
        assert_eq!(
            query.presence(),
            format!("max by (pod, job, instance) (count_over_time({selector}[300s]))")
        );
        assert_eq!(query.counts(15), format!("sum by (pod, rc) (last_over_time({selector}[30s]))"));
        assert!(query.buckets("h_bucket", 30).starts_with("sum by (pod, le) (last_over_time(h_bucket{"));
        assert_eq!(query.revision("check.out-7d4f5c6d8b-2xk9q"), Some("7d4f5c6d8b"));
        for other in
            ["check.out-worker-2xk9q", "check.out-7d4f5c6d8b-2xk9qq", "check.out-api-7d4f5-2xk9q", "x"]
        {
            assert_eq!(query.revision(other), None, "{other}");
        }
    }

    #[test]
    fn the_namespace_may_stand_apart_and_mistakes_say_what_to_write() {
        assert_eq!(query(&["checkout", "-n", "shop"]).unwrap().namespace, "shop");
        for words in [
            &["checkout"] as &[&str],
            &["shop/deploy/checkout"],
            &["shop/checkout", "--metric", "a{b=\"c\"}"],
            &["shop/checkout", "--code-label", "a-b"],
        ] {
            let failure = query(words).unwrap_err();
            assert!(failure.text.contains(": write the name"), "{failure}");
        }
    }
}
