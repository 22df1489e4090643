//! The same faulty change as others declare it, of which nobody says who wrote it, and which its author calls his own while
//! git says that an agent helped.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use sluice_core::api::{ConditionStatus, ConditionType, Provenance};

use super::RUN_LIMIT;
use super::narrator::Narrator;
use super::play::Play;
use super::report::Scenario;
use crate::scenarios::cli::cli;
use crate::scenarios::provenance::git;
use crate::world::App;

/// Lines of the change: as many that an assistant's change of this size is of the class of one of which no size is known.
const LINES: usize = 480;
/// What the tool left behind.
const TRAILER: &str = "Co-Authored-By: Claude <noreply@anthropic.com>";

/// `spec.change` as a scan writes it of one commit that changes so many lines, and that nothing was found in.
pub fn scanned(provenance: &str, image: &str, lines: usize) -> Value {
    let commit = "9f2c1ab4d0e15a7c3b21f08d6e94c5a7b8d90e12";
    json!({
        "provenance": provenance, "commit": commit, "images": [image], "size": {"changedLines": lines},
        "evidence": {"rulesVersion": "2026.11", "baseCommit": "0c6d1b2e77aa90d2ff3be0a1c4c8417a6a8b3c55", "headCommit": commit,
            "commitsScanned": 1, "declared": provenance},
    })
}

/// Nobody declares anything.
pub async fn undeclared(n: &Narrator, app: &App<'_>, image: &str) -> Result<Scenario> {
    let name = "bad-undeclared";
    let mut play = Play::begin(app).await?;
    n.say(name, &format!("ships {image}, and nobody says who wrote it"));
    app.set_image(image).await?;
    verified(app, "Undeclared").await?;
    play.follow(n, name, app).await?;
    play.end(n, name, app, None).await
}

/// The author declares Human; the pipeline scans what is in git, and applies what it finds.
pub async fn falsely_declared(n: &Narrator, app: &App<'_>, image: &str) -> Result<Scenario> {
    let name = "bad-false-human";
    let mut play = Play::begin(app).await?;
    n.say(name, &format!("a commit with the trailer {TRAILER}; its author declares Human"));
    let folder = app.cluster.paths.run_dir.join("false-human-git");
    std::fs::create_dir_all(&folder)?;
    git(&folder, &["init", "-q", "-b", "main"]).await?;
    git(&folder, &["commit", "-q", "--allow-empty", "-m", "Serve pages"]).await?;
    git(&folder, &["tag", "base"]).await?;
    std::fs::write(folder.join("shop.py"), "serve()\n".repeat(LINES))?;
    git(&folder, &["add", "shop.py"]).await?;
    git(&folder, &["commit", "-q", "-m", &format!("Serve them faster\n\n{TRAILER}")]).await?;
    let place = folder.display().to_string();
    let scan = ["scan", "base..main", "-C", &place, "--declared", "Human", "--image", image, "--patch"];
    let said = cli(app, &scan).await?.with(6)?.says("ProvenanceMismatch: declared as Human")?;
    n.say(name, said.err.lines().last().unwrap_or_default());
    let patch: Value = serde_json::from_str(&said.out).context("the patch")?;
    app.patch_rollout(patch).await?;
    n.say(name, &format!("the pipeline applies what was found, and ships {image}"));
    app.set_image(image).await?;
    verified(app, "Mismatch").await?;
    play.follow(n, name, app).await?;
    play.end(n, name, app, Some(Provenance::Human)).await
}

/// Waits until the run is under way, whose provenance nothing confirms for this reason.
async fn verified(app: &App<'_>, reason: &str) -> Result<()> {
    let status = app.wait("a run", RUN_LIMIT, |status| status.run.is_some()).await?;
    let found = status.conditions.iter().find(|c| c.kind == ConditionType::ProvenanceVerified);
    let found = found.map(|condition| (condition.status, condition.reason.as_str()));
    ensure!(found == Some((ConditionStatus::False, reason)), "ProvenanceVerified is {found:?}, not {reason}");
    Ok(())
}
