//! The error budget of a held template, and the bound on harm beside its plan.

use std::collections::BTreeMap;

use crate::support::{Scene, events, left, lines, template};
use jiff::Timestamp;
use serde_json::{Value, json};
use sluice_core::api::{
    ChangeKind, Factor, GuardHarm, PlanHarm, Provenance, RiskClass, RiskPolicySpec, RunKind,
};
use sluice_core::decide::Decision;
use sluice_core::policy::Policy;
use sluice_core::verdict::{BudgetLook, HarmLook, Verdict};

/// Seconds for which an answer counts, and for which one that fails is waited for.
const FRESH: i64 = 180;
const WAIT: i64 = 45;

/// `app:2` is held, under a namespace's policy with this error budget.
fn scene(budget: Value) -> Scene {
    let mut scene = Scene::held("app:2").declared(Provenance::Human);
    under(&mut scene, budget);
    scene
}

fn under(scene: &mut Scene, budget: Value) {
    let own: RiskPolicySpec = serde_json::from_value(json!({"errorBudget": budget})).unwrap();
    let own = [("shop".to_owned(), own)];
    scene.policy = Some(Policy::joined(&scene.config, &[], &own, &BTreeMap::new()));
}

fn query() -> Value {
    json!({"query": "budget"})
}

/// A look that is answered now, or fails.
fn look(scene: &mut Scene, answer: Result<f64, &str>) {
    let policy = scene.policy.clone().unwrap();
    let looks = policy.error_budgets.iter().map(|budget| {
        let before = scene.verdict.budgets.iter().find(|look| look.is_for(budget));
        BudgetLook::after(before, budget, scene.now, answer.map_err(ToOwned::to_owned))
    });
    let budgets = looks.collect();
    scene.verdict = Verdict { budgets, ..Verdict::default() };
}

fn waits(decision: &Decision) -> Option<(String, String)> {
    let waiting = decision.status.waiting.clone()?;
    Some((waiting.reason, waiting.message))
}

fn reason(decision: &Decision) -> String {
    waits(decision).map(|(reason, _)| reason).unwrap_or_default()
}

fn factor(decision: &Decision) -> Factor {
    let plan = decision.status.plan.as_ref().unwrap();
    plan.factors.iter().find(|factor| factor.name == "errorBudget").unwrap().clone()
}

#[test]
fn what_is_left_is_an_input_of_the_class() {
    for (ratio, points, level, class) in [
        (0.9, 0, "more than 50 % left", RiskClass::R1),
        (0.3, 1, "25 to 50 % left", RiskClass::R2),
        (0.1, 2, "5 to 25 % left", RiskClass::R2),
        (0.04, 4, "less than 5 % left", RiskClass::R2),
    ] {
        let mut scene = scene(query());
        look(&mut scene, Ok(ratio));
        let decision = scene.pass();
        let found = factor(&decision);
        assert_eq!((found.points, found.level.as_str()), (points, level));
        assert_eq!(found.source, format!("RiskPolicy/shop: {} % left", (ratio * 100.0).round()));
        assert_eq!(scene.run().plan.risk_class, class, "{ratio}");
    }
    // Without a query nobody is asked.
    let mut scene = Scene::held("app:2").declared(Provenance::Human);
    let decision = scene.pass();
    assert_eq!((factor(&decision).points, events(&decision).pop()), (0, Some("RunStarted")));
}

#[test]
fn a_start_waits_for_the_first_look_and_not_for_ever() {
    let mut scene = scene(query());
    let decision = scene.pass();
    let (why, message) = waits(&decision).unwrap();
    assert_eq!(why, "ReadingErrorBudget");
    assert!(message.contains("(RiskPolicy/shop)"), "{message}");
    assert_eq!((left(&scene, &decision), lines(&decision.actions)), (2 * WAIT, Vec::<String>::new()));
    scene.later(2 * WAIT - 1);
    assert_eq!(reason(&scene.pass()), "ReadingErrorBudget", "nobody has looked yet");
    look(&mut scene, Err("connection refused"));
    let decision = scene.pass();
    assert!(waits(&decision).unwrap().1.contains(": connection refused; "));
    assert_eq!(left(&scene, &decision), WAIT, "from the first look that failed on");
    scene.later(WAIT - 1);
    look(&mut scene, Err("connection refused"));
    let decision = scene.pass();
    assert_eq!(left(&scene, &decision), 1);
    scene.later(1);
    look(&mut scene, Err("connection refused"));
    let decision = scene.pass();
    assert_eq!(factor(&decision).level, "less than 5 % left", "it was never known");
    assert_eq!(factor(&decision).source, "RiskPolicy/shop: not known: connection refused");
    assert_eq!(events(&decision), ["RunStarted"]);
    // If nobody ever looks, it starts all the same.
    let mut scene = self::scene(query());
    scene.pass();
    scene.later(2 * WAIT);
    assert_eq!(events(&scene.pass()), ["RunStarted"]);
}

#[test]
fn while_it_is_spent_nothing_starts_and_it_says_what_helps() {
    let mut scene = scene(json!({"query": "budget", "exemptKinds": ["Security"]}));
    look(&mut scene, Ok(-0.03));
    let first = scene.pass();
    assert_eq!(events(&first), ["Held", "ErrorBudgetSpent"]);
    let (why, message) = waits(&first).unwrap();
    assert_eq!((why.as_str(), first.status.phase.as_str()), ("ErrorBudgetSpent", "Held"));
    for part in
        ["RiskPolicy/shop: of the error budget -3 % left", "kind Security", "onExhausted", "recorded good"]
    {
        assert!(message.contains(part), "{message}");
    }
    assert_eq!(first.status.waiting.as_ref().unwrap().deadline, None);
    scene.later(86_400);
    look(&mut scene, Ok(-0.04));
    assert_eq!(events(&scene.pass()), Vec::<&str>::new(), "it is told once");
    assert_eq!(scene.status().error_budgets[0].remaining_percent, -4);
    // A word about another template exempts nothing.
    scene.rollout.spec.change.kind = Some(ChangeKind::Security);
    scene.rollout.spec.change.images = vec!["app:3".to_owned()];
    scene.later(3600);
    look(&mut scene, Ok(0.0));
    assert_eq!(reason(&scene.pass()), "ErrorBudgetSpent");
    scene.rollout.spec.change.images = vec!["app:2".to_owned()];
    let mut exempt = scene.clone();
    assert_eq!(events(&exempt.pass()), ["RunStarted"]);
    assert_eq!(exempt.run().plan.risk_class, RiskClass::R2, "of the limits it changes none");
    for kind in [None, Some(ChangeKind::Code)] {
        scene.rollout.spec.change.kind = kind;
        assert_eq!(reason(&scene.pass()), "ErrorBudgetSpent", "{kind:?}");
    }
    look(&mut scene, Ok(0.01));
    assert_eq!(events(&scene.pass()), ["RunStarted"]);
    let mut ignored = self::scene(json!({"query": "budget", "onExhausted": "Ignore"}));
    look(&mut ignored, Ok(-1.0));
    assert_eq!(events(&ignored.pass()).pop(), Some("RunStarted"));
}

#[test]
fn what_was_spent_stays_so_without_an_answer_and_through_a_restart() {
    let mut scene = scene(query());
    look(&mut scene, Ok(0.0));
    scene.pass();
    for _ in 0..2 * FRESH {
        scene.later(1);
        look(&mut scene, Err("down"));
        assert_eq!(reason(&scene.pass()), "ErrorBudgetSpent");
    }
    assert!(waits(&scene.pass()).unwrap().1.contains("and no answer now: down"));
    // A process that has just begun looks first, and holds as well.
    scene.verdict = Verdict::default();
    assert_eq!(reason(&scene.pass()), "ReadingErrorBudget");
    scene.later(2 * WAIT);
    assert_eq!(reason(&scene.pass()), "ErrorBudgetSpent");
    look(&mut scene, Ok(0.2));
    assert_eq!(events(&scene.pass()), ["RunStarted"]);
}

#[test]
fn the_last_answer_is_remembered_and_counts_as_a_quarter_at_best() {
    let mut scene = scene(query());
    scene.rollout.spec.suspend = true;
    look(&mut scene, Ok(0.719));
    let first = scene.pass().status.error_budgets;
    assert_eq!((first[0].policy.as_str(), first[0].remaining_percent), ("RiskPolicy/shop", 71));
    // Nothing is written while the whole percent stays, but for every few hours.
    for (seconds, ratio, seen) in
        [(60, 0.711, 0), (21_000, 0.715, 0), (600, 0.71, 21_660), (60, 0.72, 21_720)]
    {
        scene.later(seconds);
        look(&mut scene, Ok(ratio));
        let known = scene.pass().status.error_budgets.remove(0);
        assert_eq!(known.seen_at.duration_since(first[0].seen_at).as_secs(), seen, "{ratio}");
    }
    // An answer counts for three looks.
    scene.later(FRESH - 1);
    look(&mut scene, Err("down"));
    assert_eq!(factor(&scene.pass()).level, "more than 50 % left");
    scene.later(1);
    look(&mut scene, Err("down"));
    let lost = factor(&scene.pass());
    assert_eq!(lost.level, "5 to 25 % left");
    assert_eq!(lost.source, "RiskPolicy/shop: 72 % left at 2026-01-01T18:02:00Z, and no answer now: down");
    // Another process, another day: the last answer still counts.
    scene.later(86_400);
    scene.verdict = Verdict::default();
    assert_eq!(factor(&scene.pass()).level, "5 to 25 % left");
    // A query that was changed is asked anew.
    look(&mut scene, Ok(0.9));
    under(&mut scene, json!({"query": "another"}));
    assert_eq!(factor(&scene.pass()).level, "5 to 25 % left");
    // A policy that is gone counts no more. What it said is kept for a week: its object may be made anew.
    let gone = |scene: &mut Scene| {
        under(scene, Value::Null);
        let decision = scene.pass();
        (factor(&decision).points, decision.status.error_budgets.len())
    };
    assert_eq!(gone(&mut scene), (0, 1));
    under(&mut scene, json!({"query": "another"}));
    assert_eq!(factor(&scene.pass()).level, "5 to 25 % left");
    scene.later(7 * 86_400);
    assert_eq!(gone(&mut scene), (0, 0));
}

#[test]
fn to_lose_the_query_at_any_level_gives_no_looser_plan() {
    for percent in (-20..=100).step_by(5) {
        let mut scene = scene(query());
        look(&mut scene, Ok(f64::from(percent) / 100.0));
        let seen = scene.clone().pass();
        scene.rollout.spec.suspend = true;
        scene.pass();
        scene.rollout.spec.suspend = false;
        scene.later(FRESH);
        look(&mut scene, Err("down"));
        scene.later(WAIT);
        look(&mut scene, Err("down"));
        let lost = scene.pass();
        assert!(factor(&lost).points >= factor(&seen).points, "{percent}");
        let class = |decision: &Decision| decision.status.plan.as_ref().unwrap().risk_class;
        assert!(class(&lost) >= class(&seen), "{percent}");
        assert!(
            seen.status.run.is_some() || lost.status.run.is_none(),
            "{percent} % started without an answer"
        );
    }
}

#[test]
fn a_return_and_a_run_under_way_are_never_held() {
    let mut scene = scene(query());
    let mut back = scene.clone();
    back.rollout.status.as_mut().unwrap().good[0].digest = sluice_core::digest::template(&template("app:2"));
    look(&mut back, Ok(-1.0));
    back.pass();
    assert_eq!(back.run().kind, RunKind::Return);
    // What a run began with holds to its end; nobody looks meanwhile.
    look(&mut scene, Ok(0.9));
    scene.pass();
    let plan = scene.run().plan;
    for answer in [Ok(-1.0), Err("down")] {
        look(&mut scene, answer);
        scene.later(FRESH);
        let decision = scene.pass();
        assert_eq!(
            (scene.run().plan, factor(&decision).level.as_str()),
            (plan.clone(), "more than 50 % left")
        );
    }
    scene.verdict = Verdict::default();
    scene.pass();
    assert_eq!(scene.run().plan, plan);
}

#[test]
fn the_wait_for_alerts_begins_once_the_budget_lets_it_start() {
    let mut scene = scene(query());
    scene.pass();
    scene.rollout.status.as_mut().unwrap().held.as_mut().unwrap().alerts_since = Some(scene.now);
    look(&mut scene, Ok(0.0));
    assert_eq!(scene.pass().status.held.unwrap().alerts_since, None);
}

/// A bound by the guard of this name for the plan that is shown.
fn harm(excess: i64, at: Timestamp) -> PlanHarm {
    let guard = GuardHarm {
        name: "error-rate".to_owned(),
        excess_failed_requests: Some(excess),
        ..GuardHarm::default()
    };
    PlanHarm { read_at: Some(at), guards: vec![guard], message: String::new() }
}

fn forecast(scene: &mut Scene, excess: i64) {
    let plan = scene.status().plan.unwrap().digest;
    let harm = harm(excess, scene.now);
    scene.verdict.harm = Some(HarmLook { plan, at: scene.now, harm });
}

fn shown(decision: &Decision) -> PlanHarm {
    decision.status.plan.as_ref().unwrap().harm.clone().unwrap()
}

#[test]
fn the_bound_on_harm_stands_beside_the_plan_and_never_holds_it() {
    let mut scene = Scene::held("app:2").declared(Provenance::Human);
    scene.rollout.spec.suspend = true;
    let first = shown(&scene.pass());
    assert!(!first.is_known() && first.message.starts_with("not known yet: "), "{first:?}");
    let digest = scene.status().plan.unwrap().digest;
    forecast(&mut scene, 100);
    let known = shown(&scene.pass());
    assert_eq!(known.guards[0].excess_failed_requests, Some(100));
    assert_eq!(scene.status().plan.unwrap().digest, digest, "it is no part of the plan");
    // A number that moves a little is not written again, nor is one that is lost.
    scene.later(600);
    forecast(&mut scene, 105);
    assert_eq!(shown(&scene.pass()), known);
    let down = PlanHarm::unknown("not known by error-rate: ProviderDown: no answer");
    scene.verdict.harm.as_mut().unwrap().harm = down.clone();
    assert_eq!(shown(&scene.pass()), known);
    forecast(&mut scene, 150);
    assert_eq!(shown(&scene.pass()).guards[0].excess_failed_requests, Some(150));
    // Another plan has a bound of its own.
    scene.rollout.spec.limits.max_first_step_percent = Some(1);
    assert!(!shown(&scene.pass()).is_known());
    scene.pass();
    forecast(&mut scene, 40);
    scene.pass();
    // It is the run's as it was at the start.
    scene.rollout.spec.suspend = false;
    scene.verdict.harm = None;
    let decision = scene.pass();
    assert_eq!(
        (events(&decision), shown(&decision).guards[0].excess_failed_requests),
        (vec!["RunStarted"], Some(40))
    );
    scene.evidence(0.0, false);
    scene.verdict.harm = Some(HarmLook { plan: "any".to_owned(), at: scene.now, harm: down });
    scene.rollout.spec.limits.min_bake_seconds = Some(7200);
    let decision = scene.pass();
    assert_eq!(events(&decision), ["PlanTightened"]);
    assert_eq!(shown(&decision).guards[0].excess_failed_requests, Some(40));
}

#[test]
fn a_run_that_began_before_the_bound_was_known_tells_what_its_own_first_look_finds() {
    let mut scene = Scene::running();
    let decision = scene.pass();
    assert!(shown(&decision).message.starts_with("not known yet: "));
    scene.evidence(0.0, false);
    let look = HarmLook { plan: scene.run().plan.digest, at: scene.now, harm: harm(7, scene.now) };
    scene.verdict.harm = Some(look.clone());
    assert_eq!(shown(&scene.pass()).guards[0].excess_failed_requests, Some(7));
    scene.verdict = Verdict { harm: Some(look), ..Verdict::default() };
    assert_eq!(shown(&scene.pass()).guards[0].excess_failed_requests, Some(7), "it stays");
    // At rest nothing is planned, and nothing is said.
    let mut idle = Scene::enrolled();
    assert_eq!(idle.pass().status.plan, None);
}

#[test]
fn a_policy_that_asks_wrongly_is_refused_in_words() {
    let problem = |budget: Value| {
        let spec: RiskPolicySpec = serde_json::from_value(json!({"errorBudget": budget})).unwrap();
        sluice_core::policy::own_problem(&spec)
    };
    for (budget, says) in [
        (
            json!({"query": " "}),
            "spec.errorBudget.query has 1 characters: write PromQL of 1 to 2000 characters",
        ),
        (
            json!({"query": "b{pod=~\"$podz\"}"}),
            "spec.errorBudget.query has $podz, which is no placeholder here: write one of $namespace, $service, $stablePods, $pods",
        ),
        (
            json!({"query": "b{pod=~\"$canaryPods\"}"}),
            "spec.errorBudget.query has $canaryPods, which is no placeholder here: write one of $namespace",
        ),
    ] {
        let found = problem(budget).unwrap_or_default();
        assert!(found.starts_with(says), "{found}");
    }
    assert_eq!(
        problem(json!({"query": "b{s=\"$service\",n=\"$namespace\",p=~\"$pods|$stablePods\"}"})),
        None
    );
}
