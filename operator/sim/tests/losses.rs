//! Stories of what others delete or take away: the Deployment, its ReplicaSets, the pair, routes and their backends.

mod common;

use common::{ends, last_run, reach, shipping, stable};
use serde_json::{Value, json};
use sluice_core::api::{ANNOTATION_TRAFFIC, Outcome, Phase, Stage};
use sluice_sim::admission::Actor;
use sluice_sim::api::Res;
use sluice_sim::event::{Event, Verb};
use sluice_sim::fixture::{CANARY, ROUTES, STABLE};
use sluice_sim::world::World;

#[test]
fn the_deployment_may_be_deleted_at_any_stage() {
    for orphan in [false, true] {
        for (stage, step) in common::MIDWAY {
            let mut world = shipping("web:good-2");
            reach(&mut world, stage, step);
            world.happen(Event::DeleteDeployment(orphan));
            ends(&mut world, Phase::Pending);
            last_run(&world, Outcome::Abandoned, "WorkloadGone");
        }
    }
}

#[test]
fn routes_that_are_deleted_on_the_way_back_are_not_waited_for() {
    for workload_too in [false, true] {
        for (stage, step) in [(Stage::Stepping, 1), (Stage::Watching, 2)] {
            let mut world = shipping("web:good-2");
            reach(&mut world, stage, step);
            world.happen(Event::Request(Verb::Abort));
            // As with a namespace: whatever is in it goes, in any order.
            for name in ROUTES {
                world.api.delete(Res::Route, name, None).unwrap();
            }
            if workload_too {
                world.happen(Event::DeleteDeployment(false));
            }
            let over =
                world.tick_until(180, |world| world.run().is_none() && !world.status().history.is_empty());
            assert!(over, "the run never ends\n{}", world.story());
            world.happen(Event::DeleteRollout);
            let let_go = world.tick_until(180, |world| world.api.now.rollout.is_none());
            assert!(let_go && world.violations.is_empty(), "{:?}\n{}", world.violations, world.story());
        }
    }
}

#[test]
fn a_service_of_the_pair_that_is_deleted_midway_is_made_again() {
    let stages = [
        (Stage::Preparing, 0),
        (Stage::Stepping, 1),
        (Stage::Promoting, 2),
        (Stage::Watching, 2),
        (Stage::Finishing, 2),
    ];
    for (stage, step) in stages {
        let mut world = shipping("web:good-2");
        reach(&mut world, stage, step);
        let before = selector(&world, "web-stable");
        world.happen(Event::DeleteService(true));
        world.tick(1);
        let after = selector(&world, "web-stable");
        let pinned = before.contains_key("pod-template-hash");
        assert!(after == before || !pinned, "{stage:?}: {before:?} became {after:?}\n{}", world.story());
        ends(&mut world, Phase::Idle);
        last_run(&world, Outcome::Promoted, "Proven");
        let told = world.log.iter().filter(|line| line.contains("event ServiceGone")).count();
        assert_eq!(told, 1, "{}", world.story());
    }
    // On the way back, too, at any moment, and after a promotion.
    for image in ["web:bad-4", "web:late-8"] {
        for stable in [true, false] {
            for second in 0..25 {
                let mut world = shipping(image);
                let gone =
                    world.tick_until(150, |world| world.run().is_some_and(|run| run.going_back.is_some()));
                assert!(gone, "{}", world.story());
                world.tick(second);
                world.happen(Event::DeleteService(stable));
                ends(&mut world, Phase::Rejected);
                assert_eq!(common::stable(&world), "web:good-1");
            }
        }
    }
}

fn selector(world: &World, service: &str) -> serde_json::Map<String, serde_json::Value> {
    let found = world.api.now.get(Res::Service, service);
    found.map(|service| sluice_sim::api::map(service, "/spec/selector")).unwrap_or_default()
}

#[test]
fn without_stables_replica_set_the_pods_that_are_left_serve() {
    for (stage, step) in [(Stage::Preparing, 0), (Stage::Stepping, 0), (Stage::Stepping, 2)] {
        let mut world = shipping("web:good-2");
        reach(&mut world, stage, step);
        world.tick(2);
        world.happen(Event::DeleteStable);
        world.tick(60);
        assert_eq!(world.status().phase, Phase::NotProven, "{}", world.story());
        last_run(&world, Outcome::NotProven, "StableGone");
        assert_eq!(world.status().waiting.unwrap().reason, "StableGone");
        let ready = |world: &World, image: &str| {
            world.pods.all.values().filter(|pod| pod.ready && pod.image == image).count()
        };
        assert_eq!(ready(&world, "web:good-2"), 4, "{}", world.story());
        // The stable template, applied again, is what the Deployment starts; our pods go once it is complete.
        world.apply("web:good-1", None, Some(false));
        for _ in 0..60 {
            world.tick(1);
            assert!(ready(&world, "web:good-2") + ready(&world, "web:good-1") >= 4, "{}", world.story());
        }
        ends(&mut world, Phase::Idle);
        assert_eq!(ready(&world, "web:good-1"), 4, "{}", world.story());
        assert_eq!(world.pods.all.len(), 4, "{}", world.story());
        // And the next one is tried against it.
        world.apply("web:good-3", None, Some(false));
        ends(&mut world, Phase::Idle);
        last_run(&world, Outcome::Promoted, "Proven");
        assert_eq!(stable(&world), "web:good-3");
    }
}

#[test]
fn after_promotion_a_lost_old_revision_is_not_returned_to() {
    let mut world = shipping("web:good-2");
    reach(&mut world, Stage::Watching, 2);
    world.happen(Event::DeleteStable);
    world.happen(Event::TurnBad);
    for _ in 0..80 {
        world.tick(1);
        let ready = world.pods.all.values().filter(|pod| pod.ready).count();
        assert_eq!(ready, 4, "{}", world.story());
    }
    last_run(&world, Outcome::Reverted, "GuardTripped");
    assert_eq!(world.status().phase, Phase::Rejected, "{}", world.story());
    world.apply("web:good-1", None, Some(false));
    ends(&mut world, Phase::Idle);
    assert_eq!(stable(&world), "web:good-1");
}

#[test]
fn a_canary_service_that_is_deleted_under_traffic_does_not_end_the_run() {
    for step in 0..3 {
        let mut world = shipping("web:good-2");
        reach(&mut world, Stage::Stepping, step);
        world.happen(Event::DeleteService(false));
        ends(&mut world, Phase::Idle);
        last_run(&world, Outcome::Promoted, "Proven");
        assert_eq!(world.status().run_count, 1, "{}", world.story());
    }
}

/// Somebody takes the stable Service out of these routes, so that all their requests go to the canary's.
fn take_stable_out(world: &mut World, routes: &[&str]) {
    world.truth.foreign = true;
    for name in routes {
        let _ = world.api.update(Res::Route, name, Actor::GitOps, |route| {
            for rule in route["spec"]["rules"].as_array_mut().into_iter().flatten() {
                if let Some(refs) = rule["backendRefs"].as_array_mut() {
                    refs.retain(|backend| backend["name"] != STABLE);
                    for backend in refs.iter_mut().filter(|backend| backend["name"] == CANARY) {
                        backend["weight"] = json!(1);
                    }
                }
            }
        });
    }
}

/// Images of the pods that requests by this Service meet.
fn images_behind(world: &World, service: &str) -> Vec<String> {
    let pods =
        world.router.wanted().and_then(|plane| plane.endpoints.get(service)).cloned().unwrap_or_default();
    let mut images: Vec<String> = pods.iter().map(|pod| world.pods.all[pod].image.clone()).collect();
    images.sort();
    images.dedup();
    images
}

#[test]
fn a_route_that_names_the_canary_service_alone_is_led_back_to_stable() {
    for routes in [&ROUTES[..1], &ROUTES[..]] {
        for (stage, step, reason) in [
            (Stage::Preparing, 0, "RouteMissingBackends"),
            (Stage::Stepping, 1, "RouteMissingBackends"),
            (Stage::Promoting, 2, "RouteMissingBackends"),
            (Stage::Watching, 2, "GuardTripped"),
        ] {
            let mut world = shipping("web:good-2");
            reach(&mut world, stage, step);
            take_stable_out(&mut world, routes);
            if stage == Stage::Watching {
                world.happen(Event::TurnBad);
            }
            let home = world.tick_until(180, |world| images_behind(world, CANARY) == ["web:good-1"]);
            assert!(home, "{stage:?}: traffic is not back\n{}", world.story());
            // At weight 100 stable is judged for five minutes before the revision is blamed.
            let seconds = if stage == Stage::Watching { 180 + 305 } else { 180 };
            let over = world.tick_until(seconds, |world| world.run().is_none());
            assert!(over, "{stage:?}: the run never ends\n{}", world.story());
            let status = world.status();
            assert_eq!(status.history[0].reason, reason, "{stage:?}\n{}", world.story());
            // Its requests are answered, by stable's pods, and status says what to write.
            world.tick(3);
            assert_eq!(images_behind(&world, CANARY), ["web:good-1"], "{stage:?}\n{}", world.story());
            let said = world.status().waiting.unwrap();
            assert_eq!(said.reason, "RouteMissingBackends", "{stage:?}\n{}", world.story());
            assert!(said.message.contains("add a backendRef web-stable"), "{}", said.message);
            // Once the route is corrected everything is in order.
            for name in ROUTES {
                let _ = world.api.update(Res::Route, name, Actor::GitOps, |route| {
                    route["spec"] = sluice_sim::fixture::route(name)["spec"].clone();
                });
            }
            world.truth.foreign = false;
            let blocked = if stage == Stage::Watching { Phase::Rejected } else { Phase::NotProven };
            ends(&mut world, blocked);
            assert!(images_behind(&world, CANARY).is_empty(), "{}", world.story());
        }
    }
}

#[test]
fn a_replica_set_of_a_lost_stable_is_ordinary_once_its_deployment_is_gone() {
    let mut world = shipping("web:good-2");
    reach(&mut world, Stage::Stepping, 0);
    world.happen(Event::DeleteStable);
    world.tick(60);
    assert_eq!(world.status().waiting.unwrap().reason, "StableGone", "{}", world.story());
    world.happen(Event::DeleteDeployment(true));
    ends(&mut world, Phase::Pending);
    let labelled = |set: &&std::rc::Rc<sluice_sim::api::Object>| {
        sluice_sim::api::map(set, "/metadata/labels").contains_key("sluice.dev/rollout")
    };
    assert_eq!(world.api.now.list(Res::ReplicaSet).filter(labelled).count(), 0, "{}", world.story());
}

#[test]
fn a_left_over_mark_is_taken_off_a_route_before_enrolment_too() {
    let mut world = World::enrolled();
    world.happen(Event::ForeignWeight(30));
    world.tick(1);
    // The weights are home with the mark of rest; the Deployment goes before it is taken off, another never rolls out.
    world.happen(Event::DeleteDeployment(false));
    world.happen(Event::CreateDeployment(5));
    let _ = world.api.update(Res::Route, ROUTES[0], Actor::GitOps, |route| {
        route["metadata"]["annotations"] = json!({ANNOTATION_TRAFFIC: "rest 0"});
    });
    world.tick(20);
    assert!(!world.is_guarded(), "{}", world.story());
    for name in ROUTES {
        let route = world.api.now.get(Res::Route, name).unwrap();
        assert_eq!(
            route.pointer("/metadata/annotations/sluice.dev~1traffic"),
            None::<&Value>,
            "{}",
            world.story()
        );
    }
}

#[test]
fn a_rejected_template_that_is_live_is_marked_even_if_a_person_paused_it() {
    let mut world = shipping("web:bad-4");
    ends(&mut world, Phase::Rejected);
    world.apply("web:good-1", None, Some(false));
    ends(&mut world, Phase::Idle);
    // It goes live past the policies, while no controller runs, and a person who sees it pauses the Deployment.
    world.truth.lawless = true;
    world.api.policies = false;
    world.apply("web:bad-4", None, Some(false));
    world.elapse(4);
    world.api.policies = true;
    world.happen(Event::RolloutPause);
    ends(&mut world, Phase::Rejected);
    assert_eq!(world.status().waiting.unwrap().reason, "Rejected", "{}", world.story());
}
