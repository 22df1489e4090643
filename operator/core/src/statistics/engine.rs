//! All signals of a run: how the budget is shared, and what the sum of their scores says.

use super::cell::Window;
use super::guard::{Guard, GuardState, Shares, Stand};
use super::joined::{Joined, Place, join};
use super::rows::Row;
use serde::{Deserialize, Serialize};

/// What a guard counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Failed requests.
    Errors,
    /// Requests slower than a limit, of which stable has few.
    Latency,
    /// Requests slower than half of stable's.
    Body,
    /// Restarts, out-of-memory kills.
    Events,
}

impl Signal {
    /// Whether guards of both share a budget.
    fn shares_with(self, other: Self) -> bool {
        let latency = |signal| matches!(signal, Self::Latency | Self::Body);
        self == other || latency(self) && latency(other)
    }
}

/// A guard as it is asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    /// Name, unique in the run.
    pub name: String,
    /// What it counts.
    pub signal: Signal,
    /// Whether it can stop the canary. One that only holds has a budget of its own.
    pub stops: bool,
    /// The canary's rate may not exceed this fraction, whatever stable's is.
    pub limit: Option<f64>,
    /// The least burst factor, for sources whose counts are estimates; else 1.
    pub phi_floor: f64,
}

/// Shares of a row's capital by signal: the comparison's and the ceiling's.
fn pool(signal: Signal) -> (f64, f64) {
    match signal {
        Signal::Errors => (0.40, 0.20),
        Signal::Latency | Signal::Body => (0.20, 0.10),
        Signal::Events => (0.10, 0.0),
    }
}

/// The guards of a run with their shares. What no guard uses is not handed out: a guard that is added later changes
/// nothing for the others, unless it counts the same.
pub fn guards(asked: &[Asked], rows: &[Row], two_pods: bool) -> Vec<Guard> {
    let count = |is: &dyn Fn(&Asked) -> usize| asked.iter().filter(|a| a.stops).map(is).sum::<usize>();
    let guard = |asked: &Asked| {
        let alike = match asked.stops {
            true => count(&|other| usize::from(other.signal.shares_with(asked.signal))),
            false => 1,
        };
        // A limit of one's own comes out of the pool of events.
        let in_events = |a: &Asked| usize::from(a.signal == Signal::Events) + usize::from(a.limit.is_some());
        let events = if asked.stops { count(&in_events) } else { in_events(asked) };
        let (comparison, ceiling) = pool(asked.signal);
        let event = pool(Signal::Events).0 / events.max(1) as f64;
        let shares = Shares {
            comparison: if asked.signal == Signal::Events { event } else { comparison / alike as f64 },
            ceiling: ceiling / alike as f64,
            limit: if asked.limit.is_some() { event } else { 0.0 },
            watch: if asked.signal == Signal::Errors { WATCH_SHARE / alike as f64 } else { 0.0 },
        };
        let of_signal = |row: &Row| match asked.signal {
            Signal::Errors => *row,
            Signal::Latency => row.for_latency(),
            Signal::Body => row.for_latency().with_slack(BODY_SLACK),
            Signal::Events => row.with_slack(EVENTS_PER_POD_SECOND),
        };
        let rows = rows.iter().map(of_signal).collect();
        Guard {
            name: asked.name.clone(),
            rows,
            shares,
            limit: asked.limit,
            stops: asked.stops,
            needs_evidence: asked.signal != Signal::Events,
            phi_floor: asked.phi_floor,
            two_pods,
        }
    };
    asked.iter().map(guard).collect()
}

/// The watch's capital, a second budget, as a share of the row's.
pub(super) const WATCH_SHARE: f64 = 0.4;
/// So much more of the canary's requests may be slower than half of stable's.
const BODY_SLACK: f64 = 0.05;
/// One restart per pod and day is tolerated beyond stable's.
const EVENTS_PER_POD_SECOND: f64 = 1.0 / 86_400.0;

/// Evidence of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EngineState {
    /// One state per guard, in the order of the guards.
    pub guards: Vec<GuardState>,
    /// Weight in force as a fraction, 0 before the start.
    weight: f64,
    /// Weight of the next step as a fraction.
    next: f64,
    /// Steps that have begun.
    started: u32,
    /// Whether the last step is reached.
    watch: bool,
    /// End of the last window, in seconds.
    end: f64,
}

/// The evidence and what it is judged by.
#[derive(Clone, Debug)]
pub struct Engine {
    guards: Vec<Guard>,
    state: EngineState,
}

/// What the evidence says after a window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Verdict {
    /// Sum of the scores of the guards that can stop the canary.
    pub score: f64,
    /// Whether it has to be stopped.
    pub stop: bool,
    /// Whether stable itself fails more than before.
    pub incident: bool,
    /// Whether every guard has positive evidence for the next weight, and no suspicion is left.
    pub open: bool,
}

impl Engine {
    /// Goes on from a state; a new run begins with the default one.
    pub fn new(guards: Vec<Guard>, mut state: EngineState) -> Self {
        state.guards.resize(guards.len(), GuardState::default());
        Self { guards, state }
    }

    /// Begins a step: the weight in force from now on, the one that follows, and whether it is the last. Fractions.
    pub fn begin_step(&mut self, weight: f64, next: f64, last: bool) {
        let state = &mut self.state;
        (state.weight, state.next, state.watch) = (weight, next, last);
        if weight > 0.0 && weight < 1.0 {
            state.started += 1;
        }
        state.guards.iter_mut().for_each(GuardState::begin_step);
    }

    /// Takes in a window of each guard; none where it has no usable data.
    pub fn window(&mut self, windows: &[Option<Window<'_>>]) {
        let stand = Stand {
            weight: self.state.weight,
            next: self.state.next,
            started: self.state.started,
            watch: self.state.watch,
            incident: self.incident(),
        };
        let ends = windows.iter().flatten().map(|window| window.end);
        self.state.end = ends.fold(self.state.end, f64::max);
        for ((guard, state), window) in self.guards.iter().zip(&mut self.state.guards).zip(windows) {
            match window {
                Some(window) if stand.weight > 0.0 => state.window(guard, window, &stand),
                Some(window) => state.baseline(window),
                None => {}
            }
        }
    }

    /// Whether stable itself fails more than before, by any guard.
    pub fn incident(&self) -> bool {
        self.state.guards.iter().any(|guard| guard.incident(self.state.end))
    }

    /// What all guards say together, by the first `rows` rows: of class R0 with 1, of R4 with 5.
    pub fn joined(&self, rows: usize) -> Joined {
        let guards: Vec<_> = self.guards().collect();
        join(&guards, rows, Place { alone: self.state.weight >= 1.0, watch: self.state.watch })
    }

    /// Score by the first `rows` rows.
    pub fn score(&self, rows: usize) -> f64 {
        self.joined(rows).score
    }

    /// The guard that weighs most against the canary.
    pub fn gravest(&self, rows: usize) -> Option<&Guard> {
        self.guards.get(self.joined(rows).gravest?)
    }

    /// Whether the first `rows` rows of every guard have positive evidence for the next weight.
    pub fn gates_are_open(&self, rows: usize) -> bool {
        let mut needed =
            self.guards.iter().zip(&self.state.guards).filter(|(guard, _)| guard.needs_evidence).peekable();
        needed.peek().is_some()
            && needed.all(|(guard, state)| state.gate_is_open(guard, rows, self.state.next))
    }

    /// What the evidence says, by the first `rows` rows.
    pub fn verdict(&self, rows: usize) -> Verdict {
        let joined = self.joined(rows);
        Verdict {
            score: joined.score,
            stop: joined.stops(),
            incident: self.incident(),
            open: !joined.suspects() && self.gates_are_open(rows),
        }
    }

    /// The guards with their states.
    pub fn guards(&self) -> impl Iterator<Item = (&Guard, &GuardState)> {
        self.guards.iter().zip(&self.state.guards)
    }

    /// The state, to be kept.
    pub fn state(&self) -> &EngineState {
        &self.state
    }
}
