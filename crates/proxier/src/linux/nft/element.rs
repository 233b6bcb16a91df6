//! Encoding of set elements: concatenated fields, each padded to four bytes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netlink_batch::attribute::{nest, put, put_with};

use super::{kind, userdata};
use crate::{
    cluster::EndpointAddress,
    model::{Protocol, VirtualServerKey},
    set::{Element, every_address},
};

/// Appends an element with its comment. A range takes two elements.
///
/// Written directly as bytes for speed: a first sync writes several elements for each Service and one for each endpoint
/// on this node.
pub(super) fn append(out: &mut Vec<u8>, element: &Element, comment: Option<&str>) {
    match element {
        Element::ServiceRange(range) | Element::PodSource(range) | Element::RemotePod(range) => {
            return append_range(out, range);
        }
        Element::Outside(family) => return append_range(out, &every_address(*family)),
        _ => {}
    }
    nest(out, kind::LIST_ELEMENT, |out| {
        match element {
            Element::Key(_, at) | Element::HealthCheck(at) => data(out, kind::KEY, |out| push_key(out, at)),
            Element::Vip(address) => data(out, kind::KEY, |out| push_address(out, *address)),
            Element::Hairpin(protocol, endpoint) => {
                data(out, kind::KEY, |out| push_hairpin(out, *protocol, endpoint));
            }
            Element::Allowed(at, source) => {
                for (kind, address) in [(kind::KEY, source.network()), (kind::KEY_END, source.broadcast())] {
                    data(out, kind, |out| {
                        push_key(out, at);
                        push_address(out, address);
                    });
                }
            }
            Element::ShortCircuit(at, EndpointAddress { address, port }) => {
                data(out, kind::KEY, |out| push_key(out, at));
                data(out, kind::DATA, |out| {
                    push_address(out, *address);
                    push_port(out, port.get());
                });
            }
            Element::ArpIgnore(address) => data(out, kind::KEY, |out| push_address(out, (*address).into())),
            Element::ServiceRange(_) | Element::PodSource(_) | Element::RemotePod(_) | Element::Outside(_) => {}
        }
        if let Some(comment) = comment {
            put(out, kind::USER_DATA, userdata::comment(userdata::COMMENT, comment));
        }
    });
}

/// Appends a range as an interval set stores it: its first address, and as its end the first address after it. A range
/// at the end of the address space has no end element.
pub(super) fn append_range(out: &mut Vec<u8>, range: &IpNet) {
    let mut element = |address, flags: u32| {
        nest(out, kind::LIST_ELEMENT, |out| {
            put(out, kind::FLAGS, flags.to_be_bytes());
            data(out, kind::KEY, |out| push_address(out, address));
        });
    };
    element(range.network(), 0);
    if let Some(end) = next(range.broadcast()) {
        element(end, kind::INTERVAL_END);
    }
}

fn next(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(address) => address.to_bits().checked_add(1).map(|bits| Ipv4Addr::from_bits(bits).into()),
        IpAddr::V6(address) => address.to_bits().checked_add(1).map(|bits| Ipv6Addr::from_bits(bits).into()),
    }
}

fn data(out: &mut Vec<u8>, kind: u16, push: impl FnOnce(&mut Vec<u8>)) {
    nest(out, kind, |out| put_with(out, kind::DATA_VALUE, push));
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
