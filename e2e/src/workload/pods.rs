//! The life of each pod on a fake node, written to its status: pending, running, ready, not ready, crashing, image
//! not to be pulled, done, deleted.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::Ipv4Addr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch_objects};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{Fault, Inner, Lifecycle, PodServer};

/// Back-off of a crashing container: shorter than a kubelet's 10 s, so that several restarts fit into a scenario.
const FIRST_BACK_OFF: Duration = Duration::from_secs(2);
const LAST_BACK_OFF: Duration = Duration::from_secs(30);
/// How long a crashing container runs before it ends.
const CRASH_AFTER: Duration = Duration::from_millis(300);

/// Follows all pods; each pod of a fake node has a task until it is gone.
pub(super) async fn run(inner: Arc<Inner>, stop: CancellationToken) {
    let pods: Api<Pod> = Api::all(inner.client.clone());
    // Pods of other nodes are another kubelet's. A field selector has no "one of", so it excludes what it can.
    let config = watcher::Config::default().fields("spec.nodeName!=,spec.nodeName!=local");
    let mut events = pin!(watch_objects(pods, config).default_backoff());
    let mut tasks: HashMap<String, Task> = HashMap::new();
    let mut seen: Vec<String> = Vec::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Apply(pod)) => apply(&inner, &stop, &mut tasks, pod),
            Ok(Event::InitApply(pod)) => {
                seen.extend(pod.metadata.uid.clone());
                apply(&inner, &stop, &mut tasks, pod);
            }
            Ok(Event::Delete(pod)) => {
                if let Some(task) = pod.metadata.uid.as_ref().and_then(|uid| tasks.remove(uid)) {
                    task.end(&inner);
                }
            }
            Ok(Event::Init) => seen.clear(),
            Ok(Event::InitDone) => {
                let gone: Vec<String> = tasks.keys().filter(|uid| !seen.contains(uid)).cloned().collect();
                for task in gone.iter().filter_map(|uid| tasks.remove(uid)) {
                    task.end(&inner);
                }
            }
            // The stream repeats by itself; what it missed comes with the next list.
            Err(_) => {}
        }
    }
}

struct Task {
    address: Ipv4Addr,
    stop: CancellationToken,
}

impl Task {
    fn end(self, inner: &Inner) {
        inner.take(self.address);
        self.stop.cancel();
    }
}

fn apply(inner: &Arc<Inner>, stop: &CancellationToken, tasks: &mut HashMap<String, Task>, pod: Pod) {
    let on_fake_node =
        pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).is_some_and(|n| n.starts_with("fake-"));
    let Some(uid) = pod.metadata.uid.clone().filter(|_| on_fake_node) else { return };
    if pod.metadata.deletion_timestamp.is_some() {
        // It stops answering before the API server forgets it, as a process does that got SIGTERM.
        let task = tasks.remove(&uid);
        let inner = inner.clone();
        tokio::spawn(async move {
            tokio::time::sleep(pre_stop(&pod)).await;
            if let Some(task) = task {
                task.end(&inner);
            }
            delete(&inner, &pod).await;
        });
    } else if let Entry::Vacant(free) = tasks.entry(uid) {
        let task = free.insert(Task { address: inner.address(), stop: stop.child_token() });
        let (address, token, inner) = (task.address, task.stop.clone(), inner.clone());
        tokio::spawn(
            token.run_until_cancelled_owned(async move { Life::new(&inner, pod, address).live().await }),
        );
    }
}

/// How long a pod goes on answering once it is told to go: the `preStop` sleep of its first container.
fn pre_stop(pod: &Pod) -> Duration {
    let hook = pod.spec.as_ref().and_then(|s| s.containers.first()?.lifecycle.as_ref()?.pre_stop.as_ref());
    let seconds = hook.and_then(|hook| hook.sleep.as_ref()).map_or(0, |sleep| sleep.seconds);
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

async fn delete(inner: &Inner, pod: &Pod) {
    let _permit = inner.writes.acquire().await;
    let preconditions = Preconditions { uid: pod.metadata.uid.clone(), ..Preconditions::default() };
    let params = DeleteParams::default().grace_period(0).preconditions(preconditions);
    // Already gone, or another pod of this name: nothing to do. Anything else is repeated.
    for _ in 0..50 {
        match api(inner, pod).delete(pod.metadata.name.as_deref().unwrap_or_default(), &params).await {
            Ok(_) => return,
            Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => return,
            Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
}

fn api(inner: &Inner, pod: &Pod) -> Api<Pod> {
    Api::namespaced(inner.client.clone(), pod.metadata.namespace.as_deref().unwrap_or("default"))
}

/// What the containers of a pod are at: the part of the status that changes.
enum State {
    Ready,
    NotReady,
    Waiting { reason: &'static str, message: String },
    Crashed { reason: &'static str, message: String },
    Done,
}

struct Life<'a> {
    inner: &'a Inner,
    pod: Pod,
    address: Ipv4Addr,
    server: Option<Arc<PodServer>>,
    started: Timestamp,
    restarts: u32,
    /// Reason and exit code of the last end.
    last_end: (&'static str, i32),
}

impl<'a> Life<'a> {
    fn new(inner: &'a Inner, pod: Pod, address: Ipv4Addr) -> Self {
        Self {
            inner,
            pod,
            address,
            server: None,
            started: Timestamp::now(),
            restarts: 0,
            last_end: ("Error", 1),
        }
    }

    /// Follows the faults until the pod is deleted, which drops this future.
    async fn live(mut self) {
        if self.is_job() {
            self.serve(&Fault::default(), true);
            self.write(&State::Ready).await;
            tokio::time::sleep(Duration::from_millis(200)).await;
            self.inner.take(self.address);
            return self.write(&State::Done).await;
        }
        let mut rules = self.inner.rules.subscribe();
        let mut ready_at = None;
        loop {
            let fault = rules.borrow_and_update().of(&self.pod);
            match fault.lifecycle.unwrap_or_default() {
                Lifecycle::Healthy => {
                    let delay = Duration::from_millis(fault.ready_after_ms.unwrap_or(0));
                    let at = *ready_at.get_or_insert_with(|| tokio::time::Instant::now() + delay);
                    if at > tokio::time::Instant::now() {
                        self.serve(&fault, false);
                        self.write(&State::NotReady).await;
                        tokio::select! {
                            () = tokio::time::sleep_until(at) => {}
                            _ = rules.changed() => {}
                        }
                        continue;
                    }
                    self.serve(&fault, true);
                    self.write(&State::Ready).await;
                    let killed = async {
                        match fault.oom_every_ms {
                            Some(millis) => tokio::time::sleep(Duration::from_millis(millis)).await,
                            None => std::future::pending().await,
                        }
                    };
                    tokio::select! {
                        () = self.until_changed(&mut rules, &fault) => {}
                        () = killed => self.killed_for_want_of_memory(),
                    }
                }
                Lifecycle::NeverReady => {
                    self.serve(&fault, false);
                    self.write(&State::NotReady).await;
                    self.until_changed(&mut rules, &fault).await;
                }
                Lifecycle::Crash => {
                    self.crash(&mut rules, &fault).await;
                    ready_at = None;
                }
                Lifecycle::ImagePull => {
                    self.inner.take(self.address);
                    self.server = None;
                    let image = self.image();
                    let message = format!("failed to pull image \"{image}\": not found");
                    self.write(&State::Waiting { reason: "ErrImagePull", message }).await;
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    let message = format!("Back-off pulling image \"{image}\": ErrImagePull: not found");
                    self.write(&State::Waiting { reason: "ImagePullBackOff", message }).await;
                    self.until_changed(&mut rules, &fault).await;
                }
            }
        }
    }

    /// Waits for a rule that changes this pod's state; changes of errors and latency are taken over on the way.
    async fn until_changed(&self, rules: &mut tokio::sync::watch::Receiver<super::Rules>, now: &Fault) {
        while rules.changed().await.is_ok() {
            let fault = rules.borrow_and_update().of(&self.pod);
            if (fault.lifecycle, fault.oom_every_ms) != (now.lifecycle, now.oom_every_ms) {
                rules.mark_changed();
                return;
            }
            if let Some(server) = &self.server {
                server.behave(&fault, server.behaviour().ready);
            }
        }
        std::future::pending::<()>().await;
    }

    /// Ends the container and begins it again before anybody notices; its counters are gone.
    fn killed_for_want_of_memory(&mut self) {
        self.inner.take(self.address);
        self.server = None;
        self.restarts += 1;
        self.started = Timestamp::now();
        self.last_end = ("OOMKilled", 137);
    }

    async fn crash(&mut self, rules: &mut tokio::sync::watch::Receiver<super::Rules>, fault: &Fault) {
        self.last_end = ("Error", 1);
        let mut back_off = FIRST_BACK_OFF;
        loop {
            self.started = Timestamp::now();
            self.serve(fault, false);
            self.write(&State::NotReady).await;
            tokio::time::sleep(CRASH_AFTER).await;
            self.inner.take(self.address);
            self.server = None;
            let message = format!(
                "back-off {}s restarting failed container={} pod={}_{}",
                back_off.as_secs(),
                self.containers().first().map(|c| c.name.as_str()).unwrap_or_default(),
                self.pod.metadata.name.as_deref().unwrap_or_default(),
                self.pod.metadata.namespace.as_deref().unwrap_or_default(),
            );
            self.write(&State::Crashed { reason: "CrashLoopBackOff", message }).await;
            let until = tokio::time::Instant::now() + back_off;
            while tokio::time::timeout_at(until, rules.changed()).await.is_ok() {
                if rules.borrow_and_update().of(&self.pod).lifecycle != fault.lifecycle {
                    self.restarts += 1;
                    self.started = Timestamp::now();
                    return;
                }
            }
            self.restarts += 1;
            back_off = (back_off * 2).min(LAST_BACK_OFF);
        }
    }

    /// Answers on the pod's address from now on; before the status says so.
    fn serve(&mut self, fault: &Fault, ready: bool) {
        let server = self.server.get_or_insert_with(|| {
            let server = Arc::new(PodServer::new(&self.pod, self.inner.seed));
            self.inner.put(self.address, server.clone());
            server
        });
        server.behave(fault, ready);
    }

    fn is_job(&self) -> bool {
        self.pod.metadata.owner_references.iter().flatten().any(|o| o.kind == "Job")
    }

    fn containers(&self) -> &[Container] {
        self.pod.spec.as_ref().map(|s| s.containers.as_slice()).unwrap_or_default()
    }

    fn image(&self) -> String {
        self.containers().first().and_then(|c| c.image.clone()).unwrap_or_default()
    }

    /// Writes the status, again and again until the API server took it or the pod is gone.
    async fn write(&self, state: &State) {
        let Ok(_permit) = self.inner.writes.acquire().await else { return };
        let name = self.pod.metadata.name.as_deref().unwrap_or_default();
        let patch = Patch::Strategic(self.status(state));
        for _ in 0..50 {
            match api(self.inner, &self.pod).patch_status(name, &PatchParams::default(), &patch).await {
                Ok(_) => return,
                Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => return,
                Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        }
    }

    fn status(&self, state: &State) -> Value {
        let (now, started) = (second(Timestamp::now()), second(self.started));
        let ready = matches!(state, State::Ready);
        let phase = match state {
            State::Waiting { .. } if self.restarts == 0 && self.server.is_none() => "Pending",
            State::Done => "Succeeded",
            _ => "Running",
        };
        let container = |c: &Container| {
            let crashed = json!({"terminated": {
                "exitCode": self.last_end.1, "reason": self.last_end.0, "startedAt": started, "finishedAt": now}});
            let (current, last) = match state {
                State::Ready | State::NotReady if self.restarts > 0 => {
                    (json!({"running": {"startedAt": started}}), crashed)
                }
                State::Ready | State::NotReady => (json!({"running": {"startedAt": started}}), json!({})),
                State::Waiting { reason, message } => {
                    (json!({"waiting": {"reason": reason, "message": message}}), json!({}))
                }
                State::Crashed { reason, message } => {
                    (json!({"waiting": {"reason": reason, "message": message}}), crashed)
                }
                State::Done => {
                    let done = json!({"exitCode": 0, "reason": "Completed", "startedAt": started, "finishedAt": now});
                    (json!({"terminated": done}), json!({}))
                }
            };
            json!({
                "name": c.name, "image": c.image, "imageID": "", "ready": ready,
                "started": matches!(state, State::Ready | State::NotReady), "restartCount": self.restarts,
                "state": current, "lastState": last,
            })
        };
        let names: Vec<&str> = self.containers().iter().map(|c| c.name.as_str()).collect();
        let condition = |kind: &str, ok: bool, reason: Option<&str>, message: Option<String>| {
            json!({
                "type": kind, "status": if ok { "True" } else { "False" }, "lastTransitionTime": now,
                "reason": reason, "message": message,
            })
        };
        let unready = || Some(format!("containers with unready status: [{}]", names.join(" ")));
        let (reason, message) = match state {
            State::Ready => (None, None),
            State::Done => (Some("PodCompleted"), None),
            _ => (Some("ContainersNotReady"), unready()),
        };
        let mut conditions = vec![
            condition("Initialized", true, None, None),
            condition("ContainersReady", ready, reason, message.clone()),
            condition("Ready", ready, reason, message),
        ];
        for gate in self.pod.spec.iter().flat_map(|s| s.readiness_gates.iter().flatten()) {
            conditions.push(condition(&gate.condition_type, true, None, None));
        }
        let init = self.pod.spec.iter().flat_map(|s| s.init_containers.iter().flatten()).map(|c| {
            let done =
                json!({"exitCode": 0, "reason": "Completed", "startedAt": started, "finishedAt": started});
            json!({
                "name": c.name, "image": c.image, "imageID": "", "ready": true, "restartCount": 0,
                "state": if c.restart_policy.as_deref() == Some("Always") {
                    json!({"running": {"startedAt": started}})
                } else {
                    json!({"terminated": done})
                },
            })
        });
        json!({
            // A pod of the same name that came later must not get this status.
            "metadata": {"uid": self.pod.metadata.uid},
            "status": {
                "phase": phase,
                "conditions": conditions,
                "containerStatuses": self.containers().iter().map(container).collect::<Vec<_>>(),
                "initContainerStatuses": init.collect::<Vec<_>>(),
                "hostIP": "127.0.0.1",
                "podIP": self.address.to_string(),
                "podIPs": [{"ip": self.address.to_string()}],
                "startTime": started,
            },
        })
    }
}

/// Kubernetes' times have whole seconds.
fn second(time: Timestamp) -> String {
    Timestamp::from_second(time.as_second()).unwrap_or(time).to_string()
}
