//! The whole test in two lanes, each on a cluster of its own: the demo and the scenarios that share an installation in
//! one, those that touch the installation itself in the other. Both mostly wait, so side by side they take little longer
//! than the longer one.

use std::process::{ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

/// Which part of the test a process plays.
#[derive(Clone, Copy, ValueEnum)]
pub enum Lane {
    /// The demo, then the scenarios that share an installation.
    Shared,
    /// The scenarios that need the installation for themselves.
    Alone,
}

impl Lane {
    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Shared => "shared",
            Self::Alone => "alone",
        }
    }
}

/// Plays both lanes, each in a process of its own.
pub fn run() -> Result<ExitCode> {
    tokio::runtime::Runtime::new()?.block_on(async {
        let begin = Instant::now();
        let mut terminate = signal(SignalKind::terminate()).context("signals")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("signals")?;
        let (shared, alone) = tokio::select! {
            // A dropped lane is killed with everything in it.
            both = async { tokio::join!(play(Lane::Shared), play(Lane::Alone)) } => both,
            _ = terminate.recv() => bail!("terminated"),
            _ = interrupt.recv() => bail!("interrupted"),
        };
        let all = shared? && alone?;
        let word = if all { "passed" } else { "FAILED, see above" };
        println!("\nend-to-end tests {word} in {:.0} s", begin.elapsed().as_secs_f64());
        Ok(if all { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    })
}

async fn play(lane: Lane) -> Result<bool> {
    let name = lane.name();
    let mut child: Child = Command::new(std::env::current_exe().context("own path")?)
        .args(std::env::args_os().skip(1))
        .args(["--lane", name])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("lane {name}"))?;
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let (_, _, status) = tokio::join!(tell(name, out), tell(name, err), child.wait());
    Ok(status.with_context(|| format!("lane {name}"))?.success())
}

/// Passes lines on, each with the name of its lane.
async fn tell(lane: &str, from: Option<impl AsyncRead + Unpin>) {
    let Some(from) = from else { return };
    let mut lines = BufReader::new(from).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        println!("{lane:6} | {line}");
    }
}
