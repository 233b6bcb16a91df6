//! Reads and writes netlink attributes as bytes.
//!
//! An attribute (`struct nlattr` of `linux/netlink.h`) is a value behind a header of four bytes. The header has the
//! length and the type, both in host byte order:
//!
//! ```text
//!  0        2        4                     length    the next multiple of 4
//!  ┌────────┬────────┬─────────────────────┬─────────┐
//!  │ length │ type   │ value               │ padding │
//!  └────────┴────────┴─────────────────────┴─────────┘
//! ```
//!
//! * The length counts the header and the value. Zeros pad the value to a multiple of four bytes, where the next
//!   attribute begins.
//! * The value can be a *nest*: a sequence of attributes.
//! * The two highest bits of the type are flags. `NLA_F_NESTED` marks a nest, and `NLA_F_NET_BYTEORDER` a number in
//!   network byte order. Some subsystems require them, and others never set them.
//! * Each subsystem defines its types and their byte order. `NFTA_*` of `linux/netfilter/nf_tables.h` is in network
//!   byte order, `RTA_*` of `linux/rtnetlink.h` in host byte order. Each nest has separate types.
//!
//! [`attributes`] and [`find`] read; [`put`], [`put_text`] and [`nest`] write. Numbers are arrays of bytes, which
//! `from_be_bytes` and similar methods convert:
//!
//! ```
//! use netlink_batch::attribute::{array, find, nest, put, put_text, text};
//!
//! // Of `linux/netfilter/ipset/ip_set.h`.
//! const SET_NAME: u16 = 2;
//! const DATA: u16 = 7;
//! const PORT: u16 = 4;
//!
//! let mut message = Vec::new();
//! put_text(&mut message, SET_NAME, "web");
//! nest(&mut message, DATA, |data| put(data, PORT, 443u16.to_be_bytes()));
//! assert_eq!(message, *b"\x08\0\x02\0web\0\x0c\0\x07\x80\x06\0\x04\0\x01\xbb\0\0");
//!
//! assert_eq!(find(&message, SET_NAME).map(text).as_deref(), Some("web"));
//! let port = find(&message, DATA).and_then(|data| find(data, PORT));
//! assert_eq!(port.and_then(array).map(u16::from_be_bytes), Some(443));
//! ```
//!
//! No bytes make the readers panic. They read nothing outside the slice, and stop at an attribute with an impossible
//! length. [`checked`] returns an error there.

use std::{borrow::Cow, net::IpAddr};

use netlink_packet_core::{DecodeError, NLA_F_NESTED, NLA_F_NET_BYTEORDER, NLA_HEADER_SIZE};

/// `NLA_TYPE_MASK`: the type without flags.
const TYPE: u16 = !(NLA_F_NESTED | NLA_F_NET_BYTEORDER);

/// The types, without flags, and the values of consecutive attributes. It stops at an impossible length.
pub fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    checked(bytes).map_while(|attribute| attribute.ok().map(|(kind, value)| (kind & TYPE, value)))
}

/// The types, with flags, and the values of consecutive attributes. An attribute with an impossible length is an error,
/// and ends the sequence.
///
/// [`netlink_packet_core::NlasIterator`] does the same more slowly: with it, reading a real server of IPVS, which has
/// some forty attributes, took three times as many instructions.
pub fn checked(mut bytes: &[u8]) -> impl Iterator<Item = Result<(u16, &[u8]), DecodeError>> {
    std::iter::from_fn(move || {
        let left = bytes.len();
        (left > 0).then(|| {
            let attribute = take(&mut bytes);
            attribute.ok_or_else(|| {
                bytes = &[];
                DecodeError::from(format!("an attribute has an impossible length: {left} bytes are left"))
            })
        })
    })
}

/// Takes the first attribute off. `None` if the bytes do not have the length that it claims.
#[inline]
fn take<'a>(bytes: &mut &'a [u8]) -> Option<(u16, &'a [u8])> {
    let [a, b, c, d] = *bytes.first_chunk()?;
    let length = usize::from(u16::from_ne_bytes([a, b]));
    let value = bytes.get(NLA_HEADER_SIZE..length)?;
    *bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((u16::from_ne_bytes([c, d]), value))
}

/// The value of the first attribute of a type.
pub fn find(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
}

/// A value of exactly `N` bytes, such as a number.
pub fn array<const N: usize>(value: &[u8]) -> Option<[u8; N]> {
    value.try_into().ok()
}

/// An address: four bytes are IPv4, and sixteen are IPv6.
pub fn address(value: &[u8]) -> Option<IpAddr> {
    array::<4>(value).map(IpAddr::from).or_else(|| array::<16>(value).map(IpAddr::from))
}

/// A C string up to its NUL. Invalid UTF-8 is replaced.
pub fn text(value: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(value.split(|byte| *byte == 0).next().unwrap_or_default())
}

/// Appends an attribute. The type can have flags.
///
/// # Panics
///
/// If the value has more than 65,531 bytes: the length does not fit the header.
#[inline]
pub fn put(out: &mut Vec<u8>, kind: u16, value: impl AsRef<[u8]>) {
    let value = value.as_ref();
    if value.len() > 16 {
        return put_with(out, kind, |out| out.extend_from_slice(value));
    }
    // Most values are numbers and addresses of a length known at compile time. For these only one write remains.
    let length = NLA_HEADER_SIZE + value.len();
    let mut attribute = [0; NLA_HEADER_SIZE + 16];
    attribute[..NLA_HEADER_SIZE].copy_from_slice(&header(length, kind));
    attribute[NLA_HEADER_SIZE..length].copy_from_slice(value);
    out.extend_from_slice(&attribute[..length.next_multiple_of(4)]);
}

/// Appends an attribute with a C string. [Panics](put#panics) if the string is too long.
pub fn put_text(out: &mut Vec<u8>, kind: u16, text: &str) {
    put_with(out, kind, |out| {
        out.extend_from_slice(text.as_bytes());
        out.push(0);
    });
}

/// Appends a nest of the attributes that `write` appends, with `NLA_F_NESTED`. [Panics](put#panics) if they are too
/// long.
pub fn nest(out: &mut Vec<u8>, kind: u16, write: impl FnOnce(&mut Vec<u8>)) {
    put_with(out, kind | NLA_F_NESTED, write);
}

/// Appends an attribute whose value `write` appends. [Panics](put#panics) if the value is too long.
#[inline]
pub fn put_with(out: &mut Vec<u8>, kind: u16, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&header(0, kind));
    write(out);
    let length = out.len() - start;
    out[start..start + NLA_HEADER_SIZE].copy_from_slice(&header(length, kind));
    out.resize(start + length.next_multiple_of(4), 0);
}

fn header(length: usize, kind: u16) -> [u8; NLA_HEADER_SIZE] {
    let length = u16::try_from(length).expect("an attribute is shorter than 64 KiB");
    let ([a, b], [c, d]) = (length.to_ne_bytes(), kind.to_ne_bytes());
    [a, b, c, d]
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::{DefaultNla, Emitable, NLA_F_NET_BYTEORDER};

    use super::*;

    const KINDS: [u16; 4] = [0, 7, 7 | NLA_F_NET_BYTEORDER, 0x3fff | NLA_F_NESTED];

    #[test]
    fn written_attributes_equal_those_of_netlink_packet_core() {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for (kind, length) in KINDS.into_iter().flat_map(|kind| (0..40).map(move |length| (kind, length))) {
            put(&mut ours, kind, vec![0xaa; length]);
            let library = DefaultNla::new(kind, vec![0xaa; length]);
            let start = theirs.len();
            theirs.resize(start + library.buffer_len(), 0xff);
            library.emit(&mut theirs[start..]);
        }
        assert_eq!(ours, theirs);
    }

    #[test]
    fn written_attributes_are_read_back() {
        let mut bytes = Vec::new();
        nest(&mut bytes, 1, |out| put(out, 2 | NLA_F_NET_BYTEORDER, [1, 2, 3]));
        put(&mut bytes, 1, []);
        put_text(&mut bytes, 3, "lo");
        put(&mut bytes, 4, 258u64.to_be_bytes());
        let all: Vec<_> = attributes(&bytes).collect();
        let inner = b"\x07\0\x02\x40\x01\x02\x03\0".as_slice();
        assert_eq!(all, [(1, inner), (1, &[]), (3, b"lo\0"), (4, &[0, 0, 0, 0, 0, 0, 1, 2])]);
        assert_eq!(find(&bytes, 1).and_then(|nest| find(nest, 2)), Some([1, 2, 3].as_slice()));
        assert_eq!(find(&bytes, 4).and_then(array).map(u64::from_be_bytes), Some(258));
        assert_eq!(find(&bytes, 4).and_then(array).map(u32::from_be_bytes), None, "it has eight bytes");
        assert_eq!(find(&bytes, 5), None);
        // The last attribute can lack its padding.
        bytes.clear();
        put_text(&mut bytes, 3, "lo");
        assert_eq!(find(&bytes[..7], 3).map(text).as_deref(), Some("lo"));
    }

    #[test]
    fn text_and_address_values_are_decoded() {
        for (value, expected) in [(&b""[..], ""), (b"a\0b", "a"), (b"ab", "ab"), (b"\xff\0", "\u{fffd}")] {
            assert_eq!(text(value), expected);
        }
        assert_eq!(address(&[10, 0, 0, 1]), Some([10, 0, 0, 1].into()));
        assert_eq!(address(&[0xfd; 16]), Some([0xfd; 16].into()));
        assert_eq!([0, 3, 5, 15, 17].map(|length| address(&[1; 32][..length])), [None; 5]);
    }

    /// All sequences of seven bytes that are typical of headers. None panics, and no value is longer than the remaining
    /// bytes.
    #[test]
    fn attribute_readers_never_panic_on_header_bytes() {
        const BYTES: [u8; 6] = [0, 1, 4, 5, 8, 0xff];
        for mut number in 0..BYTES.len().pow(7) {
            let bytes: [u8; 7] = std::array::from_fn(|_| {
                let byte = BYTES[number % BYTES.len()];
                number /= BYTES.len();
                byte
            });
            for end in 0..=bytes.len() {
                let read: usize = attributes(&bytes[..end]).map(|(_, value)| NLA_HEADER_SIZE + value.len()).sum();
                assert!(read <= end, "{bytes:?}");
            }
        }
    }

    #[test]
    #[should_panic(expected = "shorter than 64 KiB")]
    fn attribute_longer_than_65531_bytes_panics() {
        let mut bytes = Vec::new();
        put(&mut bytes, 1, vec![0; 65_531]);
        assert_eq!(find(&bytes, 1).map(<[u8]>::len), Some(65_531));
        put(&mut bytes, 1, vec![0; 65_532]);
    }
}
