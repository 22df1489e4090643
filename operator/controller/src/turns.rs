//! Room for runs in flight: who takes it, who waits for it, and that two that start at once do not both take the last of it.
//!
//! What is under way, and what waits, is read from the statuses of all rollouts that are watched. Between the answer that
//! there is room and the status that says so, the place is remembered here.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use sluice_core::api::{
    Priority, ProgressiveRollout, ProgressiveRolloutStatus, Provenance, RiskClass, RunKind,
};
use sluice_core::queue::{Candidate, Party, Turn, turn};

use crate::client::FORWARD_LIMIT;
use crate::context::Context;
use crate::watch::Key;

/// What was written is seen by a watch by then, whatever came of the answer. Until then the place counts, unless the run is
/// seen before.
const SEEN: Duration = Duration::from_secs(30);

/// Places of runs that were let start, and that no status shows yet.
#[derive(Default)]
pub struct Turns(Mutex<BTreeMap<Key, Place>>);

struct Place {
    class: RiskClass,
    human: bool,
    /// Runs that the rollout had before: once a status shows more, it tells whether this one is under way.
    runs: i64,
    /// Given up then.
    until: Instant,
}

impl Turns {
    /// Why the held template of a rollout, which waited for room, would have to wait still.
    pub fn look(&self, ctx: &Context, key: &Key, rollout: &ProgressiveRollout) -> Option<Turn> {
        let status = rollout.status.as_ref()?;
        let since = status.held.as_ref()?.since;
        ask(ctx, &self.places(), key, candidate(ctx, key, rollout, risk(status)?, since))
    }

    /// Takes a place for the run that begins with this status, or says why there is none.
    pub fn take(
        &self,
        ctx: &Context,
        key: &Key,
        rollout: &ProgressiveRollout,
        next: &ProgressiveRolloutStatus,
    ) -> Result<(), Turn> {
        let mut places = self.places();
        let Some((class, human)) = risk(next) else {
            return Ok(());
        };
        let digest = next.run.as_ref().map(|run| &run.canary.digest);
        let held = rollout.status.as_ref().and_then(|status| status.held.as_ref());
        // One that is held just now comes last.
        let held = held.filter(|held| Some(&held.digest) == digest);
        let since = held.map_or_else(Timestamp::now, |held| held.since);
        if let Some(turn) = ask(ctx, &places, key, candidate(ctx, key, rollout, (class, human), since)) {
            return Err(turn);
        }
        let until = Instant::now() + FORWARD_LIMIT + SEEN;
        places.insert(key.clone(), Place { class, human, runs: runs(rollout), until });
        Ok(())
    }

    /// Gives a place back: nothing was written, or the rollout is gone.
    pub fn give_back(&self, key: &Key) {
        self.places().remove(key);
    }

    fn places(&self) -> std::sync::MutexGuard<'_, BTreeMap<Key, Place>> {
        // Entries are inserted whole: a panic elsewhere leaves nothing half-done.
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        places.retain(|_, place| place.until > now);
        places
    }
}

/// The class of what is held or tried, and whether it counts as `Human`.
fn risk(status: &ProgressiveRolloutStatus) -> Option<(RiskClass, bool)> {
    let plan = status.plan.as_ref()?;
    Some((plan.risk_class?, plan.believed() == Some(Provenance::Human.as_str())))
}

/// Runs that were ever started on a rollout.
fn runs(rollout: &ProgressiveRollout) -> i64 {
    rollout.status.as_ref().map_or(0, |status| status.run_count)
}

/// The turn of a rollout among all others.
fn ask(ctx: &Context, places: &BTreeMap<Key, Place>, key: &Key, own: Candidate<'_>) -> Option<Turn> {
    let (mut others, mut unreadable) = (Vec::new(), Vec::new());
    for object in ctx.stores.rollouts() {
        let other = Key::of(&object);
        match object.rollout() {
            _ if other == *key => {}
            Ok(rollout) => others.push((other, rollout)),
            Err(_) if object.value["status"]["run"].is_object() => unreadable.push(other),
            Err(_) => {}
        }
    }
    let place = |other: &Key, rollout: &ProgressiveRollout| {
        places.get(other).filter(|place| runs(rollout) <= place.runs)
    };
    let in_flight = others.iter().filter_map(|(other, rollout)| {
        let party = |class, human| Party { namespace: &other.namespace, class, human };
        let status = rollout.status.as_ref();
        match (status.and_then(|status| status.run.as_ref()), place(other, rollout)) {
            (Some(run), _) if run.kind == RunKind::Canary => {
                let human = status.and_then(risk).is_some_and(|(_, human)| human);
                Some(party(run.plan.risk_class, human))
            }
            (None, Some(place)) => Some(party(place.class, place.human)),
            _ => None,
        }
    });
    // A run that this version can't read counts as whatever it may be.
    let unreadable = unreadable.iter().map(|other| Party {
        namespace: &other.namespace,
        class: RiskClass::R4,
        human: false,
    });
    let in_flight = in_flight.chain(unreadable);
    // One whose passes fail keeps nobody from starting.
    let waits =
        |other: &Key, rollout: &ProgressiveRollout| place(other, rollout).is_none() && !ctx.fails(other);
    let waiting = others.iter().filter(|(other, rollout)| waits(other, rollout));
    let waiting = waiting.filter_map(|(other, rollout)| {
        let queued = |status: &&ProgressiveRolloutStatus| status.queue.is_some() && status.run.is_none();
        let status = rollout.status.as_ref().filter(queued)?;
        Some(candidate(ctx, other, rollout, risk(status)?, status.held.as_ref()?.since))
    });
    turn(in_flight, waiting, own)
}

/// A rollout whose held template waits for room.
fn candidate<'a>(
    ctx: &Context,
    key: &'a Key,
    rollout: &'a ProgressiveRollout,
    (class, human): (RiskClass, bool),
    since: Timestamp,
) -> Candidate<'a> {
    let party = Party { namespace: &key.namespace, class, human };
    let caps = ctx.policy(&key.namespace).row(class).start.caps();
    let urgent = rollout.spec.priority == Priority::Urgent;
    Candidate { id: rollout.metadata.uid.as_deref().unwrap_or_default(), party, caps, urgent, since }
}
