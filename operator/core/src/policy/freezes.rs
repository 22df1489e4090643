//! The freezes of a namespace: which version of each is in force, what holds a change now, and what begins next.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use crate::api::{
    ChangeFreeze, ChangeFreezeSpec, ChangeFreezeStatus, ChangeKind, FreezeMode, FreezeScope, RiskClass,
};
use crate::freeze::{self, Calendar};

use super::validate;

/// Riskiest class that a soft freeze lets start.
const SOFT_LETS_PASS: RiskClass = RiskClass::R1;
/// How far status looks ahead for the next window, in days.
const AHEAD_DAYS: i32 = 400;

/// A freeze as far as it is in force, ready to be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Freeze {
    name: String,
    generation: i64,
    newest: ChangeFreezeSpec,
    before: Option<ChangeFreezeStatus>,
    /// What is wrong with the newest version.
    problem: Option<String>,
    /// The version that counts: the one in force; the newest where none is.
    counts: ChangeFreezeSpec,
    /// Its windows, or why nothing is known of them.
    windows: Result<Calendar, String>,
}

/// What holds a change, or will.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// When it begins, if it does not hold yet.
    pub from: Option<Timestamp>,
    /// Name of the ChangeFreeze.
    pub name: String,
    /// Why, in the words of the platform team.
    pub reason: String,
    /// Which changes it holds.
    pub mode: FreezeMode,
    /// When it ends; never by itself, when its windows are not known.
    pub until: Option<Timestamp>,
    /// The start and the end in the zone of the freeze; or what is wrong with it.
    times: String,
}

impl Hold {
    /// A sentence's worth: which freeze, when, and why.
    pub fn words(&self) -> String {
        let Self { name, reason, mode, times, .. } = self;
        match self.until {
            Some(_) => format!("ChangeFreeze {name} ({}, {times}): {reason}", mode.as_str()),
            None => format!(
                "ChangeFreeze {name} ({reason}) has no version that is in order, so it holds until it is corrected or deleted: {times}"
            ),
        }
    }
}

impl Freeze {
    /// A freeze of the cluster.
    pub fn of(object: &ChangeFreeze) -> Self {
        let newest = &object.spec;
        let problem = freeze::problem(newest);
        let policy = object.status.as_ref().map(|status| &status.policy);
        let counts = validate::in_force(newest, problem.as_deref(), policy);
        let windows = match (counts, &problem) {
            (None, Some(problem)) => Err(problem.clone()),
            (counts, _) => Calendar::new(counts.unwrap_or(newest)),
        };
        Self {
            name: object.metadata.name.clone().unwrap_or_default(),
            generation: object.metadata.generation.unwrap_or_default(),
            newest: newest.clone(),
            before: object.status.clone(),
            counts: counts.unwrap_or(newest).clone(),
            problem,
            windows,
        }
    }

    /// What status says of it: which version is in force, and what its windows are about now.
    pub fn status(&self, now: Timestamp) -> ChangeFreezeStatus {
        let before = self.before.as_ref().map(|status| &status.policy);
        let mut policy =
            validate::status(&self.newest, self.generation, (self.problem.clone(), None), before, now);
        if let (None, Some(problem), Some(condition)) =
            (&policy.accepted, &self.problem, policy.conditions.first_mut())
        {
            let scope = self.newest.scope.as_ref();
            condition.message = if scope.is_none_or(freeze::can_be_read) {
                format!(
                    "{problem}. No version was accepted yet: no change starts in its scope until it is corrected or deleted"
                )
            } else {
                format!(
                    "{problem}. No version was accepted yet, and its scope is not known: it holds nothing"
                )
            };
        }
        let windows = self.windows.as_ref().ok();
        ChangeFreezeStatus {
            policy,
            until: windows.and_then(|windows| windows.until(now)),
            next_start: windows.and_then(|windows| windows.next(now, AHEAD_DAYS)).map(|(start, _)| start),
        }
    }

    /// The status that it has.
    pub fn before(&self) -> Option<&ChangeFreezeStatus> {
        self.before.as_ref()
    }

    fn covers(&self, namespace: &str, labels: &BTreeMap<String, String>) -> bool {
        let Some(FreezeScope { namespaces, namespace_selector }) = &self.counts.scope else {
            return true;
        };
        let selects = namespace_selector.as_ref().is_some_and(|selector| {
            let wanted = &selector.match_labels;
            !wanted.is_empty() && wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
        });
        selects || namespaces.iter().any(|name| name == namespace)
    }

    fn is_about(&self, class: RiskClass, kind: Option<ChangeKind>) -> bool {
        if self.windows.is_err() {
            // Nothing of a version that was never in order is believed, but where it would hold.
            return true;
        }
        (self.counts.mode == FreezeMode::Hard || class > SOFT_LETS_PASS)
            && kind.is_none_or(|kind| !self.counts.exempt_kinds.contains(&kind))
    }

    /// What holds from a time on, or from before now on, until a time.
    fn hold(&self, from: Option<Timestamp>, until: Timestamp) -> Hold {
        let (name, reason) = (self.name.clone(), self.counts.reason.clone());
        match &self.windows {
            Ok(windows) => {
                let begin = from.map_or_else(String::new, |from| format!("from {} ", windows.words(from)));
                let times = format!("{begin}until {}", windows.words(until));
                Hold { from, name, reason, mode: self.counts.mode, until: Some(until), times }
            }
            Err(problem) => {
                Hold { from, name, reason, mode: FreezeMode::Hard, until: None, times: problem.clone() }
            }
        }
    }
}

/// The freezes that are about a namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Freezes(Vec<Arc<Freeze>>);

impl Freezes {
    /// Those of all that are about a namespace with these labels.
    pub fn of(
        all: impl IntoIterator<Item = Arc<Freeze>>,
        namespace: &str,
        labels: &BTreeMap<String, String>,
    ) -> Self {
        let mut found: Vec<Arc<Freeze>> =
            all.into_iter().filter(|freeze| freeze.covers(namespace, labels)).collect();
        found.sort_by(|one, other| one.name.cmp(&other.name));
        Self(found)
    }

    /// What holds a change of this class and kind now: of several freezes the one that ends last.
    pub fn in_force(&self, now: Timestamp, class: RiskClass, kind: Option<ChangeKind>) -> Option<Hold> {
        let about = self.0.iter().filter(|freeze| freeze.is_about(class, kind));
        let until = |freeze: &Arc<Freeze>| match &freeze.windows {
            Ok(windows) => windows.until(now),
            Err(_) => Some(Timestamp::MAX),
        };
        let holding = about.filter_map(|freeze| Some((freeze, until(freeze)?)));
        // Of equal ones the first by name.
        let (freeze, until) = holding.reduce(|last, next| if next.1 > last.1 { next } else { last })?;
        Some(freeze.hold(None, until))
    }

    /// What will hold such a change next, within so many days; what holds it now is left out.
    pub fn ahead(
        &self,
        now: Timestamp,
        days: i32,
        class: RiskClass,
        kind: Option<ChangeKind>,
    ) -> Option<Hold> {
        let about = self.0.iter().filter(|freeze| freeze.is_about(class, kind));
        let next = about.filter_map(|freeze| Some((freeze.windows.as_ref().ok()?.next(now, days)?, freeze)));
        let ((start, end), freeze) = next.min_by_key(|((start, _), _)| *start)?;
        Some(freeze.hold(Some(start), end))
    }
}
