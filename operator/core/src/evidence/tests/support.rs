//! A source of counters with a clock, and plans to judge it by.

use crate::api::GuardAction;
use crate::evidence::{
    Arm, DataState, GuardPlan, GuardReport, GuardState, Outcome, PodCounters, Sample, Trouble, observe,
    report,
};
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
        relative: 0.15,
        absolute: 2e-4,
        limit_ppm: None,
        min_samples: 2000,
        weight: 5,
        next_weight: 20,
        step: 0,
        steps: 5,
        window_start: Some(t(0)),
        watch: false,
        alpha_share: 1.0,
        scrape_seconds: 15,
    }
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
            newest_sample: self.scraped.get(id).copied().unwrap_or(at),
            created: self.created.get(id).copied(),
        });
        Sample { at, outcome: Outcome::Counters(pods.collect()) }
    }
}

pub fn trouble(at: Timestamp, state: DataState) -> Sample {
    Sample { at, outcome: Outcome::Trouble(Trouble::new(state, "a test".into())) }
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

    /// Reads the counters 15 s later.
    pub fn tick(&mut self) {
        self.wait(15);
        observe(&mut self.state, &self.source.sample(self.now), &self.plan, self.now);
    }

    /// One window of `(n, x)` per arm.
    pub fn window(&mut self, canary: (f64, f64), stable: (f64, f64)) {
        self.source.serve(Arm::Canary, "c", canary.0, canary.1);
        self.source.serve(Arm::Stable, "s", stable.0, stable.1);
        self.tick();
    }

    /// 15 s without usable data.
    pub fn trouble(&mut self, state: DataState) {
        self.wait(15);
        observe(&mut self.state, &trouble(self.now, state), &self.plan, self.now);
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

/// SplitMix64 (Steele, Lea & Flood, OOPSLA 2014): the same numbers on every machine.
pub struct Random(pub u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Uniform in `[0, 1)`.
    pub fn uniform(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Failures among `n` independent requests: skips from one failure to the next.
    pub fn binomial(&mut self, n: f64, p: f64) -> f64 {
        if p <= 0.0 {
            return 0.0;
        }
        let (mut at, mut failures) = (0.0, 0.0);
        loop {
            at += 1.0 + ((1.0 - self.uniform()).ln() / (1.0 - p).ln()).floor();
            if at > n {
                return failures;
            }
            failures += 1.0;
        }
    }

    /// Arrivals with this mean (Knuth's method in parts of 50).
    pub fn poisson(&mut self, mean: f64) -> f64 {
        let (mut rest, mut arrivals) = (mean, 0.0);
        while rest > 0.0 {
            let (limit, mut product) = ((-rest.min(50.0)).exp(), self.uniform());
            while product > limit {
                arrivals += 1.0;
                product *= self.uniform();
            }
            rest -= 50.0;
        }
        arrivals
    }
}
