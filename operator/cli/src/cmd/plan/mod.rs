//! `plan`: what would happen to a change, before it starts. Reads the cluster and the metrics, changes nothing.
//!
//! The limits are those that the controller would freeze, the record of stable is read by the controller's own queries,
//! and the forecast is the core's. `screen` shows it.

mod document;
mod freeze;
mod offline;
mod screen;
mod subject;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::Path;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use sluice_core::api::{Plan, PlanStatus, ProgressiveRollout, ProgressiveRolloutSpec, Provenance, RiskClass};
use sluice_core::config::Config;
use sluice_core::evidence::Sample;
use sluice_core::forecast::{Forecast, forecast};
use sluice_core::judge::weighed;
use sluice_core::limits;
use sluice_core::policy::{self, Hold, Policy, Sourced};
use sluice_core::risk::ErrorBudget;
use sluice_core::view::Workload;
use sluice_providers::prometheus::Prometheus;
use sluice_providers::queries::{Arms, RatioQuery, record};

use super::{Context, now, size};
use crate::args;
use crate::budget;
use crate::cluster::Cluster;
use crate::exit::Code;
use crate::fail::Failure;
use crate::manifests::Manifests;
use crate::model::Seen;
use crate::source::{Settings, Sources, hint};
use subject::Subject;

/// Which change a plan is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    /// A run is under way: its plan is frozen.
    Run,
    /// A template is held.
    Held,
    /// None is known: the next one, as `spec.change` declares it.
    Next,
    /// No cluster is asked: the one that a manifest declares.
    Manifest,
}

/// A plan and its forecast.
#[derive(Clone, Debug)]
pub struct Planned {
    name: String,
    namespace: String,
    about: About,
    plan: Plan,
    /// Why it is so; of a run under way what its status says.
    why: PlanStatus,
    /// Its class at best, where only a cluster knows more.
    least: Option<RiskClass>,
    /// Whether anybody says who wrote it.
    declared: bool,
    commit: Option<String>,
    /// Pods of the workload.
    replicas: i32,
    forecasts: Vec<Forecast>,
    /// What holds its start now, and what will next.
    frozen: Vec<Hold>,
    /// What people should know of how this came about.
    cautions: Vec<String>,
}

/// Runs `plan`.
pub async fn run(context: &Context, args: args::Plan) -> Result<Code, Failure> {
    let manifest = args.file.as_deref().map(|file| manifest(file, args.name.as_deref())).transpose()?;
    let mut global = context.global.clone();
    if let Some(rollout) = &manifest {
        match (&global.namespace, &rollout.metadata.namespace) {
            (Some(asked), Some(written)) if asked != written => {
                return Err(Failure::usage(format!("-n {asked}: the manifest is of namespace {written}")));
            }
            (None, Some(written)) => global.namespace = Some(written.clone()),
            _ => {}
        }
    }
    if let (Some(rollout), Some(folder)) = (&manifest, &args.policy) {
        let mut rollout = rollout.clone();
        rollout.metadata.namespace.clone_from(&global.namespace);
        if global.namespace.is_none() {
            return Err(Failure::usage(
                "metadata.namespace is missing in the manifest: write it, or give -n",
            ));
        }
        let manifests = Manifests::read(folder).map_err(Failure::new)?;
        if manifests.has_no_policy() {
            return Err(Failure::new(format!(
                "{}: neither a ClusterRiskPolicy, a RiskPolicy, a ChangeFreeze nor a Namespace is in it; folders below it are not read",
                folder.display()
            )));
        }
        in_order(&manifests)?;
        let planned = offline::planned(&rollout, &manifests, args.class, now());
        return tell(context, &args, &planned);
    }
    let cluster = Cluster::connect(&global).await?;
    let named = manifest.as_ref().and_then(|rollout| rollout.metadata.name.as_deref());
    let name = cluster.resolve(named.or(args.name.as_deref())).await?;
    let mut rollout = cluster.get(&name).await?;
    let on_disk = manifest.is_some();
    if let Some(manifest) = manifest {
        rollout.spec = manifest.spec;
    }
    let seen = cluster.gather(rollout, false).await;
    let settings = Settings::read(&cluster).await;
    let policy = cluster.policy(&settings.config).await;
    let sources = Sources::new(&cluster, &seen.rollout, &settings, &args.reach);
    let left = budget::level(&policy, &seen, &sources).await;
    let mut planned = limits_of(&seen, &settings.config, &policy, left, args.class, on_disk)?;
    planned.cautions.extend(settings.caution.clone());
    let interval = settings.config.evaluation_interval_seconds.max(1);
    let prometheus = sources.prometheus().await?;
    let status = seen.status();
    let (arms, end) = match (&status.run, planned.about) {
        // Stable's record ends where the change began to be met.
        (Some(run), About::Run) => (
            Arms { canary: None, ..Arms::of(&planned.namespace, run) },
            run.exposed_since.unwrap_or_else(now),
        ),
        _ => (Arms::at_rest(&planned.namespace, stable_set(&seen)?, &planned.plan), now()),
    };
    let samples = records(&prometheus, &arms, &planned.plan, end, interval).await?;
    planned.forecasts = forecast(&planned.plan, planned.replicas, &samples, args.suppose, interval);
    tell(context, &args, &planned)
}

/// Prints a plan, and says whether it passes the gate.
fn tell(context: &Context, args: &args::Plan, planned: &Planned) -> Result<Code, Failure> {
    match context.machine() {
        Some(format) => context.document(format, &planned.name, &document::of(planned), false)?,
        None => context.print(&screen::lines(planned, size(context.terminal).0))?,
    }
    let class = planned.plan.risk_class;
    if let Some(most) = args.fail_at.filter(|most| class >= *most) {
        let may = if planned.least.is_some_and(|least| least < class) { "may be" } else { "is" };
        eprintln!("the change {may} of class {}: --fail-at {}", class.as_str(), most.as_str());
        return Ok(Code::Gate);
    }
    if args.require_declared && !planned.declared {
        eprintln!(
            "nobody says who wrote the change: --require-declared. kubectl sluice scan writes spec.change"
        );
        return Ok(Code::Gate);
    }
    Ok(Code::Fine)
}

/// The rollout of a file, as the controller would accept it; the one of this name, if it has several.
fn manifest(file: &Path, name: Option<&str>) -> Result<ProgressiveRollout, Failure> {
    let found = Manifests::read(file).map_err(Failure::new)?;
    let mut wanted =
        found.rollouts.iter().filter(|rollout| name.is_none() || rollout.metadata.name.as_deref() == name);
    let rollout = wanted.next();
    let of = name.map_or_else(String::new, |name| format!(" {name:?}"));
    match (rollout, wanted.next()) {
        (Some(rollout), None) => match limits::problems(&rollout.spec).into_iter().next() {
            Some(problem) => {
                let place = found.place("ProgressiveRollout", &rollout.metadata);
                Err(Failure::new(format!("{place}: {problem}")))
            }
            None => Ok(rollout.clone()),
        },
        (Some(_), Some(_)) => {
            Err(Failure::usage(format!("{}: several ProgressiveRollouts{of}: name one", file.display())))
        }
        (None, _) => Err(Failure::new(format!("{}: no ProgressiveRollout{of} is in it", file.display()))),
    }
}

/// Whether policies are what the controller would accept.
fn in_order(manifests: &Manifests) -> Result<(), Failure> {
    let found = |kind: &str, meta: &ObjectMeta, problem: Option<String>| match problem {
        Some(problem) => Err(Failure::new(format!("{}: {problem}", manifests.place(kind, meta)))),
        None => Ok(()),
    };
    for policy in &manifests.cluster {
        let problem = policy::cluster_problem(&policy.spec, &Config::default());
        found("ClusterRiskPolicy", &policy.metadata, problem)?;
    }
    for policy in &manifests.own {
        found("RiskPolicy", &policy.metadata, policy::own_problem(&policy.spec))?;
    }
    for freeze in &manifests.freezes {
        found("ChangeFreeze", &freeze.metadata, sluice_core::freeze::problem(&freeze.spec))?;
    }
    Ok(())
}

/// The ReplicaSet of the stable revision.
pub fn stable_set(seen: &Seen) -> Result<&str, Failure> {
    let status = seen.rollout.status.as_ref();
    let set = status.and_then(|status| status.stable.as_ref()).map(|stable| stable.replica_set.as_str());
    set.ok_or_else(|| {
        Failure::new(format!(
            "ProgressiveRollout {:?} has no stable revision yet, so nothing is known of its traffic: {}",
            seen.name(),
            seen.unseen().unwrap_or_else(|| "kubectl sluice status says what it waits for".to_owned())
        ))
    })
}

/// The Deployment of a rollout.
pub fn workload(seen: &Seen) -> Result<&Workload, Failure> {
    seen.workload.as_ref().ok_or_else(|| {
        Failure::new(format!(
            "Deployment {:?} can't be read in namespace {:?}: check spec.workloadRef.name, and that you may get deployments",
            seen.rollout.spec.workload_ref.name,
            seen.namespace()
        ))
    })
}

/// The limits of the change, without a forecast.
fn limits_of(
    seen: &Seen,
    config: &Config,
    policy: &Policy,
    left: Sourced<ErrorBudget>,
    class: Option<RiskClass>,
    on_disk: bool,
) -> Result<Planned, Failure> {
    let rollout: &ProgressiveRollout = &seen.rollout;
    let workload = workload(seen)?;
    let status = seen.status();
    let of = |about, plan, why, declared, commit, cautions| Planned {
        name: seen.name().to_owned(),
        namespace: seen.namespace().to_owned(),
        about,
        plan,
        why,
        least: None,
        declared,
        commit,
        replicas: workload.replicas,
        forecasts: Vec::new(),
        frozen: Vec::new(),
        cautions,
    };
    // A manifest is about what comes, whatever is under way.
    if let (Some(run), None, false) = (&status.run, class, on_disk) {
        let why = status.plan.clone().unwrap_or_default();
        let declared = run.plan.provenance != Provenance::Unknown;
        return Ok(of(About::Run, run.plan.clone(), why, declared, run.canary.commit.clone(), Vec::new()));
    }
    let Subject { about, view, cautions: of_subject } = Subject::of(rollout, &status, workload, on_disk);
    let mut cautions: Vec<String> = policy.trouble.iter().cloned().chain(of_subject).collect();
    let spec = &rollout.spec;
    let risk = policy::assess(spec, &view, policy, &status.history, left, now());
    // Who may not read the policies reads what the controller made of them.
    let shown = status.plan.clone().filter(|_| policy.trouble.is_some() && about == About::Held);
    let known = class.or_else(|| shown.as_ref().and_then(|plan| plan.risk_class));
    let plan =
        limits::make_plan(spec, config, policy, workload, (risk.provenance, known.unwrap_or(risk.class)));
    cautions.extend(clamped(spec, policy, &plan));
    let commit = view.commit.filter(|_| on_disk || about == About::Held);
    let declared = view.declared && view.provenance != Provenance::Unknown;
    let why = shown.unwrap_or_else(|| risk.explain(spec, policy, &plan));
    // Going back to a recorded good revision is held by nothing.
    let returns = about == About::Held && status.good.iter().any(|good| good.digest == workload.digest);
    let frozen =
        if returns { Vec::new() } else { freeze::of(&policy.freezes, plan.risk_class, view.kind, now()) };
    Ok(Planned { frozen, ..of(about, plan, why, declared, commit, cautions) })
}

/// Limits of the rollout's own that are not used.
fn clamped(spec: &ProgressiveRolloutSpec, policy: &Policy, plan: &Plan) -> Vec<String> {
    let found = limits::clamped(spec, policy, plan.risk_class);
    found.into_iter().map(|what| format!("of spec.limits the tighter counts: {what}")).collect()
}

/// What each guard that counts requests saw of stable in the hour before `end`.
async fn records(
    prometheus: &Prometheus,
    arms: &Arms<'_>,
    plan: &Plan,
    end: Timestamp,
    interval: i32,
) -> Result<Vec<(String, Vec<Sample>)>, Failure> {
    let mut records = Vec::new();
    for weighed in weighed(plan).into_iter().filter(|weighed| weighed.judged.needs_evidence) {
        let query = RatioQuery::new(arms, weighed.counted, &BTreeMap::new());
        let samples = record(prometheus, &query, end, interval).await;
        let samples =
            samples.map_err(|trouble| Failure::new(trouble.message + &hint(prometheus.address())))?;
        records.push((weighed.guard.name.clone(), samples));
    }
    Ok(records)
}
