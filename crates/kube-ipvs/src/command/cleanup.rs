use std::process::ExitCode;

use anyhow::Context;

use crate::config::Configuration;

/// What of it all goes.
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct Cleanup {
    /// Leave virtual servers and their addresses to kube-proxy, which serves them again; remove the rules only
    #[arg(long)]
    hand_over: bool,
}

impl Cleanup {
    pub(super) fn run(&self) -> anyhow::Result<ExitCode> {
        const LEFT: &str = "what is left is removed by the next try";
        let mut kernel = super::kernel(&Configuration::default())?;
        if self.hand_over {
            kernel.hand_over().with_context(|| format!("cannot hand over; {LEFT}"))?;
            return Ok(ExitCode::SUCCESS);
        }
        let plan = kernel.clean_up().with_context(|| format!("cannot clean up; {LEFT}"))?;
        super::print(&plan)?;
        Ok(ExitCode::SUCCESS)
    }
}
