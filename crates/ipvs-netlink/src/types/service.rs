use std::fmt;

use crate::{Persistence, PersistenceEngine, Scheduler, Stats, VirtualServerKey};

/// How a virtual server works: everything that can be changed without deleting it.
///
/// What was set compares equal to what is read back: flags that the kernel keeps for itself are left out, and
/// the netmask counts only with persistence.
///
/// ```
/// use ipvs_netlink::{Persistence, Scheduler, VirtualServer};
///
/// let sticky = VirtualServer {
///     persistence: Some(Persistence::seconds(10_800)),
///     ..VirtualServer::new(Scheduler::RR)
/// };
/// assert_eq!(sticky.to_string(), "rr persistent 10800");
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VirtualServer {
    /// How it picks a destination for a new connection.
    pub scheduler: Scheduler,
    /// One-packet scheduling and flags of the scheduler.
    pub flags: ServiceFlags,
    /// Whether, and for how long, later connections of a client go where its first one went.
    pub persistence: Option<Persistence>,
    /// What identifies a client beyond its address.
    pub persistence_engine: Option<PersistenceEngine>,
}

impl VirtualServer {
    /// A virtual server with a scheduler and nothing else.
    pub const fn new(scheduler: Scheduler) -> Self {
        Self { scheduler, flags: ServiceFlags::empty(), persistence: None, persistence_engine: None }
    }
}

/// Much as `ipvsadm -Ln` prints it: `rr persistent 10800`, `sh (sh-fallback)`. The netmask is left out.
impl fmt::Display for VirtualServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scheduler, flags, persistence, persistence_engine } = self;
        write!(f, "{scheduler}")?;
        let words = [(ServiceFlags::SCHEDULER_1, "fallback"), (ServiceFlags::SCHEDULER_2, "port")];
        let words: Vec<String> = words
            .iter()
            .filter(|(flag, _)| flags.contains(*flag))
            .map(|(_, word)| format!("{scheduler}-{word}"))
            .collect();
        if !words.is_empty() {
            write!(f, " ({})", words.join(","))?;
        }
        if flags.contains(ServiceFlags::ONE_PACKET) {
            f.write_str(" ops")?;
        }
        persistence.iter().try_for_each(|persistence| write!(f, " persistent {}", persistence.timeout))?;
        persistence_engine.iter().try_for_each(|engine| write!(f, " pe {engine}"))
    }
}

bitflags::bitflags! {
    /// Flags of a virtual server (`IP_VS_SVC_F_*` of `linux/ip_vs.h`).
    ///
    /// Two flags of the kernel are not here. `PERSISTENT` (1) is [`VirtualServer::persistence`], and `HASHED`
    /// (2) is the kernel's own. Both bits are left out when a request is written and when a reply is read;
    /// unknown bits are kept.
    #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub struct ServiceFlags: u32 {
        /// Every datagram is scheduled by itself. UDP only.
        const ONE_PACKET = 0x4;
        /// First flag of the scheduler.
        const SCHEDULER_1 = 0x8;
        /// Second flag of the scheduler.
        const SCHEDULER_2 = 0x10;
        /// Third flag of the scheduler.
        const SCHEDULER_3 = 0x20;
        /// With [`Scheduler::SH`]: if the destination has weight 0 or is overloaded, take another one.
        const SH_FALLBACK = Self::SCHEDULER_1.bits();
        /// With [`Scheduler::SH`]: the source port counts too.
        const SH_PORT = Self::SCHEDULER_2.bits();
        /// With [`Scheduler::MH`]: if the destination has weight 0 or is overloaded, take another one.
        const MH_FALLBACK = Self::SCHEDULER_1.bits();
        /// With [`Scheduler::MH`]: the source port counts too.
        const MH_PORT = Self::SCHEDULER_2.bits();
        const _ = !0;
    }
}

/// A virtual server as the kernel reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServiceEntry {
    /// Which one.
    pub key: VirtualServerKey,
    /// How it works.
    pub service: VirtualServer,
    /// What it did so far.
    pub stats: Stats,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_prints_much_as_ipvsadm_does() {
        let flags = ServiceFlags::SH_FALLBACK | ServiceFlags::SH_PORT | ServiceFlags::ONE_PACKET;
        let persistence_engine = PersistenceEngine::new("sip").ok();
        let persistence = Some(Persistence::seconds(360));
        let server = VirtualServer { scheduler: Scheduler::SH, flags, persistence, persistence_engine };
        assert_eq!(server.to_string(), "sh (sh-fallback,sh-port) ops persistent 360 pe sip");
        assert_eq!(VirtualServer::new(Scheduler::WRR).to_string(), "wrr");
    }
}
