//! All judges of one run side by side: each sees the same counts, and the moment of its decision is kept.

use sluice_core::api::RiskClass;
use sluice_core::statistics::engine::guards;
use sluice_core::statistics::rows::built_in;
use sluice_core::statistics::{Asked, Cell, Counts, Engine, EngineState, Row, STOP, Signal, Window};

use super::oracle::{Cusum, Sprt};
use super::peers::{Argo, Flagger, Minute};

/// Names of Sluice's judges, loosest class first.
pub const CLASSES: [&str; 5] = ["R0", "R1", "R2", "R3", "R4"];

/// An engine with guards of failed requests, one for each kind of request.
pub fn engine(rows: &[Row], two_pods: bool, kinds: usize) -> Engine {
    let asked = |kind| {
        let name = format!("errors-{kind}");
        Asked { name, signal: Signal::Errors, stops: true, limit: None, phi_floor: 1.0 }
    };
    let asked: Vec<Asked> = (0..kinds).map(asked).collect();
    Engine::new(guards(&asked, rows, two_pods), EngineState::default())
}

/// Rows of all classes for a run of one step of this length: capital doesn't wait for further steps, and its part in
/// time is spread over the whole run. What the classes' own plans do is seen in whole rollouts.
pub fn rows_of_one_step(seconds: f64) -> Vec<Row> {
    RiskClass::ALL.map(|class| Row { steps: 1, planned_seconds: seconds, ..built_in(class) }).to_vec()
}

/// Sum of an arm.
pub fn total(cells: &[Cell]) -> Counts {
    cells.iter().fold(Counts::default(), |sum, cell| sum.plus(Counts::new(cell.n, cell.x)))
}

/// An arm as a series without pods shows it.
pub fn merged(cells: &[Cell]) -> [Cell; 1] {
    let Counts { n, x } = total(cells);
    [Cell { pod: cells.first().map_or(0, |cell| cell.pod), n, x, x_gate: x }]
}

/// An arm as two pods that are exactly alike: no failure clusters and no pod differs, so learning about them is free.
pub fn halves(cells: &[Cell]) -> [Cell; 2] {
    let Counts { n, x } = total(cells);
    [0, 1].map(|pod| Cell { pod, n: n / 2.0, x: x / 2.0, x_gate: x / 2.0 })
}

/// Counts of the canary and of stable, by pod.
pub type Arms<'a> = (&'a [Cell], &'a [Cell]);

/// What series tell of pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Each pod.
    Pods,
    /// Totals of each arm.
    Arms,
    /// That stable's are alike.
    Alike,
}

/// All five classes in one pass: a class plays the first rows of the tightest.
pub struct Sluice {
    engine: Engine,
    seen: Seen,
    /// When each class stopped the canary.
    pub stopped: [Option<f64>; 5],
}

impl Sluice {
    /// Before the start of a run of one step.
    pub fn new(seen: Seen, two_pods: bool, kinds: usize, planned: f64) -> Self {
        Self { engine: engine(&rows_of_one_step(planned), two_pods, kinds), seen, stopped: [None; 5] }
    }

    /// The canary gets its traffic.
    pub fn start(&mut self, share: f64) {
        self.engine.begin_step(share, 1.0, false);
    }

    /// Whether the loosest class has decided: then all have.
    pub fn is_done(&self) -> bool {
        self.stopped.iter().all(Option::is_some)
    }

    /// Takes in a window of so many seconds with the counts of both arms, by kind; none while Prometheus is down.
    pub fn window(&mut self, end: f64, seconds: f64, counts: &[Option<Arms<'_>>]) {
        if self.is_done() {
            return;
        }
        let shown = |(canary, stable): Arms<'_>| match self.seen {
            Seen::Pods => (canary.to_vec(), stable.to_vec()),
            Seen::Arms => (merged(canary).to_vec(), merged(stable).to_vec()),
            Seen::Alike => (canary.to_vec(), halves(stable).to_vec()),
        };
        let shown: Vec<_> = counts.iter().map(|arms| arms.map(shown)).collect();
        let by_pod = self.seen != Seen::Arms;
        let mut windows = Vec::new();
        for arms in &shown {
            windows.push(arms.as_ref().map(|(canary, stable)| {
                let pods = (canary.len(), stable.len());
                Window { end, seconds, canary, stable, by_pod, pods }
            }));
        }
        self.engine.window(&windows);
        for (rows, stopped) in (1..).zip(&mut self.stopped) {
            if stopped.is_none() && self.engine.score(rows) >= STOP {
                *stopped = Some(end);
            }
        }
    }
}

/// The peers' judges, and when they gave up.
pub struct Peers {
    minute: Minute,
    argo: Vec<(Argo, Option<f64>)>,
    flagger: Vec<(Flagger, Option<f64>)>,
}

impl Peers {
    /// Argo by default and with failures tolerated, at two thresholds; Flagger at three.
    pub fn new() -> Self {
        let argo = [(0.99, 0), (0.99, 3), (0.95, 0), (0.95, 3)];
        Self {
            minute: Minute::default(),
            argo: argo.map(|(threshold, limit)| (Argo::new(threshold, limit), None)).to_vec(),
            flagger: [1, 5, 10].map(|threshold| (Flagger::new(0.99, threshold), None)).to_vec(),
        }
    }

    /// Names, in the order of `decided`.
    pub fn names() -> Vec<String> {
        let peers = Self::new();
        let argo = peers
            .argo
            .iter()
            .map(|(judge, _)| format!("Argo {:.0} % limit {}", judge.threshold * 100.0, judge.failure_limit));
        let flagger = peers.flagger.iter().map(|(judge, _)| {
            format!("Flagger {:.0} % threshold {}", judge.success * 100.0, judge.threshold)
        });
        argo.chain(flagger).collect()
    }

    /// When each decided.
    pub fn decided(&self) -> impl Iterator<Item = Option<f64>> {
        self.argo.iter().map(|(_, at)| *at).chain(self.flagger.iter().map(|(_, at)| *at))
    }

    /// Takes in the canary's counts; none while Prometheus is down.
    pub fn window(&mut self, end: f64, canary: Option<Counts>) {
        if let Some(counts) = canary {
            self.minute.add(counts);
        }
        let answer = canary.map(|_| self.minute.success_rate());
        for (judge, at) in self.argo.iter_mut().filter(|(_, at)| at.is_none()) {
            *at = judge.pass(end, answer).then_some(end);
        }
        for (judge, at) in self.flagger.iter_mut().filter(|(_, at)| at.is_none()) {
            *at = judge.pass(end, answer).then_some(end);
        }
    }
}

impl Default for Peers {
    fn default() -> Self {
        Self::new()
    }
}

/// What the oracles know: the fault's time, and the rates.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// When the fault begins.
    pub at: f64,
    /// Stable's rate.
    pub good: f64,
    /// The CUSUM, calibrated.
    pub cusum: Cusum,
}

/// Both oracles, and when they decided.
pub struct Oracles {
    known: Known,
    sprt: Sprt,
    /// When the SPRT and the CUSUM decided.
    pub decided: [Option<f64>; 2],
}

impl Oracles {
    /// With what they know.
    pub fn new(known: Known) -> Self {
        Self { known, sprt: Sprt::new(), decided: [None; 2] }
    }

    /// Takes in the canary's counts, and its true rate of failures in this window.
    pub fn window(&mut self, end: f64, canary: Counts, rate: f64) {
        let [sprt, cusum] = &mut self.decided;
        if sprt.is_none() && end > self.known.at && self.sprt.window(canary, self.known.good, rate) {
            *sprt = Some(end);
        }
        if cusum.is_none() && self.known.cusum.window(canary) {
            *cusum = Some(end);
        }
    }
}
