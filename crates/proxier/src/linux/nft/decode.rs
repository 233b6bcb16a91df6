//! Decoding of set elements.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Subnets, Ipv6Subnets};

use crate::{
    cluster::EndpointAddress,
    model::{Family, PortNumber, Protocol, VirtualServerKey},
    set::{Element, KeySet},
};

/// The type of the elements in a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    Keys(KeySet),
    Vips,
    Allowed,
    Hairpins,
    HealthChecks,
    ShortCircuits,
    ArpIgnore,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Raw {
    pub(super) key: Vec<u8>,
    /// The last key of a range.
    pub(super) key_end: Vec<u8>,
    pub(super) data: Vec<u8>,
    pub(super) comment: Option<String>,
    pub(super) is_interval_end: bool,
}

impl Raw {
    /// The element and its comment. `None` if kube-ipvs would not write such an element into a set of this type.
    pub(super) fn decode(self, family: Family, content: Content) -> Option<(Element, Option<String>)> {
        let mut bytes = self.key.as_slice();
        let element = match content {
            Content::Keys(set) => Element::Key(set, take_key(family, &mut bytes)?),
            Content::Vips => Element::Vip(take_address(family, &mut bytes)?),
            Content::ArpIgnore => match take_address(family, &mut bytes)? {
                IpAddr::V4(address) => Element::ArpIgnore(address),
                IpAddr::V6(_) => return None,
            },
            Content::Allowed => {
                let key = take_key(family, &mut bytes)?;
                let first = take_address(family, &mut bytes)?;
                let mut end = self.key_end.as_slice();
                let last = take_key(family, &mut end).and_then(|_| take_address(family, &mut end));
                Element::Allowed(key, subnets(first, last.unwrap_or(first)).first().copied()?)
            }
            Content::Hairpins => {
                let address = take_address(family, &mut bytes)?;
                let VirtualServerKey { protocol, port, .. } = take_key(family, &mut bytes)?;
                Element::Hairpin(protocol, EndpointAddress { address, port })
            }
            Content::HealthChecks => Element::HealthCheck(take_key(family, &mut bytes)?),
            Content::ShortCircuits => {
                let key = take_key(family, &mut bytes)?;
                let mut data = self.data.as_slice();
                let address = take_address(family, &mut data)?;
                Element::ShortCircuit(key, EndpointAddress { address, port: take_port(&mut data)? })
            }
        };
        Some((element, self.comment))
    }
}

/// The ranges of an interval set, which lists the first address of each range and the first address after it.
pub(super) fn ranges(family: Family, elements: &[Raw]) -> Vec<IpNet> {
    let mut ends: Vec<(IpAddr, bool)> = elements
        .iter()
        .filter_map(|raw| Some((take_address(family, &mut raw.key.as_slice())?, !raw.is_interval_end)))
        .collect();
    // If two ranges are adjacent, the end of the first sorts before the start of the second.
    ends.sort();
    let (mut ranges, mut open) = (Vec::new(), None);
    for (address, starts) in ends {
        if let Some(first) = open.take() {
            ranges.extend(before(address).map(|last| subnets(first, last)).unwrap_or_default());
        }
        open = starts.then_some(address);
    }
    let last = match family {
        Family::V4 => IpAddr::from(Ipv4Addr::BROADCAST),
        Family::V6 => IpAddr::from([0xff; 16]),
    };
    ranges.extend(open.map(|first| subnets(first, last)).unwrap_or_default());
    ranges
}

fn before(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(address) => address.to_bits().checked_sub(1).map(|bits| Ipv4Addr::from_bits(bits).into()),
        IpAddr::V6(address) => address.to_bits().checked_sub(1).map(|bits| Ipv6Addr::from_bits(bits).into()),
    }
}

fn subnets(first: IpAddr, last: IpAddr) -> Vec<IpNet> {
    match (first, last) {
        (IpAddr::V4(first), IpAddr::V4(last)) => Ipv4Subnets::new(first, last, 0).map(IpNet::from).collect(),
        (IpAddr::V6(first), IpAddr::V6(last)) => Ipv6Subnets::new(first, last, 0).map(IpNet::from).collect(),
        _ => Vec::new(),
    }
}

fn take_key(family: Family, bytes: &mut &[u8]) -> Option<VirtualServerKey> {
    let address = take_address(family, bytes)?;
    let ([protocol, ..], rest) = bytes.split_first_chunk::<4>()?;
    *bytes = rest;
    Some(VirtualServerKey { address, protocol: Protocol::from_number(*protocol)?, port: take_port(bytes)? })
}

fn take_port(bytes: &mut &[u8]) -> Option<PortNumber> {
    let ([high, low, ..], rest) = bytes.split_first_chunk::<4>()?;
    *bytes = rest;
    PortNumber::new(u16::from_be_bytes([*high, *low]))
}

fn take_address(family: Family, bytes: &mut &[u8]) -> Option<IpAddr> {
    match family {
        Family::V4 => {
            let (address, rest) = bytes.split_first_chunk::<4>()?;
            *bytes = rest;
            Some((*address).into())
        }
        Family::V6 => {
            let (address, rest) = bytes.split_first_chunk::<16>()?;
            *bytes = rest;
            Some((*address).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use netlink_batch::attribute::{nest, put};

    use super::{
        super::{
            element::{append, append_range},
            kind::{DATA_VALUE, KEY, LIST_ELEMENT, NEW_ELEMENTS},
            list,
            transaction::Request,
        },
        *,
    };
    use crate::testing;

    fn list(elements: &[u8]) -> Vec<Raw> {
        list::elements(&Request::of_elements(NEW_ELEMENTS, "a-set", elements).attributes)
    }

    fn round_trip(element: Element, content: Content, comment: Option<&str>) {
        let mut bytes = Vec::new();
        append(&mut bytes, &element, comment);
        let raw = list(&bytes).pop().unwrap();
        let decoded = raw.decode(element.family(), content);
        assert_eq!(decoded, Some((element, comment.map(str::to_owned))));
    }

    #[test]
    fn elements_of_all_kinds_round_trip_through_decode() {
        for text in ["TCP 10.0.0.1:80", "UDP [fd00::1]:53", "SCTP [::ffff:1.2.3.4]:65535"] {
            let key = testing::key(text);
            let endpoint = EndpointAddress { address: key.address, port: key.port };
            let served = KeySet::Served;
            round_trip(Element::Key(served, key), Content::Keys(served), Some("default/web"));
            round_trip(Element::Vip(key.address), Content::Vips, None);
            if let IpAddr::V4(address) = key.address {
                round_trip(Element::ArpIgnore(address), Content::ArpIgnore, None);
            }
            round_trip(Element::Hairpin(key.protocol, endpoint), Content::Hairpins, None);
            round_trip(Element::HealthCheck(key), Content::HealthChecks, None);
            round_trip(Element::ShortCircuit(key, endpoint), Content::ShortCircuits, None);
            let lengths = [0, 1, 8, 31, 32];
            for range in lengths.map(|length| IpNet::new(key.address, length).unwrap().trunc()) {
                round_trip(Element::Allowed(key, range), Content::Allowed, None);
            }
        }
    }

    #[test]
    fn malformed_elements_are_not_decoded() {
        let contents = [
            Content::Keys(KeySet::Served),
            Content::Vips,
            Content::Allowed,
            Content::Hairpins,
            Content::HealthChecks,
            Content::ShortCircuits,
        ];
        for (length, content) in (0..12).flat_map(|length| contents.map(|content| (length, content))) {
            let mut bytes = Vec::new();
            nest(&mut bytes, LIST_ELEMENT, |out| nest(out, KEY, |out| put(out, DATA_VALUE, vec![0; length])));
            for raw in list(&bytes) {
                let decoded = raw.decode(Family::V4, content);
                assert!(decoded.is_none() || content == Content::Vips, "{decoded:?}");
            }
        }
    }

    #[test]
    fn adjacent_and_separate_ranges_round_trip() {
        let all = ["10.0.0.0/8", "11.0.0.0/16", "192.168.0.1/32", "240.0.0.0/4"];
        let ranges_of = |texts: &[&str]| -> Vec<IpNet> { texts.iter().map(|text| text.parse().unwrap()).collect() };
        let raws = |ranges: &[IpNet]| {
            let mut bytes = Vec::new();
            ranges.iter().for_each(|range| append_range(&mut bytes, range));
            list(&bytes)
        };
        let mut elements = raws(&ranges_of(&all));
        elements.reverse();
        assert_eq!(ranges(Family::V4, &elements), ranges_of(&all));
        let all = ranges_of(&["::/1", "fd00::/64"]);
        assert_eq!(ranges(Family::V6, &raws(&all)), all);
    }

    #[test]
    fn mutated_elements_decode_to_elements_or_nothing() {
        let contents = [
            Content::Keys(KeySet::Served),
            Content::Vips,
            Content::Allowed,
            Content::Hairpins,
            Content::HealthChecks,
            Content::ShortCircuits,
            Content::ArpIgnore,
        ];
        let keys = ["TCP 10.0.0.1:80", "UDP [fd00::1]:53"].map(testing::key);
        let seeds = keys.into_iter().flat_map(|key| {
            let endpoint = EndpointAddress { address: key.address, port: key.port };
            let range = IpNet::new(key.address, 24).unwrap().trunc();
            [
                Element::Key(KeySet::Served, key),
                Element::Vip(key.address),
                Element::Allowed(key, range),
                Element::Hairpin(key.protocol, endpoint),
                Element::ShortCircuit(key, endpoint),
                Element::ServiceRange(range),
            ]
        });
        let seeds = seeds.map(|element| {
            let mut bytes = Vec::new();
            append(&mut bytes, &element, Some("default/web:http"));
            Request::of_elements(NEW_ELEMENTS, "a-set", &bytes).attributes
        });
        fuzz::fuzz("nft-elements", seeds, |bytes| {
            let elements = list::elements(bytes);
            for family in Family::ALL {
                for range in ranges(family, &elements) {
                    assert_eq!(Family::of(range.addr()), family);
                }
                for (raw, content) in elements.iter().flat_map(|raw| contents.map(|content| (raw, content))) {
                    if let Some((element, _)) = raw.clone().decode(family, content) {
                        assert_eq!(element.family(), family);
                    }
                }
            }
        });
    }
}
