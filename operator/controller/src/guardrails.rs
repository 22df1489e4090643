//! Notices when an admission policy or its binding is missing: without them a new template is not held.

use std::sync::Arc;
use std::time::Duration;

use kube::Api;
use kube::api::{ApiResource, DynamicObject};
use kube::core::GroupVersionKind;
use sluice_core::config::Hold;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::client::{FORWARD_LIMIT, bounded};
use crate::context::Context;

/// How often the policies are looked for.
const INTERVAL: Duration = Duration::from_secs(60);
/// The chart's policies; a binding has the name of its policy. The first one only where templates are held as they
/// come.
const POLICIES: [(&str, &str); 3] = [
    ("MutatingAdmissionPolicy", "sluice-hold"),
    ("ValidatingAdmissionPolicy", "sluice-backstop"),
    ("ValidatingAdmissionPolicy", "sluice-tell"),
];

/// Looks for the policies and their bindings until `stop`, and says in metric and log when one is missing.
pub async fn watch(ctx: Arc<Context>, stop: CancellationToken) {
    let mut known: Option<Option<String>> = None;
    loop {
        if let Ok(missing) = look(&ctx).await {
            ctx.metrics.set_guardrails_intact(missing.is_none());
            if known.as_ref() != Some(&missing) {
                match &missing {
                    None => info!("admission policies and bindings are in place"),
                    Some(name) => error!("{name} is missing: new templates are not held; run helm upgrade"),
                }
                known = Some(missing);
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(INTERVAL) => {}
        }
    }
}

/// The first policy or binding that does not exist; an error when that can't be read.
async fn look(ctx: &Context) -> Result<Option<String>, crate::error::CallError> {
    let skipped = usize::from(ctx.config.hold == Hold::Always);
    for (kind, name) in &POLICIES[skipped..] {
        for kind in [(*kind).to_owned(), format!("{kind}Binding")] {
            let gvk = GroupVersionKind::gvk("admissionregistration.k8s.io", "v1", &kind);
            let api: Api<DynamicObject> =
                Api::all_with(ctx.clients.normal.clone(), &ApiResource::from_gvk(&gvk));
            let found = bounded(format!("get {kind} {name}"), FORWARD_LIMIT, api.get_opt(name)).await?;
            if found.is_none() {
                return Ok(Some(format!("{kind} {name}")));
            }
        }
    }
    Ok(None)
}
