//! The invariants of a decision, said a second time and written apart from [`crate::decide`].
//!
//! `decide` asks what to do next; this asks what must never be done, whatever the reason. The simulator and the
//! tests check every decision, and the controller checks one before it acts: a violation holds the run, with an
//! event. Nothing here is needed to return traffic, and nothing here may keep that from happening.

use serde_json::Value;

use crate::action::{Action, Kind, Lane, PatchOp, SetWeights, Write};
use crate::api::{FINALIZER, LABEL_HASH, ProgressiveRolloutStatus, Run, RunKind, Stage};
use crate::decide::{Decision, FORGIVEN_SECONDS, Input, progress};
use crate::limits;
use crate::observed::Observed;
use crate::render::NOTHING;
use crate::view::{ReplicaSet, Workload};

/// What a decision does that must never be done, in words; empty when all is well.
pub fn violations(input: &Input<'_>, decision: &Decision) -> Vec<String> {
    let before = input.rollout.status.clone().unwrap_or_default();
    let mut found = Vec::new();
    history(input, &before, &decision.status, &mut found);
    let scene = Scene { input, before: &before, after: &decision.status };
    for action in &decision.actions {
        scene.action(action, &mut found);
    }
    scene.together(&decision.actions, &mut found);
    found
}

/// What may not change from one status to the next.
fn history(
    input: &Input<'_>,
    before: &ProgressiveRolloutStatus,
    after: &ProgressiveRolloutStatus,
    found: &mut Vec<String>,
) {
    let Some(run) = &after.run else {
        return;
    };
    match before.run.as_ref().filter(|old| old.id == run.id) {
        None => {
            if before.run.is_some() {
                found.push(format!("run {} began while another was under way", run.id));
            }
            if run.kind == RunKind::Canary && input.turn.is_some() {
                found.push(format!("run {} began without room for it", run.id));
            }
            if after.quarantine.iter().any(|q| q.digest == run.canary.digest) {
                found.push(format!("run {} tries a rejected revision", run.id));
            }
            if after.run_count <= before.run_count {
                found.push(format!("run {} has the number of an older run", run.id));
            }
            // Whether the declared kind describes the template is not asked again: that can only hold more.
            let kind = input.rollout.spec.change.kind;
            if run.kind == RunKind::Canary
                && let Some(hold) = input.policy.freezes.in_force(input.now, run.plan.risk_class, kind)
            {
                found.push(format!("run {} starts while ChangeFreeze {} holds it", run.id, hold.name));
            }
        }
        Some(old) => same_run(input, old, run, found),
    }
}

fn same_run(input: &Input<'_>, old: &Run, run: &Run, found: &mut Vec<String>) {
    let id = &run.id;
    if old.plan != run.plan {
        if let Some(what) = limits::loosened(&old.plan, &run.plan, progress(old)) {
            found.push(format!("run {id}: the plan of a run only gets tighter, but {what}"));
        }
        if old.plan.digest == run.plan.digest {
            found.push(format!("run {id}: the plan changed and its digest did not"));
        }
    }
    if run.absent_seconds < old.absent_seconds || run.absent_seconds > FORGIVEN_SECONDS {
        found.push(format!("run {id}: {} s of absence are given back", run.absent_seconds));
    }
    if old.canary.digest != run.canary.digest || old.stable.digest != run.stable.digest {
        found.push(format!("run {id}: its revisions changed"));
    }
    match (&old.going_back, &run.going_back) {
        (Some(_), None) => found.push(format!("run {id}: an abort was taken back")),
        (Some(old), Some(new)) if old.reason != new.reason || old.since != new.since => {
            found.push(format!("run {id}: the reason of an abort changed"));
        }
        _ => {}
    }
    if run.max_weight_percent < old.max_weight_percent {
        found.push(format!("run {id}: the largest weight shrank"));
    }
    if old.released && !run.released {
        found.push(format!("run {id}: a release was forgotten"));
    }
    if run.released && !old.released && old.stage != Stage::Promoting {
        found.push(format!("run {id}: released in stage {:?}", old.stage));
    }
    if run.kind == RunKind::Observe {
        return;
    }
    if run.max_weight_percent > old.max_weight_percent
        && let (Some(workload), Some(stable)) =
            (input.seen.workload(), input.seen.replica_set(&run.stable.replica_set))
        && stable.available < workload.replicas
    {
        let (ready, size) = (stable.available, workload.replicas);
        found.push(format!("run {id}: a weight rises while stable has {ready} of {size} pods"));
    }
    let last = i32::try_from(run.plan.steps.len()).unwrap_or(i32::MAX) - 1;
    let passed = if run.stage == Stage::Promoting && old.stage != Stage::Promoting {
        if old.stage != Stage::Stepping || old.step != last {
            found.push(format!("run {id}: promotion from stage {:?}, step {}", old.stage, old.step));
        }
        true
    } else {
        if run.step != old.step && run.step != old.step + 1 {
            found.push(format!("run {id}: from step {} to {}", old.step, run.step));
        }
        run.step > old.step
    };
    if passed && run.kind == RunKind::Canary {
        let verdict = input.verdict;
        let bake =
            usize::try_from(old.step).ok().and_then(|i| run.plan.steps.get(i)).map_or(0, |s| s.bake_seconds);
        let open = verdict.is_about(id, Stage::Stepping, old.step)
            && verdict.plan == run.plan.digest
            && verdict.gate_open
            && verdict.no_data.is_none()
            && verdict.abort.is_none()
            && verdict.healthy_seconds >= f64::from(bake);
        if !open {
            found.push(format!("run {id}: step {} was passed without positive evidence", old.step));
        }
    }
}

/// One decision with what it was decided on.
struct Scene<'a> {
    input: &'a Input<'a>,
    before: &'a ProgressiveRolloutStatus,
    after: &'a ProgressiveRolloutStatus,
}

impl Scene<'_> {
    fn seen(&self) -> &Observed {
        self.input.seen
    }

    /// The run that the actions belong to: the one that goes on, or the one that ended in this pass.
    fn run(&self) -> Option<&Run> {
        self.after.run.as_ref().or(self.before.run.as_ref())
    }

    /// Whether a person freed the Deployment by break-glass.
    fn freed(&self) -> bool {
        self.seen().workload().is_some_and(|workload| {
            !workload.managed
                && workload.break_glass.is_some()
                && workload.break_glass != self.before.break_glass
        })
    }

    /// Whether the Deployment is the one that was enrolled.
    fn same_workload(&self) -> bool {
        let uid = self.seen().workload().map(|workload| &workload.uid);
        uid.is_some() && uid == self.before.workload_uid.as_ref()
    }

    /// Whether it was freed, or is another one of the same name: the native controller alone decides what it runs.
    fn native(&self) -> bool {
        let other = |uid: &String| self.seen().workload().is_some_and(|workload| workload.uid != *uid);
        self.freed() || self.before.workload_uid.as_ref().is_some_and(other)
    }

    fn going_back(&self) -> bool {
        self.run().is_some_and(|run| run.going_back.is_some())
    }

    fn action(&self, action: &Action, found: &mut Vec<String>) {
        if self.going_back() && action.lane == Lane::Forward {
            found.push(format!("{} goes forward while the run goes back", action.name));
        }
        match (&action.write, action.kind) {
            (Write::Weights(weights), _) => self.weights(action, weights, found),
            (Write::Patch(ops), Kind::Service) => self.service(&action.object, ops, found),
            (Write::Patch(ops), Kind::ReplicaSet) => self.replica_set(action, ops, found),
            (Write::Patch(ops), Kind::Deployment) => self.deployment(action, ops, found),
            (Write::Patch(_), Kind::ProgressiveRollout) => self.rollout(action, found),
            (Write::Delete { uid }, Kind::ReplicaSet) => self.delete(&action.object, uid, found),
            (Write::Delete { .. }, kind) => found.push(format!("deletes {kind:?} {}", action.object)),
            (Write::Create(body), Kind::Service) => self.made(&action.object, body, found),
            (Write::Create(_), _) | (Write::Patch(_), Kind::HTTPRoute) => {}
        }
    }

    fn weights(&self, action: &Action, weights: &SetWeights, found: &mut Vec<String>) {
        let percent = weights.canary_percent;
        let Some(run) = self.run() else {
            if percent != 0 {
                found.push(format!("weight {percent} without a run"));
            }
            return;
        };
        let plan = &run.plan;
        if !plan.routes.iter().any(|route| route.name == action.object) {
            found.push(format!("HTTPRoute {} is not in the plan", action.object));
        }
        if (&weights.stable_service, &weights.canary_service) != (&plan.stable_service, &plan.canary_service)
        {
            found.push("weights for Services that are not in the plan".to_owned());
        }
        let leads_away = self.pinned(&plan.stable_service).as_deref() == Some(run.canary.hash.as_str());
        if self.native() {
            if percent != 0 {
                found.push(format!("weight {percent} for a Deployment that was freed or replaced"));
            }
            return;
        }
        if run.going_back.is_some() {
            // Home is the stable Service, or the canary Service while the stable one leads to the new pods.
            if leads_away != (percent == 100) && !self.stable_is_gone() {
                found.push(format!("weight {percent} does not lead back to stable"));
            }
            return;
        }
        if action.lane == Lane::Abort {
            if percent != 0 || leads_away {
                found.push(format!("weight {percent} in the abort lane of a run that goes forward"));
            }
            return;
        }
        let step = usize::try_from(run.step).ok().and_then(|index| plan.steps.get(index));
        match run.stage {
            Stage::Stepping if percent > 0 => {
                let asked = self.before.run.as_ref().and_then(|run| run.weight).map(|weight| weight.percent);
                // A lower one stays in force until stable has all its pods, or is asked for when the canary lacks some.
                let lower = asked.is_some_and(|asked| percent <= asked)
                    && step.is_some_and(|step| percent < step.weight_percent);
                if !lower && step.is_none_or(|step| step.weight_percent != percent) {
                    found.push(format!("weight {percent} is not that of step {}", run.step));
                }
                if self.seen().ready_behind(&plan.canary_service, &run.canary.replica_set) == 0 {
                    found.push(format!("weight {percent} without a ready canary pod"));
                }
                let size = self.seen().workload().map_or(0, |workload| workload.replicas);
                let carried =
                    100 * i64::from(self.seen().ready_behind(&plan.canary_service, &run.canary.replica_set));
                if asked.is_none_or(|asked| percent > asked) && carried < i64::from(size) * i64::from(percent)
                {
                    found.push(format!(
                        "weight rises to {percent} %, for {} pods of {size} are ready",
                        carried / 100
                    ));
                }
            }
            Stage::Promoting if percent == 100 && run.released && !leads_away => {}
            Stage::Watching | Stage::Finishing if percent == 0 => {}
            Stage::Promoting if percent == 0 => {
                if !run.released || !leads_away {
                    found.push(
                        "the weight goes home before the stable Service leads to the new revision".to_owned(),
                    );
                }
                let wanted = self.seen().workload().map_or(1, |workload| workload.replicas);
                if wanted > 0 && self.seen().ready_behind(&plan.stable_service, &run.canary.replica_set) == 0
                {
                    found.push("the weight goes to a stable Service without ready pods".to_owned());
                }
            }
            stage => found.push(format!("weight {percent} in stage {stage:?}")),
        }
    }

    fn pinned(&self, service: &str) -> Option<String> {
        self.seen().service(service).and_then(|service| service.pinned().map(ToOwned::to_owned))
    }

    /// Whether any route sends requests to this Service of the pair.
    fn has_weight(&self, service: &str) -> bool {
        let Some(run) = self.run() else {
            return false;
        };
        let plan = &run.plan;
        plan.routes.iter().any(|named| {
            let pairs = self
                .seen()
                .route(&named.name)
                .and_then(|route| route.pairs(&plan.stable_service, &plan.canary_service, &named.rules).ok());
            pairs.into_iter().flatten().any(|pair| {
                let weight = if service == plan.canary_service { pair.canary } else { pair.stable };
                weight > 0
            })
        })
    }

    /// Whether the run's stable revision lost its ReplicaSet, so that there is nothing to go back to.
    fn stable_is_gone(&self) -> bool {
        self.run().is_some_and(|run| self.seen().replica_set(&run.stable.replica_set).is_none())
    }

    /// A Service that is made again in a run leads somewhere, if it carries stable's share.
    fn made(&self, name: &str, body: &Value, found: &mut Vec<String>) {
        let Some(run) = self.after.run.as_ref().filter(|run| run.plan.stable_service == name) else {
            return;
        };
        let hash = body.pointer("/spec/selector").and_then(|s| s.get(LABEL_HASH)).and_then(Value::as_str);
        let known = [run.stable.hash.as_str(), run.canary.hash.as_str()];
        if hash.is_some_and(|hash| !known.contains(&hash)) {
            found.push(format!("Service {name} is made for pods that are neither stable's nor the canary's"));
        }
    }

    /// A selector changes under traffic only where it goes on selecting the same pods.
    fn service(&self, name: &str, ops: &[PatchOp], found: &mut Vec<String>) {
        let Some(selector) = added(ops, "/spec/selector") else {
            return;
        };
        let new = selector.get(LABEL_HASH).and_then(Value::as_str);
        let old = self.pinned(name);
        if new == old.as_deref() || !self.has_weight(name) {
            return;
        }
        match (old.as_deref(), new) {
            (_, Some(NOTHING)) => found.push(format!("Service {name} is emptied under traffic")),
            // Both revisions are ready at full size: whichever a caller meets, it is answered.
            (Some(_), Some(new)) if self.promoted_at_full_size(new) => {}
            (Some(old), Some(new)) => {
                found.push(format!("Service {name} moves from {old} to {new} under traffic"));
            }
            (None, Some(new)) => {
                if self.run().is_some_and(|run| run.stable.hash != new) {
                    found.push(format!("Service {name} is pinned to {new} under traffic, stable is another"));
                }
            }
            // A Deployment that somebody freed or replaced rolls by itself: a pin would lead to pods that go.
            (Some(_), None) if self.freed() || !self.same_workload() => {}
            // Nothing is behind the pin any more, and nothing can be put there.
            (Some(_), None) if self.stable_is_gone() => {}
            (Some(old), None) => {
                let others = |set: &&ReplicaSet| set.hash != old && set.replicas > 0;
                if let Some(other) = self.seen().replica_sets().find(others) {
                    found.push(format!("Service {name} is un-pinned while {} has pods too", other.name));
                }
            }
            (None, None) => {}
        }
    }

    fn promoted_at_full_size(&self, hash: &str) -> bool {
        let Some(run) =
            self.run().filter(|run| run.released && run.going_back.is_none() && run.canary.hash == hash)
        else {
            return false;
        };
        let size = self.seen().workload().map_or(i32::MAX, |workload| workload.replicas);
        self.seen().replica_set(&run.canary.replica_set).is_some_and(|set| set.available >= size)
    }

    fn replica_set(&self, action: &Action, ops: &[PatchOp], found: &mut Vec<String>) {
        let Some(set) = self.seen().replica_set(&action.object) else {
            found.push(format!("{} of ReplicaSet {} that was not seen", action.name, action.object));
            return;
        };
        let workload = self.seen().workload();
        if let Some(replicas) = added(ops, "/spec/replicas").and_then(Value::as_i64) {
            if workload.is_some_and(|workload| set.visible_to(workload)) {
                found.push(format!("{} scales {}, which is the Deployment's own", action.name, set.name));
            }
            // A workload that is at zero has no pods of its own; the warm revision follows it, nothing else does.
            let follows = action.name == "scale-warm" && workload.is_some_and(|w| w.replicas == 0);
            if replicas == 0 && !follows && self.serves(set) {
                found.push(format!("{} is scaled to 0 under traffic", set.name));
            }
        }
        if let (Some(labels), Some(workload)) = (added(ops, "/metadata/labels"), workload) {
            self.handed_over(set, labels, workload, found);
        }
    }

    /// Whether a Service of the pair with weight leads to this ReplicaSet.
    fn serves(&self, set: &ReplicaSet) -> bool {
        let Some(run) = self.run() else {
            return false;
        };
        [&run.plan.stable_service, &run.plan.canary_service].into_iter().any(|service| {
            self.pinned(service).as_deref() == Some(set.hash.as_str()) && self.has_weight(service)
        })
    }

    /// ReplicaSets with pods change hands only while the Deployment is paused, and it sees one at a time.
    fn handed_over(&self, set: &ReplicaSet, labels: &Value, workload: &Workload, found: &mut Vec<String>) {
        let visible = labels.as_object().is_some_and(|labels| workload.selects(labels));
        if !self.same_workload() {
            return;
        }
        let meta = &self.input.rollout.metadata;
        let let_go = self.freed() || self.input.releasing || meta.deletion_timestamp.is_some();
        if visible && let_go && self.before.run.is_none() {
            // From here on the native controller rolls as it always does.
            return;
        }
        if set.replicas > 0 && !workload.paused {
            found.push(format!("{} changes hands while the Deployment is not paused", set.name));
        }
        if !visible || set.replicas == 0 {
            return;
        }
        let other = self
            .seen()
            .replica_sets()
            .find(|other| other.name != set.name && other.visible_to(workload) && other.replicas > 0);
        if let Some(other) = other {
            found.push(format!("{} is given to the Deployment while it has {}", set.name, other.name));
        }
    }

    fn deployment(&self, action: &Action, ops: &[PatchOp], found: &mut Vec<String>) {
        let Some(workload) = self.seen().workload() else {
            found.push(format!("{} of a Deployment that was not seen", action.name));
            return;
        };
        match action.name {
            "enrol" => {
                let finalizers = self.input.rollout.metadata.finalizers.as_deref().unwrap_or_default();
                if !finalizers.iter().any(|name| name == FINALIZER) {
                    found.push("enrols without a finalizer".to_owned());
                }
            }
            "release" if added(ops, "/spec/paused") == Some(&Value::Bool(false)) => {
                self.release(workload, found)
            }
            _ => {}
        }
    }

    /// Only a template whose pods already serve may go live.
    fn release(&self, workload: &Workload, found: &mut Vec<String>) {
        let promoted = self.run().is_some_and(|run| run.released && run.canary.digest == workload.digest);
        let stable = self.after.stable.as_ref().or(self.before.stable.as_ref());
        if !promoted && stable.is_none_or(|stable| stable.digest != workload.digest) {
            found.push("releases a template that was neither promoted nor stable".to_owned());
        }
        let visible: Vec<&ReplicaSet> =
            self.seen().replica_sets().filter(|set| set.visible_to(workload)).collect();
        if !promoted && !self.seen().replica_sets().any(|set| set.digest == workload.digest) {
            // Stable's ReplicaSet was deleted from outside: the native controller makes it again, and rolls to it.
            return;
        }
        if let Some(other) = visible.iter().find(|set| set.replicas > 0 && set.digest != workload.digest) {
            found.push(format!("releases while the Deployment has {} with other pods", other.name));
        }
        if !visible.iter().any(|set| set.digest == workload.digest) {
            found.push("releases a template that the Deployment has no ReplicaSet for".to_owned());
        }
    }

    fn rollout(&self, action: &Action, found: &mut Vec<String>) {
        if action.name != "remove-finalizer" {
            return;
        }
        if self.after.run.is_some() {
            found.push("lets the rollout go during a run".to_owned());
        }
        if self.seen().workload().is_some_and(|workload| workload.managed || workload.held.is_some()) {
            found.push("lets the rollout go while the Deployment carries our marks".to_owned());
        }
    }

    fn delete(&self, name: &str, uid: &str, found: &mut Vec<String>) {
        let Some(set) = self.seen().replica_set(name).filter(|set| set.uid == uid) else {
            found.push(format!("deletes ReplicaSet {name}, which was not seen"));
            return;
        };
        let workload_is_there = self.seen().workload().is_some();
        if workload_is_there && (set.replicas > 0 || set.status_replicas > 0) {
            found.push(format!("deletes {name} with pods"));
        }
        let stable = self.run().map(|run| &run.stable).or(self.after.stable.as_ref());
        if workload_is_there && stable.is_some_and(|stable| stable.replica_set == name) {
            found.push(format!("deletes {name}, which is stable"));
        }
    }

    /// What actions may not do together.
    fn together(&self, actions: &[Action], found: &mut Vec<String>) {
        let weights: Vec<i32> = actions
            .iter()
            .filter_map(|action| match &action.write {
                Write::Weights(weights) => Some(weights.canary_percent),
                Write::Create(_) | Write::Patch(_) | Write::Delete { .. } => None,
            })
            .collect();
        if weights.windows(2).any(|pair| pair[0] != pair[1]) {
            found.push(format!("two weights in one pass: {weights:?}"));
        }
        let handed = actions.iter().filter(|action| {
            action.kind == Kind::ReplicaSet
                && self.seen().replica_set(&action.object).is_some_and(|set| set.replicas > 0)
                && matches!(&action.write, Write::Patch(ops) if added(ops, "/metadata/labels").is_some())
        });
        if handed.count() > 1 {
            found.push("two ReplicaSets with pods change hands in one pass".to_owned());
        }
    }
}

/// The value that a patch puts at a path.
fn added<'a>(ops: &'a [PatchOp], at: &str) -> Option<&'a Value> {
    ops.iter().find_map(|op| match op {
        PatchOp::Add { path, value } if path == at => Some(value),
        PatchOp::Add { .. } | PatchOp::Test { .. } | PatchOp::Remove { .. } => None,
    })
}
