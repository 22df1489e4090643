//! Whether a verb makes sense now, and for which run.

use std::str::FromStr as _;

use sluice_core::api::{ANNOTATION_REQUEST, Mode, Phase, Request, Run, RunKind, Stage, Verb};

use crate::fail::Failure;
use crate::model::Seen;
use crate::view::Call;

/// What is to be done about a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Write it for this run.
    Ask(String),
    /// This run is already as asked for.
    Already(String, &'static str),
}

/// Whether the verb makes sense now, and for which run.
pub(super) fn check(verb: Verb, seen: &Seen, only: Option<&str>, call: &Call) -> Result<Step, Failure> {
    let place = format!("{}/{}", seen.namespace(), seen.name());
    let status = seen.status();
    let pending = pending(seen);
    let step = match (verb, &status.run) {
        (Verb::Abort, Some(run)) if run.kind == RunKind::Observe => Ok(Step::Ask(run.id.clone())),
        (_, Some(run)) if run.kind == RunKind::Observe => Err(nothing_held(verb, seen, &place)),
        (_, None) if seen.rollout.spec.mode == Mode::Observe && verb == Verb::Retry => {
            Err(nothing_held(verb, seen, &place))
        }
        (Verb::Retry, _) => retry(seen, &place),
        (_, Some(run)) => during(verb, run, seen, pending.as_ref(), &place, call),
        (_, None) => Err(nothing_under_way(verb, seen, &place)),
    }?;
    let (Step::Ask(run) | Step::Already(run, _)) = &step;
    let aborts = asks(pending.as_ref(), Verb::Abort, run);
    if verb != Verb::Abort && aborts {
        return Err(Failure::new(format!(
            "run {run} of {place} is to be aborted, which the controller has not seen yet: nothing was done."
        )));
    }
    match only {
        Some(only) if only != run => Err(Failure::new(format!(
            "run {only} of {place} is not under way, run {run} is: nothing was done."
        ))),
        _ => Ok(step),
    }
}

/// The request that is written and that the controller has not answered yet.
fn pending(seen: &Seen) -> Option<Request> {
    let written = seen.rollout.metadata.annotations.as_ref().and_then(|all| all.get(ANNOTATION_REQUEST))?;
    let status = seen.status();
    let latched = status.request.as_ref().map(|request| request.value.as_str());
    if latched == Some(written.as_str()) { None } else { Request::from_str(written).ok() }
}

/// Whether a request asks for this verb in this run.
fn asks(pending: Option<&Request>, verb: Verb, run: &str) -> bool {
    pending.is_some_and(|request| request.verb == verb && request.run_id == run)
}

fn during(
    verb: Verb,
    run: &Run,
    seen: &Seen,
    pending: Option<&Request>,
    place: &str,
    call: &Call,
) -> Result<Step, Failure> {
    let id = &run.id;
    let moving = matches!(run.stage, Stage::Preparing | Stage::Stepping);
    let waiting = seen.status().waiting.as_ref().map(|wait| wait.reason.clone()).unwrap_or_default();
    match verb {
        Verb::Abort if run.going_back.is_some() => {
            Ok(Step::Already(id.clone(), "it already returns to stable"))
        }
        _ if run.going_back.is_some() => Err(Failure::new(format!(
            "run {id} of {place} returns to stable: there is nothing to {}.",
            verb.as_str()
        ))),
        _ if run.stage == Stage::Finishing => Err(Failure::new(format!(
            "run {id} of {place} has passed and its old revision goes: there is nothing to {}. To go back, apply the earlier template: a recorded good revision returns without a canary.",
            verb.as_str()
        ))),
        Verb::Abort => Ok(Step::Ask(id.clone())),
        Verb::Pause if !moving => Err(Failure::new(format!(
            "run {id} of {place} is past its last step: there is nothing to pause. To take it back: {}",
            call.command("abort", seen)
        ))),
        Verb::Pause if run.paused && !asks(pending, Verb::Resume, id) => {
            Ok(Step::Already(id.clone(), "it is already paused"))
        }
        Verb::Pause => Ok(Step::Ask(id.clone())),
        _ if run.paused || run.overwritten || waiting == "PausedBeforePercent" => Ok(Step::Ask(id.clone())),
        // It takes the place of a pause that the controller has not seen yet.
        _ if asks(pending, Verb::Pause, id) => Ok(Step::Ask(id.clone())),
        _ if seen.rollout.spec.suspend => Err(Failure::new(format!(
            "{place} is suspended by its own spec: set spec.suspend to false (kubectl patch prollout {} -n {} --type=merge -p '{{\"spec\":{{\"suspend\":false}}}}').",
            seen.name(),
            seen.namespace()
        ))),
        _ => Err(Failure::new(format!(
            "run {id} of {place} does not wait for a person{}: there is nothing to resume.",
            if waiting.is_empty() { String::new() } else { format!(" but for {waiting}") }
        ))),
    }
}

fn retry(seen: &Seen, place: &str) -> Result<Step, Failure> {
    let status = seen.status();
    if let Some(run) = &status.run {
        return Err(Failure::new(format!(
            "run {} of {place} is under way: retry is for a held revision whose run has ended.",
            run.id
        )));
    }
    if status.held.is_none() {
        return Err(Failure::new(format!(
            "no revision of {place} is held: there is nothing to retry. Apply a template to start a run."
        )));
    }
    if !matches!(status.phase, Phase::Rejected | Phase::NotProven) {
        let why = status
            .waiting
            .as_ref()
            .map(|wait| format!(" ({}: {})", wait.reason, wait.message))
            .unwrap_or_default();
        return Err(Failure::new(format!(
            "the held revision of {place} was not rejected and starts without retry{why}."
        )));
    }
    match seen.last_of_held() {
        Some((run, _)) => Ok(Step::Ask(run)),
        None => Err(Failure::new(format!(
            "status of {place} does not say which run rejected the held revision: apply a template that differs, or delete and create the ProgressiveRollout."
        ))),
    }
}

fn nothing_under_way(verb: Verb, seen: &Seen, place: &str) -> Failure {
    let status = seen.status();
    let reason = status.waiting.as_ref().map(|wait| wait.reason.as_str()).unwrap_or_default();
    let (name, namespace) = (seen.name(), seen.namespace());
    let next = match (verb, reason, status.phase) {
        (Verb::Resume, "UserPaused", _) => format!(
            " The Deployment was paused by a person: kubectl rollout resume deployment/{} -n {namespace}",
            seen.rollout.spec.workload_ref.name
        ),
        (Verb::Resume, "Suspended", _) => {
            " It is suspended by its own spec: set spec.suspend to false.".to_owned()
        }
        (Verb::Abort | Verb::Pause, _, Phase::Held) => format!(
            " A revision is held and stable serves. To keep it from starting: kubectl patch prollout {name} -n {namespace} --type=merge -p '{{\"spec\":{{\"suspend\":true}}}}'"
        ),
        (_, _, Phase::Rejected | Phase::NotProven) => {
            " The held revision was stopped already and stable serves.".to_owned()
        }
        _ => String::new(),
    };
    let phase = status.phase.as_str();
    Failure::new(format!(
        "no run of {place} is under way (phase {phase}): there is nothing to {}.{next}",
        verb.as_str()
    ))
}

/// Mode Observe: the command that acts on the Deployment itself.
fn nothing_held(verb: Verb, seen: &Seen, place: &str) -> Failure {
    let native = match verb {
        Verb::Abort => "undo",
        Verb::Pause => "pause",
        Verb::Resume => "resume",
        Verb::Retry => "restart",
    };
    Failure::new(format!(
        "{place} is only observed (mode Observe): nothing is held, so there is nothing to {}. kubectl rollout {native} deployment/{} -n {} acts on the Deployment itself.",
        verb.as_str(),
        seen.rollout.spec.workload_ref.name,
        seen.namespace()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::tests::scene;

    fn said(verb: Verb, seen: &Seen, only: Option<&str>) -> Result<Step, String> {
        check(verb, seen, only, &Call { program: "kubectl sluice".to_owned(), flags: String::new() })
            .map_err(|f| f.text)
    }

    #[test]
    fn an_abort_names_the_run_that_was_seen() {
        let seen = scene::stepping();
        assert_eq!(said(Verb::Abort, &seen, None), Ok(Step::Ask("7-5bd9c".to_owned())));
        let other = said(Verb::Abort, &seen, Some("6-aaaaa"));
        assert_eq!(
            other,
            Err("run 6-aaaaa of shop/checkout is not under way, run 7-5bd9c is: nothing was done.".to_owned())
        );
    }

    #[test]
    fn an_abort_of_a_run_that_goes_back_waits_for_it() {
        let step = said(Verb::Abort, &scene::returning(), None);
        assert!(matches!(step, Ok(Step::Already(run, _)) if run == "7-5bd9c"));
    }

    #[test]
    fn an_abort_that_waits_for_the_controller_is_never_written_over() {
        let mut seen = scene::paused();
        for value in ["abort/7-5bd9c", "abort/7-5bd9c/2"] {
            let abort = (ANNOTATION_REQUEST.to_owned(), value.to_owned());
            seen.rollout.metadata.annotations = Some([abort].into());
            assert!(said(Verb::Resume, &seen, None).unwrap_err().contains("is to be aborted"));
            assert_eq!(said(Verb::Abort, &seen, None), Ok(Step::Ask("7-5bd9c".to_owned())));
        }
    }

    #[test]
    fn a_pause_that_waits_for_the_controller_can_be_taken_back() {
        let mut seen = scene::stepping();
        let mut written = |value: &str, verb| {
            let request = (ANNOTATION_REQUEST.to_owned(), value.to_owned());
            seen.rollout.metadata.annotations = Some([request].into());
            said(verb, &seen, None)
        };
        let ask = Ok(Step::Ask("7-5bd9c".to_owned()));
        assert_eq!(written("pause/7-5bd9c", Verb::Resume), ask);
        assert_eq!(written("pause/7-5bd9c/2", Verb::Resume), ask);
        assert!(written("pause/6-aaaaa", Verb::Resume).is_err());
        // And a resume that waits does not make a pause that is in force look as if nothing were to be done.
        let mut seen = scene::paused();
        let request = (ANNOTATION_REQUEST.to_owned(), "resume/7-5bd9c".to_owned());
        seen.rollout.metadata.annotations = Some([request].into());
        assert_eq!(said(Verb::Pause, &seen, None), ask);
    }

    #[test]
    fn resume_never_opens_a_gate_that_nobody_waits_at() {
        let error = said(Verb::Resume, &scene::stepping(), None).unwrap_err();
        assert!(error.contains("does not wait for a person but for NotEnoughEvidence"), "{error}");
        assert_eq!(said(Verb::Resume, &scene::paused(), None), Ok(Step::Ask("7-5bd9c".to_owned())));
        assert_eq!(said(Verb::Resume, &scene::at_gate(), None), Ok(Step::Ask("7-5bd9c".to_owned())));
    }

    #[test]
    fn retry_names_the_run_that_rejected_the_held_revision() {
        assert_eq!(said(Verb::Retry, &scene::rejected(), None), Ok(Step::Ask("7-5bd9c".to_owned())));
        assert_eq!(said(Verb::Retry, &scene::quarantined(), None), Ok(Step::Ask("7-5bd9c".to_owned())));
        assert!(said(Verb::Retry, &scene::held(), None).unwrap_err().contains("starts without retry"));
        assert!(said(Verb::Retry, &scene::idle(), None).unwrap_err().contains("nothing to retry"));
        assert!(said(Verb::Retry, &scene::stepping(), None).unwrap_err().contains("is under way"));
    }

    #[test]
    fn without_a_run_the_way_to_the_goal_is_named() {
        let held = said(Verb::Abort, &scene::held(), None).unwrap_err();
        assert!(held.contains("To keep it from starting: kubectl patch prollout checkout -n shop"), "{held}");
        let idle = said(Verb::Pause, &scene::idle(), None).unwrap_err();
        assert_eq!(idle, "no run of shop/checkout is under way (phase Idle): there is nothing to pause.");
    }

    #[test]
    fn a_promoted_run_can_be_aborted_but_not_paused() {
        let seen = scene::watching();
        assert_eq!(said(Verb::Abort, &seen, None), Ok(Step::Ask("7-5bd9c".to_owned())));
        assert!(
            said(Verb::Pause, &seen, None)
                .unwrap_err()
                .contains("To take it back: kubectl sluice abort checkout -n shop")
        );
    }

    #[test]
    fn an_observed_run_can_be_ended_and_nothing_else() {
        let mut seen = scene::stepping();
        seen.rollout.spec.mode = Mode::Observe;
        if let Some(run) = seen.rollout.status.as_mut().and_then(|status| status.run.as_mut()) {
            run.kind = RunKind::Observe;
        }
        assert_eq!(said(Verb::Abort, &seen, None), Ok(Step::Ask("7-5bd9c".to_owned())));
        for (verb, native) in [(Verb::Pause, "pause"), (Verb::Resume, "resume"), (Verb::Retry, "restart")] {
            let error = said(verb, &seen, None).unwrap_err();
            let command = format!("kubectl rollout {native} deployment/checkout -n shop");
            assert!(error.contains("nothing is held") && error.contains(&command), "{error}");
        }
    }
}
