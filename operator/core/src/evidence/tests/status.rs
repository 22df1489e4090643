//! What is kept of a run: short, and read by later versions.

use super::support::*;
use crate::evidence::*;

#[test]
fn two_guards_with_twenty_pods_fit() {
    let mut evidence = EvidenceState::default();
    for name in ["error-rate", "error-rate-per-route"] {
        let mut b = Bench::new(GuardPlan { judged: judged(Some(0.01)), ..plan() });
        b.source = Source::default();
        for i in 0..80 {
            for pod in 0..20 {
                let arm = if pod < 5 { Arm::Canary } else { Arm::Stable };
                let hash = if pod < 5 { "7d4f9c6b58" } else { "5bd9c7f6d8" };
                let id = format!("checkout-service-{hash}-{pod:05}");
                b.source.serve(arm, &id, 12_345.0, f64::from(i % 7));
            }
            b.tick();
        }
        *evidence.guard_mut(name) = GuardState { name: name.into(), ..b.state };
    }
    let size = serde_json::to_string(&evidence).unwrap().len();
    println!("2 guards, 20 pods: {size} bytes");
    assert!(size < 12_288, "{size} bytes");
}

#[test]
fn state_is_found_by_name_and_made_once() {
    let mut e = EvidenceState::default();
    e.guard_mut("a").healthy_millis = 5;
    assert_eq!((e.guard_mut("a").healthy_millis, e.guards.len()), (5, 1));
    e.alert_mut("b").tripped = true;
    assert!(e.alert_mut("b").tripped && e.alerts.len() == 1);
    assert!(e.guard("b").is_none() && e.alert("a").is_none());
    assert_eq!(e.guard("a").map(|g| g.name.as_str()), Some("a"));
    assert_eq!(e.alert("b").map(|g| g.name.as_str()), Some("b"));
}

#[test]
fn an_empty_or_older_state_is_read() {
    let guard: GuardState = serde_json::from_str(r#"{"name":"a","someday":1,"healthyMillis":5}"#).unwrap();
    assert_eq!(guard, GuardState { name: "a".into(), healthy_millis: 5, ..GuardState::default() });
    assert_eq!(serde_json::from_str::<EvidenceState>("{}").unwrap(), EvidenceState::default());
}
