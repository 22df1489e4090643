//! A person's verbs: `sluice.dev/request: <verb>/<runID>`, latched when seen.
//!
//! They are bound to a run, so that an old one never acts on a new run, and git can't undo one: once an
//! abort is latched no later verb takes it back.

use crate::api::{ANNOTATION_REQUEST, LatchedRequest, Outcome, Run, Stage};
use crate::view::shorten;

use super::draft::Draft;

/// Longest request that is kept, in characters; every valid one is shorter.
const REQUEST_LIMIT: usize = 100;

pub(super) fn latch(d: &mut Draft<'_>, run: Option<&mut Run>) {
    let annotations = d.input.rollout.metadata.annotations.as_ref();
    let Some(value) = annotations.and_then(|a| a.get(ANNOTATION_REQUEST)).filter(|v| !v.is_empty()).cloned()
    else {
        return;
    };
    let value = shorten(&value, REQUEST_LIMIT);
    if d.status.request.as_ref().is_some_and(|latched| latched.value == value) {
        return;
    }
    let answer = answer(d, run, &value);
    d.normal("RequestSeen", format!("{value}: {answer}"));
    d.status.request = Some(LatchedRequest { value, at: d.now, answer });
}

fn answer(d: &mut Draft<'_>, run: Option<&mut Run>, value: &str) -> String {
    let Some((verb, id)) = value.split_once('/') else {
        return format!("ignored: write <verb>/<runID>, such as abort/7-x2k4f, not {value:?}");
    };
    if !matches!(verb, "abort" | "pause" | "resume" | "retry") {
        return format!("ignored: {verb:?} is no verb; write abort, pause, resume or retry");
    }
    match run {
        Some(run) if run.id == id => during(d, run, verb),
        Some(run) => format!("ignored: run {id} is not under way, run {} is", run.id),
        None if verb == "retry" => retry(d, id),
        None => format!("ignored: run {id} is not under way"),
    }
}

fn during(d: &mut Draft<'_>, run: &mut Run, verb: &str) -> String {
    if run.going_back.is_some() {
        return "ignored: the run already returns to stable".to_owned();
    }
    match verb {
        "abort" if run.stage == Stage::Finishing => {
            // Its pods are all there is: the old ones are on their way out.
            "ignored: the run is proven and the old revision's pods are going; apply the old template, it comes back straight"
                .to_owned()
        }
        "abort" => {
            d.go_back(run, Outcome::Rejected, "AbortedByUser", "abort was requested");
            "accepted: traffic returns to stable".to_owned()
        }
        "pause" => {
            run.paused = true;
            "accepted: the weight stays until resume; aborts still happen".to_owned()
        }
        "resume" => {
            if !std::mem::take(&mut run.paused) && !run.overwritten {
                run.released_gate = true;
            }
            if run.overwritten {
                run.overwritten = false;
                run.overwrites = 0;
                run.weight = None;
                run.stage_since = d.now;
            }
            "accepted: the run goes on".to_owned()
        }
        _ => "ignored: the run has not ended; retry is for a held revision whose run has".to_owned(),
    }
}

/// Lets a held revision whose run has ended start once more.
fn retry(d: &mut Draft<'_>, id: &str) -> String {
    let restart_digest = d.workload().map(|workload| workload.restart_digest.clone());
    let Some(held) = d.status.held.as_mut() else {
        return "ignored: no revision is held".to_owned();
    };
    let digest = held.digest.clone();
    let ended = held.ended.as_ref().is_some_and(|ended| ended.run_id == id);
    // A restart of a rejected revision is held by the second digest, so it is freed by it too.
    let is_held = |q: &crate::api::Quarantined| {
        q.digest == digest || Some(&q.restart_digest) == restart_digest.as_ref()
    };
    let quarantined = d.status.quarantine.iter().any(|q| q.run_id == id && is_held(q));
    if !ended && !quarantined {
        return format!("ignored: the held revision's last run is not {id}");
    }
    held.ended = None;
    held.since = d.now;
    d.status.quarantine.retain(|q| !is_held(q));
    "accepted: the held revision starts again".to_owned()
}
