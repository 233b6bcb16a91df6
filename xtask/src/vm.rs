//! `cargo xtask vm`: any command on the bench, with the workspace's binaries on its PATH.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::Args;

use crate::testbench::{Bench, Job, Terminal};
use crate::workspace::Workspace;

/// Runs a command on the test bench: a kernel with ip_vs, in a virtual machine unless this host's own kernel is
/// suitable
#[derive(Args)]
pub(crate) struct Vm {
    /// A file or directory to take along, as /with/NAME and on PATH
    #[arg(long, value_name = "FILE")]
    with: Vec<PathBuf>,
    /// Build the libraries' examples too, and put them on the command's PATH
    #[arg(long, conflicts_with = "no_build")]
    examples: bool,
    /// Give the command network access to the outside: the host is 10.0.2.2
    #[arg(long)]
    net: bool,
    /// How long the command can take, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 1800)]
    timeout: u64,
    /// The kernel's package, or a directory with boot/vmlinuz* and lib/modules/*
    #[arg(long, value_name = "PACKAGE")]
    kernel: Option<String>,
    /// Take only the command's own files along, and do not build the workspace's binaries
    #[arg(long)]
    no_build: bool,
    /// The command; if not given, an interactive shell
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

pub(crate) fn run(args: Vm) -> Result<ExitCode> {
    let workspace = Workspace::load()?;
    let mut job = Job::new(args.command);
    job.net = args.net;
    job.interactive = job.is_shell();
    job.timeout = Duration::from_secs(args.timeout);
    if !args.no_build {
        job.executables(&workspace.build_programs()?);
    }
    if args.examples {
        job.executables(&workspace.build_examples()?);
    }
    job.manifests(&workspace.root);
    for file in &args.with {
        job.with(file)?;
    }
    let bench = Bench::prepare(&workspace, args.kernel.as_deref(), false)?;
    Ok(bench.run(&job, &mut Terminal)?.into())
}
