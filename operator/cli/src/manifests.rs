//! Manifests on disk: rollouts, policies, freezes and namespaces, checked against the schemas that the API server has.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::CustomResourceExt;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sluice_core::api::{ChangeFreeze, ClusterRiskPolicy, ProgressiveRollout, RiskPolicy};

use crate::input::{cause, yaml};

/// Longest file that is read, in bytes: an object of the API server is smaller.
const LONGEST: u64 = 4 << 20;
/// Most files of a folder.
const MOST_FILES: usize = 1000;

/// What a set of files holds.
#[derive(Clone, Debug, Default)]
pub struct Manifests {
    /// ProgressiveRollouts.
    pub rollouts: Vec<ProgressiveRollout>,
    /// ClusterRiskPolicies.
    pub cluster: Vec<ClusterRiskPolicy>,
    /// RiskPolicies.
    pub own: Vec<RiskPolicy>,
    /// ChangeFreezes.
    pub freezes: Vec<ChangeFreeze>,
    /// Namespaces: name and labels.
    pub namespaces: Vec<(String, BTreeMap<String, String>)>,
    /// File and document of each of them.
    pub places: BTreeMap<Named, String>,
}

/// Kind, namespace, if it has one, and name of an object.
pub type Named = (String, String, String);

fn key(kind: &str, namespace: &str, name: &str) -> Named {
    // The others are of the cluster, whatever their metadata says.
    let namespace = if matches!(kind, "ProgressiveRollout" | "RiskPolicy") { namespace } else { "" };
    (kind.to_owned(), namespace.to_owned(), name.to_owned())
}

impl Manifests {
    /// Reads a file, or all `.yaml`, `.yml` and `.json` files of a folder. Other kinds are passed over.
    ///
    /// # Errors
    /// The file, the document and the field that can't be read, and why.
    pub fn read(path: &Path) -> Result<Self, String> {
        let mut found = Self::default();
        if path.as_os_str() == "-" {
            let mut text = String::new();
            let read = std::io::stdin().lock().take(LONGEST).read_to_string(&mut text);
            read.map_err(|error| format!("standard input: {}", cause(&error)))?;
            found.take_all("standard input", &text)?;
            return Ok(found);
        }
        for file in files(path)? {
            let name = file.display();
            let length =
                std::fs::metadata(&file).map_err(|error| format!("{name}: {}", cause(&error)))?.len();
            if length > LONGEST {
                return Err(format!(
                    "{name}: {length} bytes are more than {LONGEST}: no manifest is that long"
                ));
            }
            let text =
                std::fs::read_to_string(&file).map_err(|error| format!("{name}: {}", cause(&error)))?;
            found.take_all(&name.to_string(), &text)?;
        }
        Ok(found)
    }

    /// The file and the document that an object is from, and its kind and name.
    pub fn place(&self, kind: &str, meta: &ObjectMeta) -> String {
        let name = meta.name.as_deref().unwrap_or_default();
        let place = self.places.get(&key(kind, meta.namespace.as_deref().unwrap_or_default(), name));
        place.map_or_else(|| format!("{kind} {name}"), |place| format!("{place}: {kind} {name}"))
    }

    /// Whether nothing in it says what a change may do.
    pub fn has_no_policy(&self) -> bool {
        let Self { cluster, own, freezes, namespaces, .. } = self;
        cluster.is_empty() && own.is_empty() && freezes.is_empty() && namespaces.is_empty()
    }

    fn take_all(&mut self, name: &str, text: &str) -> Result<(), String> {
        documents(text).into_iter().enumerate().try_for_each(|(number, document)| {
            let place = format!("{name}, document {}", number + 1);
            self.take(&place, &document).map_err(|problem| format!("{place}: {problem}"))
        })
    }

    fn take(&mut self, place: &str, text: &str) -> Result<(), String> {
        let document: Value = yaml(text)?;
        if document.is_null() {
            return Ok(());
        }
        let of = |key: &str| document[key].as_str().unwrap_or_default();
        let is_rollout = of("kind") == "ProgressiveRollout";
        if is_rollout
            || matches!(of("kind"), "ClusterRiskPolicy" | "RiskPolicy" | "ChangeFreeze" | "Namespace")
        {
            let meta = |key: &str| document["metadata"][key].as_str().unwrap_or_default();
            let key = key(of("kind"), meta("namespace"), meta("name"));
            // A cluster would keep the last of them. Which rollout is meant is for those to say who ask for it.
            if let Some(known) = self.places.insert(key, place.to_owned()).filter(|_| !is_rollout) {
                let (kind, name) = (of("kind"), meta("name"));
                return Err(format!("there is another {kind} {name}, in {known}: write one"));
            }
        }
        match (of("apiVersion"), of("kind")) {
            ("sluice.dev/v1alpha1", "ProgressiveRollout") => self.rollouts.push(object(text, &document)?),
            ("sluice.dev/v1alpha1", "ClusterRiskPolicy") => self.cluster.push(object(text, &document)?),
            ("sluice.dev/v1alpha1", "RiskPolicy") => self.own.push(object(text, &document)?),
            ("sluice.dev/v1alpha1", "ChangeFreeze") => self.freezes.push(object(text, &document)?),
            ("v1", "List") => return Err("a List: write its items as documents of their own".to_owned()),
            ("v1", "Namespace") => {
                named(&document)?;
                let name = document["metadata"]["name"].as_str().unwrap_or_default().to_owned();
                let labels = &document["metadata"]["labels"];
                if let Some(problem) = mistyped("metadata.labels", &json!({"type": "object"}), labels) {
                    return Err(problem);
                }
                let text = json!({"type": "string"});
                let labels =
                    labels.as_object().into_iter().flatten().map(|(label, value)| match value.as_str() {
                        Some(value) => Ok((label.clone(), value.to_owned())),
                        None => Err(format!("metadata.labels.{label} {value}: write {}", wanted(&text))),
                    });
                let labels = labels.collect::<Result<_, String>>()?;
                self.namespaces.push((name, labels));
            }
            (version, kind) if version.starts_with("sluice.dev/") => {
                return Err(format!(
                    "apiVersion {version:?} with kind {kind:?}: write sluice.dev/v1alpha1 with ProgressiveRollout, \
                     ClusterRiskPolicy, RiskPolicy or ChangeFreeze"
                ));
            }
            _ => {}
        }
        Ok(())
    }
}

fn files(path: &Path) -> Result<Vec<PathBuf>, String> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let fail = |error: std::io::Error| format!("{}: {}", path.display(), cause(&error));
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(fail)? {
        let file = entry.map_err(fail)?.path();
        let manifest = file.extension().is_some_and(|end| end == "yaml" || end == "yml" || end == "json");
        if manifest && file.is_file() {
            files.push(file);
        }
    }
    if files.len() > MOST_FILES {
        return Err(format!("{}: {} files are more than {MOST_FILES}", path.display(), files.len()));
    }
    files.sort();
    Ok(files)
}

/// The documents of a stream.
fn documents(text: &str) -> Vec<String> {
    let mut documents = vec![String::new()];
    for line in text.lines() {
        if line.trim_end() == "---" || line.starts_with("--- ") {
            documents.push(String::new());
        } else if let Some(document) = documents.last_mut() {
            document.push_str(line);
            document.push('\n');
        }
    }
    documents.retain(|document| !document.trim().is_empty());
    documents
}

fn object<K: CustomResourceExt + DeserializeOwned>(text: &str, document: &Value) -> Result<K, String> {
    named(document)?;
    let crd = K::crd();
    let schema = crd.spec.versions.first().and_then(|version| version.schema.as_ref());
    let schema =
        schema.and_then(|schema| serde_json::to_value(&schema.open_api_v3_schema).ok()).unwrap_or_default();
    let schema = &schema["properties"]["spec"];
    if document["spec"].is_null() {
        let none = if schema["required"].is_array() { "" } else { ", or {} if there are none" };
        return Err(format!("spec is empty: write the fields below it{none}"));
    }
    if let Some(problem) = problem("spec", schema, &document["spec"]) {
        return Err(problem);
    }
    yaml(text)
}

/// Fields of an object, and of its metadata.
const FIELDS: [&str; 5] = ["apiVersion", "kind", "metadata", "spec", "status"];
const METADATA: [&str; 13] = [
    "name",
    "namespace",
    "labels",
    "annotations",
    "finalizers",
    "ownerReferences",
    "generateName",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "managedFields",
    "selfLink",
];

/// Whether an object has a name, and only fields that objects have.
fn named(document: &Value) -> Result<(), String> {
    for (path, value, known) in
        [("", document, &FIELDS[..]), ("metadata.", &document["metadata"], &METADATA[..])]
    {
        let mut names = value.as_object().into_iter().flatten().map(|(name, _)| name.as_str());
        if let Some(name) = names.find(|name| !known.contains(name)) {
            return Err(format!("{path}{name} is no field: write one of {}", known.join(", ")));
        }
    }
    match document["metadata"]["name"].as_str() {
        Some(name) if !name.is_empty() => Ok(()),
        _ => Err("metadata.name is missing: write the name of the object".to_owned()),
    }
}

/// Why a value is of another type than the schema asks for, and what to write.
fn mistyped(path: &str, schema: &Value, value: &Value) -> Option<String> {
    match (value, schema["type"].as_str()?) {
        (Value::Null, _)
        | (Value::Bool(_), "boolean")
        | (Value::String(_), "string")
        | (Value::Array(_), "array")
        | (Value::Object(_), "object")
        | (Value::Number(_), "number") => None,
        (Value::Number(number), "integer") if number.is_i64() => None,
        _ => Some(format!("{path} {value}: write {}", wanted(schema))),
    }
}

/// What to write where a schema is asked for.
fn wanted(schema: &Value) -> String {
    match schema["type"].as_str().unwrap_or_default() {
        "integer" => "a whole number without quotes or unit, such as 5".to_owned(),
        "number" => "a number without quotes or unit".to_owned(),
        "string" => match words(schema) {
            Some(words) => format!("one of {}", words.join(", ")),
            None => "text, in quotes if it looks like a number".to_owned(),
        },
        "boolean" => "true or false".to_owned(),
        "array" => "a list".to_owned(),
        _ => "the fields below it".to_owned(),
    }
}

/// The words that a schema has, if it has some.
fn words(schema: &Value) -> Option<Vec<&str>> {
    schema["enum"].as_array().map(|words| words.iter().filter_map(Value::as_str).collect())
}

/// What the schema refuses of a value: a field that is none, another type, a number out of its range, a word that is none
/// of a list.
fn problem(path: &str, schema: &Value, value: &Value) -> Option<String> {
    let mistyped = mistyped(path, schema, value);
    if mistyped.is_some() {
        return mistyped;
    }
    match value {
        Value::Object(fields) => {
            let known = schema["properties"].as_object()?;
            let needed = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
            let lacks = needed.into_iter().find(|name| fields.get(*name).is_none_or(Value::is_null));
            let lacks = lacks.map(|name| format!("{path}.{name} is missing: write {}", wanted(&known[name])));
            let is = fields.iter().find_map(|(name, value)| match known.get(name) {
                Some(schema) => problem(&format!("{path}.{name}"), schema, value),
                None => {
                    let names: Vec<&str> = known.keys().map(String::as_str).collect();
                    Some(format!("{path}.{name} is no field: write one of {}", names.join(", ")))
                }
            });
            is.or(lacks)
        }
        Value::Array(items) => {
            let most = schema["maxItems"].as_u64().filter(|most| (items.len() as u64) > *most);
            let too_many =
                most.map(|most| format!("{path} has {} entries: write at most {most}", items.len()));
            too_many.or_else(|| {
                let each = |(at, item)| problem(&format!("{path}[{at}]"), &schema["items"], item);
                items.iter().enumerate().find_map(each)
            })
        }
        Value::Number(number) => {
            let (least, most) = (schema["minimum"].as_f64(), schema["maximum"].as_f64());
            let is = number.as_f64()?;
            let within = least.is_none_or(|least| is >= least) && most.is_none_or(|most| is <= most);
            let bound =
                |bound: Option<f64>| bound.map_or_else(|| "any".to_owned(), |bound| bound.to_string());
            (!within).then(|| format!("{path} {number}: write {} to {}", bound(least), bound(most)))
        }
        Value::String(text) => {
            let words = words(schema)?;
            (!words.contains(&text.as_str()))
                .then(|| format!("{path} {text:?}: write one of {}", words.join(", ")))
        }
        Value::Null | Value::Bool(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.yaml"), text).unwrap();
        let problem = Manifests::read(folder.path()).err().unwrap_or_default();
        problem.replace(&folder.path().display().to_string(), "DIR")
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        let policy = |spec: &str| {
            said(&format!(
                "apiVersion: sluice.dev/v1alpha1\nkind: RiskPolicy\nmetadata: {{name: a}}\nspec: {spec}\n"
            ))
        };
        assert_eq!(
            policy("{limits: {maxFirstStepPercent: -5}}"),
            "DIR/a.yaml, document 1: spec.limits.maxFirstStepPercent -5: write 1 to 100"
        );
        assert_eq!(
            policy("{tier: Gold}"),
            "DIR/a.yaml, document 1: spec.tier \"Gold\": write one of Tier3, Tier2, Tier1, Tier0"
        );
        assert_eq!(
            policy("{floor: []}"),
            "DIR/a.yaml, document 1: spec.floor is no field: write one of blastRadius, classes, errorBudget, floors, limits, provenance, tier"
        );
        for (spec, says) in [
            (
                "{floors: [{class: R2, when: {tierAtMost: 1}}]}",
                "spec.floors[0].when.tierAtMost 1: write one of Tier3, Tier2, Tier1, Tier0",
            ),
            (
                "{limits: {maxFirstStepPercent: 5%}}",
                "spec.limits.maxFirstStepPercent \"5%\": write a whole number without quotes or unit, such as 5",
            ),
            ("{floors: R2}", "spec.floors \"R2\": write a list"),
            ("{limits: 5}", "spec.limits 5: write the fields below it"),
            ("{floors: [{}]}", "spec.floors[0].class is missing: write one of R0, R1, R2, R3, R4"),
            (
                "{classes: [{name: R1, steps: [{weightPercent: 5}]}]}",
                "spec.classes[0].steps[0].bakeSeconds is missing: write a whole number without quotes or unit, such as 5",
            ),
            ("", "spec is empty: write the fields below it, or {} if there are none"),
        ] {
            assert_eq!(policy(spec), format!("DIR/a.yaml, document 1: {says}"));
        }
        let rollout = |text: &str| {
            said(&format!("apiVersion: sluice.dev/v1alpha1\nkind: ProgressiveRollout\n{text}\n"))
        };
        for (text, says) in [
            (
                "metadata: {name: a}\nchange: {}",
                "change is no field: write one of apiVersion, kind, metadata, spec, status",
            ),
            ("metadata: {nmae: a}", "metadata.nmae is no field: write one of name, namespace, labels"),
            ("spec: {}", "metadata.name is missing: write the name of the object"),
            (
                "metadata: {name: a}\nspec: {change: {commit: 1234567}}",
                "spec.change.commit 1234567: write text, in quotes",
            ),
        ] {
            let problem = rollout(text);
            assert!(problem.starts_with(&format!("DIR/a.yaml, document 1: {says}")), "{problem}");
        }
        let twice = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n";
        assert_eq!(
            said(&format!("{}---\n{twice}", twice.replace("name: shop", "namespace: a, name: shop"))),
            "DIR/a.yaml, document 2: there is another Namespace shop, in DIR/a.yaml, document 1: write one"
        );
        let null = "apiVersion: v1\nkind: Namespace\nmetadata: {name: a, labels: {tier: }}\n";
        assert!(said(null).contains("metadata.labels.tier null: write text"), "{}", said(null));
        let label = "apiVersion: v1\nkind: Namespace\nmetadata: {name: a, labels: {tier: 2}}\n";
        assert_eq!(
            said(label),
            "DIR/a.yaml, document 1: metadata.labels.tier 2: write text, in quotes if it looks like a number"
        );
        assert_eq!(
            said("apiVersion: sluice.dev/v1\nkind: RiskPolicy\n"),
            "DIR/a.yaml, document 1: apiVersion \"sluice.dev/v1\" with kind \"RiskPolicy\": write sluice.dev/v1alpha1 with ProgressiveRollout, ClusterRiskPolicy, RiskPolicy or ChangeFreeze"
        );
        let nowhere = Manifests::read(Path::new("/nowhere/at/all")).unwrap_err();
        assert_eq!(nowhere, "/nowhere/at/all: there is no such file: is the path right?");
    }

    #[test]
    fn other_kinds_and_empty_documents_are_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let text = "# policies\n---\napiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {sluice.dev/tier: Tier2}}\n---\n\
                    apiVersion: v1\nkind: ConfigMap\ndata: {a: '---'}\n--- # more\napiVersion: sluice.dev/v1alpha1\nkind: ClusterRiskPolicy\n\
                    metadata: {name: default}\nspec: {}\n";
        std::fs::write(folder.path().join("a.yml"), text).unwrap();
        std::fs::write(folder.path().join("README.md"), "not: [yaml").unwrap();
        let found = Manifests::read(folder.path()).unwrap();
        assert_eq!((found.cluster.len(), found.own.len(), found.rollouts.len()), (1, 0, 0));
        assert_eq!(found.namespaces[0].1["sluice.dev/tier"], "Tier2");
    }

    #[test]
    fn the_freezes_of_the_docs_are_accepted() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/freezes.md");
        let page = std::fs::read_to_string(page).unwrap();
        let blocks: Vec<&str> =
            page.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.yaml"), blocks.join("---\n")).unwrap();
        let found = Manifests::read(folder.path()).unwrap().freezes;
        assert!(found.len() >= 4, "{} freezes", found.len());
        for freeze in found {
            assert_eq!(sluice_core::freeze::problem(&freeze.spec), None, "{:?}", freeze.metadata.name);
        }
    }
}
