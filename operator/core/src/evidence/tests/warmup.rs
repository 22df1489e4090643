//! New pods' first requests that don't count, and the canary's pods in groups of equal size.

use super::support::*;
use crate::evidence::*;

fn warming(requests: f64) -> GuardPlan {
    GuardPlan { warmup: requests, ..plan() }
}

/// An hour of stable first: its pods are warm.
fn bench(requests: f64) -> Bench {
    let mut b = Bench::new(GuardPlan { weight: 0, window_start: None, ..warming(requests) });
    b.window((0.0, 0.0), (5000.0, 0.0));
    b.plan = GuardPlan { window_start: Some(b.now), ..warming(requests) };
    b.tick();
    b
}

#[test]
fn a_new_pods_first_requests_do_not_count() {
    for (warmup, counted) in [(0.0, (210, 21)), (100.0, (110, 11)), (200.0, (0, 0))] {
        let mut b = bench(warmup);
        b.window((100.0, 10.0), (1900.0, 1.0));
        b.window((110.0, 11.0), (1900.0, 1.0));
        let r = b.report();
        assert_eq!((r.n_canary, r.x_canary), counted, "{warmup}");
        assert_eq!((r.n_stable, r.x_stable), (3800, 2), "stable's pods are warm");
        assert_eq!(r.met, Some((210.0, 4010.0)), "the share is of all requests");
    }
}

#[test]
fn a_window_counts_as_a_whole_or_not_at_all() {
    let mut b = bench(200.0);
    // Which of these 300 failed is not known.
    b.window((300.0, 5.0), (1900.0, 0.0));
    assert_eq!((b.report().n_canary, b.report().healthy_seconds), (0, 0.0), "nothing of it was observed");
    b.window((50.0, 2.0), (1900.0, 0.0));
    assert_eq!((b.report().n_canary, b.report().x_canary, b.report().healthy_seconds), (50, 2, 15.0));
}

#[test]
fn each_new_pod_of_either_revision_is_cold_and_no_pod_twice() {
    let mut b = bench(200.0);
    b.window((250.0, 5.0), (1900.0, 0.0));
    b.window((100.0, 0.0), (1900.0, 0.0));
    for (arm, id) in [(Arm::Canary, "c2"), (Arm::Stable, "s2")] {
        b.source.created.insert(id.into(), b.now);
        b.source.serve(arm, id, 0.0, 0.0);
    }
    b.window((100.0, 0.0), (1900.0, 0.0));
    let before = b.report();
    for (arm, id) in [(Arm::Canary, "c2"), (Arm::Stable, "s2")] {
        b.source.serve(arm, id, 150.0, 15.0);
    }
    b.window((100.0, 0.0), (1900.0, 0.0));
    let r = b.report();
    assert_eq!(
        (r.n_canary - before.n_canary, r.x_canary, r.n_stable - before.n_stable, r.x_stable),
        (100, 0, 1900, 0)
    );
    assert_eq!(r.healthy_seconds - before.healthy_seconds, 15.0, "one warm pod is observed");
    // A container that starts again is no new pod: its failures count.
    b.source.set(Arm::Canary, "c", 40.0, 40.0);
    b.tick();
    assert_eq!(b.report().x_canary, 40);
}

#[test]
fn a_lowered_setting_counts_at_once_and_old_state_is_warm() {
    let mut b = bench(2000.0);
    b.window((300.0, 5.0), (1900.0, 0.0));
    b.plan.warmup = 300.0;
    b.window((100.0, 1.0), (1900.0, 0.0));
    assert_eq!((b.report().n_canary, b.report().x_canary), (100, 1));

    let mut b = bench(0.0);
    b.window((10.0, 0.0), (1900.0, 0.0));
    let text = serde_json::to_string(&b.state).unwrap();
    assert!(!text.contains("cold"), "{text}");
    b.state = serde_json::from_str(&text).unwrap();
    b.plan.warmup = 200.0;
    b.window((100.0, 1.0), (1900.0, 0.0));
    assert_eq!(b.report().x_canary, 1);
}

#[test]
fn a_router_is_never_cold() {
    let mut b = bench(200.0);
    b.plan.by_pod = false;
    b.window((100.0, 10.0), (1900.0, 0.0));
    assert_eq!(b.report().x_canary, 10);
}

#[test]
fn cold_requests_reach_the_canary_all_the_same() {
    let mut b = bench(2000.0);
    b.tick();
    b.tick();
    assert!(b.report().quiet_since.is_some());
    b.window((10.0, 0.0), (1900.0, 0.0));
    assert_eq!(b.report().quiet_since, None);
}

#[test]
fn canary_pods_are_spread_evenly_however_many_stable_pods_come_between() {
    let mut b = bench(0.0);
    for pod in 0..8 {
        // Stable pods come and go, as many as the canary's or more.
        for other in 0..3 {
            b.source.serve(Arm::Stable, &format!("s-{pod}-{other}"), 10.0, 0.0);
        }
        b.source.serve(Arm::Canary, &format!("z-{pod}"), 10.0, 0.0);
        b.tick();
        let text = serde_json::to_string(&b.state).unwrap();
        b.state = serde_json::from_str(&text).unwrap();
    }
    let starts = &b.state.start.as_ref().unwrap().pods;
    let mut numbers: Vec<u32> = starts.iter().filter(|p| p.arm == Arm::Canary).map(|p| p.pod).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..9).collect::<Vec<u32>>());
    let mut stable: Vec<u32> = starts.iter().filter(|p| p.arm == Arm::Stable).map(|p| p.pod).collect();
    let count = stable.len();
    stable.sort_unstable();
    stable.dedup();
    assert_eq!(stable.len(), count, "stable's numbers are used once");
}
