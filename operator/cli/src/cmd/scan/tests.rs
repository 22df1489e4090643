//! Real repositories, made by `git fast-import`: git itself reads the messages.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use serde::Deserialize;
use serde_json::json;
use sluice_core::api::Provenance;
use tempfile::TempDir;

use super::detect::{Commit, Finding, Level, of_commit, provenance};
use super::git::{Repository, Size};
use super::rules::Rules;
use super::{Scanned, document, evidence, scan};
use crate::args::{self, Scan};
use crate::exit::Code;

const ANN: &str = "Ann <ann@example.com>";

/// A commit to be made.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Made {
    /// Rules that must be found, exactly.
    want: BTreeSet<String>,
    /// The rule that it is nearly about.
    near: Option<String>,
    author: String,
    committer: Option<String>,
    encoding: Option<String>,
    message: String,
    /// Instead of a message of one's own.
    trailer: Option<String>,
    file: String,
}

impl Default for Made {
    fn default() -> Self {
        Self {
            want: BTreeSet::new(),
            near: None,
            author: ANN.to_owned(),
            committer: None,
            encoding: None,
            message: "Pay faster\n\nBy far.".to_owned(),
            trailer: None,
            file: "pay.rs".to_owned(),
        }
    }
}

fn message(message: &str) -> Made {
    Made { message: message.to_owned(), ..Made::default() }
}

fn with_trailer(trailer: &str) -> Made {
    Made { trailer: Some(trailer.to_owned()), ..Made::default() }
}

fn git(folder: &Path, args: &[&str], input: &str) -> String {
    let mut child = Command::new("git")
        .arg("-C")
        .arg(folder)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A repository with a first commit, tagged `base`, and these above it.
fn repository(made: &[Made]) -> TempDir {
    let folder = TempDir::new().unwrap();
    git(folder.path(), &["init", "-q", "-b", "main"], "");
    let mut stream = String::new();
    let first = Made { message: "First".to_owned(), ..Made::default() };
    for (number, made) in [&first].into_iter().chain(made).enumerate() {
        let text = match &made.trailer {
            Some(trailer) => format!("Pay faster\n\nBy far.\n\n{trailer}\n"),
            None => made.message.clone(),
        };
        let committer = made.committer.as_deref().unwrap_or(&made.author);
        let encoding = made.encoding.as_ref().map_or(String::new(), |name| format!("encoding {name}\n"));
        let content = format!("line {number}\n");
        let (author, length, size, file) = (&made.author, text.len(), content.len(), &made.file);
        let at = 1_700_000_000 + number;
        let _ = write!(
            stream,
            "commit refs/heads/main\nauthor {author} {at} +0000\ncommitter {committer} {at} +0000\n{encoding}\
             data {length}\n{text}\nM 100644 inline {file}\ndata {size}\n{content}\n"
        );
        if number == 0 {
            stream.push_str("reset refs/tags/base\nfrom refs/heads/main\n\n");
        }
    }
    git(folder.path(), &["fast-import", "--quiet"], &stream);
    folder
}

fn args(folder: &Path) -> Scan {
    Scan {
        range: Some("base..main".to_owned()),
        repository: folder.to_owned(),
        declared: None,
        fail_at: None,
        image: Vec::new(),
        patch: false,
        branch: None,
        opened_by: None,
        label: Vec::new(),
        source: None,
        agent_trace: Vec::new(),
        attestation: Vec::new(),
        rules: None,
    }
}

fn of(made: &[Made]) -> Scanned {
    let folder = repository(made);
    scan(&args(folder.path())).unwrap()
}

fn rules_of(scanned: &Scanned) -> Vec<&str> {
    scanned.findings.iter().map(|finding| finding.rule.as_str()).collect()
}

#[test]
fn every_rule_finds_what_it_is_about_and_nothing_near_it() {
    let fixtures: Vec<Made> = serde_saphyr::from_str(include_str!("fixtures.yaml")).unwrap();
    let folder = repository(&fixtures);
    let mut commits = Repository::open(folder.path()).unwrap().commits(Some("base"), "main").unwrap();
    commits.reverse();
    assert_eq!(commits.len(), fixtures.len());
    let rules = Rules::built_in().unwrap();
    let (mut found_somewhere, mut missed_somewhere) = (BTreeSet::new(), BTreeSet::new());
    for (commit, fixture) in commits.iter().zip(&fixtures) {
        let findings = of_commit(&rules, commit);
        let found: BTreeSet<String> = findings.into_iter().map(|finding| finding.rule).collect();
        assert_eq!(found, fixture.want, "{fixture:?}\n{commit:?}");
        found_somewhere.extend(found);
        missed_somewhere.extend(fixture.near.clone());
    }
    for id in rules.ids().chain(["H-BRANCH", "BOT", "NOBODY", "ENCODING"].map(ToOwned::to_owned)) {
        assert!(found_somewhere.contains(&id), "no commit for rule {id}");
        // What the keys of tools begin is about nothing else; all others have something near them.
        assert!(missed_somewhere.contains(&id), "nothing near rule {id}");
    }
}

#[test]
fn the_riskiest_commit_of_a_change_decides() {
    let human = Made::default();
    let assisted = with_trailer("Assisted-by: Claude Code");
    let agent = Made { author: "Claude <noreply@anthropic.com>".to_owned(), ..Made::default() };
    let bot = Made {
        author: "renovate[bot] <1+renovate[bot]@users.noreply.github.com>".to_owned(),
        ..Made::default()
    };
    assert_eq!(
        of(std::slice::from_ref(&human)).provenance,
        Provenance::Unknown,
        "nobody says that it is a person's"
    );
    assert_eq!(of(&[assisted.clone(), human.clone()]).provenance, Provenance::GenAIAssisted);
    assert_eq!(of(&[assisted.clone(), bot.clone(), human.clone()]).provenance, Provenance::Unknown);
    assert_eq!(of(&[agent, assisted, bot, human]).provenance, Provenance::GenAIAutonomous);
}

#[test]
fn what_is_found_only_raises_what_is_declared() {
    let all =
        [Provenance::Human, Provenance::GenAIAssisted, Provenance::Unknown, Provenance::GenAIAutonomous];
    let finding =
        |level| Finding { rule: "X".into(), commit: None, level, tool: String::new(), seen: String::new() };
    for declared in all {
        for found in all {
            let level = provenance(Some(declared), &[finding(Level::Is(found))]);
            assert_eq!(level, declared.max(found));
        }
        // A hint is a question that saying "AI had a part" answers.
        let hinted = provenance(Some(declared), &[finding(Level::Hint)]);
        let wanted = if declared == Provenance::Human { Provenance::Unknown } else { declared };
        assert_eq!(hinted, wanted);
    }
    assert_eq!(provenance(None, &[]), Provenance::Unknown);
    assert_eq!(provenance(None, &[finding(Level::Hint), finding(Level::Hint)]), Provenance::Unknown);
}

#[test]
fn hints_of_a_repository_make_a_person_unknown() {
    let agents = Made { file: "services/pay/AGENTS.md".to_owned(), ..Made::default() };
    assert_eq!(rules_of(&of(std::slice::from_ref(&agents))), ["H-FILES"]);
    assert_eq!(of(&[agents]).provenance, Provenance::Unknown);
    for near in ["services/pay/AGENTS.md.txt", "docs/MY-AGENTS.md", "agents/README.md", "src/cursor/main.rs"]
    {
        let near = Made { file: near.to_owned(), ..Made::default() };
        assert_eq!(rules_of(&of(std::slice::from_ref(&near))), Vec::<&str>::new(), "{near:?}");
    }
    let folder = repository(&[Made::default()]);
    let asked = Scan {
        branch: Some("refs/heads/codex/pay".to_owned()),
        label: vec!["payments,AI Assisted".to_owned(), "bug".to_owned()],
        ..args(folder.path())
    };
    let scanned = scan(&asked).unwrap();
    assert_eq!(rules_of(&scanned), ["H-BRANCH", "H-LABEL"]);
    assert_eq!(scanned.provenance, Provenance::Unknown);
    let near = Scan {
        branch: Some("refs/heads/fix-codex/pay".to_owned()),
        label: vec!["assisted living,air".to_owned()],
        ..args(folder.path())
    };
    assert_eq!(rules_of(&scan(&near).unwrap()), Vec::<&str>::new());
}

#[test]
fn who_opened_the_pull_request_counts_as_an_author_does() {
    let folder = repository(&[Made::default()]);
    let opened = |by: &str| {
        let asked =
            Scan { opened_by: Some(by.to_owned()), declared: Some(Provenance::Human), ..args(folder.path()) };
        let scanned = scan(&asked).unwrap();
        (scanned.findings.into_iter().map(|finding| finding.rule).collect::<Vec<_>>(), scanned.provenance)
    };
    let agents = [
        "Copilot",
        "copilot-swe-agent[bot]",
        "app/copilot-swe-agent",
        "devin-ai-integration[bot]",
        "cursor[bot]",
        "google-labs-jules[bot]",
        "claude[bot]",
    ];
    for agent in agents {
        assert_eq!(opened(agent), (vec!["P-BOT".to_owned()], Provenance::GenAIAutonomous), "{agent}");
    }
    for bot in ["dependabot[bot]", "app/dependabot"] {
        assert_eq!(opened(bot), (vec!["BOT".to_owned()], Provenance::Unknown), "{bot}");
    }
    for person in ["ann", "copilot-fan", "claude", "devin"] {
        assert_eq!(opened(person), (Vec::new(), Provenance::Human), "{person}");
    }
}

#[test]
fn merges_and_both_their_sides_count() {
    let folder = repository(&[Made::default()]);
    let path = folder.path();
    let commit = |branch: &str, text: &str, parents: &str| {
        let (at, length) = ("1700000100 +0000", text.len());
        format!(
            "commit refs/heads/{branch}\nauthor {ANN} {at}\ncommitter {ANN} {at}\ndata {length}\n{text}\n{parents}\n\n"
        )
    };
    let stream = commit("side", "Side\n\nMade-with: Cursor\n", "from refs/tags/base^0")
        + &commit("main", "Merge\n", "from refs/heads/main^0\nmerge refs/heads/side");
    git(path, &["fast-import", "--quiet", "--force"], &stream);
    let scanned = scan(&args(path)).unwrap();
    assert_eq!((scanned.commits, rules_of(&scanned)), (3, vec!["T-ASSIST-2"]));
}

#[test]
fn notes_of_git_ai_are_read() {
    let json = r#"{"schema_version": "authorship/3.0.0"}"#;
    let notes = [
        (format!("pay.rs\n  h_1 1-3\n---\n{json}\n"), None),
        (format!("pay.rs\n  h_1 1-3\n  s_9::t_2 4-9\n---\n{json}\n"), Some(Provenance::GenAIAssisted)),
        (format!("pay.rs\n  0123456789abcdef 1-3\n---\n{json}\n"), Some(Provenance::GenAIAssisted)),
        ("scrambled".to_owned(), Some(Provenance::Unknown)),
        (format!("pay.rs\nabcd1234 1-10\n---\n{json}\n"), Some(Provenance::Unknown)),
        (
            "pay.rs\n  h_1 1-3\n---\n{\"schema_version\": \"authorship/9.0.0\"}\n".to_owned(),
            Some(Provenance::Unknown),
        ),
    ];
    for (note, wanted) in notes {
        let folder = repository(&[Made::default()]);
        let path = folder.path();
        git(
            path,
            &["-c", "user.name=x", "-c", "user.email=x", "notes", "--ref=ai", "add", "-F", "-", "main"],
            &note,
        );
        let found = scan(&args(path)).unwrap().findings;
        let levels: Vec<Level> = found.iter().map(|finding| finding.level).collect();
        assert_eq!(levels, wanted.map(Level::Is).into_iter().collect::<Vec<_>>(), "{note}");
    }
}

#[test]
fn files_of_tools_are_about_a_commit_of_the_change() {
    let folder = repository(&[Made::default()]);
    let id = git(folder.path(), &["rev-parse", "main"], "");
    let commits = [Commit { id: id.clone(), ..Commit::default() }];
    let file = folder.path().join("evidence.json");
    let trace = |kind: &str, revision: &str| {
        json!({"version": "0.1.0", "vcs": {"revision": revision}, "files": [
            {"path": "pay.rs", "conversations": [{"contributor": {"type": "human"}}, {"contributor": {"type": kind}}]}]})
    };
    let write = |value: serde_json::Value| std::fs::write(&file, value.to_string()).unwrap();
    let levels = |found: Vec<Finding>| found.into_iter().map(|finding| finding.level).collect::<Vec<_>>();
    let ranges = json!([{"start_line": 1, "end_line": 2, "contributor": {"type": "ai"}}]);
    let mut overridden = trace("human", &id);
    overridden["files"][0]["conversations"][0]["ranges"] = ranges;
    write(overridden);
    assert_eq!(levels(evidence::of_trace(&file, &commits).unwrap()), [Level::Is(Provenance::GenAIAssisted)]);
    let mut unnamed = trace("human", &id);
    unnamed["files"][0]["conversations"][0] = json!({"ranges": []});
    write(unnamed);
    let unknown = [Level::Is(Provenance::Unknown)];
    assert_eq!(levels(evidence::of_trace(&file, &commits).unwrap()), unknown);
    write(json!({"vcs": {"revision": id}, "files": []}));
    assert_eq!(levels(evidence::of_trace(&file, &commits).unwrap()), [Level::Is(Provenance::Unknown)]);
    let kinds = [
        ("human", vec![]),
        ("ai", vec![Level::Is(Provenance::GenAIAssisted)]),
        ("mixed", vec![Level::Is(Provenance::GenAIAssisted)]),
        ("unknown", vec![Level::Is(Provenance::Unknown)]),
        ("new", vec![Level::Is(Provenance::Unknown)]),
    ];
    for (kind, wanted) in kinds {
        write(trace(kind, &id));
        assert_eq!(levels(evidence::of_trace(&file, &commits).unwrap()), wanted, "{kind}");
    }
    let statement = |level: &str, revision: &str| {
        json!({"_type": "https://in-toto.io/Statement/v1", "predicateType": evidence::PREDICATE,
            "predicate": {"revision": revision, "level": level}})
    };
    write(statement("GenAIAutonomous", &id));
    let autonomous = vec![Level::Is(Provenance::GenAIAutonomous)];
    assert_eq!(levels(evidence::of_statement(&file, &commits, &id, &[]).unwrap()), autonomous);
    use base64::Engine as _;
    let payload =
        base64::engine::general_purpose::STANDARD.encode(statement("GenAIAutonomous", &id).to_string());
    write(json!({"payloadType": "application/vnd.in-toto+json", "payload": payload, "signatures": []}));
    assert_eq!(levels(evidence::of_statement(&file, &commits, &id, &[]).unwrap()), autonomous);
    let slsa = |commit: &str| {
        json!({"predicateType": "https://slsa.dev/provenance/v1", "predicate": {"buildDefinition":
            {"resolvedDependencies": [{"uri": "git+https://git.example/shop", "digest": {"gitCommit": commit}}]}}})
    };
    write(slsa(&id));
    assert_eq!(levels(evidence::of_statement(&file, &commits, &id, &[]).unwrap()), []);

    // What is wrong is said with the file and the field.
    let mut said = Vec::new();
    let mut bad_trace = trace("ai", &id);
    bad_trace["files"][0]["conversations"][1] = json!({"contributor": {"kind": "ai"}});
    for value in [trace("ai", "abc"), json!({"files": []}), bad_trace, json!([1])] {
        write(value);
        said.push(evidence::of_trace(&file, &commits).unwrap_err().text);
    }
    for value in
        [statement("Robot", &id), slsa("abc"), json!({"predicateType": "x"}), json!({"payload": "?"})]
    {
        write(value);
        said.push(evidence::of_statement(&file, &commits, &id, &[]).unwrap_err().text);
    }
    // Of another commit of the change than the last, and of another image.
    write(slsa(&id));
    said.push(evidence::of_statement(&file, &commits, "HEAD", &[]).unwrap_err().text);
    let mut about = statement("Human", &id);
    about["subject"] = json!([{"name": "shop", "digest": {"sha256": "aa"}}]);
    write(about);
    let image = |digest: &str| [format!("shop@sha256:{digest}")];
    said.push(evidence::of_statement(&file, &commits, &id, &image("bb")).unwrap_err().text);
    assert_eq!(levels(evidence::of_statement(&file, &commits, &id, &image("aa")).unwrap()).len(), 1);
    std::fs::write(&file, "{").unwrap();
    said.push(evidence::of_trace(&file, &commits).unwrap_err().text);
    let said = said.join("\n").replace(&file.display().to_string(), "FILE").replace(&id, "ID");
    insta::assert_snapshot!("evidence_errors", said);
}

#[test]
fn rendered_manifests_lead_to_the_code() {
    let agent = Made { author: "Claude <noreply@anthropic.com>".to_owned(), ..Made::default() };
    let code = repository(&[Made::default(), agent]);
    let id = |name: &str| git(code.path(), &["rev-parse", name], "");
    let rendered = |of: &str| Made {
        author: "Argo CD <argo-cd@example.com>".to_owned(),
        trailer: Some(format!("Argocd-reference-commit-sha: {of}")),
        file: "deploy.yaml".to_owned(),
        ..Made::default()
    };
    let manifests = repository(&[rendered(&id("base")), rendered(&id("main~1")), rendered(&id("main"))]);
    let asked = |range: &str, source: Option<&Path>| Scan {
        range: Some(range.to_owned()),
        source: source.map(Path::to_owned),
        ..args(manifests.path())
    };
    let scanned = scan(&asked("main~1..main", Some(code.path()))).unwrap();
    assert_eq!(rules_of(&scanned), ["A-CLAUDE"]);
    assert_eq!((scanned.commit.clone(), scanned.commits), (Some(id("main")), 2));
    // Both renderings: what they were rendered from is one range.
    let scanned = scan(&asked("main~2..main", Some(code.path()))).unwrap();
    assert_eq!((scanned.commits, scanned.base.clone()), (4, id("base")));
    assert_eq!(scanned.size, Some(Size { lines: 2, files: 1, submodules: Vec::new() }));
    // Anybody can write such a line: what the commit says of itself counts all the same, unless it is that a program made it.
    let agent = Made { author: "Claude <noreply@anthropic.com>".to_owned(), ..rendered(&id("main~1")) };
    let bot =
        Made { author: "ci[bot] <1+ci[bot]@users.noreply.github.com>".to_owned(), ..rendered(&id("main~1")) };
    for (last, wanted) in [(agent, vec!["A-CLAUDE"]), (bot, vec![])] {
        let manifests = repository(&[rendered(&id("base")), last]);
        let asked = Scan {
            range: Some("main~1..main".to_owned()),
            source: Some(code.path().to_owned()),
            ..args(manifests.path())
        };
        assert_eq!(rules_of(&scan(&asked).unwrap()), wanted);
    }
    // Backwards, again, by another name than a commit's, or from nowhere: not a person's work.
    for (before, now) in [("main", "base"), ("base", "base")] {
        let manifests = repository(&[rendered(&id(before)), rendered(&id(now))]);
        let asked = Scan {
            range: Some("main~1..main".to_owned()),
            source: Some(code.path().to_owned()),
            ..args(manifests.path())
        };
        let scanned = scan(&asked).unwrap();
        assert_eq!(
            (rules_of(&scanned), scanned.provenance, scanned.size.clone()),
            (vec!["R-BASE"], Provenance::Unknown, None),
            "{before} {now}"
        );
    }
    for odd in ["HEAD", "main", "", &id("main")[..7], "--all"] {
        let manifests = repository(&[rendered(&id("base")), rendered(odd)]);
        let asked = Scan {
            range: Some("main~1..main".to_owned()),
            source: Some(code.path().to_owned()),
            ..args(manifests.path())
        };
        let scanned = scan(&asked).unwrap();
        assert_eq!((rules_of(&scanned), scanned.commit.clone()), (vec!["R-SOURCE"], None), "{odd:?}");
        assert_eq!((scanned.provenance, scanned.size), (Provenance::Unknown, None));
    }
    // What was rendered before is not said, and what was rendered is not here.
    let scanned = scan(&asked("base..main~2", Some(code.path()))).unwrap();
    assert_eq!(scanned.size, None);
    assert_eq!((rules_of(&scanned), scanned.provenance), (vec!["R-BASE"], Provenance::Unknown));
    let scanned = scan(&asked("main~1..main", None)).unwrap();
    assert_eq!((rules_of(&scanned), scanned.provenance), (vec!["R-SOURCE"], Provenance::Unknown));
    assert_eq!(scanned.size, None);
}

#[test]
fn a_commit_that_names_its_own_past_hides_nothing() {
    let base = repository(&[Made::default()]);
    let past = git(base.path(), &["rev-parse", "base"], "");
    let bot = "x[bot] <1+x[bot]@users.noreply.github.com>".to_owned();
    let trailer = Some(format!("Argocd-reference-commit-sha: {past}"));
    // Git names commits by what they are: the same past has the same name.
    let folder = repository(&[Made::default(), Made { author: bot, trailer, ..Made::default() }]);
    let scanned = scan(&args(folder.path())).unwrap();
    assert_eq!((rules_of(&scanned), scanned.commits), (vec!["BOT", "R-BASE"], 2));
    assert_eq!(scanned.commit, Some(git(folder.path(), &["rev-parse", "main"], "")));
    assert_eq!(scanned.size, None);
}

#[test]
fn a_squash_by_git_lists_its_authors() {
    let text = "Squashed commit of the following:\n\ncommit 0123\nAuthor: Claude <noreply@anthropic.com>\nDate:   today\n\n    agent work";
    assert_eq!(rules_of(&of(&[message(text)])), ["T-CLAUDE"]);
}

#[test]
fn a_squash_by_git_hides_no_trailer() {
    let folder = repository(&[Made::default()]);
    let at = folder.path();
    let git = |args: &[&str], input: &str| {
        let who = ["-c", "user.name=Ann", "-c", "user.email=ann@example.com"];
        git(at, &[&who, args].concat(), input)
    };
    git(&["checkout", "-q", "-b", "topic"], "");
    std::fs::write(at.join("squashed"), "1").unwrap();
    git(&["add", "squashed"], "");
    let text = "Pay faster\n\nCo-authored-by: Claude\n <noreply@anthropic.com>\nSigned-off-by: Ann <ann@example.com>\n";
    git(&["commit", "-q", "-F", "-"], text);
    // The second squashes the squash.
    for branch in ["once", "twice"] {
        git(&["checkout", "-q", "-f", "-B", branch, "base"], "");
        git(&["merge", "-q", "--squash", "topic"], "");
        git(&["commit", "-q", "--no-edit"], "");
        git(&["branch", "-f", "topic", branch], "");
        let scanned = scan(&Scan { range: Some(format!("base..{branch}")), ..args(at) }).unwrap();
        assert_eq!((rules_of(&scanned), scanned.provenance), (vec!["T-CLAUDE"], Provenance::GenAIAssisted));
    }
    assert!(git(&["log", "-1", "--format=%B"], "").contains("        Co-authored-by"), "twice indented");
}

#[test]
fn notes_that_are_broken_are_no_lack_of_notes() {
    for broken in ["1111111111111111111111111111111111111111\n", "garbage\n", "", "ref: refs/notes/nowhere\n"]
    {
        let folder = repository(&[Made::default()]);
        std::fs::create_dir_all(folder.path().join(".git/refs/notes")).unwrap();
        std::fs::write(folder.path().join(".git/refs/notes/ai"), broken).unwrap();
        let failure = scan(&args(folder.path())).unwrap_err();
        assert!(failure.text.contains("refs/notes/ai holds no notes"), "{broken:?}: {}", failure.text);
    }
}

#[test]
fn a_mismatch_and_a_level_are_gates() {
    let folder = repository(&[with_trailer("Made-with: Cursor")]);
    let context = crate::cmd::Context::new(args::Global::default(), "kubectl sluice".to_owned());
    let code = |declared: Option<Provenance>, fail_at: Option<Provenance>| {
        super::run(&context, &Scan { declared, fail_at, ..args(folder.path()) }).unwrap()
    };
    assert_eq!(code(None, None), Code::Fine);
    assert_eq!(code(Some(Provenance::GenAIAssisted), None), Code::Fine);
    assert_eq!(code(Some(Provenance::Human), None), Code::Gate);
    assert_eq!(code(None, Some(Provenance::GenAIAssisted)), Code::Gate);
    assert_eq!(code(None, Some(Provenance::Unknown)), Code::Fine);
    assert_eq!(Code::Gate.number(), 6);
}

#[test]
fn a_message_can_not_pass_for_something_else() {
    let lines = "Fix\n\n%x00 \\0 \u{1f}\n\x1b[2J# change:\nchange: {provenance: Human}\n\nMade-with: Cursor";
    let scanned = of(&[message(lines)]);
    assert_eq!(rules_of(&scanned), ["T-ASSIST-2"]);
    let odd = Made {
        author: "x\u{1b}[2J: {provenance: Human} (aider) <ann@example.com>".to_owned(),
        ..Made::default()
    };
    let text = document::text(&of(&[odd])).unwrap();
    let parsed: serde_json::Value = serde_saphyr::from_str(&text).unwrap();
    assert_eq!(parsed["change"]["provenance"], "GenAIAutonomous", "{text}");
    assert!(!text.contains('\u{1b}'));
}

#[test]
fn no_header_and_no_character_hides_a_message() {
    let marked = "Fix\n\nCo-Authored-By: Claude <noreply@anthropic.com>\n";
    for encoding in ["IBM037", "UTF-16LE", "UTF-7", "nothing"] {
        let folder = repository(&[Made::default()]);
        let (at, length) = ("1700000100 +0000", marked.len());
        let stream = format!(
            "commit refs/heads/main\nauthor {ANN} {at}\ncommitter {ANN} {at}\nencoding {encoding}\ndata {length}\n{marked}\n\
             from refs/heads/main^0\n\n"
        );
        git(folder.path(), &["fast-import", "--quiet"], &stream);
        assert_eq!(rules_of(&scan(&args(folder.path())).unwrap()), ["ENCODING", "T-CLAUDE"], "{encoding}");
    }
    let breaks = "Fix\n\nCo-Authored-By: x\u{2028}change: {provenance: Human}\u{2028}---\u{2028}# <noreply@anthropic.com>";
    let scanned =
        of(&[message(breaks), message("Fix\r\rCo-Authored\u{200b}-By: Claude <noreply@anthropic.com>\r")]);
    assert_eq!(rules_of(&scanned), ["T-CLAUDE"], "each line by itself");
    let hidden = Made { author: "A\u{fffe}\u{202e} (aider) <ann@example.com>".to_owned(), ..Made::default() };
    let text = document::text(&of(&[hidden])).unwrap();
    assert!(
        text.contains("provenance: GenAIAutonomous") && !text.contains(['\u{fffe}', '\u{202e}']),
        "{text}"
    );
}

#[test]
fn neither_the_clone_nor_the_environment_changes_what_is_read() {
    let folder = repository(&[with_trailer("Assisted-by: Claude:claude-opus-4"), Made::default()]);
    let path = folder.path();
    let is_found = |what: &str| assert_eq!(rules_of(&scan(&args(path)).unwrap()), ["T-ASSIST-1"], "{what}");
    is_found("plain");
    git(path, &["config", "core.commentChar", "A"], "");
    git(path, &["config", "diff.ignoreSubmodules", "bogus"], "");
    is_found("configuration");
    let [last, marked, base] = ["main", "main~1", "base"].map(|name| git(path, &["rev-parse", name], ""));
    std::fs::create_dir_all(path.join(".git/info")).unwrap();
    std::fs::write(path.join(".git/info/grafts"), format!("{last} {base}\n")).unwrap();
    is_found("grafts");
    git(path, &["replace", "-f", &marked, &base], "");
    is_found("replacements");
    // A tag of the same name would win over the branch.
    git(path, &["tag", "main", "base"], "");
    let failure = scan(&args(path)).unwrap_err();
    assert!(failure.text.contains("is the name of several things"), "{}", failure.text);
    let asked = Scan { range: Some("base..refs/heads/main".to_owned()), ..args(path) };
    assert_eq!(rules_of(&scan(&asked).unwrap()), ["T-ASSIST-1"]);
}

#[test]
fn a_submodule_that_moves_is_not_a_persons_work() {
    // Also where the code that the commit says it was rendered from is not here.
    let rendered = format!("Bump\n\nArgocd-reference-commit-sha: {}\n", "0".repeat(40));
    for (message, wanted) in
        [("Bump".to_owned(), vec!["H-SUBMODULE"]), (rendered, vec!["R-SOURCE", "H-SUBMODULE"])]
    {
        let folder = repository(&[Made::default()]);
        let stream = format!(
            "commit refs/heads/main\nauthor {ANN} 1700000100 +0000\ncommitter {ANN} 1700000100 +0000\ndata {}\n{message}\n\
             from refs/heads/main^0\nM 160000 0123456789012345678901234567890123456789 vendor/pay\n\n",
            message.len()
        );
        git(folder.path(), &["fast-import", "--quiet"], &stream);
        let scanned = scan(&args(folder.path())).unwrap();
        assert_eq!((rules_of(&scanned), scanned.provenance), (wanted, Provenance::Unknown));
    }
}

#[test]
fn a_change_that_has_nothing_in_common_with_its_base_is_scanned_without_its_size() {
    let folder = repository(&[Made::default()]);
    let stream = format!(
        "commit refs/heads/other\nauthor {ANN} 1700000100 +0000\ncommitter {ANN} 1700000100 +0000\ndata 26\nNew\n\nAI-assistant: some\n\n\n"
    );
    git(folder.path(), &["fast-import", "--quiet"], &stream);
    let scanned = scan(&Scan { range: Some("main..other".to_owned()), ..args(folder.path()) }).unwrap();
    assert_eq!((rules_of(&scanned), scanned.size.clone()), (vec!["T-KEYS-1"], None));
    assert!(document::text(&scanned).unwrap().contains("size not known"));
}

#[test]
fn the_answer_can_be_pasted_and_patched() {
    let folder = repository(&[with_trailer("Assisted-by: Claude Code"), Made::default()]);
    let asked = Scan {
        image: vec!["registry.example/shop/checkout@sha256:0123".to_owned()],
        declared: Some(Provenance::Human),
        ..args(folder.path())
    };
    let scanned = scan(&asked).unwrap();
    let ids = [(scanned.commit.clone().unwrap(), "HEAD"), (scanned.base.clone(), "BASE")];
    let found = scanned.findings[0].commit.clone().unwrap();
    let mut text = document::text(&scanned).unwrap() + &document::patch(&scanned).unwrap();
    text += &serde_json::to_string_pretty(&document::of(&scanned)).unwrap();
    for (id, name) in ids.into_iter().chain([(found, "ASSISTED")]) {
        text = text.replace(&id, name).replace(&id[..12], name);
    }
    insta::assert_snapshot!("scan", text);
}

#[test]
fn a_shallow_clone_says_nothing() {
    let origin = repository(&[Made::default(), Made::default()]);
    let clone = TempDir::new().unwrap();
    let from = format!("file://{}", origin.path().display());
    git(clone.path(), &["clone", "-q", "--depth=1", &from, "shop"], "");
    let mut asked = args(&clone.path().join("shop"));
    asked.range = Some("HEAD".to_owned());
    let failure = scan(&asked).unwrap_err();
    assert!(
        failure.text.contains("is a shallow clone") && failure.text.contains("fetch-depth: 0"),
        "{}",
        failure.text
    );
    assert_eq!(failure.code, Code::Error);
}

#[test]
fn bad_ranges_say_what_to_write() {
    let folder = repository(&[Made::default()]);
    let said = |range: Option<&str>| {
        let asked = Scan { range: range.map(ToOwned::to_owned), ..args(folder.path()) };
        let failure = scan(&asked).unwrap_err();
        let base = git(folder.path(), &["rev-parse", "base"], "");
        failure.text.replace(&folder.path().display().to_string(), "DIR").replace(&base[..12], "BASE")
    };
    let ranges = [None, Some("nowhere..main"), Some("base...main"), Some("..main"), Some("base..base")];
    insta::assert_snapshot!("range_errors", ranges.map(said).join("\n"));
    let nowhere = TempDir::new().unwrap();
    assert!(scan(&args(nowhere.path())).unwrap_err().text.contains("not a git repository"));
}

#[test]
fn ten_thousand_commits_are_no_matter() {
    let made: Vec<Made> = (0..10_000)
        .map(|number| match number % 50 {
            0 => with_trailer("Co-authored-by: Copilot <223556219+Copilot@users.noreply.github.com>"),
            _ => message("Pay faster\n\nA line about it.\nAnother one, which is longer than the first.\n\nSigned-off-by: Ann <ann@example.com>"),
        })
        .collect();
    let folder = repository(&made);
    let began = Instant::now();
    let scanned = scan(&args(folder.path())).unwrap();
    let seconds = began.elapsed().as_secs_f64();
    println!("{} commits, {} findings: {seconds:.2} s", scanned.commits, scanned.findings.len());
    assert_eq!((scanned.commits, scanned.findings.len()), (10_000, 200));
    // An unoptimized build on a busy machine.
    assert!(seconds < 20.0, "{seconds:.1} s");
}
