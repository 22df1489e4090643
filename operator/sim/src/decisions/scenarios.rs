//! The scenarios at a fixed share, with the figures that were published for them.
//!
//! Published figures are of another program with the same rules and other random numbers, 300 or 400 runs each.

use super::judges::Seen;
use super::scenario::{Kind, Scenario};
use super::traffic::{Common, Failures, Fault, Scrape, Traffic};

const HOUR: f64 = 3600.0;
const MINUTES_5: f64 = 300.0;
/// A pod for each arm.
const PLAIN: Traffic = Traffic { pods: 1, ..Traffic::STEADY };

/// All of them, in the order of the tables.
pub fn all() -> Vec<Scenario> {
    let mut all = good();
    all.extend(faults());
    all.extend(bursts());
    all.extend(nuisances());
    all
}

/// Good canaries, by rate of requests and of failures, and two mishaps that hit both arms alike.
fn good() -> Vec<Scenario> {
    let peers = |rate: f64, rps: f64| match (rate < 0.005, rps) {
        (true, 0.5) => "R0..R4 0; Argo .99 1 (.95: 1); Flagger 1/5: 1/1",
        (true, 5.0) => "R0..R3 0, R4 .003; Argo .99 .97 (.95: .95); Flagger 1/5: .97/.27",
        (true, 50.0) => "R0..R3 0, R4 .003; Argo .99 .90 (.95: 0); Flagger 1/5: .89/.09",
        (true, _) => "R0..R3 0, R4 .003; Argo .99 0 (.95: 0); Flagger 1/5: 0/0",
        (false, 50.0) => "R0..R3 0, R4 <=.003; Argo .99 1 (.95: .04); Flagger 1/5: 1/1",
        (false, 500.0) => "R0..R3 0, R4 <=.003; Argo .99 1 (.95: 0); Flagger 1/5: 1/1",
        (false, _) => "R0..R3 0, R4 <=.003; Argo .99 1 (.95: 1); Flagger 1/5: 1/1",
    };
    let scenario = |name, traffic, outage, published| Scenario {
        name,
        traffic,
        outage,
        seen: Seen::Alike,
        peers: true,
        covered: true,
        published,
        ..Scenario::default()
    };
    let mut all = Vec::new();
    for rate in [0.001, 0.01] {
        for rps in [0.5, 5.0, 50.0, 500.0] {
            let traffic = Traffic { rps, rate, ..PLAIN };
            let name = format!("good, {rps} rps, {} %", rate * 100.0);
            all.push(scenario(name, traffic, None, peers(rate, rps)));
        }
    }
    for rate in [0.001, 0.01] {
        let traffic = Traffic { rate, ..PLAIN };
        let percent = rate * 100.0;
        let name = format!("Prometheus down for 5 min, 50 rps, {percent} %");
        all.push(scenario(name, traffic, Some(MINUTES_5), "R0..R4 0; Argo 1; Flagger 1"));
        let common = Common::Incident { seconds: MINUTES_5, factor: 10.0 };
        let name = format!("both arms x10 for 5 min, 50 rps, {percent} %");
        all.push(scenario(
            name,
            Traffic { common, ..traffic },
            None,
            "R0..R4 0; Argo .99 1 (.95: 0); Flagger 1",
        ));
    }
    all
}

/// Steps and a leak. Harm is published as ratios to the SPRT's and the CUSUM's. They were found where
/// the burst factor was known to be 1; with ten stable pods again, because learning that costs time.
fn faults() -> Vec<Scenario> {
    let step = |rps: f64, share: f64, from: f64, to: f64, at: f64, published| {
        let late = if at > 0.0 { " after 1 h" } else { "" };
        Scenario {
            kind: Kind::Fault,
            name: format!("{} -> {} %{late}, {rps} rps, share {} %", from * 100.0, to * 100.0, share * 100.0),
            seconds: at + 4.0 * HOUR,
            share,
            traffic: Traffic { rps, rate: from, fault: Fault::Step { at, rate: to }, ..PLAIN },
            seen: Seen::Alike,
            peers: true,
            oracles: true,
            published,
            ..Scenario::default()
        }
    };
    let plain = vec![
        step(
            50.0,
            0.05,
            0.001,
            0.005,
            0.0,
            "SPRT 504 s, 5.1; R0 4.4/2.7 R2 2.5/1.5 R4 1.6/1.0; Argo .95 missed; Flagger 5 3.5",
        ),
        step(50.0, 0.5, 0.001, 0.005, 0.0, "SPRT 64 s, 7.4; R0 5.0/3.1 R2 2.7/1.7 R4 2.0/1.2; both missed"),
        step(
            5.0,
            0.05,
            0.001,
            0.01,
            0.0,
            "SPRT 1644 s, 3.7; R0 2.7/2.2 R2 2.0/1.6 R4 1.5/1.2; Argo .95 .3; Flagger 5 1.4",
        ),
        step(
            50.0,
            0.05,
            0.001,
            0.01,
            0.0,
            "SPRT 163 s, 3.9; R0 2.6/1.6 R2 1.9/1.2 R4 1.4/0.9; Argo .95 missed; Flagger 5 4.3",
        ),
        step(
            500.0,
            0.05,
            0.001,
            0.01,
            0.0,
            "SPRT 26 s, 8.1; R0 1.7/1.3 R2 1.4/1.1 R4 1.2/0.9; Argo .95 missed; Flagger 5 19",
        ),
        step(
            50.0,
            0.05,
            0.001,
            0.05,
            0.0,
            "SPRT 27 s, 4.6; R0 1.5/1.2 R2 1.3/1.0 R4 1.2/0.9; Argo .95 3.6; Flagger 5 9.9",
        ),
        step(
            50.0,
            0.05,
            0.0,
            0.005,
            0.0,
            "SPRT 94 s, 1.3; R0 5.5/3.2 R2 4.2/2.4 R4 3.2/1.9; Argo .95 missed; Flagger 5 17",
        ),
        step(
            50.0,
            0.05,
            0.001,
            0.01,
            HOUR,
            "SPRT 176 s, 4.2; R0 3.9/2.7 R2 3.0/2.1 R4 2.4/1.7; Argo .95 missed; Flagger 5 3.7",
        ),
        step(
            500.0,
            0.05,
            0.001,
            0.01,
            HOUR,
            "SPRT 26 s, 8.1; R0 2.9/2.2 R2 2.4/1.8 R4 2.0/1.5; Argo .95 missed; Flagger 5 19",
        ),
        Scenario {
            name: "leak, 0.1 -> 2 % in 2 h, 50 rps, share 5 %".into(),
            traffic: Traffic { fault: Fault::Leak { seconds: 2.0 * HOUR, rate: 0.02 }, ..PLAIN },
            ..step(50.0, 0.05, 0.001, 0.02, 0.0, "")
        },
    ];
    let ten_pods = |scenario: &Scenario| Scenario {
        name: format!("{}, 10 pods", scenario.name),
        traffic: Traffic { pods: 10, ..scenario.traffic },
        seen: Seen::Pods,
        peers: false,
        published: "",
        ..scenario.clone()
    };
    let pods: Vec<Scenario> = plain.iter().map(ten_pods).collect();
    plain.into_iter().chain(pods).collect()
}

/// Clusters of failures: false aborts by arm totals only and with pods, and how soon a fault of 10x is found.
fn bursts() -> Vec<Scenario> {
    let episodes = Failures::Episodes { per_hour: 1.0, seconds: 60.0, rate: 0.2 };
    // Name, failures, and for both settings: runs with pods, and what was published of R3.
    let models = [
        (
            "independent",
            Failures::Independent,
            [(400, ["", "R3 0", "R3 321 s"]), (400, ["", "R3 0", "R3 23 s"])],
        ),
        (
            "phi 3 per pod",
            Failures::PodBursts(3.0),
            [(400, ["R3 0", "R3 0", "R3 1480 s"]), (400, ["R3 0", "R3 0", "R3 79 s"])],
        ),
        // Where some aborts are expected the limit takes more runs to tell from 2 %.
        (
            "phi 10 per arm",
            Failures::ArmBursts(10.0),
            [(1500, ["R3 0", "R3 .007", "R3 3130 s"]), (1500, ["R3 0", "R3 .003", "R3 217 s"])],
        ),
        (
            "a pod 20 % bad for 1 min once an hour",
            episodes,
            [(400, ["R3 0", "R3 0", "R3 not in 2 h"]), (400, ["R3 .26", "R3 0", "R3 424 s"])],
        ),
        (
            "pods differ, sigma 0.3",
            Failures::PodsDiffer(0.3),
            [(1500, ["", "", ""]), (1500, ["R3 0", "R3 .003", "R3 80 s"])],
        ),
        (
            "pods differ, sigma 0.5",
            Failures::PodsDiffer(0.5),
            [(1500, ["", "", ""]), (3000, ["R3 .02", "R3 .01", "R3 233 s"])],
        ),
    ];
    let mut all = Vec::new();
    for (model, failures, settings) in models {
        for ((share, rate), (runs, [totals, pods, found])) in
            [(0.05, 0.001), (0.10, 0.01)].into_iter().zip(settings)
        {
            let traffic = Traffic { rate, failures, ..Traffic::default() };
            let setting = format!("{model}, share {} %, {} %", share * 100.0, rate * 100.0);
            let scenario = |what, traffic, published| Scenario {
                kind: Kind::Bursts,
                name: format!("{setting}, {what}"),
                share,
                traffic,
                published,
                ..Scenario::default()
            };
            all.push(Scenario { seen: Seen::Arms, ..scenario("arm totals only", traffic, totals) });
            all.push(Scenario { runs, covered: true, ..scenario("with pods", traffic, pods) });
            let bad = Traffic { fault: Fault::Times(10.0), ..traffic };
            all.push(Scenario { seconds: 2.0 * HOUR, ..scenario("with pods, 10x", bad, found) });
        }
    }
    all
}

/// One nuisance.
struct Nuisance {
    name: &'static str,
    /// On the traffic of each setting.
    traffic: fn(Traffic) -> Traffic,
    /// The same of requests of another kind, which have a guard of their own.
    other: Option<fn(Traffic) -> Traffic>,
    two_pods: bool,
    /// The share is larger than the weight says, by this factor.
    share: f64,
    /// Whether it is no excuse for a false abort.
    covered: bool,
    published: &'static str,
}

/// Whatever else may fall on one arm alone, each at three settings of which the worst was published.
fn nuisances() -> Vec<Scenario> {
    let plain = |name, traffic, published| Nuisance {
        name,
        traffic,
        other: None,
        two_pods: false,
        share: 1.0,
        covered: false,
        published,
    };
    let covered = |name, traffic| Nuisance { covered: true, ..plain(name, traffic, "0 / <=.1 / <=.3") };
    let two_pods = |name, traffic, published| Nuisance { two_pods: true, ..plain(name, traffic, published) };
    let list = [
        covered("load swings 3x", |t| Traffic { common: Common::Swings, ..t }),
        covered("wandering rate", |t| Traffic { common: Common::Wander, ..t }),
        covered("5 % of scrapes missed", |t| Traffic { scrape: Scrape::Missed(0.05), ..t }),
        Nuisance { share: 1.3, ..covered("share 30 % off", |t| t) },
        covered("stable 0 for 2 h, then normal", |t| Traffic { common: jump(2.0 * HOUR, 0.0, 1.0), ..t }),
        covered("dependency x2.5 for good", |t| Traffic { common: jump(HOUR, 1.0, 2.5), ..t }),
        covered("dependency x10 for good", |t| Traffic { common: jump(HOUR, 1.0, 10.0), ..t }),
        plain("mix 1.18x worse", |t| Traffic { fault: Fault::Times(1.18), ..t }, "0 / <=.1 / <=.3"),
        plain(
            "scrape phases, x50 for 2 min an hour",
            |t| Traffic { scrape: Scrape::Phases, common: X50, ..t },
            "0 / 0 / 0",
        ),
        plain(
            "canary a scrape late, x50 beginning at a scrape",
            |t| Traffic { scrape: Scrape::CanaryLate, common: X50, on_scrapes: true, ..t },
            ".3 / 1.3 / 2.0",
        ),
        plain(
            "canary a scrape late, x50 at any time",
            |t| Traffic { scrape: Scrape::CanaryLate, common: X50, ..t },
            "",
        ),
        plain("Pareto clusters 2.5", |t| Traffic { failures: Failures::Clusters(2.5), ..t }, "0 / 0 / .3"),
        plain("Pareto clusters 1.5", |t| Traffic { failures: Failures::Clusters(1.5), ..t }, ".5 / .5 / .8"),
        plain(
            "pod 100 % bad 15 s beginning at a scrape, 0.2 an hour",
            |t| Traffic { failures: pod_bad(0.2, 15.0, 1.0), on_scrapes: true, ..t },
            ".5 / .5 / .5",
        ),
        plain(
            "pod 100 % bad 15 s at any time, 0.2 an hour",
            |t| Traffic { failures: pod_bad(0.2, 15.0, 1.0), ..t },
            "",
        ),
        plain(
            "pod 20 % bad 1 min, 0.1 an hour",
            |t| Traffic { failures: pod_bad(0.1, 60.0, 0.2), ..t },
            "29 / 29 / 29",
        ),
        two_pods(
            "the same, 4 pods, two needed",
            |t| Traffic { failures: pod_bad(0.1, 60.0, 0.2), canary_pods: 4, ..t },
            "0",
        ),
        plain(
            "pod 5 % bad 5 min, 0.5 an hour",
            |t| Traffic { failures: pod_bad(0.5, 300.0, 0.05), ..t },
            "14 / 23 / 29",
        ),
        two_pods(
            "pod 5 % bad 5 min, 4 pods, two needed",
            |t| Traffic { failures: pod_bad(0.5, 300.0, 0.05), canary_pods: 4, ..t },
            "<=2",
        ),
        plain("cold start, 1 pod", |t| Traffic { cold: 0.01, ..t }, "4 / 6 / 7"),
        plain("cold start, 3 pods", |t| Traffic { cold: 0.01, canary_pods: 3, ..t }, "38 / 45 / 49"),
        plain(
            "cold start, 3 pods, warmupRequests 200",
            |t| Traffic { cold: 0.01, canary_pods: 3, warmup: 200.0, ..t },
            "0",
        ),
        plain(
            "mix 1.5x worse",
            |t| Traffic { fault: Fault::Times(1.5), ..t },
            ".1 %: 0 / 0 / 34; 1 %: 47 / 100 / 100",
        ),
        Nuisance {
            other: Some(|t| kind(t, 0.2, 0.425, 5.0 / 1.8)),
            ..plain("the same, a guard for each of two kinds", |t| kind(t, 0.8, 0.575, 1.0 / 1.8), "")
        },
    ];
    let settings = [(50.0, 0.001, 0.05), (500.0, 0.001, 0.05), (500.0, 0.01, 0.2)];
    let scenario = |nuisance: &Nuisance, (rps, rate, share): (f64, f64, f64)| Scenario {
        kind: Kind::Nuisance,
        name: format!("{}, {rps} rps, {} %, share {} %", nuisance.name, rate * 100.0, share * 100.0),
        share: share * nuisance.share,
        traffic: (nuisance.traffic)(Traffic { rps, rate, ..Traffic::default() }),
        other: nuisance.other.map(|other| other(Traffic { rps, rate, ..Traffic::default() })),
        two_pods: nuisance.two_pods,
        covered: nuisance.covered,
        published: nuisance.published,
        ..Scenario::default()
    };
    list.iter().flat_map(|nuisance| settings.map(|setting| scenario(nuisance, setting))).collect()
}

const X50: Common = Common::Incidents { seconds: 120.0, factor: 50.0 };

/// One kind of request: its part of what stable gets and of what the canary gets, and its rate of failures, of the mean.
fn kind(all: Traffic, of_stable: f64, of_canary: f64, rate: f64) -> Traffic {
    let (rps, canary_load) = (all.rps * of_stable, of_canary / of_stable);
    Traffic { rps, canary_load, rate: all.rate * rate, ..all }
}

fn jump(at: f64, before: f64, after: f64) -> Common {
    Common::Jump { at, before, after }
}

fn pod_bad(per_hour: f64, seconds: f64, rate: f64) -> Failures {
    Failures::Episodes { per_hour, seconds, rate }
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_are_unique() {
        let mut names: Vec<String> = super::all().into_iter().map(|scenario| scenario.name).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
