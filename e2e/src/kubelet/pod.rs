//! One pod: volumes, init containers, containers, status, deletion.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::container::Job;
use super::status::{Report, State, status};
use super::{Shared, Wish, volumes};

/// Runs a pod until it is gone.
pub(super) async fn run(shared: Arc<Shared>, pod: Pod, wish: watch::Receiver<Wish>, stop: CancellationToken) {
    let ended = pod
        .status
        .as_ref()
        .and_then(|s| s.phase.as_deref())
        .is_some_and(|p| p == "Succeeded" || p == "Failed");
    let life = Life::new(shared, pod, wish, stop);
    if !ended {
        life.containers().await;
    }
    life.delete().await;
}

struct Life {
    shared: Arc<Shared>,
    pod: Arc<Pod>,
    ip: String,
    started: Timestamp,
    wish: watch::Receiver<Wish>,
    stop: CancellationToken,
    init: Vec<watch::Sender<Report>>,
    main: Vec<watch::Sender<Report>>,
}

impl Life {
    fn new(shared: Arc<Shared>, pod: Pod, wish: watch::Receiver<Wish>, stop: CancellationToken) -> Self {
        let reports = |n: usize| (0..n).map(|_| watch::Sender::new(Report::new())).collect::<Vec<_>>();
        let spec = pod.spec.as_ref();
        let (init, main) = (
            reports(spec.and_then(|s| s.init_containers.as_ref()).map_or(0, Vec::len)),
            reports(spec.map_or(0, |s| s.containers.len())),
        );
        let ip = shared.address().to_string();
        Self { ip, shared, pod: Arc::new(pod), started: Timestamp::now(), wish, stop, init, main }
    }

    fn client(&self) -> Client {
        self.shared.client.clone()
    }

    fn api(&self) -> Api<Pod> {
        Api::namespaced(self.client(), self.pod.metadata.namespace.as_deref().unwrap_or("default"))
    }

    fn name(&self) -> &str {
        self.pod.metadata.name.as_deref().unwrap_or_default()
    }

    /// From the first volume to the end of the last process. Status is written beside it, and once more at the end.
    async fn containers(&self) {
        let (end, ends) = watch::channel(None);
        let mut wish = self.wish.clone();
        let wanted = async {
            tokio::select! {
                biased;
                // The cluster goes down: nobody waits for a slow end.
                () = self.stop.cancelled() => 2,
                wish = wish.wait_for(|w| w.delete.is_some() || w.gone) => {
                    wish.ok().and_then(|w| w.delete).unwrap_or(0)
                }
            }
        };
        let ending = async {
            let grace = wanted.await;
            let _ = end.send(Some(grace));
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = self.work(&ends) => {}
            () = ending => {}
            () = self.report() => {}
        }
        if !self.stop.is_cancelled() {
            self.write().await;
        }
    }

    async fn work(&self, ends: &watch::Receiver<Option<i64>>) {
        let spec = self.pod.spec.as_ref();
        let policy = spec.and_then(|s| s.restart_policy.clone()).unwrap_or_else(|| "Always".into());
        let meta = &self.pod.metadata;
        let dir = self.shared.pod_dir(meta.namespace.as_deref().unwrap_or_default(), self.name());
        let dir = dir.join("volumes");
        let mut ends = ends.clone();
        let tokens = loop {
            match volumes::write(&self.shared.client, &self.pod, &self.ip, &self.shared.ca_pem, &dir).await {
                Ok(tokens) => break tokens,
                Err(e) => {
                    let message = format!("{e:#}");
                    for report in &self.main {
                        report.send_modify(|r| {
                            r.state =
                                State::Waiting { reason: "ContainerCreating", message: message.clone() };
                        });
                    }
                }
            }
            tokio::select! {
                () = sleep(Duration::from_secs(1)) => {}
                _ = ends.wait_for(Option::is_some) => return,
            }
        };
        let job = |container: &Container, policy: &str, report: &watch::Sender<Report>| Job {
            shared: self.shared.clone(),
            pod: self.pod.clone(),
            ip: self.ip.clone(),
            container: container.clone(),
            policy: policy.to_owned(),
            report: report.clone(),
        };
        let mut running = FuturesUnordered::new();
        // An init container is done when it succeeded; one that restarts for ever is a sidecar and stays beside.
        let init_policy = if policy == "Never" { "Never" } else { "OnFailure" };
        for (container, report) in
            spec.iter().flat_map(|s| s.init_containers.iter().flatten()).zip(&self.init)
        {
            if container.restart_policy.as_deref() == Some("Always") {
                running.push(job(container, "Always", report).run(ends.clone()));
                continue;
            }
            job(container, init_policy, report).run(ends.clone()).await;
            let done = report.borrow().finished(init_policy) == Some(true);
            if !done {
                return;
            }
        }
        let main = FuturesUnordered::new();
        for (container, report) in spec.iter().flat_map(|s| s.containers.iter()).zip(&self.main) {
            main.push(job(container, &policy, report).run(ends.clone()));
        }
        let mut main = main;
        tokio::select! {
            () = async { while main.next().await.is_some() {} } => {}
            () = async { while running.next().await.is_some() {} std::future::pending::<()>().await } => {}
            () = volumes::renew(&self.shared.client, &self.pod, &tokens) => {}
        }
    }

    /// Writes the status at each change, for ever.
    async fn report(&self) {
        let mut changes: Vec<_> = self.init.iter().chain(&self.main).map(watch::Sender::subscribe).collect();
        loop {
            for change in &mut changes {
                change.mark_unchanged();
            }
            self.write().await;
            futures::future::select_all(changes.iter_mut().map(|c| Box::pin(c.changed()))).await.0.ok();
        }
    }

    async fn write(&self) {
        let reports =
            |list: &[watch::Sender<Report>]| list.iter().map(|r| r.borrow().clone()).collect::<Vec<_>>();
        let over = self.wish.borrow().delete.is_some();
        let status =
            status(&self.pod, &self.ip, self.started, &reports(&self.init), &reports(&self.main), over);
        let patch = Patch::Strategic(status);
        // Until the API server took it or the pod is gone; a server that is away for long is another test's matter.
        for _ in 0..100 {
            match self.api().patch_status(self.name(), &PatchParams::default(), &patch).await {
                Ok(_) => return,
                Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => return,
                Err(_) => sleep(Duration::from_millis(200)).await,
            }
        }
    }

    /// Waits until the pod is to be deleted and confirms that its processes are gone.
    async fn delete(&self) {
        let mut wish = self.wish.clone();
        let wanted = wish.wait_for(|w| w.delete.is_some() || w.gone);
        let gone = tokio::select! {
            wish = wanted => wish.map_or(true, |w| w.gone),
            () = self.stop.cancelled() => true,
        };
        if gone {
            return;
        }
        let preconditions = Preconditions { uid: self.pod.metadata.uid.clone(), ..Preconditions::default() };
        let params = DeleteParams::default().grace_period(0).preconditions(preconditions);
        for _ in 0..100 {
            match self.api().delete(self.name(), &params).await {
                Ok(_) => return,
                Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => return,
                Err(_) => sleep(Duration::from_millis(200)).await,
            }
        }
    }
}
