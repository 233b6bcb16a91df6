use std::{fmt, str::FromStr};

use ipvs_netlink::Scheduler;

/// What Linux has, each as module `ip_vs_NAME`.
const KNOWN: [Scheduler; 14] = [
    Scheduler::RR,
    Scheduler::WRR,
    Scheduler::LC,
    Scheduler::WLC,
    Scheduler::LBLC,
    Scheduler::LBLCR,
    Scheduler::SH,
    Scheduler::DH,
    Scheduler::SED,
    Scheduler::NQ,
    Scheduler::MH,
    Scheduler::FO,
    Scheduler::OVF,
    Scheduler::TWOS,
];

/// `--ipvs-scheduler`: the name of a scheduler that Linux has; empty is kube-proxy's default.
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
        let known = KNOWN.into_iter().find(|known| known.as_str() == name);
        known.map(Self).ok_or_else(|| {
            let known = KNOWN.map(|known| known.to_string()).join(", ");
            format!("{name:?} is not a scheduler of IPVS: allowed are {known}")
        })
    }
}

impl fmt::Display for DefaultScheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
