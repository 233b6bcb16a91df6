//! Expressions that read and write a packet: its fields, its mark and its input interface.

use std::ops::RangeInclusive;

use super::{Expressions, FIRST, all, by, differs, equals, immediate, is_between, mask, numbers, register};
use crate::model::Family;

/// Payload bases of `enum nft_payload_bases`.
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;
/// Keys of `enum nft_meta_keys`.
const MARK: u32 = 3;
const INTERFACE_NAME: u32 = 6;
const PROTOCOL: u32 = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Field {
    Source,
    Destination,
    /// `meta l4proto`.
    Protocol,
    /// `th dport`.
    Port,
    /// `th sport`.
    SourcePort,
}

/// The key of a virtual server: `ip daddr . meta l4proto . th dport`.
pub(in super::super) const KEY: [Field; 3] = [Field::Destination, Field::Protocol, Field::Port];

/// Loads concatenated fields from the first register on.
pub(in super::super) fn load<const N: usize>(family: Family, fields: [Field; N]) -> Expressions {
    let (source, destination, length) = by(family, (12, 16, 4), (8, 24, 16));
    let mut words = 0;
    all(fields.map(|field| {
        let into = register(words);
        words += match field {
            Field::Source | Field::Destination => length / 4,
            Field::Protocol | Field::Port | Field::SourcePort => 1,
        };
        match field {
            Field::Source => payload(NETWORK_HEADER, source, length, into),
            Field::Destination => payload(NETWORK_HEADER, destination, length, into),
            Field::Protocol => load_protocol(into),
            Field::Port => payload(TRANSPORT_HEADER, 2, 2, into),
            Field::SourcePort => payload(TRANSPORT_HEADER, 0, 2, into),
        }
    }))
}

/// `rt ip nexthop`. Only valid after routing: in forward and output.
pub(in super::super) fn next_hop(family: Family) -> Expressions {
    // `NFT_RT_NEXTHOP4` and `NFT_RT_NEXTHOP6`.
    numbers("rt", &[(1, FIRST), (2, by(family, 1, 2))])
}

/// `ip protocol NUMBER` or `ip6 nexthdr NUMBER`.
pub(in super::super) fn next_header_is(family: Family, number: u8) -> Expressions {
    field_is(next_header(family), &[number])
}

/// `ip protocol FIRST-LAST` or `ip6 nexthdr FIRST-LAST`.
pub(in super::super) fn next_header_in(family: Family, numbers: RangeInclusive<u8>) -> Expressions {
    let header = payload(NETWORK_HEADER, next_header(family), 1, FIRST);
    all([header, is_between(&[*numbers.start()], &[*numbers.end()])])
}

/// `ip protocol set NUMBER` or `ip6 nexthdr set NUMBER`, without a checksum update.
pub(in super::super) fn set_next_header(family: Family, number: u8) -> Expressions {
    set_in_network_header(next_header(family), &[number])
}

fn next_header(family: Family) -> u32 {
    by(family, 9, 6)
}

/// `iifname NAME`.
pub(in super::super) fn comes_by(name: &str) -> Expressions {
    all([load_meta(INTERFACE_NAME, FIRST), equals(&whole(name))])
}

/// `iifname "PREFIX*"`.
pub(in super::super) fn comes_by_prefix(prefix: &str) -> Expressions {
    all([load_meta(INTERFACE_NAME, FIRST), equals(prefix.as_bytes())])
}

/// `iifname != NAME`.
pub(in super::super) fn comes_not_by(name: &str) -> Expressions {
    all([load_meta(INTERFACE_NAME, FIRST), differs(&whole(name))])
}

fn whole(name: &str) -> Vec<u8> {
    const LENGTH: usize = 16;
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize(LENGTH, 0);
    bytes
}

/// `ip daddr 127.0.0.0/8`.
pub(in super::super) fn to_localhost() -> Expressions {
    field_is(16, &[127])
}

pub(in super::super) fn mark_has(bit: u32) -> Expressions {
    let bit = bit.to_ne_bytes();
    all([load_meta(MARK, FIRST), mask(&bit, &[0; 4]), equals(&bit)])
}

pub(in super::super) fn set_mark(bit: u32) -> Expressions {
    all([load_meta(MARK, FIRST), mask(&(!bit).to_ne_bytes(), &bit.to_ne_bytes()), store_mark()])
}

pub(in super::super) fn clear_mark(bit: u32) -> Expressions {
    all([load_meta(MARK, FIRST), mask(&(!bit).to_ne_bytes(), &[0; 4]), store_mark()])
}

fn store_mark() -> Expressions {
    numbers("meta", &[(2, MARK), (3, FIRST)])
}

/// A field of an ARP packet for IPv4 over Ethernet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum ArpField {
    /// `arp saddr ip`.
    Sender = 14,
    /// `arp daddr ip`.
    Target = 24,
}

pub(in super::super) fn arp_field(field: ArpField) -> Expressions {
    payload(NETWORK_HEADER, field as u32, 4, FIRST)
}

/// `arp htype 1 arp ptype ip arp hlen 6 arp plen 4 arp operation request`.
pub(in super::super) fn is_arp_request() -> Expressions {
    let fields: [(u32, &[u8]); 5] = [(0, &[0, 1]), (2, &[8, 0]), (4, &[6]), (5, &[4]), (6, &[0, 1])];
    all(fields.map(|(offset, value)| field_is(offset, value)))
}

/// `arp saddr ip set ADDRESS`.
pub(in super::super) fn set_arp_field(field: ArpField, address: [u8; 4]) -> Expressions {
    set_in_network_header(field as u32, &address)
}

fn set_in_network_header(offset: u32, value: &[u8]) -> Expressions {
    let store = [(5, FIRST), (2, NETWORK_HEADER), (3, offset), (4, value.len() as u32)];
    all([immediate(value), numbers("payload", &store)])
}

pub(in super::super) fn protocol_is(number: u8) -> Expressions {
    all([load_protocol(FIRST), equals(&[number])])
}

/// `tcp flags syn / fin,syn,rst,ack`: the first packet of a connection. Only valid for TCP.
pub(in super::super) fn opens_tcp() -> Expressions {
    const FLAGS: u32 = 13;
    const FIN_SYN_RST_ACK: u8 = 0b1_0111;
    const SYN: u8 = 0b10;
    let load = payload(TRANSPORT_HEADER, FLAGS, 1, FIRST);
    all([load, mask(&[FIN_SYN_RST_ACK], &[0]), equals(&[SYN])])
}

fn field_is(offset: u32, value: &[u8]) -> Expressions {
    all([payload(NETWORK_HEADER, offset, value.len() as u32, FIRST), equals(value)])
}

pub(super) fn load_protocol(into: u32) -> Expressions {
    load_meta(PROTOCOL, into)
}

fn load_meta(key: u32, into: u32) -> Expressions {
    numbers("meta", &[(2, key), (1, into)])
}

fn payload(base: u32, offset: u32, length: u32, into: u32) -> Expressions {
    numbers("payload", &[(1, into), (2, base), (3, offset), (4, length)])
}
