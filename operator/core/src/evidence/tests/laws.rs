//! Laws that hold for any input. `PROPTEST_CASES` sets the number of cases, by default 2,000.

use super::support::report;
use super::support::*;
use crate::api::GuardAction;
use crate::evidence::*;
use crate::statistics::Tolerance;
use jiff::Timestamp;
use proptest::prelude::*;

fn config() -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|v| v.parse().ok()).unwrap_or(2000);
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

/// One evaluation of a history.
#[derive(Clone, Debug)]
enum Event {
    /// Requests and failed requests of canary and stable.
    Window(u32, u32, u32, u32),
    Trouble(u8),
    NextStep,
    Reset,
}

fn events(longest: usize) -> impl Strategy<Value = Vec<Event>> {
    let window = (0u32..300, 0u32..300, 0u32..3000, 0u32..100)
        .prop_map(|(n, x, m, y)| Event::Window(n, (x / 20).min(n), m, (y / 4).min(m)));
    let event = prop_oneof![
        12 => window,
        2 => (0u8..6).prop_map(Event::Trouble),
        1 => Just(Event::NextStep),
        1 => Just(Event::Reset),
    ];
    prop::collection::vec(event, 1..longest)
}

fn limits() -> impl Strategy<Value = Option<f64>> {
    prop_oneof![Just(None), (0.001..0.05_f64).prop_map(Some)]
}

fn play(b: &mut Bench, event: &Event) {
    use DataState::*;
    match *event {
        Event::Window(n, x, m, y) => b.window((n.into(), x.into()), (m.into(), y.into())),
        Event::Trouble(i) => {
            b.trouble([NoData, NotANumber, Stale, MultipleSeries, QueryError, ProviderDown][usize::from(i)]);
        }
        Event::NextStep => {
            let weight = [5, 20, 50, 80, 100][b.plan.step.clamp(0, 3) as usize + 1];
            b.plan.watch = b.plan.step >= 4;
            b.step(weight);
        }
        // Seen before the counter has outgrown its old value; later nobody could tell.
        Event::Reset => {
            b.source.set(Arm::Canary, "c", 0.0, 0.0);
            b.tick();
        }
    }
}

fn bench(limit: Option<f64>) -> Bench {
    Bench::new(GuardPlan { judged: judged(limit), ..plan() })
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn no_data_leaves_the_evidence_alone(history in events(30), limit in limits(), holes in 1usize..20) {
        let mut b = bench(limit);
        for event in &history {
            play(&mut b, event);
        }
        let before = b.report();
        for i in 0..holes {
            b.trouble([DataState::NoData, DataState::ProviderDown, DataState::NotANumber][i % 3]);
            let r = b.report();
            prop_assert_eq!(r.score, before.score);
            prop_assert_eq!(r.healthy_seconds, before.healthy_seconds);
            prop_assert_eq!((r.n_canary, r.x_canary, r.n_stable), (before.n_canary, before.x_canary, before.n_stable));
            prop_assert!(!r.gate_open);
            prop_assert!(r.no_data_seconds >= before.no_data_seconds);
        }
    }

    #[test]
    fn a_gap_merged_is_the_same_counts_in_one_window(
        parts in prop::collection::vec((0u32..200, 0u32..10, 0u32..2000, 0u32..10), 2..8), limit in limits(),
    ) {
        let (mut gap, mut whole) = (bench(limit), bench(limit));
        let mut sum = [0.0; 4];
        for (i, (n, x, m, y)) in parts.iter().enumerate() {
            let (n, x, m, y) = (f64::from(*n), f64::from((*x).min(*n)), f64::from(*m), f64::from((*y).min(*m)));
            for (s, v) in sum.iter_mut().zip([n, x, m, y]) {
                *s += v;
            }
            gap.source.serve(Arm::Canary, "c", n, x);
            gap.source.serve(Arm::Stable, "s", m, y);
            if i + 1 < parts.len() { gap.trouble(DataState::ProviderDown) } else { gap.tick() }
        }
        // Nobody looked for as long.
        whole.wait(15 * (parts.len() as i64 - 1));
        whole.window((sum[0], sum[1]), (sum[2], sum[3]));
        prop_assert_eq!(&gap.state.weighed, &whole.state.weighed);
        prop_assert_eq!(gap.state.counts, whole.state.counts);
    }

    #[test]
    fn crash_and_resume_is_no_crash(history in events(40), limit in limits(), crash in 0usize..40) {
        let (mut steady, mut crashed) = (bench(limit), bench(limit));
        for (i, event) in history.iter().enumerate() {
            play(&mut steady, event);
            play(&mut crashed, event);
            if i % 40 >= crash {
                // What was written last is read again, and the last sample is taken in a second time.
                let text = serde_json::to_string(&crashed.state).unwrap();
                crashed.state = serde_json::from_str(&text).unwrap();
                let again = crashed.source.sample(crashed.now);
                crashed.observe(&again);
            }
            let (s, c) = (steady.report(), crashed.report());
            prop_assert_eq!(s, c);
        }
    }

    #[test]
    fn no_data_ever_opens_no_gate(kinds in prop::collection::vec(0u8..6, 0..60), weight in 0i32..101) {
        let mut p = plan();
        p.weight = weight;
        let mut b = Bench { state: GuardState::default(), source: Source::default(), plan: p, now: t(0) };
        for kind in kinds {
            play(&mut b, &Event::Trouble(kind));
            // An empty answer is no data either.
            b.tick();
            let r = b.report();
            prop_assert_eq!((r.score, r.gate_open, r.healthy_seconds), (0.0, false, 0.0));
            prop_assert!(r.state != DataState::Ok);
        }
    }

    #[test]
    fn anything_goes(
        pods in prop::collection::vec(
            ("[a-c]?", any::<bool>(), any::<f64>(), prop::option::of(any::<f64>()), any::<i32>(), prop::option::of(any::<i32>())),
            0..12,
        ),
        times in prop::collection::vec((any::<i32>(), any::<i32>()), 1..5),
        (relative, absolute, capital) in (any::<f64>(), any::<f64>(), any::<f64>()),
        (limit, min_samples, scrape_seconds) in (prop::option::of(any::<f64>()), any::<i32>(), any::<i32>()),
        (weight, next_weight, step) in (any::<i32>(), any::<i32>(), any::<i32>()),
        (live, watch) in (prop::option::of(any::<i32>()), any::<bool>()),
    ) {
        let time = |s: i32| Timestamp::from_second(i64::from(s)).unwrap();
        let mut judged = judged(limit);
        for row in &mut judged.rows {
            row.tolerance = Tolerance { relative, absolute };
            (row.margin, row.capital) = (row.tolerance, capital);
        }
        let plan = GuardPlan {
            name: String::new(), action: GuardAction::Hold, judged, by_pod: watch, min_samples, weight, next_weight, step,
            window_start: live.map(time), watch, scrape_seconds, warmup: 100.0, returned: None,
        };
        let mut state = GuardState::default();
        for (i, (at, now)) in times.into_iter().enumerate() {
            // Values that pass as counters in every second round, and anything in the others.
            let value = |v: f64| if i % 2 == 0 && v.is_finite() { v.abs() } else { v };
            let pods = pods.iter().map(|(id, canary, total, bad, newest, created)| PodCounters {
                id: id.clone(),
                arm: if *canary { Arm::Canary } else { Arm::Stable },
                total: value(*total),
                bad: bad.map(value),
                maybe_bad: None,
                newest_sample: time(*newest),
                created: created.map(time),
                out_of_memory: false,
            });
            let sample = Sample { bound: None, at: time(at), outcome: Outcome::Counters(pods.collect()) };
            observe(&mut state, &sample, &plan, watch, time(now));
            let r = report(&state, &plan, time(now));
            prop_assert!(r.score.is_finite() && r.score >= 0.0 && r.healthy_seconds >= 0.0);
            let text = serde_json::to_string(&state).unwrap();
            prop_assert!(serde_json::from_str::<GuardState>(&text).is_ok(), "{}", text);
        }
    }
}
