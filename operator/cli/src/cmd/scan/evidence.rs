//! Provenance that tools write down in files of their own: notes of git-ai, Agent Trace, in-toto statements.
//!
//! None of it is signed where it is read here: it raises the level, as everything that is found does, and proves nothing else.

use std::path::Path;

use base64::Engine as _;
use serde::Deserialize;
use serde_json::Value;
use sluice_core::api::Provenance;

use super::detect::{Commit, Finding, Level};
use crate::fail::Failure;

/// What the note of git-ai says (authorship/3.0.0): below each file, the keys of who wrote which lines; then JSON.
pub fn of_note(commit: &Commit) -> Option<Finding> {
    if commit.note.trim().is_empty() {
        return None;
    }
    let (attestations, rest) = commit.note.split_once("\n---").unwrap_or((&commit.note, ""));
    let is_json = serde_json::from_str::<Value>(rest.trim_start_matches('-').trim()).is_ok();
    if !is_json {
        let seen = "a note in refs/notes/ai that can't be read".to_owned();
        return Some(Finding::of(commit, "N-GITAI", Provenance::Unknown, "git-ai", seen));
    }
    let keys = attestations.lines().filter(|line| line.starts_with([' ', '\t']));
    let keys = keys.filter_map(|line| line.split_whitespace().next());
    let written: Vec<&str> = keys.filter(|key| !key.starts_with("h_")).collect();
    let seen = format!("a note in refs/notes/ai with lines of {}", written.first()?);
    Some(Finding::of(commit, "N-GITAI", Provenance::GenAIAssisted, "git-ai", seen))
}

/// An Agent Trace record.
#[derive(Deserialize)]
struct Trace {
    #[serde(default)]
    vcs: Vcs,
    files: Vec<TraceFile>,
}

#[derive(Default, Deserialize)]
struct Vcs {
    #[serde(default)]
    revision: Option<String>,
}

#[derive(Deserialize)]
struct TraceFile {
    #[serde(default)]
    path: String,
    #[serde(default)]
    conversations: Vec<Conversation>,
}

#[derive(Deserialize)]
struct Conversation {
    contributor: Contributor,
}

#[derive(Deserialize)]
struct Contributor {
    #[serde(rename = "type")]
    kind: String,
}

/// What an Agent Trace file says (version 0.1): one finding for each commit that it is about, the highest of its lines.
pub fn of_trace(file: &Path, commits: &[Commit]) -> Result<Vec<Finding>, Failure> {
    let value = json(file)?;
    let trace: Trace =
        read(file, value, "an Agent Trace record with files[].conversations[].contributor.type")?;
    let revision = trace.vcs.revision.clone();
    let commit = about(file, "vcs.revision", revision.as_deref(), commits)?;
    let mut worst: Option<(Provenance, String)> = None;
    for TraceFile { path, conversations } in &trace.files {
        for Conversation { contributor: Contributor { kind } } in conversations {
            let level = match kind.as_str() {
                "human" => continue,
                "ai" | "mixed" => Provenance::GenAIAssisted,
                _ => Provenance::Unknown,
            };
            if worst.as_ref().is_none_or(|(known, _)| *known < level) {
                worst = Some((level, format!("{path}: contributor {kind}")));
            }
        }
    }
    let finding = |(level, seen)| Finding {
        rule: "N-AGENT-TRACE".to_owned(),
        commit,
        level: Level::Is(level),
        tool: "Agent Trace".to_owned(),
        seen,
    };
    Ok(worst.map(finding).into_iter().collect())
}

/// Our own predicate: what an earlier scan, in the pipeline that built the image, found.
pub const PREDICATE: &str = "https://sluice.dev/change-provenance/v1";
const SLSA: &str = "https://slsa.dev/provenance/v1";

/// What an in-toto statement says, plain or in a DSSE envelope: of our own predicate its level, of SLSA provenance whether the
/// image was built from a commit of this change.
pub fn of_statement(file: &Path, commits: &[Commit]) -> Result<Vec<Finding>, Failure> {
    let mut value = json(file)?;
    if let Some(payload) = value.get("payload").and_then(Value::as_str) {
        let bytes = base64::engine::general_purpose::STANDARD.decode(payload);
        let inner = bytes.ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        value = inner.ok_or_else(|| bad(file, "payload is no base64 of a JSON statement"))?;
    }
    let predicate = &value["predicate"];
    match value["predicateType"].as_str() {
        Some(PREDICATE) => {
            let commit = about(file, "predicate.revision", predicate["revision"].as_str(), commits)?;
            let level: Provenance = serde_json::from_value(predicate["level"].clone()).map_err(|_| {
                bad(file, "predicate.level must be Human, GenAIAssisted, Unknown or GenAIAutonomous")
            })?;
            let seen = format!("a statement with level {}", level.as_str());
            let level = Level::Is(level);
            let (rule, tool) = ("N-STATEMENT".to_owned(), "an earlier scan".to_owned());
            Ok(vec![Finding { rule, commit, level, tool, seen }])
        }
        Some(SLSA) => {
            let sources = predicate["buildDefinition"]["resolvedDependencies"].as_array();
            let mut built_from =
                sources.into_iter().flatten().filter_map(|source| source["digest"]["gitCommit"].as_str());
            let field = "predicate.buildDefinition.resolvedDependencies[].digest.gitCommit";
            about(file, field, built_from.next(), commits).map(|_| Vec::new())
        }
        other => {
            let other = other.unwrap_or("missing");
            Err(bad(file, &format!("predicateType is {other}; what is read here is {PREDICATE} and {SLSA}")))
        }
    }
}

/// The commit that a file is about, which must be one of the change's.
fn about(
    file: &Path,
    field: &str,
    revision: Option<&str>,
    commits: &[Commit],
) -> Result<Option<String>, Failure> {
    let Some(revision) = revision else {
        return Err(bad(file, &format!("{field} is missing: it says which commit this is about")));
    };
    let known = commits.iter().find(|commit| commit.id == revision);
    let known =
        known.ok_or_else(|| bad(file, &format!("{field} is {revision}, which is no commit of this change")));
    known.map(|commit| Some(commit.id.clone()))
}

fn json(file: &Path) -> Result<Value, Failure> {
    let text = std::fs::read_to_string(file).map_err(|error| bad(file, &error.to_string()))?;
    serde_json::from_str(&text).map_err(|error| bad(file, &format!("no JSON: {error}")))
}

fn read<T: for<'de> Deserialize<'de>>(file: &Path, value: Value, what: &str) -> Result<T, Failure> {
    serde_path_to_error::deserialize(value)
        .map_err(|error| bad(file, &format!("{}: {}; it must be {what}", error.path(), error.inner())))
}

fn bad(file: &Path, problem: &str) -> Failure {
    Failure::new(format!("{}: {problem}", file.display()))
}
