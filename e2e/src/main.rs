//! `sluice-e2e`: starts the local cluster and runs what is played on it.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use sluice_e2e::cluster::{Cluster, Options};
use sluice_e2e::kubelet::LocalImage;
use sluice_e2e::lanes::{self, Lane};
use sluice_e2e::world::World;
use sluice_e2e::{bench, demo, external, record, sandbox, scenarios, smoke};
use tokio::signal::unix::{SignalKind, signal};

/// A rootless local Kubernetes and the end-to-end runs on it.
#[derive(Parser)]
struct Cli {
    /// Folder of logs and data [default: a new one per run under target/e2e]
    #[arg(long, global = true)]
    run_dir: Option<PathBuf>,
    /// A program for an image on the node `local`; `sluice-controller` is the one beside this program
    #[arg(long, global = true, value_name = "IMAGE=PROGRAM", value_parser = image)]
    image: Vec<LocalImage>,
    #[command(subcommand)]
    command: Command,
}

fn image(text: &str) -> Result<LocalImage, String> {
    let (name, program) = text.split_once('=').ok_or("write it as name=/path/of/the/program")?;
    let program = std::path::absolute(program).map_err(|e| e.to_string())?;
    if !program.is_file() {
        return Err(format!("{} is not a file", program.display()));
    }
    Ok(LocalImage { name: name.into(), program })
}

#[derive(Subcommand)]
enum Command {
    /// Start the cluster and keep it until interrupted, or run one command with KUBECONFIG set and end with it
    Cluster {
        /// The command and its arguments
        #[arg(last = true)]
        command: Vec<String>,
    },
    /// Start the cluster, send requests through the Gateway, look for the metrics
    Smoke,
    /// Play the end-to-end scenarios: those of the demo, then all others
    Test {
        /// Only scenarios whose name contains this; the demo is left out then
        #[arg(default_value = "")]
        filter: String,
        /// Only one part, on one cluster [default: all, each on its own; with a filter, one cluster for all]
        #[arg(long)]
        lane: Option<Lane>,
    },
    /// Promotion, abort, revert and uninstall with the controller killed after every single step
    TestKill,
    /// Abort bad changes: from the deciding scrape to weight 0 in the router
    BenchAbort {
        /// How many
        #[arg(long, default_value_t = 10)]
        aborts: usize,
    },
    /// The demo's two bad changes again and again: mean excess failures with intervals
    BenchHarm {
        /// How often each
        #[arg(long, default_value_t = 20)]
        repetitions: usize,
    },
    /// Bad changes again and again: whether their harm is within what `plan` foretold
    BenchBound {
        /// How many
        #[arg(long, default_value_t = 36)]
        runs: usize,
    },
    /// Play the demo: good and bad changes under load, side by side
    Demo {
        /// Where the report goes
        #[arg(long, default_value = "target/demo/report.json")]
        report: PathBuf,
    },
    /// Many rollouts at once: time to the first step, to abort, CPU, memory, API requests
    BenchFleet {
        /// How many
        #[arg(long, default_value_t = 100)]
        rollouts: usize,
        /// Let Kubernetes' own controllers send as much as they can, instead of what they are limited to by default:
        /// then the machine's CPU is the limit
        #[arg(long)]
        unthrottled: bool,
    },
    /// One edit of a policy over many held templates: time to the last new plan, and what an edit writes that changes none
    BenchPolicy {
        /// How many
        #[arg(long, default_value_t = 1000)]
        rollouts: usize,
    },
    /// A scan of a long history, without a cluster: its time, what it finds
    BenchScan {
        /// How many
        #[arg(long, default_value_t = 10_000)]
        commits: usize,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match external::run_outside() {
        Ok(Some(code)) => return code,
        Ok(None) => {}
        Err(error) => return failed(error),
    }
    if matches!(&cli.command, Command::Test { filter, lane: None } if filter.is_empty()) && !sandbox::inside()
    {
        return lanes::run().unwrap_or_else(failed);
    }
    if let Command::BenchScan { commits } = cli.command {
        return bench::scan::run(commits).map_or_else(failed, |()| ExitCode::SUCCESS);
    }
    if let Err(error) = sandbox::enter() {
        eprintln!("error: {error:#}\nRun `make preflight`: it names what this machine lacks.");
        return ExitCode::FAILURE;
    }
    let _ = rustls::crypto::ring::default_provider().install_default();
    run(cli).unwrap_or_else(failed)
}

fn failed(error: anyhow::Error) -> ExitCode {
    eprintln!("error: {error:#}");
    ExitCode::FAILURE
}

#[tokio::main]
async fn run(cli: Cli) -> Result<ExitCode> {
    // The first process of a process namespace gets no signal that it does not ask for.
    let mut interrupt = signal(SignalKind::interrupt()).context("signals")?;
    let mut terminate = signal(SignalKind::terminate()).context("signals")?;
    let own_part = match &cli.command {
        Command::Test { lane: Some(lane), .. } => lane.name(),
        _ => "",
    };
    let run_dir = cli.run_dir.map_or_else(default_run_dir, |folder| folder.join(own_part));
    let work = async {
        let mut options = Options::new(&run_dir);
        match cli.command {
            Command::BenchFleet { unthrottled, .. } => {
                options.scrape_interval = bench::fleet::INTERVAL;
                options.client_qps = options.client_qps.filter(|_| unthrottled);
            }
            Command::BenchPolicy { .. } => options.scrape_interval = bench::fleet::INTERVAL,
            _ => {}
        }
        // The first of a name is taken.
        options.images = cli.image.into_iter().chain(default_images()).collect();
        let cluster = Cluster::start(options).await?;
        let done = tokio::select! {
            done = play(&cluster, cli.command) => done,
            died = cluster.failed() => Err(died),
        };
        cluster.stop().await;
        done
    };
    tokio::select! {
        done = work => done.with_context(|| format!("logs are in {}", run_dir.display())),
        _ = interrupt.recv() => bail!("interrupted"),
        _ = terminate.recv() => bail!("terminated"),
    }
}

async fn play(cluster: &Cluster, command: Command) -> Result<ExitCode> {
    match command {
        Command::Smoke => smoke::run(cluster).await.map(|()| ExitCode::SUCCESS),
        Command::Test { filter, lane } => test(cluster, &filter, lane).await.map(|()| ExitCode::SUCCESS),
        Command::TestKill => scenarios::kill::every_step(cluster).await.map(|()| ExitCode::SUCCESS),
        Command::BenchAbort { aborts } => {
            bench::abort::run(cluster, aborts).await.map(|()| ExitCode::SUCCESS)
        }
        Command::BenchHarm { repetitions } => {
            bench::harm::run(cluster, repetitions).await.map(|()| ExitCode::SUCCESS)
        }
        Command::BenchBound { runs } => bench::bound::run(cluster, runs).await.map(|()| ExitCode::SUCCESS),
        Command::Demo { report } => demo::run(cluster, &report).await.map(|()| ExitCode::SUCCESS),
        Command::BenchFleet { rollouts, unthrottled } => {
            bench::fleet::run(cluster, rollouts, unthrottled).await.map(|()| ExitCode::SUCCESS)
        }
        Command::BenchPolicy { rollouts } => {
            bench::policy::run(cluster, rollouts).await.map(|()| ExitCode::SUCCESS)
        }
        // It needs no cluster, and was played before there was one.
        Command::BenchScan { .. } => Ok(ExitCode::SUCCESS),
        Command::Cluster { command } => match command.split_first() {
            Some((program, arguments)) => {
                let status = cluster.tool(program).args(arguments).status().await.context(program.clone())?;
                Ok(ExitCode::from(status.code().and_then(|c| u8::try_from(c).ok()).unwrap_or(1)))
            }
            None => {
                announce(cluster);
                std::future::pending().await
            }
        },
    }
}

async fn test(cluster: &Cluster, filter: &str, lane: Option<Lane>) -> Result<()> {
    if filter.is_empty() && matches!(lane, None | Some(Lane::Demo)) {
        demo::run(cluster, Path::new("target/demo/report.json")).await?;
    }
    if matches!(lane, Some(Lane::Demo)) {
        return Ok(());
    }
    // Beside the other lane a Prometheus may take half a minute to be back, and the table's minute begins when it goes.
    let patient = ["--set", "classes[0].noDataSeconds=120", "--set", "classes[1].noDataSeconds=120"];
    let settings: &[&str] = if matches!(lane, Some(Lane::Alone)) { &patient } else { &[] };
    let world = World::install(cluster, settings).await?.recording(record::wanted());
    let mut chosen = scenarios::all();
    chosen.retain(|scenario| lane.is_none_or(|lane| scenario.alone == matches!(lane, Lane::Alone)));
    scenarios::run(&world, chosen, filter).await
}

fn announce(cluster: &Cluster) {
    println!("cluster up in {:.1} s; end it with Ctrl-C", cluster.started_in.as_secs_f64());
    println!("kubeconfig {}", cluster.paths.kubeconfig.display());
    println!("logs       {}", cluster.paths.logs.display());
    let a = &cluster.addresses;
    println!("inside: Gateway {}, Prometheus {}, Alertmanager {}", a.gateway, a.prometheus, a.alertmanager);
    println!("        faults http://{}/faults, pods http://{}/pods", a.faults, a.faults);
    if let Some(pid) = sandbox::outer_pid() {
        println!("from another terminal, with all tools on the PATH:");
        println!(
            "  nsenter -t {pid} -U -n -m --preserve-credentials env KUBECONFIG={} PATH={}:$PATH bash",
            cluster.paths.kubeconfig.display(),
            cluster.paths.tools.join("bin").display()
        );
    }
}

/// The controller that was built together with this program.
fn default_images() -> Vec<LocalImage> {
    let exe = std::env::current_exe().ok();
    let program = exe.and_then(|e| Some(e.parent()?.join("sluice-controller"))).filter(|p| p.is_file());
    program.map(|program| LocalImage { name: "sluice-controller".into(), program }).into_iter().collect()
}

/// A folder of its own for each run, beside the program: target/e2e/<time>-<process>.
fn default_run_dir() -> PathBuf {
    let target = std::env::current_exe().ok().and_then(|e| Some(e.parent()?.parent()?.to_owned()));
    let name = format!("{}-{}", jiff::Timestamp::now().as_second(), sandbox::outer_pid().unwrap_or_default());
    target.unwrap_or_else(|| "target".into()).join("e2e").join(name)
}
