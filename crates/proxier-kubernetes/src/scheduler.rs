use ipvs_netlink::Scheduler;

/// The schedulers of Linux, each a module `ip_vs_NAME`.
const KNOWN: &str = "rr, wrr, lc, wlc, lblc, lblcr, sh, dh, sed, nq, mh, fo, ovf, twos";

/// The scheduler of this name, as in the annotation `kube-ipvs.io/scheduler`.
///
/// # Errors
///
/// If Linux has no such scheduler. The error lists the schedulers of Linux.
pub fn parse_scheduler(name: &str) -> Result<Scheduler, String> {
    let known = KNOWN.split(", ").find(|known| *known == name).and_then(|known| Scheduler::new(known).ok());
    known.ok_or_else(|| format!("{name:?} is not a scheduler of IPVS: use one of {KNOWN}"))
}
