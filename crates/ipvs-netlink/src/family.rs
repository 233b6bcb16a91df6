//! Which number the generic-netlink family "IPVS" has in the running kernel.

use netlink_batch::Socket;
use netlink_packet_core::{
    DecodeError, DefaultNla, Emitable, NetlinkDeserializable, NetlinkHeader, NetlinkSerializable, Nla,
    NlasIterator, Parseable,
};
use netlink_packet_generic::{GenlFamily, GenlHeader};

use crate::{Error, message::Message};

/// The controller is the one family with a fixed number (`GENL_ID_CTRL`).
const CONTROLLER: u16 = 16;
const GET_FAMILY: GenlHeader = GenlHeader { cmd: 3, version: 2 };
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;
const HEADER: usize = 4;

/// A message of the controller. Its attributes stay undecoded, as newer kernels add some.
#[derive(Debug)]
struct Controller(Vec<DefaultNla>);

impl NetlinkSerializable for Controller {
    fn message_type(&self) -> u16 {
        CONTROLLER
    }

    fn buffer_len(&self) -> usize {
        HEADER + self.0.as_slice().buffer_len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        let (header, attributes) = buffer.split_at_mut(HEADER);
        GET_FAMILY.emit(header);
        self.0.as_slice().emit(attributes);
    }
}

impl NetlinkDeserializable for Controller {
    type Error = DecodeError;

    fn deserialize(_: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        let attributes = payload.get(HEADER..).unwrap_or_default();
        NlasIterator::new(attributes)
            .map(|attribute| DefaultNla::parse(&attribute?))
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

/// Asks the kernel. If it has no such family it tries to load a module of that alias first, whatever the rights of
/// the caller.
pub(crate) fn resolve(socket: &mut Socket) -> Result<u16, Error> {
    let name = [Message::family_name().as_bytes(), &[0]].concat();
    let answers = match socket.query(Controller(vec![DefaultNla::new(FAMILY_NAME, name)])) {
        Err(error) if error.kernel().is_some_and(netlink_batch::KernelError::is_not_found) => {
            return Err(Error::NoIpvs);
        }
        answers => answers.map_err(|error| Error::Read { what: "look up the IPVS family".into(), error })?,
    };
    let number = |attribute: &DefaultNla| {
        let mut value = [0; 2];
        (attribute.kind() == FAMILY_ID && attribute.value_len() == value.len()).then(|| {
            attribute.emit_value(&mut value);
            u16::from_ne_bytes(value)
        })
    };
    answers.iter().flat_map(|Controller(attributes)| attributes).find_map(number).ok_or(Error::NoIpvs)
}
