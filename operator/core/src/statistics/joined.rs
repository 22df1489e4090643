//! All guards as one: what their scores sum to, and whose part of it is the largest.
//!
//! Where no pod may decide alone, each score is there once for all canary pods and once without each group of them, and the
//! sum that is least counts: what no single group accounts for. A minimum of scores is never above any of them, so the
//! bound on false aborts holds for it too.

use super::guard::{GROUPS, Guard, GuardState};

/// From this score on the canary is stopped.
pub const STOP: f64 = 1.0;
/// From this score on its weight does not rise.
pub const SUSPICION: f64 = 0.1;

/// Where a run stands, as far as it matters for its scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Whether stable has no traffic to compare with: the watch has a budget of its own, and what the comparison said
    /// before is settled.
    pub alone: bool,
    /// Whether the last step is reached.
    pub watch: bool,
}

/// What the guards say together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Joined {
    /// Each guard's score, in their order.
    pub parts: Vec<f64>,
    /// Sum of those that can stop the canary: from 1 on they do.
    pub score: f64,
    /// The same with all canary pods: what one pod alone accounts for is in this one only.
    pub whole: f64,
    /// Which guard that can stop the canary weighs most.
    pub gravest: Option<usize>,
}

impl Joined {
    /// Sums up scores, each with whether it can stop the canary.
    pub fn of(parts: &[(bool, f64)]) -> Self {
        let stopping = || parts.iter().enumerate().filter(|(_, (stops, _))| *stops);
        let score = stopping().map(|(_, (_, score))| score).sum();
        Self {
            parts: parts.iter().map(|(_, score)| *score).collect(),
            score,
            whole: score,
            gravest: stopping().max_by(|(_, one), (_, other)| one.1.total_cmp(&other.1)).map(|(at, _)| at),
        }
    }

    /// Whether the canary has to be stopped.
    pub fn stops(&self) -> bool {
        self.score >= STOP
    }

    /// Whether the weight may not rise.
    pub fn suspects(&self) -> bool {
        self.score >= SUSPICION
    }
}

/// Joins guards by the first `rows` rows of each.
pub fn join(guards: &[(&Guard, &GuardState)], rows: usize, place: Place) -> Joined {
    let with = |without: Option<usize>| {
        let part =
            |(guard, state): &(&Guard, &GuardState)| (guard.stops, part(guard, state, rows, place, without));
        Joined::of(&guards.iter().map(part).collect::<Vec<_>>())
    };
    let all = with(None);
    let grouped =
        |(guard, state): &&(&Guard, &GuardState)| !place.alone && guard.two_pods && state.has_groups();
    if !guards.iter().any(|guard| grouped(&guard)) {
        return all;
    }
    let groups: Vec<Joined> = (0..GROUPS).map(|group| with(Some(group))).collect();
    let least = groups.iter().chain([&all]).min_by(|one, other| one.score.total_cmp(&other.score));
    let mut joined = least.cloned().unwrap_or_default();
    joined.whole = all.score;
    // A guard that does not stop the canary counts by itself.
    for (at, _) in guards.iter().enumerate().filter(|(_, (guard, _))| !guard.stops) {
        let parts = groups.iter().chain([&all]).filter_map(|joined| joined.parts.get(at));
        if let (Some(part), Some(least)) = (joined.parts.get_mut(at), parts.copied().min_by(f64::total_cmp)) {
            *part = least;
        }
    }
    joined
}

fn part(guard: &Guard, state: &GuardState, rows: usize, place: Place, without: Option<usize>) -> f64 {
    let watched = if place.watch { state.watch_score(guard, rows, !place.alone) } else { 0.0 };
    if place.alone { watched } else { state.score(guard, rows, without) + watched }
}
