//! A plan that gets tighter while its run is under way: more became known of the change, or a policy or the rollout's own
//! limits were tightened.
//!
//! What has happened stays: steps that were passed, and the weight in force. Everything ahead becomes the tightest of the
//! plan and the one that a run would start with now, component by component; nothing of it can become looser, in whatever
//! order and however often this happens.

use crate::api::{EvidenceRow, Guard, Plan, StepSpec, TolerancePpm};
use crate::limits::join;
use crate::limits::plan::seal;
use crate::limits::schedule::{before, normal};

/// Where a run is in its plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Index of the step; those before it were passed.
    pub step: i32,
    /// Whether the weight of this step was asked for.
    pub asked: bool,
    /// Whether steps matter at all any more: not once the last one was passed.
    pub stepping: bool,
}

impl Progress {
    /// Steps that were passed.
    fn passed<'a>(&self, plan: &'a Plan) -> &'a [StepSpec] {
        let index = usize::try_from(self.step).unwrap_or(0);
        plan.steps.get(..index).unwrap_or(&plan.steps)
    }

    /// The step that the run is in, if its weight was asked for.
    fn current(&self, plan: &Plan) -> Option<StepSpec> {
        let index = usize::try_from(self.step).unwrap_or(0);
        plan.steps.get(index).copied().filter(|_| self.asked)
    }

    /// The weight in force: what is ahead begins above it.
    fn weight(&self, plan: &Plan) -> i32 {
        let last = self.current(plan).or_else(|| self.passed(plan).last().copied());
        last.map_or(0, |step| step.weight_percent)
    }
}

/// The plan joined with the one that a run would start with now, as far as that is ahead; `None` when nothing of that is
/// tighter. Of `now` the digest does not matter.
pub fn tighten(plan: &Plan, progress: Progress, now: &Plan) -> Option<Plan> {
    let mut tight = plan.clone();
    tight.provenance = plan.provenance.max(now.provenance);
    tight.risk_class = plan.risk_class.max(now.risk_class);
    tight.tolerance_ppm = plan.tolerance_ppm.least(now.tolerance_ppm);
    tight.min_samples = plan.min_samples.max(now.min_samples);
    tight.rows = rows(&plan.rows, &now.rows);
    tight.no_data_seconds = plan.no_data_seconds.min(now.no_data_seconds);
    tight.watch_seconds = plan.watch_seconds.max(now.watch_seconds);
    tight.pause_before_percent = plan.pause_before_percent.into_iter().chain(now.pause_before_percent).min();
    let joined = join(&plan.steps, &now.steps);
    if progress.stepping && joined != normal(&plan.steps) {
        tight.steps = ahead(plan, progress, &joined);
    }
    (tight != *plan).then(|| seal(tight))
}

/// The plan without what it leaves out of the evidence and the rollout, as it is now, would not: `now` is the plan that
/// would be made of it. `None` when there is no such thing.
pub fn count_more(plan: &Plan, now: &Plan) -> Option<Plan> {
    let mut tight = plan.clone();
    tight.abort_needs_two_pods &= now.abort_needs_two_pods;
    for guard in &mut tight.guards {
        let same = now.guards.iter().find(|other| other.name == guard.name);
        let least = same.and_then(Guard::counted).map(|counted| counted.warmup_requests());
        if let (Some(own), Some(least)) = (guard.warmup_requests_mut(), least) {
            *own = (*own).min(least.max(0));
        }
    }
    (tight != *plan).then(|| seal(tight))
}

/// Whether guards are the same, but for requests of new pods that count now and did not.
fn same_guards(old: &[Guard], new: &[Guard]) -> bool {
    let same = |(old, new): (&Guard, &Guard)| {
        let (mut old, mut new) = (old.clone(), new.clone());
        let fewer = match (old.warmup_requests_mut(), new.warmup_requests_mut()) {
            (Some(was), Some(is)) => std::mem::replace(is, *was) <= *was,
            _ => true,
        };
        fewer && old == new
    };
    old.len() == new.len() && old.iter().zip(new).all(same)
}

/// All rows of both. Where both have one, nothing of it becomes looser, and what its capital was spread over stays.
fn rows(own: &[EvidenceRow], riskier: &[EvidenceRow]) -> Vec<EvidenceRow> {
    let mut rows = own.to_vec();
    for other in riskier {
        let Some(row) = rows.iter_mut().find(|row| row.class == other.class) else {
            rows.push(*other);
            continue;
        };
        row.tolerance_ppm = row.tolerance_ppm.least(other.tolerance_ppm);
        row.margin_ppm = row.margin_ppm.least(other.margin_ppm);
        row.gate_error_ppm = row.gate_error_ppm.min(other.gate_error_ppm);
        row.min_samples = row.min_samples.max(other.min_samples);
    }
    rows
}

/// Steps that were passed, then those of the joined schedule above the weight in force. Healthy time that the joined
/// schedule asks for before the next weight, and that was not observed yet, is observed at the weight in force.
fn ahead(plan: &Plan, progress: Progress, joined: &[StepSpec]) -> Vec<StepSpec> {
    let passed = progress.passed(plan);
    let weight = progress.weight(plan);
    let observed: i64 = passed.iter().map(|step| i64::from(step.bake_seconds)).sum();
    let rest = || joined.iter().filter(|step| step.weight_percent > weight).copied();
    let next = rest().next().map_or(PROMOTION, |step| step.weight_percent);
    let missing = i32::try_from(before(joined, next) - observed).unwrap_or(i32::MAX).max(0);
    let here = match progress.current(plan) {
        Some(step) => Some(StepSpec { bake_seconds: step.bake_seconds.max(missing), ..step }),
        // The last weight was passed and the next one not asked for: the run stays where it is first.
        None => {
            (weight > 0 && missing > 0).then_some(StepSpec { weight_percent: weight, bake_seconds: missing })
        }
    };
    passed.iter().copied().chain(here).chain(rest()).collect()
}

/// Stands for promotion in a schedule: it comes after every weight.
const PROMOTION: i32 = 101;

/// What became looser from one plan of a run to the next, in words. Written apart from [`tighten`]: it compares what each
/// plan asks for before each weight.
pub fn loosened(old: &Plan, new: &Plan, progress: Progress) -> Option<String> {
    let (was, is) = (&old.tolerance_ppm, &new.tolerance_ppm);
    let looser = [
        (new.risk_class < old.risk_class, "the risk class fell"),
        (new.provenance < old.provenance, "the provenance fell"),
        (is.relative > was.relative || is.absolute > was.absolute, "more is tolerated"),
        (new.min_samples < old.min_samples, "fewer requests are needed"),
        (!old.rows.iter().all(|row| has_row(new, row)), "a row of the evidence is looser or gone"),
        (new.no_data_seconds > old.no_data_seconds, "data may be missing for longer"),
        (new.watch_seconds < old.watch_seconds, "the watched period is shorter"),
        (!same_guards(&old.guards, &new.guards), "the guards changed"),
        (new.abort_needs_two_pods && !old.abort_needs_two_pods, "one pod alone does not stop it any more"),
        (pauses_later(old, new), "the pause for a person comes later or is gone"),
        (new.routes != old.routes || new.apex_callers != old.apex_callers, "the routing changed"),
        (
            (&new.service, &new.stable_service, &new.canary_service)
                != (&old.service, &old.stable_service, &old.canary_service),
            "the Services changed",
        ),
        (
            (new.settle_seconds, new.drain_seconds, new.progress_deadline_seconds)
                != (old.settle_seconds, old.drain_seconds, old.progress_deadline_seconds),
            "a time of the routing or the workload changed",
        ),
        (progress.passed(new) != progress.passed(old), "a step that was passed changed"),
        (progress.stepping && progress.weight(new) != progress.weight(old), "the weight in force changed"),
        (!progress.stepping && new.steps != old.steps, "the steps of a promoted revision changed"),
    ];
    if let Some((_, what)) = looser.into_iter().find(|(is, _)| *is) {
        return Some(what.to_owned());
    }
    let sooner = (progress.weight(old) + 1..=PROMOTION)
        .find(|weight| before(&new.steps, *weight) < before(&old.steps, *weight));
    sooner.map(|weight| format!("weight {weight} is reached sooner"))
}

fn pauses_later(old: &Plan, new: &Plan) -> bool {
    old.pause_before_percent.is_some_and(|was| new.pause_before_percent.is_none_or(|is| is > was))
}

/// Whether a plan plays a row at least as tight.
fn has_row(plan: &Plan, row: &EvidenceRow) -> bool {
    let within =
        |is: TolerancePpm, was: TolerancePpm| is.relative <= was.relative && is.absolute <= was.absolute;
    plan.rows.iter().any(|new| {
        new.class == row.class
            && within(new.tolerance_ppm, row.tolerance_ppm)
            && within(new.margin_ppm, row.margin_ppm)
            && new.gate_error_ppm <= row.gate_error_ppm
            && new.capital_ppm >= row.capital_ppm
            && new.min_samples >= row.min_samples
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::api::{ProgressiveRolloutSpec, Provenance, RiskClass};
    use crate::config::{ClassRow, Config};

    /// The changes of a run that gets riskier.
    const ALL: [(Provenance, RiskClass); 4] = [
        (Provenance::Human, RiskClass::R1),
        (Provenance::GenAIAssisted, RiskClass::R2),
        (Provenance::Unknown, RiskClass::R2),
        (Provenance::GenAIAutonomous, RiskClass::R3),
    ];

    fn spec() -> ProgressiveRolloutSpec {
        serde_json::from_value(serde_json::json!({
            "workloadRef": {"name": "web"}, "routing": {"service": "web", "routes": [{"name": "web"}]},
        }))
        .unwrap()
    }

    fn plan_of(config: &Config, change: (Provenance, RiskClass), spec: &ProgressiveRolloutSpec) -> Plan {
        let deployment = serde_json::json!({"metadata": {"name": "web"}, "spec": {"template": {}}});
        let policy = crate::policy::Policy::of_installation(config);
        crate::limits::make_plan(spec, config, &policy, &crate::view::Workload::read(&deployment), change)
    }

    fn steps() -> impl Strategy<Value = Vec<StepSpec>> {
        (prop::collection::btree_set(1..100_i32, 0..6), prop::collection::vec(0..500_i32, 7)).prop_map(
            |(weights, bakes)| {
                let steps = weights.into_iter().chain([100]).zip(bakes);
                steps
                    .map(|(weight_percent, bake_seconds)| StepSpec { weight_percent, bake_seconds })
                    .collect()
            },
        )
    }

    /// A table in any order, tight or loose: nothing may rely on it.
    fn table() -> impl Strategy<Value = Config> {
        let row = (steps(), 0..1000_i32, 0..1000_i32, 1..1000_i32, 1..1000_i32);
        prop::collection::vec(row, 3).prop_map(|rows| {
            let classes = [RiskClass::R1, RiskClass::R2, RiskClass::R3].into_iter().zip(rows).map(
                |(name, (steps, relative, absolute, min_samples, no_data_seconds))| ClassRow {
                    name,
                    steps,
                    tolerance_ppm: crate::api::TolerancePpm { relative, absolute },
                    margin_ppm: None,
                    capital_ppm: None,
                    gate_error_ppm: None,
                    min_samples,
                    no_data_seconds,
                },
            );
            Config { classes: classes.collect(), ..Config::default() }
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        /// Declared again and again, in any order, with a table that changes besides: nothing loosens, and what is ahead
        /// is at least as tight as the riskier class.
        #[test]
        fn limits_never_loosen_in_a_run(
            first in table(),
            own in (steps(), prop::option::of(0..600_i32), prop::option::of(1..50_i32)),
            raises in prop::collection::vec((table(), 0..4_usize, 0..9_i32, any::<bool>(), any::<bool>()), 1..6),
        ) {
            let mut spec = spec();
            (spec.limits.steps, spec.limits.min_bake_seconds, spec.limits.max_first_step_percent) = own;
            let mut plan = plan_of(&first, ALL[0], &spec);
            let (mut step, mut asked) = (0, false);
            for (config, who, further, raised, stepping) in raises {
                // The run goes on between two declarations.
                let last = i32::try_from(plan.steps.len()).unwrap() - 1;
                asked = if further > 0 { raised } else { asked || raised };
                step = (step + further).min(last);
                let progress = Progress { step, asked, stepping };
                let riskier = plan_of(&config, ALL[who], &spec);
                let Some(next) = tighten(&plan, progress, &riskier) else {
                    prop_assert!(ALL[who].0 <= plan.provenance);
                    continue;
                };
                prop_assert_eq!(loosened(&plan, &next, progress), None, "{:?}\n{:?}", plan, next);
                prop_assert_eq!(next.steps.last().map(|step| step.weight_percent), Some(100));
                prop_assert!(next.steps.windows(2).all(|p| p[0].weight_percent <= p[1].weight_percent));
                if stepping {
                    for weight in progress.weight(&plan) + 1..=PROMOTION {
                        let (was, would_be) = (before(&plan.steps, weight), before(&riskier.steps, weight));
                        prop_assert_eq!(before(&next.steps, weight), was.max(would_be), "weight {}", weight);
                    }
                }
                // The same declaration again says nothing new.
                prop_assert_eq!(tighten(&next, progress, &riskier), None);
                if !asked && next.steps.get(usize::try_from(step).unwrap()).map(|s| s.weight_percent)
                    == Some(progress.weight(&plan)) {
                    asked = true; // it stays at the weight in force
                }
                plan = next;
            }
        }
    }

    #[test]
    fn what_is_ahead_is_that_of_the_riskier_class() {
        let config = Config::default();
        let human = plan_of(&config, ALL[0], &spec());
        let words = |plan: &Plan| {
            let words: Vec<String> =
                plan.steps.iter().map(|s| format!("{}/{}", s.weight_percent, s.bake_seconds / 60)).collect();
            words.join(" ")
        };
        let raise = |step, asked| {
            let progress = Progress { step, asked, stepping: true };
            let riskier = plan_of(&config, ALL[3], &spec());
            let plan = tighten(&human, progress, &riskier).unwrap();
            assert_eq!((plan.risk_class, plan.watch_seconds), (RiskClass::R3, 3600));
            assert_eq!((plan.tolerance_ppm.relative, plan.min_samples), (100_000, 10_000));
            assert_ne!(plan.digest, human.digest);
            words(&plan)
        };
        assert_eq!(words(&human), "5/10 20/10 50/10 100/30");
        assert_eq!(raise(0, false), "1/60 5/30 20/30 50/30 75/30 100/120", "nobody has met it");
        // At 5 % it has to show what it would have shown at 1 % and 5 %.
        assert_eq!(raise(0, true), "5/90 20/30 50/30 75/30 100/120");
        assert_eq!(raise(1, true), "5/10 20/110 50/30 75/30 100/120");
        // Passed, the next weight not asked for: it stays first.
        assert_eq!(raise(1, false), "5/10 5/80 20/30 50/30 75/30 100/120");
        assert_eq!(raise(3, true), "5/10 20/10 50/10 100/270");
    }

    #[test]
    fn what_loosens_is_named() {
        let config = Config::default();
        let plan = plan_of(&config, ALL[3], &spec());
        let progress = Progress { step: 1, asked: true, stepping: true };
        let changed = |change: fn(&mut Plan)| {
            let mut new = plan.clone();
            change(&mut new);
            loosened(&plan, &new, progress).unwrap_or_default()
        };
        assert_eq!(changed(|_| ()), "");
        assert_eq!(changed(|p| p.tolerance_ppm.absolute += 1), "more is tolerated");
        assert_eq!(changed(|p| p.min_samples -= 1), "fewer requests are needed");
        assert_eq!(changed(|p| p.rows[2].gate_error_ppm += 1), "a row of the evidence is looser or gone");
        assert_eq!(changed(|p| p.rows.truncate(2)), "a row of the evidence is looser or gone");
        assert_eq!(changed(|p| p.provenance = Provenance::Human), "the provenance fell");
        assert_eq!(changed(|p| p.guards.clear()), "the guards changed");
        let warmup = |plan: &mut Plan, requests| *plan.guards[0].warmup_requests_mut().unwrap() = requests;
        let mut old = plan.clone();
        old.abort_needs_two_pods = true;
        warmup(&mut old, 100);
        for (two_pods, requests, says) in
            [(true, 100, None), (false, 0, None), (true, 101, Some("the guards changed"))]
        {
            let mut new = old.clone();
            new.abort_needs_two_pods = two_pods;
            warmup(&mut new, requests);
            assert_eq!(loosened(&old, &new, progress).as_deref(), says);
        }
        assert_eq!(changed(|p| p.abort_needs_two_pods = true), "one pod alone does not stop it any more");
        assert_eq!(changed(|p| p.drain_seconds = 0), "a time of the routing or the workload changed");
        assert_eq!(changed(|p| p.steps[0].bake_seconds = 0), "a step that was passed changed");
        assert_eq!(changed(|p| p.steps[1].weight_percent = 6), "the weight in force changed");
        assert_eq!(
            changed(|p| p.steps.retain(|step| step.weight_percent != 20)),
            "weight 21 is reached sooner"
        );
        assert_eq!(changed(|p| p.steps[5].bake_seconds -= 1), "weight 101 is reached sooner");
    }
}
