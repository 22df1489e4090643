//! `guard test`: asks what each guard asks, now, and shows what comes back. Changes nothing.
//!
//! Counters are read by the controller's own queries at the times at which it would have read them in the last five
//! minutes, and taken in by its own rules, so a state here is the one that a run would show.

mod screen;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Instant;

use jiff::Timestamp;
use serde_json::json;
use sluice_core::api::{AlertGuard, AlertSource, Counted as Counts, Guard, GuardAction, MetricGuard, Plan};
use sluice_core::evidence::{
    Alert, DataState, GuardState, Outcome, Trouble, first_firing, known_alerts, last_five_minutes, observe,
    path_is_alive,
};
use sluice_core::judge::{Weighed, weighed};
use sluice_core::limits;
use sluice_core::{policy, provenance};
use sluice_providers::prometheus::Prometheus;
use sluice_providers::queries::{Arms, MetricQuery, RatioQuery, ask, look, recent};

use super::plan::{stable_set, workload};
use super::{API_VERSION, Context, now, size};
use crate::args::GuardTest;
use crate::budget;
use crate::cluster::Cluster;
use crate::exit::Code;
use crate::fail::Failure;
use crate::source::{Settings, Sources, alertmanager_hint, hint};

/// What one guard sees.
#[derive(Clone, Debug)]
pub struct Test {
    name: String,
    action: GuardAction,
    /// Milliseconds of the question, when it was asked.
    millis: Option<u128>,
    /// The trouble, in words: kind, and what to correct.
    trouble: Option<(String, String)>,
    seen: Seen,
}

impl Test {
    /// Nothing was asked yet.
    fn new(guard: &Guard, seen: Seen) -> Self {
        Self { name: guard.name.clone(), action: guard.action, millis: None, trouble: None, seen }
    }
}

/// What came back.
#[derive(Clone, Debug)]
enum Seen {
    Counted(Counted),
    Alerts(Alerts),
    Value(Value),
}

/// A value of a person's own.
#[derive(Clone, Debug, Default)]
struct Value {
    query: String,
    /// The canary's, and stable's where they are compared.
    values: (Option<f64>, Option<f64>),
}

/// Counters.
#[derive(Clone, Debug, Default)]
struct Counted {
    query: String,
    /// Series in the last answer.
    series: usize,
    /// Pods, or routers, of stable and of the canary; the canary's is none at rest.
    pods: (usize, Option<usize>),
    /// Whether it counts restarts in the seconds of pods, and not requests.
    restarts: bool,
    /// How long a request takes that counts, in seconds, where that is what is usual for stable.
    over: Option<f64>,
    /// Requests and failures of the last five minutes: the canary's, and stable's.
    recent: ((i64, i64), (i64, i64)),
}

/// Alerts.
#[derive(Clone, Debug, Default)]
struct Alerts {
    /// All that the source knows.
    all: usize,
    /// Those that match.
    matching: usize,
    /// The one that fires for longest, in words.
    firing: Option<String>,
    /// Whether a watchdog is asked for, and fires.
    watchdog: Option<bool>,
}

/// Runs `guard test`.
pub async fn run(context: &Context, args: GuardTest) -> Result<Code, Failure> {
    let cluster = Cluster::connect(&context.global).await?;
    let name = cluster.resolve(args.name.as_deref()).await?;
    let seen = cluster.gather(cluster.get(&name).await?, false).await;
    let settings = Settings::read(&cluster).await;
    let sources = Sources::new(&cluster, &seen.rollout, &settings, &args.reach);
    let status = seen.status();
    let plan = match &status.run {
        Some(run) => run.plan.clone(),
        None => {
            let (spec, config) = (&seen.rollout.spec, &settings.config);
            let policy = cluster.policy(config).await;
            let left = budget::level(&policy, &seen, &sources).await;
            let view = provenance::declared(&spec.change);
            let risk = policy::assess(spec, &view, &policy, &status.history, left, now());
            limits::make_plan(spec, config, &policy, workload(&seen)?, (risk.provenance, risk.class))
        }
    };
    let guards = chosen(&plan, &args.guards)?;
    let interval = settings.config.evaluation_interval_seconds.max(1);
    let arms = match &status.run {
        Some(run) => Arms::of(seen.namespace(), run),
        None => Arms::at_rest(seen.namespace(), stable_set(&seen)?, &plan),
    };
    let live = status.run.as_ref().and_then(|run| run.weight).filter(|weight| weight.percent > 0);
    let live = live.and_then(|weight| weight.settled_at.map(|at| (weight.percent, at)));
    let mut tests = Vec::new();
    let weighed = weighed(&plan);
    let rules = |alert: &AlertGuard| alert.source == AlertSource::Prometheus;
    let asks = |guard: &&Guard| {
        guard.counted().is_some() || guard.metric.is_some() || guard.alert.as_ref().is_some_and(rules)
    };
    let prometheus = match guards.iter().any(asks) {
        true => Some(sources.prometheus().await?),
        false => None,
    };
    for guard in guards {
        let test = match (weighed.iter().find(|weighed| weighed.guard == guard), &prometheus, &guard.alert) {
            (Some(weighed), Some(prometheus), _) => counted(prometheus, &arms, weighed, interval, live).await,
            (_, Some(prometheus), Some(alert)) if rules(alert) => {
                let begin = Instant::now();
                let poll = prometheus.alerts(std::time::Duration::ZERO).await;
                alerts(guard, alert, &poll.answer, &hint(prometheus.address()), begin.elapsed().as_millis())
            }
            (_, _, Some(alert)) => {
                let source = sources.alertmanager(args.alertmanager.as_deref()).await?;
                let begin = Instant::now();
                let poll = source.poll(std::time::Duration::ZERO).await;
                let address = source.peers().first().map_or("", String::as_str);
                alerts(guard, alert, &poll.answer, &alertmanager_hint(address), begin.elapsed().as_millis())
            }
            (None, Some(prometheus), None) => match &guard.metric {
                Some(metric) => valued(prometheus, &arms, guard, metric).await,
                None => continue,
            },
            _ => continue,
        };
        tests.push(test);
    }
    match context.machine() {
        Some(format) => {
            context.document(format, &name, &document(&name, seen.namespace(), &tests, &settings), false)?
        }
        None => {
            let width = size(context.terminal).0;
            context.print(&screen::lines(&tests, settings.caution.as_deref(), width))?;
        }
    }
    let bad = tests.iter().any(|test| test.trouble.is_some());
    Ok(if bad { Code::Error } else { Code::Fine })
}

/// The guards that were asked for.
fn chosen<'a>(plan: &'a Plan, names: &[String]) -> Result<Vec<&'a Guard>, Failure> {
    if let Some(unknown) = names.iter().find(|name| !plan.guards.iter().any(|guard| guard.name == **name)) {
        let known: Vec<&str> = plan.guards.iter().map(|guard| guard.name.as_str()).collect();
        return Err(Failure::usage(format!(
            "--guard {unknown:?}: there is none of this name, only {}",
            known.join(", ")
        )));
    }
    Ok(plan.guards.iter().filter(|guard| names.is_empty() || names.contains(&guard.name)).collect())
}

/// Looks at a guard that counts requests. `live`: the canary's weight, and since when it has it.
async fn counted(
    prometheus: &Prometheus,
    arms: &Arms<'_>,
    weighed: &Weighed<'_>,
    interval: i32,
    live: Option<(i32, Timestamp)>,
) -> Test {
    let mut test = Test::new(weighed.guard, Seen::Counted(Counted::default()));
    let query = RatioQuery::new(arms, weighed.counted, &BTreeMap::new());
    let promql = match query.promql() {
        Ok(promql) => promql,
        Err(trouble) => {
            test.trouble = Some((trouble.state.as_str().to_owned(), trouble.message));
            return test;
        }
    };
    let end = now();
    let before = recent(prometheus, &query, end, interval).await;
    let begin = Instant::now();
    let last = ask(prometheus, &query, end).await;
    test.millis = Some(begin.elapsed().as_millis());
    let (series, pods) = match &last.outcome {
        Outcome::Counters(found) => {
            let of = |arm| found.iter().filter(|pod| pod.arm == arm).count();
            use sluice_core::evidence::Arm::{Canary, Stable};
            (found.len(), (of(Stable), arms.canary.map(|_| of(Canary))))
        }
        Outcome::Trouble(_) => (0, (0, arms.canary.map(|_| 0))),
    };
    let mut at_rest = weighed.at_rest(interval);
    let samples: Vec<_> = before.unwrap_or_default().into_iter().chain(std::iter::once(last)).collect();
    if let (Some((percent, since)), Some(first)) = (live, samples.first()) {
        at_rest.weight = percent;
        at_rest.window_start = Some(since.max(first.at));
    }
    let mut state = GuardState::default();
    samples.iter().for_each(|sample| observe(&mut state, sample, &at_rest, false, end));
    if state.data != DataState::Ok {
        let down = state.data == DataState::ProviderDown;
        let hint = if down { hint(prometheus.address()) } else { String::new() };
        test.trouble = Some((state.data.as_str().to_owned(), format!("{}{hint}", state.data_message)));
    }
    let restarts = matches!(weighed.counted, Counts::Restarts(_));
    let recent = last_five_minutes(&state);
    test.seen = Seen::Counted(Counted { query: promql, series, pods, restarts, over: state.bound, recent });
    test
}

/// Looks at a guard on a value.
async fn valued(prometheus: &Prometheus, arms: &Arms<'_>, guard: &Guard, metric: &MetricGuard) -> Test {
    let mut test = Test::new(guard, Seen::Value(Value::default()));
    let trouble = |trouble: Trouble| Some((trouble.state.as_str().to_owned(), trouble.message));
    let query = match MetricQuery::new(arms, metric) {
        Ok(query) => query,
        Err(found) => {
            test.trouble = trouble(found);
            return test;
        }
    };
    let begin = Instant::now();
    let answer = look(prometheus, &query, now()).await.answer;
    test.millis = Some(begin.elapsed().as_millis());
    let mut seen = Value { query: query.promql(), values: (None, None) };
    match answer {
        Ok(values) => {
            let one = |arm: &str, found: &[f64]| match found {
                [value] => Ok(*value),
                [] => Err((DataState::NoData.as_str().to_owned(), format!("no series for {arm}"))),
                many => Err((
                    DataState::MultipleSeries.as_str().to_owned(),
                    format!("{} series for {arm}: aggregate them, such as by max()", many.len()),
                )),
            };
            let canary = one("the canary", &values.canary);
            let stable = metric.compares().then(|| one("stable", &values.stable)).transpose();
            seen.values = (canary.clone().ok(), stable.clone().ok().flatten());
            test.trouble = canary.err().or(stable.err());
        }
        Err(found) => test.trouble = trouble(found),
    }
    test.seen = Seen::Value(seen);
    test
}

/// Looks at a guard that watches alerts. `hint`: what to try when its source is not reached.
fn alerts(
    guard: &Guard,
    alert: &AlertGuard,
    answer: &Result<Vec<Alert>, String>,
    hint: &str,
    millis: u128,
) -> Test {
    let mut test = Test::new(guard, Seen::Alerts(Alerts::default()));
    test.millis = Some(millis);
    let looked = answer.as_ref().map_err(Clone::clone).and_then(|all| {
        let alive = path_is_alive(all, &alert.watchdog)?;
        Ok(Alerts {
            all: all.len(),
            matching: known_alerts(all, &alert.matchers)?.len(),
            firing: first_firing(all, &alert.matchers)?,
            watchdog: (!alert.watchdog.is_empty()).then_some(alive),
        })
    });
    match looked {
        Ok(seen) => {
            if seen.watchdog == Some(false) {
                test.trouble =
                    Some(("AlertSourceMissing".to_owned(), sluice_core::evidence::DEAD_PATH.to_owned()));
            }
            test.seen = Seen::Alerts(seen);
        }
        Err(why) => {
            test.trouble = Some(("AlertSourceMissing".to_owned(), why + hint));
        }
    }
    test
}

/// The tests for programs.
fn document(name: &str, namespace: &str, tests: &[Test], settings: &Settings) -> serde_json::Value {
    let arm = |restarts: bool, pods: usize, (all, bad): (i64, i64)| match restarts {
        true => json!({ "pods": pods, "podSeconds": all, "restarts": bad }),
        false => json!({ "pods": pods, "requests": all, "failed": bad }),
    };
    let test = |test: &Test| {
        let mut value = json!({
            "name": test.name,
            "action": test.action,
            "state": test.trouble.as_ref().map_or("Ok", |(state, _)| state.as_str()),
            "message": test.trouble.as_ref().map(|(_, message)| message),
            "milliseconds": test.millis.map(|millis| u64::try_from(millis).unwrap_or(u64::MAX)),
        });
        match &test.seen {
            Seen::Counted(seen) => {
                value["query"] = json!(seen.query);
                value["series"] = json!(seen.series);
                if let Some(over) = seen.over {
                    value["overSeconds"] = json!(over);
                }
                value["lastFiveMinutes"] = json!({
                    "stable": arm(seen.restarts, seen.pods.0, seen.recent.1),
                    "canary": seen.pods.1.map(|pods| arm(seen.restarts, pods, seen.recent.0)),
                });
            }
            Seen::Value(seen) => {
                value["query"] = json!(seen.query);
                value["canary"] = json!(seen.values.0);
                value["stable"] = json!(seen.values.1);
            }
            Seen::Alerts(seen) => {
                value["alerts"] = json!(seen.all);
                value["matching"] = json!(seen.matching);
                value["firing"] = json!(seen.firing);
                value["watchdog"] = json!(seen.watchdog);
            }
        }
        value
    };
    json!({
        "apiVersion": API_VERSION,
        "kind": "GuardTest",
        "name": name,
        "namespace": namespace,
        "cautions": settings.caution.iter().collect::<Vec<_>>(),
        "guards": tests.iter().map(test).collect::<Vec<_>>(),
    })
}
