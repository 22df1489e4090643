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
mod draft;
mod forward;
mod ground;
mod held;
mod history;
mod leave;
mod observe;
mod pair;
mod promote;
mod report;
mod request;
mod rest;
mod stop;
mod tighten;
mod traffic;

pub(crate) use attend::FORGIVEN_SECONDS;
pub use draft::{Decision, Input};
pub(crate) use tighten::progress;

use crate::action::Lane;
use crate::api::{Mode, RunKind, Stage};
use draft::Draft;

/// Decides what to do now.
pub fn decide(input: Input<'_>) -> Decision {
    let mut draft = Draft::new(input);
    let mut run = draft.status.run.take();

    request::latch(&mut draft, run.as_mut());

    if let Some(mut run) = run {
        if run.kind == RunKind::Observe {
            observe::judge(&mut draft, run);
        } else {
            attend::note(&mut draft, &mut run);
            leave::abandon(&mut draft, &mut run);
            tighten::provenance(&mut draft, &mut run);
            stop::reasons(&mut draft, &mut run);
            let waits_for_pair = pair::restore(&mut draft, &mut run);
            match run.stage {
                Stage::Returning => back::step(&mut draft, run),
                _ if waits_for_pair => draft.status.run = Some(run),
                Stage::Preparing => forward::prepare(&mut draft, run),
                Stage::Stepping => forward::step(&mut draft, run),
                Stage::Promoting => promote::swap(&mut draft, run),
                Stage::Watching => promote::watch(&mut draft, run),
                Stage::Finishing => promote::finish(&mut draft, run),
            }
        }
    } else if leave::leaving(&draft) {
        leave::step(&mut draft);
    } else if draft.spec.mode == Mode::Observe {
        observe::step(&mut draft);
    } else {
        rest::step(&mut draft);
    }

    report::finish(draft)
}

impl Decision {
    /// Whether every action only returns traffic, so that it may run on what the caches show.
    pub fn only_returns(&self) -> bool {
        self.actions.iter().all(|action| action.lane == Lane::Abort)
    }
}
