use std::{
    collections::BTreeMap,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use proxier::{linux::LinuxKernel, model::Family, takeover::KubeProxyMode};

use crate::config::GoDuration;

const RETRY_HINT: &str = "run the command again to remove the rest";
const POLL_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, clap::Args)]
pub(super) struct Cleanup {
    /// Hand the node over to kube-proxy, which serves it again. In its ipvs mode, virtual servers and their addresses
    /// stay. In its other modes, kube-ipvs waits until its connections have ended, and then removes everything
    #[arg(long)]
    handover: bool,
    /// Hand over to kube-proxy's ipvs mode even if kube-ipvs cannot see its rules, for example those of legacy iptables
    #[arg(long, requires = "handover")]
    force: bool,
    /// With --handover: how long to wait for the end of connections
    #[arg(long, value_name = "DURATION", requires = "handover", default_value_t = GoDuration::seconds(600))]
    timeout: GoDuration,
}

impl Default for Cleanup {
    fn default() -> Self {
        Self { handover: false, force: false, timeout: GoDuration::seconds(600) }
    }
}

impl Cleanup {
    pub(super) fn run(&self) -> anyhow::Result<ExitCode> {
        // A running daemon would restore everything that cleanup removes.
        let _claim = super::claim::claim()?;
        let mut kernel = super::kernel_as_it_is()?;
        if self.handover {
            let serves = kernel.kube_proxy_serves().context("cannot hand over")?;
            if !self.force {
                ensure_served(&serves)?;
            }
            if !serves.values().any(|mode| mode.is_some_and(|mode| mode != KubeProxyMode::Ipvs)) {
                kernel.handover().with_context(|| format!("cannot hand over; {RETRY_HINT}"))?;
                return Ok(ExitCode::SUCCESS);
            }
            self.drain(&mut kernel).context("cannot hand over")?;
        }
        let plan = kernel.clean_up().with_context(|| format!("cannot clean up; {RETRY_HINT}"))?;
        super::print(&plan)?;
        Ok(ExitCode::SUCCESS)
    }

    /// Waits until connections through IPVS have ended. kube-proxy's rules see new connections before IPVS does.
    fn drain(&self, kernel: &mut LinuxKernel) -> anyhow::Result<()> {
        let start = Instant::now();
        let mut printed = None;
        loop {
            let left = kernel.drain_all()?;
            if left == 0 {
                return Ok(());
            }
            if printed != Some(left) {
                eprintln!("kube-ipvs: kube-proxy serves new connections; {left} earlier ones are left in IPVS");
                printed = Some(left);
            }
            if start.elapsed() >= self.timeout.0 {
                eprintln!("kube-ipvs: --timeout is over: these connections end now");
                return Ok(());
            }
            thread::sleep(POLL_INTERVAL.min(self.timeout.0.saturating_sub(start.elapsed())));
        }
    }
}

fn ensure_served(serves: &BTreeMap<Family, Option<KubeProxyMode>>) -> anyhow::Result<()> {
    let lacking = serves.iter().filter(|(_, mode)| mode.is_none());
    let lacking: Vec<String> = lacking.map(|(family, _)| family.to_string()).collect();
    ensure!(
        lacking.is_empty(),
        "kube-ipvs handed over nothing: nftables has no rules of kube-proxy that serve {}. If kube-proxy has just \
         started, try again after its first sync. If kube-proxy writes legacy iptables, kube-ipvs cannot see its \
         rules. Check them yourself, and then use --force",
        lacking.join(" and ")
    );
    Ok(())
}
