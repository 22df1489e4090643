//! Counters of a proxy in front of the two Services: Istio's, and those of Envoy's clusters.
//!
//! Summed per proxy instance, because a restart of one would otherwise look like a reset of all. Istio is read where
//! requests are sent (`reporter="source"`): the receiving side would count each of them again, and does not see what never
//! arrived.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use sluice_core::evidence::{Arm, DataState, PodCounters, Trouble};

use super::parts::{Parts, Points, combined};
use super::promql::{matchers_of, quote, regex_escape};
use super::traefik::fnv1a;
use crate::prometheus::Series;

/// Whose counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Proxy {
    /// `istio_requests_total`, by destination Service.
    #[default]
    Istio,
    /// `envoy_cluster_upstream_rq`, by a cluster that is named after the Service.
    Envoy,
}

impl Proxy {
    fn metric(self) -> &'static str {
        match self {
            Self::Istio => "istio_requests_total",
            Self::Envoy => "envoy_cluster_upstream_rq",
        }
    }

    /// The label that leads to the Service.
    fn service_label(self) -> &'static str {
        match self {
            Self::Istio => "destination_service_name",
            Self::Envoy => "envoy_cluster_name",
        }
    }

    fn code_label(self) -> &'static str {
        match self {
            Self::Istio => "response_code",
            Self::Envoy => "envoy_response_code",
        }
    }
}

/// Counters of a proxy, by Service of the pair.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProxyQuery {
    /// Whose counters.
    pub proxy: Proxy,
    /// Namespace of the Services.
    pub namespace: String,
    /// Whether both Services lead to the canary: so it is from its promotion on.
    pub promoted: bool,
    /// Service of the stable revision, `X-stable`.
    pub stable_service: String,
    /// Service of the canary, `X-canary`.
    pub canary_service: String,
    /// More conditions on the labels, as in a PromQL selector without braces.
    pub matchers: Option<String>,
}

impl ProxyQuery {
    pub(super) fn promql(&self) -> Result<String, Trouble> {
        let services = [&self.stable_service, &self.canary_service].map(|name| regex_escape(name)).join("|");
        let namespace = regex_escape(&self.namespace);
        let (metric, label) = (self.proxy.metric(), self.proxy.service_label());
        let mut selector = match self.proxy {
            Proxy::Istio => format!(
                "{metric}{{reporter=\"source\",destination_service_namespace={},{label}=~{}",
                quote(&self.namespace),
                quote(&services)
            ),
            Proxy::Envoy => {
                // The Service's name alone, or next to its namespace: `shop_web-canary_80`, `...web-canary.shop.svc...`.
                let (before, after) = ("(.*[^a-z0-9-])?", "([^a-z0-9-].*)?");
                let name = format!(
                    "({services})|{before}{namespace}[^a-z0-9-]({services}){after}|{before}({services})[^a-z0-9-]{namespace}{after}"
                );
                format!("{metric}{{{label}=~{}", quote(&name))
            }
        };
        if let Some(matchers) = matchers_of(self.matchers.as_deref())? {
            let _ = write!(selector, ",{matchers}");
        }
        selector.push('}');
        Ok(combined(&selector, &format!("instance, pod, {label}"), self.proxy.code_label(), "job"))
    }

    /// The arm that a Service or a cluster stands for.
    fn arm(&self, name: &str) -> Option<Arm> {
        let words: Vec<&str> =
            name.split(|c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')).collect();
        let next_to = |service: &str| {
            words.windows(2).any(|pair| {
                pair == [self.namespace.as_str(), service] || pair == [service, self.namespace.as_str()]
            })
        };
        let named = |service: &str| match self.proxy {
            Proxy::Istio => name == service,
            Proxy::Envoy => name == service || next_to(service),
        };
        let stable = if self.promoted { Arm::Canary } else { Arm::Stable };
        match (named(&self.stable_service), named(&self.canary_service)) {
            (true, false) => Some(stable),
            (false, true) => Some(Arm::Canary),
            // A cluster with the endpoints of both tells nothing apart.
            _ => None,
        }
    }

    pub(super) fn counters(&self, series: &[Series]) -> Result<Vec<PodCounters>, Trouble> {
        let metric = self.proxy.metric();
        self.scraped_once(series)?;
        let parts = Parts::split(series, |s| {
            let name = s.label(self.proxy.service_label());
            // Names of clusters are long, and the id is kept in status: a short hash tells them apart.
            Some((format!("{}/{:08x}", s.label("instance"), fnv1a(name)), self.arm(name)?))
        })?;
        let mut points = Points::default();
        for (key, series) in &parts.counts {
            let newest = parts.newest_of(key, |targets| {
                let jobs = targets.iter().map(|(job, _)| job.as_str()).collect::<Vec<_>>().join(", ");
                format!(
                    "proxy {} is scraped {} times, by the jobs {jobs}: add a matcher such as job={:?}",
                    series.label("instance"),
                    targets.len(),
                    targets[0].0
                )
            })?;
            points.add(key, series.label(self.proxy.code_label()), series.value, newest, metric)?;
        }
        points.counters()
    }

    /// A proxy shows the same counters at several ports, which would count each request as often.
    fn scraped_once(&self, series: &[Series]) -> Result<(), Trouble> {
        let mut instances: BTreeMap<&str, &str> = BTreeMap::new();
        for one in series.iter().filter(|series| !series.label("pod").is_empty()) {
            let (pod, instance) = (one.label("pod"), one.label("instance"));
            let first = *instances.entry(pod).or_insert(instance);
            if first != instance {
                return Err(Trouble::new(
                    DataState::MultipleSeries,
                    format!(
                        "proxy {pod} is scraped at {first} and {instance}, which would count its requests twice: add a \
                         matcher such as job=\"...\" or keep one of them"
                    ),
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::parts::PART;
    use super::*;
    use jiff::Timestamp;

    fn query(proxy: Proxy) -> ProxyQuery {
        ProxyQuery {
            proxy,
            namespace: "shop".into(),
            promoted: false,
            stable_service: "web-stable".into(),
            canary_service: "web-canary".into(),
            matchers: None,
        }
    }

    fn series(labels: &[(&str, &str)], value: f64) -> Series {
        let labels = labels.iter().map(|(k, v)| ((*k).to_string(), (*v).to_string())).collect();
        Series { labels, value, at: Timestamp::UNIX_EPOCH }
    }

    /// As a gateway of Istio shows them, summed: count and time of the newest sample.
    fn istio(instance: &str, service: &str, code: &str, value: f64) -> [Series; 2] {
        let of = [("instance", instance), ("pod", "gateway-1"), ("destination_service_name", service)];
        let count = [&of[..], &[(PART, "count"), ("response_code", code)]].concat();
        let newest = [&of[..], &[(PART, "newest"), ("job", "istio")]].concat();
        [series(&count, value), series(&newest, 100.0)]
    }

    fn envoy(cluster: &str, code: &str, value: f64) -> [Series; 2] {
        let of = [("instance", "10.0.0.7:9901"), ("envoy_cluster_name", cluster)];
        let count = [&of[..], &[(PART, "count"), ("envoy_response_code", code)]].concat();
        let newest = [&of[..], &[(PART, "newest"), ("job", "envoy")]].concat();
        [series(&count, value), series(&newest, 100.0)]
    }

    fn told(pods: &[PodCounters]) -> Vec<(Arm, f64, Option<f64>)> {
        pods.iter().map(|pod| (pod.arm, pod.total, pod.bad)).collect()
    }

    #[test]
    fn istio_is_asked_where_requests_are_sent() {
        let asked = ProxyQuery { matchers: Some(r#"job="istio""#.into()), ..query(Proxy::Istio) }.promql();
        let selector = r#"istio_requests_total{reporter="source",destination_service_namespace="shop",destination_service_name=~"web-stable|web-canary",job="istio"}"#;
        let (id, part) = ("instance, pod, destination_service_name", "sluice_part");
        let expected = format!(
            r#"label_replace(sum by ({id}, response_code) ({selector}), "{part}", "count", "", "") or label_replace(max by ({id}, job) (timestamp({selector})), "{part}", "newest", "", "")"#
        );
        assert_eq!(asked.expect("a query"), expected);
        let out = ProxyQuery { matchers: Some(r#"job="a"} or vector(1"#.into()), ..query(Proxy::Istio) };
        assert!(out.promql().expect_err("leaves the selector").message.contains("write conditions such as"));
    }

    #[test]
    fn requests_of_istio_are_counted_by_service_and_code() {
        let answer = [
            istio("10.0.0.1:15020", "web-stable", "200", 900.0),
            istio("10.0.0.1:15020", "web-stable", "503", 2.0),
            istio("10.0.0.1:15020", "web-canary", "200", 90.0),
            istio("10.0.0.1:15020", "web-canary", "0", 7.0),
            istio("10.0.0.1:15020", "web-canary", "499", 5.0),
        ]
        .concat();
        let pods = query(Proxy::Istio).counters(&answer).expect("counters");
        assert_eq!(told(&pods), [(Arm::Stable, 902.0, Some(2.0)), (Arm::Canary, 97.0, Some(7.0))]);
        assert!(pods[1].id.starts_with("10.0.0.1:15020/"), "a router instance: {}", pods[1].id);
        let promoted = ProxyQuery { promoted: true, ..query(Proxy::Istio) };
        let pods = promoted.counters(&answer).expect("counters");
        assert!(pods.iter().all(|pod| pod.arm == Arm::Canary), "both Services lead to the canary");
    }

    #[test]
    fn a_proxy_that_is_scraped_twice_is_named() {
        let ports = [
            istio("10.0.0.1:15020", "web-stable", "200", 9.0),
            istio("10.0.0.1:15090", "web-stable", "200", 9.0),
        ]
        .concat();
        let trouble = query(Proxy::Istio).counters(&ports).expect_err("two ports");
        assert_eq!(trouble.state, DataState::MultipleSeries);
        assert!(trouble.message.contains("gateway-1 is scraped at 10.0.0.1:15020 and 10.0.0.1:15090"));
        let mut jobs = istio("10.0.0.1:15020", "web-stable", "200", 9.0).to_vec();
        let mut second = jobs[1].clone();
        second.labels.insert("job".into(), "pods".into());
        jobs.push(second);
        let trouble = query(Proxy::Istio).counters(&jobs).expect_err("two jobs");
        assert!(trouble.message.contains("by the jobs istio, pods"), "{}", trouble.message);
    }

    #[test]
    fn clusters_of_envoy_are_known_by_their_names() {
        let arms = query(Proxy::Envoy);
        for (cluster, arm) in [
            ("web-stable", Some(Arm::Stable)),
            ("web-canary", Some(Arm::Canary)),
            ("shop_web-canary_80", Some(Arm::Canary)),
            ("shop/web-stable/80/da39a3ee5e", Some(Arm::Stable)),
            ("outbound|80||web-canary.shop.svc.cluster.local", Some(Arm::Canary)),
            ("kubernetes/shop/web-stable:80", Some(Arm::Stable)),
            ("other_web-canary_80", None),
            ("shop_my-web-canary_80", None),
            ("shop_web-canary-2_80", None),
            ("workshop_web-canary_80", None),
            ("shop_web-stable_shop_web-canary", None),
            ("httproute/shop/web/rule/0", None),
        ] {
            assert_eq!(arms.arm(cluster), arm, "{cluster}");
        }
        let answer = [
            envoy("shop_web-stable_80", "200", 900.0),
            envoy("shop_web-stable_80", "503", 1.0),
            envoy("shop_web-canary_80", "200", 90.0),
            envoy("httproute/shop/web/rule/0", "200", 5.0),
        ]
        .concat();
        let pods = arms.counters(&answer).expect("counters");
        assert_eq!(told(&pods), [(Arm::Stable, 901.0, Some(1.0)), (Arm::Canary, 90.0, None)]);
    }
}
