//! Looks up the number of the generic-netlink family "IPVS" in the running kernel.

use netlink_batch::{
    Socket,
    attribute::{array, find, put_text},
};
use netlink_packet_core::DecodeError;
use netlink_packet_generic::GenlFamily;

use crate::{Error, message::Message};

/// The controller has a fixed number (`GENL_ID_CTRL`).
const CONTROLLER: u16 = 16;
/// `struct genlmsghdr`: `CTRL_CMD_GETFAMILY`, version 2.
const GET_FAMILY: [u8; 4] = [3, 2, 0, 0];
/// `CTRL_ATTR_FAMILY_ID` and `CTRL_ATTR_FAMILY_NAME`.
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;

const NO_NUMBER: &str = "the kernel's answer has no number of the family";

/// If the kernel lacks the family, it first tries to load a module of that alias, regardless of the caller's rights.
pub(crate) fn resolve(socket: &mut Socket) -> Result<u16, Error> {
    let mut question = GET_FAMILY.to_vec();
    put_text(&mut question, FAMILY_NAME, Message::family_name());
    let number = |_, answer: &[u8]| {
        let attributes = answer.get(GET_FAMILY.len()..)?;
        find(attributes, FAMILY_ID).and_then(array).map(u16::from_ne_bytes)
    };
    match socket.query_with(CONTROLLER, &question, number) {
        Ok(numbers) if numbers.is_empty() => Err(Error::NoIpvs),
        Ok(numbers) => numbers.into_iter().flatten().next().ok_or_else(|| unreadable(DecodeError::from(NO_NUMBER).into())),
        Err(error) if error.kernel().is_some_and(netlink_batch::KernelError::is_not_found) => Err(Error::NoIpvs),
        Err(error) => Err(unreadable(error)),
    }
}

fn unreadable(error: netlink_batch::Error) -> Error {
    Error::Read { what: "look up the IPVS family".into(), error }
}
