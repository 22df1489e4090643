//! The screen and the document, from a record that is made up.

use serde_json::json;
use sluice_core::evidence::{Arm, DataState, Outcome, PodCounters, Sample, Trouble};
use sluice_core::forecast::forecast;

use super::*;

/// Class R2 for four pods.
fn plan() -> Plan {
    let steps: Vec<_> = [(2, 1200), (10, 1200), (33, 1200), (66, 1200), (100, 3600)]
        .iter()
        .map(|(weight, bake)| json!({"weightPercent": weight, "bakeSeconds": bake}))
        .collect();
    let plan = json!({
        "digest": "sha256:4c1e9a07d0", "riskClass": "R2", "provenance": "GenAIAssisted", "minSamples": 2000,
        "steps": steps, "tolerancePpm": {"relative": 150_000, "absolute": 200}, "noDataSeconds": 1800,
        "watchSeconds": 3600, "progressDeadlineSeconds": 600, "service": "checkout",
        "stableService": "checkout-stable", "canaryService": "checkout-canary", "routes": [{"name": "checkout"}],
        "apexCallers": "None", "settleSeconds": 5, "drainSeconds": 30,
        "guards": [{"name": "error-rate", "errorRatio": {}}, {"name": "slow", "latency": {"sloMilliseconds": 250}}],
    });
    serde_json::from_value(plan).unwrap()
}

fn planned(per_second: f64) -> Planned {
    let sample = |window: i64| {
        let at = Timestamp::from_second(1_767_225_600 + window * 15).unwrap();
        let total = per_second / 4.0 * (window * 15) as f64;
        let pod = |pod: i64| PodCounters {
            id: format!("checkout-1-{pod}"),
            arm: Arm::Stable,
            total,
            bad: Some((total / 1000.0 + pod as f64 / 4.0).floor()),
            maybe_bad: None,
            newest_sample: at,
            created: None,
            out_of_memory: false,
        };
        Sample { bound: None, at, outcome: Outcome::Counters((0..4).map(pod).collect()) }
    };
    let refused =
        Trouble::new(DataState::NoData, "no request series of stable: check metric name".to_owned());
    let refused = Sample { bound: None, at: Timestamp::UNIX_EPOCH, outcome: Outcome::Trouble(refused) };
    let samples =
        [("error-rate".to_owned(), (0..=240).map(sample).collect()), ("slow".to_owned(), vec![refused])];
    let plan = plan();
    Planned {
        name: "checkout".to_owned(),
        namespace: "shop".to_owned(),
        about: About::Held,
        forecasts: forecast(&plan, 4, &samples, None, 15),
        plan,
        why: serde_json::from_value(json!({"digest": "", "points": 8, "factors": [
            {"name": "provenance", "level": "GenAIAssisted", "points": 2, "source": "declared, not scanned"},
            {"name": "tier", "level": "Tier1", "points": 3,
                "source": "ClusterRiskPolicy/default, since the namespace has no label sluice.dev/tier"},
            {"name": "size", "level": "more than 1000 lines", "points": 3,
                "source": "not known: kubectl sluice scan writes spec.change.size"},
            {"name": "floor", "level": "R2", "points": 0, "source": "always: provenance GenAIAssisted or riskier, Tier1 or more critical"},
        ]}))
        .unwrap(),
        least: None,
        declared: true,
        commit: Some("9f2c1ab4d0e1f2a3".to_owned()),
        replicas: 4,
        frozen: Vec::new(),
        cautions: vec!["spec.change does not describe the held template".to_owned()],
    }
}

fn screen(per_second: f64) -> String {
    let lines = screen::lines(&planned(per_second), 80);
    assert!(lines.iter().all(|line| line.width() <= 80));
    lines.iter().map(|line| line.paint(false) + "\n").collect()
}

#[test]
fn enough_traffic() {
    insta::assert_snapshot!(screen(81.0));
}

#[test]
fn too_little_traffic_is_said_with_what_helps() {
    let text = screen(0.5);
    insta::assert_snapshot!(text);
    assert!(text.contains("limits.minBakeSeconds"));
}

/// A rollout, policies and a namespace, as a pipeline has them on disk.
fn files(tier: Option<&str>, provenance: &str, policy: serde_json::Value) -> (ProgressiveRollout, Manifests) {
    let evidence = json!({"rulesVersion": "2026.11", "baseCommit": "0c6d1b2e77aa", "headCommit": "9f2c1ab4d0e1", "commitsScanned": 4});
    let rollout = json!({
        "apiVersion": "sluice.dev/v1alpha1", "kind": "ProgressiveRollout", "metadata": {"name": "checkout", "namespace": "shop"},
        "spec": {
            "workloadRef": {"name": "checkout"}, "routing": {"service": "checkout", "routes": [{"name": "checkout"}]},
            "change": {"provenance": provenance, "size": {"changedLines": 120}, "commit": "9f2c1ab4d0e1", "evidence": evidence},
            "limits": {"maxFirstStepPercent": 50},
        },
    });
    let policy = json!({"metadata": {"name": "shop", "namespace": "shop"}, "spec": policy});
    let manifests = Manifests {
        cluster: vec![serde_json::from_value(json!({"metadata": {"name": "default"}, "spec": {}})).unwrap()],
        own: vec![serde_json::from_value(policy).unwrap()],
        namespaces: tier
            .map(|tier| ("shop".to_owned(), [("sluice.dev/tier".to_owned(), tier.to_owned())].into()))
            .into_iter()
            .collect(),
        ..Manifests::default()
    };
    (serde_json::from_value(rollout).unwrap(), manifests)
}

/// The policy of the namespace.
fn policy() -> serde_json::Value {
    json!({"classes": [{"name": "R1", "minSamples": 3000}]})
}

fn on_disk(tier: Option<&str>, provenance: &str) -> Planned {
    under(tier, provenance, policy())
}

/// The same under this policy of the namespace.
fn under(tier: Option<&str>, provenance: &str, policy: serde_json::Value) -> Planned {
    let (rollout, manifests) = files(tier, provenance, policy);
    in_order(&manifests).unwrap();
    offline::planned(&rollout, &manifests, None, Timestamp::from_second(1_767_225_600).unwrap())
}

#[test]
fn without_a_cluster_the_worst_case_counts() {
    let planned = on_disk(None, "GenAIAssisted");
    let text: String = screen::lines(&planned, 80).iter().map(|line| line.paint(false) + "\n").collect();
    insta::assert_snapshot!("offline", text);
    // Tier0, a failed run today: 2 + 1 + 4 + 0 + 1 + 1 + 3; at best, Tier3 and none: 2 + 1 + 0 + 0 + 1 + 1.
    assert_eq!(
        (planned.why.points, planned.plan.risk_class, planned.least),
        (12, RiskClass::R3, Some(RiskClass::R1))
    );
    assert_eq!(planned.plan.min_samples, 10_000, "the class asks for more than the namespace's policy");
    let known = on_disk(Some("Tier3"), "Human");
    assert_eq!((known.plan.risk_class, known.least), (RiskClass::R2, Some(RiskClass::R1)));
    assert_eq!(document::of(&known)["change"], "Manifest");
    assert!(!on_disk(None, "Unknown").declared && known.declared);
}

#[test]
fn a_freeze_that_holds_or_is_near_is_shown() {
    let freeze = |name: &str, mode: &str, start: &str| {
        let spec = json!({"reason": "no change over New Year", "mode": mode, "zone": "Europe/Berlin",
            "windows": [{"start": start, "duration": "P2DT6H"}], "scope": {"namespaces": ["shop"]}, "exemptKinds": ["Security"]});
        serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec})).unwrap()
    };
    let freezes = vec![
        freeze("year-end", "Hard", "2025-12-31T18:00:00"),
        freeze("sale", "Soft", "2026-01-05T00:00:00"),
        freeze("inventory", "Hard", "2026-01-20T00:00:00"),
    ];
    let (rollout, manifests) = files(Some("Tier3"), "GenAIAssisted", policy());
    let manifests = Manifests { freezes, ..manifests };
    in_order(&manifests).unwrap();
    let now = Timestamp::from_second(1_767_225_600).unwrap();
    let planned = offline::planned(&rollout, &manifests, None, now);
    let text: String = screen::lines(&planned, 80).iter().map(|line| line.paint(false) + "\n").collect();
    insta::assert_snapshot!("frozen", text);
    let document = document::of(&planned);
    assert_eq!(document["freezes"][0]["name"], "year-end");
    assert_eq!(document["freezes"][0]["until"], "2026-01-02T23:00:00Z");
    assert_eq!(document["freezes"][1]["from"], "2026-01-04T23:00:00Z");
    assert_eq!(document["freezes"].as_array().map(Vec::len), Some(2), "one that is far is not shown");
    let mut exempt = rollout;
    exempt.spec.change.kind = Some(sluice_core::api::ChangeKind::Security);
    let planned = offline::planned(&exempt, &manifests, None, now);
    assert_eq!(document::of(&planned)["freezes"], json!([]));
}

#[test]
fn without_a_cluster_an_error_budget_that_is_asked_for_is_taken_as_spent() {
    let policy = json!({"errorBudget": {"query": "left{service=\"$service\"}"}});
    let (planned, other) = (under(Some("Tier3"), "Human", policy), on_disk(Some("Tier3"), "Human"));
    assert_eq!((planned.why.points, planned.least), (other.why.points + 4, other.least));
    let factor = planned.why.factors.iter().find(|factor| factor.name == "errorBudget").unwrap();
    assert_eq!(factor.source, "RiskPolicy/shop: not known without a cluster");
    assert!(planned.cautions.iter().any(|caution| caution.contains("taken as less than 5 %")));
}

#[test]
fn a_policy_that_may_be_of_the_namespace_counts_for_it() {
    let (rollout, mut manifests) = files(Some("Tier3"), "Human", json!({"floors": [{"class": "R4"}]}));
    manifests.own[0].metadata.namespace = None;
    let now = Timestamp::from_second(1_767_225_600).unwrap();
    let planned = offline::planned(&rollout, &manifests, None, now);
    assert_eq!(planned.plan.risk_class, RiskClass::R4);
    let says = "RiskPolicy shop has no metadata.namespace, and is taken as one of shop";
    assert!(planned.cautions.iter().any(|caution| caution == says), "{:?}", planned.cautions);
    manifests.own[0].metadata.namespace = Some("other".to_owned());
    assert!(offline::planned(&rollout, &manifests, None, now).plan.risk_class < RiskClass::R4);
}

#[test]
fn what_a_claim_counts_as_is_said_with_its_caps() {
    let policy = json!({"provenance": {"unverifiedHumanAs": "GenAIAssisted", "appliesToTierAtMost": "Tier3"},
        "classes": [{"name": "R3", "maxInFlightOfClass": 1}]});
    let (mut rollout, manifests) = files(Some("Tier3"), "Human", policy);
    rollout.spec.change.evidence = None;
    let planned =
        offline::planned(&rollout, &manifests, None, Timestamp::from_second(1_767_225_600).unwrap());
    let text: String = screen::lines(&planned, 80).iter().map(|line| line.paint(false) + "\n").collect();
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    for says in [
        "(Human, counts as GenAIAssisted)",
        "changes of the cluster that are not Human are under way",
        "no other change of the cluster of class R3 or riskier is under way",
    ] {
        assert!(text.contains(says), "{says}\n{text}");
    }
}

/// A rollout of a cluster whose stable revision has image `app:1`, with this image in its Deployment and this change in a file.
fn asked(image: &str, change: serde_json::Value) -> Planned {
    let workload = |image: &str| {
        Workload::read(&json!({
            "metadata": {"name": "checkout", "annotations": {"sluice.dev/provenance": "GenAIAutonomous"}},
            "spec": {"replicas": 4, "selector": {"matchLabels": {"app": "checkout"}},
                "template": {"metadata": {"labels": {"app": "checkout"}}, "spec": {"containers": [{"name": "app", "image": image}]}}},
        }))
    };
    let rollout = json!({
        "apiVersion": "sluice.dev/v1alpha1", "kind": "ProgressiveRollout", "metadata": {"name": "checkout", "namespace": "shop"},
        "spec": {"workloadRef": {"name": "checkout"}, "change": change,
            "routing": {"service": "checkout", "routes": [{"name": "checkout"}]}},
    });
    let mut rollout: ProgressiveRollout = serde_json::from_value(rollout).unwrap();
    let stable = sluice_core::api::Revision {
        digest: workload("app:1").digest,
        images: vec!["app:1".to_owned()],
        ..Default::default()
    };
    rollout.status =
        Some(sluice_core::api::ProgressiveRolloutStatus { stable: Some(stable), ..Default::default() });
    let workload = Some(workload(image));
    let seen = Seen { rollout, workload, replica_sets: None, controller: None, events: Vec::new() };
    let (config, left) = (Config::default(), policy::error_budget(&[]));
    limits_of(&seen, &config, &Policy::of_installation(&config), left, None, true).unwrap()
}

#[test]
fn a_file_is_planned_for_what_it_declares_whatever_is_held() {
    let human = json!({"provenance": "Human", "images": ["app:3"]});
    for held in ["app:1", "app:2"] {
        let planned = asked(held, human.clone());
        assert_eq!((planned.about, planned.plan.provenance), (About::Next, Provenance::Human), "{held}");
        assert!(planned.declared);
        let says = planned.cautions.iter().any(|caution| caution.starts_with("the template that is held"));
        assert_eq!(says, held == "app:2", "{:?}", planned.cautions);
    }
    // It is the held one: what the Deployment says of that counts too.
    let planned = asked("app:3", human);
    assert_eq!((planned.about, planned.plan.provenance), (About::Held, Provenance::GenAIAutonomous));
    let says = |planned: &Planned, text: &str| planned.cautions.iter().any(|caution| caution.contains(text));
    // One that is about nothing leaves the word to the Deployment, or to nobody.
    let about_nothing = json!({"provenance": "Human"});
    let planned = asked("app:2", about_nothing.clone());
    assert_eq!((planned.about, planned.plan.provenance), (About::Held, Provenance::GenAIAutonomous));
    let planned = asked("app:1", about_nothing);
    assert_eq!((planned.about, planned.declared), (About::Next, false));
    assert!(says(&planned, subject::NO_TEMPLATE), "{:?}", planned.cautions);
    // Nearly what is held, and what serves already.
    let planned = asked("app:2", json!({"provenance": "Human", "images": ["app@sha256:aa"]}));
    assert!(says(&planned, "write the digest in the template too"), "{:?}", planned.cautions);
    let shipped = json!({"provenance": "Human", "images": ["app:1"]});
    let planned = asked("app:2", shipped.clone());
    assert_eq!((planned.about, planned.plan.provenance), (About::Held, Provenance::GenAIAutonomous));
    let planned = asked("app:1", shipped);
    assert_eq!((planned.about, planned.plan.provenance), (About::Next, Provenance::Unknown));
    assert!(says(&planned, "describes the template that serves"), "{:?}", planned.cautions);
}

#[test]
fn programs_get_numbers() {
    let document = document::of(&planned(81.0));
    assert_eq!(document["tooLow"], false);
    let steps = document["guards"][0]["steps"].as_array().unwrap();
    assert_eq!(steps.len(), 5);
    assert!(steps[0]["abortsFrom"].as_f64().unwrap() > steps[3]["abortsFrom"].as_f64().unwrap());
    assert_eq!(steps[4]["gateRequests"], serde_json::Value::Null);
    assert!(
        document["guards"][0]["excess"]["p95"].as_f64() > document["guards"][0]["excess"]["mean"].as_f64()
    );
    assert_eq!(document["guards"][1]["data"], "NoData");
}

#[test]
fn a_mistake_in_the_rollout_of_a_file_is_told_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rollout.yaml");
    let rollout = |guards: &str| {
        format!(
            "# the next one\n---\napiVersion: sluice.dev/v1alpha1\nkind: ProgressiveRollout\nmetadata: {{name: web, namespace: shop}}\n\
             spec: {{workloadRef: {{name: web}}, routing: {{service: web, routes: [{{name: web}}]}}, guards: [{guards}]}}\n"
        )
    };
    std::fs::write(&file, rollout("{name: a, errorRatio: {}}, {name: a, errorRatio: {}}")).unwrap();
    let said = format!("{:?}", manifest(&file, None).unwrap_err());
    assert!(said.contains("rollout.yaml, document 2: ProgressiveRollout web: spec.guards"), "{said}");
    std::fs::write(&file, rollout("{name: a, errorRatio: {}}")).unwrap();
    assert_eq!(manifest(&file, None).unwrap().metadata.name.as_deref(), Some("web"));
}
