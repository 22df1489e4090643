//! Alerts that count against the canary.
//!
//! The alerts are those of Alertmanager's API v2 (`GET /api/v2/alerts`, suppressed ones included, from every
//! peer), or of Prometheus' own (`GET /api/v1/alerts`); one answer serves all rollouts and is matched here. An alert counts when its onset is not before
//! the exposure of this revision, or when its labels name the canary itself. Rules:
//!
//! 1. All matchers of the guard match the alert's labels.
//! 2. Onset: when the rule became active (if known), else `startsAt`; 30 s of skew are allowed for.
//! 3. An alert that fired when the revision was held is pre-existing: it gates the start and never aborts.
//!    Resolved and fired again it has a new `startsAt` and counts.
//! 4. A counted alert holds at once and aborts after `minFiringSeconds`; an abort is never taken back. With action Hold it
//!    only holds, for as long as it fires.
//! 5. A counted alert that resolves leaves a taint: the step's window starts again.
//! 6. Silenced or inhibited during the run: hold, and say by whom. A silence from before the run is respected.
//! 7. `unprocessed` counts as firing. A source that fails three times in a row, or whose proof of life is
//!    missing, holds; the deadline is the class's.

use super::matcher::Matchers;
use super::report::{Hold, HoldReason};
use super::source::{Alert, Poll, Silence, SourceState};
use super::state::{is_ahead, millis};
use crate::api::{AlertMatcher, AlertSource, GuardAction};
use jiff::{SignedDuration, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An alert that was firing at some moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KnownAlert {
    /// Hash over the labels.
    pub fingerprint: String,
    /// When it began to fire.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub starts_at: Timestamp,
}

impl KnownAlert {
    fn is(&self, a: &Alert) -> bool {
        self.fingerprint == a.fingerprint && self.starts_at == a.starts_at
    }
}

/// What an alert guard is judged by.
#[derive(Clone, Debug, PartialEq)]
pub struct AlertPlan {
    /// Name of the guard.
    pub name: String,
    /// What it does when it trips.
    pub action: GuardAction,
    /// Who is asked.
    pub source: AlertSource,
    /// All have to match.
    pub matchers: Vec<AlertMatcher>,
    /// How long an alert has to fire before the guard trips, in seconds.
    pub min_firing_seconds: i32,
    /// Matchers of an alert that always fires if the path works; empty: not asked for.
    pub watchdog: Vec<AlertMatcher>,
    /// Alerts that were firing when the revision was held.
    pub known: Vec<KnownAlert>,
    /// When the first weight above 0 was asked for.
    pub exposure_start: Option<Timestamp>,
    /// `pod-template-hash` of the canary: an alert whose labels carry it counts at any time.
    pub canary_hash: Option<String>,
    /// Service of the canary: likewise.
    pub canary_service: Option<String>,
    /// How often the source is asked, in seconds.
    pub poll_seconds: i32,
}

/// State of an alert guard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum AlertState {
    /// Nothing that matches fires.
    Clear,
    /// A counted alert fires, or did when the guard tripped.
    Firing,
    /// An alert fires that was there before the revision.
    PreExisting,
    /// A counted alert was silenced or inhibited during the run.
    Silenced,
    /// The alerts can't be read.
    #[default]
    SourceMissing,
}

impl AlertState {
    /// The name as it appears in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Clear => "Clear",
            Self::Firing => "Firing",
            Self::PreExisting => "PreExisting",
            Self::Silenced => "Silenced",
            Self::SourceMissing => "SourceMissing",
        }
    }
}

/// What is remembered of an alert guard in one run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AlertGuardState {
    /// Name of the guard.
    pub name: String,
    /// State at the last look.
    #[serde(default)]
    pub state: AlertState,
    /// Since when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// A sentence for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// The guard tripped; never taken back in this run.
    #[serde(default)]
    pub tripped: bool,
    /// The last look, successful or not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<Timestamp>,
    /// The last successful look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_answer: Option<Timestamp>,
    /// Failed looks in a row.
    #[serde(default)]
    pub failed_polls: i32,
    /// When a counted alert was last seen firing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tainted_at: Option<Timestamp>,
    /// Counted alerts that were seen firing, at most 20.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub seen: Vec<KnownAlert>,
}

/// An alert guard's view.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AlertReport {
    /// Name of the guard.
    pub name: String,
    /// What it does when it trips.
    pub action: GuardAction,
    /// State.
    pub state: AlertState,
    /// Since when: of a missing source, since the last answer.
    pub since: Timestamp,
    /// The alert fired for as long as the guard asks; with action Abort the run is aborted.
    pub abort: bool,
    /// When a counted alert last fired: the step's window starts again after it.
    pub tainted_at: Option<Timestamp>,
    /// A sentence for people.
    pub message: String,
}

impl AlertReport {
    /// What this guard holds for.
    pub fn hold(&self) -> Option<Hold> {
        let reason = match self.state {
            AlertState::Clear => return None,
            AlertState::Firing => HoldReason::AlertFiring,
            AlertState::PreExisting => HoldReason::PreExistingAlert,
            AlertState::Silenced => HoldReason::AlertSilenced,
            AlertState::SourceMissing => HoldReason::AlertSourceMissing,
        };
        Some(Hold { guard: self.name.clone(), reason, message: self.message.clone() })
    }
}

const SKEW: SignedDuration = SignedDuration::from_secs(30);
const MISSING_POLLS: i32 = 3;
const MAX_KNOWN: usize = 50;
const MAX_SEEN: usize = 20;

/// Alerts to remember when a revision is held: those that match, newest first, at most 50. Older ones are
/// told apart by their onset.
///
/// # Errors
/// A sentence that names the matcher whose expression is not valid.
pub fn known_alerts(alerts: &[Alert], matchers: &[AlertMatcher]) -> Result<Vec<KnownAlert>, String> {
    let matchers = Matchers::compile(matchers)?;
    let mut known: Vec<KnownAlert> = alerts
        .iter()
        .filter(|a| matchers.matches(&a.labels))
        .map(|a| KnownAlert { fingerprint: a.fingerprint.clone(), starts_at: a.starts_at })
        .collect();
    known.sort_by(|a, b| b.starts_at.cmp(&a.starts_at).then_with(|| a.fingerprint.cmp(&b.fingerprint)));
    known.dedup();
    known.truncate(MAX_KNOWN);
    Ok(known)
}

/// The alert that fires for longest among those that match, in words. One that is silenced or inhibited is left to those
/// who did that: they knew of it before there was a revision to blame.
///
/// # Errors
/// A sentence that names the matcher whose expression is not valid.
pub fn first_firing(alerts: &[Alert], matchers: &[AlertMatcher]) -> Result<Option<String>, String> {
    let matchers = Matchers::compile(matchers)?;
    let firing = alerts
        .iter()
        .filter(|a| a.status.state != SourceState::Suppressed && matchers.matches(&a.labels))
        .min_by_key(|a| (onset(a), a.fingerprint.as_str()));
    Ok(firing.map(describe))
}

/// What to say when [`path_is_alive`] is false.
pub const DEAD_PATH: &str = "the watchdog alert is not firing, so nothing shows that alerts arrive: are the rules evaluated, and does Prometheus reach this Alertmanager?";

/// Whether the alert that always fires is there; true when none is asked for.
///
/// # Errors
/// A sentence that names the matcher whose expression is not valid.
pub fn path_is_alive(alerts: &[Alert], watchdog: &[AlertMatcher]) -> Result<bool, String> {
    let matchers = Matchers::compile(watchdog)?;
    let fires = |a: &Alert| matchers.matches(&a.labels) && a.status.state != SourceState::Suppressed;
    Ok(watchdog.is_empty() || alerts.iter().any(fires))
}

/// Takes in one look at the source. A look that is not newer than the last one changes nothing.
pub fn observe_alerts(state: &mut AlertGuardState, poll: &Poll, plan: &AlertPlan, now: Timestamp) {
    let at = poll.at.min(now);
    if state.last_seen.is_some_and(|seen| at <= seen && !is_ahead(seen, now)) {
        return;
    }
    state.last_seen = Some(at);
    let known = poll.answer.as_deref().unwrap_or_default();
    let compiled =
        Matchers::compile(&plan.matchers).and_then(|m| Ok((m, path_is_alive(known, &plan.watchdog)?)));
    let (alerts, (matchers, alive)) = match (&poll.answer, compiled) {
        (Ok(alerts), Ok(compiled)) => (alerts, compiled),
        (answer, compiled) => {
            state.failed_polls = state.failed_polls.saturating_add(1);
            let unusable = compiled.err();
            let lost = state.last_answer.is_none() || state.failed_polls >= MISSING_POLLS;
            if !state.tripped && (lost || unusable.is_some()) {
                let why = unusable.or_else(|| answer.clone().err()).unwrap_or_default();
                let since = state.last_answer.unwrap_or(at);
                set(state, AlertState::SourceMissing, since, why);
            }
            return;
        }
    };
    state.failed_polls = 0;
    state.last_answer = Some(at);
    let view = look(state, alerts, &matchers, poll, plan, at);
    if state.tripped {
        return;
    }
    match view {
        View { firing: Some((since, message)), trips, .. } => {
            set(state, AlertState::Firing, since, message);
            state.since = Some(since);
            // Only an abort is never taken back: a guard that holds is clear again when its alert is.
            state.tripped = trips && plan.action == GuardAction::Abort;
        }
        _ if !alive => set(state, AlertState::SourceMissing, at, DEAD_PATH.to_owned()),
        View { silenced: Some(message), .. } => set(state, AlertState::Silenced, at, message),
        View { existing: Some(message), .. } => set(state, AlertState::PreExisting, at, message),
        View { .. } => set(state, AlertState::Clear, at, String::new()),
    }
}

fn set(state: &mut AlertGuardState, to: AlertState, at: Timestamp, message: String) {
    if state.state != to || state.since.is_none() {
        state.state = to;
        state.since = Some(at);
    }
    state.message = message;
}

#[derive(Default)]
struct View {
    firing: Option<(Timestamp, String)>,
    trips: bool,
    silenced: Option<String>,
    existing: Option<String>,
}

/// Sorts the matching alerts into firing, silenced and pre-existing; the earliest onset speaks for its kind.
fn look(
    state: &mut AlertGuardState,
    alerts: &[Alert],
    matchers: &Matchers,
    poll: &Poll,
    plan: &AlertPlan,
    at: Timestamp,
) -> View {
    let mut matching: Vec<&Alert> = alerts.iter().filter(|a| matchers.matches(&a.labels)).collect();
    matching.sort_by_key(|a| (onset(a), a.fingerprint.as_str()));
    let mut view = View::default();
    for a in matching {
        let suppressed = a.status.state == SourceState::Suppressed;
        if pre_existing(a, plan) {
            if !suppressed && view.existing.is_none() {
                view.existing = Some(format!("{} was there before the revision", describe(a)));
            }
        } else if suppressed {
            let seen = state.seen.iter().any(|k| k.is(a));
            if let Some(by) = suppressed_by(a, poll, plan, seen) {
                view.silenced.get_or_insert(format!("{} was {by} during the run", describe(a)));
            }
        } else {
            let fired = millis(onset(a), at).max(0);
            view.trips |= fired >= i64::from(plan.min_firing_seconds.max(0)).saturating_mul(1000);
            view.firing.get_or_insert_with(|| (onset(a), describe(a)));
            state.tainted_at = Some(at);
            if !state.seen.iter().any(|k| k.is(a)) && state.seen.len() < MAX_SEEN {
                state.seen.push(KnownAlert { fingerprint: a.fingerprint.clone(), starts_at: a.starts_at });
            }
        }
    }
    view
}

fn onset(a: &Alert) -> Timestamp {
    a.active_at.unwrap_or(a.starts_at)
}

fn pre_existing(a: &Alert, plan: &AlertPlan) -> bool {
    if plan.known.iter().any(|k| k.is(a)) {
        return true;
    }
    if names_canary(a, plan) {
        return false;
    }
    match plan.exposure_start {
        Some(start) => onset(a).saturating_add(SKEW).is_ok_and(|t| t < start),
        None => true,
    }
}

/// Whether a label is the canary's hash or Service, or the name of one of its pods or its ReplicaSet.
fn names_canary(a: &Alert, plan: &AlertPlan) -> bool {
    let hash = plan.canary_hash.as_deref().filter(|h| !h.is_empty());
    let service = plan.canary_service.as_deref().filter(|s| !s.is_empty());
    a.labels.values().any(|v| {
        service == Some(v.as_str()) || hash.is_some_and(|h| v.rsplit('-').take(2).any(|part| part == h))
    })
}

/// Who suppressed a counted alert during the run; `None` if all of it is from before.
fn suppressed_by(a: &Alert, poll: &Poll, plan: &AlertPlan, seen: bool) -> Option<String> {
    let before = |s: &Silence| plan.exposure_start.is_none_or(|start| s.starts_at < start);
    let mut by = Vec::new();
    for id in &a.status.silenced_by {
        match poll.silences.iter().find(|s| s.id == *id) {
            Some(s) if before(s) && !seen => return None,
            Some(s) => by.push(format!("silenced by {:?} (silence {id})", s.created_by)),
            None => by.push(format!("silenced (silence {id})")),
        }
    }
    if by.is_empty() {
        return Some(match a.status.inhibited_by.first() {
            Some(f) => format!("inhibited (by alert {f})"),
            None => "suppressed".into(),
        });
    }
    Some(by.join(", "))
}

/// Name, onset, fingerprint and labels of an alert, at most 400 bytes. No age: status stays as it is while it fires.
fn describe(a: &Alert) -> String {
    let name = a.labels.get("alertname").map_or("alert", String::as_str);
    let labels: Vec<String> =
        a.labels.iter().filter(|(k, _)| *k != "alertname").map(|(k, v)| format!("{k}={v}")).collect();
    let mut text = format!(
        "alert {name} fires since {:.0} (fingerprint {}) {}",
        a.starts_at,
        a.fingerprint,
        labels.join(",")
    );
    let end = (0..=400.min(text.len())).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
    text.truncate(end);
    text.trim_end().to_string()
}

/// An alert guard's view at `now`. Without a recent answer the source is missing, whatever the last one said,
/// unless the guard has tripped.
pub fn report_alerts(state: &AlertGuardState, plan: &AlertPlan, now: Timestamp) -> AlertReport {
    let poll = i64::from(plan.poll_seconds.max(1)).saturating_mul(1000);
    let limit = poll.saturating_mul(i64::from(MISSING_POLLS)).saturating_add(5000);
    let age = state.last_answer.map(|t| millis(t, now));
    let since = state.since.unwrap_or(now);
    let (kind, since, message) = match age {
        _ if state.tripped => (AlertState::Firing, since, state.message.clone()),
        None if state.last_seen.is_none() => {
            (AlertState::SourceMissing, now, "the alerts were not read yet".to_string())
        }
        Some(age) if age > limit && state.state != AlertState::SourceMissing => {
            let since = state.last_answer.unwrap_or(since);
            (AlertState::SourceMissing, since, format!("no answer since {since:.0}"))
        }
        _ => (state.state, since, state.message.clone()),
    };
    AlertReport {
        name: plan.name.clone(),
        action: plan.action,
        state: kind,
        since,
        abort: state.tripped,
        tainted_at: state.tainted_at.filter(|_| plan.action != GuardAction::Observe),
        message: if message.is_empty() { String::new() } else { format!("{}: {message}", plan.name) },
    }
}
