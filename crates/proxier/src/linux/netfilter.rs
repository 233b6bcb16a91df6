//! The common parts of nftables, conntrack and ipset messages (`linux/netfilter/nfnetlink.h`): a subsystem in the type,
//! and `struct nfgenmsg` before the attributes.

use crate::model::Family;

/// `NFNL_SUBSYS_CTNETLINK`, `NFNL_SUBSYS_IPSET`, `NFNL_SUBSYS_NFTABLES`.
pub(super) const CONNTRACK: u8 = 1;
pub(super) const IPSET: u8 = 6;
pub(super) const NFTABLES: u8 = 10;

pub(super) const fn message_type(subsystem: u8, number: u8) -> u16 {
    u16::from_be_bytes([subsystem, number])
}

/// `NFPROTO_IPV4` or `NFPROTO_IPV6`.
pub(super) const fn family_number(family: Family) -> u8 {
    family.number() as u8
}

/// `struct nfgenmsg`: a family, version 0, resource 0.
pub(super) const fn header(family: u8) -> [u8; 4] {
    [family, 0, 0, 0]
}

/// The attributes after `struct nfgenmsg`.
pub(super) fn attributes(payload: &[u8]) -> &[u8] {
    payload.get(header(0).len()..).unwrap_or_default()
}
