//! `scan`: what git says about who wrote a change, as a `change` block for the rollout. Asks no cluster.
//!
//! `git` reads the repository, `rules` is the data file, `detect` judges commits by it, `evidence` reads what tools write down
//! in files of their own, `rendered` finds the code behind manifests. What can't be read is never taken for a person's work.

mod detect;
mod document;
mod evidence;
mod git;
mod rendered;
mod rules;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use sluice_core::api::Provenance;

use super::{Context, write};
use crate::args::{self, Output};
use crate::exit::Code;
use crate::fail::Failure;
use crate::input::cause;
use detect::Finding;
use git::{Repository, Size};
use rendered::Rendered;
use rules::Rules;

/// What is said about a change.
#[derive(Clone, Debug, Default)]
struct Scanned {
    provenance: Provenance,
    declared: Option<Provenance>,
    /// Of the source.
    base: String,
    /// None when it is not here.
    commit: Option<String>,
    commits: usize,
    size: Option<Size>,
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
    let format = context.machine();
    if format == Some(Output::Name) {
        return Err(Failure::usage("-o name: a scan has no name; use -o json, -o yaml or --patch"));
    }
    let scanned = scan(args)?;
    match format {
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
    let too_risky = args.fail_at.is_some_and(|level| scanned.provenance >= level);
    Ok(if too_risky { Code::Gate } else { Code::Fine })
}

fn scan(args: &args::Scan) -> Result<Scanned, Failure> {
    let rules = match &args.rules {
        None => Rules::built_in().map_err(|problem| format!("the built-in rules: {problem}")),
        Some(file) => std::fs::read_to_string(file)
            .map_err(|error| cause(&error))
            .and_then(|text| Rules::parse(&text))
            .map_err(|problem| format!("rules {}: {problem}", file.display())),
    };
    let rules = rules.map_err(Failure::new)?;
    let repository = Repository::open(&args.repository)?;
    let (base, head) = range(&repository, args.range.as_deref())?;
    let mut commits = repository.commits(Some(&base), &head)?;
    if commits.is_empty() {
        return Err(Failure::new(format!(
            "there is no commit in {}..{}: is it the other way round, or is the change not committed yet? After a merge, begin at the \
             commit that was rolled out last",
            short(&base),
            short(&head)
        )));
    }
    let mut findings: Vec<Finding> =
        commits.iter().flat_map(|commit| detect::of_commit(&rules, commit)).collect();
    let source = match &args.source {
        Some(folder) => &Repository::open(folder)?,
        None => &repository,
    };
    let mut size = repository.size(&base, &head)?;
    let mut followed = true;
    let mut scanned = Scanned {
        base: base.clone(),
        commit: Some(head.clone()),
        images: args.image.clone(),
        rules_version: rules.version.clone(),
        declared: args.declared,
        ..Scanned::default()
    };
    let mut files = repository.files(&head)?;
    if let Some(rendered) = rendered::follow(&repository, source, &base, &commits)? {
        let Rendered { base, head, commits: code, findings: found, by_programs } = rendered;
        // A program commits what it renders; the code says who wrote it.
        let by_program = |id: &Option<String>| id.as_ref().is_some_and(|id| by_programs.contains(id));
        findings.retain(|finding| finding.rule != detect::BOT || !by_program(&finding.commit));
        findings.extend(code.iter().flat_map(|commit| detect::of_commit(&rules, commit)));
        followed = found.is_empty();
        findings.extend(found);
        if let Some(head) = head {
            let of_code = source.size(&base, &head)?;
            // Manifests count as what they were rendered from, unless somebody else changed some.
            let all_rendered = commits.iter().all(|commit| by_programs.contains(&commit.id));
            size = if all_rendered { of_code } else { Size::sum(size, of_code) };
            files = source.files(&head)?;
            (scanned.base, scanned.commit) = (base, Some(head));
        } else if !by_programs.is_empty() {
            // `spec.change.commit` is one of the source.
            scanned.commit = None;
        }
        commits = code.into_iter().chain(commits).collect();
    }
    let mut known = BTreeSet::new();
    commits.retain(|commit| known.insert(commit.id.clone()));
    for file in &args.agent_trace {
        findings.extend(evidence::of_trace(file, &commits)?);
    }
    for file in &args.attestation {
        let head = scanned.commit.as_deref().unwrap_or_default();
        findings.extend(evidence::of_statement(file, &commits, head, &args.image)?);
    }
    findings.extend(args.opened_by.iter().filter_map(|account| detect::of_opener(&rules, account)));
    findings.extend(args.branch.iter().filter_map(|branch| detect::of_branch(&rules, branch)));
    findings.extend(args.label.iter().filter_map(|labels| detect::of_labels(&rules, labels)));
    findings.extend(detect::of_files(&rules, &files));
    let submodules = size.iter().flat_map(|size| &size.submodules);
    findings.extend(submodules.map(|path| {
        Finding::hint("H-SUBMODULE", format!("submodule {path} changed: scan its commits where they are"))
    }));
    // Of code that could not be followed nobody knows the size.
    scanned.size = size.filter(|_| followed);
    let authors: BTreeSet<String> = commits.iter().flat_map(detect::authors).collect();
    scanned.authors = authors.into_iter().collect();
    scanned.commits = commits.len();
    scanned.provenance = detect::provenance(scanned.declared, &findings);
    scanned.findings = findings;
    Ok(scanned)
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
            return Err(Failure::usage(format!("write {range:?} with two dots")));
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

/// A commit as people write it.
fn short(commit: &str) -> &str {
    commit.get(..12).unwrap_or(commit)
}
