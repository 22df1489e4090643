//! What keeps a held template from starting: an alert that fires already, or not knowing whether one does.

use crate::support::{Scene, events, left, lines, stalled, template};
use serde_json::json;
use sluice_core::api::{AlertSource, GuardAction, Outcome, Provenance};
use sluice_core::decide::Decision;
use sluice_core::verdict::{AlertsAtRest, Verdict};

/// Five bakes of the first step of class R1.
const LIMIT: i64 = 3000;
const FIRING: &str =
    "pages: alert DiskFull fires since 2026-01-01T11:00:00Z (fingerprint f00d) severity=page";

/// `app:2` is held, and a guard watches alerts.
fn watched() -> Scene {
    let mut scene = Scene::held("app:2").declared(Provenance::Human);
    let guards = json!([
        {"name": "errors", "errorRatio": {}},
        {"name": "pages", "alert": {"matchers": [{"label": "severity", "value": "page"}]}},
    ]);
    scene.rollout.spec.guards = serde_json::from_value(guards).unwrap();
    scene.config.alertmanager = serde_json::from_value(json!({"url": "http://alertmanager:9093"})).unwrap();
    scene
}

/// A look at the alerts that was answered now.
fn look(scene: &mut Scene, firing: Option<&str>) {
    let at_rest =
        AlertsAtRest { read_at: Some(scene.now), firing: firing.map(ToOwned::to_owned), trouble: None };
    scene.verdict = Verdict { at_rest: Some(at_rest), ..Verdict::default() };
}

/// A look that failed, after one that may have been answered.
fn failed_look(scene: &mut Scene) {
    let before = scene.verdict.at_rest.take().unwrap_or_default();
    let trouble = Some("connection refused".to_owned());
    scene.verdict.at_rest = Some(AlertsAtRest { trouble, ..before });
}

fn waits(decision: &Decision) -> (String, String) {
    let waiting = decision.status.waiting.clone().unwrap();
    (waiting.reason, waiting.message)
}

#[test]
fn an_alert_that_fires_before_the_run_holds_its_start() {
    let mut scene = watched();
    look(&mut scene, Some(FIRING));
    let first = scene.pass();
    assert_eq!(events(&first), ["Held", "PreExistingAlert"]);
    for seconds in [0, 1, 60, 600] {
        scene.later(seconds);
        look(&mut scene, Some(FIRING));
        let decision = scene.pass();
        assert!(decision.status.run.is_none(), "it started");
        assert_eq!(lines(&decision.actions), Vec::<String>::new(), "nothing of the canary is made");
        assert_eq!(events(&decision), Vec::<&str>::new(), "it is told once");
        let (reason, message) = waits(&decision);
        assert_eq!((reason.as_str(), decision.status.phase.as_str()), ("PreExistingAlert", "Held"));
        assert!(message.starts_with(FIRING) && message.contains("at most 3000 s"), "{message}");
    }
    let decision = scene.decide();
    assert_eq!(left(&scene, &decision), LIMIT - 661, "the deadline does not move");
    scene.later(10);
    look(&mut scene, None);
    assert_eq!(events(&scene.pass()), ["RunStarted"]);
}

#[test]
fn alerts_of_prometheus_need_no_alertmanager() {
    let mut scene = watched();
    scene.config.alertmanager = None;
    look(&mut scene, None);
    let decision = scene.pass();
    assert_eq!(stalled(&decision).map(|(reason, _)| reason).as_deref(), Some("NoAlertmanager"));
    let mut scene = watched();
    scene.config.alertmanager = None;
    scene.rollout.spec.guards[1].alert.as_mut().unwrap().source = AlertSource::Prometheus;
    look(&mut scene, Some(FIRING));
    assert_eq!(waits(&scene.pass()).0, "PreExistingAlert", "it is watched all the same");
}

#[test]
fn not_knowing_whether_an_alert_fires_holds_the_start_too() {
    let mut scene = watched();
    // What was read before the template came says nothing about the moment of its start.
    look(&mut scene, None);
    scene.later(1);
    let decision = scene.pass();
    assert!(decision.status.run.is_none());
    assert_eq!(waits(&decision).0, "ReadingAlerts");
    scene.verdict = Verdict::default();
    assert_eq!(waits(&scene.pass()).0, "ReadingAlerts", "nobody has looked yet");
    failed_look(&mut scene);
    let (reason, message) = waits(&scene.pass());
    assert_eq!(reason, "AlertSourceMissing");
    assert!(message.contains("connection refused"), "{message}");
    // An answer counts for three looks; one failure in between changes nothing.
    look(&mut scene, Some(FIRING));
    scene.pass();
    for (seconds, reason) in [(44, "PreExistingAlert"), (1, "AlertSourceMissing")] {
        scene.later(seconds);
        failed_look(&mut scene);
        assert_eq!(waits(&scene.pass()).0, reason);
    }
    look(&mut scene, None);
    scene.pass();
    assert!(scene.status().run.is_some());
}

#[test]
fn the_wait_for_alerts_ends_as_not_proven_and_retry_tries_again() {
    for fires in [true, false] {
        let mut scene = watched();
        let looks = |scene: &mut Scene| if fires { look(scene, Some(FIRING)) } else { failed_look(scene) };
        looks(&mut scene);
        scene.pass();
        scene.later(LIMIT - 1);
        looks(&mut scene);
        assert!(stalled(&scene.pass()).is_none());
        scene.later(1);
        looks(&mut scene);
        let decision = scene.pass();
        let (reason, message) = stalled(&decision).unwrap();
        assert_eq!((reason.as_str(), decision.status.phase.as_str()), ("NotProven", "NotProven"));
        let why = if fires { "PreExistingAlert: pages: alert DiskFull" } else { "AlertSourceMissing" };
        assert!(message.contains(why) && message.contains("retry"), "{message}");
        let record = decision.status.history[0].clone();
        assert_eq!((record.outcome, record.max_weight_percent), (Outcome::NotProven, 0));
        assert_eq!((record.exposed_since, decision.status.run_count), (None, 1));
        assert!(decision.status.quarantine.is_empty(), "it is nobody's fault");
        assert_eq!(lines(&decision.actions), Vec::<String>::new());
        // Once the alert is over nothing happens before somebody asks.
        scene.later(60);
        look(&mut scene, None);
        assert!(scene.pass().status.run.is_none());
        scene.request(&format!("retry/{}", record.id));
        scene.pass();
        scene.later(1);
        look(&mut scene, None);
        scene.pass();
        assert!(scene.run().id.starts_with("2-"));
    }
}

#[test]
fn an_alert_and_a_source_that_take_turns_do_not_hold_for_ever() {
    let mut scene = watched();
    let mut seconds = 0;
    while stalled(&scene.pass()).is_none() {
        scene.later(30);
        seconds += 30;
        if seconds % 60 == 0 {
            look(&mut scene, Some(FIRING));
        } else {
            scene.verdict.at_rest = Some(AlertsAtRest { trouble: Some("down".into()), ..Default::default() });
        }
        assert!(scene.status().run.is_none());
        assert!(seconds <= LIMIT, "it waits for {seconds} s");
    }
    assert_eq!(seconds, LIMIT);
}

#[test]
fn a_process_that_has_just_begun_looks_before_it_gives_up() {
    let mut scene = watched();
    look(&mut scene, Some(FIRING));
    scene.pass();
    // Away for longer than the wait lasts; meanwhile the alert ended.
    scene.later(LIMIT + 600);
    scene.verdict = Verdict::default();
    let decision = scene.pass();
    assert!(stalled(&decision).is_none());
    look(&mut scene, None);
    scene.pass();
    assert!(scene.status().run.is_some());
    // If nobody ever looks, it ends all the same.
    let mut scene = watched();
    scene.pass();
    scene.later(2 * LIMIT);
    assert_eq!(stalled(&scene.pass()).unwrap().0, "NotProven");
}

#[test]
fn what_decides_nothing_holds_nothing() {
    // A guard that only observes.
    let mut scene = watched();
    scene.rollout.spec.guards[1].action = GuardAction::Observe;
    look(&mut scene, Some(FIRING));
    scene.pass();
    assert!(scene.status().run.is_some());
    // No guard on alerts: nobody looks.
    let mut scene = Scene::held("app:2").declared(Provenance::Human);
    scene.pass();
    assert!(scene.status().run.is_some());
    // Going back to a good revision is gated by nothing.
    let mut scene = watched();
    let good = scene.status().good[0].clone();
    scene.rollout.status.as_mut().unwrap().good[0].digest = sluice_core::digest::template(&template("app:2"));
    look(&mut scene, Some(FIRING));
    scene.pass();
    assert_ne!(good.digest, scene.run().canary.digest);
    assert_eq!(scene.run().plan.steps.len(), 1, "a return");
}
