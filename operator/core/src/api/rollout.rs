//! `ProgressiveRollout`: one per workload, what a platform engineer writes.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Change, DeclaredRisk, Guard, ProgressiveRolloutStatus, ProviderConfig};

/// Desired behaviour of one workload's releases.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "sluice.dev",
    version = "v1alpha1",
    kind = "ProgressiveRollout",
    plural = "progressiverollouts",
    shortname = "prollout",
    category = "sluice",
    namespaced,
    status = "ProgressiveRolloutStatus",
    derive = "PartialEq",
    validation = Rule::new("size(self.metadata.name) <= 63").message("metadata.name is longer than 63 characters: write at most 63, since the Services and ReplicaSets of the rollout carry it as a label"),
    doc = "ProgressiveRollout guards the releases of one workload: a new pod template is held, exposed step by step to real traffic, judged by metrics and alerts, and promoted, or taken back by itself.",
    printcolumn = r#"{"name":"Phase","type":"string","jsonPath":".status.phase","description":"Where the rollout stands"}"#,
    printcolumn = r#"{"name":"Step","type":"string","jsonPath":".status.summary.step","description":"Step of the run and number of steps"}"#,
    printcolumn = r#"{"name":"Weight","type":"string","jsonPath":".status.summary.weight","description":"Percent of traffic asked for the canary"}"#,
    printcolumn = r#"{"name":"Class","type":"string","jsonPath":".status.summary.riskClass","description":"Risk class of the change"}"#,
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type=='Ready')].status","description":"Whether the workload runs its newest template"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp","description":"Age of the object"}"#,
    printcolumn = r#"{"name":"Commit","type":"string","jsonPath":".status.summary.commit","description":"Source commit of the change","priority":1}"#,
    printcolumn = r#"{"name":"Provenance","type":"string","jsonPath":".status.summary.provenance","description":"Who wrote the change","priority":1}"#,
    printcolumn = r#"{"name":"Observed","type":"string","jsonPath":".status.summary.observed","description":"Share of requests that met the canary","priority":1}"#,
    printcolumn = r#"{"name":"Since","type":"date","jsonPath":".status.phaseSince","description":"When the phase began","priority":1}"#,
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.summary.reason","description":"What it waits for","priority":1}"#
)]
#[serde(rename_all = "camelCase")]
pub struct ProgressiveRolloutSpec {
    /// The workload whose releases are guarded, in the same namespace. Immutable. When several rollouts name one
    /// workload, the oldest guards it and the others are Stalled with reason WorkloadClaimed.
    #[x_kube(validation = Rule::new("self == oldSelf").message("workloadRef is immutable: delete this ProgressiveRollout and create one for the other workload"))]
    pub workload_ref: WorkloadRef,
    /// What the change that is being shipped declares about itself. A template that it does not describe has
    /// provenance Unknown. It counts when a run starts. During a run it can only
    /// tighten the plan: a riskier provenance applies at once, a milder one to the next run.
    #[serde(default)]
    pub change: Change,
    /// What the owner of the workload says of its risk besides. It can only raise what the policies say.
    #[serde(default)]
    pub declared_risk: DeclaredRisk,
    /// Where the change stands when there is no room for it to start: Urgent before all that are Normal. It changes no limit.
    /// Default Normal.
    #[serde(default)]
    pub priority: Priority,
    /// How traffic is divided between stable and canary. A run under way keeps what it started with.
    pub routing: Routing,
    /// Metrics and alerts that can stop a rollout, at most 16, merged by name. When there are any, they replace the
    /// default guards of the installation; one of them must be an errorRatio with action Abort. Default: those of
    /// the installation, and if it has none, the error ratio of the pods' own metrics.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(validation = Rule::new("self.all(g, (has(g.errorRatio) ? 1 : 0) + (has(g.latency) ? 1 : 0) + (has(g.restarts) ? 1 : 0) + (has(g.alert) ? 1 : 0) + (has(g.metric) ? 1 : 0) == 1)").message("each guard has exactly one of errorRatio, latency, restarts, alert and metric"))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".to_string()]))]
    pub guards: Vec<Guard>,
    /// Limits of this rollout. But for abortNeedsTwoPods they can only tighten what the risk class and the policies allow: of
    /// two limits the tighter one wins, and condition LimitsClamped names one that is not used. Tightened during a run they
    /// count at once, loosened from the next run on.
    #[serde(default)]
    pub limits: Limits,
    /// Enforce: hold, expose, judge and act. Observe: plan and judge the native roll, hold nothing, and say in
    /// events what would have happened. Default Enforce.
    #[serde(default)]
    pub mode: Mode,
    /// Stops what moves forward while true: nothing new starts, no weight rises. Aborts, and returns to stable or to an earlier
    /// good revision, still happen. A run that is suspended for 72 hours returns to stable. Default false.
    #[serde(default)]
    pub suspend: bool,
    /// How long the old revision stays warm after promotion, ready to take everything back without a restart, in
    /// seconds, 0 to 3600. Default: the last bake of the class or of the plan, whichever is longer, at most 3600.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 3600))]
    pub watch_seconds: Option<i32>,
    /// Prometheus of this rollout; its keys are those of the Secret `sluice-providers` in this namespace. It
    /// replaces the one of the installation as a whole. Default: the one of the installation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prometheus: Option<ProviderConfig>,
    /// Alertmanager of this rollout; its keys are those of the Secret `sluice-providers` in this namespace. It
    /// replaces the one of the installation as a whole. Default: the one of the installation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alertmanager: Option<ProviderConfig>,
}

/// Reference to a workload in the same namespace.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadRef {
    /// API version of the workload. Only `apps/v1` is supported. Default `apps/v1`.
    #[serde(default = "apps_v1")]
    #[x_kube(validation = Rule::new("self == 'apps/v1'").message("only apps/v1 is supported"))]
    #[schemars(length(max = 63))]
    pub api_version: String,
    /// Kind of the workload. Only `Deployment` is supported. Default `Deployment`.
    #[serde(default = "deployment")]
    #[x_kube(validation = Rule::new("self == 'Deployment'").message("only Deployment is supported"))]
    #[schemars(length(max = 63))]
    pub kind: String,
    /// Name of the workload, at most 253 characters. Its strategy must be RollingUpdate, since two revisions run side
    /// by side.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

fn apps_v1() -> String {
    "apps/v1".into()
}

fn deployment() -> String {
    "Deployment".into()
}

/// How the routes name the two revisions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Wiring {
    /// The routes name `<service>-stable` with weight 100 and `<service>-canary` with weight 0.
    #[default]
    Pair,
}

/// Whether anything calls the Service past the routes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ApexCallers {
    /// Callers inside the cluster use the Service directly; they meet the canary in proportion to its pods.
    #[default]
    Some,
    /// All requests come through the routes.
    None,
}

/// How traffic is divided between stable and canary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Routing {
    /// Name of the Service of the workload (the apex Service), at most 56 characters; it must select the workload's
    /// pods. The controller makes the Services `<service>-stable` and `<service>-canary` from it.
    #[schemars(length(min = 1, max = 56))]
    pub service: String,
    /// The routes that carry the workload's requests, 1 to 8.
    #[schemars(length(min = 1, max = 8))]
    pub routes: Vec<RouteRef>,
    /// How the routes name the two revisions. Pair: each names `<service>-stable` with weight 100 and
    /// `<service>-canary` with weight 0 at rest. Only Pair is supported. Default Pair.
    #[serde(default)]
    pub wiring: Wiring,
    /// Whether anything calls the apex Service past the routes. Some: callers inside the cluster do, and meet the
    /// canary in proportion to its pods, so that the exposure shown is the larger of the weight and that share.
    /// None: all requests come through the routes. Default Some.
    #[serde(default)]
    pub apex_callers: ApexCallers,
    /// How long a weight needs to reach every proxy after the gateway accepted the route, in seconds, 1 to 300. The
    /// analysis of a step begins after it. Default 5.
    #[serde(default = "settle_seconds")]
    #[schemars(range(min = 1, max = 300))]
    pub settle_seconds: i32,
    /// How long requests in flight may take after the weight is 0, in seconds, 1 to 3600. Canary pods go when no
    /// request reached them for a whole scrape, or after this time. Default 30.
    #[serde(default = "drain_seconds")]
    #[schemars(range(min = 1, max = 3600))]
    pub drain_seconds: i32,
}

fn settle_seconds() -> i32 {
    5
}

fn drain_seconds() -> i32 {
    30
}

/// A Gateway API route in the same namespace.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteRef {
    /// Kind of the route. Only `HTTPRoute` of `gateway.networking.k8s.io/v1` is supported. Default `HTTPRoute`.
    #[serde(default = "http_route")]
    #[x_kube(validation = Rule::new("self == 'HTTPRoute'").message("only HTTPRoute is supported"))]
    #[schemars(length(max = 63))]
    pub kind: String,
    /// Name of the route, at most 253 characters.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Indexes of the rules that carry the pair, counted from 0, at most 16. Other rules are not touched. Default:
    /// every rule that names the pair.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(range(min = 0, max = 63)))]
    pub rules: Vec<i32>,
}

fn http_route() -> String {
    "HTTPRoute".into()
}

/// Limits that this rollout adds to those of its risk class. The tighter one always wins.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// Own steps, at most 16, with weights that rise to 100. They are joined with the steps of the class: before a
    /// weight is reached, at least as much healthy time has passed as either asks for. Default: the steps of the
    /// class.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(validation = Rule::new("size(self) == 0 || self[size(self) - 1].weightPercent == 100").message("the last step must have weightPercent 100"))]
    pub steps: Vec<StepSpec>,
    /// Wait for a person's `resume` before the weight rises to this percentage or more, 1 to 100. A run that nobody
    /// resumes for 72 hours returns to stable. Default: never wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub pause_before_percent: Option<i32>,
    /// Largest weight of the first step, in percent, 1 to 100. A larger first step gets one with this weight before
    /// it. Default: the first weight of the class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub max_first_step_percent: Option<i32>,
    /// Shortest bake of every step, in seconds, 0 to 604800. The longer of this and the step's own counts. Default:
    /// the bakes of the class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 604_800))]
    pub min_bake_seconds: Option<i32>,
    /// With three or more canary pods one pod's failures alone do not stop the rollout: the canary goes back when what
    /// the other pods show says so too. This one gives where the others tighten: a fault takes longer to find, the more the
    /// fewer pods there are. It needs guards that tell pods apart, and counts below weight 100. Switched off during a run it
    /// counts at once, switched on from the next run on. Default false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub abort_needs_two_pods: bool,
}

/// One step of a schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StepSpec {
    /// Percent of the traffic that the canary gets in this step, 1 to 100.
    #[schemars(range(min = 1, max = 100))]
    pub weight_percent: i32,
    /// Healthy observation time at this weight before the next, in seconds, 0 to 604800. Time without fresh data
    /// does not count.
    #[schemars(range(min = 0, max = 604_800))]
    pub bake_seconds: i32,
}

/// Where a change stands in the queue. Ordered: what comes first is less.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Priority {
    /// Before those that are Normal.
    Urgent,
    /// In the order of holding.
    #[default]
    Normal,
}

/// Whether the controller acts or only watches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Mode {
    /// Hold, expose, judge and act.
    #[default]
    Enforce,
    /// Plan and judge the native roll, hold nothing, write nothing but status and events.
    Observe,
}
