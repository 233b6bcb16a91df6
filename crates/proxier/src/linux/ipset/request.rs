use netlink_batch::attribute::{put, put_text};
use netlink_packet_core::NLA_F_NET_BYTEORDER;

use crate::linux::netfilter::{self, IPSET, message_type};

/// The oldest protocol version (`IPSET_PROTOCOL_MIN`), which every kernel supports. kube-ipvs needs nothing newer.
const PROTOCOL: u8 = 6;
/// `IPSET_FLAG_LIST_HEADER`: list without entries.
const LIST_HEADER: u32 = 1 << 2;

/// Attributes of a command (`IPSET_ATTR_*`).
pub(super) mod attribute {
    pub(in super::super) const PROTOCOL: u16 = 1;
    pub(in super::super) const SET_NAME: u16 = 2;
    pub(in super::super) const FLAGS: u16 = 6;
    pub(in super::super) const DATA: u16 = 7;
    pub(in super::super) const ENTRIES: u16 = 8;
}

/// The message type of a list and of its answer (`IPSET_CMD_LIST`).
pub(super) const LIST: u16 = message_type(IPSET, 7);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Command {
    /// Lists all sets without their entries.
    ListHeaders,
    List(String),
    Flush(String),
    Destroy(String),
}

impl Command {
    /// `IPSET_CMD_*`.
    pub(super) fn message_type(&self) -> u16 {
        match self {
            Self::Destroy(_) => message_type(IPSET, 3),
            Self::Flush(_) => message_type(IPSET, 4),
            Self::ListHeaders | Self::List(_) => LIST,
        }
    }

    /// The payload. ipset requires the flag of network byte order on numbers.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = netfilter::header(0).to_vec();
        put(&mut bytes, attribute::PROTOCOL, [PROTOCOL]);
        match self {
            Self::ListHeaders => {
                put(&mut bytes, attribute::FLAGS | NLA_F_NET_BYTEORDER, LIST_HEADER.to_be_bytes());
            }
            Self::List(set) | Self::Flush(set) | Self::Destroy(set) => {
                put_text(&mut bytes, attribute::SET_NAME, set);
            }
        }
        bytes
    }
}
