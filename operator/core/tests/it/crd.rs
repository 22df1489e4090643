//! The CustomResourceDefinition as the API server and `kubectl explain` see it.

use kube::CustomResourceExt;
use serde_json::Value;
use sluice_core::api::{ChangeFreeze, ClusterRiskPolicy, ProgressiveRollout, RiskPolicy};

fn version() -> Value {
    let crd = serde_json::to_value(ProgressiveRollout::crd()).unwrap();
    crd["spec"]["versions"][0].clone()
}

fn schema() -> Value {
    version()["schema"]["openAPIV3Schema"].clone()
}

/// The schemas of all kinds.
fn schemas() -> [Value; 4] {
    let crds = [ProgressiveRollout::crd(), ClusterRiskPolicy::crd(), RiskPolicy::crd(), ChangeFreeze::crd()];
    crds.map(|crd| {
        let crd = serde_json::to_value(crd).unwrap();
        crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
    })
}

/// Calls `see` with every schema under this one and its path, fields as `.name`, items as `[]`.
fn walk(path: &str, schema: &Value, see: &mut impl FnMut(&str, &Value)) {
    see(path, schema);
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        walk(&format!("{path}.{name}"), field, see);
    }
    for (key, suffix) in [("items", "[]"), ("additionalProperties", "{}")] {
        if schema[key].is_object() {
            walk(&format!("{path}{suffix}"), &schema[key], see);
        }
    }
}

fn collect(schema: &Value, wrong: impl Fn(&str, &Value) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    walk("", schema, &mut |path, schema| {
        if wrong(path, schema) {
            found.push(path.to_owned());
        }
    });
    found
}

fn all(schema: &Value) -> usize {
    collect(schema, |_, _| true).len()
}

#[test]
fn every_field_and_every_enum_explains_itself() {
    assert!(all(&schema()) > 200, "the walk must see the whole schema");
    for schema in schemas() {
        let silent = collect(&schema, |path, schema| {
            // A list item or map value is explained by its field, unless it is an object or an enum of its own.
            let own = !path.ends_with(']') && !path.ends_with('}') || !schema["enum"].is_null();
            own && schema["description"].as_str().unwrap_or_default().trim().is_empty()
        });
        assert_eq!(silent, Vec::<String>::new(), "fields without a description");
        let unfinished = collect(&schema, |_, schema| {
            schema["description"].as_str().is_some_and(|text| {
                let text = text.trim();
                text.contains("TODO") || text.contains("[`") || !text.ends_with(['.', '`', ')'])
            })
        });
        assert_eq!(
            unfinished,
            Vec::<String>::new(),
            "descriptions that are no sentences, or link to Rust names"
        );
    }
}

#[test]
fn printer_columns_explain_themselves() {
    for column in version()["additionalPrinterColumns"].as_array().unwrap() {
        assert!(column["description"].as_str().is_some_and(|text| !text.is_empty()), "{column}");
    }
}

#[test]
fn numbers_have_ranges_that_kubernetes_knows_and_specs_have_no_floats() {
    for schema in schemas() {
        let unsigned =
            collect(&schema, |_, schema| schema["format"].as_str().is_some_and(|f| f.starts_with("uint")));
        assert_eq!(unsigned, Vec::<String>::new(), "formats that Kubernetes does not know");
        let spec = &schema["properties"]["spec"];
        let floats = collect(spec, |_, schema| schema["type"] == "number");
        assert_eq!(floats, Vec::<String>::new(), "floats in spec");
        let unbounded = collect(spec, |_, schema| {
            schema["type"] == "integer" && (schema["minimum"].is_null() || schema["maximum"].is_null())
        });
        assert_eq!(unbounded, Vec::<String>::new(), "integers of spec without a range");
    }
}

#[test]
fn spec_is_bounded() {
    // What is not bounded makes CEL rules too expensive, and lets one object fill etcd.
    for schema in schemas() {
        let unbounded = collect(&schema["properties"]["spec"], |_, schema| match schema["type"].as_str() {
            Some("array") => schema["maxItems"].is_null(),
            Some("string") => schema["maxLength"].is_null() && schema["enum"].is_null(),
            _ => false,
        });
        assert_eq!(unbounded, Vec::<String>::new(), "lists and strings of spec without a limit");
    }
}

#[test]
fn conditions_are_a_map_by_type_with_an_integer_generation() {
    let conditions = schema()["properties"]["status"]["properties"]["conditions"].clone();
    assert_eq!(conditions["x-kubernetes-list-type"], "map");
    assert_eq!(conditions["x-kubernetes-list-map-keys"], serde_json::json!(["type"]));
    let generation = &conditions["items"]["properties"]["observedGeneration"];
    assert_eq!(generation["type"], "integer");
    assert_eq!(generation["format"], "int64");
}

#[test]
fn guards_merge_by_name() {
    let guards = schema()["properties"]["spec"]["properties"]["guards"].clone();
    assert_eq!(guards["x-kubernetes-list-type"], "map");
    assert_eq!(guards["x-kubernetes-list-map-keys"], serde_json::json!(["name"]));
}

#[test]
fn the_workload_can_not_be_changed() {
    let rules =
        schema()["properties"]["spec"]["properties"]["workloadRef"]["x-kubernetes-validations"].clone();
    let rule = rules.as_array().unwrap().iter().find(|rule| rule["rule"] == "self == oldSelf");
    let message = rule.and_then(|rule| rule["message"].as_str()).unwrap_or_default();
    assert!(message.contains("immutable") && message.contains("delete this ProgressiveRollout"), "{rules}");
}

#[test]
fn a_name_that_is_no_label_value_is_refused() {
    let rules = schema()["x-kubernetes-validations"].clone();
    let rule = rules
        .as_array()
        .and_then(|rules| rules.iter().find(|rule| rule["rule"] == "size(self.metadata.name) <= 63"));
    let message = rule.and_then(|rule| rule["message"].as_str()).unwrap_or_default();
    assert!(message.contains("metadata.name") && message.contains("at most 63"), "{rules}");
}

#[test]
fn every_rule_says_what_is_wrong() {
    for schema in schemas() {
        let silent = collect(&schema, |_, schema| {
            let rules = schema["x-kubernetes-validations"].as_array();
            rules.into_iter().flatten().any(|rule| rule["message"].as_str().unwrap_or_default().is_empty())
        });
        assert_eq!(silent, Vec::<String>::new());
    }
}

#[test]
fn status_is_a_subresource() {
    assert!(version()["subresources"]["status"].is_object());
}
