//! Where evidence comes from: Prometheus for counters, Alertmanager for alerts.
//!
//! The controller and the command line ask alike, so that a question that a person tries is the one that decides. What
//! is learned arrives as a [`sluice_core::evidence::Sample`] or [`sluice_core::evidence::Poll`]. A failure is an answer
//! too: it says in words which field, address or query is to blame, and is never taken for health.

pub mod alertmanager;
pub mod auth;
mod last;
pub mod prometheus;
pub mod queries;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use reqwest::Response;
use sluice_core::{
    api::ProviderConfig,
    evidence::{DataState, Trouble},
};
use tokio::sync::{Semaphore, SemaphorePermit};

use alertmanager::Alertmanager;
use auth::{Credentials, SecretData};
use prometheus::Prometheus;

/// Requests in flight at one provider; others wait.
const CONCURRENCY: usize = 16;
/// Longest wait for one of those places.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(5);
/// Largest answer that is read. 4 MiB hold some 20,000 series or 3,000 alerts.
const BODY_LIMIT: usize = 4 << 20;

/// Why there is no client for a provider. The fault is in the configuration, not at the provider.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProviderError {
    /// The configuration contradicts itself.
    #[error("{0}")]
    Config(String),
    /// The Secret lacks what the configuration names.
    #[error("{field}: key {key:?} of Secret {secret}: {problem}")]
    Secret {
        /// Field that names the key.
        field: String,
        /// Name of the key.
        key: String,
        /// Namespace and name of the Secret.
        secret: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A header can't be sent.
    #[error("{field}: {problem}")]
    Header {
        /// Field of the header.
        field: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// TLS can't be set up.
    #[error("{0}")]
    Certificates(String),
    /// The field is for another kind of provider.
    #[error("peers: Prometheus has no peers; put a load balancer's or Thanos' address into url")]
    Peers,
}

impl From<ProviderError> for Trouble {
    fn from(error: ProviderError) -> Self {
        Self::new(DataState::QueryError, error.to_string())
    }
}

/// The providers in use, one client for each different configuration. Clones share them.
#[derive(Clone)]
pub struct Providers {
    agent: String,
    heard: Heard,
    prometheus: Cache<Prometheus>,
    alertmanager: Cache<Alertmanager>,
}

/// Told of every answer: the kind of provider, and `ok`, `down` or `refused`.
pub type Heard = Arc<dyn Fn(&'static str, &'static str) + Send + Sync>;

/// Namespace of the Secret, and the configuration.
pub type ProviderKey = (String, ProviderConfig);
type Cache<T> = Arc<Mutex<BTreeMap<ProviderKey, (Credentials, Arc<T>)>>>;

impl Providers {
    /// No providers yet. `agent` is the user agent of every request.
    pub fn new(agent: &str, heard: Heard) -> Self {
        Self { agent: agent.to_owned(), heard, prometheus: Arc::default(), alertmanager: Arc::default() }
    }

    /// The Prometheus of `config`. `namespace` is where its Secret is, `secret` what that holds now: with other
    /// values than before the client is made anew.
    pub fn prometheus(
        &self,
        namespace: &str,
        config: &ProviderConfig,
        secret: &SecretData,
    ) -> Result<Arc<Prometheus>, ProviderError> {
        if !config.peers.is_empty() {
            return Err(ProviderError::Peers);
        }
        self.cached(&self.prometheus, namespace, config, secret, |client| {
            Prometheus::new(client, config, self.heard.clone())
        })
    }

    /// The Alertmanager of `config`, as [`Providers::prometheus`].
    pub fn alertmanager(
        &self,
        namespace: &str,
        config: &ProviderConfig,
        secret: &SecretData,
    ) -> Result<Arc<Alertmanager>, ProviderError> {
        self.cached(&self.alertmanager, namespace, config, secret, |client| {
            Ok(Alertmanager::new(client, config, self.heard.clone()))
        })
    }

    /// Drops the clients, and with them the connections, of configurations that nobody uses any more.
    pub fn retain(&self, in_use: impl Fn(&ProviderKey) -> bool) {
        lock(&self.prometheus).retain(|key, _| in_use(key));
        lock(&self.alertmanager).retain(|key, _| in_use(key));
    }

    fn cached<T>(
        &self,
        cache: &Cache<T>,
        namespace: &str,
        config: &ProviderConfig,
        secret: &SecretData,
        make: impl FnOnce(reqwest::Client) -> Result<T, ProviderError>,
    ) -> Result<Arc<T>, ProviderError> {
        let credentials = Credentials::resolve(config, namespace, secret)?;
        let key = (namespace.to_string(), config.clone());
        if let Some((known, client)) = lock(cache).get(&key)
            && *known == credentials
        {
            return Ok(client.clone());
        }
        let client = Arc::new(make(credentials.client(config, &self.agent)?)?);
        lock(cache).insert(key, (credentials, client.clone()));
        Ok(client)
    }
}

fn lock<T>(cache: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Entries are inserted whole: a panic elsewhere leaves nothing half-done.
    cache.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How a request failed.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Failure {
    /// No answer, or one of the provider's or a proxy's own trouble.
    Down(String),
    /// The provider answers and refuses.
    Refused(String),
}

impl Failure {
    fn of_request(address: &str, error: &reqwest::Error) -> Self {
        let cause = innermost(error);
        Self::Down(if error.is_timeout() {
            format!("{address}: no answer within {} s", auth::TOTAL_TIMEOUT.as_secs())
        } else if error.is_connect() {
            format!(
                "{address}: can't connect: {cause}; is its url right, and does the network let this process reach it?"
            )
        } else {
            format!("{address}: the connection broke: {cause}")
        })
    }

    /// A status code without a readable explanation.
    fn of_status(address: &str, response: &Response) -> Option<Self> {
        let status = response.status();
        if status.is_success() {
            return None;
        }
        let location = response.headers().get(reqwest::header::LOCATION).and_then(|v| v.to_str().ok());
        Some(match (status.as_u16(), location) {
            (300..=399, to) => Self::Refused(format!(
                "{address}: redirects to {:.200}; redirects are not followed: put the final address into url",
                to.unwrap_or("nowhere")
            )),
            (401 | 403, _) => Self::Refused(format!(
                "{address}: {status}: the sign-in is refused; check bearerTokenKey, basicUserKey and headers"
            )),
            (404 | 405, _) => Self::Refused(format!(
                "{address}: {status}: no such API here; check url: it is the part before /api"
            )),
            (429 | 500..=599, _) => Self::Down(format!("{address}: {status}")),
            _ => Self::Refused(format!("{address}: {status}")),
        })
    }

    fn into_trouble(self) -> Trouble {
        match self {
            Self::Down(message) => Trouble::new(DataState::ProviderDown, message),
            Self::Refused(message) => Trouble::new(DataState::QueryError, message),
        }
    }

    fn message(&self) -> &str {
        match self {
            Self::Down(message) | Self::Refused(message) => message,
        }
    }

    fn label(&self) -> &'static str {
        match self {
            Self::Down(_) => "down",
            Self::Refused(_) => "refused",
        }
    }
}

/// A place among the requests in flight.
async fn place<'a>(places: &'a Semaphore, address: &str) -> Result<SemaphorePermit<'a>, Failure> {
    match tokio::time::timeout(QUEUE_TIMEOUT, places.acquire()).await {
        Ok(Ok(permit)) => Ok(permit),
        _ => Err(Failure::Down(format!(
            "{address}: {CONCURRENCY} requests are in flight and none ended within {} s",
            QUEUE_TIMEOUT.as_secs()
        ))),
    }
}

/// The body, at most [`BODY_LIMIT`] of it.
async fn body(address: &str, mut response: Response) -> Result<Vec<u8>, Failure> {
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() > BODY_LIMIT => {
                let limit = BODY_LIMIT >> 20;
                return Err(Failure::Refused(format!("{address}: the answer is larger than {limit} MiB")));
            }
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => return Ok(body),
            Err(error) => return Err(Failure::of_request(address, &error)),
        }
    }
}

/// The first `limit` characters, on one line: other people's text goes into conditions and events.
fn excerpt(text: &str, limit: usize) -> String {
    let mut line: String =
        text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(limit + 1).collect();
    if line.chars().count() > limit {
        line = line.chars().take(limit.saturating_sub(3)).collect::<String>() + "...";
    }
    line
}

/// The cause at the bottom: `connection refused` says more than `client error (Connect)`.
pub fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

#[cfg(test)]
mod testing {
    //! A server on a free port that answers as told, for wire formats, status codes and timeouts.

    use super::Providers;
    use std::sync::Arc;

    /// The address of a server that answers as `app` does.
    pub async fn serve(app: axum::Router) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        tokio::spawn(async move { axum::serve(listener, app).await });
        url
    }

    /// Providers that nobody counts.
    pub fn providers() -> Providers {
        // An error means that it is installed already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Providers::new("test", Arc::new(|_, _| {}))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::providers;
    use k8s_openapi::{ByteString, api::core::v1::Secret};

    fn secret(token: &str) -> SecretData {
        let data = [("token".to_string(), ByteString(token.as_bytes().to_vec()))].into();
        SecretData::from(&Secret { data: Some(data), ..Default::default() })
    }

    #[test]
    fn a_client_is_shared_until_its_secret_changes() {
        let providers = providers();
        let config = ProviderConfig {
            url: "http://prometheus:9090".into(),
            bearer_token_key: Some("token".into()),
            ..Default::default()
        };
        let get = |namespace: &str, token| {
            providers.prometheus(namespace, &config, &secret(token)).expect("a client")
        };
        let first = get("a", "one");
        assert!(Arc::ptr_eq(&first, &get("a", "one")));
        assert!(!Arc::ptr_eq(&first, &get("b", "one")), "another namespace has another Secret");
        let second = get("a", "two");
        assert!(!Arc::ptr_eq(&first, &second));
        assert!(Arc::ptr_eq(&second, &get("a", "two")));
        providers.retain(|(namespace, _)| namespace == "a");
        assert!(Arc::ptr_eq(&second, &get("a", "two")));
        assert_eq!(lock(&providers.prometheus).len(), 1);
    }

    #[test]
    fn prometheus_has_no_peers() {
        let config =
            ProviderConfig { url: "http://a".into(), peers: vec!["http://b".into()], ..Default::default() };
        let providers = providers();
        assert_eq!(
            providers.prometheus("a", &config, &SecretData::default()).err(),
            Some(ProviderError::Peers)
        );
    }

    #[test]
    fn a_configuration_error_is_a_query_error_in_words() {
        let config = ProviderConfig { url: "prometheus".into(), ..Default::default() };
        let providers = providers();
        let trouble: Trouble =
            providers.prometheus("a", &config, &SecretData::default()).expect_err("no scheme").into();
        assert_eq!(trouble.state, DataState::QueryError);
        assert!(trouble.message.contains("url \"prometheus\""), "{}", trouble.message);
    }

    #[test]
    fn excerpts_are_one_short_line() {
        assert_eq!(excerpt("a\nb", 10), "a b");
        assert_eq!(excerpt("abcdefghij", 10), "abcdefghij");
        assert_eq!(excerpt("abcdefghijk", 10), "abcdefg...");
        assert_eq!(excerpt("äöüäöüäöüäö", 10), "äöüäöüä...");
    }
}
