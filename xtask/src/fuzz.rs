//! `cargo xtask fuzz`: mutated inputs through every decoder, which must never panic.
//!
//! Each decoder has a test whose name begins with `mutated`. The loop and the corpus are in crates/fuzz.

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;

use crate::workspace::{Workspace, cargo};

/// The packages with decoders.
const PACKAGES: [&str; 4] = ["ipvs-netlink", "kube-ipvs-proxier", "kube-ipvs-proxier-kubernetes", "kube-ipvs"];

/// Feeds mutated inputs to the decoders
#[derive(Args)]
pub(crate) struct Fuzz {
    /// A part of the name of a test, such as `mutated_manifests`
    #[arg(default_value = "mutated")]
    target: String,
    /// How long each decoder runs, in seconds
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Another seed gives other inputs
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

pub(crate) fn run(args: &Fuzz) -> Result<ExitCode> {
    let workspace = Workspace::load()?;
    let packages = PACKAGES.iter().flat_map(|package| ["--package", package]);
    let status = cargo()
        .args(["test", "--profile", "simulate", "--no-fail-fast", "--lib", "--test", "properties", "--test", "objects"])
        .args(packages)
        .args(["--", &args.target, "--nocapture"])
        .env("KUBE_IPVS_FUZZ_SECONDS", args.seconds.to_string())
        .env("KUBE_IPVS_FUZZ_SEED", args.seed.to_string())
        .current_dir(&workspace.root)
        .status()
        .context("starting cargo")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
