//! Freezes: what they hold, what they let through, and which version of one is in force.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::support::{SHOP, Scene, events, lines, template};
use jiff::Timestamp;
use serde_json::{Value, json};
use sluice_core::api::{ChangeFreeze, ChangeKind, ConditionStatus, Provenance, RiskClass, RunKind};
use sluice_core::check;
use sluice_core::decide::{Decision, Input, decide};
use sluice_core::observed::{Objects, Observed, Seen};
use sluice_core::policy::{Freeze, Freezes, Policy};

/// The scene begins on Thursday 2026-01-01 at 12:00 UTC; this lasts until Monday 06:00 in Berlin.
fn year_end() -> Value {
    json!({"reason": "year-end close", "zone": "Europe/Berlin",
        "windows": [{"start": "2025-12-31T18:00:00", "end": "2026-01-05T06:00:00"}]})
}

fn object(name: &str, spec: &Value, more: Value) -> ChangeFreeze {
    let mut object = json!({"apiVersion": "sluice.dev/v1alpha1", "kind": "ChangeFreeze",
        "metadata": {"name": name, "generation": 1}, "spec": spec});
    for (key, value) in more.as_object().unwrap() {
        object[key] = value.clone();
    }
    serde_json::from_value(object).unwrap()
}

fn freezes(objects: &[ChangeFreeze]) -> Freezes {
    let labels = BTreeMap::from([("tier".to_owned(), "gold".to_owned())]);
    Freezes::of(objects.iter().map(|object| Arc::new(Freeze::of(object))), SHOP, &labels)
}

/// The scene under these freezes, named a, b, c.
fn under(mut scene: Scene, specs: &[Value]) -> Scene {
    let names = ["a", "b", "c"];
    let objects: Vec<_> = specs.iter().zip(names).map(|(spec, name)| object(name, spec, json!({}))).collect();
    let policy = scene.policy.take().unwrap_or_else(|| Policy::of_installation(&scene.config));
    scene.policy = Some(Policy { freezes: freezes(&objects), ..policy });
    scene
}

fn with(mut spec: Value, key: &str, value: Value) -> Value {
    spec[key] = value;
    spec
}

/// What the decision waits for: reason, message, and seconds until it ends by itself.
fn waits(scene: &Scene, decision: &Decision) -> (String, String, Option<i64>) {
    let waiting = decision.status.waiting.clone().unwrap();
    let left = waiting.deadline.map(|deadline| deadline.duration_since(scene.now).as_secs());
    (waiting.reason, waiting.message, left)
}

fn starts(mut scene: Scene) -> bool {
    scene.pass().status.run.is_some()
}

#[test]
fn a_freeze_holds_a_start_says_so_once_and_ends_by_itself() {
    let mut scene = under(Scene::held("app:2").declared(Provenance::Human), &[year_end()]);
    let decision = scene.pass();
    assert_eq!(events(&decision), ["Held", "Frozen"]);
    assert!(decision.status.run.is_none() && decision.status.plan.is_some(), "what it would be is shown");
    assert_eq!(lines(&decision.actions), Vec::<String>::new());
    let words = "ChangeFreeze a (Hard, until 2026-01-05 06:00 Europe/Berlin): year-end close. A return to a recorded good revision is not held";
    let left = 3 * 86_400 + 17 * 3600;
    assert_eq!(waits(&scene, &decision), ("Frozen".to_owned(), words.to_owned(), Some(left)));
    scene.later(left - 5);
    let decision = scene.pass();
    assert_eq!((events(&decision), waits(&scene, &decision).2), (vec![], Some(5)));
    assert_eq!(decision.wake.as_secs(), 5, "nobody wakes it but the clock");
    scene.later(5);
    assert_eq!(events(&scene.pass()), ["RunStarted"]);
}

#[test]
fn a_return_and_what_is_under_way_are_not_held() {
    let mut scene = under(Scene::held("app:2").declared(Provenance::Human), &[year_end()]);
    scene.rollout.status.as_mut().unwrap().good[0].digest = sluice_core::digest::template(&template("app:2"));
    assert_eq!(events(&scene.pass()), ["Held", "RunStarted"]);
    assert_eq!(scene.run().kind, RunKind::Return);

    let mut frozen = under(Scene::exposed(), &[year_end()]);
    let mut free = Scene::exposed();
    for (healthy, open) in [(300.0, false), (600.0, true), (0.0, false)] {
        for scene in [&mut frozen, &mut free] {
            scene.later(1);
            scene.evidence(healthy, open);
        }
        let (held, plain) = (frozen.pass(), free.pass());
        assert_eq!((lines(&held.actions), events(&held)), (lines(&plain.actions), events(&plain)));
        assert_eq!(held.status, plain.status);
    }
    // And it goes back when it must.
    frozen.request(&format!("abort/{}", frozen.run().id));
    assert!(events(&frozen.pass()).contains(&"Aborted"));
}

#[test]
fn a_soft_freeze_holds_from_class_r2_on() {
    let soft = with(year_end(), "mode", json!("Soft"));
    for (provenance, class, passes) in [
        (Provenance::Human, RiskClass::R1, true),
        (Provenance::GenAIAssisted, RiskClass::R2, false),
        (Provenance::GenAIAutonomous, RiskClass::R3, false),
    ] {
        let mut scene = under(Scene::held("app:2").declared(provenance), std::slice::from_ref(&soft));
        let decision = scene.pass();
        assert_eq!(decision.status.plan.unwrap().risk_class, Some(class));
        assert_eq!(decision.status.run.is_some(), passes, "{class:?}");
        assert!(!starts(under(Scene::held("app:2").declared(provenance), &[year_end()])), "hard, {class:?}");
    }
}

#[test]
fn an_exempt_kind_passes_if_it_is_said_of_this_template() {
    let exempt = with(year_end(), "exemptKinds", json!(["Security", "Infra"]));
    let scene = |kind| {
        let mut scene = Scene::held("app:2").declared(Provenance::Human);
        scene.rollout.spec.change.kind = kind;
        under(scene, std::slice::from_ref(&exempt))
    };
    for (kind, passes) in [
        (None, false),
        (Some(ChangeKind::Code), false),
        (Some(ChangeKind::Security), true),
        (Some(ChangeKind::Infra), true),
    ] {
        assert_eq!(starts(scene(kind)), passes, "{kind:?}");
    }
    // What was said of another template is not said of this one.
    let mut other = scene(Some(ChangeKind::Security));
    other.rollout.spec.change.images = vec!["app:1".to_owned()];
    other.pass();
    other.later(60);
    assert_eq!(waits(&other, &other.decide()).0, "Frozen");
}

#[test]
fn only_the_namespaces_in_scope_are_frozen() {
    for (scope, passes) in [
        (json!({"namespaces": ["till", "shop"]}), false),
        (json!({"namespaces": ["till"]}), true),
        (json!({"namespaceSelector": {"matchLabels": {"tier": "gold"}}}), false),
        (json!({"namespaceSelector": {"matchLabels": {"tier": "gold", "team": "web"}}}), true),
        (json!({"namespaces": ["till"], "namespaceSelector": {"matchLabels": {"tier": "gold"}}}), false),
    ] {
        let scene = Scene::held("app:2").declared(Provenance::Human);
        assert_eq!(starts(under(scene, &[with(year_end(), "scope", scope.clone())])), passes, "{scope}");
    }
}

#[test]
fn of_several_the_one_that_ends_last_is_named_and_no_order_matters() {
    let longer = with(year_end(), "windows", json!([{"start": "2026-01-01T00:00:00", "duration": "P9D"}]));
    let soft = with(
        with(year_end(), "mode", json!("Soft")),
        "windows",
        json!([{"start": "2026-01-01T00:00:00", "duration": "P20D"}]),
    );
    let specs = [year_end(), longer, soft];
    let mut all: Vec<ChangeFreeze> =
        specs.iter().zip(["x", "y", "z"]).map(|(spec, name)| object(name, spec, json!({}))).collect();
    let now: Timestamp = "2026-01-01T12:00:00Z".parse().unwrap();
    let (one, found) =
        (freezes(&all), |freezes: &Freezes, class| freezes.in_force(now, class, None).map(|hold| hold.name));
    all.reverse();
    assert_eq!(one, freezes(&all));
    assert_eq!(found(&one, RiskClass::R1).as_deref(), Some("y"));
    assert_eq!(found(&one, RiskClass::R2).as_deref(), Some("z"));
    let later: Timestamp = "2025-12-30T12:00:00Z".parse().unwrap();
    assert_eq!(one.in_force(later, RiskClass::R4, None), None);
    let ahead = one.ahead(later, 7, RiskClass::R0, None).unwrap();
    assert_eq!(
        ahead.words(),
        "ChangeFreeze x (Hard, from 2025-12-31 18:00 Europe/Berlin until 2026-01-05 06:00 Europe/Berlin): year-end close"
    );
    assert_eq!(one.ahead(later, 1, RiskClass::R0, None), None, "it begins in 29 hours");
}

#[test]
fn a_version_that_is_refused_changes_nothing_and_both_are_in_status() {
    let now: Timestamp = "2026-01-01T12:00:00Z".parse().unwrap();
    let first = Freeze::of(&object("a", &year_end(), json!({}))).status(now);
    assert_eq!((first.policy.accepted_generation, first.policy.accepted.is_some()), (1, true));
    assert_eq!(first.until.map(|until| until.to_string()).as_deref(), Some("2026-01-05T05:00:00Z"));
    assert_eq!(first.next_start, None);

    let wrong = with(with(year_end(), "zone", json!("Europe/Berln")), "reason", json!("other"));
    let meta = json!({"metadata": {"name": "a", "generation": 2}, "status": first});
    let edited = object("a", &wrong, meta);
    let status = Freeze::of(&edited).status(now);
    let condition = &status.policy.conditions[0];
    assert_eq!((condition.status, condition.observed_generation), (ConditionStatus::False, 2));
    let message = &condition.message;
    assert!(message.starts_with("spec.zone \"Europe/Berln\" is no zone of the IANA database"), "{message}");
    assert!(message.ends_with("The version of generation 1 stays in force"), "{message}");
    assert_eq!((status.policy.accepted_generation, status.until), (1, first.until));
    let hold = freezes(&[edited]).in_force(now, RiskClass::R0, None).unwrap();
    assert_eq!(hold.reason, "year-end close");
    // What was written is read back as it was.
    let stored: Value = serde_json::to_value(&status).unwrap();
    assert_eq!(
        serde_json::from_value::<sluice_core::api::ChangeFreezeStatus>(stored.clone()).unwrap(),
        status
    );
    assert_eq!(stored["acceptedGeneration"], 1, "{stored}");
}

#[test]
fn a_freeze_that_was_never_in_order_holds_its_scope_until_it_is_corrected() {
    let broken = with(
        with(year_end(), "mode", json!("Soft")),
        "windows",
        json!([{"start": "2026-02-01T00:00:00", "duration": "P1X"}]),
    );
    let mut scene = under(Scene::held("app:2").declared(Provenance::Human), std::slice::from_ref(&broken));
    scene.rollout.spec.change.kind = Some(ChangeKind::Security);
    let decision = scene.pass();
    let (reason, message, left) = waits(&scene, &decision);
    assert_eq!((reason.as_str(), left), ("Frozen", None), "nobody knows when it ends");
    let words = "ChangeFreeze a (year-end close) has no version that is in order, so it holds until it is corrected or deleted: \
                 spec.windows[0].duration \"P1X\": write weeks";
    assert!(message.starts_with(words), "{message}");
    let status = Freeze::of(&object("a", &broken, json!({}))).status(scene.now);
    let message = status.policy.conditions[0].message.clone();
    assert!(message.ends_with("no change starts in its scope until it is corrected or deleted"), "{message}");
    assert_eq!((status.policy.accepted, status.until, status.next_start), (None, None, None));
    // Elsewhere it holds nothing; nor anywhere, when it does not say where.
    for scope in [json!({"namespaces": ["till"]}), json!({})] {
        let scene = Scene::held("app:2").declared(Provenance::Human);
        assert!(starts(under(scene, &[with(broken.clone(), "scope", scope.clone())])), "{scope}");
    }
    // Corrected or deleted, it lets go.
    let mut scene = under(scene, &[]);
    assert_eq!(events(&scene.pass()), ["RunStarted"]);
}

#[test]
fn the_time_for_alerts_does_not_pass_while_a_freeze_holds() {
    let mut scene = Scene::held("app:2").declared(Provenance::Human);
    scene.rollout.spec.guards = serde_json::from_value(json!([
        {"name": "errors", "errorRatio": {}},
        {"name": "pages", "alert": {"source": "Prometheus", "matchers": [{"label": "severity", "value": "page"}]}},
    ]))
    .unwrap();
    scene.pass();
    assert_eq!(scene.status().waiting.unwrap().reason, "ReadingAlerts");
    let mut scene = under(scene, &[year_end()]);
    scene.pass();
    scene.later(4 * 86_400);
    let decision = scene.pass();
    assert_eq!(decision.status.waiting.unwrap().reason, "ReadingAlerts", "it is not too late");
}

#[test]
fn a_start_under_a_freeze_breaks_an_invariant() {
    let scene = Scene::held("app:2").declared(Provenance::Human);
    let seen = Observed::read(Objects {
        deployment: Seen::Seen(scene.deployment.clone()),
        replica_sets: Seen::Seen(scene.replica_sets.clone()),
        services: Seen::Seen(scene.services.clone()),
        endpoint_slices: Seen::Seen(scene.slices.clone()),
        routes: Seen::Seen(scene.routes.clone()),
        canary_pods: Seen::Seen(Vec::new()),
        rivals: Vec::new(),
        autoscalers: None,
        claims: None,
    });
    let free = Policy::of_installation(&scene.config);
    let frozen = under(scene.clone(), &[year_end()]).policy.unwrap();
    let input = Input {
        rollout: &scene.rollout,
        seen: &seen,
        verdict: &scene.verdict,
        config: &scene.config,
        policy: &free,
        turn: None,
        releasing: false,
        now: scene.now,
    };
    let decision = decide(input);
    assert!(decision.status.run.is_some());
    let found = check::violations(&Input { policy: &frozen, ..input }, &decision);
    assert!(found.iter().any(|found| found.ends_with("starts while ChangeFreeze a holds it")), "{found:?}");
}
