//! When processes die: the steps that each may take, handed to it through a file, and a successor that need not wait.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::api::{Patch, PatchParams};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde_json::json;

use super::Flow;
use crate::world::{SLUICE, World};

/// Kills of each flow.
pub const KILLS: usize = 8;
/// Steps of a flow whose kills are only counted.
pub const MANY: u64 = 1_000_000;

/// When the controller dies.
#[derive(Clone, Copy)]
pub enum Kills {
    Seeded(u64),
    Every,
}

impl Kills {
    pub fn seeded() -> Self {
        let given = std::env::var("SLUICE_SEED").ok().and_then(|text| text.parse().ok());
        let now = jiff::Timestamp::now().as_millisecond().unsigned_abs();
        let seed = given.unwrap_or(now % 1_000_000);
        println!("kills: SLUICE_SEED={seed}");
        Self::Seeded(seed)
    }

    /// Numbers of the steps after which the process dies, and how many steps each process may take.
    pub fn plan(self, flow: Flow, steps: u64) -> Plan {
        match self {
            Self::Every => Plan::new(Vec::new(), true),
            Self::Seeded(seed) => {
                let mut random = ChaCha8Rng::seed_from_u64(seed ^ (flow as u64));
                let mut numbers = BTreeSet::new();
                // Not after the last steps. The flow is at its end then, and a status that a dead process did not
                // write any more is one with the next, so that there may be fewer steps than undisturbed.
                let last = steps.saturating_sub(4).max(1);
                while numbers.len() < KILLS.min(last as usize) {
                    numbers.insert(1 + random.next_u64() % last);
                }
                println!("  {}: {steps} steps, killed after {numbers:?}", flow.name());
                let mut before = 0;
                let mut left: Vec<u64> =
                    numbers.into_iter().map(|n| n - std::mem::replace(&mut before, n)).collect();
                left.reverse();
                Plan::new(left, false)
            }
        }
    }
}

/// Steps that the processes may take, the next one last.
pub struct Plan {
    left: Vec<u64>,
    every: bool,
    /// A death is on its way.
    armed: bool,
    killed: usize,
}

impl Plan {
    pub fn new(left: Vec<u64>, every: bool) -> Self {
        Self { left, every, armed: false, killed: 0 }
    }

    /// Steps of the next process that is to die.
    fn next(&mut self) -> Option<u64> {
        let next = if self.every { Some(1) } else { self.left.pop() };
        self.armed = next.is_some();
        next
    }
}

/// The kills under way, by namespace.
pub struct Crashes {
    dir: PathBuf,
    plans: Mutex<HashMap<String, Plan>>,
}

impl Crashes {
    pub fn new() -> Result<Self> {
        // Real pods on the node `local` share the machine's /dev, and nothing else that can be written.
        let name = format!("sluice-crash-{}-{}", std::process::id(), jiff::Timestamp::now().as_microsecond());
        let dir = PathBuf::from("/dev/shm").join(name);
        std::fs::create_dir(&dir).with_context(|| dir.display().to_string())?;
        Ok(Self { dir, plans: Mutex::default() })
    }

    /// Where the processes find the steps that they may take.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn plans(&self) -> std::sync::MutexGuard<'_, HashMap<String, Plan>> {
        self.plans.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on processes die after the steps of the plan in this namespace.
    pub fn begin(&self, namespace: &str, mut plan: Plan) -> Result<()> {
        let mut plans = self.plans();
        if let Some(first) = plan.next() {
            self.arm(namespace, first)?;
        }
        plans.insert(namespace.to_owned(), plan);
        Ok(())
    }

    /// No kills any more; says how many there were.
    pub fn end(&self, namespace: &str) -> usize {
        let plan = self.plans().remove(namespace);
        let _ = std::fs::remove_file(self.dir.join(namespace));
        plan.map_or(0, |plan| plan.killed)
    }

    fn arm(&self, namespace: &str, steps: u64) -> Result<()> {
        let file = self.dir.join(namespace);
        let new = self.dir.join(format!(".{namespace}"));
        std::fs::write(&new, steps.to_string()).with_context(|| new.display().to_string())?;
        std::fs::rename(&new, &file).with_context(|| file.display().to_string())
    }

    /// Steps taken since the count began.
    pub fn counted(&self, namespace: &str) -> Result<u64> {
        let file = self.dir.join(namespace);
        let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        Ok(MANY - text.trim().parse::<u64>().context("steps left")?)
    }

    /// Notices each death, asks for the next one, and spares the next process the wait for the dead one's Lease:
    /// what happens while nobody leads is another scenario's.
    pub async fn keep_killing(&self, world: &World<'_>) -> Result<()> {
        let mut dead = String::new();
        loop {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let mut died = false;
            for (namespace, plan) in self.plans().iter_mut() {
                if !plan.armed || self.dir.join(namespace).exists() {
                    continue;
                }
                died = true;
                plan.killed += 1;
                if let Some(next) = plan.next() {
                    self.arm(namespace, next)?;
                }
            }
            if died {
                free_lease(world, &mut dead).await?;
            }
        }
    }
}

impl Drop for Crashes {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// Gives back the Lease of a process that has just died, once.
async fn free_lease(world: &World<'_>, dead: &mut String) -> Result<()> {
    let leases: Api<Lease> = Api::namespaced(world.cluster.client.clone(), SLUICE);
    let Some(lease) = leases.get_opt("sluice").await? else { return Ok(()) };
    let holder = lease.spec.and_then(|spec| spec.holder_identity).unwrap_or_default();
    if holder.is_empty() || holder == *dead {
        return Ok(());
    }
    let patch = json!({
        "metadata": {"resourceVersion": lease.metadata.resource_version},
        "spec": {"holderIdentity": "", "leaseDurationSeconds": 1},
    });
    // A conflict means that somebody leads again.
    let _ = leases.patch("sluice", &PatchParams::default(), &Patch::Merge(patch)).await;
    *dead = holder;
    Ok(())
}
