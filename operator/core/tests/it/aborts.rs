//! Going back: decided first, whatever can't be read, and never taken back.

use crate::support::{
    INPUTS, Scene, Unreadable, events, going_back, lines, template, waiting_pod, write_weights,
};
use serde_json::json;
use sluice_core::action::{Lane, Write};
use sluice_core::api::{Outcome, Stage};
use sluice_core::verdict::Why;

/// The guard tripped.
fn tripped(scene: &mut Scene) {
    scene.verdict.abort =
        Some(Why { reason: "GuardTripped".to_owned(), message: "error-rate: 40 of 200 failed".to_owned() });
}

#[test]
fn a_tripped_guard_takes_the_weight_to_0_in_the_same_pass() {
    let mut scene = Scene::exposed();
    tripped(&mut scene);
    let decision = scene.pass();
    assert_eq!(going_back(&decision), Some((Outcome::Rejected, "GuardTripped".to_owned())));
    assert_eq!(lines(&decision.actions), ["abort set-weights web 0%"]);
    assert!(decision.only_returns(), "it may run on caches, at once");
    assert_eq!(events(&decision), ["Aborted"]);
    assert_eq!(decision.status.phase.as_str(), "Returning");
}

#[test]
fn nothing_that_can_not_be_read_keeps_an_abort_from_being_decided_and_written() {
    // Each input alone, and all of them at once.
    let sets: Vec<Vec<Unreadable>> = INPUTS.iter().map(|one| vec![*one]).chain([INPUTS.to_vec()]).collect();
    for unseen in sets {
        let mut scene = Scene::exposed();
        tripped(&mut scene);
        scene.unseen.clone_from(&unseen);
        let decision = scene.pass();
        assert_eq!(lines(&decision.actions), ["abort set-weights web 0%"], "{unseen:?}");
        assert_eq!(decision.actions[0].lane, Lane::Abort);
        // And by request.
        let mut scene = Scene::exposed();
        scene.request(&format!("abort/{}", scene.run().id));
        scene.unseen.clone_from(&unseen);
        let decision = scene.pass();
        assert_eq!(lines(&decision.actions), ["abort set-weights web 0%"], "{unseen:?}");
    }
}

#[test]
fn without_evidence_or_grounds_nothing_goes_back() {
    for unseen in INPUTS {
        let mut scene = Scene::exposed();
        scene.unseen = vec![unseen];
        let decision = scene.pass();
        assert_eq!(going_back(&decision), None, "{unseen:?}: what can't be read holds");
        assert_eq!(lines(&decision.actions), Vec::<String>::new());
        let waiting = decision.status.waiting.unwrap();
        assert_eq!(waiting.reason, "CannotRead");
        // But not for ever.
        let seconds = i64::from(scene.run().plan.no_data_seconds);
        assert_eq!(waiting.deadline, Some(scene.now + jiff::SignedDuration::from_secs(seconds)));
        scene.later(seconds - 1);
        assert_eq!(going_back(&scene.pass()), None, "{unseen:?}");
        scene.later(1);
        let decision = scene.pass();
        assert_eq!(going_back(&decision), Some((Outcome::NotProven, "CannotRead".to_owned())), "{unseen:?}");
    }
}

#[test]
fn an_abort_never_waits_for_ready_stable_pods_for_ever() {
    let mut scene = Scene::exposed();
    tripped(&mut scene);
    scene.slices[0] = crate::support::endpoint_slice("web-stable", "gone", 0);
    assert_eq!(lines(&scene.pass().actions), Vec::<String>::new(), "a Service without pods gets no traffic");
    scene.later(10);
    assert_eq!(lines(&scene.pass().actions), ["abort set-weights web 0%"], "but not for long");
}

#[test]
fn the_mark_on_a_route_stands_for_a_status_that_was_lost() {
    for (outcome, abort) in
        [(Outcome::Rejected, "guard"), (Outcome::Superseded, "newer"), (Outcome::NotProven, "no data")]
    {
        let mut scene = Scene::exposed();
        let before = scene.clone();
        match abort {
            "guard" => tripped(&mut scene),
            "newer" => scene.apply(template("app:3")),
            _ => {
                let since = scene.now;
                scene.later(100_000);
                scene.verdict.no_data = Some((since, "Prometheus does not answer".to_owned()));
            }
        }
        let decision = scene.decide();
        let (_, reason) = going_back(&decision).unwrap();
        // The weights were written, the status was not, and what was known of the evidence is gone.
        let mut scene = before;
        for action in decision.actions.iter().filter(|action| matches!(action.write, Write::Weights(_))) {
            write_weights(&mut scene.routes[0], action);
        }
        scene.verdict = Default::default();
        let again = scene.pass();
        assert_eq!(going_back(&again), Some((outcome, reason)), "{abort}");
        let refs = &scene.routes[0]["spec"]["rules"][0]["backendRefs"];
        assert_eq!((&refs[0]["weight"], &refs[1]["weight"]), (&json!(100), &json!(0)));
    }
}

#[test]
fn the_mark_of_another_run_means_nothing() {
    let mut scene = Scene::exposed();
    scene.routes[0]["metadata"]["annotations"] =
        json!({"sluice.dev/traffic": "99-other 0 aborted Rejected GuardTripped"});
    assert_eq!(going_back(&scene.pass()), None);
}

#[test]
fn no_later_verb_takes_an_abort_back() {
    let mut scene = Scene::exposed();
    let id = scene.run().id;
    scene.request(&format!("abort/{id}"));
    let decision = scene.pass();
    assert_eq!(events(&decision), ["Aborted", "RequestSeen"]);
    for verb in ["resume", "pause", "retry", "abort", "resume/{id}/again", "abort/{id}/again"] {
        let value = if verb.contains('/') { verb.replace("{id}", &id) } else { format!("{verb}/{id}") };
        scene.request(&value);
        let decision = scene.pass();
        assert_eq!(going_back(&decision), Some((Outcome::Rejected, "AbortedByUser".to_owned())), "{verb}");
        let answer = decision.status.request.unwrap().answer;
        assert_eq!(answer, "ignored: the run already returns to stable", "{verb}");
    }
    // Git takes the annotation away: what was latched stays.
    scene.rollout.metadata.annotations = None;
    assert!(going_back(&scene.pass()).is_some());
}

#[test]
fn a_request_is_for_its_run_and_is_answered_once() {
    for (value, event, says) in [
        ("abort/99-other", "RequestIgnored", "ignored: run 99-other is not under way, run 1-"),
        ("abort", "RequestInvalid", "ignored: write <verb>/<runID>"),
        ("abort/{id}/a/b", "RequestInvalid", "ignored: write <verb>/<runID>"),
        ("abort/", "RequestInvalid", "ignored: \"abort/\" names no run; write abort/<runID>"),
        ("pause/{id}/a b", "RequestInvalid", "ignored: the nonce of \"pause/1-"),
        (
            "promote/1",
            "RequestInvalid",
            "ignored: \"promote\" is no verb; write abort, pause, resume or retry",
        ),
        ("retry/{id}", "RequestIgnored", "ignored: the run has not ended"),
        ("pause/{id}", "RequestSeen", "accepted: the weight stays until resume"),
        ("pause/{id}/2", "RequestSeen", "accepted: the weight stays until resume"),
    ] {
        let mut scene = Scene::exposed();
        let value = value.replace("{id}", &scene.run().id);
        scene.request(&value);
        let decision = scene.pass();
        let request = decision.status.request.clone().unwrap();
        assert!(request.answer.starts_with(says), "{value}: {}", request.answer);
        assert_eq!(events(&decision), [event], "{value}");
        assert_eq!(going_back(&decision), None, "{value}");
        let again = scene.pass();
        assert_eq!(events(&again), Vec::<&str>::new(), "{value}");
        assert_eq!(again.status.request, decision.status.request);
    }
}

#[test]
fn the_same_verb_again_needs_a_nonce() {
    let mut scene = Scene::exposed();
    let id = scene.run().id;
    scene.request(&format!("pause/{id}"));
    scene.pass();
    scene.change_run(|run| run.paused = false);
    // The same text is not seen twice, whatever became of the run.
    assert_eq!(events(&scene.pass()), Vec::<&str>::new());
    assert!(!scene.run().paused);
    for nonce in ["2", "3"] {
        scene.request(&format!("pause/{id}/{nonce}"));
        assert_eq!(events(&scene.pass()), ["RequestSeen"]);
        assert!(scene.run().paused);
        scene.request(&format!("resume/{id}/{nonce}"));
        scene.pass();
        assert!(!scene.run().paused);
    }
}

#[test]
fn a_request_of_any_length_stays_small() {
    let mut scene = Scene::exposed();
    scene.request(&"x/".repeat(100_000));
    let decision = scene.pass();
    let request = decision.status.request.unwrap();
    assert!(
        request.value.len() < 200 && request.answer.len() < 400,
        "{} {}",
        request.value.len(),
        request.answer.len()
    );
    assert_eq!(events(&scene.pass()), Vec::<&str>::new(), "and is answered once");
}

#[test]
fn what_a_pod_says_is_the_reason() {
    let mut scene = Scene::exposed();
    scene.canary_pods(0);
    scene.pods = vec![waiting_pod("CrashLoopBackOff", "back-off 40s restarting failed container")];
    let decision = scene.pass();
    assert_eq!(going_back(&decision), Some((Outcome::Rejected, "CrashLoopBackOff".to_owned())));
    let message = decision.status.run.unwrap().going_back.unwrap().message;
    assert_eq!(message, "pod web-canary-pod00: back-off 40s restarting failed container");
}

/// What happens, how it comes about, the outcome, its reason.
type Case = (&'static str, fn(&mut Scene), Outcome, &'static str);

#[test]
fn the_world_can_take_a_run_back_too() {
    let cases: [Case; 7] = [
        ("a newer template", |s| s.apply(template("app:3")), Outcome::Superseded, "NewerTemplate"),
        ("the old template", |s| s.apply(template("app:1")), Outcome::Superseded, "TemplateReturned"),
        ("no Deployment", |s| s.deployment = None, Outcome::Abandoned, "WorkloadGone"),
        (
            "another Deployment",
            |s| s.workload()["metadata"]["uid"] = json!("uid-other"),
            Outcome::Abandoned,
            "WorkloadReplaced",
        ),
        (
            "scaled to zero",
            |s| s.workload()["spec"]["replicas"] = json!(0),
            Outcome::NotProven,
            "ScaledToZero",
        ),
        ("uninstalled", |s| s.releasing = true, Outcome::Abandoned, "Removed"),
        ("break-glass", |s| s.break_glass("INC-7"), Outcome::Abandoned, "BreakGlass"),
    ];
    for (what, happens, outcome, reason) in cases {
        let mut scene = Scene::exposed();
        happens(&mut scene);
        let decision = scene.pass();
        assert_eq!(going_back(&decision), Some((outcome, reason.to_owned())), "{what}");
        assert!(
            decision.actions.iter().all(|action| action.lane == Lane::Abort),
            "{what}: {:?}",
            lines(&decision.actions)
        );
        assert!(lines(&decision.actions).contains(&"abort set-weights web 0%".to_owned()), "{what}");
    }
}

#[test]
fn weight_0_is_verified_before_a_pod_goes() {
    let mut scene = Scene::exposed();
    tripped(&mut scene);
    scene.pass();
    scene.route_shows(0);
    let since = scene.now;
    let mut seen = Vec::new();
    for _ in 0..60 {
        let decision = scene.pass();
        let verified = decision.status.run.as_ref().and_then(|run| run.going_back.as_ref()?.verified_at);
        if !decision.actions.is_empty() {
            assert!(verified.is_some(), "{:?} before weight 0 is verified", lines(&decision.actions));
            assert_eq!(
                lines(&decision.actions),
                ["tidy scale-canary ".to_owned() + &scene.run().canary.replica_set]
            );
            break;
        }
        seen.push(decision.status.waiting.unwrap().reason);
        scene.later(1);
    }
    seen.dedup();
    assert_eq!(seen, ["Settling", "Draining"]);
    assert_eq!(
        scene.now.duration_since(since).as_secs(),
        30,
        "the drain time, without a scrape that shows more"
    );
    assert_eq!(scene.run().stage, Stage::Returning);
}
