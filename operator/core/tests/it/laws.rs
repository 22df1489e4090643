//! Laws that hold for every status, in whatever order things happen: kstatus, size, and silence when nothing changes.
//!
//! Actions are not carried out here, as if every write were refused: what is decided must still make sense.

use crate::support::{INPUTS, Scene, Unreadable, events, lines, restarted, template, waiting_pod};
use proptest::prelude::*;
use serde_json::json;
use sluice_core::api::{Mode, Outcome, Plan, Provenance, Stage};
use sluice_core::verdict::Why;

/// Something that happens between two passes.
#[derive(Clone, Debug)]
enum Happening {
    Later(u16),
    Apply(u8),
    Restart(u8),
    Pause(bool),
    Mark(u8),
    Replicas(u8),
    Available(u8),
    CanaryPods(u8),
    CanaryGone,
    Weight(u8),
    RouteGone,
    Unreadable(Vec<bool>),
    Pods(u8),
    Evidence(u16, bool),
    Abort,
    NoData,
    Request(u8),
    Suspend(bool),
    Observe(bool),
    Releasing(bool),
    Delete,
    DeploymentGone,
    OtherDeployment,
    BreakGlass(u8),
    Declare(u8),
    Rival(bool),
    Stage(u8),
}

fn happening() -> impl Strategy<Value = Happening> {
    use Happening::{
        Abort, Apply, Available, BreakGlass, CanaryGone, CanaryPods, Declare, Delete, DeploymentGone,
        Evidence, Later, Mark, NoData, Observe, OtherDeployment, Pause, Pods, Releasing, Replicas, Request,
        Restart, Rival, RouteGone, Suspend, Weight,
    };
    prop_oneof![
        6 => any::<u16>().prop_map(Later),
        2 => (1..4_u8).prop_map(Apply),
        1 => (1..4_u8).prop_map(Restart),
        1 => any::<bool>().prop_map(Pause),
        1 => (0..4_u8).prop_map(Mark),
        1 => (0..9_u8).prop_map(Replicas),
        1 => (0..9_u8).prop_map(Available),
        3 => (0..5_u8).prop_map(CanaryPods),
        1 => Just(CanaryGone),
        2 => (0..101_u8).prop_map(Weight),
        1 => Just(RouteGone),
        1 => prop::collection::vec(any::<bool>(), INPUTS.len()).prop_map(Happening::Unreadable),
        1 => (0..4_u8).prop_map(Pods),
        3 => (any::<u16>(), any::<bool>()).prop_map(|(healthy, gate)| Evidence(healthy, gate)),
        1 => Just(Abort),
        1 => Just(NoData),
        2 => (0..9_u8).prop_map(Request),
        1 => any::<bool>().prop_map(Suspend),
        1 => any::<bool>().prop_map(Observe),
        1 => any::<bool>().prop_map(Releasing),
        1 => Just(Delete),
        1 => Just(DeploymentGone),
        1 => Just(OtherDeployment),
        1 => (0..3_u8).prop_map(BreakGlass),
        2 => (0..4_u8).prop_map(Declare),
        1 => any::<bool>().prop_map(Rival),
        2 => (0..6_u8).prop_map(Happening::Stage),
    ]
}

fn happen(scene: &mut Scene, happening: &Happening) {
    let run = scene.status().run;
    let image = |n: &u8| format!("app:{n}");
    if scene.deployment.is_none() && !matches!(happening, Happening::Later(_) | Happening::Unreadable(_)) {
        scene.deployment = Scene::new().deployment;
    }
    match happening {
        Happening::Later(seconds) => scene.later(i64::from(*seconds)),
        Happening::Apply(n) => scene.apply(template(&image(n))),
        Happening::Restart(n) => scene.apply(restarted(&image(n))),
        Happening::Pause(paused) => scene.workload()["spec"]["paused"] = json!(paused),
        Happening::Mark(n) => {
            let mark = ["", "held", "user-paused", "rejected"][usize::from(*n)];
            scene.workload()["metadata"]["annotations"]["sluice.dev/held"] = json!(mark);
        }
        Happening::Replicas(n) => scene.workload()["spec"]["replicas"] = json!(n),
        Happening::Available(n) => {
            if let Some(set) = scene.replica_sets.first_mut() {
                set["status"]["availableReplicas"] = json!(n);
            }
        }
        Happening::CanaryPods(n) if run.is_some() => scene.canary_pods(i32::from(*n)),
        Happening::CanaryPods(_) => {}
        Happening::CanaryGone => scene.replica_sets.truncate(1),
        Happening::Weight(percent) => scene.route_shows(i32::from(*percent)),
        Happening::RouteGone => scene.routes.clear(),
        Happening::Unreadable(which) => {
            let named = INPUTS.iter().zip(which).filter(|(_, unseen)| **unseen);
            scene.unseen = named.map(|(input, _): (&Unreadable, _)| *input).collect();
        }
        Happening::Pods(n) => {
            let reason =
                ["ContainerCreating", "ImagePullBackOff", "CrashLoopBackOff", "Error"][usize::from(*n)];
            scene.pods = vec![waiting_pod(reason, &"it does not work ".repeat(100))];
        }
        Happening::Evidence(healthy, gate) if run.is_some() => scene.evidence(f64::from(*healthy), *gate),
        Happening::Evidence(..) => {}
        Happening::Abort => {
            let message = "error-rate: 40 of 200 failed".repeat(100);
            scene.verdict.abort = Some(Why { reason: "GuardTripped".to_owned(), message });
        }
        Happening::NoData => {
            scene.verdict.no_data = Some((scene.now, "Prometheus does not answer".repeat(90)))
        }
        Happening::Request(n) => {
            let id = run.map_or_else(|| "1-other".to_owned(), |run| run.id);
            let last = scene.status().history.first().map(|run| run.id.clone()).unwrap_or_default();
            let verbs = [
                format!("abort/{id}"),
                format!("pause/{id}"),
                format!("resume/{id}"),
                format!("retry/{last}"),
                "x".repeat(5000),
                "promote/1".to_owned(),
                format!("pause/{id}/again"),
                format!("resume/{id}/again"),
                format!("abort/{id}/again"),
            ];
            scene.request(&verbs[usize::from(*n)]);
        }
        Happening::Suspend(suspend) => scene.rollout.spec.suspend = *suspend,
        Happening::Observe(observe) => {
            scene.rollout.spec.mode = if *observe { Mode::Observe } else { Mode::Enforce };
        }
        Happening::Releasing(releasing) => scene.releasing = *releasing,
        Happening::Delete => {
            let at = serde_json::from_value(json!("2026-01-01T12:00:00Z")).unwrap();
            scene.rollout.metadata.deletion_timestamp = Some(at);
        }
        Happening::DeploymentGone => scene.deployment = None,
        Happening::OtherDeployment => scene.workload()["metadata"]["uid"] = json!("uid-other"),
        Happening::BreakGlass(n) => {
            scene.break_glass(&"INC".repeat(usize::from(*n) * 200));
        }
        Happening::Declare(n) => {
            let all = [
                Provenance::Human,
                Provenance::GenAIAssisted,
                Provenance::Unknown,
                Provenance::GenAIAutonomous,
            ];
            scene.rollout.spec.change.provenance = all[usize::from(*n)];
            scene.rollout.spec.change.images = vec!["app:2".to_owned(), "app:3".to_owned()];
        }
        Happening::Rival(rival) => {
            scene.rivals = rival.then(|| "older".to_owned()).into_iter().collect();
        }
        Happening::Stage(n) => {
            if let Some(run) = run.filter(|run| run.going_back.is_none()) {
                let stages = [
                    Stage::Preparing,
                    Stage::Stepping,
                    Stage::Promoting,
                    Stage::Watching,
                    Stage::Finishing,
                    Stage::Stepping,
                ];
                let stage = stages[usize::from(*n)];
                scene.change_run(|changed| {
                    changed.stage = stage;
                    changed.released = matches!(stage, Stage::Watching | Stage::Finishing) || run.released;
                });
            }
        }
    }
}

/// Whether anything of a plan is looser than it was: limits only tighten while a run is under way.
fn looser(old: &Plan, new: &Plan) -> bool {
    let (was, is) = (old.tolerance_ppm, new.tolerance_ppm);
    let bakes = |plan: &Plan| plan.steps.iter().map(|step| i64::from(step.bake_seconds)).sum::<i64>();
    new.risk_class < old.risk_class
        || is.relative > was.relative
        || is.absolute > was.absolute
        || new.min_samples < old.min_samples
        || new.no_data_seconds > old.no_data_seconds
        || new.watch_seconds < old.watch_seconds
        || bakes(new) < bakes(old)
        || new.guards != old.guards
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_status_obeys_and_an_unchanged_world_is_silent(
        start in 0..3_u8,
        story in prop::collection::vec(happening(), 1..30),
    ) {
        let mut scene = match start {
            0 => Scene::new(),
            1 => Scene::enrolled(),
            _ => Scene::exposed(),
        };
        for what in story {
            let plan = scene.status().run.map(|run| (run.id, run.plan));
            happen(&mut scene, &what);
            // Each pass asserts the laws; without one of them stages follow one another, and then nothing moves.
            for _ in 0..8 {
                scene.pass_without_invariants();
            }
            let before = scene.status();
            if let Some((old, new)) = plan.zip(before.run.as_ref().map(|run| (run.id.clone(), run.plan.clone()))) {
                prop_assert!(old.0 != new.0 || !looser(&old.1, &new.1), "after {:?}: {:?}\n{:?}", what, old, new);
            }
            let again = scene.pass_without_invariants();
            prop_assert_eq!(&again.status, &before, "after {:?}", what);
            prop_assert_eq!(events(&again), Vec::<&str>::new(), "after {:?}: {:?}", what, lines(&again.actions));
            let aborting = again.status.run.as_ref().and_then(|run| run.going_back.as_ref());
            if let Some(back) = aborting {
                prop_assert!(back.outcome != Outcome::Promoted);
            }
        }
    }
}
