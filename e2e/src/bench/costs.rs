//! What is spent meanwhile: processor and memory of every part, and requests to the API server.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::cluster::Cluster;
use crate::cluster::process::{Usage, usage};
use crate::world::{SLUICE, World};

/// The controller's account in the audit log.
const ACCOUNT: &str = "system:serviceaccount:sluice-system:sluice";

/// Reads what is spent, of the controller that led when this was made.
pub struct Meter<'a> {
    cluster: &'a Cluster,
    leader: String,
}

impl<'a> Meter<'a> {
    /// Of the controller that leads now.
    pub async fn of(world: &World<'a>) -> Result<Self> {
        Ok(Self { cluster: world.cluster, leader: world.leader().await? })
    }

    /// The same controller leads still: else its numbers can't be compared.
    pub async fn still_leads(&self, world: &World<'_>) -> Result<()> {
        anyhow::ensure!(
            world.leader().await? == self.leader,
            "another controller leads now: its numbers can't be compared"
        );
        Ok(())
    }

    /// CPU seconds of every part until now: where time goes on a machine with few cores.
    pub fn spent(&self) -> Result<Vec<(&'static str, f64)>> {
        let parts =
            ["kube-apiserver", "etcd", "kube-controller-manager", "kube-scheduler", "traefik", "prometheus"];
        let mut spent: Vec<(&'static str, f64)> = Vec::new();
        for part in parts {
            spent.push((part, self.cluster.processes.usage(part)?.cpu_seconds));
        }
        spent.push(("controller", self.usage()?.cpu_seconds));
        // The process itself: its fake pods, its discovery and this benchmark.
        spent.push(("fake pods and benchmark", usage(std::process::id())?.cpu_seconds));
        Ok(spent)
    }

    /// Prints what every part has spent since.
    pub fn tell_spent(&self, before: &[(&'static str, f64)]) -> Result<()> {
        let now = self.spent()?;
        let parts = before.iter().zip(&now).map(|((part, from), (_, to))| format!("{part} {:.2}", to - from));
        println!("            CPU seconds: {}", parts.collect::<Vec<_>>().join(", "));
        Ok(())
    }

    /// Requests that the API server has answered to anybody, by verb and resource; watches are left out.
    pub async fn asked(&self) -> Result<BTreeMap<String, f64>> {
        let request = || hyper::Request::get("/metrics").body(Vec::new());
        let text = match self.cluster.client.request_text(request()?).await {
            // A connection that was idle may have been closed just now.
            Err(_) => self.cluster.client.request_text(request()?).await?,
            Ok(text) => text,
        };
        let mut asked = BTreeMap::new();
        for line in text.lines().filter_map(|line| line.strip_prefix("apiserver_request_total{")) {
            let Some((labels, value)) = line.rsplit_once("} ") else { continue };
            let label = |name: &str| {
                let found = labels.split(',').find_map(|label| label.strip_prefix(name));
                found.unwrap_or_default().trim_matches(|c| c == '=' || c == '"')
            };
            let (verb, resource, sub) = (label("verb="), label("resource="), label("subresource="));
            if verb != "WATCH" && !resource.is_empty() {
                let slash = if sub.is_empty() { "" } else { "/" };
                let name = format!("{} {resource}{slash}{sub}", verb.to_lowercase());
                *asked.entry(name).or_default() += value.parse::<f64>().unwrap_or(0.0);
            }
        }
        Ok(asked)
    }

    /// What a member costs in requests, the most frequent first.
    pub async fn tell_asked(&self, before: &BTreeMap<String, f64>, members: usize) -> Result<()> {
        let n = members as f64;
        let now = self.asked().await?;
        let each = |(name, count): (&String, &f64)| {
            (name.clone(), (count - before.get(name).copied().unwrap_or(0.0)) / n)
        };
        let mut each: Vec<(String, f64)> = now.iter().map(each).collect();
        each.sort_by(|a, b| b.1.total_cmp(&a.1));
        let all: f64 = each.iter().map(|(_, count)| count).sum();
        let listed = each.iter().filter(|(_, count)| *count >= 0.05);
        let listed: Vec<String> = listed.map(|(name, count)| format!("{count:.1} {name}")).collect();
        println!("            requests per member of everybody: {all:.1}: {}", listed.join(", "));
        Ok(())
    }

    /// What the leading controller has used so far.
    pub fn usage(&self) -> Result<Usage> {
        let running = self.cluster.kubelet.running(SLUICE);
        // A controller calls itself by its pod's name and uid.
        let pod = self.leader.split('_').next().unwrap_or_default();
        let found = running.iter().find(|r| r.pod == pod).with_context(|| format!("pod {pod}"))?;
        self.cluster.kubelet.usage(found)
    }
}

/// What the API server wrote down since a moment.
pub struct Audit {
    path: std::path::PathBuf,
    from: usize,
}

impl Audit {
    /// From this moment on.
    pub fn from_here(cluster: &Cluster) -> Result<Self> {
        let path = cluster.paths.run_dir.join("audit.log");
        let from = std::fs::metadata(&path).with_context(|| path.display().to_string())?.len();
        Ok(Self { path, from: usize::try_from(from)? })
    }

    /// Requests of the controllers by what `name` makes of verb and resource.
    pub fn count(&self, name: impl Fn(&str, &str) -> String) -> Result<BTreeMap<String, u64>> {
        let bytes = std::fs::read(&self.path).with_context(|| self.path.display().to_string())?;
        let text = String::from_utf8_lossy(bytes.get(self.from..).unwrap_or_default()).into_owned();
        let mut found = BTreeMap::new();
        for line in text.lines() {
            // The last line may be half written.
            let Ok(entry) = serde_json::from_str::<Value>(line) else { continue };
            if entry["user"]["username"] == ACCOUNT
                && entry["stage"] == "ResponseComplete"
                && let Some(verb) = entry["verb"].as_str()
            {
                let of = &entry["objectRef"];
                let text = |key: &str| of[key].as_str().unwrap_or_default();
                let slash = if text("subresource").is_empty() { "" } else { "/" };
                let resource = format!("{}{slash}{}", text("resource"), text("subresource"));
                *found.entry(name(verb, &resource)).or_default() += 1;
            }
        }
        Ok(found)
    }
}
