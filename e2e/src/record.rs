//! Traces of the runs that scenarios play: `kubectl-sluice record` beside each application, and what `simulate` makes of
//! them.

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio::process::Child;

use crate::cluster::Cluster;
use crate::world::{AppSpec, NAME, project};

/// The program that was built beside this one; none where only this one was built.
pub fn program() -> Option<String> {
    let path = std::env::current_exe().ok()?.with_file_name("kubectl-sluice");
    path.is_file().then(|| path.display().to_string())
}

/// How often runs are recorded, in seconds: every 5, as a process beside each application that asks as often as the
/// controller is felt on two processors. With `E2E_RECORD=1` as often as the controller does, and the demo replays its own;
/// with `E2E_RECORD=0` not at all.
pub fn wanted() -> Option<u32> {
    let asked = std::env::var("E2E_RECORD").unwrap_or_default();
    match asked.as_str() {
        "0" => None,
        "" => Some(5),
        _ => Some(CLOSELY),
    }
    .filter(|_| program().is_some())
}

/// As often as the controller evaluates here, in seconds.
pub const CLOSELY: u32 = 1;

/// Where the traces of a cluster's runs are.
pub fn directory(cluster: &Cluster) -> PathBuf {
    cluster.paths.run_dir.join("traces")
}

/// Records every run of an application until this is dropped.
pub struct Recording(#[expect(dead_code, reason = "ends with this")] Child);

impl Recording {
    /// Begins, if the program is there.
    pub fn begin(cluster: &Cluster, app: &AppSpec, seconds: u32) -> Result<Option<Self>> {
        let Some(program) = program() else { return Ok(None) };
        let AppSpec { namespace, name, .. } = app;
        let log = std::fs::File::create(cluster.paths.logs.join(format!("record-{namespace}-{name}.log")))?;
        let mut command = cluster.tool(&program);
        command.args(["record", name, "-n", namespace, "--every", &seconds.to_string()]);
        command.arg("--write").arg(directory(cluster));
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
        Ok(Some(Self(child.with_context(|| program.clone())?)))
    }
}

/// What `simulate` decides on the trace of an application's first run, by the class table of the demo.
pub async fn replay(cluster: &Cluster, namespace: &str) -> Result<Value> {
    let program = program().context("kubectl-sluice was not built")?;
    let values = std::fs::read_to_string(project().join("e2e/demo/values.yaml"))?;
    let values: Value = serde_saphyr::from_str(&values).context("e2e/demo/values.yaml")?;
    let policy = cluster.paths.run_dir.join("classes.yaml");
    std::fs::write(&policy, json!({ "classes": values["classes"] }).to_string())?;
    let first = |entry: std::io::Result<std::fs::DirEntry>| {
        let path = entry.ok()?.path();
        let name = path.file_name()?.to_str()?.to_owned();
        name.starts_with(&format!("{namespace}-{NAME}-1-")).then_some(path)
    };
    let mut files = std::fs::read_dir(directory(cluster)).context("traces")?;
    let trace = files.find_map(first).with_context(|| format!("{namespace}: its first run left no trace"))?;
    let mut command = cluster.tool(&program);
    command.args(["simulate", "-o", "json", "--policy"]).arg(&policy).arg("--trace").arg(&trace);
    let output = command.stdin(Stdio::null()).output().await.context("simulate")?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.success(),
        "simulate of {}: {}",
        trace.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_str(said.trim()).with_context(|| format!("simulate says {said}"))
}
