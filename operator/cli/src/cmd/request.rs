//! `abort`, `pause`, `resume`, `retry`: a person's request, bound to one run.
//!
//! It is an annotation that the controller latches; git cannot undo it, and an old one never acts on a new
//! run. Whether it makes sense now is checked here first, so that the answer is immediate.

use std::pin::pin;
use std::time::Duration;

use futures::StreamExt as _;
use serde_json::json;
use sluice_core::api::{ANNOTATION_REQUEST, Outcome, Phase, Run, RunKind, Stage};
use tokio::time::{Instant, timeout_at};

use super::{API_VERSION, Context};
use crate::args::Request;
use crate::cluster::{Cluster, Watched};
use crate::exit::Code;
use crate::fail::Failure;
use crate::model::Seen;
use crate::out::{Line, Role};
use crate::view::{Call, words};

/// How long the controller may take to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);
/// How long going back may take before waiting for it ends.
const ABORT_LIMIT: Duration = Duration::from_secs(300);
/// What going back may take besides the drain time.
const BESIDES_DRAIN: Duration = Duration::from_secs(120);

/// A verb.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Return all traffic to stable, reject the revision.
    Abort,
    /// Keep the weight.
    Pause,
    /// Go on.
    Resume,
    /// Start the held revision again.
    Retry,
}

impl Verb {
    fn as_str(self) -> &'static str {
        match self {
            Self::Abort => "abort",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Retry => "retry",
        }
    }
}

/// What is to be done about a request.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    /// Write it for this run.
    Ask(String),
    /// This run is already as asked for.
    Already(String, &'static str),
}

/// Runs a verb.
pub async fn run(context: &Context, verb: Verb, args: Request) -> Result<Code, Failure> {
    let cluster = Cluster::connect(&context.global).await?;
    let name = cluster.resolve(args.name.as_deref()).await?;
    let rollout = cluster.get(&name).await?;
    let seen = cluster.gather(rollout, false).await;
    let step = check(verb, &seen, args.run.as_deref(), &context.call)?;
    let drain = Duration::from_secs(u64::try_from(seen.rollout.spec.routing.drain_seconds).unwrap_or(0));
    let limit = match (args.timeout, verb) {
        (Some(time), _) => time.unsigned_abs(),
        (None, Verb::Abort) => ABORT_LIMIT.max(drain + BESIDES_DRAIN),
        (None, _) => ANSWER_LIMIT,
    };
    let wait =
        Wait { context, cluster: &cluster, verb, name: &name, deadline: Instant::now() + limit, limit };
    let (run, answer) = match step {
        Step::Ask(run) => {
            let value = format!("{}/{run}", verb.as_str());
            let latched = seen.status().request.as_ref().is_some_and(|latched| latched.value == value);
            if latched {
                // The controller acts on a value once. Another value between the two makes this one new.
                let between = format!("again/{run}");
                cluster.request(&name, &between).await?;
                wait.answer(&between).await?;
            }
            cluster.request(&name, &value).await?;
            if args.no_wait {
                wait.say(&run, None, None)?;
                return Ok(Code::Fine);
            }
            let answer = wait.answer(&value).await?;
            let returning = verb == Verb::Abort && answer.contains("already returns");
            if answer.starts_with("ignored") && !returning {
                return Err(Failure::new(format!(
                    "{} {}/{name}: {answer}",
                    verb.as_str(),
                    cluster.namespace
                )));
            }
            (run, answer)
        }
        Step::Already(run, answer) => (run, answer.to_owned()),
    };
    let end = if verb == Verb::Abort && !args.no_wait { Some(wait.verified(&run).await?) } else { None };
    wait.say(&run, Some(&answer), end.as_ref())?;
    Ok(Code::Fine)
}

/// Whether the verb makes sense now, and for which run.
fn check(verb: Verb, seen: &Seen, only: Option<&str>, call: &Call) -> Result<Step, Failure> {
    let place = format!("{}/{}", seen.namespace(), seen.name());
    let status = seen.status();
    let step = match (verb, &status.run) {
        (_, Some(run)) if run.kind == RunKind::Observe => Err(Failure::new(format!(
            "run {} of {place} is only observed (mode Observe): nothing is held, so there is nothing to {}. kubectl rollout undo acts on the Deployment itself.",
            run.id,
            verb.as_str()
        ))),
        (Verb::Retry, _) => retry(seen, &place),
        (_, Some(run)) => during(verb, run, seen, &place, call),
        (_, None) => Err(nothing_under_way(verb, seen, &place)),
    }?;
    let (Step::Ask(run) | Step::Already(run, _)) = &step;
    let written = seen.rollout.metadata.annotations.as_ref().and_then(|all| all.get(ANNOTATION_REQUEST));
    let latched = status.request.as_ref().map(|request| &request.value);
    if verb != Verb::Abort
        && written.is_some()
        && written != latched
        && *written.unwrap_or(run) == format!("abort/{run}")
    {
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

fn during(verb: Verb, run: &Run, seen: &Seen, place: &str, call: &Call) -> Result<Step, Failure> {
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
        Verb::Pause if run.paused => Ok(Step::Already(id.clone(), "it is already paused")),
        Verb::Pause => Ok(Step::Ask(id.clone())),
        _ if run.paused || run.overwritten || waiting == "PausedBeforePercent" => Ok(Step::Ask(id.clone())),
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

/// How a run went back.
struct End {
    outcome: Outcome,
    /// Seconds from the decision to verified weight 0, when traffic had to go back at all.
    seconds: Option<i64>,
}

/// Waiting for the controller.
struct Wait<'a> {
    context: &'a Context,
    cluster: &'a Cluster,
    verb: Verb,
    name: &'a str,
    deadline: Instant,
    limit: Duration,
}

impl Wait<'_> {
    /// Looks at the rollout until `find` finds something.
    async fn until<T>(
        &self,
        what: &str,
        mut find: impl FnMut(&Seen) -> Option<Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let mut changes = pin!(self.cluster.watch(self.name));
        loop {
            let Ok(change) = timeout_at(self.deadline, changes.next()).await else {
                return Err(self.late(what).await);
            };
            match change {
                Some(Watched::Changed(rollout)) => {
                    let seen = Seen {
                        rollout: *rollout,
                        workload: None,
                        replica_sets: None,
                        controller: None,
                        events: Vec::new(),
                    };
                    if let Some(found) = find(&seen) {
                        return found;
                    }
                }
                Some(Watched::Gone) => {
                    return Err(Failure::new(format!(
                        "ProgressiveRollout {:?} was deleted meanwhile.",
                        self.name
                    )));
                }
                Some(Watched::Failed(failure)) => return Err(failure),
                Some(Watched::Lost(_)) => {}
                None => return Err(Failure::new("the watch ended unexpectedly; run the command again")),
            }
        }
    }

    /// The controller's answer to the request with this value.
    async fn answer(&self, value: &str) -> Result<String, Failure> {
        let what = format!("the request {value} is written, but the controller has not answered it");
        self.until(&what, |seen| {
            let latched = seen.rollout.status.as_ref()?.request.as_ref()?;
            (latched.value == value).then(|| Ok(latched.answer.clone()))
        })
        .await
    }

    /// Waits until weight 0 of this run is verified, or the run is over.
    async fn verified(&self, id: &str) -> Result<End, Failure> {
        let mut told = false;
        let what = format!("run {id} goes back, but weight 0 is not verified");
        self.until(&what, |seen| {
            let status = seen.status();
            if let Some(run) = status.run.as_ref().filter(|run| run.id == id) {
                let back = run.going_back.as_ref()?;
                if let Some(at) = back.back_at.filter(|_| !told) {
                    told = true;
                    let seconds = words::between(back.since, at);
                    self.tell(&format!("weight 0 is live in the routes, {seconds} after the decision; waiting until it is verified"));
                }
                let at = back.verified_at?;
                let seconds = run.exposed_since.map(|_| words::seconds(back.since, at));
                return Some(Ok(End { outcome: back.outcome, seconds }));
            }
            let Some(record) = seen.record(id) else {
                return Some(Err(Failure::new(format!("run {id} is over, but its record is gone from status.history."))));
            };
            Some(match record.outcome {
                Outcome::Promoted => Err(Failure::new(format!(
                    "run {id} was promoted before the abort was seen. To go back, apply the earlier template: a recorded good revision returns without a canary."
                ))),
                outcome => Ok(End { outcome, seconds: None }),
            })
        })
        .await
    }

    /// A word on the way, for people.
    fn tell(&self, text: &str) {
        if self.context.machine().is_none() {
            eprintln!("{text}");
        }
    }

    async fn late(&self, what: &str) -> Failure {
        let controller = match self.cluster.controller().await {
            Some(c) => format!(
                "The controller {}/{} has {} of {} pods ready.",
                c.namespace, c.name, c.ready, c.wanted
            ),
            None => "Is the controller running?".to_owned(),
        };
        let by_hand = if self.verb == Verb::Abort {
            " It acts on the request as soon as it is back. Without it, set the weights of the routes by hand: <service>-stable 100, <service>-canary 0."
        } else {
            " It acts on the request as soon as it is back."
        };
        let limit = words::span(i64::try_from(self.limit.as_secs()).unwrap_or(0));
        Failure::timeout(format!("{what} after {limit}. {controller}{by_hand}"))
    }

    /// Says what was done.
    fn say(&self, run: &str, answer: Option<&str>, end: Option<&End>) -> Result<(), Failure> {
        let place = format!("{}/{}", self.cluster.namespace, self.name);
        if let Some(format) = self.context.machine() {
            let result = json!({
                "apiVersion": API_VERSION,
                "kind": "RequestResult",
                "namespace": self.cluster.namespace,
                "name": self.name,
                "verb": self.verb.as_str(),
                "run": run,
                "answer": answer,
                "verified": end.is_some(),
                "verifiedAfterSeconds": end.and_then(|end| end.seconds),
                "outcome": end.map(|end| end.outcome),
            });
            return self.context.document(format, self.name, &result, false);
        }
        let text = match (answer, end) {
            (None, _) => format!("{} of run {run} of {place} is requested", self.verb.as_str()),
            (Some(_), Some(End { seconds: Some(seconds), outcome })) => format!(
                "run {run} of {place} is taken back ({}): weight 0 verified {} after the decision, stable serves everything",
                outcome.as_str(),
                words::span(*seconds)
            ),
            (Some(_), Some(End { seconds: None, outcome })) => {
                format!("run {run} of {place} is taken back ({}): stable serves everything", outcome.as_str())
            }
            (Some(answer), None) => format!("run {run} of {place}: {answer}"),
        };
        self.context.print(&[Line::default().mark(Role::Ok).plain(format!(" {text}"))])
    }
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
        let abort = (ANNOTATION_REQUEST.to_owned(), "abort/7-5bd9c".to_owned());
        seen.rollout.metadata.annotations = Some([abort].into());
        assert!(said(Verb::Resume, &seen, None).unwrap_err().contains("is to be aborted"));
        assert_eq!(said(Verb::Abort, &seen, None), Ok(Step::Ask("7-5bd9c".to_owned())));
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
}
