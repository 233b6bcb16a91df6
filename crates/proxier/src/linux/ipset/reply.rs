use std::net::IpAddr;

use netlink_batch::attribute::{address, array, attributes, find, text};

use super::request::{LIST, attribute};
use crate::{
    linux::netfilter,
    model::{PortNumber, Protocol},
    takeover::Entry,
};

/// Attributes within `DATA` (`IPSET_ATTR_*`, `IPSET_ATTR_IPADDR_*`).
mod kind {
    pub(super) const ADDRESS: u16 = 1;
    pub(super) const ADDRESS_V4: u16 = 1;
    pub(super) const ADDRESS_V6: u16 = 2;
    pub(super) const PORT: u16 = 4;
    pub(super) const PROTOCOL: u16 = 7;
    pub(super) const SIZE: u16 = 24;
}

/// A set or a part of it. The entries of a large set span several messages, and only the first has the header.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) set: String,
    pub(super) size: Option<u32>,
    pub(super) entries: Vec<Entry>,
}

/// Reads one message of a dump; `None` if it names no set.
pub(super) fn part(message_type: u16, payload: &[u8]) -> Option<Part> {
    if message_type != LIST {
        return None;
    }
    let mut part = Part::default();
    for (kind, value) in attributes(netfilter::attributes(payload)) {
        match kind {
            attribute::SET_NAME => part.set = text(value).into_owned(),
            attribute::DATA => part.size = find(value, kind::SIZE).and_then(array).map(u32::from_be_bytes),
            attribute::ENTRIES => {
                let entries = attributes(value).filter(|(kind, _)| *kind == attribute::DATA);
                part.entries.extend(entries.map(|(_, entry)| read(entry)));
            }
            _ => {}
        }
    }
    (!part.set.is_empty()).then_some(part)
}

fn read(entry: &[u8]) -> Entry {
    let port = find(entry, kind::PORT).and_then(array).map(u16::from_be_bytes);
    let protocol = find(entry, kind::PROTOCOL).and_then(array).map(u8::from_be_bytes);
    Entry {
        address: find(entry, kind::ADDRESS).and_then(of_either_family),
        protocol: protocol.and_then(Protocol::from_number),
        port: port.and_then(PortNumber::new),
    }
}

fn of_either_family(nest: &[u8]) -> Option<IpAddr> {
    find(nest, kind::ADDRESS_V4).or_else(|| find(nest, kind::ADDRESS_V6)).and_then(address)
}
