//! Receives the kernel's datagrams and decodes the messages in them.

use std::{convert::Infallible, io};

use netlink_packet_core::{NetlinkDeserializable, NetlinkHeader, NetlinkMessage, NetlinkPayload};

use crate::{Error, KernelError};

/// `None` if the queue is empty.
pub(crate) fn receive(socket: &netlink_sys::Socket, incoming: &mut Vec<u8>, flags: i32) -> Result<Option<()>, Error> {
    incoming.clear();
    match retry_interrupted(|| socket.recv(incoming, flags | TRUNCATED)) {
        Ok(size) if size > incoming.len() => {
            Err(Error::Decode(format!("a reply of {size} bytes is larger than the receive buffer")))
        }
        Ok(_) => Ok(Some(())),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NOBUFS.raw_os_error()) => Err(Error::Overrun),
        Err(error) => Err(Error::Receive(error)),
    }
}

const TRUNCATED: i32 = rustix::net::RecvFlags::TRUNC.bits() as i32;

pub(crate) enum Reply<'a> {
    Message(&'a [u8]),
    /// An acknowledgement is an error with errno 0.
    Error(KernelError),
    End,
}

/// A message that is handed on as bytes.
struct Undecoded;

impl NetlinkDeserializable for Undecoded {
    type Error = Infallible;
    fn deserialize(_: &NetlinkHeader, _: &[u8]) -> Result<Self, Infallible> {
        Ok(Self)
    }
}

/// Calls `handle` with the header and the reply of every message of a datagram. It reads all messages, and returns the
/// first error.
pub(crate) fn read_datagram(
    mut bytes: &[u8],
    mut handle: impl FnMut(&NetlinkHeader, Reply<'_>) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut outcome = Ok(());
    while !bytes.is_empty() {
        let length = bytes.first_chunk().map_or(0, |length| u32::from_ne_bytes(*length) as usize);
        let Some(body) = bytes.get(16..length) else {
            return outcome.and(Err(Error::Decode(format!(
                "a message has the invalid length {length}: the datagram has {} bytes left",
                bytes.len()
            ))));
        };
        let message = NetlinkMessage::<Undecoded>::deserialize(bytes).map_err(Error::from);
        let handled = message.and_then(|NetlinkMessage { header, payload, .. }| match payload {
            NetlinkPayload::InnerMessage(Undecoded) => handle(&header, Reply::Message(body)),
            NetlinkPayload::Error(error) => {
                let error = KernelError::parse(error.raw_code(), header.flags, &error.header);
                handle(&header, Reply::Error(error))
            }
            NetlinkPayload::Done(done) if done.code != 0 => {
                let mut error = KernelError::from_errno(done.code.saturating_abs());
                error.read_attributes(&done.extended_ack);
                handle(&header, Reply::Error(error))
            }
            NetlinkPayload::Done(_) => handle(&header, Reply::End),
            _ => Ok(()),
        });
        outcome = outcome.and(handled);
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    outcome
}

/// Repeats a system call that a signal interrupted.
pub(crate) fn retry_interrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
