//! Values of people's own: what holds, what trips, and what stops the clock.

use super::support::{combine, t};
use crate::api::{Guard, GuardAction, MetricGuard};
use crate::evidence::state::StepKey;
use crate::evidence::{
    DataState, EvidenceState, GaugeLook, GaugePlan, GaugeReport, GaugeState, GaugeValues, HoldReason,
    Trouble, observe_gauge, report_gauge, with_gauges,
};
use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::{Value, json};

fn guard(action: Option<&str>, metric: Value) -> Guard {
    let mut guard = json!({"name": "queue", "metric": metric});
    if let Some(action) = action {
        guard["action"] = json!(action);
    }
    serde_json::from_value(guard).unwrap()
}

fn metric(limits: Value) -> MetricGuard {
    let mut metric = json!({"query": "max(queue{pod=~\"$pods\"})"});
    metric.as_object_mut().unwrap().extend(limits.as_object().unwrap().clone());
    serde_json::from_value(metric).unwrap()
}

/// At 5 %, live since 0, asked every 15 s.
struct Bench {
    state: GaugeState,
    plan: GaugePlan,
    now: Timestamp,
}

impl Bench {
    fn new(action: GuardAction, limits: Value) -> Self {
        let step = StepKey { index: 0, weight_percent: 5, watch: false, window_start: Some(t(0)) };
        let plan = GaugePlan { name: "queue".into(), action, metric: metric(limits), step, poll_seconds: 15 };
        Self { state: GaugeState::default(), plan, now: t(0) }
    }

    fn take_in(&mut self, seconds: i64, answer: Result<GaugeValues, Trouble>) -> GaugeReport {
        self.now += jiff::SignedDuration::from_secs(seconds);
        observe_gauge(&mut self.state, &GaugeLook { at: self.now, answer }, &self.plan, self.now);
        self.report()
    }

    fn look(&mut self, canary: &[f64], stable: &[f64]) -> GaugeReport {
        self.take_in(15, Ok(GaugeValues { canary: canary.to_vec(), stable: stable.to_vec() }))
    }

    fn trouble(&mut self, state: DataState) -> GaugeReport {
        self.take_in(15, Err(Trouble::new(state, "a test".into())))
    }

    fn report(&self) -> GaugeReport {
        report_gauge(&self.state, &self.plan, self.now)
    }

    /// Looks at 9, out of the range up to 5, until it trips.
    fn looks_until_abort(&mut self) -> usize {
        1 + (0..200).take_while(|_| !self.look(&[9.0], &[]).abort).count()
    }
}

fn reason(report: &GaugeReport) -> Option<HoldReason> {
    report.hold.as_ref().map(|hold| hold.reason)
}

#[test]
fn the_action_is_hold_unless_written_and_abort_for_other_kinds() {
    assert_eq!(guard(None, json!({"query": "x", "max": "1"})).action, GuardAction::Hold);
    assert_eq!(guard(Some("Abort"), json!({"query": "x", "max": "1"})).action, GuardAction::Abort);
    let errors: Guard = serde_json::from_value(json!({"name": "e", "errorRatio": {}})).unwrap();
    assert_eq!(errors.action, GuardAction::Abort);
    // What is stored says so, so that another version reads the same.
    let stored = serde_json::to_value(guard(None, json!({"query": "x", "max": "1"}))).unwrap();
    assert_eq!((&stored["action"], &stored["metric"]["max"]), (&json!("Hold"), &json!("1")));
    assert_eq!(stored["metric"]["forSeconds"], 300);
    assert_eq!(
        serde_json::from_value::<Guard>(stored).unwrap().metric.unwrap().max.unwrap().value(),
        Some(1.0)
    );
}

#[test]
fn the_first_look_outside_holds_and_only_a_long_breach_aborts() {
    let mut bench = Bench::new(GuardAction::Abort, json!({"max": "5"}));
    let first = bench.look(&[9.0], &[]);
    assert_eq!((reason(&first), first.abort), (Some(HoldReason::GaugeOutOfRange), false));
    assert!(first.message.contains("queue: canary 9 is above max 5"), "{}", first.message);
    assert!(first.message.contains("aborts after 300 s; not quantified"), "{}", first.message);
    // 300 s lie between the first look and the 21st.
    assert_eq!(1 + bench.looks_until_abort(), 21);
    let tripped = bench.look(&[1.0], &[]);
    assert_eq!((tripped.abort, reason(&tripped)), (true, Some(HoldReason::GuardTripped)), "never taken back");

    let mut short = Bench::new(GuardAction::Abort, json!({"max": "5", "forSeconds": 0}));
    assert_eq!(short.looks_until_abort(), 5, "five looks at least");
}

#[test]
fn a_guard_that_holds_is_clear_again_in_range() {
    let mut bench = Bench::new(GuardAction::Hold, json!({"min": "2", "max": "5"}));
    for _ in 0..100 {
        let low = bench.look(&[1.5], &[]);
        assert_eq!(
            (reason(&low), low.abort, low.state),
            (Some(HoldReason::GaugeOutOfRange), false, "OutOfRange")
        );
        assert!(low.message.contains("canary 1.5 is below min 2"), "{}", low.message);
    }
    let clear = bench.look(&[5.0], &[]);
    assert_eq!((reason(&clear), clear.state), (None, "InRange"), "limits belong to the range");
    assert_eq!(clear.message, "queue: canary 5; not quantified: it has no score");
}

#[test]
fn in_range_begins_anew_and_missing_values_stop_the_clock() {
    let mut bench = Bench::new(GuardAction::Abort, json!({"max": "5"}));
    for _ in 0..19 {
        assert!(!bench.look(&[9.0], &[]).abort);
    }
    bench.look(&[1.0], &[]);
    assert_eq!(bench.looks_until_abort(), 21, "in range begins anew");

    let mut bench = Bench::new(GuardAction::Abort, json!({"max": "5"}));
    for _ in 0..19 {
        bench.look(&[9.0], &[]);
    }
    for state in [DataState::ProviderDown, DataState::QueryError] {
        let report = bench.trouble(state);
        assert_eq!((report.state, reason(&report)), (state.as_str(), Some(HoldReason::NoData)));
    }
    for (values, state) in [
        (&[f64::NAN][..], "NotANumber"),
        (&[f64::INFINITY][..], "NotANumber"),
        (&[][..], "NoData"),
        (&[1.0, 2.0][..], "MultipleSeries"),
    ] {
        let report = bench.look(values, &[]);
        assert_eq!((report.state, reason(&report), report.abort), (state, Some(HoldReason::NoData), false));
    }
    assert_eq!(bench.report().no_data_seconds, 90);
    // 270 s were known before; what the trouble hid counts for neither side.
    assert!(!bench.look(&[9.0], &[]).abort);
    assert!(!bench.look(&[9.0], &[]).abort);
    assert!(bench.look(&[9.0], &[]).abort);
    assert_eq!(bench.report().no_data_seconds, 0, "three good looks");
}

#[test]
fn time_in_which_nobody_looked_does_not_count() {
    let mut bench = Bench::new(GuardAction::Abort, json!({"max": "5", "forSeconds": 120}));
    let nine = || Ok(GaugeValues { canary: vec![9.0], stable: Vec::new() });
    for _ in 0..4 {
        assert!(!bench.take_in(3600, nine()).abort, "at most two intervals of each hour");
    }
    assert!(bench.take_in(3600, nine()).abort);
    bench.now += jiff::SignedDuration::from_secs(51);
    let late = Bench { state: GaugeState { tripped: false, ..bench.state.clone() }, ..bench }.report();
    assert_eq!((late.state, reason(&late)), ("Stale", Some(HoldReason::NoData)));
}

#[test]
fn ratios_compare_with_stable_below_weight_100() {
    let mut bench = Bench::new(GuardAction::Hold, json!({"maxRatio": "1.5", "minRatio": "0.5"}));
    assert_eq!(reason(&bench.look(&[15.0], &[10.0])), None);
    let more = bench.look(&[15.1], &[10.0]);
    assert!(more.message.contains("canary 15.1 is more than 1.5 times stable's 10"), "{}", more.message);
    assert!(bench.look(&[4.9], &[10.0]).message.contains("less than 0.5 times stable's 10"));
    assert_eq!(reason(&bench.look(&[0.0], &[0.0])), None, "nothing is as much as nothing");
    assert_eq!(reason(&bench.look(&[0.1], &[0.0])), Some(HoldReason::GaugeOutOfRange));
    assert_eq!(bench.look(&[1.0], &[]).state, "NoData");
    assert_eq!(bench.look(&[1.0], &[1.0, 2.0]).state, "MultipleSeries");
    assert!(bench.look(&[-1.0], &[1.0]).message.contains("a ratio needs values of at least 0"));
    for watch in [false, true] {
        bench.plan.step = StepKey { weight_percent: 100, watch, ..bench.plan.step };
        let alone = bench.look(&[99.0], &[]);
        assert_eq!((alone.state, reason(&alone)), ("InRange", None));
        assert!(alone.message.contains("a ratio is not judged at weight 100"), "{}", alone.message);
    }
}

#[test]
fn it_is_judged_while_the_weight_is_live() {
    let mut bench = Bench::new(GuardAction::Abort, json!({"max": "5"}));
    bench.plan.step.window_start = None;
    for _ in 0..40 {
        let report = bench.look(&[9.0], &[]);
        assert_eq!((reason(&report), report.abort), (None, false));
    }
    assert_eq!(reason(&bench.look(&[], &[])), None, "without traffic there may be no value");
    assert_eq!(bench.trouble(DataState::QueryError).state, "QueryError", "a refused query is one anyway");
    bench.look(&[], &[]);
    bench.plan.step.window_start = Some(bench.now);
    assert_eq!(reason(&bench.report()), Some(HoldReason::NotEnoughEvidence), "not looked at this weight yet");
    assert_eq!(reason(&bench.look(&[4.0], &[])), None);
    assert_eq!(bench.look(&[4.0], &[]).healthy_seconds, 15.0);
    // The next weight: time in range is that of this step.
    bench.plan.step = StepKey { index: 1, weight_percent: 20, ..bench.plan.step };
    assert_eq!(bench.look(&[4.0], &[]).healthy_seconds, 0.0);
    assert_eq!(bench.look(&[9.0], &[]).healthy_seconds, 0.0);
}

#[test]
fn all_guards_together() {
    let mut bench = Bench::new(GuardAction::Abort, json!({"max": "5", "forSeconds": 0}));
    let say = |bench: &Bench| with_gauges(combine(Vec::new(), Vec::new()), &[bench.report()]);
    let reasons = |bench: &Bench| say(bench).holds.iter().map(|hold| hold.reason).collect::<Vec<_>>();
    bench.look(&[1.0], &[]);
    assert_eq!(reasons(&bench), [HoldReason::NoGuard], "a value alone shows nothing");
    bench.look(&[9.0], &[]);
    assert_eq!(reasons(&bench), [HoldReason::GaugeOutOfRange, HoldReason::NoGuard]);
    assert!(say(&bench).abort.is_none() && !say(&bench).gate_open);
    bench.looks_until_abort();
    let abort = say(&bench).abort.unwrap();
    assert_eq!((abort.guard.as_str(), abort.alert), ("queue", false));
    bench.plan.action = GuardAction::Observe;
    assert_eq!((reasons(&bench), say(&bench).abort), (vec![HoldReason::NoGuard], None), "it decides nothing");
    let mut bench = Bench::new(GuardAction::Hold, json!({"max": "5"}));
    for _ in 0..4 {
        bench.trouble(DataState::ProviderDown);
    }
    assert_eq!(say(&bench).no_data_seconds, 45);
}

#[test]
fn numbers_are_short() {
    let mut bench = Bench::new(GuardAction::Hold, json!({"max": "1e12"}));
    for (value, says) in [
        (0.0, "canary 0;"),
        (0.1 + 0.2, "canary 0.3;"),
        (1234.5678, "canary 1235;"),
        (123_456.0, "canary 123456;"),
        (5.0e8, "canary 5.000e8;"),
        (-0.000_012_3, "canary -1.230e-5;"),
        (10.0, "canary 10;"),
    ] {
        let message = bench.look(&[value], &[]).message;
        assert!(message.contains(says), "{message}");
    }
}

proptest! {
    /// A restart at any look changes nothing, and no answer makes it panic.
    #[test]
    fn a_restart_changes_nothing(
        values in prop::collection::vec((any::<f64>(), 0..4_usize, 0..40_i64), 1..60),
        for_seconds in 0..200_i32,
    ) {
        let mut bench = Bench::new(GuardAction::Abort, json!({"max": "5", "maxRatio": "2", "forSeconds": for_seconds}));
        for (value, series, seconds) in values {
            let answer = match series {
                3 => Err(Trouble::new(DataState::ProviderDown, "down".into())),
                series => Ok(GaugeValues { canary: vec![value; series], stable: vec![1.0] }),
            };
            let before = bench.state.clone();
            bench.take_in(seconds, answer);
            let kept = EvidenceState { gauges: vec![bench.state.clone()], ..EvidenceState::default() };
            let read: EvidenceState = serde_json::from_value(serde_json::to_value(&kept).unwrap()).unwrap();
            prop_assert_eq!(&read, &kept);
            prop_assert!(bench.state.tripped || !before.tripped, "never taken back");
            let (was, is) = (before.outside.map_or(0, |o| o.millis), bench.state.outside.as_ref().map_or(0, |o| o.millis));
            prop_assert!(is - was <= 30_000, "no more than two intervals at once");
        }
    }
}
