//! The end of a pass: phase, conditions, columns. One complete status, equal to the last one when nothing changed.

use crate::action::{Event, EventKind, Lane};
use crate::api::{
    Condition, ConditionStatus, ConditionType, Limits, Phase, ProgressiveRolloutStatus, Run, RunKind, Stage,
    Summary, TrafficStatus, Waiting,
};

use crate::limits;
use crate::observed::Seen;
use crate::provenance::{self, Before, ChangeView};
use crate::view::{Autoscaler, shorten};

use super::draft::{Decision, Draft, MESSAGE_LIMIT};
use super::{budget, forward, harm, rest, start};

/// Reason of a provenance that somebody claims to be less.
const MISMATCH: &str = "Mismatch";
/// Reason of an autoscaler that counts the canary's pods.
const VALUE_TARGET: &str = "ValueTarget";
/// Reason of limits of the rollout's own that are not used.
const CLAMPED: &str = "TighterHolds";
/// Characters of a commit in columns.
const COMMIT_LEN: usize = 12;

/// Closes the pass.
pub(super) fn finish(mut d: Draft<'_>) -> Decision {
    let before = d.input.rollout.status.clone().unwrap_or_default();
    let view = view(&d);
    if let Some(run) = &d.status.run {
        d.status.phase = phase_of(run);
    } else {
        d.status.plan = d.workload().zip(view.as_ref()).map(|(workload, view)| {
            let (plan, risk) = rest::preview(&d, workload, view);
            risk.explain(d.spec, d.input.policy, &plan)
        });
    }
    budget::remember(&mut d);
    let harm = harm::of_plan(&d, &before);
    if let Some(plan) = &mut d.status.plan {
        plan.harm = harm;
    }
    if d.status.phase != before.phase || before.phase_since.is_none() {
        d.status.phase_since = Some(d.now);
    }
    d.status.observed_generation = d.input.rollout.metadata.generation.unwrap_or_default();
    if let Some(workload) = d.workload().filter(|_| !d.workload_is_old()) {
        d.status.observed_workload_generation = Some(workload.generation);
    }
    evidence(&mut d);
    d.status.waiting = waiting(&d, &before);
    d.status.traffic = d.status.run.as_ref().map(|run| traffic(&d, run));
    d.status.summary = summary(&d, view.as_ref());
    d.status.conditions = conditions(&d, &before, view.as_ref());
    warn_of_conditions(&mut d, &before);
    if let Some(problem) = &d.problem {
        let said = before.conditions.iter().any(|condition| {
            condition.kind == ConditionType::Stalled
                && condition.status == ConditionStatus::True
                && condition.reason == problem.reason
                && condition.message == problem.message
        });
        if !said {
            d.events.push(Event {
                kind: EventKind::Warning,
                reason: problem.reason,
                message: problem.message.clone(),
            });
        }
    }
    Decision { status: d.status, actions: d.actions, events: d.events, wake: d.wake }
}

/// What is known of the change that is held or tried.
fn view(d: &Draft<'_>) -> Option<ChangeView> {
    let workload = d.workload()?;
    match (&d.status.run, &d.status.held) {
        (Some(run), _) => (workload.digest == run.canary.digest)
            .then(|| provenance::describe(&d.spec.change, workload, Before::run(run, &d.status))),
        (None, Some(_)) => Some(rest::view(d, workload)),
        (None, None) => None,
    }
}

fn phase_of(run: &Run) -> Phase {
    if run.kind == RunKind::Observe {
        return Phase::Observing;
    }
    match run.stage {
        Stage::Preparing | Stage::Stepping => Phase::Canary,
        Stage::Promoting => Phase::Promoting,
        Stage::Watching | Stage::Finishing => Phase::Watching,
        Stage::Returning => Phase::Returning,
    }
}

/// Copies the verdict into status, for people and for the next start of the controller.
fn evidence(d: &mut Draft<'_>) {
    let verdict = d.input.verdict;
    let Some(run) = d.status.run.as_mut().filter(|run| run.id == verdict.run_id) else {
        return;
    };
    run.evidence.clone_from(&verdict.state);
    d.status.guards.clone_from(&verdict.guards);
    let low = verdict.state.as_ref().and_then(|state| state.low_traffic.clone());
    if let (None, Some(why)) = (&run.low_traffic, low) {
        run.low_traffic = Some(why.clone());
        d.warn("TrafficTooLow", why);
    }
}

fn waiting(d: &Draft<'_>, before: &ProgressiveRolloutStatus) -> Option<Waiting> {
    let (reason, message, deadline) = match (&d.problem, &d.wait) {
        (Some(problem), _) => (problem.reason, problem.message.clone(), None),
        (None, Some(wait)) => (wait.reason, wait.message.clone(), wait.deadline),
        (None, None) => return None,
    };
    let since = before.waiting.as_ref().filter(|w| w.reason == reason).map_or(d.now, |w| w.since);
    Some(Waiting { reason: reason.to_owned(), message, since, deadline })
}

fn traffic(d: &Draft<'_>, run: &Run) -> TrafficStatus {
    let percent = asked_percent(run);
    let observed = d.input.verdict.share.filter(|(_, all)| *all > 0.0 && d.input.verdict.run_id == run.id);
    let by_pods = match run.plan.apex_callers {
        crate::api::ApexCallers::Some => forward::exposure_by_pods(d, run),
        crate::api::ApexCallers::None => 0.0,
    };
    TrafficStatus {
        weight_percent: percent,
        accepted: run.weight.is_some_and(|weight| weight.accepted_at.is_some()),
        settled: run.weight.is_some_and(|weight| weight.settled_at.is_some()),
        observed_permille: observed.map(|(canary, all)| permille(canary / all)),
        exposure_permille: permille(by_pods).max(percent.saturating_mul(10)),
        overwrites: run.overwrites_total,
    }
}

/// Percent of the traffic that is asked for the new revision.
fn asked_percent(run: &Run) -> i32 {
    match run.stage {
        Stage::Preparing => 0,
        Stage::Stepping | Stage::Promoting => run.weight.map_or(0, |weight| weight.percent),
        Stage::Watching | Stage::Finishing => 100,
        Stage::Returning => {
            let back = run.going_back.as_ref().is_some_and(|back| back.back_at.is_some());
            if back { 0 } else { run.weight.map_or(0, |weight| weight.percent) }
        }
    }
}

#[allow(clippy::cast_possible_truncation)] // a share is between 0 and 1
fn permille(share: f64) -> i32 {
    (share.clamp(0.0, 1.0) * 1000.0).round() as i32
}

fn summary(d: &Draft<'_>, view: Option<&ChangeView>) -> Summary {
    let short =
        |commit: &Option<String>| commit.as_deref().unwrap_or_default().chars().take(COMMIT_LEN).collect();
    let reason = d.status.waiting.as_ref().map(|w| w.reason.clone()).unwrap_or_default();
    if let Some(run) = &d.status.run {
        let observed = d.status.traffic.as_ref().and_then(|t| t.observed_permille);
        return Summary {
            step: format!("{}/{}", run.step + 1, run.plan.steps.len()),
            weight: format!("{}%", asked_percent(run)),
            observed: observed.map(|p| format!("{}.{}%", p / 10, p % 10)).unwrap_or_default(),
            risk_class: run.plan.risk_class.as_str().to_owned(),
            provenance: run.plan.provenance.as_str().to_owned(),
            commit: short(&run.canary.commit),
            reason,
        };
    }
    match (&d.status.held, view) {
        (Some(held), Some(view)) => {
            let plan = d.status.plan.clone().unwrap_or_default();
            Summary {
                step: format!("0/{}", plan.steps.len()),
                weight: "0%".to_owned(),
                observed: String::new(),
                risk_class: plan.risk_class.map_or_else(String::new, |class| class.as_str().to_owned()),
                provenance: held.provenance.as_str().to_owned(),
                commit: short(&view.commit),
                reason,
            }
        }
        _ => Summary {
            step: "-".to_owned(),
            weight: "0%".to_owned(),
            commit: short(&d.status.stable_commit),
            reason,
            ..Summary::default()
        },
    }
}

fn conditions(d: &Draft<'_>, before: &ProgressiveRolloutStatus, view: Option<&ChangeView>) -> Vec<Condition> {
    use ConditionStatus::{False, True, Unknown};
    let wait = d.status.waiting.as_ref();
    let said = |fallback: &str| wait.map_or_else(|| fallback.to_owned(), |w| w.message.clone());
    let why = |fallback: &str| wait.map_or_else(|| fallback.to_owned(), |w| w.reason.clone());
    // What only tidies up does not make the workload less ready: it may be tried again for long.
    let moving = d.actions.iter().any(|action| action.lane != Lane::Tidy);
    let busy = d.status.run.is_some() || d.wait.is_some() || moving;
    let mut list: Vec<(ConditionType, ConditionStatus, String, String)> = Vec::new();
    if d.problem.is_some() {
        list.push((ConditionType::Ready, False, why("Stalled"), said("")));
        list.push((
            ConditionType::Reconciling,
            False,
            "Stalled".to_owned(),
            "nothing moves until somebody acts".to_owned(),
        ));
        list.push((ConditionType::Stalled, True, why("Stalled"), said("")));
    } else if busy {
        let what =
            if d.status.run.is_some() { "a run is under way" } else { "the workload is being enrolled" };
        list.push((ConditionType::Ready, Unknown, why("InProgress"), said(what)));
        list.push((ConditionType::Reconciling, True, why("InProgress"), said(what)));
        list.push((ConditionType::Stalled, False, "InProgress".to_owned(), "not stalled".to_owned()));
    } else {
        let last =
            d.status.history.first().map(|run| format!("last run {} {}", run.id, run.outcome.as_str()));
        let message = last.unwrap_or_else(|| "the workload runs its template".to_owned());
        list.push((ConditionType::Ready, True, d.status.phase.as_str().to_owned(), message));
        list.push((ConditionType::Reconciling, False, "AtRest".to_owned(), "nothing to do".to_owned()));
        list.push((ConditionType::Stalled, False, "AtRest".to_owned(), "not stalled".to_owned()));
    }
    if let Some(run) = &d.status.run {
        let verdict = d.input.verdict;
        let (status, reason, message) = match (&verdict.no_data, verdict.run_id == run.id) {
            (_, false) => (Unknown, "NotEvaluated", "waits for the first evaluation".to_owned()),
            (Some((_, what)), true) => (False, "NoData", shorten(what, MESSAGE_LIMIT)),
            (None, true) => (True, "Fresh", "every required guard has fresh data".to_owned()),
        };
        list.push((ConditionType::MetricsAvailable, status, reason.to_owned(), message));
        let settled = run.weight.is_some_and(|weight| weight.settled_at.is_some());
        let percent = asked_percent(run);
        let (status, reason) = if settled { (True, "Settled") } else { (Unknown, "NotSettled") };
        list.push((ConditionType::TrafficVerified, status, reason.to_owned(), format!("weight {percent} %")));
    }
    list.extend(autoscaler(d, before));
    list.extend(who_wrote_it(d, before, view));
    list.extend(clamped(d));
    list.extend(start::approved(d));
    list.into_iter()
        .map(|(kind, status, reason, message)| {
            let known = before.conditions.iter().find(|c| c.kind == kind && c.status == status);
            Condition {
                kind,
                status,
                reason,
                message,
                observed_generation: d.input.rollout.metadata.generation.unwrap_or_default(),
                last_transition_time: known.map_or(d.now, |c| c.last_transition_time),
            }
        })
        .collect()
}

/// What stands behind the provenance of the template that is held or tried.
fn who_wrote_it(
    d: &Draft<'_>,
    before: &ProgressiveRolloutStatus,
    view: Option<&ChangeView>,
) -> Option<(ConditionType, ConditionStatus, String, String)> {
    let kind = ConditionType::ProvenanceVerified;
    let known = before.conditions.iter().find(|condition| condition.kind == kind);
    let view = match (&d.status.run, &d.status.held) {
        // What is known to be good is not asked who wrote it.
        (Some(run), _) if run.kind == RunKind::Return => return None,
        // `spec.change` may be about the next template already; annotations may still raise.
        (Some(run), _) => view.filter(|view| {
            before.run.is_none() || view.by_change || (view.declared && view.provenance > run.plan.provenance)
        }),
        (None, Some(held)) => view.filter(|_| d.workload().is_some_and(|known| known.digest == held.digest)),
        (None, None) => return None,
    };
    let Some(view) = view else {
        return known.map(|known| (kind, known.status, known.reason.clone(), known.message.clone()));
    };
    let level = view.provenance.as_str();
    let (status, reason, message) = if let Some(mismatch) = &view.mismatch {
        (ConditionStatus::False, MISMATCH, mismatch.clone())
    } else if let Some((commits, rules)) = &view.scanned {
        let message =
            format!("commits scanned: {commits}, by rules {rules}; nothing riskier than {level} was found");
        (ConditionStatus::True, "Scanned", message)
    } else if view.declared {
        let message =
            format!("declared as {level}, and no scan of the source says more: kubectl sluice scan");
        (ConditionStatus::False, "ClaimOnly", message)
    } else {
        let message = view.obstacle.clone().unwrap_or_else(|| {
            "nothing describes the template: name its images or its commit in spec.change, or annotate the Deployment".to_owned()
        });
        (ConditionStatus::False, "Undeclared", message)
    };
    Some((kind, status, reason.to_owned(), shorten(&message, MESSAGE_LIMIT)))
}

/// Limits of the rollout's own that are not used, since tighter ones hold anyhow.
fn clamped(d: &Draft<'_>) -> Option<(ConditionType, ConditionStatus, String, String)> {
    if d.spec.limits == Limits::default() {
        return None;
    }
    let class = d.status.plan.as_ref()?.risk_class?;
    let found = limits::clamped(d.spec, d.input.policy, class);
    let kind = ConditionType::LimitsClamped;
    if found.is_empty() {
        return Some((
            kind,
            ConditionStatus::False,
            "InForce".to_owned(),
            "every limit of spec.limits holds".to_owned(),
        ));
    }
    let message = shorten(&format!("of spec.limits the tighter counts: {}", found.join("; ")), MESSAGE_LIMIT);
    Some((kind, ConditionStatus::True, CLAMPED.to_owned(), message))
}

/// Conditions that are told as an event too, once for each message: kind, status and reason, and the event's reason.
const TOLD: [(ConditionType, ConditionStatus, &str, &str); 3] = [
    (ConditionType::AutoscalerCompatible, ConditionStatus::False, VALUE_TARGET, "AutoscalerCountsCanary"),
    (ConditionType::ProvenanceVerified, ConditionStatus::False, MISMATCH, "ProvenanceMismatch"),
    (ConditionType::LimitsClamped, ConditionStatus::True, CLAMPED, "LimitsClamped"),
];

fn warn_of_conditions(d: &mut Draft<'_>, before: &ProgressiveRolloutStatus) {
    for (kind, status, reason, event) in TOLD {
        let is = |c: &&Condition| c.kind == kind && c.status == status && c.reason == reason;
        let Some(now) = d.status.conditions.iter().find(is) else {
            continue;
        };
        if before.conditions.iter().find(is).is_none_or(|told| told.message != now.message) {
            let message = now.message.clone();
            d.warn(event, message);
        }
    }
}

/// What is known of the workload's autoscaler: what this pass read, else what an earlier one found.
fn autoscaler(
    d: &Draft<'_>,
    before: &ProgressiveRolloutStatus,
) -> Option<(ConditionType, ConditionStatus, String, String)> {
    let kind = ConditionType::AutoscalerCompatible;
    let said = |status, reason: &str, message: String| Some((kind, status, reason.to_owned(), message));
    match &d.seen.autoscalers {
        None => {
            let known = before.conditions.iter().find(|condition| condition.kind == kind)?;
            Some((kind, known.status, known.reason.clone(), known.message.clone()))
        }
        Some(Seen::Unseen(why)) => said(
            ConditionStatus::Unknown,
            "CannotRead",
            shorten(
                &format!(
                    "HorizontalPodAutoscalers can't be read, so a metric that counts the canary's pods would go unseen: {why}"
                ),
                MESSAGE_LIMIT,
            ),
        ),
        Some(Seen::Seen(found)) => match found.iter().find(|autoscaler| !autoscaler.value_metrics.is_empty())
        {
            Some(counts) => {
                said(ConditionStatus::False, VALUE_TARGET, shorten(&value_target(counts), MESSAGE_LIMIT))
            }
            None => {
                let name = &found.first()?.name;
                let message =
                    format!("no metric of HorizontalPodAutoscaler {name} has a target of type Value");
                said(ConditionStatus::True, "AverageTargets", message)
            }
        },
    }
}

fn value_target(autoscaler: &Autoscaler) -> String {
    format!(
        "HorizontalPodAutoscaler {}: the target of metric {} is of type Value, which multiplies with the canary's pods too, so a run may scale stable up; use AverageValue",
        autoscaler.name,
        autoscaler.value_metrics.join(", ")
    )
}
