//! Reads a repository by the plumbing of the program `git`: commits as the bytes that were hashed, so that neither a
//! configuration, nor the environment, nor a header of the commit itself changes what is read.

use std::collections::HashMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::detect::{Commit, Person};
use crate::fail::Failure;
use crate::out::hides;

/// Where git-ai keeps its notes.
const NOTES: &str = "refs/notes/ai";
/// What would lead git to another repository than the one that was named, or to other objects in it.
const ELSEWHERE: [&str; 12] = [
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_COMMON_DIR",
    "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_INDEX_FILE",
    "GIT_NAMESPACE",
    "GIT_SHALLOW_FILE",
    "GIT_LITERAL_PATHSPECS",
    "GIT_GLOB_PATHSPECS",
    "GIT_NOGLOB_PATHSPECS",
    "GIT_ICASE_PATHSPECS",
];

/// A repository.
pub struct Repository {
    folder: PathBuf,
}

/// How much a change changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Lines that were added or removed.
    pub lines: u64,
    /// Files.
    pub files: u64,
    /// Submodules that changed: their commits are not here.
    pub submodules: Vec<String>,
}

impl Size {
    /// Both together; not known if one is not.
    pub fn sum(one: Option<Self>, other: Option<Self>) -> Option<Self> {
        let (one, other) = (one?, other?);
        let submodules = [one.submodules, other.submodules].concat();
        Some(Self { lines: one.lines + other.lines, files: one.files + other.files, submodules })
    }
}

impl Repository {
    /// The one that a folder is in. One without its whole history is refused: what is not there can't be scanned.
    pub fn open(folder: &Path) -> Result<Self, Failure> {
        let repository = Self { folder: folder.to_owned() };
        let shallow = repository.ask(&["rev-parse", "--is-shallow-repository"]).map_err(|failure| {
            Failure::new(format!("{}. Name a repository with -C (or --source)", failure.text))
        })?;
        if shallow.trim() == "true" {
            return Err(Failure::new(format!(
                "{} is a shallow clone: commits of the change may be missing, so nothing is said about it. Fetch all of it: git fetch \
                 --unshallow, or fetch-depth: 0 in the pipeline",
                folder.display()
            )));
        }
        Ok(repository)
    }

    /// The commit that a name stands for. One that stands for several is refused: a tag would win over the branch.
    pub fn commit(&self, name: &str) -> Result<String, Failure> {
        let (found, said) =
            self.try_ask(&["rev-parse", "--verify", "--end-of-options", &format!("{name}^{{commit}}")], b"")?;
        let folder = self.folder.display();
        if said.contains("is ambiguous") {
            return Err(Failure::new(format!(
                "{name:?} is the name of several things in {folder}: write refs/heads/..., refs/remotes/..., refs/tags/... or a \
                 commit"
            )));
        }
        let id = found.map(|id| String::from_utf8_lossy(&id).trim().to_owned());
        // `^x` is another way to write a range.
        match id.filter(|id| id.bytes().all(|byte| byte.is_ascii_hexdigit())) {
            Some(id) => Ok(id),
            None => Err(Failure::new(format!(
                "{name:?} is no commit of {folder}: write BASE..HEAD with branches, tags or commits that are here (git fetch)"
            ))),
        }
    }

    /// Whether a commit is here.
    pub fn has(&self, commit: &str) -> bool {
        self.commit(commit).is_ok()
    }

    /// Whether a commit comes before another one.
    pub fn is_before(&self, commit: &str, later: &str) -> Result<bool, Failure> {
        let asked = ["merge-base", "--is-ancestor", commit, later];
        Ok(commit != later && self.try_ask(&asked, b"")?.0.is_some())
    }

    /// The commits of `head` that `base` lacks, newest first. Without a base: `head` alone.
    pub fn commits(&self, base: Option<&str>, head: &str) -> Result<Vec<Commit>, Failure> {
        let ids = match base {
            Some(base) => self.ask(&["rev-list", head, &format!("^{base}")])?,
            None => format!("{head}\n"),
        };
        let notes = self.notes()?;
        let mut commits: Vec<Commit> =
            self.objects(&ids)?.iter().map(|(id, object)| commit(id, object)).collect();
        let wanted: Vec<(usize, &String)> = commits
            .iter()
            .enumerate()
            .filter_map(|(at, commit)| Some((at, notes.get(&commit.id)?)))
            .collect();
        let names: String = wanted.iter().map(|(_, note)| format!("{note}\n")).collect();
        for ((at, _), (_, note)) in wanted.iter().zip(self.objects(&names)?) {
            commits[*at].note = Some(String::from_utf8_lossy(&note).into_owned());
        }
        Ok(commits)
    }

    /// The note of each commit that has one.
    fn notes(&self) -> Result<HashMap<String, String>, Failure> {
        // A reference that is there and broken is no lack of notes.
        let file = self.folder.join(self.ask(&["rev-parse", "--git-path", NOTES])?.trim());
        let packed = self.try_ask(&["show-ref", "--verify", "--quiet", NOTES], b"")?.0.is_some();
        if !packed && file.symlink_metadata().is_err() {
            return Ok(HashMap::new());
        }
        let listed = self.ask(&["ls-tree", "-r", NOTES]).map_err(|failure| {
            Failure::new(format!("{}: {NOTES} holds no notes. Fetch it anew, or delete it", failure.text))
        })?;
        // `mode type hash<TAB>path`; the path is the commit, in parts.
        let note = |line: &str| {
            let (head, path) = line.split_once('\t')?;
            let id = path.replace('/', "").to_ascii_lowercase();
            Some((id, head.split_whitespace().nth(2)?.to_owned()))
        };
        Ok(listed.lines().filter_map(note).collect())
    }

    /// The bytes of objects, one name on each line.
    fn objects(&self, names: &str) -> Result<Vec<(String, Vec<u8>)>, Failure> {
        let broken = || {
            Failure::new(format!(
                "git cat-file in {} broke off: is it complete? git fsck says",
                self.folder.display()
            ))
        };
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let (answer, _) = self.try_ask(&["cat-file", "--batch"], names.as_bytes())?;
        let answer = answer.ok_or_else(broken)?;
        let mut rest = answer.as_slice();
        let mut found = Vec::new();
        while !rest.is_empty() {
            let end = rest.iter().position(|byte| *byte == b'\n').ok_or_else(broken)?;
            let head = String::from_utf8_lossy(&rest[..end]).into_owned();
            let words: Vec<&str> = head.split(' ').collect();
            let size = words.get(2).and_then(|size| size.parse::<usize>().ok()).ok_or_else(broken)?;
            let object = rest.get(end + 1..end + 1 + size).ok_or_else(broken)?;
            found.push((words[0].to_owned(), object.to_vec()));
            rest = rest.get(end + 2 + size..).unwrap_or_default();
        }
        Ok(found)
    }

    /// How much `head` changes since it left `base`; none if they have nothing in common.
    pub fn size(&self, base: &str, head: &str) -> Result<Option<Size>, Failure> {
        let (Some(common), _) = self.try_ask(&["merge-base", base, head], b"")? else {
            return Ok(None);
        };
        let common = String::from_utf8_lossy(&common).trim().to_owned();
        let text = self.ask(&[
            "diff-tree",
            "-r",
            "-z",
            "--raw",
            "--numstat",
            "--text",
            "--no-renames",
            &common,
            head,
        ])?;
        let mut size = Size::default();
        let mut parts = text.split('\0');
        while let Some(part) = parts.next().filter(|part| !part.is_empty()) {
            if let Some(raw) = part.strip_prefix(':') {
                // `:mode mode hash hash status`, then the path.
                let path = parts.next().unwrap_or_default();
                if raw.split(' ').take(2).any(|mode| mode == "160000") {
                    size.submodules.push(path.to_owned());
                }
            } else {
                let mut fields = part.splitn(3, '\t');
                let mut lines = || fields.next().and_then(|number| number.parse::<u64>().ok()).unwrap_or(0);
                size.lines += lines() + lines();
                size.files += 1;
            }
        }
        Ok(Some(size))
    }

    /// The files at a commit.
    pub fn files(&self, commit: &str) -> Result<Vec<String>, Failure> {
        let text = self.ask(&["ls-tree", "-r", "-z", "--name-only", "--full-tree", commit])?;
        Ok(text.split('\0').filter(|name| !name.is_empty()).map(ToOwned::to_owned).collect())
    }

    /// Commits up to this one whose message may have a line with this key, newest first.
    pub fn with_key(&self, newest: &str, key: &str) -> Result<Vec<Commit>, Failure> {
        let grep = format!("--grep=^{key}: ");
        let ids = self.ask(&["rev-list", "--max-count=1", "--regexp-ignore-case", &grep, newest])?;
        Ok(self.objects(&ids)?.iter().map(|(id, object)| commit(id, object)).collect())
    }

    /// What the default branch of the remote is called here, if it is known.
    pub fn default_base(&self) -> Option<String> {
        let name = self.ask(&["symbolic-ref", "--quiet", "refs/remotes/origin/HEAD"]).ok()?;
        Some(name.trim().to_owned())
    }

    fn ask(&self, args: &[&str]) -> Result<String, Failure> {
        let (answer, said) = self.try_ask(args, b"")?;
        let answer = answer.ok_or_else(|| {
            let mut lines = said.lines().filter(|line| !line.starts_with("hint:"));
            let said = lines.next().unwrap_or("no reason given").trim_start_matches("fatal: ").to_owned();
            Failure::new(format!("git {} in {}: {said}", args[0], self.folder.display()))
        })?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }

    /// What git answers, if it does, and what it says besides.
    fn try_ask(&self, args: &[&str], input: &[u8]) -> Result<(Option<Vec<u8>>, String), Failure> {
        let mut command = Command::new("git");
        command.args(["-c", "core.warnAmbiguousRefs=true", "-c", "core.commitGraph=false"]);
        command.args(["-c", "advice.graftFileDeprecated=false", "-C"]).arg(&self.folder).args(args);
        for name in ELSEWHERE {
            command.env_remove(name);
        }
        // What stands in this clone only: replacements, grafts, and a graph of commits that need not be that of their objects.
        command.env("LC_ALL", "C").env("GIT_NO_REPLACE_OBJECTS", "1").env("GIT_GRAFT_FILE", "/dev/null");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let failed = |error: std::io::Error| {
            Failure::new(format!("the program git can't be run: {error}. Install it."))
        };
        let mut child = command.spawn().map_err(failed)?;
        let stdin = child.stdin.take();
        // Both at once: it answers while it is still being asked.
        let output = std::thread::scope(|scope| {
            scope.spawn(|| stdin.map(|mut stdin| stdin.write_all(input)));
            child.wait_with_output()
        });
        let output = output.map_err(failed)?;
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Ok((output.status.success().then_some(output.stdout), said))
    }
}

/// Text without what hides in it, each line by itself whatever ends it.
fn plain(text: &str) -> String {
    let ends = |c: char| matches!(c, '\r' | '\u{85}' | '\u{2028}' | '\u{2029}');
    let text = text.replace("\r\n", "\n").replace(ends, "\n").replace('\u{a0}', " ");
    text.chars().filter(|c| !hides(*c)).collect()
}

/// A commit as its object has it.
fn commit(id: &str, object: &[u8]) -> Commit {
    let text = String::from_utf8_lossy(object);
    let (head, message) = text.split_once("\n\n").unwrap_or((&text, ""));
    let header = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let person = |name: &str| {
        let line = header(name).unwrap_or_default();
        let (name, rest) = line.split_once('<').unwrap_or((line, ""));
        let email = rest.split_once('>').map_or("", |(email, _)| email);
        Person { name: plain(name).trim().to_owned(), email: plain(email).trim().to_owned() }
    };
    Commit {
        id: id.to_owned(),
        author: person("author"),
        committer: person("committer"),
        encoding: header("encoding").map(ToOwned::to_owned),
        message: plain(message),
        note: None,
    }
}
