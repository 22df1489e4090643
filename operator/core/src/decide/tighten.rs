//! A change that turns out to be riskier, or limits that get tighter, while the run is under way: they hold at once.
//!
//! Going on under the old limits would make it pay to declare late. In a run limits only tighten: a cheaper declaration, one
//! that does not describe what is tried, and limits that loosen are for the next one. So it is with what the evidence leaves
//! out at the rollout's wish: less of it counts at once, more of it from the next run on.

use crate::api::{Factor, Guard, LimitSource, Plan, PlanStatus, Run, RunKind, Stage};
use crate::limits::{self, Progress};
use crate::provenance::{self, Before};

use super::draft::Draft;
use super::{budget, rest};

/// Most sources of limits that status names.
const MOST_SOURCES: usize = 16;

/// Tightens the plan when a run would start with a tighter one now.
pub(super) fn plan(d: &mut Draft<'_>, run: &mut Run) {
    let over = matches!(run.stage, Stage::Finishing | Stage::Returning);
    if run.kind != RunKind::Canary || over || run.going_back.is_some() {
        return;
    }
    let Some(workload) = d.workload().filter(|workload| workload.digest == run.canary.digest) else {
        return;
    };
    let mut view = provenance::describe(&d.spec.change, workload, Before::run(run, &d.status));
    if run.canary.commit.is_none() {
        run.canary.commit.clone_from(&view.commit);
    }
    if view.by_change {
        run.known_change = provenance::riskier(run.known_change, view.known());
    } else {
        // `spec.change` may be about the next template already.
        view = view.remembered(run.plan.provenance, run.known_change);
    }
    let risk = rest::assess(d, &view, budget::kept(d));
    let change = (view.provenance.max(run.plan.provenance), risk.class.max(run.plan.risk_class));
    let now = limits::draft(d.spec, d.input.config, d.input.policy, workload, change);
    let progress = progress(run);
    let Some(plan) = limits::tighten(&run.plan, progress, &now) else {
        return;
    };
    // Neither policies that are not known nor limits with a mistake in them are the run's; a riskier change always is.
    let unknown = || d.input.policy.trouble.is_some() || !limits::problems(d.spec).is_empty();
    if plan.provenance == run.plan.provenance && unknown() {
        return;
    }
    let ahead: Vec<String> = usize::try_from(run.step)
        .ok()
        .and_then(|index| plan.steps.get(index..))
        .filter(|_| progress.stepping)
        .map(|steps| steps.iter().map(|step| step.weight_percent.to_string()).collect())
        .unwrap_or_default();
    let ahead =
        if ahead.is_empty() { String::new() } else { format!(", steps from here {} %", ahead.join(", ")) };
    let (is, was) = (&plan, &run.plan);
    let why = if is.provenance > was.provenance {
        format!(
            "its provenance is now known as {}, it was {}",
            is.provenance.as_str(),
            was.provenance.as_str()
        )
    } else if is.risk_class > was.risk_class {
        format!("it was of class {}", was.risk_class.as_str())
    } else {
        "a policy or spec.limits is tighter now".to_owned()
    };
    d.normal("PlanTightened", format!("run {}: {why}: class {}{ahead}", run.id, is.risk_class.as_str()));
    let now = risk.explain(d.spec, d.input.policy, &plan);
    let is_as_risky = risk.class >= run.plan.risk_class;
    d.status.plan = Some(joined(d.status.plan.take(), now, is_as_risky));
    run.plan = plan;
}

/// What explains a plan that is the join of what it was and of what a run would start with now: the limits of both, and the
/// factors of the riskier one, whose class it has.
fn joined(before: Option<PlanStatus>, mut now: PlanStatus, is_as_risky: bool) -> PlanStatus {
    let Some(before) = before else {
        return now;
    };
    // It is told as it was before the start.
    let harm = before.harm;
    // What is as it was has the source that it had: `spec.change` may be about the next template by now.
    for factor in &mut now.factors {
        let same = |known: &&Factor| (&known.name, &known.level) == (&factor.name, &factor.level);
        if let Some(known) = before.factors.iter().find(same) {
            factor.source.clone_from(&known.source);
        }
    }
    let (points, factors) =
        if is_as_risky { (now.points, now.factors) } else { (before.points, before.factors) };
    let mut limit_sources = now.limit_sources;
    for mut source in before.limit_sources {
        let LimitSource { from, limits } = &mut source;
        limits.retain(|field, value| {
            !limit_sources.iter().any(|known| known.from == *from && known.limits.get(field) == Some(&*value))
        });
        if !source.limits.is_empty() && limit_sources.len() < MOST_SOURCES {
            limit_sources.push(source);
        }
    }
    PlanStatus { points, factors, limit_sources, harm, ..now }
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
    let change = (run.plan.provenance, run.plan.risk_class);
    let now = limits::draft(d.spec, d.input.config, d.input.policy, workload, change);
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
    if let Some(shown) = &mut d.status.plan {
        shown.digest.clone_from(&plan.digest);
    }
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
