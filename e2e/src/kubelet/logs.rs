//! The part of a kubelet's server that `kubectl logs` needs: the API server fetches a container's output here.

use std::convert::Infallible;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use futures::stream;
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::Shared;
use crate::cluster::certs::Certs;

/// The port in the node's status.
pub(super) const PORT: u16 = 10250;

type Body = BoxBody<Bytes, Infallible>;

/// Binds the port; the future serves for ever.
pub(super) async fn server(shared: Arc<Shared>, certs: &Certs) -> Result<impl Future<Output = ()> + use<>> {
    let chain = vec![CertificateDer::from_pem_file(certs.file("apiserver.crt")).context("certificate")?];
    let key = PrivateKeyDer::from_pem_file(certs.file("apiserver.key")).context("key")?;
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).context("TLS")?;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind(("127.0.0.1", PORT)).await.context("port of the kubelet")?;
    Ok(async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            };
            let (shared, acceptor) = (shared.clone(), acceptor.clone());
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let service = service_fn(move |request| {
                    let shared = shared.clone();
                    async move { Ok::<_, Infallible>(answer(&shared, &request)) }
                });
                let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    })
}

/// `/containerLogs/<namespace>/<pod>/<container>?tailLines=n&follow=true`.
fn answer(shared: &Arc<Shared>, request: &Request<Incoming>) -> Response<Body> {
    let parts: Vec<&str> = request.uri().path().split('/').skip(1).collect();
    let ["containerLogs", namespace, pod, container] = parts[..] else {
        return text(StatusCode::NOT_FOUND, "node local serves container logs only\n");
    };
    let file = shared.pod_dir(namespace, pod).join(format!("{container}.log"));
    let query: Vec<(&str, &str)> =
        request.uri().query().unwrap_or_default().split('&').filter_map(|p| p.split_once('=')).collect();
    let value = |name: &str| query.iter().find(|(k, _)| *k == name).map(|(_, v)| *v);
    let Ok(bytes) = std::fs::read(&file) else {
        return text(StatusCode::NOT_FOUND, "this container has printed nothing yet\n");
    };
    let from = value("tailLines").and_then(|n| n.parse().ok()).map_or(0, |n| last_lines(&bytes, n));
    if value("follow") != Some("true") {
        return Response::new(Full::from(bytes[from..].to_vec()).boxed());
    }
    let key = (namespace.to_owned(), pod.to_owned(), container.to_owned());
    let running = {
        let shared = shared.clone();
        move || shared.running.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&key)
    };
    Response::new(follow(file, from as u64, running))
}

fn text(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = Response::new(Full::from(text).boxed());
    *response.status_mut() = status;
    response
}

/// Where the last lines begin.
fn last_lines(bytes: &[u8], lines: usize) -> usize {
    let body = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let mut ends = body.iter().enumerate().rev().filter(|(_, b)| **b == b'\n').map(|(i, _)| i + 1);
    if lines == 0 { bytes.len() } else { ends.nth(lines - 1).unwrap_or(0) }
}

/// What is in the file and what comes, until the process has ended.
fn follow(file: PathBuf, from: u64, running: impl Fn() -> bool + Send + Sync + 'static) -> Body {
    let frames = stream::unfold((file, from, running), |(file, mut at, running)| async move {
        loop {
            let alive = running();
            match read_from(&file, at) {
                Ok(bytes) if !bytes.is_empty() => {
                    at += bytes.len() as u64;
                    return Some((Ok(Frame::data(Bytes::from(bytes))), (file, at, running)));
                }
                _ if !alive => return None,
                _ => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        }
    });
    StreamBody::new(frames).boxed()
}

fn read_from(file: &Path, at: u64) -> std::io::Result<Vec<u8>> {
    let mut file = std::fs::File::open(file)?;
    file.seek(SeekFrom::Start(at))?;
    let mut bytes = Vec::new();
    file.take(1 << 20).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::last_lines;

    #[test]
    fn last_lines_with_and_without_a_final_newline() {
        for (text, lines, expected) in [
            ("a\nb\nc\n", 2, "b\nc\n"),
            ("a\nb\nc", 1, "c"),
            ("a\n", 5, "a\n"),
            ("a\nb\n", 0, ""),
            ("", 3, ""),
        ] {
            assert_eq!(&text[last_lines(text.as_bytes(), lines)..], expected, "{lines} of {text:?}");
        }
    }
}
