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
    set::{Element, everybody},
};

pub(super) type Encoded = ListAttribute<SetElementAttribute>;

/// `NFTA_DATA_VALUE`.
pub(super) const DATA_VALUE: u16 = 1;

/// An element, with its comment. A range is two of them.
pub(super) fn encode(element: &Element, comment: Option<&str>) -> Vec<Encoded> {
    let mut attributes = match element {
        Element::Key(_, at) | Element::HealthCheck(at) => vec![key(fields(|out| push_key(out, at)))],
        Element::Vip(address) => vec![key(fields(|out| push_address(out, *address)))],
        Element::Hairpin(protocol, endpoint) => {
            vec![key(fields(|out| push_hairpin(out, *protocol, endpoint)))]
        }
        Element::Allowed(at, source) => {
            let with = |address| fields(|out| (push_key(out, at), push_address(out, address)));
            let end = DefaultNla::new(DATA_VALUE, with(source.broadcast()));
            vec![key(with(source.network())), SetElementAttribute::KeyEnd(vec![end])]
        }
        Element::ShortCut(at, EndpointAddress { address, port }) => {
            let to = fields(|out| (push_address(out, *address), push_port(out, port.get())));
            vec![key(fields(|out| push_key(out, at))), SetElementAttribute::Data(DataAttribute::Value(to))]
        }
        Element::Silent(address) => vec![key(fields(|out| push_address(out, (*address).into())))],
        Element::ServiceRange(range) | Element::PodSource(range) => return encode_range(range),
        Element::Outside(family) => return encode_range(&everybody(*family)),
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
        ListAttribute::Element(vec![
            SetElementAttribute::Flags(flags),
            key(fields(|out| push_address(out, address))),
        ])
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

/// What `push` appends.
fn fields<T>(push: impl FnOnce(&mut Vec<u8>) -> T) -> Vec<u8> {
    // Two IPv6 addresses, protocol and port are the most that there is.
    let mut out = Vec::with_capacity(40);
    push(&mut out);
    out
}

fn push_key(out: &mut Vec<u8>, key: &VirtualServerKey) {
    push_address(out, key.address);
    push_protocol(out, key.protocol);
    push_port(out, key.port.get());
}

fn push_hairpin(out: &mut Vec<u8>, protocol: Protocol, endpoint: &EndpointAddress) {
    push_address(out, endpoint.address);
    push_address(out, endpoint.address);
    push_protocol(out, protocol);
    push_port(out, endpoint.port.get());
}

fn push_address(out: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(address) => out.extend_from_slice(&address.octets()),
        IpAddr::V6(address) => out.extend_from_slice(&address.octets()),
    }
}

fn push_protocol(out: &mut Vec<u8>, protocol: Protocol) {
    out.extend_from_slice(&[protocol.number(), 0, 0, 0]);
}

fn push_port(out: &mut Vec<u8>, port: u16) {
    let [high, low] = port.to_be_bytes();
    out.extend_from_slice(&[high, low, 0, 0]);
}
