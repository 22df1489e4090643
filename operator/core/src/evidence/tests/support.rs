//! A source of counters with a clock, and plans to judge it by.

use crate::api::{GuardAction, RiskClass};
use crate::evidence::{
    self, AlertReport, Arm, DataState, Evidence, GuardPlan, GuardReport, GuardState, Outcome, PodCounters,
    Sample, Trouble, is_incident, observe,
};
use crate::statistics::{self, Asked, Guard, Joined, Place, Signal, join};
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeMap;

/// `2026-01-01T00:00:00Z` plus seconds.
pub fn t(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_767_225_600 + seconds).unwrap()
}

pub fn after(at: Timestamp, seconds: i64) -> Timestamp {
    at + SignedDuration::from_secs(seconds)
}

/// Class R2 at 5 %, live since 0, one guard, scraped every 15 s.
pub fn plan() -> GuardPlan {
    GuardPlan {
        name: "error-rate".into(),
        action: GuardAction::Abort,
        judged: judged(None),
        by_pod: true,
        warmup: 0.0,
        min_samples: 2000,
        weight: 5,
        next_weight: 20,
        step: 0,
        window_start: Some(t(0)),
        watch: false,
        returned: None,
        scrape_seconds: 15,
    }
}

/// Class R2's rows, for one guard of the whole budget.
pub fn judged(limit: Option<f64>) -> Guard {
    let asked =
        Asked { name: "error-rate".into(), signal: Signal::Errors, stops: true, limit, phi_floor: 1.0 };
    statistics::guards(&[asked], &statistics::rows::chain(RiskClass::R2), false).remove(0)
}

/// One guard's view when it is the only one.
pub fn report(state: &GuardState, plan: &GuardPlan, now: Timestamp) -> GuardReport {
    let place = Place { alone: plan.alone(), watch: plan.alone() };
    let joined = join(&[(&plan.judged, &state.weighed)], plan.judged.rows.len(), place);
    evidence::report(state, plan, joined.parts[0], now)
}

/// What these say together.
pub fn combine(guards: Vec<GuardReport>, alerts: Vec<AlertReport>) -> Evidence {
    let parts: Vec<_> =
        guards.iter().map(|guard| (guard.action == GuardAction::Abort, guard.score)).collect();
    evidence::combine(guards, alerts, &Joined::of(&parts))
}

/// Counters as a source would show them.
#[derive(Clone, Debug, Default)]
pub struct Source {
    pub pods: BTreeMap<(Arm, String), (f64, f64)>,
    pub created: BTreeMap<String, Timestamp>,
    /// Pods that were not scraped since then.
    pub scraped: BTreeMap<String, Timestamp>,
}

impl Source {
    /// One canary and one stable pod, both at zero.
    pub fn pair() -> Self {
        let mut source = Self::default();
        source.serve(Arm::Canary, "c", 0.0, 0.0);
        source.serve(Arm::Stable, "s", 0.0, 0.0);
        source
    }

    pub fn serve(&mut self, arm: Arm, id: &str, n: f64, x: f64) {
        let pod = self.pods.entry((arm, id.into())).or_default();
        pod.0 += n;
        pod.1 += x;
    }

    pub fn set(&mut self, arm: Arm, id: &str, total: f64, bad: f64) {
        self.pods.insert((arm, id.into()), (total, bad));
    }

    pub fn sample(&self, at: Timestamp) -> Sample {
        let pods = self.pods.iter().map(|((arm, id), (total, bad))| PodCounters {
            id: id.clone(),
            arm: *arm,
            total: *total,
            bad: Some(*bad),
            maybe_bad: None,
            newest_sample: self.scraped.get(id).copied().unwrap_or(at),
            created: self.created.get(id).copied(),
            out_of_memory: false,
        });
        Sample { bound: None, at, outcome: Outcome::Counters(pods.collect()) }
    }
}

pub fn trouble(at: Timestamp, state: DataState) -> Sample {
    Sample { bound: None, at, outcome: Outcome::Trouble(Trouble::new(state, "a test".into())) }
}

/// A guard under observation, every 15 s.
#[derive(Clone, Debug)]
pub struct Bench {
    pub state: GuardState,
    pub source: Source,
    pub plan: GuardPlan,
    pub now: Timestamp,
}

impl Bench {
    /// Starting counters are read at 0.
    pub fn new(plan: GuardPlan) -> Self {
        let mut bench = Self { state: GuardState::default(), source: Source::pair(), plan, now: t(-15) };
        bench.tick();
        bench
    }

    /// The same after an hour in which stable failed 0.1 % of 100 requests a second.
    pub fn with_record(plan: GuardPlan) -> Self {
        let live = GuardPlan { window_start: Some(t(3600)), ..plan };
        let mut bench = Self::new(GuardPlan { weight: 0, window_start: None, ..live.clone() });
        for window in 0..240 {
            bench.window((0.0, 0.0), (1500.0, f64::from(1 + window % 2)));
        }
        bench.plan = live;
        bench
    }

    /// Reads the counters 15 s later.
    pub fn tick(&mut self) {
        self.wait(15);
        self.observe(&self.source.sample(self.now));
    }

    /// Takes in a sample.
    pub fn observe(&mut self, sample: &Sample) {
        let incident = is_incident(&self.state, &self.plan, self.now);
        observe(&mut self.state, sample, &self.plan, incident, self.now);
    }

    /// One window of `(n, x)` per arm.
    pub fn window(&mut self, canary: (f64, f64), stable: (f64, f64)) {
        self.source.serve(Arm::Canary, "c", canary.0, canary.1);
        self.source.serve(Arm::Stable, "s", stable.0, stable.1);
        self.tick();
    }

    /// Enough healthy requests for the next weight.
    pub fn prove(&mut self) {
        for _ in 0..5 {
            self.window((1000.0, 0.0), (19_000.0, 0.0));
        }
    }

    /// 15 s without usable data.
    pub fn trouble(&mut self, state: DataState) {
        self.wait(15);
        self.observe(&trouble(self.now, state));
    }

    pub fn wait(&mut self, seconds: i64) {
        self.now = after(self.now, seconds);
    }

    /// The next step, live now.
    pub fn step(&mut self, weight: i32) {
        self.plan.step += 1;
        self.plan.weight = weight;
        self.plan.window_start = Some(self.now);
    }

    pub fn report(&self) -> GuardReport {
        report(&self.state, &self.plan, self.now)
    }

    pub fn score(&self) -> f64 {
        self.report().score
    }
}
