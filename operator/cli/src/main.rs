//! `kubectl sluice`: see and steer progressive rollouts.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod args;
mod cluster;
mod cmd;
mod exit;
mod fail;
mod follow;
mod model;
mod out;
mod view;

use std::process::ExitCode;

fn main() -> ExitCode {
    // Fails only when a provider is installed already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let program = args::program(&std::env::args().next().unwrap_or_else(|| "kubectl-sluice".to_owned()));
    let cli = args::parse(&program);
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: no runtime: {error}");
            return ExitCode::from(exit::Code::Error.number());
        }
    };
    match runtime.block_on(cmd::run(cli, program)) {
        Ok(code) => ExitCode::from(code.number()),
        Err(failure) => {
            eprintln!("error: {}", out::clean(&failure.text));
            ExitCode::from(failure.code.number())
        }
    }
}
