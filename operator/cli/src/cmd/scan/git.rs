//! Reads a repository by the program `git`.
//!
//! What it is asked says its fields by NUL, which no message can contain, so no message can pass for another field.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::detect::{Commit, Person};
use crate::fail::Failure;

/// Fields of a commit, in the order of [`FORMAT`].
const FIELDS: usize = 8;
const FORMAT: &str = "--format=%H%x00%an%x00%ae%x00%cn%x00%ce%x00%(trailers:only,unfold)%x00%B%x00%N";
/// Where git-ai keeps its notes.
const NOTES: &str = "refs/notes/ai";

/// A repository.
pub struct Repository {
    folder: PathBuf,
}

/// How much a change changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Lines that were added or removed.
    pub lines: u64,
    /// Files.
    pub files: u64,
}

impl Repository {
    /// The one that a folder is in. One without its whole history is refused: what is not there can't be scanned.
    pub fn open(folder: &Path) -> Result<Self, Failure> {
        let repository = Self { folder: folder.to_owned() };
        let shallow = repository.ask(&["rev-parse", "--is-shallow-repository"])?;
        if shallow.trim() == "true" {
            return Err(Failure::new(format!(
                "{} is a shallow clone: commits of the change may be missing, so nothing is said about it. Fetch all of it: git fetch \
                 --unshallow, or fetch-depth: 0 in the pipeline",
                folder.display()
            )));
        }
        Ok(repository)
    }

    /// The commit that a name stands for.
    pub fn commit(&self, name: &str) -> Result<String, Failure> {
        let name = format!("{name}^{{commit}}");
        let found = self.ask(&["rev-parse", "--verify", "--quiet", "--end-of-options", &name]);
        match found {
            Ok(id) => Ok(id.trim().to_owned()),
            Err(_) => Err(Failure::new(format!(
                "{:?} is no commit of {}: write BASE..HEAD with branches, tags or commits that are here (git fetch)",
                name.trim_end_matches("^{commit}"),
                self.folder.display()
            ))),
        }
    }

    /// Whether a commit is here.
    pub fn has(&self, commit: &str) -> bool {
        self.commit(commit).is_ok()
    }

    /// The commits of `head` that `base` lacks, newest first. Without a base: `head` alone.
    pub fn commits(&self, base: Option<&str>, head: &str) -> Result<Vec<Commit>, Failure> {
        let range = match base {
            Some(base) => format!("{base}..{head}"),
            None => head.to_owned(),
        };
        let notes = format!("--notes={NOTES}");
        let mut asked = vec!["log", "-z", "--no-color", "--no-show-signature", &notes, FORMAT];
        if base.is_none() {
            asked.push("--max-count=1");
        }
        asked.extend(["--end-of-options", &range]);
        let text = self.ask(&asked)?;
        let mut fields: Vec<&str> = text.split('\0').collect();
        // The last record ends with the separator too, or not, as git's versions have it.
        if fields.len() % FIELDS == 1 && fields.last().is_some_and(|last| last.trim().is_empty()) {
            fields.pop();
        }
        if !fields.len().is_multiple_of(FIELDS) {
            return Err(Failure::new(
                "git log answered in another form than was asked for: please report it",
            ));
        }
        Ok(fields.chunks_exact(FIELDS).map(commit).collect())
    }

    /// How much `head` changes since it left `base`.
    pub fn size(&self, base: &str, head: &str) -> Result<Size, Failure> {
        let range = format!("{base}...{head}");
        let text =
            self.ask(&["diff", "--shortstat", "--no-ext-diff", "--no-textconv", "--end-of-options", &range])?;
        let mut size = Size::default();
        for part in text.split(',') {
            let number = part.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0);
            if part.contains("file") {
                size.files = number;
            } else {
                size.lines += number;
            }
        }
        Ok(size)
    }

    /// Which of these files and directories there are at a commit.
    pub fn files(&self, commit: &str, wanted: &[String]) -> Result<Vec<String>, Failure> {
        let mut asked = vec!["ls-tree", "-z", "--name-only", "--full-tree", commit, "--"];
        asked.extend(wanted.iter().map(String::as_str));
        let text = self.ask(&asked)?;
        Ok(text.split('\0').filter(|name| !name.is_empty()).map(ToOwned::to_owned).collect())
    }

    /// The value of a trailer in the newest commit up to `commit` that has it.
    pub fn last_trailer(&self, commit: &str, key: &str) -> Result<Option<String>, Failure> {
        let (grep, format) =
            (format!("--grep=^{key}: "), format!("--format=%(trailers:key={key},valueonly)"));
        let asked =
            ["log", "--max-count=1", "--regexp-ignore-case", &grep, &format, "--end-of-options", commit];
        let text = self.ask(&asked)?;
        Ok(text.lines().next().map(str::trim).filter(|value| !value.is_empty()).map(ToOwned::to_owned))
    }

    /// What the default branch of the remote is called here, if it is known.
    pub fn default_base(&self) -> Option<String> {
        let name = self.ask(&["symbolic-ref", "--quiet", "--short", "refs/remotes/origin/HEAD"]).ok()?;
        Some(name.trim().to_owned())
    }

    fn ask(&self, args: &[&str]) -> Result<String, Failure> {
        let mut command = Command::new("git");
        // What a configuration, or a replacement that stands in this clone only, would change in the answers.
        command.args(["-c", "i18n.logOutputEncoding=UTF-8", "-c", "trailer.separators=:", "-C"]);
        command.arg(&self.folder).args(args).env("LC_ALL", "C").env("GIT_NO_REPLACE_OBJECTS", "1");
        let output = command
            .output()
            .map_err(|error| Failure::new(format!("the program git can't be run: {error}. Install it.")))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            let said = said
                .trim()
                .lines()
                .next()
                .unwrap_or("no reason given")
                .trim_start_matches("fatal: ")
                .to_owned();
            return Err(Failure::new(format!("git {} in {}: {said}", args[0], self.folder.display())));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

fn commit(fields: &[&str]) -> Commit {
    let person = |name: &str, email: &str| Person { name: name.to_owned(), email: email.to_owned() };
    let trailer = |line: &str| {
        let (key, value) = line.split_once(':')?;
        Some((key.trim().to_owned(), value.trim().to_owned()))
    };
    Commit {
        id: fields[0].trim().to_owned(),
        author: person(fields[1], fields[2]),
        committer: person(fields[3], fields[4]),
        trailers: fields[5].lines().filter_map(trailer).collect(),
        message: fields[6].to_owned(),
        note: fields[7].to_owned(),
    }
}
