//! `scan`: what git says about who wrote a change, as a `change` block for the rollout. Asks no cluster.
//!
//! `git` reads the repository, `rules` is the data file, `detect` judges commits by it, `evidence` reads what tools write down
//! in files of their own. What can't be read is never taken for a person's work.

mod detect;
mod document;
mod evidence;
mod git;
mod rules;
#[cfg(test)]
mod tests;

use sluice_core::api::Provenance;

use super::{Context, write};
use crate::args::{self, Output};
use crate::exit::Code;
use crate::fail::Failure;
use detect::{Commit, Finding, Level};
use git::{Repository, Size};
use rules::Rules;

/// By this trailer a commit of rendered manifests names the commit that they were rendered from (Argo CD's source hydrator).
const RENDERED_FROM: &str = "Argocd-reference-commit-sha";

/// What is said about a change.
#[derive(Clone, Debug, Default)]
struct Scanned {
    provenance: Provenance,
    declared: Option<Provenance>,
    /// Of the source.
    base: String,
    commit: String,
    commits: usize,
    size: Size,
    authors: Vec<String>,
    images: Vec<String>,
    rules_version: String,
    findings: Vec<Finding>,
}

impl Scanned {
    /// What was declared, if more was found.
    fn mismatch(&self) -> Option<Provenance> {
        self.declared.filter(|declared| *declared < self.provenance)
    }
}

/// Runs `scan`.
pub fn run(context: &Context, args: &args::Scan) -> Result<Code, Failure> {
    let scanned = scan(args)?;
    match context.machine().filter(|format| *format != Output::Name) {
        _ if args.patch => write(&document::patch(&scanned)?)?,
        Some(format) => context.document(format, "", &document::of(&scanned), false)?,
        None => write(&document::text(&scanned)?)?,
    }
    if let Some(declared) = scanned.mismatch() {
        eprintln!(
            "ProvenanceMismatch: declared as {}, found to be {}; the tighter one counts",
            declared.as_str(),
            scanned.provenance.as_str()
        );
        return Ok(Code::Gate);
    }
    let too_risky = args.fail_at.is_some_and(|level| scanned.provenance >= level.0);
    Ok(if too_risky { Code::Gate } else { Code::Fine })
}

fn scan(args: &args::Scan) -> Result<Scanned, Failure> {
    let rules = match &args.rules {
        None => Rules::built_in().map_err(|problem| format!("the built-in rules: {problem}")),
        Some(file) => std::fs::read_to_string(file)
            .map_err(|error| error.to_string())
            .and_then(|text| Rules::parse(&text))
            .map_err(|problem| format!("rules {}: {problem}", file.display())),
    };
    let rules = rules.map_err(Failure::new)?;
    let repository = Repository::open(&args.repository)?;
    let (base, head) = range(&repository, args.range.as_deref())?;
    let commits = repository.commits(Some(&base), &head)?;
    if commits.is_empty() {
        return Err(Failure::new(format!(
            "there is no commit in {}..{}: is it the other way round, or is the change not committed yet?",
            short(&base),
            short(&head)
        )));
    }
    let mut change = Change { base, head, commits, findings: Vec::new() };
    let source = match &args.source {
        Some(folder) => Repository::open(folder)?,
        None => Repository::open(&args.repository)?,
    };
    let rendered = change.follow(&repository, &source)?;
    let Change { base, head, commits, mut findings } = change;
    findings.extend(commits.iter().flat_map(|commit| detect::of_commit(&rules, commit)));
    for file in &args.agent_trace {
        findings.extend(evidence::of_trace(file, &commits)?);
    }
    for file in &args.attestation {
        findings.extend(evidence::of_statement(file, &commits)?);
    }
    findings.extend(args.branch.iter().filter_map(|branch| detect::of_branch(&rules, branch)));
    findings.extend(args.label.iter().filter_map(|label| detect::of_label(&rules, label)));
    let read = if rendered { &source } else { &repository };
    let (size, files) = match read.has(&head) {
        true => (read.size(&base, &head)?, read.files(&head, &rules.files)?),
        // It is elsewhere: a finding says so.
        false => (Size::default(), Vec::new()),
    };
    findings.extend(detect::of_files(&rules, &files));
    let mut authors: Vec<String> = commits.iter().flat_map(detect::authors).map(str::to_lowercase).collect();
    authors.sort_unstable();
    authors.dedup();
    let declared = args.declared.map(|level| level.0);
    Ok(Scanned {
        provenance: detect::provenance(declared, &findings),
        declared,
        base,
        commit: head,
        commits: commits.len(),
        size,
        authors,
        images: args.image.clone(),
        rules_version: rules.version.clone(),
        findings,
    })
}

/// Both ends of a range, as commits.
fn range(repository: &Repository, range: Option<&str>) -> Result<(String, String), Failure> {
    let default = || {
        repository.default_base().ok_or_else(|| {
            Failure::usage(
                "nothing says where the change begins: write BASE..HEAD, such as origin/main..HEAD",
            )
        })
    };
    let (base, head) = match range {
        None => (default()?, "HEAD".to_owned()),
        Some(range) if range.contains("...") => {
            return Err(Failure::usage(format!("write {:?} with two dots", range)));
        }
        Some(range) => match range.split_once("..") {
            Some((base, head)) if !base.is_empty() && !head.is_empty() => (base.to_owned(), head.to_owned()),
            Some((base, "")) if !base.is_empty() => (base.to_owned(), "HEAD".to_owned()),
            Some(_) => return Err(Failure::usage(format!("{range:?} has no base: write BASE..HEAD"))),
            None => (range.to_owned(), "HEAD".to_owned()),
        },
    };
    Ok((repository.commit(&base)?, repository.commit(&head)?))
}

/// The commits of a change.
struct Change {
    base: String,
    head: String,
    commits: Vec<Commit>,
    findings: Vec<Finding>,
}

impl Change {
    /// Puts the commits of the source in the place of those that only carry manifests that a program rendered from it.
    /// Whether there were any.
    fn follow(&mut self, repository: &Repository, source: &Repository) -> Result<bool, Failure> {
        let rendered_from = |commit: &Commit| {
            let trailer = commit.trailers.iter().find(|(key, _)| key.eq_ignore_ascii_case(RENDERED_FROM));
            trailer.map(|(_, value)| value.clone())
        };
        let mut references: Vec<String> = self.commits.iter().filter_map(rendered_from).collect();
        let Some(newest) = references.first().cloned() else {
            return Ok(false);
        };
        references.dedup();
        let before = repository.last_trailer(&self.base, RENDERED_FROM)?;
        let base = before.filter(|base| source.has(base));
        let unknown = |rule: &str, seen| Finding {
            rule: rule.to_owned(),
            commit: None,
            level: Level::Is(Provenance::Unknown),
            tool: "rendered manifests".to_owned(),
            seen,
        };
        self.commits.retain(|commit| rendered_from(commit).is_none());
        for reference in &references {
            if !source.has(reference) {
                self.findings.push(unknown(
                    "R-SOURCE",
                    format!(
                        "the code commit {reference} is not here: name a clone that has it with --source"
                    ),
                ));
                continue;
            }
            for commit in source.commits(base.as_deref(), reference)? {
                if !self.commits.iter().any(|known| known.id == commit.id) {
                    self.commits.push(commit);
                }
            }
        }
        if base.is_none() {
            self.findings.push(unknown(
                "R-BASE",
                "nothing here says which code commit was rendered before: only the newest ones were read"
                    .to_owned(),
            ));
        }
        self.base = base.unwrap_or_else(|| newest.clone());
        self.head = newest;
        Ok(true)
    }
}

/// A commit as people write it.
fn short(commit: &str) -> &str {
    commit.get(..12).unwrap_or(commit)
}
