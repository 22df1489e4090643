//! Who wrote a change: by git, where a scan finds what a claim hides, and by annotations, for pipelines that know only kubectl.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use sluice_core::api::{ConditionStatus, ConditionType, Provenance, RiskClass, Run};
use tokio::process::Command;

use super::Scenario;
use super::cli::cli;
use super::expect::{RUN, clean, ended, event, forget, serving};
use crate::shared;
use crate::world::{App, NAME, World};

/// Those of this file.
pub fn scenarios() -> Vec<Scenario> {
    vec![shared!(a_scan_finds_what_a_claim_hides), shared!(kubectl_set_image_and_annotate_declare_a_change)]
}

/// Waits for the run after `runs` earlier ones.
async fn started(app: &App<'_>, runs: i64) -> Result<Run> {
    let begun =
        |status: &sluice_core::api::ProgressiveRolloutStatus| status.run_count > runs && status.run.is_some();
    app.wait("a run", RUN, begun).await?.run.context("no run")
}

fn is(run: &Run, provenance: Provenance, class: RiskClass) -> Result<()> {
    let found = (run.plan.provenance, run.plan.risk_class);
    ensure!(found == (provenance, class), "run {}: {found:?}", run.id);
    Ok(())
}

/// Calls git in a folder, as a person called Ann.
pub async fn git(folder: &Path, args: &[&str]) -> Result<()> {
    let mut git = Command::new("git");
    git.arg("-C").arg(folder).args(["-c", "user.name=Ann", "-c", "user.email=ann@example.com"]).args(args);
    // Whatever the machine has set up for its own commits stays out.
    git.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
    let output = git.output().await.context("git")?;
    ensure!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// The author says that a person wrote it; a trailer in git says that an agent helped. The pipeline scans, and applies both.
async fn a_scan_finds_what_a_claim_hides(world: &World<'_>) -> Result<()> {
    let app = serving(world, clean("scan-finds")).await?;
    let folder = world.cluster.paths.run_dir.join("scan-finds-git");
    std::fs::create_dir_all(&folder)?;
    git(&folder, &["init", "-q", "-b", "main"]).await?;
    git(&folder, &["commit", "-q", "--allow-empty", "-m", "Serve pages"]).await?;
    git(&folder, &["tag", "base"]).await?;
    let message = "Serve them faster\n\nCo-Authored-By: Claude <noreply@anthropic.com>";
    git(&folder, &["commit", "-q", "--allow-empty", "-m", message]).await?;
    git(&folder, &["commit", "-q", "--allow-empty", "-m", "Tidy up by hand"]).await?;

    let image = app.spec.image("2");
    let place = folder.display().to_string();
    let scan = ["scan", "base..main", "-C", &place, "--declared", "Human", "--image", &image, "--patch"];
    let said = cli(&app, &scan).await?.with(6)?.says("ProvenanceMismatch: declared as Human")?;
    let patch: Value = serde_json::from_str(&said.out).context("the patch")?;
    app.patch_rollout(patch).await?;
    // What was found outlasts a claim that is put back by hand.
    app.declare(&image, Provenance::Human).await?;
    app.set_image(&image).await?;
    // No line changed: of a person it would be R0.
    is(&started(&app, 0).await?, Provenance::GenAIAssisted, RiskClass::R1)?;
    let points = app.status().await?.plan.map(|plan| plan.points);
    ensure!(points == Some(4), "{points:?} points");
    event(&app, "ProvenanceMismatch", "of the scan says GenAIAssisted: GenAIAssisted counts").await?;
    let conditions = app.status().await?.conditions;
    let verified = conditions.iter().find(|c| c.kind == ConditionType::ProvenanceVerified);
    let verified = verified.map(|condition| (condition.status, condition.reason.as_str()));
    ensure!(verified == Some((ConditionStatus::False, "Mismatch")), "{verified:?}");
    cli(&app, &["status", NAME]).await?.with(0)?.says("GenAIAssisted counts")?;
    forget(&app).await
}

/// The second change says nothing: the annotations that are still there do not speak for it.
async fn kubectl_set_image_and_annotate_declare_a_change(world: &World<'_>) -> Result<()> {
    let app = serving(world, clean("annotated")).await?;
    let deployment = format!("deployment/{NAME}");
    app.set_image(&app.spec.image("2")).await?;
    let commit = "9f2c1ab4d0e15577";
    let (named, written) = (format!("sluice.dev/commit={commit}"), "sluice.dev/provenance=Human");
    app.kubectl(&["annotate", &deployment, &named, written]).await?;
    let run = started(&app, 0).await?;
    is(&run, Provenance::Human, RiskClass::R1)?;
    ensure!(run.canary.commit.as_deref() == Some(commit), "commit {:?}", run.canary.commit);
    app.wait_weight(10, RUN).await?;

    app.set_image(&app.spec.image("3")).await?;
    let record = ended(&app, 0, RUN).await?;
    ensure!(record.commit.as_deref() == Some(commit), "the record says commit {:?}", record.commit);
    let run = started(&app, 1).await?;
    is(&run, Provenance::Unknown, RiskClass::R2)?;
    ensure!(run.canary.commit.is_none(), "it is said to be of commit {:?}", run.canary.commit);

    // A riskier word that comes late counts at once.
    let change = json!({"metadata": {"annotations": {"sluice.dev/commit": "aaaaaaa1", "sluice.dev/provenance": "GenAIAutonomous"}}});
    app.kubectl(&["patch", &deployment, "--type=merge", "-p", &change.to_string()]).await?;
    app.wait("the late word", RUN, |status| {
        status.run.as_ref().is_some_and(|run| run.plan.risk_class == RiskClass::R3)
    })
    .await?;
    forget(&app).await
}
