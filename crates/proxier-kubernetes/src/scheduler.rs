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

/// The scheduler of this name, as the annotation `kube-ipvs.io/scheduler` takes it.
///
/// # Errors
///
/// If Linux has no such scheduler, with the names of those that it has.
pub fn parse_scheduler(name: &str) -> Result<Scheduler, String> {
    KNOWN.into_iter().find(|known| known.as_str() == name).ok_or_else(|| {
        let known = KNOWN.map(|known| known.to_string()).join(", ");
        format!("{name:?} is not a scheduler of IPVS: allowed are {known}")
    })
}
