//! The cluster's processes: each has a log file, can be stopped and started again by a scenario, and one that ends
//! by itself is noticed and named with the last lines of its log.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Command;
use tokio::sync::watch;

/// How a process is started.
#[derive(Clone, Debug)]
pub struct Spec {
    pub name: &'static str,
    pub program: PathBuf,
    pub args: Vec<String>,
    pub env: Vec<(String, String)>,
}

/// The parts are Go programs. Collected less often, their garbage costs a quarter less of the processors, which are scarcer here
/// than memory.
const GO: [(&str, &str); 2] = [("GOGC", "400"), ("GOMEMLIMIT", "1500MiB")];

struct Running {
    spec: Spec,
    pid: Pid,
    /// Turns true when the process has ended.
    ended: watch::Receiver<bool>,
    /// Turns true when its end is wanted.
    wanted: watch::Sender<bool>,
}

/// All processes of one cluster. Dropping the last handle kills them.
#[derive(Clone)]
pub struct Processes {
    inner: Arc<Inner>,
}

struct Inner {
    logs: PathBuf,
    running: Mutex<BTreeMap<&'static str, Running>>,
    died: watch::Sender<Option<String>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        let running = self.running.get_mut().unwrap_or_else(PoisonError::into_inner);
        for process in running.values() {
            let _ = process.wanted.send(true);
            let _ = kill_process(process.pid, Signal::KILL);
        }
    }
}

impl Processes {
    pub fn new(logs: PathBuf) -> Result<Self> {
        std::fs::create_dir_all(&logs).with_context(|| logs.display().to_string())?;
        Ok(Self {
            inner: Arc::new(Inner { logs, running: Mutex::default(), died: watch::Sender::new(None) }),
        })
    }

    /// The log file of a process.
    pub fn log(&self, name: &str) -> PathBuf {
        self.inner.logs.join(format!("{name}.log"))
    }

    /// Starts a process; its name must not be in use by a running one.
    pub fn start(&self, spec: Spec) -> Result<()> {
        let name = spec.name;
        let mut running = self.inner.running.lock().unwrap_or_else(PoisonError::into_inner);
        if running.get(name).is_some_and(|r| !*r.ended.borrow()) {
            bail!("{name} runs already");
        }
        let log = OpenOptions::new().create(true).append(true).open(self.log(name)).context("log file")?;
        let mut child = Command::new(&spec.program)
            .args(&spec.args)
            .envs(GO)
            .envs(spec.env.iter().cloned())
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("log file")?)
            .stderr(log)
            .process_group(0) // an interrupt at the terminal is for us; we end our processes in order
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{name}: {} could not be started", spec.program.display()))?;
        let pid = child.id().and_then(|id| Pid::from_raw(id as i32)).context("process id")?;
        let (ended_tx, ended) = watch::channel(false);
        let (wanted, wanted_rx) = watch::channel(false);
        let (died, log) = (self.inner.died.clone(), self.log(name));
        tokio::spawn(async move {
            let status = child.wait().await;
            if !*wanted_rx.borrow() {
                let status = status.map_or_else(|e| e.to_string(), |s| s.to_string());
                let report =
                    format!("{name} ended by itself ({status}); {}:\n{}", log.display(), tail(&log, 15));
                died.send_if_modified(|first| {
                    let new = first.is_none();
                    if new {
                        *first = Some(report);
                    }
                    new
                });
            }
            let _ = ended_tx.send(true);
        });
        running.insert(name, Running { spec, pid, ended, wanted });
        Ok(())
    }

    /// Sends a signal to a running process.
    pub fn signal(&self, name: &str, signal: Signal) -> Result<()> {
        let running = self.inner.running.lock().unwrap_or_else(PoisonError::into_inner);
        let process = running.get(name).filter(|r| !*r.ended.borrow());
        let process = process.with_context(|| format!("{name} does not run"))?;
        kill_process(process.pid, signal).with_context(|| format!("signal to {name}"))
    }

    /// Ends a process: SIGTERM, after 5 s SIGKILL. Returns when it is gone.
    pub async fn stop(&self, name: &str) -> Result<()> {
        let mut ended = {
            let running = self.inner.running.lock().unwrap_or_else(PoisonError::into_inner);
            let process = running.get(name).with_context(|| format!("{name} was never started"))?;
            let _ = process.wanted.send(true);
            process.ended.clone()
        };
        if *ended.borrow() {
            return Ok(());
        }
        self.signal(name, Signal::TERM)?;
        if tokio::time::timeout(Duration::from_secs(5), ended.wait_for(|e| *e)).await.is_err() {
            self.signal(name, Signal::KILL)?;
            let _ = ended.wait_for(|e| *e).await;
        }
        Ok(())
    }

    /// Kills a process at once, as a crash would; it is not reported as died. Returns when it is gone.
    pub async fn kill(&self, name: &str) -> Result<()> {
        let mut ended = {
            let running = self.inner.running.lock().unwrap_or_else(PoisonError::into_inner);
            let process = running.get(name).with_context(|| format!("{name} was never started"))?;
            let _ = process.wanted.send(true);
            process.ended.clone()
        };
        if !*ended.borrow() {
            self.signal(name, Signal::KILL)?;
            let _ = ended.wait_for(|e| *e).await;
        }
        Ok(())
    }

    /// Starts a stopped process again with the arguments it had.
    pub fn start_again(&self, name: &str) -> Result<()> {
        let spec = {
            let running = self.inner.running.lock().unwrap_or_else(PoisonError::into_inner);
            running.get(name).with_context(|| format!("{name} was never started"))?.spec.clone()
        };
        self.start(spec)
    }

    /// Why the first process that ended by itself did so; waits until there is one.
    pub async fn died(&self) -> String {
        let mut died = self.inner.died.subscribe();
        match died.wait_for(Option::is_some).await {
            Ok(report) => report.clone().unwrap_or_default(),
            Err(_) => std::future::pending().await,
        }
    }

    /// CPU seconds (user and system) and resident bytes of a running process.
    pub fn usage(&self, name: &str) -> Result<Usage> {
        let running = self.inner.running.lock().unwrap_or_else(PoisonError::into_inner);
        let process = running.get(name).with_context(|| format!("{name} was never started"))?;
        usage(process.pid.as_raw_nonzero().get() as u32)
    }
}

/// What a process has used so far.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    pub cpu_seconds: f64,
    pub resident_bytes: u64,
    /// The most that was resident at any time.
    pub peak_bytes: u64,
}

/// Reads a process's usage; the id is the one inside the sandbox.
pub fn usage(pid: u32) -> Result<Usage> {
    // /proc shows the outer process ids; NSpid in a status file has the inner one last. Other sandboxes on the
    // machine have the same inner ids, so the namespace must be ours too.
    let own = std::fs::read_link("/proc/self/ns/pid").context("own process namespace")?;
    for entry in std::fs::read_dir("/proc").context("/proc")?.flatten() {
        let Some(outer) = entry.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
        let Ok(status) = std::fs::read_to_string(entry.path().join("status")) else { continue };
        let inner = status.lines().find_map(|l| l.strip_prefix("NSpid:")).unwrap_or_default();
        if inner.split_whitespace().next_back().and_then(|i| i.parse().ok()) != Some(pid)
            || std::fs::read_link(entry.path().join("ns/pid")).ok().as_ref() != Some(&own)
        {
            continue;
        }
        let stat = std::fs::read_to_string(format!("/proc/{outer}/stat")).context("stat")?;
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
        let ticks = |i: usize| fields.get(i).and_then(|f| f.parse::<f64>().ok()).unwrap_or_default();
        let bytes = |name: &str| {
            let kilobytes = status.lines().find_map(|l| l.strip_prefix(name)).unwrap_or_default();
            kilobytes.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or_default() * 1024
        };
        // The kernel reports in ticks of 1/100 s to user space on every supported architecture.
        return Ok(Usage {
            cpu_seconds: (ticks(11) + ticks(12)) / 100.0,
            resident_bytes: bytes("VmRSS:"),
            peak_bytes: bytes("VmHWM:"),
        });
    }
    bail!("no process {pid} in the sandbox")
}

/// The last lines of a file, indented.
pub fn tail(file: &Path, lines: usize) -> String {
    let text = std::fs::read(file).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default();
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].iter().map(|l| format!("    {l}")).collect::<Vec<_>>().join("\n")
}
