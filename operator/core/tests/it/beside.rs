//! What stands beside a Deployment: volumes that two revisions can't share refuse it, an autoscaler that counts the
//! canary's pods is told of and stops nothing.

use crate::support::{Scene, events, lines, stalled, template};
use serde_json::{Value, json};
use sluice_core::api::{Condition, ConditionStatus, ConditionType, Provenance};
use sluice_core::decide::Decision;
use sluice_core::observed::Seen;

fn claim(mode: &str) -> Value {
    json!({"metadata": {"name": "data"}, "spec": {"accessModes": [mode]}})
}

fn autoscaler(target: &str) -> Value {
    json!({"metadata": {"name": "web-hpa"}, "spec": {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
        "metrics": [{"type": "External", "external": {"metric": {"name": "queue_length"}, "target": {"type": target}}}]}})
}

fn compatible(decision: &Decision) -> Option<Condition> {
    let kind = ConditionType::AutoscalerCompatible;
    decision.status.conditions.iter().find(|condition| condition.kind == kind).cloned()
}

#[test]
fn a_deployment_with_a_volume_of_one_writer_is_not_enrolled() {
    for (mode, whom) in [("ReadWriteOnce", "the pods of one node"), ("ReadWriteOncePod", "one pod")] {
        let mut scene = Scene::new();
        scene.services.truncate(1);
        scene.claims = Some(Seen::Seen(vec![claim(mode)]));
        let decision = scene.pass();
        let (reason, message) = stalled(&decision).unwrap();
        assert_eq!(reason, "SingleWriterVolume");
        assert!(
            message.contains(&format!("PersistentVolumeClaim data with access mode {mode}: only {whom}")),
            "{message}"
        );
        assert!(message.contains("use a claim with ReadWriteMany"), "{message}");
        assert_eq!(lines(&decision.actions), Vec::<String>::new(), "nothing is touched");
        assert_eq!(events(&decision), ["SingleWriterVolume"], "and it is said once");
        assert_eq!(events(&scene.pass()), Vec::<&str>::new());
        // Another claim mends it.
        scene.claims = Some(Seen::Seen(vec![claim("ReadWriteMany")]));
        let decision = scene.pass();
        assert_eq!(stalled(&decision), None);
        assert!(!decision.actions.is_empty());
    }
}

#[test]
fn a_held_template_with_a_volume_of_one_writer_does_not_start() {
    let mut scene = Scene::held("app:2").declared(Provenance::Human);
    scene.claims = Some(Seen::Seen(vec![claim("ReadWriteOnce")]));
    let decision = scene.pass();
    assert_eq!(stalled(&decision).unwrap().0, "SingleWriterVolume");
    assert_eq!(decision.status.phase.as_str(), "Held");
    assert!(decision.status.run.is_none());
    // A pass that does not ask has no opinion, so the next step asks.
    scene.claims = None;
    assert!(scene.decide().status.run.is_some());
    // A return to a recorded good revision is not gated.
    let mut scene = Scene::held("app:2").declared(Provenance::Human);
    let digest = scene.workload_view().digest;
    let status = scene.rollout.status.as_mut().unwrap();
    let mut good = status.stable.clone().unwrap();
    good.digest = digest;
    status.good.push(good);
    scene.claims = Some(Seen::Seen(vec![claim("ReadWriteOnce")]));
    assert!(scene.pass().status.run.is_some());
}

#[test]
fn what_is_enrolled_and_at_rest_is_left_alone() {
    let mut scene = Scene::enrolled();
    scene.claims = Some(Seen::Seen(vec![claim("ReadWriteOnce")]));
    assert_eq!(stalled(&scene.pass()), None);
}

#[test]
fn claims_that_cannot_be_read_are_not_taken_for_harmless() {
    let mut scene = Scene::new();
    scene.claims = Some(Seen::Unseen("persistentvolumeclaims data is forbidden (403)".to_owned()));
    let decision = scene.pass();
    let (reason, message) = stalled(&decision).unwrap();
    assert_eq!(reason, "CannotRead");
    assert!(message.contains("forbidden (403)") && message.contains("roles"), "{message}");
    assert!(decision.wake.as_secs() <= 30, "it is tried again");
}

#[test]
fn an_autoscaler_that_counts_the_canary_is_told_once_and_stops_nothing() {
    let mut scene = Scene::held("app:2").declared(Provenance::Human);
    scene.autoscalers = Some(Seen::Seen(vec![autoscaler("Value")]));
    let decision = scene.pass();
    assert!(decision.status.run.is_some(), "the run starts");
    assert_eq!(events(&decision).iter().filter(|event| **event == "AutoscalerCountsCanary").count(), 1);
    let condition = compatible(&decision).unwrap();
    assert_eq!((condition.status, condition.reason.as_str()), (ConditionStatus::False, "ValueTarget"));
    for part in ["HorizontalPodAutoscaler web-hpa", "External queue_length", "use AverageValue"] {
        assert!(condition.message.contains(part), "{}", condition.message);
    }
    // Passes that do not ask keep what is known.
    scene.autoscalers = None;
    scene.later(5);
    let later = scene.pass();
    assert_eq!(compatible(&later), Some(condition));
    assert!(!events(&later).contains(&"AutoscalerCountsCanary"));
}

#[test]
fn an_autoscaler_of_averages_is_fine_and_none_says_nothing() {
    let mut scene = Scene::enrolled();
    scene.autoscalers = Some(Seen::Seen(vec![autoscaler("AverageValue")]));
    let condition = compatible(&scene.pass()).unwrap();
    assert_eq!((condition.status, condition.reason.as_str()), (ConditionStatus::True, "AverageTargets"));
    // It is gone.
    scene.autoscalers = Some(Seen::Seen(Vec::new()));
    assert_eq!(compatible(&scene.pass()), None);
    scene.autoscalers = None;
    assert_eq!(compatible(&scene.pass()), None);
}

#[test]
fn autoscalers_that_cannot_be_read_are_unknown_and_stop_nothing() {
    let mut scene = Scene::enrolled();
    scene.apply(template("app:2"));
    scene.rollout.spec.change.images = vec!["app:2".to_owned()];
    scene.autoscalers = Some(Seen::Unseen("horizontalpodautoscalers is forbidden (403)".to_owned()));
    let decision = scene.pass();
    assert!(decision.status.run.is_some());
    let condition = compatible(&decision).unwrap();
    assert_eq!((condition.status, condition.reason.as_str()), (ConditionStatus::Unknown, "CannotRead"));
    assert!(condition.message.contains("forbidden (403)"), "{}", condition.message);
}
