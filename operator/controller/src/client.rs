//! The two clients of the API server, and the limit on every call.
//!
//! kube's defaults are made for tools: 30 s to connect, no limit on reading, and up to 15 retries of any verb
//! that obey any `Retry-After`. Here a call fails within its limit and the caller decides again. Abort has a
//! client of its own, so that it never waits for a connection or a pool that other work keeps busy.

use std::{future::Future, path::PathBuf, time::Duration};

use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig, KubeconfigError},
};

use crate::error::CallError;

/// Limit on opening a connection.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Limit on one call of the abort lane.
pub const ABORT_LIMIT: Duration = Duration::from_secs(2);
/// Limit on one call that goes forward or tidies up.
pub const FORWARD_LIMIT: Duration = Duration::from_secs(5);
/// Silence on a connection after which it is dead. Longer than the longest watch that an API server may make of ours
/// (290 s and 5 s of patience; we ask for 60 s): single calls have the shorter limits above.
const READ_TIMEOUT: Duration = Duration::from_secs(320);
/// Limit on a stalled write.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// Two clients with pools of their own.
#[derive(Clone)]
pub struct Clients {
    /// For watches, reads and everything that goes forward.
    pub normal: Client,
    /// For returning traffic to stable. Never used for anything that can be slow.
    pub abort: Client,
    /// Namespace of this process, or of the kubeconfig's context.
    pub namespace: String,
}

/// Why there are no clients.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The file that was named can't be used.
    #[error("--kubeconfig {path:?} can't be used: {source}")]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: KubeconfigError,
    },
    /// No file was named, and this is not a pod.
    #[error(
        "not in a cluster ({0}): run inside a pod with a ServiceAccount token, or name a file with --kubeconfig"
    )]
    NotInCluster(#[source] kube::config::InClusterError),
    /// TLS or sign-in data is unusable.
    #[error("the connection to the API server can't be set up: {0}")]
    Setup(#[source] Box<kube::Error>),
}

impl Clients {
    /// Clients from the file that was named, or else from the pod's own ServiceAccount. `$KUBECONFIG` and
    /// `~/.kube/config` are not looked at: a controller must not act on a cluster by accident.
    ///
    /// Needs a TLS provider: see [`install_crypto`].
    pub async fn connect(kubeconfig: Option<PathBuf>) -> Result<Self, ClientError> {
        let config = match kubeconfig {
            Some(path) => {
                let fail = |source| ClientError::Kubeconfig { path: path.clone(), source };
                let file = Kubeconfig::read_from(&path).map_err(fail)?;
                Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.map_err(fail)?
            }
            None => Config::incluster().map_err(ClientError::NotInCluster)?,
        };
        Self::from_config(config)
    }

    /// Clients with our limits on top of `config`.
    pub fn from_config(config: Config) -> Result<Self, ClientError> {
        let client = |read| {
            Client::try_from(with_limits(config.clone(), read)).map_err(|e| ClientError::Setup(Box::new(e)))
        };
        Ok(Self {
            normal: client(READ_TIMEOUT)?,
            abort: client(ABORT_LIMIT)?,
            namespace: config.default_namespace.clone(),
        })
    }
}

fn with_limits(mut config: Config, read_timeout: Duration) -> Config {
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    config.read_timeout = Some(read_timeout);
    config.write_timeout = Some(WRITE_TIMEOUT);
    // Else the time a pooled connection sat idle counts against the next answer.
    config.reset_reader_on_write = true;
    config.default_retry = false;
    if let Ok(agent) = user_agent().parse() {
        config.headers.push((axum::http::header::USER_AGENT, agent));
    }
    config
}

/// `sluice/<version>`: what the API server's audit log and the providers see.
pub fn user_agent() -> String {
    format!("sluice/{}", env!("CARGO_PKG_VERSION"))
}

/// Installs ring as the TLS provider of this process. Call it first; calling it again changes nothing.
pub fn install_crypto() {
    // An error means that a provider is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// Runs one call with a limit. The call is dropped when the limit is reached; whether the server carried it
/// out is then unknown, so every call must be safe to repeat.
pub async fn bounded<T>(
    what: impl Into<String>,
    limit: Duration,
    call: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, CallError> {
    match tokio::time::timeout(limit, call).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(CallError::from_kube(what, error)),
        Err(_) => Err(CallError::timed_out(what, limit)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::CallErrorKind;
    use crate::testing::api_server;
    use axum::http::{HeaderMap, StatusCode};
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::Api;
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    #[tokio::test]
    async fn a_busy_server_is_asked_once_and_sees_who_asks() {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        let app = axum::Router::new().fallback(move |headers: HeaderMap| async move {
            count.fetch_add(1, Ordering::SeqCst);
            let agent = headers["user-agent"].to_str().unwrap_or_default().to_string();
            let body = format!(
                r#"{{"kind":"Status","apiVersion":"v1","status":"Failure","message":"{agent}","code":429,"details":{{"retryAfterSeconds":7}}}}"#
            );
            (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "7")], body)
        });
        let clients = api_server(app).await;
        for client in [clients.normal, clients.abort] {
            let maps: Api<ConfigMap> = Api::namespaced(client, "default");
            let error = bounded("get ConfigMap a", FORWARD_LIMIT, maps.get("a")).await.expect_err("429");
            assert_eq!(error.kind, CallErrorKind::Throttled);
            assert_eq!(error.retry_after, Some(Duration::from_secs(7)));
            assert_eq!(error.message, user_agent());
        }
        assert_eq!(asked.load(Ordering::SeqCst), 2, "no retries below us");
    }

    #[tokio::test]
    async fn a_silent_server_costs_no_more_than_the_limit() {
        let app = axum::Router::new().fallback(|| async { std::future::pending::<()>().await });
        let clients = api_server(app).await;
        let maps: Api<ConfigMap> = Api::namespaced(clients.normal, "default");
        let error =
            bounded("get ConfigMap a", Duration::from_millis(100), maps.get("a")).await.expect_err("silence");
        assert_eq!(error.kind, CallErrorKind::TimedOut);
        // Without `bounded`, the abort client still gives up by itself.
        let maps: Api<ConfigMap> = Api::namespaced(clients.abort, "default");
        let error = tokio::time::timeout(ABORT_LIMIT * 2, maps.get("a"))
            .await
            .expect("gives up")
            .expect_err("silence");
        assert_eq!(CallError::from_kube("get", error).kind, CallErrorKind::Unreachable);
    }

    #[tokio::test]
    async fn a_closed_port_is_named() {
        install_crypto();
        let config = Config::new("http://127.0.0.1:9".parse().expect("a URI"));
        let clients = Clients::from_config(config).expect("clients");
        let maps: Api<ConfigMap> = Api::namespaced(clients.abort, "default");
        let error = bounded("get ConfigMap a", ABORT_LIMIT, maps.get("a")).await.expect_err("closed");
        assert_eq!(error.kind, CallErrorKind::Unreachable);
        assert!(error.to_string().contains("refused"), "{error}");
    }

    #[tokio::test]
    async fn a_missing_kubeconfig_is_named() {
        let error = Clients::connect(Some("/nowhere/config".into())).await.err().expect("no such file");
        assert!(error.to_string().contains("--kubeconfig") && error.to_string().contains("/nowhere/config"));
    }
}
