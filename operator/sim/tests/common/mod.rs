//! What the stories share.
#![allow(dead_code)] // each test binary uses its own part

use sluice_core::api::{Outcome, Phase, Stage};
use sluice_sim::world::World;

/// Time in which every story must be over, in seconds.
pub const LONG: u32 = 500;

/// Moments in which something happens to a run under way: its stage and step.
pub const MIDWAY: [(Stage, i32); 4] =
    [(Stage::Preparing, 0), (Stage::Stepping, 1), (Stage::Promoting, 2), (Stage::Watching, 2)];

/// The story comes to rest in this phase, and nothing was broken on the way.
#[track_caller]
pub fn ends(world: &mut World, phase: Phase) {
    let rest = world.come_to_rest(LONG);
    assert!(rest.is_ok() && world.violations.is_empty(), "{rest:?}\n{}", world.story());
    assert_eq!(world.status().phase, phase, "{}", world.story());
}

/// The last run ended so.
#[track_caller]
pub fn last_run(world: &World, outcome: Outcome, reason: &str) {
    let status = world.status();
    let run = status.history.first();
    assert_eq!(
        run.map(|run| (run.outcome, run.reason.as_str())),
        Some((outcome, reason)),
        "{}",
        world.story()
    );
}

/// The image that stable runs.
pub fn stable(world: &World) -> String {
    world.status().stable.and_then(|stable| stable.images.first().cloned()).unwrap_or_default()
}

/// Ticks until the run is at this stage and step, with its weight settled.
#[track_caller]
pub fn reach(world: &mut World, stage: Stage, step: i32) {
    let there = world.tick_until(120, |world| {
        world.run().is_some_and(|run| {
            let settled = run.weight.is_some_and(|weight| weight.settled_at.is_some());
            run.stage == stage && run.step == step && (settled || stage != Stage::Stepping)
        })
    });
    assert!(there, "never reached {stage:?} {step}\n{}", world.story());
}

/// An enrolled world in which this image has just been applied.
pub fn shipping(image: &str) -> World {
    let mut world = World::enrolled();
    world.apply(image, None, Some(false));
    world
}
