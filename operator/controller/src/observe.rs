//! Reads what a decision needs: from the stores, or live before anything moves forward.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::ListParams;
use kube::{Api, Client};
use serde_json::Value;
use sluice_core::api::{LABEL_ROLLOUT, ProgressiveRollout};
use sluice_core::limits;
use sluice_core::observed::{Objects, Observed, Seen};
use sluice_core::view::{PodTrouble, ReplicaSet, Workload, worst_trouble};

use crate::beside;
use crate::client::bounded;
use crate::context::Context;
use crate::error::CallError;
use crate::pods;
use crate::store::{LABEL_SERVICE, Object, of_deployment, of_rollout};
use crate::watch::{Key, Watched};

/// Limit on one live read.
const READ_LIMIT: Duration = Duration::from_secs(5);

/// Names that a rollout, and the run under way, refer to.
struct Names {
    workload: String,
    services: [String; 3],
    routes: Vec<String>,
}

impl Names {
    fn of(rollout: &ProgressiveRollout) -> Self {
        let plan = rollout.status.as_ref().and_then(|status| status.run.as_ref()).map(|run| &run.plan);
        let apex = plan.map_or(&rollout.spec.routing.service, |plan| &plan.service);
        let routes = plan.map_or(&rollout.spec.routing.routes, |plan| &plan.routes);
        Self {
            workload: rollout.spec.workload_ref.name.clone(),
            services: [apex.clone(), limits::stable_service(apex), limits::canary_service(apex)],
            routes: routes.iter().map(|route| route.name.clone()).collect(),
        }
    }
}

/// From the stores.
pub fn cached(ctx: &Context, key: &Key, rollout: &ProgressiveRollout) -> Observed {
    let names = Names::of(rollout);
    let namespace = key.namespace.as_str();
    let stores = &ctx.stores;
    let owners = [of_rollout(&key.name), of_deployment(&names.workload)];
    let workload = stores.named(Watched::Deployment, namespace, [&names.workload]);
    let replica_sets = stores.owned(Watched::ReplicaSet, namespace, &owners).map(|found| {
        let mut sets: Vec<ReplicaSet> = found.iter().filter_map(|object| object.replica_set()).collect();
        sets.sort_by(|a, b| (&a.created, &a.name).cmp(&(&b.created, &b.name)));
        sets
    });
    let services = stores.named(Watched::Service, namespace, &names.services);
    let slices = stores.owned(Watched::EndpointSlice, namespace, &names.services[1..]);
    let routes = stores.named(Watched::HttpRoute, namespace, &names.routes);
    let mut seen = Observed {
        workload: workload.map(|found| found.first().and_then(|object| object.workload())),
        replica_sets,
        services: services.map(|found| found.iter().filter_map(|object| object.service()).collect()),
        endpoints: slices.map(|found| endpoints(&found)),
        routes: routes.map(|found| found.iter().filter_map(|object| object.route()).collect()),
        trouble: None,
        rivals: rivals(ctx, key, rollout),
        autoscalers: None,
        claims: None,
    };
    if let Some(run) = pods::worth_a_look(rollout, &seen) {
        seen.trouble = worst_trouble(&ctx.pods.troubled(key, run));
    }
    seen
}

/// Ready pods behind each Service, over all its EndpointSlices.
fn endpoints(slices: &[Arc<Object>]) -> Vec<(String, BTreeSet<String>)> {
    let mut by_service: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for slice in slices {
        let service = slice.service_name().unwrap_or_default().to_owned();
        by_service.entry(service).or_default().extend(slice.ready_pods().into_iter().flatten().cloned());
    }
    by_service.into_iter().collect()
}

/// What the preparation of a run is decided on: from the stores, with the Deployment as it is now, since its template is
/// what the canary gets, and whether it is still held decides whether Services may be pinned; and what stands beside it.
pub async fn for_preparing(
    ctx: &Context,
    key: &Key,
    rollout: &ProgressiveRollout,
    seen: Observed,
) -> Observed {
    let names = std::slice::from_ref(&rollout.spec.workload_ref.name);
    let deployment = get_all(&ctx.clients.normal, &key.namespace, Watched::Deployment, names).await;
    let found = deployment.get().and_then(|found| found.first());
    let (autoscalers, claims) = beside::read(ctx, &key.namespace, rollout, found).await;
    let workload = deployment.map(|found| found.first().map(Workload::read));
    seen.with_workload(workload, autoscalers, claims)
}

/// Live: the rollout and everything that it refers to.
pub async fn live(ctx: &Context, key: &Key) -> Result<Option<(ProgressiveRollout, Observed)>, CallError> {
    let client = &ctx.clients.normal;
    let namespace = key.namespace.as_str();
    let rollouts: Api<ProgressiveRollout> = Api::namespaced(client.clone(), namespace);
    let found = bounded("get ProgressiveRollout", READ_LIMIT, rollouts.get_opt(&key.name)).await?;
    let Some(rollout) = found else {
        return Ok(None);
    };
    let seen = of(ctx, key, &rollout).await;
    Ok(Some((rollout, seen)))
}

/// Live: everything that a rollout refers to.
pub async fn of(ctx: &Context, key: &Key, rollout: &ProgressiveRollout) -> Observed {
    let client = &ctx.clients.normal;
    let namespace = key.namespace.as_str();
    let names = Names::of(rollout);
    let selector = format!("{LABEL_SERVICE} in ({},{})", names.services[1], names.services[2]);
    let (deployment, services, slices, routes) = tokio::join!(
        get_all(client, namespace, Watched::Deployment, std::slice::from_ref(&names.workload)),
        get_all(client, namespace, Watched::Service, &names.services),
        list(client, namespace, Watched::EndpointSlice, &selector),
        get_all(client, namespace, Watched::HttpRoute, &names.routes),
    );
    let deployment = deployment.map(|list| list.into_iter().next());
    let found = deployment.get().and_then(Option::as_ref);
    let (replica_sets, (autoscalers, claims)) =
        tokio::join!(replica_sets(client, key, found), beside::read(ctx, namespace, rollout, found));
    let mut seen = Observed::read(Objects {
        deployment,
        replica_sets,
        services,
        endpoint_slices: slices,
        routes,
        canary_pods: Seen::Seen(Vec::new()),
        rivals: rivals(ctx, key, rollout),
        autoscalers,
        claims,
    });
    seen.trouble = canary_trouble(ctx, key, rollout, &seen).await;
    seen
}

/// Ours by label, the native ones by the Deployment's selector.
async fn replica_sets(client: &Client, key: &Key, deployment: Option<&Value>) -> Seen<Vec<Value>> {
    let ours = format!("{LABEL_ROLLOUT}={}", key.name);
    let native = deployment.map(|d| selector_text(&d["spec"]["selector"]));
    let (ours, native) = tokio::join!(list(client, &key.namespace, Watched::ReplicaSet, &ours), async {
        match native {
            Some(selector) => list(client, &key.namespace, Watched::ReplicaSet, &selector).await,
            None => Seen::Seen(Vec::new()),
        }
    });
    match (ours, native) {
        (Seen::Seen(mut ours), Seen::Seen(native)) => {
            let uid = deployment.and_then(|d| d["metadata"]["uid"].as_str()).unwrap_or_default();
            let owned = native.into_iter().filter(|set| {
                let owners = set["metadata"]["ownerReferences"].as_array();
                owners.into_iter().flatten().any(|owner| owner["uid"].as_str() == Some(uid))
            });
            for set in owned {
                if !ours.iter().any(|known| known["metadata"]["uid"] == set["metadata"]["uid"]) {
                    ours.push(set);
                }
            }
            Seen::Seen(ours)
        }
        (Seen::Unseen(why), _) | (_, Seen::Unseen(why)) => Seen::Unseen(why),
    }
}

/// A LabelSelector as the query parameter wants it.
fn selector_text(selector: &Value) -> String {
    let mut parts: Vec<String> = Vec::new();
    for (name, value) in selector["matchLabels"].as_object().into_iter().flatten() {
        parts.push(format!("{name}={}", value.as_str().unwrap_or_default()));
    }
    for expression in selector["matchExpressions"].as_array().into_iter().flatten() {
        let key = expression["key"].as_str().unwrap_or_default();
        let values = expression["values"].as_array();
        let values: Vec<&str> = values.into_iter().flatten().filter_map(Value::as_str).collect();
        match expression["operator"].as_str().unwrap_or_default() {
            "In" => parts.push(format!("{key} in ({})", values.join(","))),
            "NotIn" => parts.push(format!("{key} notin ({})", values.join(","))),
            "Exists" => parts.push(key.to_owned()),
            "DoesNotExist" => parts.push(format!("!{key}")),
            _ => {}
        }
    }
    parts.join(",")
}

/// What keeps pods of the canary from being ready, only while it lacks some: their own reasons are for people.
async fn canary_trouble(
    ctx: &Context,
    key: &Key,
    rollout: &ProgressiveRollout,
    seen: &Observed,
) -> Option<PodTrouble> {
    let run = pods::worth_a_look(rollout, seen)?;
    let found = pods::of_canary(ctx, key, run).await.ok()?;
    ctx.pods.saw(key, run, &found);
    worst_trouble(&found)
}

async fn get_all(client: &Client, namespace: &str, kind: Watched, names: &[String]) -> Seen<Vec<Value>> {
    named(Api::namespaced_with(client.clone(), namespace, &kind.resource()), kind.as_str(), names).await
}

/// Objects by name; one that does not exist is left out.
pub async fn named(api: Api<Object>, what: &str, names: &[String]) -> Seen<Vec<Value>> {
    let reads = names.iter().map(|name| {
        let api = api.clone();
        async move { bounded(format!("get {what} {name}"), READ_LIMIT, api.get_opt(name)).await }
    });
    let mut found = Vec::new();
    for answer in join_all(reads).await {
        match answer {
            Ok(Some(object)) => found.push(object.value),
            Ok(None) => {}
            Err(error) => return Seen::Unseen(error.to_string()),
        }
    }
    Seen::Seen(found)
}

async fn list(client: &Client, namespace: &str, kind: Watched, selector: &str) -> Seen<Vec<Value>> {
    let api = Api::namespaced_with(client.clone(), namespace, &kind.resource());
    listed(api, kind.as_str(), &ListParams::default().labels(selector)).await
}

/// Objects that the parameters select.
pub async fn listed(api: Api<Object>, what: &str, params: &ListParams) -> Seen<Vec<Value>> {
    match bounded(format!("list {what}"), READ_LIMIT, api.list(params)).await {
        Ok(answer) => Seen::Seen(answer.items.into_iter().map(|object| object.value).collect()),
        Err(error) => Seen::Unseen(error.to_string()),
    }
}

/// Other rollouts of the same workload that came before this one.
fn rivals(ctx: &Context, key: &Key, rollout: &ProgressiveRollout) -> Vec<String> {
    let age = |created: Option<String>, name: &str| (created.unwrap_or_default(), name.to_owned());
    let created = |meta: &ObjectMeta| meta.creation_timestamp.as_ref().map(|time| time.0.to_string());
    let mine = age(created(&rollout.metadata), &key.name);
    let mut older: Vec<_> = ctx
        .stores
        .rollouts_of(&key.namespace, &rollout.spec.workload_ref.name)
        .into_iter()
        .filter(|other| other.name() != key.name)
        .map(|other| age(created(&other.meta), other.name()))
        .filter(|other| *other < mine)
        .collect();
    older.sort();
    older.into_iter().map(|(_, name)| name).collect()
}
