use netlink_packet_core::{DecodeError, Emitable, ParseableParametrized};
use netlink_packet_generic::{GenlFamily, GenlHeader};

use super::{
    DaemonAttribute, DestinationAttribute, InfoAttribute, ServiceAttribute,
    codec::{self, Codec, Native, Nest, attributes},
};

/// One message of the IPVS family, in either direction.
///
/// The kernel answers with the command that sets the requested object: `NewService` to `GetService`, `SetConfig` to
/// `GetConfig`, `SetInfo` to `GetInfo`.
///
/// # Panics
///
/// An attribute of 64 KiB or more cannot be encoded: its length field has 16 bits. This crate neither builds nor
/// decodes such attributes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The command of the request or of the answer.
    pub command: Command,
    /// The attributes of the command.
    pub attributes: Attributes,
}

/// The attributes of a [`Message`]; [`Command::SetInfo`] numbers them differently.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attributes {
    /// Of every command except [`Command::SetInfo`].
    Command(Vec<CommandAttribute>),
    /// Of [`Command::SetInfo`].
    Info(Vec<InfoAttribute>),
}

impl Message {
    /// A message without attributes.
    pub fn empty(command: Command) -> Self {
        Self::new(command, Vec::new())
    }

    pub(crate) fn new(command: Command, attributes: Vec<CommandAttribute>) -> Self {
        Self { command, attributes: Attributes::Command(attributes) }
    }

    /// Decodes the bytes behind the generic-netlink header.
    ///
    /// # Errors
    ///
    /// If the lengths of the attributes contradict each other. Values are not checked.
    pub fn parse(command: Command, bytes: &[u8]) -> Result<Self, DecodeError> {
        let attributes = match command {
            Command::SetInfo => Attributes::Info(codec::parse(bytes)?),
            _ => Attributes::Command(codec::parse(bytes)?),
        };
        Ok(Self { command, attributes })
    }

    /// Appends the generic-netlink header and the attributes. It is faster than the traits, and fits
    /// `netlink_batch::Batch::push_with`.
    pub fn append_to(&self, out: &mut Vec<u8>) {
        self.command.append_header(out);
        self.append_attributes(out);
    }

    fn append_attributes(&self, out: &mut Vec<u8>) {
        match &self.attributes {
            Attributes::Command(attributes) => codec::append(attributes, out),
            Attributes::Info(attributes) => codec::append(attributes, out),
        }
    }

    /// Empty for [`Command::SetInfo`].
    pub(crate) fn command_attributes(&self) -> &[CommandAttribute] {
        match &self.attributes {
            Attributes::Command(attributes) => attributes,
            Attributes::Info(_) => &[],
        }
    }
}

impl Emitable for Message {
    fn buffer_len(&self) -> usize {
        let mut bytes = Vec::new();
        self.append_attributes(&mut bytes);
        bytes.len()
    }

    fn emit(&self, buffer: &mut [u8]) {
        let mut bytes = Vec::new();
        self.append_attributes(&mut bytes);
        buffer[..bytes.len()].copy_from_slice(&bytes);
    }
}

impl ParseableParametrized<[u8], GenlHeader> for Message {
    fn parse_with_param(bytes: &[u8], header: GenlHeader) -> Result<Self, DecodeError> {
        Self::parse(Command::from_number(header.cmd), bytes)
    }
}

impl GenlFamily for Message {
    fn family_name() -> &'static str {
        "IPVS"
    }

    fn command(&self) -> u8 {
        self.command.number()
    }

    fn version(&self) -> u8 {
        VERSION
    }
}

/// `IPVS_GENL_VERSION`.
const VERSION: u8 = 1;

impl Command {
    pub(crate) fn append_header(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[self.number(), VERSION, 0, 0]);
    }
}

macro_rules! commands {
    ($($(#[$doc:meta])* $name:ident = $number:literal,)*) => {
        /// The command of a message (`IPVS_CMD_*`).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Command {
            $($(#[$doc])* $name,)*
            /// A command that this version does not know.
            Other(u8),
        }

        impl Command {
            /// The kernel's number.
            pub const fn number(self) -> u8 {
                match self {
                    $(Self::$name => $number,)*
                    Self::Other(number) => number,
                }
            }

            /// The command with this number.
            pub const fn from_number(number: u8) -> Self {
                match number {
                    $($number => Self::$name,)*
                    other => Self::Other(other),
                }
            }
        }
    };
}

commands! {
    /// Add a virtual server; also the answer to [`Command::GetService`].
    NewService = 1,
    /// Change a virtual server.
    SetService = 2,
    /// Delete a virtual server with its destinations.
    DelService = 3,
    /// Read one virtual server, or list all.
    GetService = 4,
    /// Add a destination; also the answer to [`Command::GetDestination`].
    NewDestination = 5,
    /// Change a destination.
    SetDestination = 6,
    /// Delete a destination.
    DelDestination = 7,
    /// List the destinations of a virtual server.
    GetDestination = 8,
    /// Start a synchronisation daemon; also the answer to [`Command::GetDaemon`].
    NewDaemon = 9,
    /// Stop a synchronisation daemon.
    DelDaemon = 10,
    /// List the synchronisation daemons.
    GetDaemon = 11,
    /// Set timeouts; also the answer to [`Command::GetConfig`].
    SetConfig = 12,
    /// Read the timeouts.
    GetConfig = 13,
    /// The answer to [`Command::GetInfo`].
    SetInfo = 14,
    /// Read the version and the size of the connection table.
    GetInfo = 15,
    /// Set the counters of one virtual server or of all to zero.
    Zero = 16,
    /// Delete all virtual servers.
    Flush = 17,
}

impl CommandAttribute {
    /// `IPVS_CMD_ATTR_SERVICE`.
    pub(crate) const SERVICE: u16 = 1;
    /// `IPVS_CMD_ATTR_DEST`.
    pub(crate) const DESTINATION: u16 = 2;
}

attributes! {
    /// The outermost attributes of a message (`IPVS_CMD_ATTR_*`).
    CommandAttribute {
        /// A virtual server.
        Service(Vec<ServiceAttribute>) = 1 as Nest,
        /// A destination.
        Destination(Vec<DestinationAttribute>) = 2 as Nest,
        /// A synchronisation daemon.
        Daemon(Vec<DaemonAttribute>) = 3 as Nest,
        /// Timeout of established TCP connections, seconds.
        TimeoutTcp(u32) = 4 as Native,
        /// Timeout of TCP connections after a FIN, seconds.
        TimeoutTcpFin(u32) = 5 as Native,
        /// Timeout of UDP connections, seconds.
        TimeoutUdp(u32) = 6 as Native,
    }
}
