//! Where the default routes lead. kube-ipvs parses routes itself, because another program's route can have attributes
//! that the library does not understand. Such a route would cost the whole list.

use std::{collections::BTreeSet, convert::Infallible, net::IpAddr};

use netlink_batch::{Error, Socket};
use netlink_packet_core::{NetlinkDeserializable, NetlinkHeader, NetlinkSerializable};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage, route::RouteMessage};

use super::nft::attributes;

/// How often a list that changed under our eyes is made again.
const ATTEMPTS: usize = 10;
/// `RTM_NEWROUTE`.
const NEW_ROUTE: u16 = 24;

/// The gateways of all default routes, in whatever table they are.
pub(super) fn default_gateways(socket: &mut Socket) -> Result<BTreeSet<IpAddr>, Error> {
    let mut gateways = BTreeSet::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut request = RouteMessage::default();
        request.header.address_family = family;
        for routes in list(socket, &request)? {
            if let Routes::Gateways(found) = routes {
                gateways.extend(found);
            }
        }
    }
    Ok(gateways)
}

/// A list, made again where routes changed meanwhile.
fn list(socket: &mut Socket, request: &RouteMessage) -> Result<Vec<Routes>, Error> {
    for _ in 0..ATTEMPTS {
        let request = RouteNetlinkMessage::GetRoute(request.clone());
        match socket.dump(Routes::Request(request.into())) {
            Err(Error::Interrupted) => {}
            outcome => return outcome,
        }
    }
    Err(Error::Interrupted)
}

/// A request for all routes, or what one of them has to say.
enum Routes {
    Request(Box<RouteNetlinkMessage>),
    Gateways(Vec<IpAddr>),
}

impl NetlinkSerializable for Routes {
    fn message_type(&self) -> u16 {
        match self {
            Self::Request(request) => request.message_type(),
            Self::Gateways(_) => NEW_ROUTE,
        }
    }

    fn buffer_len(&self) -> usize {
        match self {
            Self::Request(request) => request.buffer_len(),
            Self::Gateways(_) => 0,
        }
    }

    fn serialize(&self, buffer: &mut [u8]) {
        if let Self::Request(request) = self {
            request.serialize(buffer);
        }
    }
}

impl NetlinkDeserializable for Routes {
    type Error = Infallible;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, Infallible> {
        let is_route = header.message_type == NEW_ROUTE;
        Ok(Self::Gateways(if is_route { gateways(payload).unwrap_or_default() } else { Vec::new() }))
    }
}

/// The gateways of a route (`struct rtmsg`), if it is a default route.
fn gateways(route: &[u8]) -> Option<Vec<IpAddr>> {
    const HEADER: usize = 12;
    /// Where the length of the prefix stands, and where the type.
    const LENGTH: usize = 1;
    const TYPE: usize = 7;
    const UNICAST: u8 = 1;
    /// `RTA_GATEWAY` and `RTA_MULTIPATH`.
    const GATEWAY: u16 = 5;
    const MULTIPATH: u16 = 9;
    if (*route.get(LENGTH)?, *route.get(TYPE)?) != (0, UNICAST) {
        return None;
    }
    let mut gateways = Vec::new();
    for (kind, value) in attributes(route.get(HEADER..)?) {
        match kind {
            GATEWAY => gateways.extend(address(value)),
            MULTIPATH => next_hops(value).for_each(|hop| {
                let of_hop = attributes(hop).filter(|(kind, _)| *kind == GATEWAY);
                gateways.extend(of_hop.filter_map(|(_, value)| address(value)));
            }),
            _ => {}
        }
    }
    Some(gateways)
}

/// The attributes of each `struct rtnexthop`.
fn next_hops(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    const HEADER: usize = 8;
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(*bytes.first_chunk()?));
        let hop = bytes.get(HEADER..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(hop)
    })
}

fn address(value: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(value).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(value).map(IpAddr::from)).ok()
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::Emitable;
    use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteNextHop, RouteType};

    use super::*;

    fn found(route: &RouteMessage) -> Option<Vec<String>> {
        let mut bytes = vec![0; route.buffer_len()];
        route.emit(&mut bytes);
        Some(gateways(&bytes)?.iter().map(IpAddr::to_string).collect())
    }

    fn via(address: &str) -> RouteAttribute {
        let address: IpAddr = address.parse().unwrap();
        RouteAttribute::Gateway(RouteAddress::from(address))
    }

    fn route(length: u8, attributes: Vec<RouteAttribute>) -> RouteMessage {
        let mut route = RouteMessage::default();
        route.header.kind = RouteType::Unicast;
        route.header.destination_prefix_length = length;
        route.attributes = attributes;
        route
    }

    #[test]
    fn default_routes_and_others() {
        assert_eq!(found(&route(0, vec![via("192.0.2.1")])).unwrap(), ["192.0.2.1"]);
        assert_eq!(found(&route(0, vec![via("fe80::1")])).unwrap(), ["fe80::1"]);
        assert_eq!(found(&route(8, vec![via("192.0.2.1")])), None);
        // On the link: nothing is sent to a gateway.
        assert_eq!(found(&route(0, Vec::new())).unwrap(), Vec::<String>::new());
        let mut blackhole = route(0, Vec::new());
        blackhole.header.kind = RouteType::BlackHole;
        assert_eq!(found(&blackhole), None);
    }

    #[test]
    fn several_next_hops() {
        let hop = |address| {
            let mut hop = RouteNextHop::default();
            hop.attributes.push(via(address));
            hop
        };
        let hops = RouteAttribute::MultiPath(vec![hop("192.0.2.1"), hop("192.0.2.2")]);
        assert_eq!(found(&route(0, vec![hops])).unwrap(), ["192.0.2.1", "192.0.2.2"]);
    }

    #[test]
    fn nonsense_is_passed_over() {
        for length in 0..40 {
            let mut bytes = vec![0xff; length];
            bytes.iter_mut().skip(1).take(1).for_each(|byte| *byte = 0);
            bytes.iter_mut().skip(7).take(1).for_each(|byte| *byte = 1);
            assert!(gateways(&bytes).unwrap_or_default().is_empty());
        }
    }
}
