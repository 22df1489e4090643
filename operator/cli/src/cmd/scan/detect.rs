//! What commits say about who wrote them. Pure: commits in, findings out.
//!
//! Every commit of a change counts, and the highest level decides. The absence of a marker is no proof of a person, so hints
//! make `Human` to `Unknown`.

use serde::{Serialize, Serializer};
use sluice_core::api::Provenance;

use super::rules::{LineRule, Rules, people};

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
    /// The encoding that its header names.
    pub encoding: Option<String>,
    /// The whole message.
    pub message: String,
    /// The note of git-ai, if it has one.
    pub note: Option<String>,
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
    for (role, person, is_author) in who {
        let Some(Person { name, email }) = person else { continue };
        let seen = || format!("{role} {name} <{email}>");
        let mut agents = rules.people.iter().filter(|rule| is_author || !rule.authors_only);
        let agent = agents.find(|rule| rule.who.is(name, email));
        if let Some(rule) = agent {
            found.push(Finding::of(commit, &rule.id, Provenance::GenAIAutonomous, &rule.tool, seen()));
        } else if is_author && rules.bots.is(name, email) {
            found.push(Finding::of(commit, BOT, Provenance::Unknown, "a program", seen()));
        } else if !email.contains('@') {
            found.push(Finding::of(commit, "NOBODY", Provenance::Unknown, "nobody", seen()));
        }
    }
    if let Some(encoding) = commit.encoding.as_deref().filter(|encoding| !is_read_as_ascii(encoding)) {
        let seen = format!("the message is in {encoding}, which is not read here");
        found.push(Finding::of(commit, "ENCODING", Provenance::Unknown, "git", seen));
    }
    for (key, value) in keyed(&commit.message) {
        let seen = || format!("{key}: {value}");
        if let Some(rule) = rules.partner(&key, &value) {
            found.push(Finding::of(
                commit,
                &rule.as_partner(),
                Provenance::GenAIAssisted,
                &rule.tool,
                seen(),
            ));
        } else if let Some(rule) = rules.trailers.iter().find(|rule| rule.is(&key, &value, &rules.tools)) {
            found.push(Finding::of(commit, &rule.id, rule.level, &rule.tool, seen()));
        }
    }
    for line in commit.message.lines().skip(1).map(str::trim) {
        for LineRule { id, tool, .. } in rules.lines.iter().filter(|rule| rule.is(line)) {
            found.push(Finding::of(commit, id, Provenance::GenAIAssisted, tool, line.to_owned()));
        }
    }
    found.extend(merged_branches(&commit.message).into_iter().filter_map(|branch| of_branch(rules, branch)));
    found.extend(super::evidence::of_note(commit));
    found
}

/// What the author is when it is a program.
pub const BOT: &str = "BOT";

/// Whether ASCII means itself in an encoding.
fn is_read_as_ascii(encoding: &str) -> bool {
    let name: String =
        encoding.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase();
    let begins = ["iso8859", "latin", "windows125", "cp125", "koi8", "euc", "gb"];
    ["utf8", "ascii", "usascii", "big5", "shiftjis", "sjis"].contains(&name.as_str())
        || begins.iter().any(|start| name.starts_with(start))
}

/// How `git merge --squash` begins the log of what it squashes, in which each message is indented.
const SQUASHED: &str = "Squashed commit of the following:";
const INDENT: &str = "    ";

/// A message with what a squash indented from the first column on, as its authors wrote it; a squash of a squash too.
fn opened(message: &str) -> String {
    let (mut depth, mut text) = (0, String::with_capacity(message.len()));
    for line in message.lines() {
        let level = (line.len() - line.trim_start_matches(' ').len()) / INDENT.len();
        if !line.trim().is_empty() {
            // The log around a squash goes on.
            depth = depth.min(level + 1);
        }
        let line = (0..depth).fold(line, |line, _| line.strip_prefix(INDENT).unwrap_or(line));
        depth += usize::from(line.trim_end() == SQUASHED);
        text.push_str(line);
        text.push('\n');
    }
    text
}

/// Lines of the form `Key: value` below the subject, as the message is and as it is when squashes are opened.
pub fn keyed(message: &str) -> Vec<(String, String)> {
    let mut found = keyed_as_it_is(message);
    // Hardly a message has one.
    if !message.contains(SQUASHED) {
        return found;
    }
    let opened = keyed_as_it_is(&opened(message));
    let more: Vec<_> = opened.into_iter().filter(|line| !found.contains(line)).collect();
    found.extend(more);
    found
}

/// Lines from the first column on, wherever they stand: a squash leaves them in the middle. A line that begins with a blank
/// goes on with the one above.
fn keyed_as_it_is(message: &str) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    let mut goes_on = false;
    for line in message.lines().skip(1).map(str::trim_end) {
        if goes_on && line.starts_with([' ', '\t']) {
            if let Some((_, value)) = found.last_mut() {
                value.push(' ');
                value.push_str(line.trim());
            }
            continue;
        }
        let keyed = line.split_once(':').filter(|(key, _)| is_key(key.trim_end()));
        goes_on = keyed.is_some();
        found.extend(keyed.map(|(key, value)| (key.trim_end().to_owned(), value.trim().to_owned())));
    }
    found
}

fn is_key(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
}

/// The branches that a merge commit names.
fn merged_branches(message: &str) -> Vec<&str> {
    let subject = message.lines().next().unwrap_or_default();
    if let Some(rest) = subject.strip_prefix("Merge pull request #") {
        // `OWNER/BRANCH`
        let branch = rest.split_once(" from ").map(|(_, branch)| branch);
        return branch
            .map(|branch| branch.split_once('/').map_or(branch, |(_, branch)| branch))
            .into_iter()
            .collect();
    }
    if let Some(rest) = subject.strip_prefix("Merged in ") {
        return rest.split(' ').take(1).collect();
    }
    match subject.starts_with("Merge ") {
        // Between quotes.
        true => subject.split('\'').skip(1).step_by(2).collect(),
        false => Vec::new(),
    }
}

/// What the account says that opened the pull request: that of an agent counts as its author.
pub fn of_opener(rules: &Rules, account: &str) -> Option<Finding> {
    // As some tools write the account of an app.
    let name = account.strip_prefix("app/").map_or_else(|| account.to_owned(), |app| format!("{app}[bot]"));
    let named = rules.people.iter().find(|rule| rule.who.is(&name, "")).map(|rule| rule.tool.as_str());
    let listed = rules.openers.iter().any(|known| known.eq_ignore_ascii_case(&name)).then_some("an agent");
    let (rule, provenance, tool) = match named.or(listed) {
        Some(tool) => ("P-BOT", Provenance::GenAIAutonomous, tool),
        None if rules.bots.is(&name, "") => (BOT, Provenance::Unknown, "a program"),
        None => return None,
    };
    let (rule, tool, seen) =
        (rule.to_owned(), tool.to_owned(), format!("the pull request was opened by {account}"));
    Some(Finding { rule, commit: None, level: Level::Is(provenance), tool, seen })
}

/// What the name of a branch says, as git, or as a forge writes it.
pub fn of_branch(rules: &Rules, branch: &str) -> Option<Finding> {
    let mut name = branch.to_lowercase();
    for start in ["refs/heads/", "refs/remotes/", "origin/"] {
        name = name.strip_prefix(start).unwrap_or(&name).to_owned();
    }
    let name = name.split_once(':').map_or(name.as_str(), |(_, name)| name);
    let begins = rules.branches.iter().any(|start| name.starts_with(start));
    begins.then(|| Finding::hint("H-BRANCH", format!("branch {branch}")))
}

/// What labels say, several of them with commas between.
pub fn of_labels(rules: &Rules, labels: &str) -> Option<Finding> {
    let plain = |label: &str| label.trim().to_lowercase().replace([' ', '_'], "-");
    let known = |label: &&str| rules.labels.contains(&plain(label));
    labels.split(',').find(known).map(|label| Finding::hint("H-LABEL", format!("label {}", label.trim())))
}

/// What the files of the repository say, in whatever folder.
pub fn of_files(rules: &Rules, files: &[String]) -> Option<Finding> {
    let is = |rule: &str, file: &str| {
        let (rule, file) = (format!("/{}", rule.to_lowercase()), format!("/{}/", file.to_lowercase()));
        file.contains(&format!("{rule}/"))
    };
    let there = |rule: &&String| files.iter().any(|file| is(rule, file));
    let seen: Vec<&str> = rules.files.iter().filter(there).map(String::as_str).collect();
    (!seen.is_empty()).then(|| Finding::hint("H-FILES", seen.join(", ")))
}

/// The provenance that follows from what is declared and what was found. A hint is answered by whoever says that AI had a part.
pub fn provenance(declared: Option<Provenance>, findings: &[Finding]) -> Provenance {
    let found = findings.iter().filter_map(|finding| match finding.level {
        Level::Is(provenance) => Some(provenance),
        Level::Hint => None,
    });
    // Nobody says that a person wrote it, and nothing that is missing does.
    let known = found.chain(declared).max().unwrap_or(Provenance::Unknown);
    let hinted = findings.iter().any(|finding| finding.level == Level::Hint);
    if known == Provenance::Human && hinted { Provenance::Unknown } else { known }
}

/// Addresses of those who had a part in a commit.
pub fn authors(commit: &Commit) -> Vec<String> {
    let co_authors =
        keyed(&commit.message).into_iter().filter(|(key, _)| key.eq_ignore_ascii_case("co-authored-by"));
    let co_authors = co_authors
        .flat_map(|(_, value)| people(&value).map(|(_, email)| email.to_owned()).collect::<Vec<_>>());
    let all = [commit.author.email.clone()].into_iter().chain(co_authors);
    all.map(|email| email.to_lowercase()).filter(|email| !email.is_empty()).collect()
}
