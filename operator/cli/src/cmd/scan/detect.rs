//! What commits say about who wrote them. Pure: commits in, findings out.
//!
//! Every commit of a change counts, and the highest level decides. The absence of a marker is no proof of a person, so hints
//! make `Human` to `Unknown`.

use serde::{Serialize, Serializer};
use sluice_core::api::Provenance;

use super::rules::{LineRule, Rules, TrailerRule, person};

/// Name and address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Person {
    /// The name.
    pub name: String,
    /// The address.
    pub email: String,
}

/// A commit, as far as it matters here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Commit {
    /// Its hash.
    pub id: String,
    /// Who wrote it.
    pub author: Person,
    /// Who committed it.
    pub committer: Person,
    /// The trailers of the last block.
    pub trailers: Vec<(String, String)>,
    /// The whole message.
    pub message: String,
    /// The note of git-ai, if it has one.
    pub note: String,
}

/// How much a finding says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Little by itself: there may be a marker that is not there.
    Hint,
    /// The change is at least this.
    Is(Provenance),
}

impl Level {
    /// As in the output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hint => "Hint",
            Self::Is(provenance) => provenance.as_str(),
        }
    }
}

impl Serialize for Level {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// Something that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// The rule.
    pub rule: String,
    /// The commit, if it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// What it says.
    pub level: Level,
    /// The tool that it stands for.
    pub tool: String,
    /// What was seen.
    pub seen: String,
}

impl Finding {
    /// Of a commit.
    pub fn of(commit: &Commit, rule: &str, provenance: Provenance, tool: &str, seen: String) -> Self {
        let commit = Some(commit.id.clone());
        Self { rule: rule.to_owned(), commit, level: Level::Is(provenance), tool: tool.to_owned(), seen }
    }

    /// Of no commit in particular.
    pub fn hint(rule: &str, seen: String) -> Self {
        let tool = "an agent".to_owned();
        Self { rule: rule.to_owned(), commit: None, level: Level::Hint, tool, seen }
    }
}

/// What a commit says.
pub fn of_commit(rules: &Rules, commit: &Commit) -> Vec<Finding> {
    let mut found = Vec::new();
    let committer = Some(&commit.committer).filter(|committer| **committer != commit.author);
    let who = [("author", Some(&commit.author), true), ("committer", committer, false)];
    for (role, Person { name, email }, is_author) in
        who.into_iter().filter_map(|(role, who, is_author)| Some((role, who?, is_author)))
    {
        let seen = || format!("{role} {name} <{email}>");
        for rule in rules.people.iter().filter(|rule| is_author || !rule.authors_only) {
            if rule.who.is(name, email) {
                found.push(Finding::of(commit, &rule.id, rule.level, &rule.tool, seen()));
            }
        }
        if is_author && rules.bots.is(name, email) {
            found.push(Finding::of(commit, "BOT", Provenance::Unknown, "a program", seen()));
        }
    }
    for (key, value) in &commit.trailers {
        found.extend(of_trailer(rules, commit, key, value, |_| true));
    }
    let body: Vec<&str> = commit.message.lines().skip(1).map(str::trim_end).collect();
    for line in &body {
        for LineRule { id, tool, .. } in rules.lines.iter().filter(|rule| rule.is(line.trim_start())) {
            found.push(Finding::of(commit, id, Provenance::GenAIAssisted, tool, (*line).to_owned()));
        }
        if let Some((key, value)) = line.split_once(": ").filter(|(key, _)| is_key(key)) {
            let is_squashed = !commit.trailers.iter().any(|(k, v)| k == key && v == value.trim());
            if is_squashed {
                found.extend(of_trailer(rules, commit, key, value.trim(), TrailerRule::is_about_somebody));
            }
        }
    }
    if let Some(branch) = merged_branch(&commit.message) {
        found.extend(of_branch(rules, branch));
    }
    found.extend(super::evidence::of_note(commit));
    found
}

fn is_key(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
}

/// The first rule that fits a trailer: those on the same key say the same in other words.
fn of_trailer(
    rules: &Rules,
    commit: &Commit,
    key: &str,
    value: &str,
    counts: impl Fn(&TrailerRule) -> bool,
) -> Option<Finding> {
    let rule = rules.trailers.iter().find(|rule| counts(rule) && rule.is(key, value, &rules.tools))?;
    let seen = format!("{key}: {value}");
    Some(Finding::of(commit, &rule.id, rule.level, &rule.tool, seen))
}

/// The branch that a merge commit names.
fn merged_branch(message: &str) -> Option<&str> {
    let subject = message.lines().next()?;
    if let Some(rest) = subject.strip_prefix("Merge pull request #") {
        let branch = rest.split_once(" from ")?.1;
        return Some(branch.split_once('/').map_or(branch, |(_, branch)| branch));
    }
    let rest = subject.strip_prefix("Merge branch '")?;
    rest.split_once('\'').map(|(branch, _)| branch)
}

/// What the name of a branch says.
pub fn of_branch(rules: &Rules, branch: &str) -> Option<Finding> {
    let name = branch.to_lowercase();
    let begins = rules.branches.iter().any(|start| name.starts_with(start));
    begins.then(|| Finding::hint("H-BRANCH", format!("branch {branch}")))
}

/// What a label says.
pub fn of_label(rules: &Rules, label: &str) -> Option<Finding> {
    let known = rules.labels.iter().any(|known| known.eq_ignore_ascii_case(label));
    known.then(|| Finding::hint("H-LABEL", format!("label {label}")))
}

/// What the files of the repository say.
pub fn of_files(rules: &Rules, files: &[String]) -> Option<Finding> {
    let seen: Vec<&str> =
        rules.files.iter().filter(|file| files.contains(file)).map(String::as_str).collect();
    (!seen.is_empty()).then(|| Finding::hint("H-FILES", seen.join(", ")))
}

/// The provenance that follows from what is declared and what was found. A hint is answered by whoever says that AI had a part.
pub fn provenance(declared: Option<Provenance>, findings: &[Finding]) -> Provenance {
    let found = findings.iter().filter_map(|finding| match finding.level {
        Level::Is(provenance) => Some(provenance),
        Level::Hint => None,
    });
    let known = found.chain(declared).max().unwrap_or(Provenance::Human);
    let hinted = findings.iter().any(|finding| finding.level == Level::Hint);
    if known == Provenance::Human && hinted { Provenance::Unknown } else { known }
}

/// Addresses of those who had a part in a commit.
pub fn authors(commit: &Commit) -> impl Iterator<Item = &str> {
    let co_authors = commit.trailers.iter().filter(|(key, _)| key.eq_ignore_ascii_case("co-authored-by"));
    let co_authors = co_authors.map(|(_, value)| person(value).1);
    [commit.author.email.as_str()].into_iter().chain(co_authors).filter(|email| !email.is_empty())
}
