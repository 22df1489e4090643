//! A trace of a run while it goes on: what its guards were answered, in the order of time.
//!
//! A trace has one guard of failures and one of latency: the first of each that can stop the run. Of latency it keeps what
//! is surely slow, as requests within the limit. A weight is in force from the first sample after it was live.

use jiff::Timestamp;

use super::format::{Arms, Header, Record, Series, State, VERSION};
use crate::api::{Counted, Guard, GuardAction, Plan, Run, Stage};
use crate::evidence::{Arm, DataState, Outcome, PodCounters, Sample};

/// Writes the records of one run.
#[derive(Clone, Debug)]
pub struct Recorder {
    errors: Option<String>,
    latency: Option<(String, f64)>,
    /// Weight in force at the last record, in percent, and its time.
    weight: i32,
    last: Option<Timestamp>,
}

impl Recorder {
    /// Begins a run's trace.
    pub fn new(plan: &Plan) -> Self {
        let first = |of: &dyn Fn(&Guard) -> bool| {
            plan.guards.iter().find(|guard| guard.action == GuardAction::Abort && of(guard))
        };
        let errors = first(&|guard| matches!(guard.counted(), Some(Counted::Errors(_))));
        let milliseconds = |guard: &Guard| guard.latency.as_ref()?.slo_milliseconds;
        let latency = first(&|guard| milliseconds(guard).is_some());
        let slo = |guard: &Guard| Some((guard.name.clone(), f64::from(milliseconds(guard)?) / 1000.0));
        Self {
            errors: errors.map(|guard| guard.name.clone()),
            latency: latency.and_then(slo),
            weight: 0,
            last: None,
        }
    }

    /// Names of the guards whose answers are kept.
    pub fn guards(&self) -> impl Iterator<Item = &str> {
        let latency = self.latency.as_ref().map(|(name, _)| name.as_str());
        self.errors.as_deref().into_iter().chain(latency)
    }

    /// The first line.
    pub fn header(&self, id: &str, plan: &Plan, scrape_seconds: i32) -> Header {
        let slo = self.latency.as_ref().map(|(_, slo)| *slo);
        Header {
            sluice_trace: VERSION,
            id: id.to_owned(),
            scrape_seconds: f64::from(scrape_seconds.max(1)),
            les: slo.into_iter().collect(),
            risk_class: Some(plan.risk_class),
            latency_slo_seconds: slo,
        }
    }

    /// What was answered at one time, by the guard's name; none if it is not after the last record. Without a run it is of
    /// the time before.
    pub fn record(&mut self, run: Option<&Run>, samples: &[(String, Sample)]) -> Option<Record> {
        let of = |name: &str| samples.iter().find(|(guard, _)| guard == name).map(|(_, sample)| sample);
        let errors = self.errors.as_deref().and_then(of);
        let latency = self.latency.as_ref().and_then(|(name, _)| of(name));
        let at = errors.or(latency)?.at;
        if self.last.is_some_and(|last| last >= at) {
            return None;
        }
        if let Some(percent) = run.and_then(|run| self.in_force(run)) {
            self.weight = percent;
        }
        self.last = Some(at);
        let answer = |sample: Option<&Sample>| sample.map(|sample| sample.outcome.clone());
        let (state, arms) = match (answer(errors), answer(latency)) {
            (Some(Outcome::Trouble(trouble)), _) | (_, Some(Outcome::Trouble(trouble))) => {
                (state_of(trouble.state), None)
            }
            (Some(Outcome::Counters(errors)), Some(Outcome::Counters(latency))) => {
                (State::Ok, Some(arms(&errors, Some(&latency))))
            }
            (Some(Outcome::Counters(errors)), None) => (State::Ok, Some(arms(&errors, None))),
            (None, Some(Outcome::Counters(latency))) => (State::Ok, Some(arms(&latency, Some(&latency)))),
            (None, None) => (State::NoData, None),
        };
        Some(Record {
            t: at.as_millisecond() as f64 / 1000.0,
            weight: f64::from(self.weight),
            state,
            arms,
            gauges: Default::default(),
            queries: Default::default(),
        })
    }

    /// The weight that was in force since the last record; none while another one becomes live.
    fn in_force(&self, run: &Run) -> Option<i32> {
        let weight = run.weight?;
        let (settled, last) = (weight.settled_at?, self.last?);
        let judged = matches!(run.stage, Stage::Stepping | Stage::Promoting | Stage::Watching);
        (judged && settled <= last).then_some(weight.percent)
    }
}

fn state_of(data: DataState) -> State {
    match data {
        DataState::Ok | DataState::QueryError | DataState::NoCommonBuckets => State::Error,
        DataState::NoData => State::NoData,
        DataState::NotANumber => State::Nan,
        DataState::Stale => State::Stale,
        DataState::MultipleSeries => State::MultiSeries,
        DataState::ProviderDown => State::Outage,
    }
}

/// Counters by pod; a pod without a histogram has no slow request.
fn arms(requests: &[PodCounters], latency: Option<&[PodCounters]>) -> Arms {
    let mut arms = Arms::default();
    for pod in requests {
        let slow = |latency: &[PodCounters]| {
            let same = latency.iter().find(|other| other.arm == pod.arm && other.id == pod.id);
            same.and_then(|other| other.bad).unwrap_or(0.0)
        };
        let alone = latency.is_some_and(|latency| std::ptr::eq(latency, requests));
        let series = Series {
            id: pod.id.clone(),
            req: pod.total,
            err: if alone { 0.0 } else { pod.bad.unwrap_or(0.0) },
            le: latency.map(|latency| (pod.total - slow(latency)).max(0.0)).into_iter().collect(),
        };
        match pod.arm {
            Arm::Stable => arms.stable.push(series),
            Arm::Canary => arms.canary.push(series),
        }
    }
    arms
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::Trouble;
    use crate::trace::Trace;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_767_225_600 + second).unwrap()
    }

    fn run(percent: i32, settled: Option<i64>) -> Run {
        let revision = |hash: &str| serde_json::json!({"digest": hash, "restartDigest": hash, "hash": hash, "replicaSet": hash});
        let guards = serde_json::json!([
            {"name": "seen", "action": "Observe", "errorRatio": {}},
            {"name": "errors", "errorRatio": {}}, {"name": "slow", "latency": {"sloMilliseconds": 250}},
        ]);
        let run = serde_json::json!({
            "id": "1-a", "stable": revision("s"), "canary": revision("c"), "stage": "Stepping",
            "startedAt": at(0).to_string(), "stageSince": at(0).to_string(),
            "weight": {"percent": percent, "at": at(0).to_string(), "settledAt": settled.map(|s| at(s).to_string())},
            "plan": {
                "digest": "", "riskClass": "R1", "provenance": "Human", "minSamples": 1, "steps": [],
                "tolerancePpm": {"relative": 0, "absolute": 0}, "noDataSeconds": 60, "watchSeconds": 60,
                "progressDeadlineSeconds": 60, "service": "web", "stableService": "web-stable",
                "canaryService": "web-canary", "routes": [], "apexCallers": "None", "settleSeconds": 1,
                "drainSeconds": 1, "guards": guards,
            },
        });
        serde_json::from_value(run).unwrap()
    }

    fn samples(second: i64, total: f64, bad: f64, slow: f64) -> Vec<(String, Sample)> {
        let pod = |arm, bad| PodCounters {
            id: format!("{arm}-1"),
            arm,
            total,
            bad: Some(bad),
            maybe_bad: None,
            newest_sample: at(second),
            created: None,
            out_of_memory: false,
        };
        let sample = |bad| {
            let pods = vec![pod(Arm::Stable, 0.0), pod(Arm::Canary, bad)];
            Sample { bound: None, at: at(second), outcome: Outcome::Counters(pods) }
        };
        vec![("errors".to_owned(), sample(bad)), ("slow".to_owned(), sample(slow))]
    }

    #[test]
    fn a_weight_is_in_force_from_the_first_sample_after_it_was_live() {
        let live = run(10, Some(20));
        let mut recorder = Recorder::new(&live.plan);
        assert_eq!(recorder.guards().collect::<Vec<_>>(), ["errors", "slow"]);
        let mut weight = |run: Option<&Run>, second: i64| {
            recorder.record(run, &samples(second, second as f64, 0.0, 0.0)).map(|record| record.weight)
        };
        assert_eq!(weight(None, 0), Some(0.0));
        assert_eq!(weight(Some(&run(10, None)), 15), Some(0.0), "it is not live yet");
        assert_eq!(weight(Some(&live), 30), Some(0.0), "the window began before it was live");
        assert_eq!(weight(Some(&live), 30), None, "it is there already");
        assert_eq!(weight(Some(&live), 45), Some(10.0));
        assert_eq!(weight(Some(&run(50, None)), 60), Some(10.0), "the next one is not live yet");
    }

    #[test]
    fn what_is_written_is_read_back() {
        let run = run(10, Some(0));
        let mut recorder = Recorder::new(&run.plan);
        let header = recorder.header("shop/web", &run.plan, 15);
        let mut records: Vec<Record> = (0..3)
            .filter_map(|n| {
                recorder.record(Some(&run), &samples(15 * n, 100.0 * n as f64, n as f64, 3.0 * n as f64))
            })
            .collect();
        let down = Outcome::Trouble(Trouble::new(DataState::ProviderDown, "down".to_owned()));
        records.extend(
            recorder.record(
                Some(&run),
                &[("errors".to_owned(), Sample { bound: None, at: at(60), outcome: down })],
            ),
        );
        let trace = Trace { header, records };
        let text: Vec<String> = trace.lines().collect();
        assert_eq!(Trace::read(text.iter().map(String::as_str)), Ok(trace.clone()));
        let canary = &trace.records[2].arms.as_ref().unwrap().canary[0];
        assert_eq!((canary.req, canary.err, canary.le.as_slice()), (200.0, 2.0, &[194.0][..]));
        assert_eq!((trace.records[3].state, trace.records[3].arms.as_ref()), (State::Outage, None));
        assert_eq!(trace.header.les, [0.25]);
    }
}
