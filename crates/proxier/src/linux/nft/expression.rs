//! The nftables expressions of the kube-ipvs rules, encoded as `nft` encodes them, so that `nft list ruleset` can
//! decode them. The numbers are those of `NFTA_*` and `NFT_*` in `linux/netfilter/nf_tables.h`.

mod conntrack;
mod packet;

use netlink_batch::attribute::{nest, put, put_text};

pub(super) use conntrack::*;
pub(super) use packet::*;

use super::kind;
use crate::{linux::netfilter::family_number, model::Family};

#[derive(Debug, Clone, Default)]
pub(super) struct Expressions(Vec<u8>);

impl Expressions {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

pub(super) fn all<const N: usize>(parts: [Expressions; N]) -> Expressions {
    Expressions(parts.map(|part| part.0).concat())
}

/// Registers, which pass bytes from one expression to the next.
const VERDICT: u32 = 0;
const FIRST: u32 = 1;

/// The register that starts `words` four-byte words after the start of the first one.
fn register(words: u32) -> u32 {
    const FIRST_WORD: u32 = 8;
    if words == 0 { FIRST } else { FIRST_WORD + words }
}

pub(super) fn by<T>(family: Family, v4: T, v6: T) -> T {
    match family {
        Family::V4 => v4,
        Family::V6 => v6,
    }
}

fn expression(name: &str, write: impl FnOnce(&mut Vec<u8>)) -> Expressions {
    let mut bytes = Vec::new();
    nest(&mut bytes, kind::LIST_ELEMENT, |out| {
        put_text(out, kind::EXPRESSION_NAME, name);
        nest(out, kind::EXPRESSION_DATA, write);
    });
    Expressions(bytes)
}

fn numbers(name: &str, attributes: &[(u16, u32)]) -> Expressions {
    expression(name, |out| put_numbers(out, attributes))
}

fn put_numbers(out: &mut Vec<u8>, attributes: &[(u16, u32)]) {
    attributes.iter().for_each(|(kind, value)| put(out, *kind, value.to_be_bytes()));
}

fn put_data(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    nest(out, kind, |out| put(out, kind::DATA_VALUE, value));
}

pub(super) fn is_in(set: &str) -> Expressions {
    lookup(set, &[])
}

pub(super) fn is_not_in(set: &str) -> Expressions {
    const INVERT: u32 = 1;
    lookup(set, &[(5, INVERT)])
}

fn lookup(set: &str, more: &[(u16, u32)]) -> Expressions {
    expression("lookup", |out| {
        put_text(out, 1, set);
        put_numbers(out, &[(2, FIRST)]);
        put_numbers(out, more);
    })
}

fn equals(value: &[u8]) -> Expressions {
    compare(0, value)
}

fn differs(value: &[u8]) -> Expressions {
    compare(1, value)
}

fn compare(operator: u32, value: &[u8]) -> Expressions {
    expression("cmp", |out| {
        put_numbers(out, &[(1, FIRST), (2, operator)]);
        put_data(out, 3, value);
    })
}

fn is_between(first: &[u8], last: &[u8]) -> Expressions {
    const EQUAL: u32 = 0;
    expression("range", |out| {
        put_numbers(out, &[(1, FIRST), (2, EQUAL)]);
        put_data(out, 3, first);
        put_data(out, 4, last);
    })
}

/// First register = (first register & mask) ^ xor.
fn mask(mask: &[u8], xor: &[u8]) -> Expressions {
    expression("bitwise", |out| {
        put_numbers(out, &[(1, FIRST), (2, FIRST), (3, mask.len() as u32)]);
        put_data(out, 4, mask);
        put_data(out, 5, xor);
    })
}

fn immediate(value: &[u8]) -> Expressions {
    expression("immediate", |out| {
        put_numbers(out, &[(1, FIRST)]);
        put_data(out, kind::IMMEDIATE_DATA, value);
    })
}

/// `dnat to KEY map @MAP`, with address and port from the map.
pub(super) fn dnat_by(family: Family, map: &str) -> Expressions {
    let nat = destination_nat(family, &[(3, FIRST), (5, register(by(family, 1, 4)))]);
    all([load(family, KEY), lookup(map, &[(3, FIRST)]), nat])
}

/// `dnat to :PORT`: another port of the same address.
pub(super) fn dnat_to_port(family: Family, port: u16) -> Expressions {
    all([immediate(&port.to_be_bytes()), destination_nat(family, &[(5, FIRST)])])
}

/// `dnat`, with the attributes for the registers of the address (3) and the port (5).
fn destination_nat(family: Family, to: &[(u16, u32)]) -> Expressions {
    const DESTINATION: u32 = 1;
    expression("nat", |out| {
        put_numbers(out, &[(1, DESTINATION), (2, family_number(family).into())]);
        put_numbers(out, to);
    })
}

/// `redirect to :PORT`: a port of this node.
pub(super) fn redirect_to_port(port: u16) -> Expressions {
    all([immediate(&port.to_be_bytes()), numbers("redir", &[(1, FIRST)])])
}

/// `counter masquerade fully-random`.
pub(super) fn masquerade() -> Expressions {
    /// `NF_NAT_RANGE_PROTO_RANDOM_FULLY`.
    const FULLY_RANDOM: u32 = 1 << 4;
    all([counter(), numbers("masq", &[(1, FULLY_RANDOM)])])
}

/// `counter reject with tcp reset`.
pub(super) fn reset() -> Expressions {
    const TCP_RESET: u32 = 1;
    reject_with(TCP_RESET, 0)
}

/// `counter reject`: an ICMP or ICMPv6 port-unreachable, which a client reports as connection refused.
pub(super) fn reject(family: Family) -> Expressions {
    const ICMP_UNREACHABLE: u32 = 0;
    let port_unreachable = by(family, 3, 4);
    reject_with(ICMP_UNREACHABLE, port_unreachable)
}

fn reject_with(kind: u32, code: u8) -> Expressions {
    let reject = expression("reject", |out| {
        put_numbers(out, &[(1, kind)]);
        put(out, 2, [code]);
    });
    all([counter(), reject])
}

pub(super) fn counter() -> Expressions {
    numbers("counter", &[])
}

pub(super) fn goto(chain: &str) -> Expressions {
    const GOTO: i32 = -4;
    verdict(GOTO.cast_unsigned(), Some(chain))
}

/// `counter drop`.
pub(super) fn drop() -> Expressions {
    all([counter(), verdict(kind::DROP, None)])
}

pub(super) fn return_() -> Expressions {
    const RETURN: i32 = -5;
    verdict(RETURN.cast_unsigned(), None)
}

pub(super) fn accept() -> Expressions {
    const NF_ACCEPT: u32 = 1;
    verdict(NF_ACCEPT, None)
}

fn verdict(code: u32, chain: Option<&str>) -> Expressions {
    expression("immediate", |out| {
        put_numbers(out, &[(1, VERDICT)]);
        nest(out, kind::IMMEDIATE_DATA, |out| {
            nest(out, kind::DATA_VERDICT, |out| {
                put_numbers(out, &[(kind::VERDICT_CODE, code)]);
                chain.iter().for_each(|chain| put_text(out, kind::VERDICT_CHAIN, chain));
            });
        });
    })
}
