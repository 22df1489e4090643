//! Where a rollout's evidence comes from, as this machine may ask: settings of the installation, provider, credentials.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::Api;
use kube::api::ListParams;
use sluice_core::api::{Header, PROVIDER_SECRET, ProgressiveRollout, ProviderConfig};
use sluice_core::config::Config;
use sluice_providers::alertmanager::Alertmanager;
use sluice_providers::auth::SecretData;
use sluice_providers::prometheus::Prometheus;
use sluice_providers::{ProviderError, Providers};

use crate::args::Reach;
use crate::cluster::{Cluster, limited};
use crate::fail::{Failure, root};

/// Labels of the installation's settings.
const SETTINGS: &str = "app.kubernetes.io/name=sluice";
const SETTINGS_KEY: &str = "config.yaml";
/// User agent of requests to providers.
const AGENT: &str = concat!("kubectl-sluice/", env!("CARGO_PKG_VERSION"));

/// What the installation says, or why that is not known.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The settings; the built-in ones when they can't be read.
    pub config: Config,
    /// Namespace of the controller, if it is known.
    namespace: Option<String>,
    /// What to say to people about settings that can't be read.
    pub caution: Option<String>,
}

impl Settings {
    /// Reads the installation's settings.
    pub async fn read(cluster: &Cluster) -> Self {
        let unread = |why: String| Self {
            caution: Some(format!(
                "the installation's settings can't be read ({why}): the class table and guards are the built-in ones"
            )),
            ..Self::default()
        };
        let namespace = match cluster.controllers().await {
            Ok(found) => match found.into_iter().next() {
                Some(controller) => controller.namespace,
                None => return unread("no controller was found".to_owned()),
            },
            Err(failure) => return unread(failure.text),
        };
        let api: Api<ConfigMap> = Api::namespaced(cluster.client(), &namespace);
        let found = match limited(api.list(&ListParams::default().labels(SETTINGS))).await {
            Ok(found) => found.items,
            Err(error) => return unread(format!("ConfigMaps of namespace {namespace}: {}", root(&error))),
        };
        let text = found.into_iter().find_map(|map| map.data?.remove(SETTINGS_KEY));
        match text.as_deref().map(serde_saphyr::from_str::<Config>) {
            Some(Ok(config)) => Self { config, namespace: Some(namespace), caution: None },
            Some(Err(error)) => unread(format!("{SETTINGS_KEY} is that of another version: {error}")),
            None => unread(format!("namespace {namespace} has no ConfigMap with {SETTINGS_KEY}")),
        }
    }
}

/// Which provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Prometheus,
    Alertmanager,
}

impl Kind {
    fn flag(self) -> &'static str {
        match self {
            Self::Prometheus => "prometheus",
            Self::Alertmanager => "alertmanager",
        }
    }

    fn port(self) -> u16 {
        match self {
            Self::Prometheus => 9090,
            Self::Alertmanager => 9093,
        }
    }
}

/// The providers of one rollout.
pub struct Sources<'a> {
    cluster: &'a Cluster,
    rollout: &'a ProgressiveRollout,
    settings: &'a Settings,
    reach: &'a Reach,
    providers: Providers,
}

impl<'a> Sources<'a> {
    /// Nothing is asked yet.
    pub fn new(
        cluster: &'a Cluster,
        rollout: &'a ProgressiveRollout,
        settings: &'a Settings,
        reach: &'a Reach,
    ) -> Self {
        Self { cluster, rollout, settings, reach, providers: Providers::new(AGENT, Arc::new(|_, _| {})) }
    }

    /// The Prometheus that the controller asks, or the one that the command line names.
    pub async fn prometheus(&self) -> Result<Arc<Prometheus>, Failure> {
        let (namespace, config, secret) = self
            .choose(
                Kind::Prometheus,
                self.reach.prometheus.as_deref(),
                self.rollout.spec.prometheus.as_ref(),
                self.settings.config.prometheus.as_ref(),
            )
            .await?;
        let client = self.providers.prometheus(&namespace, &config, &secret);
        client.map_err(|error| failure(Kind::Prometheus, &error))
    }

    /// The Alertmanager that the controller asks, or the one that the command line names.
    pub async fn alertmanager(&self, url: Option<&str>) -> Result<Arc<Alertmanager>, Failure> {
        let (namespace, config, secret) = self
            .choose(
                Kind::Alertmanager,
                url,
                self.rollout.spec.alertmanager.as_ref(),
                self.settings.config.alertmanager.as_ref(),
            )
            .await?;
        let client = self.providers.alertmanager(&namespace, &config, &secret);
        client.map_err(|error| failure(Kind::Alertmanager, &error))
    }

    async fn choose(
        &self,
        kind: Kind,
        given: Option<&str>,
        own: Option<&ProviderConfig>,
        installed: Option<&ProviderConfig>,
    ) -> Result<(String, ProviderConfig, SecretData), Failure> {
        if let Some(url) = given {
            let (config, secret) = self.given(url)?;
            return Ok((String::new(), config, secret));
        }
        let namespace = &self.cluster.namespace;
        let (namespace, config) = match (own, installed, &self.settings.namespace) {
            (Some(own), ..) => (namespace, own),
            (None, Some(installed), Some(namespace)) => (namespace, installed),
            _ => {
                let flag = kind.flag();
                return Err(Failure::new(format!(
                    "no address of {flag} is known: spec.{flag} of the rollout is not set, {}: add --{flag} URL",
                    match &self.settings.caution {
                        Some(caution) => caution.clone(),
                        None => format!("and the installation's {flag}.url neither"),
                    }
                )));
            }
        };
        let secret = self.secret(namespace, config).await?;
        Ok((namespace.clone(), config.clone(), secret))
    }

    /// What the command line says, in the terms of a rollout.
    fn given(&self, url: &str) -> Result<(ProviderConfig, SecretData), Failure> {
        let header = |(name, value): &(String, String)| Header {
            name: name.clone(),
            value: Some(value.clone()),
            value_key: None,
        };
        let mut data = BTreeMap::new();
        let mut key = |flag: &str, file: &Option<std::path::PathBuf>| -> Result<Option<String>, Failure> {
            let Some(file) = file else { return Ok(None) };
            data.insert(flag.to_owned(), ByteString(read(flag, file)?));
            Ok(Some(flag.to_owned()))
        };
        let config = ProviderConfig {
            url: url.to_owned(),
            headers: self.reach.headers.iter().map(header).collect(),
            bearer_token_key: key("bearer-file", &self.reach.bearer_file)?,
            ca_key: key("ca-file", &self.reach.ca_file)?,
            ..ProviderConfig::default()
        };
        Ok((config, SecretData::from(&Secret { data: Some(data), ..Secret::default() })))
    }

    /// The Secret that a provider refers to; not read when it refers to none.
    async fn secret(&self, namespace: &str, config: &ProviderConfig) -> Result<SecretData, Failure> {
        if !config.refers_to_secret() {
            return Ok(SecretData::default());
        }
        let api: Api<Secret> = Api::namespaced(self.cluster.client(), namespace);
        let read = limited(api.get_opt(PROVIDER_SECRET)).await;
        read.map(|secret| SecretData::from(secret.as_ref())).map_err(|error| {
            Failure::new(format!(
                "Secret {namespace}/{PROVIDER_SECRET}, with the credentials for {}, can't be read: {}. Give the address with \
                 --prometheus or --alertmanager, and --bearer-file, --header or --ca-file.",
                config.url,
                root(&error)
            ))
        })
    }
}

fn read(flag: &str, file: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(file).map_err(|error| Failure::new(format!("--{flag} {}: {error}", file.display())))
}

fn failure(kind: Kind, error: &ProviderError) -> Failure {
    Failure::new(format!("{}: {error}", kind.flag()))
}

/// A sentence on what to try when an address is one that only pods reach.
fn forward(kind: Kind, url: &str) -> Option<String> {
    let host = url.split_once("://")?.1.split(['/', ':']).next()?;
    let mut labels = host.split('.');
    let (service, namespace) = (labels.next()?, labels.next());
    let inside = match (namespace, labels.next()) {
        (None, _) => service != "localhost",
        (Some(_), Some("svc") | None) => !service.bytes().all(|b| b.is_ascii_digit()),
        _ => false,
    };
    let namespace = namespace.map_or_else(String::new, |namespace| format!(" -n {namespace}"));
    let (flag, port) = (kind.flag(), kind.port());
    inside.then(|| {
        format!(
            ". that address is one inside the cluster: kubectl port-forward{namespace} service/{service} {port}, and add \
             --{flag} http://127.0.0.1:{port}"
        )
    })
}

/// What to add to the trouble of a Prometheus that was asked from here; empty when there is nothing to try.
pub fn hint(address: &str) -> String {
    forward(Kind::Prometheus, address).unwrap_or_default()
}

/// The same for an Alertmanager.
pub fn alertmanager_hint(address: &str) -> String {
    forward(Kind::Alertmanager, address).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_inside_the_cluster_comes_with_a_way_in() {
        for url in ["http://prometheus.monitoring:9090", "http://prometheus.monitoring.svc.cluster.local/x"] {
            assert!(hint(url).contains("port-forward -n monitoring service/prometheus 9090"), "{url}");
        }
        assert!(hint("http://prometheus:9090").contains("port-forward service/prometheus"));
        for url in ["http://127.0.0.1:9090", "http://localhost:9090", "https://prometheus.example.com", "x"] {
            assert_eq!(hint(url), "", "{url}");
        }
    }
}
