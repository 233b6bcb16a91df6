//! The commands, one file each.

mod api_first;
mod claim;
mod cleanup;
mod config_file;
mod diff;
mod drop_in;
mod explain;
mod go_runner;
pub(crate) mod inbox;
mod listing;
mod log;
mod ls;
mod notify;
mod query;
mod replay;
mod run;
mod sync_loop;
mod takeover;
#[cfg(test)]
mod tests;
mod watchdog;

use std::{ffi::OsString, ops::ControlFlow, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Context;
use clap::{Parser, Subcommand};
use proxier::{
    Config, Engine,
    linux::{LinuxKernel, Settings},
};

use crate::{
    config::{Configuration, Options},
    host, runtime,
    source::{
        Changes, addresses,
        kubernetes::{KubernetesSource, Limits},
        manifests::ManifestSource,
    },
};

#[derive(Debug, Parser)]
#[command(name = "kube-ipvs", version, about = "Kubernetes Services in the kernel's IPVS")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the Services until SIGTERM; the state in the kernel stays and keeps serving
    Run(RunArgs),
    /// List virtual servers as `ipvsadm -Ln` does, with the Service of each
    Ls(ls::Ls),
    /// Print the changes that `run` would make now, and make none; exit status 0: no changes, 1: changes, 2: error
    Diff(query::Query),
    /// Explain how a Service is programmed, which parts of it are left out, and why
    Explain(explain::Explain),
    /// Print the objects of kube-proxy that `run` would adopt, remove and keep on this node
    Takeover(takeover::preview::TakeoverArgs),
    /// Remove from the kernel everything that kube-ipvs made, and nothing else
    Cleanup(cleanup::Cleanup),
    /// Replay a recording of `run --record` and print its plans; exit status 0: the same plans, 1: others, 2: error
    Replay(replay::Replay),
}

impl Cli {
    fn run(&self) -> anyhow::Result<ExitCode> {
        match &self.command {
            Command::Run(args) => run::run(args),
            Command::Ls(ls) => ls.run(),
            Command::Diff(query) => diff::run(query),
            Command::Explain(explain) => explain.run(),
            Command::Takeover(takeover) => takeover.run(),
            Command::Cleanup(cleanup) => cleanup.run(),
            Command::Replay(replay) => replay.run(),
        }
    }
}

/// The source of the Services, and how to serve them.
#[derive(Debug, Clone, clap::Args)]
struct RunArgs {
    /// A directory of YAML or JSON files with Services, EndpointSlices, Endpoints and Nodes, instead of an API server;
    /// kube-ipvs follows changes
    #[arg(long, value_name = "DIR")]
    manifests: Option<PathBuf>,
    #[command(flatten)]
    options: Options,
}

enum Source {
    Manifests(Box<ManifestSource>),
    Kubernetes(Box<KubernetesSource>),
}

impl Source {
    /// Reads all objects once. Fails if the API server has not sent all of them within `timeout`.
    fn look(self, timeout: Duration) -> anyhow::Result<Changes> {
        let mut first = None;
        match self {
            Self::Manifests(mut manifests) => first = Some(manifests.scan()),
            Self::Kubernetes(kubernetes) => runtime::of_this_thread()?.block_on(async {
                let follow = kubernetes.follow(|changes| {
                    first = Some(changes);
                    ControlFlow::Break(())
                });
                let timeout = tokio::time::timeout(timeout, follow).await;
                timeout.context("the API server has not sent all objects within --timeout")?
            })?,
        }
        first.context("the API server has sent nothing")
    }
}

impl RunArgs {
    fn open(&self, configuration: &Configuration) -> anyhow::Result<Source> {
        let annotations = configuration.own.annotation_policy();
        if let Some(folder) = &self.manifests {
            let manifests = ManifestSource::open(folder)?.with_annotations(annotations);
            return Ok(Source::Manifests(manifests.into()));
        }
        let node = configuration.hostname_override.resolve()?;
        let open = KubernetesSource::open(&configuration.client_connection, &node);
        let limits = Limits {
            watch: configuration.own.watch_timeout.0,
            contact: configuration.own.out_of_contact_limit.if_set(),
            ..Limits::default()
        };
        let kubernetes = runtime::of_this_thread()?.block_on(open)?;
        let kubernetes = kubernetes.with_limits(limits).with_annotations(annotations);
        Ok(Source::Kubernetes(kubernetes.into()))
    }

    fn is_given(&self) -> bool {
        self.manifests.is_some() || self.options.is_given()
    }

    /// Checks that a daemon could start with the current flags and file.
    fn check(&self) -> anyhow::Result<()> {
        let configuration = self.options.resolve()?.configuration;
        self.open(&configuration)?;
        configuration.engine()?;
        Ok(())
    }

    /// The configuration, for commands other than the daemon. Warnings go to standard error.
    fn configuration(&self) -> anyhow::Result<Configuration> {
        let resolved = self.options.resolve()?;
        resolved.warnings.iter().for_each(|warning| eprintln!("kube-ipvs: {warning}"));
        Ok(resolved.configuration)
    }
}

fn engine(configuration: &Configuration) -> anyhow::Result<Engine> {
    Ok(Engine::new(engine_config(configuration)?, addresses::list()?))
}

fn engine_config(configuration: &Configuration) -> anyhow::Result<Config> {
    Ok(Config { missing_schedulers: host::hazardous_schedulers(), ..configuration.engine()? })
}

fn kernel(config: &Config, settings: Settings) -> anyhow::Result<LinuxKernel> {
    let record = claim::file("owned").context("cannot identify this network namespace")?;
    let settings = Settings { record: Some(record), ..settings };
    LinuxKernel::open(config, settings).context("cannot use this kernel")
}

/// The kernel, for commands that serve nothing and so need no configuration.
fn kernel_as_it_is() -> anyhow::Result<LinuxKernel> {
    kernel(&Config::new(""), Settings::default())
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    dispatch(std::env::args_os().collect()).unwrap_or_else(|error| {
        log::fail(&error);
        ExitCode::from(2)
    })
}

fn dispatch(mut arguments: Vec<OsString>) -> anyhow::Result<ExitCode> {
    if go_runner::is_invoked(&arguments) {
        let (file, command) = go_runner::unwrap(arguments)?;
        log::to_file(&file);
        arguments = command;
    }
    match drop_in::is_invoked(&arguments) {
        true => drop_in::run(arguments),
        false => Cli::parse_from(arguments).run(),
    }
}

/// Prints to standard output. A reader that closes early, such as `head`, is not an error.
fn print(text: impl std::fmt::Display) -> anyhow::Result<()> {
    use std::io::{ErrorKind, Write};
    match write!(std::io::stdout(), "{text}") {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        outcome => Ok(outcome?),
    }
}

/// Reports problems in the objects, and prominent notes, on standard error.
fn tell(changes: &Changes) {
    changes.problems.iter().for_each(|problem| eprintln!("kube-ipvs: {problem}"));
    let prominent = changes.notes.iter().filter(|note| note.is_prominent());
    prominent.for_each(|note| eprintln!("kube-ipvs: {note}"));
}
