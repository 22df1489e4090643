//! Server-side apply of YAML documents of any kind.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::{Context, Result};
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::discovery::{ApiCapabilities, ApiResource, Scope, pinned_kind};
use kube::{Client, ResourceExt};
use tokio::sync::Mutex;

use super::leftovers::MANAGER;

/// Applies documents; remembers which resource a kind is, so that each costs one request.
#[derive(Clone)]
pub struct Applier {
    client: Client,
    kinds: Arc<Mutex<HashMap<GroupVersionKind, (ApiResource, ApiCapabilities)>>>,
}

impl Applier {
    pub fn new(client: Client) -> Self {
        Self { client, kinds: Arc::default() }
    }

    /// Applies all documents as the run's own manager, taking over fields of other managers.
    pub async fn apply(&self, yaml: &str) -> Result<()> {
        self.apply_with(&PatchParams::apply(MANAGER).force(), yaml).await
    }

    /// Applies all documents as the given manager; a conflict is an error.
    pub async fn apply_as(&self, manager: &str, yaml: &str) -> Result<()> {
        self.apply_with(&PatchParams::apply(manager), yaml).await
    }

    async fn apply_with(&self, params: &PatchParams, yaml: &str) -> Result<()> {
        for object in parse(yaml)? {
            let name = object.name_any();
            let types = object.types.as_ref().context("apiVersion and kind")?;
            let label = format!("{} {name}", types.kind);
            let api = self.api(&object).await.with_context(|| label.clone())?;
            api.patch(&name, params, &Patch::Apply(&object)).await.with_context(|| label)?;
        }
        Ok(())
    }

    async fn api(&self, object: &DynamicObject) -> Result<Api<DynamicObject>> {
        let gvk = GroupVersionKind::try_from(object.types.as_ref().context("apiVersion and kind")?)?;
        let known = self.kinds.lock().await.get(&gvk).cloned();
        let (resource, capabilities) = match known {
            Some(known) => known,
            None => {
                let found = pinned_kind(&self.client, &gvk).await?;
                self.kinds.lock().await.insert(gvk, found.clone());
                found
            }
        };
        Ok(match capabilities.scope {
            Scope::Cluster => Api::all_with(self.client.clone(), &resource),
            Scope::Namespaced => {
                let namespace = object.metadata.namespace.as_deref().unwrap_or("default");
                Api::namespaced_with(self.client.clone(), namespace, &resource)
            }
        })
    }
}

/// Splits a YAML text into its objects; empty documents are skipped.
pub fn parse(yaml: &str) -> Result<Vec<DynamicObject>> {
    yaml.split("\n---")
        .map(|d| d.strip_prefix("---").unwrap_or(d))
        .filter(|d| d.lines().any(|l| !l.trim().is_empty() && !l.trim_start().starts_with('#')))
        .map(|d| serde_saphyr::from_str(d).with_context(|| d.lines().take(6).collect::<Vec<_>>().join(" | ")))
        .collect()
}
