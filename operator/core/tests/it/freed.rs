//! Break-glass counts only where the policies accepted it: everybody who may edit can write its annotation.

use crate::support::{Scene, events, lines};
use serde_json::json;
use sluice_core::api::{Phase, Stage};

fn reason(scene: &mut Scene) {
    scene.workload()["metadata"]["annotations"]["sluice.dev/break-glass"] = json!("INC-1");
}

/// What the policies let through for a person with the verb.
fn freed(scene: &mut Scene) {
    reason(scene);
    let workload = scene.workload();
    workload["metadata"]["labels"].as_object_mut().unwrap().remove("sluice.dev/managed");
    workload["metadata"]["annotations"].as_object_mut().unwrap().remove("sluice.dev/held");
    workload["spec"]["paused"] = json!(false);
}

#[test]
fn the_annotation_alone_changes_nothing() {
    for scene in [Scene::enrolled(), Scene::held("app:2"), Scene::running(), Scene::exposed()] {
        let plain = scene.decide();
        let mut written = scene;
        reason(&mut written);
        let decision = written.decide();
        assert_eq!(lines(&decision.actions), lines(&plain.actions));
        assert_eq!(events(&decision), events(&plain));
        assert_eq!(decision.status, plain.status);
    }
}

#[test]
fn with_the_label_off_the_run_is_abandoned() {
    let mut scene = Scene::exposed();
    freed(&mut scene);
    scene.pass();
    let run = scene.run();
    assert_eq!(run.stage, Stage::Returning);
    assert_eq!(run.going_back.unwrap().reason, "BreakGlass");
}

#[test]
fn with_the_label_off_a_held_template_is_let_go() {
    let mut scene = Scene::held("app:2");
    freed(&mut scene);
    let decision = scene.pass();
    assert_eq!(decision.status.phase, Phase::Released);
    assert_eq!(decision.status.break_glass.as_deref(), Some("INC-1"));
    assert_eq!(events(&decision), ["BreakGlass"]);
    // The same reason again is no licence.
    scene.workload()["metadata"]["labels"]["sluice.dev/managed"] = json!("true");
    scene.apply(crate::support::template("app:3"));
    let again = scene.pass();
    assert_eq!(again.status.phase, Phase::Held);
}
