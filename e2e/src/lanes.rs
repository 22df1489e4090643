//! The whole test in three parts, each on a cluster of its own: the demo, then the scenarios that share an installation;
//! and beside both, one by one, the scenarios that touch the installation itself. All mostly wait, and two processors have
//! room for two parts at once.

use std::process::{ExitCode, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

/// What lines begin with that say what failed.
const FAILURES: [&str; 2] = ["FAILED", "error:"];

/// Which part of the test a process plays.
#[derive(Clone, Copy, ValueEnum)]
pub enum Lane {
    /// The demo.
    Demo,
    /// The scenarios that share an installation.
    Shared,
    /// The scenarios that need the installation for themselves.
    Alone,
}

impl Lane {
    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Demo => "demo",
            Self::Shared => "shared",
            Self::Alone => "alone",
        }
    }
}

/// Plays all lanes, each in a process of its own.
pub fn run() -> Result<ExitCode> {
    tokio::runtime::Runtime::new()?.block_on(async {
        let begin = Instant::now();
        let mut terminate = signal(SignalKind::terminate()).context("signals")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("signals")?;
        let failures = Mutex::new(Vec::new());
        let lanes = async {
            let demo_then_shared =
                async { (play(Lane::Demo, &failures).await, play(Lane::Shared, &failures).await) };
            let ((demo, shared), alone) = tokio::join!(demo_then_shared, play(Lane::Alone, &failures));
            Ok::<_, anyhow::Error>(demo? & shared? & alone?)
        };
        let all = tokio::select! {
            // A dropped lane is killed with everything in it.
            all = lanes => all?,
            _ = terminate.recv() => bail!("terminated"),
            _ = interrupt.recv() => bail!("interrupted"),
        };
        // Once more, where they are found.
        println!();
        for line in failures.into_inner().unwrap_or_else(PoisonError::into_inner) {
            println!("{line}");
        }
        let word = if all { "passed" } else { "FAILED, see above" };
        println!("end-to-end tests {word} in {:.0} s", begin.elapsed().as_secs_f64());
        Ok(if all { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    })
}

async fn play(lane: Lane, failures: &Mutex<Vec<String>>) -> Result<bool> {
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
    let (_, _, status) = tokio::join!(tell(name, out, failures), tell(name, err, failures), child.wait());
    Ok(status.with_context(|| format!("lane {name}"))?.success())
}

/// Passes lines on, each with the name of its lane, and keeps those that say what failed.
async fn tell(lane: &str, from: Option<impl AsyncRead + Unpin>, failures: &Mutex<Vec<String>>) {
    let Some(from) = from else { return };
    let mut lines = BufReader::new(from).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let line = format!("{lane:6} | {line}");
        println!("{line}");
        if FAILURES.iter().any(|begins| line[lane.len().max(6) + 3..].starts_with(begins)) {
            failures.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        }
    }
}
