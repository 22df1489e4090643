//! Takes in one sample of one guard: data state, clocks, window, bets.
//!
//! The rule is a fixed mixture of bets on the class's own tolerance: canary against the concurrent stable, a
//! user's absolute limit, and a watch against stable's own record once stable has no traffic any more. The
//! interface (a sample and a plan go in, a state that fits into status comes out) does not depend on it.
//! Units: percent for weights, ppm for limits, fractions for tolerances, milliseconds for clocks.

use super::bet::{Counts, Tolerance, ln_factor, ln_factor_one_sample, upper_bound};
use super::counts::{Arm, PodCounters, Trouble, advance, behind, check_value, newcomers};
use super::state::{
    ArmCounts, Bucket, Carried, DataState, GuardState, PairCounts, Quiet, Start, StepKey, is_ahead, millis,
};
use super::wealth::{ALPHA, CEILING_Q, COMPARISON_Q, WATCH_EXTRA, placed, placed_by_watch};
use crate::api::GuardAction;
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeSet;

/// One evaluation of one guard.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The one time at which all counters were read.
    pub at: Timestamp,
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
    /// Tolerated relative rise over stable, 0.15 is 15 %.
    pub relative: f64,
    /// Tolerated absolute rise as a fraction of requests, 0.0002 is 200 ppm.
    pub absolute: f64,
    /// Absolute limit of the canary's error ratio in ppm, if there is one.
    pub limit_ppm: Option<i32>,
    /// Canary requests needed before weight 100; scaled by `next_weight`.
    pub min_samples: i32,
    /// Weight in force in percent.
    pub weight: i32,
    /// Weight of the next step in percent, 100 at the last.
    pub next_weight: i32,
    /// Index of the step, from 0.
    pub step: i32,
    /// Number of steps.
    pub steps: i32,
    /// When the weight was live in the data plane; `None` while it is not: no bets.
    pub window_start: Option<Timestamp>,
    /// The watched period after promotion.
    pub watch: bool,
    /// Share of the run's false-abort budget, 0..=1; all guards of a run that can abort share 1.
    pub alpha_share: f64,
    /// Scrape interval of the source in seconds.
    pub scrape_seconds: i32,
}

/// Scrape intervals after the last trouble for which the end of a gap waits for pods that are not back.
const GAP_SCRAPES: i64 = 4;
/// Requests that both arms need for a bet; fewer are carried over.
const BET_MIN: f64 = 2.0;
/// Scrape intervals for which requests are carried over.
const CARRY_SCRAPES: i64 = 8;
/// Stable requests that the watch needs for its bound.
const WATCH_MIN: f64 = 100.0;
/// How far back `recent` goes, and its grain, in seconds.
const RECENT_SECONDS: i64 = 300;
const BUCKET_SECONDS: i64 = 30;

impl GuardPlan {
    pub(super) fn key(&self) -> StepKey {
        StepKey {
            index: self.step,
            weight_percent: self.weight,
            watch: self.watch,
            window_start: self.window_start,
        }
    }

    /// Whether stable has no concurrent traffic.
    pub(super) fn alone(&self) -> bool {
        self.watch || self.weight >= 100
    }

    pub(super) fn tolerance(&self) -> Tolerance {
        Tolerance { relative: self.relative, absolute: self.absolute }
    }

    pub(super) fn limit(&self) -> Option<f64> {
        self.limit_ppm.map(|ppm| f64::from(ppm.clamp(0, 1_000_000)) / 1e6)
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

    fn alpha(&self) -> f64 {
        if self.alpha_share.is_nan() { 0.0 } else { ALPHA * self.alpha_share.clamp(0.0, 1.0) }
    }
}

/// Takes in one sample. A sample that is not newer than the last one changes nothing, so an evaluation may be
/// repeated after a crash. Must be called while the canary has no traffic too: that starts the counters and
/// shows what is normal for stable.
pub fn observe(state: &mut GuardState, sample: &Sample, plan: &GuardPlan, now: Timestamp) {
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
        state.carried = None;
        state.healthy_millis = 0;
    }
    let pods = match &sample.outcome {
        Outcome::Counters(pods) => check(pods, plan, at).map(|()| pods),
        Outcome::Trouble(t) => Err(t.clone()),
    };
    if pods.is_err() {
        state.returning = None;
    }
    match pods.and_then(|pods| whole(state, pods, plan, at, seen).map(|()| pods)) {
        Ok(pods) => take_in(state, pods, plan, at),
        Err(trouble) => {
            let kind = if trouble.state == DataState::Ok { DataState::QueryError } else { trouble.state };
            set_data(state, kind, trouble.message, at);
            state.good_windows = 0;
            state.quiet = None;
            state.no_data_millis = state.no_data_millis.saturating_add(since_seen);
        }
    }
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
fn take_in(state: &mut GuardState, pods: &[PodCounters], plan: &GuardPlan, at: Timestamp) {
    let gap = in_gap(state, plan, at);
    let fresh_since = plan.fresh_since(at).max(state.returning.take().unwrap_or(Timestamp::MIN));
    set_data(state, DataState::Ok, String::new(), at);
    state.good_windows = state.good_windows.saturating_add(1).min(3);
    if state.good_windows >= 3 {
        state.no_data_millis = 0;
    }
    let key = plan.key();
    let (last, last_step, mut starts) = match state.start.take() {
        Some(s) => (Some(s.at), Some(s.step), s.pods),
        None => (None, None, Vec::new()),
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
    let deltas = advance(&mut starts, pods, last, from);
    state.start = Some(Start { at, step: key, pods: starts });
    let moved = last.is_none() || deltas.all.canary.n > 0.0 || deltas.pods_changed;
    state.quiet = quiet(state.quiet.filter(|_| !moved), pods);
    let Some(last) = last.filter(|_| !lost) else { return };

    let elapsed = millis(last, at).max(0);
    // The whole interval lies after counting began, in one step, at one weight.
    let window = last_step.is_some_and(|s| s.same(&key)) && from.is_some_and(|from| last >= from);
    let concurrent = !plan.alone() && last_step.is_some_and(|s| s.weight_percent < 100 && !s.watch);
    let of_stable = |counts| if concurrent { counts } else { Counts::default() };
    if window {
        if !gap {
            state.healthy_millis = state.healthy_millis.saturating_add(elapsed);
        }
        let (canary, stable) = (deltas.counted.canary, of_stable(deltas.counted.stable));
        state.counts.canary.add(canary);
        state.counts.stable.add(stable);
        bet(state, canary, stable, plan, at, elapsed);
    }
    let canary = if window { deltas.counted.canary } else { Counts::default() };
    remember(state, canary, of_stable(deltas.all.stable), plan, at);
}

/// Counted from scrape to scrape of the slowest pod: an evaluation between two scrapes proves nothing.
fn quiet(before: Option<Quiet>, pods: &[PodCounters]) -> Option<Quiet> {
    let until = pods.iter().filter(|p| p.arm == Arm::Canary).map(|p| p.newest_sample).min()?;
    Some(Quiet { since: before.map_or(until, |q| q.since), until })
}

fn bet(
    state: &mut GuardState,
    canary: Counts,
    stable: Counts,
    plan: &GuardPlan,
    at: Timestamp,
    elapsed: i64,
) {
    let alpha = plan.alpha();
    let placed = placed(plan.step, plan.steps, state.exposed_millis);
    state.exposed_millis = state.exposed_millis.saturating_add(elapsed);
    // What one process has placed, the other can't place: a changed plan never adds to the budget.
    let room = |own: f64, other: f64| (alpha - other).max(own);
    let share = if plan.limit().is_some() { 0.5 * alpha } else { alpha };
    if !plan.alone() {
        let mut sum = state.carried.take().unwrap_or(Carried { since: at, counts: PairCounts::default() });
        sum.counts.canary.add(canary);
        sum.counts.stable.add(stable);
        let (c, s) = (sum.counts.canary.get(), sum.counts.stable.get());
        if c.n >= BET_MIN && s.n >= BET_MIN {
            let target = (share * placed).min(room(state.comparison.staked, state.limit.staked));
            let tolerance = plan.tolerance();
            state.comparison.play(target, &COMPARISON_Q, f64::INFINITY, |q| ln_factor(c, s, tolerance, q));
        } else if millis(sum.since, at) < plan.scrape_millis().saturating_mul(CARRY_SCRAPES) {
            state.carried = Some(sum);
        }
    }
    if canary.n <= 0.0 {
        return;
    }
    if let Some(limit) = plan.limit() {
        let target = (share * placed).min(room(state.limit.staked, state.comparison.staked));
        let (alone, tolerance) = (plan.alone(), plan.tolerance());
        // The lesser of two bets: a canary that is below the limit or within tolerance of stable, now the one
        // and now the other, has an expectation of at most 1. At most 1 each: that is enough to abort.
        state.limit.play(target, &CEILING_Q, 1.0, |q| {
            let above = ln_factor_one_sample(canary, limit, q);
            if alone { above } else { above.min(ln_factor(canary, stable, tolerance, q)) }
        });
    }
    if let Some(bound) = watch_bound(state, plan) {
        state.watch_millis = state.watch_millis.saturating_add(elapsed);
        let target = WATCH_EXTRA * alpha * placed_by_watch(state.watch_millis);
        state.watch.play(target, &CEILING_Q, f64::INFINITY, |q| ln_factor_one_sample(canary, bound, q));
    }
}

/// What the canary's rate may be once stable is gone: twice the bound of stable's record, plus the slack.
pub(super) fn watch_bound(state: &GuardState, plan: &GuardPlan) -> Option<f64> {
    let stable = state.stable_run.get();
    let known = plan.alone() && stable.n >= WATCH_MIN;
    known.then(|| (2.0 * upper_bound(stable) + plan.absolute.max(0.0)).min(1.0))
}

/// Keeps the last five minutes, and what was normal before them.
fn remember(state: &mut GuardState, canary: Counts, stable: Counts, plan: &GuardPlan, at: Timestamp) {
    let incident = shared_incident(state, plan).is_some();
    let now = at.as_second();
    let t = now - now.rem_euclid(BUCKET_SECONDS);
    let (old, mut recent): (Vec<Bucket>, Vec<Bucket>) =
        state.recent.drain(..).partition(|b| b.t <= now.saturating_sub(RECENT_SECONDS));
    if !incident {
        for b in old {
            state.stable_normal.add(Counts::new(b.n, b.x));
        }
    }
    state.stable_run.add(stable);
    let add = |b: &mut Bucket| {
        let (mut s, mut c) = (ArmCounts { n: b.n, x: b.x }, ArmCounts { n: b.cn, x: b.cx });
        s.add(stable);
        c.add(canary);
        *b = Bucket { t: b.t, n: s.n, x: s.x, cn: c.n, cx: c.x };
    };
    match recent.last_mut() {
        Some(b) if b.t == t => add(b),
        _ if stable.n > 0.0 || canary.n > 0.0 => {
            let mut b = Bucket { t, ..Bucket::default() };
            add(&mut b);
            recent.push(b);
        }
        _ => {}
    }
    state.recent = recent;
}

/// Requests of both arms in the last five minutes.
pub(super) fn recent(state: &GuardState) -> (Counts, Counts) {
    let (mut stable, mut canary) = (Counts::default(), Counts::default());
    for b in &state.recent {
        stable.add(Counts::new(b.n, b.x));
        canary.add(Counts::new(b.cn, b.cx));
    }
    (canary, stable)
}

/// Whether the wealth against the absolute limit counts: not while stable is above the limit too.
pub(super) fn limit_counts(state: &GuardState, limit: f64) -> bool {
    let (_, stable) = recent(state);
    stable.n <= 0.0 || stable.rate() < limit
}

/// An incident that both arms share: not the canary's fault, but nothing moves up while it lasts.
pub(super) fn shared_incident(state: &GuardState, plan: &GuardPlan) -> Option<String> {
    let (canary, stable) = recent(state);
    if stable.x < 5.0 {
        return None;
    }
    if let Some(limit) = plan.limit()
        && stable.rate() >= limit
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
    let normal = state.stable_normal.get();
    let bound = 3.0 * upper_bound(normal) + 0.001;
    (normal.n >= WATCH_MIN && stable.rate() > bound).then(|| {
        format!(
            "stable itself fails {} of its requests in the last 5 min, against {} before",
            percent(stable.rate()),
            percent(normal.rate())
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
