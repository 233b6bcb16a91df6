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
pub(crate) fn parse(text: &str) -> Result<Scheduler, String> {
    let name = text.trim();
    if name.is_empty() {
        return Ok(Scheduler::RR);
    }
    KNOWN.into_iter().find(|known| known.as_str() == name).ok_or_else(|| {
        let known = KNOWN.map(|known| known.to_string()).join(", ");
        format!("{name:?} is not a scheduler of IPVS: allowed are {known}")
    })
}
