//! Restarts in the time that pods are there, and containers that are killed for want of memory.

use super::support::{Bench, combine, plan, report};
use crate::api::RiskClass;
use crate::evidence::{Arm, GuardPlan, GuardReport, HoldReason, Outcome};
use crate::statistics::{self, Asked, Signal};

/// Of class R1 at 10 %.
fn events() -> GuardPlan {
    let asked =
        Asked { name: "restarts".into(), signal: Signal::Events, stops: true, limit: None, phi_floor: 1.0 };
    let judged = statistics::guards(&[asked], &statistics::rows::chain(RiskClass::R1), false).remove(0);
    GuardPlan { name: "restarts".into(), judged, weight: 10, ..plan() }
}

/// So many pods of each revision, an hour old.
struct Pods {
    bench: Bench,
    canary: usize,
    stable: usize,
    killed: bool,
}

impl Pods {
    fn new(canary: usize, stable: usize) -> Self {
        let mut bench = Bench::new(events());
        bench.source.pods.clear();
        let mut pods = Self { bench, canary, stable, killed: false };
        pods.window(0.0, 0.0);
        pods
    }

    /// 15 s in which the first pod of each revision restarts so often.
    fn window(&mut self, canary: f64, stable: f64) {
        for (arm, pods, restarts) in [(Arm::Canary, self.canary, canary), (Arm::Stable, self.stable, stable)]
        {
            for pod in 0..pods {
                self.bench.source.serve(
                    arm,
                    &format!("{arm}{pod}"),
                    15.0,
                    if pod == 0 { restarts } else { 0.0 },
                );
            }
        }
        self.bench.wait(15);
        let mut sample = self.bench.source.sample(self.bench.now);
        if let Outcome::Counters(pods) = &mut sample.outcome {
            pods.iter_mut()
                .filter(|pod| pod.id.ends_with('0'))
                .for_each(|pod| pod.out_of_memory = self.killed);
        }
        self.bench.observe(&sample);
    }

    fn report(&self) -> GuardReport {
        self.bench.report()
    }
}

#[test]
fn no_restarts_are_needed_and_some_are_no_reason() {
    let mut pods = Pods::new(1, 4);
    for window in 0..240 {
        pods.window(if window == 100 { 1.0 } else { 0.0 }, if window % 60 == 1 { 1.0 } else { 0.0 });
        let report = pods.report();
        assert!(report.gate_open && report.score < 0.1, "window {window}: {report:?}");
    }
    let report = pods.report();
    assert_eq!(report.message, "restarts 1 in 60 pod-minutes against 4 in 240 pod-minutes, score <0.01 of 1");
    assert_eq!((report.met, report.gate_progress, report.min_samples_needed), (None, None, 0));
    // An hour without a single request proves nothing for the canary.
    let evidence = combine(vec![report], Vec::new());
    assert!(!evidence.gate_open);
    assert_eq!(evidence.holds[0].reason, HoldReason::NoGuard);
}

#[test]
fn restarts_again_and_again_stop_a_canary_whose_stable_has_none() {
    let needed = |canary, stable| {
        let mut pods = Pods::new(canary, stable);
        let mut restarts = 0;
        while pods.report().score < 1.0 {
            pods.window(1.0, 0.0);
            restarts += 1;
            assert!(restarts < 100, "{:?}", pods.report());
        }
        restarts
    };
    // As docs/guards.md says.
    assert_eq!((needed(1, 4), needed(4, 4)), (12, 26));
    let mut both = Pods::new(1, 4);
    (0..40).for_each(|_| both.window(1.0, 4.0));
    assert!(both.report().score < 0.1, "{:?}", both.report());
}

#[test]
fn two_kills_for_want_of_memory_are_enough_without_a_score() {
    let mut pods = Pods::new(1, 4);
    pods.killed = true;
    pods.window(1.0, 0.0);
    assert!(!pods.report().breaks_rule);
    pods.window(1.0, 0.0);
    let report = pods.report();
    assert!(report.breaks_rule && !report.gate_open && report.score < 1.0, "{report:?}");
    let evidence = combine(vec![report], Vec::new());
    let reason = evidence.abort.expect("an abort");
    assert_eq!(
        reason.message,
        "restarts: 2 containers of the canary were killed for want of memory within 10 minutes, and none of stable's"
    );
    // It is the same when nothing of stable serves any more.
    let watched = GuardPlan { watch: true, weight: 100, ..pods.bench.plan.clone() };
    assert!(report_at(&pods, &watched).breaks_rule);
    // A node that kills both is not the canary's fault.
    pods.window(0.0, 1.0);
    assert!(!pods.report().breaks_rule);
}

fn report_at(pods: &Pods, plan: &GuardPlan) -> GuardReport {
    report(&pods.bench.state, plan, pods.bench.now)
}

#[test]
fn a_guard_that_only_holds_does_not_stop_a_canary_that_is_killed() {
    let mut pods = Pods::new(1, 4);
    pods.bench.plan.action = crate::api::GuardAction::Hold;
    pods.killed = true;
    pods.window(2.0, 0.0);
    let evidence = combine(vec![pods.report()], Vec::new());
    assert_eq!(evidence.abort, None);
    assert_eq!(evidence.holds[0].reason, HoldReason::GuardTripped);
}
