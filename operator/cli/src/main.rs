//! `kubectl sluice`: see and steer progressive rollouts.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod args;
mod budget;
mod cluster;
mod cmd;
mod exit;
mod fail;
mod follow;
mod input;
mod manifests;
mod model;
mod out;
mod source;
mod view;

use std::process::ExitCode;

fn main() -> ExitCode {
    // Fails only when a provider is installed already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut words: Vec<String> =
        std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    let program = if words.is_empty() { "kubectl-sluice".to_owned() } else { words.remove(0) };
    let program = args::program(&program);
    let completes = words.first().is_some_and(|word| word == cmd::complete::VERB);
    let cli = (!completes).then(|| args::parse(&program));
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: no runtime: {error}");
            return ExitCode::from(exit::Code::Error.number());
        }
    };
    let result = match cli {
        Some(cli) => runtime.block_on(cmd::run(cli, program)),
        None => runtime.block_on(cmd::complete::run(&words[1..])),
    };
    match result {
        Ok(code) => ExitCode::from(code.number()),
        Err(failure) => {
            eprintln!("error: {}", out::clean(&failure.text));
            ExitCode::from(failure.code.number())
        }
    }
}
