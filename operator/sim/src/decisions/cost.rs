//! What the decisions cost: the time of one window of a run with many guards and pods, and the length of what is kept of it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use sluice_core::api::{
    Guard, ProgressiveRolloutSpec, Provenance, Revision, RiskClass, RiskPolicySpec, Run, RunKind, Stage,
    WeightIntent,
};
use sluice_core::config::Config;
use sluice_core::evidence::{Arm, EvidenceState, Outcome, PodCounters, Sample};
use sluice_core::forecast::forecast;
use sluice_core::harm;
use sluice_core::judge::{Evaluation, Polls, judge};
use sluice_core::limits;
use sluice_core::policy::{self, Policy, Preset};
use sluice_core::provenance;
use sluice_core::view::Workload;

/// The largest rollout that the limits are for.
const STABLE_PODS: usize = 16;
const CANARY_PODS: usize = 4;
/// An hour before the start, and an hour and a quarter of the run.
const BEFORE: i64 = 240;
const WINDOWS: i64 = 300;
const INTERVAL: i32 = 15;
/// So much may a window take, half of all windows.
const WINDOW_LIMIT: Duration = Duration::from_micros(100);
/// So much may risk, limits and plan of a rollout take, half of all times; and so many are made.
const PLAN_LIMIT: Duration = Duration::from_micros(50);
const PLANS: usize = 2001;
/// So much may the bound on harm of a plan take, half of all times; and so many are computed.
const HARM_LIMIT: Duration = Duration::from_millis(5);
const HARMS: usize = 51;
/// So long may the state be, in bytes.
const STATE_LIMIT: usize = 24 << 10;
/// Rollouts at once that the share of a core is told for.
const FLEET: f64 = 500.0;

/// What one kind of run costs.
#[derive(Clone, Debug)]
pub struct Cost {
    name: &'static str,
    /// Half of the windows took no longer.
    window: Duration,
    /// Bytes of the state as it stands in status, after each window the most.
    kept: usize,
    /// The same as JSON.
    json: usize,
    /// Packing it once.
    pack: Duration,
}

impl Cost {
    /// A line of the table.
    pub fn line(&self) -> String {
        let core = FLEET * self.window.as_secs_f64() / f64::from(INTERVAL);
        format!(
            "{:<46} {:5.0} us a window, {:.2} % of a core for {FLEET:.0} rollouts; kept {:.1} KiB, {:.2} of its JSON, packed in {:.0} us",
            self.name,
            self.window.as_secs_f64() * 1e6,
            core * 100.0,
            self.kept as f64 / 1024.0,
            self.kept as f64 / self.json as f64,
            self.pack.as_secs_f64() * 1e6,
        )
    }

    /// For programs.
    pub fn value(&self) -> Value {
        json!({
            "name": self.name,
            "windowMicroseconds": self.window.as_secs_f64() * 1e6,
            "keptBytes": self.kept,
            "jsonBytes": self.json,
            "packMicroseconds": self.pack.as_secs_f64() * 1e6,
        })
    }

    /// What is more than it may be, in words.
    pub fn problems(&self) -> Vec<String> {
        let slow = (self.window > WINDOW_LIMIT)
            .then(|| format!("{}: a window takes {:?}, more than {WINDOW_LIMIT:?}", self.name, self.window));
        let long = (self.kept > STATE_LIMIT)
            .then(|| format!("{}: {} bytes are kept, more than {STATE_LIMIT}", self.name, self.kept));
        slow.into_iter().chain(long).collect()
    }
}

/// What the risk of a change, its limits and its plan cost.
#[derive(Clone, Copy, Debug)]
pub struct PlanCost {
    /// Half of the plans took no longer.
    time: Duration,
}

impl PlanCost {
    /// Makes plans under two policies of the cluster and one of the namespace.
    pub fn measure() -> Self {
        let config = Config::default();
        let cluster =
            [Preset::Standard, Preset::Critical].map(|preset| (preset.as_str().to_owned(), preset.spec()));
        let own: RiskPolicySpec = serde_json::from_value(json!({
            "tier": "Tier1", "floors": [{"class": "R1"}], "limits": {"minBakeSeconds": 900},
            "classes": [{"name": "R2", "minSamples": 3000, "steps": [{"weightPercent": 5, "bakeSeconds": 1800}, {"weightPercent": 100, "bakeSeconds": 3600}]}],
        }))
        .unwrap_or_default();
        let policy = Policy::joined(&config, &cluster, &[("shop".to_owned(), own)], &BTreeMap::new());
        let evidence = json!({"rulesVersion": "2026.11", "baseCommit": "0c6d1b2e77aa", "headCommit": "9f2c1ab4d0e1", "commitsScanned": 4});
        let spec = json!({
            "workloadRef": {"name": "web"}, "routing": {"service": "web", "routes": [{"name": "web"}]}, "guards": guards(),
            "change": {"provenance": "GenAIAssisted", "commit": "9f2c1ab4d0e1", "size": {"changedLines": 342}, "evidence": evidence}, "limits": {"maxFirstStepPercent": 1},
        });
        let Ok(spec) = serde_json::from_value::<ProgressiveRolloutSpec>(spec) else {
            return Self { time: Duration::MAX };
        };
        let workload = Workload::read(&json!({"metadata": {"name": "web"}, "spec": {"template": {}}}));
        let time = typical(PLANS, || {
            let view = provenance::declared(&spec.change);
            let budget = policy::error_budget(&[]);
            let risk = policy::assess(&spec, &view, &policy, &[], budget, Timestamp::UNIX_EPOCH);
            let change = (risk.provenance, risk.class);
            limits::draft(&spec, &config, &policy, &workload, change)
        });
        Self { time }
    }

    /// A line of the table.
    pub fn line(&self) -> String {
        let micros = self.time.as_secs_f64() * 1e6;
        format!(
            "{:<46} {micros:5.0} us, without its digest and the bound on harm",
            "risk, limits and plan under three policies"
        )
    }

    /// For programs.
    pub fn value(&self) -> Value {
        json!({ "name": "plan", "planMicroseconds": self.time.as_secs_f64() * 1e6 })
    }

    /// What is more than it may be, in words.
    pub fn problem(&self) -> Option<String> {
        (self.time > PLAN_LIMIT).then(|| format!("a plan takes {:?}, more than {PLAN_LIMIT:?}", self.time))
    }
}

/// What the bound on harm of a plan costs, once stable's record was read.
#[derive(Clone, Copy, Debug)]
pub struct HarmCost {
    /// Half of the bounds took no longer.
    time: Duration,
}

impl HarmCost {
    /// Computes it for the longest schedule and five guards, from an hour of the largest stable.
    pub fn measure() -> Self {
        let Some(run) = run((Provenance::Unknown, RiskClass::R4), false, Timestamp::UNIX_EPOCH) else {
            return Self { time: Duration::MAX };
        };
        let mut pods: Vec<PodCounters> = (0..STABLE_PODS).map(pod).collect();
        let record: Vec<Sample> = (0..=BEFORE)
            .map(|window| {
                let at = Timestamp::UNIX_EPOCH + SignedDuration::from_secs(i64::from(INTERVAL) * window);
                for (number, pod) in pods.iter_mut().enumerate() {
                    count(pod, number, window);
                    pod.newest_sample = at;
                }
                Sample { bound: None, at, outcome: Outcome::Counters(pods.clone()) }
            })
            .collect();
        let samples: Vec<(String, Vec<Sample>)> =
            run.plan.guards.iter().map(|guard| (guard.name.clone(), record.clone())).collect();
        let replicas = i32::try_from(STABLE_PODS).unwrap_or(i32::MAX);
        let time = typical(HARMS, || {
            let forecasts = forecast(&run.plan, replicas, &samples, None, INTERVAL);
            harm::shown(&run.plan, &forecasts, Timestamp::UNIX_EPOCH)
        });
        Self { time }
    }

    /// A line of the table.
    pub fn line(&self) -> String {
        let micros = self.time.as_secs_f64() * 1e6;
        format!(
            "{:<46} {micros:5.0} us, from an hour of {STABLE_PODS} pods by 5 guards, class R4",
            "harm bound of one plan"
        )
    }

    /// For programs.
    pub fn value(&self) -> Value {
        json!({ "name": "harm", "harmMicroseconds": self.time.as_secs_f64() * 1e6 })
    }

    /// What is more than it may be, in words.
    pub fn problem(&self) -> Option<String> {
        (self.time > HARM_LIMIT)
            .then(|| format!("the bound on harm of a plan takes {:?}, more than {HARM_LIMIT:?}", self.time))
    }
}

/// Five guards and twenty pods: of a usual change, and of one that a machine wrote alone and of which no pod may decide alone.
pub fn all() -> Vec<Cost> {
    vec![
        measure("5 guards, 20 pods, class R2", (Provenance::Unknown, RiskClass::R2), false),
        measure(
            "5 guards, 20 pods, class R3, two pods needed",
            (Provenance::GenAIAutonomous, RiskClass::R3),
            true,
        ),
    ]
}

fn guards() -> Vec<Guard> {
    let guards = json!([
        {"name": "errors", "errorRatio": {"maxPpm": 20_000}},
        {"name": "errors-at-the-edge", "errorRatio": {}},
        {"name": "slow", "latency": {"sloMilliseconds": 500}},
        {"name": "slower", "latency": {"sloMilliseconds": 2500}},
        {"name": "restarts", "restarts": {}},
    ]);
    serde_json::from_value(guards).unwrap_or_default()
}

fn run(change: (Provenance, RiskClass), two_pods: bool, start: Timestamp) -> Option<Run> {
    let spec = json!({
        "workloadRef": {"name": "web"}, "routing": {"service": "web", "routes": [{"name": "web"}]},
        "guards": guards(), "limits": {"abortNeedsTwoPods": two_pods},
    });
    let spec: ProgressiveRolloutSpec = serde_json::from_value(spec).ok()?;
    let workload = Workload::read(&json!({"metadata": {"name": "web"}, "spec": {"template": {}}}));
    let config = Config::default();
    let policy = Policy::of_installation(&config);
    let plan = limits::make_plan(&spec, &config, &policy, &workload, change);
    let revision = |hash: &str| -> Option<Revision> {
        let set = format!("checkout-{hash}");
        let revision =
            json!({"digest": hash, "hash": hash, "restartDigest": hash, "replicaSet": set, "images": []});
        serde_json::from_value(revision).ok()
    };
    let (canary, stable) = (revision("7d9f8b6c54")?, revision("5c6d7e8f90")?);
    let mut run = Run::new("1-abcde".to_owned(), RunKind::Canary, canary, stable, plan, start);
    run.stage = Stage::Stepping;
    Some(run)
}

fn measure(name: &'static str, change: (Provenance, RiskClass), two_pods: bool) -> Cost {
    let mut cost = Cost { name, window: Duration::ZERO, kept: 0, json: 1, pack: Duration::ZERO };
    let start = Timestamp::UNIX_EPOCH;
    let Some(mut run) = run(change, two_pods, start) else {
        return cost;
    };
    let mut state = EvidenceState::default();
    let mut pods: Vec<PodCounters> = (0..STABLE_PODS + CANARY_PODS).map(pod).collect();
    let mut times = Vec::new();
    for window in -BEFORE..WINDOWS {
        let now = start + SignedDuration::from_secs(i64::from(INTERVAL) * (window + BEFORE));
        if window == 0 {
            run.weight =
                Some(WeightIntent { percent: 20, at: now, accepted_at: Some(now), settled_at: Some(now) });
            run.exposed_since = Some(now);
        }
        for (number, pod) in pods.iter_mut().enumerate() {
            count(pod, number, window + BEFORE);
            pod.newest_sample = now;
        }
        let present = pods.iter().filter(|pod| pod.arm == Arm::Stable || window >= 0);
        let sample = Sample { bound: None, at: now, outcome: Outcome::Counters(present.cloned().collect()) };
        let all: Vec<(String, Sample)> =
            run.plan.guards.iter().map(|guard| (guard.name.clone(), sample.clone())).collect();
        let (history, samples) = if window < 0 { (all, Vec::new()) } else { (Vec::new(), all) };
        let evaluation = Evaluation {
            run: &run,
            history: &history,
            samples: &samples,
            gauges: &[],
            polls: Polls::default(),
            quiet: None,
            interval_seconds: INTERVAL,
            now,
        };
        let begin = Instant::now();
        let verdict = std::hint::black_box(judge(&evaluation, &mut state));
        if window >= 0 {
            times.push(begin.elapsed());
            run.evidence = verdict.state;
            let begin = Instant::now();
            let kept = packed(&run);
            cost.pack = begin.elapsed();
            cost.kept = cost.kept.max(kept);
            cost.json = cost.json.max(serde_json::to_string(&state).map_or(0, |text| text.len()));
        }
    }
    cost.window = median(times);
    cost
}

/// Half of so many repeats took no longer.
fn typical<T>(repeats: usize, work: impl Fn() -> T) -> Duration {
    let timed = |_| {
        let begin = Instant::now();
        std::hint::black_box(work());
        begin.elapsed()
    };
    median((0..repeats).map(timed).collect())
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// Some uneven numbers: 0.1 % fail, and none in step with another.
fn count(pod: &mut PodCounters, number: usize, window: i64) {
    let window = usize::try_from(window).unwrap_or(0);
    let requests = 37 + (number * 7 + window * 13) % 11;
    let failed = (number * 31 + window * 17).is_multiple_of(25);
    pod.total += requests as f64;
    pod.bad = pod.bad.map(|bad| bad + f64::from(u8::from(failed)));
    pod.maybe_bad = pod.bad;
}

/// Bytes of the evidence in a run's status.
fn packed(run: &Run) -> usize {
    let status = serde_json::to_value(run).unwrap_or_default();
    status["evidence"].as_str().map_or(0, str::len)
}

fn pod(number: usize) -> PodCounters {
    let (arm, set) = match number < STABLE_PODS {
        true => (Arm::Stable, "checkout-5c6d7e8f90"),
        false => (Arm::Canary, "checkout-7d9f8b6c54"),
    };
    PodCounters {
        id: format!("{set}-{number:02}xyz"),
        arm,
        total: 0.0,
        bad: Some(0.0),
        maybe_bad: Some(0.0),
        newest_sample: Timestamp::UNIX_EPOCH,
        created: None,
        out_of_memory: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_record_of_the_bound_on_harm_is_one_that_can_be_forecast() {
        assert!(HarmCost::measure().time < Duration::MAX);
    }

    #[test]
    fn the_largest_state_is_no_longer_than_it_may_be() {
        for cost in all() {
            // Times are not for a test: an optimized build is measured by `make bench-decisions`.
            assert!((4 << 10..STATE_LIMIT).contains(&cost.kept), "{}: {} bytes", cost.name, cost.kept);
        }
    }
}
