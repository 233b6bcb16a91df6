use ipvs_netlink::Scheduler;

/// The schedulers of Linux, each a module `ip_vs_NAME`.
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

/// The scheduler of this name, as in the annotation `kube-ipvs.io/scheduler`.
///
/// # Errors
///
/// If Linux has no such scheduler. The error lists the schedulers of Linux.
pub fn parse_scheduler(name: &str) -> Result<Scheduler, String> {
    KNOWN.into_iter().find(|known| known.as_str() == name).ok_or_else(|| {
        let known = KNOWN.map(|known| known.to_string()).join(", ");
        format!("{name:?} is not a scheduler of IPVS: use one of {known}")
    })
}
