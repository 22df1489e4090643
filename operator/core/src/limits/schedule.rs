//! Schedules and their join.
//!
//! A schedule is the healthy observation time B(w) required before traffic may reach weight w. The join of
//! two schedules is the pointwise maximum of B, read back as steps: it exposes no more than either at any
//! time, and is commutative, associative and idempotent.

use crate::api::StepSpec;

/// A hold for lack of evidence lasts this many bakes, and at least [`SHORTEST_HOLD_SECONDS`].
const HOLD_BAKES: i32 = 4;
const SHORTEST_HOLD_SECONDS: i32 = 60;

/// What is wrong with a list of steps, in words.
pub fn problem(steps: &[StepSpec]) -> Option<String> {
    let Some(last) = steps.last() else {
        return Some("at least one step is needed, the last with weightPercent 100".to_owned());
    };
    if last.weight_percent != 100 {
        return Some(format!("the last step has weightPercent {}; it must be 100", last.weight_percent));
    }
    if let Some(pair) = steps.windows(2).find(|pair| pair[0].weight_percent >= pair[1].weight_percent) {
        return Some(format!(
            "weightPercent {} comes after {}; weights must rise",
            pair[1].weight_percent, pair[0].weight_percent
        ));
    }
    let outside = steps.iter().find(|s| !(1..=100).contains(&s.weight_percent) || s.bake_seconds < 0);
    outside.map(|s| {
        format!(
            "weightPercent {} with bakeSeconds {}: weights are 1 to 100, bakes 0 or more",
            s.weight_percent, s.bake_seconds
        )
    })
}

/// Healthy seconds required before a weight; weights above 100 stand for promotion.
pub(super) fn before(steps: &[StepSpec], weight: i32) -> i64 {
    steps.iter().filter(|step| step.weight_percent < weight).map(|step| i64::from(step.bake_seconds)).sum()
}

/// The same schedule without steps that cost nothing.
pub fn normal(steps: &[StepSpec]) -> Vec<StepSpec> {
    join(steps, steps)
}

/// The tightest schedule that satisfies both.
pub fn join(one: &[StepSpec], other: &[StepSpec]) -> Vec<StepSpec> {
    const PROMOTION: i32 = 101;
    let mut weights: Vec<i32> = one.iter().chain(other).map(|step| step.weight_percent).collect();
    weights.sort_unstable();
    weights.dedup();
    weights.push(PROMOTION);
    let required = |weight| before(one, weight).max(before(other, weight));
    weights
        .windows(2)
        .filter_map(|pair| {
            let bake = required(pair[1]) - required(pair[0]);
            let bake_seconds = i32::try_from(bake).unwrap_or(i32::MAX);
            // A step that costs nothing is no step, but the last one stays.
            (bake_seconds > 0 || pair[0] == 100).then_some(StepSpec { weight_percent: pair[0], bake_seconds })
        })
        .collect()
}

/// How long a hold may last that nobody but time ends, in seconds.
pub fn hold_seconds(bake_seconds: i32) -> i32 {
    bake_seconds.saturating_mul(HOLD_BAKES).max(SHORTEST_HOLD_SECONDS)
}

/// How long a step may take until it is passed, in seconds.
pub fn step_seconds(bake_seconds: i32) -> i32 {
    bake_seconds.saturating_add(hold_seconds(bake_seconds))
}

/// Pods that a weight needs: no more than it needs, at least one.
pub fn pods_for(replicas: i32, percent: i32) -> i32 {
    let wanted = (i64::from(replicas) * i64::from(percent) + 99) / 100;
    i32::try_from(wanted).unwrap_or(replicas).clamp(1, replicas.max(1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn schedule() -> impl Strategy<Value = Vec<StepSpec>> {
        (prop::collection::btree_set(1..100_i32, 0..6), prop::collection::vec(0..500_i32, 7)).prop_map(
            |(weights, bakes)| {
                weights
                    .into_iter()
                    .chain([100])
                    .zip(bakes)
                    .map(|(weight_percent, bake_seconds)| StepSpec { weight_percent, bake_seconds })
                    .collect()
            },
        )
    }

    /// Weight reached after `t` healthy seconds.
    fn exposure(steps: &[StepSpec], t: i64) -> i32 {
        let reached = steps.iter().filter(|s| before(steps, s.weight_percent) <= t).map(|s| s.weight_percent);
        reached.max().unwrap_or(0)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn join_laws(a in schedule(), b in schedule(), c in schedule()) {
            prop_assert_eq!(join(&a, &b), join(&b, &a));
            prop_assert_eq!(join(&join(&a, &b), &c), join(&a, &join(&b, &c)));
            prop_assert_eq!(normal(&normal(&a)), normal(&a));
            prop_assert_eq!(problem(&join(&a, &b)), None);
        }

        #[test]
        fn a_join_never_exposes_more(a in schedule(), b in schedule(), t in 0..4_000_i64) {
            let joined = exposure(&join(&a, &b), t);
            prop_assert!(joined <= exposure(&a, t) && joined <= exposure(&b, t));
        }
    }
}
