//! `cargo xtask demo`: a small cluster of namespaces with kube-ipvs on its nodes, to watch and to play with.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use crate::testbench::{Bench, Job};
use crate::workspace::Workspace;

/// Shows kube-ipvs at work in a small cluster of network namespaces
#[derive(Args)]
pub(crate) struct Demo {
    /// End in a shell inside the running cluster
    #[arg(long)]
    shell: bool,
    /// The kernel's package, or a directory with boot/vmlinuz* and lib/modules/*
    #[arg(long, value_name = "PACKAGE")]
    kernel: Option<String>,
}

pub(crate) fn run(args: Demo) -> Result<ExitCode> {
    let workspace = Workspace::load()?;
    let mut command = vec!["demo".to_owned()];
    if args.shell {
        command.push("--shell".to_owned());
    }
    let mut job = Job::new(command);
    job.interactive = args.shell;
    for binary in workspace.build_binaries(&[])? {
        job.executable(&binary.path, PathBuf::from("bin").join(binary.file_name()));
    }
    job.manifests(&workspace.root);
    let bench = Bench::choose(&workspace, args.kernel.as_deref())?;
    Ok(bench.run(&job, &mut io::stdout())?.into())
}
