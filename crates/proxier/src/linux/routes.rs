//! Default gateways. kube-ipvs parses routes itself, because the library rejects a whole dump if it cannot decode an
//! attribute of one route.

use std::{collections::BTreeSet, net::IpAddr};

use netlink_batch::{
    Error, Socket,
    attribute::{address, attributes},
};

/// `RTM_NEWROUTE` and `RTM_GETROUTE`.
const NEW_ROUTE: u16 = 24;
const GET_ROUTE: u16 = 26;
/// The length of `struct rtmsg`, whose first byte is the family.
const HEADER: usize = 12;
/// `AF_INET` and `AF_INET6`.
const FAMILIES: [u8; 2] = [2, 10];

/// The gateways of the default routes in all routing tables.
pub(super) fn default_gateways(socket: &mut Socket) -> Result<BTreeSet<IpAddr>, Error> {
    let mut all = BTreeSet::new();
    for family in FAMILIES {
        let mut request = [0; HEADER];
        request[0] = family;
        let read = |kind, route: &[u8]| gateways(route).filter(|_| kind == NEW_ROUTE);
        all.extend(socket.dump_with(GET_ROUTE, &request, read)?.into_iter().flatten());
    }
    Ok(all)
}

/// The gateways of a default route (`struct rtmsg`). `None` for other routes.
fn gateways(route: &[u8]) -> Option<Vec<IpAddr>> {
    /// Offsets of the prefix length and of the type.
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

#[cfg(test)]
mod tests {
    use netlink_packet_core::Emitable;
    use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteNextHop, RouteType};

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
    fn only_default_unicast_routes_give_gateways() {
        assert_eq!(found(&route(0, vec![via("192.0.2.1")])).unwrap(), ["192.0.2.1"]);
        assert_eq!(found(&route(0, vec![via("fe80::1")])).unwrap(), ["fe80::1"]);
        assert_eq!(found(&route(8, vec![via("192.0.2.1")])), None);
        // A route without a gateway: the destinations are on the link.
        assert_eq!(found(&route(0, Vec::new())).unwrap(), Vec::<String>::new());
        let mut blackhole = route(0, Vec::new());
        blackhole.header.kind = RouteType::BlackHole;
        assert_eq!(found(&blackhole), None);
    }

    #[test]
    fn multipath_default_route_gives_all_gateways() {
        let hop = |address| {
            let mut hop = RouteNextHop::default();
            hop.attributes.push(via(address));
            hop
        };
        let hops = RouteAttribute::MultiPath(vec![hop("192.0.2.1"), hop("192.0.2.2")]);
        assert_eq!(found(&route(0, vec![hops])).unwrap(), ["192.0.2.1", "192.0.2.2"]);
    }

    #[test]
    fn malformed_route_gives_no_gateway() {
        for length in 0..40 {
            let mut bytes = vec![0xff; length];
            bytes.iter_mut().skip(1).take(1).for_each(|byte| *byte = 0);
            bytes.iter_mut().skip(7).take(1).for_each(|byte| *byte = 1);
            assert!(gateways(&bytes).unwrap_or_default().is_empty());
        }
    }
}
