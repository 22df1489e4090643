//! Startup, liveness and readiness probes over HTTP and TCP.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use hyper::Method;
use k8s_openapi::api::core::v1::{Container, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// Asks once, within the probe's timeout.
pub(super) async fn ask(probe: &Probe, container: &Container, ip: &str) -> Result<()> {
    let limit = Duration::from_secs(positive(probe.timeout_seconds, 1));
    if let Some(get) = &probe.http_get {
        let port = port(&get.port, container)?;
        ensure!(get.scheme.as_deref().is_none_or(|s| s == "HTTP"), "node local probes HTTP only");
        let path = get.path.as_deref().unwrap_or("/");
        let url = format!("http://{}:{port}{path}", get.host.as_deref().unwrap_or(ip));
        let headers: Vec<_> =
            get.http_headers.iter().flatten().map(|h| (h.name.clone(), h.value.clone())).collect();
        let (status, _) = crate::http::request(Method::GET, &url, &headers, "", limit).await?;
        ensure!((200..400).contains(&status), "HTTP probe failed with statuscode: {status}");
        return Ok(());
    }
    if let Some(socket) = &probe.tcp_socket {
        let address = (socket.host.as_deref().unwrap_or(ip).to_owned(), port(&socket.port, container)?);
        tokio::time::timeout(limit, tokio::net::TcpStream::connect(address)).await.context("timeout")??;
        return Ok(());
    }
    bail!("node local has HTTP and TCP probes only")
}

/// A field with a default whose value must be at least 1.
pub(super) fn positive(value: Option<i32>, default: u64) -> u64 {
    value.and_then(|v| u64::try_from(v).ok()).filter(|v| *v > 0).unwrap_or(default)
}

fn port(port: &IntOrString, container: &Container) -> Result<u16> {
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => {
            let named = container.ports.iter().flatten().find(|p| p.name.as_deref() == Some(name));
            named.map(|p| p.container_port)
        }
    };
    number.and_then(|n| u16::try_from(n).ok()).with_context(|| format!("no port {port:?} in the container"))
}
