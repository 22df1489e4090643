//! What is known of each rollout: its evidence, and the verdict that passes read.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sluice_core::api::{AlertSource, Run};
use sluice_core::evidence::{EvidenceState, Poll};
use sluice_core::judge::{Polls, Quiet};
use sluice_core::verdict::Verdict;

use super::ask::Known;
use crate::watch::Key;

/// Verdicts by rollout.
#[derive(Default)]
pub struct EvidenceStore {
    entries: Mutex<BTreeMap<Key, Entry>>,
}

/// What is known of one rollout.
#[derive(Clone, Default)]
pub(super) struct Entry {
    /// UID of the rollout: one that is created again may have a run of the same name.
    pub uid: String,
    pub run_id: String,
    pub state: EvidenceState,
    pub quiet: Option<Quiet>,
    /// The last answer of each source of alerts.
    pub polls: AlertPolls,
    pub verdict: Verdict,
}

/// Looks at sources of alerts.
#[derive(Clone, Default)]
pub(super) struct AlertPolls {
    alertmanager: Option<Arc<Poll>>,
    prometheus: Option<Arc<Poll>>,
}

impl AlertPolls {
    pub fn of(polls: Vec<(AlertSource, Arc<Poll>)>) -> Self {
        let mut all = Self::default();
        for (source, poll) in polls {
            *all.place(source) = Some(poll);
        }
        all
    }

    fn place(&mut self, source: AlertSource) -> &mut Option<Arc<Poll>> {
        match source {
            AlertSource::Alertmanager => &mut self.alertmanager,
            AlertSource::Prometheus => &mut self.prometheus,
        }
    }

    /// Takes over those of the newer looks that were answered.
    pub fn update(&mut self, newer: &Self) {
        let answered = |poll: &&Arc<Poll>| poll.answer.is_ok();
        for (known, new) in
            [(&mut self.alertmanager, &newer.alertmanager), (&mut self.prometheus, &newer.prometheus)]
        {
            if let Some(new) = new.as_ref().filter(answered) {
                *known = Some(new.clone());
            }
        }
    }

    pub fn all(&self) -> Polls<'_> {
        Polls { alertmanager: self.alertmanager.as_deref(), prometheus: self.prometheus.as_deref() }
    }
}

impl Entry {
    /// What is known of a run before its next judgement: by this process, or what status remembers.
    pub fn of(known: Option<Self>, uid: &str, run: &Run) -> Self {
        known.filter(|entry| entry.is_about(uid, run)).unwrap_or_else(|| Self {
            uid: uid.to_owned(),
            run_id: run.id.clone(),
            state: run.evidence.as_deref().cloned().unwrap_or_default(),
            ..Self::default()
        })
    }

    fn is_about(&self, uid: &str, run: &Run) -> bool {
        self.uid == uid && self.run_id == run.id
    }
}

impl EvidenceStore {
    /// The newest verdict on a rollout; an empty one when there is none.
    pub fn verdict(&self, key: &Key) -> Verdict {
        self.lock().get(key).map(|entry| entry.verdict.clone()).unwrap_or_default()
    }

    /// What is known of a guard of this run, by this process or one before it.
    pub(super) fn known(&self, key: &Key, uid: &str, run: &Run, guard: &str) -> Known {
        let entries = self.lock();
        let known = entries.get(key).filter(|entry| entry.is_about(uid, run)).map(|entry| &entry.state);
        let guard = known.or(run.evidence.as_deref()).and_then(|state| state.guard(guard));
        Known {
            from_scratch: guard.is_none_or(|state| state.start.is_none()),
            bound: guard.and_then(|state| state.bound),
        }
    }

    /// Whether the run must go back.
    pub fn wants_back(&self, key: &Key) -> bool {
        self.lock().get(key).is_some_and(|entry| entry.verdict.abort.is_some())
    }

    /// Forgets a rollout.
    pub fn forget(&self, key: &Key) {
        self.lock().remove(key);
    }

    /// Keeps what is about these rollouts, by their UIDs.
    pub(super) fn retain(&self, known: &BTreeMap<Key, String>) {
        self.lock().retain(|key, entry| known.get(key) == Some(&entry.uid));
    }

    /// Replaces what is known of a rollout, unless there is nothing to say; whether it did. One at a time: of two
    /// answers neither is judged without the other, and none after its rollout was forgotten.
    pub(super) fn update(&self, key: &Key, next: impl FnOnce(Option<Entry>) -> Option<Entry>) -> bool {
        let mut entries = self.lock();
        let Some(next) = next(entries.get(key).cloned()) else {
            return false;
        };
        entries.insert(key.clone(), next);
        true
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, Entry>> {
        // Entries are inserted whole: a panic elsewhere leaves nothing half-done.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
