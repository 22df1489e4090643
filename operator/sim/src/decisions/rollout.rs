//! A whole rollout, closed loop: the class's own schedule, and a weight that follows the evidence.

use sluice_core::api::{RiskClass, StepSpec};
use sluice_core::config::Config;
use sluice_core::limits;
use sluice_core::statistics::planner;
use sluice_core::statistics::rows::chain;
use sluice_core::statistics::{Engine, SUSPICION, Window};

use super::draw::Draw;
use super::judges::engine;
use super::run::{ACTION, BASELINE};
use super::traffic::{Fault, Stream, Traffic, WINDOW};

/// How a rollout ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Everything is new.
    Promoted,
    /// Stopped below weight 100.
    Aborted,
    /// Stopped at weight 100.
    Reverted,
    /// Returned to stable for lack of evidence.
    NotProven,
    /// Returned to stable for lack of data.
    NoData,
}

/// What is played.
#[derive(Clone, Debug)]
pub struct Rollout {
    /// Unique name.
    pub name: String,
    /// Runs.
    pub runs: usize,
    /// Whose schedule and rows.
    pub class: RiskClass,
    /// The service.
    pub traffic: Traffic,
    /// Prometheus is down once within the planned time, for so long.
    pub outage: Option<f64>,
    /// Whether the canary is as good as stable.
    pub good: bool,
    /// The published figure.
    pub published: &'static str,
}

/// How one run went.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Played {
    /// Its end.
    pub ending: Ending,
    /// From the start, in seconds.
    pub seconds: f64,
    /// Failed requests until the traffic is back or everything is new, more than stable would have had.
    pub harm: f64,
    /// What `plan` would have said before the start that it is at most, with 95 %.
    pub bound: f64,
    /// Whether the weight ever rose without its gate open.
    pub ungated: bool,
    /// Whether anything was decided in a window without data, but to return after the class's time.
    pub blind: bool,
}

/// Steps of a class.
fn steps(class: RiskClass) -> (Vec<StepSpec>, f64) {
    let row = limits::row(&Config::default(), class);
    (row.steps, f64::from(row.no_data_seconds))
}

/// Planned time of a class, in seconds.
pub fn planned(class: RiskClass) -> f64 {
    steps(class).0.iter().map(|step| f64::from(step.bake_seconds)).sum()
}

/// Where a run stands.
struct Run<'a> {
    rollout: &'a Rollout,
    engine: Engine,
    stream: Stream,
    rows: usize,
    no_data_seconds: f64,
    outage: Option<(f64, f64)>,
    now: f64,
    harm: f64,
    unseen: f64,
    ungated: bool,
    blind: bool,
}

/// Plays one run.
pub fn play(rollout: &Rollout, seed: u64, run: usize) -> Played {
    let (steps, no_data_seconds) = steps(rollout.class);
    let mut draw = Draw::new(seed, &rollout.name, run as u64);
    let outage = rollout.outage.map(|seconds| {
        let start = (draw.between(0.0, planned(rollout.class) - seconds) / WINDOW).floor() * WINDOW;
        (start, start + seconds)
    });
    let rows = chain(rollout.class);
    let mut run = Run {
        rollout,
        rows: rows.len(),
        engine: engine(&rows, false, 1),
        stream: Stream::new(rollout.traffic, draw, -BASELINE, f64::INFINITY),
        no_data_seconds,
        outage,
        now: -BASELINE,
        harm: 0.0,
        unseen: 0.0,
        ungated: false,
        blind: false,
    };
    while run.now < 0.0 {
        run.window(0.0, true);
    }
    let bound = bound(&run, &steps);
    let weights = steps.iter().map(|step| f64::from(step.weight_percent) / 100.0);
    let nexts = weights.clone().skip(1).map(Some).chain([None]);
    let mut ending = Ending::Promoted;
    for ((weight, next), step) in weights.zip(nexts).zip(&steps) {
        if let Some(other) = run.step(weight, next, step.bake_seconds) {
            ending = other;
            break;
        }
    }
    Played { ending, seconds: run.now, harm: run.harm, bound, ungated: run.ungated, blind: run.blind }
}

/// The planner on what the hour before the start has shown.
fn bound(run: &Run<'_>, steps: &[StepSpec]) -> f64 {
    let traffic = run.rollout.traffic;
    let first = steps.first().map_or(1, |step| step.weight_percent);
    let stable = i32::try_from(traffic.pods).unwrap_or(i32::MAX);
    let pods = |count: i32| usize::try_from(count).unwrap_or(0);
    let pods = (pods(limits::pods_for(stable, first)), pods(stable));
    let Some((guard, state)) = run.engine.guards().next() else { return f64::INFINITY };
    let outlook = state.outlook(guard, true, pods);
    // The window in which a weight changed is not judged.
    let seen = planner::Traffic::seen(&outlook, BASELINE, WINDOW, WINDOW + ACTION);
    let step = |step: &StepSpec| {
        let weight = f64::from(step.weight_percent) / 100.0;
        planner::Step { weight, exposure: weight, bake_seconds: f64::from(step.bake_seconds) }
    };
    let steps: Vec<planner::Step> = steps.iter().map(step).collect();
    let (from, bad) = match traffic.fault {
        Fault::Times(times) => (0.0, times * traffic.rate),
        Fault::TimesFrom { share, times } => (share, times * traffic.rate),
        Fault::Step { rate, .. } | Fault::Leak { rate, .. } => (0.0, rate),
    };
    let plan = planner::plan(guard, &seen, &steps, bad);
    match steps.iter().zip(&plan.steps).find(|(step, _)| from > 0.0 && step.weight >= from) {
        Some((_, step)) => step.harm.excess.p95,
        None => plan.harm.p95,
    }
}

impl Run<'_> {
    /// One step; how the rollout ends there, if it does.
    fn step(&mut self, weight: f64, next: Option<f64>, bake_seconds: i32) -> Option<Ending> {
        self.engine.begin_step(weight, next.unwrap_or(1.0), next.is_none());
        self.stream.scale_canary(weight, self.now);
        // The window in which the weight changed is not judged.
        self.window(weight, false);
        let (bake, limit) = (f64::from(bake_seconds), f64::from(limits::step_seconds(bake_seconds)));
        let mut healthy = 0.0;
        loop {
            let seen = self.window(weight, true);
            let verdict = self.engine.verdict(self.rows);
            if verdict.stop {
                self.blind |= !seen;
                return Some(
                    self.stopped(weight, if next.is_some() { Ending::Aborted } else { Ending::Reverted }),
                );
            }
            if self.unseen >= self.no_data_seconds {
                return Some(self.stopped(weight, Ending::NoData));
            }
            if seen {
                healthy += WINDOW;
            }
            let open = next.is_none() || verdict.open;
            if seen && healthy >= bake && open && !verdict.incident && verdict.score < SUSPICION {
                self.ungated |= next.is_some_and(|next| !self.is_proven(next));
                return None;
            }
            // Time without data has a clock of its own.
            if healthy >= limit {
                return Some(self.stopped(weight, Ending::NotProven));
            }
        }
    }

    /// Plays a window. Whether its counts were seen; `judged` false: they only move the start.
    fn window(&mut self, weight: f64, judged: bool) -> bool {
        let from = self.now;
        self.now += WINDOW;
        self.stream.play(from, weight);
        self.harm += self.rollout.traffic.excess(weight, from, self.now);
        let seen = !self.outage.is_some_and(|(start, back)| start <= from && from < back);
        self.unseen = if seen { 0.0 } else { self.unseen + WINDOW };
        let Stream { canary, stable, .. } = &self.stream;
        let pods = (canary.len(), stable.len());
        let window = Window { end: self.now, seconds: WINDOW, canary, stable, by_pod: true, pods };
        if judged {
            self.engine.window(&[seen.then_some(window)]);
        }
        seen
    }

    /// Harm goes on until the traffic is back.
    fn stopped(&mut self, weight: f64, ending: Ending) -> Ending {
        self.harm += self.rollout.traffic.excess(weight, self.now, self.now + ACTION);
        ending
    }

    /// The gate once more, from its parts: odds of all rows, and requests.
    fn is_proven(&self, next: f64) -> bool {
        self.engine.guards().all(|(guard, state)| {
            let enough =
                |row: &sluice_core::statistics::Row| state.gate_requests() >= row.min_requests * next;
            guard
                .rows
                .iter()
                .zip(state.odds(guard))
                .all(|(row, odds)| odds.gate.exp() * row.beta >= 1.0 - 1e-9 && enough(row))
                && guard.rows.len() == self.rows
        })
    }
}
