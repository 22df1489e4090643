//! Mode Observe: a native roll is judged, and nothing is held, whatever a person asks for.

use crate::support::{PODS, Scene, events, lines, replica_set, template};
use serde_json::json;
use sluice_core::api::{Mode, Outcome, RunKind};
use sluice_core::verdict::{Verdict, Why};

/// A native roll to `app:2` that is half done.
fn rolling() -> Scene {
    let mut scene = Scene::new();
    scene.rollout.spec.mode = Mode::Observe;
    scene.pass();
    let workload = scene.workload();
    workload["metadata"]["generation"] = json!(2);
    workload["status"]["observedGeneration"] = json!(2);
    workload["status"]["updatedReplicas"] = json!(1);
    workload["spec"]["template"] = template("app:2");
    scene.replica_sets.push(replica_set("app:2", 1));
    let decision = scene.pass();
    assert_eq!(events(&decision), ["WouldHold"]);
    assert_eq!(scene.run().kind, RunKind::Observe);
    scene
}

fn complete(scene: &mut Scene) {
    scene.workload()["status"]["updatedReplicas"] = json!(PODS);
    scene.replica_sets = vec![replica_set("app:1", 0), replica_set("app:2", PODS)];
}

#[test]
fn an_abort_ends_the_observation_and_says_that_nothing_was_rolled_back() {
    let mut scene = rolling();
    let id = scene.run().id;
    scene.request(&format!("abort/{id}"));
    let decision = scene.pass();
    assert_eq!(lines(&decision.actions), Vec::<String>::new(), "nothing is touched");
    assert_eq!(events(&decision), ["RequestSeen", "Observed"]);
    let status = scene.status();
    let answer = status.request.unwrap().answer;
    for text in [&answer, &status.history[0].message] {
        assert!(text.contains("nothing was rolled back"), "{text}");
        assert!(text.contains("kubectl rollout undo deployment/web -n shop"), "{text}");
    }
    assert!(answer.starts_with("accepted"), "{answer}");
    assert_eq!(
        (status.history[0].outcome, status.history[0].reason.as_str()),
        (Outcome::Abandoned, "AbortedByUser")
    );
    assert!(status.run.is_none());
    // The rest of that roll is not observed anew; the next one is.
    for _ in 0..3 {
        assert!(scene.pass().status.run.is_none());
    }
    complete(&mut scene);
    scene.pass();
    let workload = scene.workload();
    workload["metadata"]["generation"] = json!(3);
    workload["status"]["observedGeneration"] = json!(3);
    workload["status"]["updatedReplicas"] = json!(1);
    workload["spec"]["template"] = template("app:3");
    scene.replica_sets.push(replica_set("app:3", 1));
    scene.pass();
    assert_eq!(scene.run().id, "2-observe");
}

#[test]
fn an_abort_keeps_what_the_guards_said_before() {
    let mut scene = rolling();
    let id = scene.run().id;
    let why = Why { reason: "GuardTripped".to_owned(), message: "error-rate 40/200".to_owned() };
    scene.verdict = Verdict { run_id: id.clone(), abort: Some(why), ..Verdict::default() };
    assert_eq!(events(&scene.pass()), ["WouldAbort"]);
    scene.request(&format!("abort/{id}"));
    scene.pass();
    let record = scene.status().history[0].clone();
    assert_eq!(record.outcome, Outcome::Abandoned);
    assert!(
        record.message.contains("would have been rejected: GuardTripped: error-rate 40/200"),
        "{record:?}"
    );
}

#[test]
fn the_other_verbs_have_nothing_to_act_on_and_name_the_command_that_has() {
    for (verb, native) in [("pause", "pause"), ("resume", "resume"), ("retry", "restart")] {
        let mut scene = rolling();
        let before = scene.run();
        scene.request(&format!("{verb}/{}", before.id));
        let decision = scene.pass();
        assert_eq!(events(&decision), ["RequestIgnored"], "{verb}");
        let answer = decision.status.request.unwrap().answer;
        assert!(answer.starts_with("ignored: mode Observe holds nothing"), "{answer}");
        assert!(answer.contains(&format!("kubectl rollout {native} deployment/web -n shop")), "{answer}");
        assert_eq!(scene.run(), before, "{verb}");
    }
}

#[test]
fn after_the_run_a_verb_is_for_nobody() {
    let mut scene = rolling();
    let id = scene.run().id;
    complete(&mut scene);
    scene.pass();
    assert_eq!(scene.status().history[0].reason, "WouldNotReject");
    for (verb, says) in [
        ("abort", "ignored: run 1-observe is not under way"),
        ("retry", "ignored: mode Observe holds nothing"),
    ] {
        scene.request(&format!("{verb}/{id}"));
        let answer = scene.pass().status.request.unwrap().answer;
        assert!(answer.starts_with(says), "{answer}");
    }
}
