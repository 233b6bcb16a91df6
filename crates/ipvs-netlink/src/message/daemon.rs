use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_core::DecodeError;

use super::{
    CommandAttribute, Message,
    codec::{Codec, Native, Network, Text, attributes},
    missing,
};
use crate::{Daemon, DaemonRole, InterfaceName};

attributes! {
    /// A synchronisation daemon (`IPVS_DAEMON_ATTR_*`).
    DaemonAttribute {
        /// Master (1) or backup (2).
        State(u32) = 1 as Native,
        /// The interface of the multicast.
        Interface(InterfaceName) = 2 as Text,
        /// The group of directors.
        SyncId(u32) = 3 as Native,
        /// Maximum size of a UDP payload in bytes.
        MaxLength(u16) = 4 as Native,
        /// The multicast group of IPv4.
        Group(Ipv4Addr) = 5 as Network,
        /// The multicast group of IPv6.
        Group6(Ipv6Addr) = 6 as Network,
        /// The first UDP port; unlike all other ports in host byte order.
        Port(u16) = 7 as Native,
        /// The multicast TTL.
        Ttl(u8) = 8 as Native,
    }
}

impl Daemon {
    pub(crate) fn attributes(&self) -> Vec<DaemonAttribute> {
        use DaemonAttribute as A;
        let mut attributes = vec![A::State(self.role.number()), A::Interface(self.interface), A::SyncId(self.sync_id)];
        attributes.extend(self.max_length.map(A::MaxLength));
        attributes.extend(self.group.map(|group| match group {
            IpAddr::V4(group) => A::Group(group),
            IpAddr::V6(group) => A::Group6(group),
        }));
        attributes.extend(self.port.map(A::Port));
        attributes.extend(self.ttl.map(A::Ttl));
        attributes
    }
}

/// Reads one daemon of the answer to `GetDaemon`.
impl TryFrom<&Message> for Daemon {
    type Error = DecodeError;

    fn try_from(message: &Message) -> Result<Self, DecodeError> {
        use DaemonAttribute as A;
        let nest = message.command_attributes().iter().find_map(|attribute| match attribute {
            CommandAttribute::Daemon(nest) => Some(nest),
            _ => None,
        });
        let (mut role, mut interface, mut sync_id) = (None, None, None);
        let (mut max_length, mut group, mut port, mut ttl) = (None, None, None, None);
        for attribute in nest.ok_or_else(|| missing("a daemon"))? {
            match attribute {
                A::State(state) => role = DaemonRole::from_number(*state),
                A::Interface(name) => interface = Some(*name),
                A::SyncId(id) => sync_id = Some(*id),
                A::MaxLength(length) => max_length = Some(*length),
                A::Group(address) => group = Some(IpAddr::V4(*address)),
                A::Group6(address) => group = Some(IpAddr::V6(*address)),
                A::Port(number) => port = Some(*number),
                A::Ttl(hops) => ttl = Some(*hops),
                A::Other(_) => {}
            }
        }
        Ok(Self {
            role: role.ok_or_else(|| missing("the role of a daemon"))?,
            interface: interface.ok_or_else(|| missing("the interface of a daemon"))?,
            sync_id: sync_id.ok_or_else(|| missing("the sync id of a daemon"))?,
            max_length,
            group,
            port,
            ttl,
        })
    }
}
