//! The lower bound: the kernel's time for the same netlink messages, built in advance.

use std::{
    io::ErrorKind,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use netlink_batch::Protocol;
use netlink_sys::{Socket, SocketAddr, protocols};

pub(crate) type Datagram = (Protocol, Vec<u8>);

/// Sends the datagrams unchanged and discards the replies. Returns the time for sending and receiving.
pub(crate) fn replay(datagrams: &[Datagram]) -> Result<Duration> {
    let route = open(protocols::NETLINK_ROUTE)?;
    let netfilter = open(protocols::NETLINK_NETFILTER)?;
    let generic = open(protocols::NETLINK_GENERIC)?;
    let mut replies = Vec::with_capacity(128 << 10);
    let start = Instant::now();
    for (protocol, bytes) in datagrams {
        let socket = match protocol {
            Protocol::Route => &route,
            Protocol::Netfilter => &netfilter,
            Protocol::Generic => &generic,
            other => bail!("the engine sends to no {other:?}"),
        };
        socket.send(bytes, 0)?;
        // While the kernel dumps, each read of one part makes it queue the next part.
        loop {
            replies.clear();
            match socket.recv(&mut replies, 0) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(start.elapsed())
}

fn open(protocol: isize) -> Result<Socket> {
    let mut socket = Socket::new(protocol)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.set_non_blocking(true)?;
    socket.set_cap_ack(true)?;
    rustix::net::sockopt::set_socket_send_buffer_size_force(&socket, 8 << 20)?;
    rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, 8 << 20)?;
    Ok(socket)
}
