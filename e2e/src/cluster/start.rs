//! The order in which a cluster comes up, and every process's arguments.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use futures::{FutureExt, TryFutureExt};
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, ListParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::json;

use super::certs::{self, Certs};
use super::discovery::Discovery;
use super::leftovers;
use super::monitoring::Monitoring;
use super::objects::Applier;
use super::process::{Processes, Spec};
use super::{ADDRESSES, Cluster, FAKE_NODE_TAINT, Options, Paths, until};
use crate::kubelet::Kubelet;
use crate::workload::Workload;

const SERVICE_NET: &str = "10.96.0.0/16";
const SERVICE_IP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);

const GATEWAY_CLASS: &str = r#"
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: traefik}
spec: {controllerName: traefik.io/gateway-controller}
"#;

/// What the API server writes down: each request of a ServiceAccount outside kube-system. Benchmarks count them,
/// failed scenarios are read from them.
const AUDIT_POLICY: &str = r#"
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
omitManagedFields: true
rules:
- {level: None, userGroups: ["system:serviceaccounts:kube-system"]}
- {level: Metadata, userGroups: ["system:serviceaccounts"]}
- {level: None}
"#;

/// The folder of the tools, as `e2e/tools/fetch` knows it.
pub fn tools() -> Result<PathBuf> {
    let fetch = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/fetch");
    let done = std::process::Command::new("python3").arg(&fetch).arg("--path").output().context("python3")?;
    if !done.status.success() {
        bail!("{}", String::from_utf8_lossy(&done.stderr).trim());
    }
    Ok(String::from_utf8(done.stdout).context("path of the tools")?.trim().into())
}

pub(super) async fn start(options: Options) -> Result<Cluster> {
    let begin = Instant::now();
    let run_dir = std::path::absolute(&options.run_dir).context("run folder")?;
    if run_dir.exists() {
        fs::remove_dir_all(&run_dir).with_context(|| run_dir.display().to_string())?;
    }
    let paths = Paths {
        logs: run_dir.join("logs"),
        kubeconfig: run_dir.join("kubeconfig"),
        tools: tools()?,
        run_dir: run_dir.clone(),
    };
    let mut certs = certs::write(&run_dir.join("pki"), SERVICE_IP)?;
    match &options.external {
        None => fs::write(&paths.kubeconfig, kubeconfig(&certs)).context("kubeconfig")?,
        Some(external) => {
            fs::copy(external.kubeconfig(), &paths.kubeconfig).context("kubeconfig")?;
            certs.ca_pem = external.ca_pem()?;
            tokio::spawn(external.relay().await?);
        }
    }
    let processes = Processes::new(paths.logs.clone())?;
    let starter = Starter { paths: &paths, processes: &processes, client_qps: options.client_qps };

    if options.external.is_none() {
        starter.etcd()?;
        starter.api_server(&certs)?;
    }
    let monitoring = Monitoring::new(&run_dir, options.scrape_interval, processes.clone())?;
    monitoring.start(&paths.tools, options.rules.as_deref())?;

    let client = client(&paths.kubeconfig).await?;
    let up = async {
        until("the API server is ready", Duration::from_secs(60), Duration::from_millis(100), || async {
            let request = hyper::Request::get("/readyz").body(Vec::new())?;
            client.request_text(request).await?;
            anyhow::Ok(())
        })
        .await?;
        if options.external.is_none() {
            starter.controllers(&certs)?;
        } else {
            let nodes = (0..options.fake_nodes).map(fake_node).chain([crate::kubelet::NODE.to_owned()]);
            leftovers::refuse_foreign(&client, &nodes.collect::<Vec<_>>(), crate::world::SLUICE).await?;
            leftovers::remove(&client).await?;
        }
        starter.kwok()?;
        let applier = Applier::new(client.clone());
        let discovery = Discovery::start(client.clone()).await?;
        let workload = Workload::start(client.clone(), options.seed).await?;
        let kubelet =
            Kubelet::start(client.clone(), run_dir.join("kubelet"), &certs, options.images.clone()).await?;
        tokio::try_join!(
            async {
                gateway_crds(&client, &applier, &paths.tools).await?;
                starter.traefik()
            },
            fake_nodes(&applier, options.fake_nodes),
        )?;
        tokio::try_join!(
            nodes_ready(&client, options.fake_nodes + 1),
            until("Traefik answers", Duration::from_secs(30), Duration::from_millis(100), || async {
                crate::http::get(&format!("{}/ping", ADDRESSES.traefik_admin)).await.map(drop)
            }),
            default_accounts(&client),
            monitoring.ready(),
        )?;
        anyhow::Ok((applier, discovery, workload, kubelet))
    };
    let (applier, discovery, workload, kubelet) = tokio::select! {
        up = up => up?,
        died = processes.died() => bail!("{died}"),
    };
    Ok(Cluster {
        client,
        addresses: ADDRESSES,
        workload,
        kubelet,
        monitoring,
        started_in: begin.elapsed(),
        external: options.external.is_some(),
        applier,
        _discovery: discovery,
        processes,
        paths,
    })
}

struct Starter<'a> {
    client_qps: Option<u32>,
    paths: &'a Paths,
    processes: &'a Processes,
}

impl Starter<'_> {
    fn run(&self, name: &'static str, args: Vec<String>, env: &[(&str, String)]) -> Result<()> {
        self.processes.start(Spec {
            name,
            program: self.paths.tools.join("bin").join(name),
            args,
            env: env.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect(),
        })
    }

    fn file(&self, name: &str) -> String {
        self.paths.run_dir.join(name).display().to_string()
    }

    fn etcd(&self) -> Result<()> {
        let args = [
            format!("--data-dir={}", self.file("etcd")),
            "--unsafe-no-fsync".into(), // nothing has to survive the machine
            "--listen-client-urls=http://127.0.0.1:2379".into(),
            "--advertise-client-urls=http://127.0.0.1:2379".into(),
            "--listen-peer-urls=http://127.0.0.1:2380".into(),
            "--log-level=warn".into(),
        ];
        self.run("etcd", args.into(), &[])
    }

    fn api_server(&self, certs: &Certs) -> Result<()> {
        let policy = self.file("audit-policy.yaml");
        fs::write(&policy, AUDIT_POLICY).context("audit policy")?;
        let args = [
            "--etcd-servers=http://127.0.0.1:2379".into(),
            "--secure-port=6443".into(),
            "--bind-address=127.0.0.1".into(),
            "--advertise-address=127.0.0.1".into(),
            format!("--tls-cert-file={}", certs.file("apiserver.crt")),
            format!("--tls-private-key-file={}", certs.file("apiserver.key")),
            format!("--client-ca-file={}", certs.file("ca.crt")),
            format!("--service-account-key-file={}", certs.file("sa.pub")),
            format!("--service-account-signing-key-file={}", certs.file("sa.key")),
            "--service-account-issuer=https://kubernetes.default.svc".into(),
            format!("--service-cluster-ip-range={SERVICE_NET}"),
            "--authorization-mode=Node,RBAC".into(),
            "--endpoint-reconciler-type=none".into(),
            "--allow-privileged=true".into(),
            "--kubelet-preferred-address-types=InternalIP".into(), // there is no DNS
            "--profiling=false".into(),
            format!("--audit-policy-file={policy}"),
            format!("--audit-log-path={}", self.file("audit.log")),
            // In megabytes: a log that begins anew half way can't be counted from a place in it.
            "--audit-log-maxsize=10000".to_owned(),
        ];
        self.run("kube-apiserver", args.into(), &[])
    }

    fn controllers(&self, certs: &Certs) -> Result<()> {
        let kubeconfig = self.paths.kubeconfig.display().to_string();
        let args = [
            format!("--kubeconfig={kubeconfig}"),
            format!("--service-account-private-key-file={}", certs.file("sa.key")),
            format!("--root-ca-file={}", certs.file("ca.crt")),
            "--use-service-account-credentials".into(),
            "--leader-elect=false".into(),
            "--bind-address=127.0.0.1".into(),
        ];
        let limits = self
            .client_qps
            .into_iter()
            .flat_map(|qps| [format!("--kube-api-qps={qps}"), format!("--kube-api-burst={}", 2 * qps)]);
        self.run("kube-controller-manager", args.into_iter().chain(limits).collect(), &[])?;
        let config = self.file("scheduler.yaml");
        let mut connection = json!({"kubeconfig": kubeconfig});
        if let Some(qps) = self.client_qps {
            connection["qps"] = qps.into();
            connection["burst"] = (2 * qps).into();
        }
        let text = json!({
            "apiVersion": "kubescheduler.config.k8s.io/v1", "kind": "KubeSchedulerConfiguration",
            "leaderElection": {"leaderElect": false}, "clientConnection": connection,
        });
        fs::write(&config, text.to_string()).context("scheduler configuration")?;
        self.run("kube-scheduler", vec![format!("--config={config}"), "--bind-address=127.0.0.1".into()], &[])
    }

    /// kwok has the fake nodes: their status and leases. Their pods are [`crate::workload`]'s, since it must know a
    /// pod before the pod is ready, and must not hand an address out again while routers may still have it.
    fn kwok(&self) -> Result<()> {
        let mut args = vec![
            format!("--kubeconfig={}", self.paths.kubeconfig.display()),
            "--manage-all-nodes=false".into(),
            format!("--manage-nodes-with-annotation-selector={FAKE_NODE_TAINT}=fake"),
            "--node-lease-duration-seconds=40".into(),
            "--node-ip=127.0.0.1".into(),
            "--server-address=127.0.0.1:10247".into(),
        ];
        for stage in ["node-initialize.yaml", "node-heartbeat-with-lease.yaml"] {
            args.push(format!("--config={}", self.paths.tools.join("kwok-stages").join(stage).display()));
        }
        self.run("kwok", args, &[])
    }

    fn traefik(&self) -> Result<()> {
        let port = ADDRESSES.gateway_port;
        let args = [
            "--global.checknewversion=false".into(),
            "--global.sendanonymoususage=false".into(),
            "--providers.kubernetesgateway=true".into(),
            "--providers.kubernetesgateway.statusaddress.ip=127.0.0.1".into(),
            format!("--entrypoints.web.address=127.0.0.1:{port}"),
            "--entrypoints.traefik.address=127.0.0.1:8898".into(),
            "--ping=true".into(),
            "--api.insecure=true".into(),
            "--metrics.prometheus=true".into(),
            "--metrics.prometheus.addServicesLabels=true".into(),
            "--log.level=INFO".into(),
        ];
        self.run("traefik", args.into(), &[("KUBECONFIG", self.paths.kubeconfig.display().to_string())])
    }
}

fn kubeconfig(certs: &Certs) -> String {
    let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "sluice-local",
        "clusters": [{"name": "sluice-local", "cluster": {
            "server": ADDRESSES.api_server, "certificate-authority-data": encode(&certs.ca_pem)}}],
        "users": [{"name": "admin", "user": {
            "client-certificate-data": encode(&certs.admin_cert_pem),
            "client-key-data": encode(&certs.admin_key_pem)}}],
        "contexts": [{"name": "sluice-local", "context": {"cluster": "sluice-local", "user": "admin"}}],
    })
    .to_string()
}

/// A client for a kubeconfig file, which alone decides: no other configuration is looked at.
pub async fn client(kubeconfig: &Path) -> Result<Client> {
    let file = Kubeconfig::read_from(kubeconfig).with_context(|| kubeconfig.display().to_string())?;
    let config =
        Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.context("kubeconfig")?;
    Client::try_from(config).context("client")
}

async fn gateway_crds(client: &Client, applier: &Applier, tools: &Path) -> Result<()> {
    // A cluster that has the Gateway API keeps its version.
    if applier.apply(GATEWAY_CLASS).await.is_ok() {
        return Ok(());
    }
    let mut files: Vec<PathBuf> =
        fs::read_dir(tools.join("gateway-api-crds"))?.flatten().map(|e| e.path()).collect();
    files.sort();
    let texts = files.iter().map(|f| fs::read_to_string(f).with_context(|| f.display().to_string()));
    let texts = texts.collect::<Result<Vec<_>>>()?;
    futures::future::try_join_all(texts.iter().map(|t| applier.apply(t))).await?;
    // Discovery follows the CRDs by a moment, one after the other.
    until("the Gateway API is served", Duration::from_secs(20), Duration::from_millis(100), || async {
        let served = client.list_api_group_resources("gateway.networking.k8s.io/v1").await?;
        for name in ["gatewayclasses", "gateways", "httproutes"] {
            ensure!(served.resources.iter().any(|r| r.name == name), "{name} are not served yet");
        }
        applier.apply(GATEWAY_CLASS).await
    })
    .await
}

fn fake_node(number: usize) -> String {
    format!("fake-{number}")
}

async fn fake_nodes(applier: &Applier, count: usize) -> Result<()> {
    let nodes: Vec<String> = (0..count)
        .map(|i| {
            json!({
                "apiVersion": "v1", "kind": "Node",
                "metadata": {
                    "name": fake_node(i),
                    "annotations": {FAKE_NODE_TAINT: "fake", "node.alpha.kubernetes.io/ttl": "0"},
                    "labels": {
                        "type": "kwok", "kubernetes.io/hostname": fake_node(i), "kubernetes.io/os": "linux",
                        "kubernetes.io/arch": "amd64", "topology.kubernetes.io/zone": format!("zone-{}", i % 3),
                    },
                },
                "spec": {"taints": [{"key": FAKE_NODE_TAINT, "value": "fake", "effect": "NoSchedule"}]},
            })
            .to_string()
        })
        .collect();
    futures::future::try_join_all(nodes.iter().map(|n| applier.apply(n))).await.map(drop)
}

async fn nodes_ready(client: &Client, count: usize) -> Result<()> {
    let nodes: Api<Node> = Api::all(client.clone());
    until("all nodes are ready and untainted", Duration::from_secs(60), Duration::from_millis(100), || {
        let nodes = nodes.clone();
        async move {
            let list = nodes.list(&ListParams::default()).await?;
            let ready = |n: &Node| {
                let conditions = n.status.iter().flat_map(|s| s.conditions.iter().flatten());
                let taints = n.spec.iter().flat_map(|s| s.taints.iter().flatten());
                conditions.filter(|c| c.type_ == "Ready" && c.status == "True").count() == 1
                    && !taints.into_iter().any(|t| t.key.starts_with("node.kubernetes.io/"))
            };
            let ours = |n: &&Node| {
                n.metadata
                    .name
                    .as_deref()
                    .is_some_and(|n| n == crate::kubelet::NODE || n.starts_with("fake-"))
            };
            let ready = list.items.iter().filter(ours).filter(|n| ready(n)).count();
            if ready < count {
                bail!("{ready} of {count} nodes are ready");
            }
            Ok(())
        }
    })
    .await
}

/// Pods are refused until the controller manager has made the namespace's ServiceAccount.
async fn default_accounts(client: &Client) -> Result<()> {
    let accounts: Api<k8s_openapi::api::core::v1::ServiceAccount> =
        Api::namespaced(client.clone(), "default");
    until("the default ServiceAccount exists", Duration::from_secs(30), Duration::from_millis(100), || {
        let accounts = accounts.clone();
        async move { accounts.get("default").map_ok(drop).map(|r| r.map_err(Into::into)).await }
    })
    .await
}
