//! How the values of attributes look as bytes, and the macro that makes an attribute enum out of a table.

use std::net::{Ipv4Addr, Ipv6Addr};

use netlink_packet_core::{DecodeError, Emitable, Nla, NlaBuffer, NlasIterator, Parseable};

/// One way to write values of type `T`.
pub(super) trait Codec<T> {
    /// Whether `NLA_F_NESTED` may stand on such an attribute.
    const NESTED: bool = false;

    fn length(value: &T) -> usize;
    /// Writes into a buffer of exactly `length` bytes.
    fn write(value: &T, buffer: &mut [u8]);
    /// `None` when the bytes are no such value: they are then kept as they are.
    fn read(bytes: &[u8]) -> Result<Option<T>, DecodeError>;
    /// Appends the value as an attribute of this kind, with its header and padding.
    fn append(kind: u16, value: &T, out: &mut Vec<u8>) {
        append_attribute(out, kind, |out| {
            let start = out.len();
            out.resize(start + Self::length(value), 0);
            Self::write(value, &mut out[start..]);
        });
    }
}

/// Attributes that are appended to what is there already. Attributes are nested, and each level's length stands
/// before it: `Emitable` has to ask for it at every level, and so looks at every attribute several times. This
/// looks once, which halves the time of a large batch.
pub(crate) trait Append {
    fn append(&self, out: &mut Vec<u8>);
}

impl<A: Append> Append for [A] {
    fn append(&self, out: &mut Vec<u8>) {
        self.iter().for_each(|attribute| attribute.append(out));
    }
}

/// Appends one attribute whose value is what `write` appends.
///
/// # Panics
///
/// On a value of 64 KiB or more, as `Emitable` does.
#[inline]
pub(crate) fn append_attribute(out: &mut Vec<u8>, kind: u16, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&header(0, kind));
    write(out);
    let length = out.len() - start;
    out[start..start + 4].copy_from_slice(&header(length, kind));
    out.resize(start + length.next_multiple_of(4), 0);
}

/// What stands before a value: the length with the header itself, and the kind.
fn header(length: usize, kind: u16) -> [u8; 4] {
    let length = u16::try_from(length).expect("an attribute is shorter than 64 KiB");
    let ([a, b], [c, d]) = (length.to_ne_bytes(), kind.to_ne_bytes());
    [a, b, c, d]
}

/// Integers in host byte order.
pub(super) struct Native;
/// Integers in network byte order.
pub(super) struct Network;
/// Bytes as they are.
pub(super) struct Bytes;
/// A NUL-terminated string.
pub(super) struct Text;
/// Attributes in an attribute.
pub(super) struct Nest;

macro_rules! fixed {
    ($($codec:ident $type:ty: $write:expr, $read:expr;)*) => {$(
        impl Codec<$type> for $codec {
            fn length(_: &$type) -> usize {
                size_of::<$type>()
            }
            fn write(value: &$type, buffer: &mut [u8]) {
                buffer.copy_from_slice(&$write(*value));
            }
            fn read(bytes: &[u8]) -> Result<Option<$type>, DecodeError> {
                Ok(bytes.try_into().ok().map($read))
            }
            // Its length is known when this is compiled: one write, where nearly all attributes are such.
            #[inline]
            fn append(kind: u16, value: &$type, out: &mut Vec<u8>) {
                const LENGTH: usize = 4 + size_of::<$type>();
                let mut attribute = [0; LENGTH.next_multiple_of(4)];
                attribute[..4].copy_from_slice(&header(LENGTH, kind));
                attribute[4..LENGTH].copy_from_slice(&$write(*value));
                out.extend_from_slice(&attribute);
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
    fn length(value: &T) -> usize {
        value.as_ref().len() + 1
    }

    fn write(value: &T, buffer: &mut [u8]) {
        let text = value.as_ref().as_bytes();
        buffer.fill(0);
        for (to, from) in buffer.iter_mut().zip(text) {
            *to = *from;
        }
    }

    fn read(bytes: &[u8]) -> Result<Option<T>, DecodeError> {
        let text = bytes.strip_suffix(&[0]).and_then(|text| std::str::from_utf8(text).ok());
        Ok(text.and_then(|text| T::try_from(text).ok()))
    }
}

impl<A> Codec<Vec<A>> for Nest
where
    A: Nla + Append + for<'a> Parseable<NlaBuffer<&'a [u8]>>,
{
    const NESTED: bool = true;

    fn length(value: &Vec<A>) -> usize {
        value.as_slice().buffer_len()
    }

    fn write(value: &Vec<A>, buffer: &mut [u8]) {
        value.as_slice().emit(buffer);
    }

    fn read(bytes: &[u8]) -> Result<Option<Vec<A>>, DecodeError> {
        // The kernel and libnl pad every attribute. What is not padded would grow when written again, and
        // might then exceed what a length field can say.
        if !bytes.len().is_multiple_of(4) {
            return Ok(None);
        }
        parse(bytes).map(Some)
    }

    fn append(kind: u16, value: &Vec<A>, out: &mut Vec<u8>) {
        append_attribute(out, kind, |out| value.as_slice().append(out));
    }
}

/// Reads a list of attributes.
pub(super) fn parse<A>(bytes: &[u8]) -> Result<Vec<A>, DecodeError>
where
    A: for<'a> Parseable<NlaBuffer<&'a [u8]>>,
{
    NlasIterator::new(bytes).map(|attribute| A::parse(&attribute?)).collect()
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

        impl netlink_packet_core::Nla for $name {
            fn value_len(&self) -> usize {
                match self {
                    $(Self::$variant(value) => <$codec as Codec<$type>>::length(value),)*
                    Self::Other(other) => other.value_len(),
                }
            }

            fn kind(&self) -> u16 {
                match self {
                    $(Self::$variant(_) => $kind,)*
                    Self::Other(other) => other.kind(),
                }
            }

            fn emit_value(&self, buffer: &mut [u8]) {
                match self {
                    $(Self::$variant(value) => <$codec as Codec<$type>>::write(value, buffer),)*
                    Self::Other(other) => other.emit_value(buffer),
                }
            }
        }

        impl $crate::message::codec::Append for $name {
            // Where the variant is known when this is compiled, so is what is left of the match.
            #[inline(always)]
            fn append(&self, out: &mut Vec<u8>) {
                match self {
                    $(Self::$variant(value) => <$codec as Codec<$type>>::append($kind, value, out),)*
                    Self::Other(other) => {
                        let start = out.len();
                        out.resize(start + netlink_packet_core::Emitable::buffer_len(other), 0);
                        netlink_packet_core::Emitable::emit(other, &mut out[start..]);
                    }
                }
            }
        }

        impl<'a, T: AsRef<[u8]> + ?Sized> netlink_packet_core::Parseable<netlink_packet_core::NlaBuffer<&'a T>>
            for $name
        {
            fn parse(
                buffer: &netlink_packet_core::NlaBuffer<&'a T>,
            ) -> Result<Self, netlink_packet_core::DecodeError> {
                if buffer.network_byte_order_flag() && buffer.nested_flag() {
                    return Err("an attribute that is both nested and a number".into());
                }
                let value = match buffer.kind() {
                    _ if buffer.network_byte_order_flag() => None,
                    $($kind if buffer.nested_flag() && !<$codec as Codec<$type>>::NESTED => None,
                    $kind => <$codec as Codec<$type>>::read(buffer.value())?.map(Self::$variant),)*
                    _ => None,
                };
                match value {
                    Some(value) => Ok(value),
                    None => netlink_packet_core::DefaultNla::parse(buffer).map(Self::Other),
                }
            }
        }
    };
}
pub(super) use attributes;
