use std::time::Duration;

use netlink_packet_core::NetlinkHeader;
use rustix::net::sockopt;

use crate::{
    Error, Protocol,
    reply::{Reply, read_datagram, receive},
    socket::{DATAGRAM, RECEIVE_BUFFER},
};

/// The kernel treats a timeout of 0 as no timeout.
const SHORTEST: Duration = Duration::from_millis(1);

/// A socket that receives the kernel's notifications to multicast groups.
///
/// ```no_run
/// use netlink_batch::{Listener, Protocol, attribute::array};
///
/// // Of `linux/rtnetlink.h`. A group is a number, not a bit of a mask.
/// const RTNLGRP_LINK: u32 = 1;
/// const RTM_NEWLINK: u16 = 16;
///
/// let mut links = Listener::open(Protocol::Route, &[RTNLGRP_LINK])?;
/// loop {
///     links.wait(None, |header, payload| {
///         let event = if header.message_type == RTM_NEWLINK { "is new or has changed" } else { "is gone" };
///         // The index follows four bytes of a `struct ifinfomsg`.
///         let index = payload.get(4..8).and_then(array).map(i32::from_ne_bytes);
///         println!("link {index:?} {event}");
///     })?;
/// }
/// # Ok::<(), netlink_batch::Error>(())
/// ```
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
    /// [`Error::Open`], for example if the kernel lacks the protocol or a group.
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

    /// Waits for the next datagram, and calls `hear` with the header and the payload of each notification in it. The
    /// header has the port of the socket whose request caused the notification: [`Socket::port`](crate::Socket::port).
    /// If none comes within `timeout`, that is no error. Without a timeout, it waits forever.
    ///
    /// # Errors
    ///
    /// [`Error::Overrun`] if notifications were lost, [`Error::Decode`] if one is malformed, [`Error::Receive`].
    pub fn wait(
        &mut self,
        timeout: Option<Duration>,
        mut hear: impl FnMut(&NetlinkHeader, &[u8]),
    ) -> Result<(), Error> {
        let timeout = timeout.map(|timeout| timeout.max(SHORTEST));
        sockopt::set_socket_timeout(&self.inner, sockopt::Timeout::Recv, timeout)
            .map_err(|error| Error::Receive(error.into()))?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listener_wait_without_notifications_ends_at_the_timeout() {
        let mut listener = Listener::open(Protocol::Route, &[]).unwrap();
        for timeout in [Duration::ZERO, Duration::from_millis(2)] {
            let mut count = 0;
            listener.wait(Some(timeout), |_, _| count += 1).unwrap();
            assert_eq!(count, 0);
        }
    }
}
