//! One run at a fixed share: traffic for an hour before the start and some hours after it, and all judges.

use sluice_core::statistics::Cell;

use super::draw::Draw;
use super::judges::{Arms, CLASSES, Known, Oracles, Peers, Sluice, total};
use super::oracle::Cusum;
use super::scenario::Scenario;
use super::traffic::{Fault, Stream, WINDOW};

/// How long stable was observed before the start, in seconds.
pub const BASELINE: f64 = 3600.0;
/// From a decision until the traffic is back.
pub const ACTION: f64 = 10.0;

/// Planned time of the run's one step, in seconds.
const PLANNED: f64 = 14_400.0;

/// What was decided in one run.
#[derive(Clone, Debug, PartialEq)]
pub struct Decided {
    /// When each judge decided, in the order of `judges`.
    pub at: Vec<Option<f64>>,
    /// Whether Sluice decided in a window without data, or in the one that closes the gap.
    pub by_outage: bool,
}

/// Names of a scenario's judges.
pub fn judges(scenario: &Scenario) -> Vec<String> {
    let mut names = CLASSES.map(str::to_owned).to_vec();
    if scenario.peers {
        names.extend(Peers::names());
    }
    if scenario.oracles {
        names.extend(["SPRT", "CUSUM"].map(str::to_owned));
    }
    names
}

/// What the scenario's oracles know.
pub fn known(scenario: &Scenario, seed: u64) -> Option<Known> {
    let (at, bad) = match scenario.traffic.fault {
        Fault::Step { at, rate } => (at, rate),
        // The CUSUM has one rate to look for: half of the leak's.
        Fault::Leak { rate, .. } => (0.0, rate / 2.0),
        Fault::Times(times) => (0.0, times * scenario.traffic.rate),
        Fault::TimesFrom { .. } => return None,
    };
    let good = scenario.traffic.rate;
    let mut draw = Draw::new(seed, &scenario.name, u64::MAX);
    scenario.oracles.then(|| {
        let rps = scenario.traffic.rps * scenario.share;
        Known { at, good, cusum: Cusum::calibrated(rps, good, bad, &mut draw) }
    })
}

/// Counts of windows in which Prometheus was down, until it is back.
#[derive(Default)]
struct Gap {
    seconds: f64,
    canary: Vec<Cell>,
    stable: Vec<Cell>,
}

impl Gap {
    fn add(&mut self, stream: &Stream) {
        self.seconds += WINDOW;
        for (sum, cells) in [(&mut self.canary, &stream.canary), (&mut self.stable, &stream.stable)] {
            for cell in cells {
                match sum.iter_mut().find(|there| there.pod == cell.pod) {
                    Some(there) => {
                        there.n += cell.n;
                        there.x += cell.x;
                        there.x_gate += cell.x_gate;
                    }
                    None => sum.push(*cell),
                }
            }
        }
    }
}

fn play_all(stream: &mut Stream, other: &mut Option<Stream>, from: f64, share: f64) {
    [Some(stream), other.as_mut()].into_iter().flatten().for_each(|stream| stream.play(from, share));
}

/// What the window that was played last counts of each kind.
fn counts<'a>(stream: &'a Stream, other: &'a Option<Stream>) -> Vec<Option<Arms<'a>>> {
    let arms = |stream: &'a Stream| Some((stream.canary.as_slice(), stream.stable.as_slice()));
    [Some(stream), other.as_ref()].into_iter().flatten().map(arms).collect()
}

/// Plays one run. Ends early when all judges have decided.
pub fn play(scenario: &Scenario, known: Option<Known>, seed: u64, run: usize) -> Decided {
    let mut draw = Draw::new(seed, &scenario.name, run as u64);
    let outage = scenario.outage.map(|seconds| {
        let start = (draw.between(600.0, scenario.seconds - seconds) / WINDOW).floor() * WINDOW;
        (start, start + seconds)
    });
    let mut stream = Stream::new(scenario.traffic, draw, -BASELINE, scenario.seconds);
    let other = |traffic| {
        let draw = Draw::new(seed, &format!("{}, others", scenario.name), run as u64);
        Stream::new(traffic, draw, -BASELINE, scenario.seconds)
    };
    let mut other = scenario.other.map(other);
    let kinds = 1 + usize::from(other.is_some());
    let mut sluice = Sluice::new(scenario.seen, scenario.two_pods, kinds, PLANNED);
    let mut peers = scenario.peers.then(Peers::new);
    let mut oracles = known.map(Oracles::new);
    for window in 0..(BASELINE / WINDOW) as u32 {
        let from = f64::from(window) * WINDOW - BASELINE;
        play_all(&mut stream, &mut other, from, 0.0);
        sluice.window(from + WINDOW, WINDOW, &counts(&stream, &other));
    }
    sluice.start(scenario.share);
    let mut gap = Gap::default();
    let mut by_outage = false;
    for window in 0..(scenario.seconds / WINDOW) as u32 {
        let from = f64::from(window) * WINDOW;
        let end = from + WINDOW;
        play_all(&mut stream, &mut other, from, scenario.share);
        let seen = !outage.is_some_and(|(start, back)| start <= from && from < back);
        if !seen {
            gap.add(&stream);
            sluice.window(end, WINDOW, &vec![None; kinds]);
        } else if gap.seconds > 0.0 {
            // Same pods, same weight: the whole gap is one window.
            gap.add(&stream);
            sluice.window(end, gap.seconds, &[Some((&gap.canary, &gap.stable))]);
            gap = Gap::default();
        } else {
            sluice.window(end, WINDOW, &counts(&stream, &other));
        }
        let closing = outage.is_some_and(|(_, back)| back == from);
        by_outage |= (!seen || closing) && sluice.stopped.contains(&Some(end));
        let canary = total(&stream.canary);
        if let Some(peers) = &mut peers {
            peers.window(end, seen.then_some(canary));
        }
        if let Some(oracles) = &mut oracles {
            oracles.window(
                end,
                canary,
                scenario.traffic.canary_rate(scenario.traffic.rate, scenario.share, from, end),
            );
        }
        let peers_done = peers.as_ref().is_none_or(|peers| peers.decided().all(|at| at.is_some()));
        let oracles_done = oracles.as_ref().is_none_or(|oracles| oracles.decided.iter().all(Option::is_some));
        if sluice.is_done() && peers_done && oracles_done {
            break;
        }
    }
    let mut at = sluice.stopped.to_vec();
    at.extend(peers.iter().flat_map(Peers::decided));
    at.extend(oracles.iter().flat_map(|oracles| oracles.decided));
    Decided { at, by_outage }
}
