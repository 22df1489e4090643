//! The node `local`: its pods run as real processes on this machine, from their pod specs. Sluice itself, its hook
//! Jobs and whatever else has no fake pods run here with their own ServiceAccount, arguments, environment, volumes,
//! probes and signals, so that installing, failing over and uninstalling are tested on what users get.
//!
//! What it leaves out, since it has no root: users (all run as the one that started the cluster), cgroup limits,
//! network namespaces of pods (each pod has its own address on a shared stack, so a process should listen on its
//! pod's address), exec and gRPC probes, exec hooks. An image is a program on this machine ([`LocalImage`]).

mod container;
mod logs;
mod node;
mod pod;
mod probe;
mod root;
mod spec;
mod status;
mod volumes;

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch_objects};
use kube::{Api, Client};
use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::cluster::certs::Certs;
use crate::cluster::process::{Usage, usage};
use crate::sandbox::LOCAL_POD_NET;

/// The node's name.
pub const NODE: &str = "local";

/// Which program stands for an image.
#[derive(Clone, Debug)]
pub struct LocalImage {
    /// The last part of the image's repository, such as `sluice-controller`; with `:tag`, only that tag.
    pub name: String,
    pub program: PathBuf,
}

/// Handle of the node; clones share it, the last one ends it and its processes.
#[derive(Clone)]
pub struct Kubelet {
    shared: Arc<Shared>,
    tasks: TaskTracker,
    stop: CancellationToken,
    _guard: Arc<DropGuard>,
}

struct Shared {
    client: Client,
    dir: PathBuf,
    ca_pem: String,
    images: Mutex<Vec<LocalImage>>,
    next_address: AtomicU32,
    running: Mutex<HashMap<(String, String, String), u32>>,
}

/// A container whose process runs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Running {
    pub namespace: String,
    pub pod: String,
    pub container: String,
    /// The process id inside the sandbox.
    pub pid: u32,
}

impl Kubelet {
    /// Registers the node and takes over its pods.
    pub async fn start(client: Client, dir: PathBuf, certs: &Certs, images: Vec<LocalImage>) -> Result<Self> {
        std::fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
        let shared = Arc::new(Shared {
            client,
            dir,
            ca_pem: certs.ca_pem.clone(),
            images: Mutex::new(images),
            next_address: AtomicU32::new(1),
            running: Mutex::default(),
        });
        node::register(&shared.client).await.context("node local")?;
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let logs = logs::server(shared.clone(), certs).await?;
        tokio::spawn(stop.clone().run_until_cancelled_owned(logs));
        tokio::spawn(stop.clone().run_until_cancelled_owned(node::heartbeat(shared.client.clone())));
        tokio::spawn(stop.clone().run_until_cancelled_owned(follow(
            shared.clone(),
            tasks.clone(),
            stop.clone(),
        )));
        Ok(Self { shared, tasks, stop: stop.clone(), _guard: Arc::new(stop.drop_guard()) })
    }

    /// Ends all processes: SIGTERM, after a moment SIGKILL. Nothing is written to the API server any more.
    pub async fn stop(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// From now on this program stands for the image; containers that run keep theirs until they are restarted.
    pub fn set_image(&self, image: LocalImage) {
        let mut images = self.shared.images.lock().unwrap_or_else(PoisonError::into_inner);
        images.retain(|i| i.name != image.name);
        images.push(image);
    }

    /// The containers of a namespace whose processes run now, sorted.
    pub fn running(&self, namespace: &str) -> Vec<Running> {
        let running = self.shared.running.lock().unwrap_or_else(PoisonError::into_inner);
        let of_namespace = running.iter().filter(|((ns, _, _), _)| ns == namespace);
        let mut list: Vec<Running> = of_namespace
            .map(|((namespace, pod, container), pid)| Running {
                namespace: namespace.clone(),
                pod: pod.clone(),
                container: container.clone(),
                pid: *pid,
            })
            .collect();
        list.sort();
        list
    }

    /// Sends a signal to a container's process: KILL is a crash, STOP and CONT are a pause such as a slow machine's.
    pub fn signal(&self, running: &Running, signal: Signal) -> Result<()> {
        let pid = i32::try_from(running.pid).ok().and_then(Pid::from_raw).context("process id")?;
        kill_process(pid, signal).with_context(|| format!("signal to {}/{}", running.namespace, running.pod))
    }

    /// CPU and memory of a container's process.
    pub fn usage(&self, running: &Running) -> Result<Usage> {
        usage(running.pid)
    }

    /// The file with everything that a container has printed, over all its restarts.
    pub fn log(&self, namespace: &str, pod: &str, container: &str) -> PathBuf {
        self.shared.pod_dir(namespace, pod).join(format!("{container}.log"))
    }
}

impl Shared {
    fn pod_dir(&self, namespace: &str, pod: &str) -> PathBuf {
        self.dir.join(format!("{namespace}_{pod}"))
    }

    fn address(&self) -> Ipv4Addr {
        Ipv4Addr::from(
            u32::from(LOCAL_POD_NET) + 1 + self.next_address.fetch_add(1, Ordering::Relaxed) % 0xFFF0,
        )
    }

    /// The program for an image; the error says which images there are.
    fn program(&self, image: &str) -> Result<PathBuf, String> {
        let images = self.images.lock().unwrap_or_else(PoisonError::into_inner);
        let last = image.split('@').next().unwrap_or_default().rsplit('/').next().unwrap_or_default();
        let name = last.split(':').next().unwrap_or_default();
        let found = images.iter().find(|i| i.name == last).or_else(|| images.iter().find(|i| i.name == name));
        found.map(|i| i.program.clone()).ok_or_else(|| {
            let known: Vec<&str> = images.iter().map(|i| i.name.as_str()).collect();
            format!(
                "no program stands for image \"{image}\" on node local (known: {}); an application's pods need \
                 `nodeSelector: {{type: kwok}}` and a toleration of kwok.x-k8s.io/node",
                known.join(", ")
            )
        })
    }
}

/// What a pod's task is told.
#[derive(Clone, Default)]
struct Wish {
    /// Set once the pod is to be deleted: seconds it is given.
    delete: Option<i64>,
    /// The object is gone.
    gone: bool,
}

async fn follow(shared: Arc<Shared>, tasks: TaskTracker, stop: CancellationToken) {
    let api: Api<Pod> = Api::all(shared.client.clone());
    let config = watcher::Config::default().fields(&format!("spec.nodeName={NODE}"));
    let mut events = pin!(watch_objects(api, config).default_backoff());
    let mut wishes: HashMap<String, watch::Sender<Wish>> = HashMap::new();
    let mut seen: Vec<String> = Vec::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Apply(pod) | Event::InitApply(pod)) => {
                let Some(uid) = pod.metadata.uid.clone() else { continue };
                seen.push(uid.clone());
                let grace = pod
                    .metadata
                    .deletion_timestamp
                    .as_ref()
                    .map(|_| pod.metadata.deletion_grace_period_seconds.unwrap_or(30));
                let wish = wishes.entry(uid).or_insert_with(|| {
                    let (sender, receiver) = watch::channel(Wish::default());
                    tasks.spawn(pod::run(shared.clone(), pod, receiver, stop.clone()));
                    sender
                });
                if grace.is_some() {
                    wish.send_modify(|w| w.delete = grace);
                }
            }
            Ok(Event::Delete(pod)) => {
                if let Some(wish) = pod.metadata.uid.and_then(|uid| wishes.remove(&uid)) {
                    wish.send_modify(|w| w.gone = true);
                }
            }
            Ok(Event::Init) => seen.clear(),
            Ok(Event::InitDone) => wishes.retain(|uid, wish| {
                let there = seen.contains(uid);
                if !there {
                    wish.send_modify(|w| w.gone = true);
                }
                there
            }),
            // The stream repeats by itself; what it missed comes with the next list.
            Err(_) => {}
        }
    }
}
