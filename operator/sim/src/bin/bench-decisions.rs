//! `make bench-decisions`: plays the scenarios, prints their tables, and fails when a promise is broken.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use sluice_sim::decisions::report::Report;
use sluice_sim::decisions::{cost, rollout, rollouts, run, scenario, scenarios, work};

/// False aborts, missed faults, delay and harm of Sluice's decisions and its peers', on simulated traffic.
#[derive(Parser)]
#[command(name = "bench-decisions", max_term_width = 100)]
struct Arguments {
    /// Seed of all runs.
    #[arg(long, default_value_t = 20_260_701)]
    seed: u64,
    /// Where the report is written.
    #[arg(long, default_value = "target/bench/decisions.json")]
    out: PathBuf,
    /// Only scenarios with this in their name or table's title.
    #[arg(long, default_value = "")]
    only: String,
    /// At most this many runs of each scenario.
    #[arg(long)]
    runs: Option<usize>,
    /// Threads; by default one per core. The results don't depend on it.
    #[arg(long)]
    threads: Option<usize>,
}

const ROLLOUTS: &str = "Whole rollouts by each class's schedule";
const COST: &str = "Cost of a window, of what is kept, and of a plan";

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let began = Instant::now();
    let seed = arguments.seed;
    let threads =
        arguments.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let wanted = |name: &str, title: &str| name.contains(&arguments.only) || title.contains(&arguments.only);
    let runs = |runs: usize| arguments.runs.map_or(runs, |most| runs.min(most.max(1)));
    println!("bench-decisions, seed {seed}, {threads} threads; in brackets: published figures");
    let mut report = Report::default();
    // First, while nothing else takes the processors.
    if wanted("", COST) {
        println!("\n== {COST}\n");
        for cost in cost::all() {
            println!("{}", report.cost(&cost));
        }
        println!("{}", report.plan(&cost::PlanCost::measure()));
        println!("{}", report.harm(&cost::HarmCost::measure()));
    }
    let mut title = "";
    for mut scenario in scenarios::all() {
        if !wanted(&scenario.name, scenario.kind.title()) {
            continue;
        }
        scenario.runs = runs(scenario.runs);
        if title != scenario.kind.title() {
            title = scenario.kind.title();
            println!("\n== {title} ({:.0} s)\n", began.elapsed().as_secs_f64());
        }
        let known = run::known(&scenario, seed);
        let decided = work::each(scenario.runs, threads, |number| run::play(&scenario, known, seed, number));
        let results = scenario::sum_up(&scenario, &run::judges(&scenario), &decided);
        println!("{}", report.scenario(&scenario, &results, &decided));
    }
    for mut rollout in rollouts::all() {
        if !wanted(&rollout.name, ROLLOUTS) {
            continue;
        }
        rollout.runs = runs(rollout.runs);
        if title != ROLLOUTS {
            title = ROLLOUTS;
            println!("\n== {title} ({:.0} s)\n", began.elapsed().as_secs_f64());
        }
        let played = work::each(rollout.runs, threads, |number| rollout::play(&rollout, seed, number));
        println!("{}", report.rollout(&rollout, &played));
    }
    let seconds = began.elapsed().as_secs_f64();
    let (lines, report) = report.close(seed, seconds);
    println!("{}", lines.join("\n"));
    let text = format!("{report:#}\n");
    let directory = arguments.out.parent().map_or(Ok(()), std::fs::create_dir_all);
    if let Err(error) = directory.and_then(|()| std::fs::write(&arguments.out, text)) {
        eprintln!("bench-decisions: the report can't be written to {}: {error}", arguments.out.display());
        return ExitCode::FAILURE;
    }
    println!("\nreport: {}   ({seconds:.0} s)", arguments.out.display());
    if Report::is_kept(&report) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
