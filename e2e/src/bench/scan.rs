//! How long `kubectl sluice scan` reads a long history: a repository of many commits, some of them with the marks of tools.
//! Needs no cluster.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use serde_json::Value;

use super::stats::median;
use crate::record;

/// One in so many commits has a tool's trailer.
const MARKED: usize = 10;
/// How often it is scanned.
const TIMES: usize = 5;
/// The longest median that is promised, in seconds, for so many commits.
const PROMISE: f64 = 2.0;
const COMMITS: usize = 10_000;

/// What is written to `target/bench/scan.json`.
#[derive(Debug, Serialize)]
struct Report {
    /// Commits that are scanned.
    commits: usize,
    /// Size of the repository, in 2^10 bytes.
    repository_kb: u64,
    /// Commits in which something was found.
    findings: usize,
    /// The level that they give.
    provenance: String,
    /// How the program was built: debug or release.
    build: String,
    median_seconds: f64,
    seconds: Vec<f64>,
}

/// Makes a repository of `commits`, scans it and writes the report.
pub fn run(commits: usize) -> Result<()> {
    ensure!(commits > 0, "--commits must be at least 1");
    let program =
        record::program().context("kubectl-sluice is not there: cargo build --workspace --locked")?;
    let folder = std::env::temp_dir().join(format!("sluice-bench-scan-{}", std::process::id()));
    std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let report = measure(&program, &folder, commits);
    std::fs::remove_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let report = report?;
    println!(
        "{} commits in {} kB, scanned {TIMES} times by a {} build: {:.2} s (median; {:.2} to {:.2} s), {} findings: {}",
        report.commits,
        report.repository_kb,
        report.build,
        report.median_seconds,
        report.seconds.iter().copied().fold(f64::INFINITY, f64::min),
        report.seconds.iter().copied().fold(0.0, f64::max),
        report.findings,
        report.provenance
    );
    super::report("scan", &report)?;
    let promise = PROMISE * (commits as f64 / COMMITS as f64).max(1.0);
    ensure!(
        report.median_seconds <= promise,
        "the median is {:.2} s, more than {promise} s",
        report.median_seconds
    );
    Ok(())
}

fn measure(program: &str, folder: &Path, commits: usize) -> Result<Report> {
    git(folder, &["init", "-q", "--bare"], "")?;
    git(folder, &["fast-import", "--quiet"], &history(commits))?;
    let counted = git(folder, &["count-objects", "-v"], "")?;
    let kilobytes = |key: &str| -> Option<u64> {
        counted.lines().find_map(|line| line.strip_prefix(key))?.trim().parse().ok()
    };
    let repository_kb = kilobytes("size:").zip(kilobytes("size-pack:")).context("git count-objects")?;
    let mut seconds = Vec::new();
    let mut document = Value::Null;
    for _ in 0..TIMES {
        let mut scan = Command::new(program);
        scan.args(["scan", "base..main", "-o", "json", "-C"]).arg(folder).stdin(Stdio::null());
        let begin = Instant::now();
        let output = scan.output().context("scan")?;
        seconds.push(begin.elapsed().as_secs_f64());
        ensure!(output.status.success(), "scan: {}", String::from_utf8_lossy(&output.stderr));
        document = serde_json::from_slice(&output.stdout).context("what scan says")?;
    }
    // The folder of a program is named for how it was built.
    let build = Path::new(program).parent().and_then(Path::file_name).and_then(|name| name.to_str());
    let build = build.unwrap_or_default();
    let findings = document["findings"].as_array().map_or(0, Vec::len);
    ensure!(document["commits"] == commits, "it scanned {} commits", document["commits"]);
    ensure!(findings == commits / MARKED, "{findings} findings of {}", commits / MARKED);
    Ok(Report {
        commits,
        repository_kb: repository_kb.0 + repository_kb.1,
        findings,
        provenance: document["change"]["provenance"].as_str().unwrap_or_default().to_owned(),
        build: build.to_owned(),
        median_seconds: super::rounded(median(&seconds)),
        seconds: seconds.into_iter().map(super::rounded).collect(),
    })
}

/// A history for `git fast-import`: one commit tagged `base`, then those that are scanned, each with a changed file.
fn history(commits: usize) -> String {
    let mut text = String::new();
    for number in 0..=commits {
        let trailer = match number {
            0 => "",
            _ if number % MARKED == 0 => "\n\nCo-Authored-By: Claude <noreply@anthropic.com>",
            _ => "\n\nReviewed-by: Ben <ben@example.com>",
        };
        let message = format!("Change {number}{trailer}\n");
        let content = format!("page {number}\n").repeat(20);
        let at = 1_700_000_000 + number * 60;
        // Writing to a string does not fail.
        let _ = write!(
            text,
            "commit refs/heads/main\nauthor Ann <ann@example.com> {at} +0000\ncommitter Ann <ann@example.com> {at} +0000\n\
             data {}\n{message}M 100644 inline page-{}.txt\ndata {}\n{content}\n",
            message.len(),
            number % 100,
            content.len()
        );
        if number == 0 {
            text.push_str("reset refs/tags/base\nfrom refs/heads/main\n\n");
        }
    }
    text
}

fn git(folder: &Path, args: &[&str], input: &str) -> Result<String> {
    use std::io::Write as _;
    let mut command = Command::new("git");
    command.arg("-C").arg(folder).args(args).stdin(Stdio::piped()).stdout(Stdio::piped());
    command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
    let mut child = command.spawn().context("git")?;
    // It reads everything before it answers.
    child
        .stdin
        .take()
        .context("git")?
        .write_all(input.as_bytes())
        .with_context(|| format!("git {args:?}"))?;
    let output = child.wait_with_output().with_context(|| format!("git {args:?}"))?;
    ensure!(output.status.success(), "git {args:?} failed");
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
