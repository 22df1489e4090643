//! What is asked, and what each form of answer means.

use jiff::Timestamp;
use sluice_core::evidence::{Arm, CODE_LABELS, DataState};

use super::parts::PART;
use super::promql::check_matchers;
use super::traefik::fnv1a;
use super::*;
use crate::prometheus::Series;

fn series(labels: &[(&str, &str)], value: f64) -> Series {
    let labels = labels.iter().map(|(k, v)| ((*k).to_string(), (*v).to_string())).collect();
    Series { labels, value, at: Timestamp::UNIX_EPOCH }
}

fn pods() -> PodsQuery {
    PodsQuery {
        namespace: "shop".into(),
        stable: vec!["web-6d4b75cb6d".into()],
        canary: vec!["web-7f9c8d5b4a".into()],
        ..Default::default()
    }
}

fn pod_count(pod: &str, code: &str, value: f64) -> Series {
    series(&[(PART, "count"), ("pod", pod), ("code", code)], value)
}

fn pod_newest(pod: &str, job: &str, at: f64) -> Series {
    series(&[(PART, "newest"), ("pod", pod), ("job", job), ("instance", "10.0.0.1:80")], at)
}

const STABLE: &str = "web-6d4b75cb6d-abcde";
const CANARY: &str = "web-7f9c8d5b4a-x2y3z";

#[test]
fn pods_are_asked_in_one_query() {
    let matchers = Some(r#"job="web", path!~"/health.*","#.into());
    let query =
        RatioQuery::Pods(PodsQuery { metric: Some("http_requests_total".into()), matchers, ..pods() });
    let selector = r#"http_requests_total{namespace="shop",pod=~"(web-6d4b75cb6d-|web-7f9c8d5b4a-)[a-z0-9]{5}",job="web", path!~"/health.*"}"#;
    assert_eq!(
        query.promql().expect("a query"),
        format!(
            r#"label_replace(sum by (pod, code, status, status_code, http_response_status_code, http_status_code) ({selector}), "sluice_part", "count", "", "") or label_replace(max by (pod, job, instance) (timestamp({selector})), "sluice_part", "newest", "", "")"#
        )
    );
}

fn latency(slo_seconds: f64) -> LatencyQuery {
    LatencyQuery { pods: pods(), slow: Slow::Over(slo_seconds) }
}

fn bucket(pod: &str, le: &str, value: f64) -> Series {
    series(&[(PART, "count"), ("pod", pod), ("le", le)], value)
}

/// Histograms of a stable pod and a canary pod, which has one bound more.
fn histograms() -> Vec<Series> {
    let stable = [("0.1", 80.0), ("0.5", 98.0), ("1.0", 99.0), ("+Inf", 100.0)];
    let canary = [("0.1", 5.0), ("0.25", 6.0), ("0.5", 7.0), ("1", 9.0), ("+Inf", 10.0)];
    let buckets = |pod, buckets: &[(&str, f64)]| {
        buckets.iter().map(|(le, value)| bucket(pod, le, *value)).collect::<Vec<_>>()
    };
    let newest = vec![pod_newest(STABLE, "a", 1_700_000_000.0), pod_newest(CANARY, "a", 1_700_000_000.0)];
    [buckets(STABLE, &stable), buckets(CANARY, &canary), newest].concat()
}

#[test]
fn slow_requests_are_asked_for_by_bound() {
    let metric = Some("http_request_duration_seconds".into());
    let named = LatencyQuery { pods: PodsQuery { metric, ..pods() }, slow: Slow::Over(0.5) };
    let promql = RatioQuery::Latency(named).promql().expect("a query");
    let selector = r#"http_request_duration_seconds_bucket{namespace="shop",pod=~"(web-6d4b75cb6d-|web-7f9c8d5b4a-)[a-z0-9]{5}"}"#;
    assert!(promql.starts_with(&format!("label_replace(sum by (pod, le) ({selector})")), "{promql}");
}

#[test]
fn what_is_surely_slow_and_what_may_be_are_told_apart_by_bounds_that_all_pods_have() {
    let counts = |slo| {
        let counters = latency(slo).counters(&histograms()).expect("counters");
        counters.iter().map(|pod| (pod.arm, pod.total, pod.bad, pod.maybe_bad)).collect::<Vec<_>>()
    };
    let at_bound = [(Arm::Canary, 10.0, Some(3.0), Some(3.0)), (Arm::Stable, 100.0, Some(2.0), Some(2.0))];
    let mut seen = counts(0.5);
    seen.sort_by_key(|(arm, ..)| std::cmp::Reverse(*arm));
    assert_eq!(seen, at_bound);
    // Between 0.1 and 0.5, since only the canary knows of 0.25.
    let mut seen = counts(0.25);
    seen.sort_by_key(|(arm, ..)| std::cmp::Reverse(*arm));
    assert_eq!(
        seen,
        [(Arm::Canary, 10.0, Some(3.0), Some(5.0)), (Arm::Stable, 100.0, Some(2.0), Some(20.0))]
    );
    assert_eq!(latency(0.5).counters(&[]), Ok(vec![]));
}

#[test]
fn a_limit_that_the_bounds_do_not_enclose_is_named() {
    for slo in [0.05, 2.0] {
        let trouble = latency(slo).counters(&histograms()).expect_err("no bounds around it");
        assert_eq!(trouble.state, DataState::NoCommonBuckets);
        let says = format!(
            "has no bounds around {slo} s that all pods share, only 0.1, 0.5, 1: set sloMilliseconds"
        );
        assert!(trouble.message.contains(&says), "{}", trouble.message);
    }
    let strange = [bucket(STABLE, "quick", 1.0), pod_newest(STABLE, "a", 1.0)];
    let trouble = latency(0.5).counters(&strange).expect_err("no number");
    assert!(trouble.message.contains("le \"quick\", which is no number"), "{}", trouble.message);
    let endless: Vec<Series> =
        histograms().into_iter().filter(|series| series.label("le") != "+Inf").collect();
    let trouble = latency(0.5).counters(&endless).expect_err("no total");
    assert!(trouble.message.contains("has no bucket le=inf"), "{}", trouble.message);
}

/// One that compares with what is usual for stable.
fn body(bound: Option<f64>) -> RatioQuery {
    RatioQuery::Latency(LatencyQuery { pods: pods(), slow: Slow::OverUsual(bound) })
}

#[test]
fn without_a_limit_the_bound_is_the_one_that_half_of_stables_requests_meet() {
    let slow = |query: &RatioQuery, series: &[Series]| -> BTreeMap<Arm, Option<f64>> {
        query.counters(series).expect("counters").iter().map(|pod| (pod.arm, pod.bad)).collect()
    };
    // Of stable's 100 requests 80 take 0.1 s at most, 98 take 0.5 s.
    let query = body(None);
    let settled = query.settled(&histograms()).expect("a bound");
    assert_eq!((query.bound(), settled.bound()), (None, Some(0.1)));
    assert_eq!(slow(&settled, &histograms()), [(Arm::Stable, Some(20.0)), (Arm::Canary, Some(5.0))].into());
    // Later answers are counted by the bound that is known.
    let known = query.with_bound(Some(0.5));
    assert_eq!(known.settled(&[]).expect("known").bound(), Some(0.5));
    assert_eq!(slow(&known, &histograms()), [(Arm::Stable, Some(2.0)), (Arm::Canary, Some(3.0))].into());
    assert_eq!(known.clone().with_bound(Some(1.0)), known, "the first one is kept");
    let limit = RatioQuery::Latency(latency(0.5));
    assert_eq!(limit.clone().with_bound(Some(0.1)), limit, "a limit of one's own is no such bound");
}

#[test]
fn what_is_usual_for_stable_may_not_be_known() {
    let trouble = |series: &[Series]| body(None).settled(series).expect_err("no bound");
    let canary: Vec<Series> =
        histograms().into_iter().filter(|series| series.label("pod") == CANARY).collect();
    assert_eq!(trouble(&canary).state, DataState::NoData);
    assert_eq!(trouble(&[]).state, DataState::NoData);
    let mut late = histograms();
    late.iter_mut()
        .filter(|s| s.label("pod") == STABLE && s.label("le") != "+Inf")
        .for_each(|s| s.value = 0.0);
    late.retain(|s| s.label(PART) == "count");
    late.push(pod_newest(STABLE, "a", 1_700_000_000.0));
    late.push(pod_newest(CANARY, "a", 1_700_000_000.0));
    let late = trouble(&late);
    assert_eq!(late.state, DataState::NoCommonBuckets);
    assert!(
        late.message.contains("that some of stable's requests meet: set sloMilliseconds"),
        "{}",
        late.message
    );
    // A canary whose histogram has other bounds than the one that is compared.
    let gone = body(Some(0.25)).counters(&histograms()).expect_err("stable has no such bound");
    assert_eq!(gone.state, DataState::NoCommonBuckets);
    assert!(gone.message.contains("has no bucket le=0.25"), "{}", gone.message);
}

#[test]
fn names_are_escaped_for_the_expression_and_the_string() {
    let query = PodsQuery { stable: vec!["web.v1-abc".into()], canary: vec![], ..pods() };
    assert!(query.promql().expect("a query").contains(r#"pod=~"(web\\.v1-abc-)[a-z0-9]{5}""#));
}

#[test]
fn pods_are_counted_by_arm_and_code() {
    let created: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
    let query = PodsQuery { created: [(CANARY.to_string(), created)].into(), ..pods() };
    let counters = query
        .counters(&[
            pod_count(STABLE, "200", 90.0),
            pod_count(STABLE, "503", 10.0),
            pod_count(CANARY, "200", 5.0),
            pod_count(CANARY, "499", 7.0),
            pod_newest(STABLE, "a", 1_700_000_000.5),
            pod_newest(CANARY, "a", 1_700_000_001.0),
            pod_count("other-6d4b75cb6d-abcde", "200", 1.0),
        ])
        .expect("counters");
    let [stable, canary] = &counters[..] else { unreachable!("{counters:?}") };
    assert_eq!(
        (stable.arm, stable.total, stable.bad, stable.created),
        (Arm::Stable, 100.0, Some(10.0), None)
    );
    assert_eq!(stable.newest_sample.as_millisecond(), 1_700_000_000_500);
    assert_eq!(
        (canary.arm, canary.total, canary.bad, canary.created),
        (Arm::Canary, 5.0, None, Some(created))
    );
    assert_eq!(query.counters(&[]), Ok(vec![]), "no data: the core says for which arm it matters");
}

#[test]
fn the_code_is_found_in_any_of_the_usual_labels() {
    for label in CODE_LABELS {
        let count = series(&[(PART, "count"), ("pod", CANARY), (label, "500")], 3.0);
        let counters = pods().counters(&[count, pod_newest(CANARY, "a", 1.0)]).expect("counters");
        assert_eq!(counters[0].bad, Some(3.0), "{label}");
    }
    let query = PodsQuery { code_label: Some("http_status".into()), ..pods() };
    let count = series(&[(PART, "count"), ("pod", CANARY), ("code", "200"), ("http_status", "500")], 3.0);
    let counters = query.counters(&[count, pod_newest(CANARY, "a", 1.0)]).expect("counters");
    assert_eq!(counters[0].bad, Some(3.0), "only the named label counts");
}

#[test]
fn answers_that_can_not_be_counted_say_why() {
    let newest = || pod_newest(CANARY, "a", 1.0);
    let no_label = series(&[(PART, "count"), ("pod", CANARY)], 3.0);
    for (answer, state, says) in [
        (vec![no_label, newest()], DataState::QueryError, "has no label code, status, status_code"),
        (vec![pod_count(CANARY, "OK", 3.0), newest()], DataState::QueryError, "has code \"OK\""),
        (vec![pod_count(CANARY, "200", f64::NAN), newest()], DataState::NotANumber, "NaN"),
        (vec![pod_count(CANARY, "200", f64::INFINITY), newest()], DataState::NotANumber, "inf"),
        (vec![pod_count(CANARY, "200", 3.0)], DataState::QueryError, "no sample time"),
        (
            vec![pod_count(CANARY, "200", 3.0), newest(), pod_newest(CANARY, "b", 1.0)],
            DataState::MultipleSeries,
            "is scraped 2 times",
        ),
        (
            vec![pod_count(CANARY, "200", 3.0), pod_count(CANARY, "200", 3.0), newest()],
            DataState::MultipleSeries,
            "several series",
        ),
        (
            vec![pod_count(CANARY, "200", 3.0), pod_newest(CANARY, "a", 1e300)],
            DataState::NotANumber,
            "newest sample",
        ),
    ] {
        let trouble = pods().counters(&answer).expect_err(says);
        assert_eq!(trouble.state, state, "{}", trouble.message);
        assert!(trouble.message.contains(says), "{}", trouble.message);
    }
}

#[test]
fn long_names_are_cut_as_kubernetes_cuts_them() {
    let long = "a".repeat(50);
    let query = PodsQuery {
        stable: vec![format!("{long}-6d4b75cb")],
        canary: vec![format!("{long}-7f9c8d5b")],
        ..pods()
    };
    // 50 + 1 + 8 characters and the dash are two too many: the base ends within the hash.
    let pod = format!("{long}-6d4b75cabcde");
    let base: String = format!("{long}-6d4b75cb-").chars().take(58).collect();
    assert!(pod.starts_with(&base));
    assert!(query.promql().expect("a query").contains(&format!("({base}|")));
    let counters =
        query.counters(&[pod_count(&pod, "200", 1.0), pod_newest(&pod, "a", 1.0)]).expect("counters");
    assert_eq!(counters[0].arm, Arm::Stable);

    let alike = PodsQuery {
        stable: vec![format!("{}-6d4b", "a".repeat(60))],
        canary: vec![format!("{}-7f9c", "a".repeat(60))],
        ..pods()
    };
    let trouble = alike.promql().expect_err("ambiguous");
    assert!(trouble.message.contains("begin alike"), "{}", trouble.message);
}

#[test]
fn no_replica_sets_are_no_data_and_not_every_pod() {
    let none = PodsQuery { stable: vec![], canary: vec![], ..pods() };
    assert_eq!(none.promql().map_err(|t| t.state), Err(DataState::NoData));
}

#[test]
fn matchers_can_not_leave_the_selector() {
    for good in [
        r#"job="a""#,
        r#"job="a",path!="/healthz""#,
        r#" job = "a" , x=~'b|c', "#,
        r#"a!~`x\`"#,
        r#"a="x\"} or vector(1) #""#,
    ] {
        assert_eq!(check_matchers(good), Ok(()), "{good}");
    }
    for (bad, says) in [
        (r#"job="a"} or vector(1) or x{b="c""#, "a comma is expected"),
        (r#"job="a"#, "a quoted value"),
        (r#"job=a"#, "a quoted value"),
        (r#"job"#, "is expected"),
        (r#"="a""#, "a label name"),
        (r#"job="a",,b="c""#, "a label name"),
        (r#"{job="a"}"#, "a label name"),
        (r#"1job="a""#, "a label name"),
        (r#"pod="x""#, "already in the query"),
        ("a=\"x\ny\"", "a quoted value"),
        (r#"a="b" # comment"#, "a comma is expected"),
    ] {
        let problem = check_matchers(bad).expect_err(bad);
        assert!(problem.contains(says), "{bad}: {problem}");
        let query = PodsQuery { matchers: Some(bad.into()), ..pods() };
        let trouble = query.promql().expect_err(bad);
        assert_eq!(trouble.state, DataState::QueryError);
        assert!(trouble.message.contains("write conditions such as"), "{}", trouble.message);
    }
}

#[test]
fn names_of_metric_and_label_are_checked() {
    for metric in ["", "1a", "a-b", "a{b=\"c\"}"] {
        assert!(PodsQuery { metric: Some(metric.into()), ..pods() }.promql().is_err(), "{metric}");
    }
    for label in ["", "a:b", "a b", "code) (x"] {
        assert!(PodsQuery { code_label: Some(label.into()), ..pods() }.promql().is_err(), "{label}");
    }
    assert!(PodsQuery { metric: Some("job:requests:sum".into()), ..pods() }.promql().is_ok());
}

fn traefik() -> TraefikQuery {
    TraefikQuery {
        namespace: "default".into(),
        routes: vec!["web".into(), "web.internal".into()],
        promoted: false,
        stable_service: "web-stable".into(),
        canary_service: "web-canary".into(),
    }
}

/// A label value as Traefik 3.7 writes it.
fn traefik_service(route: &str, service: &str, index: u8) -> String {
    format!(
        "httproute-default-{route}-gw-default-gw-ep-web-0-9a1b2c3d4e5f6a7b8c9d-svc-default-{service}-{index}@kubernetesgateway"
    )
}

fn traefik_series(instance: &str, service: &str, code: &str, value: f64) -> [Series; 2] {
    [
        series(&[(PART, "count"), ("instance", instance), ("service", service), ("code", code)], value),
        series(&[(PART, "newest"), ("instance", instance), ("service", service), ("job", "traefik")], 9.0),
    ]
}

#[test]
fn traefik_is_asked_for_the_two_services_of_our_routes() {
    let query = RatioQuery::Traefik(traefik()).promql().expect("a query");
    let name = r#"service=~"httproute-default-(web|web-internal)-gw-.+-svc-default-(web-stable|web-canary)-[0-9]+@kubernetesgateway""#;
    assert_eq!(query.matches(name).count(), 2, "{query}");
    assert!(
        query.starts_with("label_replace(sum by (instance, service, code) (traefik_service_requests_total{")
    );
}

#[test]
fn traefik_instances_and_rules_stay_apart() {
    let (stable, canary) = (traefik_service("web", "web-stable", 0), traefik_service("web", "web-canary", 1));
    let other_rule = traefik_service("web-internal", "web-canary", 1);
    let counters = traefik()
        .counters(
            &[
                traefik_series("10.0.0.1:9100", &stable, "200", 90.0),
                traefik_series("10.0.0.1:9100", &canary, "500", 4.0),
                traefik_series("10.0.0.1:9100", &other_rule, "200", 1.0),
                traefik_series("10.0.0.2:9100", &canary, "200", 6.0),
                traefik_series("10.0.0.1:9100", &traefik_service("web", "api-canary", 1), "200", 50.0),
            ]
            .concat(),
        )
        .expect("counters");
    assert_eq!(counters.iter().filter(|c| c.arm == Arm::Stable).count(), 1);
    let canary: Vec<&PodCounters> = counters.iter().filter(|c| c.arm == Arm::Canary).collect();
    assert_eq!(canary.len(), 3, "{canary:?}");
    assert_eq!(canary.iter().map(|c| c.total).sum::<f64>(), 11.0);
    assert_eq!(canary.iter().filter_map(|c| c.bad).sum::<f64>(), 4.0);
    assert!(canary.iter().all(|c| c.id.len() < 30 && c.id.starts_with("10.0.0.")), "{canary:?}");
}

#[test]
fn after_promotion_both_services_count_for_the_canary() {
    let (stable, canary) = (traefik_service("web", "web-stable", 0), traefik_service("web", "web-canary", 1));
    let answer = [
        traefik_series("10.0.0.1:9100", &stable, "200", 90.0),
        traefik_series("10.0.0.1:9100", &canary, "200", 10.0),
    ]
    .concat();
    let counters = TraefikQuery { promoted: true, ..traefik() }.counters(&answer).expect("counters");
    assert!(counters.iter().all(|c| c.arm == Arm::Canary), "{counters:?}");
    assert_eq!(counters.iter().map(|c| c.total).sum::<f64>(), 100.0);
    let ids: std::collections::BTreeSet<&str> = counters.iter().map(|c| c.id.as_str()).collect();
    assert_eq!(ids.len(), counters.len(), "{ids:?}");
}

#[test]
fn traefik_scraped_by_two_jobs_is_named() {
    let service = traefik_service("web", "web-canary", 1);
    let mut answer = traefik_series("10.0.0.1:9100", &service, "200", 90.0).to_vec();
    answer.push(series(
        &[(PART, "newest"), ("instance", "10.0.0.1:9100"), ("service", &service), ("job", "b")],
        9.0,
    ));
    let trouble = traefik().counters(&answer).expect_err("twice");
    assert_eq!(trouble.state, DataState::MultipleSeries);
    assert!(trouble.message.contains("by the jobs b, traefik"), "{}", trouble.message);
}

#[test]
fn the_id_of_a_service_does_not_change_between_versions() {
    assert_eq!(fnv1a(""), 0x811c_9dc5);
    assert_eq!(fnv1a("foobar"), 0xbf9c_f968); // published test vector of FNV-1a, 32 bits
}

/// A count and the time of its newest sample, of one of the usual metrics.
fn usual(pod: &str, metric: &str, (label, code): (&str, &str), value: f64) -> [Series; 2] {
    let count = series(&[(PART, "count"), ("__name__", metric), ("pod", pod), (label, code)], value);
    let mut newest = pod_newest(pod, "a", 1.0);
    newest.labels.insert("sluice_metric".into(), metric.into());
    [count, newest]
}

#[test]
fn the_usual_metrics_are_asked_for_in_one_query() {
    let promql = RatioQuery::Pods(pods()).promql().expect("a query");
    let names = DEFAULT_METRICS.join("|");
    let pods = r#"namespace="shop",pod=~"(web-6d4b75cb6d-|web-7f9c8d5b4a-)[a-z0-9]{5}""#;
    let counts = format!(
        r#"label_replace(sum by (__name__, pod, {}) ({{__name__=~"{names}",{pods}}}), "sluice_part", "count", "", "")"#,
        CODE_LABELS.join(", ")
    );
    let newest = DEFAULT_METRICS.map(|name| {
        format!(
            r#" or label_replace(label_replace(max by (pod, job, instance) (timestamp({name}{{{pods}}})), "sluice_part", "newest", "", ""), "sluice_metric", "{name}", "", "")"#
        )
    });
    assert_eq!(promql, counts + &newest.concat());
    let promql = RatioQuery::Latency(latency(0.5)).promql().expect("a query");
    assert!(promql.contains("timestamp(http_server_requests_seconds_bucket{"), "{promql}");
}

#[test]
fn each_usual_metric_is_counted_by_its_own_label() {
    for (metric, label) in [
        ("http_requests_total", "code"),
        ("http_server_requests_total", "code"),
        ("http_requests_received_total", "code"),
        ("http_server_requests_seconds_count", "status"),
        ("http_server_request_duration_seconds_count", "http_response_status_code"),
        ("http_request_duration_seconds_count", "status_code"),
    ] {
        let answer = [
            usual(CANARY, metric, (label, "200"), 9.0),
            usual(CANARY, metric, (label, "500"), 1.0),
            // A histogram beside it that knows no status can't be counted, and is no choice.
            usual(CANARY, "http_other_seconds_count", ("method", "GET"), 10.0),
        ];
        // The sum of one query has one series of each kind; times that repeat are those of one target.
        let counters = pods().counters(&answer.concat()).expect(metric);
        assert_eq!((counters.len(), counters[0].total, counters[0].bad), (1, 10.0, Some(1.0)), "{metric}");
    }
}

#[test]
fn revisions_may_have_other_metrics_and_a_pod_has_one() {
    let (counter, histogram) = ("http_requests_total", "http_request_duration_seconds_count");
    let old = usual(STABLE, counter, ("code", "200"), 9.0);
    let new = usual(CANARY, histogram, ("status", "500"), 1.0);
    let counters = pods().counters(&[old.clone(), new].concat()).expect("a library that changed");
    assert_eq!(counters.iter().map(|pod| pod.total).sum::<f64>(), 10.0);

    let both = [old.clone(), usual(STABLE, histogram, ("code", "200"), 9.0)].concat();
    let trouble = pods().counters(&both).expect_err("which of them?");
    assert_eq!(trouble.state, DataState::QueryError);
    let says = "has both http_requests_total and http_request_duration_seconds_count: name the one";
    assert!(trouble.message.contains(says), "{}", trouble.message);

    // What it can't count is named only where nothing else is there.
    let lone = usual(STABLE, histogram, ("method", "GET"), 9.0);
    let trouble = pods().counters(&lone).expect_err("no status");
    assert!(trouble.message.contains("http_request_duration_seconds_count of pod"), "{}", trouble.message);
    // A target of the other metric is not one of this.
    let mut elsewhere = usual(STABLE, histogram, ("method", "GET"), 9.0);
    elsewhere[1].labels.insert("job".into(), "b".into());
    assert!(pods().counters(&[old, elsewhere].concat()).is_ok());

    let bucket = |name: &str, le: &str| usual(CANARY, name, ("le", le), 1.0);
    let two = [
        bucket("http_request_duration_seconds_bucket", "+Inf"),
        bucket("http_server_requests_seconds_bucket", "+Inf"),
    ];
    let trouble = latency(0.5).counters(&two.concat()).expect_err("two histograms");
    let says = "has both http_request_duration_seconds and http_server_requests_seconds: name the one";
    assert!(trouble.message.contains(says), "{}", trouble.message);
}

#[test]
fn linkerd_is_read_beside_the_pods() {
    let ratio = |matchers: Option<&str>| sluice_core::api::ErrorRatioGuard {
        source: RatioSource::Linkerd,
        // They are for source Pods.
        metric: Some("mine".into()),
        code_label: Some("mine".into()),
        matchers: matchers.map(str::to_owned),
        max_ppm: None,
        warmup_requests: 0,
    };
    let arms = Arms {
        namespace: "shop",
        stable: "web-6d4b75cb6d",
        canary: Some("web-7f9c8d5b4a"),
        routes: &[],
        promoted: false,
        stable_service: "web-stable",
        canary_service: "web-canary",
    };
    let ask = |matchers| RatioQuery::new(&arms, Counted::Errors(&ratio(matchers)), &BTreeMap::new());
    let selector = r#"response_total{direction="inbound",namespace="shop",pod=~"(web-6d4b75cb6d-|web-7f9c8d5b4a-)[a-z0-9]{5}""#;
    let promql = ask(None).promql().expect("a query");
    let status = format!(r#"label_replace({selector}}}, "sluice_code", "$1", "status_code", "(.+)")"#);
    let counted = format!(
        r#"sum by (pod, sluice_code) (label_replace({status}, "sluice_code", "0", "classification", "failure"))"#
    );
    assert!(promql.contains(&counted), "{promql}");
    assert!(promql.contains(&format!("timestamp({selector}}})")), "{promql}");
    let promql = ask(Some(r#"job="linkerd-proxy""#)).promql().expect("a query");
    assert!(promql.contains(&format!(r#"{selector},job="linkerd-proxy"}}"#)), "{promql}");
    let count = |code: &str, value| series(&[(PART, "count"), ("pod", CANARY), ("sluice_code", code)], value);
    let answer = [count("200", 7.0), count("0", 2.0), pod_newest(CANARY, "linkerd-proxy", 1.0)];
    let counters = ask(None).counters(&answer).expect("counters");
    assert_eq!((counters[0].total, counters[0].bad), (9.0, Some(2.0)));
}

#[test]
fn restarts_come_with_the_age_of_pods_and_the_reason_of_the_last() {
    let matchers = Some(r#"container!="proxy""#.to_owned());
    let query = RatioQuery::Restarts(RestartsQuery { pods: PodsQuery { matchers, ..pods() } });
    let of = r#"namespace="shop",pod=~"(web-6d4b75cb6d-|web-7f9c8d5b4a-)[a-z0-9]{5}""#;
    let promql = query.promql().expect("a query");
    for part in [
        format!(
            r#"sum by (pod, container) (kube_pod_container_status_restarts_total{{{of},container!="proxy"}})"#
        ),
        format!(
            r#"max by (pod) (kube_pod_container_status_last_terminated_reason{{reason="OOMKilled",{of},container!="proxy"}})"#
        ),
        format!("time() - max by (pod) (kube_pod_created{{{of}}})"),
    ] {
        assert!(promql.contains(&part), "{promql}");
    }
    let part = |part: &str, pod: &str, value| series(&[(PART, part), ("pod", pod)], value);
    let restarts =
        |pod, container, value| series(&[(PART, "count"), ("pod", pod), ("container", container)], value);
    let mut answer = vec![
        restarts(STABLE, "app", 1.0),
        restarts(STABLE, "log", 2.0),
        pod_newest(STABLE, "ksm", 1_700_000_000.0),
        part("age", STABLE, 5000.0),
        restarts(CANARY, "app", 4.0),
        pod_newest(CANARY, "ksm", 1_700_000_000.0),
        part("age", CANARY, 60.0),
        part("killed", CANARY, 1.0),
    ];
    let counters = query.counters(&answer).expect("counters");
    let seen: Vec<_> = counters.iter().map(|pod| (pod.arm, pod.total, pod.bad, pod.out_of_memory)).collect();
    assert_eq!(seen, [(Arm::Stable, 5000.0, Some(3.0), false), (Arm::Canary, 60.0, Some(4.0), true)]);
    // Two of them would count each restart twice.
    answer.push(pod_newest(CANARY, "other", 1_700_000_000.0));
    let trouble = query.counters(&answer).expect_err("two targets");
    assert_eq!(trouble.state, DataState::MultipleSeries);
    assert!(trouble.message.contains("add a matcher such as job=\"ksm\""), "{}", trouble.message);
}
