//! One container: started, probed, restarted, ended.

use std::fs::OpenOptions;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, Probe};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Child;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::Shared;
use super::probe::{ask, positive};
use super::root::{Place, command};
use super::spec::resolve;
use super::status::{Ended, Report, State};

/// Back-off of a container that ends: shorter than a kubelet's 10 s to 5 min, so that scenarios stay short.
const FIRST_BACK_OFF: Duration = Duration::from_secs(1);
const LAST_BACK_OFF: Duration = Duration::from_secs(10);

/// Seconds that the process is given to end, once its end is wanted.
pub(super) type Stop = watch::Receiver<Option<i64>>;

/// What the task of a container works with.
#[derive(Clone)]
pub(super) struct Job {
    pub(super) shared: Arc<Shared>,
    pub(super) pod: Arc<Pod>,
    pub(super) ip: String,
    pub(super) container: Container,
    pub(super) policy: String,
    pub(super) report: watch::Sender<Report>,
}

impl Job {
    /// Runs until the container is finished under its restart policy, or its end is wanted.
    pub(super) async fn run(self, mut stop: Stop) {
        let mut back_off = FIRST_BACK_OFF;
        loop {
            let since = Instant::now();
            match self.start().await {
                Ok(child) => {
                    let ended = self.live(child, &mut stop).await;
                    self.report.send_modify(|r| {
                        r.state = State::Ended(ended.clone());
                        (r.started, r.ready) = (false, false);
                    });
                    let finished = self.report.borrow().finished(&self.policy).is_some();
                    if finished || stop.borrow().is_some() {
                        return;
                    }
                    if since.elapsed() > LAST_BACK_OFF * 2 {
                        back_off = FIRST_BACK_OFF;
                    }
                    let message = format!("back-off {}s restarting failed container", back_off.as_secs());
                    self.report.send_modify(|r| {
                        r.last = Some(ended);
                        r.state = State::Waiting { reason: "CrashLoopBackOff", message };
                    });
                }
                Err((reason, message)) => {
                    self.report.send_modify(|r| r.state = State::Waiting { reason, message });
                }
            }
            tokio::select! {
                () = sleep(back_off) => {}
                _ = stop.wait_for(Option::is_some) => return,
            }
            let restarted = self.report.borrow().last.is_some();
            if restarted {
                back_off = (back_off * 2).min(LAST_BACK_OFF);
                self.report.send_modify(|r| r.restarts += 1);
            }
        }
    }

    async fn start(&self) -> Result<Child, (&'static str, String)> {
        let image = self.container.image.as_deref().unwrap_or_default();
        let program = self.shared.program(image).map_err(|message| {
            let again = matches!(&self.report.borrow().state, State::Waiting { reason, .. } if reason.starts_with("ErrImage"));
            (if again { "ImagePullBackOff" } else { "ErrImagePull" }, message)
        })?;
        let resolved = resolve(&self.shared.client, &self.pod, &self.ip, &self.container)
            .await
            .map_err(|e| ("CreateContainerConfigError", format!("{e:#}")))?;
        let meta = &self.pod.metadata;
        let (namespace, name) =
            (meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default());
        let pod_dir = self.shared.pod_dir(namespace, name);
        let place = Place {
            pod: &self.pod,
            pod_dir: &pod_dir,
            ip: &self.ip,
            container: &self.container,
            program: &program,
        };
        let spawn = || -> Result<Child> {
            let log = log(&pod_dir, &self.container.name)?;
            let mut command = command(&place, &resolved)?;
            command.stdin(Stdio::null()).stdout(log.try_clone().context("log")?).stderr(log);
            command.process_group(0).kill_on_drop(true).spawn().context("start")
        };
        spawn().map_err(|e| ("CreateContainerError", format!("{e:#}")))
    }

    /// From the start of the process to its end.
    async fn live(&self, mut child: Child, stop: &mut Stop) -> Ended {
        let from = Timestamp::now();
        let key = self.key();
        let running = || self.shared.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pid) = child.id() {
            running().insert(key.clone(), pid);
        }
        self.report.send_modify(|r| {
            r.state = State::Running { since: from };
            r.started = self.container.startup_probe.is_none();
            r.ready = r.started && self.container.readiness_probe.is_none();
        });
        let (status, why) = tokio::select! {
            status = child.wait() => (status, None),
            grace = async { stop.wait_for(Option::is_some).await.ok().and_then(|g| *g) } => {
                self.report.send_modify(|r| r.ready = false);
                (self.end(&mut child, grace.unwrap_or(0)).await, None)
            }
            reason = self.probe() => {
                let grace = self.pod.spec.as_ref().and_then(|s| s.termination_grace_period_seconds).unwrap_or(30);
                (self.end(&mut child, grace).await, Some(reason))
            }
        };
        running().remove(&key);
        let to = Timestamp::now();
        let (exit_code, signal) = match status {
            Ok(status) => exit(status),
            Err(_) => (255, None),
        };
        let reason = if exit_code == 0 { "Completed" } else { "Error" };
        Ended { exit_code, signal, reason, message: why.unwrap_or_default(), from, to }
    }

    /// SIGTERM, the grace, SIGKILL.
    async fn end(&self, child: &mut Child, grace: i64) -> std::io::Result<ExitStatus> {
        if let Some(hook) = self.container.lifecycle.as_ref().and_then(|l| l.pre_stop.as_ref())
            && let Some(pause) = &hook.sleep
        {
            sleep(Duration::from_secs(u64::try_from(pause.seconds).unwrap_or(0))).await;
        }
        if let Some(pid) = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let grace = Duration::from_secs(u64::try_from(grace).unwrap_or(0));
        match tokio::time::timeout(grace, child.wait()).await {
            Ok(status) => status,
            Err(_) => {
                child.start_kill()?;
                child.wait().await
            }
        }
    }

    /// Runs the probes; returns only when the container has to be restarted, with the reason.
    async fn probe(&self) -> String {
        if let Some(probe) = &self.container.startup_probe {
            if let Some(reason) = self.until(probe, "Startup", true).await {
                return reason;
            }
            self.report.send_modify(|r| {
                r.started = true;
                r.ready = self.container.readiness_probe.is_none();
            });
        }
        let liveness = async {
            match &self.container.liveness_probe {
                Some(probe) => self.until(probe, "Liveness", false).await.unwrap_or_default(),
                None => std::future::pending().await,
            }
        };
        let readiness = async {
            match &self.container.readiness_probe {
                Some(probe) => self.readiness(probe).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            reason = liveness => reason,
            never = readiness => never,
        }
    }

    /// Probes until it has failed too often (the reason), or until it succeeds once if that is enough (None).
    async fn until(&self, probe: &Probe, what: &str, once: bool) -> Option<String> {
        let mut failed = 0;
        let mut rounds = Rounds::new(probe);
        loop {
            rounds.next().await;
            match ask(probe, &self.container, &self.ip).await {
                Ok(()) if once => return None,
                Ok(()) => failed = 0,
                Err(e) => {
                    failed += 1;
                    if failed >= positive(probe.failure_threshold, 3) {
                        return Some(format!("{what} probe failed {failed} times: {e:#}"));
                    }
                }
            }
        }
    }

    async fn readiness(&self, probe: &Probe) -> ! {
        let (mut failed, mut succeeded) = (0, 0);
        let mut rounds = Rounds::new(probe);
        loop {
            rounds.next().await;
            if ask(probe, &self.container, &self.ip).await.is_ok() {
                (failed, succeeded) = (0, succeeded + 1);
            } else {
                (failed, succeeded) = (failed + 1, 0);
            }
            let ready = self.report.borrow().ready;
            if ready && failed >= positive(probe.failure_threshold, 3) {
                self.report.send_modify(|r| r.ready = false);
            } else if !ready && succeeded >= positive(probe.success_threshold, 1) {
                self.report.send_modify(|r| r.ready = true);
            }
        }
    }

    fn key(&self) -> (String, String, String) {
        let meta = &self.pod.metadata;
        (
            meta.namespace.clone().unwrap_or_default(),
            meta.name.clone().unwrap_or_default(),
            self.container.name.clone(),
        )
    }
}

/// The times of a probe. Until the first second is over it asks more often than its period, as a kubelet does after a
/// start, so that a process that is ready at once is seen at once.
struct Rounds {
    at: Instant,
    period: Duration,
    early: u32,
}

impl Rounds {
    fn new(probe: &Probe) -> Self {
        let delay = u64::try_from(probe.initial_delay_seconds.unwrap_or(0)).unwrap_or(0);
        let period = Duration::from_secs(positive(probe.period_seconds, 10));
        let early = if probe.failure_threshold.unwrap_or(3) > 1 { 1 } else { 0 };
        Self { at: Instant::now() + Duration::from_secs(delay), period, early }
    }

    async fn next(&mut self) {
        sleep_until(self.at).await;
        let pause = if self.early > 0 { Duration::from_millis(500) } else { self.period };
        self.early = self.early.saturating_sub(1);
        self.at = Instant::now() + pause;
    }
}

fn exit(status: ExitStatus) -> (i32, Option<i32>) {
    match (status.code(), status.signal()) {
        (Some(code), _) => (code, None),
        (None, Some(signal)) => (128 + signal, Some(signal)),
        (None, None) => (255, None),
    }
}

fn log(pod_dir: &Path, container: &str) -> Result<std::fs::File> {
    let file = pod_dir.join(format!("{container}.log"));
    OpenOptions::new().create(true).append(true).open(&file).with_context(|| file.display().to_string())
}
