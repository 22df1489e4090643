//! What a pod's status says about its containers.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};
use serde_json::{Value, json};

/// The state of one container.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum State {
    Waiting { reason: &'static str, message: String },
    Running { since: Timestamp },
    Ended(Ended),
}

/// How a process ended.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Ended {
    pub(super) exit_code: i32,
    pub(super) signal: Option<i32>,
    pub(super) reason: &'static str,
    pub(super) message: String,
    pub(super) from: Timestamp,
    pub(super) to: Timestamp,
}

/// A container as the status shows it.
#[derive(Clone, Debug)]
pub(super) struct Report {
    pub(super) state: State,
    pub(super) last: Option<Ended>,
    pub(super) started: bool,
    pub(super) ready: bool,
    pub(super) restarts: u32,
}

impl Report {
    pub(super) fn new() -> Self {
        let state = State::Waiting { reason: "ContainerCreating", message: String::new() };
        Self { state, last: None, started: false, ready: false, restarts: 0 }
    }

    /// Whether it will run no more under the restart policy.
    pub(super) fn finished(&self, policy: &str) -> Option<bool> {
        match &self.state {
            State::Ended(e) if policy == "Never" || (policy == "OnFailure" && e.exit_code == 0) => {
                Some(e.exit_code == 0)
            }
            _ => None,
        }
    }
}

/// The whole status as a strategic merge patch.
pub(super) fn status(
    pod: &Pod,
    ip: &str,
    started: Timestamp,
    init: &[Report],
    main: &[Report],
    over: bool,
) -> Value {
    let spec = pod.spec.as_ref();
    let empty = Vec::new();
    let containers = spec.map_or(&empty, |s| &s.containers);
    let inits = spec.and_then(|s| s.init_containers.as_ref()).unwrap_or(&empty);
    let policy = spec.and_then(|s| s.restart_policy.as_deref()).unwrap_or("Always");
    // A pod that is being deleted restarts nothing: its containers are finished when they have ended.
    let policy = if over { "Never" } else { policy };
    let finished: Vec<Option<bool>> = main.iter().map(|r| r.finished(policy)).collect();
    let init_failed = init.iter().any(|r| r.finished(policy) == Some(false));
    let initialized = init.iter().all(|r| matches!(&r.state, State::Ended(e) if e.exit_code == 0));
    let phase = if init_failed {
        "Failed"
    } else if finished.iter().all(Option::is_some) && !finished.is_empty() {
        if finished.iter().all(|f| *f == Some(true)) { "Succeeded" } else { "Failed" }
    } else if main.iter().all(|r| matches!(r.state, State::Waiting { .. }) && r.last.is_none()) {
        "Pending"
    } else {
        "Running"
    };
    let ready = phase == "Running" && main.iter().all(|r| r.ready);
    let unready: Vec<&str> =
        containers.iter().zip(main).filter(|(_, r)| !r.ready).map(|(c, _)| c.name.as_str()).collect();
    let now = Timestamp::now();
    let condition = |kind: &str, ok: bool| {
        let (reason, message) = match (ok, phase) {
            (true, _) => (None, None),
            (false, "Succeeded") => (Some("PodCompleted"), None),
            (false, "Failed") => (Some("PodFailed"), None),
            (false, _) if kind == "Initialized" => (Some("ContainersNotInitialized"), None),
            (false, _) => (
                Some("ContainersNotReady"),
                Some(format!("containers with unready status: [{}]", unready.join(" "))),
            ),
        };
        json!({
            "type": kind, "status": if ok { "True" } else { "False" }, "lastTransitionTime": second(now),
            "reason": reason, "message": message,
        })
    };
    let gates = spec
        .iter()
        .flat_map(|s| s.readiness_gates.iter().flatten())
        .map(|g| condition(&g.condition_type, true));
    let mut conditions = vec![
        condition("Initialized", initialized),
        condition("ContainersReady", ready),
        condition("Ready", ready),
    ];
    conditions.extend(gates);
    json!({
        // A pod of the same name that came later must not get this status.
        "metadata": {"uid": pod.metadata.uid},
        "status": {
            "phase": phase,
            "conditions": conditions,
            "containerStatuses": containers.iter().zip(main).map(|(c, r)| container(c, r)).collect::<Vec<_>>(),
            "initContainerStatuses": inits.iter().zip(init).map(|(c, r)| container(c, r)).collect::<Vec<_>>(),
            "hostIP": "127.0.0.1", "podIP": ip, "podIPs": [{"ip": ip}], "startTime": second(started),
        },
    })
}

fn container(container: &Container, report: &Report) -> Value {
    let ended = |e: &Ended| {
        json!({"terminated": {
            "exitCode": e.exit_code, "signal": e.signal, "reason": e.reason, "message": e.message,
            "startedAt": second(e.from), "finishedAt": second(e.to),
        }})
    };
    let state = match &report.state {
        State::Waiting { reason, message } => json!({"waiting": {"reason": reason, "message": message}}),
        State::Running { since } => json!({"running": {"startedAt": second(*since)}}),
        State::Ended(e) => ended(e),
    };
    json!({
        "name": container.name, "image": container.image, "imageID": "", "ready": report.ready,
        "started": report.started, "restartCount": report.restarts, "state": state,
        "lastState": report.last.as_ref().map_or_else(|| json!({}), ended),
    })
}

/// Kubernetes' times have whole seconds.
fn second(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(code: i32) -> Report {
        let now = Timestamp::UNIX_EPOCH;
        let ended =
            Ended { exit_code: code, signal: None, reason: "", message: String::new(), from: now, to: now };
        Report { state: State::Ended(ended), ..Report::new() }
    }

    fn phase(policy: &str, reports: &[Report], over: bool) -> String {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p"},
            "spec": {"restartPolicy": policy, "containers": [{"name": "a"}, {"name": "b"}]},
        }))
        .expect("pod");
        let status = status(&pod, "198.19.0.1", Timestamp::UNIX_EPOCH, &[], reports, over);
        status["status"]["phase"].as_str().expect("phase").to_owned()
    }

    #[test]
    fn phase_follows_containers_and_restart_policy() {
        let running =
            Report { state: State::Running { since: Timestamp::UNIX_EPOCH }, ready: true, ..Report::new() };
        assert_eq!(phase("Always", &[Report::new(), Report::new()], false), "Pending");
        assert_eq!(phase("Always", &[running.clone(), ended(1)], false), "Running");
        assert_eq!(phase("Always", &[ended(0), ended(0)], false), "Running", "it will be restarted");
        assert_eq!(phase("Never", &[ended(0), ended(0)], false), "Succeeded");
        assert_eq!(phase("Never", &[ended(0), ended(3)], false), "Failed");
        assert_eq!(phase("OnFailure", &[ended(0), ended(3)], false), "Running");
        assert_eq!(phase("Always", &[ended(0), ended(143)], true), "Failed", "it is deleted");
    }
}
