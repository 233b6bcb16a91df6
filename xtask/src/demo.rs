//! `cargo xtask demo`: a small cluster of network namespaces with kube-ipvs on its nodes.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use crate::preflight::{self, Needs};
use crate::steps::Steps;
use crate::testbench::{Job, Terminal};
use crate::workspace::Workspace;

/// GB, measured from an empty target directory and rounded up.
const NEEDS: Needs = Needs { disk: 3, memory: 5, servers: false };

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
    let mut steps = Steps::new(&workspace, 3)?;
    let prepare = || preflight::run(&workspace, args.kernel.as_deref(), &NEEDS);
    let bench = steps.run("preparing the bench for the demo", prepare)?;
    job.executables(&steps.run("building the daemon and the demo", || workspace.build_programs())?);
    job.manifests(&workspace.root);
    Ok(steps.run("the demo", || bench.run(&job, &mut Terminal))?.into())
}
