//! Takes in one sample of one guard: data state, clocks, window, bets.
//!
//! What a window proves is weighed by [`crate::statistics`]; here is which requests belong to it. Units: percent for
//! weights, milliseconds for clocks.

use super::counts::{Arm, PodCounters, Trouble, advance, behind, check_value, newcomers};
use super::kills;
use super::state::{ColdCounts, DataState, GuardState, PairCounts, Quiet, Start, StepKey, is_ahead, millis};
use crate::api::GuardAction;
use crate::statistics::cell::total;
use crate::statistics::guard::Stand;
use crate::statistics::{self, Window};
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeSet;

/// One evaluation of one guard.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The one time at which all counters were read.
    pub at: Timestamp,
    /// For a guard that compares with what is usual for stable: how long a request takes that counts, in seconds.
    pub bound: Option<f64>,
    /// What the provider answered.
    pub outcome: Outcome,
}

/// What the provider answered.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Counters of both arms.
    Counters(Vec<PodCounters>),
    /// Nothing that can be used.
    Trouble(Trouble),
}

/// What a guard is judged by in the present step.
#[derive(Clone, Debug, PartialEq)]
pub struct GuardPlan {
    /// Name of the guard.
    pub name: String,
    /// What it does when it trips.
    pub action: GuardAction,
    /// Rows, shares of the budget and limit that the counts are weighed by.
    pub judged: statistics::Guard,
    /// Whether the source tells pods apart.
    pub by_pod: bool,
    /// Requests of a new pod that are not counted, where pods are told apart.
    pub warmup: f64,
    /// Canary requests needed before weight 100; scaled by `next_weight`.
    pub min_samples: i32,
    /// Weight in force in percent.
    pub weight: i32,
    /// Weight of the next step in percent, 100 at the last.
    pub next_weight: i32,
    /// Index of the step, from 0.
    pub step: i32,
    /// When the weight was live in the data plane; `None` while it is not: no bets.
    pub window_start: Option<Timestamp>,
    /// The watched period after promotion.
    pub watch: bool,
    /// Since when stable has the traffic back from a revision that was judged without it.
    pub returned: Option<Timestamp>,
    /// Scrape interval of the source in seconds.
    pub scrape_seconds: i32,
}

/// Scrape intervals after the last trouble for which the end of a gap waits for pods that are not back.
const GAP_SCRAPES: i64 = 4;

impl GuardPlan {
    pub(super) fn key(&self) -> StepKey {
        StepKey {
            index: self.step,
            weight_percent: self.weight,
            watch: self.watch,
            window_start: self.window_start,
        }
    }

    /// Whether it counts requests, of which promotion needs some, and not restarts.
    pub fn counts_requests(&self) -> bool {
        self.judged.needs_evidence
    }

    /// Whether stable has no concurrent traffic.
    pub fn alone(&self) -> bool {
        self.watch || self.weight >= 100
    }

    /// Requests of a new pod that don't count. A router's counter outlives pods: it is never new.
    fn warmup(&self) -> f64 {
        if self.by_pod { self.warmup } else { 0.0 }
    }

    /// Weight of the next step, as a fraction.
    pub(super) fn next(&self) -> f64 {
        f64::from(self.next_weight.clamp(0, 100)) / 100.0
    }

    /// Where the run stands, in the words of the statistics.
    fn stand(&self, incident: bool) -> Stand {
        let weight = if self.alone() { 1.0 } else { f64::from(self.weight.max(0)) / 100.0 };
        let started = u32::try_from(self.step).unwrap_or(0).saturating_add(1);
        Stand { weight, next: self.next(), started, watch: self.alone(), incident }
    }

    pub(super) fn scrape_millis(&self) -> i64 {
        i64::from(self.scrape_seconds.max(1)).saturating_mul(1000)
    }

    /// How old a sample may be: two scrapes, and one second for a scrape to end and be stored.
    fn fresh_millis(&self) -> i64 {
        self.scrape_millis().saturating_mul(2).saturating_add(1000)
    }

    fn fresh_since(&self, at: Timestamp) -> Timestamp {
        at.checked_sub(SignedDuration::from_millis(self.fresh_millis())).unwrap_or(at)
    }

    /// The longest interval that still counts as one without a gap.
    pub(super) fn gap_millis(&self) -> i64 {
        self.scrape_millis().saturating_mul(5).max(60_000)
    }
}

/// Takes in one sample. A sample that is not newer than the last one changes nothing, so an evaluation may be
/// repeated after a crash. Must be called while the canary has no traffic too: that starts the counters and
/// shows what is normal for stable.
///
/// `incident`: whether stable itself fails, by any guard, as known before this sample.
pub fn observe(state: &mut GuardState, sample: &Sample, plan: &GuardPlan, incident: bool, now: Timestamp) {
    let at = sample.at.min(now);
    // Waiting for the time of a clock that was ahead would leave a canary unwatched.
    if state.last_seen.is_some_and(|seen| at <= seen && !is_ahead(seen, now)) {
        return;
    }
    let seen = state.last_seen.replace(at).filter(|seen| !is_ahead(*seen, now));
    state.returning = state.returning.filter(|since| !is_ahead(*since, now));
    let since_seen = seen.map_or(0, |seen| millis(seen, at).min(plan.gap_millis()));
    let key = plan.key();
    if !state.step.is_some_and(|step| step.same(&key)) {
        state.step = Some(key);
        state.counts = PairCounts::default();
        state.cold = ColdCounts::default();
        state.weighed.begin_step();
        state.healthy_millis = 0;
        state.step_no_data_millis = 0;
    }
    let pods = match &sample.outcome {
        Outcome::Counters(pods) => check(pods, plan, at).map(|()| pods),
        Outcome::Trouble(t) => Err(t.clone()),
    };
    if pods.is_err() {
        state.returning = None;
    }
    let pods = pods.and_then(|pods| same_measure(state, sample.bound).map(|()| pods));
    match pods.and_then(|pods| whole(state, pods, plan, at, seen).map(|()| pods)) {
        Ok(pods) => take_in(state, pods, plan, incident, at),
        Err(trouble) => {
            let kind = if trouble.state == DataState::Ok { DataState::QueryError } else { trouble.state };
            set_data(state, kind, trouble.message, at);
            state.good_windows = 0;
            state.quiet = None;
            state.no_data_millis = state.no_data_millis.saturating_add(since_seen);
            state.step_no_data_millis = state.step_no_data_millis.saturating_add(since_seen);
        }
    }
}

/// The first bound is kept: counts above different ones can't be subtracted.
fn same_measure(state: &mut GuardState, bound: Option<f64>) -> Result<(), Trouble> {
    let Some(bound) = bound else { return Ok(()) };
    let known = *state.bound.get_or_insert(bound);
    if bound == known {
        return Ok(());
    }
    let message = format!("requests over {bound} s were counted, and those over {known} s before");
    Err(Trouble::new(DataState::QueryError, message))
}

fn set_data(state: &mut GuardState, data: DataState, message: String, at: Timestamp) {
    if state.data != data || state.data_since.is_none() {
        state.data = data;
        state.data_since = Some(at);
    }
    state.data_message = message;
}

/// Whether the counters can be used: numbers, one series per pod, every needed arm present and fresh.
fn check(pods: &[PodCounters], plan: &GuardPlan, at: Timestamp) -> Result<(), Trouble> {
    let mut ids = BTreeSet::new();
    for p in pods {
        check_value(p.arm, &p.id, p.total)?;
        check_value(p.arm, &p.id, p.bad.unwrap_or(0.0))?;
        check_value(p.arm, &p.id, p.maybe_bad.unwrap_or(0.0))?;
        if !ids.insert((p.arm, p.id.as_str())) {
            let message =
                format!("{} {:?} has several series where one is expected: sum by pod", p.arm, p.id);
            return Err(Trouble::new(DataState::MultipleSeries, message));
        }
    }
    let oldest = plan.fresh_millis();
    for (arm, needed) in [(Arm::Stable, !plan.alone()), (Arm::Canary, plan.window_start.is_some())] {
        let newest = pods.iter().filter(|p| p.arm == arm).map(|p| p.newest_sample).max();
        match newest {
            _ if !needed => {}
            None => {
                let message = format!(
                    "no request series of {arm}: check metric name, matchers and scrape configuration"
                );
                return Err(Trouble::new(DataState::NoData, message));
            }
            Some(newest) if millis(newest, at) > oldest => {
                let message = format!(
                    "newest sample of {arm} is of {newest:.0}, more than two scrapes of {}s ago: check the scrape targets",
                    plan.scrape_seconds.max(1)
                );
                return Err(Trouble::new(DataState::Stale, message));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// Whether the last counters are from before a gap.
fn in_gap(state: &GuardState, plan: &GuardPlan, at: Timestamp) -> bool {
    let elapsed = state.start.as_ref().map_or(0, |start| millis(start.at, at));
    state.data != DataState::Ok || elapsed > plan.gap_millis()
}

/// Whether a gap ends for all pods at once. A source that returns shows its pods one after the other; until it has a
/// new sample of each the gap goes on, since a window in which one pod brings the whole gap and another does not
/// compares the arms over different times. A pod that stays away is not waited for any longer.
fn whole(
    state: &mut GuardState,
    pods: &[PodCounters],
    plan: &GuardPlan,
    at: Timestamp,
    seen: Option<Timestamp>,
) -> Result<(), Trouble> {
    let trouble = seen.filter(|_| state.data != DataState::Ok).unwrap_or_else(|| plan.fresh_since(at));
    let since = state.returning.unwrap_or(trouble);
    let starts =
        state.start.as_ref().filter(|_| in_gap(state, plan, at)).map_or(&[][..], |start| &start.pods);
    // With another pod the gap is lost anyway.
    let waits =
        !newcomers(starts, pods) && millis(since, at) < plan.scrape_millis().saturating_mul(GAP_SCRAPES);
    match behind(starts, pods, since.max(plan.fresh_since(at))).filter(|_| waits) {
        Some((arm, id)) => {
            state.returning = Some(since);
            let message =
                format!("data is back, but not yet of {arm} {id:?}: the gap ends for all pods at once");
            Err(Trouble::new(DataState::Stale, message))
        }
        None => Ok(()),
    }
}

/// Usable counters: ends the window that the last ones began.
fn take_in(state: &mut GuardState, pods: &[PodCounters], plan: &GuardPlan, incident: bool, at: Timestamp) {
    let gap = in_gap(state, plan, at);
    let fresh_since = plan.fresh_since(at).max(state.returning.take().unwrap_or(Timestamp::MIN));
    set_data(state, DataState::Ok, String::new(), at);
    state.good_windows = state.good_windows.saturating_add(1).min(3);
    if state.good_windows >= 3 {
        state.no_data_millis = 0;
    }
    let key = plan.key();
    let (last, last_step, mut next_pod, mut starts) = match state.start.take() {
        Some(s) => (Some(s.at), Some(s.step), s.next_pod, s.pods),
        None => (None, None, 0, Vec::new()),
    };
    // After a gap with other pods nobody knows what was missed. A pod that returns later still has its start of before
    // the gap, so the time is kept.
    let other = || behind(&starts, pods, fresh_since).is_some() || newcomers(&starts, pods);
    let lost = gap && last.is_some() && other();
    if lost {
        state.anew = Some(at);
    }
    let begun = |since| if is_ahead(since, at) { Timestamp::MIN } else { since };
    let from = plan.window_start.map(begun).map(|live| live.max(state.anew.map_or(live, begun)));
    let deltas = advance(&mut starts, &mut next_pod, pods, last, from, plan.warmup());
    state.start = Some(Start { at, step: key, next_pod, pods: starts });
    let moved = last.is_none() || deltas.canary_moved || deltas.pods_changed;
    state.quiet = quiet(state.quiet.filter(|_| !moved), pods);
    let Some(last) = last.filter(|_| !lost) else { return };

    kills::remember(&mut state.kills, at, deltas.killed);
    let elapsed = millis(last, at).max(0);
    // The whole interval lies after counting began, in one step, at one weight.
    let in_step = last_step.is_some_and(|s| s.same(&key)) && from.is_some_and(|from| last >= from);
    let concurrent = !plan.alone() && last_step.is_some_and(|s| s.weight_percent < 100 && !s.watch);
    let cells = if in_step { deltas.counted } else { deltas.all };
    let window = Window {
        end: seconds(at),
        seconds: elapsed as f64 / 1000.0,
        canary: if in_step { &cells.canary } else { &[] },
        stable: if concurrent { &cells.stable } else { &[] },
        by_pod: plan.by_pod,
        pods: (present(pods, Arm::Canary), present(pods, Arm::Stable)),
    };
    if plan.returned.is_some_and(|since| last >= since) {
        state.returned.add(total(&cells.stable));
    }
    if !in_step {
        // Stable's failures teach what is normal, whether or not the canary's count.
        if concurrent {
            state.weighed.baseline(&window);
        }
        return;
    }
    // While all of its pods are cold nothing of the canary is observed.
    if !gap && !deltas.canary_cold {
        state.healthy_millis = state.healthy_millis.saturating_add(elapsed);
    }
    state.counts.canary.add(total(window.canary));
    state.counts.stable.add(total(window.stable));
    state.cold.add(Arm::Canary, deltas.cold.canary);
    state.cold.add(Arm::Stable, deltas.cold.stable);
    state.weighed.window(&plan.judged, &window, &plan.stand(incident));
}

/// Counted from scrape to scrape of the slowest pod: an evaluation between two scrapes proves nothing.
fn quiet(before: Option<Quiet>, pods: &[PodCounters]) -> Option<Quiet> {
    let until = pods.iter().filter(|p| p.arm == Arm::Canary).map(|p| p.newest_sample).min()?;
    Some(Quiet { since: before.map_or(until, |q| q.since), until })
}

fn seconds(at: Timestamp) -> f64 {
    at.as_millisecond() as f64 / 1000.0
}

fn present(pods: &[PodCounters], arm: Arm) -> usize {
    pods.iter().filter(|pod| pod.arm == arm).count()
}

/// Whether the gates of a run stand still at `now` because of what this guard shows.
pub fn is_incident(state: &GuardState, plan: &GuardPlan, now: Timestamp) -> bool {
    plan.action != GuardAction::Observe && shared_incident(state, plan, now).is_some()
}

/// What stable itself does now that it has the traffic back, in words, if that is what the canary was held against.
pub fn stable_too(state: &GuardState, plan: &GuardPlan) -> Option<String> {
    let stable = state.returned.get();
    let bound =
        state.weighed.beyond_too(&plan.judged, stable).filter(|_| plan.action == GuardAction::Abort)?;
    Some(format!(
        "{}: stable fails {} of {:.0} requests since it has the traffic back, more than the {} that the revision was held against",
        plan.name,
        percent(stable.rate()),
        stable.n,
        percent(bound)
    ))
}

/// An incident that both arms share: not the canary's fault, but nothing moves up while it lasts.
pub(super) fn shared_incident(state: &GuardState, plan: &GuardPlan, now: Timestamp) -> Option<String> {
    let now = seconds(now);
    let (canary, stable) = state.weighed.recent();
    if let Some(limit) = plan.judged.limit
        && stable.x >= 5.0
        && !state.weighed.limit_counts(limit)
        && canary.x >= 1.0
        && canary.rate() >= limit
    {
        return Some(format!(
            "both arms are above the limit of {}: stable {}, canary {} in the last 5 min",
            percent(limit),
            percent(stable.rate()),
            percent(canary.rate())
        ));
    }
    let normal = state.weighed.normal().filter(|_| state.weighed.incident(now));
    normal.map(|bound| {
        format!(
            "stable itself fails {} of its requests in the last 5 min, against at most {} before",
            percent(stable.rate()),
            percent(bound)
        )
    })
}

/// A fraction as a percentage with at most three significant digits, such as `0.21%`.
pub(super) fn percent(fraction: f64) -> String {
    let p = if fraction.is_finite() { fraction * 100.0 } else { 0.0 };
    let digits = if p >= 100.0 {
        0
    } else if p >= 10.0 {
        1
    } else if p >= 0.1 {
        2
    } else {
        4
    };
    let text = format!("{p:.digits$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}%")
}
