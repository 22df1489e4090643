//! Actions as writes: bodies and JSON Patches with their `test` operations, and nothing else.

use serde_json::{Map, Value, json};

use crate::action::{Action, Kind, Lane, PatchOp, SetWeights, Write};
use crate::api::{
    ANNOTATION_HELD, ANNOTATION_TRAFFIC, FINALIZER, LABEL_HASH, LABEL_MANAGED, LABEL_ROLE, LABEL_ROLLOUT,
    Outcome,
};
use crate::digest;
use crate::view::{HeldMark, ReplicaSet, Route, RouteProblem, Service, Workload, token};

/// Selector value of a Service that must select nothing.
pub const NOTHING: &str = "none";
/// Longest ReplicaSet name whose pods still carry it whole.
const REPLICA_SET_NAME_LIMIT: usize = 57;

fn add(path: impl Into<String>, value: Value) -> PatchOp {
    PatchOp::Add { path: path.into(), value }
}

fn test(path: impl Into<String>, value: impl Into<Value>) -> PatchOp {
    PatchOp::Test { path: path.into(), value: value.into() }
}

fn remove(path: impl Into<String>) -> PatchOp {
    PatchOp::Remove { path: path.into() }
}

fn patch(lane: Lane, name: &'static str, kind: Kind, object: &str, ops: Vec<PatchOp>) -> Action {
    Action { lane, name, kind, object: object.to_owned(), write: Write::Patch(ops) }
}

// --- routes -------------------------------------------------------------------------------------------

/// Weights of the pair on one route.
pub fn set_weights(lane: Lane, route: &str, weights: SetWeights) -> Action {
    Action {
        lane,
        name: "set-weights",
        kind: Kind::HTTPRoute,
        object: route.to_owned(),
        write: Write::Weights(weights),
    }
}

/// Word of the traffic annotation once a run goes back.
pub const ABORTED: &str = "aborted";

/// What a traffic annotation says of a run that goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AbortMark<'a> {
    /// The run.
    pub run: &'a str,
    /// The outcome that it will have.
    pub outcome: Outcome,
    /// Why.
    pub reason: &'a str,
}

impl<'a> AbortMark<'a> {
    /// Reads `<run> <percent> aborted <outcome> <reason>`.
    pub fn read(mark: &'a str) -> Option<Self> {
        let mut words = mark.split(' ');
        let (run, _, aborted) = (words.next()?, words.next()?, words.next()?);
        let (outcome, reason) = (words.next().unwrap_or_default(), words.next().unwrap_or("Aborted"));
        // A mark that can't be read in full still sends the run back; unknown is risky.
        let outcome =
            Outcome::ALL.into_iter().find(|known| known.as_str() == outcome).unwrap_or(Outcome::Rejected);
        (aborted == ABORTED).then_some(Self { run, outcome, reason })
    }
}

/// The JSON Patch for these weights on a route as it is now; empty when nothing differs.
///
/// A write that goes forward is refused once the run goes back, and it holds only for the route that was read: it
/// may have been sent by a process that no longer leads. A write that goes back always wins.
pub fn weights(object: &Value, wanted: &SetWeights) -> Result<Vec<PatchOp>, RouteProblem> {
    let route = Route::read(object);
    let pairs = route.pairs(&wanted.stable_service, &wanted.canary_service, &wanted.rules)?;
    let returns = AbortMark::read(&wanted.mark).is_some();
    let aborted = route.traffic.as_deref().and_then(AbortMark::read).map(|mark| mark.run);
    if let Some(run) = aborted.filter(|run| !returns && wanted.mark.split(' ').next() == Some(run)) {
        return Err(RouteProblem::Aborted { route: route.name.clone(), run: run.to_owned() });
    }
    let (stable, canary) = (100 - wanted.canary_percent, wanted.canary_percent);
    let mut ops = Vec::new();
    for pair in pairs {
        if pair.stable == stable && pair.canary == canary {
            continue;
        }
        let refs = format!("/spec/rules/{}/backendRefs", pair.rule);
        for (index, service, weight) in [
            (pair.stable_ref, &wanted.stable_service, stable),
            (pair.canary_ref, &wanted.canary_service, canary),
        ] {
            ops.push(test(format!("{refs}/{index}/name"), service.as_str()));
            ops.push(add(format!("{refs}/{index}/weight"), json!(weight)));
        }
    }
    if ops.is_empty() && route.traffic.as_deref() == Some(wanted.mark.as_str()) {
        return Ok(ops);
    }
    if !returns && let Some(version) = object.pointer("/metadata/resourceVersion").and_then(Value::as_str) {
        ops.insert(0, test("/metadata/resourceVersion", version));
    }
    if object.pointer("/metadata/annotations").is_some_and(Value::is_object) {
        ops.push(add(format!("/metadata/annotations/{}", token(ANNOTATION_TRAFFIC)), json!(wanted.mark)));
    } else {
        ops.push(add("/metadata/annotations", json!({ ANNOTATION_TRAFFIC: wanted.mark })));
    }
    Ok(ops)
}

/// Takes our annotation off a route.
pub fn unmark_route(route: &Route) -> Action {
    let path = format!("/metadata/annotations/{}", token(ANNOTATION_TRAFFIC));
    let value = route.traffic.clone().unwrap_or_default();
    patch(
        Lane::Tidy,
        "unmark-route",
        Kind::HTTPRoute,
        &route.name,
        vec![test(path.clone(), value), remove(path)],
    )
}

// --- services -----------------------------------------------------------------------------------------

/// One Service of the pair, with the ports of the apex Service.
pub fn create_pair_service(
    lane: Lane,
    rollout: &str,
    namespace: &str,
    name: &str,
    apex: &Service,
    selector: Map<String, Value>,
) -> Action {
    let ports = pair_ports(apex);
    let body = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {
            "name": name, "namespace": namespace,
            "labels": {LABEL_ROLLOUT: rollout, "app.kubernetes.io/managed-by": "sluice"},
        },
        "spec": {"selector": selector, "ports": ports},
    });
    Action {
        lane,
        name: "create-service",
        kind: Kind::Service,
        object: name.to_owned(),
        write: Write::Create(body),
    }
}

/// Ports of a Service without what belongs to one Service only.
pub fn pair_ports(service: &Service) -> Vec<Value> {
    let ports = service.ports.as_array().into_iter().flatten();
    ports
        .map(|port| {
            let mut port = port.clone();
            if let Some(fields) = port.as_object_mut() {
                fields.remove("nodePort");
            }
            port
        })
        .collect()
}

/// Gives a Service of the pair the ports of the apex Service.
pub fn follow_ports(service: &Service, apex: &Service) -> Action {
    let ops = vec![test("/spec/ports", service.ports.clone()), add("/spec/ports", json!(pair_ports(apex)))];
    patch(Lane::Tidy, "follow-ports", Kind::Service, &service.name, ops)
}

/// Points a Service of the pair elsewhere.
pub fn select(lane: Lane, service: &Service, selector: Map<String, Value>) -> Action {
    let ops = vec![
        test("/spec/selector", Value::Object(service.selector.clone())),
        add("/spec/selector", Value::Object(selector)),
    ];
    patch(lane, "select-service", Kind::Service, &service.name, ops)
}

/// The workload's selector plus a revision hash.
pub fn pinned(apex: &Map<String, Value>, hash: &str) -> Map<String, Value> {
    let mut selector = apex.clone();
    selector.insert(LABEL_HASH.to_owned(), json!(hash));
    selector
}

// --- deployment ---------------------------------------------------------------------------------------

/// Puts our label on the Deployment: from here its templates are held.
pub fn enrol(workload: &Workload) -> Action {
    let path = format!("/metadata/labels/{}", token(LABEL_MANAGED));
    let label = if workload.has_labels {
        add(path, json!("true"))
    } else {
        add("/metadata/labels", json!({LABEL_MANAGED: "true"}))
    };
    let ops = vec![test("/metadata/resourceVersion", workload.resource_version.as_str()), label];
    patch(Lane::Forward, "enrol", Kind::Deployment, &workload.name, ops)
}

fn mark_ops(workload: &Workload, mark: HeldMark) -> PatchOp {
    if workload.has_annotations {
        add(format!("/metadata/annotations/{}", token(ANNOTATION_HELD)), json!(mark.as_str()))
    } else {
        add("/metadata/annotations", json!({ANNOTATION_HELD: mark.as_str()}))
    }
}

/// Pauses the Deployment with this mark.
pub fn hold(lane: Lane, workload: &Workload, mark: HeldMark) -> Action {
    let ops = vec![
        test("/metadata/uid", workload.uid.as_str()),
        mark_ops(workload, mark),
        add("/spec/paused", json!(true)),
    ];
    patch(lane, "hold", Kind::Deployment, &workload.name, ops)
}

/// Takes the mark off and lets the native controller go on with the template it has.
pub fn release(lane: Lane, workload: &Workload, unpause: bool) -> Action {
    // Only the template that was judged may go live.
    let mut ops =
        vec![test("/metadata/uid", workload.uid.as_str()), test("/spec/template", workload.template.clone())];
    if workload.held.is_some() {
        ops.push(remove(format!("/metadata/annotations/{}", token(ANNOTATION_HELD))));
    }
    if unpause && workload.paused {
        ops.push(add("/spec/paused", json!(false)));
    }
    patch(lane, "release", Kind::Deployment, &workload.name, ops)
}

/// Takes label and mark off: the Deployment is ordinary again. A held template stays paused.
pub fn disenrol(workload: &Workload) -> Action {
    let mut ops = vec![test("/metadata/resourceVersion", workload.resource_version.as_str())];
    if workload.managed {
        ops.push(remove(format!("/metadata/labels/{}", token(LABEL_MANAGED))));
    }
    if workload.held.is_some() {
        ops.push(remove(format!("/metadata/annotations/{}", token(ANNOTATION_HELD))));
    }
    patch(Lane::Tidy, "disenrol", Kind::Deployment, &workload.name, ops)
}

// --- replica sets -------------------------------------------------------------------------------------

/// Role labels of the ReplicaSets that we keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The revision that is tried.
    Canary,
    /// The old revision at full size during the watched period.
    Warm,
    /// Hidden history without pods.
    History,
}

impl Role {
    /// The label's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Canary => "canary",
            Self::Warm => "warm",
            Self::History => "history",
        }
    }
}

/// Name of the ReplicaSet that we would make for a template of this workload.
pub fn replica_set_name(workload: &str, hash: &str) -> String {
    let room = REPLICA_SET_NAME_LIMIT.saturating_sub(hash.len() + 1);
    let head: String = workload.chars().take(room).collect();
    format!("{}-{hash}", head.trim_end_matches(['-', '.']))
}

fn owner(workload: &Workload, controller: bool) -> Value {
    let mut owner =
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": workload.name, "uid": workload.uid});
    if controller {
        owner["controller"] = json!(true);
        owner["blockOwnerDeletion"] = json!(true);
    }
    json!([owner])
}

/// Labels of a ReplicaSet that the native controller must not see.
fn hidden_labels(rollout: &str, role: Role) -> Value {
    json!({LABEL_ROLLOUT: rollout, LABEL_ROLE: role.as_str()})
}

/// A ReplicaSet of our own for the workload's template.
pub fn create_canary(rollout: &str, namespace: &str, workload: &Workload, replicas: i32) -> Action {
    let hash = digest::hash_label(&workload.digest);
    let name = replica_set_name(&workload.name, &hash);
    let mut template = workload.template.clone();
    if template.pointer("/metadata/labels").and_then(Value::as_object).is_none() {
        template["metadata"]["labels"] = json!({});
    }
    template["metadata"]["labels"][LABEL_HASH] = json!(hash);
    let mut selector = workload.selector.clone();
    if selector.pointer("/matchLabels").and_then(Value::as_object).is_none() {
        selector["matchLabels"] = json!({});
    }
    selector["matchLabels"][LABEL_HASH] = json!(hash);
    let body = json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet",
        "metadata": {
            "name": name, "namespace": namespace,
            "labels": hidden_labels(rollout, Role::Canary),
            "ownerReferences": owner(workload, false),
        },
        "spec": {
            "replicas": replicas,
            "minReadySeconds": workload.min_ready_seconds,
            "selector": selector,
            "template": template,
        },
    });
    Action {
        lane: Lane::Forward,
        name: "create-canary",
        kind: Kind::ReplicaSet,
        object: name,
        write: Write::Create(body),
    }
}

/// Takes a ReplicaSet out of the Deployment's sight: our labels, one owner without `controller`.
pub fn hide(lane: Lane, rollout: &str, workload: &Workload, set: &ReplicaSet, role: Role) -> Action {
    let ops = vec![
        test("/metadata/resourceVersion", set.resource_version.as_str()),
        add("/metadata/labels", hidden_labels(rollout, role)),
        add("/metadata/ownerReferences", owner(workload, false)),
    ];
    let name = match role {
        Role::Canary => "detach-canary",
        Role::Warm => "detach-stable",
        Role::History => "hide-history",
    };
    patch(lane, name, Kind::ReplicaSet, &set.name, ops)
}

/// Gives a ReplicaSet to the Deployment: the template's labels with the hash, the controlling owner.
pub fn show(lane: Lane, name: &'static str, workload: &Workload, set: &ReplicaSet) -> Action {
    let mut ops = ordinary(set);
    ops.push(add("/metadata/ownerReferences", owner(workload, true)));
    patch(lane, name, Kind::ReplicaSet, &set.name, ops)
}

/// Gives an orphaned ReplicaSet its template's labels back.
pub fn hand_back(set: &ReplicaSet) -> Action {
    patch(Lane::Tidy, "hand-back", Kind::ReplicaSet, &set.name, ordinary(set))
}

/// The labels that the native controller gives, without the size that it noted before we scaled it: a stale one would
/// keep the Deployment from ever rolling again.
fn ordinary(set: &ReplicaSet) -> Vec<PatchOp> {
    let labels = set.template.pointer("/metadata/labels").cloned().unwrap_or_else(|| json!({}));
    let mut ops = vec![
        test("/metadata/resourceVersion", set.resource_version.as_str()),
        add("/metadata/labels", labels),
    ];
    ops.extend(set.size_notes.iter().map(|note| remove(format!("/metadata/annotations/{}", token(note)))));
    ops
}

/// Scales a ReplicaSet of ours.
pub fn scale(lane: Lane, name: &'static str, set: &ReplicaSet, replicas: i32) -> Action {
    let ops = vec![
        test("/metadata/uid", set.uid.as_str()),
        test("/spec/replicas", set.replicas),
        add("/spec/replicas", json!(replicas)),
    ];
    patch(lane, name, Kind::ReplicaSet, &set.name, ops)
}

/// Deletes a ReplicaSet.
pub fn delete_replica_set(set: &ReplicaSet) -> Action {
    Action {
        lane: Lane::Tidy,
        name: "delete-replica-set",
        kind: Kind::ReplicaSet,
        object: set.name.clone(),
        write: Write::Delete { uid: set.uid.clone() },
    }
}

// --- the rollout itself -------------------------------------------------------------------------------

/// Adds our finalizer.
pub fn add_finalizer(rollout: &str, uid: &str, finalizers: &[String]) -> Action {
    let mut list = finalizers.to_vec();
    list.push(FINALIZER.to_owned());
    patch(
        Lane::Forward,
        "add-finalizer",
        Kind::ProgressiveRollout,
        rollout,
        finalizer_ops(uid, finalizers, json!(list)),
    )
}

/// Removes our finalizer.
pub fn remove_finalizer(rollout: &str, uid: &str, finalizers: &[String]) -> Action {
    let list: Vec<&String> = finalizers.iter().filter(|name| *name != FINALIZER).collect();
    let ops = finalizer_ops(uid, finalizers, json!(list));
    patch(Lane::Tidy, "remove-finalizer", Kind::ProgressiveRollout, rollout, ops)
}

/// The status of the same pass changes the version, so the list itself is tested.
fn finalizer_ops(uid: &str, before: &[String], after: Value) -> Vec<PatchOp> {
    let mut ops = vec![test("/metadata/uid", uid)];
    if !before.is_empty() {
        ops.push(test("/metadata/finalizers", json!(before)));
    }
    ops.push(add("/metadata/finalizers", after));
    ops
}
