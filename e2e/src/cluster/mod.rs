//! One local cluster: etcd, API server, controller manager, scheduler, kwok's nodes, Traefik, Prometheus and
//! Alertmanager as processes, the pods of the fake nodes and the process kubelet as tasks of this one.

pub mod certs;
pub mod discovery;
pub mod leftovers;
pub mod monitoring;
pub mod objects;
pub mod process;
mod start;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use kube::Client;
use tokio::process::Command;

use self::discovery::Discovery;
use self::monitoring::Monitoring;
use self::objects::Applier;
use self::process::Processes;
use crate::external::External;
use crate::kubelet::{Kubelet, LocalImage};
use crate::workload::Workload;

/// Label and taint of the fake nodes; an application that shall run on them selects and tolerates it.
pub const FAKE_NODE_TAINT: &str = "kwok.x-k8s.io/node";

/// How a cluster is made.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where logs, certificates, the kubeconfig and all data go. Emptied at the start.
    pub run_dir: PathBuf,
    /// Scrape and rule evaluation interval of Prometheus.
    pub scrape_interval: Duration,
    /// Requests per second that each controller of Kubernetes, and the scheduler, may send, with bursts of twice as
    /// many; `None` leaves them at the defaults that Kubernetes ships (20 and 50, bursts of 30 and 100).
    pub client_qps: Option<u32>,
    /// Number of fake nodes, `fake-0` and so on.
    pub fake_nodes: usize,
    /// Seed of the injected faults.
    pub seed: u64,
    /// Which program stands for which image on the node `local`.
    pub images: Vec<LocalImage>,
    /// Prometheus rule file; may be replaced later by [`Monitoring::set_rules`].
    pub rules: Option<String>,
    /// Another cluster's API server and controllers instead of ones of our own.
    pub external: Option<External>,
}

impl Options {
    /// Defaults of demo and test: a scrape each second, two fake nodes.
    pub fn new(run_dir: impl Into<PathBuf>) -> Self {
        Self {
            run_dir: run_dir.into(),
            scrape_interval: Duration::from_secs(1),
            client_qps: Some(UNTHROTTLED_QPS),
            fake_nodes: 2,
            seed: 1,
            images: Vec::new(),
            rules: None,
            external: External::inside(),
        }
    }
}

/// More than Kubernetes' own controllers ever send on a machine that runs the local cluster.
pub const UNTHROTTLED_QPS: u32 = 300;

/// Files and folders of a running cluster.
#[derive(Clone, Debug)]
pub struct Paths {
    pub run_dir: PathBuf,
    pub logs: PathBuf,
    pub kubeconfig: PathBuf,
    /// The folder of the tools: `bin/`, `kwok-stages/`, `gateway-api-crds/`.
    pub tools: PathBuf,
}

/// Where the parts listen; all inside the sandbox.
#[derive(Clone, Debug)]
pub struct Addresses {
    pub api_server: &'static str,
    /// The Gateway's listener: send requests here with the application's Host header.
    pub gateway: &'static str,
    /// Port that a Gateway listener must name.
    pub gateway_port: u16,
    pub traefik_admin: &'static str,
    pub prometheus: &'static str,
    pub alertmanager: &'static str,
    /// Changes faults by HTTP; see [`crate::workload::admin`].
    pub faults: &'static str,
}

/// The addresses are the same in each cluster: each has a network namespace of its own.
pub const ADDRESSES: Addresses = Addresses {
    api_server: "https://127.0.0.1:6443",
    gateway: "127.0.0.1:8000",
    gateway_port: 8000,
    traefik_admin: "http://127.0.0.1:8898",
    prometheus: "http://127.0.0.1:9090",
    alertmanager: "http://127.0.0.1:9093",
    faults: "127.0.0.1:8079",
};

/// A running cluster. Dropping it ends all its processes.
pub struct Cluster {
    /// Cluster admin.
    pub client: Client,
    pub paths: Paths,
    pub addresses: Addresses,
    pub processes: Processes,
    /// The pods of the fake nodes and their faults.
    pub workload: Workload,
    /// The pods of the node `local`, which are real processes.
    pub kubelet: Kubelet,
    pub monitoring: Monitoring,
    /// Time from the start until the first pods could be created.
    pub started_in: Duration,
    external: bool,
    applier: Applier,
    _discovery: Discovery,
}

impl Cluster {
    /// Starts everything and returns when the API server, all nodes, the router and the monitoring are ready.
    pub async fn start(options: Options) -> Result<Self> {
        start::start(options).await
    }

    /// The cluster's kubectl, as admin.
    pub fn kubectl(&self) -> Command {
        self.tool("kubectl")
    }

    /// The cluster's Helm, as admin.
    pub fn helm(&self) -> Command {
        self.tool("helm")
    }

    /// Any command with `KUBECONFIG` and `PATH` set for this cluster.
    pub fn tool(&self, program: &str) -> Command {
        let bin = self.paths.tools.join("bin");
        let path = std::env::var("PATH").unwrap_or_else(|_| "/usr/bin:/bin".into());
        let mut command =
            Command::new(if bin.join(program).exists() { bin.join(program) } else { program.into() });
        command
            .env("KUBECONFIG", &self.paths.kubeconfig)
            .env_remove(crate::sandbox::INSIDE)
            .env("PATH", format!("{}:{path}", bin.display()))
            // Helm's own state must not be the user's.
            .env("HELM_CACHE_HOME", self.paths.run_dir.join("helm/cache"))
            .env("HELM_CONFIG_HOME", self.paths.run_dir.join("helm/config"))
            .env("HELM_DATA_HOME", self.paths.run_dir.join("helm/data"))
            .kill_on_drop(true);
        command
    }

    /// Runs kubectl and returns what it printed; a failure is an error that quotes stderr.
    pub async fn kubectl_run(&self, args: &[&str]) -> Result<String> {
        output(self.kubectl().args(args)).await
    }

    /// Runs Helm and returns what it printed; a failure is an error that quotes stderr.
    pub async fn helm_run(&self, args: &[&str]) -> Result<String> {
        output(self.helm().args(args)).await
    }

    /// Applies YAML documents server-side, in order, as field manager `e2e`, forcing conflicts.
    pub async fn apply(&self, yaml: &str) -> Result<()> {
        self.applier.apply(yaml).await
    }

    /// A namespace for what the run makes.
    pub async fn make_namespace(&self, name: &str) -> Result<()> {
        self.apply(&leftovers::namespace(name).to_string()).await
    }

    /// Applies YAML documents as a person or tool of another name; a conflict is an error.
    pub async fn apply_as(&self, manager: &str, yaml: &str) -> Result<()> {
        self.applier.apply_as(manager, yaml).await
    }

    /// Never returns while all is well; else why the first process ended by itself. To be raced with a scenario.
    pub async fn failed(&self) -> anyhow::Error {
        anyhow::Error::msg(self.processes.died().await)
    }

    /// Whether the API server is ours; that of another cluster cannot reach what listens inside the sandbox.
    pub fn is_local(&self) -> bool {
        !self.external
    }

    /// Stops all pods and processes in order, so that their last log lines are written.
    pub async fn stop(self) {
        self.kubelet.stop().await;
        for name in
            ["traefik", "prometheus", "alertmanager", "kwok", "kube-scheduler", "kube-controller-manager"]
        {
            let _ = self.processes.stop(name).await;
        }
        if self.external
            && let Err(error) = leftovers::remove(&self.client).await
        {
            eprintln!("not all of the run could be taken away: {error:#}");
        }
        for name in ["kube-apiserver", "etcd"] {
            // Nothing of their data outlives the run: a graceful end would only take time.
            let _ = self.processes.kill(name).await;
        }
    }
}

async fn output(command: &mut Command) -> Result<String> {
    let shown = format!("{:?}", command.as_std());
    let done = command.stdin(std::process::Stdio::null()).output().await.with_context(|| shown.clone())?;
    if !done.status.success() {
        bail!("{shown}: {}: {}", done.status, String::from_utf8_lossy(&done.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

/// Polls until the question is answered with yes; the error names what was waited for and the last reason for no.
pub async fn until<F, Fut>(what: &str, limit: Duration, every: Duration, mut ask: F) -> Result<()>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<()>>,
{
    let deadline = tokio::time::Instant::now() + limit;
    loop {
        match ask().await {
            Ok(()) => return Ok(()),
            Err(e) if tokio::time::Instant::now() >= deadline => {
                return Err(e.context(format!("waited {} s in vain until {what}", limit.as_secs())));
            }
            Err(_) => tokio::time::sleep(every).await,
        }
    }
}
