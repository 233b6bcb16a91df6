use std::{collections::BTreeSet, process::ExitCode};

use anyhow::{Context, ensure};
use proxier::model::Family;

#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct Cleanup {
    /// Leave virtual servers and their addresses to kube-proxy, which serves them again; remove only the rules
    #[arg(long)]
    handover: bool,
    /// Hand over even if kube-ipvs cannot see kube-proxy's rules, for example those of legacy iptables
    #[arg(long, requires = "handover")]
    force: bool,
}

impl Cleanup {
    pub(super) fn run(&self) -> anyhow::Result<ExitCode> {
        const RETRY_HINT: &str = "run the command again to remove the rest";
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
        "kube-ipvs handed over nothing: nftables has no rules of kube-proxy that serve {}. If kube-proxy has just \
         started, try again after its first sync. If kube-proxy writes legacy iptables, kube-ipvs cannot see its \
         rules. Check them yourself, and then use --force",
        lacking.join(" and ")
    );
    Ok(())
}
