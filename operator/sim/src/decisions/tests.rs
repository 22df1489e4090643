//! What the simulated counters show, and whole runs.

use sluice_core::api::RiskClass;
use sluice_core::statistics::Cell;

use super::draw::Draw;
use super::rollout::{self, Ending, Rollout};
use super::scenario::{Scenario, sum_up};
use super::traffic::{Common, Failures, Fault, Scrape, Stream, Traffic, WINDOW};
use super::{run, scenarios, work};

/// Counts of one pod by window: `(n, x)`.
fn windows(traffic: Traffic, count: u32, cells: impl Fn(&Stream) -> &[Cell]) -> Vec<(f64, f64)> {
    let mut stream = Stream::new(traffic, Draw::new(7, "traffic", 0), 0.0, 14_400.0);
    (0..count)
        .map(|window| {
            stream.play(f64::from(window) * WINDOW, 0.1);
            let sum = |of: fn(&Cell) -> f64| cells(&stream).iter().map(of).sum();
            (sum(|cell| cell.n), sum(|cell| cell.x))
        })
        .collect()
}

fn canary(stream: &Stream) -> &[Cell] {
    &stream.canary
}

fn stable(stream: &Stream) -> &[Cell] {
    &stream.stable
}

fn mean(values: impl Iterator<Item = f64> + Clone) -> f64 {
    values.clone().sum::<f64>() / values.count() as f64
}

/// Mean, and variance over mean.
fn spread(values: &[(f64, f64)]) -> (f64, f64) {
    let average = mean(values.iter().map(|value| value.1));
    (average, mean(values.iter().map(|value| (value.1 - average).powi(2))) / average)
}

fn near(got: f64, want: f64, by: f64) {
    assert!((got / want - 1.0).abs() < by, "got {got}, want {want}");
}

const BUSY: Traffic = Traffic { rps: 100.0, rate: 0.02, ..Traffic::STEADY };

#[test]
fn arms_get_their_share_and_their_rate() {
    for (cells, requests, rate) in [(canary as fn(&Stream) -> &[Cell], 150.0, 0.06), (stable, 1350.0, 0.02)] {
        let seen = windows(Traffic { fault: Fault::Times(3.0), ..BUSY }, 2_000, cells);
        near(mean(seen.iter().map(|window| window.0)), requests, 0.02);
        near(spread(&seen).0, requests * rate, 0.03);
    }
}

#[test]
fn bursts_have_their_variance() {
    let of = |failures| spread(&windows(Traffic { failures, ..BUSY }, 4_000, stable));
    for (failures, mean, phi) in [
        (Failures::Independent, 27.0, 1.0),
        (Failures::PodBursts(3.0), 27.0, 3.0),
        (Failures::ArmBursts(10.0), 27.0, 10.0),
    ] {
        let got = of(failures);
        near(got.0, mean, 0.05);
        near(got.1, phi, 0.12);
    }
    near(of(Failures::Clusters(2.5)).0, 27.0, 0.05);
    // Once an hour a minute at 20 %: 1/61 of the time 10 times the rate.
    near(
        of(Failures::Episodes { per_hour: 1.0, seconds: 60.0, rate: 0.2 }).0,
        27.0 * (1.0 + 9.0 / 61.0),
        0.05,
    );
}

#[test]
fn what_befalls_both_befalls_both() {
    let jump = Traffic { common: Common::Jump { at: 7_507.5, before: 0.0, after: 5.0 }, ..BUSY };
    for cells in [canary as fn(&Stream) -> &[Cell], stable] {
        let seen = windows(jump, 1_000, cells);
        assert!(seen[..500].iter().all(|window| window.1 == 0.0));
        near(mean(seen[501..].iter().map(|window| window.1 / window.0)), 0.1, 0.05);
    }
    for (common, factor) in [
        (Common::Incidents { seconds: 120.0, factor: 40.0 }, 1.0 + 39.0 / 30.0),
        (Common::Incident { seconds: 300.0, factor: 40.0 }, 1.0 + 39.0 / 48.0),
    ] {
        let seen = windows(Traffic { common, ..BUSY }, 960, stable);
        near(mean(seen.iter().map(|window| window.1 / window.0)), 0.02 * factor, 0.05);
    }
}

#[test]
fn late_and_missed_scrapes_lose_nothing() {
    for scrape in [Scrape::Missed(0.3), Scrape::Phases, Scrape::CanaryLate] {
        let seen = windows(Traffic { scrape, ..BUSY }, 2_000, canary);
        near(mean(seen.iter().map(|window| window.0)), 150.0, 0.02);
        near(spread(&seen).0, 3.0, 0.06);
    }
    assert_eq!(windows(Traffic { scrape: Scrape::CanaryLate, ..BUSY }, 1, canary), [(0.0, 0.0)]);
}

#[test]
fn a_new_pod_is_cold_for_200_requests_unless_they_do_not_count() {
    let cold = Traffic { rate: 0.0, cold: 1.0, canary_pods: 3, ..BUSY };
    let sum = |traffic, cells| windows(traffic, 100, cells).iter().map(|window| window.1).sum::<f64>();
    assert_eq!(sum(cold, canary as fn(&Stream) -> &[Cell]), 600.0);
    assert_eq!(sum(Traffic { warmup: 200.0, ..cold }, canary), 0.0);
}

#[test]
fn excess_is_what_the_fault_adds() {
    let step = Traffic { fault: Fault::Step { at: 60.0, rate: 0.12 }, ..BUSY };
    near(step.excess(0.1, 0.0, 100.0), 100.0 * 0.1 * 0.1 * 40.0, 1e-9);
    let leak = Traffic { fault: Fault::Leak { seconds: 100.0, rate: 0.12 }, ..BUSY };
    near(leak.excess(0.1, 0.0, 200.0), 100.0 * 0.1 * 0.1 * 150.0, 1e-9);
    assert_eq!(BUSY.excess(0.1, 0.0, 100.0), 0.0);
}

#[test]
fn a_scenario_is_the_same_on_any_number_of_threads() {
    let scenario =
        scenarios::all().into_iter().find(|scenario| scenario.name.starts_with("0.1 -> 5 %")).unwrap();
    let played = |threads| {
        let known = run::known(&Scenario { oracles: false, ..scenario.clone() }, 1);
        work::each(4, threads, |number| {
            run::play(&Scenario { peers: false, ..scenario.clone() }, known, 1, number)
        })
    };
    assert_eq!(played(1), played(3));
    let results = sum_up(&scenario, &["R0".to_owned()], &played(1));
    let found = results[0].found.unwrap();
    assert_eq!((found.missed.of, found.missed.runs), (0, 4));
    assert!(found.delay < 300.0, "{}", found.delay);
}

#[test]
fn a_tighter_class_never_decides_later() {
    for scenario in
        scenarios::all().iter().filter(|scenario| scenario.fault_at() == Some(0.0) && scenario.share > 0.09)
    {
        let decided = run::play(&Scenario { seconds: 1_800.0, peers: false, ..scenario.clone() }, None, 1, 0);
        let late = |at: &Option<f64>| at.unwrap_or(f64::INFINITY);
        assert!(
            decided.at.windows(2).all(|pair| late(&pair[0]) >= late(&pair[1])),
            "{}: {decided:?}",
            scenario.name
        );
    }
}

#[test]
fn a_rollout_comes_to_the_right_end() {
    let play = |fault, outage| {
        let traffic = Traffic { rps: 50.0, rate: 0.001, fault, ..BUSY };
        let rollout = Rollout {
            name: "test".to_owned(),
            runs: 1,
            class: RiskClass::R0,
            traffic,
            outage,
            good: true,
            published: "",
        };
        let played = rollout::play(&rollout, 1, 0);
        assert!(!played.ungated && !played.blind);
        played
    };
    let good = play(Fault::Times(1.0), None);
    assert_eq!((good.ending, good.harm), (Ending::Promoted, 0.0));
    assert!((good.seconds / rollout::planned(RiskClass::R0) - 1.0).abs() < 0.2);
    assert_eq!(play(Fault::Times(50.0), None).ending, Ending::Aborted);
    assert_eq!(play(Fault::TimesFrom { share: 1.0, times: 20.0 }, None).ending, Ending::Reverted);
    // Longer than the class waits for data: 1 h, of a plan of 25 min.
    assert_eq!(play(Fault::Times(1.0), Some(1_400.0)).ending, Ending::Promoted);
    let idle = Rollout {
        name: "idle".to_owned(),
        runs: 1,
        class: RiskClass::R0,
        traffic: Traffic { rps: 0.0, ..BUSY },
        outage: None,
        good: true,
        published: "",
    };
    assert_eq!(rollout::play(&idle, 1, 0).ending, Ending::NotProven);
}
