//! From what is declared to a plan: provenance, class, steps, and how a declaration finds its template.

use crate::support::{Scene, events, template};
use serde_json::json;
use sluice_core::api::{Plan, Provenance, StepSpec};

fn words(plan: &Plan) -> String {
    let steps: Vec<String> =
        plan.steps.iter().map(|s| format!("{}% for {} s", s.weight_percent, s.bake_seconds)).collect();
    format!(
        "{} {}: {}; tolerance {} ppm of stable + {} ppm; {} requests; no data {} s; watched {} s; guards {}",
        plan.provenance.as_str(),
        plan.risk_class.as_str(),
        steps.join(", "),
        plan.tolerance_ppm.relative,
        plan.tolerance_ppm.absolute,
        plan.min_samples,
        plan.no_data_seconds,
        plan.watch_seconds,
        plan.guards.iter().map(|guard| guard.name.as_str()).collect::<Vec<_>>().join(", "),
    )
}

fn plan_of(scene: Scene) -> Plan {
    let mut scene = scene;
    scene.pass();
    scene.later(31);
    scene.pass();
    scene.run().plan
}

#[test]
fn the_plan_follows_from_who_wrote_the_change() {
    let all =
        [Provenance::Human, Provenance::GenAIAssisted, Provenance::Unknown, Provenance::GenAIAutonomous];
    let plans: Vec<String> = all
        .into_iter()
        .map(|provenance| words(&plan_of(Scene::held("app:2").declared(provenance))))
        .collect();
    insta::assert_snapshot!(plans.join("\n"));
}

#[test]
fn a_plan_can_be_recognised() {
    let plan = plan_of(Scene::held("app:2").declared(Provenance::Human));
    let again = plan_of(Scene::held("app:2").declared(Provenance::Human));
    assert_eq!(plan.digest, again.digest);
    let mut tighter = Scene::held("app:2").declared(Provenance::Human);
    tighter.rollout.spec.limits.min_bake_seconds = Some(7200);
    assert_ne!(plan.digest, plan_of(tighter).digest);
}

#[test]
fn own_limits_only_tighten() {
    let class = plan_of(Scene::held("app:2").declared(Provenance::Human));
    let mut scene = Scene::held("app:2").declared(Provenance::Human);
    // Looser than the class in every way: nothing changes.
    scene.rollout.spec.limits.steps = vec![StepSpec { weight_percent: 100, bake_seconds: 0 }];
    scene.rollout.spec.limits.max_first_step_percent = Some(90);
    scene.rollout.spec.limits.min_bake_seconds = Some(0);
    assert_eq!(plan_of(scene.clone()).steps, class.steps);
    scene.rollout.spec.limits.max_first_step_percent = Some(1);
    scene.rollout.spec.limits.min_bake_seconds = Some(900);
    let tight = plan_of(scene);
    assert_eq!(tight.steps[0], StepSpec { weight_percent: 1, bake_seconds: 900 });
    assert!(tight.steps.iter().all(|step| step.bake_seconds >= 900));
}

#[test]
fn the_last_bake_may_be_spent_beside_a_stable() {
    let class = plan_of(Scene::held("app:2").declared(Provenance::Human));
    let mut scene = Scene::held("app:2").declared(Provenance::Human);
    let bakes = class.steps.iter().map(|step| step.bake_seconds).sum();
    let own = [(95, bakes), (100, 0)];
    scene.rollout.spec.limits.steps =
        own.map(|(weight_percent, bake_seconds)| StepSpec { weight_percent, bake_seconds }).to_vec();
    let plan = plan_of(scene);
    let mut wanted = class.steps.clone();
    let last = wanted.last_mut().unwrap();
    last.weight_percent = 95;
    wanted.push(StepSpec { weight_percent: 100, bake_seconds: 0 });
    assert_eq!(plan.steps, wanted);
    assert_eq!(plan.watch_seconds, class.watch_seconds);
}

#[test]
fn images_that_differ_from_stable_must_all_be_declared() {
    let two = || {
        let mut template = template("app:2");
        template["spec"]["containers"]
            .as_array_mut()
            .unwrap()
            .push(json!({"name": "side", "image": "side:2"}));
        template
    };
    for (images, declared) in [
        (vec!["app:2", "side:2"], true),
        (vec!["side:2", "app:2", "other:9"], true),
        (vec!["app:2"], false),
        (vec!["app:1"], false),
        (vec![], false),
    ] {
        let mut scene = Scene::enrolled().declared(Provenance::Human);
        scene.rollout.spec.change.images = images.iter().map(ToString::to_string).collect();
        scene.apply(two());
        let provenance = plan_of(scene).provenance;
        assert_eq!(provenance == Provenance::Human, declared, "{images:?}: {provenance:?}");
    }
}

#[test]
fn a_change_of_configuration_alone_is_declared_by_its_commit() {
    let configured = || {
        let mut template = template("app:1");
        template["spec"]["containers"][0]["env"] = json!([{"name": "MODE", "value": "new"}]);
        template
    };
    for (annotation, commit, provenance) in [
        (Some("0123abc"), Some("0123abc"), Provenance::Human),
        (Some("0123abc"), Some("0123abd"), Provenance::Unknown),
        (None, Some("0123abc"), Provenance::Unknown),
        (Some("0123abc"), None, Provenance::Unknown),
        (None, None, Provenance::Unknown),
    ] {
        let mut scene = Scene::enrolled().declared(Provenance::Human);
        scene.rollout.spec.change.commit = commit.map(ToOwned::to_owned);
        scene.apply(configured());
        if let Some(annotation) = annotation {
            scene.workload()["metadata"]["annotations"]["sluice.dev/commit"] = json!(annotation);
        }
        assert_eq!(plan_of(scene).provenance, provenance, "{annotation:?} {commit:?}");
    }
}

#[test]
fn a_held_template_waits_for_its_declaration_and_no_longer() {
    let mut scene = Scene::held("app:2");
    let first = scene.pass();
    assert_eq!(events(&first), ["Held"]);
    let waiting = first.status.waiting.clone().unwrap();
    assert_eq!(waiting.reason, "DeclarationGrace");
    assert_eq!(waiting.deadline.unwrap().duration_since(scene.now).as_secs(), 30);
    scene.later(29);
    assert!(scene.pass().status.run.is_none());
    scene.later(1);
    let started = scene.pass();
    assert_eq!(scene.run().plan.provenance, Provenance::Unknown);
    let message = &started.events[0].message;
    assert!(
        message.contains("provenance Unknown (undeclared), class R2, steps 2, 10, 33, 66, 100 %"),
        "{message}"
    );
    // One that is declared does not wait.
    let mut scene = Scene::held("app:2").declared(Provenance::Human);
    let started = scene.pass();
    assert_eq!(events(&started), ["Held", "RunStarted"]);
    // Neither does a declaration that comes within the time.
    let mut scene = Scene::held("app:2");
    scene.pass();
    scene.later(10);
    let mut scene = scene.declared(Provenance::GenAIAutonomous);
    scene.pass();
    assert_eq!(scene.run().plan.risk_class.as_str(), "R3");
}

#[test]
fn a_run_keeps_the_plan_it_started_with() {
    let mut scene = Scene::running();
    let plan = scene.run().plan;
    scene.rollout.spec.limits.abort_needs_two_pods = true;
    // It describes the next template; a riskier provenance of this one would count (see the tests of that).
    scene.rollout.spec.change.images = vec!["app:3".to_owned()];
    scene.config.classes.clear();
    scene.rollout.spec.routing.settle_seconds = 77;
    scene.rollout.spec.watch_seconds = Some(1);
    scene.pass();
    assert_eq!(scene.run().plan, plan);
}

#[test]
fn a_held_revision_shows_the_commit_that_describes_it() {
    const DECLARED: &str = "9f2c1ab4d0e1f2a3";
    const ANNOTATED: &str = "aaaaaaa1234567890";
    // (declared images, declared commit, annotation), and the commit that is shown.
    let cases = [
        (vec!["app:2"], Some(DECLARED), None, "9f2c1ab4d0e1"),
        (vec!["app:2"], None, Some(ANNOTATED), "aaaaaaa12345"),
        (vec![], Some(ANNOTATED), Some(ANNOTATED), "aaaaaaa12345"),
        (vec!["app:9"], Some(DECLARED), Some(ANNOTATED), "aaaaaaa12345"),
        (vec!["app:9"], Some(DECLARED), None, ""),
    ];
    for (images, commit, annotation, shown) in cases {
        let mut scene = Scene::held("app:2");
        scene.rollout.spec.suspend = true;
        scene.rollout.spec.change.images = images.iter().map(ToString::to_string).collect();
        scene.rollout.spec.change.commit = commit.map(ToOwned::to_owned);
        if let Some(annotation) = annotation {
            scene.workload()["metadata"]["annotations"]["sluice.dev/commit"] = json!(annotation);
        }
        let summary = scene.pass().status.summary;
        assert_eq!(summary.commit, shown, "{images:?} {commit:?} {annotation:?}");
        // The run that follows carries the same one.
        scene.rollout.spec.suspend = false;
        scene.later(31);
        scene.pass();
        let carried = scene.run().canary.commit.unwrap_or_default();
        assert!(carried.starts_with(shown) && carried.is_empty() == shown.is_empty(), "{carried}");
    }
}
