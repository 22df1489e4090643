//! The HTTP side: a connection belongs to the pod whose address it came to.

use std::convert::Infallible;
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};

use super::{BUCKETS, Counters, Inner, PodServer};

pub(super) async fn serve(inner: Arc<Inner>, listener: TcpListener) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let inner = inner.clone();
                tokio::spawn(async move { connection(&inner, stream).await });
            }
            // Out of file descriptors, or a connection that is gone already: neither may end the service.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

async fn connection(inner: &Inner, stream: TcpStream) {
    let address = match stream.local_addr().map(|a| a.ip()) {
        Ok(IpAddr::V4(address)) => address,
        _ => Ipv4Addr::UNSPECIFIED,
    };
    let Some(pod) = inner.server(address) else {
        // No such pod: what a client sees of an address that is gone.
        let _ = stream.set_zero_linger();
        return;
    };
    let _ = stream.set_nodelay(true);
    let gone = pod.gone.clone();
    let service = service_fn(move |request| {
        let pod = pod.clone();
        async move { Ok::<_, Infallible>(answer(&pod, &request).await) }
    });
    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => return,
        () = gone.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    // The request under way is finished, none is taken any more.
    let _ = tokio::time::timeout(Duration::from_secs(10), connection).await;
}

async fn answer(pod: &PodServer, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let behaviour = pod.behaviour();
    match request.uri().path() {
        "/metrics" => {
            let mut response = Response::new(Full::from(metrics(&pod.counters)));
            let text = hyper::header::HeaderValue::from_static("text/plain; version=0.0.4");
            response.headers_mut().insert(hyper::header::CONTENT_TYPE, text);
            response
        }
        "/healthz" | "/readyz" => {
            let status = if behaviour.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            respond(status, String::new(), pod)
        }
        path => {
            let started = Instant::now();
            if !behaviour.latency.is_zero() {
                tokio::time::sleep(behaviour.latency).await;
            }
            let status = if pod.fails(behaviour.error_permille) {
                StatusCode::from_u16(behaviour.error_status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
            } else {
                StatusCode::OK
            };
            count(&pod.counters, status.as_u16(), started.elapsed());
            let body = serde_json::json!({
                "pod": pod.name, "namespace": pod.namespace, "image": pod.image, "path": path,
            });
            respond(status, body.to_string(), pod)
        }
    }
}

/// Each answer names its pod and image, so that clients can count who served them.
fn respond(status: StatusCode, body: String, pod: &PodServer) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    for (name, value) in [("x-pod", &pod.name), ("x-image", &pod.image)] {
        if let Ok(value) = hyper::header::HeaderValue::from_str(value) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

fn count(counters: &Counters, code: u16, took: Duration) {
    *counters.by_code.lock().unwrap_or_else(PoisonError::into_inner).entry(code).or_default() += 1;
    let seconds = took.as_secs_f64();
    if let Some(bucket) = BUCKETS.iter().position(|le| seconds <= *le) {
        counters.buckets[bucket].fetch_add(1, Ordering::Relaxed);
    }
    counters.sum_micros.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    counters.count.fetch_add(1, Ordering::Relaxed);
}

fn metrics(counters: &Counters) -> String {
    let mut text = String::with_capacity(1024);
    text.push_str(
        "# HELP http_requests_total Requests by status code.\n# TYPE http_requests_total counter\n",
    );
    for (code, n) in counters.by_code.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        let _ = writeln!(text, "http_requests_total{{code=\"{code}\"}} {n}");
    }
    text.push_str("# HELP http_request_duration_seconds Time to answer.\n");
    text.push_str("# TYPE http_request_duration_seconds histogram\n");
    let mut cumulative = 0;
    for (le, bucket) in BUCKETS.iter().zip(&counters.buckets) {
        cumulative += bucket.load(Ordering::Relaxed);
        let _ = writeln!(text, "http_request_duration_seconds_bucket{{le=\"{le}\"}} {cumulative}");
    }
    let count = counters.count.load(Ordering::Relaxed).max(cumulative);
    let sum = Duration::from_micros(counters.sum_micros.load(Ordering::Relaxed)).as_secs_f64();
    let _ = writeln!(text, "http_request_duration_seconds_bucket{{le=\"+Inf\"}} {count}");
    let _ = writeln!(
        text,
        "http_request_duration_seconds_sum {sum}\nhttp_request_duration_seconds_count {count}"
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exposition_is_cumulative_and_starts_at_zero() {
        let counters = Counters::default();
        counters.by_code.lock().expect("lock").extend([(200, 0), (500, 0)]);
        assert!(metrics(&counters).contains("http_requests_total{code=\"500\"} 0\n"));
        count(&counters, 200, Duration::from_millis(7));
        count(&counters, 500, Duration::from_millis(30));
        let text = metrics(&counters);
        for line in [
            "http_requests_total{code=\"200\"} 1",
            "http_requests_total{code=\"500\"} 1",
            "http_request_duration_seconds_bucket{le=\"0.005\"} 0",
            "http_request_duration_seconds_bucket{le=\"0.01\"} 1",
            "http_request_duration_seconds_bucket{le=\"0.05\"} 2",
            "http_request_duration_seconds_bucket{le=\"+Inf\"} 2",
            "http_request_duration_seconds_sum 0.037",
            "http_request_duration_seconds_count 2",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is missing in\n{text}");
        }
    }
}
