//! Notices when an admission policy or its binding is missing or without force: without them a new template is not held. Nothing is
//! enrolled before they are known to be in effect, or its first template would go out as if Sluice were not there.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

use kube::Api;
use kube::api::{ApiResource, DynamicObject};
use kube::core::GroupVersionKind;
use serde_json::{Value, json};
use sluice_core::api::LABEL_MANAGED;
use sluice_core::config::Hold;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::client::{FORWARD_LIMIT, bounded};
use crate::context::Context;

/// How often the policies are looked for.
const INTERVAL: Duration = Duration::from_secs(60);
/// How often while something is not in order.
const SOON: Duration = Duration::from_secs(2);
/// How long an API server may take to apply a policy that was just created: it looks for new ones every second.
const IN_EFFECT: i64 = 5;
/// The chart's policies; a binding has the name of its policy. The first one only where templates are held as they
/// come.
const POLICIES: [(&str, &str); 3] = [
    ("MutatingAdmissionPolicy", "sluice-hold"),
    ("ValidatingAdmissionPolicy", "sluice-backstop"),
    ("ValidatingAdmissionPolicy", "sluice-tell"),
];

/// Why nothing can be enrolled yet; `None` once new templates are surely held.
pub struct Guardrails(Mutex<Option<String>>);

impl Default for Guardrails {
    fn default() -> Self {
        Self(Mutex::new(Some("the admission policies were not looked at yet".to_owned())))
    }
}

impl Guardrails {
    /// What is not in order, as a sentence.
    pub fn problem(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, problem: Option<String>) -> bool {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = *known != problem;
        *known = problem;
        changed
    }
}

/// Looks for the policies and their bindings until `stop`, and says in metric and log when one is missing.
pub async fn watch(ctx: Arc<Context>, stop: CancellationToken) {
    loop {
        let (problem, missing) = match look(&ctx).await {
            Ok(Found::All { youngest }) => {
                let age = youngest.map_or(IN_EFFECT, |at| Timestamp::now().as_second() - at.as_second());
                (
                    (age < IN_EFFECT).then(|| "the admission policies were created a moment ago".to_owned()),
                    false,
                )
            }
            Ok(Found::Broken(what)) => {
                (Some(format!("{what}, so new templates are not surely held; run helm upgrade")), true)
            }
            // What was known stays: an API server that does not answer has not lost its policies.
            Err(error) if ctx.guardrails.problem().is_none() => {
                warn!(%error, "the admission policies could not be looked at");
                (None, false)
            }
            Err(error) => (Some(format!("the admission policies can't be read: {error}")), false),
        };
        ctx.metrics.set_guardrails_intact(!missing);
        let wait = if problem.is_some() { SOON } else { INTERVAL };
        if ctx.guardrails.set(problem.clone()) {
            match problem {
                None => info!("admission policies and bindings are in place"),
                Some(problem) if missing => error!("{problem}"),
                Some(problem) => info!("{problem}"),
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
    }
}

enum Found {
    All { youngest: Option<Timestamp> },
    Broken(String),
}

/// The first policy or binding that is not in order, or when the last one was made; an error when that can't be read.
async fn look(ctx: &Context) -> Result<Found, crate::error::CallError> {
    let skipped = usize::from(ctx.config.hold == Hold::Always);
    let mut youngest = None;
    for (kind, name) in &POLICIES[skipped..] {
        for kind in [(*kind).to_owned(), format!("{kind}Binding")] {
            let gvk = GroupVersionKind::gvk("admissionregistration.k8s.io", "v1", &kind);
            let api: Api<DynamicObject> =
                Api::all_with(ctx.clients.normal.clone(), &ApiResource::from_gvk(&gvk));
            let found = bounded(format!("get {kind} {name}"), FORWARD_LIMIT, api.get_opt(name)).await?;
            let Some(found) = found else {
                return Ok(Found::Broken(format!("{kind} {name} is missing")));
            };
            if let Some(problem) = altered(&kind, name, &found.data) {
                return Ok(Found::Broken(format!("{kind} {name} was altered: {problem}")));
            }
            youngest = youngest.max(found.metadata.creation_timestamp.map(|time| time.0));
        }
    }
    Ok(Found::All { youngest })
}

/// What takes the force out of a policy while it still exists: a binding that leads elsewhere, covers less or does not
/// deny, and a policy that covers less or lets a write pass when it fails.
fn altered(kind: &str, name: &str, object: &Value) -> Option<String> {
    let spec = &object["spec"];
    if !kind.ends_with("Binding") {
        let wanted = if name == "sluice-tell" { "Ignore" } else { "Fail" };
        let found = spec["failurePolicy"].as_str().unwrap_or("Fail");
        if found != wanted {
            return Some(format!("its failurePolicy is {found}, not {wanted}"));
        }
        if !spec["paramKind"].is_null() {
            return Some("it has a paramKind".to_owned());
        }
        return covers_less(&spec["matchConstraints"]).then(|| "its matchConstraints cover less".to_owned());
    }
    let policy = spec["policyName"].as_str().unwrap_or_default();
    if policy != name {
        return Some(format!("its policyName is {policy:?}"));
    }
    if !spec["paramRef"].is_null() {
        return Some("it has a paramRef".to_owned());
    }
    if !narrows_nothing(&spec["matchResources"]) {
        return Some("it has matchResources".to_owned());
    }
    let actions = spec["validationActions"].as_array();
    let acts = actions.into_iter().flatten().any(|action| action == "Deny");
    (name == "sluice-backstop" && !acts).then(|| "its validationActions do not contain Deny".to_owned())
}

/// Whether a policy misses writes to an enrolled Deployment: the chart's match every one by its label alone.
fn covers_less(constraints: &Value) -> bool {
    let updates = |rule: &Value| {
        let lists = |field: &str, one: &str| {
            rule[field].as_array().into_iter().flatten().any(|value| value == one || value == "*")
        };
        lists("apiGroups", "apps")
            && lists("apiVersions", "v1")
            && lists("operations", "UPDATE")
            && lists("resources", "deployments")
            && rule["resourceNames"].as_array().is_none_or(Vec::is_empty)
    };
    let rules = constraints["resourceRules"].as_array();
    let mut rest = constraints.clone();
    let by_label = json!({"matchLabels": {LABEL_MANAGED: "true"}});
    if rest["objectSelector"] == by_label {
        rest["objectSelector"] = Value::Null;
    }
    rest["resourceRules"] = Value::Null;
    !rules.into_iter().flatten().any(updates) || !narrows_nothing(&rest)
}

/// Whether these resources are all that the policy matches: the API server writes empty selectors by itself.
fn narrows_nothing(resources: &Value) -> bool {
    let empty = |field: &str| resources[field].as_object().is_none_or(serde_json::Map::is_empty);
    let rules = |field: &str| resources[field].as_array().is_none_or(Vec::is_empty);
    empty("objectSelector")
        && empty("namespaceSelector")
        && rules("resourceRules")
        && rules("excludeResourceRules")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_without_force_is_noticed() {
        let binding =
            |spec| altered("ValidatingAdmissionPolicyBinding", "sluice-backstop", &json!({"spec": spec}));
        let whole = json!({"policyName": "sluice-backstop", "validationActions": ["Deny"],
            "matchResources": {"objectSelector": {}, "namespaceSelector": {}, "matchPolicy": "Equivalent"}});
        assert_eq!(binding(whole.clone()), None);
        let with = |key: &str, value: Value| {
            let mut spec = whole.clone();
            spec[key] = value;
            binding(spec).unwrap_or_default()
        };
        assert_eq!(
            with("validationActions", json!(["Warn", "Audit"])),
            "its validationActions do not contain Deny"
        );
        assert_eq!(with("policyName", json!("other")), "its policyName is \"other\"");
        let one = json!({"namespaceSelector": {"matchLabels": {"hold": "yes"}}});
        assert_eq!(with("matchResources", one), "it has matchResources");
        let none = json!({"excludeResourceRules": [{"resources": ["*"]}]});
        assert_eq!(with("matchResources", none), "it has matchResources");
        assert_eq!(with("paramRef", json!({"name": "other"})), "it has a paramRef");
    }

    #[test]
    fn a_policy_that_covers_less_is_noticed() {
        // As the API server gives the chart's back.
        let whole = json!({"failurePolicy": "Fail", "matchConstraints": {
            "matchPolicy": "Equivalent", "namespaceSelector": {},
            "objectSelector": {"matchLabels": {LABEL_MANAGED: "true"}},
            "resourceRules": [{"apiGroups": ["apps"], "apiVersions": ["v1"], "scope": "*",
                "operations": ["UPDATE"], "resources": ["deployments", "deployments/status"]}]}});
        let policy = |name, spec: &Value| altered("ValidatingAdmissionPolicy", name, &json!({"spec": spec}));
        assert_eq!(policy("sluice-backstop", &whole), None);
        let changed = |pointer: &str, value: Value| {
            let mut spec = whole.clone();
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            spec.pointer_mut(parent).unwrap()[key] = value;
            policy("sluice-backstop", &spec).unwrap_or_default()
        };
        let mut tell = whole.clone();
        tell["failurePolicy"] = json!("Ignore");
        assert_eq!(policy("sluice-tell", &tell), None);
        assert_eq!(changed("/failurePolicy", json!("Ignore")), "its failurePolicy is Ignore, not Fail");
        assert_eq!(changed("/paramKind", json!({"kind": "ConfigMap"})), "it has a paramKind");
        let less = "its matchConstraints cover less";
        let labels = json!({"matchLabels": {"hold": "yes"}});
        assert_eq!(changed("/matchConstraints/namespaceSelector", labels.clone()), less);
        assert_eq!(changed("/matchConstraints/objectSelector", labels), less);
        assert_eq!(changed("/matchConstraints/resourceRules/0/operations", json!(["CREATE"])), less);
        assert_eq!(changed("/matchConstraints/resourceRules/0/resourceNames", json!(["web"])), less);
        assert_eq!(changed("/matchConstraints/excludeResourceRules", json!([{"resources": ["*"]}])), less);
    }
}
