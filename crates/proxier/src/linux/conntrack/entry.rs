use std::{convert::Infallible, net::IpAddr};

use netlink_packet_core::{
    DefaultNla, Emitable, NLA_HEADER_SIZE, NetlinkDeserializable, NetlinkHeader, NetlinkSerializable,
    NlasIterator,
};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterProtoFamily, NetfilterSubsystem,
    conntrack::{ConntrackAttribute, ConntrackMessage, ConntrackMessageType, IPTuple, ProtoTuple, Tuple},
};

use crate::{
    cluster::EndpointAddress,
    model::{Family, PortNumber, Protocol, VirtualServerKey},
};

/// The size of `struct nfgenmsg`.
const HEADER: usize = 4;

// `enum ctattr_*` of `linux/netfilter/nfnetlink_conntrack.h`.
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const ID: u16 = 12;
const ZONE: u16 = 18;

const TUPLE_IP: u16 = 1;
const TUPLE_PROTOCOL: u16 = 2;
const TUPLE_ZONE: u16 = 3;

const IPV4_SOURCE: u16 = 1;
const IPV4_DESTINATION: u16 = 2;
const IPV6_SOURCE: u16 = 3;
const IPV6_DESTINATION: u16 = 4;

const PROTOCOL_NUMBER: u16 = 1;
const SOURCE_PORT: u16 = 2;
const DESTINATION_PORT: u16 = 3;

/// A flow that conntrack knows: what tells which it is, and what it takes to name it to the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// Where the client sends to.
    pub(super) to: VirtualServerKey,
    /// The client.
    pub(super) source: IpAddr,
    pub(super) source_port: u16,
    /// Where the flow goes: who answers.
    pub(super) endpoint: Option<EndpointAddress>,
    /// As the kernel wrote it. Another flow with the same addresses and ports has another.
    pub(super) id: Option<[u8; 4]>,
    /// The zone, big-endian, of both directions...
    pub(super) zone: Option<[u8; 2]>,
    /// ... or of the original one alone.
    pub(super) original_zone: Option<[u8; 2]>,
}

impl Entry {
    /// Reads an entry, without its `struct nfgenmsg`. `None`: it is no flow of a protocol that Services can
    /// have, or makes no sense.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let original = Direction::parse(attribute(bytes, TUPLE_ORIGINAL)?)?;
        let (address, port) = original.destination;
        let to = VirtualServerKey {
            address,
            protocol: Protocol::from_number(original.protocol)?,
            port: PortNumber::new(port)?,
        };
        let endpoint = || {
            let (address, port) = Direction::parse(attribute(bytes, TUPLE_REPLY)?)?.source;
            Some(EndpointAddress { address, port: PortNumber::new(port)? })
        };
        Some(Self {
            to,
            source: original.source.0,
            source_port: original.source.1,
            endpoint: endpoint(),
            id: attribute(bytes, ID).and_then(array),
            zone: attribute(bytes, ZONE).and_then(array),
            original_zone: original.zone,
        })
    }

    /// The request to forget it. It must never lack the tuple: without one, the kernel forgets all flows.
    pub(super) fn deletion(&self) -> NetfilterMessage {
        let mut original = vec![
            Tuple::Ip(vec![
                IPTuple::SourceAddress(self.source),
                IPTuple::DestinationAddress(self.to.address),
            ]),
            Tuple::Proto(vec![
                ProtoTuple::Protocol(self.to.protocol.number().into()),
                ProtoTuple::SourcePort(self.source_port),
                ProtoTuple::DestinationPort(self.to.port.get()),
            ]),
        ];
        original
            .extend(self.original_zone.map(|zone| Tuple::Other(DefaultNla::new(TUPLE_ZONE, zone.to_vec()))));
        let mut attributes = vec![ConntrackAttribute::CtaTupleOrig(original)];
        let id = self.id.map(|id| DefaultNla::new(ID, id.to_vec()));
        let zone = self.zone.map(|zone| DefaultNla::new(ZONE, zone.to_vec()));
        attributes.extend(id.into_iter().chain(zone).map(ConntrackAttribute::Other));
        NetfilterMessage::new(header(self.to.family()), ConntrackMessage::Delete(attributes))
    }
}

/// One direction of a flow.
struct Direction {
    source: (IpAddr, u16),
    destination: (IpAddr, u16),
    protocol: u8,
    zone: Option<[u8; 2]>,
}

impl Direction {
    fn parse(tuple: &[u8]) -> Option<Self> {
        let (ip, protocol) = (attribute(tuple, TUPLE_IP)?, attribute(tuple, TUPLE_PROTOCOL)?);
        let address = |v4, v6| {
            let v4 = || Some(IpAddr::from(array::<4>(attribute(ip, v4)?)?));
            let v6 = || Some(IpAddr::from(array::<16>(attribute(ip, v6)?)?));
            v4().or_else(v6)
        };
        let port = |kind| Some(u16::from_be_bytes(array(attribute(protocol, kind)?)?));
        let [number] = array(attribute(protocol, PROTOCOL_NUMBER)?)?;
        Some(Self {
            source: (address(IPV4_SOURCE, IPV6_SOURCE)?, port(SOURCE_PORT)?),
            destination: (address(IPV4_DESTINATION, IPV6_DESTINATION)?, port(DESTINATION_PORT)?),
            protocol: number,
            zone: attribute(tuple, TUPLE_ZONE).and_then(array),
        })
    }
}

/// A message of the exchange that lists entries.
///
/// Not a [`NetfilterMessage`]: a single attribute that it cannot read would cost the whole list, and it is a
/// dozen allocations an entry.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Message {
    /// The question for the entries of a family.
    List(Family),
    /// An answer; without an entry if it is of no interest. Never sent.
    Answer(Option<Entry>),
}

impl Message {
    pub(super) fn entry(self) -> Option<Entry> {
        match self {
            Self::List(_) => None,
            Self::Answer(entry) => entry,
        }
    }
}

impl NetlinkSerializable for Message {
    fn message_type(&self) -> u16 {
        message_type(ConntrackMessageType::Get)
    }

    fn buffer_len(&self) -> usize {
        HEADER
    }

    fn serialize(&self, buffer: &mut [u8]) {
        if let Self::List(family) = self {
            header(*family).emit(buffer);
        }
    }
}

impl NetlinkDeserializable for Message {
    type Error = Infallible;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, Infallible> {
        let is_entry = header.message_type == message_type(ConntrackMessageType::New);
        let entry = payload.get(HEADER..).filter(|_| is_entry).and_then(Entry::parse);
        Ok(Self::Answer(entry))
    }
}

fn message_type(request: ConntrackMessageType) -> u16 {
    u16::from_be_bytes([NetfilterSubsystem::Conntrack.into(), request.into()])
}

fn header(family: Family) -> NetfilterHeader {
    let family = match family {
        Family::V4 => NetfilterProtoFamily::IPv4,
        Family::V6 => NetfilterProtoFamily::IPv6,
    };
    NetfilterHeader::new(family, 0, 0)
}

/// The value of the first attribute of a kind. Stops at the first one that makes no sense.
fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    let found = NlasIterator::new(bytes).map_while(Result::ok).find(|attribute| attribute.kind() == kind)?;
    let length = usize::from(found.length());
    found.into_inner().get(NLA_HEADER_SIZE..length)
}

/// A value of exactly that length.
fn array<const N: usize>(value: &[u8]) -> Option<[u8; N]> {
    value.try_into().ok()
}

#[cfg(test)]
mod tests;
