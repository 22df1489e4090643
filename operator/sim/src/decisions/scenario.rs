//! What one scenario at a fixed share is, and what came out of it.

use super::interval::Share;
use super::judges::Seen;
use super::run::{ACTION, Decided};
use super::traffic::{Fault, Traffic};

/// Which promise a scenario is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A good canary, looked at for hours.
    Good,
    /// A fault: found how soon, at what harm.
    Fault,
    /// Failures that cluster.
    Bursts,
    /// Whatever else may fall on one arm and not on the other.
    Nuisance,
}

impl Kind {
    /// Title of its table.
    pub fn title(self) -> &'static str {
        match self {
            Self::Good => "False aborts of a good canary in 4 h",
            Self::Fault => "Faults: missed, delay, harm",
            Self::Bursts => "Failures in bursts",
            Self::Nuisance => "Nuisances: false aborts in 4 h, and their mends",
        }
    }
}

/// One scenario.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Table.
    pub kind: Kind,
    /// Unique name.
    pub name: String,
    /// Runs.
    pub runs: usize,
    /// Length of a run after the start, in seconds.
    pub seconds: f64,
    /// Share of the traffic that meets the canary.
    pub share: f64,
    /// The service.
    pub traffic: Traffic,
    /// Its requests of another kind, counted by a guard of their own.
    pub other: Option<Traffic>,
    /// What series tell of pods.
    pub seen: Seen,
    /// Option `abortNeedsTwoPods`.
    pub two_pods: bool,
    /// Prometheus is down once, for so long.
    pub outage: Option<f64>,
    /// Whether the peers judge too.
    pub peers: bool,
    /// Whether the oracles judge too.
    pub oracles: bool,
    /// Whether the stated bound on false aborts covers it.
    pub covered: bool,
    /// The published figure.
    pub published: &'static str,
}

impl Default for Scenario {
    fn default() -> Self {
        Self {
            kind: Kind::Good,
            name: String::new(),
            runs: 400,
            seconds: 4.0 * 3600.0,
            share: 0.05,
            traffic: Traffic::default(),
            other: None,
            seen: Seen::Pods,
            two_pods: false,
            outage: None,
            peers: false,
            oracles: false,
            covered: false,
            published: "",
        }
    }
}

impl Scenario {
    /// When the canary turns bad, if it does.
    pub fn fault_at(&self) -> Option<f64> {
        match self.traffic.fault {
            // Up to twice the rate: another mix, not a fault.
            Fault::Times(times) => (times > 2.0).then_some(0.0),
            Fault::Step { at, .. } => Some(at),
            Fault::Leak { .. } => Some(0.0),
            Fault::TimesFrom { .. } => None,
        }
    }
}

/// What one judge did in all runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Result {
    /// Its name.
    pub judge: String,
    /// Aborts without a fault, or before it.
    pub false_aborts: Share,
    /// The same among the first 400 runs: with as many of every scenario none weighs more than another.
    pub pooled: Share,
    /// How it found the fault.
    pub found: Option<Found>,
}

/// How a judge found a fault.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Found {
    /// Runs in which it did not.
    pub missed: Share,
    /// Mean time from the fault to the decision, in seconds; of a missed one, the time there was.
    pub delay: f64,
    /// Mean failed requests until the traffic is back, more than stable would have had.
    pub harm: f64,
    /// Ratio to the harm under each oracle.
    pub ratios: Option<(f64, f64)>,
}

/// Runs per scenario that count for the sum over all of them.
pub const POOLED_RUNS: usize = 400;

/// Sums up all runs of a scenario.
pub fn sum_up(scenario: &Scenario, judges: &[String], runs: &[Decided]) -> Vec<Result> {
    let fault = scenario.fault_at();
    let mut results: Vec<Result> = judges
        .iter()
        .enumerate()
        .map(|(judge, name)| {
            let decided = || runs.iter().filter_map(|run| run.at.get(judge).copied());
            let before = |at: Option<f64>| at.is_some_and(|at| fault.is_none_or(|fault| at <= fault));
            Result {
                judge: name.clone(),
                false_aborts: Share::count(decided().map(before)),
                pooled: Share::count(decided().take(POOLED_RUNS).map(before)),
                found: fault.map(|fault| found(scenario, fault, decided().filter(|at| !before(*at)))),
            }
        })
        .collect();
    let harm = |name: &str| {
        let result = results.iter().find(|result| result.judge == name)?;
        result.found.map(|found| found.harm)
    };
    if let (Some(sprt), Some(cusum)) = (harm("SPRT"), harm("CUSUM")) {
        for found in results.iter_mut().filter_map(|result| result.found.as_mut()) {
            found.ratios = Some((found.harm / sprt, found.harm / cusum));
        }
    }
    results
}

fn found(scenario: &Scenario, fault: f64, decided: impl Iterator<Item = Option<f64>> + Clone) -> Found {
    let count = decided.clone().count().max(1) as f64;
    let end = |at: Option<f64>| at.unwrap_or(scenario.seconds);
    let harm = |at| scenario.traffic.excess(scenario.share, fault, end(at) + ACTION);
    Found {
        missed: Share::count(decided.clone().map(|at| at.is_none())),
        delay: decided.clone().map(|at| end(at) - fault).sum::<f64>() / count,
        harm: decided.map(harm).sum::<f64>() / count,
        ratios: None,
    }
}
