//! Windows, resets, gaps and data states.

use super::support::report;
use super::support::*;
use crate::evidence::*;

#[test]
fn counts_are_deltas_of_the_step() {
    let mut b = Bench::new(plan());
    b.window((100.0, 1.0), (900.0, 2.0));
    b.window((100.0, 0.0), (900.0, 1.0));
    let r = b.report();
    assert_eq!((r.n_canary, r.x_canary, r.n_stable, r.x_stable), (200, 1, 1800, 3));
    assert_eq!(r.observed_share_permille, Some(100));
    assert_eq!((r.healthy_seconds, r.no_data_seconds), (30.0, 0));
    b.step(20);
    assert_eq!(b.report().n_canary, 0, "a report before the first sample of a step knows nothing of it");
    assert!(!b.report().gate_open);
    // The interval in which the weight changed only moves the start.
    b.window((50.0, 50.0), (50.0, 0.0));
    assert_eq!((b.report().n_canary, b.report().healthy_seconds), (0, 0.0));
    b.window((70.0, 0.0), (50.0, 0.0));
    assert_eq!((b.report().n_canary, b.report().healthy_seconds), (70, 15.0));
}

#[test]
fn the_interval_in_which_the_weight_changed_gives_no_bet() {
    let mut b = Bench::new(plan());
    b.window((100.0, 0.0), (900.0, 1.0));
    let before = b.score();
    b.step(20);
    b.window((100.0, 100.0), (900.0, 0.0));
    assert_eq!(b.score(), before);
    b.window((100.0, 100.0), (900.0, 0.0));
    assert!(b.score() > 1.0);
}

#[test]
fn a_window_begins_only_when_the_weight_is_live() {
    // Known at 0 that the weight is live at 20: the window from 15 to 30 is not whole, the next one is.
    let mut p = plan();
    p.window_start = Some(t(20));
    let mut b = Bench::new(p);
    let counted = [0; 3].map(|_: i32| {
        b.window((100.0, 0.0), (900.0, 1.0));
        b.report().n_canary
    });
    assert_eq!(counted, [0, 0, 100]);
}

#[test]
fn nothing_counts_before_the_weight_is_live() {
    let mut p = plan();
    p.window_start = None;
    let mut b = Bench::new(p);
    b.window((100.0, 100.0), (900.0, 1.0));
    b.window((100.0, 100.0), (900.0, 1.0));
    assert_eq!((b.score(), b.report().n_canary, b.report().healthy_seconds), (0.0, 0, 0.0));
    assert!(!b.report().gate_open);
    assert_eq!(b.state.weighed.recent().1.n, 1800.0, "but what is normal for stable is learned");
}

#[test]
fn without_weight_the_canary_needs_no_series() {
    let mut p = plan();
    p.window_start = None;
    let mut b = Bench::new(p);
    b.source.pods.retain(|(arm, _), _| *arm == Arm::Stable);
    b.tick();
    assert_eq!(b.report().state, DataState::Ok);
    b.plan.window_start = Some(b.now);
    b.tick();
    let r = b.report();
    assert_eq!(r.state, DataState::NoData);
    assert!(r.message.contains("no request series of canary"), "{}", r.message);
}

#[test]
fn a_reset_counts_from_zero() {
    let mut b = Bench::new(plan());
    b.window((100.0, 10.0), (900.0, 0.0));
    b.source.set(Arm::Canary, "c", 40.0, 4.0);
    b.tick();
    assert_eq!((b.report().n_canary, b.report().x_canary), (140, 14));
    // A restart after which the failures, but not the requests, exceed the old value.
    b.source.set(Arm::Canary, "c", 30.0, 9.0);
    b.tick();
    assert_eq!((b.report().n_canary, b.report().x_canary), (170, 23));
}

#[test]
fn first_samples() {
    let mut b = Bench::new(plan());
    b.window((10.0, 0.0), (90.0, 0.0));
    b.source.set(Arm::Canary, "c2", 20.0, 5.0);
    b.source.set(Arm::Stable, "old", 1e6, 1e3);
    b.source.set(Arm::Stable, "new", 30.0, 1.0);
    b.source.created.insert("old".into(), t(-5000));
    b.source.created.insert("new".into(), after(b.now, 3));
    b.tick();
    let r = b.report();
    assert_eq!((r.n_canary, r.x_canary), (30, 5), "a new canary pod counts from 0");
    assert_eq!(
        (r.n_stable, r.x_stable),
        (120, 1),
        "so does a new stable pod, an old one starts its baseline"
    );
}

#[test]
fn counters_of_an_earlier_run_are_a_baseline() {
    let mut source = Source::default();
    source.set(Arm::Canary, "router", 500.0, 500.0);
    source.set(Arm::Stable, "router", 500.0, 0.0);
    let mut state = GuardState::default();
    for (at, failed) in [(15, 0), (30, 0), (45, 1)] {
        source.serve(Arm::Canary, "router", 10.0, f64::from(failed));
        source.serve(Arm::Stable, "router", 90.0, 0.0);
        observe(&mut state, &source.sample(t(at)), &plan(), false, t(at));
    }
    let r = report(&state, &plan(), t(45));
    assert_eq!((r.n_canary, r.x_canary, r.n_stable), (20, 1, 180));
}

#[test]
fn a_missing_error_series_is_zero_and_then_keeps_its_value() {
    let counters = |at, total, bad| {
        let pod = |arm, total, bad| PodCounters {
            id: "p".into(),
            arm,
            total,
            bad,
            maybe_bad: None,
            newest_sample: at,
            created: None,
            out_of_memory: false,
        };
        let pods = vec![pod(Arm::Canary, total, bad), pod(Arm::Stable, total, None)];
        Sample { bound: None, at, outcome: Outcome::Counters(pods) }
    };
    let mut state = GuardState::default();
    let mut seen = Vec::new();
    for (i, (total, bad)) in
        [(0.0, None), (100.0, None), (200.0, Some(8.0)), (300.0, None), (400.0, Some(9.0))]
            .into_iter()
            .enumerate()
    {
        let at = t(15 * i as i64);
        observe(&mut state, &counters(at, total, bad), &plan(), false, at);
        seen.push(report(&state, &plan(), at).x_canary);
    }
    assert_eq!(seen, [0, 0, 8, 8, 9]);
}

#[test]
fn counts_above_another_bound_are_not_subtracted() {
    let mut b = Bench::new(plan());
    let mut window = |bound: f64| {
        b.source.serve(Arm::Canary, "c", 10.0, 4.0);
        b.source.serve(Arm::Stable, "s", 90.0, 40.0);
        b.now += jiff::SignedDuration::from_secs(15);
        let sample = Sample { bound: Some(bound), ..b.source.sample(b.now) };
        observe(&mut b.state, &sample, &b.plan, false, b.now);
        (b.report().state, b.report().n_canary, b.report().message)
    };
    let (data, n, message) = window(0.035);
    assert_eq!((data, n), (DataState::Ok, 10));
    assert!(message.starts_with("error-rate 4/10 over 35 ms against 40/90"), "{message}");
    let (data, n, message) = window(0.05);
    assert_eq!((data, n), (DataState::QueryError, 10));
    assert!(message.contains("over 0.05 s were counted, and those over 0.035 s before"), "{message}");
    // The same pods again: the gap is one window.
    assert_eq!(window(0.035).1, 30);
}

#[test]
fn a_pod_that_comes_back_goes_on_from_its_last_value() {
    let mut b = Bench::new(plan());
    b.window((10.0, 0.0), (90.0, 0.0));
    let gone = b.source.pods.remove(&(Arm::Canary, "c".into())).unwrap();
    b.source.set(Arm::Canary, "c2", 0.0, 0.0);
    b.tick();
    b.source.set(Arm::Canary, "c", gone.0 + 7.0, gone.1 + 2.0);
    b.tick();
    assert_eq!((b.report().n_canary, b.report().x_canary), (17, 2));
}

#[test]
fn each_trouble_stops_the_clock_and_names_itself() {
    use DataState::*;
    for state in [NoData, NotANumber, Stale, MultipleSeries, QueryError, ProviderDown] {
        let mut b = Bench::new(plan());
        b.prove();
        let before = b.report();
        assert!(before.gate_open, "{}", before.message);
        b.trouble(state);
        b.trouble(state);
        let r = b.report();
        assert_eq!((r.state, r.score, r.gate_open), (state, before.score, false));
        assert_eq!((r.healthy_seconds, r.no_data_seconds), (75.0, 30));
        assert_eq!(r.state_since, after(b.now, -15));
        assert_eq!(r.hold.map(|h| h.reason), Some(HoldReason::NoData));
        let since = after(b.now, -15);
        assert!(r.message.contains(&format!("a test (since {since})")), "{}", r.message);
        let later = report(&b.state, &b.plan, after(b.now, 1));
        assert_eq!(later.message, r.message, "what does not change is not told anew");
    }
}

#[test]
fn unusable_counters_are_told_apart() {
    type Spoil = fn(&mut Vec<PodCounters>);
    let cases: [(Spoil, DataState, &str); 7] = [
        (|p| p[0].total = f64::NAN, DataState::NotANumber, "NaN"),
        (|p| p[0].bad = Some(f64::INFINITY), DataState::NotANumber, "inf"),
        (|p| p[1].total = -1.0, DataState::NotANumber, "-1"),
        (|p| p.push(p[0].clone()), DataState::MultipleSeries, "sum by pod"),
        (|p| p.truncate(1), DataState::NoData, "series of canary"),
        (|p| drop(p.remove(0)), DataState::NoData, "series of stable"),
        (|p| p[1].newest_sample = t(-17), DataState::Stale, "of 2025-12-31T23:59:43Z"),
    ];
    for (spoil, want, words) in cases {
        let mut state = GuardState::default();
        let mut sample = Source::pair().sample(t(15));
        if let Outcome::Counters(pods) = &mut sample.outcome {
            spoil(pods);
        }
        observe(&mut state, &sample, &plan(), false, t(15));
        let r = report(&state, &plan(), t(15));
        assert_eq!(r.state, want, "{}", r.message);
        assert!(r.message.contains(words), "{}", r.message);
    }
}

#[test]
fn two_scrapes_are_fresh_enough() {
    let mut sample = Source::pair().sample(t(31));
    if let Outcome::Counters(pods) = &mut sample.outcome {
        pods.iter_mut().for_each(|p| p.newest_sample = t(0));
    }
    let mut state = GuardState::default();
    observe(&mut state, &sample, &plan(), false, t(31));
    assert_eq!(state.data, DataState::Ok);
}

#[test]
fn three_good_windows_reset_the_no_data_clock() {
    let mut b = Bench::new(plan());
    let mut seen = Vec::new();
    for ok in [true, false, false, true, true, false, true, true, true] {
        if ok {
            b.window((10.0, 0.0), (90.0, 0.0))
        } else {
            b.trouble(DataState::ProviderDown)
        }
        seen.push(b.report().no_data_seconds);
    }
    assert_eq!(seen, [0, 15, 30, 30, 30, 45, 45, 45, 0]);
}

#[test]
fn time_in_which_nobody_looked_is_no_outage() {
    let mut b = Bench::new(plan());
    b.window((10.0, 0.0), (90.0, 0.0));
    b.wait(36_000);
    assert_eq!(b.report().state, DataState::Stale);
    assert!(!b.report().gate_open);
    b.trouble(DataState::ProviderDown);
    assert_eq!(b.report().no_data_seconds, 75, "at most five scrapes");
}

#[test]
fn a_gap_with_the_same_pods_is_one_window() {
    let mut b = Bench::new(plan());
    b.source.serve(Arm::Canary, "c", 100.0, 5.0);
    b.trouble(DataState::ProviderDown);
    b.source.serve(Arm::Stable, "s", 900.0, 1.0);
    b.trouble(DataState::Stale);
    b.tick();
    let r = b.report();
    assert_eq!((r.n_canary, r.x_canary, r.n_stable, r.x_stable), (100, 5, 900, 1));
    assert_eq!(r.healthy_seconds, 0.0, "evidence, but not healthy time");
    let mut whole = Bench::new(plan());
    whole.wait(30);
    whole.window((100.0, 5.0), (900.0, 1.0));
    assert_eq!(whole.score(), r.score);
}

#[test]
fn a_gap_with_other_pods_gives_new_starting_counters() {
    for quiet_shell in [false, true] {
        let mut b = Bench::new(plan());
        b.window((10.0, 0.0), (90.0, 0.0));
        b.source.serve(Arm::Canary, "c", 100.0, 100.0);
        b.source.serve(Arm::Canary, "c2", 50.0, 50.0);
        if quiet_shell {
            b.wait(600)
        } else {
            b.trouble(DataState::ProviderDown)
        }
        b.tick();
        assert_eq!((b.report().n_canary, b.report().x_canary), (10, 0), "{quiet_shell}");
        b.window((5.0, 1.0), (90.0, 0.0));
        assert_eq!((b.report().n_canary, b.report().x_canary), (15, 1));
    }
}

/// A source that returns without one pod, and shows it `late` samples later.
fn gap_with_a_late_pod(b: &mut Bench, arm: Arm, id: &str, late: usize) {
    let all = b.source.clone();
    b.source.pods.remove(&(arm, id.into()));
    for _ in 0..late {
        b.tick();
    }
    b.source = all;
    b.tick();
}

#[test]
fn a_gap_ends_for_all_pods_at_once() {
    for late in 1..=3 {
        let mut b = Bench::new(plan());
        b.source.serve(Arm::Stable, "s2", 0.0, 0.0);
        b.tick();
        b.trouble(DataState::ProviderDown);
        b.source.serve(Arm::Canary, "c", 100.0, 1.0);
        b.source.serve(Arm::Stable, "s", 450.0, 1.0);
        b.source.serve(Arm::Stable, "s2", 450.0, 0.0);
        gap_with_a_late_pod(&mut b, Arm::Stable, "s2", late);
        let r = b.report();
        assert_eq!((r.n_canary, r.x_canary, r.n_stable, r.x_stable), (100, 1, 900, 1), "{late} late");
        assert_eq!((r.state, r.healthy_seconds), (DataState::Ok, 15.0));
    }
}

#[test]
fn while_a_pod_is_not_back_the_gap_says_so_and_goes_on() {
    let mut b = Bench::new(plan());
    b.source.serve(Arm::Stable, "s2", 0.0, 0.0);
    b.prove();
    assert!(b.report().gate_open, "{}", b.report().message);
    b.trouble(DataState::ProviderDown);
    b.source.pods.remove(&(Arm::Stable, "s2".into()));
    b.tick();
    let r = b.report();
    assert_eq!((r.state, r.gate_open, r.no_data_seconds), (DataState::Stale, false, 30));
    assert!(r.message.contains("not yet of stable \"s2\""), "{}", r.message);
}

#[test]
fn a_pod_that_stays_away_takes_the_gap_with_it_for_both_arms() {
    let mut b = Bench::new(plan());
    b.source.serve(Arm::Stable, "s2", 0.0, 0.0);
    b.tick();
    b.trouble(DataState::ProviderDown);
    for (arm, id) in [(Arm::Canary, "c"), (Arm::Stable, "s"), (Arm::Stable, "s2")] {
        b.source.serve(arm, id, 100.0, 50.0);
    }
    // Its own part of the gap does not come after all, however late it returns.
    gap_with_a_late_pod(&mut b, Arm::Stable, "s2", 6);
    let r = b.report();
    assert_eq!((r.n_canary, r.n_stable, r.state), (0, 0, DataState::Ok));
    b.source.serve(Arm::Stable, "s2", 7.0, 0.0);
    b.window((5.0, 0.0), (3.0, 0.0));
    assert_eq!((b.report().n_canary, b.report().n_stable), (5, 10));
}

#[test]
fn a_source_that_was_restarted_shows_old_samples_first() {
    let mut b = Bench::new(plan());
    b.source.serve(Arm::Stable, "s2", 0.0, 0.0);
    b.tick();
    let old = b.now;
    b.trouble(DataState::ProviderDown);
    b.trouble(DataState::ProviderDown);
    b.source.serve(Arm::Canary, "c", 100.0, 0.0);
    b.source.serve(Arm::Stable, "s", 450.0, 0.0);
    b.wait(15);
    let mut sample = b.source.sample(b.now);
    if let Outcome::Counters(pods) = &mut sample.outcome {
        pods.iter_mut().filter(|p| p.id == "s2").for_each(|p| p.newest_sample = old);
    }
    observe(&mut b.state, &sample, &b.plan, false, b.now);
    assert_eq!((b.report().n_canary, b.report().state), (0, DataState::Stale));
    b.source.serve(Arm::Stable, "s2", 450.0, 0.0);
    b.tick();
    assert_eq!((b.report().n_canary, b.report().n_stable), (100, 900));
}

#[test]
fn an_outage_that_began_before_the_weight_was_live_leaves_no_trace_of_before() {
    for late in 0..=5 {
        let mut b = Bench::new(plan());
        b.source.serve(Arm::Stable, "s2", 0.0, 0.0);
        b.tick();
        b.plan.window_start = Some(after(b.now, 5));
        b.trouble(DataState::ProviderDown);
        for (arm, id) in [(Arm::Canary, "c"), (Arm::Stable, "s"), (Arm::Stable, "s2")] {
            b.source.serve(arm, id, 1000.0, 500.0);
        }
        gap_with_a_late_pod(&mut b, Arm::Stable, "s2", late);
        b.source.serve(Arm::Stable, "s2", 7.0, 0.0);
        b.window((5.0, 0.0), (3.0, 0.0));
        let r = b.report();
        assert_eq!((r.n_canary, r.x_canary, r.n_stable, r.x_stable), (5, 0, 10, 0), "{late} late");
    }
}

#[test]
fn a_sample_from_before_the_weight_was_live_only_starts_its_pod() {
    let mut b = Bench::new(plan());
    b.plan.window_start = Some(after(b.now, 10));
    b.wait(15);
    // Looked at after the weight was live, scraped before.
    let mut sample = b.source.sample(b.now);
    if let Outcome::Counters(pods) = &mut sample.outcome {
        pods.iter_mut().filter(|p| p.arm == Arm::Canary).for_each(|p| p.newest_sample = after(b.now, -10));
    }
    observe(&mut b.state, &sample, &b.plan, false, b.now);
    b.window((100.0, 100.0), (900.0, 0.0));
    assert_eq!((b.report().n_canary, b.report().n_stable), (0, 900));
    b.window((100.0, 0.0), (900.0, 0.0));
    assert_eq!((b.report().n_canary, b.report().n_stable), (100, 1800));
}

#[test]
fn after_a_gap_with_other_pods_a_late_pod_starts_again_too() {
    let mut b = Bench::new(plan());
    b.source.serve(Arm::Stable, "late", 0.0, 0.0);
    b.window((10.0, 0.0), (90.0, 0.0));
    let before = b.report();
    b.source.scraped.insert("late".into(), b.now);
    for _ in 0..20 {
        b.trouble(DataState::ProviderDown);
    }
    // The source is back. It has a pod that it had not seen before, and one that it has not scraped again.
    b.source.serve(Arm::Canary, "c2", 500.0, 5.0);
    b.window((500.0, 5.0), (4500.0, 0.0));
    assert_eq!((b.report().n_canary, b.report().n_stable), (before.n_canary, before.n_stable));
    b.window((10.0, 0.0), (90.0, 0.0));
    assert_eq!((b.report().n_canary, b.report().n_stable), (20, 180), "the others count again");
    b.source.scraped.clear();
    b.source.serve(Arm::Stable, "late", 4500.0, 4500.0);
    b.window((10.0, 0.0), (90.0, 0.0));
    let now = b.report();
    assert_eq!((now.n_canary, now.n_stable, now.x_stable), (30, 270, 0), "what the gap hid is never counted");
    b.source.serve(Arm::Stable, "late", 50.0, 0.0);
    b.window((10.0, 0.0), (90.0, 0.0));
    assert_eq!(b.report().n_stable, 410, "and then it counts like any other");
}

#[test]
fn the_same_sample_twice_counts_once() {
    let mut b = Bench::new(plan());
    b.window((100.0, 3.0), (900.0, 1.0));
    let before = b.state.clone();
    let mut later = b.source.clone();
    later.serve(Arm::Canary, "c", 100.0, 100.0);
    observe(&mut b.state, &later.sample(b.now), &b.plan, false, b.now);
    observe(&mut b.state, &later.sample(after(b.now, -5)), &b.plan, false, b.now);
    observe(&mut b.state, &trouble(b.now, DataState::NoData), &b.plan, false, b.now);
    assert_eq!(b.state, before);
}

#[test]
fn a_clock_that_was_ahead_leaves_no_canary_unwatched() {
    // The last leader's clock was an hour ahead when the weight was live and when it looked last.
    let mut ahead = plan();
    ahead.window_start = Some(t(3600));
    let mut b = Bench { now: t(3600), ..Bench::new(ahead) };
    b.window((100.0, 0.0), (900.0, 1.0));
    b.now = t(60);
    for _ in 0..20 {
        b.window((100.0, 30.0), (900.0, 1.0));
    }
    assert!(b.score() >= 1.0, "{:?}", b.report());
}

#[test]
fn a_router_that_comes_back_late_does_not_count_earlier_runs() {
    let mut b = Bench { state: GuardState::default(), now: t(-15), ..Bench::new(plan()) };
    b.source.set(Arm::Canary, "router", 5000.0, 5000.0);
    b.tick();
    let gone = b.source.pods.remove(&(Arm::Canary, "router".into())).unwrap();
    for _ in 0..60 {
        b.window((10.0, 0.0), (90.0, 0.0));
    }
    let before = b.report().x_canary;
    b.source.set(Arm::Canary, "router", gone.0 + 7.0, gone.1 + 1.0);
    b.tick();
    assert_eq!(b.report().x_canary, before + 1);
}

/// A router instance that counts for both Services; a second one has been told of only in part.
fn routers(second: &[(Arm, &str, f64, f64)]) -> Bench {
    let mut b = Bench { state: GuardState::default(), now: t(-15), ..Bench::new(plan()) };
    b.source.pods.clear();
    b.source.set(Arm::Stable, "10.0.0.1:9100/5table", 9000.0, 9.0);
    b.source.set(Arm::Canary, "10.0.0.1:9100/ca7a77", 5000.0, 5000.0);
    for (arm, id, total, bad) in second {
        b.source.set(*arm, id, *total, *bad);
    }
    b.tick();
    b
}

/// What both arms were answered by the first instance in one window.
fn first_router_serves(b: &mut Bench) {
    b.source.serve(Arm::Stable, "10.0.0.1:9100/5table", 90.0, 0.0);
    b.source.serve(Arm::Canary, "10.0.0.1:9100/ca7a77", 10.0, 0.0);
}

#[test]
fn a_router_that_comes_into_view_brings_no_earlier_run_with_it() {
    // What an earlier run was answered: all failed, and all well. Neither is this canary's.
    for failed in [5000.0, 0.0] {
        let mut b = routers(&[]);
        first_router_serves(&mut b);
        b.tick();
        b.source.set(Arm::Stable, "10.0.0.2:9100/5table", 9000.0, 9.0);
        b.source.set(Arm::Canary, "10.0.0.2:9100/ca7a77", 5000.0, failed);
        first_router_serves(&mut b);
        b.tick();
        let r = b.report();
        assert_eq!((r.n_canary, r.x_canary, r.n_stable), (20, 0, 180), "{failed}");
        assert!(r.score < 0.01 && !r.gate_open, "{}", r.message);
        // From then on it counts like the other.
        b.source.serve(Arm::Canary, "10.0.0.2:9100/ca7a77", 7.0, 1.0);
        b.source.serve(Arm::Stable, "10.0.0.2:9100/5table", 63.0, 0.0);
        first_router_serves(&mut b);
        b.tick();
        assert_eq!((b.report().n_canary, b.report().x_canary, b.report().n_stable), (37, 1, 333));
    }
}

#[test]
fn a_routers_first_series_for_the_canary_counts_from_its_first_request() {
    // It was seen with stable's series and without one for the canary: there was none.
    let mut b = routers(&[(Arm::Stable, "10.0.0.2:9100/5table", 9000.0, 9.0)]);
    b.source.set(Arm::Canary, "10.0.0.2:9100/ca7a77", 40.0, 40.0);
    first_router_serves(&mut b);
    b.tick();
    let r = b.report();
    assert_eq!((r.n_canary, r.x_canary, r.n_stable), (50, 40, 90));
    assert!(r.score >= 1.0, "the canary's first failures must not vanish: {}", r.message);
}

#[test]
fn a_restarted_window_starts_the_step_again() {
    let mut b = Bench::new(plan());
    b.window((100.0, 0.0), (900.0, 1.0));
    // The fractions of a second get lost in an object's time.
    b.plan.window_start = b.plan.window_start.map(|w| w - jiff::SignedDuration::from_millis(400));
    assert_eq!(b.report().n_canary, 100);
    b.plan.window_start = Some(after(b.now, 10));
    assert_eq!(b.report().n_canary, 0);
    let before = b.score();
    b.window((100.0, 0.0), (900.0, 1.0));
    assert_eq!((b.report().n_canary, b.score()), (0, before), "wealth is kept");
    b.window((100.0, 0.0), (900.0, 1.0));
    assert_eq!((b.report().n_canary, b.report().healthy_seconds), (100, 15.0));
}

#[test]
fn few_requests_wait_for_each_other() {
    let mut b = Bench::new(plan());
    b.window((1.0, 1.0), (19.0, 0.0));
    b.window((0.0, 0.0), (19.0, 0.0));
    assert_eq!(b.score(), 0.0);
    b.window((1.0, 1.0), (19.0, 0.0));
    let mut whole = Bench::new(plan());
    whole.window((2.0, 2.0), (57.0, 0.0));
    // The same, but for the capital that is placed in time.
    assert!((b.score() / whole.score() - 1.0).abs() < 0.02, "{} {}", b.score(), whole.score());
    assert!(b.score() > 0.0);
    // After eight windows without a partner they are dropped.
    let mut b = Bench::new(plan());
    for window in 0..8 {
        b.window((if window == 0 { 9.0 } else { 0.0 }, 9.0), (0.0, 0.0));
    }
    b.window((2.0, 0.0), (19.0, 0.0));
    let mut rest = Bench::new(plan());
    rest.window((2.0, 0.0), (19.0, 0.0));
    assert!((b.score() / rest.score() - 1.0).abs() < 0.1, "{} {}", b.score(), rest.score());
}

#[test]
fn quiet_is_proven_from_scrape_to_scrape() {
    let mut b = Bench::new(plan());
    b.window((10.0, 0.0), (90.0, 0.0));
    let since = b.now;
    assert_eq!(b.report().quiet_since, None);
    // An evaluation between two scrapes shows the old sample again and proves nothing.
    let mut stale = b.source.sample(after(b.now, 5));
    if let Outcome::Counters(pods) = &mut stale.outcome {
        pods.iter_mut().for_each(|p| p.newest_sample = since);
    }
    observe(&mut b.state, &stale, &b.plan, false, after(b.now, 5));
    assert_eq!(b.report().quiet_since, None);
    b.window((0.0, 0.0), (90.0, 0.0));
    b.window((0.0, 0.0), (90.0, 0.0));
    assert_eq!(b.report().quiet_since, Some(since));
    b.window((1.0, 0.0), (90.0, 0.0));
    assert_eq!(b.report().quiet_since, None);
    b.window((0.0, 0.0), (90.0, 0.0));
    b.trouble(DataState::ProviderDown);
    assert_eq!(b.report().quiet_since, None, "no data shows nothing");
}

#[test]
fn join_of_two_queries() {
    let p = |id: &str, value| Point { id: id.into(), value, newest_sample: t(0) };
    let pods = join(Arm::Canary, &[p("a", 10.0), p("b", 5.0)], &[p("b", 1.0)]).unwrap();
    assert_eq!(pods.iter().map(|p| p.bad).collect::<Vec<_>>(), [None, Some(1.0)]);
    let state = |r: Result<Vec<PodCounters>, Trouble>| r.map_err(|t| t.state).map(|_| ());
    let join = |total: &[Point], bad: &[Point]| state(join(Arm::Canary, total, bad));
    assert_eq!(join(&[], &[]), Ok(()));
    assert_eq!(join(&[p("a", 1.0), p("a", 1.0)], &[]), Err(DataState::MultipleSeries));
    assert_eq!(join(&[p("a", 9.0)], &[p("a", 1.0), p("a", 1.0)]), Err(DataState::MultipleSeries));
    assert_eq!(join(&[], &[p("a", 1.0)]), Err(DataState::QueryError));
    assert_eq!(join(&[p("a", f64::NAN)], &[]), Err(DataState::NotANumber));
}
