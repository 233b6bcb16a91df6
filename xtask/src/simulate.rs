//! `cargo xtask simulate`: random runs of the simulation in kube-ipvs, optimised.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;

use crate::workspace::{Workspace, cargo};

/// Looks for orders of events in which the daemon breaks a rule
#[derive(Args)]
pub(crate) struct Simulate {
    /// How many steps to take in all
    #[arg(long, default_value_t = 1_000_000)]
    steps: u64,
    /// The seed of the first run. Each run has the next seed
    #[arg(long, default_value_t = 1_000)]
    seed: u64,
    /// Runs this case alone, and shortens it if it fails
    #[arg(long, value_name = "FILE")]
    case: Option<PathBuf>,
}

pub(crate) fn run(args: &Simulate) -> Result<ExitCode> {
    let workspace = Workspace::load()?;
    let test = if args.case.is_some() { "committed_cases_break_no_rule" } else { "random_steps_break_no_rule" };
    let mut command = cargo();
    command
        .args(["test", "--profile", "simulate", "--package", "kube-ipvs", "--lib", "--"])
        .args(["--exact", &format!("simulation::{test}"), "--nocapture"])
        .env("KUBE_IPVS_SIMULATE_STEPS", args.steps.to_string())
        .env("KUBE_IPVS_SIMULATE_SEED", args.seed.to_string())
        .current_dir(&workspace.root);
    if let Some(case) = &args.case {
        let case = case.canonicalize().with_context(|| format!("finding {}", case.display()))?;
        command.env("KUBE_IPVS_SIMULATE_CASE", case);
    }
    let status = command.status().context("starting cargo")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
