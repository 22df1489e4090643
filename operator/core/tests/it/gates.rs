//! What keeps a change from starting whatever it is: sign-offs that are missing, a run that failed lately, and no room.

use crate::support::{Scene, events, left, lines, stalled, template};
use serde_json::{Value, json};
use sluice_core::api::{ConditionStatus, ConditionType, Outcome, Provenance, QueueRoom, RunKind};
use sluice_core::decide::Decision;
use sluice_core::policy::Policy;
use sluice_core::queue::Turn;

/// `app:2` is held, under a policy with this row for every class.
fn under(row: &Value) -> Scene {
    let mut scene = Scene::held("app:2").declared(Provenance::Human);
    scene.policy = Some(policy(&scene, row));
    scene
}

fn policy(scene: &Scene, row: &Value) -> Policy {
    let rows: Vec<Value> = ["R0", "R1", "R2", "R3", "R4"]
        .into_iter()
        .map(|class| {
            let mut row = row.clone();
            row["name"] = json!(class);
            row
        })
        .collect();
    let spec = serde_json::from_value(json!({"classes": rows})).unwrap();
    Policy::joined(&scene.config, &[("gates".to_owned(), spec)], &[], &std::collections::BTreeMap::new())
}

/// A run of `app:2` was rejected, and `app:3` is held.
fn failed(row: &Value) -> Scene {
    let mut scene = under(row);
    let earlier = Scene::exposed().status().run.unwrap();
    let mut record = serde_json::json!({
        "id": "1-aaaaa", "outcome": "Rejected", "reason": "ErrorRatio", "message": "worse", "riskClass": "R1",
        "provenance": "Human", "digest": earlier.canary.digest, "maxWeightPercent": 5,
        "startedAt": scene.now.to_string(), "endedAt": scene.now.to_string(),
    });
    record["images"] = json!(["app:0"]);
    scene.rollout.status.as_mut().unwrap().history.push(serde_json::from_value(record).unwrap());
    scene
}

fn waits(decision: &Decision) -> (String, String) {
    let waiting = decision.status.waiting.clone().unwrap();
    (waiting.reason, waiting.message)
}

/// The held template is a recorded good one.
fn made_good(scene: &mut Scene) {
    let digest = sluice_core::digest::template(&template("app:2"));
    scene.rollout.status.as_mut().unwrap().good[0].digest = digest;
}

#[test]
fn a_failed_run_lets_the_next_one_wait_and_then_go() {
    let mut scene = failed(&json!({"cooldownSeconds": 900}));
    let decision = scene.pass();
    let (reason, message) = waits(&decision);
    assert_eq!((reason.as_str(), events(&decision)), ("Cooldown", vec!["Held", "Cooldown"]));
    assert!(
        message.starts_with("run 1-aaaaa failed: a change of class")
            && message.contains("starts 900 s after that")
            && message.contains("cooldownSeconds of ClusterRiskPolicy/gates"),
        "{message}"
    );
    assert_eq!(left(&scene, &decision), 900);
    scene.later(899);
    let decision = scene.pass();
    assert_eq!((events(&decision), lines(&decision.actions)), (vec![], vec![]), "it is told once");
    scene.later(1);
    assert_eq!(events(&scene.pass()), ["RunStarted"]);
}

#[test]
fn only_a_failure_cools_down() {
    for (outcome, reason, waits) in [
        (Outcome::Rejected, "ErrorRatio", true),
        (Outcome::Reverted, "ErrorRatio", true),
        (Outcome::Rejected, "AbortedByUser", false),
        (Outcome::NotProven, "NoData", false),
        (Outcome::Superseded, "NewTemplate", false),
        (Outcome::Promoted, "Promoted", false),
    ] {
        let mut scene = failed(&json!({"cooldownSeconds": 900}));
        let record = &mut scene.rollout.status.as_mut().unwrap().history[0];
        (record.outcome, record.reason) = (outcome, reason.to_owned());
        assert_eq!(scene.pass().status.run.is_none(), waits, "{outcome:?} {reason}");
    }
    let mut scene = failed(&json!({"cooldownSeconds": 0}));
    assert!(scene.pass().status.run.is_some(), "without a cooldown nothing waits");
}

#[test]
fn the_last_failed_run_is_remembered_beyond_many_others() {
    let mut scene = failed(&json!({"cooldownSeconds": 0}));
    let history = &mut scene.rollout.status.as_mut().unwrap().history;
    for n in 2..=20 {
        let mut other = history[0].clone();
        (other.id, other.outcome) = (format!("{n}-aaaaa"), Outcome::Superseded);
        history.insert(history.len() - 1, other);
    }
    assert!(scene.pass().status.run.is_some());
    scene.apply(template("app:3"));
    let ended = (0..60).any(|_| {
        scene.later(1);
        scene.pass().status.history.iter().any(|run| run.id.starts_with("1-") && run.id != "1-aaaaa")
    });
    let history = scene.status().history;
    let ids = [0, 1, 18, 19].map(|n| history[n].id.as_str());
    assert!(ended && history.len() == 20, "{history:?}");
    assert_eq!(ids[1..], ["2-aaaaa", "19-aaaaa", "1-aaaaa"], "the oldest of the others went");
}

#[test]
fn a_class_that_needs_sign_offs_is_held_and_says_so() {
    let mut scene = under(&json!({"requiredSignoffs": [{"role": "senior", "count": 2}, {"role": "peer"}]}));
    let decision = scene.pass();
    let (reason, message) = waits(&decision);
    assert_eq!((reason.as_str(), decision.status.run.is_none()), ("SignoffMissing", true));
    assert!(
        message.contains("needs sign-offs (2 senior, 1 peer; ClusterRiskPolicy/gates)")
            && message.contains("nobody can give one yet"),
        "{message}"
    );
    let approved = |decision: &Decision| {
        let found = decision.status.conditions.iter().find(|c| c.kind == ConditionType::Approved);
        found.map(|condition| (condition.status, condition.reason.clone()))
    };
    assert_eq!(approved(&decision), Some((ConditionStatus::False, "SignoffMissing".to_owned())));
    let signoffs = decision.status.plan.clone().unwrap().required_signoffs;
    assert_eq!(signoffs.iter().map(ToString::to_string).collect::<Vec<_>>(), ["2 senior", "1 peer"]);
    scene.policy = Some(policy(&scene, &json!({"cooldownSeconds": 0})));
    let decision = scene.pass();
    assert_eq!((events(&decision), approved(&decision)), (vec!["RunStarted"], None));
}

#[test]
fn without_room_it_queues_and_says_where() {
    let row = json!({"maxInFlightPerNamespace": 1, "maxInFlightNotHuman": 1, "maxInFlightOfClass": 1});
    for (room, says) in [
        (QueueRoom::Namespace, "no other rollout of namespace shop is under way (maxInFlightPerNamespace of"),
        (
            QueueRoom::NotHuman,
            "no other change of the cluster that is not Human is under way (maxInFlightNotHuman",
        ),
        (QueueRoom::Class, "or riskier is under way (maxInFlightOfClass of ClusterRiskPolicy/gates)"),
    ] {
        let mut scene = under(&row);
        scene.turn = Some(Turn { position: 2, length: 3, room });
        let decision = scene.pass();
        let (reason, message) = waits(&decision);
        assert_eq!((reason.as_str(), events(&decision)), ("Queued", vec!["Held", "Queued"]));
        assert!(message.starts_with("2 of 3 in the queue: ") && message.contains(says), "{message}");
        let queue = decision.status.queue.unwrap();
        assert_eq!((queue.position, queue.length, queue.room), (2, 3, room));
        assert_eq!((events(&scene.pass()), lines(&decision.actions)), (vec![], vec![]));
        scene.turn = None;
        let decision = scene.pass();
        assert_eq!((events(&decision), decision.status.queue), (vec!["RunStarted"], None));
        // A run that has begun has its room.
        scene.turn = Some(Turn { position: 1, length: 1, room });
        assert!(scene.pass().status.run.is_some());
    }
}

#[test]
fn whoever_waits_for_something_else_leaves_the_queue() {
    let mut scene = under(&json!({}));
    scene.turn = Some(Turn { position: 1, length: 1, room: QueueRoom::Namespace });
    assert!(scene.pass().status.queue.is_some());
    scene.rollout.spec.suspend = true;
    let decision = scene.pass();
    assert_eq!((waits(&decision).0.as_str(), decision.status.queue), ("Suspended", None));
}

#[test]
fn going_back_to_a_good_revision_is_held_by_none_of_them() {
    let row = json!({"cooldownSeconds": 900, "requiredSignoffs": [{"role": "senior"}]});
    let mut scene = failed(&row);
    made_good(&mut scene);
    scene.turn = Some(Turn { position: 1, length: 1, room: QueueRoom::Namespace });
    scene.rollout.spec.suspend = true;
    scene.rollout.spec.limits = mistaken();
    scene.rollout.spec.prometheus = None;
    scene.pass();
    assert_eq!(scene.run().kind, RunKind::Return);
    let mut unknown = failed(&row);
    made_good(&mut unknown);
    unknown.policy = Some(Policy::unknown(&unknown.config, "not listed yet".to_owned()));
    unknown.pass();
    assert_eq!(unknown.run().kind, RunKind::Return);
}

/// Steps that do not rise.
fn mistaken() -> sluice_core::api::Limits {
    let steps = [50, 20, 100].map(|weight| json!({"weightPercent": weight, "bakeSeconds": 0}));
    serde_json::from_value(json!({"steps": steps})).unwrap()
}

#[test]
fn stable_s_own_template_is_released_whatever_is_wrong_with_the_spec() {
    let mut scene = Scene::held("app:2");
    scene.rollout.spec.suspend = true;
    scene.rollout.spec.limits = mistaken();
    let stalls = |decision: &Decision| stalled(decision).map(|(reason, _)| reason);
    assert_eq!(stalls(&scene.pass()).as_deref(), Some("InvalidSpec"));
    scene.apply(template("app:1"));
    assert_eq!(lines(&scene.pass().actions), ["tidy release web"]);
    // What is wrong is said again as soon as nothing goes back.
    scene.workload()["metadata"]["annotations"].as_object_mut().unwrap().remove("sluice.dev/held");
    scene.workload()["spec"]["paused"] = json!(false);
    assert_eq!(stalls(&scene.pass()).as_deref(), Some("InvalidSpec"));
}
