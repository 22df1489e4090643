//! Going forward: what a step waits for, for how long, and where each wait ends.

use crate::support::{Scene, endpoint_slice, events, going_back, left, lines};
use jiff::SignedDuration;
use serde_json::json;
use sluice_core::api::{Outcome, Provenance, Stage};
use sluice_core::decide::Decision;

const HOUR: i64 = 3600;

fn waits(decision: &Decision) -> String {
    decision.status.waiting.as_ref().map(|waiting| waiting.reason.clone()).unwrap_or_default()
}

/// A template is applied: the order of the first writes. The shell does none that follows one that failed.
#[test]
fn a_canary_is_prepared_in_order() {
    let mut scene = Scene::running();
    let run = scene.run();
    let (stable, canary) = (run.stable.hash.clone(), run.canary.hash.clone());
    let create = format!("forward create-canary web-{canary}");
    assert_eq!(
        lines(&scene.pass().actions),
        ["forward select-service web-stable", "forward select-service web-canary", create.as_str()]
    );
    // It died between the pins and the pod.
    scene.pin(&stable, &canary);
    assert_eq!(lines(&scene.pass().actions), [create]);
    scene.canary_pods(0);
    let decision = scene.pass();
    assert_eq!((lines(&decision.actions), waits(&decision)), (vec![], "CanaryNotReady".to_owned()));
    scene.canary_pods(1);
    scene.slices[1] = endpoint_slice("web-canary", "", 0);
    assert_eq!(waits(&scene.pass()), "CanaryNotReady", "available is not enough: its endpoint must be ready");
    scene.canary_pods(1);
    scene.pass();
    assert_eq!(scene.run().stage, Stage::Stepping);
    let decision = scene.pass();
    assert_eq!(lines(&decision.actions), Vec::<String>::new(), "no weight before an evaluation with data");
    scene.evidence(0.0, false);
    let decision = scene.pass();
    assert_eq!(lines(&decision.actions), ["forward set-weights web 5%"]);
}

/// What the shell may decide on its stores: the preparation, until somebody is to meet the canary.
#[test]
fn only_what_nobody_meets_is_only_preparation() {
    let prepares = |scene: &Scene| scene.decide().only_prepares(Some(&scene.status()));
    let mut scene = Scene::held("app:2").declared(Provenance::Human);
    assert!(prepares(&scene), "the start, with its pins and its first pod");
    scene.pass();
    assert!(prepares(&scene));
    let (stable, canary) = (scene.run().stable.hash, scene.run().canary.hash);
    scene.pin(&stable, &canary);
    scene.canary_pods(1);
    scene.pass();
    assert!(prepares(&scene), "it is ready, and nothing was evaluated yet");
    scene.evidence(0.0, false);
    assert_eq!(lines(&scene.decide().actions), ["forward set-weights web 5%"]);
    assert!(!prepares(&scene), "a weight is asked for");
    let mut scene = Scene::exposed();
    assert!(!prepares(&scene), "somebody meets it");
    let run = scene.run().id;
    scene.request(&format!("abort/{run}"));
    assert!(!prepares(&scene), "the way back");
    assert!(!prepares(&Scene::enrolled()), "no run");
}

#[test]
fn a_weight_is_shown_accepted_and_settled_before_it_counts() {
    let mut scene = Scene::exposed();
    scene.change_run(|run| run.weight = None);
    scene.route_shows(0);
    assert_eq!(lines(&scene.pass().actions), ["forward set-weights web 5%"]);
    // Written, not yet seen by the gateway.
    scene.route_shows(5);
    scene.routes[0]["metadata"]["generation"] = json!(2);
    let decision = scene.pass();
    assert_eq!(waits(&decision), "WeightNotLive");
    assert_eq!(left(&scene, &decision), 60);
    scene.routes[0]["metadata"]["generation"] = json!(1);
    let decision = scene.pass();
    assert_eq!((waits(&decision), left(&scene, &decision)), ("Settling".to_owned(), 5));
    scene.later(5);
    let decision = scene.pass();
    assert_eq!(events(&decision), ["TrafficShifted"]);
    assert_eq!(events(&scene.pass()), Vec::<&str>::new());
}

#[test]
fn a_weight_that_no_gateway_accepts_goes_back() {
    let mut scene = Scene::exposed();
    scene.change_run(|run| run.weight = None);
    scene.pass();
    scene.routes[0]["metadata"]["generation"] = json!(2);
    scene.later(60);
    assert_eq!(going_back(&scene.pass()), Some((Outcome::NotProven, "WeightNotLive".to_owned())));
}

#[test]
fn a_step_needs_its_healthy_time_and_its_gate() {
    let mut scene = Scene::exposed();
    for (healthy, gate, reason) in
        [(0.0, false, "Baking"), (599.0, true, "Baking"), (600.0, false, "NotEnoughEvidence")]
    {
        scene.evidence(healthy, gate);
        let decision = scene.decide();
        assert_eq!(waits(&decision), reason, "{healthy} {gate}");
        assert_eq!(decision.status.run.unwrap().step, 0);
    }
    scene.evidence(600.0, true);
    let decision = scene.pass();
    assert_eq!(events(&decision), ["StepPassed"]);
    assert_eq!(scene.run().step, 1);
    // The verdict on the step before opens nothing.
    assert_eq!(scene.pass().status.run.unwrap().step, 1);
}

#[test]
fn too_little_evidence_ends_as_not_proven() {
    let mut scene = Scene::exposed();
    scene.evidence(600.0, false);
    let decision = scene.pass();
    let seconds = left(&scene, &decision);
    assert_eq!(seconds, 600 * 5);
    scene.later(seconds - 1);
    assert_eq!(going_back(&scene.decide()), None);
    scene.later(1);
    assert_eq!(going_back(&scene.pass()), Some((Outcome::NotProven, "NotEnoughEvidence".to_owned())));
}

#[test]
fn time_without_data_does_not_count_against_the_evidence() {
    let mut scene = Scene::exposed();
    scene.evidence(300.0, false);
    let limit = i64::from(scene.run().plan.no_data_seconds);
    scene.later(300);
    // Away for as long as it may be, less a second.
    let since = scene.now;
    scene.later(limit - 1);
    scene.verdict.no_data = Some((since, "Prometheus does not answer".to_owned()));
    scene.verdict.unseen_seconds = limit - 1;
    let decision = scene.pass();
    assert_eq!((waits(&decision), left(&scene, &decision)), ("NoData".to_owned(), 1));
    // It is known to a second only: what is said stays.
    scene.verdict.no_data = Some((since + SignedDuration::from_secs(1), "still not".to_owned()));
    assert_eq!(left(&scene, &scene.decide()), 1);
    scene.verdict.no_data = None;
    let decision = scene.pass();
    assert_eq!((waits(&decision), left(&scene, &decision)), ("Baking".to_owned(), 600 * 5 - 300));
    scene.later(600 * 5 - 301);
    assert_eq!(going_back(&scene.decide()), None);
    scene.later(1);
    assert_eq!(going_back(&scene.pass()), Some((Outcome::NotProven, "Baking".to_owned())));
}

#[test]
fn a_person_has_72_hours_and_the_evidence_gets_its_time_back() {
    let mut scene = Scene::exposed();
    scene.evidence(600.0, false);
    let id = scene.run().id;
    scene.request(&format!("pause/{id}"));
    let decision = scene.pass();
    assert_eq!((waits(&decision), left(&scene, &decision)), ("Paused".to_owned(), 72 * HOUR));
    // Long after the step's own deadline it goes on.
    scene.later(71 * HOUR);
    assert_eq!(waits(&scene.pass()), "Paused");
    scene.request(&format!("resume/{id}"));
    let decision = scene.pass();
    assert_eq!((waits(&decision), left(&scene, &decision)), ("NotEnoughEvidence".to_owned(), 600 * 5));
    // A second pause has 72 hours of its own.
    scene.request(&format!("pause/{id}"));
    let decision = scene.pass();
    assert_eq!((waits(&decision), left(&scene, &decision)), ("Paused".to_owned(), 72 * HOUR));
    scene.later(72 * HOUR);
    assert_eq!(going_back(&scene.pass()), Some((Outcome::NotProven, "Paused".to_owned())));
}

#[test]
fn a_gate_at_a_percentage_is_asked_for_once_the_step_is_over() {
    let mut scene = Scene::exposed();
    scene.change_run(|run| run.plan.pause_before_percent = Some(20));
    scene.evidence(10.0, false);
    assert_eq!(waits(&scene.pass()), "Baking");
    scene.later(100 * HOUR);
    let mut late = scene.clone();
    late.evidence(600.0, true);
    let decision = late.pass();
    assert_eq!((waits(&decision), left(&late, &decision)), ("PausedBeforePercent".to_owned(), 72 * HOUR));
    late.request(&format!("resume/{}", late.run().id));
    assert_eq!(late.pass().status.run.unwrap().step, 1);
}

#[test]
fn suspend_stops_the_weight_and_not_the_abort() {
    let mut scene = Scene::exposed();
    scene.evidence(600.0, true);
    scene.rollout.spec.suspend = true;
    assert_eq!(waits(&scene.pass()), "Suspended");
    assert_eq!(scene.run().step, 0);
    scene.request(&format!("abort/{}", scene.run().id));
    assert_eq!(lines(&scene.pass().actions), ["abort set-weights web 0%"]);
}

#[test]
fn pods_that_never_get_ready_end_the_run_with_their_own_reason() {
    for (reason, outcome, says) in [
        ("ImagePullBackOff", Outcome::Rejected, "ProgressDeadlineExceeded"),
        ("Unschedulable", Outcome::NotProven, "Unschedulable"),
    ] {
        let mut scene = Scene::running();
        let run = scene.run();
        scene.pin(&run.stable.hash, &run.canary.hash);
        scene.canary_pods(0);
        scene.pods = vec![match reason {
            "Unschedulable" => json!({"metadata": {"name": "web-canary-pod00"}, "status": {"conditions": [
                {"type": "PodScheduled", "status": "False", "message": "0/3 nodes are available"}]}}),
            waiting => crate::support::waiting_pod(waiting, "Back-off pulling image"),
        }];
        let decision = scene.pass();
        assert_eq!((waits(&decision), left(&scene, &decision)), ("CanaryNotReady".to_owned(), 600));
        let message = decision.status.waiting.unwrap().message;
        assert!(message.contains(&format!("pod web-canary-pod00 says {reason}")), "{message}");
        scene.later(600);
        let decision = scene.pass();
        assert_eq!(going_back(&decision), Some((outcome, says.to_owned())), "{reason}");
    }
}

#[test]
fn a_pod_that_is_replaced_late_in_a_step_has_its_own_deadline() {
    let mut scene = Scene::exposed();
    // The workload grows: the weight needs more pods than are there.
    scene.later(HOUR / 2);
    scene.workload()["spec"]["replicas"] = json!(40);
    scene.replica_sets[0]["status"]["availableReplicas"] = json!(40);
    let decision = scene.pass();
    assert_eq!(going_back(&decision), None);
    assert_eq!((waits(&decision), left(&scene, &decision)), ("CanaryNotReady".to_owned(), 600));
    scene.later(599);
    assert_eq!(going_back(&scene.pass()), None);
    // They are there in time; the next shortage has a deadline of its own.
    scene.canary_pods(2);
    scene.pass();
    scene.canary_pods(1);
    let decision = scene.pass();
    assert_eq!((waits(&decision), left(&scene, &decision)), ("CanaryNotReady".to_owned(), 600));
}

#[test]
fn a_route_that_is_overwritten_again_and_again_takes_the_canary_out() {
    let mut scene = Scene::exposed();
    for n in 1..=3 {
        scene.route_shows(0);
        let decision = scene.pass();
        assert_eq!(events(&decision), ["RouteOverwritten"], "{n}");
        let weight = if n < 3 { "forward set-weights web 5%" } else { "abort set-weights web 0%" };
        assert_eq!(lines(&decision.actions), [weight], "{n}");
        scene.route_shows(if n < 3 { 5 } else { 0 });
        scene.pass();
    }
    let decision = scene.pass();
    assert_eq!(waits(&decision), "RouteOverwritten");
    let seconds = left(&scene, &decision);
    scene.later(seconds);
    assert_eq!(going_back(&scene.pass()), Some((Outcome::NotProven, "RouteOverwritten".to_owned())));
}

#[test]
fn the_deadline_of_a_wait_does_not_move() {
    // A deadline that moved with the clock would be written on every pass, and never come.
    let mut scenes = vec![Scene::running(), Scene::exposed()];
    let mut promoting = Scene::exposed();
    promoting.change_run(|run| run.stage = Stage::Promoting);
    scenes.push(promoting);
    for mut scene in scenes {
        let first = scene.pass().status.waiting;
        scene.later(3);
        let second = scene.pass().status.waiting;
        let deadline = |waiting: &Option<sluice_core::api::Waiting>| {
            waiting.as_ref().map(|w| (w.reason.clone(), w.deadline, w.since))
        };
        assert_eq!(deadline(&first), deadline(&second));
    }
}

/// Without its pin stable's Service has canary pods behind it: the run ends when the pin can't be put back in time.
#[test]
fn a_lost_pin_is_put_back_or_ends_the_run() {
    let mut scene = Scene::exposed();
    let pinned = scene.services[1].clone();
    scene.services[1]["spec"]["selector"].as_object_mut().unwrap().remove("pod-template-hash").unwrap();
    let decision = scene.pass_without_invariants();
    assert_eq!(lines(&decision.actions), ["forward select-service web-stable"]);
    assert_eq!(waits(&decision), "PinningServices");
    let seconds = i64::from(scene.run().plan.no_data_seconds);
    assert_eq!(left(&scene, &decision), seconds);

    let mut mended = scene.clone();
    mended.later(seconds - 1);
    mended.services[1] = pinned;
    let decision = mended.pass();
    assert!(
        going_back(&decision).is_none() && waits(&decision) != "PinningServices",
        "{:?}",
        waits(&decision)
    );

    scene.later(seconds - 1);
    assert!(going_back(&scene.pass_without_invariants()).is_none());
    scene.later(1);
    let decision = scene.pass_without_invariants();
    let (outcome, reason) = going_back(&decision).unwrap();
    assert_eq!((outcome, reason.as_str()), (Outcome::NotProven, "PinLost"));
    let weights: Vec<String> =
        lines(&decision.actions).into_iter().filter(|l| l.contains("weights")).collect();
    assert_eq!(weights, ["abort set-weights web 0%"]);
    let message = &decision.status.run.unwrap().going_back.unwrap().message;
    assert!(message.contains("web-stable") && message.contains(&format!("{seconds} s")), "{message}");
}
