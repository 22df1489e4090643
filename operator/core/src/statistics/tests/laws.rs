//! Laws that hold for every sequence of windows. 10,000 sequences each.

use proptest::collection::vec;
use proptest::prelude::*;

use crate::api::RiskClass;
use crate::statistics::bet::{Burst, Counts, LN_CAP_ABORT, ln_factor};
use crate::statistics::cell::{Cell, Window};
use crate::statistics::engine::{Asked, Engine, EngineState, Signal, guards};
use crate::statistics::gate::Gate;
use crate::statistics::rows::{built_in, chain};

fn config() -> ProptestConfig {
    ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() }
}

fn engine(class: RiskClass, two_pods: bool) -> Engine {
    let asked = Asked { name: "e".into(), signal: Signal::Errors, stops: true, limit: None, phi_floor: 1.0 };
    Engine::new(guards(&[asked], &chain(class), two_pods), EngineState::default())
}

/// What happens next.
#[derive(Clone, Debug)]
enum Event {
    /// A step to this percentage begins.
    Step(u8),
    /// Requests and failures: canary pods, stable pods.
    Window(Vec<(u16, u8)>, Vec<(u16, u8)>),
    /// No usable data.
    Gap,
}

fn pods(n: u16) -> impl Strategy<Value = Vec<(u16, u8)>> {
    vec((0..n, prop_oneof![4 => Just(0_u8), 3 => 0..3_u8, 1 => 0..40_u8]), 0..4)
}

fn events(most: usize) -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        1 => (1..100_u8).prop_map(Event::Step),
        8 => (pods(200), pods(2000)).prop_map(|(canary, stable)| Event::Window(canary, stable)),
        1 => Just(Event::Gap),
    ];
    vec(event, 0..most)
}

fn cells(pods: &[(u16, u8)]) -> Vec<Cell> {
    let cell = |((n, x), pod): (&(u16, u8), u32)| {
        let (n, x) = (f64::from(*n), f64::from((*x).min(u8::try_from(*n).unwrap_or(u8::MAX))));
        Cell { pod, n, x, x_gate: x }
    };
    pods.iter().zip(0..).map(cell).collect()
}

/// Plays events after a baseline of `normal` windows; `each` sees the engine after each.
fn play(engine: &mut Engine, events: &[Event], mut each: impl FnMut(&mut Engine, &Event)) {
    let mut end = 0.0;
    let mut window = |engine: &mut Engine, canary: &[Cell], stable: &[Cell]| {
        end += 15.0;
        let pods = (canary.len(), stable.len());
        engine.window(&[Some(Window { end, seconds: 15.0, canary, stable, by_pod: true, pods })]);
    };
    let normal = cells(&[(900, 1), (1100, 0), (1000, 2)]);
    for _ in 0..25 {
        window(engine, &[], &normal);
    }
    engine.begin_step(0.02, 0.1, false);
    for event in events {
        match event {
            Event::Step(weight) => engine.begin_step(f64::from(*weight) / 100.0, 1.0, false),
            Event::Window(canary, stable) => window(engine, &cells(canary), &cells(stable)),
            Event::Gap => engine.window(&[None]),
        }
        each(engine, event);
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_tighter_class_never_stops_later_and_never_promotes_earlier(events in events(14), k in 1..=4_usize) {
        let (mut scores, mut gates) = (Vec::new(), Vec::new());
        let mut looser = engine(RiskClass::ALL[k - 1], false);
        play(&mut looser, &events, |engine, _| {
            scores.push(engine.score(k));
            gates.push(engine.gates_are_open(k));
        });
        let (mut scores, mut gates) = (scores.into_iter(), gates.into_iter());
        let mut tightest = engine(RiskClass::R4, false);
        let mut failed = None;
        play(&mut tightest, &events, |engine, event| {
            let same = scores.next() == Some(engine.score(k)) && gates.next() == Some(engine.gates_are_open(k));
            let all = |f: &dyn Fn(usize) -> bool| (1..5).all(f);
            let rising = all(&|rows| engine.score(rows) <= engine.score(rows + 1));
            let falling = all(&|rows| engine.gates_are_open(rows) || !engine.gates_are_open(rows + 1));
            if !(same && rising && falling) {
                failed.get_or_insert(format!("{event:?}: same {same}, rising {rising}, falling {falling}"));
            }
        });
        prop_assert_eq!(failed, None);
    }

    #[test]
    fn more_failures_of_the_canary_never_lower_its_score(
        events in events(14), at in any::<prop::sample::Index>(), more in 1..50_u8, two_pods: bool,
    ) {
        let mut worse = events.clone();
        let windows: Vec<usize> = (0..worse.len()).filter(|i| matches!(worse[*i], Event::Window(..))).collect();
        if !windows.is_empty() {
            let Event::Window(canary, _) = &mut worse[windows[at.index(windows.len())]] else { unreachable!() };
            canary.iter_mut().for_each(|(_, x)| *x = x.saturating_add(more));
        }
        let scores = |events: &[Event]| {
            let mut scores = Vec::new();
            play(&mut engine(RiskClass::R3, two_pods), events, |engine, _| scores.push(engine.score(4)));
            scores
        };
        let (before, after) = (scores(&events), scores(&worse));
        prop_assert!(before.iter().zip(&after).all(|(less, more)| less <= more), "{before:?} {after:?}");
    }

    #[test]
    fn more_failures_of_stable_never_shut_a_gate(
        windows in vec((1..500_u16, 0..5_u16, 1..5000_u16, 0..9_u16, 0..9_u16), 1..20),
        next in 0.01..1.0_f64, phi in 1.0..20.0_f64, class in 0..5_usize,
    ) {
        let row = built_in(RiskClass::ALL[class]);
        let (mut less, mut more) = (Gate::default(), Gate::default());
        for (n_c, x_c, n_s, x_s, added) in windows {
            let counts = |n: u16, x: u16| Counts::new(f64::from(n), f64::from(x));
            let burst = Burst::new(phi);
            less.play(counts(n_c, x_c), counts(n_s, x_s), &row, next, burst);
            more.play(counts(n_c, x_c), counts(n_s, x_s + added), &row, next, burst);
            prop_assert!(less.ln_mean() <= more.ln_mean() + 1e-9);
        }
    }

    #[test]
    fn an_arm_without_requests_proves_nothing(
        windows in vec((0..300_u16, 0..9_u8), 1..20), canary_is_empty: bool,
    ) {
        let events: Vec<Event> = windows
            .into_iter()
            .map(|pod| if canary_is_empty { Event::Window(vec![], vec![pod]) } else { Event::Window(vec![pod], vec![]) })
            .collect();
        let mut failed = false;
        play(&mut engine(RiskClass::R4, false), &events, |engine, _| {
            failed |= engine.score(5) != 0.0 || engine.gates_are_open(1);
        });
        prop_assert!(!failed);
    }

    #[test]
    fn a_gap_changes_nothing(events in events(14)) {
        let mut before = None;
        let mut failed = false;
        play(&mut engine(RiskClass::R4, true), &events, |engine, event| {
            failed |= matches!(event, Event::Gap) && before.as_ref().is_some_and(|before| before != engine.state());
            before = Some(engine.state().clone());
        });
        prop_assert!(!failed);
        let gaps = vec![Event::Gap; events.len()];
        play(&mut engine(RiskClass::R4, false), &gaps, |engine, _| {
            failed |= engine.score(5) != 0.0 || engine.gates_are_open(1);
        });
        prop_assert!(!failed);
    }

    #[test]
    fn no_window_multiplies_by_more_than_a_thousand(events in events(14)) {
        let mut before = 0.0;
        let mut failed = None;
        // All capital there is, in every row and process.
        let capital: f64 = chain(RiskClass::R4).iter().map(|row| 0.6 * row.capital).sum();
        play(&mut engine(RiskClass::R4, false), &events, |engine, event| {
            // Every process counts here, keyed or not.
            let (guard, state) = engine.guards().next().unwrap();
            let wealth: f64 = state
                .odds(guard)
                .iter()
                .zip(&guard.rows)
                .map(|(odds, row)| (odds.comparison * 0.4 + odds.ceiling * 0.2) * row.capital)
                .sum();
            let most = (before + capital) * LN_CAP_ABORT.exp();
            if wealth > most * (1.0 + 1e-9) {
                failed.get_or_insert(format!("{event:?}: {before} to {wealth}"));
            }
            before = wealth;
        });
        prop_assert_eq!(failed, None);
    }

    #[test]
    fn a_crash_at_any_point_is_no_crash(events in events(9), two_pods: bool) {
        let mut whole = Vec::new();
        play(&mut engine(RiskClass::R3, two_pods), &events, |engine, _| whole.push(engine.state().clone()));
        let mut whole = whole.into_iter();
        let mut failed = false;
        play(&mut engine(RiskClass::R3, two_pods), &events, |engine, _| {
            failed |= whole.next().as_ref() != Some(engine.state());
            let kept = serde_json::to_string(engine.state()).unwrap();
            let guards = engine.guards().map(|(guard, _)| guard.clone()).collect();
            *engine = Engine::new(guards, serde_json::from_str(&kept).unwrap());
        });
        prop_assert!(!failed);
    }

    #[test]
    fn bursts_make_a_failure_say_less(m in 0.0..50.0_f64, more in 1e-3..10.0_f64, phi in 1.0..60.0_f64) {
        let (burst, heavier) = (Burst::new(phi), Burst::new(phi * 1.2));
        prop_assert_eq!(burst.t(0.0), 0.0);
        prop_assert!((burst.t(1.0) - 1.0).abs() < 1e-9);
        // Where T has reached its bound to the last digit it can't rise.
        prop_assert!(burst.t(m) < burst.t(m + more) || burst.t(m) > 0.999_999 * phi / (phi - 1.0));
        prop_assert!(heavier.t(m).ln().abs() <= burst.t(m).ln().abs() + 1e-9 || m == 0.0);
    }

    #[test]
    fn a_factor_is_a_fair_bet_at_the_tolerance(
        n_c in 1..50_u32, n_s in 1..500_u32, p_s in 1e-4..0.2_f64, class in 0..5_usize, q in 1.1..100.0_f64,
    ) {
        // Independent failures: the expectation is a product of two binomial ones, in closed form.
        let row = built_in(RiskClass::ALL[class]);
        let p_c = (1.0 + row.tolerance.relative) * p_s + row.tolerance.absolute;
        let (n_c, n_s) = (f64::from(n_c), f64::from(n_s));
        let f = |x_c: f64, x_s: f64| {
            ln_factor(Counts::new(n_c, x_c), Counts::new(n_s, x_s), row.tolerance, q, Burst::NONE)
        };
        let none = f(0.0, 0.0);
        let (one_c, one_s) = ((f(1.0, 0.0) - none).exp(), (f(0.0, 1.0) - none).exp());
        let ln = none + n_c * (1.0 + p_c * (one_c - 1.0)).ln() + n_s * (1.0 + p_s * (one_s - 1.0)).ln();
        prop_assert!(ln <= 1e-9, "{ln}");
    }
}
