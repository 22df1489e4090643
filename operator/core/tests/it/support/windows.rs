//! The evidence, evaluation by evaluation, as the shell has it judged and keeps it in between.

use jiff::Timestamp;
use sluice_core::api::Run;
use sluice_core::evidence::{Arm, EvidenceState, Outcome, PodCounters, Sample};
use sluice_core::judge::{Evaluation, Polls, judge};
use sluice_core::verdict::Verdict;

/// Cumulative counters of a pod: all requests, and failed ones.
pub fn pod(arm: Arm, id: impl Into<String>, (total, bad): (f64, f64), now: Timestamp) -> PodCounters {
    PodCounters {
        id: id.into(),
        arm,
        total,
        bad: Some(bad),
        maybe_bad: None,
        newest_sample: now,
        created: None,
        out_of_memory: false,
    }
}

/// Judges one evaluation of the only guard. `before`: it is of the time before the run. `stored`: its state is written and read
/// back, as by a restart.
pub fn evaluate(
    run: &Run,
    pods: Vec<PodCounters>,
    before: bool,
    now: Timestamp,
    state: &mut EvidenceState,
    stored: bool,
) -> Verdict {
    let sample =
        vec![("error-rate".to_owned(), Sample { bound: None, at: now, outcome: Outcome::Counters(pods) })];
    let (history, samples) = if before { (sample, vec![]) } else { (vec![], sample) };
    let evaluation = Evaluation {
        run,
        history: &history,
        samples: &samples,
        gauges: &[],
        polls: Polls::default(),
        quiet: None,
        interval_seconds: 15,
        now,
    };
    let verdict = judge(&evaluation, state);
    if stored {
        *state = serde_json::from_str(&serde_json::to_string(state).unwrap()).unwrap();
    }
    verdict
}
