//! The few nftables expressions that our rules are made of, written the way `nft` writes them, so that
//! `nft list ruleset` can read them back.

mod conntrack;

use netlink_packet_core::DefaultNla;
use netlink_packet_netfilter::nftables::{
    Bitwise, Cmp, DataAttribute, Expressions, Immediate, Lookup, Meta, MetaKey, Operator, Payload, Register,
    Verdict, VerdictAttribute,
};

pub(super) use conntrack::*;

use crate::model::Family;

/// Payload bases of `enum nft_payload_bases`.
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;

/// A field of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    /// `ip saddr` or `ip6 saddr`.
    Source,
    /// `ip daddr` or `ip6 daddr`.
    Destination,
    /// `meta l4proto`.
    Protocol,
    /// `th dport`.
    Port,
    /// `th sport`.
    SourcePort,
}

/// The fields of a key: `ip daddr . meta l4proto . th dport`.
pub(super) const KEY: [Field; 3] = [Field::Destination, Field::Protocol, Field::Port];

/// Loads fields, one behind the other, from the first register on.
pub(super) fn load(family: Family, fields: &[Field]) -> Vec<Expressions> {
    let length = match family {
        Family::V4 => 4,
        Family::V6 => 16,
    };
    let (source, destination) = match family {
        Family::V4 => (12, 16),
        Family::V6 => (8, 24),
    };
    let mut words = 0;
    let mut expressions = Vec::with_capacity(fields.len());
    for field in fields {
        let into = register(words);
        expressions.push(match field {
            Field::Source => payload(NETWORK_HEADER, source, length, into),
            Field::Destination => payload(NETWORK_HEADER, destination, length, into),
            Field::Protocol => {
                Expressions::Meta(vec![Meta::Key(MetaKey::L4Proto), Meta::DestinationRegister(into)])
            }
            Field::Port => payload(TRANSPORT_HEADER, 2, 2, into),
            Field::SourcePort => payload(TRANSPORT_HEADER, 0, 2, into),
        });
        words += match field {
            Field::Source | Field::Destination => length / 4,
            Field::Protocol | Field::Port | Field::SourcePort => 1,
        };
    }
    expressions
}

/// The register that begins so many words of four bytes behind the start of the first one.
fn register(words: u32) -> Register {
    match words {
        0 => Register::Reg1,
        _ => Register::from(u32::from(Register::Reg32_00) + words),
    }
}

/// Whether what is in the first register (and the following) is in a set.
pub(super) fn is_in(set: &str) -> Expressions {
    lookup(set, 0)
}

/// Whether what is in the first register (and the following) is not in a set.
pub(super) fn is_not_in(set: &str) -> Expressions {
    const INVERT: u32 = 1;
    lookup(set, INVERT)
}

fn lookup(set: &str, flags: u32) -> Expressions {
    let mut lookup = vec![Lookup::Set(set.into()), Lookup::SourceRegister(Register::Reg1)];
    if flags != 0 {
        lookup.push(Lookup::Flags(flags));
    }
    Expressions::Lookup(lookup)
}

/// `KEY map @MAP` as the new destination, address and port.
pub(super) fn dnat_by(family: Family, map: &str) -> Vec<Expressions> {
    let port = match family {
        Family::V4 => register(1),
        Family::V6 => register(4),
    };
    let lookup = vec![
        Lookup::Set(map.into()),
        Lookup::SourceRegister(Register::Reg1),
        Lookup::DestinationRegister(Register::Reg1),
    ];
    let mut expressions = load(family, &KEY);
    expressions.push(Expressions::Lookup(lookup));
    expressions.push(destination_nat(family, &[(3, Register::Reg1.into()), (5, port.into())]));
    expressions
}

/// Loads where the packet is sent next: `rt ip nexthop`. It has been routed in forward and output, and not before.
pub(super) fn next_hop(family: Family) -> Expressions {
    // `NFT_RT_NEXTHOP4` and `NFT_RT_NEXTHOP6`.
    let key = match family {
        Family::V4 => 1,
        Family::V6 => 2,
    };
    other("rt", &[(1, Register::Reg1.into()), (2, key)])
}

/// `ip protocol NUMBER` or `ip6 nexthdr NUMBER`.
pub(super) fn next_header_is(family: Family, number: u8) -> Vec<Expressions> {
    let load = payload(NETWORK_HEADER, next_header(family), 1, Register::Reg1);
    vec![load, compare(Operator::Equal, vec![number])]
}

/// `ip protocol set NUMBER` or `ip6 nexthdr set NUMBER`. Checksums stay as they are.
pub(super) fn set_next_header(family: Family, number: u8) -> Vec<Expressions> {
    set_in_network_header(next_header(family), vec![number])
}

fn next_header(family: Family) -> u32 {
    match family {
        Family::V4 => 9,
        Family::V6 => 6,
    }
}

/// How long the kernel's field for the name of an interface is (`IFNAMSIZ`).
const INTERFACE_NAME: usize = 16;

/// `iifname NAME`, or `iifname "PREFIX*"`.
pub(super) fn comes_by(name: &str, is_prefix: bool) -> Vec<Expressions> {
    let mut bytes = name.as_bytes().to_vec();
    if !is_prefix {
        bytes.resize(INTERFACE_NAME, 0);
    }
    interface(bytes, Operator::Equal)
}

/// `iifname != NAME`.
pub(super) fn comes_not_by(name: &str) -> Vec<Expressions> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize(INTERFACE_NAME, 0);
    interface(bytes, Operator::NotEqual)
}

fn interface(name: Vec<u8>, operator: Operator) -> Vec<Expressions> {
    let load = vec![Meta::Key(MetaKey::Iifname), Meta::DestinationRegister(Register::Reg1)];
    vec![Expressions::Meta(load), compare(operator, name)]
}

/// `ip daddr 127.0.0.0/8`.
pub(super) fn to_localhost() -> Vec<Expressions> {
    vec![payload(NETWORK_HEADER, 16, 1, Register::Reg1), compare(Operator::Equal, vec![127])]
}

/// Compares what is in the first register.
fn compare(operator: Operator, value: Vec<u8>) -> Expressions {
    let value = DataAttribute::Value(value);
    Expressions::Cmp(vec![Cmp::SourceRegister(Register::Reg1), Cmp::Op(operator), Cmp::Data(value)])
}

/// `meta mark & BIT == BIT`.
pub(super) fn mark_has(bit: u32) -> Vec<Expressions> {
    let equal = [Cmp::SourceRegister(Register::Reg1), Cmp::Op(Operator::Equal), Cmp::Data(value(bit))];
    vec![load_mark(), mask(bit, 0), Expressions::Cmp(equal.to_vec())]
}

/// `meta mark set meta mark | BIT`.
pub(super) fn set_mark(bit: u32) -> Vec<Expressions> {
    vec![load_mark(), mask(!bit, bit), store_mark()]
}

/// `meta mark set meta mark & ~BIT`.
pub(super) fn clear_mark(bit: u32) -> Vec<Expressions> {
    vec![load_mark(), mask(!bit, 0), store_mark()]
}

fn load_mark() -> Expressions {
    Expressions::Meta(vec![Meta::Key(MetaKey::Mark), Meta::DestinationRegister(Register::Reg1)])
}

fn store_mark() -> Expressions {
    Expressions::Meta(vec![Meta::Key(MetaKey::Mark), Meta::SourceRegister(Register::Reg1)])
}

/// First register = (first register & mask) ^ xor.
fn mask(mask: u32, xor: u32) -> Expressions {
    Expressions::Bitwise(vec![
        Bitwise::SourceRegister(Register::Reg1),
        Bitwise::DestinationRegister(Register::Reg1),
        Bitwise::Length(4),
        Bitwise::Mask(value(mask)),
        Bitwise::Xor(value(xor)),
    ])
}

fn value(value: u32) -> DataAttribute {
    DataAttribute::Value(value.to_ne_bytes().to_vec())
}

/// A field of an ARP packet about IPv4 on Ethernet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ArpField {
    /// `arp saddr ip`.
    Sender,
    /// `arp daddr ip`.
    Target,
}

impl ArpField {
    fn offset(self) -> u32 {
        match self {
            Self::Sender => 14,
            Self::Target => 24,
        }
    }
}

/// Loads a field into the first register.
pub(super) fn arp_field(field: ArpField) -> Expressions {
    payload(NETWORK_HEADER, field.offset(), 4, Register::Reg1)
}

/// `arp htype 1 arp ptype ip arp hlen 6 arp plen 4 arp operation request`.
pub(super) fn is_arp_request() -> Vec<Expressions> {
    let fields: [(u32, &[u8]); 5] = [(0, &[0, 1]), (2, &[8, 0]), (4, &[6]), (5, &[4]), (6, &[0, 1])];
    let equals = |(offset, bytes): (u32, &[u8])| {
        let load = payload(NETWORK_HEADER, offset, bytes.len() as u32, Register::Reg1);
        [load, compare(Operator::Equal, bytes.to_vec())]
    };
    fields.into_iter().flat_map(equals).collect()
}

/// `arp saddr ip set ADDRESS`.
pub(super) fn set_arp_field(field: ArpField, address: [u8; 4]) -> Vec<Expressions> {
    set_in_network_header(field.offset(), address.to_vec())
}

fn set_in_network_header(offset: u32, value: Vec<u8>) -> Vec<Expressions> {
    let store = vec![
        Payload::SourceRegister(Register::Reg1),
        Payload::Base(NETWORK_HEADER),
        Payload::Offset(offset),
        Payload::Len(value.len() as u32),
    ];
    let value =
        vec![Immediate::DestinationRegister(Register::Reg1), Immediate::Data(DataAttribute::Value(value))];
    vec![Expressions::Immediate(value), Expressions::Payload(store)]
}

/// `meta l4proto PROTOCOL`.
pub(super) fn protocol_is(number: u8) -> Vec<Expressions> {
    let load = vec![Meta::Key(MetaKey::L4Proto), Meta::DestinationRegister(Register::Reg1)];
    let number = DataAttribute::Value(vec![number]);
    let equal = vec![Cmp::SourceRegister(Register::Reg1), Cmp::Op(Operator::Equal), Cmp::Data(number)];
    vec![Expressions::Meta(load), Expressions::Cmp(equal)]
}

/// `tcp flags syn / fin,syn,rst,ack`: the first packet of a connection. Of TCP only.
pub(super) fn opens_tcp() -> Vec<Expressions> {
    const FLAGS: u32 = 13;
    const FIN_SYN_RST_ACK: u8 = 0b1_0111;
    const SYN: u8 = 0b10;
    let byte = |value| DataAttribute::Value(vec![value]);
    let mask = vec![
        Bitwise::SourceRegister(Register::Reg1),
        Bitwise::DestinationRegister(Register::Reg1),
        Bitwise::Length(1),
        Bitwise::Mask(byte(FIN_SYN_RST_ACK)),
        Bitwise::Xor(byte(0)),
    ];
    let load = payload(TRANSPORT_HEADER, FLAGS, 1, Register::Reg1);
    vec![load, Expressions::Bitwise(mask), compare(Operator::Equal, vec![SYN])]
}

/// `dnat to :PORT`: another port of the same address.
pub(super) fn dnat_to_port(family: Family, port: u16) -> Vec<Expressions> {
    vec![load_port(port), destination_nat(family, &[(5, Register::Reg1.into())])]
}

/// `redirect to :PORT`: a port of this node itself.
pub(super) fn redirect_to_port(port: u16) -> Vec<Expressions> {
    vec![load_port(port), other("redir", &[(1, Register::Reg1.into())])]
}

fn load_port(port: u16) -> Expressions {
    Expressions::Immediate(vec![
        Immediate::DestinationRegister(Register::Reg1),
        Immediate::Data(DataAttribute::Value(port.to_be_bytes().to_vec())),
    ])
}

/// `dnat`, with the attributes that say in which registers the address (3) and the port (5) are.
fn destination_nat(family: Family, to: &[(u16, u32)]) -> Expressions {
    const DESTINATION: u32 = 1;
    let family = match family {
        Family::V4 => 2,
        Family::V6 => 10,
    };
    other("nat", &[&[(1, DESTINATION), (2, family)], to].concat())
}

/// `reject with tcp reset`.
pub(super) fn reset() -> Expressions {
    const TCP_RESET: u32 = 1;
    reject_with(TCP_RESET, 0)
}

/// `reject`: an ICMP or ICMPv6 port-unreachable, which a client sees as connection refused.
pub(super) fn reject(family: Family) -> Expressions {
    const ICMP_UNREACHABLE: u32 = 0;
    let port_unreachable = match family {
        Family::V4 => 3,
        Family::V6 => 4,
    };
    reject_with(ICMP_UNREACHABLE, port_unreachable)
}

fn reject_with(kind: u32, code: u8) -> Expressions {
    let kind = DefaultNla::new(1, kind.to_be_bytes().to_vec());
    let code = DefaultNla::new(2, vec![code]);
    Expressions::Other { expression_type: "reject".into(), attributes: vec![kind, code] }
}

/// `masquerade fully-random`.
pub(super) fn masquerade() -> Expressions {
    /// `NF_NAT_RANGE_PROTO_RANDOM_FULLY`.
    const FULLY_RANDOM: u32 = 1 << 4;
    other("masq", &[(1, FULLY_RANDOM)])
}

/// `counter`.
pub(super) fn counter() -> Expressions {
    Expressions::Other { expression_type: "counter".into(), attributes: Vec::new() }
}

/// `goto CHAIN`.
pub(super) fn goto(chain: &str) -> Expressions {
    verdict(Verdict::Goto, Some(chain))
}

/// `drop`.
pub(super) fn drop() -> Expressions {
    const NF_DROP: u32 = 0;
    verdict(Verdict::Other(NF_DROP), None)
}

/// `return`: on with the chain that called this one.
pub(super) fn return_() -> Expressions {
    verdict(Verdict::Return, None)
}

/// `accept`: this chain is done with the packet.
pub(super) fn accept() -> Expressions {
    const NF_ACCEPT: u32 = 1;
    verdict(Verdict::Other(NF_ACCEPT), None)
}

fn verdict(code: Verdict, chain: Option<&str>) -> Expressions {
    let mut verdict = vec![VerdictAttribute::Code(code)];
    verdict.extend(chain.map(|chain| VerdictAttribute::Chain(chain.into())));
    Expressions::Immediate(vec![
        Immediate::DestinationRegister(Register::Verdict),
        Immediate::Data(DataAttribute::Verdict(verdict)),
    ])
}

fn payload(base: u32, offset: u32, length: u32, into: Register) -> Expressions {
    Expressions::Payload(vec![
        Payload::DestinationRegister(into),
        Payload::Base(base),
        Payload::Offset(offset),
        Payload::Len(length),
    ])
}

/// An expression that netlink-packet-netfilter has no type for, with 32-bit attributes.
fn other(name: &str, attributes: &[(u16, u32)]) -> Expressions {
    let attribute = |(kind, value): &(u16, u32)| DefaultNla::new(*kind, value.to_be_bytes().to_vec());
    Expressions::Other {
        expression_type: name.into(),
        attributes: attributes.iter().map(attribute).collect(),
    }
}
