//! The commands, one file each.

pub mod complete;
pub mod guard;
pub mod list;
pub mod plan;
pub mod record;
pub mod request;
pub mod scan;
pub mod simulate;
pub mod status;
pub mod version;

use std::io::{self, IsTerminal as _, Write as _};

use jiff::Timestamp;
use serde::Serialize;
use sluice_core::api::Verb;

use crate::args::{Cli, Color, Command, Global, Guard, Output};
use crate::exit::Code;
use crate::fail::Failure;
use crate::out::Line;
use crate::view::Call;

/// `apiVersion` of everything that is printed for programs.
pub const API_VERSION: &str = "cli.sluice.dev/v1alpha1";
/// Columns when the output is no terminal.
const DEFAULT_WIDTH: usize = 80;
/// Fewer columns than these are not worth a layout.
const LEAST_WIDTH: usize = 40;

/// What every command needs.
#[derive(Clone, Debug)]
pub struct Context {
    /// Flags of every command.
    pub global: Global,
    /// How the program was called.
    pub call: Call,
    /// Whether to use colours on stdout.
    pub colour: bool,
    /// Whether stdout is a terminal.
    pub terminal: bool,
}

/// Runs a command.
pub async fn run(cli: Cli, program: String) -> Result<Code, Failure> {
    let context = Context::new(cli.global, program);
    match cli.command {
        Command::Status(args) => status::run(&context, args).await,
        Command::List(args) => list::run(&context, args).await,
        Command::Abort(args) => request::run(&context, Verb::Abort, args).await,
        Command::Pause(args) => request::run(&context, Verb::Pause, args).await,
        Command::Resume(args) => request::run(&context, Verb::Resume, args).await,
        Command::Retry(args) => request::run(&context, Verb::Retry, args).await,
        Command::Plan(args) => plan::run(&context, args).await,
        Command::Guard(Guard::Test(args)) => guard::run(&context, args).await,
        Command::Record(args) => record::run(&context, args).await,
        Command::Simulate(args) => simulate::run(&context, *args).await,
        Command::Scan(args) => scan::run(&context, &args),
        Command::Version(args) => version::run(&context, args).await,
        Command::Completion(args) => complete::script(&context, args.shell),
    }
}

impl Context {
    fn new(global: Global, program: String) -> Self {
        let mut flags = String::new();
        if let Some(context) = &global.context {
            flags.push_str(&format!(" --context {context}"));
        }
        if let Some(file) = &global.kubeconfig {
            flags.push_str(&format!(" --kubeconfig {}", file.display()));
        }
        let terminal = io::stdout().is_terminal();
        let colour = match global.color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => terminal && colours_wanted(),
        };
        Self { global, call: Call { program, flags }, colour, terminal }
    }

    /// The format that was asked for, when it is one for programs.
    pub fn machine(&self) -> Option<Output> {
        self.global.output.filter(|output| *output != Output::Wide)
    }

    /// Whether more was asked for.
    pub fn wide(&self) -> bool {
        self.global.output == Some(Output::Wide)
    }

    /// Prints lines.
    pub fn print(&self, lines: &[Line]) -> Result<(), Failure> {
        let text: String = lines.iter().map(|line| line.paint(self.colour) + "\n").collect();
        write(&text)
    }

    /// Prints an object for programs. `stream`: one of many, so JSON takes one line and YAML starts a document.
    pub fn document<T: Serialize>(
        &self,
        format: Output,
        name: &str,
        value: &T,
        stream: bool,
    ) -> Result<(), Failure> {
        let broken = |e: &dyn std::fmt::Display| {
            Failure::new(format!("the output can't be written as {format:?}: {e}"))
        };
        let text = match format {
            Output::Json if stream => serde_json::to_string(value).map_err(|e| broken(&e))? + "\n",
            Output::Json => serde_json::to_string_pretty(value).map_err(|e| broken(&e))? + "\n",
            Output::Yaml => {
                let text = serde_saphyr::to_string(value).map_err(|e| broken(&e))?;
                if stream { format!("---\n{text}") } else { text }
            }
            Output::Name | Output::Wide => format!("progressiverollout.sluice.dev/{name}\n"),
        };
        write(&text)
    }
}

/// Writes to stdout. A reader that went away ends the command: nobody would see what it goes on to say.
pub fn write(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        Err(error) => Err(Failure::new(format!("the output can't be written: {error}"))),
    }
}

fn colours_wanted() -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    !set("NO_COLOR") && std::env::var("TERM").is_ok_and(|term| term != "dumb")
}

/// Columns and rows of the terminal; $COLUMNS wins, as everywhere.
pub fn size(terminal: bool) -> (usize, Option<usize>) {
    let measured = if terminal { terminal_size::terminal_size() } else { None };
    let asked =
        std::env::var("COLUMNS").ok().and_then(|columns| columns.parse::<usize>().ok()).filter(|c| *c > 0);
    let width = asked.or(measured.map(|(width, _)| usize::from(width.0))).unwrap_or(DEFAULT_WIDTH);
    (width.max(LEAST_WIDTH), measured.map(|(_, height)| usize::from(height.0)))
}

/// Now. The only clock of this program.
pub fn now() -> Timestamp {
    Timestamp::now()
}
