//! What the evidence says now: per guard, and for the run as a whole.
//!
//! Scores are fractions of 1: the run is aborted when the scores of its aborting guards sum to 1 or more.
//! A gate is open only on positive evidence; whatever closes it is named.

use super::alerts::{AlertReport, AlertState};
use super::engine::{GuardPlan, percent, shared_incident};
use super::kills;
use super::state::{ColdCounts, DataState, GuardState, PairCounts, millis};
use crate::api::GuardAction;
use crate::statistics::bursts::OVERDISPERSED;
use crate::statistics::guard::Odds;
use crate::statistics::{Counts, Joined, Row, STOP, SUSPICION};
use jiff::Timestamp;
use serde::Serialize;

/// From this factor on the tolerated ratio, people are told of it.
const WIDENED: f64 = 1.5;

/// Why a guard keeps the weight where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum HoldReason {
    /// A guard that only holds has tripped.
    GuardTripped,
    /// No usable data of a guard.
    NoData,
    /// Stable fails as well.
    SharedIncident,
    /// The score is 0.1 or more.
    Suspicion,
    /// Fewer canary requests than the next weight needs.
    NotEnoughEvidence,
    /// No guard counts requests.
    NoGuard,
    /// A matching alert fires.
    AlertFiring,
    /// A matching alert fired before the revision was exposed.
    PreExistingAlert,
    /// A matching alert was silenced or inhibited during the run.
    AlertSilenced,
    /// The alerts can't be read.
    AlertSourceMissing,
    /// A value is out of its range.
    GaugeOutOfRange,
}

impl HoldReason {
    /// The name as it appears in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::GuardTripped => "GuardTripped",
            Self::NoData => "NoData",
            Self::SharedIncident => "SharedIncident",
            Self::Suspicion => "Suspicion",
            Self::NotEnoughEvidence => "NotEnoughEvidence",
            Self::NoGuard => "NoGuard",
            Self::AlertFiring => "AlertFiring",
            Self::PreExistingAlert => "PreExistingAlert",
            Self::AlertSilenced => "AlertSilenced",
            Self::AlertSourceMissing => "AlertSourceMissing",
            Self::GaugeOutOfRange => "GaugeOutOfRange",
        }
    }
}

/// Why the weight stays, and because of which guard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Hold {
    /// Name of the guard.
    pub guard: String,
    /// For programs.
    pub reason: HoldReason,
    /// A sentence for people.
    pub message: String,
}

/// Why the run is aborted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// Name of the guard.
    pub guard: String,
    /// Whether an alert, not counted requests, is the reason.
    pub alert: bool,
    /// A sentence for people, with the numbers.
    pub message: String,
}

/// One guard's view. Counts are of the present step's window.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GuardReport {
    /// Name of the guard.
    pub name: String,
    /// What it does when it trips.
    pub action: GuardAction,
    /// What is known about its data.
    pub state: DataState,
    /// Since when.
    pub state_since: Timestamp,
    /// Score, 0 or more; 1 aborts.
    pub score: f64,
    /// Whether a plain rule is broken, whatever the score is.
    pub breaks_rule: bool,
    /// Whether this guard lets the weight rise. The bake is judged elsewhere.
    pub gate_open: bool,
    /// What closes the gate.
    pub hold: Option<Hold>,
    /// Canary requests.
    pub n_canary: i64,
    /// Failed canary requests.
    pub x_canary: i64,
    /// Stable requests.
    pub n_stable: i64,
    /// Failed stable requests.
    pub x_stable: i64,
    /// Requests that met the canary, and all of them; cold pods' too, though those count for nothing else. None of a guard
    /// that counts no requests.
    pub met: Option<(f64, f64)>,
    /// Evaluated time with usable data since the step's window began, in seconds.
    pub healthy_seconds: f64,
    /// The scrape since which no request has reached the canary, once a later scrape has shown it.
    pub quiet_since: Option<Timestamp>,
    /// Time without usable data, in seconds; three good windows in a row reset it.
    pub no_data_seconds: i64,
    /// Seconds without usable data since the step began.
    pub unseen_seconds: i64,
    /// Canary requests that the next weight needs.
    pub min_samples_needed: i64,
    /// Log of the odds for the canary over what the next weight needs, of the row that is furthest from it: 0 to 1; none
    /// at weight 100, where there is no gate.
    pub gate_progress: Option<f64>,
    /// How stable's failures cluster: variance over mean, 1 for independent ones.
    pub burst_factor: f64,
    /// Share of the counted requests that met the canary, in permille.
    pub observed_share_permille: Option<i32>,
    /// A sentence for people, with the numbers.
    pub message: String,
}

/// What all guards of a run say together.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Evidence {
    /// Guards that count requests.
    pub guards: Vec<GuardReport>,
    /// Guards that watch alerts.
    pub alerts: Vec<AlertReport>,
    /// Sum of the scores of the guards that can abort.
    pub score: f64,
    /// Set when the run has to be aborted.
    pub abort: Option<Reason>,
    /// What keeps the weight where it is, the gravest first.
    pub holds: Vec<Hold>,
    /// No hold at all, and at least one guard with positive evidence.
    pub gate_open: bool,
    /// The shortest healthy time of the required guards, in seconds.
    pub healthy_seconds: f64,
    /// The longest time without data of the required guards, in seconds.
    pub no_data_seconds: i64,
    /// Seconds without usable data since the step began: the most of all guards that decide.
    pub unseen_seconds: i64,
    /// Share of requests that met the canary, from the guard with the most requests, in permille.
    pub observed_share_permille: Option<i32>,
    /// When a counted alert last fired: the step's window starts again after it.
    pub tainted_at: Option<Timestamp>,
}

/// One guard's view at `now`. Without a recent observation it is `Stale`, whatever the last one said.
/// `score`: what stands against the canary by this guard, as it counts with the others.
pub fn report(state: &GuardState, plan: &GuardPlan, score: f64, now: Timestamp) -> GuardReport {
    let this_step = state.step.is_some_and(|s| s.same(&plan.key()));
    let counts = if this_step { state.counts } else { PairCounts::default() };
    let (canary, stable) = (counts.canary.get(), counts.stable.get());
    let cold = if this_step { state.cold } else { ColdCounts::default() };
    let met = (canary.n + cold.canary, stable.n + cold.stable);
    let needed = needed(plan);
    let (data, since, trouble) = data(state, plan, now);
    let against = match plan.counts_requests() {
        true => {
            let over =
                state.bound.map(|bound| format!(" over {} ms", milliseconds(bound))).unwrap_or_default();
            let ratio = format!("{} {}/{}{over}", plan.name, int(canary.x), int(canary.n));
            against(state, plan, &ratio, (stable.x, stable.n), score)
        }
        false => events(plan, canary, stable),
    };

    let hold = |reason, message| Some(Hold { guard: plan.name.clone(), reason, message });
    let rule = kills::against(&state.kills);
    let hold = if let Some(broken) = &rule {
        hold(HoldReason::GuardTripped, format!("{}: {broken}", plan.name))
    } else if score >= STOP {
        hold(HoldReason::GuardTripped, format!("{against}, score {} >= 1", short(score)))
    } else if data != DataState::Ok {
        hold(HoldReason::NoData, format!("{}: {trouble}", plan.name))
    } else if let Some(message) = shared_incident(state, plan, now) {
        hold(HoldReason::SharedIncident, format!("{}: {message}", plan.name))
    } else if score >= SUSPICION {
        hold(HoldReason::Suspicion, format!("{against}, score {} of 1, passes below 0.1", short(score)))
    } else {
        lacks(state, plan, canary.n, this_step, &against)
            .and_then(|lacks| hold(HoldReason::NotEnoughEvidence, lacks))
    };
    let phi = state.weighed.phi(&plan.judged);
    let bursts = match phi > OVERDISPERSED {
        true => format!(
            "; stable's failures come in bursts of {phi:.0} times the variance of single ones, which hides a fault for longer"
        ),
        false => String::new(),
    };
    let message = match &hold {
        Some(h) if h.reason != HoldReason::NotEnoughEvidence => h.message.clone(),
        None if !plan.counts_requests() => format!("{against}, score {} of 1", short(score)),
        _ => format!(
            "{against}, score {} of 1, {} of {needed} canary requests{bursts}",
            short(score),
            int(canary.n)
        ),
    };
    let bad_now = state.data != DataState::Ok;
    let unseen = state.last_seen.map_or(0, |seen| millis(seen, now).clamp(0, plan.gap_millis()));
    let no_data = if bad_now || data != DataState::Ok {
        state.no_data_millis.saturating_add(unseen)
    } else {
        state.no_data_millis
    };
    GuardReport {
        name: plan.name.clone(),
        action: plan.action,
        state: data,
        state_since: since,
        score,
        breaks_rule: rule.is_some(),
        gate_open: hold.is_none(),
        hold,
        n_canary: int(canary.n),
        x_canary: int(canary.x),
        n_stable: int(stable.n),
        x_stable: int(stable.x),
        healthy_seconds: if this_step { state.healthy_millis as f64 / 1000.0 } else { 0.0 },
        quiet_since: state.quiet.filter(|q| q.until > q.since).map(|q| q.since),
        no_data_seconds: no_data / 1000,
        unseen_seconds: if this_step { state.step_no_data_millis / 1000 } else { 0 },
        min_samples_needed: needed,
        gate_progress: (!plan.alone() && plan.counts_requests()).then(|| progress(state, plan, this_step)),
        burst_factor: phi,
        met: plan.counts_requests().then_some((met.0, met.0 + met.1)),
        observed_share_permille: share(met.0, met.1).filter(|_| plan.counts_requests()),
        message,
    }
}

/// What is missing for the next weight, in words.
fn lacks(state: &GuardState, plan: &GuardPlan, n: f64, this_step: bool, against: &str) -> Option<String> {
    if !plan.counts_requests() {
        return None;
    }
    let needed = needed(plan);
    // At 100 % nothing is left to compare with: the requests themselves are watched.
    let counted = match (this_step, plan.alone()) {
        (false, _) => 0.0,
        (true, true) => n,
        (true, false) => state.weighed.gate_requests(),
    };
    if counted < needed as f64 {
        return Some(format!("{}: {} of {needed} canary requests", plan.name, int(counted)));
    }
    let rows = plan.judged.rows.len();
    if plan.alone() || state.weighed.gate_is_open(&plan.judged, rows, plan.next()) {
        return None;
    }
    let odds = state.weighed.odds(&plan.judged);
    let short_of = |(odds, row): (&Odds, &Row)| (odds.gate + row.beta.ln(), odds.gate, *row);
    let rows = odds.iter().zip(&plan.judged.rows).map(short_of);
    let (_, gate, row) = rows.min_by(|one, other| one.0.total_cmp(&other.0))?;
    let widen = state.weighed.frozen().map_or(1.0, |frozen| frozen.widen);
    let widened = match widen >= WIDENED {
        true => format!(
            "; stable's pods differ, or were seen too briefly to tell, so only a rate of {:.1} times stable's counts as worse",
            (1.0 + row.tolerance.relative) * widen
        ),
        false => String::new(),
    };
    Some(format!(
        "{against}: odds of {} that the canary is good enough for {}% of the traffic, {} to 1 are needed (row {}){widened}",
        odds_of(gate),
        plan.next_weight,
        (1.0 / row.beta).round(),
        row.class.as_str()
    ))
}

/// How far the row is that is furthest from opening.
fn progress(state: &GuardState, plan: &GuardPlan, this_step: bool) -> f64 {
    let odds = state.weighed.odds(&plan.judged);
    let rows = odds.iter().zip(&plan.judged.rows).filter(|_| this_step);
    let least = rows.map(|(odds, row)| odds.gate / -row.beta.ln()).min_by(f64::total_cmp);
    least.unwrap_or(0.0).clamp(0.0, 1.0)
}

/// The log of odds in words.
fn odds_of(ln: f64) -> String {
    match ln.exp() {
        odds if odds >= 10.0 => format!("{odds:.0} to 1"),
        odds if odds >= 1.0 => format!("{odds:.1} to 1"),
        odds if odds > 0.001 => format!("1 to {:.1}", 1.0 / odds),
        _ => "less than 1 to 1000".to_owned(),
    }
}

/// The canary against whatever weighs most: the concurrent stable, the limit, or stable's record.
fn against(
    state: &GuardState,
    plan: &GuardPlan,
    ratio: &str,
    (x_stable, n_stable): (f64, f64),
    score: f64,
) -> String {
    let record = state.weighed.watch_bound().filter(|_| plan.alone());
    let limit = plan.judged.limit.filter(|limit| state.weighed.limit_counts(*limit));
    let by_limit = state.weighed.limit_score();
    match (record, limit) {
        (_, Some(limit)) if by_limit >= SUSPICION && by_limit > score / 2.0 => {
            format!("{ratio} against the limit of {}", percent(limit))
        }
        (Some(bound), _) => {
            format!("{ratio} against {}, twice the bound of stable's record", percent(bound))
        }
        (None, Some(limit)) if plan.alone() => format!("{ratio} against the limit of {}", percent(limit)),
        (None, None) if plan.alone() => format!("{ratio} without a record of stable to compare with"),
        _ => format!("{ratio} against {}/{}", int(x_stable), int(n_stable)),
    }
}

/// Restarts of the canary's containers against stable's, per time that their pods were there.
fn events(plan: &GuardPlan, canary: Counts, stable: Counts) -> String {
    let time = |seconds: f64| match seconds {
        s if s < 600.0 => format!("{} pod-seconds", int(s)),
        s => format!("{} pod-minutes", int(s / 60.0)),
    };
    let in_time = |counts: Counts| format!("{} in {}", int(counts.x), time(counts.n));
    match plan.alone() {
        true => format!("{} {}, not judged at weight 100", plan.name, in_time(canary)),
        false => format!("{} {} against {}", plan.name, in_time(canary), in_time(stable)),
    }
}

/// Data state at `now`, since when, and the trouble in words. Words name a time, not an age: they go to status, which
/// stays as it is while nothing changes.
fn data(state: &GuardState, plan: &GuardPlan, now: Timestamp) -> (DataState, Timestamp, String) {
    let Some(seen) = state.last_seen else {
        return (DataState::NoData, now, "no sample was taken yet".into());
    };
    let since = state.data_since.unwrap_or(seen);
    if state.data != DataState::Ok {
        return (state.data, since, format!("{} (since {since:.0})", state.data_message));
    }
    // Three scrapes, and five seconds for a pass of the controller.
    let age = millis(seen, now);
    if age > plan.scrape_millis().saturating_mul(3).saturating_add(5000) {
        return (DataState::Stale, seen, format!("not evaluated since {seen:.0}"));
    }
    (DataState::Ok, since, String::new())
}

/// Canary requests that the next weight needs, at least 1 of a guard that counts any.
fn needed(plan: &GuardPlan) -> i64 {
    if !plan.counts_requests() {
        return 0;
    }
    let percent = i64::from(plan.next_weight.clamp(0, 100));
    let samples = i64::from(plan.min_samples.max(0));
    ((samples * percent + 99) / 100).max(1)
}

fn share(canary: f64, stable: f64) -> Option<i32> {
    let all = canary + stable;
    (all > 0.0).then(|| (1000.0 * canary / all).round() as i32)
}

fn int(v: f64) -> i64 {
    v.round() as i64
}

/// Seconds in milliseconds, as people write them: 35, not 35.00000000000001.
pub fn milliseconds(seconds: f64) -> f64 {
    (seconds * 1e6).round() / 1e3
}

/// A score in words: two digits, never rounded up to a limit that it has not reached.
fn short(score: f64) -> String {
    let floor = (score * 100.0).floor() / 100.0;
    match score {
        s if s > 0.0 && floor == 0.0 => "<0.01".into(),
        s if s > 1000.0 => "over 1000".into(),
        _ => format!("{floor:.2}"),
    }
}

/// What all guards say together, with their scores as one. Guards that only observe are reported and decide nothing.
pub fn combine(guards: Vec<GuardReport>, alerts: Vec<AlertReport>, joined: &Joined) -> Evidence {
    let score = joined.score;
    let mut holds = Vec::new();
    let mut abort = None;
    let worst = joined.gravest.and_then(|at| guards.get(at));
    if let Some(worst) = worst.filter(|_| joined.stops()) {
        let message = if worst.score >= STOP {
            worst.message.clone()
        } else {
            format!("{}; scores of all guards sum to {} >= 1", worst.message, short(score))
        };
        abort = Some(Reason { guard: worst.name.clone(), alert: false, message });
    }
    let broken = |g: &&GuardReport| g.breaks_rule && g.action == GuardAction::Abort;
    if let (None, Some(g)) = (&abort, guards.iter().find(broken)) {
        abort = Some(Reason { guard: g.name.clone(), alert: false, message: g.message.clone() });
    }
    let firing =
        |a: &&AlertReport| a.state == AlertState::Firing && a.abort && a.action == GuardAction::Abort;
    if let (None, Some(a)) = (&abort, alerts.iter().find(firing)) {
        abort = Some(Reason { guard: a.name.clone(), alert: true, message: a.message.clone() });
    }
    let required = || guards.iter().filter(|g| g.action != GuardAction::Observe);
    let counts_requests = required().any(|g| g.met.is_some());
    holds.extend(required().filter_map(|g| g.hold.clone()));
    holds.extend(alerts.iter().filter(|a| a.action != GuardAction::Observe).filter_map(AlertReport::hold));
    if holds.is_empty() && joined.suspects() {
        let message = format!("scores of all guards sum to {}, passes below 0.1", short(score));
        let guard = worst.map(|g| g.name.clone()).unwrap_or_default();
        holds.push(Hold { guard, reason: HoldReason::Suspicion, message });
    }
    if !counts_requests {
        let message = "no guard counts requests, so nothing can show that the canary is good: add a guard with \
                       errorRatio";
        holds.push(Hold { guard: String::new(), reason: HoldReason::NoGuard, message: message.into() });
    }
    holds.sort_by_key(|h| severity(h.reason));
    Evidence {
        score,
        abort,
        gate_open: holds.is_empty(),
        holds,
        healthy_seconds: required().map(|g| g.healthy_seconds).min_by(f64::total_cmp).unwrap_or(0.0),
        no_data_seconds: required().map(|g| g.no_data_seconds).max().unwrap_or(0),
        unseen_seconds: required().map(|g| g.unseen_seconds).max().unwrap_or(0),
        observed_share_permille: guards
            .iter()
            .filter(|g| g.met.is_some())
            .max_by_key(|g| g.n_canary.saturating_add(g.n_stable))
            .and_then(|g| g.observed_share_permille),
        tainted_at: alerts.iter().filter_map(|a| a.tainted_at).max(),
        guards,
        alerts,
    }
}

/// Gravest first; a lack of requests, which passes by itself, last.
pub(super) fn severity(reason: HoldReason) -> u8 {
    match reason {
        HoldReason::GuardTripped => 0,
        HoldReason::AlertFiring => 1,
        HoldReason::NoData => 2,
        HoldReason::AlertSourceMissing => 3,
        HoldReason::SharedIncident => 4,
        HoldReason::GaugeOutOfRange => 5,
        HoldReason::AlertSilenced => 6,
        HoldReason::PreExistingAlert => 7,
        HoldReason::Suspicion => 8,
        HoldReason::NoGuard => 9,
        HoldReason::NotEnoughEvidence => 10,
    }
}

/// Requests of the last five minutes, `(canary, stable)`, as `(requests, failed)`.
pub fn last_five_minutes(state: &GuardState) -> ((i64, i64), (i64, i64)) {
    let (canary, stable) = state.weighed.recent();
    ((int(canary.n), int(canary.x)), (int(stable.n), int(stable.x)))
}
