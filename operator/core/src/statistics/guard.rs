//! One signal of a run: its wealth, its gate, and what is normal for stable.
//!
//! In each window the capital that is due is placed and bet with what was known before the window; only then does the
//! window itself teach what stable's failures look like.

use super::bet::{Burst, Counts, Tolerance, ln_factor, ln_factor_one_sample, upper_bound};
use super::bursts::{Bursts, UNSEEN_CV, pod_spread, widen};
use super::cell::{Window, total, total_gate};
use super::gate::Gate;
use super::joined::SUSPICION;
use super::process::{MAX_WEALTH, Process};
use super::rows::Row;
use super::stake::{placed, placed_by_watch};
use serde::{Deserialize, Serialize};

/// Requests that both arms need for a bet; fewer are carried over.
const BET_MIN: f64 = 2.0;
/// Windows for which requests are carried over at most.
const CARRY_WINDOWS: u32 = 8;
/// The ceiling counts while the row's comparison says this many to one that the canary is worse.
pub(super) const KEY_ODDS: f64 = 10.0;
/// How long a look back tells whether stable itself fails, in seconds.
const RECENT_SECONDS: f64 = 300.0;
/// Stable failures in that time without which there is no incident.
const INCIDENT_FAILURES: f64 = 5.0;
/// Slack on three times the bound of what is normal.
const INCIDENT_SLACK: f64 = 0.001;
/// Groups of canary pods that are left out in turn.
pub const GROUPS: usize = 4;
/// Windows of stable before the start without which nothing is known of how its pods differ.
const SPREAD_WINDOWS: u32 = 20;
/// Canary pods from which on one alone can't stop the canary, if that is asked for.
const GROUPS_FROM: usize = 3;

/// Shares of a row's capital.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Shares {
    /// For the comparison with the concurrent stable.
    pub comparison: f64,
    /// For the ceiling that stable's record gives.
    pub ceiling: f64,
    /// For the user's own limit.
    pub limit: f64,
    /// Of the second budget, for the watch at weight 100; 0: it is not watched there.
    pub watch: f64,
}

/// What a guard is judged by.
#[derive(Clone, Debug, PartialEq)]
pub struct Guard {
    /// Name, unique in the run.
    pub name: String,
    /// Rows of the class and of all looser ones, loosest first.
    pub rows: Vec<Row>,
    /// Its share of each row's capital.
    pub shares: Shares,
    /// The canary's rate may not exceed this fraction, whatever stable's is.
    pub limit: Option<f64>,
    /// Whether it counts towards a stop.
    pub stops: bool,
    /// Whether promotion needs its evidence.
    pub needs_evidence: bool,
    /// The least burst factor, for sources whose counts are estimates.
    pub phi_floor: f64,
    /// Whether one pod alone can't stop the canary.
    pub two_pods: bool,
}

/// What was known at the first window of the canary, and is kept.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Frozen {
    /// 99 % upper bound of stable's rate before the start; none without a baseline.
    pub bound: Option<f64>,
    /// Factor on the tolerated ratio, for pods that differ.
    pub widen: f64,
}

/// What is known before the first window of a canary.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outlook {
    /// Stable's requests and failures.
    pub stable: Counts,
    /// The burst factor.
    pub phi: f64,
    /// What would be kept.
    pub frozen: Frozen,
}

/// Counts that wait until both arms have enough for a bet.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Carried {
    pub windows: u32,
    /// The burst factor known before the first of them.
    pub phi: f64,
    pub canary: (f64, f64),
    pub stable: (f64, f64),
    /// The canary without each group of its pods.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub without: Vec<(f64, f64)>,
}

/// One row's wealth.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RowState {
    /// Share of the capital that has been placed.
    placed: f64,
    /// Canary against the concurrent stable.
    pub(super) comparison: Process,
    /// Canary against the ceiling of stable's record.
    #[serde(default, skip_serializing_if = "Process::is_empty")]
    pub(super) ceiling: Process,
    /// Canary against the user's limit.
    #[serde(default, skip_serializing_if = "Process::is_empty")]
    limit: Process,
    /// Both again without each group of the canary's pods.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    without: Vec<(Process, Process)>,
    /// For promotion.
    gate: Gate,
    /// Share of the watch's capital that has been placed.
    watch_placed: f64,
    /// Canary at weight 100 against stable's record.
    #[serde(default, skip_serializing_if = "Process::is_empty")]
    watch: Process,
}

/// One of the last windows: its end, and requests and failures of the canary and of stable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Recent(f64, (f64, f64), (f64, f64));

/// What one guard remembers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GuardState {
    /// How stable's failures cluster.
    bursts: Bursts,
    /// Stable's pods before the start: `(pod, requests, failures)`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    baseline: Vec<(u32, f64, f64)>,
    /// Windows of that time.
    baseline_windows: u32,
    /// Stable's requests and failures, before the start and below weight 100.
    stable: (f64, f64),
    frozen: Option<Frozen>,
    carried: Option<Carried>,
    /// Evaluated seconds below weight 100.
    pub(super) exposed_seconds: f64,
    /// Evaluated seconds at weight 100.
    watch_seconds: f64,
    pub(super) rows: Vec<RowState>,
    /// Canary requests since the step began, outside incidents.
    gate_requests: f64,
    /// Twice the bound of stable's record, from the first window at weight 100 on.
    watch_bound: Option<f64>,
    /// The last five minutes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    recent: Vec<Recent>,
    /// Canary pods in the last window.
    #[serde(default)]
    canary_pods: usize,
    /// End of the last window.
    end: f64,
}

/// Where the run stands in a window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stand {
    /// Weight of the canary as a fraction.
    pub weight: f64,
    /// Weight of the next step as a fraction.
    pub next: f64,
    /// Steps that have begun, at least 1.
    pub started: u32,
    /// Whether the last step is reached: nothing of stable is left to compare with, or what is held back.
    pub watch: bool,
    /// Whether stable itself failed before this window, by any guard.
    pub incident: bool,
}

impl GuardState {
    /// Takes in a window in which the canary has no traffic. Before its first one this is the baseline; later it only
    /// teaches what stable's failures look like.
    pub fn baseline(&mut self, window: &Window<'_>) {
        let before = self.frozen.is_none();
        self.baseline_windows += u32::from(before);
        for cell in window.stable.iter().filter(|_| before) {
            match self.baseline.binary_search_by_key(&cell.pod, |(pod, ..)| *pod) {
                Ok(at) => {
                    self.baseline[at] = (cell.pod, self.baseline[at].1 + cell.n, self.baseline[at].2 + cell.x)
                }
                Err(at) => self.baseline.insert(at, (cell.pod, cell.n, cell.x)),
            }
        }
        self.learn(window);
    }

    /// Begins a step: its gate is shut.
    pub fn begin_step(&mut self) {
        self.gate_requests = 0.0;
        self.rows.iter_mut().for_each(|row| row.gate = Gate::default());
    }

    /// Takes in a window in which the canary had traffic.
    pub fn window(&mut self, guard: &Guard, window: &Window<'_>, stand: &Stand) {
        self.rows.resize(guard.rows.len(), RowState::default());
        self.canary_pods = if window.by_pod { window.pods.0 } else { 0 };
        let phi = self.phi(guard);
        let baseline = std::mem::take(&mut self.baseline);
        let known = self.baseline_windows >= SPREAD_WINDOWS;
        let frozen = *self.frozen.get_or_insert_with(|| freeze(&baseline, known, window, phi));
        let burst = Burst::new(phi);
        if stand.weight < 1.0 {
            self.exposed_seconds += window.seconds.max(0.0);
            self.carry(guard, window, phi);
            if let Some(sum) = self.ready() {
                self.bet(guard, &sum, frozen, stand);
            }
            if !stand.incident {
                let (canary, stable) = (total_gate(window.canary), total_gate(window.stable));
                self.gate_requests += canary.n;
                for (row, state) in guard.rows.iter().zip(&mut self.rows) {
                    state.gate.play(canary, stable, row, stand.next, burst);
                }
            }
        }
        if stand.watch && guard.shares.watch > 0.0 {
            self.watch(guard, window, burst);
        }
        if let Some(limit) = guard.limit
            && stand.weight >= 1.0
        {
            let canary = total(window.canary);
            let exposed = self.exposed_seconds;
            for (row, state) in guard.rows.iter().zip(&mut self.rows) {
                let due = state.due(placed(row, stand.started, exposed)) * row.capital * guard.shares.limit;
                state.limit.play(due, MAX_WEALTH, |q| ln_factor_one_sample(canary, limit, q, burst));
            }
        }
        if stand.weight < 1.0 {
            self.learn(window);
        } else {
            self.remember(window);
        }
    }

    fn carry(&mut self, guard: &Guard, window: &Window<'_>, phi: f64) {
        let canary = total(window.canary);
        let stable = total(window.stable);
        let groups = if guard.two_pods && window.by_pod { GROUPS } else { 0 };
        let sum = self.carried.get_or_insert_with(|| Carried { phi, ..Carried::default() });
        sum.windows += 1;
        sum.canary = (sum.canary.0 + canary.n, sum.canary.1 + canary.x);
        sum.stable = (sum.stable.0 + stable.n, sum.stable.1 + stable.x);
        sum.without.resize(groups, (0.0, 0.0));
        for (group, (n, x)) in sum.without.iter_mut().enumerate() {
            for cell in window.canary.iter().filter(|c| c.pod as usize % GROUPS != group) {
                (*n, *x) = (*n + cell.n, *x + cell.x);
            }
        }
    }

    /// The carried counts, once they are enough for a bet or have waited for too long.
    fn ready(&mut self) -> Option<Carried> {
        let sum = self.carried.take_if(|sum| {
            sum.windows >= CARRY_WINDOWS || (sum.canary.0 >= BET_MIN && sum.stable.0 >= BET_MIN)
        })?;
        (sum.canary.0 > 0.0 && sum.stable.0 > 0.0).then_some(sum)
    }

    pub(super) fn bet(&mut self, guard: &Guard, sum: &Carried, frozen: Frozen, stand: &Stand) {
        self.rows.resize(guard.rows.len(), RowState::default());
        let burst = Burst::new(sum.phi);
        let counts = |(n, x): (f64, f64)| Counts::new(n, x);
        let (canary, stable) = (counts(sum.canary), counts(sum.stable));
        let stable_within =
            guard.limit.is_some_and(|limit| stable.rate() < limit && self.limit_counts(limit));
        for (row, state) in guard.rows.iter().zip(&mut self.rows) {
            let due = state.due(placed(row, stand.started, self.exposed_seconds)) * row.capital;
            let tolerance = widened(row, frozen.widen);
            let ceiling = frozen.bound.map(|bound| ceiling(row, frozen.widen, bound));
            // A group of pods that joins later was part of nothing before: its wealth was that of all.
            let both = (state.comparison, state.ceiling);
            state.without.resize(sum.without.len(), both);
            let canaries = std::iter::once(canary).chain(sum.without.iter().map(|c| counts(*c)));
            let processes = std::iter::once((&mut state.comparison, &mut state.ceiling))
                .chain(state.without.iter_mut().map(|(w, v)| (w, v)));
            for (canary, (comparison, against)) in canaries.zip(processes) {
                comparison.play(guard.shares.comparison * due, MAX_WEALTH, |q| {
                    ln_factor(canary, stable, tolerance, q, burst)
                });
                if let Some(ceiling) = ceiling {
                    // At most 1: that stops a canary that is worse than stable; more would only outlive an incident.
                    against.play(guard.shares.ceiling * due, 1.0, |q| {
                        ln_factor_one_sample(canary, ceiling, q, burst)
                    });
                }
            }
            if let Some(limit) = guard.limit {
                // While stable is beyond the limit too, nothing is held against the canary: a smaller factor is always
                // a fair one.
                state.limit.play(guard.shares.limit * due, 1.0, |q| {
                    let above = ln_factor_one_sample(canary, limit, q, burst);
                    if stable_within { above } else { above.min(0.0) }
                });
            }
        }
    }

    fn watch(&mut self, guard: &Guard, window: &Window<'_>, burst: Burst) {
        let (n, x) = self.stable;
        if n <= 0.0 {
            return;
        }
        let bound =
            *self.watch_bound.get_or_insert_with(|| 2.0 * upper_bound(Counts::new(n, x), burst.phi()));
        self.watch_seconds += window.seconds.max(0.0);
        let canary = total(window.canary);
        for (row, state) in guard.rows.iter().zip(&mut self.rows) {
            let target = placed_by_watch(row, self.watch_seconds);
            let due = (target - state.watch_placed).max(0.0);
            state.watch_placed = state.watch_placed.max(target);
            let most = (bound + row.tolerance.absolute).min(1.0);
            state.watch.play(guard.shares.watch * row.capital * due, MAX_WEALTH, |q| {
                ln_factor_one_sample(canary, most, q, burst)
            });
        }
    }

    /// What a window says about stable, while it has traffic.
    fn learn(&mut self, window: &Window<'_>) {
        self.bursts.add(window);
        let all = total(window.stable);
        self.stable = (self.stable.0 + all.n, self.stable.1 + all.x);
        self.remember(window);
    }

    fn remember(&mut self, window: &Window<'_>) {
        let (canary, stable) = (total(window.canary), total(window.stable));
        self.end = window.end;
        // A window from the future is that of another clock.
        let kept = window.end - RECENT_SECONDS..window.end;
        self.recent.retain(|Recent(end, ..)| *end > kept.start && *end < kept.end);
        self.recent.push(Recent(window.end, (canary.n, canary.x), (stable.n, stable.x)));
    }

    /// The burst factor, from windows before the next one.
    pub fn phi(&self, guard: &Guard) -> f64 {
        self.bursts.phi().max(guard.phi_floor)
    }

    /// What is kept since the first window of the canary.
    pub fn frozen(&self) -> Option<Frozen> {
        self.frozen
    }

    /// What the first window of a canary would begin with, if it came now: `pods` are the canary's and stable's.
    pub fn outlook(&self, guard: &Guard, by_pod: bool, pods: (usize, usize)) -> Outlook {
        let phi = self.phi(guard);
        let window = Window { by_pod, pods, ..Window::default() };
        let known = self.baseline_windows >= SPREAD_WINDOWS;
        Outlook { stable: record(&self.baseline), phi, frozen: freeze(&self.baseline, known, &window, phi) }
    }

    /// Requests and failures of the last five minutes: the canary's, and stable's.
    pub fn recent(&self) -> (Counts, Counts) {
        let counts = |(n, x): (f64, f64)| Counts::new(n, x);
        let windows = self.recent.iter().filter(|Recent(end, ..)| *end > self.end - RECENT_SECONDS);
        windows.fold(Default::default(), |sum: (Counts, Counts), Recent(_, canary, stable)| {
            (sum.0.plus(counts(*canary)), sum.1.plus(counts(*stable)))
        })
    }

    /// What was normal for stable before the start: a bound of its rate, from what is known of that time so far.
    pub fn normal(&self) -> Option<f64> {
        match self.frozen {
            Some(frozen) => frozen.bound,
            None => Some(record(&self.baseline))
                .filter(|all| all.n > 0.0)
                .map(|all| upper_bound(all, self.bursts.phi())),
        }
    }

    /// Whether stable itself fails more than it did before the start, as known at `now`, in the seconds of the windows.
    pub fn incident(&self, now: f64) -> bool {
        let (_, recent) = self.recent();
        let fresh = now - self.end < RECENT_SECONDS;
        fresh
            && self.normal().is_some_and(|bound| {
                recent.x >= INCIDENT_FAILURES && recent.rate() > 3.0 * bound + INCIDENT_SLACK
            })
    }

    /// Score of the first `rows` rows: a sum of 1 over all guards stops the canary. `group`: without this group of
    /// the canary's pods.
    pub fn score(&self, guard: &Guard, rows: usize, group: Option<usize>) -> f64 {
        let limited = guard.limit.is_some_and(|limit| self.limit_counts(limit));
        let rows = guard.rows.iter().zip(&self.rows).take(rows);
        rows.map(|(row, state)| {
            let (comparison, ceiling) = state.replica(group);
            let keyed = comparison.sum() >= KEY_ODDS * guard.shares.comparison * row.capital;
            let limit = if limited { state.limit.sum() } else { 0.0 };
            comparison.sum() + if keyed { ceiling.sum() } else { 0.0 } + limit
        })
        .sum()
    }

    /// What stands against the canary by the user's limit.
    pub fn limit_score(&self) -> f64 {
        self.rows.iter().map(|row| row.limit.sum()).sum()
    }

    /// Whether what stands against the canary by the user's limit counts: not while stable is beyond it too.
    pub fn limit_counts(&self, limit: f64) -> bool {
        let (_, stable) = self.recent();
        stable.n <= 0.0 || stable.rate() < limit
    }

    /// Score of the watch at weight 100. While stable is held back, `keyed` asks its comparison to agree.
    pub fn watch_score(&self, guard: &Guard, rows: usize, keyed: bool) -> f64 {
        let rows = guard.rows.iter().zip(&self.rows).take(rows);
        let watched = rows.filter(|(row, state)| {
            !keyed || state.comparison.sum() >= KEY_ODDS * guard.shares.comparison * row.capital
        });
        // The user's limit goes on at weight 100, where no stable can contradict it.
        watched.map(|(_, state)| state.watch.sum() + if keyed { 0.0 } else { state.limit.sum() }).sum()
    }

    /// Whether stable, that has all traffic again, is itself beyond what the canary was held against at weight 100: the
    /// bound that was. None while it is not, or the canary was not held against any.
    pub fn beyond_too(&self, guard: &Guard, stable: Counts) -> Option<f64> {
        let absolute = guard.rows.last()?.tolerance.absolute;
        let by_record: f64 = self.rows.iter().map(|row| row.watch.sum()).sum();
        let by_limit = self.limit_score();
        let record = self.watch_bound.map(|bound| (bound + absolute).min(1.0));
        let bound = if by_limit > by_record { guard.limit } else { record }?;
        let against = by_record + by_limit >= SUSPICION;
        (against && stable.x >= INCIDENT_FAILURES && stable.rate() > bound).then_some(bound)
    }

    /// Whether the first `rows` rows have positive evidence for `next`.
    pub fn gate_is_open(&self, guard: &Guard, rows: usize, next: f64) -> bool {
        self.rows.len() >= rows
            && guard
                .rows
                .iter()
                .zip(&self.rows)
                .take(rows)
                .all(|(row, state)| state.gate.is_open(row, next, self.gate_requests))
    }

    /// Whether enough canary pods are there that none may decide alone.
    pub fn has_groups(&self) -> bool {
        self.canary_pods >= GROUPS_FROM && self.rows.iter().all(|row| row.without.len() == GROUPS)
    }

    /// Each row's wealth for people: comparison and ceiling in multiples of their capital, and whether the ceiling
    /// counts.
    pub fn odds(&self, guard: &Guard) -> Vec<Odds> {
        let rows = guard.rows.iter().zip(&self.rows);
        rows.map(|(row, state)| {
            let over = |sum: f64, share: f64| if share > 0.0 { sum / (share * row.capital) } else { 0.0 };
            let comparison = over(state.comparison.sum(), guard.shares.comparison);
            Odds {
                class: row.class,
                comparison,
                ceiling: over(state.ceiling.sum(), guard.shares.ceiling),
                keyed: comparison >= KEY_ODDS,
                gate: state.gate.ln_mean(),
            }
        })
        .collect()
    }

    /// What the canary's rate is watched against at weight 100, but for the row's slack.
    pub fn watch_bound(&self) -> Option<f64> {
        self.watch_bound
    }

    /// Canary requests that count for the gate.
    pub fn gate_requests(&self) -> f64 {
        self.gate_requests
    }
}

/// One row's wealth, for people.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Odds {
    /// The row.
    pub class: crate::api::RiskClass,
    /// Odds against the canary in comparison with stable.
    pub comparison: f64,
    /// Odds against the canary by stable's record.
    pub ceiling: f64,
    /// Whether those by the record count.
    pub keyed: bool,
    /// Log of the odds for the canary, at the present step.
    pub gate: f64,
}

impl RowState {
    /// The share of the capital that comes to be placed now.
    fn due(&mut self, target: f64) -> f64 {
        let due = (target - self.placed).max(0.0);
        self.placed = self.placed.max(target);
        due
    }

    fn replica(&self, group: Option<usize>) -> (&Process, &Process) {
        let without = group.and_then(|group| self.without.get(group));
        without.map_or((&self.comparison, &self.ceiling), |(comparison, ceiling)| (comparison, ceiling))
    }
}

/// Requests and failures of stable before the start.
fn record(baseline: &[(u32, f64, f64)]) -> Counts {
    baseline.iter().fold(Counts::default(), |sum, (_, n, x)| sum.plus(Counts::new(*n, *x)))
}

/// What the canary's first window keeps of the time before it.
fn freeze(baseline: &[(u32, f64, f64)], known: bool, window: &Window<'_>, phi: f64) -> Frozen {
    let all = record(baseline);
    let spread = match known && window.by_pod {
        true => pod_spread(baseline.iter().map(|(_, n, x)| (*n, *x)), phi),
        false => UNSEEN_CV,
    };
    // What counts for all pods says nothing of how many there are.
    let (canary, stable) = if window.by_pod { window.pods } else { (1, 1) };
    Frozen { bound: (all.n > 0.0).then(|| upper_bound(all, phi)), widen: widen(spread, canary, stable) }
}

/// `(1+r) -> (1+r) widen`
fn widened(row: &Row, widen: f64) -> Tolerance {
    Tolerance { relative: (1.0 + row.tolerance.relative) * widen - 1.0, ..row.tolerance }
}

fn ceiling(row: &Row, widen: f64, bound: f64) -> f64 {
    ((1.0 + row.tolerance.relative) * widen * bound + row.tolerance.absolute).min(1.0)
}
