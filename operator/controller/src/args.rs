//! Command line of the controller.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::telemetry::LogFormat;

/// The Sluice operator.
#[derive(Debug, Parser)]
#[command(name = "sluice-controller", version, about)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Sub-commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the controller.
    Run(Run),
    /// Let go of every rollout: traffic returns to stable, finalizers, labels and marks are removed.
    Release(Release),
    /// Write the CustomResourceDefinitions, one file per kind.
    Crds(Crds),
}

/// Settings that both modes share.
#[derive(Debug, Args)]
pub struct Common {
    /// Settings of the installation, YAML.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Kubeconfig; without it the pod's own ServiceAccount is used.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Name of the Lease of leader election, in the controller's own namespace.
    #[arg(long, default_value = "sluice")]
    pub lease: String,
    /// Name of this process in leader election and events.
    #[arg(long, env = "POD_NAME", default_value = "sluice-controller")]
    pub identity: String,
    /// Namespace of the controller; default: that of the ServiceAccount or kubeconfig.
    #[arg(long, env = "POD_NAMESPACE")]
    pub namespace: Option<String>,
    /// Form of the log lines.
    #[arg(long, value_enum, default_value = "json")]
    pub log_format: LogFormat,
    /// Log filter, such as `info` or `info,sluice_controller=debug`.
    #[arg(long, env = "SLUICE_LOG", default_value = "info")]
    pub log: String,
}

/// `run`.
#[derive(Debug, Args)]
pub struct Run {
    /// Shared settings.
    #[command(flatten)]
    pub common: Common,
    /// Address of probes and metrics.
    #[arg(long, default_value = "0.0.0.0:9464", value_parser = address)]
    pub listen: SocketAddr,
    /// Lead without a Lease: for one process on a developer's machine.
    #[arg(long)]
    pub no_leader_election: bool,
}

/// `$(POD_IP):9464` has no brackets when the pod's address is of IPv6.
fn address(text: &str) -> Result<SocketAddr, String> {
    let split = text.rsplit_once(':').and_then(|(host, port)| Some((host.parse().ok()?, port.parse().ok()?)));
    let bare = split.map(|(host, port): (std::net::IpAddr, u16)| SocketAddr::new(host, port));
    text.parse()
        .ok()
        .or(bare)
        .ok_or_else(|| format!("{text:?}: write an address and a port, such as 0.0.0.0:9464"))
}

/// `release`.
#[derive(Debug, Args)]
pub struct Release {
    /// Shared settings.
    #[command(flatten)]
    pub common: Common,
    /// The controller's Deployment, scaled to zero first.
    #[arg(long, default_value = "sluice")]
    pub deployment: String,
    /// How long everything may take, such as `240s`.
    #[arg(long, default_value = "240s", value_parser = seconds)]
    pub timeout: std::time::Duration,
}

fn seconds(text: &str) -> Result<std::time::Duration, String> {
    let number = text.strip_suffix('s').unwrap_or(text);
    number
        .parse()
        .map(std::time::Duration::from_secs)
        .map_err(|_| format!("{text:?}: write seconds, such as 240s"))
}

/// `crds`.
#[derive(Debug, Args)]
pub struct Crds {
    /// Folder to write to.
    #[arg(value_name = "DIR", default_value = "crds")]
    pub dir: PathBuf,
    /// Write nothing; fail when a file differs from what would be written.
    #[arg(long)]
    pub check: bool,
}
