//! A fault at every single write of promotion, abort, warm revert, supersede and removal: what was begun is
//! brought to its end by the next process.

mod common;

use common::{LONG, shipping};
use sluice_core::api::Phase;
use sluice_sim::event::Event;
use sluice_sim::shell::Fault;
use sluice_sim::world::World;

/// How a story begins, and how it must end.
struct Plot {
    name: &'static str,
    begin: fn() -> World,
    phase: Option<Phase>,
    image: &'static str,
}

const PLOTS: [Plot; 6] = [
    Plot { name: "promotion", begin: || shipping("web:good-2"), phase: Some(Phase::Idle), image: "web:good-2" },
    Plot { name: "abort", begin: || shipping("web:bad-4"), phase: Some(Phase::Rejected), image: "web:good-1" },
    Plot { name: "revert", begin: || shipping("web:late-8"), phase: Some(Phase::Rejected), image: "web:good-1" },
    Plot {
        name: "supersede",
        begin: || {
            let mut world = shipping("web:good-2");
            world.tick(45);
            world.apply("web:good-3", None, Some(false));
            world
        },
        phase: Some(Phase::Idle),
        image: "web:good-3",
    },
    Plot { name: "enrolment", begin: bare, phase: Some(Phase::Idle), image: "web:good-1" },
    Plot {
        name: "return to a good revision",
        begin: || {
            let mut world = shipping("web:good-2");
            world.tick(80);
            world.apply("web:good-1", None, Some(false));
            world
        },
        phase: Some(Phase::Idle),
        image: "web:good-1",
    },
];

fn bare() -> World {
    let mut world = World::bare(4);
    let _ = world.api.create_rollout(sluice_sim::fixture::rollout());
    world
}

/// Plays the story with one fault, before or at its n-th write; false when it has no such write.
fn strike(world: &mut World, n: u32, fault: fn(u8) -> Fault, down: u32) -> bool {
    let mut left = n;
    for _ in 0..200 {
        match u8::try_from(left) {
            Ok(at) if world.struck == 0 => {
                let writes = world.faulty_tick(fault(at));
                if world.struck > 0 {
                    world.elapse(down);
                    return true;
                }
                left = left.saturating_sub(u32::from(writes));
            }
            _ => {
                let before = world.api.version();
                world.tick(1);
                left = left.saturating_sub(u32::from(world.api.version() != before));
            }
        }
    }
    false
}

fn every_write(plot: &Plot, fault: fn(u8) -> Fault, eager: bool, down: u32) -> u32 {
    for n in 0.. {
        let mut world = (plot.begin)();
        world.eager = eager;
        let struck = strike(&mut world, n, fault, down);
        let rest = world.come_to_rest(LONG);
        let what = format!("{} with {:?}, eager {eager}, down {down}", plot.name, fault(0));
        assert!(rest.is_ok() && world.violations.is_empty(), "{what}, write {n}: {rest:?}\n{}", world.story());
        if let Some(phase) = plot.phase {
            assert_eq!(world.status().phase, phase, "{what}, write {n}\n{}", world.story());
            assert_eq!(common::stable(&world), plot.image, "{what}, write {n}\n{}", world.story());
        }
        if !struck {
            return n;
        }
    }
    0
}

#[test]
fn a_crash_before_every_write_is_made_good() {
    for plot in &PLOTS {
        for (eager, down) in [(false, 0), (true, 7)] {
            let writes = every_write(plot, Fault::Crash, eager, down);
            assert!(writes > 5, "{} has only {writes} writes", plot.name);
        }
    }
}

#[test]
fn a_failure_of_every_write_is_made_good() {
    for plot in &PLOTS {
        every_write(plot, Fault::Fail, true, 0);
    }
}

#[test]
fn a_lost_reply_of_every_write_is_made_good() {
    for plot in &PLOTS {
        every_write(plot, Fault::LoseReply, true, 0);
    }
}

#[test]
fn a_late_arrival_of_every_write_is_made_good() {
    for plot in &PLOTS {
        for down in [0, 3, 9] {
            every_write(plot, Fault::Stall, false, down);
        }
    }
}

/// Removal begins at any second of a story, and dies before any of its writes.
fn removal(event: Event, image: &str, fault: fn(u8) -> Fault) {
    for seconds in (2..75).step_by(4) {
        for n in 0.. {
            let mut world = shipping(image);
            world.tick(seconds);
            world.happen(event);
            let struck = strike(&mut world, n, fault, 0);
            let rest = world.come_to_rest(LONG);
            let what = format!("{event:?} of {image} after {seconds} s, write {n}");
            assert!(rest.is_ok() && world.violations.is_empty(), "{what}: {rest:?}\n{}", world.story());
            if !struck {
                break;
            }
        }
    }
}

#[test]
fn a_crash_before_every_write_of_removal_is_made_good() {
    removal(Event::DeleteRollout, "web:good-2", Fault::Crash);
    removal(Event::DeleteRollout, "web:late-8", Fault::Crash);
}

#[test]
fn a_crash_before_every_write_of_uninstall_is_made_good() {
    removal(Event::Uninstall, "web:good-2", Fault::Crash);
    removal(Event::Uninstall, "web:bad-4", Fault::LoseReply);
}
