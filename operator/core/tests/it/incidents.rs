//! Stable fails as well: nothing rises, nobody is blamed, and from class R2 on the canary makes room in the end.

use crate::support::windows::{evaluate, pod};
use crate::support::{Scene, events, going_back};
use jiff::{SignedDuration, Timestamp};
use sluice_core::api::{Outcome, Provenance, RiskClass, Stage};
use sluice_core::evidence::{Arm, EvidenceState};
use sluice_core::verdict::{Verdict, Why};

/// A run of this provenance's class at its first weight; the incident began so many seconds ago.
fn ill(provenance: Provenance, seconds: i64) -> Scene {
    let mut scene = Scene::exposed();
    let plan = Scene::held("app:2").declared(provenance).begun().run().plan;
    let now = scene.now;
    scene.change_run(|run| {
        run.plan = plan.clone();
        run.exposed_since = Some(now - SignedDuration::from_hours(1));
    });
    scene = scene.declared(provenance);
    scene.evidence(0.0, false);
    failing(&mut scene, seconds);
    scene
}

fn failing(scene: &mut Scene, seconds: i64) {
    let message =
        "errors: stable itself fails 9% of its requests in the last 5 min, against at most 0.2% before";
    scene.verdict.holds = vec![Why { reason: "SharedIncident".to_owned(), message: message.to_owned() }];
    scene.verdict.incident = Some((scene.now - SignedDuration::from_secs(seconds), scene.now));
}

#[test]
fn from_r2_on_it_makes_room_after_ten_minutes_without_blame() {
    let mut scene = ill(Provenance::Unknown, 599);
    assert!(scene.run().plan.risk_class >= RiskClass::R2);
    assert_eq!(going_back(&scene.pass()), None);
    let waiting = scene.status().waiting.unwrap();
    assert_eq!(waiting.reason, "SharedIncident");
    assert!(waiting.message.ends_with("returns to stable after 10 min of it without a break"), "{waiting:?}");
    assert_eq!(waiting.deadline, Some(scene.now + SignedDuration::from_secs(1)));
    scene.later(1);
    // Time alone is no evidence: the last evaluation was before.
    assert_eq!(going_back(&scene.pass()), None);
    failing(&mut scene, 600);
    let decision = scene.pass();
    assert_eq!(going_back(&decision), Some((Outcome::NotProven, "SharedIncident".to_owned())));
    assert_eq!(events(&decision), ["Aborted"]);
    let message = &decision.events[0].message;
    assert!(message.contains("stable itself fails 9%") && message.contains("for 10 min without a break"));
}

#[test]
fn a_break_starts_the_clock_again_and_a_milder_class_holds() {
    let mut scene = ill(Provenance::Unknown, 700);
    scene.verdict.incident = None;
    assert_eq!(going_back(&scene.pass()), None);
    let mut scene = ill(Provenance::Human, 5000);
    assert!(scene.run().plan.risk_class < RiskClass::R2);
    assert_eq!(going_back(&scene.pass()), None);
    let waiting = scene.status().waiting.unwrap();
    assert_eq!(waiting.reason, "SharedIncident");
    assert!(!waiting.message.contains("10 min"), "{waiting:?}");
    assert!(waiting.deadline.is_some(), "it ends by itself all the same");
}

#[test]
fn what_the_canary_can_not_have_caused_does_not_count() {
    // It began before anybody met the canary.
    let mut scene = ill(Provenance::Unknown, 3600);
    let now = scene.now;
    scene.change_run(|run| run.exposed_since = Some(now - SignedDuration::from_secs(300)));
    assert_eq!(going_back(&scene.pass()), None);
    // Nobody meets it now.
    let mut scene = ill(Provenance::Unknown, 3600);
    scene.change_run(|run| run.weight = None);
    assert_eq!(going_back(&scene.decide()), None);
    // It is about another step.
    let mut scene = ill(Provenance::Unknown, 3600);
    scene.verdict.at = Some((Stage::Stepping, 1));
    assert_eq!(going_back(&scene.pass()), None);
}

/// Plays windows of 15 s: an hour of health, then stable and canary fail alike, with a break at these windows.
fn incident(breaks: std::ops::Range<i64>, restart: bool, away: i64) -> Verdict {
    let run = Scene::exposed().run();
    let live = run.weight.unwrap().settled_at.unwrap();
    let mut state = EvidenceState::default();
    let mut verdict = Verdict::default();
    let (mut n, mut x) = (0.0, 0.0);
    for window in -240..60_i64 {
        let gap = if window >= 30 { away } else { 0 };
        let now: Timestamp = live + SignedDuration::from_secs(15 * window + gap);
        n += 1000.0;
        x += if window < 0 || breaks.contains(&window) { 1.0 } else { 100.0 };
        let pod = |arm, id: &str, part: f64| pod(arm, id, (n * part, x * part), now);
        let mut pods = vec![pod(Arm::Stable, "s1", 0.5), pod(Arm::Stable, "s2", 0.5)];
        if window >= 0 {
            pods.push(pod(Arm::Canary, "c1", 0.05));
        }
        verdict = evaluate(&run, pods, window < 0, now, &mut state, restart);
    }
    verdict
}

#[test]
fn its_clock_runs_in_the_state_and_ends_with_a_break() {
    let seconds = |verdict: Verdict| {
        assert_eq!(verdict.abort, None, "both fail alike");
        let (since, seen) = verdict.incident.unwrap();
        seen.duration_since(since).as_secs()
    };
    let whole = seconds(incident(0..0, false, 0));
    assert!((600..=60 * 15).contains(&whole), "{whole}");
    assert_eq!(seconds(incident(0..0, true, 0)), whole, "a restart forgets nothing");
    assert_eq!(seconds(incident(0..0, true, 120)), whole + 120, "nor a short absence");
    let broken = seconds(incident(10..35, true, 0));
    assert!(broken < 25 * 15, "{broken}");
    let away = seconds(incident(0..0, true, 900));
    assert!(away < whole - 25 * 15, "nobody saw whether it had a break: {away}");
}
