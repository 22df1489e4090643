//! `record`: writes the trace of a run while it goes on, for `simulate`.
//!
//! It asks what the guards ask, as often as the controller does unless told otherwise, and reads the weights off the rollout. Changes nothing.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

use futures::StreamExt as _;
use jiff::Timestamp;
use serde::Serialize;
use sluice_core::api::{Counted, Guard, ProgressiveRollout, Run};
use sluice_core::evidence::Sample;
use sluice_core::trace::Recorder;
use sluice_providers::prometheus::Prometheus;
use sluice_providers::queries::{Arms, RatioQuery, ask, history};
use tokio::time::{MissedTickBehavior, interval};

use super::{Context, now, write};
use crate::args::Record;
use crate::cluster::{Cluster, Watched};
use crate::exit::Code;
use crate::fail::Failure;
use crate::source::{Settings, Sources};

/// Where lines go.
enum Sink {
    Output,
    File(PathBuf, File),
}

impl Sink {
    fn line(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string(value)
            .map_err(|error| Failure::new(format!("a record can't be written as JSON: {error}")))?;
        match self {
            Self::Output => write(&(text + "\n")),
            Self::File(path, file) => {
                let written = file.write_all((text + "\n").as_bytes()).and_then(|()| file.flush());
                written.map_err(|error| Failure::new(format!("{}: {error}", path.display())))
            }
        }
    }
}

/// The trace of one run.
struct Tape {
    run: String,
    recorder: Recorder,
    sink: Sink,
}

/// Runs `record`.
pub async fn run(context: &Context, args: Record) -> Result<Code, Failure> {
    let cluster = Cluster::connect(&context.global).await?;
    let name = cluster.resolve(args.name.as_deref()).await?;
    let mut rollout = cluster.get(&name).await?;
    let settings = Settings::read(&cluster).await;
    if let Some(caution) = &settings.caution {
        eprintln!("note: {caution}");
    }
    let seconds = args.every.unwrap_or(settings.config.evaluation_interval_seconds).max(1);
    let prometheus = Sources::new(&cluster, &rollout, &settings, &args.reach).prometheus().await?;
    let mut tick = interval(Duration::from_secs(u64::from(seconds.unsigned_abs())));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut changes = pin!(cluster.watch(&name));
    let mut tape: Option<Tape> = None;
    if run_of(&rollout).is_none() {
        eprintln!("waits for a run of {}/{name}", cluster.namespace);
    }
    loop {
        tokio::select! {
            change = changes.next() => match change {
                Some(Watched::Changed(newer)) => rollout = *newer,
                Some(Watched::Lost(_)) => {}
                Some(Watched::Failed(failure)) => return Err(failure),
                Some(Watched::Gone) | None => {
                    return Err(Failure::new(format!("ProgressiveRollout {name:?} is gone, or its watch ended")));
                }
            },
            _ = tick.tick() => {
                let current = run_of(&rollout);
                if tape.as_ref().is_some_and(|tape| current.is_none_or(|run| run.id != tape.run)) {
                    tape = None;
                    if args.write.is_none() {
                        return Ok(Code::Fine);
                    }
                }
                let Some(current) = current else { continue };
                let tape = match &mut tape {
                    Some(tape) => tape,
                    none => none.insert(begin(&cluster.namespace, &name, current, &prometheus, seconds, args.write.as_deref()).await?),
                };
                let samples = answers(&cluster.namespace, current, &tape.recorder, &prometheus).await;
                if let Some(record) = tape.recorder.record(Some(current), &samples) {
                    tape.sink.line(&record)?;
                }
            }
        }
    }
}

fn run_of(rollout: &ProgressiveRollout) -> Option<&Run> {
    rollout.status.as_ref()?.run.as_ref()
}

/// Begins a trace with the time before its run, as far as the metrics have it.
async fn begin(
    namespace: &str,
    name: &str,
    run: &Run,
    prometheus: &Prometheus,
    seconds: i32,
    directory: Option<&Path>,
) -> Result<Tape, Failure> {
    let id = format!("{namespace}-{name}-{}", run.id);
    let sink = match directory {
        None => Sink::Output,
        Some(directory) => {
            let path = directory.join(format!("{id}.jsonl"));
            let file = std::fs::create_dir_all(directory).and_then(|()| File::create(&path));
            let file = file.map_err(|error| Failure::new(format!("--write {}: {error}", path.display())))?;
            Sink::File(path, file)
        }
    };
    let mut tape = Tape { run: run.id.clone(), recorder: Recorder::new(&run.plan), sink };
    tape.sink.line(&tape.recorder.header(&id, &run.plan, seconds))?;
    let end = run.exposed_since.unwrap_or_else(now);
    let mut times: BTreeMap<Timestamp, Vec<(String, Sample)>> = BTreeMap::new();
    for (guard, query) in queries(namespace, run, &tape.recorder) {
        match history(prometheus, &query, end, seconds).await {
            Ok(samples) => {
                for sample in samples {
                    times.entry(sample.at).or_default().push((guard.clone(), sample));
                }
            }
            Err(trouble) => eprintln!("note: the time before the run is not known: {}", trouble.message),
        }
    }
    for samples in times.values() {
        if let Some(record) = tape.recorder.record(None, samples) {
            tape.sink.line(&record)?;
        }
    }
    Ok(tape)
}

fn queries(namespace: &str, run: &Run, recorder: &Recorder) -> Vec<(String, RatioQuery)> {
    let arms = Arms::of(namespace, run);
    let counted = |guard: &str| -> Option<Counted<'_>> {
        run.plan.guards.iter().find(|other| other.name == guard).and_then(Guard::counted)
    };
    let query =
        |guard: &str| Some((guard.to_owned(), RatioQuery::new(&arms, counted(guard)?, &BTreeMap::new())));
    recorder.guards().filter_map(query).collect()
}

/// The answers at one time.
async fn answers(
    namespace: &str,
    run: &Run,
    recorder: &Recorder,
    prometheus: &Prometheus,
) -> Vec<(String, Sample)> {
    let at = now();
    let queries = queries(namespace, run, recorder);
    let asked = queries.iter().map(async |(guard, query)| (guard.clone(), ask(prometheus, query, at).await));
    futures::future::join_all(asked).await
}
