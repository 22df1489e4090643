//! `kubectl-sluice`, the program that was built beside this one, called as an administrator calls it: with the cluster's
//! kubeconfig, in a shell that is no terminal. What it prints and the code it ends with are what scripts rely on.

use std::process::Output;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use sluice_core::api::{Outcome, Phase, ProgressiveRolloutStatus, Provenance};
use tokio::process::Command;
use tokio::task::JoinHandle;

use super::Scenario;
use super::expect::{LOOK, RUN, SOON, at_rest, clean, ended, forget, no_failures, outcome, served, serving};
use crate::cluster::{Cluster, until};
use crate::record;
use crate::shared;
use crate::world::{App, AppSpec, NAME, SLUICE, World};

/// Those of this file.
pub fn scenarios() -> Vec<Scenario> {
    vec![
        shared!(cli_follows_pauses_and_resumes_a_run_until_it_is_promoted),
        shared!(cli_abort_returns_at_weight_0_and_retry_starts_the_revision_again),
    ]
}

/// What a call left behind.
pub struct Said {
    /// The exit code.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Said {
    fn of(output: Output) -> Result<Self> {
        Ok(Self {
            code: output.status.code().context("kubectl-sluice was killed")?,
            out: String::from_utf8(output.stdout).context("stdout")?,
            err: String::from_utf8(output.stderr).context("stderr")?,
        })
    }

    /// It ended with this code.
    pub fn with(self, code: i32) -> Result<Self> {
        ensure!(self.code == code, "exit code {}, not {code}: {}{}", self.code, self.out, self.err);
        Ok(self)
    }

    /// It says this on one of its outputs.
    pub fn says(self, text: &str) -> Result<Self> {
        let told = self.out.contains(text) || self.err.contains(text);
        ensure!(told, "it does not say {text:?}: {}{}", self.out, self.err);
        Ok(self)
    }

    fn json(&self, kind: &str) -> Result<Value> {
        let value: Value = serde_json::from_str(&self.out).with_context(|| self.out.clone())?;
        let is = (&value["apiVersion"], &value["kind"]);
        ensure!(is == (&json!("cli.sluice.dev/v1alpha1"), &json!(kind)), "it is {is:?}");
        Ok(value)
    }
}

fn command(cluster: &Cluster, namespace: &str, args: &[&str]) -> Result<Command> {
    let program =
        record::program().context("kubectl-sluice is not there: cargo build --workspace --locked")?;
    let mut command = cluster.tool(&program);
    command.args(args).stdin(std::process::Stdio::null());
    if !args.contains(&"-A") {
        command.args(["-n", namespace]);
    }
    Ok(command)
}

/// Calls it in the application's namespace, or for all.
pub async fn cli(app: &App<'_>, args: &[&str]) -> Result<Said> {
    let mut command = command(app.cluster, &app.spec.namespace, args)?;
    let output = tokio::time::timeout(RUN, command.output()).await;
    Said::of(output.with_context(|| format!("kubectl-sluice {args:?} does not end"))??)
}

/// A call that goes on while others are made.
struct Going(JoinHandle<std::io::Result<Output>>);

impl Going {
    fn begin(app: &App<'_>, args: &[&str]) -> Result<Self> {
        let mut command = command(app.cluster, &app.spec.namespace, args)?;
        Ok(Self(tokio::spawn(async move { command.output().await })))
    }

    async fn end(self) -> Result<Said> {
        let ended = tokio::time::timeout(SOON, self.0).await;
        Said::of(ended.context("kubectl-sluice does not end with the run")???)
    }
}

/// What guards see at rest, and what a change would meet, by the questions that the controller asks.
async fn foretold(app: &App<'_>) -> Result<()> {
    // A record of stable, if a short one.
    tokio::time::sleep(Duration::from_secs(8)).await;
    let said = cli(app, &["guard", "test", NAME, "-o", "json"]).await?.with(0)?.json("GuardTest")?;
    let guard = &said["guards"][0];
    let stable = &guard["lastFiveMinutes"]["stable"];
    ensure!(
        guard["state"] == "Ok"
            && guard["query"].as_str().is_some_and(|query| query.contains("http_requests_total")),
        "{said}"
    );
    ensure!(stable["pods"] == 4 && stable["requests"].as_i64() > Some(100), "{said}");
    ensure!(guard["lastFiveMinutes"]["canary"].is_null(), "{said}");
    let rps = f64::from(app.spec.rps);
    // A record that began before the load tells less than the load's rate, the shorter it is the less.
    until("stable's record tells the load's rate", SOON, LOOK, async || {
        let plan = cli(app, &["plan", NAME, "--class", "R2", "--suppose", "5%", "-o", "json"])
            .await?
            .with(0)?
            .json("Plan")?;
        let found = &plan["guards"][0];
        let stable = &found["stable"];
        let per_second = stable["requests"].as_f64().zip(stable["seconds"].as_f64()).map(|(n, s)| n / s);
        ensure!(plan["change"] == "Next" && plan["riskClass"] == "R2", "{plan}");
        ensure!(
            per_second.is_some_and(|rate| (rate / rps - 1.0).abs() < 0.2),
            "{per_second:?} of {rps} requests/s: {plan}"
        );
        ensure!(found["steps"][0]["abortsFrom"].as_f64().is_some_and(|share| share < 0.2), "{plan}");
        ensure!(found["excess"]["p95"].as_f64() > found["excess"]["mean"].as_f64(), "{plan}");
        Ok(())
    })
    .await?;
    cli(app, &["plan", NAME]).await?.with(0)?.says("ABORTS FROM")?;
    cli(app, &["guard", "test", NAME, "--guard", "none"]).await?.with(2)?.says("only error-rate")?;
    // Nobody listens there.
    let elsewhere = ["guard", "test", NAME, "--prometheus", "http://127.0.0.1:9"];
    cli(app, &elsewhere).await?.with(1)?.says("ProviderDown")?;
    Ok(())
}

/// What `status -w` printed where there is no terminal: one line per change, the last one the end of the run.
fn followed(app: &App<'_>, said: &Said, weights: &[&str], end: &str) -> Result<()> {
    let mut lines: Vec<&str> = said.out.lines().collect();
    let last = lines.pop().unwrap_or_default();
    ensure!(last.starts_with(end), "the last line is {last:?}, not {end:?}");
    ensure!(!said.out.contains('\x1b'), "it drew as on a terminal: {:?}", said.out);
    let place = format!("  {}/{NAME}  ", app.spec.namespace);
    let mut before = "";
    for line in &lines {
        let (time, rest) = line.split_once(&place).with_context(|| format!("a line says {line:?}"))?;
        time.parse::<jiff::Timestamp>().with_context(|| format!("a line begins with {time:?}"))?;
        ensure!(rest != before, "a line is there twice: {line:?}");
        before = rest;
    }
    for weight in weights {
        ensure!(lines.iter().any(|line| line.contains(weight)), "no line says {weight}: {lines:#?}");
    }
    Ok(())
}

fn run_id(status: &ProgressiveRolloutStatus) -> Result<String> {
    Ok(status.run.as_ref().context("no run")?.id.clone())
}

async fn cli_follows_pauses_and_resumes_a_run_until_it_is_promoted(world: &World<'_>) -> Result<()> {
    let commit = "9f2c1ab4d0e15577aa00c3d2e1f09b8a7c6d5e4f";
    let rollout = json!({"watchSeconds": 1});
    let world = &world.clone().recording(Some(record::CLOSELY));
    let mut app = serving(world, AppSpec { rollout, rps: 150, ..clean("cli-follows") }).await?;
    let begin = app.load.snapshot();
    cli(&app, &["status", NAME]).await?.with(0)?;
    foretold(&app).await?;
    // As a pipeline does: it asks for its commit before the change has arrived.
    let pipeline = Going::begin(&app, &["status", NAME, "--commit", &commit[..7], "--timeout", "4m"])?;
    let second = app.spec.image("2");
    let change = json!({"provenance": "Human", "commit": commit, "images": [second]});
    app.patch_rollout(json!({"spec": {"change": change}})).await?;
    app.set_image(&second).await?;
    let status = app.wait_weight(10, RUN).await?;
    let id = run_id(&status)?;
    let person = Going::begin(&app, &["status", NAME, "-w"])?;

    paused(&app, &id).await?;
    looks(&app, &id, commit).await?;
    cli(&app, &["resume", NAME]).await?.with(0)?.says(&id)?;
    app.wait_weight(50, SOON).await?;

    let promoted = format!("[+] run {id} promoted: Proven");
    outcome(&ended(&app, 0, RUN).await?, Outcome::Promoted, "Proven")?;
    let person = person.end().await?.with(0)?;
    followed(&app, &person, &["10%", "Paused: ", "50%", "100%"], &promoted)?;
    let pipeline = pipeline.end().await?.with(0)?;
    // A declared template is held and started in one write.
    followed(&app, &pipeline, &["preparing", "10%", "50%", "100%"], &promoted)?;
    ensure!(pipeline.err.contains(&commit[..7]), "it does not say what it waits for: {}", pipeline.err);
    at_rest(&app, Phase::Idle).await?;
    cli(&app, &["status", NAME]).await?.with(0)?;
    no_failures(&app, &begin, "while a run was followed by the CLI")?;
    // What was recorded of it says the same on paper.
    app.recording = None;
    let replayed = record::replay(world.cluster, &app.spec.namespace).await?;
    let calm = replayed["score"].as_f64().is_some_and(|score| score < 0.1);
    ensure!(calm && matches!(replayed["decision"].as_str(), Some("Promote" | "Hold")), "{replayed}");
    Ok(())
}

/// Pauses, and sees that the weight stays although the step has passed all that it needs.
async fn paused(app: &App<'_>, id: &str) -> Result<()> {
    cli(app, &["pause", NAME]).await?.with(0)?.says(id)?;
    app.wait("the step has all the requests that it needs", RUN, |status| {
        let guard = status.guards.first();
        guard.is_some_and(|guard| {
            guard.needed_requests.is_some() && guard.canary_requests >= guard.needed_requests
        })
    })
    .await?;
    for _ in 0..25 {
        let weights = app.weights().await?;
        ensure!(weights == (90, 10), "weights {weights:?} during a pause");
        tokio::time::sleep(LOOK).await;
    }
    // The code says that it waits for a person, and a second pause is no error.
    cli(app, &["status", NAME]).await?.with(4)?.says("kubectl sluice resume")?;
    cli(app, &["status", NAME, "-w", "--until-pause"]).await?.with(4)?;
    cli(app, &["status", NAME, "-w", "--timeout", "1s"]).await?.with(5)?.says(id)?;
    cli(app, &["pause", NAME]).await?.with(0)?.says("already paused").map(drop)
}

/// What there is for people and for programs while the run is under way.
async fn looks(app: &App<'_>, id: &str, commit: &str) -> Result<()> {
    let list = cli(app, &["list"]).await?.with(0)?;
    let row = list.out.lines().find(|line| line.starts_with(NAME)).with_context(|| list.out.clone())?;
    let cells: Vec<&str> = row.split_whitespace().collect();
    ensure!(cells[..5] == [NAME, "Canary", "1/3", "10%", "R1"], "list says {row:?}");
    let list = cli(app, &["list", "-A", "-o", "json"]).await?.with(0)?.json("RolloutList")?;
    let ours = |item: &&Value| item["namespace"] == app.spec.namespace.as_str();
    let items: Vec<&Value> = list["items"].as_array().into_iter().flatten().filter(ours).collect();
    ensure!(items.len() == 1 && items[0]["name"] == NAME, "the list has {items:?}");
    ensure!(items[0]["phase"] == "Canary" && items[0]["run"] == id, "the list says {}", items[0]);

    let said = cli(app, &["status", NAME, "-o", "json"]).await?.with(4)?.json("RolloutStatus")?;
    let status = app.status().await?;
    ensure!(said["run"]["id"] == run_id(&status)?.as_str(), "status -o json says run {}", said["run"]["id"]);
    ensure!(said["exitCode"] == 4 && said["waiting"]["reason"] == "Paused", "it waits: {}", said["waiting"]);
    ensure!(said["phase"] == json!(status.phase), "phase {}", said["phase"]);
    ensure!(said["run"]["canary"]["commit"] == commit, "commit {}", said["run"]["canary"]["commit"]);
    ensure!(said["traffic"]["weightPercent"] == 10, "traffic {}", said["traffic"]);
    let name = cli(app, &["status", "-o", "name"]).await?.with(4)?;
    ensure!(name.out == format!("progressiverollout.sluice.dev/{NAME}\n"), "-o name says {:?}", name.out);
    Ok(())
}

async fn cli_abort_returns_at_weight_0_and_retry_starts_the_revision_again(world: &World<'_>) -> Result<()> {
    let app = serving(world, clean("cli-aborts")).await?;
    let begin = app.load.snapshot();
    let second = app.spec.image("2");
    app.ship(&second, Provenance::Human).await?;
    let id = run_id(&app.wait_weight(10, RUN).await?)?;
    let person = Going::begin(&app, &["status", NAME, "-w"])?;
    mistakes(&app).await?;

    let abort = cli(&app, &["abort", NAME]).await?;
    let weights = app.weights().await?;
    let met = served(&app, &second);
    ensure!(weights == (100, 0), "abort returned at weights {weights:?}: {}{}", abort.out, abort.err);
    abort.with(0)?.says(&id)?.says("weight 0 verified")?;
    outcome(&ended(&app, 0, RUN).await?, Outcome::Rejected, "AbortedByUser")?;
    let rejected = format!("[x] run {id} rejected: AbortedByUser");
    followed(&app, &person.end().await?.with(3)?, &["10%", "RETURNING"], &rejected)?;
    at_rest(&app, Phase::Rejected).await?;
    ensure!(served(&app, &second) == met, "the canary met requests after abort had returned");
    cli(&app, &["status", NAME]).await?.with(3)?.says("kubectl sluice retry")?;
    cli(&app, &["status", NAME, "-w"]).await?.with(3)?;
    cli(&app, &["abort", NAME]).await?.with(1)?.says("there is nothing to abort")?;

    cli(&app, &["retry", NAME]).await?.with(0)?.says(&id)?;
    let status = app.wait_weight(10, RUN).await?;
    ensure!(status.run_count == 2, "run {} is under way", status.run_count);
    let images = status.run.map(|run| run.canary.images).unwrap_or_default();
    ensure!(images == [second], "retry started {images:?}");
    no_failures(&app, &begin, "while a run was aborted and tried again by the CLI")?;
    forget(&app).await
}

/// Errors end with their codes, and say what to do.
async fn mistakes(app: &App<'_>) -> Result<()> {
    let namespace = &app.spec.namespace;
    let missing = format!("ProgressiveRollout \"nowhere\" not found in namespace {namespace:?}");
    for args in [&["status", "nowhere"][..], &["status", "nowhere", "-w"], &["abort", "nowhere"]] {
        let said = cli(app, args).await?.with(1)?.says(&missing)?.says("kubectl sluice list -A shows all")?;
        ensure!(said.out.is_empty() && said.err.starts_with("error: "), "{args:?}: {}{}", said.out, said.err);
    }
    cli(app, &["status", NAME, "--timeout", "5s"]).await?.with(2)?.says("need --watch")?;
    cli(app, &["resume", NAME]).await?.with(1)?.says("there is nothing to resume")?;
    cli(app, &["retry", NAME]).await?.with(1)?.says("is under way")?;
    cli(app, &["abort", NAME, "--run", "9-other"]).await?.with(1)?.says("nothing was done")?;

    cli(app, &["version"]).await?.with(0)?.says("Client: ")?.says(&format!("{SLUICE}/sluice  2/2 ready"))?;
    let version = cli(app, &["version", "-o", "json"]).await?.with(0)?.json("Version")?;
    let controllers = version["controllers"].as_array().context("controllers")?;
    ensure!(controllers.len() == 1 && controllers[0]["version"] == version["client"]["version"], "{version}");

    // kubectl finds it by its name, like any plugin.
    let folder = std::env::current_exe()?.parent().context("folder")?.display().to_string();
    let mut kubectl = app.cluster.kubectl();
    let path = std::env::var("PATH").unwrap_or_default();
    kubectl.env("PATH", format!("{folder}:{path}")).args(["sluice", "list", "-n", namespace]);
    let output = tokio::time::timeout(Duration::from_secs(20), kubectl.output()).await;
    Said::of(output.context("kubectl sluice does not end")??)?.with(0)?.says(NAME).map(drop)
}
