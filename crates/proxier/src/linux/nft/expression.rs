//! The few nftables expressions that our rules are made of, written the way `nft` writes them, so that
//! `nft list ruleset` can read them back.

use netlink_packet_core::DefaultNla;
use netlink_packet_netfilter::nftables::{
    Bitwise, Cmp, DataAttribute, Expressions, Immediate, Lookup, Meta, MetaKey, Operator, Payload, Register,
    Verdict, VerdictAttribute,
};

use crate::model::{Family, Protocol};

/// Bits of `ct state` (`enum ip_conntrack_infos` as nftables shows it).
const STATE_NEW: u32 = 1 << 3;
/// Payload bases of `enum nft_payload_bases`.
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;

/// `ip saddr` or `ip6 saddr` into the first register.
pub(super) fn source_address(family: Family) -> Expressions {
    let (offset, length) = match family {
        Family::V4 => (12, 4),
        Family::V6 => (8, 16),
    };
    payload(NETWORK_HEADER, offset, length, Register::Reg1)
}

/// `ip daddr . meta l4proto . th dport` into consecutive registers from the first on.
pub(super) fn destination_key(family: Family) -> Vec<Expressions> {
    let (offset, length, protocol, port) = match family {
        Family::V4 => (16, 4, Register::Reg32_01, Register::Reg32_02),
        // The address fills Reg32_00 to Reg32_03.
        Family::V6 => (24, 16, Register::Reg2, Register::Reg32_05),
    };
    vec![
        payload(NETWORK_HEADER, offset, length, Register::Reg1),
        Expressions::Meta(vec![Meta::Key(MetaKey::L4Proto), Meta::DestinationRegister(protocol)]),
        payload(TRANSPORT_HEADER, 2, 2, port),
    ]
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

/// `ct state new`.
pub(super) fn state_new() -> Vec<Expressions> {
    // NFT_CT_STATE into the first register.
    let state = other("ct", &[(1, Register::Reg1.into()), (2, 0)]);
    let not = [Cmp::SourceRegister(Register::Reg1), Cmp::Op(Operator::NotEqual), Cmp::Data(value(0))];
    // In the host's byte order, unlike everything that comes from a packet.
    vec![state, mask(STATE_NEW, 0), Expressions::Cmp(not.to_vec())]
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

/// `meta l4proto PROTOCOL`.
pub(super) fn protocol_is(protocol: Protocol) -> Vec<Expressions> {
    let load = vec![Meta::Key(MetaKey::L4Proto), Meta::DestinationRegister(Register::Reg1)];
    let number = DataAttribute::Value(vec![protocol.number()]);
    let equal = vec![Cmp::SourceRegister(Register::Reg1), Cmp::Op(Operator::Equal), Cmp::Data(number)];
    vec![Expressions::Meta(load), Expressions::Cmp(equal)]
}

/// `dnat to :PORT`: another port of the same address.
pub(super) fn dnat_to_port(family: Family, port: u16) -> Vec<Expressions> {
    const DESTINATION: u32 = 1;
    let family = match family {
        Family::V4 => 2,
        Family::V6 => 10,
    };
    let port = vec![
        Immediate::DestinationRegister(Register::Reg1),
        Immediate::Data(DataAttribute::Value(port.to_be_bytes().to_vec())),
    ];
    let nat = other("nat", &[(1, DESTINATION), (2, family), (5, Register::Reg1.into())]);
    vec![Expressions::Immediate(port), nat]
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

/// `jump CHAIN`.
pub(super) fn jump(chain: &str) -> Expressions {
    verdict(Verdict::Jump, Some(chain))
}

/// `goto CHAIN`.
pub(super) fn goto(chain: &str) -> Expressions {
    verdict(Verdict::Goto, Some(chain))
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
