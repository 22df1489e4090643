//! A provenance that is declared riskier in the middle of a run.

use crate::support::{Scene, events, going_back, lines};
use sluice_core::api::{GoingBack, Outcome, Provenance, RiskClass, Stage};

fn weights(scene: &Scene) -> Vec<i32> {
    scene.run().plan.steps.iter().map(|step| step.weight_percent).collect()
}

#[test]
fn a_riskier_provenance_tightens_what_is_ahead_at_once() {
    let mut scene = Scene::exposed();
    assert_eq!(weights(&scene), [5, 20, 50, 100]);
    // It has passed its step by the limits that it had.
    scene.evidence(600.0, true);
    let mut scene = scene.declared(Provenance::GenAIAutonomous);
    let decision = scene.pass();
    assert_eq!(events(&decision), ["PlanTightened"]);
    assert!(decision.events[0].message.contains("class R3, steps from here 5, 20, 50, 75, 100 %"));
    let plan = scene.run().plan;
    assert_eq!((plan.risk_class, plan.provenance), (RiskClass::R3, Provenance::GenAIAutonomous));
    assert_eq!((plan.tolerance_ppm.relative, plan.min_samples), (100_000, 10_000));
    assert_eq!((plan.no_data_seconds, scene.run().step), (900, 0), "what was judged before opens no gate");
    assert_eq!(scene.run().weight.unwrap().percent, 5, "what is in force stays");
    assert_eq!(events(&scene.pass()), Vec::<&str>::new(), "it is told once");
    // By the new limits: 90 minutes at 5 %, as if it had begun at 1 %.
    for (healthy, step) in [(600.0, 0), (5399.0, 0), (5400.0, 1)] {
        scene.evidence(healthy, true);
        scene.pass();
        assert_eq!(scene.run().step, step, "{healthy}");
    }
}

#[test]
fn before_anybody_meets_it_all_steps_are_ahead() {
    let mut scene = Scene::running().declared(Provenance::GenAIAutonomous);
    let decision = scene.pass();
    assert!(events(&decision).contains(&"PlanTightened"));
    assert_eq!(weights(&scene), [1, 5, 20, 50, 75, 100]);
    assert_eq!(scene.run().stage, Stage::Preparing);
}

#[test]
fn a_safer_declaration_or_none_waits_for_the_next_run() {
    let mut scene = Scene::exposed().declared(Provenance::GenAIAutonomous);
    scene.pass();
    let plan = scene.run().plan;
    for provenance in [Provenance::Human, Provenance::Unknown, Provenance::GenAIAssisted] {
        let mut safer = scene.clone().declared(provenance);
        assert_eq!(events(&safer.pass()), Vec::<&str>::new());
        assert_eq!(safer.run().plan, plan, "{provenance:?}");
    }
    // What describes the next template, or nothing, says nothing about this one.
    let mut scene = Scene::exposed();
    let plan = scene.run().plan;
    scene.rollout.spec.change.provenance = Provenance::GenAIAutonomous;
    for images in [vec!["app:3".to_owned()], vec![]] {
        scene.rollout.spec.change.images = images;
        assert_eq!(events(&scene.pass()), Vec::<&str>::new());
        assert_eq!(scene.run().plan, plan);
    }
}

#[test]
fn an_abort_is_decided_and_carried_out_all_the_same() {
    let mut scene = Scene::exposed().declared(Provenance::GenAIAutonomous);
    scene.request(&format!("abort/{}", scene.run().id));
    let decision = scene.pass();
    assert_eq!(going_back(&decision), Some((Outcome::Rejected, "AbortedByUser".to_owned())));
    assert_eq!(lines(&decision.actions), ["abort set-weights web 0%"]);
}

#[test]
fn the_record_tells_the_provenance_that_was_in_force_at_the_end() {
    let mut scene = Scene::running().declared(Provenance::GenAIAssisted);
    scene.pass();
    let now = scene.now;
    scene.change_run(|run| {
        run.going_back = Some(GoingBack {
            outcome: Outcome::NotProven,
            reason: "NoData".to_owned(),
            message: "no fresh data".to_owned(),
            since: now,
            judges_stable: false,
            back_at: Some(now),
            verified_at: Some(now),
        });
        run.stage = Stage::Returning;
    });
    for _ in 0..3 {
        scene.pass();
    }
    let record = scene.status().history[0].clone();
    assert_eq!((record.provenance, record.risk_class), (Provenance::GenAIAssisted, RiskClass::R2));
}
