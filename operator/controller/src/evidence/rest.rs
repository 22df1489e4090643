//! One look at a rollout without a run: the alerts; and while a template waits to start, what is left of the error budget and
//! what stable's record says of its plan. None of the three waits for another.

use std::time::Duration;

use futures::future::join_all;
use jiff::Timestamp;
use sluice_core::api::{ErrorBudgetPolicy, Plan, Provenance};
use sluice_core::forecast::forecast;
use sluice_core::harm;
use sluice_core::judge::at_rest;
use sluice_core::limits;
use sluice_core::observed::Seen;
use sluice_core::policy::Sourced;
use sluice_core::verdict::{BudgetLook, HarmLook, Verdict};
use sluice_core::view::Workload;

use super::ask::Asker;
use super::round::{Asking, Source, Subject, sources, take_in};
use super::store::{AlertPolls, Entry};
use super::{guards_at_rest, waits_to_start};
use crate::watch::Watched;

/// A forecast is made anew after so long, and after so long when there was nothing to make it from.
const FORECAST: (Duration, Duration) = (Duration::from_secs(600), Duration::from_secs(60));

/// Asks what is free, and takes in each answer as it comes.
pub(super) async fn look(asker: &Asker<'_>, asking: &Asking, subject: &Subject) {
    let waits = waits_to_start(asker.rollout);
    let more = async {
        if waits {
            tokio::join!(budgets(asker, asking, subject), record(asker, asking, subject));
        }
    };
    tokio::join!(alerts(asker, asking, subject), more);
}

async fn alerts(asker: &Asker<'_>, asking: &Asking, subject: &Subject) {
    let Some(_underway) = asking.begin(subject, Source::AllAlerts) else {
        return;
    };
    let config = &asker.ctx.config;
    let guards = guards_at_rest(config, asker.rollout);
    let asked = sources(guards).map(async |source| (source, asker.alerts(source).await));
    let answers = AlertPolls::of(join_all(asked).await);
    take_in(asker.ctx, subject, |known, rollout| {
        let before = known.map(|entry| entry.verdict).unwrap_or_default();
        let verdict = Verdict {
            budgets: before.budgets.clone(),
            harm: before.harm.clone(),
            ..at_rest(guards_at_rest(config, rollout), answers.all(), &before)
        };
        Some(Entry { uid: subject.uid.clone(), verdict, ..Entry::default() })
    });
}

/// Asks by each policy's query whose last answer is not recent.
async fn budgets(asker: &Asker<'_>, asking: &Asking, subject: &Subject) {
    let policy = asker.ctx.policy(&asker.key.namespace);
    let known = asker.ctx.evidence.verdict(asker.key).budgets;
    let now = Timestamp::now();
    let due = policy
        .error_budgets
        .iter()
        .filter(|budget| known.iter().find(|look| look.is_for(budget)).is_none_or(|look| look.is_due(now)));
    let due: Vec<_> = due.collect();
    if due.is_empty() {
        return;
    }
    let Some(_underway) = asking.begin(subject, Source::Budgets) else {
        return;
    };
    let asked =
        due.into_iter().map(|budget| async move { (budget, now, asker.budget(&budget.value.query).await) });
    let answers = join_all(asked).await;
    renew(asker, subject, |verdict| {
        let next = |budget: &Sourced<ErrorBudgetPolicy>| {
            let before = verdict.budgets.iter().find(|look| look.is_for(budget));
            match answers.iter().find(|(of, ..)| *of == budget) {
                Some((_, at, answer)) => Some(BudgetLook::after(before, budget, *at, answer.clone())),
                None => before.cloned(),
            }
        };
        verdict.budgets = policy.error_budgets.iter().filter_map(next).collect();
    });
}

/// Forecasts the plan that status shows, once, and again when that is long ago.
async fn record(asker: &Asker<'_>, asking: &Asking, subject: &Subject) {
    let Some((plan, stable, replicas)) = plan(asker) else {
        return;
    };
    let (ctx, known) = (asker.ctx, asker.ctx.evidence.verdict(asker.key).harm);
    // One that is made anew waits for all that were never made.
    let due = match known.filter(|look| look.plan == plan.digest) {
        Some(look) => {
            let every = if look.harm.is_known() { FORECAST.0 } else { FORECAST.1 };
            Timestamp::now().duration_since(look.at).unsigned_abs() >= every && ctx.records.is_calm()
        }
        None => ctx.records.is_ready(),
    };
    // What waits to be written comes first: after an edit of a policy that is the plan of every held template.
    let due = due && ctx.forward.available_permits() > 0;
    let Some(_underway) = due.then(|| asking.begin(subject, Source::Record)).flatten() else {
        return;
    };
    ctx.records.take();
    let samples = asker.record(&plan, &stable).await;
    let forecasts = forecast(&plan, replicas, &samples, None, asker.ctx.config.evaluation_interval_seconds);
    let at = Timestamp::now();
    let harm = harm::shown(&plan, &forecasts, at);
    renew(asker, subject, |verdict| verdict.harm = Some(HarmLook { plan: plan.digest, at, harm }));
}

/// The plan that status shows for the held template, stable's ReplicaSet, and the workload's replicas; none while they do not
/// fit what is known here: then one of the two is older.
fn plan(asker: &Asker<'_>) -> Option<(Plan, String, i32)> {
    let (ctx, spec) = (asker.ctx, &asker.rollout.spec);
    let status = asker.rollout.status.as_ref()?;
    let (shown, stable) = (status.plan.as_ref()?, status.stable.as_ref()?);
    let provenance = status.held.as_ref().map_or(Provenance::Unknown, |held| held.provenance);
    let found = ctx.stores.named(Watched::Deployment, &asker.key.namespace, [&spec.workload_ref.name]);
    let Seen::Seen(found) = found else {
        return None;
    };
    let workload: Workload = found.first()?.workload()?;
    let policy = ctx.policy(&asker.key.namespace);
    let plan = limits::make_plan(spec, &ctx.config, &policy, &workload, (provenance, shown.risk_class?));
    (plan.digest == shown.digest).then(|| (plan, stable.replica_set.clone(), workload.replicas))
}

/// Changes what is known of a rollout at rest, and wakes it. What was judged of a run that is over says nothing any more, but
/// for the alerts that fired then.
fn renew(asker: &Asker<'_>, subject: &Subject, change: impl FnOnce(&mut Verdict)) {
    let renewed = take_in(asker.ctx, subject, |known, _| {
        let mut verdict = known.map(|entry| entry.verdict).unwrap_or_default();
        if !verdict.run_id.is_empty() {
            verdict = Verdict { firing: verdict.firing, ..Verdict::default() };
        }
        change(&mut verdict);
        Some(Entry { uid: subject.uid.clone(), verdict, ..Entry::default() })
    });
    if renewed {
        let _ = asker.ctx.queue.send(asker.key.clone());
    }
}
