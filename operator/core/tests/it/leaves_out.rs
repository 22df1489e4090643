//! What the evidence leaves out at the rollout's wish: one pod's failures alone, and a new pod's first requests. It is
//! frozen with the plan, and in a run only less of it can come true.

use crate::support::windows::{evaluate, pod};
use crate::support::{Scene, events};
use jiff::{SignedDuration, Timestamp};
use sluice_core::api::{ErrorRatioGuard, Guard, Provenance};
use sluice_core::evidence::{Arm, EvidenceState};
use sluice_core::limits;
use sluice_core::verdict::Verdict;

fn guards(warmup_requests: i32) -> Vec<Guard> {
    let mut guards = limits::default_guards();
    guards[0].error_ratio = Some(ErrorRatioGuard { warmup_requests, ..ErrorRatioGuard::default() });
    guards
}

/// A run that leaves out what is asked for.
fn exposed(two_pods: bool, warmup_requests: i32) -> Scene {
    let mut scene = Scene::held("app:2").declared(Provenance::Human);
    scene.rollout.spec.limits.abort_needs_two_pods = two_pods;
    scene.rollout.spec.guards = guards(warmup_requests);
    let mut scene = scene.begun();
    let exposed = Scene::exposed().run();
    scene.change_run(|run| {
        run.stage = exposed.stage;
        run.weight = exposed.weight;
        run.exposed_since = exposed.exposed_since;
        run.max_weight_percent = exposed.max_weight_percent;
    });
    scene
}

#[test]
fn both_are_frozen_with_the_plan() {
    let plain = Scene::exposed().run().plan;
    let text = serde_json::to_string(&plain).unwrap();
    assert!(!text.contains("TwoPods") && !text.contains("warmup"), "old plans keep their digest: {text}");
    let plan = exposed(true, 200).run().plan;
    assert!(plan.abort_needs_two_pods);
    assert_eq!(plan.guards[0].error_ratio.as_ref().unwrap().warmup_requests, 200);
    assert_ne!(plan.digest, exposed(true, 0).run().plan.digest);
    assert_ne!(exposed(true, 0).run().plan.digest, exposed(false, 0).run().plan.digest);
}

#[test]
fn in_a_run_only_less_can_be_left_out() {
    for (two_pods, warmup, wanted, says) in [
        (true, 200, (true, 200), None),
        (false, 200, (false, 200), Some("from now on one pod's failures alone stop it")),
        (true, 50, (true, 50), Some("from now on guard error-rate counts a new pod after 50 requests")),
        (true, 300, (true, 200), None),
        (
            false,
            0,
            (false, 0),
            Some("one pod's failures alone stop it, guard error-rate counts a new pod after 0 requests"),
        ),
    ] {
        let mut scene = exposed(true, 200);
        let before = scene.run().plan;
        scene.rollout.spec.limits.abort_needs_two_pods = two_pods;
        scene.rollout.spec.guards = guards(warmup);
        let decision = scene.pass();
        let plan = scene.run().plan;
        let left_out = |plan: &sluice_core::api::Plan| {
            (plan.abort_needs_two_pods, plan.guards[0].counted().unwrap().warmup_requests())
        };
        assert_eq!(left_out(&plan), wanted);
        assert_eq!(plan.digest == before.digest, says.is_none());
        let told: Vec<_> = decision.events.iter().filter(|event| event.reason == "PlanTightened").collect();
        assert_eq!(told.len(), usize::from(says.is_some()));
        assert!(told.iter().all(|event| event.message.contains(says.unwrap_or_default())), "{told:?}");
        assert!(!events(&scene.pass()).contains(&"PlanTightened"), "it is told once");
    }
    // What the run does not leave out, it never does.
    let mut scene = exposed(false, 0);
    let before = scene.run().plan;
    scene.rollout.spec.limits.abort_needs_two_pods = true;
    scene.rollout.spec.guards = guards(200);
    scene.pass();
    assert_eq!(scene.run().plan, before);
}

/// Judges twenty windows in which these canary pods fail so many of 100 requests each, with three stable pods to every
/// canary pod.
fn judged(two_pods: bool, warmup_requests: i32, failures: &[f64]) -> Verdict {
    let run = exposed(two_pods, warmup_requests).run();
    let settled = run.weight.unwrap().settled_at.unwrap();
    let mut state = EvidenceState::default();
    let mut verdict = Verdict::default();
    for window in 0..20_i64 {
        let now: Timestamp = settled + SignedDuration::from_secs(15 * window);
        let served = |each: f64| each * window as f64;
        let pod = |arm, id, each, failed| pod(arm, id, (served(each), served(failed)), now);
        let canary = failures.iter().enumerate().map(|(at, x)| pod(Arm::Canary, format!("c{at}"), 100.0, *x));
        let stable = (0..12).map(|at| pod(Arm::Stable, format!("s{at}"), 600.0, 0.0));
        verdict = evaluate(&run, stable.chain(canary).collect(), false, now, &mut state, true);
    }
    verdict
}

#[test]
fn one_pod_alone_does_not_stop_it_where_two_are_needed() {
    for (failures, alone, two) in [
        (&[30.0, 0.0, 0.0, 0.0][..], true, false),
        (&[0.0, 0.0, 0.0, 30.0], true, false),
        (&[30.0, 0.0, 0.0, 30.0], true, true),
        // Of two pods one may stop it.
        (&[30.0, 0.0], true, true),
        (&[0.0, 0.0, 0.0, 0.0], false, false),
    ] {
        assert_eq!(judged(false, 0, failures).abort.is_some(), alone, "{failures:?}");
        let verdict = judged(true, 0, failures);
        assert_eq!(verdict.abort.is_some(), two, "{failures:?}: {verdict:?}");
        assert!(!verdict.gate_open || !alone, "what fails does not rise either: {failures:?}");
        let score = verdict.guards[0].score_permille.unwrap();
        assert_eq!(score >= 1000, two, "what is shown is what counts: {score}");
    }
}

#[test]
fn a_new_pods_first_requests_are_left_out_by_the_guard_that_says_so() {
    let counted = |warmup| judged(false, warmup, &[0.0]).guards[0].canary_requests;
    assert_eq!(counted(0), Some(1900));
    assert_eq!(counted(500), Some(1400));
}
