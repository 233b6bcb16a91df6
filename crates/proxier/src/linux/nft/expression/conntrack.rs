//! Expressions that read conntrack.

use netlink_batch::attribute::put;

use super::{
    Expressions, FIRST, all, by, differs, equals, expression, load_protocol, mask, numbers, put_numbers, register,
};
use crate::model::Family;

/// Bits of `ct state` (`enum ip_conntrack_infos` as nftables shows it).
const INVALID: u32 = 1;
const ESTABLISHED: u32 = 1 << 1;
const RELATED: u32 = 1 << 2;
const NEW: u32 = 1 << 3;
const UNTRACKED: u32 = 1 << 6;
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
/// The bit of `ct status` for a changed destination.
const CT_STATUS_DNAT: u32 = 1 << 5;

pub(in super::super) fn state_new() -> Expressions {
    has(CT_STATE, NEW)
}

/// `ct state established,related`.
pub(in super::super) fn state_established() -> Expressions {
    has(CT_STATE, ESTABLISHED | RELATED)
}

pub(in super::super) fn state_invalid() -> Expressions {
    has(CT_STATE, INVALID)
}

/// A rule of another program has exempted the packet from conntrack (`NOTRACK`).
pub(in super::super) fn state_untracked() -> Expressions {
    has(CT_STATE, UNTRACKED)
}

/// `ct status & dnat == 0`: no DNAT has changed the destination.
pub(in super::super) fn not_diverted() -> Expressions {
    all([load_ct(CT_STATUS), mask(&CT_STATUS_DNAT.to_ne_bytes(), &[0; 4]), equals(&[0; 4])])
}

/// Loads the key to which the first packet of the connection was sent: `ct original ip daddr . meta l4proto . ct
/// original proto-dst`.
pub(in super::super) fn original_key(family: Family) -> Expressions {
    original_end(family, by(family, CT_DESTINATION_V4, CT_DESTINATION_V6), CT_DESTINATION_PORT)
}

/// Loads the source of the connection in the format of a virtual server's key: `ct original ip saddr . meta l4proto .
/// ct original proto-src`.
pub(in super::super) fn original_source(family: Family) -> Expressions {
    original_end(family, by(family, CT_SOURCE_V4, CT_SOURCE_V6), CT_SOURCE_PORT)
}

fn original_end(family: Family, address: u32, port: u32) -> Expressions {
    let words = by(family, 1, 4);
    all([original(address, FIRST), load_protocol(register(words)), original(port, register(words + 1))])
}

fn original(key: u32, into: u32) -> Expressions {
    /// `NFTA_CT_DIRECTION`, and `IP_CT_DIR_ORIGINAL`.
    const DIRECTION: u16 = 3;
    const ORIGINAL: u8 = 0;
    expression("ct", |out| {
        put_numbers(out, &[(1, into), (2, key)]);
        put(out, DIRECTION, [ORIGINAL]);
    })
}

pub(in super::super) fn in_reply_direction() -> Expressions {
    const REPLY: u8 = 1;
    all([load_ct(CT_DIRECTION), equals(&[REPLY])])
}

/// Whether any of these bits is set. Conntrack's bits are in host byte order, unlike packet fields.
fn has(key: u32, bits: u32) -> Expressions {
    all([load_ct(key), mask(&bits.to_ne_bytes(), &[0; 4]), differs(&[0; 4])])
}

fn load_ct(key: u32) -> Expressions {
    numbers("ct", &[(1, FIRST), (2, key)])
}
