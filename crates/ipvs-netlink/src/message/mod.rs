//! Encodes and decodes messages, one file for each kind of message, without sockets.
//!
//! Most programs need only [`Client`](crate::Client). A [`Message`] is the payload behind the netlink header, in the
//! terms of `linux/ip_vs.h`. It implements the traits of [`netlink_packet_generic`], so every netlink transport can
//! carry it.
//!
//! Decoding loses nothing: an attribute that is unknown or has an unexpected shape stays unchanged in an `Other`
//! variant. Encoding a decoded message gives the same bytes, except for padding and the flag `NLA_F_NESTED`. IPVS
//! ignores that flag and does not set it in replies.
//!
//! ```
//! use ipvs_netlink::message::{Attributes, Command, CommandAttribute, Message};
//! use netlink_packet_core::Emitable;
//!
//! let message = Message {
//!     command: Command::SetConfig,
//!     attributes: Attributes::Command(vec![CommandAttribute::TimeoutTcp(900)]),
//! };
//! let mut bytes = vec![0; message.buffer_len()];
//! message.emit(&mut bytes);
//! assert_eq!(bytes.len(), 8);
//! assert_eq!(Message::parse(Command::SetConfig, &bytes)?, message);
//! # Ok::<(), netlink_packet_core::DecodeError>(())
//! ```

mod codec;
mod command;
mod daemon;
mod destination;
mod info;
mod service;
mod stats;
mod timeouts;

pub(crate) use codec::Attribute;
pub use command::{Attributes, Command, CommandAttribute, Message};
pub use daemon::DaemonAttribute;
pub use destination::DestinationAttribute;
pub use info::InfoAttribute;
pub use service::{FlagsAndMask, ServiceAttribute};
pub use stats::{Stats64Attribute, StatsAttribute};

use netlink_packet_core::DecodeError;

/// The error for a reply without an attribute that the kernel always sends.
fn missing(attribute: &str) -> DecodeError {
    DecodeError::from(format!("the kernel's reply lacks {attribute}"))
}

/// The 16 bytes of the kernel's `union nf_inet_addr`: IPv4 uses the first four.
fn address_to_wire(address: std::net::IpAddr) -> [u8; 16] {
    match address {
        std::net::IpAddr::V6(address) => address.octets(),
        std::net::IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        }
    }
}

fn address_from_wire(family: crate::Family, wire: [u8; 16]) -> std::net::IpAddr {
    match family {
        crate::Family::V4 => [wire[0], wire[1], wire[2], wire[3]].into(),
        crate::Family::V6 => wire.into(),
    }
}

fn family_from_wire(number: u16) -> Result<crate::Family, DecodeError> {
    crate::Family::from_number(number).ok_or_else(|| DecodeError::from(format!("address family {number}")))
}
