//! `abort`, `pause`, `resume`, `retry`: a person's request, bound to one run.
//!
//! It is an annotation that the controller latches; git cannot undo it, and an old one never acts on a new
//! run. Whether it makes sense now is checked first, so that the answer is immediate.

mod check;
mod wait;

use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;
use sluice_core::api::{Request, RunKind, Verb};
use tokio::time::Instant;

use super::{API_VERSION, Context};
use crate::args;
use crate::cluster::Cluster;
use crate::exit::Code;
use crate::fail::Failure;
use crate::model::Seen;
use crate::out::{Line, Role};
use crate::view::words;
use check::{Step, check};
use wait::{End, Wait};

/// How long the controller may take to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);
/// How long going back may take before waiting for it ends.
const ABORT_LIMIT: Duration = Duration::from_secs(300);
/// What going back may take besides the drain time.
const BESIDES_DRAIN: Duration = Duration::from_secs(120);

/// Runs a verb.
pub async fn run(context: &Context, verb: Verb, args: args::Request) -> Result<Code, Failure> {
    let cluster = Cluster::connect(&context.global).await?;
    let name = cluster.resolve(args.name.as_deref()).await?;
    let start = Instant::now();
    loop {
        let rollout = cluster.get(&name).await?;
        let seen = cluster.gather(rollout, false).await;
        let step = check(verb, &seen, args.run.as_deref(), &context.call)?;
        let drain = Duration::from_secs(u64::try_from(seen.rollout.spec.routing.drain_seconds).unwrap_or(0));
        let limit = match (args.timeout, verb) {
            (Some(time), _) => time.unsigned_abs(),
            (None, Verb::Abort) => ABORT_LIMIT.max(drain + BESIDES_DRAIN),
            (None, _) => ANSWER_LIMIT,
        };
        let deadline = start + limit;
        let wait = Wait { context, cluster: &cluster, verb, name: &name, deadline, limit };
        let (run, answer) = match step {
            Step::Ask(run) => {
                let value = value(verb, &run, &seen);
                // An abort is written over whatever stands there. Any other verb is written only on what was checked:
                // it must not take the place of an abort that the controller has not seen yet.
                let version = seen.rollout.metadata.resource_version.as_deref();
                let only = if verb == Verb::Abort { None } else { version };
                if !cluster.request(&name, &value, only).await? {
                    if Instant::now() < deadline {
                        continue;
                    }
                    return Err(Failure::timeout(format!(
                        "{} of run {run} is not written: {}/{name} changed again and again. Run the command again.",
                        verb.as_str(),
                        cluster.namespace
                    )));
                }
                if args.no_wait {
                    say(&wait, &run, None, None)?;
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
        let returns = verb == Verb::Abort && !observed(&seen);
        let end = if returns && !args.no_wait { Some(wait.verified(&run).await?) } else { None };
        say(&wait, &run, Some(&answer), end.as_ref())?;
        return Ok(Code::Fine);
    }
}

/// Whether the run under way is a native roll that is only judged: an abort moves no traffic.
fn observed(seen: &Seen) -> bool {
    seen.status().run.as_ref().is_some_and(|run| run.kind == RunKind::Observe)
}

/// The annotation to write. The controller acts on a text once, so the same verb again needs a nonce.
fn value(verb: Verb, run: &str, seen: &Seen) -> String {
    let mut request = Request { verb, run_id: run.to_owned(), nonce: None };
    let plain = request.to_string();
    if seen.status().request.as_ref().is_some_and(|latched| latched.value == plain) {
        request.nonce = Some(Timestamp::now().as_millisecond().to_string());
    }
    request.to_string()
}

/// Says what was done.
fn say(wait: &Wait<'_>, run: &str, answer: Option<&str>, end: Option<&End>) -> Result<(), Failure> {
    let place = format!("{}/{}", wait.cluster.namespace, wait.name);
    if let Some(format) = wait.context.machine() {
        let result = json!({
            "apiVersion": API_VERSION,
            "kind": "RequestResult",
            "namespace": wait.cluster.namespace,
            "name": wait.name,
            "verb": wait.verb.as_str(),
            "run": run,
            "answer": answer,
            "verified": end.is_some(),
            "verifiedAfterSeconds": end.and_then(|end| end.seconds),
            "outcome": end.map(|end| end.outcome),
        });
        return wait.context.document(format, wait.name, &result, false);
    }
    let text = match (answer, end) {
        (None, _) => format!("{} of run {run} of {place} is requested", wait.verb.as_str()),
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
    wait.context.print(&[Line::default().mark(Role::Ok).plain(format!(" {text}"))])
}
