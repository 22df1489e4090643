//! Screens of typical moments, as snapshots, and what must hold for all of them.

use serde_json::json;

use super::*;

/// Typical moments in the life of one rollout. The time is noon.
pub mod scene {
    use serde_json::{Value, json};
    use sluice_core::view::{ReplicaSet, Workload};

    use crate::model::{Controller, Event, Seen};

    pub const NOW: &str = "2026-11-03T12:00:00Z";

    fn template(image: &str) -> Value {
        json!({
            "metadata": { "labels": { "app": "checkout" } },
            "spec": { "containers": [{ "name": "app", "image": image }] },
        })
    }

    fn digest(image: &str) -> String {
        sluice_core::digest::template(&template(image))
    }

    const V1: &str = "registry.example.com/shop/checkout:v1";
    const V2: &str = "registry.example.com/shop/checkout:v2";

    fn revision(image: &str, hash: &str, commit: &str) -> Value {
        json!({
            "digest": digest(image), "restartDigest": digest(image), "hash": hash,
            "replicaSet": format!("checkout-{hash}"), "images": [image], "commit": commit,
        })
    }

    fn spec() -> Value {
        json!({
            "workloadRef": { "name": "checkout" },
            "change": { "provenance": "GenAIAssisted", "commit": "9f2c1ab4d0e1f2a3", "images": [V2] },
            "routing": { "service": "checkout", "routes": [{ "name": "checkout" }] },
        })
    }

    fn waiting(reason: &str, message: &str, since: &str, deadline: Option<&str>) -> Value {
        let mut wait =
            json!({ "reason": reason, "message": message, "since": format!("2026-11-03T{since}Z") });
        if let (Some(deadline), Some(fields)) = (deadline, wait.as_object_mut()) {
            fields.insert("deadline".to_owned(), json!(format!("2026-11-03T{deadline}Z")));
        }
        wait
    }

    fn condition(kind: &str, status: &str, reason: &str) -> Value {
        json!({
            "type": kind, "status": status, "reason": reason, "message": reason, "observedGeneration": 4,
            "lastTransitionTime": "2026-11-03T11:00:00Z",
        })
    }

    fn plan() -> Value {
        let steps: Vec<Value> = [(1, 3600), (5, 1800), (20, 1800), (50, 1800), (75, 1800), (100, 7200)]
            .iter()
            .map(|(weight, bake)| json!({ "weightPercent": weight, "bakeSeconds": bake }))
            .collect();
        json!({
            "digest": "4c1e", "riskClass": "R3", "provenance": "GenAIAssisted", "steps": steps,
            "tolerancePpm": { "relative": 100_000, "absolute": 100 }, "minSamples": 10_000, "noDataSeconds": 900,
            "watchSeconds": 3600, "progressDeadlineSeconds": 600, "service": "checkout",
            "stableService": "checkout-stable", "canaryService": "checkout-canary", "routes": [{ "name": "checkout" }],
            "apexCallers": "Some", "settleSeconds": 5, "drainSeconds": 30, "guards": [],
        })
    }

    fn run() -> Value {
        json!({
            "id": "7-5bd9c", "kind": "Canary",
            "canary": revision(V2, "5bd9c7f6b4", "9f2c1ab4d0e1f2a3"), "stable": revision(V1, "7d4f5c6d8b", "1c0ffee2d0e1f2a3"),
            "plan": plan(), "stage": "Stepping", "step": 2,
            "startedAt": "2026-11-03T10:10:00Z", "stageSince": "2026-11-03T11:45:00Z",
            "weight": { "percent": 20, "at": "2026-11-03T11:45:00Z", "acceptedAt": "2026-11-03T11:45:01Z",
                        "settledAt": "2026-11-03T11:45:06Z" },
            "maxWeightPercent": 20, "exposedSince": "2026-11-03T10:11:00Z",
        })
    }

    fn ratio(state: &str, score: i64, failed: i64, message: &str) -> Value {
        json!({
            "name": "error-rate", "state": state, "scorePermille": score, "canaryRequests": 6_120, "canaryFailed": failed,
            "stableRequests": 25_010, "stableFailed": 8, "neededRequests": 10_000, "gatePermille": 712, "burstPermille": 1800, "message": message,
        })
    }

    fn alert(state: &str, message: &str) -> Value {
        json!({ "name": "alerts", "state": state, "message": message })
    }

    fn healthy() -> Value {
        json!([
            ratio(
                "Ok",
                40,
                2,
                "error-rate 2/6120 against 8/25010, score 0.04 of 1, 6120 of 10000 canary requests"
            ),
            alert("Clear", "no alert fires"),
        ])
    }

    fn traffic(percent: i32, observed: Option<i32>) -> Value {
        let mut traffic = json!({
            "weightPercent": percent, "accepted": true, "settled": true, "exposurePermille": (percent * 10 + 30).min(1000), "overwrites": 0,
        });
        if let (Some(observed), Some(fields)) = (observed, traffic.as_object_mut()) {
            fields.insert("observedPermille".to_owned(), json!(observed));
        }
        traffic
    }

    fn status(phase: &str, more: Value) -> Value {
        let mut status = json!({
            "observedGeneration": 4, "observedWorkloadGeneration": 9, "phase": phase, "phaseSince": "2026-11-03T11:55:00Z",
            "workloadUid": "u1", "runCount": 7, "stable": revision(V1, "7d4f5c6d8b", "1c0ffee2d0e1f2a3"),
            "stableCommit": "1c0ffee2d0e1f2a3",
            "summary": { "step": "-", "weight": "0%", "observed": "", "riskClass": "", "provenance": "", "commit": "", "reason": "" },
            "conditions": [condition("Ready", "Unknown", "InProgress"), condition("Stalled", "False", "InProgress")],
        });
        if let (Some(status), Value::Object(more)) = (status.as_object_mut(), more) {
            status.extend(more);
        }
        status
    }

    fn set(image: &str, hash: &str, available: i32, replicas: i32) -> ReplicaSet {
        let mut template = template(image);
        template["metadata"]["labels"]["pod-template-hash"] = json!(hash);
        ReplicaSet::read(&json!({
            "metadata": { "name": format!("checkout-{hash}"), "generation": 1, "ownerReferences": [{ "uid": "u1" }] },
            "spec": { "replicas": replicas, "template": template },
            "status": { "observedGeneration": 1, "availableReplicas": available, "replicas": replicas },
        }))
    }

    fn seen(status: Value) -> Seen {
        let held = status.get("held").is_some() || status.get("run").is_some();
        let annotations = if held { json!({ "sluice.dev/held": "held" }) } else { json!({}) };
        let workload = json!({
            "metadata": { "name": "checkout", "uid": "u1", "generation": 9, "annotations": annotations,
                          "labels": { "sluice.dev/managed": "true" } },
            "spec": { "replicas": 10, "paused": held, "template": template(if held { V2 } else { V1 }) },
        });
        let rollout = json!({
            "apiVersion": "sluice.dev/v1alpha1", "kind": "ProgressiveRollout",
            "metadata": { "name": "checkout", "namespace": "shop", "generation": 4 },
            "spec": spec(), "status": status,
        });
        Seen {
            rollout: serde_json::from_value(rollout).unwrap(),
            workload: Some(Workload::read(&workload)),
            replica_sets: Some(vec![set(V1, "7d4f5c6d8b", 10, 10), set(V2, "5bd9c7f6b4", 2, 2)]),
            controller: Some(Controller {
                namespace: "sluice-system".to_owned(),
                name: "sluice".to_owned(),
                version: "0.1.0".to_owned(),
                image: "sluice:0.1.0".to_owned(),
                ready: 2,
                wanted: 2,
            }),
            events: Vec::new(),
        }
    }

    fn record(outcome: &str, reason: &str, message: &str) -> Value {
        json!({
            "id": "7-5bd9c", "outcome": outcome, "reason": reason, "message": message, "riskClass": "R3",
            "provenance": "GenAIAssisted", "digest": digest(V2), "images": [V2], "commit": "9f2c1ab4d0e1f2a3",
            "maxWeightPercent": 5, "startedAt": "2026-11-03T10:40:00Z", "endedAt": "2026-11-03T11:54:00Z",
            "exposedSince": "2026-11-03T10:41:00Z", "exposedUntil": "2026-11-03T11:53:30Z",
        })
    }

    fn held_summary(reason: &str) -> Value {
        json!({
            "step": "0/6", "weight": "0%", "observed": "", "riskClass": "R3", "provenance": "GenAIAssisted",
            "commit": "9f2c1ab4d0e1", "reason": reason,
        })
    }

    fn held_revision(ended: Option<Value>) -> Value {
        let mut held =
            json!({ "digest": digest(V2), "since": "2026-11-03T11:54:00Z", "provenance": "GenAIAssisted" });
        if let (Some(ended), Some(fields)) = (ended, held.as_object_mut()) {
            fields.insert("ended".to_owned(), ended);
        }
        held
    }

    pub fn idle() -> Seen {
        let ready = [condition("Ready", "True", "Idle"), condition("Stalled", "False", "AtRest")];
        let history = [record("Promoted", "Proven", "promoted after 6 steps and a watched period of 3600 s")];
        seen(status(
            "Idle",
            json!({ "conditions": ready, "history": history, "phaseSince": "2026-10-29T12:00:00Z" }),
        ))
    }

    pub fn held() -> Seen {
        let message = "spec.change does not describe the held template (images or commit); after 30 s it starts with provenance Unknown";
        let mut held = held_revision(None);
        held["provenance"] = json!("Unknown");
        held["since"] = json!("2026-11-03T11:59:48Z");
        seen(status(
            "Held",
            json!({
                "held": held, "summary": held_summary("DeclarationGrace"), "phaseSince": "2026-11-03T11:59:48Z",
                "waiting": waiting("DeclarationGrace", message, "11:59:48", Some("12:00:18")),
            }),
        ))
    }

    /// The Deployment holds a template that the controller, which may be down, has not seen.
    pub fn unseen() -> Seen {
        let mut seen = idle();
        let workload = json!({
            "metadata": { "name": "checkout", "uid": "u1", "generation": 10, "annotations": { "sluice.dev/held": "held" } },
            "spec": { "replicas": 10, "paused": true, "template": template(V2) },
        });
        seen.workload = Some(Workload::read(&workload));
        if let Some(controller) = seen.controller.as_mut() {
            controller.ready = 0;
        }
        seen
    }

    pub fn preparing() -> Seen {
        let mut run = run();
        run["stage"] = json!("Preparing");
        run["step"] = json!(0);
        run["stageSince"] = json!("2026-11-03T11:59:00Z");
        run["startedAt"] = json!("2026-11-03T11:59:00Z");
        for field in ["weight", "exposedSince"] {
            run.as_object_mut().unwrap().remove(field);
        }
        let message = "waits for 1 ready canary pods, 60 of 600 s; pod checkout-5bd9c7f6b4-x2k4f says ImagePullBackOff (Back-off pulling image)";
        let mut traffic = traffic(0, None);
        traffic["settled"] = json!(false);
        traffic["accepted"] = json!(false);
        let mut seen = seen(status(
            "Canary",
            json!({ "run": run, "traffic": traffic, "waiting": waiting("CanaryNotReady", message, "11:59:00", Some("12:09:00")) }),
        ));
        seen.replica_sets = Some(vec![set(V1, "7d4f5c6d8b", 10, 10), set(V2, "5bd9c7f6b4", 0, 1)]);
        seen
    }

    fn step_with(waiting: Value, guards: Value, change: impl FnOnce(&mut Value)) -> Seen {
        let mut run = run();
        change(&mut run);
        seen(status(
            "Canary",
            json!({ "run": run, "guards": guards, "traffic": traffic(20, Some(196)), "waiting": waiting }),
        ))
    }

    pub fn stepping() -> Seen {
        let wait = waiting(
            "NotEnoughEvidence",
            "error-rate: 6120 of 10000 canary requests",
            "11:57:00",
            Some("14:15:06"),
        );
        step_with(wait, healthy(), |_| {})
    }

    pub fn too_little_traffic() -> Seen {
        let why = "step 3 would end as NotProven, after 5 times its bake: for error-rate, step 3 needs about 9000 canary requests to \
                   show that a good change is good, and its bake has 1200. What helps: limits.minBakeSeconds of 1800 (30 min) or \
                   more, more traffic through the route, or a change of less risk";
        let wait = waiting(
            "NotEnoughEvidence",
            "error-rate: 6120 of 10000 canary requests",
            "11:57:00",
            Some("14:15:06"),
        );
        step_with(wait, healthy(), |run| run["lowTraffic"] = json!(why))
    }

    pub fn alert_firing() -> Seen {
        let guards = json!([
            ratio(
                "Ok",
                40,
                2,
                "error-rate 2/6120 against 8/25010, score 0.04 of 1, 6120 of 10000 canary requests"
            ),
            alert("Firing", "alert CheckoutLatencyHigh fires since 11:58:20, aborts after 120 s"),
        ]);
        let wait = waiting(
            "AlertFiring",
            "alert CheckoutLatencyHigh fires since 11:58:20, aborts after 120 s",
            "11:58:21",
            Some("14:15:06"),
        );
        step_with(wait, guards, |_| {})
    }

    pub fn no_data() -> Seen {
        let message = "error-rate: Prometheus does not answer: connection refused (40s)";
        let guards = json!([ratio("ProviderDown", 40, 2, message), alert("Clear", "no alert fires")]);
        step_with(waiting("NoData", message, "11:59:20", Some("12:14:20")), guards, |_| {})
    }

    pub fn suspicion() -> Seen {
        let message = "error-rate 9/6120 against 8/25010, score 0.31 of 1, passes below 0.1";
        let guards = json!([ratio("Ok", 310, 9, message), alert("Clear", "no alert fires")]);
        step_with(waiting("Suspicion", message, "11:50:00", Some("14:15:06")), guards, |_| {})
    }

    pub fn paused() -> Seen {
        let message = "a person paused it: kubectl sluice resume checkout -n shop";
        step_with(waiting("Paused", message, "11:30:00", None), healthy(), |run| run["paused"] = json!(true))
    }

    pub fn at_gate() -> Seen {
        let message = "waits for a person before 50 %: kubectl sluice resume checkout -n shop";
        step_with(waiting("PausedBeforePercent", message, "11:30:00", None), healthy(), |run| {
            run["plan"]["pauseBeforePercent"] = json!(50);
        })
    }

    pub fn promoting() -> Seen {
        let mut run = run();
        run["stage"] = json!("Promoting");
        run["step"] = json!(5);
        run["weight"]["percent"] = json!(100);
        run["stageSince"] = json!("2026-11-03T11:59:58Z");
        let wait = waiting(
            "Promoting",
            "the tested ReplicaSet becomes the Deployment's own",
            "11:59:58",
            Some("12:00:58"),
        );
        let mut seen = seen(status(
            "Promoting",
            json!({ "run": run, "guards": healthy(), "traffic": traffic(100, Some(1000)), "waiting": wait }),
        ));
        seen.replica_sets = Some(vec![set(V1, "7d4f5c6d8b", 10, 10), set(V2, "5bd9c7f6b4", 10, 10)]);
        seen
    }

    pub fn watching() -> Seen {
        let mut run = run();
        run["stage"] = json!("Watching");
        run["step"] = json!(5);
        run["released"] = json!(true);
        run["weight"]["percent"] = json!(100);
        run["stageSince"] = json!("2026-11-03T11:40:00Z");
        let message = "the new revision serves everything; the old one stays warm for 3600 s";
        let wait = waiting("Watching", message, "11:40:00", Some("12:40:00"));
        let mut seen = seen(status(
            "Watching",
            json!({ "run": run, "guards": healthy(), "traffic": traffic(100, Some(1000)), "waiting": wait }),
        ));
        seen.replica_sets = Some(vec![set(V1, "7d4f5c6d8b", 10, 10), set(V2, "5bd9c7f6b4", 10, 10)]);
        seen
    }

    pub fn returning() -> Seen {
        let mut run = run();
        run["stage"] = json!("Returning");
        run["goingBack"] = json!({
            "outcome": "Rejected", "reason": "GuardTripped",
            "message": "error-rate 49/6120 against 8/25010, score 1.31 >= 1",
            "since": "2026-11-03T11:59:56Z", "backAt": "2026-11-03T11:59:57Z",
        });
        let guards = json!([
            ratio("Ok", 1310, 49, "error-rate 49/6120 against 8/25010, score 1.31 >= 1"),
            alert("Clear", "no alert fires"),
        ]);
        let wait = waiting(
            "Settling",
            "weight 0 is live in the API; proxies get 5 s to follow",
            "11:59:57",
            Some("12:00:02"),
        );
        seen(status(
            "Returning",
            json!({ "run": run, "guards": guards, "traffic": traffic(0, Some(196)), "waiting": wait }),
        ))
    }

    fn stalled(phase: &str, reason: &str, message: &str, more: Value) -> Seen {
        let conditions = [condition("Ready", "False", reason), condition("Stalled", "True", reason)];
        let mut fields =
            json!({ "conditions": conditions, "waiting": waiting(reason, message, "11:54:00", None) });
        if let (Some(fields), Value::Object(more)) = (fields.as_object_mut(), more) {
            fields.extend(more);
        }
        seen(status(phase, fields))
    }

    const REJECTED: &str = "error-rate 9/2310 against 96/46200, score 1.31 >= 1";

    pub fn rejected() -> Seen {
        let message = format!(
            "run 7-5bd9c rejected this revision: GuardTripped: {REJECTED}. Stable serves. Apply another template, or kubectl sluice retry checkout -n shop"
        );
        let ended = json!({
            "runId": "7-5bd9c", "outcome": "Rejected", "reason": "GuardTripped", "message": REJECTED, "changeDigest": "c",
        });
        stalled(
            "Rejected",
            "Rejected",
            &message,
            json!({
                "held": held_revision(Some(ended)), "summary": held_summary("Rejected"), "quarantine": [quarantine()],
                "history": [record("Rejected", "GuardTripped", REJECTED)],
            }),
        )
    }

    fn quarantine() -> Value {
        json!({
            "digest": digest(V2), "restartDigest": digest(V2), "runId": "7-5bd9c", "reason": "GuardTripped",
            "message": REJECTED, "at": "2026-11-03T11:54:00Z",
        })
    }

    /// Git applied the rejected revision again: no run is remembered with the held revision itself.
    pub fn quarantined() -> Seen {
        let mut seen = rejected();
        if let Some(held) = seen.rollout.status.as_mut().and_then(|status| status.held.as_mut()) {
            held.ended = None;
        }
        seen
    }

    pub fn not_proven() -> Seen {
        let message = "run 7-5bd9c could not show that this revision is good: NoData: error-rate: no series; no fresh data for 900 s. Stable serves. kubectl sluice retry checkout -n shop, apply another template, or correct spec.change";
        let ended = json!({
            "runId": "7-5bd9c", "outcome": "NotProven", "reason": "NoData", "message": "no fresh data", "changeDigest": "c",
        });
        stalled(
            "NotProven",
            "NotProven",
            message,
            json!({
                "held": held_revision(Some(ended)), "summary": held_summary("NotProven"),
                "history": [record("NotProven", "NoData", "error-rate: no series; no fresh data for 900 s")],
            }),
        )
    }

    pub fn invalid() -> Seen {
        let message = "spec.limits.steps: weightPercent 5 comes after 20; weights must rise";
        stalled("Pending", "InvalidSpec", message, json!({}))
    }

    pub fn with_events(mut seen: Seen) -> Seen {
        let event = |at: &str, warning, reason: &str, message: &str| Event {
            at: format!("2026-11-03T{at}Z").parse().unwrap(),
            warning,
            reason: reason.to_owned(),
            message: message.to_owned(),
        };
        seen.events = vec![
            event("11:45:06", false, "TrafficShifted", "step 3/6: weight 20 % is live, observed 19.6 %"),
            event("11:52:40", true, "GuardNoData", "saturation: 0 series"),
        ];
        seen
    }

    /// Every moment, with its name.
    pub fn all() -> Vec<(&'static str, Seen)> {
        vec![
            ("idle", idle()),
            ("held_in_grace", held()),
            ("unseen", unseen()),
            ("preparing", preparing()),
            ("canary_mid_step", stepping()),
            ("alert_firing", alert_firing()),
            ("no_data", no_data()),
            ("suspicion", suspicion()),
            ("paused", paused()),
            ("at_gate", at_gate()),
            ("promoting", promoting()),
            ("watching", watching()),
            ("returning", returning()),
            ("rejected", rejected()),
            ("not_proven", not_proven()),
            ("stalled_invalid", invalid()),
        ]
    }
}

fn call() -> Call {
    Call { program: "kubectl sluice".to_owned(), flags: String::new() }
}

fn now_is() -> Timestamp {
    scene::NOW.parse().unwrap()
}

fn drawn(seen: &Seen, width: usize) -> Vec<String> {
    let look = Look { seen, now: now_is(), width, wide: false, call: &call() };
    screen(&look).iter().map(|line| line.paint(false)).collect()
}

#[test]
fn screens_at_80_columns() {
    for (name, seen) in scene::all() {
        insta::assert_snapshot!(name, drawn(&seen, 80).join("\n"));
    }
}

#[test]
fn events_stand_beside_a_wide_screen_and_below_a_narrow_one() {
    let seen = scene::with_events(scene::stepping());
    insta::assert_snapshot!("events_beside", drawn(&seen, 130).join("\n"));
    let look = Look { seen: &seen, now: now_is(), width: 80, wide: true, call: &call() };
    let below: Vec<String> = screen(&look).iter().map(|line| line.paint(false)).collect();
    assert!(below.iter().any(|line| line.starts_with("11:52:40 GuardNoData")), "{below:#?}");
}

#[test]
fn no_line_is_wider_than_the_terminal() {
    for (name, seen) in scene::all() {
        for width in [40, 60, 80, 109, 110, 200] {
            for line in drawn(&scene::with_events(seen.clone()), width) {
                assert!(line.chars().count() <= width, "{name} at {width}: {line:?}");
            }
        }
    }
}

#[test]
fn what_it_waits_for_is_never_empty() {
    for (name, mut seen) in scene::all() {
        // Also when status does not say it.
        for _ in 0..2 {
            let lines = drawn(&seen, 80);
            let now = lines.iter().find(|line| line.starts_with("now ")).unwrap();
            assert!(now.trim_start_matches("now").trim().len() > 5, "{name}: {now:?}");
            if let Some(status) = seen.rollout.status.as_mut() {
                status.waiting = None;
            }
        }
    }
}

#[test]
fn a_wait_that_should_have_ended_asks_for_the_controller() {
    let seen = scene::promoting();
    let late: Timestamp = "2026-11-03T12:05:00Z".parse().unwrap();
    let look = Look { seen: &seen, now: late, width: 100, wide: false, call: &call() };
    let text: String = screen(&look).iter().map(|line| line.paint(false) + "\n").collect();
    assert!(text.contains("due 4m02s ago: is the"), "{text}");
}

#[test]
fn too_little_traffic_is_said_with_what_helps() {
    insta::assert_snapshot!("too_little_traffic", drawn(&scene::too_little_traffic(), 80).join("\n"));
}

#[test]
fn what_may_not_be_read_is_a_dash() {
    let mut seen = scene::stepping();
    (seen.workload, seen.replica_sets, seen.controller) = (None, None, None);
    let lines = drawn(&seen, 80);
    assert!(lines[0].ends_with("controller -"), "{lines:#?}");
    assert!(lines.iter().any(|line| line.starts_with("stable 7d4f5c6d8b   -  ")), "{lines:#?}");
}

#[test]
fn a_line_per_change_counts_no_counter_as_one() {
    let (one, mut two) = (scene::stepping(), scene::stepping());
    if let Some(status) = two.rollout.status.as_mut() {
        if let Some(waiting) = status.waiting.as_mut() {
            waiting.message = "error-rate: 6200 of 10000 canary requests".to_owned();
        }
        status.guards[0].canary_requests = Some(6_200);
    }
    let key = |seen: &Seen| change_key(&Look { seen, now: now_is(), width: 80, wide: false, call: &call() });
    assert_eq!(key(&one), key(&two));
    let keys: std::collections::BTreeSet<String> = scene::all().iter().map(|(_, seen)| key(seen)).collect();
    assert_eq!(keys.len(), scene::all().len(), "every moment differs from every other");
}

#[test]
fn lines_for_logs() {
    let line = |seen: &Seen| {
        let look = Look { seen, now: now_is(), width: 80, wide: false, call: &call() };
        time(&look).join(change_line(&look)).paint(false)
    };
    let text: Vec<String> = scene::all().iter().map(|(_, seen)| line(seen)).collect();
    insta::assert_snapshot!("lines", text.join("\n"));
}

#[test]
fn an_autoscaler_that_counts_the_canary_is_worth_a_line() {
    let mut seen = scene::stepping();
    let line = |seen: &Seen| drawn(seen, 100).into_iter().find(|line| line.starts_with("hpa"));
    assert_eq!(line(&seen), None);
    let condition = json!({
        "type": "AutoscalerCompatible", "status": "False", "reason": "ValueTarget", "observedGeneration": 1,
        "message": "HorizontalPodAutoscaler web: External queue_length; use AverageValue",
        "lastTransitionTime": "2026-11-03T12:00:00Z",
    });
    let status = seen.rollout.status.as_mut().unwrap();
    status.conditions.push(serde_json::from_value(condition).unwrap());
    let told = "hpa      HorizontalPodAutoscaler web: External queue_length; use AverageValue";
    assert_eq!(line(&seen).as_deref(), Some(told));
    seen.rollout.status.as_mut().unwrap().conditions.last_mut().unwrap().status = ConditionStatus::True;
    assert_eq!(line(&seen), None);
}
