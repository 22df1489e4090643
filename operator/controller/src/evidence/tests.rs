//! Sources that answer as told, or accept a question and say nothing.

mod rest;

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::extract::Query;
use axum::http::Uri;
use axum::routing::get;
use axum::{Json, Router};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use sluice_core::verdict::Verdict;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::{mpsc, watch};

use super::*;
use crate::leader::Leader;
use crate::metrics::Metrics;
use crate::store::Object;
use crate::testing::{api_server, serve};
use crate::watch::{Stores, Watched};

/// Providers whose answers nobody counts.
fn unheard() -> Providers {
    Providers::new("test", Arc::new(|_, _| {}))
}

/// A source: how often it was asked, and whether it keeps its answers to itself.
struct Told {
    asked: AtomicUsize,
    hangs: watch::Sender<bool>,
}

impl Told {
    fn new() -> Arc<Self> {
        Arc::new(Self { asked: AtomicUsize::new(0), hangs: watch::Sender::new(false) })
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    fn hang(&self, hangs: bool) {
        self.hangs.send_replace(hangs);
    }

    /// The number of the question, once it may be answered.
    async fn question(&self) -> usize {
        let number = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
        let _ = self.hangs.subscribe().wait_for(|hangs| !hangs).await;
        number
    }

    /// An Alertmanager with no alerts.
    async fn alertmanager(self: Arc<Self>) -> String {
        let answer = move || async move {
            self.question().await;
            Json(json!([]))
        };
        serve(Router::new().fallback(answer)).await
    }

    /// A Prometheus that saw 10,000 more requests at each question, 1,000 of them at the canary, and none fail. It knows
    /// nothing of the time before. A person's own query for a queue yields 9, and that for what is left of the budget 0.125.
    async fn prometheus(self: Arc<Self>) -> String {
        let answer = move |Query(query): Query<HashMap<String, String>>| async move {
            let number = self.question().await;
            let at = &query["time"];
            let series = |metric: Value, value: String| json!({"metric": metric, "value": [0, value]});
            let pod = |pod: &str, requests: usize| {
                let count = json!({"sluice_part": "count", "pod": pod, "code": "200"});
                let newest = json!({"sluice_part": "newest", "pod": pod, "job": "j", "instance": pod});
                [series(count, requests.to_string()), series(newest, at.clone())]
            };
            let result = match query["query"].as_str() {
                text if text.contains("queue{") => {
                    vec![series(json!({"sluice_part": "canary"}), "9".to_owned())]
                }
                text if text.starts_with("left{") => vec![series(json!({}), "0.125".to_owned())],
                _ => [pod("web-1-aaaaa", 9000 * number), pod("web-2-bbbbb", 1000 * number)].concat(),
            };
            Json(json!({"status": "success", "data": {"resultType": "vector", "result": result}}))
        };
        let before =
            || async { Json(json!({"status": "success", "data": {"resultType": "matrix", "result": []}})) };
        serve(Router::new().route("/api/v1/query", get(answer)).route("/api/v1/query_range", get(before)))
            .await
    }
}

/// A rollout with a run that stands at 10 %, and its sources.
struct App {
    key: Key,
    object: Value,
    prometheus: Arc<Told>,
    alertmanager: Arc<Told>,
}

impl App {
    async fn new(name: &str) -> Self {
        let (prometheus, alertmanager) = (Told::new(), Told::new());
        let now = Timestamp::now();
        let ago = |seconds| (now - SignedDuration::from_secs(seconds)).to_string();
        let revision = |hash: &str| json!({"digest": hash, "restartDigest": hash, "hash": hash, "replicaSet": format!("web-{hash}")});
        let guards = json!([
            {"name": "errors", "errorRatio": {}},
            {"name": "pages", "alert": {"matchers": [{"label": "severity", "value": "page"}]}},
        ]);
        let object = json!({
            "apiVersion": "sluice.dev/v1alpha1", "kind": "ProgressiveRollout",
            "metadata": {"namespace": "shop", "name": name, "uid": name, "resourceVersion": "1"},
            "spec": {
                "workloadRef": {"name": "web"}, "routing": {"service": "web", "routes": [{"name": "web"}]},
                "guards": guards,
                "prometheus": {"url": prometheus.clone().prometheus().await},
                "alertmanager": {"url": alertmanager.clone().alertmanager().await},
            },
            "status": {"run": {
                "id": "1-a", "stable": revision("1"), "canary": revision("2"), "stage": "Stepping",
                "startedAt": ago(60), "stageSince": ago(50), "exposedSince": ago(50),
                "weight": {"percent": 10, "at": ago(50), "acceptedAt": ago(45), "settledAt": ago(40)},
                "plan": {
                    "digest": "", "riskClass": "R1", "provenance": "Human", "minSamples": 1,
                    "steps": [{"weightPercent": 10, "bakeSeconds": 60}, {"weightPercent": 100, "bakeSeconds": 60}],
                    "tolerancePpm": {"relative": 250_000, "absolute": 300}, "noDataSeconds": 60,
                    "rows": [{
                        "class": "R1", "tolerancePpm": {"relative": 250_000, "absolute": 300},
                        "marginPpm": {"relative": 500_000, "absolute": 6000}, "capitalPpm": 2000,
                        "gateErrorPpm": 100_000, "minSamples": 1, "steps": 1, "plannedSeconds": 60,
                        "lastBakeSeconds": 60,
                    }],
                    "watchSeconds": 60, "progressDeadlineSeconds": 60, "service": "web",
                    "stableService": "web-stable", "canaryService": "web-canary", "routes": [],
                    "apexCallers": "None", "settleSeconds": 1, "drainSeconds": 1, "guards": guards,
                },
            }},
        });
        let key = Key { namespace: "shop".to_owned(), name: name.to_owned() };
        Self { key, object, prometheus, alertmanager }
    }

    fn rollout(&self) -> ProgressiveRollout {
        serde_json::from_value(self.object.clone()).unwrap()
    }

    /// The same as a later version, at rest.
    fn ended(&self) -> ProgressiveRollout {
        let mut rollout = self.rollout();
        rollout.metadata.resource_version = Some("2".to_owned());
        rollout.status.as_mut().unwrap().run = None;
        rollout
    }

    fn asked(&self) -> (usize, usize) {
        (self.prometheus.asked(), self.alertmanager.asked())
    }

    fn verdict(&self, ctx: &Context) -> Verdict {
        ctx.evidence.verdict(&self.key)
    }
}

/// A controller that is asked to evaluate every second and knows these rollouts.
async fn controller(apps: &[&App]) -> (Arc<Context>, UnboundedReceiver<Key>) {
    controller_of(apps, Vec::new()).await
}

/// The same, and it knows these objects, by the plural of their kind.
async fn controller_of(
    apps: &[&App],
    mut objects: Vec<(&'static str, Value)>,
) -> (Arc<Context>, UnboundedReceiver<Key>) {
    objects.extend(apps.iter().map(|app| ("progressiverollouts", app.object.clone())));
    let answer = move |uri: Uri| async move {
        if uri.query().is_some_and(|query| query.contains("watch=true")) {
            std::future::pending::<()>().await;
        }
        let kind = uri.path().rsplit('/').next().unwrap_or_default().to_owned();
        let items: Vec<Value> =
            objects.into_iter().filter(|(of, _)| *of == kind).map(|(_, object)| object).collect();
        Json(
            json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": items}),
        )
    };
    let clients = api_server(Router::new().fallback(answer)).await;
    let metrics = Metrics::new();
    let config = Config { evaluation_interval_seconds: 1, ..Config::default() };
    let (sender, mut queue) = mpsc::unbounded_channel();
    let stores = Stores::start(&clients.normal, &[], &metrics, &sender);
    let leader = Leader::alone(metrics.clone());
    let ctx = Context::new(clients, stores, leader, config, false, metrics, sender, "test".to_owned());
    until("the rollouts are listed", 5, || {
        ctx.stores.rollouts().len() == apps.len()
            && Watched::ALL.into_iter().all(|kind| ctx.stores.ready(kind))
    })
    .await;
    while queue.try_recv().is_ok() {}
    (Arc::new(ctx), queue)
}

async fn until(what: &str, seconds: u64, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < Duration::from_secs(seconds), "waited {seconds} s in vain: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Runs the loop for these rollouts until the gates of all are open.
async fn at_work(apps: &[&App]) -> Arc<Context> {
    let (ctx, _) = controller(apps).await;
    let providers = unheard();
    tokio::spawn(poll(ctx.clone(), providers, CancellationToken::new()));
    for app in apps {
        until("the gate opens", 10, || app.verdict(&ctx).gate_open).await;
    }
    ctx
}

#[tokio::test]
async fn alerts_that_hang_delay_no_question_to_prometheus_and_close_the_gate() {
    let (hung, well) = (App::new("hung").await, App::new("well").await);
    let ctx = at_work(&[&hung, &well]).await;
    hung.alertmanager.hang(true);
    let (before, other) = (hung.asked(), well.asked());
    tokio::time::sleep(Duration::from_millis(4500)).await;
    let (after, others) = (hung.asked(), well.asked());
    assert!(after.0 - before.0 >= 3, "Prometheus was asked {} times in 4.5 s", after.0 - before.0);
    assert_eq!(after.1 - before.1, 1, "one question at a time to a source that hangs");
    assert!(others.0 - other.0 >= 3 && others.1 - other.1 >= 3, "another run: {other:?}, then {others:?}");
    until("the gate closes", 10, || !hung.verdict(&ctx).gate_open).await;
    let verdict = hung.verdict(&ctx);
    assert_eq!(verdict.holds.first().map(|why| why.reason.as_str()), Some("AlertSourceMissing"));
    assert_eq!((verdict.abort, verdict.no_data), (None, None), "silence is no fault of the canary");
    assert!(well.verdict(&ctx).gate_open, "another run");
}

#[tokio::test]
async fn counters_that_hang_delay_no_look_at_the_alerts_and_close_the_gate() {
    let app = App::new("web").await;
    let ctx = at_work(&[&app]).await;
    app.prometheus.hang(true);
    let before = app.asked();
    tokio::time::sleep(Duration::from_millis(4500)).await;
    let after = app.asked();
    assert!(after.1 - before.1 >= 3, "alerts were looked at {} times in 4.5 s", after.1 - before.1);
    assert_eq!(after.0 - before.0, 1, "one question at a time to a source that hangs");
    until("the gate closes", 5, || !app.verdict(&ctx).gate_open).await;
    let verdict = app.verdict(&ctx);
    let (_, says) = verdict.no_data.expect("no data");
    assert!(says.contains("no answer within 5 s"), "{says}");
    assert_eq!(verdict.abort, None, "silence is no fault of the canary");
}

#[tokio::test]
async fn only_sources_that_are_free_are_asked() {
    let app = App::new("web").await;
    let (ctx, mut queue) = controller(&[&app]).await;
    let (providers, asking, rollout) = (unheard(), Asking::default(), app.rollout());
    let look = || look(&ctx, &providers, &asking, &app.key, &rollout);
    app.alertmanager.hang(true);
    let meanwhile = async {
        until("the first answer is judged", 5, || !app.verdict(&ctx).run_id.is_empty()).await;
        look().await;
        assert_eq!(app.asked(), (2, 1));
        app.alertmanager.hang(false);
    };
    tokio::join!(look(), meanwhile);
    assert_eq!(std::iter::from_fn(|| queue.try_recv().ok()).count(), 3, "each judgement wakes the rollout");
    look().await;
    assert_eq!(app.asked().0, 3, "who has answered is asked again");
    assert!(app.verdict(&ctx).gate_open);
}

#[tokio::test]
async fn an_answer_after_the_end_of_its_run_leaves_nothing() {
    let app = App::new("web").await;
    let (ctx, mut queue) = controller(&[&app]).await;
    let (providers, asking, rollout) = (unheard(), Asking::default(), app.rollout());
    app.prometheus.hang(true);
    app.alertmanager.hang(true);
    let meanwhile = async {
        until("both are asked", 5, || app.asked() == (1, 1)).await;
        let ended = Object::new(serde_json::to_value(app.ended()).unwrap()).unwrap();
        ctx.wrote(&app.key, ended, std::time::Instant::now());
        app.prometheus.hang(false);
        app.alertmanager.hang(false);
    };
    tokio::join!(look(&ctx, &providers, &asking, &app.key, &rollout), meanwhile);
    assert_eq!(app.verdict(&ctx), Verdict::default());
    assert!(queue.try_recv().is_err(), "there is nothing to wake for");
}

#[tokio::test]
async fn an_answer_from_before_a_run_does_not_replace_its_verdict() {
    let app = App::new("web").await;
    let (ctx, _queue) = controller(&[&app]).await;
    let (providers, asking) = (unheard(), Asking::default());
    let rest = app.ended();
    app.alertmanager.hang(true);
    let meanwhile = async {
        until("the alerts are asked for", 5, || app.alertmanager.asked() == 1).await;
        let rollout = app.rollout();
        let during = look(&ctx, &providers, &asking, &app.key, &rollout);
        let release = async {
            until("the run is judged", 5, || app.verdict(&ctx).run_id == "1-a").await;
            app.alertmanager.hang(false);
        };
        tokio::join!(during, release);
    };
    tokio::join!(look(&ctx, &providers, &asking, &app.key, &rest), meanwhile);
    let verdict = app.verdict(&ctx);
    assert_eq!(verdict.run_id, "1-a");
    assert!(verdict.quiet.is_some(), "what was counted is lost");
}

#[tokio::test]
async fn a_value_of_a_persons_own_is_asked_for_once_and_holds() {
    let mut app = App::new("web").await;
    let metric = json!({"query": "max(queue{pod=~\"$pods\"})", "max": "5"});
    let guards = app.object["status"]["run"]["plan"]["guards"].as_array_mut().unwrap();
    guards.push(json!({"name": "queue", "metric": metric}));
    let (ctx, _queue) = controller(&[&app]).await;
    look(&ctx, &unheard(), &Asking::default(), &app.key, &app.rollout()).await;
    assert_eq!(app.asked().0, 2, "once for each guard");
    let verdict = app.verdict(&ctx);
    let queue = verdict.guards.iter().find(|guard| guard.name == "queue").unwrap();
    assert_eq!((queue.state.as_str(), queue.score_permille), ("OutOfRange", None));
    assert!(queue.message.contains("queue: canary 9 is above max 5"), "{}", queue.message);
    assert!(verdict.holds.iter().any(|why| why.reason == "GaugeOutOfRange"), "{:?}", verdict.holds);
    assert_eq!(verdict.abort, None, "it only holds, unless it is told otherwise");
}
