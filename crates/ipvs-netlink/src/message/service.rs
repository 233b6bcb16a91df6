use netlink_batch::attribute::{array, put_with};
use netlink_packet_core::DecodeError;

use super::{
    CommandAttribute, Message, Stats64Attribute, StatsAttribute, address_from_wire, address_to_wire,
    codec::{Bytes, Codec, Native, Nest, Network, Text, attributes},
    family_from_wire, missing,
};
use crate::{
    Netmask, Persistence, PersistenceEngine, Protocol, Scheduler, ServiceEntry, ServiceFlags, Stats, VirtualServer,
    VirtualServerKey,
};

/// The two flags of `linux/ip_vs.h` that [`ServiceFlags`] leaves out.
const PERSISTENT: u32 = 0x1;
const HASHED: u32 = 0x2;

attributes! {
    /// A virtual server (`IPVS_SVC_ATTR_*`).
    ServiceAttribute {
        /// The address family: 2 or 10.
        Family(u16) = 1 as Native,
        /// The IP protocol number.
        Protocol(u16) = 2 as Native,
        /// The address; IPv4 uses the first four bytes.
        Address([u8; 16]) = 3 as Bytes,
        /// The port.
        Port(u16) = 4 as Network,
        /// The firewall mark, instead of protocol, address and port.
        FirewallMark(u32) = 5 as Native,
        /// The scheduler.
        Scheduler(Scheduler) = 6 as Text,
        /// The flags, and the mask of flags to change.
        Flags(FlagsAndMask) = 7 as Native,
        /// The persistence timeout, seconds.
        Timeout(u32) = 8 as Native,
        /// For IPv4 a mask in network byte order; for IPv6 a prefix length in host byte order.
        Netmask([u8; 4]) = 9 as Bytes,
        /// Counters.
        Stats(Vec<StatsAttribute>) = 10 as Nest,
        /// The persistence engine.
        PersistenceEngine(PersistenceEngine) = 11 as Text,
        /// Counters in 64 bits.
        Stats64(Vec<Stats64Attribute>) = 12 as Nest,
    }
}

/// The kernel's `struct ip_vs_flags`: a request changes the flags of a virtual server to
/// `(old & !mask) | (flags & mask)`. In replies the mask is all ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlagsAndMask {
    /// The flags (`IP_VS_SVC_F_*`).
    pub flags: u32,
    /// The flags to change.
    pub mask: u32,
}

impl Codec<FlagsAndMask> for Native {
    fn append(kind: u16, value: &FlagsAndMask, out: &mut Vec<u8>) {
        put_with(out, kind, |out| {
            out.extend_from_slice(&value.flags.to_ne_bytes());
            out.extend_from_slice(&value.mask.to_ne_bytes());
        });
    }

    fn read(bytes: &[u8]) -> Result<Option<FlagsAndMask>, DecodeError> {
        let Some([a, b, c, d, e, f, g, h]) = array(bytes) else { return Ok(None) };
        let (flags, mask) = (u32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes([e, f, g, h]));
        Ok(Some(FlagsAndMask { flags, mask }))
    }
}

impl VirtualServerKey {
    pub(crate) fn attribute(&self) -> CommandAttribute {
        let mut attributes = Vec::new();
        self.attributes(|attribute| attributes.push(attribute));
        CommandAttribute::Service(attributes)
    }

    #[inline]
    pub(crate) fn attributes(&self, mut give: impl FnMut(ServiceAttribute)) {
        give(ServiceAttribute::Family(self.family().number()));
        match *self {
            Self::Address { address, port, protocol } => {
                give(ServiceAttribute::Protocol(protocol.number().into()));
                give(ServiceAttribute::Address(address_to_wire(address)));
                give(ServiceAttribute::Port(port));
            }
            // With mark 0 the kernel would look up a service of address 0.0.0.0 and port 0. Without the attribute it
            // rejects the request.
            Self::FirewallMark { mark: 0, .. } => {}
            Self::FirewallMark { mark, .. } => give(ServiceAttribute::FirewallMark(mark)),
        }
    }
}

impl VirtualServer {
    /// `SetService` takes the whole configuration, as `NewService` does.
    pub(crate) fn attributes(&self, key: &VirtualServerKey, mut give: impl FnMut(ServiceAttribute)) {
        let persistent = if self.persistence.is_some() { PERSISTENT } else { 0 };
        let flags = self.flags.bits() & !(PERSISTENT | HASHED) | persistent;
        let persistence = self.persistence.unwrap_or(Persistence { timeout: 0, netmask: Netmask::HOST });
        key.attributes(&mut give);
        give(ServiceAttribute::Scheduler(self.scheduler));
        self.persistence_engine.map(ServiceAttribute::PersistenceEngine).into_iter().for_each(&mut give);
        give(ServiceAttribute::Flags(FlagsAndMask { flags, mask: u32::MAX }));
        give(ServiceAttribute::Timeout(persistence.timeout));
        give(ServiceAttribute::Netmask(persistence.netmask.to_wire(key.family())));
    }
}

/// Reads one virtual server of the answer to `GetService`.
impl TryFrom<&Message> for ServiceEntry {
    type Error = DecodeError;

    fn try_from(message: &Message) -> Result<Self, DecodeError> {
        let nest = message.command_attributes().iter().find_map(|attribute| match attribute {
            CommandAttribute::Service(nest) => Some(nest.as_slice()),
            _ => None,
        });
        Self::from_attributes(nest.ok_or_else(|| missing("a virtual server"))?)
    }
}

impl ServiceEntry {
    fn from_attributes(attributes: &[ServiceAttribute]) -> Result<Self, DecodeError> {
        use ServiceAttribute as A;
        let (mut family, mut protocol, mut address, mut port, mut mark) = (None, None, None, None, None);
        let (mut scheduler, mut engine, mut flags) = (None, None, None);
        let (mut timeout, mut netmask) = (0, None);
        let (mut stats, mut stats64) = (None, None);
        for attribute in attributes {
            match attribute {
                A::Family(number) => family = Some(family_from_wire(*number)?),
                A::Protocol(number) => protocol = Some(protocol_from_wire(*number)?),
                A::Address(bytes) => address = Some(*bytes),
                A::Port(number) => port = Some(*number),
                A::FirewallMark(number) => mark = Some(*number),
                A::Scheduler(name) => scheduler = Some(*name),
                A::Flags(pair) => flags = Some(pair.flags),
                A::Timeout(seconds) => timeout = *seconds,
                A::Netmask(bytes) => netmask = Some(*bytes),
                A::Stats(counters) => stats = Some(Stats::from(counters.as_slice())),
                A::PersistenceEngine(name) => engine = Some(*name),
                A::Stats64(counters) => stats64 = Some(Stats::from(counters.as_slice())),
                A::Other(_) => {}
            }
        }
        let family = family.ok_or_else(|| missing("the family of a virtual server"))?;
        let key = match (mark, protocol, address, port) {
            (Some(mark), ..) => VirtualServerKey::FirewallMark { mark, family },
            (None, Some(protocol), Some(address), Some(port)) => {
                VirtualServerKey::Address { address: address_from_wire(family, address), port, protocol }
            }
            _ => return Err(missing("the address of a virtual server")),
        };
        let flags = flags.ok_or_else(|| missing("the flags of a virtual server"))?;
        let persistence = (flags & PERSISTENT != 0).then(|| Persistence {
            timeout,
            netmask: netmask.map_or(Netmask::HOST, |bytes| Netmask::from_wire(family, bytes)),
        });
        let service = VirtualServer {
            scheduler: scheduler.ok_or_else(|| missing("the scheduler of a virtual server"))?,
            flags: ServiceFlags::from_bits_retain(flags & !(PERSISTENT | HASHED)),
            persistence,
            persistence_engine: engine,
        };
        Ok(Self { key, service, stats: stats64.or(stats).unwrap_or_default() })
    }
}

fn protocol_from_wire(number: u16) -> Result<Protocol, DecodeError> {
    u8::try_from(number)
        .map(Protocol::from_number)
        .map_err(|_| DecodeError::from(format!("IP protocol number {number}")))
}
