use netlink_packet_core::NetlinkHeader;
use rustix::net::sockopt;

use crate::{
    Error, Protocol,
    reply::{Reply, read_datagram, receive},
    socket::{DATAGRAM, RECEIVE_BUFFER},
};

/// A socket that receives the notices that the kernel sends to multicast groups.
pub struct Listener {
    // Never cloned: netlink_sys closes the descriptor once per clone.
    inner: netlink_sys::Socket,
    incoming: Vec<u8>,
}

impl Listener {
    /// Joins multicast groups (`RTNLGRP_*`, `NFNLGRP_*`) in the network namespace of the calling thread.
    ///
    /// # Errors
    ///
    /// [`Error::Open`], for example when the kernel lacks the protocol or a group.
    pub fn open(protocol: Protocol, groups: &[u32]) -> Result<Self, Error> {
        let mut inner = netlink_sys::Socket::new(protocol.number()).map_err(Error::Open)?;
        let mut join = || {
            inner.bind_auto()?;
            if sockopt::set_socket_recv_buffer_size_force(&inner, RECEIVE_BUFFER).is_err() {
                sockopt::set_socket_recv_buffer_size(&inner, RECEIVE_BUFFER)?;
            }
            groups.iter().try_for_each(|group| inner.add_membership(*group))
        };
        join().map_err(Error::Open)?;
        Ok(Self { inner, incoming: Vec::with_capacity(DATAGRAM) })
    }

    /// Waits for the next datagram and shows each notice in it to `hear`: its header and what stands behind that. The
    /// header says on whose request it was made: [`Socket::port`](crate::Socket::port).
    ///
    /// # Errors
    ///
    /// [`Error::Overrun`] where notices were lost, [`Error::Decode`] where one makes no sense, [`Error::Receive`].
    pub fn wait(&mut self, mut hear: impl FnMut(&NetlinkHeader, &[u8])) -> Result<(), Error> {
        if receive(&self.inner, &mut self.incoming, 0)?.is_none() {
            return Ok(());
        }
        read_datagram(&self.incoming, |header, reply| {
            if let Reply::Message(payload) = reply {
                hear(header, payload);
            }
            Ok(())
        })
    }
}
