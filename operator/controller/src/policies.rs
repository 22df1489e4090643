//! The policies in force: resolved for each namespace from what is watched, and the word on each policy in its status.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, ResourceExt};
use serde::Serialize;
use serde_json::json;
use sluice_core::api::{ANNOTATION_PRESET, ClusterRiskPolicy, MANAGER};
use sluice_core::config::Config;
use sluice_core::observed::Seen;
use sluice_core::policy::{self, Freezes, Policy};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::client::{FORWARD_LIMIT, bounded};
use crate::context::Context;
use crate::error::CallError;
use crate::store::Object;
use crate::watch::{Stores, Watched};

/// How often the policies are looked at for their status: a version that is replaced sooner was never accepted.
const INTERVAL: Duration = Duration::from_millis(250);
/// The policy that is made when there is none.
const DEFAULT: &str = "default";

/// What was resolved last, by namespace, and of which version.
#[derive(Default)]
pub struct Policies(Mutex<BTreeMap<String, (u64, Arc<Policy>)>>);

impl Policies {
    /// What holds for the workloads of a namespace.
    pub fn of(&self, stores: &Stores, config: &Config, namespace: &str) -> Arc<Policy> {
        // Read before the objects: what changes meanwhile has another version.
        let version = stores.policy_version();
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, policy)) = known.get(namespace).filter(|(of, _)| *of == version) {
            return policy.clone();
        }
        match resolve(stores, config, namespace) {
            Ok(policy) => {
                let policy = Arc::new(policy);
                known.insert(namespace.to_owned(), (version, policy.clone()));
                policy
            }
            // Not kept: nothing tells when a stream is back.
            Err(why) => Arc::new(Policy::unknown(config, why)),
        }
    }
}

/// The policies in force for a namespace, or why they are not known.
fn resolve(stores: &Stores, config: &Config, namespace: &str) -> Result<Policy, String> {
    for kind in [Watched::ClusterPolicy, Watched::Policy, Watched::Freeze, Watched::Namespace] {
        if let Some(why) = stores.lost(kind) {
            return Err(format!("{} can't be watched: {why}", kind.as_str()));
        }
    }
    if !stores.ready(Watched::Rollout) {
        return Err("rollouts are not listed yet, and with that who is in flight".to_owned());
    }
    let seen = |kind: Watched| match stores.near(kind, namespace) {
        Seen::Seen(found) => Ok(found),
        Seen::Unseen(why) => Err(format!("{} can't be read: {why}", kind.as_str())),
    };
    let unreadable = |kind: &str, name: &str, why: String| {
        format!("{kind} {name} can't be read by this version of the controller: {why}")
    };
    let mut cluster = Vec::new();
    for object in seen(Watched::ClusterPolicy)? {
        cluster.push(
            object.cluster_policy().map_err(|why| unreadable("ClusterRiskPolicy", object.name(), why))?,
        );
    }
    let mut own = Vec::new();
    for object in seen(Watched::Policy)? {
        own.push(object.policy().map_err(|why| unreadable("RiskPolicy", object.name(), why))?);
    }
    let mut freezes = Vec::new();
    for object in seen(Watched::Freeze)? {
        freezes.push(object.freeze().map_err(|why| unreadable("ChangeFreeze", object.name(), why))?);
    }
    let found = match stores.named(Watched::Namespace, "", [&namespace.to_owned()]) {
        Seen::Seen(found) => found,
        Seen::Unseen(why) => return Err(format!("namespaces can't be read: {why}")),
    };
    let labels =
        found.first().ok_or_else(|| format!("namespace {namespace} is not there"))?.meta.labels.clone();
    let labels = labels.unwrap_or_default();
    let (cluster, own) = (cluster.iter().map(AsRef::as_ref), own.iter().map(AsRef::as_ref));
    let freezes = Freezes::of(freezes, namespace, &labels);
    Ok(Policy { freezes, ..Policy::resolve(config, cluster, own, &labels) })
}

/// Says of each policy whether it is in force, and makes one when there is none, until `stop`.
pub async fn watch(ctx: Arc<Context>, stop: CancellationToken) {
    loop {
        warn_of(make_default(&ctx).await);
        tell_all(&ctx).await;
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(INTERVAL) => {}
        }
    }
}

/// Makes the installation's policy when there is no ClusterRiskPolicy at all, so that people see what holds, and can edit it.
async fn make_default(ctx: &Context) -> Result<(), CallError> {
    if !ctx.stores.ready(Watched::ClusterPolicy)
        || !ctx.stores.all(Watched::ClusterPolicy, |_| true).is_empty()
    {
        return Ok(());
    }
    let preset = ctx.config.default_policy;
    let mut policy = ClusterRiskPolicy::new(DEFAULT, preset.spec());
    policy.annotations_mut().insert(ANNOTATION_PRESET.to_owned(), preset.as_str().to_owned());
    let api: Api<ClusterRiskPolicy> = Api::all(ctx.clients.normal.clone());
    let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
    match bounded("create ClusterRiskPolicy", FORWARD_LIMIT, api.create(&params, &policy)).await {
        Ok(_) => {
            info!(preset = preset.as_str(), "there was no ClusterRiskPolicy: {DEFAULT} was made");
            Ok(())
        }
        // Another one was faster, or the watch is behind.
        Err(error) if error.is_conflict() => Ok(()),
        Err(error) => Err(error),
    }
}

/// Says of each policy and freeze whether its newest version is in force, why not, and what to know of one that is.
async fn tell_all(ctx: &Context) {
    for object in ctx.stores.all(Watched::ClusterPolicy, |_| true) {
        if let Ok(found) = object.cluster_policy() {
            let status = policy::cluster_status(&found, &ctx.config, this_second());
            warn_of(write(ctx, Watched::ClusterPolicy, &object, found.status.as_ref(), &status).await);
        }
    }
    for object in ctx.stores.all(Watched::Policy, |_| true) {
        if let Ok(found) = object.policy() {
            let status = policy::own_status(&found, this_second());
            warn_of(write(ctx, Watched::Policy, &object, found.status.as_ref(), &status).await);
        }
    }
    for object in ctx.stores.all(Watched::Freeze, |_| true) {
        if let Ok(found) = object.freeze() {
            let status = found.status(this_second());
            warn_of(write(ctx, Watched::Freeze, &object, found.before(), &status).await);
        }
    }
}

/// One policy whose status can't be written keeps no other from its own.
fn warn_of(told: Result<(), CallError>) {
    if let Err(error) = told
        && !error.is_conflict()
    {
        warn!(%error, "a policy could not be written, it is tried again");
    }
}

/// Times in status are whole seconds.
fn this_second() -> Timestamp {
    Timestamp::from_second(Timestamp::now().as_second()).unwrap_or_default()
}

/// Writes the status of a policy, if it says something new.
async fn write<S: PartialEq + Serialize>(
    ctx: &Context,
    kind: Watched,
    object: &Object,
    before: Option<&S>,
    status: &S,
) -> Result<(), CallError> {
    if before == Some(status) {
        return Ok(());
    }
    // By compare-and-swap: what is written is about the spec that was looked at.
    let mut next = object.clone();
    next.value["status"] = json!(status);
    let (client, resource) = (ctx.clients.normal.clone(), kind.resource());
    let api: Api<Object> = match object.meta.namespace.as_deref() {
        Some(namespace) => Api::namespaced_with(client, namespace, &resource),
        None => Api::all_with(client, &resource),
    };
    let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
    let write = api.replace_subresource("status", object.name(), &params, &next);
    bounded("write the status of a policy", FORWARD_LIMIT, write).await.map(drop)
}
