//! Lists of elements, read by ourselves. netlink-packet-netfilter describes the whole list in words for each element
//! of it, for an error that does not come: with a thousand elements that takes a second, and every audit reads
//! several such lists.

use std::convert::Infallible;

use netlink_packet_core::{
    NLA_HEADER_SIZE, NetlinkDeserializable, NetlinkHeader, NetlinkSerializable, NlasIterator,
};
use netlink_packet_netfilter::{NetfilterMessage, NetfilterSubsystem};

use super::{
    decode::Raw,
    element::{DATA_VALUE, INTERVAL_END, kind},
    userdata,
};

/// Length of `struct nfgenmsg`.
const HEADER: usize = 4;
/// `NFT_MSG_NEWSETELEM`.
const NEW_ELEMENTS: u8 = 12;
/// `NFTA_SET_ELEM_LIST_ELEMENTS`.
pub(super) const ELEMENTS: u16 = 3;
/// A request for the elements of a set, or a part of the answer.
pub(super) enum ElementList {
    Request(Box<NetfilterMessage>),
    Answer(Vec<Raw>),
}

impl NetlinkSerializable for ElementList {
    fn message_type(&self) -> u16 {
        match self {
            Self::Request(request) => request.message_type(),
            Self::Answer(_) => message_type(),
        }
    }

    fn buffer_len(&self) -> usize {
        match self {
            Self::Request(request) => request.buffer_len(),
            Self::Answer(_) => 0,
        }
    }

    fn serialize(&self, buffer: &mut [u8]) {
        if let Self::Request(request) = self {
            request.serialize(buffer);
        }
    }
}

impl NetlinkDeserializable for ElementList {
    type Error = Infallible;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, Infallible> {
        let is_list = header.message_type == message_type();
        let attributes = payload.get(HEADER..).filter(|_| is_list).unwrap_or_default();
        Ok(Self::Answer(elements(attributes)))
    }
}

fn message_type() -> u16 {
    u16::from_be_bytes([NetfilterSubsystem::NfTables.into(), NEW_ELEMENTS])
}

/// The elements among the attributes of a list.
pub(super) fn elements(list: &[u8]) -> Vec<Raw> {
    let lists = attributes(list).filter(|(kind, _)| *kind == ELEMENTS);
    lists.flat_map(|(_, elements)| attributes(elements)).map(|(_, element)| raw(element)).collect()
}

fn raw(element: &[u8]) -> Raw {
    let mut raw = Raw::default();
    for (kind, value) in attributes(element) {
        match kind {
            kind::KEY => raw.key = data(value),
            kind::KEY_END => raw.key_end = data(value),
            kind::DATA => raw.data = data(value),
            kind::USER_DATA => raw.comment = userdata::element_comment(value).map(str::to_owned),
            kind::FLAGS => {
                let flags = value.first_chunk().copied().map(u32::from_be_bytes).unwrap_or_default();
                raw.is_interval_end = flags & INTERVAL_END != 0;
            }
            _ => {}
        }
    }
    raw
}

/// The bytes of a key or of what a map has for it.
fn data(nest: &[u8]) -> Vec<u8> {
    let mut values = attributes(nest).filter(|(kind, _)| *kind == DATA_VALUE);
    values.next().map(|(_, value)| value.to_vec()).unwrap_or_default()
}

/// Attributes as kinds and values, up to the first that makes no sense.
pub(in crate::linux) fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    NlasIterator::new(bytes).map_while(|attribute| {
        #[cfg(test)]
        tests::count();
        let attribute = attribute.ok()?;
        let (kind, length) = (attribute.kind(), usize::from(attribute.length()));
        Some((kind, attribute.into_inner().get(NLA_HEADER_SIZE..length)?))
    })
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use netlink_packet_core::{DefaultNla, Emitable, NLA_F_NESTED};

    use super::*;

    thread_local! {
        /// How many attributes were read.
        static READ: Cell<usize> = const { Cell::new(0) };
    }

    pub(super) fn count() {
        READ.set(READ.get() + 1);
    }

    fn list(length: usize) -> Vec<u8> {
        let key = DefaultNla::new(DATA_VALUE, vec![7; 12]);
        let nest = |kind, inner: DefaultNla| {
            let mut bytes = vec![0; inner.buffer_len()];
            inner.emit(&mut bytes);
            DefaultNla::new(kind | NLA_F_NESTED, bytes)
        };
        let element = nest(1, nest(kind::KEY, key));
        let mut bytes = vec![0; length * element.buffer_len()];
        bytes.chunks_exact_mut(element.buffer_len()).for_each(|place| element.emit(place));
        let mut list = vec![0; 4];
        list.extend(&bytes);
        let length = u16::try_from(list.len()).unwrap();
        list[..2].copy_from_slice(&length.to_ne_bytes());
        list[2..4].copy_from_slice(&ELEMENTS.to_ne_bytes());
        list
    }

    /// 2000 are as many as a datagram can hold: a start with ten thousand Services reads twenty times as much.
    #[test]
    fn each_attribute_is_read_once_however_long_the_list_is() {
        for length in [1, 1000, 2000] {
            let list = list(length);
            READ.set(0);
            let elements = elements(&list);
            assert_eq!(elements.len(), length);
            assert!(elements.iter().all(|element| element.key == [7; 12]));
            // The list, and of each element itself, its key and the bytes of that.
            assert_eq!(READ.get(), 1 + 3 * length);
        }
    }
}
