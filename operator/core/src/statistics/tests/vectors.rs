//! Numbers that were computed elsewhere, to six digits.

use crate::api::RiskClass;
use crate::statistics::bet::{
    Burst, Counts, Tolerance, ln_factor, ln_factor_one_sample, multipliers, upper_bound,
};
use crate::statistics::bursts;
use crate::statistics::engine::{Asked, Signal, guards};
use crate::statistics::gate::Gate;
use crate::statistics::guard::{Carried, Frozen, Guard, GuardState, Stand};
use crate::statistics::joined::STOP;
use crate::statistics::planner::{self, Onset, Step, Traffic};
use crate::statistics::rows::{built_in, chain};
use crate::statistics::stake::in_time;

fn close(got: f64, want: f64) {
    // As printed: six digits.
    assert!((got - want).abs() <= 6e-6 * want.abs().max(1e-9), "got {got}, want {want}");
}

fn all_close(got: &[f64], want: &[f64]) {
    assert_eq!(got.len(), want.len());
    got.iter().zip(want).for_each(|(got, want)| close(*got, *want));
}

#[test]
fn bursts_change_what_one_failure_says() {
    for (phi, m, t) in [
        (1.0, 10.0, 10.0),
        (3.0, 10.0, 1.49997),
        (3.0, 0.5, 0.633975),
        (3.0, 0.0, 0.0),
        (1.1, 19.0, 9.20141),
        (7.0, 1.0, 1.0),
    ] {
        close(Burst::new(phi).t(m), t);
    }
    close(Burst::new(3.0).b(), 1.82048);
    close(Burst::new(1.1).b(), 1.04921);
}

#[test]
fn multipliers_match() {
    for (n_c, n_s, r, q, m, w) in [
        (50.0, 950.0, 0.15, 5.0, 4.07071, 0.814141),
        (500.0, 500.0, 0.15, 5.0, 1.59259, 0.318519),
        (50.0, 950.0, 0.5, 100.0, 12.1302, 0.121302),
    ] {
        let got = multipliers(n_c, n_s, r, q);
        all_close(&[got.0, got.1], &[m, w]);
    }
}

#[test]
fn factors_match() {
    let f = |(x_c, n_c, x_s, n_s): (f64, f64, f64, f64), (r, a, q, phi): (f64, f64, f64, f64)| {
        let tolerance = Tolerance { relative: r, absolute: a };
        ln_factor(Counts::new(n_c, x_c), Counts::new(n_s, x_s), tolerance, q, Burst::new(phi))
    };
    let r2 = (0.15, 2e-4, 5.0, 1.0);
    close(f((3.0, 50.0, 1.0, 950.0), r2), 3.97512);
    close(f((3.0, 50.0, 0.0, 950.0), r2), 4.18074);
    close(f((0.0, 50.0, 4.0, 950.0), r2), -0.853192);
    close(f((3.0, 50.0, 1.0, 950.0), (0.15, 2e-4, 5.0, 3.0)), 1.04485);
    close(f((30.0, 500.0, 2.0, 500.0), (0.5, 5e-4, 10.0, 1.0)), 9.53539);
    close(f((2.4, 50.0, 1.2, 950.0), (0.05, 1e-4, 30.0, 1.25)), 2.60967);
    assert_eq!(f((1.0, 0.0, 1.0, 950.0), r2), 0.0);
    let ceiling = |x, n, phi| ln_factor_one_sample(Counts::new(n, x), 0.0015, 10.0, Burst::new(phi));
    close(ceiling(4.0, 750.0, 1.0), -0.91466);
    close(ceiling(4.0, 750.0, 3.0), -3.93993);
    close(ceiling(0.0, 750.0, 1.0), -10.125);
}

#[test]
fn capital_is_placed_in_time() {
    for (t, placed) in [(50.0, 0.09375), (100.0, 0.1875), (150.0, 0.210938), (250.0, 0.240234)] {
        close(in_time(t, 100.0), placed);
    }
    assert_eq!(in_time(f64::NAN, 1.0), 0.0);
    assert!(in_time(1e300, 1.0) <= 0.25);
}

/// A run of class R2 with a known record of stable, no bursts, and 15 s windows.
struct Scored {
    guard: Guard,
    state: GuardState,
}

impl Scored {
    fn new() -> Self {
        let asked =
            Asked { name: "e".into(), signal: Signal::Errors, stops: true, limit: None, phi_floor: 1.0 };
        let guard = guards(&[asked], &chain(RiskClass::R2), false).remove(0);
        Self { guard, state: GuardState::default() }
    }

    fn bet(&mut self, x_c: f64, n_c: f64, x_s: f64, n_s: f64) -> f64 {
        self.state.exposed_seconds += 15.0;
        let sum = Carried { phi: 1.0, canary: (n_c, x_c), stable: (n_s, x_s), ..Carried::default() };
        let frozen = Frozen { bound: Some(0.0012), widen: 1.0 };
        let stand = Stand { weight: 0.05, next: 0.1, started: 1, watch: false, incident: false };
        self.state.bet(&self.guard, &sum, frozen, &stand);
        self.state.score(&self.guard, 3, None)
    }

    fn wealth(&self) -> (Vec<f64>, Vec<f64>) {
        let rows = &self.state.rows;
        (rows.iter().map(|r| r.comparison.sum()).collect(), rows.iter().map(|r| r.ceiling.sum()).collect())
    }
}

#[test]
fn scores_match() {
    let mut run = Scored::new();
    let score = run.bet(3.0, 50.0, 1.0, 950.0);
    let (comparison, ceiling) = run.wealth();
    all_close(&comparison, &[0.0743782, 0.0575821, 0.0713892]);
    all_close(&ceiling, &[0.103441, 0.0599649, 0.0676992]);
    close(score, 0.434455);
    let score = run.bet(4.0, 50.0, 1.0, 950.0);
    let (comparison, ceiling) = run.wealth();
    all_close(&comparison, &[58.9164, 52.8574, 66.4439]);
    all_close(&ceiling, &[3.48604, 4.01434, 4.01478]);
    close(score, 189.733);
    assert!(score >= STOP);

    let mut run = Scored::new();
    for _ in 0..20 {
        run.bet(0.0, 50.0, 1.0, 950.0);
    }
    let scores: Vec<f64> = (0..3).map(|_| run.bet(6.0, 50.0, 0.0, 950.0)).collect();
    all_close(&scores, &[0.0237194, 23.8433, 18355.9]);
}

#[test]
fn gates_match() {
    let play = |class, next, times: usize, (x_c, n_c, x_s, n_s): (f64, f64, f64, f64)| {
        let row = built_in(class);
        let mut gate = Gate::default();
        for _ in 0..times {
            gate.play(Counts::new(n_c, x_c), Counts::new(n_s, x_s), &row, next, Burst::NONE);
        }
        (gate.ln_mean(), gate.is_open(&row, next, n_c * times as f64))
    };
    let rows = |rows: &[RiskClass], next, times, counts| {
        let gates: Vec<_> = rows.iter().map(|class| play(*class, next, times, counts)).collect();
        (gates.iter().map(|gate| gate.0).collect::<Vec<_>>(), gates.iter().all(|gate| gate.1))
    };
    let r0 = [RiskClass::R0];
    let once = rows(&r0, 0.5, 1, (0.0, 100.0, 0.0, 900.0));
    all_close(&once.0, &[1.38629]);
    assert!(!once.1);
    let ten = rows(&r0, 0.5, 10, (0.0, 10.0, 0.0, 90.0));
    all_close(&ten.0, &[4.17755]);
    assert!(ten.1);
    let r2 = &RiskClass::ALL[..3];
    let open = rows(r2, 0.33, 10, (0.0, 100.0, 0.0, 900.0));
    all_close(&open.0, &[13.8629, 13.1790, 3.71240]);
    assert!(open.1);
    let shut = rows(r2, 0.33, 10, (1.0, 100.0, 1.0, 900.0));
    all_close(&shut.0, &[13.5753, 2.48283, -2.80357]);
    assert!(!shut.1);
    let r4 = rows(&RiskClass::ALL, 1.0, 20, (0.0, 1000.0, 0.0, 3000.0));
    all_close(&r4.0, &[27.7259, 27.4382, 26.3491, 6.73161, 3.86220]);
    assert!(!r4.1);
}

#[test]
fn bounds_match() {
    close(upper_bound(Counts::new(45_000.0, 45.0), 1.0), 0.00140528);
    close(upper_bound(Counts::new(1_000.0, 0.0), 1.0), 0.00461025);
    close(upper_bound(Counts::new(45_000.0, 45.0), 3.0), 0.00178357);
    assert_eq!(upper_bound(Counts::new(0.0, 0.0), 1.0), 1.0);
}

#[test]
fn clusters_match() {
    let (single, phi, block) = bursts::vectors();
    close(single[0], 16.6667);
    all_close(&single[1..], &[0.666667, 0.0, -0.666667]);
    close(phi, 1.03125);
    close(block, 0.666667);
    let pods = [10.0, 30.0, 12.0, 40.0, 8.0].map(|x| (1000.0, x));
    close(bursts::pod_spread(pods.into_iter(), 1.0), 0.603324);
    close(bursts::Bursts::default().phi(), 1.1);
}

/// 50 requests a second, 0.1 % of them failing, a bound of 0.12 %.
fn traffic() -> Traffic {
    Traffic {
        per_second: 50.0,
        stable: 0.001,
        bound: Some(0.0012),
        phi: 1.0,
        widen: 1.0,
        window_seconds: 15.0,
        act_seconds: 10.0,
    }
}

#[test]
fn plans_match() {
    let mut guard = Scored::new().guard;
    // The published number has three quarters of the capital at once.
    guard.rows.iter_mut().for_each(|row| row.steps = 1);
    let need = planner::until_stopped(&guard, &traffic(), 0.05, 0.01, Onset::Start);
    all_close(&[need.mean, need.p95], &[820.743, 1943.63]);
    let step = Step { weight: 0.05, exposure: 0.05, bake_seconds: 0.0 };
    let harm = planner::harm(&traffic(), &step, 0.01, need, Onset::Start);
    all_close(&[harm.seconds.mean, harm.excess.mean], &[345.797, 7.78044]);
}

/// The published table: the smallest rate that is stopped with 95 % after so many canary requests, in percent.
#[test]
fn the_smallest_fault_that_is_stopped() {
    for (class, rates) in [
        (RiskClass::R0, [9.5, 2.8, 1.15, 0.54, 0.33]),
        (RiskClass::R2, [9.0, 2.5, 0.98, 0.43, 0.25]),
        (RiskClass::R4, [8.1, 2.2, 0.85, 0.37, 0.22]),
    ] {
        let asked =
            Asked { name: "e".into(), signal: Signal::Errors, stops: true, limit: None, phi_floor: 1.0 };
        let mut guard = guards(&[asked], &chain(class), false).remove(0);
        guard.rows.iter_mut().for_each(|row| row.steps = 1);
        for (requests, rate) in [100.0, 500.0, 2_000.0, 10_000.0, 50_000.0].into_iter().zip(rates) {
            let seconds = requests / (50.0 * 0.05);
            let step = Step { weight: 0.05, exposure: 0.05, bake_seconds: seconds };
            let plan = planner::plan(&guard, &traffic(), &[step], 0.01);
            let got = plan.steps[0].smallest.unwrap() * 100.0;
            assert!((got / rate - 1.0).abs() < 0.05, "{class:?} after {requests}: {got} for {rate}");
        }
    }
}

#[test]
fn nonsense_bets_nothing() {
    let nan = Counts { n: f64::NAN, x: f64::NAN };
    let good = Counts::new(10.0, 1.0);
    let tolerance = Tolerance { relative: f64::NAN, absolute: f64::INFINITY };
    assert_eq!(ln_factor(nan, good, Tolerance::default(), 5.0, Burst::NONE), 0.0);
    assert_eq!(ln_factor_one_sample(nan, 0.1, 5.0, Burst::NONE), 0.0);
    assert_eq!(ln_factor_one_sample(good, f64::NAN, 5.0, Burst::NONE), 0.0);
    assert!(!ln_factor(good, good, tolerance, 5.0, Burst::new(f64::NAN)).is_nan());
    assert_eq!(multipliers(0.0, 0.0, 0.1, 5.0), (1.0, 1.0));
    assert_eq!(Counts::new(5.0, 9.0).x, 5.0);
    assert_eq!(Counts::new(-5.0, 9.0), Counts::default());
}
