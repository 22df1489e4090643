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
use crate::input::cause;

/// What the note of git-ai says (authorship/3): below each file, the keys of who wrote which lines; then JSON.
pub fn of_note(commit: &Commit) -> Option<Finding> {
    let note = commit.note.as_deref()?;
    let unread = || {
        let seen = "a note in refs/notes/ai that can't be read".to_owned();
        Some(Finding::of(commit, "N-GITAI", Provenance::Unknown, "git-ai", seen))
    };
    let (attestations, rest) = note.split_once("\n---").unwrap_or(("", note));
    let Ok(facts) = serde_json::from_str::<Value>(rest.trim_start_matches('-').trim()) else {
        return unread();
    };
    if !facts["schema_version"].as_str().is_some_and(|version| version.starts_with("authorship/3.")) {
        return unread();
    }
    let keys = attestations.lines().filter(|line| line.starts_with([' ', '\t']));
    let keys: Vec<&str> = keys.filter_map(|line| line.split_whitespace().next()).collect();
    if keys.is_empty() && !attestations.trim().is_empty() {
        return unread();
    }
    let by_agent = keys.into_iter().find(|key| !key.starts_with("h_"))?;
    let seen = format!("a note in refs/notes/ai with lines of {by_agent}");
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
    #[serde(default)]
    contributor: Option<Contributor>,
    #[serde(default)]
    ranges: Vec<Range>,
}

/// Lines, perhaps of somebody else than the conversation's.
#[derive(Deserialize)]
struct Range {
    #[serde(default)]
    contributor: Option<Contributor>,
}

#[derive(Deserialize)]
struct Contributor {
    #[serde(rename = "type")]
    kind: String,
}

impl Conversation {
    /// The types of all who contributed; of nobody in particular when none is named.
    fn kinds(&self) -> Vec<&str> {
        let ranges = self.ranges.iter().filter_map(|range| range.contributor.as_ref());
        let named: Vec<&str> = self.contributor.iter().chain(ranges).map(|who| who.kind.as_str()).collect();
        if named.is_empty() { vec!["not named"] } else { named }
    }
}

/// What an Agent Trace file says (version 0.1) of the commit that it is about: the riskiest of its lines.
pub fn of_trace(file: &Path, commits: &[Commit]) -> Result<Vec<Finding>, Failure> {
    let value = json(file)?;
    if !value.is_object() {
        return Err(bad(file, "is no Agent Trace record, which is one JSON object"));
    }
    let trace: Trace = serde_path_to_error::deserialize(value)
        .map_err(|error| bad(file, &format!("{}: {}", error.path(), error.inner())))?;
    let commit = about(file, "vcs.revision", trace.vcs.revision.as_deref(), commits)?;
    let kinds = trace.files.iter().flat_map(|TraceFile { path, conversations }| {
        conversations.iter().flat_map(Conversation::kinds).map(move |kind| (path, kind))
    });
    let level = |kind: &str| match kind {
        "human" => Provenance::Human,
        "ai" | "mixed" => Provenance::GenAIAssisted,
        _ => Provenance::Unknown,
    };
    let worst = kinds.map(|(path, kind)| (level(kind), path.as_str(), kind)).max_by_key(|(level, ..)| *level);
    let (level, path, kind) = worst.unwrap_or((Provenance::Unknown, "", "not named"));
    if level == Provenance::Human {
        return Ok(Vec::new());
    }
    let (rule, tool) = ("N-AGENT-TRACE".to_owned(), "Agent Trace".to_owned());
    let seen = format!("{path}: contributor {kind}");
    Ok(vec![Finding { rule, commit: Some(commit), level: Level::Is(level), tool, seen }])
}

/// Our own predicate: what an earlier scan, in the pipeline that built the image, found.
pub const PREDICATE: &str = "https://sluice.dev/change-provenance/v1";
const SLSA: &str = "https://slsa.dev/provenance/v1";

/// What an in-toto statement says, plain or in a DSSE envelope: of our own predicate its level; of SLSA provenance whether the
/// image was built from the last commit of this change, `head`.
pub fn of_statement(
    file: &Path,
    commits: &[Commit],
    head: &str,
    images: &[String],
) -> Result<Vec<Finding>, Failure> {
    let mut value = json(file)?;
    if let Some(payload) = value.get("payload").and_then(Value::as_str) {
        let bytes = base64::engine::general_purpose::STANDARD.decode(payload);
        let inner = bytes.ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        value = inner.ok_or_else(|| bad(file, "payload is no base64 of a JSON statement"))?;
    }
    is_about_an_image(file, &value, images)?;
    let predicate = &value["predicate"];
    match value["predicateType"].as_str() {
        Some(PREDICATE) => {
            let commit = about(file, "predicate.revision", predicate["revision"].as_str(), commits)?;
            let level: Provenance = serde_json::from_value(predicate["level"].clone()).map_err(|_| {
                bad(file, "predicate.level must be Human, GenAIAssisted, Unknown or GenAIAutonomous")
            })?;
            let seen = format!("a statement with level {}", level.as_str());
            let (rule, tool) = ("N-STATEMENT".to_owned(), "an earlier scan".to_owned());
            Ok(vec![Finding { rule, commit: Some(commit), level: Level::Is(level), tool, seen }])
        }
        Some(SLSA) => {
            let sources = predicate["buildDefinition"]["resolvedDependencies"].as_array();
            let mut built_from =
                sources.into_iter().flatten().filter_map(|source| source["digest"]["gitCommit"].as_str());
            let field = "predicate.buildDefinition.resolvedDependencies[].digest.gitCommit";
            match about(file, field, built_from.next(), commits)? {
                commit if commit == head => Ok(Vec::new()),
                _ => Err(bad(file, &format!("{field} is not {head}, the last commit of this change"))),
            }
        }
        other => {
            let other = other.unwrap_or("missing");
            Err(bad(file, &format!("predicateType is {other}; what is read here is {PREDICATE} and {SLSA}")))
        }
    }
}

/// If the statement names digests and an image is given by one, it must be about that image.
fn is_about_an_image(file: &Path, statement: &Value, images: &[String]) -> Result<(), Failure> {
    let subjects = statement["subject"].as_array().into_iter().flatten();
    let digests: Vec<&str> = subjects.filter_map(|subject| subject["digest"]["sha256"].as_str()).collect();
    let wanted: Vec<&str> =
        images.iter().filter_map(|image| image.split_once("@sha256:")).map(|(_, digest)| digest).collect();
    if digests.is_empty() || wanted.is_empty() || wanted.iter().any(|digest| digests.contains(digest)) {
        return Ok(());
    }
    Err(bad(file, &format!("subject[].digest.sha256 is {}, which is that of no --image", digests.join(", "))))
}

/// The commit that a file is about, which must be one of the change's.
fn about(file: &Path, field: &str, revision: Option<&str>, commits: &[Commit]) -> Result<String, Failure> {
    let Some(revision) = revision else {
        return Err(bad(file, &format!("{field} is missing: it says which commit this is about")));
    };
    let known = commits.iter().find(|commit| commit.id.eq_ignore_ascii_case(revision));
    known.map(|commit| commit.id.clone()).ok_or_else(|| {
        bad(file, &format!("{field} is {revision}, which is no commit of this change (with all its digits)"))
    })
}

fn json(file: &Path) -> Result<Value, Failure> {
    let text = std::fs::read_to_string(file).map_err(|error| bad(file, &cause(&error)))?;
    serde_json::from_str(text.trim_start_matches('\u{feff}'))
        .map_err(|error| bad(file, &format!("is not one JSON object: {error}")))
}

fn bad(file: &Path, problem: &str) -> Failure {
    Failure::new(format!("{}: {problem}", file.display()))
}
