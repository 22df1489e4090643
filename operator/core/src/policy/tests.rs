//! Policies that are joined, refused, and kept in force; and the risk that follows from them.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::api::{
    Change, ClusterRiskPolicyStatus, ConditionStatus, FloorWhen, PolicyClass, ProgressiveRolloutSpec,
    Provenance, RunRecord, Signoff, StepSpec,
};
use crate::limits;
use crate::provenance::declared;
use crate::risk::{Level, class_of_points};

fn cluster(spec: Value) -> ClusterRiskPolicySpec {
    serde_json::from_value(spec).unwrap()
}

fn own(spec: Value) -> RiskPolicySpec {
    serde_json::from_value(spec).unwrap()
}

fn joined(policies: &[Value], namespaces: &[Value], labels: &[(&str, &str)]) -> Policy {
    let named = |at: usize| format!("p{at}");
    let policies: Vec<_> =
        policies.iter().enumerate().map(|(at, spec)| (named(at), cluster(spec.clone()))).collect();
    let namespaces: Vec<_> =
        namespaces.iter().enumerate().map(|(at, spec)| (named(at), own(spec.clone()))).collect();
    let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    Policy::joined(&Config::default(), &policies, &namespaces, &labels)
}

fn spec(more: Value) -> ProgressiveRolloutSpec {
    let mut spec =
        json!({"workloadRef": {"name": "web"}, "routing": {"service": "web", "routes": [{"name": "web"}]}});
    for (key, value) in more.as_object().unwrap() {
        spec[key] = value.clone();
    }
    serde_json::from_value(spec).unwrap()
}

fn now() -> jiff::Timestamp {
    "2026-11-29T12:00:00Z".parse().unwrap()
}

/// The risk of a change that is described like this; a scan counts 100 changed lines.
fn risk(
    policy: &Policy,
    provenance: Provenance,
    scanned: bool,
    history: &[RunRecord],
    more: Value,
) -> Assessment {
    let commit = "9f2c1ab4d0e1";
    let evidence = json!({"rulesVersion": "2026.11", "baseCommit": "0c6d1b2e77aa", "headCommit": commit, "commitsScanned": 4});
    let mut change = json!({"provenance": provenance, "commit": commit, "size": {"changedLines": 100}});
    if scanned {
        change["evidence"] = evidence;
    }
    let change: Change = serde_json::from_value(change).unwrap();
    assess(&spec(more), &declared(&change), policy, history, error_budget(&[]), now())
}

fn failed(reason: &str, ended_at: &str) -> RunRecord {
    serde_json::from_value(json!({
        "id": "3-abcde", "outcome": "Rejected", "reason": reason, "message": "m", "riskClass": "R1", "provenance": "Human",
        "digest": "d", "maxWeightPercent": 5, "startedAt": ended_at, "endedAt": ended_at,
    }))
    .unwrap()
}

#[test]
fn without_a_policy_the_preset_holds_and_never_no_limits() {
    let policy = joined(&[], &[], &[]);
    assert_eq!(policy, Policy::of_installation(&Config::default()));
    assert_eq!((policy.tier.value, policy.blast_radius.value), (Tier::Tier1, BlastRadius::Zone));
    assert_eq!(policy.tier.from, "preset standard, since the namespace has no label sluice.dev/tier");
    let rows: Vec<ClassRow> = policy.rows().cloned().collect();
    assert_eq!(rows, limits::class_table(&Config::default()));
    for preset in Preset::ALL {
        assert_eq!(cluster_problem(&preset.spec(), &Config::default()), None, "{preset:?}");
        let config = Config { default_policy: preset, ..Config::default() };
        assert_eq!(serde_json::to_value(preset).unwrap(), preset.as_str());
        assert!(!Policy::of_installation(&config).table.is_empty());
    }
}

#[test]
fn the_label_of_the_namespace_says_how_critical_it_is() {
    let label = "sluice.dev/tier";
    let tier = |labels: &[(&str, &str)]| joined(&[json!({})], &[], labels).tier;
    assert_eq!(tier(&[(label, "Tier3")]).value, Tier::Tier3);
    let odd = tier(&[(label, "gold")]);
    assert_eq!(odd.value, Tier::Tier0, "the riskiest");
    assert_eq!(odd.from, "label sluice.dev/tier=gold of the namespace is none of Tier3, Tier2, Tier1, Tier0");
    assert_eq!(tier(&[]).value, Tier::Tier1, "the default");
    // Of two policies the one that finds it more critical; a namespace's policy can only raise.
    let mapping = json!({"tierMapping": {"namespaceLabel": "cost", "default": "Tier2"}});
    assert_eq!(joined(&[mapping.clone(), json!({})], &[], &[(label, "Tier3")]).tier.value, Tier::Tier2);
    for (own, counts) in [("Tier3", Tier::Tier2), ("Tier0", Tier::Tier0)] {
        assert_eq!(joined(std::slice::from_ref(&mapping), &[json!({"tier": own})], &[]).tier.value, counts);
    }
    for (own, counts) in [("Cell", BlastRadius::Zone), ("Global", BlastRadius::Global)] {
        assert_eq!(joined(&[json!({})], &[json!({"blastRadius": own})], &[]).blast_radius.value, counts);
    }
}

#[test]
fn a_namespace_can_not_loosen_the_table_and_what_it_asks_of_a_class_it_asks_of_riskier_ones() {
    let looser = json!({"classes": [{"name": "R2", "minSamples": 1, "noDataSeconds": 99999, "steps": [{"weightPercent": 100, "bakeSeconds": 1}],
        "tolerancePpm": {"relative": 900_000, "absolute": 9000}, "gateErrorPpm": 200_000}]});
    let rows = |policy: &Policy| policy.rows().cloned().collect::<Vec<ClassRow>>();
    assert_eq!(rows(&joined(&[], &[looser], &[])), rows(&joined(&[], &[], &[])));
    let policy = joined(&[], &[json!({"classes": [{"name": "R1", "minSamples": 5000}]})], &[]);
    let samples: Vec<i32> = policy.rows().map(|row| row.min_samples).collect();
    assert_eq!(samples, [100, 5000, 5000, 10_000, 20_000]);
    assert_eq!(policy.row(RiskClass::R2).from.min_samples, "RiskPolicy/p0");
    assert_eq!(policy.row(RiskClass::R2).schedules[0].from, "class R2 (built in)");
    assert_eq!(policy.row(RiskClass::R3).from.min_samples, "class R3 (built in)");
    assert_eq!(limits::order_problem(&rows(&policy)), None);
}

#[test]
fn what_is_wrong_with_a_policy_is_named_and_the_last_accepted_version_stays() {
    let config = Config::default();
    for (spec, says) in [
        (
            json!({"classes": [{"name": "R3", "minSamples": 1}]}),
            "spec.classes[R3] is looser than classes[R2] in minSamples",
        ),
        (
            json!({"classes": [{"name": "R2", "noDataSeconds": 99999}]}),
            "spec.classes[R2] is looser than classes[R1] in noDataSeconds",
        ),
        (
            json!({"classes": [{"name": "R4", "steps": [{"weightPercent": 50, "bakeSeconds": 1}, {"weightPercent": 100, "bakeSeconds": 1}]}]}),
            "spec.classes[R4] is looser than classes[R3] in steps",
        ),
        (
            json!({"classes": [{"name": "R4", "marginPpm": {"relative": 0, "absolute": 0}}]}),
            "spec.classes[R4].marginPpm.absolute 0: write 1 or more",
        ),
        (
            json!({"classes": [{"name": "R3", "maxInFlightNotHuman": 7}]}),
            "spec.classes[R3] is looser than classes[R2] in maxInFlightNotHuman: a riskier class may not start more easily (R2 has 3, R3 7)",
        ),
        (
            json!({"classes": [{"name": "R2", "cooldownSeconds": 60}]}),
            "spec.classes[R2] is looser than classes[R1] in cooldownSeconds: a riskier class may not start more easily (R1 has 900, R2 60)",
        ),
        (
            json!({"classes": [{"name": "R2", "requiredSignoffs": [{"role": "peer", "count": 2}]}]}),
            "spec.classes[R3] is looser than classes[R2] in requiredSignoffs: a riskier class may not need fewer (R2 needs 2 peer, R3 does not)",
        ),
        (
            json!({"classes": [{"name": "R4", "requiredSignoffs": [{"role": "peer"}, {"role": "peer"}]}]}),
            "spec.classes[R4].requiredSignoffs names peer twice",
        ),
        (json!({"classes": [{"name": "R1"}, {"name": "R1"}]}), "spec.classes has two rows of R1: write one"),
        (
            json!({"classes": [{"name": "R1", "steps": [{"weightPercent": 50, "bakeSeconds": 1}, {"weightPercent": 20, "bakeSeconds": 1}]}]}),
            "spec.classes[R1].steps: the last step has weightPercent 20; it must be 100",
        ),
        (
            json!({"floors": [{"class": "R0"}]}),
            "spec.floors[0].class R0 is the lowest class anyhow: write R1 to R4",
        ),
        (
            json!({"tierMapping": {"namespaceLabel": "my tier"}}),
            "spec.tierMapping.namespaceLabel \"my tier\": write a label key",
        ),
    ] {
        let problem = cluster_problem(&cluster(spec), &config).unwrap_or_default();
        assert!(problem.starts_with(says), "{problem}");
    }
    let (good, bad) = (cluster(json!({})), cluster(json!({"classes": [{"name": "R3", "minSamples": 1}]})));
    let problem = || cluster_problem(&bad, &config);
    let status = |spec: &ClusterRiskPolicySpec, generation, before: Option<&ClusterRiskPolicyStatus>, now| {
        let mut policy = ClusterRiskPolicy::new("default", spec.clone());
        (policy.metadata.generation, policy.status) = (Some(generation), before.cloned());
        cluster_status(&policy, &config, now)
    };
    let first = status(&good, 1, None, now());
    assert_eq!((first.accepted_generation, first.conditions[0].status), (1, ConditionStatus::True));
    let second = status(&bad, 2, Some(&first), now());
    assert_eq!((second.accepted_generation, second.observed_generation), (1, 2));
    assert_eq!(second.conditions[0].status, ConditionStatus::False);
    let message = &second.conditions[0].message;
    assert!(message.ends_with("The version of generation 1 stays in force"), "{message}");
    assert_eq!(validate::in_force(&bad, problem().as_deref(), Some(&second)), Some(&good));
    assert_eq!(status(&bad, 2, Some(&second), now()), second, "nothing new, nothing to write");
    // One that was never in order holds nothing, and takes nothing away.
    let never = status(&bad, 1, None, now());
    assert_eq!((never.accepted.as_ref(), never.accepted_generation), (None, 0));
    assert_eq!(validate::in_force(&bad, problem().as_deref(), Some(&never)), None);
}

#[test]
fn a_version_that_was_accepted_over_another_table_loosens_no_class() {
    let policy = cluster(json!({"classes": [{"name": "R3", "noDataSeconds": 900}]}));
    let faster = limits::class_table(&Config::default()).into_iter().filter(|row| row.name >= RiskClass::R2);
    let faster = faster.map(|row| ClassRow { no_data_seconds: 600, ..row }).collect();
    let config = Config { classes: faster, ..Config::default() };
    assert!(cluster_problem(&policy, &config).is_some());
    let table = Policy::joined(&config, &[("p".to_owned(), policy)], &[], &BTreeMap::new());
    let rows: Vec<ClassRow> = table.rows().cloned().collect();
    assert_eq!(limits::order_problem(&rows), None);
    assert_eq!(rows[3].no_data_seconds, 600);
    assert_eq!(rows[1].capital_ppm, Some(2000), "capital is each row's own");
}

#[test]
fn every_factor_is_named_with_its_points_and_where_it_comes_from() {
    let policy = joined(&[json!({})], &[], &[("sluice.dev/tier", "Tier2")]);
    let history =
        [failed("AbortedByUser", "2026-11-29T11:00:00Z"), failed("GuardTripped", "2026-11-24T12:00:00Z")];
    let found = risk(
        &policy,
        Provenance::GenAIAssisted,
        true,
        &history,
        json!({"declaredRisk": {"novelty": "First"}}),
    );
    let words: Vec<String> = found
        .factors
        .iter()
        .map(|factor| format!("{} {} +{}: {}", factor.name, factor.level, factor.points, factor.source))
        .collect();
    insta::assert_snapshot!(words.join("\n"));
    assert_eq!(found.points, found.factors.iter().map(|factor| factor.points).sum::<i32>());
    assert_eq!(found.class, class_of_points(found.points));
}

#[test]
fn a_person_s_word_needs_a_scan_where_the_policy_says_so() {
    let policy =
        joined(&[Preset::Standard].map(|preset| serde_json::to_value(preset.spec()).unwrap()), &[], &[]);
    let points = |provenance, scanned| risk(&policy, provenance, scanned, &[], json!({})).factors[0].points;
    assert_eq!(points(Provenance::Human, false), points(Provenance::GenAIAssisted, false));
    assert_eq!(points(Provenance::Human, true) + 2, points(Provenance::Human, false));
    assert_eq!(points(Provenance::Unknown, false), points(Provenance::Unknown, true));
    // Of less critical workloads it is believed.
    let policy = joined(
        &[serde_json::to_value(Preset::Standard.spec()).unwrap()],
        &[],
        &[("sluice.dev/tier", "Tier2")],
    );
    let found = risk(&policy, Provenance::Human, false, &[], json!({}));
    assert_eq!((found.factors[0].points, found.provenance), (0, Provenance::Human));
}

#[test]
fn what_the_owner_declares_can_only_raise() {
    let policy = joined(&[json!({"blastRadius": "Region"})], &[], &[("sluice.dev/tier", "Tier2")]);
    let points = |declared: Value| {
        risk(&policy, Provenance::Human, true, &[], json!({"declaredRisk": declared})).points
    };
    let none = points(json!({}));
    assert_eq!(points(json!({"blastRadius": "Cell", "tier": "Tier3", "novelty": "Routine"})), none);
    assert_eq!(points(json!({"blastRadius": "Global"})), none + 1);
    assert_eq!(points(json!({"tier": "Tier0"})), none + 3);
}

#[test]
fn a_floor_that_decides_is_named() {
    let policy = joined(
        &[json!({"floors": [{"when": {"tierAtMost": "Tier2"}, "class": "R3"}]})],
        &[],
        &[("sluice.dev/tier", "Tier1")],
    );
    let found = risk(&policy, Provenance::Human, true, &[], json!({}));
    let floor = found.factors.last().unwrap();
    assert_eq!((found.class, floor.name.as_str()), (RiskClass::R3, "floor"));
    assert_eq!(floor.source, "ClusterRiskPolicy/p0: Tier2 or more critical");
    let always = joined(&[json!({})], &[], &[("sluice.dev/tier", "Tier3")]);
    let found = risk(&always, Provenance::GenAIAutonomous, true, &[], json!({}));
    assert_eq!((found.points, found.class), (7, RiskClass::R2));
    let found =
        risk(&always, Provenance::Human, true, &[], json!({"declaredRisk": {"blastRadius": "Global"}}));
    assert_eq!(found.factors.last().unwrap().source, "always: blast radius Global or larger");
}

#[test]
fn presets_are_in_the_order_of_what_they_are_for() {
    for label in [None, Some("Tier3"), Some("Tier2"), Some("Tier1"), Some("Tier0")] {
        let labels: Vec<(&str, &str)> = label.map(|tier| ("sluice.dev/tier", tier)).into_iter().collect();
        for provenance in Provenance::ALL {
            for scanned in [false, true] {
                let class = |preset: Preset| {
                    let policy = joined(&[serde_json::to_value(preset.spec()).unwrap()], &[], &labels);
                    risk(&policy, provenance, scanned, &[], json!({})).class
                };
                assert!(class(Preset::Startup) <= class(Preset::Standard));
                assert!(class(Preset::Standard) <= class(Preset::Critical));
            }
        }
    }
}

#[test]
fn a_limit_that_does_not_bind_is_no_source_of_the_plan() {
    let sources = |limits: Value| {
        let policy = joined(&[json!({ "limits": limits })], &[], &[]);
        let sources = limits::sources(&spec(json!({})), &policy, RiskClass::R1);
        let named = sources.into_iter().filter(|source| source.from.contains("Policy/"));
        named.flat_map(|source| source.limits.into_keys()).collect::<Vec<_>>()
    };
    assert_eq!(
        sources(json!({"maxFirstStepPercent": 4, "minBakeSeconds": 700})),
        ["maxFirstStepPercent", "minBakeSeconds"]
    );
    for idle in [json!({"maxFirstStepPercent": 5}), json!({"minBakeSeconds": 600})] {
        assert!(sources(idle.clone()).is_empty(), "{idle}");
    }
}

fn steps() -> impl Strategy<Value = Vec<StepSpec>> {
    (prop::collection::btree_set(1..100_i32, 0..5), prop::collection::vec(0..5000_i32, 6)).prop_map(
        |(weights, bakes)| {
            let steps = weights.into_iter().chain([100]).zip(bakes);
            steps.map(|(weight_percent, bake_seconds)| StepSpec { weight_percent, bake_seconds }).collect()
        },
    )
}

/// A row of a policy with any of its columns.
fn class() -> impl Strategy<Value = PolicyClass> {
    let ppm = || prop::option::of((0..1_000_000_i32, 0..50_000_i32));
    let scalars = (
        prop::option::of(1..200_000_i32),
        prop::option::of(1..200_000_i32),
        prop::option::of(1..50_000_i32),
        prop::option::of(1..10_000_i32),
    );
    let cap = || prop::option::of(1..20_i32);
    let signoffs = prop::collection::btree_map(0..3_usize, 1..4_i32, 0..3);
    let starts = (cap(), cap(), cap(), prop::option::of(0..5000_i32), signoffs);
    (0..5_usize, prop::option::of(steps()), ppm(), ppm(), scalars, starts).prop_map(
        |(name, steps, tolerance, margin, scalars, starts)| {
            let role = |at: usize| ["owner", "peer", "senior"][at].to_owned();
            let signoffs = starts.4.into_iter().map(|(at, count)| Signoff { role: role(at), count });
            let ppm = |(relative, absolute)| crate::api::PolicyPpm { relative, absolute: absolute + 1 };
            PolicyClass {
                name: RiskClass::ALL[name],
                steps: steps.unwrap_or_default(),
                tolerance_ppm: tolerance.map(ppm),
                margin_ppm: margin.map(ppm),
                capital_ppm: scalars.0,
                gate_error_ppm: scalars.1,
                min_samples: scalars.2,
                no_data_seconds: scalars.3,
                max_in_flight_per_namespace: starts.0,
                max_in_flight_not_human: starts.1,
                max_in_flight_of_class: starts.2,
                cooldown_seconds: starts.3,
                required_signoffs: signoffs.collect(),
            }
        },
    )
}

fn policy() -> impl Strategy<Value = RiskPolicySpec> {
    let floor = (0..4_usize, 0..5_usize).prop_map(|(level, class)| Floor {
        when: FloorWhen { provenance_at_least: Some(Provenance::ALL[level]), ..FloorWhen::default() },
        class: RiskClass::ALL[class],
    });
    let own = (
        prop::option::of(0..4_usize),
        prop::option::of(0..4_usize),
        prop::option::of(1..100_i32),
        prop::option::of(0..9999_i32),
    );
    (prop::collection::vec(class(), 0..4), prop::collection::vec(floor, 0..3), own).prop_map(
        |(classes, floors, own)| {
            let limits = PolicyLimits {
                max_first_step_percent: own.2,
                min_bake_seconds: own.3,
                ..PolicyLimits::default()
            };
            let tier = own.0.map(|at| Tier::POINTS[at].0);
            let blast_radius = own.1.map(|at| BlastRadius::POINTS[at].0);
            RiskPolicySpec { tier, blast_radius, classes, floors, limits, ..RiskPolicySpec::default() }
        },
    )
}

/// What is loosened from one policy to another, for every class, in words.
fn looser(tight: &Policy, loose: &Policy) -> Option<String> {
    if tight.tier.value < loose.tier.value || tight.blast_radius.value < loose.blast_radius.value {
        return Some("the levels".to_owned());
    }
    RiskClass::ALL.into_iter().find_map(|class| {
        if let Some(what) = starts_sooner(tight, loose, class) {
            return Some(what);
        }
        let spec = spec(json!({}));
        let workload =
            crate::view::Workload::read(&json!({"metadata": {"name": "web"}, "spec": {"template": {}}}));
        let plan = |policy| {
            limits::make_plan(&spec, &Config::default(), policy, &workload, (Provenance::Human, class))
        };
        let progress = limits::Progress { step: 0, asked: false, stepping: true };
        limits::loosened(&plan(loose), &plan(tight), progress).map(|what| format!("{class:?}: {what}"))
    })
}

/// In what a change of this class starts more easily under the first.
fn starts_sooner(tight: &Policy, loose: &Policy, class: RiskClass) -> Option<String> {
    let (tight, loose) = (&tight.row(class).start, &loose.row(class).start);
    let missing = loose.signoffs.iter().find(|asked| {
        let same = |given: &&Sourced<Signoff>| given.value.role == asked.value.role;
        tight.signoffs.iter().find(same).is_none_or(|given| given.value.count < asked.value.count)
    });
    [
        (tight.per_namespace.value > loose.per_namespace.value, "more of the namespace in flight"),
        (tight.not_human.value > loose.not_human.value, "more that are not Human in flight"),
        (tight.of_class.value > loose.of_class.value, "more of the class in flight"),
        (tight.cooldown_seconds.value < loose.cooldown_seconds.value, "a shorter cooldown"),
        (missing.is_some(), "fewer sign-offs"),
    ]
    .into_iter()
    .find_map(|(is, what)| is.then(|| format!("{class:?}: {what}")))
}

/// The same without where its values come from.
fn values(policy: &Policy) -> impl PartialEq + std::fmt::Debug + use<> {
    let spec = spec(json!({}));
    let composed = RiskClass::ALL.map(|class| {
        let sources = limits::sources(&spec, policy, class);
        let of = |field: &str| {
            sources
                .iter()
                .find_map(|source| source.limits.get(field))
                .and_then(|value| value.parse::<i32>().ok())
        };
        let start = &policy.row(class).start;
        let signoffs: std::collections::BTreeSet<String> =
            start.signoffs.iter().map(|signoff| signoff.value.to_string()).collect();
        let starts = (start.caps(), start.cooldown_seconds.value, signoffs);
        (of("maxFirstStepPercent"), of("minBakeSeconds"), starts)
    });
    (
        policy.tier.value,
        policy.blast_radius.value,
        policy.rows().cloned().collect::<Vec<ClassRow>>(),
        composed.to_vec(),
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// I3 and I4: in any order, twice or once, the policies of a namespace give the same limits, and none looser than any
    /// of them alone.
    #[test]
    fn policies_join_in_any_order_and_none_loosens(a in policy(), b in policy(), c in policy()) {
        let of = |specs: &[&RiskPolicySpec]| {
            let named: Vec<_> = specs.iter().enumerate().map(|(at, spec)| (format!("p{at}"), (*spec).clone())).collect();
            Policy::joined(&Config::default(), &[], &named, &BTreeMap::new())
        };
        let all = of(&[&a, &b, &c]);
        for order in [[&a, &c, &b], [&b, &a, &c], [&b, &c, &a], [&c, &a, &b], [&c, &b, &a]] {
            prop_assert_eq!(values(&of(&order)), values(&all));
        }
        prop_assert_eq!(values(&of(&[&a, &b, &c, &a, &b, &c])), values(&all));
        for alone in [&[][..], &[&a], &[&b], &[&c], &[&a, &b]] {
            prop_assert_eq!(looser(&all, &of(alone)), None);
        }
        let rows: Vec<ClassRow> = all.rows().cloned().collect();
        prop_assert_eq!(limits::order_problem(&rows), None);
        prop_assert_eq!(start::order_problem(&all.table), None);
    }

    /// I2: whatever the policies and the rollout ask for, a riskier class is not looser in anything.
    #[test]
    fn a_riskier_class_is_looser_in_nothing(a in policy(), first in prop::option::of(1..100_i32), bake in prop::option::of(0..9999_i32), own in steps()) {
        let policy = Policy::joined(&Config::default(), &[], &[("p".to_owned(), a)], &BTreeMap::new());
        let mut spec = spec(json!({}));
        (spec.limits.max_first_step_percent, spec.limits.min_bake_seconds) = (first, bake);
        if bake.is_some_and(|bake| bake % 2 == 0) {
            spec.limits.steps = own;
        }
        let workload = crate::view::Workload::read(&json!({"metadata": {"name": "web"}, "spec": {"template": {}}}));
        let plan = |class| limits::make_plan(&spec, &Config::default(), &policy, &workload, (Provenance::Human, class));
        let progress = limits::Progress { step: 0, asked: false, stepping: true };
        for pair in RiskClass::ALL.windows(2) {
            prop_assert_eq!(limits::loosened(&plan(pair[0]), &plan(pair[1]), progress), None, "{:?}", pair);
        }
        // Said a second time, apart from `order_problem`.
        let rows = policy.table.windows(2).map(|pair| (&pair[0].start, &pair[1].start));
        for (loose, tight) in rows {
            prop_assert!(tight.caps().per_namespace <= loose.caps().per_namespace);
            prop_assert!(tight.caps().not_human <= loose.caps().not_human);
            prop_assert!(tight.caps().of_class <= loose.caps().of_class);
            prop_assert!(tight.cooldown_seconds.value >= loose.cooldown_seconds.value);
        }
    }

    /// The same for policies of the cluster.
    #[test]
    fn policies_of_the_cluster_join_in_any_order(a in policy(), b in policy()) {
        let lay = |own: &RiskPolicySpec| {
            let RiskPolicySpec { classes, floors, limits, .. } = own.clone();
            ClusterRiskPolicySpec { classes, floors, limits, ..Default::default() }
        };
        let of = |specs: &[&RiskPolicySpec]| {
            let named: Vec<_> = specs.iter().enumerate().map(|(at, spec)| (format!("p{at}"), lay(spec))).collect();
            Policy::joined(&Config::default(), &named, &[], &BTreeMap::new())
        };
        prop_assert_eq!(values(&of(&[&a, &b])), values(&of(&[&b, &a])));
        prop_assert_eq!(values(&of(&[&a, &b, &a])), values(&of(&[&a, &b])));
        for alone in [&a, &b] {
            prop_assert_eq!(looser(&of(&[&a, &b]), &of(&[alone])), None);
        }
    }
}
