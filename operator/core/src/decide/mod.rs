//! The decision: from what is declared, seen, known and proven to what is done now.
//!
//! One pass asks its questions in the order of safety. Each answer is a pure function of [`Input`]; the
//! shell executes the actions in order, and every action may be repeated after a crash at any point.
//!
//! 1. What did a person ask for?
//! 2. Is the rollout, or the installation, going away?
//! 3. Is a run under way? Must it go back? Then nothing else happens.
//! 4. May it move forward?
//! 5. No run: is everything in order, and is a template held?

mod attend;
mod back;
mod budget;
mod draft;
mod forward;
mod freeze;
mod ground;
mod harm;
mod held;
mod history;
mod leave;
mod observe;
mod pair;
mod promote;
mod report;
mod request;
mod rest;
mod start;
mod stop;
mod tighten;
mod traffic;

pub(crate) use attend::FORGIVEN_SECONDS;
pub use draft::{Decision, Input};
pub(crate) use tighten::progress;

use crate::action::{Kind, Lane};
use crate::api::{Mode, ProgressiveRolloutStatus, Run, RunKind, Stage};
use draft::Draft;

/// Decides what to do now.
pub fn decide(input: Input<'_>) -> Decision {
    let mut draft = Draft::new(input);
    let mut run = draft.status.run.take();

    request::latch(&mut draft, run.as_mut());

    if let Some(run) = run {
        under_way(&mut draft, run);
    } else if leave::leaving(&draft) {
        leave::step(&mut draft);
    } else if draft.spec.mode == Mode::Observe {
        observe::step(&mut draft);
    } else {
        rest::step(&mut draft);
        match draft.status.run.take() {
            // What a run that starts needs first is done in the same pass, unless something else comes before it.
            Some(run) if draft.actions.is_empty() => under_way(&mut draft, run),
            started => draft.status.run = started,
        }
    }

    report::finish(draft)
}

/// A run is under way: must it go back, and else, what comes next?
fn under_way(draft: &mut Draft<'_>, mut run: Run) {
    if run.kind == RunKind::Observe {
        observe::judge(draft, run);
        return;
    }
    attend::note(draft, &mut run);
    leave::abandon(draft, &mut run);
    tighten::plan(draft, &mut run);
    tighten::evidence(draft, &mut run);
    stop::reasons(draft, &mut run);
    let waits_for_pair = pair::restore(draft, &mut run);
    match run.stage {
        Stage::Returning => back::step(draft, run),
        _ if waits_for_pair => draft.status.run = Some(run),
        Stage::Preparing => forward::prepare(draft, run),
        Stage::Stepping => forward::step(draft, run),
        Stage::Promoting => promote::swap(draft, run),
        Stage::Watching => promote::watch(draft, run),
        Stage::Finishing => promote::finish(draft, run),
    }
}

impl Decision {
    /// The canary run that begins here, if one does: it takes room from others.
    pub fn begins(&self, before: Option<&ProgressiveRolloutStatus>) -> Option<&Run> {
        let under_way = before.is_some_and(|status| status.run.is_some());
        self.status.run.as_ref().filter(|run| run.kind == RunKind::Canary && !under_way)
    }

    /// Whether every action only returns traffic, so that it may run on what the caches show.
    pub fn only_returns(&self) -> bool {
        self.actions.iter().all(|action| action.lane == Lane::Abort)
    }

    /// Whether this only prepares a run: nobody met its canary before, nobody is led to it now, and neither a route nor
    /// the Deployment is written. It may be decided on what the caches show, apart from the Deployment: each of these
    /// writes tests what it was decided on, and what an old cache makes of it can be taken back before anybody sees it.
    pub fn only_prepares(&self, before: Option<&ProgressiveRolloutStatus>) -> bool {
        let unexposed = |run: &Run| {
            run.kind != RunKind::Observe
                && matches!(run.stage, Stage::Preparing | Stage::Stepping)
                && run.going_back.is_none()
                && run.weight.is_none()
                && run.exposed_since.is_none()
        };
        before.and_then(|status| status.run.as_ref()).is_none_or(unexposed)
            && self.status.run.as_ref().is_some_and(unexposed)
            && self.actions.iter().all(|action| matches!(action.kind, Kind::Service | Kind::ReplicaSet))
    }
}
