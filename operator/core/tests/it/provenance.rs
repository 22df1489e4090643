//! Who wrote it: claims, what a scan found and the Deployment's annotations, joined; and what was about another template.

use crate::support::{Scene, events, restarted, template};
use proptest::prelude::*;
use serde_json::json;
use sluice_core::api::{Change, ConditionStatus, ConditionType, Provenance, Revision};
use sluice_core::decide::Decision;
use sluice_core::provenance::{Before, ChangeView, describe};
use sluice_core::view::Workload;

const FIRST: &str = "1111111aaaa";
const SECOND: &str = "2222222bbbb";

fn annotate(scene: &mut Scene, key: &str, value: &str) {
    scene.workload()["metadata"]["annotations"][key] = json!(value);
}

/// `app:1` runs, and its Deployment says that it came from the first commit, by a person.
fn annotated() -> Scene {
    let mut scene = Scene::enrolled();
    annotate(&mut scene, "sluice.dev/commit", FIRST);
    annotate(&mut scene, "sluice.dev/provenance", "Human");
    scene.pass();
    assert_eq!(scene.status().stable_commit.as_deref(), Some(FIRST));
    scene
}

fn with_findings(scene: &mut Scene, declared: Option<Provenance>, findings: &[(&str, Provenance)]) {
    let findings: Vec<_> = findings
        .iter()
        .map(|(rule, level)| json!({"rule": rule, "level": level, "commit": SECOND}))
        .collect();
    let evidence = json!({
        "rulesVersion": "2026.11", "baseCommit": FIRST, "headCommit": SECOND, "commitsScanned": 4, "declared": declared,
        "findings": findings,
    });
    scene.rollout.spec.change.commit = Some(SECOND.to_owned());
    scene.rollout.spec.change.evidence = Some(serde_json::from_value(evidence).unwrap());
}

/// Status, reason and message of ProvenanceVerified.
fn verified(decision: &Decision) -> Option<(ConditionStatus, String, String)> {
    let found = decision.status.conditions.iter().find(|c| c.kind == ConditionType::ProvenanceVerified);
    found.map(|condition| (condition.status, condition.reason.clone(), condition.message.clone()))
}

fn started(mut scene: Scene) -> Scene {
    scene.pass();
    scene.later(31);
    scene.pass();
    assert!(scene.status().run.is_some());
    scene
}

#[test]
fn a_pipeline_that_knows_kubectl_set_image_and_annotate_takes_part() {
    let mut scene = annotated();
    scene.apply(template("app:2"));
    // Between the two writes the annotations are those of the template before.
    let decision = scene.pass();
    let held = decision.status.held.clone().unwrap();
    assert_eq!((held.provenance, held.commit), (Provenance::Unknown, None));
    let waits = decision.status.waiting.unwrap();
    assert_eq!(waits.reason, "DeclarationGrace");
    assert!(
        waits.message.contains("sluice.dev/commit=1111111aaaa") && waits.message.contains("earlier template")
    );
    annotate(&mut scene, "sluice.dev/commit", SECOND);
    let decision = scene.pass();
    assert_eq!(events(&decision), ["RunStarted"], "the commit is new: nothing more to wait for");
    let run = scene.run();
    assert_eq!((run.plan.provenance, run.canary.commit.as_deref()), (Provenance::Human, Some(SECOND)));
    let (status, reason, message) = verified(&decision).unwrap();
    assert_eq!((status, reason.as_str()), (ConditionStatus::False, "ClaimOnly"));
    assert!(message.contains("declared as Human"), "{message}");
}

#[test]
fn annotations_of_an_earlier_template_describe_no_later_one() {
    // Of stable.
    let mut scene = annotated();
    scene.apply(template("app:2"));
    let scene = started(scene);
    assert_eq!((scene.run().plan.provenance, scene.run().canary.commit), (Provenance::Unknown, None));
    // Not even together with a `change` of the same commit: it is as old.
    let mut scene = annotated();
    scene.rollout.spec.change =
        Change { commit: Some(FIRST.into()), provenance: Provenance::Human, ..Change::default() };
    scene.apply(template("app:2"));
    assert_eq!(started(scene).run().plan.provenance, Provenance::Unknown);
    // Of one that was held and never started.
    let mut scene = annotated();
    scene.rollout.spec.suspend = true;
    scene.apply(template("app:2"));
    annotate(&mut scene, "sluice.dev/commit", SECOND);
    scene.pass();
    assert_eq!(scene.status().held.unwrap().provenance, Provenance::Human);
    for image in ["app:3", "app:4"] {
        scene.apply(template(image));
        for _ in 0..2 {
            scene.pass();
            assert_eq!(scene.status().held.unwrap().provenance, Provenance::Unknown, "{image}");
        }
    }
    // Of one that was tried, whenever its commit came.
    for late in [false, true] {
        let mut scene = annotated();
        scene.apply(template("app:2"));
        if !late {
            annotate(&mut scene, "sluice.dev/commit", SECOND);
        }
        let mut scene = started(scene);
        annotate(&mut scene, "sluice.dev/commit", SECOND);
        scene.pass();
        assert_eq!(scene.run().canary.commit.as_deref(), Some(SECOND));
        scene.apply(template("app:3"));
        for _ in 0..5 {
            scene.pass();
        }
        assert_eq!(scene.status().history[0].commit.as_deref(), Some(SECOND), "{:?}", scene.status());
        assert_eq!(scene.status().held.unwrap().provenance, Provenance::Unknown);
        // Back to stable's template, the commit that was given up is not stable's.
        scene.apply(template("app:1"));
        scene.pass();
        scene.workload()["metadata"]["annotations"].as_object_mut().unwrap().remove("sluice.dev/held");
        scene.workload()["spec"]["paused"] = json!(false);
        scene.pass();
        assert_eq!(scene.status().phase.as_str(), "Idle");
        assert_eq!(scene.status().stable_commit.as_deref(), Some(FIRST));
    }
}

#[test]
fn a_commit_that_never_started_stays_another_template_s_when_the_next_one_does() {
    let mut scene = annotated();
    scene.apply(template("app:2"));
    scene.rollout.spec.suspend = true;
    annotate(&mut scene, "sluice.dev/commit", SECOND);
    scene.pass();
    scene.rollout.spec.suspend = false;
    // Nobody annotates this one.
    scene.apply(template("app:3"));
    let mut scene = started(scene);
    for _ in 0..3 {
        let decision = scene.pass();
        assert_eq!(verified(&decision).unwrap().1, "Undeclared");
        assert_eq!((scene.run().plan.provenance, scene.run().canary.commit), (Provenance::Unknown, None));
    }
    // Neither after the run: what is tried again is as little known.
    let id = scene.run().id;
    scene.request(&format!("abort/{id}"));
    for _ in 0..10 {
        scene.later(60);
        scene.pass();
    }
    assert_eq!(scene.status().history.len(), 1, "{:?}", scene.status().waiting);
    scene.request(&format!("retry/{id}"));
    for _ in 0..3 {
        scene.pass();
        scene.later(31);
    }
    assert_eq!((scene.status().run_count, scene.run().plan.provenance), (2, Provenance::Unknown));
}

#[test]
fn a_commit_of_a_good_revision_is_no_later_one_s() {
    let scene = annotated();
    let mut status = scene.status();
    let stable = Revision {
        digest: "b".into(),
        restart_digest: "b".into(),
        commit: Some(SECOND.into()),
        ..Revision::default()
    };
    let workload = |scene: &Scene| scene.workload_view();
    assert_eq!(status.good[0].restart_digest, workload(&scene).restart_digest);
    assert!(!Before::held(&stable, &status).has_spent(&workload(&scene)), "it is its own");
    let mut later = scene.clone();
    later.apply(template("app:3"));
    status.good[0].commit = Some(FIRST.into());
    assert!(Before::held(&stable, &status).has_spent(&workload(&later)));
    status.good.clear();
    assert!(!Before::held(&stable, &status).has_spent(&workload(&later)));
}

#[test]
fn what_was_exposed_as_risky_is_not_declared_milder_afterwards() {
    for (was, exposed, counts) in [
        (Provenance::GenAIAutonomous, true, Provenance::GenAIAutonomous),
        (Provenance::GenAIAutonomous, false, Provenance::Human),
        (Provenance::Unknown, true, Provenance::Human),
    ] {
        let mut scene = Scene::held("app:2").declared(Provenance::Human);
        let digest = scene.workload_view().digest;
        let at = scene.now.to_string();
        let record = json!({
            "id": "1-abcde", "outcome": "NotProven", "reason": "NoData", "message": "m", "riskClass": "R3", "provenance": was,
            "digest": digest, "maxWeightPercent": 1, "startedAt": at, "endedAt": at, "exposedSince": exposed.then_some(at.clone()),
        });
        scene.rollout.status.as_mut().unwrap().history.push(serde_json::from_value(record).unwrap());
        let decision = scene.pass();
        assert_eq!(scene.run().plan.provenance, counts);
        let mismatch = events(&decision).contains(&"ProvenanceMismatch");
        assert_eq!(mismatch, counts != Provenance::Human, "{:?}", decision.events);
    }
}

#[test]
fn an_annotation_of_an_earlier_template_can_still_raise_what_nothing_describes() {
    let mut scene = annotated();
    annotate(&mut scene, "sluice.dev/provenance", "GenAIAutonomous");
    scene.apply(template("app:2"));
    assert_eq!(started(scene.clone()).run().plan.provenance, Provenance::GenAIAutonomous);
    // What is described is not what that was about.
    assert_eq!(started(scene.declared(Provenance::Human)).run().plan.provenance, Provenance::Human);
}

#[test]
fn a_scan_of_the_release_before_confirms_nothing() {
    let view = |head: Option<&str>| {
        let mut scene = Scene::held("app:2").declared(Provenance::Human);
        scene.rollout.spec.change.commit = Some(SECOND.to_owned());
        scene.rollout.spec.change.size = serde_json::from_value(json!({"changedLines": 7})).unwrap();
        with_findings(&mut scene, None, &[("T-CLAUDE", Provenance::GenAIAssisted)]);
        scene.rollout.spec.change.evidence.as_mut().unwrap().head_commit = head.map(ToOwned::to_owned);
        let status = scene.status();
        describe(
            &scene.rollout.spec.change,
            &scene.workload_view(),
            Before::held(&Revision::default(), &status),
        )
    };
    let fresh = view(Some(SECOND));
    assert_eq!(
        (fresh.size.map(|size| size.changed_lines), fresh.scanned.map(|scan| scan.0)),
        (Some(7), Some(4))
    );
    for head in [Some(FIRST), None] {
        let stale = view(head);
        assert_eq!((stale.size, stale.scanned, stale.provenance), (None, None, Provenance::GenAIAssisted));
    }
}

/// The view of `app:2`, which is held, under this `spec.change`, with this commit in the annotation.
fn seen(change: &serde_json::Value, annotation: Option<&str>) -> ChangeView {
    let mut scene = Scene::held("app:2");
    if let Some(commit) = annotation {
        annotate(&mut scene, "sluice.dev/commit", commit);
    }
    let change: Change = serde_json::from_value(change.clone()).unwrap();
    describe(&change, &scene.workload_view(), Before::held(&Revision::default(), &scene.status()))
}

/// A change that a scan confirmed, and that says all that it can.
fn whole() -> serde_json::Value {
    json!({
        "provenance": "Human", "commit": SECOND, "images": ["app:2"], "kind": "Code", "size": {"changedLines": 7, "changedFiles": 1},
        "evidence": {"rulesVersion": "2026.11", "baseCommit": FIRST, "headCommit": SECOND, "commitsScanned": 4, "declared": "Human",
            "findings": []},
    })
}

#[test]
fn a_scan_of_another_commit_than_the_deployment_s_confirms_nothing() {
    // A short name of the same commit is no other one.
    for (annotation, confirms) in
        [(None, true), (Some(SECOND), true), (Some(&SECOND[..7]), true), (Some("3333333"), false)]
    {
        let view = seen(&whole(), annotation);
        assert_eq!((view.size.is_some(), view.scanned.is_some()), (confirms, confirms), "{annotation:?}");
        assert_eq!(view.provenance, Provenance::Human);
        assert_eq!(view.stale.is_none(), confirms);
    }
    let why = seen(&whole(), Some("3333333")).stale.unwrap();
    assert_eq!(
        why,
        "spec.change.commit is 2222222bbbb, and annotation sluice.dev/commit of the Deployment is 3333333: write the commit of the template"
    );
}

/// I7, of the fields of `spec.change`: nobody gains by leaving one out. What was found is no field that a person writes.
#[test]
fn a_field_that_is_left_out_never_loosens() {
    use sluice_core::policy::{Policy, assess, error_budget};
    let scene = Scene::held("app:2");
    let policies =
        [json!({}), json!({"tier": "Tier0", "provenance": {"unverifiedHumanAs": "GenAIAssisted"}})].map(
            |own| {
                let own = serde_json::from_value(own).unwrap();
                Policy::joined(&scene.config, &[], &[("shop".to_owned(), own)], &Default::default())
            },
        );
    let risk = |change: &serde_json::Value, policy: &Policy| {
        let view = seen(change, None);
        let risk = assess(&scene.rollout.spec, &view, policy, &[], error_budget(&[]), scene.now);
        (risk.class, risk.points, view.provenance, view.kind.is_none())
    };
    let fields = [
        "/provenance",
        "/commit",
        "/images",
        "/kind",
        "/size",
        "/evidence",
        "/evidence/headCommit",
        "/evidence/declared",
        "/evidence/findings",
        "/size/changedFiles",
    ];
    // Each set of fields without which it is, beside all smaller ones.
    for policy in &policies {
        for left_out in 0..1_u32 << fields.len() {
            let without = |set: u32| {
                let mut change = whole();
                for (_, path) in fields.iter().enumerate().filter(|(at, _)| set & (1 << at) != 0) {
                    let (object, field) = path.rsplit_once('/').unwrap();
                    if let Some(object) = change.pointer_mut(object).and_then(|object| object.as_object_mut())
                    {
                        object.remove(field);
                    }
                }
                risk(&change, policy)
            };
            let less = without(left_out);
            for at in (0..fields.len()).filter(|at| left_out & (1 << at) != 0) {
                let more = without(left_out & !(1 << at));
                assert!(
                    less.0 >= more.0 && less.1 >= more.1 && less.2 >= more.2 && less.3 >= more.3,
                    "without {:?} of {left_out:b}: {less:?} after {more:?}",
                    fields[at]
                );
            }
        }
    }
}

#[test]
fn annotations_that_go_on_to_describe_the_run_do_not_tighten_it_when_the_change_does_not() {
    let mut scene = annotated();
    scene.apply(template("app:2"));
    annotate(&mut scene, "sluice.dev/commit", SECOND);
    scene.rollout.spec.change = serde_json::from_value(whole()).unwrap();
    scene.pass();
    assert_eq!(scene.run().plan.risk_class.as_str(), "R0");
    scene.rollout.spec.change = Change { images: vec!["app:3".into()], ..Change::default() };
    assert_eq!(events(&scene.pass()), Vec::<&str>::new());
    annotate(&mut scene, "sluice.dev/provenance", "GenAIAutonomous");
    assert!(events(&scene.pass()).contains(&"PlanTightened"));
}

#[test]
fn a_restart_is_the_change_that_it_was() {
    let mut scene = annotated();
    scene.apply(restarted("app:1"));
    assert_eq!(events(&scene.pass()), ["Held", "RunStarted"]);
    assert_eq!(scene.run().plan.provenance, Provenance::Human);
}

#[test]
fn an_annotation_without_a_commit_can_only_raise() {
    for (annotation, declared, counts) in [
        ("Human", Some(Provenance::GenAIAssisted), Provenance::GenAIAssisted),
        ("GenAIAutonomous", Some(Provenance::Human), Provenance::GenAIAutonomous),
        ("Human", None, Provenance::Unknown),
        ("GenAIAutonomous", None, Provenance::GenAIAutonomous),
        ("human", Some(Provenance::Human), Provenance::Unknown),
    ] {
        let mut scene = Scene::held("app:2");
        if let Some(declared) = declared {
            scene = scene.declared(declared);
        }
        annotate(&mut scene, "sluice.dev/provenance", annotation);
        let scene = started(scene);
        assert_eq!(scene.run().plan.provenance, counts, "{annotation} {declared:?}");
    }
}

#[test]
fn an_annotation_that_is_no_provenance_says_what_to_write() {
    let mut scene = Scene::held("app:2");
    annotate(&mut scene, "sluice.dev/commit", SECOND);
    annotate(&mut scene, "sluice.dev/provenance", "AI");
    scene.pass();
    let view = describe(
        &Change::default(),
        &scene.workload_view(),
        Before::held(&Revision::default(), &scene.status()),
    );
    assert_eq!(
        view.obstacle.as_deref(),
        Some(
            "annotation sluice.dev/provenance=\"AI\" of the Deployment counts as Unknown: write one of Human, GenAIAssisted, Unknown, GenAIAutonomous"
        )
    );
    assert_eq!(view.provenance, Provenance::Unknown);
}

#[test]
fn what_was_found_counts_more_than_what_is_claimed_and_it_is_told_once() {
    let mut scene = Scene::held("app:2").declared(Provenance::Human);
    with_findings(
        &mut scene,
        None,
        &[("A-DEVIN", Provenance::GenAIAutonomous), ("T-CLAUDE", Provenance::GenAIAssisted)],
    );
    let decision = scene.pass();
    assert_eq!(events(&decision), ["Held", "RunStarted", "ProvenanceMismatch"]);
    let says = "spec.change.provenance says Human, rule A-DEVIN in 2222222bbbb of the scan says GenAIAutonomous: GenAIAutonomous counts";
    assert_eq!(decision.events[2].message, says);
    assert_eq!(verified(&decision), Some((ConditionStatus::False, "Mismatch".into(), says.into())));
    assert_eq!(scene.run().plan.provenance, Provenance::GenAIAutonomous);
    assert_eq!(events(&scene.pass()), Vec::<&str>::new());
    // The next change is written down; what is known of this one stays.
    scene.rollout.spec.change = Change { images: vec!["app:3".into()], ..Change::default() };
    let decision = scene.pass();
    assert_eq!(events(&decision), Vec::<&str>::new());
    assert_eq!(verified(&decision).unwrap().1, "Mismatch");
}

#[test]
fn a_claim_that_the_scan_corrected_is_a_mismatch_too() {
    let mut scene = Scene::held("app:2").declared(Provenance::GenAIAssisted);
    with_findings(&mut scene, Some(Provenance::Human), &[("T-CLAUDE", Provenance::GenAIAssisted)]);
    let message = verified(&scene.pass()).unwrap().2;
    assert!(message.starts_with("the author, as the scan was told, says Human, "), "{message}");
    // What a scan confirms is verified.
    let mut scene = Scene::held("app:2").declared(Provenance::GenAIAssisted);
    with_findings(&mut scene, Some(Provenance::GenAIAssisted), &[("T-CLAUDE", Provenance::GenAIAssisted)]);
    let decision = scene.pass();
    let (status, reason, message) = verified(&decision).unwrap();
    assert_eq!((status, reason.as_str()), (ConditionStatus::True, "Scanned"));
    assert_eq!(message, "commits scanned: 4, by rules 2026.11; nothing riskier than GenAIAssisted was found");
    assert_eq!(events(&decision), ["Held", "RunStarted"]);
}

#[test]
fn what_a_scan_finds_during_the_run_tightens_it() {
    let mut scene = Scene::exposed();
    with_findings(&mut scene, None, &[("T-CLAUDE", Provenance::GenAIAssisted)]);
    let decision = scene.pass();
    assert_eq!(events(&decision), ["PlanTightened", "ProvenanceMismatch"]);
    assert_eq!(scene.run().plan.provenance, Provenance::GenAIAssisted);
    // So does an annotation, and nothing that comes later takes it back.
    annotate(&mut scene, "sluice.dev/provenance", "GenAIAutonomous");
    assert!(events(&scene.pass()).contains(&"PlanTightened"));
    scene.rollout.spec.change.evidence = None;
    scene.workload()["metadata"]["annotations"].as_object_mut().unwrap().remove("sluice.dev/provenance");
    scene.pass();
    assert_eq!(scene.run().plan.provenance, Provenance::GenAIAutonomous);
}

#[test]
fn evidence_about_another_change_says_nothing() {
    let mut scene = Scene::held("app:2").declared(Provenance::Human);
    scene.rollout.spec.change.images = vec!["app:3".to_owned()];
    with_findings(&mut scene, None, &[("A-DEVIN", Provenance::GenAIAutonomous)]);
    let decision = scene.pass();
    assert_eq!(decision.status.held.unwrap().provenance, Provenance::Unknown);
}

#[test]
fn the_digest_that_is_declared_is_the_one_that_has_to_be_there() {
    for (image, declared, says) in [
        ("app:2@sha256:aa", "app@sha256:aa", None),
        (
            "app:2@sha256:bb",
            "app@sha256:aa",
            Some("the template has app with digest sha256:bb, spec.change.images declares sha256:aa"),
        ),
        (
            "app:2",
            "app@sha256:aa",
            Some(
                "the template has app:2, of which nobody knows the digest, spec.change.images declares app@sha256:aa: write the digest in the template too",
            ),
        ),
        ("app:2", "app:3", Some("the template has app:2, spec.change.images declares app:3")),
    ] {
        let mut scene = Scene::held(image).declared(Provenance::Human);
        scene.rollout.spec.change.images = vec![declared.to_owned()];
        let decision = scene.pass();
        match says {
            None => assert_eq!(scene.run().plan.provenance, Provenance::Human),
            Some(says) => {
                let (_, reason, message) = verified(&decision).unwrap();
                assert_eq!((reason.as_str(), message.as_str()), ("Undeclared", says));
                assert!(decision.status.waiting.unwrap().message.starts_with(says));
            }
        }
    }
}

fn level() -> impl Strategy<Value = Provenance> {
    prop::sample::select(&Provenance::ALL[..])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    /// Nothing that anybody adds makes a change that is described cheaper.
    #[test]
    fn more_evidence_never_lowers(
        claimed in level(),
        annotation in prop::option::of(level()),
        bound in any::<bool>(),
        findings in prop::collection::vec(level(), 0..4),
        declared in prop::option::of(level()),
    ) {
        let mut scene = Scene::new().declared(claimed);
        scene.apply(template("app:2"));
        let view = |scene: &Scene| {
            let workload: Workload = scene.workload_view();
            describe(&scene.rollout.spec.change, &workload, Before::held(&Revision::default(), &scene.status()))
        };
        let before = view(&scene);
        prop_assert_eq!((before.provenance, before.declared, before.mismatch), (claimed, true, None));
        let findings: Vec<_> = findings.into_iter().map(|level| ("T-X", level)).collect();
        with_findings(&mut scene, declared, &findings);
        if let Some(annotation) = annotation {
            annotate(&mut scene, "sluice.dev/provenance", annotation.as_str());
            if bound {
                annotate(&mut scene, "sluice.dev/commit", SECOND);
            }
        }
        let after = view(&scene);
        let all = findings.iter().map(|(_, level)| *level).chain(annotation).chain(declared).chain([claimed]);
        prop_assert_eq!(Some(after.provenance), all.max());
        let claims = [Some(claimed), declared, annotation.filter(|_| bound)];
        let least = claims.into_iter().flatten().filter(|level| *level != Provenance::Unknown).min();
        prop_assert_eq!(after.mismatch.is_some(), least.is_some_and(|least| least < after.provenance));
    }
}
