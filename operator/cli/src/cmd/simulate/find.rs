//! Past rollouts in a history of pods: a revision that appears while another one serves.
//!
//! The history is coarse: at each point of a grid, the pods of each revision that were seen since the point before. So
//! nothing that happened is too short to be seen, and everything that is found here may be off by one step of the grid.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

/// Seconds between two points of the grid.
pub const STEP: i64 = 300;
/// A revision is gone when it is missing at this many points in a row at which others are seen. Fewer may be a pod that
/// restarts.
const GONE: usize = 3;

/// Pods of each revision at each point of the grid, 0 left out.
pub type History = BTreeMap<String, BTreeMap<i64, usize>>;

/// How a rollout ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Ended {
    /// The older revision is gone.
    Promoted,
    /// The newer revision is gone.
    RolledBack,
    /// A third revision appeared.
    Superseded,
    /// Both are gone.
    Gone,
    /// Both serve.
    UnderWay,
}

/// A rollout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rollout {
    /// Hash of the older revision.
    pub stable: String,
    /// Hash of the newer one.
    pub canary: String,
    /// No canary was seen up to here, in Unix seconds.
    pub from: i64,
    /// The last point at which both were seen; for one that is superseded, the last before that.
    pub to: i64,
    /// When something else began, up to which the time after the end can be looked at.
    pub next: Option<i64>,
    /// How it ended.
    pub ended: Ended,
}

/// A time in which a revision had pods: the first and the last point, as indices of the points with any.
#[derive(Clone, Copy, Debug)]
struct Life<'a> {
    hash: &'a str,
    first: usize,
    last: usize,
}

/// The rollouts of a history, oldest first.
pub fn rollouts(history: &History) -> Vec<Rollout> {
    // Points at which nothing is seen at all tell nothing about revisions: Prometheus was away.
    let times: BTreeSet<i64> = history.values().flat_map(|points| points.keys().copied()).collect();
    let times: Vec<i64> = times.into_iter().collect();
    let lives = lives(history, &times);
    let end = times.len().saturating_sub(1);
    let pods = |life: &Life<'_>, at: usize| -> usize {
        history.get(life.hash).and_then(|points| points.get(times.get(at)?)).copied().unwrap_or(0)
    };
    let mut found = Vec::new();
    for canary in &lives {
        // What was there from the beginning began before it.
        let Some(before) = canary.first.checked_sub(1) else { continue };
        let serves =
            |life: &&Life<'_>| life.hash != canary.hash && life.first < canary.first && life.last >= before;
        // Of several the one with the most pods: the others are on their way out.
        let Some(stable) = lives.iter().filter(serves).max_by_key(|life| pods(life, before)) else {
            continue;
        };
        let later = lives.iter().map(|life| life.first).filter(|first| *first > canary.first).min();
        let over = stable.last.min(canary.last);
        let ended = match later {
            Some(later) if later <= over => Ended::Superseded,
            _ if over == end => Ended::UnderWay,
            _ if stable.last < canary.last => Ended::Promoted,
            _ if stable.last > canary.last => Ended::RolledBack,
            _ => Ended::Gone,
        };
        let last = match (ended, later) {
            (Ended::Superseded, Some(later)) => later - 1,
            _ => over.max(before),
        };
        found.push(Rollout {
            stable: stable.hash.to_owned(),
            canary: canary.hash.to_owned(),
            from: times[canary.first] - STEP,
            to: times[last],
            next: later.map(|later| times[later] - STEP),
            ended,
        });
    }
    found
}

fn lives<'a>(history: &'a History, times: &[i64]) -> Vec<Life<'a>> {
    let mut lives: Vec<Life<'a>> = Vec::new();
    for (hash, points) in history {
        let mut open: Option<Life<'a>> = None;
        for at in points.keys().filter_map(|t| times.binary_search(t).ok()) {
            match &mut open {
                Some(life) if at - life.last <= GONE => life.last = at,
                _ => lives.extend(open.replace(Life { hash, first: at, last: at })),
            }
        }
        lives.extend(open);
    }
    lives.sort_by_key(|life| life.first);
    lives
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pods at the points 0, 1, ..; a space is none.
    fn history(revisions: &[(&str, &str)]) -> History {
        let points = |line: &str| {
            let pods = line
                .chars()
                .enumerate()
                .filter_map(|(at, c)| Some((at, c.to_digit(10)?)))
                .filter(|(_, pods)| *pods > 0);
            pods.map(|(at, pods)| (at as i64 * STEP, pods as usize)).collect()
        };
        revisions.iter().map(|(hash, line)| ((*hash).to_owned(), points(line))).collect()
    }

    fn found(revisions: &[(&str, &str)]) -> Vec<String> {
        let all = rollouts(&history(revisions));
        all.iter()
            .map(|r| format!("{}>{} {}..{} {:?}", r.stable, r.canary, r.from / STEP, r.to / STEP, r.ended))
            .collect()
    }

    #[test]
    fn a_newer_revision_while_an_older_one_serves() {
        assert_eq!(found(&[("a", "4443210   "), ("b", "   1234444")]), ["a>b 2..5 Promoted"]);
        // Over between two points: the new one is first seen after the old one was last seen.
        assert_eq!(found(&[("a", "444     "), ("b", "   44444")]), ["a>b 2..2 Promoted"]);
        assert_eq!(found(&[("a", "44444444"), ("b", "  11    ")]), ["a>b 1..3 RolledBack"]);
        assert_eq!(found(&[("a", "44443333"), ("b", "    1111")]), ["a>b 3..7 UnderWay"]);
        // There from the beginning, alone, or after a pause without anything.
        assert_eq!(found(&[("a", "444"), ("b", "111")]), Vec::<String>::new());
        assert_eq!(found(&[("b", "  111")]), Vec::<String>::new());
    }

    #[test]
    fn a_third_revision_and_one_that_comes_back() {
        assert_eq!(
            found(&[("a", "44433333220000"), ("b", "   1111       "), ("c", "      1122444")]),
            ["a>b 2..5 Superseded", "a>c 5..9 Promoted"]
        );
        assert_eq!(
            found(&[("a", "444333     1144"), ("b", "    1144444433 ")]),
            ["a>b 3..5 Promoted", "b>a 10..13 Promoted"]
        );
    }

    #[test]
    fn a_gap_of_everything_ends_nothing() {
        assert_eq!(found(&[("a", "4443       32"), ("b", "   1       12")]), ["a>b 2..12 UnderWay"]);
        // A pod that is away for two points is not gone.
        assert_eq!(found(&[("a", "444444444444"), ("b", "   1  11    ")]), ["a>b 2..7 RolledBack"]);
    }
}
