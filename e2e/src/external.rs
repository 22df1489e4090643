//! Another cluster instead of the local one: only when `E2E_KUBECONFIG` names its kubeconfig and a person has typed the
//! context's name. A plain `KUBECONFIG` is never looked at.
//!
//! The run brings its own nodes, pods, router and monitoring, all inside the sandbox, and the other cluster brings the
//! API server and its controllers. The sandbox has no network, so the process outside passes connections to the API
//! server through a socket file; TLS stays between the two ends.

use std::io::{BufRead, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use serde_json::Value;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};

use crate::cluster::ADDRESSES;
use crate::sandbox;

/// Says inside the sandbox where the socket and the kubeconfig are.
const FOLDER: &str = "SLUICE_E2E_RELAY";

/// The other cluster, as seen from inside the sandbox.
#[derive(Clone, Debug)]
pub struct External {
    folder: PathBuf,
}

impl External {
    /// What the process outside has prepared; None on the local cluster.
    pub fn inside() -> Option<Self> {
        std::env::var_os(FOLDER).map(|folder| Self { folder: folder.into() })
    }

    /// The kubeconfig, with the server's address inside the sandbox.
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.join("kubeconfig")
    }

    /// The CA of the cluster's API server.
    pub fn ca_pem(&self) -> Result<String> {
        let config: Value =
            serde_json::from_slice(&std::fs::read(self.kubeconfig())?).context("kubeconfig")?;
        let cluster = config.pointer("/clusters/0/cluster").context("cluster")?;
        if let Some(data) = cluster.get("certificate-authority-data").and_then(Value::as_str) {
            let bytes =
                base64::engine::general_purpose::STANDARD.decode(data).context("certificate authority")?;
            return String::from_utf8(bytes).context("certificate authority");
        }
        let file = cluster.get("certificate-authority").and_then(Value::as_str);
        let file = file.context("the cluster's certificate-authority is needed by the pods of the run")?;
        std::fs::read_to_string(file).with_context(|| file.to_owned())
    }

    /// Passes connections on from the sandbox's loopback, for ever.
    pub async fn relay(&self) -> Result<impl Future<Output = ()> + use<>> {
        let address = ADDRESSES.api_server.trim_start_matches("https://");
        let listener = TcpListener::bind(address).await.context("port of the API server")?;
        let socket = self.folder.join("api.sock");
        Ok(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let socket = socket.clone();
                tokio::spawn(async move {
                    if let Ok(mut far) = UnixStream::connect(&socket).await {
                        let _ = copy_bidirectional(&mut near, &mut far).await;
                    }
                });
            }
        })
    }
}

/// Outside the sandbox, when `E2E_KUBECONFIG` is set: asks, runs everything inside and passes connections. None when
/// the local cluster is meant or this is the process inside.
pub fn run_outside() -> Result<Option<ExitCode>> {
    let Some(path) = std::env::var_os("E2E_KUBECONFIG").filter(|p| !p.is_empty() && !sandbox::inside())
    else {
        return Ok(None);
    };
    let path = PathBuf::from(path);
    let text =
        std::fs::read_to_string(&path).with_context(|| format!("E2E_KUBECONFIG={}", path.display()))?;
    let (config, context, server) = select(&text, path.parent().unwrap_or(Path::new(".")))?;
    confirm(&context, &server, &mut std::io::stdin().lock())?;
    // Only this user can enter it: the kubeconfig in it holds credentials.
    let folder = tempfile::Builder::new()
        .prefix("sluice-e2e-")
        .permissions(std::fs::Permissions::from_mode(0o700))
        .tempdir()
        .context("folder of the run")?;
    let folder = folder.path();
    std::fs::write(folder.join("kubeconfig"), config.to_string()).context("kubeconfig of the run")?;
    tokio::runtime::Runtime::new()?.block_on(outside(folder, &server)).map(Some)
}

/// The kubeconfig reduced to its current context and turned to the relay, the context's name, the server's host and
/// port.
fn select(text: &str, base: &Path) -> Result<(Value, String, String)> {
    let config: Value = serde_saphyr::from_str(text).context("E2E_KUBECONFIG is not YAML")?;
    let context = config.get("current-context").and_then(Value::as_str).unwrap_or_default().to_owned();
    ensure!(!context.is_empty(), "E2E_KUBECONFIG has no current-context: kubectl config use-context NAME");
    let named = |list: &str, name: &str| {
        let all = config.get(list).and_then(Value::as_array).into_iter().flatten();
        let found = all.into_iter().find(|e| e.get("name").and_then(Value::as_str) == Some(name)).cloned();
        found.with_context(|| format!("E2E_KUBECONFIG: {list} has no {name}"))
    };
    let entry = named("contexts", &context)?;
    let of_context =
        |key: &str| entry.pointer(&format!("/context/{key}")).and_then(Value::as_str).unwrap_or_default();
    let mut cluster = named("clusters", of_context("cluster"))?;
    let mut user = named("users", of_context("user"))?;

    let url = cluster.pointer("/cluster/server").and_then(Value::as_str).unwrap_or_default().to_owned();
    let Some(authority) = url.strip_prefix("https://").map(|r| r.split('/').next().unwrap_or_default())
    else {
        bail!("E2E_KUBECONFIG: server {url:?} is not an https:// address");
    };
    if let Some((_, path)) = url.trim_start_matches("https://").split_once('/')
        && !path.is_empty()
    {
        bail!("E2E_KUBECONFIG: server {url} has a path, which the run cannot reach");
    }
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => (host, port),
        _ => (authority, "443"),
    };
    let server = format!("{host}:{port}");
    let fields = cluster.pointer_mut("/cluster").and_then(Value::as_object_mut).context("cluster")?;
    fields.insert("server".into(), ADDRESSES.api_server.into());
    fields.entry("tls-server-name").or_insert(host.trim_matches(['[', ']']).into());
    for (object, keys) in [
        (cluster.pointer_mut("/cluster"), &["certificate-authority"][..]),
        (user.pointer_mut("/user"), &["client-certificate", "client-key", "tokenFile"][..]),
    ] {
        let Some(object) = object.and_then(Value::as_object_mut) else { continue };
        for key in keys {
            if let Some(file) = object.get(*key).and_then(Value::as_str).map(|f| base.join(f)) {
                let file = std::path::absolute(file).context("path in E2E_KUBECONFIG")?;
                object.insert((*key).into(), file.display().to_string().into());
            }
        }
    }
    let config = serde_json::json!({
        "apiVersion": "v1", "kind": "Config", "current-context": context,
        "contexts": [entry], "clusters": [cluster], "users": [user],
    });
    Ok((config, context, server))
}

fn confirm(context: &str, server: &str, input: &mut impl BufRead) -> Result<()> {
    eprint!(
        "E2E_KUBECONFIG selects the context {context} at {server}. The run adds nodes (fake-*, local), CRDs, cluster\n\
         policies and namespaces there; nodes and namespaces are taken away again. Type the context's name to go on: "
    );
    std::io::stderr().flush().context("terminal")?;
    let mut answer = String::new();
    input.read_line(&mut answer).context("answer")?;
    ensure!(answer.trim() == context, "{:?} is not {context:?}: nothing was done", answer.trim());
    Ok(())
}

async fn outside(folder: &Path, server: &str) -> Result<ExitCode> {
    let listener = UnixListener::bind(folder.join("api.sock")).context("socket of the run")?;
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let mut child =
        tokio::process::Command::from(sandbox::command()?).env(FOLDER, folder).kill_on_drop(true).spawn()?;
    loop {
        tokio::select! {
            ended = child.wait() => {
                let status = ended.context("the run")?;
                let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
                return Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)));
            }
            near = listener.accept() => {
                let (mut near, _) = near.context("socket of the run")?;
                let server = server.to_owned();
                tokio::spawn(async move {
                    if let Ok(mut far) = TcpStream::connect(&server).await {
                        let _ = far.set_nodelay(true);
                        let _ = copy_bidirectional(&mut near, &mut far).await;
                    }
                });
            }
            // The terminal's interrupt reached the run too: it ends by itself, and its end is waited for.
            _ = interrupt.recv() => {}
            _ = terminate.recv() => return Ok(ExitCode::from(143)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = "
current-context: kind-a
contexts:
- {name: kind-a, context: {cluster: a, user: ua, namespace: x}}
- {name: prod, context: {cluster: p, user: up}}
clusters:
- {name: p, cluster: {server: 'https://prod.example'}}
- {name: a, cluster: {server: 'https://127.0.0.1:40123', certificate-authority: ca.crt}}
users:
- {name: ua, user: {client-certificate: /etc/a.crt, client-key: keys/a.key}}
- {name: up, user: {token: secret}}
";

    #[test]
    fn only_the_current_context_is_taken_and_its_server_is_the_relay() {
        let (config, context, server) = select(CONFIG, Path::new("/home/u/.kube")).expect("config");
        assert_eq!((context.as_str(), server.as_str()), ("kind-a", "127.0.0.1:40123"));
        assert!(!config.to_string().contains("prod") && !config.to_string().contains("secret"));
        assert_eq!(config["clusters"][0]["cluster"]["server"], ADDRESSES.api_server);
        assert_eq!(config["clusters"][0]["cluster"]["tls-server-name"], "127.0.0.1");
        assert_eq!(config["clusters"][0]["cluster"]["certificate-authority"], "/home/u/.kube/ca.crt");
        assert_eq!(config["users"][0]["user"]["client-certificate"], "/etc/a.crt");
        assert_eq!(config["users"][0]["user"]["client-key"], "/home/u/.kube/keys/a.key");
    }

    #[test]
    fn what_cannot_be_reached_or_has_no_context_is_refused() {
        for (from, to, says) in [
            ("current-context: kind-a", "current-context: ''", "no current-context"),
            ("https://127.0.0.1:40123", "http://127.0.0.1:8001", "not an https"),
            ("https://127.0.0.1:40123", "https://rancher.example/k8s/c-1", "has a path"),
            ("cluster: a, user: ua", "cluster: b, user: ua", "clusters has no b"),
        ] {
            let error = select(&CONFIG.replace(from, to), Path::new("/")).expect_err(says);
            assert!(format!("{error:#}").contains(says), "{error:#}");
        }
    }

    #[test]
    fn nothing_but_the_contexts_name_confirms() {
        for (typed, ok) in
            [("kind-a\n", true), ("kind-a", true), ("y\n", false), ("", false), ("kind-b\n", false)]
        {
            assert_eq!(confirm("kind-a", "h:1", &mut typed.as_bytes()).is_ok(), ok, "{typed:?}");
        }
    }
}
