//! The shortest proof that the cluster works: a Deployment answers through the Gateway without a failure, and its
//! pods' metrics are in Prometheus.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::cluster::{ADDRESSES, Cluster, until};
use crate::load::{Load, Target};

const SHOP: &str = r#"
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: web, namespace: default}
spec:
  gatewayClassName: traefik
  listeners: [{name: web, protocol: HTTP, port: 8000, allowedRoutes: {namespaces: {from: All}}}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: shop, namespace: default}
spec:
  replicas: 4
  selector: {matchLabels: {app: shop}}
  template:
    metadata: {labels: {app: shop}}
    spec:
      nodeSelector: {type: kwok}
      tolerations: [{key: kwok.x-k8s.io/node, operator: Exists}]
      containers: [{name: shop, image: "shop:1", ports: [{containerPort: 8080}]}]
---
apiVersion: v1
kind: Service
metadata: {name: shop, namespace: default}
spec: {selector: {app: shop}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: shop, namespace: default}
spec: {parentRefs: [{name: web}], hostnames: [shop.local], rules: [{backendRefs: [{name: shop, port: 80}]}]}
"#;

/// Runs it; prints what took how long.
pub async fn run(cluster: &Cluster) -> Result<()> {
    println!("cluster up in {:.1} s", cluster.started_in.as_secs_f64());
    let begin = Instant::now();
    cluster.apply(SHOP).await?;
    until("shop answers through the Gateway", Duration::from_secs(30), Duration::from_millis(50), || async {
        let host = [("host".to_owned(), "shop.local".to_owned())];
        let url = format!("http://{}/", ADDRESSES.gateway);
        let (status, _) =
            crate::http::request(hyper::Method::GET, &url, &host, "", Duration::from_secs(2)).await?;
        ensure!(status == 200, "status {status}");
        Ok(())
    })
    .await?;
    println!("first 200 through Traefik {:.1} s after the manifests", begin.elapsed().as_secs_f64());

    let load = Load::start(Target::gateway("shop.local", 100));
    tokio::time::sleep(Duration::from_secs(2)).await;
    let counts = load.stop().await;
    println!(
        "{} requests, {} failed ({}), p50 {:.1} ms, p99 {:.1} ms",
        counts.requests,
        counts.failed,
        counts.failures(),
        counts.latency_ms(0.5),
        counts.latency_ms(0.99)
    );
    ensure!(counts.requests >= 190, "only {} requests were sent in 2 s", counts.requests);
    ensure!(counts.non_200 == 0 && counts.failed == 0, "failures: {}", counts.failures());

    let query = r#"sum by (pod) (http_requests_total{namespace="default",pod=~"shop-.*",code="200"})"#;
    let begin = Instant::now();
    let sent = counts.requests as f64;
    until(
        "Prometheus has all requests of all 4 pods",
        Duration::from_secs(40),
        Duration::from_millis(200),
        || async {
            let (pods, seen) =
                (cluster.monitoring.query(query).await?.len(), cluster.monitoring.sum(query).await?);
            ensure!(pods == 4 && seen.unwrap_or(0.0) >= sent, "{pods} pods, {seen:?} of {sent} requests");
            Ok(())
        },
    )
    .await?;
    let by_router =
        r#"sum(traefik_service_requests_total{service=~".*-svc-default-shop-[0-9]+@kubernetesgateway"})"#;
    until(
        "Prometheus has the router's count",
        Duration::from_secs(10),
        Duration::from_millis(200),
        || async {
            let seen = cluster.monitoring.sum(by_router).await?;
            ensure!(seen.unwrap_or(0.0) >= sent, "{seen:?} of {sent} requests");
            Ok(())
        },
    )
    .await?;
    println!("pods and router in Prometheus {:.1} s after the load", begin.elapsed().as_secs_f64());
    Ok(())
}
