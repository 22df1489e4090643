//! A provenance that turns out to be riskier while the run is under way: its limits hold at once.
//!
//! Going on under the old limits would make it pay to declare late. What was declared can only rise in a run: a cheaper
//! declaration, or one that does not describe what is tried, is for the next one. So it is with what the evidence leaves
//! out at the rollout's wish: less of it counts at once, more of it from the next run on.

use crate::api::{Guard, Plan, Run, RunKind, Stage};
use crate::limits::{self, Progress};
use crate::provenance;

use super::draft::Draft;

/// Tightens the plan when `spec.change` describes the run's template with a riskier provenance than the plan has.
pub(super) fn provenance(d: &mut Draft<'_>, run: &mut Run) {
    let over = matches!(run.stage, Stage::Finishing | Stage::Returning);
    if run.kind != RunKind::Canary || over || run.going_back.is_some() {
        return;
    }
    let Some(workload) = d.workload().filter(|workload| workload.digest == run.canary.digest) else {
        return;
    };
    let view = provenance::describe(&d.spec.change, workload, &run.stable, &d.status);
    if run.canary.commit.is_none() {
        run.canary.commit.clone_from(&view.commit);
    }
    if !view.declared || view.provenance <= run.plan.provenance {
        return;
    }
    let progress = progress(run);
    let riskier = limits::make_plan(d.spec, d.input.config, workload, view.provenance);
    let Some(plan) = limits::tighten(&run.plan, progress, &riskier) else {
        return;
    };
    let ahead: Vec<String> = usize::try_from(run.step)
        .ok()
        .and_then(|index| plan.steps.get(index..))
        .filter(|_| progress.stepping)
        .map(|steps| steps.iter().map(|step| step.weight_percent.to_string()).collect())
        .unwrap_or_default();
    let ahead =
        if ahead.is_empty() { String::new() } else { format!(", steps from here {} %", ahead.join(", ")) };
    d.normal(
        "PlanTightened",
        format!(
            "run {}: its provenance is now known as {}, it was {}: class {}{ahead}",
            run.id,
            plan.provenance.as_str(),
            run.plan.provenance.as_str(),
            plan.risk_class.as_str(),
        ),
    );
    run.plan = plan;
}

/// Lets the evidence count what the rollout no longer leaves out.
pub(super) fn evidence(d: &mut Draft<'_>, run: &mut Run) {
    let over = matches!(run.stage, Stage::Finishing | Stage::Returning);
    let leaves_out = |plan: &Plan| {
        let warmup = |guard: &Guard| guard.counted().is_some_and(|counted| counted.warmup_requests() > 0);
        plan.abort_needs_two_pods || plan.guards.iter().any(warmup)
    };
    if run.kind != RunKind::Canary || over || run.going_back.is_some() || !leaves_out(&run.plan) {
        return;
    }
    // What is wrong with a spec is said once the run is over.
    let Some(workload) = d.workload().filter(|_| limits::problems(d.spec).is_empty()) else {
        return;
    };
    let now = limits::make_plan(d.spec, d.input.config, workload, run.plan.provenance);
    let Some(plan) = limits::count_more(&run.plan, &now) else {
        return;
    };
    let pods = (plan.abort_needs_two_pods != run.plan.abort_needs_two_pods)
        .then(|| "one pod's failures alone stop it".to_owned());
    let guards = plan.guards.iter().zip(&run.plan.guards).filter(|(new, old)| new != old);
    let guards = guards.filter_map(|(guard, _)| {
        let requests = guard.counted()?.warmup_requests();
        Some(format!("guard {} counts a new pod after {requests} requests", guard.name))
    });
    let what: Vec<String> = pods.into_iter().chain(guards).collect();
    d.normal("PlanTightened", format!("run {}: from now on {}", run.id, what.join(", ")));
    run.plan = plan;
}

/// Where the run is in its plan.
pub(crate) fn progress(run: &Run) -> Progress {
    let step = usize::try_from(run.step).ok().and_then(|index| run.plan.steps.get(index));
    Progress {
        step: run.step,
        asked: step.is_some_and(|step| run.max_weight_percent >= step.weight_percent),
        stepping: matches!(run.stage, Stage::Preparing | Stage::Stepping),
    }
}
