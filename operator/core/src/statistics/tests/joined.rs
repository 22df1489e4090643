//! Guards as one: what sums up, what a single group of pods accounts for, and whose part is the largest.

use crate::api::RiskClass;
use crate::statistics::guard::Stand;
use crate::statistics::rows::chain;
use crate::statistics::{Asked, Cell, Guard, GuardState, Joined, Place, Signal, Window, guards, join};

const BELOW: Place = Place { alone: false, watch: false };

fn two_guards(two_pods: bool) -> Vec<Guard> {
    let asked = ["errors", "slow"].map(|name| Asked {
        name: name.into(),
        signal: if name == "slow" { Signal::Latency } else { Signal::Errors },
        stops: true,
        limit: None,
        phi_floor: 1.0,
    });
    guards(&asked, &chain(RiskClass::R2), two_pods)
}

/// Failures of each canary pod in each of 20 windows, of 100 requests; stable has none.
fn played(guard: &Guard, failures: [f64; 4]) -> GuardState {
    let mut state = GuardState::default();
    let stand = Stand { weight: 0.2, next: 0.5, started: 1, watch: false, incident: false };
    let stable: Vec<Cell> = (0..4).map(|pod| Cell { pod, n: 400.0, x: 0.0, x_gate: 0.0 }).collect();
    let canary: Vec<Cell> =
        failures.iter().zip(0..).map(|(x, pod)| Cell { pod, n: 100.0, x: *x, x_gate: *x }).collect();
    for window in 0..20 {
        let window = Window {
            end: f64::from(window) * 15.0,
            seconds: 15.0,
            canary: &canary,
            stable: &stable,
            by_pod: true,
            pods: (4, 4),
        };
        state.window(guard, &window, &stand);
    }
    state
}

#[test]
fn one_pod_alone_stops_it_unless_two_are_needed() {
    for (failures, alone, two) in
        [([20.0, 0.0, 0.0, 0.0], true, false), ([20.0, 0.0, 20.0, 0.0], true, true), ([0.0; 4], false, false)]
    {
        for (two_pods, stops) in [(false, alone), (true, two)] {
            let guards = two_guards(two_pods);
            let states = [played(&guards[0], failures), played(&guards[1], [0.0; 4])];
            let parts: Vec<_> = guards.iter().zip(&states).collect();
            let joined = join(&parts, 3, BELOW);
            assert_eq!(joined.stops(), stops, "{failures:?}, two pods: {two_pods}, {joined:?}");
            assert_eq!(joined.score, joined.parts.iter().sum::<f64>());
            assert_eq!(joined.whole >= 1.0, alone);
        }
    }
}

#[test]
fn the_least_sum_counts_not_the_sum_of_the_least() {
    // Each guard has another pod against it: without either pod the other guard still speaks.
    let guards = two_guards(true);
    let states = [played(&guards[0], [20.0, 0.0, 0.0, 0.0]), played(&guards[1], [0.0, 90.0, 0.0, 0.0])];
    let parts: Vec<_> = guards.iter().zip(&states).collect();
    assert!(join(&parts, 3, BELOW).stops());
    for part in &parts {
        assert!(!join(&[*part], 3, BELOW).stops());
    }
    // Switched off in the run, what all pods show counts at once.
    let off = two_guards(false);
    assert!(join(&[(&off[0], &states[0])], 3, BELOW).stops());
    // At weight 100 the watch has a budget of its own.
    assert_eq!(join(&parts, 3, Place { alone: true, watch: true }).score, 0.0);
}

#[test]
fn a_guard_that_does_not_stop_the_canary_adds_nothing() {
    let joined = Joined::of(&[(false, 5.0), (true, 0.4), (true, 0.5)]);
    assert_eq!((joined.score, joined.gravest), (0.9, Some(2)));
    assert!(!joined.stops() && joined.suspects());
    let none = Joined::of(&[(false, 5.0)]);
    assert_eq!((none.score, none.gravest), (0.0, None));
    // It is held by what more than one group shows, too.
    let mut guards = two_guards(true);
    guards[0].stops = false;
    let states = [played(&guards[0], [20.0, 0.0, 0.0, 0.0]), played(&guards[1], [0.0; 4])];
    let parts: Vec<_> = guards.iter().zip(&states).collect();
    let joined = join(&parts, 3, BELOW);
    assert!(joined.parts[0] < 1.0 && joined.score < 0.1, "{joined:?}");
}

#[test]
fn the_body_of_latency_has_slack_and_shares_a_budget_with_its_tail() {
    let asked = [("errors", Signal::Errors), ("slow", Signal::Latency), ("usual", Signal::Body)];
    let asked = asked.map(|(name, signal)| Asked {
        name: name.into(),
        signal,
        stops: true,
        limit: None,
        phi_floor: 1.0,
    });
    let guards = guards(&asked, &chain(RiskClass::R2), false);
    let shares =
        guards.iter().map(|guard| (guard.shares.comparison, guard.shares.ceiling)).collect::<Vec<_>>();
    assert_eq!(shares, [(0.4, 0.2), (0.1, 0.05), (0.1, 0.05)]);
    assert!(guards[2].rows.iter().all(|row| row.tolerance.absolute == 0.05));
    // Half of stable's requests are slower than the bound; of the canary's a few more, or all.
    let score = |canary: f64| {
        let mut state = GuardState::default();
        let stand = Stand { weight: 0.2, next: 0.5, started: 1, watch: false, incident: false };
        let cell = |pod, n, x| Cell { pod, n, x, x_gate: x };
        for number in 0..260 {
            let stable = [cell(0, 200.0, 100.0), cell(1, 200.0, 100.0)];
            let canary = [cell(2, 100.0, canary)];
            let end = f64::from(number) * 15.0;
            let window =
                Window { end, seconds: 15.0, canary: &canary, stable: &stable, by_pod: true, pods: (1, 2) };
            // How stable's pods differ is known: widened by what can't be seen, the tolerance would be all requests.
            match number {
                0..20 => state.baseline(&window),
                _ => state.window(&guards[2], &window, &stand),
            }
        }
        state.score(&guards[2], 3, None)
    };
    assert!(score(54.0) < 0.1, "{}", score(54.0));
    assert!(score(100.0) >= 1.0, "{}", score(100.0));
}
