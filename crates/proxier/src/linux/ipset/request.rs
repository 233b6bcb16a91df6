use std::convert::Infallible;

use netlink_packet_core::{NetlinkDeserializable, NetlinkHeader, NetlinkSerializable};

use super::reply::{self, Part};

/// `NFNL_SUBSYS_IPSET`.
const SUBSYSTEM: u8 = 6;
/// The oldest protocol (`IPSET_PROTOCOL_MIN`), which every kernel speaks. Nothing that came later is needed.
const PROTOCOL: u8 = 6;
/// `struct nfgenmsg`: any family, version 0, no resource.
const HEADER: [u8; 4] = [0; 4];
/// `IPSET_FLAG_LIST_HEADER`: no entries.
const LIST_HEADER: u32 = 1 << 2;

/// The attributes of a command (`IPSET_ATTR_*`).
pub(super) mod attribute {
    pub(in super::super) const PROTOCOL: u16 = 1;
    pub(in super::super) const SET_NAME: u16 = 2;
    pub(in super::super) const FLAGS: u16 = 6;
    pub(in super::super) const DATA: u16 = 7;
    pub(in super::super) const ENTRIES: u16 = 8;
}

/// `NLA_F_NET_BYTEORDER`, which the kernel wants to see on numbers.
const NET_BYTE_ORDER: u16 = 1 << 14;

/// What the kernel is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Command {
    /// All sets, without their entries.
    ListHeaders,
    /// One set with its entries.
    List(String),
    /// Takes all entries out of a set.
    Flush(String),
    /// Removes a set.
    Destroy(String),
}

impl Command {
    /// Its number (`IPSET_CMD_*`).
    fn number(&self) -> u8 {
        match self {
            Self::Destroy(_) => 3,
            Self::Flush(_) => 4,
            Self::ListHeaders | Self::List(_) => LIST,
        }
    }

    /// The message behind the header of netlink.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = HEADER.to_vec();
        push(&mut bytes, attribute::PROTOCOL, &[PROTOCOL]);
        match self {
            Self::ListHeaders => {
                push(&mut bytes, attribute::FLAGS | NET_BYTE_ORDER, &LIST_HEADER.to_be_bytes());
            }
            Self::List(set) | Self::Flush(set) | Self::Destroy(set) => {
                push(&mut bytes, attribute::SET_NAME, &[set.as_bytes(), &[0]].concat());
            }
        }
        bytes
    }
}

/// `IPSET_CMD_LIST`.
const LIST: u8 = 7;

/// Appends an attribute. A name has at most 31 bytes, and nothing else is longer.
fn push(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = 4 + value.len();
    bytes.extend((length as u16).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// A request, or a part of the answer to a list.
pub(super) enum Message {
    Request(Command),
    Answer(Option<Part>),
}

impl Message {
    pub(super) fn part(self) -> Option<Part> {
        match self {
            Self::Answer(part) => part,
            Self::Request(_) => None,
        }
    }
}

impl NetlinkSerializable for Message {
    fn message_type(&self) -> u16 {
        let command = match self {
            Self::Request(command) => command.number(),
            Self::Answer(_) => LIST,
        };
        u16::from_be_bytes([SUBSYSTEM, command])
    }

    fn buffer_len(&self) -> usize {
        match self {
            Self::Request(command) => command.bytes().len(),
            Self::Answer(_) => 0,
        }
    }

    fn serialize(&self, buffer: &mut [u8]) {
        if let Self::Request(command) = self {
            buffer.copy_from_slice(&command.bytes());
        }
    }
}

impl NetlinkDeserializable for Message {
    type Error = Infallible;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, Infallible> {
        let is_list = header.message_type == u16::from_be_bytes([SUBSYSTEM, LIST]);
        let attributes = payload.get(HEADER.len()..).filter(|_| is_list);
        Ok(Self::Answer(attributes.and_then(reply::part)))
    }
}
