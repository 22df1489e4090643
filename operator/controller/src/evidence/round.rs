//! One look at a rollout: a question to each of its sources, and a verdict on what they answer.
//!
//! A source that has not answered an earlier look is not asked again by this one; the others are, so none waits for
//! another. An answer is judged as one about the run as it stands by then, or dropped if that is over.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use futures::stream::{FuturesUnordered, StreamExt};
use jiff::Timestamp;
use kube::ResourceExt;
use sluice_core::api::{AlertSource, Guard, ProgressiveRollout, Run};
use sluice_core::config::Config;
use sluice_core::evidence::{GaugeLook, Poll};
use sluice_core::forecast::{before_run, traffic_too_low};
use sluice_core::harm;
use sluice_core::judge::{Evaluation, Quiet, firing, judge};
use sluice_core::verdict::HarmLook;
use sluice_providers::Providers;
use tracing::debug;

use super::ask::{Asker, Counters};
use super::rest;
use super::store::{AlertPolls, Entry};
use crate::context::Context;
use crate::watch::Key;

/// Answers that come within this time of each other are judged together.
const TOGETHER: Duration = Duration::from_millis(250);

/// A run, or a rollout at rest. One that is created again may have a run of the same name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Subject {
    key: Key,
    pub uid: String,
    run: Option<String>,
}

impl Subject {
    fn of(key: &Key, rollout: &ProgressiveRollout) -> Self {
        let run = run_of(rollout).map(|run| run.id.clone());
        Self { key: key.clone(), uid: rollout.uid().unwrap_or_default(), run }
    }
}

fn run_of(rollout: &ProgressiveRollout) -> Option<&Run> {
    rollout.status.as_ref()?.run.as_ref()
}

/// What one source is asked for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Source {
    Alerts(AlertSource),
    /// Those of all sources, while there is no run.
    AllAlerts,
    /// What is left of the error budget, likewise.
    Budgets,
    /// Stable's record, likewise.
    Record,
    /// By the guard's name.
    Counters(String),
    /// Likewise.
    Value(String),
}

/// The questions under way.
#[derive(Clone, Default)]
pub(super) struct Asking(Arc<Mutex<BTreeSet<(Subject, Source)>>>);

impl Asking {
    /// Begins a question, unless the source has not answered the last one yet.
    pub fn begin(&self, subject: &Subject, source: Source) -> Option<Underway<'_>> {
        let question = (subject.clone(), source);
        let begins = self.lock().insert(question.clone());
        begins.then(|| Underway { asking: self, question })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<(Subject, Source)>> {
        // Whole questions come and go: a panic elsewhere leaves nothing half-done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A question under way; dropped once its answer is judged, and by a panic.
pub(super) struct Underway<'a> {
    asking: &'a Asking,
    question: (Subject, Source),
}

impl Drop for Underway<'_> {
    fn drop(&mut self) {
        self.asking.lock().remove(&self.question);
    }
}

/// What one source answered.
enum Answer {
    Alerts(AlertSource, Arc<Poll>),
    Counters(String, Counters),
    Value(String, GaugeLook),
}

/// Asks every source that is free, and judges what comes back as it comes.
pub(super) async fn look(
    ctx: &Context,
    providers: &Providers,
    asking: &Asking,
    key: &Key,
    rollout: &ProgressiveRollout,
) {
    let asker = &Asker { ctx, providers, key, rollout };
    let subject = Subject::of(key, rollout);
    let Some(run) = run_of(rollout) else {
        rest::look(asker, asking, &subject).await;
        return;
    };
    let guards = &run.plan.guards;
    let polls = sources(guards).filter_map(|source| {
        let underway = asking.begin(&subject, Source::Alerts(source))?;
        Some(async move { (underway, Answer::Alerts(source, asker.alerts(source).await)) }.boxed())
    });
    let created = asker.created(run).shared();
    let samples = guards.iter().filter_map(|guard| {
        let counted = guard.counted()?;
        let underway = asking.begin(&subject, Source::Counters(guard.name.clone()))?;
        let created = created.clone();
        let known = ctx.evidence.known(key, &subject.uid, run, &guard.name);
        let question = async move {
            let counters = asker.samples(run, counted, &created.await, known).await;
            (underway, Answer::Counters(guard.name.clone(), counters))
        };
        Some(question.boxed())
    });
    let values = guards.iter().filter_map(|guard| {
        let metric = guard.metric.as_ref()?;
        let underway = asking.begin(&subject, Source::Value(guard.name.clone()))?;
        let question =
            async move { (underway, Answer::Value(guard.name.clone(), asker.value(run, metric).await)) };
        Some(question.boxed())
    });
    let asked = polls.chain(samples).chain(values).collect();
    as_they_come(asked, |answers| {
        // What is under way ends with this scope: no source is asked again before its answer is judged.
        let judged = take_in(ctx, &subject, |known, rollout| {
            let run = run_of(rollout)?;
            let entry = judged(&ctx.config, run, Entry::of(known, &subject.uid, run), &answers);
            let verdict = &entry.verdict;
            debug!(rollout = %key.name, namespace = %key.namespace, run = %run.id, abort = ?verdict.abort, gate = verdict.gate_open, "evaluated");
            Some(entry)
        });
        if judged {
            let _ = ctx.queue.send(key.clone());
        }
    })
    .await;
}

/// The sources of the alerts that guards watch.
pub(super) fn sources(guards: &[Guard]) -> impl Iterator<Item = AlertSource> {
    let watched = |source: &AlertSource| {
        guards.iter().any(|guard| guard.alert.as_ref().is_some_and(|alert| alert.source == *source))
    };
    AlertSource::ALL.into_iter().filter(watched)
}

/// Passes answers on: together what comes together, as from sources that are well, and what is late by itself.
async fn as_they_come<A>(mut asked: FuturesUnordered<BoxFuture<'_, A>>, mut take_in: impl FnMut(Vec<A>)) {
    while let Some(first) = asked.next().await {
        let mut answers = vec![first];
        let until = tokio::time::Instant::now() + TOGETHER;
        while let Ok(Some(next)) = tokio::time::timeout_at(until, asked.next()).await {
            answers.push(next);
        }
        take_in(answers);
    }
}

/// Renews what is known of a rollout, if it still is what was asked about.
pub(super) fn take_in(
    ctx: &Context,
    subject: &Subject,
    next: impl FnOnce(Option<Entry>, &ProgressiveRollout) -> Option<Entry>,
) -> bool {
    ctx.evidence.update(&subject.key, |known| match ctx.newest(&subject.key) {
        Some(Ok(rollout)) if Subject::of(&subject.key, &rollout) == *subject => next(known, &rollout),
        _ => None,
    })
}

/// Judges a run anew with these answers.
fn judged(config: &Config, run: &Run, mut entry: Entry, answers: &[(Underway<'_>, Answer)]) -> Entry {
    let (mut polls, mut samples, mut history, mut gauges) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (_, answer) in answers {
        match answer {
            Answer::Alerts(source, poll) => polls.push((*source, poll.clone())),
            Answer::Counters(name, counted) => {
                history.extend(counted.history.iter().map(|sample| (name.clone(), sample.clone())));
                samples.push((name.clone(), counted.now.clone()));
            }
            Answer::Value(name, look) => gauges.push((name.clone(), look.clone())),
        }
    }
    let counts = run.plan.guards.iter().find(|guard| guard.error_ratio.is_some()).map(|guard| &guard.name);
    if let Some((_, sample)) = samples.iter().find(|(name, _)| Some(name) == counts) {
        entry.quiet = Quiet::update(entry.quiet, sample);
    }
    let polls = AlertPolls::of(polls);
    entry.polls.update(&polls);
    let evaluation = Evaluation {
        run,
        history: &history,
        samples: &samples,
        gauges: &gauges,
        polls: polls.all(),
        quiet: entry.quiet,
        interval_seconds: config.evaluation_interval_seconds,
        now: Timestamp::now(),
    };
    let forecasts = before_run(run, &history, config.evaluation_interval_seconds);
    if let Some(why) = traffic_too_low(&run.plan, &forecasts) {
        entry.state.low_traffic = Some(why);
    }
    let before = std::mem::take(&mut entry.verdict);
    entry.verdict = judge(&evaluation, &mut entry.state);
    let at = evaluation.now;
    let known = (!forecasts.is_empty()).then(|| harm::shown(&run.plan, &forecasts, at));
    let found = known.map(|harm| HarmLook { plan: run.plan.digest.clone(), at, harm });
    entry.verdict.harm = found.or(before.harm);
    // Once is enough: a score that fell again before the abort could be written is no acquittal.
    entry.verdict.abort = before.abort.or(entry.verdict.abort);
    // A look that failed, or was not due, says nothing about what fires.
    entry.verdict.firing = firing(&run.plan.guards, entry.polls.all());
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_comes_together_is_judged_together_and_what_is_late_by_itself() {
        let after = |millis: u64| {
            async move {
                tokio::time::sleep(Duration::from_millis(millis)).await;
                millis
            }
            .boxed()
        };
        let mut judged = Vec::new();
        as_they_come([700, 0, 50].map(after).into_iter().collect(), |answers| judged.push(answers)).await;
        assert_eq!(judged, [vec![0, 50], vec![700]]);
    }

    #[test]
    fn a_question_is_asked_once_at_a_time() {
        const ALERTS: Source = Source::Alerts(AlertSource::Alertmanager);
        let asking = Asking::default();
        let key = Key { namespace: "shop".to_owned(), name: "web".to_owned() };
        let subject =
            |run: &str| Subject { key: key.clone(), uid: "u".to_owned(), run: Some(run.to_owned()) };
        let alerts = asking.begin(&subject("1-a"), ALERTS);
        assert!(alerts.is_some());
        assert!(asking.begin(&subject("1-a"), ALERTS).is_none(), "not answered yet");
        assert!(asking.begin(&subject("1-a"), Source::Counters("errors".to_owned())).is_some());
        assert!(asking.begin(&subject("2-b"), ALERTS).is_some(), "another run");
        drop(alerts);
        assert!(asking.begin(&subject("1-a"), ALERTS).is_some());
    }
}
