//! Room for runs in flight: who takes it, who waits for it, and that two that start at once do not both take the last of it.
//!
//! What is under way, and what waits, is read from the statuses of all rollouts that are watched. Between the answer that
//! there is room and the status that says so, the place is remembered here.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use sluice_core::api::{Priority, ProgressiveRollout, Provenance, RiskClass, RunKind};
use sluice_core::policy::Policy;
use sluice_core::queue::{Candidate, Party, Turn, turn};

use crate::context::Context;
use crate::watch::Key;

/// A write of which nobody knows whether it landed is seen by then, if it did.
const IN_DOUBT: Duration = Duration::from_secs(30);

/// Places of runs whose status is being written.
#[derive(Default)]
pub struct Turns(Mutex<BTreeMap<Key, Place>>);

#[derive(Clone, Copy)]
struct Place {
    class: RiskClass,
    human: bool,
    /// Given up then; none while it is being written.
    until: Option<Instant>,
}

impl Turns {
    /// Why the held template of a rollout, which waited for room, would have to wait still.
    pub fn look(&self, ctx: &Context, key: &Key, rollout: &ProgressiveRollout) -> Option<Turn> {
        let places = self.places();
        let plan = rollout.status.as_ref()?.plan.as_ref()?;
        let provenance = rollout.status.as_ref()?.held.as_ref()?.provenance;
        ask(ctx, &places, key, rollout, (plan.risk_class?, provenance))
    }

    /// Takes a place for a run of this class and provenance, or says why there is none.
    pub fn take(
        &self,
        ctx: &Context,
        key: &Key,
        rollout: &ProgressiveRollout,
        (class, provenance): (RiskClass, Provenance),
    ) -> Result<(), Turn> {
        let mut places = self.places();
        if let Some(turn) = ask(ctx, &places, key, rollout, (class, provenance)) {
            return Err(turn);
        }
        places.insert(key.clone(), Place { class, human: provenance == Provenance::Human, until: None });
        Ok(())
    }

    /// The status of a run that took a place was written, or surely not: the statuses say who is under way.
    pub fn settle(&self, key: &Key) {
        self.places().remove(key);
    }

    /// Nobody knows whether it was written: the place is kept until a watch has told.
    pub fn doubt(&self, key: &Key) {
        if let Some(place) = self.places().get_mut(key) {
            place.until = Some(Instant::now() + IN_DOUBT);
        }
    }

    fn places(&self) -> std::sync::MutexGuard<'_, BTreeMap<Key, Place>> {
        // Entries are inserted whole: a panic elsewhere leaves nothing half-done.
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        places.retain(|_, place| place.until.is_none_or(|until| until > now));
        places
    }
}

/// The turn of a rollout among all others.
fn ask(
    ctx: &Context,
    places: &BTreeMap<Key, Place>,
    key: &Key,
    rollout: &ProgressiveRollout,
    (class, provenance): (RiskClass, Provenance),
) -> Option<Turn> {
    let others: Vec<(Key, std::sync::Arc<ProgressiveRollout>)> = ctx
        .stores
        .rollouts()
        .iter()
        .map(|object| Key::of(object))
        .filter(|other| other != key)
        .filter_map(|other| Some((other.clone(), ctx.newest(&other)?.ok()?)))
        .collect();
    let policies: BTreeMap<&str, std::sync::Arc<Policy>> = others
        .iter()
        .filter(|(_, other)| other.status.as_ref().is_some_and(|status| status.queue.is_some()))
        .map(|(other, _)| (other.namespace.as_str(), ctx.policy(&other.namespace)))
        .collect();
    let in_flight = others.iter().filter_map(|(other, rollout)| {
        let run = rollout.status.as_ref().and_then(|status| status.run.as_ref());
        let party = |class, human| Party { namespace: &other.namespace, class, human };
        match (run, places.get(other)) {
            (Some(run), _) if run.kind == RunKind::Canary => {
                Some(party(run.plan.risk_class, run.plan.provenance == Provenance::Human))
            }
            (None, Some(place)) => Some(party(place.class, place.human)),
            _ => None,
        }
    });
    let waiting =
        others.iter().filter(|(other, _)| !places.contains_key(other)).filter_map(|(other, rollout)| {
            let status =
                rollout.status.as_ref().filter(|status| status.queue.is_some() && status.run.is_none())?;
            let (class, provenance) = (status.plan.as_ref()?.risk_class?, status.held.as_ref()?.provenance);
            Some(candidate(other, rollout, policies.get(other.namespace.as_str())?, (class, provenance)))
        });
    let policy = ctx.policy(&key.namespace);
    turn(in_flight, waiting, candidate(key, rollout, &policy, (class, provenance)))
}

/// A rollout whose held template waits for room.
fn candidate<'a>(
    key: &'a Key,
    rollout: &'a ProgressiveRollout,
    policy: &Policy,
    (class, provenance): (RiskClass, Provenance),
) -> Candidate<'a> {
    let party = Party { namespace: &key.namespace, class, human: provenance == Provenance::Human };
    let caps = policy.row(class).start.caps();
    let urgent = rollout.spec.priority == Priority::Urgent;
    // One that is held just now comes last.
    let held = rollout.status.as_ref().and_then(|status| status.held.as_ref());
    let since = held.map_or_else(Timestamp::now, |held| held.since);
    Candidate { id: rollout.metadata.uid.as_deref().unwrap_or_default(), party, caps, urgent, since }
}
