//! What conntrack says of a packet.

use netlink_packet_core::DefaultNla;
use netlink_packet_netfilter::nftables::{Cmp, Expressions, Meta, MetaKey, Operator, Register};

use super::{compare, mask, other, register, value};
use crate::model::Family;

/// Bits of `ct state` (`enum ip_conntrack_infos` as nftables shows it).
const INVALID: u32 = 1;
const ESTABLISHED: u32 = 1 << 1;
const RELATED: u32 = 1 << 2;
const NEW: u32 = 1 << 3;
/// Keys of the expression `ct` (`enum nft_ct_keys`).
const CT_STATE: u32 = 0;
const CT_DIRECTION: u32 = 1;
const CT_SOURCE_PORT: u32 = 11;
const CT_DESTINATION_PORT: u32 = 12;
const CT_SOURCE_V4: u32 = 19;
const CT_DESTINATION_V4: u32 = 20;
const CT_SOURCE_V6: u32 = 21;
const CT_DESTINATION_V6: u32 = 22;
const CT_STATUS: u32 = 2;
/// The bit of `ct status` that says that the destination was changed.
const CT_STATUS_DNAT: u32 = 1 << 5;
/// `ct state new`.
pub(in super::super) fn state_new() -> Vec<Expressions> {
    ct(CT_STATE, NEW, Operator::NotEqual)
}

/// `ct state established,related`.
pub(in super::super) fn state_established() -> Vec<Expressions> {
    ct(CT_STATE, ESTABLISHED | RELATED, Operator::NotEqual)
}

/// `ct state invalid`.
pub(in super::super) fn state_invalid() -> Vec<Expressions> {
    ct(CT_STATE, INVALID, Operator::NotEqual)
}

/// `ct status & dnat == 0`: no DNAT has changed the destination.
pub(in super::super) fn not_diverted() -> Vec<Expressions> {
    ct(CT_STATUS, CT_STATUS_DNAT, Operator::Equal)
}

/// Loads the key that the first packet of the connection had when it came: `ct original ip daddr . meta l4proto . ct
/// original proto-dst`.
pub(in super::super) fn original_key(family: Family) -> Vec<Expressions> {
    let address = match family {
        Family::V4 => CT_DESTINATION_V4,
        Family::V6 => CT_DESTINATION_V6,
    };
    original_end(family, address, CT_DESTINATION_PORT)
}

/// Loads where the connection was opened from, like the key of a virtual server: `ct original ip saddr . meta l4proto
/// . ct original proto-src`.
pub(in super::super) fn original_source(family: Family) -> Vec<Expressions> {
    let address = match family {
        Family::V4 => CT_SOURCE_V4,
        Family::V6 => CT_SOURCE_V6,
    };
    original_end(family, address, CT_SOURCE_PORT)
}

fn original_end(family: Family, address: u32, port: u32) -> Vec<Expressions> {
    let words = match family {
        Family::V4 => 1,
        Family::V6 => 4,
    };
    let protocol = vec![Meta::Key(MetaKey::L4Proto), Meta::DestinationRegister(register(words))];
    vec![original(address, Register::Reg1), Expressions::Meta(protocol), original(port, register(words + 1))]
}

/// Loads what conntrack knows of the direction in which the connection was opened.
fn original(key: u32, into: Register) -> Expressions {
    /// `NFTA_CT_DIRECTION`, and `IP_CT_DIR_ORIGINAL`.
    const DIRECTION: u16 = 3;
    const ORIGINAL: u8 = 0;
    let number = |kind, value: u32| DefaultNla::new(kind, value.to_be_bytes().to_vec());
    let direction = DefaultNla::new(DIRECTION, vec![ORIGINAL]);
    Expressions::Other {
        expression_type: "ct".into(),
        attributes: vec![number(1, into.into()), number(2, key), direction],
    }
}

/// `ct direction original`.
pub(in super::super) fn in_original_direction() -> Vec<Expressions> {
    const ORIGINAL: u8 = 0;
    let load = other("ct", &[(1, Register::Reg1.into()), (2, CT_DIRECTION)]);
    vec![load, compare(Operator::Equal, vec![ORIGINAL])]
}

/// Compares some bits of what conntrack says with 0.
fn ct(key: u32, bits: u32, operator: Operator) -> Vec<Expressions> {
    let load = other("ct", &[(1, Register::Reg1.into()), (2, key)]);
    let compare = [Cmp::SourceRegister(Register::Reg1), Cmp::Op(operator), Cmp::Data(value(0))];
    // In the host's byte order, unlike everything that comes from a packet.
    vec![load, mask(bits, 0), Expressions::Cmp(compare.to_vec())]
}
