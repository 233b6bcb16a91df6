//! Set elements as the kernel keeps them: fields one after the other, each filled up to four bytes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netlink_packet_core::DefaultNla;
use netlink_packet_netfilter::nftables::{
    DataAttribute, ListAttribute, SetElementAttribute, SetElementFlags,
};

use super::userdata;
use crate::{
    cluster::EndpointAddress,
    model::{Protocol, VirtualServerKey},
    set::Element,
};

pub(super) type Encoded = ListAttribute<SetElementAttribute>;

/// `NFTA_DATA_VALUE`.
pub(super) const DATA_VALUE: u16 = 1;

/// An element, with its comment. A range is two of them.
pub(super) fn encode(element: &Element, comment: Option<&str>) -> Vec<Encoded> {
    let mut attributes = match element {
        Element::Key(_, at) => vec![key(key_bytes(at))],
        Element::Vip(address) => vec![key(address_bytes(*address))],
        Element::Hairpin(protocol, endpoint) => vec![key(hairpin_bytes(*protocol, endpoint))],
        Element::Allowed(at, source) => {
            let with = |address| [key_bytes(at), address_bytes(address)].concat();
            let end = DefaultNla::new(DATA_VALUE, with(source.broadcast()));
            vec![key(with(source.network())), SetElementAttribute::KeyEnd(vec![end])]
        }
        Element::ShortCut(at, EndpointAddress { address, port }) => {
            let to = [address_bytes(*address), port_bytes(port.get())].concat();
            vec![key(key_bytes(at)), SetElementAttribute::Data(DataAttribute::Value(to))]
        }
        Element::ServiceRange(range) => return encode_range(range),
    };
    if let Some(comment) = comment {
        attributes.push(SetElementAttribute::UserData(userdata::comment(userdata::COMMENT, comment)));
    }
    vec![ListAttribute::Element(attributes)]
}

/// A range, as an interval set keeps it: its first address, and the first one behind it as its end. The last
/// range of the address space has no end.
pub(super) fn encode_range(range: &IpNet) -> Vec<Encoded> {
    let element = |address, flags| {
        ListAttribute::Element(vec![SetElementAttribute::Flags(flags), key(address_bytes(address))])
    };
    let mut elements = vec![element(range.network(), SetElementFlags::empty())];
    elements.extend(next(range.broadcast()).map(|end| element(end, SetElementFlags::IntervalEnd)));
    elements
}

fn next(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(address) => address.to_bits().checked_add(1).map(|bits| Ipv4Addr::from_bits(bits).into()),
        IpAddr::V6(address) => address.to_bits().checked_add(1).map(|bits| Ipv6Addr::from_bits(bits).into()),
    }
}

fn key(bytes: Vec<u8>) -> SetElementAttribute {
    SetElementAttribute::Key(DataAttribute::Value(bytes))
}

fn key_bytes(key: &VirtualServerKey) -> Vec<u8> {
    [address_bytes(key.address), protocol_bytes(key.protocol), port_bytes(key.port.get())].concat()
}

fn hairpin_bytes(protocol: Protocol, endpoint: &EndpointAddress) -> Vec<u8> {
    let address = address_bytes(endpoint.address);
    [address.clone(), address, protocol_bytes(protocol), port_bytes(endpoint.port.get())].concat()
}

fn address_bytes(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn protocol_bytes(protocol: Protocol) -> Vec<u8> {
    vec![protocol.number(), 0, 0, 0]
}

fn port_bytes(port: u16) -> Vec<u8> {
    let [high, low] = port.to_be_bytes();
    vec![high, low, 0, 0]
}
