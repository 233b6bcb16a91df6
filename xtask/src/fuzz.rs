//! `cargo xtask fuzz`: random and mutated bytes through the decoders of ipvs-netlink, which must never panic.
//!
//! The fuzzers are in crates/ipvs-netlink/fuzz and build with the stable toolchain. `messages` is the only one.

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;

use crate::workspace::{Workspace, cargo};

/// Feeds random bytes to the message decoders
#[derive(Args)]
pub(crate) struct Fuzz {
    /// The name of the fuzzer
    #[arg(default_value = "messages")]
    target: String,
    /// How long to run, in seconds
    #[arg(long, default_value_t = 60)]
    seconds: u64,
}

pub(crate) fn run(args: Fuzz) -> Result<ExitCode> {
    let workspace = Workspace::load()?;
    let status = cargo()
        .args(["run", "--release", "--package", "ipvs-netlink-fuzz", "--bin", &args.target])
        .args(["--", "--seconds", &args.seconds.to_string()])
        .current_dir(&workspace.root)
        .status()
        .context("starting cargo")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
