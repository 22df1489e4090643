//! Looks while a template waits to start: the error budget, and stable's record.

use std::collections::BTreeMap;

use sluice_core::api::{Phase, ProgressiveRolloutStatus, Provenance, RiskClass};
use sluice_core::limits;
use sluice_core::policy::Policy;
use sluice_core::view::Workload;

use super::*;

/// The rollout at rest, with a template that waits to start under a policy that reads the error budget, and what else a
/// controller knows of it.
fn waiting(app: &mut App) -> Vec<(&'static str, Value)> {
    let named = |name: &str| json!({"name": name, "namespace": "shop", "uid": name, "resourceVersion": "1"});
    let budget = json!({"errorBudget": {"query": "left{namespace=\"$namespace\",service=\"$service\"}"}});
    let template = json!({"spec": {"containers": [{"name": "app", "image": "app:2"}]}});
    let deployment = json!({"metadata": named("web"), "spec": {"replicas": 4, "template": template}});
    let stable = app.object["status"]["run"]["stable"].clone();
    app.object["status"] = json!({"phase": "Held", "stable": stable, "held": {
        "digest": "d", "since": Timestamp::now().to_string(), "provenance": "Human"}});
    // The plan as a pass would have shown it.
    let policies = vec![
        ("namespaces", json!({"metadata": {"name": "shop", "uid": "shop", "resourceVersion": "1"}})),
        (
            "riskpolicies",
            json!({"apiVersion": "sluice.dev/v1alpha1", "kind": "RiskPolicy",
            "metadata": named("shop"), "spec": budget.clone()}),
        ),
        ("deployments", deployment.clone()),
    ];
    let config = Config { evaluation_interval_seconds: 1, ..Config::default() };
    let own = [("shop".to_owned(), serde_json::from_value(budget).unwrap())];
    let policy = Policy::joined(&config, &[], &own, &BTreeMap::new());
    let change = (Provenance::Human, RiskClass::R2);
    let plan = limits::make_plan(&app.rollout().spec, &config, &policy, &Workload::read(&deployment), change);
    app.object["status"]["plan"] = json!({"digest": plan.digest, "riskClass": "R2", "points": 7});
    policies
}

#[tokio::test]
async fn while_a_template_waits_the_budget_is_read_and_the_plan_is_forecast() {
    let mut app = App::new("web").await;
    let objects = waiting(&mut app);
    let (ctx, mut queue) = controller_of(&[&app], objects).await;
    let (providers, asking, rollout) = (unheard(), Asking::default(), app.rollout());
    let look = || look(&ctx, &providers, &asking, &app.key, &rollout);
    look().await;
    let verdict = app.verdict(&ctx);
    let budget = verdict.budgets.first().expect("a look");
    assert_eq!((budget.from.as_str(), budget.answer.unwrap().1), ("RiskPolicy/shop", 0.125));
    let harm = verdict.harm.clone().expect("a forecast");
    assert_eq!(harm.plan, app.object["status"]["plan"]["digest"]);
    // The source knows nothing of the time before: one question more says what it knows now.
    assert!(!harm.harm.message.is_empty() && !harm.harm.is_known(), "{harm:?}");
    assert!(verdict.at_rest.is_some(), "the alerts were read as well");
    assert_eq!(std::iter::from_fn(|| queue.try_recv().ok()).count(), 2, "each of the two wakes the rollout");
    let asked = app.asked();
    look().await;
    assert_eq!(app.asked().0, asked.0, "what was answered lately is not asked again");
    assert_eq!(app.verdict(&ctx).budgets, verdict.budgets, "the alerts take nothing away");
}

#[tokio::test]
async fn a_budget_that_hangs_delays_no_look_at_the_alerts_and_is_asked_once() {
    let mut app = App::new("web").await;
    let objects = waiting(&mut app);
    let (ctx, _queue) = controller_of(&[&app], objects).await;
    let (providers, asking, rollout) = (unheard(), Asking::default(), app.rollout());
    app.prometheus.hang(true);
    let look = || look(&ctx, &providers, &asking, &app.key, &rollout);
    let meanwhile = async {
        until("both are asked, and the alerts are read", 5, || {
            app.asked().0 == 2 && app.verdict(&ctx).at_rest.is_some()
        })
        .await;
        let asked = app.asked();
        // All rollouts share a younger answer of Alertmanager.
        tokio::time::sleep(Duration::from_millis(600)).await;
        look().await;
        assert_eq!(app.asked(), (asked.0, asked.1 + 1), "who has not answered is not asked again");
    };
    tokio::join!(look(), meanwhile);
    let verdict = app.verdict(&ctx);
    let (_, why) = verdict.budgets[0].trouble.clone().expect("trouble");
    assert!(why.contains("no answer within 5 s"), "{why}");
    let harm = verdict.harm.unwrap().harm;
    assert!(
        harm.message.contains("ProviderDown") && harm.message.contains("no answer within 5 s"),
        "{harm:?}"
    );
}

#[tokio::test]
async fn nothing_more_is_asked_while_nothing_waits_to_start() {
    let mut app = App::new("web").await;
    let objects = waiting(&mut app);
    let config = Config::default();
    let interval = Duration::from_secs(15);
    let every = |rollout: &ProgressiveRollout| due_every(&config, rollout, interval);
    let mut rollout = app.rollout();
    assert_eq!(every(&rollout), Some(interval));
    rollout.spec.guards.retain(|guard| guard.alert.is_none());
    assert_eq!(every(&rollout), Some(interval), "the budget and the forecast are wanted");
    let without = |change: &dyn Fn(&mut ProgressiveRolloutStatus)| {
        let mut rollout = rollout.clone();
        change(rollout.status.as_mut().unwrap());
        rollout
    };
    assert_eq!(every(&without(&|status| status.held = None)), None);
    assert_eq!(every(&without(&|status| status.phase = Phase::Rejected)), None);
    // A look at the alerts of such a one asks Prometheus nothing.
    app.object["status"]["phase"] = json!("Rejected");
    let (ctx, _queue) = controller_of(&[&app], objects).await;
    look(&ctx, &unheard(), &Asking::default(), &app.key, &app.rollout()).await;
    assert_eq!(app.asked(), (0, 1));
    let verdict = app.verdict(&ctx);
    assert!(verdict.budgets.is_empty() && verdict.harm.is_none() && verdict.at_rest.is_some());
}
