//! A provenance that turns out to be riskier while the run is under way: its limits hold at once.
//!
//! Going on under the old limits would make it pay to declare late. What was declared can only rise in a run: a cheaper
//! declaration, or one that does not describe what is tried, is for the next one.

use crate::api::{Run, RunKind, Stage};
use crate::limits::{self, Progress};

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
    let view = limits::describe(&d.spec.change, workload, &run.stable.images);
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
            "run {}: its provenance is now declared as {}, it was {}: class {}{ahead}",
            run.id,
            plan.provenance.as_str(),
            run.plan.provenance.as_str(),
            plan.risk_class.as_str(),
        ),
    );
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
