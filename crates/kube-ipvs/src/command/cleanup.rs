use std::{collections::BTreeSet, process::ExitCode};

use anyhow::{Context, ensure};
use proxier::model::Family;

#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct Cleanup {
    /// Leave virtual servers and their addresses to kube-proxy, which serves them again; remove only the rules
    #[arg(long)]
    handover: bool,
    /// Hand over although kube-proxy's rules cannot be seen, for example because they are those of legacy iptables
    #[arg(long, requires = "handover")]
    force: bool,
}

impl Cleanup {
    pub(super) fn run(&self) -> anyhow::Result<ExitCode> {
        const RETRY_HINT: &str = "what is left is removed by the next try";
        // A running daemon would restore everything that cleanup removes.
        let _claim = super::claim::claim()?;
        let mut kernel = super::kernel_as_it_is()?;
        if self.handover {
            if !self.force {
                ensure_served(&kernel.not_served_by_kube_proxy().context("cannot hand over")?)?;
            }
            kernel.handover().with_context(|| format!("cannot hand over; {RETRY_HINT}"))?;
            return Ok(ExitCode::SUCCESS);
        }
        let plan = kernel.clean_up().with_context(|| format!("cannot clean up; {RETRY_HINT}"))?;
        super::print(&plan)?;
        Ok(ExitCode::SUCCESS)
    }
}

fn ensure_served(lacking: &BTreeSet<Family>) -> anyhow::Result<()> {
    let lacking: Vec<String> = lacking.iter().map(Family::to_string).collect();
    ensure!(
        lacking.is_empty(),
        "not handed over, and nothing is changed: nftables has no rules of kube-proxy that serve {}. Its first sync is not over, so try again \
         soon; or it writes legacy iptables', which cannot be seen here: then look for them yourself, and give --force",
        lacking.join(" and ")
    );
    Ok(())
}
