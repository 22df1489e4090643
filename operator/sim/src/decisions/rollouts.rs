//! The list of whole rollouts, with the figures that were published for them.

use sluice_core::api::RiskClass;

use super::rollout::Rollout;
use super::traffic::{Fault, Traffic};

/// Classes by name.
fn name(class: RiskClass) -> &'static str {
    class.as_str()
}

/// All of them.
pub fn all() -> Vec<Rollout> {
    let rollout = |name, runs, class, traffic, good, published| Rollout {
        name,
        runs,
        class,
        traffic,
        outage: None,
        good,
        published,
    };
    let mut all = Vec::new();
    for class in RiskClass::ALL {
        for rate in [0.001, 0.01] {
            for rps in [5.0, 50.0, 500.0] {
                let published = match (class, rps) {
                    (RiskClass::R0 | RiskClass::R1, 5.0) => "promoted 1",
                    (RiskClass::R2, 5.0) => "promoted .93, in 3.3 h of 2.3",
                    (_, 5.0) => "mostly not proven",
                    (RiskClass::R3, 50.0) if rate < 0.005 => "promoted .95, in 6.2 h of 5",
                    _ => "promoted 1, in plan time",
                };
                let traffic = Traffic { rps, rate, ..Traffic::default() };
                let name = format!("{} good, {rps} rps, {} %", name(class), rate * 100.0);
                // 0 of 200 has an upper limit of 1.8 %.
                all.push(rollout(name, 200, class, traffic, true, published));
            }
        }
    }
    for class in RiskClass::ALL {
        for times in [2.0, 5.0, 10.0, 50.0] {
            for rps in [5.0, 50.0, 500.0] {
                let traffic = Traffic { rps, fault: Fault::Times(times), ..Traffic::default() };
                let name = format!("{} {times}x from the start, {rps} rps", name(class));
                all.push(rollout(name, 200, class, traffic, false, promoted(class, times, rps)));
            }
        }
    }
    for class in RiskClass::ALL {
        for (share, what, published) in [
            (0.5, "from 50 % on", "aborted 1, harm 20..30"),
            (1.0, "at 100 % only", "reverted 1, harm 22..34"),
        ] {
            let traffic = Traffic { fault: Fault::TimesFrom { share, times: 10.0 }, ..Traffic::default() };
            all.push(rollout(
                format!("{} 10x {what}, 50 rps", name(class)),
                200,
                class,
                traffic,
                false,
                published,
            ));
        }
    }
    for class in RiskClass::ALL {
        let name = format!("{} good, Prometheus down for 5 min, 50 rps", name(class));
        let played = rollout(name, 200, class, Traffic::default(), true, "");
        all.push(Rollout { outage: Some(300.0), ..played });
    }
    all
}

/// Share of bad canaries that were promoted.
fn promoted(class: RiskClass, times: f64, rps: f64) -> &'static str {
    match (times as u32, rps as u32, class) {
        (2, 50, RiskClass::R0) => "promoted 1",
        (2, 50, RiskClass::R1) => "promoted .99",
        (2, 50, RiskClass::R2) => "promoted .72",
        (2, 50, _) => "promoted 0",
        (2, ..) => "",
        (5, 5, RiskClass::R0) => "promoted .95",
        (5, 5, RiskClass::R1) => "promoted .19",
        (10, 5, RiskClass::R0) => "promoted .07",
        _ => "promoted 0",
    }
}
