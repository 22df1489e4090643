//! Faults by HTTP, for a person beside a running cluster: `GET /pods` lists the pods that answer, `GET /faults` the
//! rules, `PUT /faults` replaces them all. The body is the list that `GET` shows:
//! `[[{"namespace": "shop", "image": "shop:2"}, {"errorPermille": 50}]]`.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use super::{Inner, Rules};

pub(super) async fn serve(inner: Arc<Inner>, listener: TcpListener) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let inner = inner.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let inner = inner.clone();
                async move { Ok::<_, Infallible>(answer(&inner, request).await) }
            });
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(inner: &Inner, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (status, text) = match (request.method(), request.uri().path()) {
        (&Method::GET, "/pods") => json(&inner.pods()),
        (&Method::GET, "/faults") => json(&*inner.rules.borrow()),
        (&Method::PUT, "/faults") => match request.into_body().collect().await {
            Ok(body) => match serde_json::from_slice::<Rules>(&body.to_bytes()) {
                Ok(rules) => {
                    inner.rules.send_replace(rules.clone());
                    json(&rules)
                }
                Err(e) => (StatusCode::BAD_REQUEST, format!("not a list of [selection, fault]: {e}")),
            },
            Err(e) => (StatusCode::BAD_REQUEST, e.to_string()),
        },
        _ => (StatusCode::NOT_FOUND, "GET /pods, GET /faults, PUT /faults".into()),
    };
    let mut response = Response::new(Full::from(text + "\n"));
    *response.status_mut() = status;
    response
}

fn json<T: serde::Serialize>(value: &T) -> (StatusCode, String) {
    match serde_json::to_string_pretty(value) {
        Ok(text) => (StatusCode::OK, text),
        Err(e) => (StatusCode::INTERNAL_SERVER_ERROR, e.to_string()),
    }
}
