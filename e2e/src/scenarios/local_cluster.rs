//! The ground that every other scenario stands on: pods fail as real pods do, the router and Prometheus see it, and
//! the node `local` runs what a pod spec says. A fault that cannot be seen here would make other scenarios pass for
//! nothing.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures::FutureExt;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::Api;
use kube::api::{DeleteParams, ListParams, LogParams, Patch, PatchParams};
use serde_json::{Value, json};

use super::Scenario;
use crate::cluster::{ADDRESSES, Cluster, until};
use crate::http;
use crate::kubelet::LocalImage;
use crate::load::{Load, Target};
use crate::smoke;
use crate::workload::{Fault, Lifecycle, Select};

const SOON: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(100);

/// Those of this file. They need the cluster alone, not the installation.
pub fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario { name: "cluster_smoke", alone: false, play: |w| smoke::run(w.cluster).boxed_local() },
        Scenario {
            name: "cluster_template_faults",
            alone: false,
            play: |w| template_faults(w.cluster).boxed_local(),
        },
        Scenario {
            name: "cluster_run_time_faults",
            alone: false,
            play: |w| run_time_faults(w.cluster).boxed_local(),
        },
        Scenario {
            name: "cluster_deleted_pod",
            alone: false,
            play: |w| deleted_pod(w.cluster).boxed_local(),
        },
        Scenario { name: "cluster_local_node", alone: false, play: |w| local_node(w.cluster).boxed_local() },
    ]
}

/// A namespace of one scenario, made anew.
async fn namespace(cluster: &Cluster, name: &str) -> Result<()> {
    cluster.make_namespace(name).await?;
    until("the namespace has its ServiceAccount", SOON, LOOK, || async {
        let accounts: Api<k8s_openapi::api::core::v1::ServiceAccount> =
            Api::namespaced(cluster.client.clone(), name);
        accounts.get("default").await.map(drop).map_err(Into::into)
    })
    .await
}

async fn remove(cluster: &Cluster, name: &str) -> Result<()> {
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    namespaces.delete(name, &DeleteParams::default()).await?;
    Ok(())
}

fn deployment(namespace: &str, name: &str, image: &str, replicas: i32, env: &Value) -> String {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {
                    "nodeSelector": {"type": "kwok"},
                    "tolerations": [{"key": "kwok.x-k8s.io/node", "operator": "Exists"}],
                    "containers": [{"name": "app", "image": image, "env": env}],
                },
            },
        },
    })
    .to_string()
}

async fn pods(cluster: &Cluster, namespace: &str, app: &str) -> Result<Vec<Pod>> {
    let api: Api<Pod> = Api::namespaced(cluster.client.clone(), namespace);
    Ok(api.list(&ListParams::default().labels(&format!("app={app}"))).await?.items)
}

/// Reason of the first container's waiting state, and how often it was restarted.
fn waiting(pod: &Pod) -> (Option<String>, i32) {
    let status = pod.status.as_ref().and_then(|s| s.container_statuses.as_ref()).and_then(|c| c.first());
    let reason = status.and_then(|s| s.state.as_ref()?.waiting.as_ref()?.reason.clone());
    (reason, status.map_or(0, |s| s.restart_count))
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|s| s.conditions.iter().flatten());
    conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True")
}

async fn ready_replicas(cluster: &Cluster, namespace: &str, app: &str) -> Result<i32> {
    let sets: Api<ReplicaSet> = Api::namespaced(cluster.client.clone(), namespace);
    let list = sets.list(&ListParams::default().labels(&format!("app={app}"))).await?;
    Ok(list.items.iter().filter_map(|s| s.status.as_ref()?.ready_replicas).sum())
}

async fn template_faults(cluster: &Cluster) -> Result<()> {
    let ns = "faults-template";
    namespace(cluster, ns).await?;
    let on = json!([{"name": "FAULT_NEVER_READY", "value": "true"}]);
    for (name, image, env) in [
        ("good", "app:1", json!([])),
        ("crash", "app:2-crash", json!([])),
        ("pull", "app:2-nopull", json!([])),
        ("unready", "app:2", on),
    ] {
        cluster.apply(&deployment(ns, name, image, 1, &env)).await?;
    }
    for (name, reason) in [("crash", "CrashLoopBackOff"), ("pull", "ImagePullBackOff")] {
        until(&format!("{name} says {reason}"), SOON, LOOK, || async {
            let pods = pods(cluster, ns, name).await?;
            let (is, restarts) = pods.first().map(waiting).context("no pod")?;
            ensure!(is.as_deref() == Some(reason), "the reason is {is:?}");
            ensure!(name != "crash" || restarts >= 1, "not restarted yet");
            Ok(())
        })
        .await?;
    }
    until("the good pod is ready", SOON, LOOK, || async {
        ensure!(ready_replicas(cluster, ns, "good").await? == 1, "not ready");
        Ok(())
    })
    .await?;
    for name in ["crash", "pull", "unready"] {
        let ready = ready_replicas(cluster, ns, name).await?;
        ensure!(ready == 0, "the ReplicaSet of {name} counts {ready} ready pods");
    }
    let unready = pods(cluster, ns, "unready").await?;
    let phase = unready.first().and_then(|p| p.status.as_ref()?.phase.clone());
    ensure!(phase.as_deref() == Some("Running"), "unready is {phase:?}");
    remove(cluster, ns).await
}

const ROUTE: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: app, namespace: NS}
spec: {selector: {app: app}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: web, namespace: NS}
spec: {gatewayClassName: traefik, listeners: [{name: web, protocol: HTTP, port: 8000}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: app, namespace: NS}
spec: {parentRefs: [{name: web}], hostnames: [NS.local], rules: [{backendRefs: [{name: app, port: 80}]}]}
"#;

async fn routed_app(cluster: &Cluster, ns: &str, replicas: i32) -> Result<()> {
    namespace(cluster, ns).await?;
    cluster.apply(&deployment(ns, "app", "app:1", replicas, &json!([]))).await?;
    cluster.apply(&ROUTE.replace("NS", ns)).await?;
    let host = [("host".to_owned(), format!("{ns}.local"))];
    until("the route answers", SOON, LOOK, || async {
        let url = format!("http://{}/", ADDRESSES.gateway);
        let (status, _) = http::request(hyper::Method::GET, &url, &host, "", Duration::from_secs(2)).await?;
        ensure!(status == 200, "status {status}");
        ensure!(ready_replicas(cluster, ns, "app").await? == replicas, "not all ready");
        Ok(())
    })
    .await?;
    // The router takes a change of endpoints at most every 2 s.
    tokio::time::sleep(Duration::from_secs(3)).await;
    Ok(())
}

async fn run_time_faults(cluster: &Cluster) -> Result<()> {
    let ns = "faults-run-time";
    routed_app(cluster, ns, 2).await?;
    let load = Load::start(Target::gateway(&format!("{ns}.local"), 200));
    let before = load.snapshot();
    cluster.workload.inject(Select::image(ns, "app:1"), Fault { latency_ms: Some(40), ..Fault::errors(500) });
    tokio::time::sleep(Duration::from_secs(4)).await;
    let faulty = load.snapshot().since(&before);
    let permille = 1000 * faulty.failed / faulty.requests.max(1);
    // 800 requests at 1/2: five standard deviations are 88 of 1,000; the first ones were sent before the fault.
    ensure!((390..=590).contains(&permille), "{permille} of 1,000 failed, 500 were asked for");
    ensure!(faulty.latency_ms(0.5) >= 40.0, "median latency {:.1} ms", faulty.latency_ms(0.5));
    let errors = format!(r#"sum(http_requests_total{{namespace="{ns}",code="500"}})"#);
    until("Prometheus has the errors", SOON, LOOK, || async {
        let seen = cluster.monitoring.sum(&errors).await?.unwrap_or(0.0);
        ensure!(seen >= faulty.failed as f64, "{seen} of {}", faulty.failed);
        Ok(())
    })
    .await?;
    cluster.workload.heal(&Select::image(ns, "app:1"));
    tokio::time::sleep(Duration::from_millis(500)).await;
    let before = load.snapshot();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let healed = load.stop().await.since(&before);
    ensure!(healed.failed == 0, "after the fault: {}", healed.failures());

    let one = pods(cluster, ns, "app").await?.first().and_then(|p| p.metadata.name.clone()).context("pod")?;
    let select = Select { pod: Some(one), ..Select::namespace(ns) };
    for (state, ready, restarts) in [
        (Lifecycle::NeverReady, 1, 0),
        (Lifecycle::Healthy, 2, 0),
        (Lifecycle::Crash, 1, 1),
        (Lifecycle::Healthy, 2, 1),
    ] {
        cluster.workload.inject(select.clone(), Fault::lifecycle(state));
        until(&format!("{ready} pods are ready after {state:?}"), SOON, LOOK, || async {
            let is = ready_replicas(cluster, ns, "app").await?;
            let all = pods(cluster, ns, "app").await?;
            let most = all.iter().map(|p| waiting(p).1).max().unwrap_or(0);
            ensure!(is == ready && most >= restarts, "{is} are ready, {most} restarts");
            ensure!(
                all.iter().filter(|p| is_ready(p)).count() == ready as usize,
                "the pods' own conditions differ"
            );
            Ok(())
        })
        .await?;
    }
    cluster.workload.heal(&select);
    remove(cluster, ns).await
}

async fn deleted_pod(cluster: &Cluster) -> Result<()> {
    let ns = "deleted-pod";
    routed_app(cluster, ns, 2).await?;
    let all = pods(cluster, ns, "app").await?;
    let pod = all.first().context("pod")?;
    let (name, address) = (
        pod.metadata.name.clone().context("name")?,
        pod.status.as_ref().and_then(|s| s.pod_ip.clone()).context("address")?,
    );
    let url = format!("http://{address}:8080/");
    ensure!(http::get(&url).await.is_ok(), "the pod does not answer before it is deleted");
    let api: Api<Pod> = Api::namespaced(cluster.client.clone(), ns);
    api.delete(&name, &DeleteParams::default()).await?;
    until("the pod is gone", Duration::from_secs(5), LOOK, || async {
        ensure!(api.get_opt(&name).await?.is_none(), "it is still there");
        Ok(())
    })
    .await?;
    ensure!(http::get(&url).await.is_err(), "a deleted pod answers");
    until("its successor has another address", SOON, LOOK, || async {
        let addresses = pods(cluster, ns, "app").await?.into_iter().filter_map(|p| p.status?.pod_ip);
        let addresses: Vec<String> = addresses.collect();
        ensure!(addresses.len() == 2 && !addresses.contains(&address), "{addresses:?}");
        Ok(())
    })
    .await?;
    remove(cluster, ns).await
}

/// Prints what it was given, asks the API server who it is with its own token, and can be told to end by itself.
const PROGRAM: &str = r#"#!/usr/bin/env python3
import http.server, json, os, signal, ssl, sys, urllib.request
signal.signal(signal.SIGTERM, lambda *_: (print("got SIGTERM", flush=True), sys.exit(7)))
account = "/var/run/secrets/kubernetes.io/serviceaccount"
read = lambda path: open(path).read()
host = f"https://{os.environ['KUBERNETES_SERVICE_HOST']}:{os.environ['KUBERNETES_SERVICE_PORT']}"
review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
request = urllib.request.Request(host + "/apis/authentication.k8s.io/v1/selfsubjectreviews", json.dumps(review).encode(),
    {"Authorization": "Bearer " + read(account + "/token"), "Content-Type": "application/json"})
answer = urllib.request.urlopen(request, context=ssl.create_default_context(cafile=account + "/ca.crt"))
print(json.dumps({"user": json.load(answer)["status"]["userInfo"]["username"], "args": sys.argv[1:],
    "namespace": read(account + "/namespace"), "mode": read("/run/settings/mode"), "secret": os.environ["SECRET"]}), flush=True)
try:
    open("/written", "w")
    print("the root folder can be written", flush=True)
except OSError:
    open("/scratch/written", "w").close()
if "--serve" in sys.argv:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path == "/crash": os._exit(9)
            self.send_response(200 if self.path != "/readyz" or os.path.exists("/scratch/written") else 503)
            self.end_headers()
        def log_message(self, *_): pass
    http.server.ThreadingHTTPServer((os.environ["POD_IP"], 9000), Handler).serve_forever()
"#;

const LOCAL: &str = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, namespace: local-node}
data: {mode: careful}
---
apiVersion: v1
kind: Secret
metadata: {name: key, namespace: local-node}
stringData: {key: "s3cret"}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: worker, namespace: local-node}
---
apiVersion: batch/v1
kind: Job
metadata: {name: once, namespace: local-node}
spec: {backoffLimit: 0, template: {spec: {restartPolicy: Never, SPEC}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: server, namespace: local-node}
spec:
  replicas: 2
  selector: {matchLabels: {app: server}}
  template: {metadata: {labels: {app: server}}, spec: {terminationGracePeriodSeconds: 5, SPEC}}
"#;

fn local_manifests() -> String {
    let spec = |args: &str, probe: &str| {
        format!(
            "serviceAccountName: worker, \
             volumes: [{{name: settings, configMap: {{name: settings}}}}, {{name: scratch, emptyDir: {{}}}}], \
             containers: [{{name: app, image: \"example.org/tool:1\", args: [{args}], \
             securityContext: {{readOnlyRootFilesystem: true}}, env: [\
             {{name: POD_IP, valueFrom: {{fieldRef: {{fieldPath: status.podIP}}}}}}, \
             {{name: SECRET, valueFrom: {{secretKeyRef: {{name: key, key: key}}}}}}], \
             volumeMounts: [{{name: settings, mountPath: /run/settings, readOnly: true}}, \
             {{name: scratch, mountPath: /scratch}}]{probe}}}]"
        )
    };
    let probe = ", ports: [{name: http, containerPort: 9000}], \
                 readinessProbe: {httpGet: {path: /readyz, port: http}, periodSeconds: 1}";
    let text = LOCAL.replacen("SPEC", &spec("\"--ip=$(POD_IP)\"", ""), 1);
    text.replacen("SPEC", &spec("\"--serve\"", probe), 1)
}

async fn local_node(cluster: &Cluster) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let ns = "local-node";
    let program = cluster.paths.run_dir.join("tool");
    std::fs::write(&program, PROGRAM).context("test program")?;
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).context("test program")?;
    cluster.kubelet.set_image(LocalImage { name: "tool".into(), program });
    namespace(cluster, ns).await?;
    cluster.apply(&local_manifests()).await?;

    let jobs: Api<Job> = Api::namespaced(cluster.client.clone(), ns);
    until("the Job is complete", SOON, LOOK, || async {
        let status = jobs.get("once").await?.status.unwrap_or_default();
        ensure!(status.succeeded == Some(1), "succeeded {:?}, failed {:?}", status.succeeded, status.failed);
        Ok(())
    })
    .await?;
    let api: Api<Pod> = Api::namespaced(cluster.client.clone(), ns);
    let done = api.list(&ListParams::default().labels("job-name=once")).await?.items;
    let pod = done.first().context("the Job's pod")?;
    let name = pod.metadata.name.clone().context("name")?;
    let ip = pod.status.as_ref().and_then(|s| s.pod_ip.clone()).context("address")?;
    let log = std::fs::read_to_string(cluster.kubelet.log(ns, &name, "app")).context("log")?;
    let said: Value = serde_json::from_str(log.lines().next().unwrap_or_default()).context(log.clone())?;
    let expected = json!({
        "user": "system:serviceaccount:local-node:worker", "args": [format!("--ip={ip}")], "namespace": ns,
        "mode": "careful", "secret": "s3cret",
    });
    ensure!(said == expected, "the pod saw {said}, not {expected}");
    ensure!(!log.contains("can be written"), "readOnlyRootFilesystem has no effect");

    let ready = || async {
        let deployments: Api<Deployment> = Api::namespaced(cluster.client.clone(), ns);
        let ready = deployments.get("server").await?.status.and_then(|s| s.ready_replicas).unwrap_or(0);
        ensure!(ready == 2, "{ready} of 2 are ready");
        anyhow::Ok(())
    };
    until("both servers are ready", SOON, LOOK, ready).await?;
    let servers = cluster.kubelet.running(ns);
    ensure!(servers.len() == 2, "processes: {servers:?}");
    if cluster.is_local() {
        let logs = api.logs(&servers[0].pod, &LogParams::default()).await.context("kubectl logs")?;
        ensure!(
            logs.contains("system:serviceaccount:local-node:worker"),
            "logs through the API server: {logs}"
        );
    }

    // A crash: restarted in place, with its exit code.
    let first = api.get(&servers[0].pod).await?.status.and_then(|s| s.pod_ip).context("address")?;
    let _ = http::get(&format!("http://{first}:9000/crash")).await;
    until("the crashed server is restarted", SOON, LOOK, || async {
        let pod = api.get(&servers[0].pod).await?;
        let status = pod.status.and_then(|s| s.container_statuses?.into_iter().next()).context("status")?;
        let code = status.last_state.and_then(|s| Some(s.terminated?.exit_code));
        ensure!(status.ready && status.restart_count == 1, "{} restarts", status.restart_count);
        ensure!(code == Some(9), "exit code {code:?}");
        Ok(())
    })
    .await?;

    // A deletion: SIGTERM first, and the object goes when the process is gone.
    api.delete(&servers[1].pod, &DeleteParams::default()).await?;
    until("the deleted server is gone", SOON, LOOK, || async {
        ensure!(api.get_opt(&servers[1].pod).await?.is_none(), "it is still there");
        Ok(())
    })
    .await?;
    if cluster.kubelet.running(ns).contains(&servers[1]) {
        bail!("the pod is gone, its process runs");
    }
    let log = std::fs::read_to_string(cluster.kubelet.log(ns, &servers[1].pod, "app")).context("log")?;
    ensure!(log.contains("got SIGTERM"), "no SIGTERM came: {log}");
    until("its successor is ready", SOON, LOOK, ready).await?;

    // An image that no program stands for is an image that cannot be pulled.
    let deployments: Api<Deployment> = Api::namespaced(cluster.client.clone(), ns);
    let patch = json!({"spec": {"template": {"spec": {"containers": [{"name": "app", "image": "nginx"}]}}}});
    deployments.patch("server", &PatchParams::default(), &Patch::Strategic(patch)).await?;
    until("ImagePullBackOff", SOON, LOOK, || async {
        let found = pods(cluster, ns, "server").await?;
        ensure!(found.iter().any(|p| waiting(p).0.as_deref() == Some("ImagePullBackOff")), "no such pod");
        Ok(())
    })
    .await?;
    remove(cluster, ns).await
}
