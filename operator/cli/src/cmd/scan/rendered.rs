//! The code behind manifests that a program rendered: its commits say who wrote the change.

use std::collections::BTreeSet;

use sluice_core::api::Provenance;

use super::detect::{Commit, Finding, Level, keyed};
use super::git::Repository;
use crate::fail::Failure;

/// By this line a commit of rendered manifests names the commit that they were rendered from (Argo CD's source hydrator).
const RENDERED_FROM: &str = "Argocd-reference-commit-sha";

/// Most renderings of one change that are followed.
const MOST: usize = 100;

/// What manifests were rendered from.
pub struct Rendered {
    /// Of the code.
    pub base: String,
    /// The newest commit of the code; none if it is not here.
    pub head: Option<String>,
    /// The commits of the code.
    pub commits: Vec<Commit>,
    /// What could not be followed.
    pub findings: Vec<Finding>,
    /// The commits that name another one: a program's, it may be.
    pub by_programs: Vec<String>,
}

/// Follows the commits that say what they were rendered from, if there are any. What they say of themselves counts all the
/// same: anybody can write such a line. What can't be followed from one rendering to the next makes the change `Unknown`.
pub fn follow(
    repository: &Repository,
    source: &Repository,
    base: &str,
    commits: &[Commit],
) -> Result<Option<Rendered>, Failure> {
    let naming: Vec<(&Commit, Vec<String>)> = commits
        .iter()
        .map(|commit| (commit, rendered_from(commit)))
        .filter(|(_, named)| !named.is_empty())
        .collect();
    if naming.is_empty() {
        return Ok(None);
    }
    let by_programs = naming.iter().map(|(commit, _)| commit.id.clone()).collect();
    let mut known = BTreeSet::new();
    let named = naming.iter().flat_map(|(commit, named)| named.iter().map(move |name| (*commit, name)));
    let references: Vec<(&Commit, &String)> = named.filter(|(_, name)| known.insert(*name)).collect();
    let mut rendered = Rendered {
        base: base.to_owned(),
        head: None,
        commits: Vec::new(),
        findings: Vec::new(),
        by_programs,
    };
    let before = repository.with_key(base, RENDERED_FROM)?.iter().flat_map(rendered_from).next();
    let before = before.and_then(|before| here(source, &before));
    for (by, reference) in references.iter().take(MOST) {
        let Some(head) = here(source, reference) else {
            let seen = match is_hash(reference) {
                true => {
                    format!("it was rendered from {reference}, which is not here: name a clone with --source")
                }
                false => format!("{RENDERED_FROM} {reference:?} is no whole hash of a commit"),
            };
            rendered.tell("R-SOURCE", seen);
            continue;
        };
        // Manifests have a history of their own: a commit that names its own past leads to less than it is.
        if repository.has(&head) && (by.id == head || repository.is_before(&head, &by.id)?) {
            rendered.tell(
                "R-BASE",
                format!("{} says that it was rendered from {head}, from which it descends", by.id),
            );
            rendered.by_programs.retain(|id| *id != by.id);
            continue;
        }
        rendered.head.get_or_insert_with(|| head.clone());
        match &before {
            Some(before) if *before == head => {}
            Some(before) if source.is_before(before, &head)? => {
                rendered.commits.extend(source.commits(Some(before), &head)?);
            }
            Some(before) => {
                rendered.tell(
                    "R-BASE",
                    format!("the code commit {head} does not follow on {before}, which was rendered before"),
                );
                rendered.commits.extend(source.commits(None, &head)?);
            }
            None => {
                rendered.tell(
                    "R-BASE",
                    format!("nothing here says what was rendered before the code commit {head}: only this one was read"),
                );
                rendered.commits.extend(source.commits(None, &head)?);
            }
        }
    }
    if references.len() > MOST {
        rendered.tell("R-SOURCE", format!("{} code commits are named, more than {MOST}", references.len()));
    }
    let mut known = BTreeSet::new();
    rendered.commits.retain(|commit| known.insert(commit.id.clone()));
    if rendered.commits.is_empty() && rendered.findings.is_empty() {
        rendered.tell("R-BASE", "no code commit is new since what was rendered before".to_owned());
    }
    if let Some(head) = &rendered.head {
        rendered.base = before.unwrap_or_else(|| head.clone());
    }
    Ok(Some(rendered))
}

impl Rendered {
    fn tell(&mut self, rule: &str, seen: String) {
        let (rule, tool) = (rule.to_owned(), "rendered manifests".to_owned());
        let level = Level::Is(Provenance::Unknown);
        self.findings.push(Finding { rule, commit: None, level, tool, seen });
    }
}

/// The commits that a commit says it was rendered from.
fn rendered_from(commit: &Commit) -> Vec<String> {
    let named = keyed(&commit.message).into_iter().filter(|(key, _)| key.eq_ignore_ascii_case(RENDERED_FROM));
    named.map(|(_, value)| value).collect()
}

/// Whether it is the whole name of a commit: a branch or an expression could be another commit tomorrow.
fn is_hash(text: &str) -> bool {
    [40, 64].contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn here(source: &Repository, reference: &str) -> Option<String> {
    let found = is_hash(reference).then(|| source.commit(reference).ok()).flatten();
    found.filter(|id| id.eq_ignore_ascii_case(reference))
}
