//! Plays a trace through the statistics: what would have been decided, when, and why.
//!
//! Open loop: the weights are the trace's. A step's gate leads to the next weight of the trace, the last one's to 100.

use serde::Serialize;

use super::counters::{Counters, Slow, slow};
use super::format::{State, Trace, number};
use crate::api::RiskClass;
use crate::statistics::{Asked, Engine, EngineState, Row, STOP, SUSPICION, Signal, Window, guards, rows};

/// Name of the guard on failed requests.
const ERRORS: &str = "error-ratio";
/// Name of the guard on slow requests.
const LATENCY: &str = "latency";

/// The class table that traces are judged by.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Rows, loosest class first, one for each class.
    rows: Vec<Row>,
}

impl Default for Policy {
    fn default() -> Self {
        Self { rows: rows::chain(RiskClass::R4) }
    }
}

impl Policy {
    /// A table whose rows replace the built-in ones of the same class.
    pub fn of(own: &[Row]) -> Self {
        let mut policy = Self::default();
        for row in &mut policy.rows {
            *row = own.iter().find(|own| own.class == row.class).copied().unwrap_or(*row);
        }
        policy
    }

    fn chain(&self, class: RiskClass) -> &[Row] {
        let rows = self.rows.iter().filter(|row| row.class <= class).count();
        &self.rows[..rows]
    }
}

/// How a trace is judged.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    /// Class of traces that name none.
    pub class: RiskClass,
    /// Whether `class` counts for those too that name one.
    pub always: bool,
    /// Whether one pod alone can't stop the canary.
    pub two_pods: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { class: RiskClass::R2, always: false, two_pods: false }
    }
}

/// What would have been decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Decision {
    /// Traffic would have gone back to stable.
    Abort,
    /// Traffic would have gone back after it had all gone to the canary.
    Revert,
    /// Every gate opened in its step.
    Promote,
    /// Neither in the time of the trace.
    Hold,
}

/// The result of a trace.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// Name of the trace.
    pub trace: String,
    /// Class that it was judged by.
    pub risk_class: RiskClass,
    /// What would have been decided.
    pub decision: Decision,
    /// The record of the decision; for Promote and Hold the last one.
    #[serde(serialize_with = "number")]
    pub t: f64,
    /// The guard that decided, or why nothing was.
    pub reason: String,
    /// Score; 1 stops the canary.
    pub score: f64,
    /// When the weight could not have risen.
    pub holds: Vec<Hold>,
    /// The gate of each step.
    pub gates: Vec<GateAt>,
    /// What each guard had against the canary at the end.
    pub guards: Vec<GuardOdds>,
}

/// A time in which the weight could not have risen.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Hold {
    /// First record of it.
    #[serde(serialize_with = "number")]
    pub from: f64,
    /// First record after it, or the last of all.
    #[serde(serialize_with = "number")]
    pub to: f64,
    /// NoData, SharedIncident or Suspicion.
    pub reason: &'static str,
}

/// When a step's gate opened.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GateAt {
    /// The weight that it leads to, in percent.
    #[serde(serialize_with = "number")]
    pub weight: f64,
    /// First record with every guard's gate open and no suspicion.
    pub open_at: Option<serde_json::Number>,
}

/// One guard's view.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GuardOdds {
    /// Its name.
    pub name: String,
    /// Burst factor of stable's failures.
    pub phi: f64,
    /// Factor on the tolerated ratio.
    pub widen: f64,
    /// The rows of the class table.
    pub rows: Vec<RowOdds>,
}

/// One row's view.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RowOdds {
    /// The class that adds the row.
    pub class: RiskClass,
    /// Odds against the canary in comparison with stable: wealth over capital.
    pub e: f64,
    /// Odds against the canary by stable's record.
    pub ceiling: f64,
    /// Whether those by the record count.
    pub keyed: bool,
}

/// One record, for those who ask for all.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Step {
    /// Name of the trace.
    pub trace: String,
    /// The record.
    #[serde(serialize_with = "number")]
    pub t: f64,
    /// Weight in percent.
    #[serde(serialize_with = "number")]
    pub weight: f64,
    /// What the source answered.
    pub state: State,
    /// Score.
    pub score: f64,
    /// Whether every gate is open.
    pub open: bool,
    /// What each guard has against the canary.
    pub guards: Vec<GuardOdds>,
}

/// Plays a trace; `each` sees every record.
pub fn replay(trace: &Trace, policy: &Policy, options: &Options, mut each: impl FnMut(Step)) -> Outcome {
    let class = match trace.header.risk_class {
        Some(class) if !options.always => class,
        _ => options.class,
    };
    let chain = policy.chain(class);
    let slow = slow(&trace.header);
    let asked = |name: &str, signal| Asked {
        name: name.to_owned(),
        signal,
        stops: true,
        limit: None,
        phi_floor: 1.0,
    };
    let mut all = vec![asked(ERRORS, Signal::Errors)];
    if trace.header.latency_slo_seconds.is_some() {
        all.push(asked(LATENCY, Signal::Latency));
    }
    let mut play = Play {
        engine: Engine::new(guards(&all, chain, options.two_pods), EngineState::default()),
        rows: chain.len(),
        counters: Counters::default(),
        slow,
        weight: 0.0,
        exposed: false,
        gated: false,
        holds: Vec::new(),
        gates: Vec::new(),
        score: 0.0,
    };
    let mut decided = None;
    for (index, record) in trace.records.iter().enumerate() {
        if record.weight != play.weight {
            let later = trace.records[index..].iter().map(|record| record.weight);
            play.begin(record.weight, later);
        }
        let decision = play.record(record);
        each(Step {
            trace: trace.header.id.clone(),
            t: record.t,
            weight: record.weight,
            state: record.state,
            score: play.score,
            open: play.engine.verdict(play.rows).open,
            guards: odds(&play.engine),
        });
        if let Some(decision) = decision {
            decided = Some((decision, record.t));
            break;
        }
    }
    let end = trace.records.last().map_or(0.0, |record| record.t);
    let promoted = !play.gates.is_empty() && play.gates.iter().all(|gate| gate.open_at.is_some());
    let (decision, t) = decided.unwrap_or((if promoted { Decision::Promote } else { Decision::Hold }, end));
    let reason = match decision {
        Decision::Abort | Decision::Revert => {
            play.engine.gravest(play.rows).map_or(ERRORS, |guard| guard.name.as_str()).to_owned()
        }
        Decision::Promote => "EvidenceSufficient".to_owned(),
        Decision::Hold => play.why_held(),
    };
    play.holds.iter_mut().filter(|hold| hold.to.is_nan()).for_each(|hold| hold.to = t);
    Outcome {
        trace: trace.header.id.clone(),
        risk_class: class,
        decision,
        t,
        reason,
        score: play.score,
        holds: play.holds,
        gates: play.gates,
        guards: odds(&play.engine),
    }
}

struct Play {
    engine: Engine,
    rows: usize,
    counters: Counters,
    slow: Option<Slow>,
    /// Weight in force, percent.
    weight: f64,
    /// Whether the canary ever had traffic.
    exposed: bool,
    /// Whether the last gate is that of the present step.
    gated: bool,
    holds: Vec<Hold>,
    gates: Vec<GateAt>,
    score: f64,
}

impl Play {
    fn begin(&mut self, weight: f64, mut later: impl Iterator<Item = f64>) {
        self.weight = weight;
        self.exposed |= weight > 0.0;
        let next = later.find(|w| *w != weight).unwrap_or(100.0);
        self.engine.begin_step(weight / 100.0, next / 100.0, weight >= 100.0);
        // Going down needs no evidence.
        self.gated = weight > 0.0 && weight < 100.0 && next > weight;
        if self.gated {
            self.gates.push(GateAt { weight: next, open_at: None });
        }
    }

    fn record(&mut self, record: &super::format::Record) -> Option<Decision> {
        let deltas = self.counters.window(record, self.slow);
        if let Some(deltas) = &deltas {
            let errors = Window {
                end: deltas.end,
                seconds: deltas.seconds,
                canary: &deltas.errors[1],
                stable: &deltas.errors[0],
                by_pod: deltas.by_pod,
                pods: deltas.pods,
            };
            let latency = deltas.slow.as_ref().map(|[stable, canary]| Window { canary, stable, ..errors });
            self.engine.window(&[Some(errors), latency]);
        }
        let verdict = self.engine.verdict(self.rows);
        self.score = verdict.score;
        let t = record.t;
        self.hold("NoData", self.weight > 0.0 && (record.state != State::Ok || self.unusable(&deltas)), t);
        self.hold("SharedIncident", self.weight > 0.0 && verdict.incident, t);
        self.hold("Suspicion", (SUSPICION..STOP).contains(&verdict.score), t);
        deltas.as_ref()?;
        if verdict.stop && self.weight > 0.0 {
            return Some(if self.weight >= 100.0 { Decision::Revert } else { Decision::Abort });
        }
        let gate = self.gates.last_mut().filter(|_| self.gated);
        if let Some(gate) = gate.filter(|gate| gate.open_at.is_none() && verdict.open) {
            gate.open_at = Some(whole(t));
        }
        None
    }

    /// Whether latency is asked for and can't be told.
    fn unusable(&self, deltas: &Option<super::counters::Deltas>) -> bool {
        let asked = self.engine.guards().count() > 1;
        asked && deltas.as_ref().is_some_and(|deltas| deltas.slow.is_none())
    }

    fn hold(&mut self, reason: &'static str, holds: bool, t: f64) {
        let open = self.holds.iter_mut().find(|hold| hold.reason == reason && hold.to.is_nan());
        match (open, holds) {
            (None, true) => self.holds.push(Hold { from: t, to: f64::NAN, reason }),
            (Some(hold), false) => hold.to = t,
            _ => {}
        }
    }

    fn why_held(&self) -> String {
        let open = self.holds.iter().rev().find(|hold| hold.to.is_nan());
        let reason = open.map(|hold| hold.reason);
        match (reason, self.exposed) {
            (Some(reason), _) => reason,
            (None, false) => "NotExposed",
            (None, true) => "NotEnoughEvidence",
        }
        .to_owned()
    }
}

fn whole(t: f64) -> serde_json::Number {
    match serde_json::Number::from_f64(t) {
        Some(real) if t.fract() != 0.0 => real,
        _ => serde_json::Number::from(t as i64),
    }
}

fn odds(engine: &Engine) -> Vec<GuardOdds> {
    let guards = engine.guards();
    guards
        .map(|(guard, state)| GuardOdds {
            name: guard.name.clone(),
            phi: state.phi(guard),
            widen: state.frozen().map_or(1.0, |frozen| frozen.widen),
            rows: state
                .odds(guard)
                .into_iter()
                .map(|odds| RowOdds {
                    class: odds.class,
                    e: odds.comparison,
                    ceiling: odds.ceiling,
                    keyed: odds.keyed,
                })
                .collect(),
        })
        .collect()
}
