//! Tells Prometheus which pods there are: the role `pod` of its Kubernetes discovery, with the same `__meta_` labels,
//! served for its HTTP discovery. Debian's Prometheus comes in two seconds but without the Kubernetes discovery;
//! building one that has it would make a first start minutes longer. For the same reason the few series of
//! kube-state-metrics that Sluice asks for are served here, from the same pods, under their names there.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use futures::StreamExt;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::{WatchStreamExt, reflector, watcher};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Where the targets are served, and on the path `/metrics` what kube-state-metrics would export.
pub const ADDRESS: &str = "127.0.0.1:8078";

/// Serves until it is dropped.
pub struct Discovery {
    _stop: DropGuard,
}

impl Discovery {
    /// Follows all pods and serves them as targets.
    pub async fn start(client: Client) -> Result<Self> {
        let listener = TcpListener::bind(ADDRESS).await.context("port of the discovery")?;
        let (store, writer) = reflector::store::<Pod>();
        let stop = CancellationToken::new();
        let pods = watcher(Api::<Pod>::all(client), watcher::Config::default().fields("spec.nodeName!="));
        let pods = pods.default_backoff().reflect(writer);
        tokio::spawn(stop.clone().run_until_cancelled_owned(async move {
            let mut pods = pin!(pods);
            while pods.next().await.is_some() {}
        }));
        tokio::spawn(stop.clone().run_until_cancelled_owned(serve(listener, store)));
        Ok(Self { _stop: stop.drop_guard() })
    }
}

async fn serve(listener: TcpListener, store: reflector::Store<Pod>) {
    let store = Arc::new(store);
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let store = store.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let pods = store.state();
                let (body, kind) = if request.uri().path() == "/metrics" {
                    (metrics(&pods), "text/plain; version=0.0.4")
                } else {
                    let targets: Vec<Value> = pods.iter().flat_map(|p| targets(p)).collect();
                    (Value::Array(targets).to_string(), "application/json")
                };
                let mut response = Response::new(Full::<Bytes>::from(body));
                response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
                async move { Ok::<_, Infallible>(response) }
            });
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// Restarts, the reason of the last end, and the age of each pod, as kube-state-metrics exports them.
fn metrics(pods: &[Arc<Pod>]) -> String {
    let mut text = String::new();
    for pod in pods {
        let of = |text: &Option<String>| text.clone().unwrap_or_default();
        let labels =
            format!("namespace=\"{}\",pod=\"{}\"", of(&pod.metadata.namespace), of(&pod.metadata.name));
        if let Some(created) = &pod.metadata.creation_timestamp {
            text += &format!("kube_pod_created{{{labels}}} {}\n", created.0.as_second());
        }
        let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
        for container in statuses {
            let labels = format!("{labels},container=\"{}\"", container.name);
            text += &format!(
                "kube_pod_container_status_restarts_total{{{labels}}} {}\n",
                container.restart_count
            );
            let last = container.last_state.as_ref().and_then(|state| state.terminated.as_ref());
            if let Some(reason) = last.and_then(|last| last.reason.as_deref()) {
                text += &format!(
                    "kube_pod_container_status_last_terminated_reason{{{labels},reason=\"{reason}\"}} 1\n"
                );
            }
        }
    }
    text
}

/// One target for each container port, or one without a port when none is declared; none before the pod has an
/// address.
fn targets(pod: &Pod) -> Vec<Value> {
    let (Some(spec), Some(status)) = (&pod.spec, &pod.status) else { return Vec::new() };
    let Some(address) = status.pod_ip.as_deref().filter(|ip| !ip.is_empty()) else { return Vec::new() };
    let text = |v: Option<&str>| v.unwrap_or_default().to_owned();
    let target = |host: String, port: Option<(Option<&str>, i32)>| {
        let mut labels = json!({
            "__meta_kubernetes_namespace": text(pod.metadata.namespace.as_deref()),
            "__meta_kubernetes_pod_name": text(pod.metadata.name.as_deref()),
            "__meta_kubernetes_pod_ip": address,
            "__meta_kubernetes_pod_phase": text(status.phase.as_deref()),
            "__meta_kubernetes_pod_node_name": text(spec.node_name.as_deref()),
        });
        if let Some((name, number)) = port {
            labels["__meta_kubernetes_pod_container_port_number"] = number.to_string().into();
            labels["__meta_kubernetes_pod_container_port_name"] = text(name).into();
        }
        for (key, value) in pod.metadata.labels.iter().flatten() {
            let key: String = key.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
            labels[format!("__meta_kubernetes_pod_label_{key}")] = value.as_str().into();
        }
        json!({"targets": [host], "labels": labels})
    };
    let ports: Vec<_> = spec.containers.iter().flat_map(|c| c.ports.iter().flatten()).collect();
    if ports.is_empty() {
        return vec![target(address.to_owned(), None)];
    }
    let with_port = |p: &&k8s_openapi::api::core::v1::ContainerPort| {
        target(format!("{address}:{}", p.container_port), Some((p.name.as_deref(), p.container_port)))
    };
    ports.iter().map(with_port).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restarts_are_exported_with_the_reason_of_the_last() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "status": {"containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": true, "restartCount": 3,
                "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}}]},
        }))
        .expect("pod");
        let text = metrics(&[Arc::new(pod)]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines,
            [
                "kube_pod_created{namespace=\"n\",pod=\"p\"} 1767225600",
                "kube_pod_container_status_restarts_total{namespace=\"n\",pod=\"p\",container=\"c\"} 3",
                "kube_pod_container_status_last_terminated_reason{namespace=\"n\",pod=\"p\",container=\"c\",reason=\"OOMKilled\"} 1",
            ]
        );
    }

    #[test]
    fn a_pod_without_address_is_no_target_and_ports_are_targets_of_their_own() {
        let pod = |status: Value| -> Pod {
            serde_json::from_value(json!({
                "metadata": {"name": "p", "namespace": "n", "labels": {"app.kubernetes.io/name": "x"}},
                "spec": {"nodeName": "local", "containers": [{"name": "c", "ports": [
                    {"name": "http", "containerPort": 80}, {"name": "metrics", "containerPort": 9464}]}]},
                "status": status,
            }))
            .expect("pod")
        };
        assert!(targets(&pod(json!({"phase": "Pending"}))).is_empty());
        let both = targets(&pod(json!({"phase": "Running", "podIP": "198.19.0.1"})));
        assert_eq!(both.len(), 2);
        assert_eq!(both[1]["targets"], json!(["198.19.0.1:9464"]));
        assert_eq!(both[1]["labels"]["__meta_kubernetes_pod_container_port_number"], "9464");
        assert_eq!(both[1]["labels"]["__meta_kubernetes_pod_label_app_kubernetes_io_name"], "x");
    }
}
