//! `cargo xtask bench`: the benchmarks in a release build, on the test bench's kernel.

pub(crate) mod instructions;
mod peer;
mod plot;
mod rows;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::platform::Platform;
use crate::testbench::{Bench as Testbench, Job};
use crate::workspace::{Executable, SCENARIOS, Workspace};
use peer::Peer;
use rows::Rows;

/// After this time the machine counts as hung. The large shapes take hours on an emulated kernel.
const HANG: Duration = Duration::from_secs(24 * 3600);

/// Runs benchmarks on the bench's kernel; their figures are ratios within one run
#[derive(Args)]
pub(crate) struct Bench {
    /// The benchmark's name; without it, all of them
    name: Option<String>,
    /// The size of the cluster, Services x endpoints: P1 10,000 x 2, P2 5,000 x 50, P3 44,125 x 1, P4 1 x 100,000,
    /// P5 1,000 x 10, P6 100 x 10, P7 5,000 x 10
    #[arg(long, value_delimiter = ',', default_value = "P5", value_parser = ["P1", "P2", "P3", "P4", "P5", "P6", "P7"])]
    shape: Vec<String>,
    /// How often each measurement runs; without it, less often if the shape is large
    #[arg(long, value_name = "NUMBER")]
    rounds: Option<usize>,
    /// A file to write the figures to
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Record the numbers of instructions in docs/
    #[arg(long)]
    record: bool,
    /// Compare the daemon of the image with a static kube-proxy, on the same objects of one API server. The mode is
    /// nftables, ipvs or iptables
    #[arg(long, value_name = "kube-proxy=PATH[,MODE]", conflicts_with = "name")]
    against: Option<Peer>,
    /// Draw the figures of `--against` in a file of --json, and measure nothing
    #[arg(long, value_name = "FILE", exclusive = true)]
    plot: Option<PathBuf>,
    /// The kernel's package, or a directory with boot/vmlinuz* and lib/modules/*
    #[arg(long, value_name = "PACKAGE")]
    kernel: Option<String>,
}

pub(crate) fn run(args: Bench) -> Result<ExitCode> {
    if let Some(file) = &args.plot {
        return plot::run(file).map(|()| ExitCode::SUCCESS);
    }
    let workspace = Workspace::load()?;
    let counts = args.against.is_none() && args.name.as_deref().is_none_or(|name| name == instructions::NAME);
    ensure!(counts || !args.record, "--record is for `cargo xtask bench {}`", instructions::NAME);
    let mut rows = Rows::new(args.json.clone());
    let status = match args.name.as_deref() {
        Some(instructions::NAME) => 0,
        _ => on_bench(&args, &workspace, &mut rows)?,
    };
    let holds = !counts || instructions::run(&workspace, args.record, &mut rows)?;
    Ok(if status == 0 && !holds { ExitCode::FAILURE } else { status.into() })
}

fn on_bench(args: &Bench, workspace: &Workspace, rows: &mut Rows) -> Result<u8> {
    let binary = build(workspace)?;
    let mut command = vec!["bench".to_owned(), "--rows".to_owned()];
    command.extend(args.name.clone());
    command.extend(args.shape.iter().flat_map(|shape| ["--shape".to_owned(), shape.clone()]));
    command.extend(args.rounds.iter().flat_map(|rounds| ["--rounds".to_owned(), rounds.to_string()]));
    if let Some(peer) = &args.against {
        command.extend(["--against", peer.mode].map(str::to_owned));
    }
    let mut job = Job::new(command);
    job.timeout = HANG;
    job.executables([&binary]);
    if let Some(peer) = &args.against {
        job.executables([&workspace.build_published_daemon(Platform::Host)?]);
        let path = peer.path.canonicalize().with_context(|| format!("reading {}", peer.path.display()))?;
        job.file(&path, "bin/kube-proxy");
    }
    Testbench::prepare(workspace, args.kernel.as_deref(), false)?.run(&job, rows)
}

/// Cargo's profile `bench` is that of a release, with the names of functions.
fn build(workspace: &Workspace) -> Result<Executable> {
    let binaries = workspace.build(&["build", "--package", SCENARIOS, "--bin", "bench", "--profile", "bench"])?;
    binaries.into_iter().next().context("the crate scenarios has no binary named bench")
}
