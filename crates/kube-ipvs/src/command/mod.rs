//! The commands, one file each.

mod cleanup;
mod diff;
mod explain;
mod listing;
mod ls;
mod run;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Context;
use clap::{Parser, Subcommand};
use proxier::{
    Config, Engine, PodSources,
    linux::{LinuxKernel, Settings},
};

use crate::{
    config::ProxyFlags,
    source::manifests::{Changes, ManifestSource},
};

#[derive(Debug, Parser)]
#[command(name = "kube-ipvs", version, about = "Kubernetes Services in the kernel's IPVS")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the Services, until SIGTERM; what is in the kernel stays and goes on serving
    Run(Source),
    /// List virtual servers as `ipvsadm -Ln` does, with the Service that each is for
    Ls(ls::Ls),
    /// Print what `run` would change now, and change nothing; exit status 0: nothing, 1: something, 2: error
    Diff(Source),
    /// Say what is made of a Service, what it does not get, and why
    Explain(explain::Explain),
    /// Remove from the kernel what kube-ipvs made, and nothing else
    Cleanup,
}

/// Where the Services come from, and how they are served.
#[derive(Debug, Clone, clap::Args)]
struct Source {
    /// A folder of YAML or JSON files with Services, EndpointSlices, Endpoints and Nodes; changes are followed
    #[arg(long, value_name = "DIR")]
    manifests: PathBuf,
    #[command(flatten)]
    flags: ProxyFlags,
}

impl Source {
    fn open(&self) -> anyhow::Result<ManifestSource> {
        Ok(ManifestSource::open(&self.manifests)?)
    }

    fn engine(&self) -> anyhow::Result<Engine> {
        let flags = &self.flags;
        let mut config = Config::new(&flags.hostname_override.resolve()?);
        config.node_ports = flags.nodeport_addresses.clone();
        config.pod_sources = PodSources::Ranges(flags.cluster_cidr.0.clone());
        config.scheduler = flags.ipvs_scheduler;
        config.exclude_cidrs = flags.ipvs_exclude_cidrs.0.clone();
        config.sync_period = flags.ipvs_sync_period;
        Ok(Engine::new(config))
    }

    fn kernel(&self) -> anyhow::Result<LinuxKernel> {
        LinuxKernel::open(settings()).context("cannot use this kernel")
    }
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match &cli.command {
        Command::Run(source) => run::run(source),
        Command::Ls(ls) => ls.run(),
        Command::Diff(source) => diff::run(source),
        Command::Explain(explain) => explain.run(),
        Command::Cleanup => cleanup::run(),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("kube-ipvs: {error:#}");
        ExitCode::from(2)
    })
}

/// The settings of every command: what is ours is recorded in one place.
fn settings() -> Settings {
    Settings { record: record(), ..Settings::default() }
}

/// The file for the copy of the record, by network namespace; none where it cannot be kept.
fn record() -> Option<PathBuf> {
    use std::os::unix::fs::MetadataExt;
    let directory = PathBuf::from("/run/kube-ipvs");
    let namespace = std::fs::metadata("/proc/thread-self/ns/net").and_then(|namespace| {
        std::fs::create_dir_all(&directory)?;
        Ok(namespace.ino())
    });
    match namespace {
        Ok(namespace) => Some(directory.join(format!("owned-{namespace}"))),
        Err(error) => {
            eprintln!(
                "kube-ipvs: cannot keep {}: {error}; after `nft flush ruleset` nobody will know what is ours",
                directory.display()
            );
            None
        }
    }
}

/// Prints to standard output. A reader that has seen enough, such as `head`, is no error.
fn print(text: impl std::fmt::Display) -> anyhow::Result<()> {
    use std::io::{ErrorKind, Write};
    match write!(std::io::stdout(), "{text}") {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        outcome => Ok(outcome?),
    }
}

/// Says on standard error what is wrong with the manifests, and what of them may surprise.
fn tell(changes: &Changes) {
    changes.problems.iter().for_each(|problem| eprintln!("kube-ipvs: {problem}"));
    let prominent = changes.notes.iter().filter(|note| note.is_prominent());
    prominent.for_each(|note| eprintln!("kube-ipvs: {note}"));
}

/// Time since the process started, for an engine that has no clock of its own.
struct Clock(std::time::Instant);

impl Clock {
    fn start() -> Self {
        Self(std::time::Instant::now())
    }

    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}
