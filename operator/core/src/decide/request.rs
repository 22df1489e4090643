//! A person's verbs: `sluice.dev/request: <verb>/<runID>`, latched when seen.
//!
//! They are bound to a run, so that an old one never acts on a new run, and git can't undo one: once an
//! abort is latched no later verb takes it back.

use std::str::FromStr;

use crate::action::EventKind;
use crate::api::{
    ANNOTATION_REQUEST, GoingBack, LatchedRequest, Mode, Outcome, Request, Run, RunKind, Stage, Verb,
};
use crate::view::shorten;

use super::draft::Draft;
use super::forward::AT_GATE;

/// Longest request that is kept, in characters; every valid one is shorter.
const REQUEST_LIMIT: usize = 100;

/// What comes of a request.
enum Answer {
    Accepted(String),
    Ignored(String),
}

pub(super) fn latch(d: &mut Draft<'_>, run: Option<&mut Run>) {
    let annotations = d.input.rollout.metadata.annotations.as_ref();
    let Some(value) = annotations.and_then(|a| a.get(ANNOTATION_REQUEST)).filter(|v| !v.is_empty()) else {
        return;
    };
    let kept = shorten(value, REQUEST_LIMIT);
    if d.status.request.as_ref().is_some_and(|latched| latched.value == kept) {
        return;
    }
    let (kind, reason, answer) = match Request::from_str(value) {
        Err(problem) => (EventKind::Warning, "RequestInvalid", format!("ignored: {problem}")),
        Ok(request) => match answer(d, run, &request) {
            Answer::Accepted(what) => (EventKind::Normal, "RequestSeen", format!("accepted: {what}")),
            Answer::Ignored(why) => (EventKind::Warning, "RequestIgnored", format!("ignored: {why}")),
        },
    };
    d.event(kind, reason, format!("{kept}: {answer}"));
    d.status.request = Some(LatchedRequest { value: kept, at: d.now, answer });
}

fn answer(d: &mut Draft<'_>, run: Option<&mut Run>, request: &Request) -> Answer {
    let id = request.run_id.as_str();
    match run {
        Some(run) if run.id != id => Answer::Ignored(format!("run {id} is not under way, run {} is", run.id)),
        Some(run) if run.kind == RunKind::Observe => observed(d, run, request.verb),
        Some(run) => during(d, run, request.verb),
        None if request.verb == Verb::Retry => retry(d, id),
        None => Answer::Ignored(format!("run {id} is not under way")),
    }
}

fn during(d: &mut Draft<'_>, run: &mut Run, verb: Verb) -> Answer {
    if run.going_back.is_some() {
        return Answer::Ignored("the run already returns to stable".to_owned());
    }
    match verb {
        Verb::Abort if run.stage == Stage::Finishing => {
            // Its pods are all there is: the old ones are on their way out.
            Answer::Ignored("the run is proven and the old revision's pods are going; apply the old template, it comes back straight".to_owned())
        }
        Verb::Abort => {
            d.go_back(run, Outcome::Rejected, "AbortedByUser", "abort was requested");
            Answer::Accepted("traffic returns to stable".to_owned())
        }
        Verb::Pause => {
            run.paused = true;
            Answer::Accepted("the weight stays until resume; aborts still happen".to_owned())
        }
        Verb::Resume => {
            if !std::mem::take(&mut run.paused) && !run.overwritten {
                if !d.told(AT_GATE) {
                    // As when it took the place of a pause that was not seen yet: no gate is opened unasked.
                    return Answer::Accepted("the run goes on; it was not paused".to_owned());
                }
                run.released_gate = true;
            }
            if run.overwritten {
                run.overwritten = false;
                run.overwrites = 0;
                run.weight = None;
                run.stage_since = d.now;
            }
            Answer::Accepted("the run goes on".to_owned())
        }
        Verb::Retry => {
            Answer::Ignored("the run has not ended; retry is for a held revision whose run has".to_owned())
        }
    }
}

/// Mode Observe holds nothing: an abort ends the observation and undoes nothing, the other verbs have nothing to act
/// on. Each answer names the command that acts on the Deployment itself.
fn observed(d: &Draft<'_>, run: &mut Run, verb: Verb) -> Answer {
    let native = |verb: &str| {
        format!("kubectl rollout {verb} deployment/{} -n {}", d.spec.workload_ref.name, d.namespace)
    };
    match verb {
        Verb::Abort => {
            let tripped = run.going_back.take().map(|back| {
                format!("; before that it would have been rejected: {}: {}", back.reason, back.message)
            });
            run.going_back = Some(GoingBack {
                outcome: Outcome::Abandoned,
                reason: "AbortedByUser".to_owned(),
                message: format!(
                    "a person ended the observation; mode Observe holds nothing, so nothing was rolled back ({} does that){}",
                    native("undo"),
                    tripped.unwrap_or_default()
                ),
                since: d.now,
                judges_stable: false,
                back_at: None,
                verified_at: None,
            });
            Answer::Accepted(format!(
                "the observation ends; mode Observe holds nothing, so nothing was rolled back: {} does that",
                native("undo")
            ))
        }
        Verb::Pause => Answer::Ignored(format!(
            "mode Observe holds nothing, so there is nothing to pause: {} stops the native roll",
            native("pause")
        )),
        Verb::Resume => Answer::Ignored(format!(
            "mode Observe holds nothing, so there is nothing to resume: {} lets a paused native roll go on",
            native("resume")
        )),
        Verb::Retry => Answer::Ignored(format!(
            "mode Observe holds nothing, so there is nothing to retry: {} starts a native roll, which is observed",
            native("restart")
        )),
    }
}

/// Lets a held revision whose run has ended start once more.
fn retry(d: &mut Draft<'_>, id: &str) -> Answer {
    if d.spec.mode == Mode::Observe {
        return Answer::Ignored(
            "mode Observe holds nothing, so there is nothing to retry; the next template is observed"
                .to_owned(),
        );
    }
    let restart_digest = d.workload().map(|workload| workload.restart_digest.clone());
    let Some(held) = d.status.held.as_mut() else {
        return Answer::Ignored("no revision is held".to_owned());
    };
    let digest = held.digest.clone();
    let ended = held.ended.as_ref().is_some_and(|ended| ended.run_id == id);
    // A restart of a rejected revision is held by the second digest, so it is freed by it too.
    let is_held = |q: &crate::api::Quarantined| {
        q.digest == digest || Some(&q.restart_digest) == restart_digest.as_ref()
    };
    let quarantined = d.status.quarantine.iter().any(|q| q.run_id == id && is_held(q));
    if !ended && !quarantined {
        return Answer::Ignored(format!("the held revision's last run is not {id}"));
    }
    held.ended = None;
    held.since = d.now;
    d.status.quarantine.retain(|q| !is_held(q));
    Answer::Accepted("the held revision starts again".to_owned())
}
