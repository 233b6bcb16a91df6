use std::net::IpAddr;

use super::request::attribute;
use crate::{
    linux::nft::attributes,
    model::{PortNumber, Protocol},
    takeover::Entry,
};

/// The attributes within `DATA` (`IPSET_ATTR_*`, `IPSET_ATTR_IPADDR_*`).
mod kind {
    pub(super) const ADDRESS: u16 = 1;
    pub(super) const ADDRESS_V4: u16 = 1;
    pub(super) const ADDRESS_V6: u16 = 2;
    pub(super) const PORT: u16 = 4;
    pub(super) const PROTOCOL: u16 = 7;
    /// How many entries, in the header of a set.
    pub(super) const SIZE: u16 = 24;
}

/// A set, or a part of it: the entries of a large one come in several messages, of which the first has the header.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) set: String,
    pub(super) size: Option<u32>,
    pub(super) entries: Vec<Entry>,
}

/// Reads the attributes of one message of a list; `None` if it names no set.
pub(super) fn part(bytes: &[u8]) -> Option<Part> {
    let mut part = Part::default();
    for (kind, value) in attributes(bytes) {
        match kind {
            attribute::SET_NAME => {
                let name = value.split(|byte| *byte == 0).next().unwrap_or_default();
                part.set = String::from_utf8_lossy(name).into_owned();
            }
            attribute::DATA => part.size = find(value, kind::SIZE).and_then(number),
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
    let port = find(entry, kind::PORT).and_then(|port| Some(u16::from_be_bytes(*port.first_chunk()?)));
    let protocol = find(entry, kind::PROTOCOL).and_then(|number| Protocol::from_number(*number.first()?));
    Entry {
        address: find(entry, kind::ADDRESS).and_then(address),
        protocol,
        port: port.and_then(PortNumber::new),
    }
}

fn address(nest: &[u8]) -> Option<IpAddr> {
    attributes(nest).find_map(|(kind, value)| match kind {
        kind::ADDRESS_V4 => Some(IpAddr::from(*value.first_chunk::<4>()?)),
        kind::ADDRESS_V6 => Some(IpAddr::from(*value.first_chunk::<16>()?)),
        _ => None,
    })
}

fn number(value: &[u8]) -> Option<u32> {
    value.first_chunk().copied().map(u32::from_be_bytes)
}

fn find(nest: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(nest).find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
}
