//! `kube-ipvs takeover --dry-run`: kube-proxy's objects on this node, and the daemon's plan for them.

use std::process::ExitCode;

use anyhow::{Context, ensure};

use super::legacy;
use crate::command::{RunArgs, kernel, log, print, query::args};

#[derive(Debug, clap::Args)]
pub(in crate::command) struct TakeoverArgs {
    /// Print the objects of kube-proxy that `run` would adopt, remove and keep, and change nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    run: RunArgs,
}

impl TakeoverArgs {
    pub(in crate::command) fn run(&self) -> anyhow::Result<ExitCode> {
        ensure!(
            self.dry_run,
            "`kube-ipvs run` takes over after its first sync. This command only prints its plan, with --dry-run"
        );
        log::start_for_a_command();
        let configuration = args(&self.run).configuration()?;
        let mut kernel = kernel(&configuration.engine()?, configuration.kernel())?;
        let preview = kernel.preview_takeover().context("cannot look for kube-proxy's objects")?;
        if preview.modes.is_empty() {
            eprintln!("kube-ipvs: kube-proxy has left no objects that kube-ipvs can see");
        }
        legacy::notes().iter().for_each(|note| eprintln!("kube-ipvs: {note}"));
        print(&preview)?;
        Ok(ExitCode::SUCCESS)
    }
}
