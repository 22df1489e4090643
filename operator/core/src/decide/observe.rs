//! Mode Observe: plan and judge the native roll, hold nothing, write nothing but status and events.

use crate::api::{Outcome, Phase, Revision, Run, RunKind, RunRecord, Stage, WeightIntent};
use crate::limits;
use crate::provenance::{self, Before};
use crate::view::{ReplicaSet, Workload};

use super::draft::Draft;
use super::{leave, promote, rest};

/// No run: give an enrolled workload back, and notice when a native roll begins.
pub(super) fn step(d: &mut Draft<'_>) {
    d.status.phase = Phase::Observing;
    if let Some(problem) = limits::problems(d.spec).into_iter().next() {
        d.stall("InvalidSpec", problem);
        return;
    }
    let Some(workload) = d.workload() else {
        let message = format!("Deployment {} is not in namespace {}", d.spec.workload_ref.name, d.namespace);
        d.stall("WorkloadNotFound", message);
        return;
    };
    if workload.managed && leave::restore(d, workload) {
        d.wait("LettingGo", "mode is Observe: the Deployment is given back", None);
        return;
    }
    d.status.observed_workload_generation = Some(workload.generation);
    let Some(live) = set_of(d, workload, &workload.digest) else {
        d.wait("WorkloadRolling", "the Deployment has no ReplicaSet for its template yet", None);
        return;
    };
    match d.status.stable.clone() {
        Some(stable) if stable.digest != workload.digest => start(d, workload, stable, live.revision(None)),
        _ if workload.complete() => {
            d.status.workload_uid = Some(workload.uid.clone());
            d.status.stable = Some(live.revision(workload.commit.clone()));
        }
        _ => d.wait("WorkloadRolling", "waits until the Deployment is complete", None),
    }
}

fn set_of<'a>(d: &Draft<'a>, workload: &Workload, digest: &str) -> Option<&'a ReplicaSet> {
    d.seen.replica_sets().find(|set| set.visible_to(workload) && set.digest == digest)
}

fn start(d: &mut Draft<'_>, workload: &Workload, stable: Revision, mut canary: Revision) {
    if let Some(why) = &d.input.policy.trouble {
        d.wait(
            "PoliciesUnknown",
            format!("{why}; the native roll is judged once the limits are known"),
            None,
        );
        return;
    }
    let view = provenance::describe(&d.spec.change, workload, Before::held(&stable, &d.status));
    let (plan, risk) = rest::preview(d, workload, &view);
    canary.commit = view.commit;
    d.status.plan = Some(risk.explain(d.spec, d.input.policy, &plan));
    d.status.run_count += 1;
    let id = format!("{}-observe", d.status.run_count);
    let steps: Vec<String> = plan.steps.iter().map(|step| step.weight_percent.to_string()).collect();
    d.normal(
        "WouldHold",
        format!(
            "run {id}: in mode Enforce this template would be held: class {}, steps {} %",
            plan.risk_class.as_str(),
            steps.join(", ")
        ),
    );
    let at = d.now;
    // Nothing routes: the window is open from the start.
    let weight = WeightIntent { percent: 50, at, accepted_at: Some(at), settled_at: Some(at) };
    d.status.run = Some(Run {
        stage: Stage::Stepping,
        weight: Some(weight),
        stable_size: Some(workload.replicas),
        ..Run::new(id, RunKind::Observe, canary, stable, plan, at)
    });
}

/// A native roll is under way: say once what would have happened, end when it is complete.
pub(super) fn judge(d: &mut Draft<'_>, mut run: Run) {
    let verdict = d.input.verdict;
    if run.going_back.is_none()
        && verdict.run_id == run.id
        && let Some(why) = verdict.abort.clone()
    {
        d.warn(
            "WouldAbort",
            format!(
                "run {}: in mode Enforce traffic would return to stable now: {}: {}",
                run.id, why.reason, why.message
            ),
        );
        run.going_back = Some(crate::api::GoingBack {
            outcome: Outcome::Rejected,
            reason: why.reason,
            message: why.message,
            since: d.now,
            judges_stable: false,
            back_at: None,
            verified_at: None,
        });
    }
    let done = match d.workload() {
        Some(workload) => workload.digest != run.canary.digest || workload.complete(),
        None => d.seen.workload.get().is_some(),
    };
    let left = d.spec.mode != crate::api::Mode::Observe || leave::leaving(d);
    // A person's abort ends the observation; the native roll goes on.
    let ended = run.going_back.as_ref().is_some_and(|back| back.outcome == Outcome::Abandoned);
    if !done && !left && !ended {
        d.wait("Observing", "the native roll is judged, not touched", None);
        d.status.run = Some(run);
        return;
    }
    let (outcome, reason, message) = match run.going_back {
        Some(back) if ended => (back.outcome, back.reason, back.message),
        Some(back) => {
            (Outcome::Rejected, "WouldReject".to_owned(), format!("{}: {}", back.reason, back.message))
        }
        None => (
            Outcome::Promoted,
            "WouldNotReject".to_owned(),
            "no guard tripped during the native roll".to_owned(),
        ),
    };
    d.normal("Observed", format!("run {}: {reason}: {message}", run.id));
    d.status.history.insert(
        0,
        RunRecord {
            id: run.id,
            outcome,
            reason,
            message,
            risk_class: run.plan.risk_class,
            plan_digest: run.plan.digest,
            provenance: run.plan.provenance,
            digest: run.canary.digest,
            images: run.canary.images,
            commit: run.canary.commit,
            max_weight_percent: 0,
            started_at: run.started_at,
            ended_at: d.now,
            exposed_since: None,
            exposed_until: None,
        },
    );
    promote::forget_oldest(&mut d.status.history);
    d.status.stable = None;
    d.status.plan = None;
    d.status.guards.clear();
}
