//! A small HTTP client for what the harness itself asks: probes, Prometheus, Alertmanager, readiness of servers.

use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{Method, Request};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

fn client() -> &'static Client<HttpConnector, Full<Bytes>> {
    static CLIENT: OnceLock<Client<HttpConnector, Full<Bytes>>> = OnceLock::new();
    CLIENT.get_or_init(|| Client::builder(TokioExecutor::new()).pool_max_idle_per_host(4).build_http())
}

/// Sends one request; returns the status and the body. The limit covers both.
pub async fn request(
    method: Method,
    url: &str,
    headers: &[(String, String)],
    body: &str,
    limit: Duration,
) -> Result<(u16, Bytes)> {
    let mut request = Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let request = request.body(Full::new(Bytes::copy_from_slice(body.as_bytes()))).context("request")?;
    tokio::time::timeout(limit, async {
        let response = client().request(request).await?;
        let status = response.status().as_u16();
        anyhow::Ok((status, response.into_body().collect().await?.to_bytes()))
    })
    .await
    .with_context(|| format!("{url}: no answer within {limit:?}"))?
    .with_context(|| url.to_owned())
}

/// GET within 5 s; an answer other than 200 is an error that quotes it.
pub async fn get(url: &str) -> Result<Bytes> {
    let (status, body) = request(Method::GET, url, &[], "", Duration::from_secs(5)).await?;
    if status != 200 {
        bail!("{url}: {status} {}", String::from_utf8_lossy(&body).trim());
    }
    Ok(body)
}

/// Percent-encodes a query value.
pub fn encode(value: &str) -> String {
    value.bytes().fold(String::with_capacity(value.len() * 2), |mut out, b| {
        if b.is_ascii_alphanumeric() || b"-_.~".contains(&b) {
            out.push(b as char);
        } else {
            out.push_str(&format!("%{b:02X}"));
        }
        out
    })
}
