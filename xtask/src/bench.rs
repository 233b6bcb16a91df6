//! `cargo xtask bench`: the benchmarks in a release build, on the test bench's kernel.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Args;

use crate::testbench::{Bench as Testbench, Job, Terminal};
use crate::workspace::{SCENARIOS, Workspace};

/// Runs a benchmark on the bench's kernel; its figures are ratios within one run
#[derive(Args)]
pub(crate) struct Bench {
    /// A file to take along, such as a kube-proxy to compare with, as /with/NAME
    #[arg(long, value_name = "FILE")]
    with: Vec<PathBuf>,
    /// The kernel's package, or a directory with boot/vmlinuz* and lib/modules/*
    #[arg(long, value_name = "PACKAGE")]
    kernel: Option<String>,
    /// The benchmark's name
    name: String,
    /// The benchmark's arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

pub(crate) fn run(args: Bench) -> Result<ExitCode> {
    let workspace = Workspace::load()?;
    let binaries = workspace.build(&["build", "--package", SCENARIOS, "--bins", "--release"])?;
    ensure!(binaries.iter().any(|binary| binary.target == "bench"), "the crate scenarios has no binary named bench");
    let mut job = Job::new([vec!["bench".to_owned(), args.name], args.args].concat());
    job.timeout = Duration::from_secs(2 * 3600);
    job.executables(&binaries);
    job.manifests(&workspace.root);
    for file in &args.with {
        job.with(file)?;
    }
    let bench = Testbench::prepare(&workspace, args.kernel.as_deref(), false)?;
    Ok(bench.run(&job, &mut Terminal)?.into())
}
