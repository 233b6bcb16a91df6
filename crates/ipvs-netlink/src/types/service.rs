use std::fmt;

use crate::{Persistence, PersistenceEngine, Scheduler, Stats, VirtualServerKey};

/// The configuration of a virtual server: everything that can change without deleting it.
///
/// A configuration compares equal to the one read back: internal flags of the kernel are left out, and the netmask
/// counts only with persistence.
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
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct VirtualServer {
    /// How it chooses a destination for a new connection.
    pub scheduler: Scheduler,
    /// One-packet scheduling and flags of the scheduler.
    pub flags: ServiceFlags,
    /// Whether, and how long, later connections of a client go to the destination of its first one.
    pub persistence: Option<Persistence>,
    /// Identifies a client by more than its address.
    pub persistence_engine: Option<PersistenceEngine>,
}

impl VirtualServer {
    /// A virtual server with a scheduler and no options.
    pub const fn new(scheduler: Scheduler) -> Self {
        Self { scheduler, flags: ServiceFlags::empty(), persistence: None, persistence_engine: None }
    }
}

/// Similar to `ipvsadm -Ln`, without the netmask: `rr persistent 10800`, `sh (sh-fallback)`.
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
    /// Two flags of the kernel are missing here. `PERSISTENT` (1) is [`VirtualServer::persistence`], and `HASHED` (2)
    /// is internal to the kernel. Encoding and decoding leave out both bits and keep unknown ones.
    #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
    #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
    pub struct ServiceFlags: u32 {
        /// The kernel schedules each datagram separately. UDP only.
        const ONE_PACKET = 0x4;
        /// First flag of the scheduler.
        const SCHEDULER_1 = 0x8;
        /// Second flag of the scheduler.
        const SCHEDULER_2 = 0x10;
        /// Third flag of the scheduler.
        const SCHEDULER_3 = 0x20;
        /// With [`Scheduler::SH`]: if the destination has weight 0 or is overloaded, choose another one.
        const SH_FALLBACK = Self::SCHEDULER_1.bits();
        /// With [`Scheduler::SH`]: the source port counts too.
        const SH_PORT = Self::SCHEDULER_2.bits();
        /// With [`Scheduler::MH`]: if the destination has weight 0 or is overloaded, choose another one.
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
    /// The virtual server.
    pub key: VirtualServerKey,
    /// Its configuration.
    pub service: VirtualServer,
    /// Its counters.
    pub stats: Stats,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn virtual_server_displays_similar_to_ipvsadm() {
        let flags = ServiceFlags::SH_FALLBACK | ServiceFlags::SH_PORT | ServiceFlags::ONE_PACKET;
        let persistence_engine = PersistenceEngine::new("sip").ok();
        let persistence = Some(Persistence::seconds(360));
        let server = VirtualServer { scheduler: Scheduler::SH, flags, persistence, persistence_engine };
        assert_eq!(server.to_string(), "sh (sh-fallback,sh-port) ops persistent 360 pe sip");
        assert_eq!(VirtualServer::new(Scheduler::WRR).to_string(), "wrr");
    }
}
