//! Executes actions: one write each, bounded, idempotent. Every write of the controller to another object
//! passes here.

use std::time::{Duration, Instant};

use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use serde_json::Value;
use sluice_core::action::{Action, Kind, Lane, PatchOp, SetWeights, Write};
use sluice_core::api::MANAGER;
use sluice_core::render;
use tracing::{info, warn};

use crate::client::{ABORT_LIMIT, FORWARD_LIMIT, bounded};
use crate::context::Context;
use crate::crash;
use crate::error::{CallError, CallErrorKind};
use crate::store::Object;
use crate::watch::{Key, Watched};

/// How often weights are rendered again when the route moves under the patch.
const WEIGHT_TRIES: usize = 4;

/// What came of an action.
#[derive(Debug)]
pub enum Outcome {
    /// Written; the object as it is now, unless it was deleted.
    Done(Option<Box<Object>>),
    /// It was so already.
    Already,
    /// The world moved under it: read again and decide again.
    Moved(String),
    /// Not written.
    Failed(CallError),
}

/// Executes actions in order. Those that return traffic are all tried; the others stop at the first that did not
/// succeed. Says whether the world moved under one, or returns the first failure.
pub async fn execute(ctx: &Context, key: &Key, actions: &[Action]) -> Result<Moved, CallError> {
    let mut failure = None;
    let mut moved = Moved::No;
    for action in actions {
        let abort = action.lane == Lane::Abort;
        if !abort && failure.is_some() {
            continue;
        }
        if !abort && !leads(ctx) {
            warn!(action = action.name, "not leading for long enough: left to the next leader");
            return Ok(moved);
        }
        let outcome = one(ctx, key, action).await;
        let done = matches!(outcome, Outcome::Done(_));
        if done {
            crash::after_step(&key.namespace, action.name);
        }
        match outcome {
            Outcome::Done(_) | Outcome::Already => {
                let outcome = if done { "Done" } else { "Already" };
                info!(action = action.name, kind = ?action.kind, object = %action.object, outcome, "written");
            }
            Outcome::Moved(why) => {
                info!(action = action.name, kind = ?action.kind, object = %action.object, why, "moved, decided again");
                moved = Moved::Yes;
                if !abort {
                    break;
                }
            }
            Outcome::Failed(error) => {
                warn!(action = action.name, kind = ?action.kind, object = %action.object, %error, "failed");
                failure.get_or_insert(error);
            }
        }
    }
    failure.map_or(Ok(moved), Err)
}

/// Whether the world moved under an action, so that it has to be decided again soon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moved {
    /// It did.
    Yes,
    /// It did not.
    No,
}

/// A policy, a webhook or a quota refused the write: that is no stale read, and trying again soon is no help.
fn refused(error: &CallError) -> bool {
    ["ValidatingAdmissionPolicy", "admission webhook", "exceeded quota"]
        .iter()
        .any(|word| error.message.contains(word))
}

/// Whether this process surely leads until a forward write that is sent now has ended.
fn leads(ctx: &Context) -> bool {
    ctx.leader.time_left() > FORWARD_LIMIT
}

async fn one(ctx: &Context, key: &Key, action: &Action) -> Outcome {
    let (client, limit) = match action.lane {
        Lane::Abort => (&ctx.clients.abort, ABORT_LIMIT),
        Lane::Forward | Lane::Tidy => (&ctx.clients.normal, FORWARD_LIMIT),
    };
    let kind = watched(action.kind);
    let api: Api<Object> = Api::namespaced_with(client.clone(), &key.namespace, &kind.resource());
    let began = Instant::now();
    let what = format!("{} {:?} {}", action.name, action.kind, action.object);
    let (verb, mut outcome) = match &action.write {
        Write::Create(body) => ("create", create(&api, &what, limit, body).await),
        Write::Patch(ops) => ("patch", patch(&api, &what, limit, &action.object, ops).await),
        Write::Weights(weights) => {
            let may_write = || action.lane == Lane::Abort || leads(ctx);
            ("patch", set_weights(&api, &what, limit, &action.object, weights, may_write).await)
        }
        Write::Delete { uid } => ("delete", delete(&api, &what, limit, &action.object, uid).await),
    };
    let code = match &outcome {
        Outcome::Done(_) | Outcome::Already => 200,
        Outcome::Moved(_) => 409,
        Outcome::Failed(error) => error.code,
    };
    ctx.metrics.api_request(verb, code);
    if let Outcome::Done(written) = &mut outcome
        && let Some(object) = written.take()
    {
        // The next pass decides on it, however late the watch is.
        ctx.stores.wrote(kind, *object, began);
    }
    outcome
}

fn watched(kind: Kind) -> Watched {
    match kind {
        Kind::Deployment => Watched::Deployment,
        Kind::ReplicaSet => Watched::ReplicaSet,
        Kind::Service => Watched::Service,
        Kind::HTTPRoute => Watched::HttpRoute,
        Kind::ProgressiveRollout => Watched::Rollout,
    }
}

async fn create(api: &Api<Object>, what: &str, limit: Duration, body: &Value) -> Outcome {
    let object = match Object::new(body.clone()) {
        Ok(object) => object,
        Err(error) => return Outcome::Moved(error.to_string()),
    };
    let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
    match bounded(what, limit, api.create(&params, &object)).await {
        Ok(written) => Outcome::Done(Some(Box::new(written))),
        Err(error) if error.is_already_exists() => Outcome::Already,
        Err(error) => Outcome::Failed(error),
    }
}

async fn patch(api: &Api<Object>, what: &str, limit: Duration, name: &str, ops: &[PatchOp]) -> Outcome {
    if ops.is_empty() {
        return Outcome::Already;
    }
    let patch: json_patch::Patch = match serde_json::to_value(ops).and_then(serde_json::from_value) {
        Ok(patch) => patch,
        Err(error) => return Outcome::Moved(error.to_string()),
    };
    let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    match bounded(what, limit, api.patch(name, &params, &Patch::Json::<()>(patch))).await {
        Ok(written) => Outcome::Done(Some(Box::new(written))),
        Err(error) if refused(&error) => Outcome::Failed(error),
        Err(error) => match error.kind {
            CallErrorKind::Conflict | CallErrorKind::Invalid | CallErrorKind::NotFound => {
                Outcome::Moved(error.to_string())
            }
            _ => Outcome::Failed(error),
        },
    }
}

/// Weights are rendered on the route as it is now, since indexes may have moved, and again when it moves.
async fn set_weights(
    api: &Api<Object>,
    what: &str,
    limit: Duration,
    name: &str,
    wanted: &SetWeights,
    may_write: impl Fn() -> bool,
) -> Outcome {
    let mut last = Outcome::Already;
    for _ in 0..WEIGHT_TRIES {
        let route = match bounded(what, limit, api.get_opt(name)).await {
            Ok(Some(route)) => route,
            Ok(None) => return Outcome::Moved(format!("HTTPRoute {name} is gone")),
            Err(error) => return Outcome::Failed(error),
        };
        let ops = match render::weights(&route.value, wanted) {
            Ok(ops) => ops,
            Err(problem) => return Outcome::Moved(problem.to_string()),
        };
        // Reading may have taken as long as leadership lasted, and the version that is tested was read just now.
        if !ops.is_empty() && !may_write() {
            return Outcome::Moved("not leading for long enough".to_owned());
        }
        last = patch(api, what, limit, name, &ops).await;
        if !matches!(last, Outcome::Moved(_)) {
            return last;
        }
    }
    last
}

async fn delete(api: &Api<Object>, what: &str, limit: Duration, name: &str, uid: &str) -> Outcome {
    let preconditions = Preconditions { uid: Some(uid.to_owned()), resource_version: None };
    let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::background() };
    match bounded(what, limit, api.delete(name, &params)).await {
        Ok(_) => Outcome::Done(None),
        Err(error) if error.is_not_found() || error.is_conflict() => Outcome::Already,
        Err(error) => Outcome::Failed(error),
    }
}

#[cfg(test)]
mod tests {
    //! A server with one route, for the order of reading, asking and writing.

    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::routing::get;
    use axum::{Json, Router};
    use serde_json::json;

    use super::*;
    use crate::testing::api_server;

    #[tokio::test]
    async fn a_weight_is_not_written_when_leadership_ended_while_the_route_was_read() {
        let route = json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
            "metadata": {"name": "web", "namespace": "shop", "resourceVersion": "7"},
            "spec": {"rules": [{"backendRefs": [{"name": "web-stable", "weight": 100}, {"name": "web-canary", "weight": 0}]}]},
        });
        let written = Arc::new(AtomicUsize::new(0));
        let count = written.clone();
        let answer = route.clone();
        let methods = get(move || async move { Json(route) }).patch(move || async move {
            count.fetch_add(1, Ordering::SeqCst);
            Json(answer)
        });
        let client = api_server(Router::new().fallback(methods)).await.normal;
        let api: Api<Object> = Api::namespaced_with(client, "shop", &Watched::HttpRoute.resource());
        let wanted = SetWeights {
            stable_service: "web-stable".to_owned(),
            canary_service: "web-canary".to_owned(),
            rules: Vec::new(),
            canary_percent: 25,
            mark: "1-abcde 25".to_owned(),
        };
        for (leads, writes) in [(false, 0), (true, 1)] {
            let outcome = set_weights(&api, "set-weights", FORWARD_LIMIT, "web", &wanted, || leads).await;
            assert_eq!(matches!(outcome, Outcome::Done(_)), leads, "{outcome:?}");
            assert_eq!(written.load(Ordering::SeqCst), writes);
        }
    }
}
