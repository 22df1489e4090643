//! A canary that lost pods under traffic: the weight falls to what the ready ones can carry.

use crate::support::{Scene, endpoint_slice, events, going_back, lines};
use serde_json::json;
use sluice_core::api::{Outcome, WeightIntent};

/// In the step at 50 % of four pods: two canary pods are needed.
fn at_half() -> Scene {
    let mut scene = Scene::exposed();
    scene.route_shows(50);
    let now = scene.now;
    scene.change_run(|run| {
        run.step = 2;
        run.weight =
            Some(WeightIntent { percent: 50, at: now, accepted_at: Some(now), settled_at: Some(now) });
        run.max_weight_percent = 50;
    });
    ready(&mut scene, 2);
    scene.evidence(0.0, false);
    assert_eq!(lines(&scene.pass().actions), Vec::<String>::new());
    scene
}

/// So many of the canary's pods are ready; as many are wanted as before.
fn ready(scene: &mut Scene, pods: i32) {
    let wanted = scene.replica_sets.get(1).and_then(|set| set["spec"]["replicas"].as_i64()).unwrap_or(0);
    scene.canary_pods(pods);
    let replicas = wanted.max(i64::from(pods)).max(2);
    scene.replica_sets[1]["spec"]["replicas"] = json!(replicas);
    scene.slices[1] = endpoint_slice("web-canary", &scene.run().canary.replica_set, pods);
}

fn waits(scene: &Scene) -> String {
    scene.status().waiting.map(|waiting| waiting.reason).unwrap_or_default()
}

#[test]
fn a_short_restart_of_one_pod_moves_nothing() {
    let mut scene = at_half();
    for _ in 0..5 {
        ready(&mut scene, 1);
        for _ in 0..19 {
            assert_eq!(lines(&scene.pass().actions), Vec::<String>::new());
            assert_eq!(waits(&scene), "CanaryNotReady");
            scene.later(1);
        }
        ready(&mut scene, 2);
        scene.pass();
        assert_eq!(scene.run().weight.unwrap().percent, 50);
        scene.later(1);
    }
}

#[test]
fn the_weight_falls_to_what_ready_pods_carry_and_rises_again_with_them() {
    let mut scene = at_half();
    ready(&mut scene, 1);
    scene.pass();
    scene.later(20);
    let decision = scene.pass();
    assert_eq!(lines(&decision.actions), ["forward set-weights web 25%"]);
    assert_eq!((events(&decision), waits(&scene).as_str()), (vec!["WeightLowered"], "CanaryNotReady"));
    assert_eq!((scene.run().step, going_back(&decision)), (2, None));
    // It settles as any weight, and somebody who overwrites it is written over.
    scene.route_shows(25);
    scene.pass();
    scene.later(5);
    assert_eq!(events(&scene.pass()), ["TrafficShifted"]);
    scene.route_shows(0);
    assert_eq!(lines(&scene.pass().actions), ["forward set-weights web 25%"]);
    scene.route_shows(25);
    scene.pass();
    // No gate that opened at the lower weight passes the step; the pods come back, and with them the weight.
    scene.evidence(100_000.0, true);
    assert_eq!(lines(&scene.pass().actions), Vec::<String>::new());
    ready(&mut scene, 2);
    assert_eq!(lines(&scene.pass().actions), ["forward set-weights web 50%"]);
    assert_eq!((scene.run().step, scene.run().lowered), (2, 1));
}

#[test]
fn pods_that_do_not_come_back_end_the_run_at_their_deadline() {
    let mut scene = at_half();
    ready(&mut scene, 1);
    scene.pass();
    scene.later(20);
    scene.pass();
    scene.route_shows(25);
    scene.later(579);
    assert_eq!(going_back(&scene.pass()), None);
    scene.later(1);
    assert_eq!(going_back(&scene.pass()), Some((Outcome::Rejected, "ProgressDeadlineExceeded".to_owned())));
}

#[test]
fn pods_that_come_and_go_take_the_weight_down_twice_and_then_back() {
    let mut scene = at_half();
    for time in 1..=3 {
        ready(&mut scene, 1);
        scene.pass();
        scene.later(20);
        let decision = scene.pass();
        if time == 3 {
            let why = Some((Outcome::NotProven, "CanaryUnavailable".to_owned()));
            assert_eq!(going_back(&decision), why);
            assert_eq!(lines(&decision.actions), ["abort set-weights web 0%"]);
            break;
        }
        assert_eq!(lines(&decision.actions), ["forward set-weights web 25%"], "{time}");
        scene.route_shows(25);
        ready(&mut scene, 2);
        scene.pass();
        assert_eq!(scene.run().weight.unwrap().percent, 50, "{time}");
        scene.route_shows(50);
        scene.pass();
    }
}

#[test]
fn a_quarter_of_the_pods_may_be_missing() {
    for (size, pods, percent) in [(8, 3, None), (8, 2, Some(25)), (100, 38, None), (100, 37, Some(37))] {
        let mut scene = at_half();
        scene.workload()["spec"]["replicas"] = json!(size);
        scene.replica_sets[0]["status"]["availableReplicas"] = json!(size);
        scene.change_run(|run| run.stable_size = Some(size));
        ready(&mut scene, size / 2);
        scene.pass();
        ready(&mut scene, pods);
        scene.pass();
        scene.later(20);
        let decision = scene.pass();
        let weight = percent.map(|percent| format!("forward set-weights web {percent}%"));
        let moved: Vec<String> =
            lines(&decision.actions).into_iter().filter(|line| line.contains("weights")).collect();
        assert_eq!(moved, weight.into_iter().collect::<Vec<_>>(), "{pods} of {size}");
    }
}

#[test]
fn stable_that_lacks_pods_itself_takes_nothing_more() {
    let mut scene = at_half();
    // The workload grows tenfold: neither has its pods yet.
    scene.workload()["spec"]["replicas"] = json!(40);
    scene.pass();
    scene.later(30);
    let decision = scene.pass();
    assert_eq!(going_back(&decision), None);
    assert_eq!(scene.run().weight.unwrap().percent, 50);
    // Stable has them, the canary does not.
    scene.replica_sets[0]["status"]["availableReplicas"] = json!(40);
    scene.pass();
    scene.later(20);
    scene.pass();
    assert_eq!(scene.run().weight.unwrap().percent, 5);
}

#[test]
fn a_canary_that_carries_less_than_a_percent_goes_back() {
    let mut scene = at_half();
    scene.workload()["spec"]["replicas"] = json!(400);
    scene.replica_sets[0]["status"]["availableReplicas"] = json!(400);
    scene.change_run(|run| run.stable_size = Some(400));
    ready(&mut scene, 3);
    scene.pass();
    scene.later(20);
    assert_eq!(going_back(&scene.pass()), Some((Outcome::NotProven, "CanaryUnavailable".to_owned())));
}
