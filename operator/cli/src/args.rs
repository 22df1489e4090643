//! The command line.

use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{ArgGroup, Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};
use jiff::SignedDuration;
use sluice_core::api::{Provenance, RiskClass};

use crate::follow::SHORTEST_COMMIT;

/// See and steer progressive rollouts.
#[derive(Debug, Parser)]
#[command(
    name = "kubectl-sluice",
    version,
    about,
    after_help = "Exit codes: 0 promoted or idle, 1 error, 2 usage, 3 rejected, aborted, not proven or reverted, 4 waits for a person, 5 timeout, 6 gate failed, 7 superseded. They describe the run for `status`; any other command that did its work returns 0.",
    propagate_version = true,
    subcommand_required = true
)]
pub struct Cli {
    /// Flags of every command.
    #[command(flatten)]
    pub global: Global,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// Flags of every command.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Namespace; default: that of the context
    #[arg(short, long, global = true, value_name = "NAME")]
    pub namespace: Option<String>,
    /// Context of the kubeconfig; default: the current one
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<String>,
    /// Kubeconfig; default: $KUBECONFIG, then ~/.kube/config, then the pod's ServiceAccount
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// User to act as
    #[arg(long = "as", global = true, value_name = "USER")]
    pub act_as: Option<String>,
    /// Group to act as, may be repeated; needs --as
    #[arg(long = "as-group", global = true, value_name = "GROUP", requires = "act_as")]
    pub act_as_group: Vec<String>,
    /// Output: text when not given
    #[arg(short, long, global = true, value_name = "FORMAT")]
    pub output: Option<Output>,
    /// Colours; auto: on a terminal, unless NO_COLOR is set or TERM is dumb
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub color: Color,
}

/// Output formats besides text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Text with more columns, or with events.
    Wide,
    /// JSON, apiVersion cli.sluice.dev/v1alpha1.
    Json,
    /// YAML of the same shape.
    Yaml,
    /// Only `kind/name`.
    Name,
}

/// When to use colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show where a rollout stands, what it waits for and for how long
    Status(Status),
    /// List rollouts
    #[command(visible_alias = "ls")]
    List(List),
    /// Return all traffic to stable and reject the revision
    Abort(Request),
    /// Keep the weight where it is; aborts still happen
    Pause(Request),
    /// Go on after a pause, or past limits.pauseBeforePercent
    Resume(Request),
    /// Let a held revision run again after its run was rejected or not proven
    Retry(Request),
    /// Show what would happen to a change: steps, requests, what is caught, and the harm until then. Changes nothing
    Plan(Plan),
    /// Look at what guards see
    #[command(subcommand)]
    Guard(Guard),
    /// Write the trace of a run while it goes on, for simulate --trace. Changes nothing
    Record(Record),
    /// Replay recorded or past rollouts: what would have been stopped, when, and what promoted. Changes nothing
    Simulate(Box<Simulate>),
    /// Say what git knows about who wrote a change, as a change block for the rollout. Changes nothing
    Scan(Box<Scan>),
    /// Show the version of this program and of the controller
    Version(Version),
    /// Print a completion script
    Completion(Completion),
}

/// `status`
#[derive(Debug, Args)]
pub struct Status {
    /// The ProgressiveRollout; not needed when the namespace has exactly one
    pub name: Option<String>,
    /// Follow it until the run ends; a held revision's run is waited for. One line per change when the output
    /// is not a terminal
    #[arg(short, long)]
    pub watch: bool,
    /// Wait for the run of this commit (7 to 64 hexadecimal digits) and follow it; implies --watch
    #[arg(long, value_name = "SHA", value_parser = commit)]
    pub commit: Option<String>,
    /// With --watch: give up after this time, such as 90s, 30m or 4h (exit code 5); default: never
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub timeout: Option<SignedDuration>,
    /// With --watch: also end (exit code 4) when the run waits for a person
    #[arg(long)]
    pub until_pause: bool,
}

/// `list`
#[derive(Debug, Args)]
pub struct List {
    /// All namespaces
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    pub all_namespaces: bool,
    /// Label selector, such as team=shop
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    pub selector: Option<String>,
}

/// `abort`, `pause`, `resume`, `retry`
#[derive(Debug, Args)]
pub struct Request {
    /// The ProgressiveRollout; not needed when the namespace has exactly one
    pub name: Option<String>,
    /// Act only on this run; refused when another one is under way
    #[arg(long, value_name = "ID")]
    pub run: Option<String>,
    /// Return once the request is written; default: wait for the controller's answer, and for abort until
    /// weight 0 is verified
    #[arg(long)]
    pub no_wait: bool,
    /// Stop waiting after this time, such as 90s or 5m (exit code 5); the request stays. Default 60s; abort:
    /// 5m, or the drain time of the rollout and 2m if that is longer
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub timeout: Option<SignedDuration>,
}

/// `plan`
#[derive(Debug, Args)]
#[command(
    after_help = "With a template that is held, or in a run, the plan is that of this change; else that of the next one, \
                  as spec.change declares it. With -f it is that of the change that the file describes. Exit code 0 also when \
                  the traffic is too low: the text and `tooLow` say so; 6 when --fail-at or --require-declared says no."
)]
pub struct Plan {
    /// The ProgressiveRollout; not needed when the namespace has exactly one
    pub name: Option<String>,
    /// Suppose that this share of the change's requests fails, such as 5% or 0.2%. Default: ten times stable's share, or
    /// 1% if stable has no failures
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    pub suppose: Option<f64>,
    /// Plan as if the change were of this class
    #[arg(long, value_name = "CLASS", ignore_case = true, value_parser = one_of(&RiskClass::ALL, RiskClass::as_str))]
    pub class: Option<RiskClass>,
    /// The ProgressiveRollout as this file, or standard input (-), has it, instead of the cluster's
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// No cluster: policies and namespaces from this file or folder, for the worst case of what only a cluster knows
    #[arg(long, value_name = "DIR", requires = "file", conflicts_with_all = ["suppose", "prometheus"])]
    pub policy: Option<PathBuf>,
    /// Exit with code 6 when the class is this or a riskier one
    #[arg(long, value_name = "CLASS", conflicts_with = "class", ignore_case = true, value_parser = one_of(&RiskClass::ALL, RiskClass::as_str))]
    pub fail_at: Option<RiskClass>,
    /// Exit with code 6 when nobody says who wrote the change
    #[arg(long)]
    pub require_declared: bool,
    /// Where the metrics are
    #[command(flatten)]
    pub reach: Reach,
}

/// `guard`
#[derive(Debug, Subcommand)]
pub enum Guard {
    /// Ask what each guard asks, and show the query, the series, the counts of each arm and the time it took
    Test(GuardTest),
}

/// `guard test`
#[derive(Debug, Args)]
#[command(
    after_help = "Exit code 0 when every guard has usable data, 1 when one has none: its line says what to correct."
)]
pub struct GuardTest {
    /// The ProgressiveRollout; not needed when the namespace has exactly one
    pub name: Option<String>,
    /// Only this guard; may be repeated
    #[arg(long = "guard", value_name = "NAME")]
    pub guards: Vec<String>,
    /// Where the metrics are
    #[command(flatten)]
    pub reach: Reach,
    /// Base address of Alertmanager; default: the rollout's, then the installation's
    #[arg(long, value_name = "URL")]
    pub alertmanager: Option<String>,
}

/// `record`
#[derive(Debug, Args)]
#[command(
    after_help = "It begins with the hour before the run, as far as the metrics have it, waits for a run if none is under \
                  way, and ends with it."
)]
pub struct Record {
    /// The ProgressiveRollout; not needed when the namespace has exactly one
    pub name: Option<String>,
    /// Record every run, one file each, NAMESPACE-NAME-RUN.jsonl, in this directory, until interrupted. Default: one run, to
    /// standard output
    #[arg(long, value_name = "DIR")]
    pub write: Option<PathBuf>,
    /// Seconds between two records, 1 to 300; default: as often as the controller evaluates
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(i32).range(1..=300))]
    pub every: Option<i32>,
    /// Where the metrics are
    #[command(flatten)]
    pub reach: Reach,
}

/// How to reach the providers from here.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Providers")]
pub struct Reach {
    /// Base address of Prometheus; default: the rollout's, then the installation's, with their Secret
    #[arg(long, value_name = "URL")]
    pub prometheus: Option<String>,
    /// Header of every request to addresses that are given here, such as X-Scope-OrgID=team; may be repeated
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = header)]
    pub headers: Vec<(String, String)>,
    /// File with a bearer token for addresses that are given here
    #[arg(long, value_name = "FILE")]
    pub bearer_file: Option<PathBuf>,
    /// File with CA certificates, PEM, for addresses that are given here
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
}

/// `simulate`
#[derive(Debug, Args)]
#[command(
    group = ArgGroup::new("source").required(true).args(["trace", "from_prometheus"]),
    after_help = "Output: a table on a terminal and with -o wide, else one JSON line per trace and class. Exit code 0 \
                  when everything was replayed, whatever the decisions, and 1 when something could not be read."
)]
pub struct Simulate {
    /// Traces to replay, JSON Lines; a file may hold several, - is standard input
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub trace: Vec<PathBuf>,
    /// Rows that replace those of the built-in class table, YAML
    #[arg(long, value_name = "FILE")]
    pub policy: Option<PathBuf>,
    /// Judge by this class instead of the trace's; may be repeated. Default: the trace's class or R2, and all for
    /// past rollouts
    #[arg(long = "class", value_name = "CLASS", ignore_case = true)]
    pub classes: Vec<Class>,
    /// One pod alone can't stop a canary of at least three
    #[arg(long)]
    pub two_pods: bool,
    /// One JSON line per record too
    #[arg(long, conflicts_with = "from_prometheus")]
    pub verbose: bool,
    /// Replay the past rollouts that the metrics of this Prometheus show
    #[arg(long, value_name = "URL", requires = "workload", conflicts_with = "trace")]
    pub from_prometheus: Option<String>,
    /// Where its metrics are, and how to ask for them
    #[command(flatten)]
    pub past: Past,
}

/// `simulate --from-prometheus`
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Past rollouts")]
pub struct Past {
    /// The Deployment
    #[arg(long, value_name = "[NAMESPACE/]NAME", requires = "from_prometheus")]
    pub workload: Option<String>,
    /// How far back to look, such as 12h or 30d
    #[arg(long, value_name = "TIME", value_parser = days, default_value = "30d")]
    pub since: SignedDuration,
    /// Counter of requests
    #[arg(long, value_name = "NAME", default_value = "http_requests_total")]
    pub metric: String,
    /// Its label with the status code; default: code, status or status_code
    #[arg(long, value_name = "LABEL", requires = "from_prometheus")]
    pub code_label: Option<String>,
    /// More conditions on its labels, such as job="checkout",path!="/healthz"
    #[arg(long, value_name = "MATCHERS", requires = "from_prometheus")]
    pub matchers: Option<String>,
    /// Buckets of a latency histogram, such as http_request_duration_seconds_bucket
    #[arg(long, value_name = "NAME", requires_all = ["from_prometheus", "latency_slo"])]
    pub latency_metric: Option<String>,
    /// Requests slower than this are bad, in seconds; best one of the buckets' bounds
    #[arg(long, value_name = "SECONDS", requires = "latency_metric")]
    pub latency_slo: Option<f64>,
    /// Scrape interval; default: measured
    #[arg(long, value_name = "TIME", value_parser = duration, requires = "from_prometheus")]
    pub scrape: Option<SignedDuration>,
    /// Header of every request, such as X-Scope-OrgID=team; may be repeated
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = header, requires = "from_prometheus")]
    pub headers: Vec<(String, String)>,
    /// File with a bearer token
    #[arg(long, value_name = "FILE", requires = "from_prometheus")]
    pub bearer_file: Option<PathBuf>,
    /// Keep the traces in this directory, for --trace
    #[arg(long, value_name = "DIR", requires = "from_prometheus")]
    pub write: Option<PathBuf>,
}

/// `scan`
#[derive(Debug, Args)]
#[command(
    after_help = "Exit code 6 when more was found than --declared says, or at least what --fail-at says; 0 otherwise, whatever \
                  was found. A shallow clone is an error: what is not there can't be scanned."
)]
pub struct Scan {
    /// The commits of the change, BASE..HEAD; BASE alone: up to HEAD. Default: from the remote's default branch
    #[arg(value_name = "BASE..HEAD")]
    pub range: Option<String>,
    /// The repository
    #[arg(short = 'C', long, value_name = "DIR", default_value = ".")]
    pub repository: PathBuf,
    /// What the change is declared to be. What is found can only raise it
    #[arg(long, value_name = "PROVENANCE", ignore_case = true, value_parser = one_of(&Provenance::ALL, Provenance::as_str))]
    pub declared: Option<Provenance>,
    /// Exit with code 6 when the change is at least this, in the order Human, GenAIAssisted, Unknown, GenAIAutonomous
    #[arg(long, value_name = "PROVENANCE", ignore_case = true, value_parser = one_of(&Provenance::ALL, Provenance::as_str))]
    pub fail_at: Option<Provenance>,
    /// An image of the change, as the pod template has it; may be repeated
    #[arg(long, value_name = "IMAGE", value_parser = image)]
    pub image: Vec<String>,
    /// Print a merge patch: kubectl patch progressiverollout NAME --type merge -p "$(kubectl sluice scan --patch)"
    #[arg(long, conflicts_with = "output")]
    pub patch: bool,
    /// Branch of the pull request
    #[arg(long, value_name = "NAME")]
    pub branch: Option<String>,
    /// Account that opened the pull request
    #[arg(long, value_name = "ACCOUNT")]
    pub opened_by: Option<String>,
    /// Label of the pull request; may be repeated
    #[arg(long, value_name = "NAME")]
    pub label: Vec<String>,
    /// A clone of the source, when the commits are of manifests that a program rendered from it
    #[arg(long, value_name = "DIR")]
    pub source: Option<PathBuf>,
    /// An Agent Trace record, JSON, about a commit of the change; may be repeated
    #[arg(long, value_name = "FILE")]
    pub agent_trace: Vec<PathBuf>,
    /// An in-toto statement, JSON, plain or in an envelope, about a commit of the change; may be repeated. Its signature is
    /// not checked here
    #[arg(long, value_name = "FILE")]
    pub attestation: Vec<PathBuf>,
    /// Rules instead of the built-in ones, YAML
    #[arg(long, value_name = "FILE")]
    pub rules: Option<PathBuf>,
}

/// A risk class, or all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Class {
    /// Lowest risk.
    #[value(name = "R0")]
    R0,
    /// Low risk.
    #[value(name = "R1")]
    R1,
    /// Medium risk.
    #[value(name = "R2")]
    R2,
    /// High risk.
    #[value(name = "R3")]
    R3,
    /// Highest risk.
    #[value(name = "R4")]
    R4,
    /// Each of them.
    All,
}

impl Class {
    /// The classes that it stands for.
    pub fn classes(self) -> Vec<RiskClass> {
        match self {
            Self::R0 => vec![RiskClass::R0],
            Self::R1 => vec![RiskClass::R1],
            Self::R2 => vec![RiskClass::R2],
            Self::R3 => vec![RiskClass::R3],
            Self::R4 => vec![RiskClass::R4],
            Self::All => RiskClass::ALL.to_vec(),
        }
    }
}

/// `version`
#[derive(Debug, Args)]
pub struct Version {
    /// Only this program's version; asks no cluster
    #[arg(long)]
    pub client: bool,
}

/// `completion`
#[derive(Debug, Args)]
pub struct Completion {
    /// For which shell; kubectl: the file kubectl_complete-sluice, which makes `kubectl sluice <TAB>` work
    pub shell: Shell,
}

/// Shells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    /// Bash.
    Bash,
    /// Zsh.
    Zsh,
    /// Fish.
    Fish,
    /// kubectl's own completion, in any shell.
    Kubectl,
}

/// One of these, by its name.
fn one_of<T: Copy + Send + Sync + 'static>(
    all: &'static [T],
    name: fn(T) -> &'static str,
) -> impl TypedValueParser<Value = T> {
    let find = move |text: String| {
        let found = all.iter().copied().find(|value| name(*value).eq_ignore_ascii_case(&text));
        found.ok_or_else(|| format!("{text:?} is none of them"))
    };
    PossibleValuesParser::new(all.iter().map(|value| name(*value))).try_map(find)
}

fn commit(text: &str) -> Result<String, String> {
    let hex = text.bytes().all(|b| b.is_ascii_hexdigit());
    if hex && (SHORTEST_COMMIT..=64).contains(&text.len()) {
        Ok(text.to_ascii_lowercase())
    } else {
        Err("write 7 to 64 hexadecimal digits, such as the output of git rev-parse HEAD".to_owned())
    }
}

fn duration(text: &str) -> Result<SignedDuration, String> {
    let parsed = match text.parse::<u32>() {
        Ok(seconds) => Some(SignedDuration::from_secs(i64::from(seconds))),
        Err(_) => text.parse().ok(),
    };
    match parsed {
        Some(time) if time > SignedDuration::ZERO => Ok(time),
        _ => Err("write a time above 0, such as 90s, 30m or 4h".to_owned()),
    }
}

/// A time of which days are a part: no clock change matters to how far back one looks.
fn days(text: &str) -> Result<SignedDuration, String> {
    let number = text.strip_suffix('d').and_then(|days| days.parse::<u16>().ok()).filter(|days| *days > 0);
    match number {
        Some(days) => Ok(SignedDuration::from_hours(24 * i64::from(days))),
        None => duration(text).map_err(|_| "write a time above 0, such as 12h, 7d or 30d".to_owned()),
    }
}

/// A share of requests, above 0 and at most all of them, as a fraction.
fn percent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').and_then(|number| number.trim().parse::<f64>().ok());
    match number {
        Some(percent) if percent > 0.0 && percent <= 100.0 => Ok(percent / 100.0),
        _ => Err("write a share above 0% and up to 100%, such as 5% or 0.2%".to_owned()),
    }
}

fn image(text: &str) -> Result<String, String> {
    match text.is_empty() || text.contains(char::is_whitespace) {
        true => {
            Err("write the image as the pod template has it, such as registry.example/shop@sha256:..."
                .to_owned())
        }
        false => Ok(text.to_owned()),
    }
}

fn header(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write NAME=VALUE, such as X-Scope-OrgID=team".to_owned()),
    }
}

/// Parses the command line of this process; ends it on `--help`, `--version` and mistakes.
pub fn parse(program: &str) -> Cli {
    let matches = Cli::command().bin_name(program).get_matches();
    Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
}

/// How people call this program: kubectl finds plugins by the name of the binary.
pub fn program(argv0: &str) -> String {
    let name = argv0.rsplit(['/', '\\']).next().unwrap_or(argv0);
    let name = name.strip_suffix(".exe").unwrap_or(name);
    match name.strip_prefix("kubectl-") {
        Some(plugin) => format!("kubectl {}", plugin.replace('_', "-")),
        None => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_plugin_is_called_through_kubectl() {
        assert_eq!(program("/usr/local/bin/kubectl-sluice"), "kubectl sluice");
        assert_eq!(program("kubectl-sluice.exe"), "kubectl sluice");
        assert_eq!(program("./sluice"), "sluice");
    }

    #[test]
    fn times_and_commits_say_what_to_write() {
        assert_eq!(duration("90"), Ok(SignedDuration::from_secs(90)));
        assert_eq!(duration("1h30m"), Ok(SignedDuration::from_mins(90)));
        assert!(duration("0s").is_err() && duration("soon").is_err() && duration("-5m").is_err());
        assert_eq!(days("30d"), Ok(SignedDuration::from_hours(720)));
        assert_eq!(days("12h"), Ok(SignedDuration::from_hours(12)));
        assert!(days("0d").is_err() && days("1w2d").is_err());
        assert_eq!(header("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert!(header("a: b").is_err());
        assert!((percent("0.2%").unwrap() - 0.002).abs() < 1e-12);
        assert!(["5", "0%", "101%", "NaN%", "x%"].iter().all(|text| percent(text).is_err()));
        assert_eq!(commit("9F2C1AB"), Ok("9f2c1ab".to_owned()));
        assert!(commit("9f2c1").is_err() && commit("release-1.2").is_err());
    }
}
