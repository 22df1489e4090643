//! Random schedules of everything that may happen; invariants after every step, rest once faults stop.
//!
//! A failure prints its schedule, shrunk to the shortest story that still breaks, and the story itself.
//! `SLUICE_SCHEDULES` sets the number of cases, `SLUICE_SEED` another seed.

#![allow(clippy::panic)] // a failing seed is told with its story

mod common;

use common::LONG;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};
use sluice_sim::api::Res;
use sluice_sim::event::{Event, Verb};
use sluice_sim::shell::Fault;
use sluice_sim::view::Watch;
use sluice_sim::world::World;

/// Schedules of one run of the test.
const CASES: u32 = 2_000;
/// Parts that run side by side.
const PARTS: u32 = 4;
/// Most events of one schedule.
const LONGEST: usize = 40;

fn fault() -> impl Strategy<Value = Fault> {
    (0_u8..6).prop_flat_map(|at| {
        prop_oneof![
            3 => Just(Fault::Crash(at)),
            2 => Just(Fault::Fail(at)),
            2 => Just(Fault::LoseReply(at)),
            2 => Just(Fault::Stall(at)),
        ]
    })
}

fn watch() -> impl Strategy<Value = Watch> {
    prop_oneof![
        Just(Watch::Rollout),
        Just(Watch::Of(Res::Deployment)),
        Just(Watch::Of(Res::ReplicaSet)),
        Just(Watch::Of(Res::Service)),
        Just(Watch::Of(Res::EndpointSlice)),
        Just(Watch::Of(Res::Route)),
    ]
}

fn readable() -> impl Strategy<Value = Res> {
    prop::sample::select(Res::ALL.to_vec())
}

fn verb() -> impl Strategy<Value = Verb> {
    prop_oneof![3 => Just(Verb::Abort), 1 => Just(Verb::Pause), 2 => Just(Verb::Resume), 2 => Just(Verb::Retry)]
}

/// Machines and networks: time, faults, lags.
fn machine() -> impl Strategy<Value = Event> {
    prop_oneof![
        8 => fault().prop_map(Event::Faulty),
        2 => Just(Event::Thaw),
        1 => Just(Event::Failover),
        2 => Just(Event::OldLeader),
        2 => (1_u8..40).prop_map(Event::Down),
        1 => (91_u8..200).prop_map(Event::Down),
        4 => (watch(), 1_u8..9).prop_map(|(watch, seconds)| Event::Lag(watch, seconds)),
        1 => (1_u8..6).prop_map(Event::NativeLag),
        1 => (1_u8..5).prop_map(Event::EndpointLag),
        1 => (1_u8..70).prop_map(Event::SilentGateway),
        1 => (readable(), 1_u8..20).prop_map(|(res, seconds)| Event::Unreadable(res, seconds)),
        1 => any::<bool>().prop_map(Event::Eager),
        2 => any::<bool>().prop_map(Event::Outage),
        1 => Just(Event::Alert),
        1 => Just(Event::TurnBad),
        1 => (1_u8..12).prop_map(Event::Flap),
        1 => Just(Event::KillPod),
        1 => (0_u8..4).prop_map(Event::LosePods),
        1 => any::<bool>().prop_map(Event::Incident),
        1 => (0_u8..40).prop_map(Event::SlowStart),
    ]
}

/// Git and people, who keep within what Sluice promises.
fn people() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (0_u8..9, any::<bool>()).prop_map(|(image, unpaused)| Event::Apply(image, unpaused)),
        1 => Just(Event::ReApply),
        1 => (0_u8..3).prop_map(Event::Restart),
        2 => Just(Event::ResetWeights),
        1 => (1_u8..101).prop_map(Event::ForeignWeight),
        2 => (0_u8..9).prop_map(Event::Scale),
        4 => verb().prop_map(Event::Request),
        1 => any::<bool>().prop_map(Event::Suspend),
        1 => (0_u8..4).prop_map(Event::Declare),
        1 => Just(Event::RolloutResume),
        1 => Just(Event::RolloutPause),
        1 => Just(Event::GlassReason),
        1 => Just(Event::DeleteRollout),
        1 => Just(Event::CreateRollout),
    ]
}

/// What goes past Sluice, or ends it.
fn upheaval() -> impl Strategy<Value = Event> {
    prop_oneof![
        2 => Just(Event::BreakGlass),
        1 => any::<bool>().prop_map(Event::DeleteDeployment),
        2 => (0_u8..9).prop_map(Event::CreateDeployment),
        1 => Just(Event::Uninstall),
        1 => any::<bool>().prop_map(Event::DeleteService),
        1 => Just(Event::DeleteStable),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        10 => (1_u8..12).prop_map(Event::Tick),
        6 => (12_u8..50).prop_map(Event::Tick),
        8 => machine(),
        8 => people(),
        1 => upheaval(),
    ]
}

fn schedule() -> impl Strategy<Value = Vec<Event>> {
    prop::collection::vec(event(), 1..LONGEST)
}

fn play(schedule: &[Event]) -> Result<(), TestCaseError> {
    let mut world = World::enrolled();
    for event in schedule {
        world.happen(*event);
        if !world.violations.is_empty() {
            return Err(TestCaseError::fail(world.story()));
        }
    }
    match world.come_to_rest(LONG) {
        Ok(()) if world.violations.is_empty() => Ok(()),
        rest => Err(TestCaseError::fail(format!("{rest:?}\n{}", world.story()))),
    }
}

fn number(name: &str) -> Option<u32> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

#[track_caller]
fn part(part: u32) {
    let cases = number("SLUICE_SCHEDULES").unwrap_or(CASES) / PARTS;
    let seed = number("SLUICE_SEED").unwrap_or(20_261_124);
    println!("seed {seed}, part {part}: {cases} schedules");
    let mut bytes = [0; 32];
    bytes[..4].copy_from_slice(&seed.to_le_bytes());
    bytes[4..8].copy_from_slice(&part.to_le_bytes());
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 4_000, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    if let Err(why) = runner.run(&schedule(), |schedule| play(&schedule)) {
        panic!("seed {seed}, part {part}: {why}");
    }
}

#[test]
fn schedules_1() {
    part(1);
}

#[test]
fn schedules_2() {
    part(2);
}

#[test]
fn schedules_3() {
    part(3);
}

#[test]
fn schedules_4() {
    part(4);
}
