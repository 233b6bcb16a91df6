//! Conntrack entries: reading and deletion.

use std::net::IpAddr;

use netlink_batch::{
    Batch,
    attribute::{address, array, find, nest, put},
};

use crate::{
    cluster::EndpointAddress,
    linux::netfilter::{self, CONNTRACK, message_type},
    model::{Family, PortNumber, Protocol, VirtualServerKey},
};

// `IPCTNL_MSG_CT_*`.
const NEW: u16 = message_type(CONNTRACK, 0);
pub(super) const GET: u16 = message_type(CONNTRACK, 1);
const DELETE: u16 = message_type(CONNTRACK, 2);

// `enum ctattr_*` of `linux/netfilter/nfnetlink_conntrack.h`.
pub(super) const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const STATUS: u16 = 3;
const ID: u16 = 12;
const ZONE: u16 = 18;

pub(super) const TUPLE_IP: u16 = 1;
pub(super) const TUPLE_PROTOCOL: u16 = 2;
const TUPLE_ZONE: u16 = 3;

const IPV4_SOURCE: u16 = 1;
pub(super) const IPV4_DESTINATION: u16 = 2;
const IPV6_SOURCE: u16 = 3;
const IPV6_DESTINATION: u16 = 4;

pub(super) const PROTOCOL_NUMBER: u16 = 1;
const SOURCE_PORT: u16 = 2;
pub(super) const DESTINATION_PORT: u16 = 3;

/// `IPS_DST_NAT` of `linux/netfilter/nf_conntrack_common.h`. netfilter sets it, and IPVS does not.
const DST_NAT: u32 = 1 << 5;

/// A conntrack entry, with the fields that identify it in a delete request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// The destination of the client's packets.
    pub(super) to: VirtualServerKey,
    pub(super) source: IpAddr,
    pub(super) source_port: u16,
    /// The real server, which is the source of the reply direction.
    pub(super) endpoint: Option<EndpointAddress>,
    /// Whether netfilter has translated the destination, as by a short circuit.
    pub(super) is_translated: bool,
    /// The kernel's ID, as raw bytes. It tells apart flows with the same addresses and ports.
    pub(super) id: Option<[u8; 4]>,
    /// The zone of both directions, big-endian.
    pub(super) zone: Option<[u8; 2]>,
    /// The zone of the original direction alone, big-endian.
    pub(super) original_zone: Option<[u8; 2]>,
}

impl Entry {
    /// Reads one message of a dump. `None` for protocols that a Service cannot have, and for malformed messages.
    pub(super) fn read(message_type: u16, payload: &[u8]) -> Option<Self> {
        if message_type != NEW {
            return None;
        }
        let bytes = netfilter::attributes(payload);
        let original = Direction::parse(find(bytes, TUPLE_ORIGINAL)?)?;
        let (address, port) = original.destination;
        let to = VirtualServerKey {
            address,
            protocol: Protocol::from_number(original.protocol)?,
            port: PortNumber::new(port)?,
        };
        let endpoint = || {
            let (address, port) = Direction::parse(find(bytes, TUPLE_REPLY)?)?.source;
            Some(EndpointAddress { address, port: PortNumber::new(port)? })
        };
        Some(Self {
            to,
            source: original.source.0,
            source_port: original.source.1,
            endpoint: endpoint(),
            is_translated: find(bytes, STATUS).and_then(array).is_some_and(|it| u32::from_be_bytes(it) & DST_NAT != 0),
            id: find(bytes, ID).and_then(array),
            zone: find(bytes, ZONE).and_then(array),
            original_zone: original.zone,
        })
    }

    /// Appends the delete request. It must always contain the tuple: without one, the kernel deletes all entries.
    pub(super) fn delete(&self, batch: &mut Batch) {
        batch.push_with(DELETE, 0, |out| {
            out.extend(header(self.to.family()));
            nest(out, TUPLE_ORIGINAL, |out| {
                nest(out, TUPLE_IP, |out| {
                    put_address(out, IPV4_SOURCE, IPV6_SOURCE, self.source);
                    put_address(out, IPV4_DESTINATION, IPV6_DESTINATION, self.to.address);
                });
                nest(out, TUPLE_PROTOCOL, |out| {
                    put(out, PROTOCOL_NUMBER, [self.to.protocol.number()]);
                    put(out, SOURCE_PORT, self.source_port.to_be_bytes());
                    put(out, DESTINATION_PORT, self.to.port.get().to_be_bytes());
                });
                self.original_zone.iter().for_each(|zone| put(out, TUPLE_ZONE, zone));
            });
            self.id.iter().for_each(|id| put(out, ID, id));
            self.zone.iter().for_each(|zone| put(out, ZONE, zone));
        });
    }
}

/// `struct nfgenmsg`, with which every payload begins.
pub(super) fn header(family: Family) -> [u8; 4] {
    netfilter::header(netfilter::family_number(family))
}

fn put_address(out: &mut Vec<u8>, v4: u16, v6: u16, address: IpAddr) {
    match address {
        IpAddr::V4(address) => put(out, v4, address.octets()),
        IpAddr::V6(address) => put(out, v6, address.octets()),
    }
}

struct Direction {
    source: (IpAddr, u16),
    destination: (IpAddr, u16),
    protocol: u8,
    zone: Option<[u8; 2]>,
}

impl Direction {
    fn parse(tuple: &[u8]) -> Option<Self> {
        let (ip, protocol) = (find(tuple, TUPLE_IP)?, find(tuple, TUPLE_PROTOCOL)?);
        let of = |v4, v6| find(ip, v4).or_else(|| find(ip, v6)).and_then(address);
        let port = |kind| find(protocol, kind).and_then(array).map(u16::from_be_bytes);
        let [number] = find(protocol, PROTOCOL_NUMBER).and_then(array)?;
        Some(Self {
            source: (of(IPV4_SOURCE, IPV6_SOURCE)?, port(SOURCE_PORT)?),
            destination: (of(IPV4_DESTINATION, IPV6_DESTINATION)?, port(DESTINATION_PORT)?),
            protocol: number,
            zone: find(tuple, TUPLE_ZONE).and_then(array),
        })
    }
}

#[cfg(test)]
mod tests;
