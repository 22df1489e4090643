//! Seeded simulations: how often a good canary is aborted, and how soon a bad one.

use super::support::*;

/// 15 s windows at `rps`, five steps of `windows` each, at 5, 20, 50 and 80 percent. Returns the canary
/// requests until the score reached 1.
fn run(
    random: &mut Random,
    rps: f64,
    windows: usize,
    limit: Option<i32>,
    rates: impl Fn(usize) -> (f64, f64),
) -> Option<f64> {
    let mut p = plan();
    (p.limit_ppm, p.steps) = (limit, 4);
    let mut b = Bench::new(p);
    let mut seen = 0.0;
    for (i, weight) in [5, 20, 50, 80].into_iter().enumerate() {
        if i > 0 {
            b.step(weight);
        }
        let share = f64::from(weight) / 100.0;
        for w in 0..windows {
            let (p_c, p_s) = rates(i * windows + w);
            let (n_c, n_s) = (random.poisson(rps * 15.0 * share), random.poisson(rps * 15.0 * (1.0 - share)));
            let (x_c, x_s) = (random.binomial(n_c, p_c), random.binomial(n_s, p_s));
            seen += n_c;
            b.window((n_c, x_c), (n_s, x_s));
            if b.score() >= 1.0 {
                return Some(seen);
            }
        }
    }
    None
}

/// A canary exactly at the tolerance, the least favourable good one.
fn at_tolerance(p_s: f64) -> (f64, f64) {
    (1.15 * p_s + 2e-4, p_s)
}

#[test]
fn a_good_canary_is_aborted_in_at_most_one_percent_of_runs() {
    for (rps, p_s) in [(20.0, 0.002), (100.0, 0.002), (20.0, 0.02)] {
        let mut random = Random(4);
        let aborted =
            (0..500).filter(|_| run(&mut random, rps, 60, None, |_| at_tolerance(p_s)).is_some()).count();
        println!("{rps} rps, stable {p_s}: {aborted} of 500 aborted");
        // The bound is 5 of 500; by chance more than 12 would be seen once in 500 such tests.
        assert!(aborted <= 12, "{aborted} of 500 aborted at {rps} rps, stable {p_s}");
    }
}

#[test]
fn incidents_of_stable_are_not_the_canarys_fault() {
    // Stable's rate moves fivefold every few minutes, the canary's with it.
    let moving = |w: usize| at_tolerance(if (w / 12).is_multiple_of(2) { 0.002 } else { 0.01 });
    for limit in [None, Some(5_000)] {
        let mut random = Random(5);
        let aborted = (0..300).filter(|_| run(&mut random, 50.0, 60, limit, moving).is_some()).count();
        println!("moving, limit {limit:?}: {aborted} of 300 aborted");
        // The bound is 3 of 300; by chance more than 9 would be seen once in 300 such tests.
        assert!(aborted <= 9, "{aborted} of 300 aborted with limit {limit:?}");
    }
}

/// Canary requests until the abort: mean, and 95th percentile, of 200 runs; every run has to abort.
fn found(seed: u64, rps: f64, limit: Option<i32>, rates: impl Fn(usize) -> (f64, f64)) -> (f64, f64) {
    let mut random = Random(seed);
    let mut needed: Vec<f64> =
        (0..200).map(|_| run(&mut random, rps, 60, limit, &rates).unwrap_or(f64::INFINITY)).collect();
    needed.sort_by(f64::total_cmp);
    let mean = needed.iter().sum::<f64>() / needed.len() as f64;
    println!("{rps} rps: mean {mean:.0}, 95 % {:.0} canary requests", needed[190]);
    (mean, needed[190])
}

#[test]
fn five_percent_against_two_permille_is_found_soon() {
    let (mean, late) = found(6, 100.0, None, |_| (0.05, 0.002));
    assert!(mean <= 170.0 && late <= 300.0, "mean {mean}, 95 % {late}");
}

#[test]
fn a_fault_deep_inside_a_step_is_found_too() {
    // 2 hours at 5 % of 500 rps: 180,000 canary requests in good health.
    let mut random = Random(8);
    let mut windows = Vec::new();
    for _ in 0..20 {
        let mut b = Bench::new(plan());
        let mut bad = 0;
        for w in 0..600 {
            let p_c = if w < 480 { 0.002 } else { 0.05 };
            let (n_c, n_s) = (random.poisson(375.0), random.poisson(7125.0));
            b.window((n_c, random.binomial(n_c, p_c)), (n_s, random.binomial(n_s, 0.002)));
            if b.score() >= 1.0 {
                break;
            }
            bad += usize::from(w >= 480);
        }
        windows.push(bad + 1);
    }
    println!("deep inside a step: {windows:?} windows");
    assert!(windows.iter().all(|w| *w <= 8), "{windows:?}");
}

#[test]
fn a_late_fault_is_found_too() {
    // Good for the first two steps, 30 minutes: 22,500 canary requests at 100 rps.
    let (mean, late) = found(7, 100.0, None, |w| if w < 120 { (0.002, 0.002) } else { (0.05, 0.002) });
    let before = 15.0 * 100.0 * 60.0 * 0.25;
    assert!(mean - before <= 2000.0 && late - before <= 3000.0, "mean {mean}, 95 % {late}");
}
