//! What a scrape shows.

use super::rollouts::Entry;
use super::*;

fn snapshot() -> RolloutSnapshot {
    RolloutSnapshot {
        risk_class: "R3",
        provenance: "GenAIAutonomous",
        phase: "Progressing",
        weight_ratio: 0.25,
        observed_ratio: Some(0.24),
        gate_progress_ratio: Some(0.5),
        canary_samples: 120.0,
        stable_samples: 360.0,
        guards: vec![GuardSnapshot {
            name: "errors".into(),
            canary: Some(0.05),
            stable: Some(0.001),
            max: Some(0.02),
            score: Some(0.7),
            bursts: Some(1.25),
        }],
        waiting: None,
        reconciled_at: Timestamp::from_millisecond(1_700_000_000_500).expect("in range"),
    }
}

#[test]
fn a_wait_counts_while_it_lasts_and_not_twice() {
    let after = |seconds: i64| Timestamp::from_second(1_700_000_000 + seconds).expect("in range");
    let mut entry = Entry::default();
    entry.hold_seconds.insert("NoData", 5.0);
    entry.snapshot = Some(RolloutSnapshot { waiting: Some(("NoData", after(0))), ..snapshot() });
    assert_eq!(entry.hold_seconds(after(7200))["NoData"], 7205.0);
    assert_eq!(entry.hold_seconds(after(-1))["NoData"], 5.0, "another machine's clock");
    entry.hold_seconds.insert("NoData", 7205.0);
    entry.snapshot = Some(snapshot());
    assert_eq!(entry.hold_seconds(after(9000))["NoData"], 7205.0);
}

#[test]
fn a_rollout_is_shown_whole_and_gone_without_a_trace() {
    let metrics = Metrics::new();
    let (web, api) = (RolloutKey::new("shop", "web"), RolloutKey::new("shop", "api"));
    metrics.set_rollout(&web, snapshot());
    metrics.set_rollout(&api, RolloutSnapshot { phase: "Idle", ..Default::default() });
    metrics.held(&web, "NoData", Duration::from_millis(1500));
    metrics.held(&web, "NoData", Duration::from_millis(500));
    metrics.route_overwritten(&web);
    let text = metrics.encode().expect("encodes");
    let of = r#"namespace="shop",name="web""#;
    for line in [
        format!(r#"sluice_rollout_info{{{of},risk_class="R3",provenance="GenAIAutonomous"}} 1.0"#),
        format!(r#"sluice_rollout_phase{{{of},phase="Progressing"}} 1.0"#),
        format!(r#"sluice_traffic_weight_ratio{{{of},arm="canary"}} 0.25"#),
        format!(r#"sluice_traffic_weight_ratio{{{of},arm="stable"}} 0.75"#),
        format!(r#"sluice_traffic_observed_ratio{{{of},arm="canary"}} 0.24"#),
        format!(r#"sluice_gate_progress_ratio{{{of}}} 0.5"#),
        format!(r#"sluice_evidence_samples{{{of},arm="stable"}} 360.0"#),
        format!(r#"sluice_guard_value{{{of},guard="errors",arm="canary"}} 0.05"#),
        format!(r#"sluice_guard_threshold{{{of},guard="errors",bound="max"}} 0.02"#),
        format!(r#"sluice_evidence_score{{{of},guard="errors"}} 0.7"#),
        format!(r#"sluice_evidence_burst_factor{{{of},guard="errors"}} 1.25"#),
        format!(r#"sluice_last_reconcile_timestamp_seconds{{{of}}} 1700000000.5"#),
        format!(r#"sluice_hold_seconds_total{{{of},reason="NoData"}} 2.0"#),
        format!(r#"sluice_route_overwrites_total{{{of}}} 1"#),
    ] {
        assert!(text.lines().any(|l| l == line), "missing: {line}\nin:\n{text}");
    }
    metrics.forget_rollout(&web);
    let text = metrics.encode().expect("encodes");
    assert!(!text.contains(r#"name="web""#), "{text}");
    assert!(text.contains(r#"name="api""#), "{text}");
}

#[test]
fn a_new_snapshot_replaces_the_phase_and_keeps_the_counters() {
    let metrics = Metrics::new();
    let web = RolloutKey::new("shop", "web");
    metrics.set_rollout(&web, snapshot());
    metrics.route_overwritten(&web);
    metrics.set_rollout(&web, RolloutSnapshot { phase: "Promoted", guards: vec![], ..snapshot() });
    let text = metrics.encode().expect("encodes");
    assert_eq!(text.matches("sluice_rollout_phase{").count(), 1, "{text}");
    assert!(!text.contains("guard=\"errors\""), "{text}");
    assert!(text.contains("sluice_route_overwrites_total{namespace=\"shop\",name=\"web\"} 1\n"), "{text}");
}

#[test]
fn outcomes_and_machine_metrics_are_named_as_documented() {
    let metrics = Metrics::new();
    metrics.run_ended("Rejected", "GuardTripped", "R2", "Unknown", Duration::from_secs(90));
    metrics.harmed_requests(12.5);
    metrics.harmed_requests(f64::NAN);
    metrics.harmed_requests(-3.0);
    metrics.detected(Duration::from_secs(20));
    metrics.abort_verified(Duration::from_millis(1200));
    metrics.reconciled(Duration::from_millis(3));
    metrics.reconcile_failed("TimedOut");
    metrics.set_queue_depth(4);
    metrics.set_leader(true);
    metrics.set_guardrails_intact(false);
    metrics.provider_request("prometheus", "ok");
    metrics.api_request("patch", 422);
    metrics.stream_event("rollouts", Timestamp::UNIX_EPOCH);
    let text = metrics.encode().expect("encodes");
    for line in [
        r#"sluice_runs_total{outcome="Rejected",cause="GuardTripped",risk_class="R2",provenance="Unknown"} 1"#,
        r#"sluice_run_duration_seconds_count{outcome="Rejected"} 1"#,
        "sluice_harmed_requests_total 12.5",
        r#"sluice_detection_seconds_bucket{le="15.0"} 0"#,
        r#"sluice_detection_seconds_bucket{le="30.0"} 1"#,
        r#"sluice_abort_verified_seconds_bucket{le="1.5"} 1"#,
        "sluice_reconcile_duration_seconds_count 1",
        r#"sluice_reconcile_errors_total{reason="TimedOut"} 1"#,
        "sluice_queue_depth 4",
        "sluice_leader 1",
        "sluice_guardrails_intact 0",
        r#"sluice_provider_requests_total{provider="prometheus",result="ok"} 1"#,
        r#"sluice_api_requests_total{verb="patch",code="422"} 1"#,
        r#"sluice_stream_last_event_timestamp_seconds{stream="rollouts"} 0.0"#,
    ] {
        assert!(text.lines().any(|l| l == line), "missing: {line}\nin:\n{text}");
    }
    assert!(text.contains(&format!(r#"sluice_build_info{{version="{}"}} 1"#, env!("CARGO_PKG_VERSION"))));
    assert!(text.ends_with("# EOF\n"));
}

#[test]
fn label_values_are_escaped() {
    let metrics = Metrics::new();
    let mut s = snapshot();
    s.guards[0].name = "a\"b\\c\n".into();
    metrics.set_rollout(&RolloutKey::new("shop", "web"), s);
    let text = metrics.encode().expect("encodes");
    assert!(text.contains(r#"guard="a\"b\\c\n""#), "{text}");
}
