//! Reads what a decision needs: from the stores, or live before anything moves forward.

use std::time::Duration;

use futures::future::join_all;
use kube::api::{DynamicObject, ListParams};
use kube::{Api, Client, ResourceExt};
use serde_json::Value;
use sluice_core::api::{LABEL_ROLLOUT, ProgressiveRollout};
use sluice_core::limits;
use sluice_core::observed::{Objects, Observed, Seen};

use crate::beside;
use crate::client::bounded;
use crate::context::Context;
use crate::error::CallError;
use crate::pods;
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
    let deployment = ctx.stores.list(Watched::Deployment, namespace, |o| o.name_any() == names.workload);
    let owned = |object: &DynamicObject| {
        object.labels().get(LABEL_ROLLOUT) == Some(&key.name)
            || object.owner_references().iter().any(|o| o.kind == "Deployment" && o.name == names.workload)
    };
    let replica_sets = ctx.stores.list(Watched::ReplicaSet, namespace, owned);
    let short = replica_sets.get().and_then(|sets| pods::worth_a_look(rollout, sets));
    let canary_pods = Seen::Seen(short.map(|run| ctx.pods.troubled(key, run)).unwrap_or_default());
    Observed::read(Objects {
        deployment: deployment.map(|list| list.into_iter().next()),
        replica_sets,
        services: ctx.stores.list(Watched::Service, namespace, |o| names.services.contains(&o.name_any())),
        endpoint_slices: ctx.stores.list(Watched::EndpointSlice, namespace, |o| {
            o.labels()
                .get("kubernetes.io/service-name")
                .is_some_and(|name| names.services[1..].contains(name))
        }),
        routes: ctx.stores.list(Watched::HttpRoute, namespace, |o| names.routes.contains(&o.name_any())),
        canary_pods,
        rivals: rivals(ctx, key, rollout),
        autoscalers: None,
        claims: None,
    })
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
    let selector = format!("kubernetes.io/service-name in ({},{})", names.services[1], names.services[2]);
    let (deployment, services, slices, routes) = tokio::join!(
        get_all(client, namespace, Watched::Deployment, std::slice::from_ref(&names.workload)),
        get_all(client, namespace, Watched::Service, &names.services),
        list(client, namespace, Watched::EndpointSlice, &selector),
        get_all(client, namespace, Watched::HttpRoute, &names.routes),
    );
    let deployment = deployment.map(|list| list.into_iter().next());
    let found = deployment.get().and_then(Option::as_ref);
    let (replica_sets, (autoscalers, claims)) =
        tokio::join!(replica_sets(client, key, found), beside::read(client, namespace, rollout, found));
    let mut objects = Objects {
        deployment,
        replica_sets,
        services,
        endpoint_slices: slices,
        routes,
        canary_pods: Seen::Seen(Vec::new()),
        rivals: rivals(ctx, key, rollout),
        autoscalers,
        claims,
    };
    objects.canary_pods = canary_pods(ctx, key, rollout, &objects).await;
    Observed::read(objects)
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

/// Pods of the canary, only while it lacks some: their own reasons are for people.
async fn canary_pods(
    ctx: &Context,
    key: &Key,
    rollout: &ProgressiveRollout,
    objects: &Objects,
) -> Seen<Vec<Value>> {
    let Some(run) = objects.replica_sets.get().and_then(|sets| pods::worth_a_look(rollout, sets)) else {
        return Seen::Seen(Vec::new());
    };
    match pods::of_canary(ctx, key, run).await {
        Ok(found) => {
            ctx.pods.saw(key, run, &found);
            Seen::Seen(found)
        }
        Err(error) => Seen::Unseen(error.to_string()),
    }
}

async fn get_all(client: &Client, namespace: &str, kind: Watched, names: &[String]) -> Seen<Vec<Value>> {
    named(Api::namespaced_with(client.clone(), namespace, &kind.resource()), kind.as_str(), names).await
}

/// Objects by name; one that does not exist is left out.
pub async fn named(api: Api<DynamicObject>, what: &str, names: &[String]) -> Seen<Vec<Value>> {
    let reads = names.iter().map(|name| {
        let api = api.clone();
        async move { bounded(format!("get {what} {name}"), READ_LIMIT, api.get_opt(name)).await }
    });
    let mut found = Vec::new();
    for answer in join_all(reads).await {
        match answer {
            Ok(Some(object)) => found.extend(serde_json::to_value(&object).ok()),
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
pub async fn listed(api: Api<DynamicObject>, what: &str, params: &ListParams) -> Seen<Vec<Value>> {
    match bounded(format!("list {what}"), READ_LIMIT, api.list(params)).await {
        Ok(answer) => Seen::Seen(answer.items.iter().filter_map(|o| serde_json::to_value(o).ok()).collect()),
        Err(error) => Seen::Unseen(error.to_string()),
    }
}

/// Other rollouts of the same workload that came before this one.
fn rivals(ctx: &Context, key: &Key, rollout: &ProgressiveRollout) -> Vec<String> {
    let age = |created: Option<String>, name: &str| (created.unwrap_or_default(), name.to_owned());
    let created =
        |meta: &kube::core::ObjectMeta| meta.creation_timestamp.as_ref().map(|time| time.0.to_string());
    let mine = age(created(&rollout.metadata), &key.name);
    let mut older: Vec<_> = ctx
        .stores
        .rollouts()
        .into_iter()
        .filter(|other| {
            other.namespace().as_deref() == Some(key.namespace.as_str())
                && other.name_any() != key.name
                && other.data["spec"]["workloadRef"]["name"].as_str() == Some(&rollout.spec.workload_ref.name)
        })
        .map(|other| age(created(&other.metadata), &other.name_any()))
        .filter(|other| *other < mine)
        .collect();
    older.sort();
    older.into_iter().map(|(_, name)| name).collect()
}
