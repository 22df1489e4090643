//! Onset, flapping, silences and a source that goes away.

use super::support::{combine, t};
use crate::api::{AlertMatcher, AlertSource, GuardAction, MatchOp};
use crate::evidence::*;
use jiff::Timestamp;

/// Exposed since 100, polled every 10 s.
fn plan() -> AlertPlan {
    AlertPlan {
        name: "alerts".into(),
        action: GuardAction::Abort,
        source: AlertSource::Alertmanager,
        matchers: vec![AlertMatcher {
            label: "service".into(),
            op: MatchOp::Matches,
            value: "web|web-canary".into(),
        }],
        min_firing_seconds: 0,
        watchdog: vec![],
        known: vec![],
        exposure_start: Some(t(100)),
        canary_hash: Some("5bd9c7".into()),
        canary_service: Some("web-canary".into()),
        poll_seconds: 10,
    }
}

fn alert(starts_at: Timestamp) -> Alert {
    Alert {
        fingerprint: "f00d".into(),
        labels: [("alertname", "HighErrors"), ("service", "web")]
            .map(|(k, v)| (k.to_string(), v.to_string()))
            .into(),
        starts_at,
        active_at: None,
        status: AlertStatus::default(),
    }
}

fn suppressed(mut a: Alert, silences: &[&str]) -> Alert {
    a.status.state = SourceState::Suppressed;
    a.status.silenced_by = silences.iter().map(|s| (*s).to_string()).collect();
    a
}

struct Watch {
    state: AlertGuardState,
    plan: AlertPlan,
    silences: Vec<Silence>,
}

impl Watch {
    fn new(plan: AlertPlan) -> Self {
        Self { state: AlertGuardState::default(), plan, silences: vec![] }
    }

    fn poll(&mut self, at: i64, alerts: &[Alert]) -> AlertReport {
        let poll = Poll { at: t(at), answer: Ok(alerts.to_vec()), silences: self.silences.clone() };
        observe_alerts(&mut self.state, &poll, &self.plan, t(at));
        report_alerts(&self.state, &self.plan, t(at))
    }

    fn fail(&mut self, at: i64) -> AlertReport {
        let poll = Poll { at: t(at), answer: Err("connection refused".into()), silences: vec![] };
        observe_alerts(&mut self.state, &poll, &self.plan, t(at));
        report_alerts(&self.state, &self.plan, t(at))
    }
}

#[test]
fn an_alert_after_exposure_aborts() {
    let mut w = Watch::new(plan());
    let r = w.poll(110, &[]);
    assert_eq!((r.state, r.abort, r.hold()), (AlertState::Clear, false, None));
    let r = w.poll(150, &[alert(t(140))]);
    assert_eq!((r.state, r.abort, r.since), (AlertState::Firing, true, t(140)));
    for words in ["HighErrors", "(fingerprint f00d)", "service=web", "2026-01-01T00:02:20Z"] {
        assert!(r.message.contains(words), "{}", r.message);
    }
    let e = combine(vec![], vec![r]);
    assert!(e.abort.is_some_and(|a| a.alert && a.guard == "alerts"));
    // Never taken back.
    let gone = w.poll(160, &[]);
    assert_eq!((gone.state, gone.abort), (AlertState::Firing, true));
    for at in [170, 180, 190, 900] {
        let r = w.fail(at);
        assert!(r.abort && r.message.contains("HighErrors"), "{}", r.message);
    }
}

#[test]
fn what_others_do_is_not_ours() {
    let mut w = Watch::new(plan());
    let mut other = alert(t(140));
    other.labels.insert("service".into(), "web2".into());
    assert_eq!(w.poll(150, &[other]).state, AlertState::Clear);
}

#[test]
fn unprocessed_counts_as_firing() {
    let mut w = Watch::new(plan());
    let mut a = alert(t(140));
    a.status.state = SourceState::Unprocessed;
    assert!(w.poll(150, &[a]).abort);
}

#[test]
fn onset_decides_with_thirty_seconds_of_skew() {
    for (onset, state) in [(69, AlertState::PreExisting), (70, AlertState::Firing), (100, AlertState::Firing)]
    {
        assert_eq!(Watch::new(plan()).poll(150, &[alert(t(onset))]).state, state, "{onset}");
    }
    // Pending before the exposure, firing after it: Prometheus knows.
    let mut pending = alert(t(140));
    pending.active_at = Some(t(20));
    assert_eq!(Watch::new(plan()).poll(150, &[pending]).state, AlertState::PreExisting);
}

#[test]
fn pre_existing_alerts_gate_and_never_abort() {
    let mut p = plan();
    p.exposure_start = None;
    let mut w = Watch::new(p);
    let old = alert(t(95));
    let r = w.poll(98, std::slice::from_ref(&old));
    assert_eq!((r.state, r.abort), (AlertState::PreExisting, false));
    assert_eq!(r.hold().map(|h| h.reason), Some(HoldReason::PreExistingAlert));
    w.plan.known = known_alerts(std::slice::from_ref(&old), &w.plan.matchers).unwrap();
    w.plan.exposure_start = Some(t(100));
    let r = w.poll(400, std::slice::from_ref(&old));
    assert_eq!((r.state, r.abort, r.tainted_at), (AlertState::PreExisting, false, None));
    // Resolved and fired again: a new onset.
    assert_eq!(w.poll(410, &[]).state, AlertState::Clear);
    assert!(w.poll(430, &[alert(t(420))]).abort);
}

#[test]
fn known_alerts_are_the_matching_ones_and_few() {
    let mut many: Vec<Alert> = (0..80).map(|i| alert(t(i))).collect();
    many[79].labels.clear();
    let known = known_alerts(&many, &plan().matchers).unwrap();
    assert_eq!(known.len(), 50);
    assert_eq!(known[0].starts_at, t(78), "newest first");
    let bad = [AlertMatcher { label: "a".into(), op: MatchOp::Matches, value: "(".into() }];
    assert!(known_alerts(&many, &bad).is_err());
}

#[test]
fn what_names_the_canary_counts_before_exposure() {
    for (label, value, counts) in [
        ("pod", "web-5bd9c7-x2x4z", true),
        ("replicaset", "web-5bd9c7", true),
        ("pod_template_hash", "5bd9c7", true),
        ("service", "web-canary", true),
        ("pod", "web-7d4f00-x2x4z", false),
        ("pod", "5bd9c7-web-a-b", false),
    ] {
        let mut p = plan();
        p.exposure_start = None;
        let mut a = alert(t(90));
        a.labels.insert(label.into(), value.into());
        assert_eq!(Watch::new(p).poll(95, &[a]).abort, counts, "{label}={value}");
    }
}

#[test]
fn a_short_alert_holds_and_taints() {
    let mut p = plan();
    p.min_firing_seconds = 30;
    let mut w = Watch::new(p);
    let r = w.poll(150, &[alert(t(140))]);
    assert_eq!((r.state, r.abort), (AlertState::Firing, false));
    assert_eq!(r.hold().map(|h| h.reason), Some(HoldReason::AlertFiring));
    let r = w.poll(160, &[]);
    assert_eq!((r.state, r.hold(), r.tainted_at), (AlertState::Clear, None, Some(t(150))));
    // Flapping starts its time again, persisting trips.
    assert!(!w.poll(185, &[alert(t(170))]).abort);
    assert!(!w.poll(199, &[alert(t(170))]).abort);
    assert!(w.poll(200, &[alert(t(170))]).abort);
}

#[test]
fn hold_and_observe_never_abort_the_run() {
    for (action, holds) in [(GuardAction::Hold, 2), (GuardAction::Observe, 1)] {
        let mut p = plan();
        p.action = action;
        let r = Watch::new(p).poll(150, &[alert(t(140))]);
        let tainted = r.tainted_at.is_some();
        let e = combine(vec![], vec![r]);
        // No guard counts requests: that is a hold of its own.
        assert_eq!((e.abort, e.holds.len()), (None, holds), "{action:?}");
        assert_eq!(tainted, action == GuardAction::Hold);
    }
}

#[test]
fn a_silence_during_the_run_holds_and_says_who() {
    let mut p = plan();
    p.min_firing_seconds = 60;
    let mut w = Watch::new(p);
    w.silences = vec![Silence { id: "s1".into(), created_by: "mallory".into(), starts_at: t(155) }];
    w.poll(150, &[alert(t(140))]);
    let r = w.poll(160, &[suppressed(alert(t(140)), &["s1"])]);
    assert_eq!((r.state, r.abort), (AlertState::Silenced, false));
    assert!(r.message.contains("silenced by \"mallory\" (silence s1)"), "{}", r.message);
    assert_eq!(w.poll(900, &[suppressed(alert(t(140)), &["s1"])]).state, AlertState::Silenced);
}

#[test]
fn silences_old_new_and_unknown() {
    let silence = |from| vec![Silence { id: "s1".into(), created_by: "bob".into(), starts_at: t(from) }];
    for (silences, state) in [
        (silence(50), AlertState::Clear),
        (silence(120), AlertState::Silenced),
        (vec![], AlertState::Silenced),
    ] {
        let mut w = Watch::new(plan());
        w.silences = silences;
        assert_eq!(w.poll(150, &[suppressed(alert(t(140)), &["s1"])]).state, state);
    }
    // Inhibited during the run: nobody looked, so nothing moves.
    let mut inhibited = suppressed(alert(t(140)), &[]);
    inhibited.status.inhibited_by = vec!["beef".into()];
    let r = Watch::new(plan()).poll(150, &[inhibited]);
    assert_eq!(r.state, AlertState::Silenced);
    assert!(r.message.contains("inhibited (by alert beef)"), "{}", r.message);
    // One that was silenced and there before is nobody's business.
    assert_eq!(Watch::new(plan()).poll(150, &[suppressed(alert(t(10)), &["s1"])]).state, AlertState::Clear);
}

#[test]
fn a_source_that_fails_three_times_holds() {
    let mut w = Watch::new(plan());
    assert_eq!(report_alerts(&w.state, &w.plan, t(100)).state, AlertState::SourceMissing, "not read yet");
    w.poll(110, &[]);
    let states = [120, 130, 140, 150].map(|at| w.fail(at).state);
    use AlertState::{Clear, SourceMissing};
    assert_eq!(states, [Clear, Clear, SourceMissing, SourceMissing]);
    let r = report_alerts(&w.state, &w.plan, t(150));
    assert_eq!(r.since, t(110), "since the last answer");
    assert!(r.message.contains("connection refused"), "{}", r.message);
    assert_eq!(w.poll(160, &[]).state, Clear);
    // Nobody asked for a while.
    assert_eq!(report_alerts(&w.state, &w.plan, t(195)).state, Clear);
    let r = report_alerts(&w.state, &w.plan, t(196));
    assert_eq!((r.state, r.since), (SourceMissing, t(160)));
    // A source that never answered is missing from the start.
    assert_eq!(Watch::new(plan()).fail(110).state, SourceMissing);
}

#[test]
fn the_watchdog_proves_the_path() {
    let mut p = plan();
    p.watchdog =
        vec![AlertMatcher { label: "alertname".into(), op: MatchOp::Equal, value: "Watchdog".into() }];
    let mut dog = alert(t(0));
    dog.labels = [("alertname".to_string(), "Watchdog".to_string())].into();
    let mut w = Watch::new(p);
    assert_eq!(w.poll(110, std::slice::from_ref(&dog)).state, AlertState::Clear);
    let r = w.poll(120, &[]);
    assert_eq!(r.state, AlertState::SourceMissing);
    assert!(r.message.contains("watchdog"), "{}", r.message);
    // What does arrive still counts.
    assert!(w.poll(130, &[alert(t(125))]).abort);
}

#[test]
fn a_bad_matcher_is_a_missing_source_that_names_it() {
    let mut p = plan();
    p.matchers[0].value = "(".into();
    let r = Watch::new(p).poll(150, &[alert(t(140))]);
    assert_eq!((r.state, r.abort), (AlertState::SourceMissing, false));
    assert!(r.message.contains("not a regular expression"), "{}", r.message);
}

#[test]
fn a_restart_remembers_and_an_old_poll_is_ignored() {
    let mut w = Watch::new(plan());
    w.poll(150, &[alert(t(140))]);
    let text = serde_json::to_string(&w.state).unwrap();
    w.state = serde_json::from_str(&text).unwrap();
    assert!(report_alerts(&w.state, &w.plan, t(151)).abort);
    let before = w.state.clone();
    w.poll(150, &[]);
    w.poll(149, &[]);
    assert_eq!(w.state, before);
}

#[test]
fn alertmanagers_own_words() {
    let text = r#"[{"annotations":{"summary":"x"},"endsAt":"2026-01-01T00:07:00.000Z","fingerprint":"8b1d",
        "receivers":[{"name":"web.hook"}],"startsAt":"2026-01-01T01:02:20.123+01:00",
        "status":{"inhibitedBy":[],"mutedBy":[],"silencedBy":["a-b"],"state":"suppressed"},
        "updatedAt":"2026-01-01T00:03:00.000Z","generatorURL":"http://p","labels":{"alertname":"A"}}]"#;
    let alerts: Vec<Alert> = serde_json::from_str(text).unwrap();
    assert_eq!(alerts[0].status.state, SourceState::Suppressed);
    assert_eq!(alerts[0].starts_at.as_second(), t(140).as_second());
    let text = r#"[{"comment":"c","createdBy":"bob","endsAt":"2026-01-02T00:00:00Z","id":"a-b","matchers":[],
        "startsAt":"2026-01-01T00:00:50Z","status":{"state":"active"},"updatedAt":"2026-01-01T00:00:50Z"}]"#;
    let silences: Vec<Silence> = serde_json::from_str(text).unwrap();
    assert_eq!((silences[0].created_by.as_str(), silences[0].starts_at), ("bob", t(50)));
}

#[test]
fn long_labels_are_cut_between_characters() {
    let mut a = alert(t(140));
    a.labels.insert("note".into(), "ä".repeat(2000));
    let r = Watch::new(plan()).poll(150, &[a]);
    assert!(r.abort && r.message.len() < 450);
}

#[test]
fn a_guard_that_only_holds_is_clear_again_when_its_alert_is() {
    let mut w = Watch::new(AlertPlan { action: GuardAction::Hold, ..plan() });
    let firing = w.poll(150, &[alert(t(140))]);
    assert_eq!((firing.state, firing.abort), (AlertState::Firing, false));
    let clear = w.poll(160, &[]);
    assert_eq!((clear.state, clear.hold()), (AlertState::Clear, None));
    assert_eq!(clear.tainted_at, Some(t(150)), "what was counted while it fired is tainted");
}
