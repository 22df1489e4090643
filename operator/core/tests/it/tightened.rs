//! A change that turns out to be riskier, and limits that get tighter, in the middle of a run.

use std::collections::BTreeMap;

use crate::support::{Scene, events, going_back, lines, template};
use serde_json::{Value, json};
use sluice_core::api::{GoingBack, Outcome, Provenance, RiskClass, Stage};
use sluice_core::policy::Policy;

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
fn limits_that_tighten_count_at_once_and_those_that_loosen_wait() {
    let mut scene = Scene::exposed();
    scene.rollout.spec.limits.min_bake_seconds = Some(1200);
    scene.rollout.spec.limits.pause_before_percent = Some(50);
    let decision = scene.pass();
    assert_eq!(events(&decision), ["PlanTightened"]);
    let message = &decision.events[0].message;
    assert!(
        message
            .ends_with("a policy or spec.limits is tighter now: class R1, steps from here 5, 20, 50, 100 %"),
        "{message}"
    );
    let plan = scene.run().plan;
    assert_eq!((plan.steps[0].bake_seconds, plan.pause_before_percent), (1200, Some(50)));
    assert_eq!(scene.status().plan.unwrap().digest, plan.digest);
    // What is looser again is for the next run.
    scene.rollout.spec.limits = sluice_core::api::Limits::default();
    assert_eq!(events(&scene.pass()), Vec::<&str>::new());
    assert_eq!(scene.run().plan, plan);
}

#[test]
fn a_policy_that_tightens_counts_at_once_and_one_that_loosens_or_is_not_known_waits() {
    let under = |scene: &Scene, spec: Value| {
        let spec = serde_json::from_value(spec).unwrap();
        Policy::joined(&scene.config, &[], &[("shop".to_owned(), spec)], &BTreeMap::new())
    };
    let mut scene = Scene::exposed();
    scene.policy = Some(under(&scene, json!({"floors": [{"class": "R3"}]})));
    let decision = scene.pass();
    assert_eq!(events(&decision), ["PlanTightened"]);
    let message = &decision.events[0].message;
    assert!(
        message.ends_with("it was of class R1: class R3, steps from here 5, 20, 50, 75, 100 %"),
        "{message}"
    );
    let plan = scene.run().plan;
    assert_eq!((plan.risk_class, plan.provenance), (RiskClass::R3, Provenance::Human));
    let floor = scene.status().plan.unwrap().factors.pop().unwrap();
    assert_eq!((floor.name.as_str(), floor.source.as_str()), ("floor", "RiskPolicy/shop: every change"));
    for policy in
        [None, Some(Policy::unknown(&sluice_core::config::Config::default(), "not listed yet".to_owned()))]
    {
        scene.policy = policy;
        assert_eq!(events(&scene.pass()), Vec::<&str>::new());
        assert_eq!(scene.run().plan, plan);
    }
    // It does not need `spec.change` to go on describing the run.
    let mut scene = Scene::exposed();
    scene.rollout.spec.change.images = vec!["app:3".to_owned()];
    scene.policy = Some(under(&scene, json!({"classes": [{"name": "R0", "minSamples": 7777}]})));
    assert_eq!(events(&scene.pass()), ["PlanTightened"]);
    assert_eq!(scene.run().plan.min_samples, 7777);
    // What a scan confirmed stays confirmed when `spec.change` goes on to the next template.
    let strict = |scene: &Scene| {
        under(scene, json!({"tier": "Tier0", "provenance": {"unverifiedHumanAs": "GenAIAssisted"}}))
    };
    let mut scene = Scene::held("app:2").declared(Provenance::Human);
    let commit = "9f2c1ab4d0e1";
    let evidence = json!({"rulesVersion": "2026.11", "baseCommit": "0c6d1b2e77aa", "headCommit": commit, "commitsScanned": 1});
    scene.rollout.spec.change.commit = Some(commit.to_owned());
    scene.rollout.spec.change.evidence = Some(serde_json::from_value(evidence).unwrap());
    scene.policy = Some(strict(&scene));
    scene.pass();
    assert_eq!(scene.run().plan.risk_class, RiskClass::R2);
    scene.rollout.spec.change = sluice_core::api::Change::default();
    assert!(!events(&scene.pass()).contains(&"PlanTightened"));
    assert_eq!(scene.run().plan.risk_class, RiskClass::R2);
    // A riskier change is riskier, whatever is known of the policies.
    let mut scene = Scene::exposed().declared(Provenance::GenAIAutonomous);
    scene.policy = Some(Policy::unknown(&scene.config, "not listed yet".to_owned()));
    assert_eq!(events(&scene.pass()), ["PlanTightened"]);
}

/// I8: losing the policies never loosens.
#[test]
fn nothing_starts_before_the_policies_are_known() {
    let mut scene = Scene::held("app:2").declared(Provenance::Human);
    scene.policy =
        Some(Policy::unknown(&scene.config, "clusterriskpolicies can't be read: forbidden".to_owned()));
    let decision = scene.pass();
    let waits = decision.status.waiting.clone().unwrap();
    assert_eq!((waits.reason.as_str(), decision.status.phase.as_str()), ("PoliciesUnknown", "Held"));
    assert!(
        waits.message.starts_with("clusterriskpolicies can't be read: forbidden; nothing starts"),
        "{}",
        waits.message
    );
    scene.policy = None;
    assert_eq!(events(&scene.pass()), ["RunStarted"]);
    // Going back to a recorded good revision asks no policy.
    let mut scene = Scene::held("app:2").declared(Provenance::Human);
    scene.policy = Some(Policy::unknown(&scene.config, "forbidden".to_owned()));
    scene.rollout.status.as_mut().unwrap().good[0].digest = sluice_core::digest::template(&template("app:2"));
    scene.pass();
    assert_eq!(scene.run().kind, sluice_core::api::RunKind::Return);
}

#[test]
fn a_held_template_shows_its_plan_and_a_limit_that_is_not_used() {
    let mut scene = Scene::held("app:2").declared(Provenance::GenAIAssisted);
    scene.rollout.spec.suspend = true;
    scene.rollout.spec.limits.max_first_step_percent = Some(50);
    let decision = scene.pass();
    assert_eq!(events(&decision), ["Held", "LimitsClamped"]);
    assert_eq!(
        decision.events[1].message,
        "of spec.limits the tighter counts: maxFirstStepPercent 50 -> 2 (class R2)"
    );
    let plan = decision.status.plan.unwrap();
    assert_eq!((plan.risk_class, plan.points, plan.factors.len()), (Some(RiskClass::R2), 7, 8));
    assert_eq!(plan.factors.iter().map(|factor| factor.points).sum::<i32>(), 7);
    assert_eq!(plan.limit_sources[0].from, "class R2 (built in)");
    assert_eq!(plan.steps.len(), 5);
    assert_eq!(events(&scene.pass()), Vec::<&str>::new(), "it is told once");
    // The run has the plan that was shown.
    scene.rollout.spec.suspend = false;
    scene.pass();
    assert_eq!(scene.run().plan.digest, plan.digest);
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

/// What is known of a change, however it is described, counts in a run as it would at a start.
#[test]
fn a_policy_that_tightens_makes_a_run_as_risky_as_one_that_starts_now() {
    const COMMIT: &str = "9f2c1ab4d0e1";
    let undescribed: fn(&mut Scene) = |_| {};
    let annotated: fn(&mut Scene) = |scene| {
        scene.workload()["metadata"]["annotations"]["sluice.dev/commit"] = json!(COMMIT);
        scene.workload()["metadata"]["annotations"]["sluice.dev/provenance"] = json!("Human");
    };
    let claimed: fn(&mut Scene) = |scene| {
        let change = json!({"provenance": "Human", "images": ["app:2"], "size": {"changedLines": 300}});
        scene.rollout.spec.change = serde_json::from_value(change).unwrap();
    };
    let scanned: fn(&mut Scene) = |scene| {
        let evidence = json!({"rulesVersion": "2026.11", "baseCommit": "0c6d1b2e77aa", "headCommit": COMMIT, "commitsScanned": 1});
        let change = json!({"provenance": "Human", "commit": COMMIT, "images": ["app:2"], "size": {"changedLines": 300},
            "evidence": evidence});
        scene.rollout.spec.change = serde_json::from_value(change).unwrap();
    };
    let shown = |scene: &Scene| {
        let plan = scene.status().plan.unwrap();
        let factors: Vec<_> = plan
            .factors
            .iter()
            .map(|factor| (factor.name.clone(), factor.level.clone(), factor.points))
            .collect();
        (scene.run().plan.risk_class, plan.risk_class, plan.points, factors)
    };
    let mut classes = Vec::new();
    for described in [undescribed, annotated, claimed, scanned] {
        for own in [
            json!({"tier": "Tier2"}),
            json!({"tier": "Tier1", "blastRadius": "Region"}),
            json!({"tier": "Tier0", "blastRadius": "Global"}),
            json!({"provenance": {"unverifiedHumanAs": "GenAIAutonomous"}}),
            json!({"tier": "Tier1", "provenance": {"unverifiedHumanAs": "GenAIAssisted"}}),
        ] {
            let mut before = Scene::held("app:2");
            described(&mut before);
            let under = |scene: &Scene| {
                let spec = serde_json::from_value(own.clone()).unwrap();
                Some(Policy::joined(&scene.config, &[], &[("shop".to_owned(), spec)], &BTreeMap::new()))
            };
            let start = |mut scene: Scene| {
                scene.pass();
                scene.later(31);
                scene.begun()
            };
            let mut now = before.clone();
            now.policy = under(&now);
            let now = start(now);
            let mut run = start(before);
            let class = run.run().plan.risk_class;
            // `spec.change` is about the next template by then.
            run.rollout.spec.change = serde_json::from_value(json!({"images": ["app:3"]})).unwrap();
            assert!(!events(&run.pass()).contains(&"PlanTightened"), "nothing is tighter yet");
            run.policy = under(&run);
            let decision = run.pass();
            assert_eq!(run.run().plan.risk_class, now.run().plan.risk_class, "{own}");
            let tightened = run.run().plan.risk_class > class;
            assert_eq!(events(&decision).contains(&"PlanTightened"), tightened, "{own}");
            // A plan that stays is not explained anew.
            assert!(!tightened || shown(&run) == shown(&now), "{own}: {:?} {:?}", shown(&run), shown(&now));
            assert!(!events(&run.pass()).contains(&"PlanTightened"), "it is told once");
            classes.push((class, run.run().plan.risk_class));
        }
    }
    assert!(classes.iter().filter(|(before, after)| after > before).count() >= 10, "{classes:?}");
}

#[test]
fn what_explains_a_tighter_plan_names_who_made_it_so() {
    let mut scene = Scene::held("app:2");
    scene.pass();
    scene.later(31);
    let mut scene = scene.begun();
    let spec = serde_json::from_value(json!({"tier": "Tier1"})).unwrap();
    scene.policy = Some(Policy::joined(&scene.config, &[], &[("shop".to_owned(), spec)], &BTreeMap::new()));
    scene.pass();
    let plan = scene.status().plan.unwrap();
    assert_eq!(plan.factors.iter().map(|factor| factor.points).sum::<i32>(), plan.points);
    let source = |name: &str| plan.factors.iter().find(|factor| factor.name == name).unwrap().source.clone();
    assert_eq!(source("tier"), "RiskPolicy/shop");
    assert_eq!(source("provenance"), "nothing describes the template", "as it was");
    assert_eq!(source("size"), "not known: kubectl sluice scan writes spec.change.size and evidence");
}
