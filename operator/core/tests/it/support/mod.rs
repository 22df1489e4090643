//! A small world for stories about one decision: objects as JSON, a clock that stands still, and words to change both.
//!
//! Nothing here carries actions out; the simulator does that.

pub mod windows;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use sluice_core::action::{Action, Lane, Write};
use sluice_core::api::{
    ConditionStatus, ConditionType, FINALIZER, Outcome, ProgressiveRollout, ProgressiveRolloutStatus,
    Provenance, Run, RunKind, Stage, WeightIntent,
};
use sluice_core::check;
use sluice_core::config::Config;
use sluice_core::decide::{Decision, Input, decide};
use sluice_core::digest;
use sluice_core::observed::{Objects, Observed, Seen};
use sluice_core::policy::Policy;
use sluice_core::queue::Turn;
use sluice_core::render;
use sluice_core::verdict::Verdict;
use sluice_core::view::Workload;

/// Name of the workload, the rollout, the apex Service and the route.
pub const WEB: &str = "web";
/// Namespace of everything.
pub const SHOP: &str = "shop";
/// Pods of the workload.
pub const PODS: i32 = 4;

/// The world, and what is declared in it.
#[derive(Clone)]
pub struct Scene {
    pub rollout: ProgressiveRollout,
    pub deployment: Option<Value>,
    pub replica_sets: Vec<Value>,
    pub services: Vec<Value>,
    pub slices: Vec<Value>,
    pub routes: Vec<Value>,
    pub pods: Vec<Value>,
    pub rivals: Vec<String>,
    /// What this pass asked for beside the workload.
    pub autoscalers: Option<Seen<Vec<Value>>>,
    pub claims: Option<Seen<Vec<Value>>>,
    /// Inputs that can't be read.
    pub unseen: Vec<Unreadable>,
    pub verdict: Verdict,
    pub config: Config,
    /// Another policy than that of the settings.
    pub policy: Option<Policy>,
    pub turn: Option<Turn>,
    pub releasing: bool,
    pub now: Timestamp,
}

/// An input that can be unreadable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreadable {
    Deployment,
    ReplicaSets,
    Services,
    EndpointSlices,
    Routes,
}

pub const INPUTS: [Unreadable; 5] = [
    Unreadable::Deployment,
    Unreadable::ReplicaSets,
    Unreadable::Services,
    Unreadable::EndpointSlices,
    Unreadable::Routes,
];

pub fn template(image: &str) -> Value {
    json!({"metadata": {"labels": {"app": WEB}}, "spec": {"containers": [{"name": "app", "image": image}]}})
}

/// A template that only a restart tells from `template(image)`.
pub fn restarted(image: &str) -> Value {
    let mut template = template(image);
    template["metadata"]["annotations"] =
        json!({"kubectl.kubernetes.io/restartedAt": "2026-01-01T00:00:00Z"});
    template
}

/// A complete Deployment.
pub fn deployment(image: &str) -> Value {
    json!({
        "metadata": {"name": WEB, "namespace": SHOP, "uid": "uid-web", "resourceVersion": "10", "generation": 1,
            "labels": {"app": WEB}, "annotations": {"team": "shop"}},
        "spec": {"replicas": PODS, "paused": false, "progressDeadlineSeconds": 600,
            "selector": {"matchLabels": {"app": WEB}}, "strategy": {"type": "RollingUpdate"},
            "template": template(image)},
        "status": {"observedGeneration": 1, "replicas": PODS, "updatedReplicas": PODS, "availableReplicas": PODS},
    })
}

/// The native controller's ReplicaSet of an image, visible to the Deployment.
pub fn replica_set(image: &str, replicas: i32) -> Value {
    let hash = digest::hash_label(&digest::template(&template(image)));
    let mut template = template(image);
    template["metadata"]["labels"]["pod-template-hash"] = json!(hash);
    json!({
        "metadata": {"name": format!("{WEB}-{hash}"), "namespace": SHOP, "uid": format!("uid-{hash}"),
            "resourceVersion": "20", "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": template["metadata"]["labels"],
            "ownerReferences": [{"kind": "Deployment", "name": WEB, "uid": "uid-web", "controller": true}]},
        "spec": {"replicas": replicas, "template": template},
        "status": {"replicas": replicas, "readyReplicas": replicas, "availableReplicas": replicas},
    })
}

pub fn service(name: &str, selector: Value) -> Value {
    let mut service = json!({
        "metadata": {"name": name, "namespace": SHOP},
        "spec": {"selector": selector, "ports": [{"port": 80, "targetPort": 8080}]},
    });
    if name != WEB {
        service["metadata"]["labels"] = json!({"sluice.dev/rollout": WEB});
    }
    service
}

/// An EndpointSlice with this many ready pods of a ReplicaSet.
pub fn endpoint_slice(service: &str, replica_set: &str, ready: i32) -> Value {
    let endpoints: Vec<Value> = (0..ready)
        .map(|n| json!({"conditions": {"ready": true}, "targetRef": {"name": format!("{replica_set}-pod{n:02}")}}))
        .collect();
    json!({"metadata": {"labels": {"kubernetes.io/service-name": service}}, "endpoints": endpoints})
}

/// An accepted HTTPRoute with the pair at this canary weight.
pub fn route(percent: i32) -> Value {
    let condition = |kind: &str| json!({"type": kind, "status": "True", "observedGeneration": 1});
    json!({
        "metadata": {"name": WEB, "namespace": SHOP, "generation": 1, "resourceVersion": "30"},
        "spec": {"rules": [{"backendRefs": [
            {"name": "web-stable", "port": 80, "weight": 100 - percent},
            {"name": "web-canary", "port": 80, "weight": percent}]}]},
        "status": {"parents": [{"controllerName": "gateway", "conditions": [condition("Accepted"), condition("ResolvedRefs")]}]},
    })
}

/// A pod that waits with this reason.
pub fn waiting_pod(reason: &str, message: &str) -> Value {
    json!({"metadata": {"name": "web-canary-pod00"},
        "status": {"containerStatuses": [{"state": {"waiting": {"reason": reason, "message": message}}}]}})
}

/// Settings with a Prometheus. A change that says nothing of its size is R1 by a person, R2 with AI, R3 by AI.
pub fn config() -> Config {
    serde_json::from_value(json!({"prometheus": {"url": "http://prometheus:9090"}, "defaultPolicy": "demo"}))
        .unwrap()
}

pub fn rollout() -> ProgressiveRollout {
    serde_json::from_value(json!({
        "apiVersion": "sluice.dev/v1alpha1", "kind": "ProgressiveRollout",
        "metadata": {"name": WEB, "namespace": SHOP, "uid": "uid-rollout", "generation": 3, "resourceVersion": "40"},
        "spec": {"workloadRef": {"name": WEB}, "routing": {"service": WEB, "routes": [{"name": WEB}]}},
    }))
    .unwrap()
}

impl Scene {
    /// A complete Deployment of `app:1`, its Services and route, and a rollout that has not been looked at.
    pub fn new() -> Self {
        let set = replica_set("app:1", PODS);
        let name = set["metadata"]["name"].as_str().unwrap().to_owned();
        Self {
            rollout: rollout(),
            deployment: Some(deployment("app:1")),
            replica_sets: vec![set],
            services: vec![
                service(WEB, json!({"app": WEB})),
                service("web-stable", json!({"app": WEB})),
                service("web-canary", json!({"app": WEB, "pod-template-hash": "none"})),
            ],
            slices: vec![endpoint_slice("web-stable", &name, PODS), endpoint_slice("web-canary", "", 0)],
            routes: vec![route(0)],
            pods: Vec::new(),
            rivals: Vec::new(),
            autoscalers: None,
            claims: None,
            unseen: Vec::new(),
            verdict: Verdict::default(),
            config: config(),
            policy: None,
            turn: None,
            releasing: false,
            now: "2026-01-01T12:00:00Z".parse().unwrap(),
        }
    }

    /// The same, enrolled and at rest.
    pub fn enrolled() -> Self {
        let mut scene = Self::new();
        scene.rollout.metadata.finalizers = Some(vec![FINALIZER.to_owned()]);
        scene.workload()["metadata"]["labels"]["sluice.dev/managed"] = json!("true");
        scene.pass();
        assert_eq!(scene.status().phase.as_str(), "Idle");
        scene
    }

    /// Enrolled, with this image applied: held by the API server.
    pub fn held(image: &str) -> Self {
        let mut scene = Self::enrolled();
        scene.apply(template(image));
        scene
    }

    /// A run of `app:2` that has begun.
    pub fn running() -> Self {
        Self::held("app:2").declared(Provenance::Human).begun()
    }

    /// A run of `app:2` in its first step, with the weight live and settled.
    pub fn exposed() -> Self {
        let mut scene = Self::running();
        let run = scene.run();
        let percent = run.plan.steps[0].weight_percent;
        scene.canary_pods(1);
        scene.pin(&run.stable.hash, &run.canary.hash);
        scene.slices[1] = endpoint_slice("web-canary", &run.canary.replica_set, 1);
        scene.pass();
        assert_eq!(scene.run().stage, Stage::Stepping);
        scene.route_shows(percent);
        let now = scene.now;
        scene.change_run(|run| {
            run.weight =
                Some(WeightIntent { percent, at: now, accepted_at: Some(now), settled_at: Some(now) });
            run.exposed_since = Some(now);
            run.max_weight_percent = percent;
        });
        scene.evidence(0.0, false);
        scene
    }

    /// Lets the pass run that starts the run.
    pub fn begun(mut self) -> Self {
        self.pass();
        assert!(self.status().run.is_some(), "{:?}", self.status());
        self
    }

    /// `spec.change` describes `app:2` with this provenance.
    pub fn declared(mut self, provenance: Provenance) -> Self {
        self.rollout.spec.change.provenance = provenance;
        self.rollout.spec.change.images = vec!["app:2".to_owned()];
        self
    }

    /// A person frees the Deployment: the policies accepted the new value together with the removal of the label.
    pub fn break_glass(&mut self, value: &str) {
        let meta = &mut self.workload()["metadata"];
        meta["annotations"]["sluice.dev/break-glass"] = json!(value);
        meta["labels"]["sluice.dev/managed"] = json!("false");
    }

    pub fn workload(&mut self) -> &mut Value {
        self.deployment.as_mut().unwrap()
    }

    /// Somebody applies a template: the policy pauses it in the same write.
    pub fn apply(&mut self, template: Value) {
        let workload = self.workload();
        let generation = workload["metadata"]["generation"].as_i64().unwrap() + 1;
        workload["metadata"]["generation"] = json!(generation);
        workload["status"]["observedGeneration"] = json!(generation);
        workload["status"]["updatedReplicas"] = json!(0);
        workload["metadata"]["annotations"]["sluice.dev/held"] = json!("held");
        workload["spec"]["paused"] = json!(true);
        workload["spec"]["template"] = template;
    }

    /// The canary's ReplicaSet exists, hidden, with this many available pods of as many wanted.
    pub fn canary_pods(&mut self, available: i32) {
        let name = self.run().canary.replica_set;
        self.replica_sets.retain(|set| set["metadata"]["name"] != json!(name));
        let mut set = replica_set("app:2", available.max(1));
        set["metadata"]["creationTimestamp"] = json!("2026-01-01T12:00:00Z");
        set["metadata"]["labels"] = json!({"sluice.dev/rollout": WEB, "sluice.dev/role": "canary"});
        set["metadata"]["ownerReferences"] = json!([{"kind": "Deployment", "name": WEB, "uid": "uid-web"}]);
        set["status"]["availableReplicas"] = json!(available);
        self.replica_sets.push(set);
        self.slices[1] = endpoint_slice("web-canary", &name, available);
    }

    pub fn pin(&mut self, stable: &str, canary: &str) {
        self.services[1] = service("web-stable", json!({"app": WEB, "pod-template-hash": stable}));
        self.services[2] = service("web-canary", json!({"app": WEB, "pod-template-hash": canary}));
    }

    pub fn route_shows(&mut self, percent: i32) {
        self.routes = vec![route(percent)];
    }

    /// What the evidence says of this step: healthy seconds, and whether the gate is open.
    pub fn evidence(&mut self, healthy_seconds: f64, gate_open: bool) {
        let run = self.run();
        self.verdict = Verdict {
            run_id: run.id.clone(),
            at: Some((run.stage, run.step)),
            plan: run.plan.digest.clone(),
            healthy_seconds,
            gate_open,
            needs: "needs 900 more canary requests".to_owned(),
            ..Verdict::default()
        };
    }

    /// A person's request.
    pub fn request(&mut self, value: &str) {
        let annotations = self.rollout.metadata.annotations.get_or_insert_default();
        annotations.insert("sluice.dev/request".to_owned(), value.to_owned());
    }

    /// Time passes, and a controller attends whatever is under way.
    pub fn later(&mut self, seconds: i64) {
        self.unattended(seconds);
        let now = self.now;
        if let Some(run) = self.rollout.status.as_mut().and_then(|status| status.run.as_mut()) {
            run.attended_at = run.attended_at.map(|_| now);
        }
    }

    /// Time passes, and no controller runs.
    pub fn unattended(&mut self, seconds: i64) {
        self.now = self.now.checked_add(SignedDuration::from_secs(seconds)).unwrap();
    }

    pub fn status(&self) -> ProgressiveRolloutStatus {
        self.rollout.status.clone().unwrap_or_default()
    }

    pub fn run(&self) -> Run {
        self.status().run.unwrap()
    }

    pub fn change_run(&mut self, change: impl FnOnce(&mut Run)) {
        change(self.rollout.status.as_mut().unwrap().run.as_mut().unwrap());
    }

    fn seen<T>(&self, input: Unreadable, value: T) -> Seen<T> {
        if self.unseen.contains(&input) { Seen::Unseen("forbidden".to_owned()) } else { Seen::Seen(value) }
    }

    /// Decides without keeping the status. Every decision obeys the laws and breaks no invariant.
    #[track_caller]
    pub fn decide(&self) -> Decision {
        let (decision, violations) = self.decide_and_check();
        assert_eq!(violations, Vec::<String>::new());
        decision
    }

    /// A pass in a world that no cluster could be in: the laws hold, the invariants need not.
    #[track_caller]
    pub fn pass_without_invariants(&mut self) -> Decision {
        let (decision, _) = self.decide_and_check();
        self.keep(&decision);
        decision
    }

    #[track_caller]
    fn decide_and_check(&self) -> (Decision, Vec<String>) {
        let seen = Observed::read(Objects {
            deployment: self.seen(Unreadable::Deployment, self.deployment.clone()),
            replica_sets: self.seen(Unreadable::ReplicaSets, self.replica_sets.clone()),
            services: self.seen(Unreadable::Services, self.services.clone()),
            endpoint_slices: self.seen(Unreadable::EndpointSlices, self.slices.clone()),
            routes: self.seen(Unreadable::Routes, self.routes.clone()),
            canary_pods: Seen::Seen(self.pods.clone()),
            rivals: self.rivals.clone(),
            autoscalers: self.autoscalers.clone(),
            claims: self.claims.clone(),
        });
        let policy = self.policy.clone().unwrap_or_else(|| Policy::of_installation(&self.config));
        let input = Input {
            rollout: &self.rollout,
            seen: &seen,
            verdict: &self.verdict,
            config: &self.config,
            policy: &policy,
            turn: self.turn,
            releasing: self.releasing,
            now: self.now,
        };
        let decision = decide(input);
        laws(&self.rollout, &decision);
        let violations = check::violations(&input, &decision);
        (decision, violations)
    }

    /// Decides and keeps the status, as a pass does.
    #[track_caller]
    pub fn pass(&mut self) -> Decision {
        let decision = self.decide();
        self.keep(&decision);
        decision
    }

    /// The status as it comes back from the API server.
    fn keep(&mut self, decision: &Decision) {
        let stored = serde_json::to_value(&decision.status).unwrap();
        self.rollout.status = Some(serde_json::from_value(stored).unwrap());
    }

    /// What the workload and its ReplicaSets look like to a decision.
    pub fn workload_view(&self) -> Workload {
        Workload::read(self.deployment.as_ref().unwrap())
    }
}

/// What holds for every status, whatever was decided (kstatus, and limits of size).
#[track_caller]
pub fn laws(rollout: &ProgressiveRollout, decision: &Decision) {
    let status = &decision.status;
    let is = |kind: ConditionType| {
        let found: Vec<_> = status.conditions.iter().filter(|c| c.kind == kind).collect();
        assert!(found.len() <= 1, "{kind:?} twice");
        found.first().map(|c| c.status)
    };
    let (ready, reconciling, stalled) =
        (is(ConditionType::Ready), is(ConditionType::Reconciling), is(ConditionType::Stalled));
    for one in [ready, reconciling, stalled] {
        assert!(one.is_some(), "Ready, Reconciling and Stalled are always there: {:?}", status.conditions);
    }
    let truly = Some(ConditionStatus::True);
    assert!(!(stalled == truly && reconciling == truly), "stalled and reconciling: {:?}", status.conditions);
    assert_eq!(ready == Some(ConditionStatus::False), stalled == truly, "Ready False iff Stalled");
    assert_eq!(ready == truly, reconciling != truly && stalled != truly, "Ready iff neither");
    let generation = rollout.metadata.generation.unwrap();
    assert_eq!(status.observed_generation, generation);
    let wire = serde_json::to_value(status).unwrap();
    for condition in wire["conditions"].as_array().unwrap() {
        assert_eq!(condition["observedGeneration"], json!(generation));
        let reason = condition["reason"].as_str().unwrap();
        assert!(!reason.is_empty() && reason.chars().all(|c| c.is_ascii_alphanumeric()), "reason {reason:?}");
        let message = condition["message"].as_str().unwrap();
        assert!(!message.is_empty() && message.len() < 4000, "message {message:?}");
    }
    if stalled == truly {
        let waiting = status.waiting.as_ref().unwrap();
        assert_eq!(waiting.deadline, None, "what stalls waits for a person");
    }
    if let Some(waiting) = &status.waiting {
        assert!(
            !waiting.reason.is_empty() && waiting.reason.chars().all(|c| c.is_ascii_alphanumeric()),
            "reason {:?}",
            waiting.reason
        );
        assert!(!waiting.message.is_empty(), "{} says nothing", waiting.reason);
    }
    // Every wait on the way forward has a deadline; the way back, and what is live already, end by going on.
    if let Some(run) = status.run.as_ref().filter(|run| {
        run.kind != RunKind::Observe
            && matches!(run.stage, Stage::Preparing | Stage::Stepping | Stage::Promoting | Stage::Watching)
    }) {
        match &status.waiting {
            Some(waiting) if run.released && waiting.reason == "CannotRead" => {}
            Some(waiting) => assert!(waiting.deadline.is_some(), "{:?} {waiting:?}", run.stage),
            None => assert!(decision.wake.as_secs() <= 1, "{:?} waits without a reason", run.stage),
        }
    }
    assert!(status.phase_since.is_some());
    assert!(wire.to_string().len() < 100_000, "a status of {} bytes", wire.to_string().len());
    for event in &decision.events {
        assert!(event.message.len() <= 2000 && !event.message.is_empty(), "{event:?}");
    }
}

/// Reason and message of the Stalled condition, if it is True.
pub fn stalled(decision: &Decision) -> Option<(String, String)> {
    let found = decision.status.conditions.iter().find(|condition| {
        condition.kind == ConditionType::Stalled && condition.status == ConditionStatus::True
    })?;
    Some((found.reason.clone(), found.message.clone()))
}

/// Actions as lines: lane, name, object and, for weights, the percent.
pub fn lines(actions: &[Action]) -> Vec<String> {
    actions
        .iter()
        .map(|action| {
            let lane = match action.lane {
                Lane::Abort => "abort",
                Lane::Forward => "forward",
                Lane::Tidy => "tidy",
            };
            let more = match &action.write {
                Write::Weights(weights) => format!(" {}%", weights.canary_percent),
                _ => String::new(),
            };
            format!("{lane} {} {}{more}", action.name, action.object)
        })
        .collect()
}

/// Names of the events of a decision.
pub fn events(decision: &Decision) -> Vec<&'static str> {
    decision.events.iter().map(|event| event.reason).collect()
}

/// A route after a write of weights, as the shell does it.
pub fn write_weights(route: &mut Value, action: &Action) {
    let Write::Weights(weights) = &action.write else {
        return;
    };
    let ops = render::weights(route, weights).unwrap();
    let patch: json_patch::Patch = serde_json::from_value(serde_json::to_value(ops).unwrap()).unwrap();
    json_patch::patch(route, &patch).unwrap();
}

/// The outcome and the reason with which a run goes back.
pub fn going_back(decision: &Decision) -> Option<(Outcome, String)> {
    let back = decision.status.run.as_ref()?.going_back.as_ref()?;
    Some((back.outcome, back.reason.clone()))
}

/// Seconds until the wait ends by itself.
pub fn left(scene: &Scene, decision: &Decision) -> i64 {
    decision.status.waiting.as_ref().unwrap().deadline.unwrap().duration_since(scene.now).as_secs()
}
