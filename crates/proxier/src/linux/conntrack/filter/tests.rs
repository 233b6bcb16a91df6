use std::net::IpAddr;

use netlink_batch::{
    Batch,
    attribute::{address, array, find},
};
use proptest::{collection::vec, option, prelude::*, sample::select};

use super::*;
use crate::{
    cluster::EndpointAddress,
    linux::conntrack::{
        Wanted,
        entry::GET,
        tests::{endpoint, entry, key},
    },
    plan::Change,
};

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<_> = hex.chars().filter_map(|digit| digit.to_digit(16)).collect();
    digits.chunks(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect()
}

fn filters(destinations: &[(Protocol, &str)]) -> Vec<Filter> {
    let destinations: BTreeSet<_> = destinations.iter().map(|(protocol, to)| key(*protocol, to)).collect();
    Filter::to(destinations.first().unwrap().family(), &destinations)
}

/// The kernel expects `CTA_TUPLE_ORIG` with each field that `CTA_FILTER_ORIG_FLAGS` names, `NLA_F_NESTED` on
/// `CTA_FILTER`, and the flags as 32 bits in host byte order.
#[test]
fn conntrack_filter_is_encoded_as_the_kernel_reads_it() {
    let mut batch = Batch::new();
    let all = [filters(&[(Protocol::Udp, "10.96.0.10:53")]), filters(&[(Protocol::Udp, "[fd00::10]:53")])].concat();
    for filter in all.iter().chain([&Filter::all(Family::V6)]) {
        batch.push_with(GET, 0, |out| out.extend(filter.request()));
    }
    let v4 = "02000000 24000180 0c000180 08000200 0a60000a 14000280 05000100 11000000 06000300 00350000 \
        0c001980 08000100 2a000000";
    let v6 = "0a000000 18000180 14000280 05000100 11000000 06000300 00350000 0c001980 08000100 28000000";
    for (number, payload) in [v4, v6, "0a000000"].into_iter().enumerate() {
        assert_eq!(batch.request(number)[16..], bytes(payload), "{number}");
    }
}

#[test]
fn conntrack_filter_of_many_destinations_selects_by_protocol() {
    let to: Vec<String> = (1..=9).map(|host| format!("10.96.0.{host}:53")).collect();
    let of = |protocol| to.iter().map(move |to| (protocol, to.as_str()));
    let udp: Vec<_> = of(Protocol::Udp).collect();
    assert_eq!(filters(&udp[..8]).len(), 8);
    let protocol = Filter { family: Family::V4, fields: Fields::Protocol(Protocol::Udp) };
    assert_eq!(filters(&udp), [protocol]);
    assert_eq!(protocol.request(), bytes("02000000 10000180 0c000280 05000100 11000000 0c001980 08000100 08000000"));
    let both: Vec<_> = of(Protocol::Udp).chain(of(Protocol::Tcp)).collect();
    assert_eq!(filters(&both), [Filter::all(Family::V4)]);
}

#[test]
fn ipv6_destinations_with_one_port_share_a_conntrack_filter() {
    let to: Vec<String> = (1..=9).map(|host| format!("[fd00::{host}]:53")).collect();
    let udp: Vec<_> = to.iter().map(|to| (Protocol::Udp, to.as_str())).collect();
    assert_eq!(filters(&udp).len(), 1);
}

/// How a kernel compares IPv6 addresses.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Ipv6 {
    Inverted,
    Corrected,
}

/// `ctnetlink_alloc_filter` and `ctnetlink_filter_match` of Linux 6.18. It panics if the kernel would reject the
/// request.
fn kernel_lists(request: &[u8], ipv6: Ipv6, entry: &Entry) -> bool {
    let is_v4 = match request[0] {
        2 => true,
        10 => false,
        family => panic!("family {family}"),
    };
    if is_v4 != entry.to.address.is_ipv4() {
        return false;
    }
    let attributes = &request[4..];
    let Some(filter) = find(attributes, FILTER) else { return true };
    let flags = find(filter, ORIGINAL_FLAGS).and_then(array).map(u32::from_ne_bytes).unwrap();
    assert_eq!(flags & !(BY_ADDRESS | BY_PROTOCOL | BY_PORT), 0);
    assert_ne!(flags & BY_PROTOCOL, 0, "the kernel knows ports only of a protocol");
    let tuple = find(attributes, TUPLE_ORIGINAL).unwrap();
    if flags & BY_ADDRESS != 0 {
        let kind = if is_v4 { 2 } else { 4 };
        let wanted: IpAddr = find(find(tuple, TUPLE_IP).unwrap(), kind).and_then(address).unwrap();
        let is_equal = wanted == entry.to.address;
        if is_equal == (!is_v4 && ipv6 == Ipv6::Inverted) {
            return false;
        }
    }
    let fields = find(tuple, TUPLE_PROTOCOL).unwrap();
    let [number] = find(fields, PROTOCOL_NUMBER).and_then(array).unwrap();
    if number != entry.to.protocol.number() {
        return false;
    }
    let has_ports = [6, 17].contains(&number);
    let port = || find(fields, DESTINATION_PORT).and_then(array).map(u16::from_be_bytes).unwrap();
    flags & BY_PORT == 0 || !has_ports || port() == entry.to.port.get()
}

type Flow = (VirtualServerKey, Option<EndpointAddress>);

fn flows(family: Family, protocols: &[Protocol]) -> impl Strategy<Value = Flow> {
    let (network, endpoints) = match family {
        Family::V4 => ("10.96.0.1", ["10.1.0.1:5353", "10.1.0.2:5353"]),
        Family::V6 => ("[fd00::1", ["[fd01::1]:5353", "[fd01::2]:5353"]),
    };
    let end = if family == Family::V6 { "]" } else { "" };
    let addresses = (0..5).map(|host| format!("{network}{host}{end}"));
    let all = addresses.flat_map(|address| [53, 80, 443].map(|port| format!("{address}:{port}")));
    let all: Vec<_> = all.flat_map(|to| protocols.iter().map(move |protocol| key(*protocol, &to))).collect();
    (select(all), option::of(select(endpoints.map(endpoint).to_vec())))
}

/// Few or many flows, of one protocol or of all.
fn some_wanted(family: Family) -> impl Strategy<Value = Vec<Flow>> {
    prop_oneof![vec(flows(family, &Protocol::ALL), 0..24), vec(flows(family, &[Protocol::Udp]), 0..24)]
}

fn any_flow() -> impl Strategy<Value = Flow> {
    prop_oneof![flows(Family::V4, &Protocol::ALL), flows(Family::V6, &Protocol::ALL)]
}

proptest! {
    /// Otherwise flows to a removed endpoint would stay there.
    #[test]
    fn conntrack_filters_exclude_no_wanted_entry(
        wanted_v4 in some_wanted(Family::V4),
        wanted_v6 in some_wanted(Family::V6),
        entries in vec(any_flow(), 0..100),
        ipv6 in select(vec![Ipv6::Inverted, Ipv6::Corrected]),
    ) {
        let change = |(to, endpoint): &(_, _)| Change::DeleteFlows {
            to: *to,
            endpoint: *endpoint,
            by_short_circuit: false,
        };
        let changes: Vec<_> = wanted_v4.iter().chain(&wanted_v6).map(change).collect();
        let wanted = Wanted::new(&changes.iter().enumerate().collect::<Vec<_>>());
        let families = wanted.families();
        let filters: Vec<_> =
            families.into_iter().flat_map(|family| Filter::to(family, &wanted.destinations(family))).collect();
        for (to, endpoint) in entries {
            let entry = entry(to, endpoint);
            let mut is_listed = false;
            for filter in &filters {
                let lists = kernel_lists(&filter.request(), ipv6, &entry);
                is_listed |= lists;
                prop_assert_eq!(filter.can_list(&entry), lists, "{:?} and {:?}", filter, entry);
            }
            prop_assert!(is_listed || !wanted.includes(&entry), "{:?} lack {:?}", filters, entry);
        }
    }
}
