//! How the answer is written: YAML to paste, with what was found as comments; a document for programs; a patch.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sluice_core::api::{Change, ChangeEvidence, ChangeFinding, ChangeSize, Provenance};

use super::detect::{Finding, Level};
use super::git::Size;
use super::{Scanned, short};
use crate::cmd::API_VERSION;
use crate::fail::Failure;
use crate::out::clean;

/// Most findings of one rule that the text names one by one.
const MOST_OF_ONE_RULE: usize = 5;

/// Most authors that the text names.
const MOST_AUTHORS: usize = 10;

/// Most findings that `spec.change.evidence` takes.
const MOST_FINDINGS: usize = 64;
/// Most lines or files that `spec.change.size` takes.
const MOST_COUNTED: i32 = 1_000_000_000;

/// `spec.change`.
fn change(scanned: &Scanned) -> Change {
    let evidence = ChangeEvidence {
        rules_version: scanned.rules_version.clone(),
        base_commit: scanned.base.clone(),
        head_commit: scanned.commit.clone(),
        commits_scanned: i32::try_from(scanned.commits).unwrap_or(i32::MAX),
        declared: scanned.declared,
        findings: findings(scanned),
    };
    Change {
        provenance: scanned.provenance,
        // A scan does not know: what the rollout says stays.
        kind: None,
        commit: scanned.commit.clone(),
        images: scanned.images.clone(),
        size: scanned.size.as_ref().map(|size| ChangeSize {
            changed_lines: whole(size.lines),
            changed_files: Some(whole(size.files)),
        }),
        evidence: Some(evidence),
    }
}

fn whole(number: u64) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX).min(MOST_COUNTED)
}

/// One finding of each rule, riskiest first. A hint counts where it decides.
fn findings(scanned: &Scanned) -> Vec<ChangeFinding> {
    let level = |finding: &Finding| match finding.level {
        Level::Is(provenance) => Some(provenance),
        Level::Hint => (scanned.provenance == Provenance::Unknown).then_some(Provenance::Unknown),
    };
    let mut by_rule: BTreeMap<&str, ChangeFinding> = BTreeMap::new();
    for (finding, level) in scanned.findings.iter().filter_map(|found| Some((found, level(found)?))) {
        let (rule, commit) = (finding.rule.clone(), finding.commit.clone());
        let known = by_rule.get(finding.rule.as_str()).map(|known| known.level);
        if known.is_none_or(|known| known < level) {
            by_rule.insert(&finding.rule, ChangeFinding { rule, level, commit });
        }
    }
    let mut findings: Vec<ChangeFinding> = by_rule.into_values().collect();
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.level));
    findings.truncate(MOST_FINDINGS);
    findings
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

/// A merge patch of the ProgressiveRollout. It takes away what the change before had and this one has not.
pub fn patch(scanned: &Scanned) -> Result<String, Failure> {
    let mut patch = json!({ "spec": { "change": change(scanned) } });
    for path in [
        "/spec/change/commit",
        "/spec/change/images",
        "/spec/change/kind",
        "/spec/change/size",
        "/spec/change/evidence/declared",
        "/spec/change/evidence/headCommit",
        "/spec/change/evidence/findings",
    ] {
        if patch.pointer(path).is_none()
            && let Some((object, field)) = path.rsplit_once('/')
            && let Some(object) = patch.pointer_mut(object)
        {
            object[field] = Value::Null;
        }
    }
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
    if !scanned.authors.is_empty() {
        let named =
            scanned.authors.iter().take(MOST_AUTHORS).map(String::as_str).collect::<Vec<_>>().join(", ");
        let more = scanned.authors.len().saturating_sub(MOST_AUTHORS);
        let more = if more == 0 { String::new() } else { format!(" and {more} more") };
        lines.push(format!("by {named}{more}"));
    }
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
        lines.push(match scanned.declared {
            Some(_) => "nothing that generative AI leaves behind was found; that is no proof".to_owned(),
            None => "nothing that generative AI leaves behind was found, which is no proof; --declared says who wrote it"
                .to_owned(),
        });
    }
    let comments: String = lines.iter().map(|line| format!("# {}\n", clean(line))).collect();
    let block = serde_saphyr::to_string(&json!({ "change": change(scanned) }));
    let block = block.map_err(|error| Failure::new(format!("the block can't be written: {error}")))?;
    Ok(comments + &block)
}
