//! Set elements as the kernel keeps them: fields one after the other, each filled up to four bytes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netlink_packet_netfilter::nftables::{
    DataAttribute, ListAttribute, SetElementAttribute, SetElementFlags, SetElementList,
};

use super::userdata;
use crate::{
    model::{Family, PortNumber, Protocol, VirtualServerKey},
    set::Element,
};

pub(super) type Encoded = ListAttribute<SetElementAttribute>;

/// An element, with its comment.
pub(super) fn encode(element: &Element, comment: Option<&str>) -> Encoded {
    let bytes = match element {
        Element::Key(_, key) => key_bytes(key),
        Element::Vip(address) => address_bytes(*address),
    };
    let mut attributes = vec![SetElementAttribute::Key(DataAttribute::Value(bytes))];
    if let Some(comment) = comment {
        attributes.push(SetElementAttribute::UserData(userdata::comment(userdata::COMMENT, comment)));
    }
    ListAttribute::Element(attributes)
}

/// A range, as an interval set keeps it: its first address, and the first one behind it as its end. The last
/// range of the address space has no end.
pub(super) fn encode_range(range: &IpNet) -> Vec<Encoded> {
    let element = |address, flags| {
        let key = SetElementAttribute::Key(DataAttribute::Value(address_bytes(address)));
        ListAttribute::Element(vec![SetElementAttribute::Flags(flags), key])
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

/// The keys of a list that the kernel sent, with their comments. What is not a key of that family is left out.
pub(super) fn decode_keys(
    family: Family,
    list: &[SetElementList],
) -> impl Iterator<Item = (VirtualServerKey, Option<&str>)> {
    elements(list).filter_map(move |(bytes, comment)| Some((decode_key(family, bytes)?, comment)))
}

/// The addresses of a list that the kernel sent.
pub(super) fn decode_addresses(family: Family, list: &[SetElementList]) -> impl Iterator<Item = IpAddr> {
    elements(list).filter_map(move |(bytes, _)| decode_address(family, bytes).map(|(address, _)| address))
}

fn elements(list: &[SetElementList]) -> impl Iterator<Item = (&[u8], Option<&str>)> {
    let lists = list.iter().filter_map(|attribute| match attribute {
        SetElementList::Elements(elements) => Some(elements),
        _ => None,
    });
    lists.flatten().filter_map(|element| {
        let ListAttribute::Element(attributes) = element else { return None };
        let key = attributes.iter().find_map(|attribute| match attribute {
            SetElementAttribute::Key(DataAttribute::Value(bytes)) => Some(bytes.as_slice()),
            _ => None,
        });
        let comment = attributes.iter().find_map(|attribute| match attribute {
            SetElementAttribute::UserData(bytes) => userdata::element_comment(bytes),
            _ => None,
        });
        Some((key?, comment))
    })
}

fn key_bytes(key: &VirtualServerKey) -> Vec<u8> {
    let mut bytes = address_bytes(key.address);
    bytes.extend_from_slice(&[key.protocol.number(), 0, 0, 0]);
    bytes.extend_from_slice(&key.port.get().to_be_bytes());
    bytes.extend_from_slice(&[0, 0]);
    bytes
}

fn decode_key(family: Family, bytes: &[u8]) -> Option<VirtualServerKey> {
    let (address, rest) = decode_address(family, bytes)?;
    let [protocol, _, _, _, high, low, ..] = *rest else { return None };
    let protocol = Protocol::from_number(protocol)?;
    let port = PortNumber::new(u16::from_be_bytes([high, low]))?;
    Some(VirtualServerKey { address, protocol, port })
}

fn address_bytes(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn decode_address(family: Family, bytes: &[u8]) -> Option<(IpAddr, &[u8])> {
    match family {
        Family::V4 => bytes.split_first_chunk::<4>().map(|(bytes, rest)| ((*bytes).into(), rest)),
        Family::V6 => bytes.split_first_chunk::<16>().map(|(bytes, rest)| ((*bytes).into(), rest)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{set::KeySet, testing};

    #[test]
    fn keys_come_back() {
        for text in ["TCP 10.0.0.1:80", "UDP [fd00::1]:53", "SCTP [::ffff:1.2.3.4]:65535"] {
            let key = testing::key(text);
            let element = encode(&Element::Key(KeySet::Served, key), Some("default/web"));
            let list = [SetElementList::Elements(vec![element])];
            assert_eq!(decode_keys(key.family(), &list).collect::<Vec<_>>(), [(key, Some("default/web"))]);
        }
    }

    #[test]
    fn nonsense_is_left_out() {
        for length in 0..12 {
            let key = SetElementAttribute::Key(DataAttribute::Value(vec![0; length]));
            let list = [SetElementList::Elements(vec![ListAttribute::Element(vec![key])])];
            assert_eq!(decode_keys(Family::V4, &list).count(), 0);
        }
    }

    #[test]
    fn a_range_ends_behind_its_last_address() {
        let ends = |range: &str| {
            let list = [SetElementList::Elements(encode_range(&range.parse().unwrap()))];
            let range: IpNet = range.parse().unwrap();
            decode_addresses(Family::of(range.network()), &list).map(|ip| ip.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(ends("10.244.0.0/16"), ["10.244.0.0", "10.245.0.0"]);
        assert_eq!(ends("128.0.0.0/1"), ["128.0.0.0"]);
        assert_eq!(ends("fd00::/64"), ["fd00::", "fd00:0:0:1::"]);
    }
}
