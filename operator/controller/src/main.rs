//! The Sluice operator: starts what the library provides and stops it in order.

use std::process::ExitCode;

use clap::Parser;
use sluice_controller::args::{Cli, Command};
use sluice_controller::{client, crds, start};
use tracing::error;

/// With hundreds of runs under way the C library's allocator took nearly half of the controller's time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    client::install_crypto();
    let outcome = match Cli::parse().command {
        Command::Crds(args) => crds::write(&args.dir, args.check).map_err(|error| error.to_string()),
        Command::Run(args) => start::run(args).await.map_err(|error| error.to_string()),
        Command::Release(args) => start::release(args).await.map_err(|error| error.to_string()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            error!("{message}");
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}
