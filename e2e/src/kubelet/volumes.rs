//! A pod's volumes as folders: emptyDir, configMap, secret, downwardAPI, projected with the ServiceAccount's token.

use std::fs;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{
    DownwardAPIVolumeFile, KeyToPath, Pod, ServiceAccount, ServiceAccountTokenProjection, Volume,
};
use kube::api::PostParams;
use kube::{Api, Client};

use super::spec::{Sources, field_value};

/// A token that must be renewed in time.
#[derive(Clone, Debug)]
pub(super) struct Token {
    file: PathBuf,
    audiences: Vec<String>,
    seconds: i64,
}

/// Fills one folder per volume under `dir`. An error is a missing reference: the pod's containers wait for it.
pub(super) async fn write(
    client: &Client,
    pod: &Pod,
    ip: &str,
    ca_pem: &str,
    dir: &Path,
) -> Result<Vec<Token>> {
    let mut tokens = Vec::new();
    for volume in pod.spec.iter().flat_map(|s| s.volumes.iter().flatten()) {
        let folder = dir.join(&volume.name);
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        let writer = Writer { client, pod, ip, ca_pem, folder: &folder };
        tokens.extend(writer.volume(volume).await.with_context(|| format!("volume {}", volume.name))?);
    }
    Ok(tokens)
}

struct Writer<'a> {
    client: &'a Client,
    pod: &'a Pod,
    ip: &'a str,
    ca_pem: &'a str,
    folder: &'a Path,
}

impl Writer<'_> {
    fn sources(&self) -> Sources<'_> {
        let namespace = self.pod.metadata.namespace.as_deref().unwrap_or("default");
        Sources { client: self.client, namespace }
    }

    async fn volume(&self, volume: &Volume) -> Result<Vec<Token>> {
        let mut tokens = Vec::new();
        if let Some(v) = &volume.config_map {
            self.config_map(&v.name, v.optional, v.items.as_deref()).await?;
        } else if let Some(v) = &volume.secret {
            self.secret(v.secret_name.as_deref().unwrap_or_default(), v.optional, v.items.as_deref()).await?;
        } else if let Some(v) = &volume.downward_api {
            self.downward(v.items.iter().flatten())?;
        } else if let Some(v) = &volume.projected {
            for source in v.sources.iter().flatten() {
                if let Some(s) = &source.config_map {
                    self.projected_config_map(&s.name, s.optional, s.items.as_deref()).await?;
                } else if let Some(s) = &source.secret {
                    self.secret(&s.name, s.optional, s.items.as_deref()).await?;
                } else if let Some(s) = &source.downward_api {
                    self.downward(s.items.iter().flatten())?;
                } else if let Some(s) = &source.service_account_token {
                    tokens.push(self.token(s).await?);
                } else {
                    bail!("a projected source is of a kind that node local does not have");
                }
            }
        } else if volume.empty_dir.is_none() {
            bail!("node local has no volumes of this kind");
        }
        Ok(tokens)
    }

    async fn config_map(
        &self,
        name: &str,
        optional: Option<bool>,
        items: Option<&[KeyToPath]>,
    ) -> Result<()> {
        let values = self.sources().config_map(name, optional.unwrap_or(false)).await?;
        self.files(values, items)
    }

    /// As above, but the cluster's own CA is known before the controller manager has published it.
    async fn projected_config_map(
        &self,
        name: &str,
        optional: Option<bool>,
        items: Option<&[KeyToPath]>,
    ) -> Result<()> {
        if name == "kube-root-ca.crt" {
            return self.file("ca.crt", self.ca_pem);
        }
        self.config_map(name, optional, items).await
    }

    async fn secret(&self, name: &str, optional: Option<bool>, items: Option<&[KeyToPath]>) -> Result<()> {
        let values = self.sources().secret(name, optional.unwrap_or(false)).await?;
        self.files(values, items)
    }

    fn downward<'b>(&self, items: impl Iterator<Item = &'b DownwardAPIVolumeFile>) -> Result<()> {
        for item in items {
            let path = item.field_ref.as_ref().context("resourceFieldRef in a volume")?;
            self.file(&item.path, &field_value(self.pod, self.ip, &path.field_path)?)?;
        }
        Ok(())
    }

    fn files(
        &self,
        values: std::collections::BTreeMap<String, String>,
        items: Option<&[KeyToPath]>,
    ) -> Result<()> {
        match items {
            None => values.iter().try_for_each(|(name, text)| self.file(name, text)),
            Some(items) => items.iter().try_for_each(|item| {
                let text = values
                    .get(&item.key)
                    .with_context(|| format!("references non-existent key: {}", item.key))?;
                self.file(&item.path, text)
            }),
        }
    }

    fn file(&self, path: &str, text: &str) -> Result<()> {
        save(&inside(self.folder, path)?, text)
    }

    async fn token(&self, source: &ServiceAccountTokenProjection) -> Result<Token> {
        let token = Token {
            file: inside(self.folder, &source.path)?,
            audiences: source.audience.iter().cloned().collect(),
            seconds: source.expiration_seconds.unwrap_or(3600),
        };
        token.write(self.client, self.pod).await?;
        Ok(token)
    }
}

impl Token {
    async fn write(&self, client: &Client, pod: &Pod) -> Result<()> {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
        let account = pod.spec.as_ref().and_then(|s| s.service_account_name.as_deref()).unwrap_or("default");
        let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
        let request = TokenRequest {
            spec: Some(TokenRequestSpec {
                audiences: Some(self.audiences.clone()),
                expiration_seconds: Some(self.seconds),
                // Bound to the pod: the token dies with it, as a kubelet's does.
                bound_object_ref: Some(BoundObjectReference {
                    api_version: Some("v1".into()),
                    kind: Some("Pod".into()),
                    name: pod.metadata.name.clone(),
                    uid: pod.metadata.uid.clone(),
                }),
            }),
            ..TokenRequest::default()
        };
        let answer = accounts.create_token_request(account, &PostParams::default(), &request).await?;
        let token = answer.status.and_then(|s| s.token).context("token request without an answer")?;
        save(&self.file, &token)
    }
}

/// Renews tokens for ever, each when four fifths of its life are over.
pub(super) async fn renew(client: &Client, pod: &Pod, tokens: &[Token]) {
    let Some(shortest) = tokens.iter().map(|t| t.seconds).min() else { return std::future::pending().await };
    let pause = Duration::from_secs(u64::try_from(shortest * 4 / 5).unwrap_or(2880));
    loop {
        tokio::time::sleep(pause).await;
        for token in tokens {
            while token.write(client, pod).await.is_err() {
                tokio::time::sleep(Duration::from_secs(5)).await;
            }
        }
    }
}

/// Replaces a file in one step, so that no reader sees half of it.
fn save(file: &Path, text: &str) -> Result<()> {
    let name = || file.display().to_string();
    if let Some(parent) = file.parent() {
        fs::create_dir_all(parent).with_context(name)?;
    }
    let fresh = file.with_extension("new~");
    fs::write(&fresh, text).with_context(name)?;
    fs::rename(&fresh, file).with_context(name)
}

/// A path of a spec below a folder; one that leaves it is refused.
fn inside(folder: &Path, path: &str) -> Result<PathBuf> {
    let relative = Path::new(path);
    if relative.components().all(|c| matches!(c, Component::Normal(_))) {
        Ok(folder.join(relative))
    } else {
        bail!("path {path} leaves its volume")
    }
}
