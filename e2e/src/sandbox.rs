//! Enters the user, network, mount and process namespaces that hold everything: no root, no port that can clash, and
//! nothing that survives the first process. Inside, 198.18.0.0/15 is local, so a single process answers for every
//! pod address.

use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Set inside the sandbox to the version of this contract; never set it by hand.
pub(crate) const INSIDE: &str = "SLUICE_E2E_SANDBOX";

/// Pods of the fake nodes: 198.18.0.0/16. EndpointSlices refuse loopback addresses, hence the benchmarking block of
/// RFC 2544, which no real network routes.
pub const FAKE_POD_NET: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 0);
/// Pods of the node `local`: 198.19.0.0/16.
pub const LOCAL_POD_NET: Ipv4Addr = Ipv4Addr::new(198, 19, 0, 0);
const POD_BLOCK: &str = "198.18.0.0/15";

/// Whether this process is inside already.
pub fn inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// This program with its arguments, inside new namespaces.
pub fn command() -> Result<Command> {
    let exe = std::env::current_exe().context("own path")?;
    let mut command = Command::new("unshare");
    command
        .args(["--user", "--map-root-user", "--net", "--mount", "--pid", "--fork", "--kill-child", "--"])
        .arg(exe)
        .args(std::env::args_os().skip(1))
        .env(INSIDE, "1");
    Ok(command)
}

/// Replaces this process by itself inside new namespaces, once; then brings the network up and returns.
///
/// Must run before any thread exists. It returns only inside the sandbox.
pub fn enter() -> Result<()> {
    if !inside() {
        let error = command()?.exec();
        return Err(error).context("unshare (package util-linux) could not be started");
    }
    for args in [vec!["link", "set", "lo", "up"], vec!["route", "add", "local", POD_BLOCK, "dev", "lo"]] {
        let done =
            Command::new("ip").args(&args).output().context("ip (package iproute2) could not be started")?;
        if !done.status.success() {
            bail!("ip {}: {}", args.join(" "), String::from_utf8_lossy(&done.stderr).trim());
        }
    }
    Ok(())
}

/// The id of this process as the machine outside sees it: /proc is still the one of the outer process namespace.
pub fn outer_pid() -> Option<u32> {
    std::fs::read_link("/proc/self").ok()?.to_str()?.parse().ok()
}
