//! Time in which no controller ran: whose deadlines move by it, whose do not, and that every wait ends all the same.

use crate::support::{Scene, events, going_back, left, lines};
use proptest::prelude::*;
use serde_json::json;
use sluice_core::api::{Outcome, Stage};
use sluice_core::verdict::Why;

const MINUTE: i64 = 60;
/// Five bakes of the first step of class R1.
const STEP: i64 = 3000;
/// What a run is given at most.
const NIGHT: i64 = 12 * 3600;

#[test]
fn an_absence_does_not_end_a_good_run() {
    let mut scene = Scene::exposed();
    let decision = scene.pass();
    let before = left(&scene, &decision);
    assert_eq!(before, STEP);
    let window = scene.run().weight.unwrap().settled_at;
    scene.unattended(STEP + 20 * MINUTE);
    let decision = scene.pass();
    assert_eq!(going_back(&decision), None);
    assert_eq!((events(&decision), left(&scene, &decision)), (vec!["Unattended"], before));
    assert_eq!(scene.run().weight.unwrap().settled_at, window, "the window of the evidence stays");
    // From here on time counts again.
    scene.later(STEP - 1);
    assert_eq!(going_back(&scene.pass()), None);
    scene.later(1);
    assert_eq!(going_back(&scene.pass()), Some((Outcome::NotProven, "Baking".to_owned())));
}

#[test]
fn what_began_after_the_last_note_is_given_only_its_own_time() {
    let mut scene = Scene::exposed();
    scene.pass();
    // A person pauses half a minute later, and then nobody is there for two minutes.
    scene.unattended(30);
    scene.request(&format!("pause/{}", scene.run().id));
    let decision = scene.pass();
    let full = left(&scene, &decision);
    scene.unattended(2 * MINUTE);
    let decision = scene.pass();
    assert_eq!(left(&scene, &decision), full, "not more than it had");
}

#[test]
fn pods_that_nobody_could_ask_for_have_their_time() {
    let mut scene = Scene::running();
    let run = scene.run();
    scene.pin(&run.stable.hash, &run.canary.hash);
    scene.canary_pods(0);
    scene.pass();
    scene.unattended(20 * MINUTE);
    let decision = scene.pass();
    assert_eq!((going_back(&decision), left(&scene, &decision)), (None, 600));
    scene.later(600);
    assert_eq!(going_back(&scene.pass()), Some((Outcome::Rejected, "ProgressDeadlineExceeded".to_owned())));
}

#[test]
fn a_swap_that_was_left_alone_goes_on() {
    let mut scene = Scene::exposed();
    scene.change_run(|run| run.stage = Stage::Promoting);
    scene.pass();
    scene.unattended(20 * MINUTE);
    assert_eq!(going_back(&scene.pass()), None);
    scene.later(MINUTE);
    assert_eq!(going_back(&scene.pass()), Some((Outcome::NotProven, "PromotionStuck".to_owned())));
}

/// What happens, how it comes about, and the reason that it gives after the absence.
type Case = (&'static str, fn(&mut Scene), &'static str);

#[test]
fn what_protects_clients_does_not_move() {
    let cases: [Case; 4] = [
        (
            "a tripped guard",
            |s| s.verdict.abort = Some(Why { reason: "GuardTripped".into(), message: "40 of 200".into() }),
            "GuardTripped",
        ),
        (
            "stable short of pods",
            |s| s.replica_sets[0]["status"]["availableReplicas"] = json!(2),
            "StableShort",
        ),
        (
            "something that can't be read",
            |s| s.unseen = vec![crate::support::Unreadable::Services],
            "CannotRead",
        ),
        ("no data", |s| s.verdict.no_data = Some((s.now, "Prometheus does not answer".to_owned())), "NoData"),
    ];
    for (what, begins, reason) in cases {
        let mut scene = Scene::exposed();
        scene.pass();
        begins(&mut scene);
        scene.pass();
        scene.unattended(60 * MINUTE);
        let decision = scene.pass();
        assert_eq!(going_back(&decision).map(|(_, reason)| reason).as_deref(), Some(reason), "{what}");
    }
    // On the way back: settle and drain times are those of the clock.
    let mut scene = Scene::exposed();
    scene.request(&format!("abort/{}", scene.run().id));
    scene.pass();
    scene.route_shows(0);
    scene.pass();
    scene.unattended(20 * MINUTE);
    let decision = scene.pass();
    assert_eq!(lines(&decision.actions), [format!("tidy scale-canary {}", scene.run().canary.replica_set)]);
    // The watched period, too.
    let mut scene = Scene::exposed();
    scene.change_run(|run| {
        run.stage = Stage::Watching;
        run.released = true;
    });
    scene.route_shows(0);
    scene.slices[0] =
        crate::support::endpoint_slice("web-stable", &scene.run().canary.replica_set, crate::support::PODS);
    scene.pass_without_invariants();
    let since = scene.run().stage_since;
    scene.unattended(20 * MINUTE);
    scene.pass_without_invariants();
    assert_eq!((scene.run().stage, scene.run().stage_since), (Stage::Watching, since));
}

#[test]
fn attendance_is_noted_once_a_minute() {
    let mut scene = Scene::exposed();
    scene.pass();
    let mut notes = vec![scene.run().attended_at];
    for _ in 0..600 {
        scene.unattended(1);
        let decision = scene.pass();
        assert_eq!(events(&decision), Vec::<&str>::new(), "nobody was away");
        notes.push(scene.run().attended_at);
    }
    notes.dedup();
    assert_eq!(notes.len(), 11, "at the start and each minute");
    assert_eq!(scene.run().absent_seconds, 0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 50, failure_persistence: None, ..ProptestConfig::default() })]

    /// However often the controller dies, and for however long: the step's wait ends, and not later than a night after it
    /// would have. The status of a pass may be lost with the process.
    #[test]
    fn a_crash_loop_ends_every_wait(
        gaps in prop::collection::vec((1..1800_i64, any::<bool>()), 1..20),
    ) {
        let mut scene = Scene::exposed();
        scene.pass();
        let begin = scene.now;
        let mut longest = 0;
        let mut passes = 0;
        'until: loop {
            // At least one of them is kept: without a write nothing else moves either.
            for (gap, kept) in gaps.iter().map(|(gap, kept)| (*gap, *kept)).chain([(1, true)]) {
                scene.unattended(gap);
                longest = longest.max(gap);
                passes += 1;
                let decision = if kept { scene.pass() } else { scene.decide() };
                if going_back(&decision).is_some() {
                    break 'until;
                }
                prop_assert!(scene.run().absent_seconds <= NIGHT);
                prop_assert!(passes < 100_000);
            }
        }
        let took = scene.now.duration_since(begin).as_secs();
        prop_assert!((STEP..=STEP + NIGHT + longest).contains(&took), "{took} s");
    }
}
