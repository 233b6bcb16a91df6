//! How the values of attributes look as bytes, and the macro that makes an attribute enum out of a table.

use std::net::{Ipv4Addr, Ipv6Addr};

use netlink_batch::attribute::{array, put, put_text, put_with};
use netlink_packet_core::{DecodeError, DefaultNla, Nla, NlaBuffer, NlasIterator};

/// One way to write values of type `T`.
pub(super) trait Codec<T> {
    /// Whether `NLA_F_NESTED` may stand on such an attribute.
    const NESTED: bool = false;

    /// Appends the value as an attribute of this kind.
    fn append(kind: u16, value: &T, out: &mut Vec<u8>);
    /// `None` when the bytes are no such value: they are then kept as they are.
    fn read(bytes: &[u8]) -> Result<Option<T>, DecodeError>;
}

/// An enum of the attributes of one level.
///
/// They are appended to what is there already. Attributes are nested, and each level's length stands before it:
/// `Emitable` has to ask for it at every level, and so looks at every attribute several times. This looks once, which
/// halves the time of a large batch.
pub(crate) trait Attribute: Sized {
    fn append(&self, out: &mut Vec<u8>);
    fn read(attribute: &NlaBuffer<&[u8]>) -> Result<Self, DecodeError>;
}

/// Appends a list of attributes.
pub(super) fn append(attributes: &[impl Attribute], out: &mut Vec<u8>) {
    attributes.iter().for_each(|attribute| attribute.append(out));
}

/// Reads a list of attributes.
pub(super) fn parse<A: Attribute>(bytes: &[u8]) -> Result<Vec<A>, DecodeError> {
    NlasIterator::new(bytes).map(|attribute| A::read(&attribute?)).collect()
}

/// Integers in host byte order.
pub(super) struct Native;
/// Integers in network byte order.
pub(super) struct Network;
/// Bytes as they are.
pub(super) struct Bytes;
/// A NUL-terminated string.
pub(super) struct Text;
/// Attributes in an attribute. IPVS ignores `NLA_F_NESTED`, so nests are written without it.
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

impl<T: AsRef<str> + for<'a> TryFrom<&'a str>> Codec<T> for Text {
    fn append(kind: u16, value: &T, out: &mut Vec<u8>) {
        put_text(out, kind, value.as_ref());
    }

    fn read(bytes: &[u8]) -> Result<Option<T>, DecodeError> {
        let text = bytes.strip_suffix(&[0]).and_then(|text| std::str::from_utf8(text).ok());
        Ok(text.and_then(|text| T::try_from(text).ok()))
    }
}

impl<A: Attribute> Codec<Vec<A>> for Nest {
    const NESTED: bool = true;

    fn append(kind: u16, value: &Vec<A>, out: &mut Vec<u8>) {
        put_with(out, kind, |out| append(value, out));
    }

    fn read(bytes: &[u8]) -> Result<Option<Vec<A>>, DecodeError> {
        // The kernel and libnl pad every attribute. What is not padded would grow when written again, and
        // might then exceed what a length field can say.
        if !bytes.len().is_multiple_of(4) {
            return Ok(None);
        }
        parse(bytes).map(Some)
    }
}

/// Appends an attribute as it was read.
pub(super) fn append_other(other: &DefaultNla, out: &mut Vec<u8>) {
    put_with(out, other.kind(), |out| {
        let start = out.len();
        out.resize(start + other.value_len(), 0);
        other.emit_value(&mut out[start..]);
    });
}

/// Makes an attribute enum with its encoder and decoder. A line is a variant, its type, the number of the kernel
/// and the codec.
macro_rules! attributes {
    ($(#[$meta:meta])* $name:ident {
        $($(#[$doc:meta])* $variant:ident($type:ty) = $kind:literal as $codec:ident,)*
    }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum $name {
            $($(#[$doc])* $variant($type),)*
            /// An attribute that this version does not know, or one whose value has another shape than
            /// expected. It survives a round trip as it is.
            Other(netlink_packet_core::DefaultNla),
        }

        impl $crate::message::codec::Attribute for $name {
            // Where the variant is known when this is compiled, so is what is left of the match.
            #[inline(always)]
            fn append(&self, out: &mut Vec<u8>) {
                match self {
                    $(Self::$variant(value) => <$codec as Codec<$type>>::append($kind, value, out),)*
                    Self::Other(other) => $crate::message::codec::append_other(other, out),
                }
            }

            fn read(
                attribute: &netlink_packet_core::NlaBuffer<&[u8]>,
            ) -> Result<Self, netlink_packet_core::DecodeError> {
                if attribute.network_byte_order_flag() && attribute.nested_flag() {
                    return Err("an attribute that is both nested and a number".into());
                }
                let value = match attribute.kind() {
                    _ if attribute.network_byte_order_flag() => None,
                    $($kind if attribute.nested_flag() && !<$codec as Codec<$type>>::NESTED => None,
                    $kind => <$codec as Codec<$type>>::read(attribute.value())?.map(Self::$variant),)*
                    _ => None,
                };
                match value {
                    Some(value) => Ok(value),
                    None => netlink_packet_core::Parseable::parse(attribute).map(Self::Other),
                }
            }
        }
    };
}
pub(super) use attributes;
