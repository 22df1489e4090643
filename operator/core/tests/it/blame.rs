//! A revision that was judged at weight 100, with no stable beside it, is blamed only once stable was judged by itself.

use crate::support::windows::{evaluate, pod};
use crate::support::{Scene, WEB, events, service};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use sluice_core::api::{GoingBack, Outcome, Run, Stage};
use sluice_core::evidence::{Arm, EvidenceState};
use sluice_core::verdict::{Verdict, Why};

/// A guard tripped at this weight, and everything is back in order; only the word on the revision is left.
fn back(percent: i32, reason: &str) -> Scene {
    let mut scene = Scene::exposed();
    scene.change_run(|run| {
        let last = i32::try_from(run.plan.steps.len()).unwrap() - 1;
        run.step = if percent == 100 { last } else { 0 };
        run.max_weight_percent = percent;
        if let Some(weight) = &mut run.weight {
            weight.percent = percent;
        }
    });
    scene.evidence(0.0, false);
    scene.route_shows(percent);
    scene.verdict.abort = Some(Why { reason: reason.to_owned(), message: "error-rate 40/200".to_owned() });
    scene.pass();
    scene.route_shows(0);
    scene.pass();
    scene.later(31);
    scene.pass();
    let canary = scene.run().canary.replica_set;
    scene.replica_sets.retain(|set| set["metadata"]["name"] != json!(canary));
    scene.services[1] = service("web-stable", json!({"app": WEB}));
    scene.services[2] = service("web-canary", json!({"app": WEB, "pod-template-hash": "none"}));
    scene
}

/// Passes until the run is over, at most so many seconds after the traffic is back; the second of its end.
fn until_over(scene: &mut Scene, seconds: i64) -> Option<i64> {
    let back_at = scene.run().going_back.unwrap().back_at.unwrap();
    loop {
        scene.pass();
        let gone = scene.now.duration_since(back_at).as_secs();
        if scene.status().run.is_none() {
            return Some(gone);
        }
        if gone > seconds {
            return None;
        }
        scene.later(5);
    }
}

#[test]
fn the_word_waits_for_five_minutes_and_nothing_else_does() {
    let mut scene = back(100, "GuardTripped");
    let decision = scene.pass();
    assert!(decision.actions.is_empty(), "{:?}", decision.actions);
    let waiting = scene.status().waiting.unwrap();
    assert_eq!(waiting.reason, "JudgingStable");
    let run = scene.run();
    let until = run.going_back.unwrap().back_at.unwrap() + SignedDuration::from_secs(305);
    assert_eq!(waiting.deadline, Some(until));
    assert!(run.exposed_until.is_some(), "traffic is back");
    let over = until_over(&mut scene, 600).unwrap();
    assert!((305..=310).contains(&over), "{over}");
    let record = scene.status().history[0].clone();
    assert_eq!((record.outcome, record.reason.as_str()), (Outcome::Rejected, "GuardTripped"));
    assert_eq!(scene.status().quarantine.len(), 1);
}

#[test]
fn nobody_is_blamed_for_what_stable_does_too() {
    let mut scene = back(100, "GuardTripped");
    scene.verdict.stable_too = Some("error-rate: stable fails 9% of 3000 requests".to_owned());
    assert!(until_over(&mut scene, 600).unwrap() >= 305, "five minutes are judged, not the first of them");
    let status = scene.status();
    let record = &status.history[0];
    assert_eq!((record.outcome, record.reason.as_str()), (Outcome::NotProven, "SharedIncident"));
    assert!(record.message.contains("stable fails 9%") && record.message.contains("error-rate 40/200"));
    assert!(status.quarantine.is_empty());
    let ended = status.held.unwrap().ended.unwrap();
    assert_eq!((ended.outcome, ended.reason.as_str()), (Outcome::NotProven, "SharedIncident"));
    // It is held until a person lets it go on.
    scene.later(60);
    scene.pass();
    assert_eq!(scene.status().run, None);
    scene.request(&format!("retry/{}", ended.run_id));
    scene.pass();
    assert!(scene.status().run.is_some(), "{:?}", scene.status().waiting);
}

#[test]
fn only_a_guard_at_weight_100_is_judged_again() {
    for (percent, reason) in [(5, "GuardTripped"), (100, "AlertFired")] {
        let mut scene = back(percent, reason);
        scene.verdict.stable_too = Some("stable fails".to_owned());
        let over = until_over(&mut scene, 600).unwrap();
        assert!(over < 60, "{reason} at {percent}: {over}");
        assert_eq!(scene.status().history[0].outcome, Outcome::Rejected);
    }
}

#[test]
fn a_restart_waits_for_its_first_look_and_no_longer() {
    let mut scene = back(100, "GuardTripped");
    scene.verdict = Verdict::default();
    let over = until_over(&mut scene, 600).unwrap();
    assert!((365..=370).contains(&over), "{over}");
    assert_eq!(scene.status().history[0].outcome, Outcome::Rejected, "without evidence the blame stays");
}

#[test]
fn another_template_or_a_removal_does_not_wait() {
    let mut scene = back(100, "GuardTripped");
    scene.apply(crate::support::template("app:3"));
    assert!(until_over(&mut scene, 600).unwrap() < 60);
    let mut scene = back(100, "GuardTripped");
    scene.releasing = true;
    assert!(until_over(&mut scene, 600).unwrap() < 60);
    assert!(!events(&scene.pass()).contains(&"Rejected"));
}

/// Judges a run with a stable record of 0.1 %, whose canary fails `canary` of each 1000 requests at weight 100 until it is
/// taken back, and stable `stable` of them from then on, with an evaluation every 15 s; `restart`: as stored in between.
fn judged(canary: f64, stable: f64, restart: bool) -> Verdict {
    let mut run: Run = Scene::exposed().run();
    run.released = true;
    run.max_weight_percent = 100;
    let start = run.weight.unwrap().settled_at.unwrap();
    let mut state = EvidenceState::default();
    let mut verdict = Verdict::default();
    let mut counted = [(0.0, 0.0); 2];
    for window in -240..60_i64 {
        let now: Timestamp = start + SignedDuration::from_secs(15 * window);
        let back = window >= 30;
        if window == 0 {
            run.stage = Stage::Watching;
        }
        if window == 30 {
            assert_eq!(verdict.abort.is_some(), canary > 0.01);
            run.stage = Stage::Returning;
            run.going_back = Some(GoingBack {
                outcome: Outcome::Reverted,
                reason: "GuardTripped".to_owned(),
                message: String::new(),
                since: now,
                judges_stable: true,
                back_at: Some(now + SignedDuration::from_secs(10)),
                verified_at: None,
            });
        }
        let serves = usize::from(window > 0 && !back);
        counted[serves].0 += 1000.0;
        counted[serves].1 += match (serves, back) {
            (1, _) => 1000.0 * canary,
            (_, true) => 1000.0 * stable,
            (_, false) => 1.0,
        };
        let mut pods = vec![pod(Arm::Stable, "s", counted[0], now)];
        if window >= 0 {
            pods.push(pod(Arm::Canary, "c", counted[1], now));
        }
        verdict = evaluate(&run, pods, window < 0, now, &mut state, restart);
    }
    verdict
}

#[test]
fn stable_is_judged_by_what_the_revision_was_held_against() {
    let too = judged(0.05, 0.05, true).stable_too.unwrap();
    assert!(too.starts_with("error-rate: stable fails 5% of 28000 requests"), "{too}");
    assert_eq!(judged(0.05, 0.05, false).stable_too, Some(too));
    assert_eq!(judged(0.05, 0.001, true).stable_too, None, "the fault was the revision's");
    assert_eq!(judged(0.001, 0.05, true).stable_too, None, "nothing stood against it");
}
