//! The whole of `simulate`, over traces and over a Prometheus that answers for a synthetic history.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::extract::Query as Params;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use clap::Parser as _;
use serde_json::{Value, json};
use sluice_core::trace::{Decision, Trace};

use super::past::Search;
use super::prometheus::Prometheus;
use super::query::Query;
use super::table::Row;
use super::*;
use crate::args::{Cli, Command};
use crate::out::Line;

const START: i64 = 1_793_707_200;
const HOUR: i64 = 3600;
const SCRAPE: i64 = 15;
const CODES: [&str; 2] = ["200", "500"];

fn judge(classes: &[RiskClass]) -> Judge {
    Judge { policy: Policy::default(), table: Table::default(), classes: classes.to_vec(), two_pods: false }
}

fn text(lines: &[Line]) -> String {
    lines.iter().map(|line| line.paint(false) + "\n").collect()
}

/// A trace of one pod an arm at 50 requests a second, 1 in 1,000 of stable's fails; `failed` of the canary's 150 a
/// window.
fn trace(id: &str, failed: f64) -> Trace {
    let mut lines = vec![format!(r#"{{"sluiceTrace":1,"id":"{id}","scrapeSeconds":15,"riskClass":"R1"}}"#)];
    for at in 0..400_i64 {
        let canary = at - 200;
        let weight = [0, 20, 50][((canary + 100) / 100).clamp(0, 2) as usize];
        let arm = |id: &str, req: i64, err: f64| json!({ "id": id, "req": req, "err": err.floor() });
        let canaries = match canary {
            1.. => vec![arm("c", 150 * canary, failed * canary as f64)],
            _ => vec![],
        };
        let arms = json!({ "stable": [arm("s", 600 * at, 0.6 * at as f64)], "canary": canaries });
        lines.push(json!({ "t": 15 * at, "weight": weight, "state": "ok", "arms": arms }).to_string());
    }
    Trace::read(lines.iter().map(String::as_str)).unwrap()
}

#[test]
fn a_table_says_what_when_and_why() {
    let traces = [trace("good", 0.0), trace("bad", 15.0), trace("doubtful", 0.6)];
    let judge = judge(&[]);
    let mut rows = Vec::new();
    for trace in &traces {
        rows.extend(judge.outcomes(trace, &[]).into_iter().map(|outcome| Row::new(trace, outcome)));
    }
    let classes = [RiskClass::R4, RiskClass::R0, RiskClass::R4];
    rows.extend(
        judge.outcomes(&traces[1], &classes).into_iter().map(|outcome| Row::new(&traces[1], outcome)),
    );
    insta::assert_snapshot!("table", text(&table::lines(&rows, false)));
    insta::assert_snapshot!("table_wide", text(&table::lines(&rows[..1], true)));
}

#[test]
fn a_line_is_the_result_as_it_is_written_down() {
    let outcomes = judge(&[]).outcomes(&trace("bad", 15.0), &[]);
    let line = serde_json::to_value(&outcomes[0]).unwrap();
    let keys: Vec<&String> = line.as_object().unwrap().keys().collect();
    let wanted = ["decision", "gates", "guards", "holds", "reason", "riskClass", "score", "t", "trace"];
    assert_eq!(keys, wanted);
    assert_eq!((&line["decision"], &line["reason"]), (&json!("Abort"), &json!("error-ratio")));
}

#[test]
fn forms_follow_the_output() {
    assert_eq!(Form::of(None, true, false).unwrap(), Form::Table { wide: false });
    assert_eq!(Form::of(None, false, false).unwrap(), Form::Documents(Output::Json));
    assert_eq!(Form::of(None, true, true).unwrap(), Form::Documents(Output::Json));
    assert_eq!(Form::of(Some(Output::Wide), false, false).unwrap(), Form::Table { wide: true });
    assert!(Form::of(Some(Output::Name), true, false).is_err());
    assert!(Form::of(Some(Output::Wide), true, true).is_err());
}

#[test]
fn the_command_line_wants_exactly_one_source() {
    let parse = |words: &[&str]| {
        Cli::try_parse_from(["kubectl-sluice", "simulate"].iter().chain(words)).map(|_| ()).is_ok()
    };
    assert!(parse(&["--trace", "a", "b", "--class", "r3", "--class", "all"]));
    assert!(parse(&["--trace", "-", "--policy", "p.yaml", "--two-pods", "--verbose"]));
    for words in [
        &[] as &[&str],
        &["--trace"],
        &["--trace", "a", "--from-prometheus", "http://p", "--workload", "a/b"],
        &["--from-prometheus", "http://p"],
        &["--trace", "a", "--write", "d"],
        &["--trace", "a", "--class", "R5"],
        &["--from-prometheus", "http://p", "--workload", "a/b", "--latency-metric", "x_bucket"],
    ] {
        assert!(!parse(words), "{words:?}");
    }
}

/// Labels of a series of a pod, and its value at a time.
type Answer = (Value, Box<dyn Fn(&Pod, i64) -> Option<f64>>);

/// A pod of the synthetic history.
#[derive(Clone)]
struct Pod {
    name: String,
    from: i64,
    to: i64,
    /// Share of its requests that fail.
    fails: f64,
}

impl Pod {
    /// Time of the newest sample within `window` before `t`.
    fn newest(&self, t: i64, window: i64) -> Option<i64> {
        let last = t.min(self.to).div_euclid(SCRAPE) * SCRAPE;
        (last >= self.from && last > t - window).then_some(last)
    }

    fn samples(&self, t: i64, window: i64) -> i64 {
        let scrapes = (1..=window / SCRAPE).map(|at| t - window + at * SCRAPE);
        scrapes.filter(|at| (self.from..=self.to).contains(at)).count() as i64
    }

    /// Its series for a query: labels, and the value at a time.
    fn series(&self, query: &str) -> Vec<Answer> {
        let requests = |pod: &Self, t: i64| Some(10 * (pod.newest(t, 2 * SCRAPE)? - pod.from + SCRAPE));
        // Failures of several pods at once would be bursts.
        let phase = f64::from(self.name.bytes().last().unwrap_or(0) % 10) / 10.0;
        let failed = move |pod: &Self, t: i64| Some((requests(pod, t)? as f64 * pod.fails + phase).floor());
        if query.contains("count_over_time") {
            let labels = json!({ "pod": self.name, "job": "shop", "instance": format!("{}:80", self.name) });
            let count = |pod: &Self, t: i64| Some(pod.samples(t, 300) as f64).filter(|count| *count > 0.0);
            return vec![(labels, Box::new(count))];
        }
        if query.contains("le)") {
            return ["0.25", "0.5", "1", "+Inf"]
                .map(|le| -> Answer {
                    (
                        json!({ "pod": self.name, "le": le }),
                        Box::new(move |p, t| Some(requests(p, t)? as f64)),
                    )
                })
                .into();
        }
        vec![
            (
                json!({ "pod": self.name, "code": CODES[0] }),
                Box::new(move |p, t| Some(requests(p, t)? as f64 - failed(p, t)?)),
            ),
            (json!({ "pod": self.name, "code": CODES[1] }), Box::new(failed)),
        ]
    }
}

/// Four pods of `7d4f..`; two hours later a bad `5bd9..` takes their place in 8 minutes; two hours after that a good
/// `66c8..` in 40.
fn history() -> Vec<Pod> {
    let mut pods = Vec::new();
    let revisions =
        [("7d4f5c6d8b", 0, 0, 0.001), ("5bd9c7f6b4", 2, 120, 0.01), ("66c8f9d7d5", 4, 600, 0.001)];
    let begins = |revision: usize, pod: i64| -> i64 {
        revisions
            .get(revision)
            .map_or(START + 9 * HOUR, |(_, hours, each, _)| START + hours * HOUR + each * pod)
    };
    for (at, (hash, _, _, fails)) in revisions.into_iter().enumerate() {
        for (pod, end) in ["2xk9q", "4bcdf", "7hjkl", "9mnpq"].into_iter().enumerate() {
            let pod = pod as i64;
            let to = begins(at + 1, pod) + 60;
            pods.push(Pod { name: format!("checkout-{hash}-{end}"), from: begins(at, pod), to, fails });
        }
    }
    // Another workload, whose name begins alike.
    pods.push(Pod {
        name: "checkout-worker-2xk9q".to_owned(),
        from: START,
        to: START + 9 * HOUR,
        fails: 1.0,
    });
    pods
}

/// Parameters of a request.
type Asked = HashMap<String, String>;

async fn serve(answer: impl Fn(&Asked) -> (StatusCode, Value) + Send + Sync + 'static) -> String {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let answer = Arc::new(answer);
    let app = Router::new().fallback(move |Params(params): Params<Asked>| {
        let answer = answer.clone();
        async move {
            let (status, body) = answer(&params);
            (status, body.to_string()).into_response()
        }
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    url
}

fn matrix(pods: &[Pod], params: &Asked) -> Value {
    let number = |name: &str| params[name].parse::<f64>().unwrap() as i64;
    let (start, end, step) = (number("start"), number("end"), number("step"));
    assert!((end - start) / step < 11_000);
    let mut result = Vec::new();
    for pod in pods {
        for (labels, value) in pod.series(&params["query"]) {
            let times = (0..=(end - start) / step).map(|at| start + at * step);
            let values: Vec<Value> =
                times.filter_map(|t| Some(json!([t, value(pod, t)?.to_string()]))).collect();
            if !values.is_empty() {
                result.push(json!({ "metric": labels, "values": values }));
            }
        }
    }
    json!({ "status": "success", "data": { "resultType": "matrix", "result": result } })
}

fn args(url: &str, more: &[&str]) -> crate::args::Past {
    let words = ["kubectl-sluice", "simulate", "--from-prometheus", url, "--workload", "shop/checkout"];
    let cli = Cli::try_parse_from(words.iter().chain(["--since", "6h"].iter()).chain(more)).unwrap();
    let Command::Simulate(args) = cli.command else { unreachable!() };
    args.past
}

fn search<'a>(url: &str, args: &'a crate::args::Past, judge: &'a Judge) -> Search<'a> {
    Search {
        prometheus: Prometheus::new(url, &args.headers, None).unwrap(),
        query: Query::new(args, None).unwrap(),
        args,
        judge,
        now: START + 6 * HOUR + 7,
    }
}

#[tokio::test]
async fn past_rollouts_are_found_and_judged_by_each_class() {
    let pods = history();
    let url = serve(move |params| (StatusCode::OK, matrix(&pods, params))).await;
    let args = args(&url, &["--latency-metric", "seconds_bucket", "--latency-slo", "0.5"]);
    let judge = judge(&[]);
    let mut search = search(&url, &args, &judge);
    let found = search.find().await.unwrap();
    assert_eq!((found.rollouts.len(), found.scrape), (2, SCRAPE));
    let mut shown = found.words.clone() + "\n";
    let mut traces = Vec::new();
    for rollout in &found.rollouts {
        let (past, trace) = search.judge(rollout, found.scrape).await.unwrap();
        shown += &text(&report::lines(&past, 80));
        traces.push((past, trace));
    }
    insta::assert_snapshot!("past", shown + &text(&report::about_held(80)));

    let (past, trace) = &traces[0];
    assert!(past.classes.iter().all(|verdict| verdict.outcome.decision == Decision::Abort));
    let after: Vec<i64> = past.classes.iter().map(|verdict| verdict.after_seconds).collect();
    assert!(after.windows(2).all(|pair| pair[0] >= pair[1]), "{after:?}");
    // Weights rise by the steps of R2, and end at 100 when the last old pod is gone.
    let mut weights: Vec<f64> = trace.records.iter().map(|record| record.weight).collect();
    weights.dedup();
    assert_eq!(weights, [0.0, 10.0, 33.0, 66.0, 100.0]);
    // A pod that is gone is in no more than one record after its last sample.
    let gone = START + 2 * HOUR + 60;
    let last = trace.records.iter().rfind(|record| {
        let stable = record.arms.as_ref().map(|arms| &arms.stable);
        stable.is_some_and(|pods| pods.iter().any(|pod| pod.id == "checkout-7d4f5c6d8b-2xk9q"))
    });
    assert_eq!(last.unwrap().t, (gone + SCRAPE) as f64);
    let end = trace.records.last().unwrap().t;
    assert_eq!(end, (START + 2 * HOUR + 3 * 120 + 60 + SCRAPE + 900) as f64);

    let line = serde_json::to_value(past).unwrap();
    assert_eq!(line["kind"], "PastRollout");
    assert_eq!(line["classes"][2]["riskClass"], "R2");
    assert_eq!(line["canary"]["revision"], "5bd9c7f6b4");

    // What is written reads as the same trace and is judged alike.
    let lines: Vec<String> = trace.lines().collect();
    let again = Trace::read(lines.iter().map(String::as_str)).unwrap();
    let outcomes = judge.outcomes(&again, &[RiskClass::R2]);
    assert_eq!(outcomes[0], past.classes[2].outcome);
}

#[tokio::test]
async fn nothing_to_find_says_what_was_looked_for() {
    let judge = judge(&[]);
    let empty = serve(|params| (StatusCode::OK, matrix(&[], params))).await;
    let args = args(&empty, &[]);
    let Err(failure) = search(&empty, &args, &judge).find().await else { unreachable!() };
    insta::assert_snapshot!("past_no_series", failure.text.replace(&empty, "http://prometheus:9090"));
    let one = history()[..4].to_vec();
    let quiet = serve(move |params| (StatusCode::OK, matrix(&one, params))).await;
    let found = search(&quiet, &args, &judge).find().await.unwrap();
    assert!(found.rollouts.is_empty());
    insta::assert_snapshot!("past_no_rollout", found.words);
}

#[tokio::test]
async fn a_partial_answer_and_a_pod_that_is_scraped_twice_are_refused() {
    let judge = judge(&[]);
    let pods = history();
    let url = serve(move |params| {
        let mut body = matrix(&pods, params);
        if params["query"].contains("last_over_time") {
            body["warnings"] = json!(["store-2 is away"]);
        }
        (StatusCode::OK, body)
    })
    .await;
    let args = args(&url, &[]);
    let mut one = search(&url, &args, &judge);
    let found = one.find().await.unwrap();
    let problem = one.judge(&found.rollouts[0], found.scrape).await.unwrap_err();
    assert!(problem.ends_with("the answer may be partial: store-2 is away"), "{problem}");

    let pods = history();
    let url = serve(move |params| {
        let mut body = matrix(&pods, params);
        let result = body["data"]["result"].as_array_mut().unwrap();
        let mut again = result.clone();
        again.iter_mut().for_each(|series| series["metric"]["job"] = json!("shop-copy"));
        result.extend(again);
        (StatusCode::OK, body)
    })
    .await;
    let Err(failure) = search(&url, &args, &judge).find().await else { unreachable!() };
    assert!(failure.text.contains("is scraped twice, by job \"shop\""), "{failure}");
}

#[tokio::test]
async fn every_refusal_says_what_to_check() {
    let judge = judge(&[]);
    let error = json!({ "status": "error", "errorType": "bad_data", "error": "1:5: parse error" });
    let vector = json!({ "status": "success", "data": { "resultType": "vector", "result": [] } });
    for (status, body, says) in [
        (400, error, "refuses the query: 400 Bad Request: 1:5: parse error; check --metric"),
        (401, json!(""), "the sign-in is refused: check --bearer-file and --header"),
        (404, json!(""), "give the part of the address before /api"),
        (302, json!(""), "redirects are not followed"),
        (200, vector, "the result is a \"vector\", not a matrix"),
        (200, json!("<html>"), "the answer is not that of a Prometheus"),
    ] {
        let url = serve(move |_| (StatusCode::from_u16(status).unwrap(), body.clone())).await;
        let args = args(&url, &[]);
        let Err(failure) = search(&url, &args, &judge).find().await else { unreachable!() };
        assert!(failure.text.contains(says), "{failure}");
    }
    for (url, says) in [
        ("prometheus:9090", "neither http nor https"),
        ("http://", "write its base address"),
        ("https://a:secret@b", "credentials in the address end up in logs"),
    ] {
        let Err(failure) = Prometheus::new(url, &[], None) else { unreachable!("{url}") };
        assert!(failure.text.contains(says) && !failure.text.contains("secret"), "{failure}");
    }
    let missing = PathBuf::from("no-such-token");
    let Err(failure) = Prometheus::new("http://p", &[], Some(&missing)) else { unreachable!() };
    assert!(failure.text.contains("--bearer-file no-such-token: there is no such file"), "{failure}");
}
