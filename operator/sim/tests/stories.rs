//! Stories that a person would tell, one by one.

mod common;

use common::{LONG, ends, last_run, reach, shipping, stable};
use serde_json::json;
use sluice_core::api::{Outcome, Phase, Stage, StepSpec};
use sluice_sim::admission::Actor;
use sluice_sim::api::Res;
use sluice_sim::event::{Event, Verb};
use sluice_sim::router::Plane;
use sluice_sim::shell::Fault;
use sluice_sim::view::Watch;
use sluice_sim::world::World;

#[test]
fn a_good_canary_is_promoted() {
    let mut world = shipping("web:good-2");
    ends(&mut world, Phase::Idle);
    last_run(&world, Outcome::Promoted, "Proven");
    assert_eq!(stable(&world), "web:good-2");
}

#[test]
fn a_good_canary_that_is_compared_to_its_end_is_promoted() {
    let mut world = World::enrolled();
    let own = [(95, 13), (100, 0)];
    let step = |(weight_percent, bake_seconds)| StepSpec { weight_percent, bake_seconds };
    let _ = world.api.edit_rollout(|rollout| rollout.spec.limits.steps = own.map(step).to_vec());
    world.apply("web:good-2", None, Some(false));
    let at = |world: &World, percent| {
        world.run().is_some_and(|run| run.weight.is_some_and(|weight| weight.percent == percent))
    };
    for percent in [10, 50, 95, 100] {
        assert!(world.tick_until(120, |world| at(world, percent)), "{percent} %\n{}", world.story());
    }
    ends(&mut world, Phase::Idle);
    last_run(&world, Outcome::Promoted, "Proven");
}

#[test]
fn a_bad_canary_takes_itself_back() {
    let mut world = shipping("web:bad-4");
    ends(&mut world, Phase::Rejected);
    last_run(&world, Outcome::Rejected, "GuardTripped");
    assert_eq!(world.status().history[0].max_weight_percent, 10);
    assert_eq!(stable(&world), "web:good-1");
}

#[test]
fn a_bad_canary_stays_rejected_when_it_is_applied_again() {
    let mut world = shipping("web:bad-4");
    ends(&mut world, Phase::Rejected);
    for event in [Event::ReApply, Event::Apply(3, true), Event::Restart(1), Event::RolloutResume] {
        world.happen(event);
        ends(&mut world, Phase::Rejected);
    }
    assert_eq!(world.status().run_count, 1);
}

#[test]
fn retry_lets_a_rejected_revision_start_once_more() {
    let mut world = shipping("web:bad-4");
    ends(&mut world, Phase::Rejected);
    world.happen(Event::Request(Verb::Retry));
    ends(&mut world, Phase::Rejected);
    assert_eq!(world.status().run_count, 2);
}

#[test]
fn pods_that_crash_or_never_get_ready_are_rejected_with_their_reason() {
    let mut world = shipping("web:crash-7");
    ends(&mut world, Phase::Rejected);
    last_run(&world, Outcome::Rejected, "CrashLoopBackOff");
    let mut world = shipping("web:never-6");
    ends(&mut world, Phase::Rejected);
    last_run(&world, Outcome::Rejected, "ProgressDeadlineExceeded");
}

#[test]
fn a_fault_in_the_watched_period_is_reverted() {
    let mut world = shipping("web:late-8");
    ends(&mut world, Phase::Rejected);
    last_run(&world, Outcome::Reverted, "GuardTripped");
    assert_eq!(stable(&world), "web:good-1");
}

#[test]
fn a_dependency_that_fails_in_the_watched_period_blames_nobody() {
    let mut world = shipping("web:late-8");
    world.judge.dependency_fails = true;
    ends(&mut world, Phase::NotProven);
    last_run(&world, Outcome::NotProven, "SharedIncident");
    assert_eq!(stable(&world), "web:good-1");
    assert!(world.status().quarantine.is_empty());
    world.judge.dependency_fails = false;
    world.happen(Event::Request(Verb::Retry));
    // The judge knows this revision by now: it does not get as far again.
    ends(&mut world, Phase::Rejected);
    last_run(&world, Outcome::Rejected, "GuardTripped");
    assert_eq!(world.status().run_count, 2);
}

#[test]
fn an_alert_rejects_though_metrics_look_fine() {
    let mut world = shipping("web:good-2");
    reach(&mut world, Stage::Stepping, 1);
    world.happen(Event::Alert);
    ends(&mut world, Phase::Rejected);
    last_run(&world, Outcome::Rejected, "AlertFired");
}

#[test]
fn a_newer_template_supersedes_at_every_stage() {
    for stage in [Stage::Preparing, Stage::Stepping, Stage::Promoting, Stage::Watching] {
        let mut world = shipping("web:good-2");
        reach(&mut world, stage, if stage == Stage::Preparing || stage == Stage::Stepping { 0 } else { 2 });
        world.apply("web:good-3", None, Some(false));
        ends(&mut world, Phase::Idle);
        assert_eq!(stable(&world), "web:good-3", "{stage:?}\n{}", world.story());
        assert_eq!(world.status().run_count, 2, "{}", world.story());
    }
}

#[test]
fn a_template_that_returns_to_stable_is_released() {
    let mut world = shipping("web:good-2");
    world.tick(1);
    world.apply("web:good-1", None, Some(false));
    ends(&mut world, Phase::Idle);
    assert_eq!(world.status().run_count, 0, "{}", world.story());
    for stage in [Stage::Preparing, Stage::Stepping, Stage::Promoting, Stage::Watching] {
        let mut world = shipping("web:good-2");
        reach(&mut world, stage, if stage == Stage::Preparing || stage == Stage::Stepping { 0 } else { 2 });
        world.apply("web:good-1", None, Some(false));
        ends(&mut world, Phase::Idle);
        last_run(&world, Outcome::Superseded, "TemplateReturned");
        assert_eq!(stable(&world), "web:good-1");
    }
}

#[test]
fn a_rejected_revision_is_followed_by_a_git_revert() {
    let mut world = shipping("web:bad-4");
    ends(&mut world, Phase::Rejected);
    world.apply("web:good-1", None, Some(false));
    ends(&mut world, Phase::Idle);
    assert_eq!(world.status().run_count, 1);
}

#[test]
fn a_recorded_good_revision_comes_back_straight() {
    let mut world = shipping("web:good-2");
    ends(&mut world, Phase::Idle);
    world.apply("web:good-1", None, Some(false));
    let started = world.second();
    ends(&mut world, Phase::Idle);
    last_run(&world, Outcome::Promoted, "Proven");
    assert_eq!(stable(&world), "web:good-1");
    assert!(world.second() - started < 60, "{}", world.story());
}

#[test]
fn a_revision_of_the_history_reuses_its_replica_set() {
    // good-0 was never recorded as good, but its ReplicaSet is in the history.
    let mut world = shipping("web:good-0");
    ends(&mut world, Phase::Idle);
    last_run(&world, Outcome::Promoted, "Proven");
    assert_eq!(stable(&world), "web:good-0");
}

#[test]
fn an_overwritten_route_is_written_again_once_and_held_the_third_time() {
    let mut world = shipping("web:good-2");
    reach(&mut world, Stage::Stepping, 1);
    world.happen(Event::ResetWeights);
    ends(&mut world, Phase::Idle);
    last_run(&world, Outcome::Promoted, "Proven");

    let mut world = shipping("web:good-2");
    reach(&mut world, Stage::Stepping, 0);
    for _ in 0..12 {
        world.happen(Event::ResetWeights);
        world.tick(2);
    }
    let status = world.status();
    assert_eq!(
        status.waiting.map(|wait| wait.reason).as_deref(),
        Some("RouteOverwritten"),
        "{}",
        world.story()
    );
    assert_eq!(Plane::wanted(&world.api).percent_to(&["web-canary"]), 0);
    world.happen(Event::Request(Verb::Resume));
    ends(&mut world, Phase::Idle);
    last_run(&world, Outcome::Promoted, "Proven");
}

#[test]
fn a_size_that_changes_midway_is_followed() {
    for (stage, step) in
        [(Stage::Stepping, 0), (Stage::Stepping, 2), (Stage::Promoting, 2), (Stage::Watching, 2)]
    {
        for replicas in [1, 2, 8] {
            let mut world = shipping("web:good-2");
            reach(&mut world, stage, step);
            world.happen(Event::Scale(replicas));
            ends(&mut world, Phase::Idle);
            last_run(&world, Outcome::Promoted, "Proven");
        }
    }
}

#[test]
fn scaled_to_zero_midway_and_back_it_starts_again() {
    for (stage, step) in [
        (Stage::Preparing, 0),
        (Stage::Stepping, 0),
        (Stage::Stepping, 2),
        (Stage::Promoting, 2),
        (Stage::Watching, 2),
    ] {
        let mut world = shipping("web:good-2");
        reach(&mut world, stage, step);
        world.happen(Event::Scale(0));
        world.tick(40);
        assert!(world.pods.all.is_empty(), "{}", world.story());
        world.happen(Event::Scale(4));
        ends(&mut world, Phase::Idle);
        assert_eq!(stable(&world), "web:good-2", "{}", world.story());
    }
}

#[test]
fn scaled_to_zero_while_held_or_rejected_stable_wakes_up() {
    let mut world = shipping("web:bad-4");
    ends(&mut world, Phase::Rejected);
    world.happen(Event::Scale(0));
    world.elapse(5);
    world.happen(Event::Scale(4));
    world.elapse(5);
    assert!(world.pods.all.values().all(|pod| pod.image == "web:good-1"), "{}", world.story());
    ends(&mut world, Phase::Rejected);
}

#[test]
fn abort_and_pause_are_a_persons_verbs() {
    let mut world = shipping("web:good-2");
    reach(&mut world, Stage::Stepping, 0);
    world.happen(Event::Request(Verb::Pause));
    world.tick(30);
    assert_eq!(world.run().map(|run| run.step), Some(0));
    world.happen(Event::Request(Verb::Abort));
    world.happen(Event::Tick(2));
    world.happen(Event::Request(Verb::Resume));
    ends(&mut world, Phase::Rejected);
    last_run(&world, Outcome::Rejected, "AbortedByUser");
}

#[test]
fn without_data_it_holds_and_returns_but_never_promotes() {
    let mut world = shipping("web:good-2");
    reach(&mut world, Stage::Stepping, 1);
    world.happen(Event::Outage(true));
    world.tick(60);
    last_run(&world, Outcome::NotProven, "NoData");
    ends(&mut world, Phase::NotProven);
    let mut world = shipping("web:good-2");
    reach(&mut world, Stage::Stepping, 1);
    world.happen(Event::Outage(true));
    world.tick(5);
    world.happen(Event::Outage(false));
    ends(&mut world, Phase::Idle);
    last_run(&world, Outcome::Promoted, "Proven");
}

#[test]
fn a_run_is_controller_down_safe() {
    let mut world = World::enrolled();
    world.apply("web:bad-4", None, Some(false));
    world.elapse(300);
    assert!(world.pods.all.values().all(|pod| pod.image == "web:good-1"), "{}", world.story());
    ends(&mut world, Phase::Rejected);
}

#[test]
fn break_glass_frees_the_deployment_and_it_is_enrolled_again() {
    for (stage, step) in common::MIDWAY {
        let mut world = shipping("web:good-2");
        reach(&mut world, stage, step);
        world.happen(Event::BreakGlass);
        ends(&mut world, Phase::Idle);
        assert_eq!(stable(&world), "web:good-2", "{}", world.story());
    }
}

#[test]
fn a_reason_for_break_glass_alone_frees_nothing() {
    for (stage, step) in common::MIDWAY {
        let mut world = shipping("web:good-2");
        reach(&mut world, stage, step);
        world.happen(Event::GlassReason);
        ends(&mut world, Phase::Idle);
        last_run(&world, Outcome::Promoted, "Proven");
        assert!(world.is_guarded() && world.status().break_glass.is_none(), "{}", world.story());
    }
    let mut world = shipping("web:bad-4");
    ends(&mut world, Phase::Rejected);
    world.happen(Event::GlassReason);
    world.tick(30);
    assert!(world.is_guarded(), "{}", world.story());
    assert!(world.pods.all.values().all(|pod| pod.image == "web:good-1"), "{}", world.story());
    ends(&mut world, Phase::Rejected);
}

#[test]
fn everything_is_given_back_when_the_rollout_goes_at_any_second() {
    for event in [Event::DeleteRollout, Event::Uninstall] {
        for image in ["web:good-2", "web:bad-4", "web:late-8"] {
            for seconds in (0..100).step_by(3) {
                let mut world = shipping(image);
                world.tick(seconds);
                world.happen(event);
                let rest = world.come_to_rest(LONG);
                assert!(rest.is_ok() && world.violations.is_empty(), "{seconds} {rest:?}\n{}", world.story());
                if event == Event::DeleteRollout {
                    assert!(world.api.now.rollout.is_none());
                }
                rolls_natively(&mut world);
            }
        }
    }
}

/// An ordinary Deployment again: a new template rolls by itself once it is resumed.
#[track_caller]
fn rolls_natively(world: &mut World) {
    world.api.policies = false;
    world.disturb(1000);
    world.happen(Event::RolloutResume);
    world.apply("web:good-9", None, Some(false));
    world.elapse(60);
    let rolled = !world.pods.all.is_empty() && world.pods.all.values().all(|pod| pod.image == "web:good-9");
    assert!(rolled, "the native controller does not roll any more\n{}", world.story());
}

#[test]
fn a_late_write_of_a_stalled_leader_does_not_undo_an_abort() {
    for at in 0..6 {
        let mut world = shipping("web:good-2");
        reach(&mut world, Stage::Stepping, 0);
        // The weight of the next step is on its way when the process stalls; the other instance aborts.
        for _ in 0..40 {
            if world.run().is_some_and(|run| run.step == 1) && world.struck == 0 {
                world.faulty_tick(Fault::Stall(at));
            } else {
                world.tick(1);
            }
            if world.struck > 0 {
                break;
            }
        }
        world.happen(Event::Request(Verb::Abort));
        world.tick(2);
        world.happen(Event::Thaw);
        ends(&mut world, Phase::Rejected);
    }
}

#[test]
fn a_lagging_watch_supersedes_nothing() {
    let mut world = World::enrolled();
    world.happen(Event::Lag(Watch::Of(Res::Deployment), 20));
    world.happen(Event::Apply(1, false));
    ends(&mut world, Phase::Idle);
    last_run(&world, Outcome::Promoted, "Proven");
    assert_eq!(world.status().run_count, 1, "{}", world.story());
}

/// The native controller notes the size that it gave a ReplicaSet; we change it while it is hidden.
#[test]
fn a_warm_revision_that_was_resized_rolls_natively_afterwards() {
    let mut world = shipping("web:good-2");
    reach(&mut world, Stage::Watching, 2);
    world.happen(Event::Scale(6));
    world.tick(3);
    world.happen(Event::TurnBad);
    ends(&mut world, Phase::Rejected);
    last_run(&world, Outcome::Reverted, "GuardTripped");
    world.happen(Event::DeleteRollout);
    let rest = world.come_to_rest(LONG);
    assert!(rest.is_ok() && world.violations.is_empty(), "{rest:?}\n{}", world.story());
    rolls_natively(&mut world);
}

/// A workload whose pods may take two minutes.
fn patient() -> World {
    let mut world = World::enrolled();
    let _ = world.api.update(Res::Deployment, "web", Actor::Person, |d| {
        d["spec"]["progressDeadlineSeconds"] = json!(120);
    });
    world.apply("web:good-2", None, Some(false));
    world
}

#[test]
fn a_larger_size_is_waited_for_and_no_weight_rises() {
    let mut world = patient();
    reach(&mut world, Stage::Stepping, 0);
    world.happen(Event::SlowStart(90));
    world.happen(Event::Scale(6));
    world.tick(85);
    let run = world.run().cloned().unwrap();
    assert_eq!((run.going_back, run.max_weight_percent), (None, 10), "{}", world.story());
    assert_eq!(world.status().waiting.unwrap().reason, "StableShort");
    ends(&mut world, Phase::Idle);
    last_run(&world, Outcome::Promoted, "Proven");
}

#[test]
fn a_larger_size_that_is_never_reached_ends_the_run() {
    let mut world = patient();
    reach(&mut world, Stage::Stepping, 0);
    world.happen(Event::SlowStart(250));
    world.happen(Event::Scale(6));
    world.tick(115);
    assert_eq!(world.run().and_then(|run| run.going_back.clone()), None, "{}", world.story());
    world.tick(15);
    ends(&mut world, Phase::NotProven);
    last_run(&world, Outcome::NotProven, "StableShort");
}

#[test]
fn stable_pods_that_are_lost_make_the_canary_go() {
    let mut world = patient();
    reach(&mut world, Stage::Stepping, 0);
    world.happen(Event::SlowStart(90));
    world.happen(Event::KillPod);
    world.tick(70);
    last_run_or_way_back(&world, "StableShort");
    ends(&mut world, Phase::NotProven);
    last_run(&world, Outcome::NotProven, "StableShort");
}

/// The run goes back for this reason, or did.
#[track_caller]
fn last_run_or_way_back(world: &World, reason: &str) {
    let status = world.status();
    let back = status.run.as_ref().and_then(|run| run.going_back.as_ref()).map(|back| back.reason.clone());
    let ended = status.history.first().map(|run| run.reason.clone());
    assert_eq!(back.or(ended).as_deref(), Some(reason), "{}", world.story());
}

#[test]
fn a_pause_that_ends_with_a_new_template_is_over() {
    for was_held in [false, true] {
        let mut world = World::enrolled();
        world.happen(Event::RolloutPause);
        world.tick(2);
        if was_held {
            // A template that comes while it is paused waits for the person.
            world.apply("web:good-3", None, None);
            world.tick(10);
            assert_eq!(world.status().waiting.unwrap().reason, "UserPaused", "{}", world.story());
        }
        world.apply("web:good-2", None, Some(false));
        ends(&mut world, Phase::Idle);
        last_run(&world, Outcome::Promoted, "Proven");
        assert_eq!(stable(&world), "web:good-2");
    }
}

#[test]
fn a_rejected_template_that_is_at_hand_is_not_forgotten() {
    let mut world = shipping("web:bad-4");
    ends(&mut world, Phase::Rejected);
    // Many more were rejected since.
    let _ = world.api.edit_rollout(|rollout| {
        let list = &mut rollout.status.as_mut().unwrap().quarantine;
        for n in 0..19 {
            let other = format!("{n:064}");
            list.insert(
                0,
                sluice_core::api::Quarantined {
                    digest: other.clone(),
                    restart_digest: other,
                    ..list[0].clone()
                },
            );
        }
    });
    world.apply("web:crash-7", None, Some(false));
    let going = world.tick_until(60, |world| world.run().is_some_and(|run| run.going_back.is_some()));
    assert!(going, "{}", world.story());
    world.apply("web:bad-4", None, Some(false));
    ends(&mut world, Phase::Rejected);
    let status = world.status();
    assert_eq!((status.run_count, status.quarantine.len()), (2, 20), "{}", world.story());
}

#[test]
fn an_alert_that_fires_already_keeps_the_canary_from_being_made() {
    let mut world = World::enrolled();
    world.happen(Event::Incident(true));
    world.apply("web:good-2", None, Some(false));
    world.tick(20);
    assert_eq!((world.status().phase, world.status().run_count), (Phase::Held, 0), "{}", world.story());
    assert_eq!(world.status().waiting.unwrap().reason, "PreExistingAlert");
    assert!(world.pods.all.values().all(|pod| pod.image == "web:good-1"), "{}", world.story());
    world.happen(Event::Incident(false));
    ends(&mut world, Phase::Idle);
    last_run(&world, Outcome::Promoted, "Proven");
    // One that never ends is not waited for without end.
    let mut world = World::enrolled();
    world.happen(Event::Incident(true));
    world.apply("web:good-2", None, Some(false));
    world.tick(90);
    last_run(&world, Outcome::NotProven, "PreExistingAlert");
    assert_eq!(world.status().phase, Phase::NotProven, "{}", world.story());
    world.happen(Event::Incident(false));
    world.happen(Event::Request(Verb::Retry));
    ends(&mut world, Phase::Idle);
    last_run(&world, Outcome::Promoted, "Proven");
}

#[test]
fn a_good_run_outlives_an_absence_of_the_controller() {
    let moments = [(Stage::Preparing, 0), (Stage::Stepping, 0), (Stage::Stepping, 2), (Stage::Promoting, 2)];
    for (stage, step) in moments {
        let mut world = shipping("web:good-2");
        reach(&mut world, stage, step);
        world.happen(Event::Down(200));
        world.happen(Event::Down(200));
        ends(&mut world, Phase::Idle);
        last_run(&world, Outcome::Promoted, "Proven");
    }
    // A bad one is found out all the same.
    let mut world = shipping("web:bad-4");
    assert!(world.tick_until(60, |world| world.run().is_some_and(|run| run.exposed_since.is_some())));
    world.happen(Event::Down(200));
    ends(&mut world, Phase::Rejected);
    last_run(&world, Outcome::Rejected, "GuardTripped");
}

#[test]
fn a_canary_that_loses_most_of_its_pods_gets_less_and_is_promoted_once_they_are_back() {
    let at = |percent: i32| {
        let mut world = patient();
        let live = world.tick_until(120, |world| {
            let weight = world.run().and_then(|run| run.weight);
            weight.is_some_and(|weight| weight.percent == percent && weight.settled_at.is_some())
        });
        assert!(live, "{}", world.story());
        world
    };
    for percent in [50, 100] {
        let mut world = at(percent);
        world.happen(Event::SlowStart(45));
        world.happen(Event::LosePods(1));
        let lowered =
            world.tick_until(26, |world| Plane::wanted(&world.api).percent_to(&["web-canary"]) == 25);
        assert!(lowered, "{percent} %\n{}", world.story());
        assert!(world.run().is_some_and(|run| run.going_back.is_none()), "{}", world.story());
        ends(&mut world, Phase::Idle);
        last_run(&world, Outcome::Promoted, "Proven");
        // A container that restarts within seconds moves nothing.
        let mut world = at(percent);
        world.happen(Event::SlowStart(12));
        world.happen(Event::LosePods(1));
        for _ in 0..20 {
            world.tick(1);
            assert!(world.run().is_none_or(|run| run.lowered == 0), "{}", world.story());
        }
        ends(&mut world, Phase::Idle);
        last_run(&world, Outcome::Promoted, "Proven");
    }
}

#[test]
fn a_riskier_provenance_slows_a_run_down_and_a_safer_one_waits_for_the_next() {
    let mut world = World::enrolled();
    world.happen(Event::Declare(0));
    world.apply("web:good-2", None, Some(false));
    reach(&mut world, Stage::Stepping, 0);
    let weights = |world: &World| {
        let steps = world.run().map(|run| run.plan.steps.clone()).unwrap_or_default();
        steps.iter().map(|step| step.weight_percent).collect::<Vec<_>>()
    };
    assert_eq!(weights(&world), [25, 50, 100]);
    world.happen(Event::Declare(3));
    world.tick(2);
    let run = world.run().cloned().unwrap();
    assert_eq!((run.plan.risk_class.as_str(), run.plan.steps[0].bake_seconds), ("R3", 8));
    world.happen(Event::Declare(0));
    world.tick(2);
    assert_eq!(world.run().map(|run| run.plan.risk_class.as_str()), Some("R3"), "{}", world.story());
    ends(&mut world, Phase::Idle);
    last_run(&world, Outcome::Promoted, "Proven");
    assert_eq!(world.status().history[0].risk_class.as_str(), "R3");
    world.apply("web:good-3", None, Some(false));
    ends(&mut world, Phase::Idle);
    assert_eq!(world.status().history[0].risk_class.as_str(), "R1", "{}", world.story());
}
