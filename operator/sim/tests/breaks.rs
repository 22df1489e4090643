//! Stories of what is taken away, changed or left behind in the middle of a run.

mod common;

use common::{LONG, ends, last_run, reach, shipping, stable};
use serde_json::{Value, json};
use sluice_core::api::{LABEL_HASH, Outcome, Phase, Stage};
use sluice_sim::admission::Actor;
use sluice_sim::api::Res;
use sluice_sim::event::{Event, Verb};
use sluice_sim::fixture::{CANARY, NAME, STABLE};
use sluice_sim::world::World;

/// Takes the pair's backends out of a route, as a person who moves it to another Service does.
fn point_elsewhere(world: &mut World, route: &str) {
    let _ = world.api.update(Res::Route, route, Actor::Person, |route| {
        for rule in route["spec"]["rules"].as_array_mut().into_iter().flatten() {
            rule["backendRefs"] = json!([{"name": NAME, "port": 80}]);
        }
    });
}

#[test]
fn a_route_that_is_deleted_or_points_elsewhere_does_not_keep_a_run_for_ever() {
    for deleted in [true, false] {
        for (stage, step) in [(Stage::Preparing, 0), (Stage::Stepping, 1), (Stage::Watching, 2)] {
            let mut world = shipping("web:good-2");
            reach(&mut world, stage, step);
            world.disturb(1000);
            if deleted {
                let _ = world.api.delete(Res::Route, "web-admin", None);
            } else {
                point_elsewhere(&mut world, "web-admin");
            }
            world.happen(Event::Request(Verb::Abort));
            world.tick(200);
            assert!(world.run().is_none(), "{deleted} {stage:?}\n{}", world.story());
            world.happen(Event::DeleteRollout);
            world.tick(60);
            assert!(world.api.now.rollout.is_none(), "{deleted} {stage:?}\n{}", world.story());
        }
    }
}

#[test]
fn new_pods_that_are_not_ready_after_promotion_give_way_to_the_warm_ones() {
    let mut world = shipping("web:good-2");
    reach(&mut world, Stage::Watching, 2);
    world.tick(2);
    world.happen(Event::Flap(100));
    world.tick(30);
    assert_eq!(stable(&world), "web:good-1", "{}", world.story());
}

#[test]
fn pods_left_behind_by_a_late_write_do_not_serve_a_rejected_revision() {
    let mut world = shipping("web:bad-4");
    world.tick_until(60, |world| world.run().is_some_and(|run| run.stage == Stage::Stepping));
    let late: Option<Value> = world
        .api
        .now
        .list(Res::ReplicaSet)
        .find(|set| set["metadata"]["labels"]["sluice.dev/role"] == "canary")
        .map(|set| {
            let mut set = (***set).clone();
            set["spec"]["replicas"] = json!(1);
            set
        });
    ends(&mut world, Phase::Rejected);
    let at = world.now;
    world.hinder(0);
    world.truth.lawless = true; // for a moment
    let _ = world.api.create(Res::ReplicaSet, late.unwrap_or_default(), at);
    world.tick(20);
    assert!(world.pods.all.values().all(|pod| pod.image == "web:good-1"), "{}", world.story());
}

#[test]
fn a_canary_that_a_mutator_changed_is_taken_away_again() {
    let mut world = shipping("web:good-2");
    let there = world.tick_until(60, |world| {
        world
            .api
            .now
            .list(Res::ReplicaSet)
            .any(|set| set["metadata"]["labels"]["sluice.dev/role"] == "canary")
    });
    assert!(there);
    let name = world.run().map(|run| run.canary.replica_set.clone()).unwrap_or_default();
    world.truth.lawless = true; // a revision that nobody shipped has pods
    let _ = world.api.update(Res::ReplicaSet, &name, Actor::Native, |set| {
        set["spec"]["template"]["spec"]["containers"][0]["env"] = json!([{"name": "INJECTED", "value": "1"}]);
    });
    let rest = world.come_to_rest(LONG);
    assert!(rest.is_ok(), "{rest:?}\n{}", world.story());
    assert!(world.pods.all.values().all(|pod| pod.image == "web:good-1"), "{}", world.story());
}

#[test]
fn a_stable_service_that_somebody_un_pins_is_pinned_again() {
    let mut world = shipping("web:good-2");
    reach(&mut world, Stage::Stepping, 0);
    world.truth.foreign = true;
    world.disturb(60);
    let _ = world.api.update(Res::Service, STABLE, Actor::GitOps, |service| {
        service["spec"]["selector"] = json!({"app": NAME});
    });
    world.happen(Event::Request(Verb::Pause));
    world.tick(3);
    let pin = |world: &World, name: &str| {
        world.api.now.get(Res::Service, name).map(|s| s["spec"]["selector"][LABEL_HASH].clone())
    };
    let run = world.run().cloned();
    assert_eq!(pin(&world, STABLE), run.map(|run| json!(run.stable.hash)), "{}", world.story());
    assert!(pin(&world, CANARY).is_some());
}

#[test]
fn a_person_is_asked_before_the_first_step_too() {
    let mut world = World::enrolled();
    let _ = world.api.edit_rollout(|rollout| rollout.spec.limits.pause_before_percent = Some(5));
    world.apply("web:good-2", None, Some(false));
    world.tick(40);
    let run = world.run().cloned();
    assert_eq!(run.as_ref().map(|run| run.max_weight_percent), Some(0), "{}", world.story());
    assert_eq!(
        world.status().waiting.map(|wait| wait.reason).as_deref(),
        Some("PausedBeforePercent"),
        "{}",
        world.story()
    );
    world.happen(Event::Request(Verb::Resume));
    ends(&mut world, Phase::Idle);
    last_run(&world, Outcome::Promoted, "Proven");
}

#[test]
fn a_resume_before_the_gate_does_not_open_it() {
    let mut world = World::enrolled();
    let _ = world.api.edit_rollout(|rollout| rollout.spec.limits.pause_before_percent = Some(50));
    world.apply("web:good-2", None, Some(false));
    common::reach(&mut world, Stage::Stepping, 0);
    // It takes the place of a pause that was not seen yet.
    world.happen(Event::Request(Verb::Pause));
    world.happen(Event::Request(Verb::Resume));
    world.tick(40);
    assert_eq!(world.status().waiting.unwrap().reason, "PausedBeforePercent", "{}", world.story());
    let max = world.run().map(|run| run.max_weight_percent);
    assert_eq!(max, Some(10), "{}", world.story());
}

#[test]
fn a_deployment_that_is_created_again_midway_is_not_given_the_pods_of_the_old_one() {
    for orphan in [false, true] {
        for (stage, step) in common::MIDWAY {
            let mut world = shipping("web:good-2");
            reach(&mut world, stage, step);
            world.happen(Event::DeleteDeployment(orphan));
            world.happen(Event::CreateDeployment(2));
            let rest = world.come_to_rest(LONG);
            assert!(rest.is_ok(), "{orphan} {stage:?} {rest:?}\n{}", world.story());
            assert_eq!(stable(&world), "web:good-3", "{orphan} {stage:?}\n{}", world.story());
        }
    }
}
