use std::{fmt, str::FromStr};

use ipvs_netlink::Scheduler;
use proxier_kubernetes::parse_scheduler;

/// `--ipvs-scheduler`: the name of a kernel scheduler. Empty means kube-proxy's default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DefaultScheduler(pub Scheduler);

impl Default for DefaultScheduler {
    fn default() -> Self {
        Self(Scheduler::RR)
    }
}

impl FromStr for DefaultScheduler {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let name = text.trim();
        if name.is_empty() {
            return Ok(Self::default());
        }
        parse_scheduler(name).map(Self)
    }
}

impl fmt::Display for DefaultScheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
