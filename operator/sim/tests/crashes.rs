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
    phase: Phase,
    image: &'static str,
}

const PLOTS: [Plot; 6] = [
    Plot { name: "promotion", begin: || shipping("web:good-2"), phase: Phase::Idle, image: "web:good-2" },
    Plot { name: "abort", begin: || shipping("web:bad-4"), phase: Phase::Rejected, image: "web:good-1" },
    Plot { name: "revert", begin: || shipping("web:late-8"), phase: Phase::Rejected, image: "web:good-1" },
    Plot {
        name: "supersede",
        begin: || {
            let mut world = shipping("web:good-2");
            world.tick(45);
            world.apply("web:good-3", None, Some(false));
            world
        },
        phase: Phase::Idle,
        image: "web:good-3",
    },
    Plot { name: "enrolment", begin: bare, phase: Phase::Idle, image: "web:good-1" },
    Plot {
        name: "return to a good revision",
        begin: || {
            let mut world = shipping("web:good-2");
            world.tick(80); // promoted and watched
            world.apply("web:good-1", None, Some(false));
            world
        },
        phase: Phase::Idle,
        image: "web:good-1",
    },
];

fn bare() -> World {
    let mut world = World::bare(4);
    let _ = world.api.create_rollout(sluice_sim::fixture::rollout());
    world
}

/// Seconds without a write after which a story has no more.
const QUIET_SECONDS: u32 = 25;

/// Plays a story; at each of its writes a branch of it is struck by the fault and must still come to a good end.
/// Returns how many branches there were.
fn every_write(world: &World, what: &str, fault: fn(u8) -> Fault, down: u32, good: impl Fn(&World)) -> u32 {
    let mut line = world.clone();
    let (mut branches, mut quiet) = (0, 0);
    while quiet < QUIET_SECONDS {
        for at in 0.. {
            let mut branch = line.clone();
            branch.faulty_tick(fault(at));
            if branch.struck == 0 {
                break;
            }
            branches += 1;
            branch.elapse(down);
            let rest = branch.come_to_rest(LONG);
            let fine = rest.is_ok() && branch.violations.is_empty();
            assert!(fine, "{what}, {:?}: {rest:?}\n{}", fault(at), branch.story());
            good(&branch);
        }
        let before = line.api.version();
        line.tick(1);
        quiet = if line.api.version() == before { quiet + 1 } else { 0 };
    }
    branches
}

fn every_plot(fault: fn(u8) -> Fault, eager: bool, down: u32) {
    for plot in &PLOTS {
        let mut world = (plot.begin)();
        world.eager = eager;
        let what = format!("{}, eager {eager}, down {down}", plot.name);
        let branches = every_write(&world, &what, fault, down, |world| {
            assert_eq!(world.status().phase, plot.phase, "{what}\n{}", world.story());
            assert_eq!(common::stable(world), plot.image, "{what}\n{}", world.story());
        });
        assert!(branches > 5, "{what} has only {branches} writes");
    }
}

#[test]
fn a_crash_before_every_write_is_made_good() {
    every_plot(Fault::Crash, false, 0);
    every_plot(Fault::Crash, true, 7);
}

#[test]
fn a_failure_of_every_write_is_made_good() {
    every_plot(Fault::Fail, true, 0);
}

#[test]
fn a_lost_reply_of_every_write_is_made_good() {
    every_plot(Fault::LoseReply, true, 0);
}

#[test]
fn a_late_arrival_of_every_write_is_made_good() {
    every_plot(Fault::Stall, false, 0);
    every_plot(Fault::Stall, false, 9);
}

/// Removal begins at any second of a story, and a fault strikes at each of its writes.
fn removal(event: Event, image: &str, fault: fn(u8) -> Fault) {
    let mut line = shipping(image);
    for second in 0..75 {
        line.tick(1);
        if second % 3 == 0 {
            let mut world = line.clone();
            world.happen(event);
            every_write(&world, &format!("{event:?} of {image} after {second} s"), fault, 0, |_| {});
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
