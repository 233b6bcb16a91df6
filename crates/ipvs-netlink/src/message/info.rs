use netlink_packet_core::DecodeError;

use super::{
    Attributes, Message,
    codec::{Codec, Native, attributes},
    missing,
};
use crate::{Info, Version};

attributes! {
    /// The version of IPVS and the size of its connection table (`IPVS_INFO_ATTR_*`).
    InfoAttribute {
        /// The version, one byte a number: 0x010201 is 1.2.1.
        Version(u32) = 1 as Native,
        /// How many rows the connection hash table has.
        ConnectionTableSize(u32) = 2 as Native,
    }
}

/// Reads the answer to `GetInfo`.
impl TryFrom<&Message> for Info {
    type Error = DecodeError;

    fn try_from(message: &Message) -> Result<Self, DecodeError> {
        let Attributes::Info(attributes) = &message.attributes else {
            return Err(missing("information on IPVS"));
        };
        let (mut version, mut connection_table_size) = (None, None);
        for attribute in attributes {
            match attribute {
                InfoAttribute::Version(code) => version = Some(Version::from_code(*code)),
                InfoAttribute::ConnectionTableSize(size) => connection_table_size = Some(*size),
                InfoAttribute::Other(_) => {}
            }
        }
        Ok(Self {
            version: version.ok_or_else(|| missing("the version of IPVS"))?,
            connection_table_size: connection_table_size.ok_or_else(|| missing("the size of the connection table"))?,
        })
    }
}
