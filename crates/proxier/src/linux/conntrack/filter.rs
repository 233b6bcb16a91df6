//! Filters for lists of conntrack entries, so that the kernel copies few entries of a large table.
//!
//! Linux implements them since 5.8, in `ctnetlink_alloc_filter` and `ctnetlink_filter_match_tuple` of
//! `net/netfilter/nf_conntrack_netlink.c`. Older kernels ignore a filter and list all entries. A request without a zone
//! lists the entries of all zones.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
};

use netlink_batch::attribute::{nest, put};

use super::entry::{
    DESTINATION_PORT, Entry, IPV4_DESTINATION, PROTOCOL_NUMBER, TUPLE_IP, TUPLE_ORIGINAL, TUPLE_PROTOCOL, header,
};
use crate::model::{Family, PortNumber, Protocol, VirtualServerKey};

/// `CTA_FILTER` and `CTA_FILTER_ORIG_FLAGS` of `linux/netfilter/nfnetlink_conntrack.h`.
const FILTER: u16 = 25;
const ORIGINAL_FLAGS: u16 = 1;

/// `CTA_FILTER_F_*` of the kernel's `net/netfilter/nf_internals.h`: the fields of the tuple that must match.
const BY_ADDRESS: u32 = 1 << 1;
const BY_PROTOCOL: u32 = 1 << 3;
const BY_PORT: u32 = 1 << 5;

/// Maximum number of lists by destination. For each list, the kernel visits the whole table.
const LISTS: usize = 8;

/// Selects entries by the destination of the client's packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Filter {
    family: Family,
    fields: Fields,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fields {
    Any,
    Protocol(Protocol),
    Destination {
        protocol: Protocol,
        port: PortNumber,
        /// Always `None` for IPv6, where the kernel's comparison is inverted (seen from Linux 5.8 to 6.18): it omits
        /// the entries with the address of the filter.
        address: Option<Ipv4Addr>,
    },
}

impl Filter {
    /// All entries of a family.
    pub(super) fn all(family: Family) -> Self {
        Self { family, fields: Fields::Any }
    }

    /// Filters of a few lists that together have all entries to these destinations of one family.
    pub(super) fn to(family: Family, destinations: &BTreeSet<VirtualServerKey>) -> Vec<Self> {
        let of = |fields| Self { family, fields };
        let by_destination: BTreeSet<Self> = destinations
            .iter()
            .map(|&VirtualServerKey { address, protocol, port }| {
                let address = match address {
                    IpAddr::V4(address) => Some(address),
                    IpAddr::V6(_) => None,
                };
                of(Fields::Destination { protocol, port, address })
            })
            .collect();
        if by_destination.len() <= LISTS {
            return by_destination.into_iter().collect();
        }
        let protocols: BTreeSet<Protocol> = destinations.iter().map(|to| to.protocol).collect();
        match protocols.first() {
            Some(protocol) if protocols.len() == 1 => vec![of(Fields::Protocol(*protocol))],
            _ => vec![Self::all(family)],
        }
    }

    pub(super) fn request(&self) -> Vec<u8> {
        let mut out = header(self.family).to_vec();
        let (protocol, port, address) = match self.fields {
            Fields::Any => return out,
            Fields::Protocol(protocol) => (protocol, None, None),
            Fields::Destination { protocol, port, address } => (protocol, Some(port), address),
        };
        nest(&mut out, TUPLE_ORIGINAL, |out| {
            if let Some(address) = address {
                nest(out, TUPLE_IP, |out| put(out, IPV4_DESTINATION, address.octets()));
            }
            nest(out, TUPLE_PROTOCOL, |out| {
                put(out, PROTOCOL_NUMBER, [protocol.number()]);
                port.iter().for_each(|port| put(out, DESTINATION_PORT, port.get().to_be_bytes()));
            });
        });
        let flags = BY_PROTOCOL | port.map_or(0, |_| BY_PORT) | address.map_or(0, |_| BY_ADDRESS);
        nest(&mut out, FILTER, |out| put(out, ORIGINAL_FLAGS, flags.to_ne_bytes()));
        out
    }

    /// Whether a kernel that filters can list the entry. It does not compare ports of SCTP.
    pub(super) fn can_list(&self, entry: &Entry) -> bool {
        let to = entry.to;
        let fits = match self.fields {
            Fields::Any => true,
            Fields::Protocol(protocol) => to.protocol == protocol,
            Fields::Destination { protocol, port, address } => {
                let is_port = to.port == port || protocol == Protocol::Sctp;
                to.protocol == protocol && is_port && address.is_none_or(|address| to.address == address)
            }
        };
        to.family() == self.family && fits
    }
}

#[cfg(test)]
mod tests;
