//! Encodes and decodes the values of attributes. A macro makes an attribute enum from a table.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use netlink_batch::attribute::{array, checked, put, put_text, put_with};
use netlink_packet_core::{DecodeError, DefaultNla, Nla};

/// One encoding of values of type `T`.
pub(super) trait Codec<T> {
    /// Whether `NLA_F_NESTED` can be set on such an attribute.
    const NESTED: bool = false;

    fn append(kind: u16, value: &T, out: &mut Vec<u8>);
    /// `None` if the bytes are no such value: the caller keeps them unchanged.
    fn read(bytes: &[u8]) -> Result<Option<T>, DecodeError>;
}

/// An enum of the attributes of one level.
///
/// `append` writes an attribute in one pass. `Emitable` asks for the length at every level before it writes, so it
/// visits each attribute several times. One pass halves the time of a large batch.
pub(crate) trait Attribute: Sized {
    fn append(&self, out: &mut Vec<u8>);
    /// `kind` has the flags.
    fn read(kind: u16, value: &[u8]) -> Result<Self, DecodeError>;
}

pub(super) fn append(attributes: &[impl Attribute], out: &mut Vec<u8>) {
    attributes.iter().for_each(|attribute| attribute.append(out));
}

pub(super) fn parse<A: Attribute>(bytes: &[u8]) -> Result<Vec<A>, DecodeError> {
    // Most attributes are numbers of four bytes behind a header of four.
    let mut all = Vec::with_capacity(bytes.len() / 8);
    for attribute in each(bytes) {
        all.push(attribute?);
    }
    Ok(all)
}

/// Reads attributes one by one, without a list of them.
pub(super) fn each<A: Attribute>(bytes: &[u8]) -> impl Iterator<Item = Result<A, DecodeError>> {
    checked(bytes).map(|attribute| attribute.and_then(|(kind, value)| A::read(kind, value)))
}

/// Integers in host byte order.
pub(super) struct Native;
/// Integers in network byte order.
pub(super) struct Network;
pub(super) struct Bytes;
/// A NUL-terminated string.
pub(super) struct Text;
/// A nest. IPVS ignores `NLA_F_NESTED`, so nests are written without it.
pub(super) struct Nest;

macro_rules! fixed {
    ($($codec:ident $type:ty: $write:expr, $read:expr;)*) => {$(
        impl Codec<$type> for $codec {
            #[inline]
            fn append(kind: u16, value: &$type, out: &mut Vec<u8>) {
                put(out, kind, $write(*value));
            }
            fn read(bytes: &[u8]) -> Result<Option<$type>, DecodeError> {
                Ok(array(bytes).map($read))
            }
        }
    )*};
}

fixed! {
    Native u8: u8::to_ne_bytes, u8::from_ne_bytes;
    Native u16: u16::to_ne_bytes, u16::from_ne_bytes;
    Native u32: u32::to_ne_bytes, u32::from_ne_bytes;
    Native u64: u64::to_ne_bytes, u64::from_ne_bytes;
    Network u16: u16::to_be_bytes, u16::from_be_bytes;
    Network Ipv4Addr: |value: Ipv4Addr| value.octets(), <Ipv4Addr as From<[u8; 4]>>::from;
    Network Ipv6Addr: |value: Ipv6Addr| value.octets(), <Ipv6Addr as From<[u8; 16]>>::from;
    Bytes [u8; 4]: std::convert::identity, std::convert::identity;
    Bytes [u8; 16]: std::convert::identity, std::convert::identity;
}

impl<T: AsRef<str> + FromStr> Codec<T> for Text {
    fn append(kind: u16, value: &T, out: &mut Vec<u8>) {
        put_text(out, kind, value.as_ref());
    }

    fn read(bytes: &[u8]) -> Result<Option<T>, DecodeError> {
        let text = bytes.strip_suffix(&[0]).and_then(|text| std::str::from_utf8(text).ok());
        Ok(text.and_then(|text| text.parse().ok()))
    }
}

impl<A: Attribute> Codec<Vec<A>> for Nest {
    const NESTED: bool = true;

    fn append(kind: u16, value: &Vec<A>, out: &mut Vec<u8>) {
        put_with(out, kind, |out| append(value, out));
    }

    fn read(bytes: &[u8]) -> Result<Option<Vec<A>>, DecodeError> {
        // The kernel and libnl pad every attribute. An unpadded nest would grow when it is written again, and could
        // then exceed its length field.
        if !bytes.len().is_multiple_of(4) {
            return Ok(None);
        }
        parse(bytes).map(Some)
    }
}

pub(super) fn append_other(other: &DefaultNla, out: &mut Vec<u8>) {
    put_with(out, other.kind(), |out| {
        let start = out.len();
        out.resize(start + other.value_len(), 0);
        other.emit_value(&mut out[start..]);
    });
}

/// Makes an attribute enum with its encoder and decoder. Each line has the variant, its type, the kernel's number and
/// the codec.
macro_rules! attributes {
    ($(#[$meta:meta])* $name:ident {
        $($(#[$doc:meta])* $variant:ident($type:ty) = $kind:literal as $codec:ident,)*
    }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum $name {
            $($(#[$doc])* $variant($type),)*
            /// An attribute that this version does not know, or one with an unexpected value. A round trip keeps it
            /// unchanged.
            Other(netlink_packet_core::DefaultNla),
        }

        impl $crate::message::codec::Attribute for $name {
            // If the variant is known at compile time, inlining removes the match.
            #[inline(always)]
            fn append(&self, out: &mut Vec<u8>) {
                match self {
                    $(Self::$variant(value) => <$codec as Codec<$type>>::append($kind, value, out),)*
                    Self::Other(other) => $crate::message::codec::append_other(other, out),
                }
            }

            fn read(kind: u16, value: &[u8]) -> Result<Self, netlink_packet_core::DecodeError> {
                use netlink_packet_core::{NLA_F_NET_BYTEORDER, NLA_F_NESTED};
                let is_nest = kind & NLA_F_NESTED != 0;
                let is_number = kind & NLA_F_NET_BYTEORDER != 0;
                if is_nest && is_number {
                    return Err("an attribute that is both nested and a number".into());
                }
                let known = match kind & !NLA_F_NESTED {
                    _ if is_number => None,
                    $($kind if is_nest && !<$codec as Codec<$type>>::NESTED => None,
                    $kind => <$codec as Codec<$type>>::read(value)?.map(Self::$variant),)*
                    _ => None,
                };
                let other = || Self::Other(netlink_packet_core::DefaultNla::new(kind, value.to_vec()));
                Ok(known.unwrap_or_else(other))
            }
        }
    };
}
pub(super) use attributes;
