//! The pods of the fake nodes: one process that answers for every pod address with the pod's own errors, latency,
//! readiness, crashes and metrics, and reports their status as a kubelet would.
//!
//! kwok has the nodes; the pods' status is written here, so that this process knows a pod before any router does,
//! no address is handed out twice, and readiness and crash loops are the state of the workload itself. A deleted pod
//! finishes the requests that it has, takes no new ones from that moment on, and has no grace unless its template has a
//! `preStop` sleep: the hard case for whoever shifts traffic.

pub mod admin;
pub mod fault;
mod pods;
mod serve;

use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

pub use self::fault::{Fault, Lifecycle, Rules, Select};
use crate::cluster::ADDRESSES;
use crate::sandbox::FAKE_POD_NET;

/// The port that every pod of the fake nodes serves on.
pub const PORT: u16 = 8080;

/// Upper bounds of the latency histogram's buckets, in seconds: the default ones of Prometheus' client libraries.
const BUCKETS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Handle of the running workload; clones share it, the last one ends it.
#[derive(Clone)]
pub struct Workload {
    inner: Arc<Inner>,
    _stop: Arc<DropGuard>,
}

struct Inner {
    client: Client,
    seed: u64,
    serving: RwLock<HashMap<Ipv4Addr, Arc<PodServer>>>,
    rules: watch::Sender<Rules>,
    /// Bounds the status writes under way.
    writes: Semaphore,
    next_address: AtomicU32,
}

/// One pod as its clients see it.
struct PodServer {
    namespace: String,
    name: String,
    image: String,
    labels: BTreeMap<String, String>,
    behaviour: Mutex<Behaviour>,
    random: Mutex<ChaCha8Rng>,
    counters: Counters,
    /// Cancelled when the pod is deleted or its container ends.
    gone: CancellationToken,
}

#[derive(Clone, Copy, Default)]
struct Behaviour {
    error_permille: u32,
    error_status: u16,
    latency: Duration,
    ready: bool,
}

#[derive(Default)]
struct Counters {
    /// 200 and 500 are there from the start, so that the first error is an increase and not an appearance.
    by_code: Mutex<BTreeMap<u16, u64>>,
    buckets: [AtomicU64; BUCKETS.len()],
    sum_micros: AtomicU64,
    count: AtomicU64,
}

/// A pod in the list of [`Workload::pods`].
#[derive(Clone, Debug, Serialize)]
pub struct PodInfo {
    pub namespace: String,
    pub name: String,
    pub image: String,
    pub labels: BTreeMap<String, String>,
    pub address: Ipv4Addr,
    pub ready: bool,
    pub by_code: BTreeMap<u16, u64>,
}

impl Workload {
    /// Listens on every pod address and takes over the pods of the fake nodes.
    pub async fn start(client: Client, seed: u64) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).await.context("port of the pods")?;
        let admin = TcpListener::bind(ADDRESSES.faults).await.context("port of the fault interface")?;
        let inner = Arc::new(Inner {
            client,
            seed,
            serving: RwLock::default(),
            rules: watch::Sender::new(Rules::default()),
            writes: Semaphore::new(48),
            next_address: AtomicU32::new(1),
        });
        let stop = CancellationToken::new();
        let token = stop.clone();
        tokio::spawn(token.clone().run_until_cancelled_owned(serve::serve(inner.clone(), listener)));
        tokio::spawn(token.clone().run_until_cancelled_owned(pods::run(inner.clone(), token.clone())));
        tokio::spawn(token.run_until_cancelled_owned(admin::serve(inner.clone(), admin)));
        Ok(Self { inner, _stop: Arc::new(stop.drop_guard()) })
    }

    /// Adds a rule; it wins over all rules before it and over what the templates say. Takes effect at once.
    pub fn inject(&self, select: Select, fault: Fault) {
        self.inner.rules.send_modify(|rules| rules.0.push((select, fault)));
    }

    /// Removes the rules that name this selection.
    pub fn heal(&self, select: &Select) {
        self.inner.rules.send_modify(|rules| rules.0.retain(|(s, _)| s != select));
    }

    /// The pods that answer now.
    pub fn pods(&self) -> Vec<PodInfo> {
        self.inner.pods()
    }
}

impl Inner {
    fn pods(&self) -> Vec<PodInfo> {
        let serving = self.serving.read().unwrap_or_else(PoisonError::into_inner);
        let info = |(address, pod): (&Ipv4Addr, &Arc<PodServer>)| PodInfo {
            namespace: pod.namespace.clone(),
            name: pod.name.clone(),
            image: pod.image.clone(),
            labels: pod.labels.clone(),
            address: *address,
            ready: pod.behaviour().ready,
            by_code: pod.counters.by_code.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        };
        let mut pods: Vec<PodInfo> = serving.iter().map(info).collect();
        pods.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        pods
    }

    fn server(&self, address: Ipv4Addr) -> Option<Arc<PodServer>> {
        self.serving.read().unwrap_or_else(PoisonError::into_inner).get(&address).cloned()
    }

    fn put(&self, address: Ipv4Addr, pod: Arc<PodServer>) {
        self.serving.write().unwrap_or_else(PoisonError::into_inner).insert(address, pod);
    }

    fn take(&self, address: Ipv4Addr) {
        let removed = self.serving.write().unwrap_or_else(PoisonError::into_inner).remove(&address);
        if let Some(pod) = removed {
            pod.gone.cancel();
        }
    }

    /// Addresses go round: one that was given back is not used again for as long as possible, as real networks do.
    fn address(&self) -> Ipv4Addr {
        let number = self.next_address.fetch_add(1, Ordering::Relaxed) % 0xFFFE;
        Ipv4Addr::from(u32::from(FAKE_POD_NET) + 1 + number)
    }
}

impl PodServer {
    fn new(pod: &Pod, seed: u64) -> Self {
        let name = pod.metadata.name.clone().unwrap_or_default();
        // The pod's name takes part, else all pods would fail at the same requests.
        let own = name
            .bytes()
            .fold(seed ^ 0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
        let image = pod.spec.as_ref().and_then(|s| s.containers.first()).and_then(|c| c.image.clone());
        let counters = Counters::default();
        counters.by_code.lock().unwrap_or_else(PoisonError::into_inner).extend([(200, 0), (500, 0)]);
        Self {
            namespace: pod.metadata.namespace.clone().unwrap_or_default(),
            name,
            image: image.unwrap_or_default(),
            labels: pod.metadata.labels.clone().unwrap_or_default(),
            behaviour: Mutex::default(),
            random: Mutex::new(ChaCha8Rng::seed_from_u64(own)),
            counters,
            gone: CancellationToken::new(),
        }
    }

    fn behaviour(&self) -> Behaviour {
        *self.behaviour.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn behave(&self, fault: &Fault, ready: bool) {
        *self.behaviour.lock().unwrap_or_else(PoisonError::into_inner) = Behaviour {
            error_permille: fault.error_permille.unwrap_or(0),
            error_status: fault.error_status.unwrap_or(500),
            latency: Duration::from_millis(fault.latency_ms.unwrap_or(0)),
            ready,
        };
    }

    fn fails(&self, permille: u32) -> bool {
        let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
        permille > 0 && random.next_u32() % 1000 < permille
    }
}
