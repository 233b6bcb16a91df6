use netlink_batch::attribute::checked;
use netlink_packet_core::{DecodeError, NLA_F_NESTED};
use netlink_packet_generic::constants::GENL_HDRLEN;

use super::{
    CommandAttribute, Message, Stats64Attribute, StatsAttribute, address_from_wire, address_to_wire,
    codec::{Bytes, Codec, Native, Nest, Network, attributes, each},
    family_from_wire, missing,
};
use crate::{
    Connections, Destination, DestinationEntry, DestinationKey, Family, Forwarding, Stats, Tunnel, TunnelFlags,
    TunnelType,
};

attributes! {
    /// A destination (`IPVS_DEST_ATTR_*`).
    DestinationAttribute {
        /// The address; IPv4 uses the first four bytes.
        Address([u8; 16]) = 1 as Bytes,
        /// The port.
        Port(u16) = 2 as Network,
        /// How packets reach it (`IP_VS_CONN_F_*`; three bits count).
        Forwarding(u32) = 3 as Native,
        /// Its share of new connections.
        Weight(u32) = 4 as Native,
        /// With this many connections it gets no new ones.
        UpperThreshold(u32) = 5 as Native,
        /// Below this many connections it gets new ones again.
        LowerThreshold(u32) = 6 as Native,
        /// Established connections.
        ActiveConnections(u32) = 7 as Native,
        /// All other connections.
        InactiveConnections(u32) = 8 as Native,
        /// Persistence templates.
        PersistentConnections(u32) = 9 as Native,
        /// Counters.
        Stats(Vec<StatsAttribute>) = 10 as Nest,
        /// The family of the address; without it, that of the virtual server (Linux 3.18).
        Family(u16) = 11 as Native,
        /// Counters in 64 bits.
        Stats64(Vec<Stats64Attribute>) = 12 as Nest,
        /// The encapsulation (`IP_VS_CONN_F_TUNNEL_TYPE_*`).
        TunnelType(u8) = 13 as Native,
        /// The UDP port of the encapsulation.
        TunnelPort(u16) = 14 as Network,
        /// Flags of the encapsulation (`IP_VS_TUNNEL_ENCAP_FLAG_*`).
        TunnelFlags(u16) = 15 as Native,
    }
}

impl DestinationKey {
    #[inline]
    pub(crate) fn attributes(&self, mut give: impl FnMut(DestinationAttribute)) {
        give(DestinationAttribute::Address(address_to_wire(self.address)));
        give(DestinationAttribute::Port(self.port));
        give(DestinationAttribute::Family(self.family().number()));
    }
}

impl Destination {
    pub(crate) fn attribute(&self, key: &DestinationKey) -> CommandAttribute {
        let mut attributes = Vec::new();
        self.attributes(key, |attribute| attributes.push(attribute));
        CommandAttribute::Destination(attributes)
    }

    /// `SetDestination` takes the whole configuration, as `NewDestination` does.
    #[inline]
    pub(crate) fn attributes(&self, key: &DestinationKey, mut give: impl FnMut(DestinationAttribute)) {
        key.attributes(&mut give);
        give(DestinationAttribute::Forwarding(self.forwarding.number()));
        give(DestinationAttribute::Weight(self.weight));
        give(DestinationAttribute::UpperThreshold(self.upper_threshold));
        give(DestinationAttribute::LowerThreshold(self.lower_threshold));
        if let Forwarding::Tunnel(tunnel) = self.forwarding {
            give(DestinationAttribute::TunnelType(tunnel.kind.number()));
            give(DestinationAttribute::TunnelPort(tunnel.port));
            give(DestinationAttribute::TunnelFlags(tunnel.flags.bits()));
        }
    }
}

impl DestinationEntry {
    /// Reads one destination of the answer to `GetDestination`. If an old kernel does not report its family, it has the
    /// family of its virtual server.
    ///
    /// # Errors
    ///
    /// If a required attribute is missing.
    pub fn from_message(message: &Message, service: Family) -> Result<Self, DecodeError> {
        let nest = message.command_attributes().iter().find_map(|attribute| match attribute {
            CommandAttribute::Destination(nest) => Some(nest.as_slice()),
            _ => None,
        });
        let nest = nest.ok_or_else(|| missing("a destination"))?;
        Self::from_attributes(nest.iter().cloned().map(Ok), service)
    }

    /// Reads one destination as [`from_message`](Self::from_message) does, from the bytes behind the netlink header. A
    /// list of thousands of destinations takes half the time without a [`Message`] for each.
    pub(crate) fn from_bytes(answer: &[u8], service: Family) -> Result<Self, DecodeError> {
        // A message has no nest of another type or shape.
        let nest =
            answer.get(GENL_HDRLEN..).into_iter().flat_map(checked).map_while(Result::ok).find(|(kind, value)| {
                kind & !NLA_F_NESTED == CommandAttribute::DESTINATION && value.len().is_multiple_of(4)
            });
        let (_, nest) = nest.ok_or_else(|| missing("a destination"))?;
        Self::from_attributes(each(nest), service)
    }

    fn from_attributes(
        attributes: impl Iterator<Item = Result<DestinationAttribute, DecodeError>>,
        service: Family,
    ) -> Result<Self, DecodeError> {
        use DestinationAttribute as A;
        let (mut family, mut address, mut port) = (service, None, None);
        let (mut method, mut weight, mut upper_threshold, mut lower_threshold) = (None, None, 0, 0);
        let mut tunnel = Tunnel::default();
        let mut connections = Connections::default();
        let (mut stats, mut stats64) = (None, None);
        for attribute in attributes {
            match attribute? {
                A::Address(bytes) => address = Some(bytes),
                A::Port(number) => port = Some(number),
                A::Forwarding(number) => method = Some(number),
                A::Weight(number) => weight = Some(number),
                A::UpperThreshold(number) => upper_threshold = number,
                A::LowerThreshold(number) => lower_threshold = number,
                A::ActiveConnections(count) => connections.active = count,
                A::InactiveConnections(count) => connections.inactive = count,
                A::PersistentConnections(count) => connections.persistent = count,
                A::Stats(counters) => stats = Some(Stats::from(counters.as_slice())),
                A::Family(number) => family = family_from_wire(number)?,
                A::Stats64(counters) => stats64 = Some(Stats::from(counters.as_slice())),
                A::TunnelType(number) => tunnel.kind = TunnelType::from_number(number),
                A::TunnelPort(number) => tunnel.port = number,
                A::TunnelFlags(bits) => tunnel.flags = TunnelFlags::from_bits_retain(bits),
                A::Other(_) => {}
            }
        }
        let address = address.ok_or_else(|| missing("the address of a destination"))?;
        let method = method.ok_or_else(|| missing("the forwarding method of a destination"))?;
        Ok(Self {
            key: DestinationKey {
                address: address_from_wire(family, address),
                port: port.ok_or_else(|| missing("the port of a destination"))?,
            },
            destination: Destination {
                forwarding: Forwarding::from_number(method, tunnel),
                weight: weight.ok_or_else(|| missing("the weight of a destination"))?,
                upper_threshold,
                lower_threshold,
            },
            connections,
            stats: stats64.or(stats).unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Request, VirtualServerKey, message::Command};

    fn request() -> Request {
        let service = VirtualServerKey::new(crate::Protocol::Tcp, "10.0.0.1:80".parse().unwrap());
        let key = DestinationKey { address: "10.244.0.1".parse().unwrap(), port: 8080 };
        let destination = Destination { weight: 3, upper_threshold: 9, ..Destination::default() };
        Request::AddDestination { service, key, destination }
    }

    #[test]
    fn destination_of_a_request_is_read_back_from_its_bytes() {
        let (request, mut bytes) = (request(), Vec::new());
        request.append_to(&mut bytes);
        let entry = DestinationEntry::from_bytes(&bytes, Family::V4).unwrap();
        let Request::AddDestination { key, destination, .. } = request else { unreachable!() };
        assert_eq!((entry.key, entry.destination), (key, destination));
    }

    #[test]
    fn mutated_destinations_are_read_alike_from_bytes_and_from_a_message() {
        let mut bytes = Vec::new();
        request().append_to(&mut bytes);
        fuzz::fuzz("ipvs-destinations", [bytes], |bytes| {
            let message = bytes.get(GENL_HDRLEN..).map(|bytes| Message::parse(Command::NewDestination, bytes));
            let read = DestinationEntry::from_bytes(bytes, Family::V4);
            if let Some(Ok(message)) = message
                && let Ok(entry) = DestinationEntry::from_message(&message, Family::V4)
            {
                assert_eq!(read.unwrap(), entry);
            }
        });
    }
}
