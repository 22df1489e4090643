//! How the answer is written: YAML to paste, with what was found as comments; a document for programs; a patch.

use serde_json::{Value, json};

use super::git::Size;
use super::{Scanned, short};
use crate::cmd::API_VERSION;
use crate::fail::Failure;
use crate::out::clean;

/// Most findings of one rule that the text names one by one.
const MOST_OF_ONE_RULE: usize = 5;

/// `spec.change`.
fn change(scanned: &Scanned) -> Value {
    let mut change = json!({ "provenance": scanned.provenance });
    if let Some(commit) = &scanned.commit {
        change["commit"] = json!(commit);
    }
    if !scanned.images.is_empty() {
        change["images"] = json!(scanned.images);
    }
    change
}

/// For programs.
pub fn of(scanned: &Scanned) -> Value {
    json!({
        "apiVersion": API_VERSION,
        "kind": "Scan",
        "change": change(scanned),
        "declared": scanned.declared,
        "mismatch": scanned.mismatch().is_some(),
        "base": scanned.base,
        "commits": scanned.commits,
        "changedLines": scanned.size.as_ref().map(|size| size.lines),
        "changedFiles": scanned.size.as_ref().map(|size| size.files),
        "authors": scanned.authors,
        "rulesVersion": scanned.rules_version,
        "findings": scanned.findings,
    })
}

/// A merge patch of the ProgressiveRollout.
pub fn patch(scanned: &Scanned) -> Result<String, Failure> {
    let patch = json!({ "spec": { "change": change(scanned) } });
    let text = serde_json::to_string(&patch);
    Ok(text.map_err(|error| Failure::new(format!("the patch can't be written: {error}")))? + "\n")
}

/// The block, below comments.
pub fn text(scanned: &Scanned) -> Result<String, Failure> {
    let plural = |count: u64, one: &str| format!("{count} {one}{}", if count == 1 { "" } else { "s" });
    let size = match &scanned.size {
        None => "size not known".to_owned(),
        Some(Size { lines, files, .. }) => {
            format!("{} in {}", plural(*lines, "changed line"), plural(*files, "file"))
        }
    };
    let mut lines = vec![format!(
        "{} after {}, {size}; rules {}",
        plural(scanned.commits as u64, "commit"),
        short(&scanned.base),
        scanned.rules_version
    )];
    let mut rules: Vec<&str> = Vec::new();
    for finding in &scanned.findings {
        let known = rules.iter().filter(|rule| **rule == finding.rule).count();
        rules.push(&finding.rule);
        if known >= MOST_OF_ONE_RULE {
            continue;
        }
        let commit = finding.commit.as_deref().map_or(String::new(), |commit| format!(" {}", short(commit)));
        let (level, rule) = (finding.level.as_str(), &finding.rule);
        lines.push(format!("{level} by {rule} ({}){commit}: {}", finding.tool, finding.seen));
    }
    rules.sort_unstable();
    for same in rules.chunk_by(|a, b| a == b).filter(|same| same.len() > MOST_OF_ONE_RULE) {
        lines.push(format!("... and {} more by {}", same.len() - MOST_OF_ONE_RULE, same[0]));
    }
    if scanned.findings.is_empty() {
        lines.push("nothing that generative AI leaves behind was found; that is no proof".to_owned());
    }
    let comments: String = lines.iter().map(|line| format!("# {}\n", clean(line))).collect();
    let block = serde_saphyr::to_string(&json!({ "change": change(scanned) }));
    let block = block.map_err(|error| Failure::new(format!("the block can't be written: {error}")))?;
    Ok(comments + &block)
}
