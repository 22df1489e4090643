//! Everything that stops for a person says what to do, once, and touches nothing.

use crate::support::{INPUTS, Scene, Unreadable, events, lines, restarted, service, stalled, template};
use serde_json::{Value, json};
use sluice_core::api::{Outcome, Provenance, StepSpec};
use sluice_core::config::ClassRow;

/// A rollout that is not in order, and why.
fn cases() -> Vec<(&'static str, Scene)> {
    let with = |base: Scene, change: &dyn Fn(&mut Scene)| {
        let mut scene = base;
        change(&mut scene);
        scene
    };
    let backends = |refs: Value| {
        with(Scene::new(), &|scene| scene.routes[0]["spec"]["rules"] = json!([{"backendRefs": refs.clone()}]))
    };
    vec![
        (
            "a commit that is none",
            with(Scene::new(), &|scene| scene.rollout.spec.change.commit = Some("HEAD".into())),
        ),
        (
            "steps that fall",
            with(Scene::new(), &|scene| {
                let step = |weight_percent| StepSpec { weight_percent, bake_seconds: 5 };
                scene.rollout.spec.limits.steps = vec![step(50), step(20), step(100)];
            }),
        ),
        (
            "a class that is looser than a safer one",
            with(Scene::new(), &|scene| {
                let row: ClassRow = serde_json::from_value(json!({
                    "name": "R3", "steps": [{"weightPercent": 100, "bakeSeconds": 1}],
                    "tolerancePpm": {"relative": 1, "absolute": 1}, "minSamples": 99_999, "noDataSeconds": 5,
                }))
                .unwrap();
                scene.config.classes = vec![row];
            }),
        ),
        ("another rollout of the workload", with(Scene::new(), &|scene| scene.rivals = vec!["older".into()])),
        ("no Deployment", with(Scene::new(), &|scene| scene.deployment = None)),
        (
            "strategy Recreate",
            with(Scene::new(), &|scene| scene.workload()["spec"]["strategy"]["type"] = json!("Recreate")),
        ),
        ("no Service", with(Scene::new(), &|scene| drop(scene.services.remove(0)))),
        (
            "a Service of other pods",
            with(Scene::new(), &|scene| scene.services[0] = service("web", json!({"app": "other"}))),
        ),
        (
            "a Service that somebody else made",
            with(Scene::new(), &|scene| scene.services[2]["metadata"]["labels"] = json!({"app": "mine"})),
        ),
        ("no route", with(Scene::new(), &|scene| scene.routes.clear())),
        ("a route without the pair", backends(json!([{"name": "web", "port": 80}]))),
        ("a route with half of the pair", backends(json!([{"name": "web-stable", "weight": 100}]))),
        (
            "a rule that does not exist",
            with(Scene::new(), &|scene| scene.rollout.spec.routing.routes[0].rules = vec![7]),
        ),
        ("weights of somebody else", with(Scene::new(), &|scene| scene.route_shows(30))),
        (
            "a paused Deployment",
            with(Scene::new(), &|scene| scene.workload()["spec"]["paused"] = json!(true)),
        ),
        (
            "no Prometheus",
            with(Scene::held("app:2").declared(Provenance::Human), &|scene| scene.config.prometheus = None),
        ),
        (
            "alert guards without an Alertmanager",
            with(Scene::held("app:2").declared(Provenance::Human), &|scene| {
                let guards = json!([
                    {"name": "errors", "errorRatio": {}},
                    {"name": "alerts", "alert": {"matchers": [{"label": "app", "value": "web"}]}},
                ]);
                scene.rollout.spec.guards = serde_json::from_value(guards).unwrap();
            }),
        ),
        (
            "no permission to read routes",
            with(Scene::new(), &|scene| scene.unseen = vec![Unreadable::Routes]),
        ),
        ("a rejected revision", ended(Outcome::Rejected, "GuardTripped", "error-rate: 40 of 200 failed")),
        (
            "a revision without enough evidence",
            ended(Outcome::NotProven, "NotEnoughEvidence", "needs 900 more requests"),
        ),
    ]
}

/// A run of `app:2` that has gone back and ended so.
pub fn ended(outcome: Outcome, reason: &str, message: &str) -> Scene {
    let mut scene = Scene::running();
    let now = scene.now;
    scene.change_run(|run| {
        run.going_back = Some(sluice_core::api::GoingBack {
            outcome,
            reason: reason.to_owned(),
            message: message.to_owned(),
            since: now,
            judges_stable: false,
            back_at: Some(now),
            verified_at: Some(now),
        });
        run.stage = sluice_core::api::Stage::Returning;
    });
    for _ in 0..3 {
        scene.pass();
    }
    assert!(scene.status().run.is_none(), "{:?}", scene.status());
    if outcome == Outcome::Rejected {
        scene.workload()["metadata"]["annotations"]["sluice.dev/held"] = json!("rejected");
    }
    scene
}

#[test]
fn every_reason_says_what_to_do() {
    let told: Vec<String> = cases()
        .into_iter()
        .map(|(what, scene)| {
            let decision = scene.decide();
            let (reason, message) =
                stalled(&decision).unwrap_or_else(|| panic!("{what}: {:?}", decision.status));
            format!("{what}\n  {reason}: {message}")
        })
        .collect();
    insta::assert_snapshot!(told.join("\n"));
}

#[test]
fn nothing_is_touched_and_the_event_comes_once() {
    for (what, mut scene) in cases() {
        let before = scene.status();
        let decision = scene.pass();
        assert_eq!(lines(&decision.actions), Vec::<String>::new(), "{what}");
        let reason = stalled(&decision).unwrap().0;
        let told = events(&decision).iter().filter(|event| **event == reason).count();
        let new = before.conditions.iter().all(|condition| condition.reason != reason);
        assert_eq!(told, usize::from(new), "{what}: {:?}", decision.events);
        for _ in 0..3 {
            scene.later(60);
            let again = scene.pass();
            assert_eq!(events(&again), Vec::<&str>::new(), "{what}");
            assert_eq!(again.status.waiting, decision.status.waiting, "{what}: a wait keeps its beginning");
        }
    }
}

#[test]
fn what_is_mended_goes_on() {
    let mut scene = Scene::new();
    let route = scene.routes.remove(0);
    assert_eq!(stalled(&scene.pass()).unwrap().0, "RouteNotFound");
    scene.routes.push(route);
    let decision = scene.pass();
    assert_eq!(stalled(&decision), None);
    assert_eq!(lines(&decision.actions), ["forward add-finalizer web"]);
}

#[test]
fn every_unreadable_input_is_named() {
    for input in INPUTS {
        let mut scene = Scene::enrolled();
        scene.unseen = vec![input];
        let (reason, message) = stalled(&scene.decide()).unwrap();
        assert_eq!(reason, "CannotRead");
        assert!(message.contains("can't be read: forbidden") && message.contains("roles"), "{message}");
    }
}

#[test]
fn a_rejected_revision_is_known_by_both_digests() {
    let bad = || ended(Outcome::Rejected, "GuardTripped", "errors");
    // The same template again, or one that only a restart makes another.
    for template in [template("app:2"), restarted("app:2")] {
        let mut scene = bad();
        scene.apply(template);
        let decision = scene.pass();
        assert_eq!(stalled(&decision).unwrap().0, "Rejected");
        assert_eq!(decision.status.phase.as_str(), "Rejected");
        assert_eq!(lines(&decision.actions), ["tidy hold web"], "the mark says it");
        scene.later(3600);
        assert!(scene.pass().status.run.is_none());
    }
    // Another one is new.
    let mut scene = bad();
    scene.apply(template("app:3"));
    scene.pass();
    scene.later(31);
    scene.pass();
    assert_eq!(scene.run().canary.images, ["app:3"]);
}

#[test]
fn retry_is_for_the_run_that_ended_and_works_for_a_restart_too() {
    for template in [template("app:2"), restarted("app:2")] {
        let mut scene = ended(Outcome::Rejected, "GuardTripped", "errors");
        let id = scene.status().history[0].id.clone();
        scene.apply(template);
        scene.pass();
        scene.request("retry/9-other");
        let answer = scene.pass().status.request.unwrap().answer;
        assert!(answer.starts_with("ignored"), "{answer}");
        assert_eq!(scene.status().quarantine.len(), 1);
        scene.request(&format!("retry/{id}"));
        let answer = scene.pass().status.request.unwrap().answer;
        assert!(answer.starts_with("accepted"), "{answer}");
        assert_eq!(scene.status().quarantine.len(), 0);
        scene.later(31);
        scene.pass();
        assert_ne!(scene.run().id, id);
    }
}

#[test]
fn not_proven_starts_again_when_its_declaration_changes_and_by_nothing_else() {
    let mut scene = ended(Outcome::NotProven, "NotEnoughEvidence", "too little traffic");
    for _ in 0..5 {
        scene.later(3600);
        assert_eq!(stalled(&scene.pass()).unwrap().0, "NotProven");
    }
    scene.rollout.spec.change.provenance = Provenance::GenAIAssisted;
    scene.pass();
    assert_eq!(scene.run().plan.provenance, Provenance::GenAIAssisted);
}

#[test]
fn weights_of_somebody_else_are_told_once_however_often_the_write_is_refused() {
    let mut scene = Scene::enrolled();
    for _ in 0..2 {
        scene.route_shows(30);
        let told: Vec<usize> = (0..4)
            .map(|_| {
                let decision = scene.pass();
                assert_eq!(lines(&decision.actions), ["abort set-weights web 0%"]);
                events(&decision).iter().filter(|event| **event == "RouteOverwritten").count()
            })
            .collect();
        assert_eq!(told, [1, 0, 0, 0], "nobody carries the write out");
        // Somebody does; the next time is another occurrence.
        scene.route_shows(0);
        assert_eq!(events(&scene.pass()), Vec::<&str>::new());
    }
}

#[test]
fn a_rejected_template_that_goes_live_is_told_once() {
    let mut scene = ended(Outcome::Rejected, "GuardTripped", "errors");
    // Deleted and created again: nothing holds that.
    scene.deployment = Some(crate::support::deployment("app:2"));
    scene.workload()["metadata"]["labels"]["sluice.dev/managed"] = json!("true");
    scene.replica_sets = vec![crate::support::replica_set("app:2", crate::support::PODS)];
    let told: Vec<usize> = (0..4)
        .map(|_| {
            let decision = scene.pass();
            assert_eq!(lines(&decision.actions), ["abort hold web"]);
            events(&decision).iter().filter(|event| **event == "UnmanagedChange").count()
        })
        .collect();
    assert_eq!(told, [1, 0, 0, 0], "nobody carries the write out");
}
