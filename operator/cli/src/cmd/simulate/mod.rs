//! `simulate`: rollouts that were, judged as they would be. Asks no cluster and changes nothing.
//!
//! `files` reads traces, `policy` the class table, `table` shows what was decided. Past rollouts: `past` leads,
//! `find` sees them in a history of pods, `record` makes traces of their counters, `query` and `prometheus` ask,
//! `report` shows them.

mod files;
mod find;
mod past;
mod policy;
mod prometheus;
mod query;
mod record;
mod report;
mod table;
#[cfg(test)]
mod tests;

use sluice_core::api::RiskClass;
use sluice_core::limits::table::Table;
use sluice_core::trace::{Options, Outcome, Policy, Trace, replay};

use self::table::Row;
use super::Context;
use crate::args::{Output, Simulate};
use crate::exit::Code;
use crate::fail::Failure;
use crate::out::clean;

/// Runs `simulate`.
pub async fn run(context: &Context, args: Simulate) -> Result<Code, Failure> {
    let form = Form::of(context.global.output, context.terminal, args.verbose)?;
    let classes: Vec<RiskClass> = args.classes.iter().flat_map(|class| class.classes()).collect();
    let (table, policy) = match &args.policy {
        Some(file) => policy::read(file)?,
        None => (Table::default(), Policy::default()),
    };
    let judge = Judge { policy, table, classes, two_pods: args.two_pods };
    match &args.from_prometheus {
        Some(url) => past::run(context, form, &judge, url, &args.past).await,
        None => files(context, form, &judge, &args),
    }
}

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// For people; with more columns or not.
    Table { wide: bool },
    /// One document per result.
    Documents(Output),
}

impl Form {
    fn of(output: Option<Output>, terminal: bool, verbose: bool) -> Result<Self, Failure> {
        Ok(match output {
            Some(Output::Name) => {
                return Err(Failure::usage(
                    "-o name names objects of a cluster, and simulate reads none: write -o json, yaml or wide",
                ));
            }
            Some(Output::Wide) if verbose => {
                return Err(Failure::usage(
                    "--verbose prints JSON lines, -o wide a table: write one of them",
                ));
            }
            Some(Output::Wide) => Self::Table { wide: true },
            Some(format) => Self::Documents(format),
            None if terminal && !verbose => Self::Table { wide: false },
            None => Self::Documents(Output::Json),
        })
    }
}

/// What traces are judged by.
struct Judge {
    policy: Policy,
    table: Table,
    /// Empty: the trace's own.
    classes: Vec<RiskClass>,
    two_pods: bool,
}

impl Judge {
    /// How a trace is judged, once for each class; once by its own without any.
    fn options(&self, classes: &[RiskClass]) -> Vec<Options> {
        let options = Options { two_pods: self.two_pods, ..Options::default() };
        let mut all: Vec<Options> = match classes {
            [] => vec![options],
            some => some.iter().map(|class| Options { class: *class, always: true, ..options }).collect(),
        };
        // Whoever asks for all and for one means all, once.
        all.sort_by_key(|options| options.class);
        all.dedup();
        all
    }

    /// What each class would have decided.
    fn outcomes(&self, trace: &Trace, classes: &[RiskClass]) -> Vec<Outcome> {
        let options = self.options(classes);
        options.iter().map(|options| replay(trace, &self.policy, options, |_| {})).collect()
    }
}

/// Replays the traces of files, each as soon as it is read: a stream may be longer than memory.
fn files(context: &Context, form: Form, judge: &Judge, args: &Simulate) -> Result<Code, Failure> {
    let mut rows = Vec::new();
    let mut code = Code::Fine;
    for path in &args.trace {
        files::read(path, &mut |found| {
            let trace = match found {
                Ok(trace) => trace,
                Err(problem) => {
                    eprintln!("error: {}", clean(&problem));
                    code = Code::Error;
                    return Ok(());
                }
            };
            for options in judge.options(&judge.classes) {
                let mut steps = Vec::new();
                let outcome = replay(&trace, &judge.policy, &options, |step| {
                    if args.verbose {
                        steps.push(step);
                    }
                });
                match form {
                    Form::Table { .. } => rows.push(Row::new(&trace, outcome)),
                    Form::Documents(format) => {
                        steps.iter().try_for_each(|step| context.document(format, "", step, true))?;
                        context.document(format, "", &outcome, true)?;
                    }
                }
            }
            Ok(())
        })?;
    }
    if let Form::Table { wide } = form
        && !rows.is_empty()
    {
        context.print(&table::lines(&rows, wide))?;
    }
    Ok(code)
}
