//! Notices when the admission policies are missing: without them a new template is not held.

use std::sync::Arc;
use std::time::Duration;

use kube::Api;
use kube::api::{DynamicObject, ListParams};
use kube::core::GroupVersionKind;
use sluice_core::config::Hold;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::client::{FORWARD_LIMIT, bounded};
use crate::context::Context;

/// How often the policies are looked for.
const INTERVAL: Duration = Duration::from_secs(60);
/// Label by which the chart marks its policies.
const SELECTOR: &str = "app.kubernetes.io/name=sluice";

/// Looks for the policies and their bindings until `stop`, and says in metric and log when one is missing.
pub async fn watch(ctx: Arc<Context>, stop: CancellationToken) {
    let mut known = None;
    loop {
        if let Some(intact) = look(&ctx).await {
            ctx.metrics.set_guardrails_intact(intact);
            if known != Some(intact) {
                if intact {
                    info!("admission policies and bindings are in place");
                } else {
                    error!(
                        "admission policies or bindings are missing: new templates are not held; helm upgrade the chart"
                    );
                }
                known = Some(intact);
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(INTERVAL) => {}
        }
    }
}

/// Whether every kind of guard exists; `None` when that can't be read.
async fn look(ctx: &Context) -> Option<bool> {
    let mut kinds = vec!["ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"];
    if ctx.config.hold == Hold::OnChange {
        kinds.extend(["MutatingAdmissionPolicy", "MutatingAdmissionPolicyBinding"]);
    }
    for kind in kinds {
        let gvk = GroupVersionKind::gvk("admissionregistration.k8s.io", "v1", kind);
        let api: Api<DynamicObject> =
            Api::all_with(ctx.clients.normal.clone(), &kube::api::ApiResource::from_gvk(&gvk));
        let params = ListParams::default().labels(SELECTOR).limit(1);
        match bounded(format!("list {kind}"), FORWARD_LIMIT, api.list(&params)).await {
            Ok(found) if found.items.is_empty() => return Some(false),
            Ok(_) => {}
            Err(_) => return None,
        }
    }
    Some(true)
}
