//! Conntrack: flows that are to be forgotten.

use netlink_batch::{Error, Protocol, Socket};

use crate::plan::Change;

/// The kernel's connection tracking.
pub(super) struct Conntrack {
    socket: Socket,
}

impl Conntrack {
    pub(super) fn open() -> Result<Self, Error> {
        Ok(Self { socket: Socket::open(Protocol::Netfilter)? })
    }

    /// Forgets flows.
    pub(super) fn apply(&mut self, changes: &[(usize, &Change)]) -> Result<(), Error> {
        let _ = (&mut self.socket, changes);
        Ok(())
    }
}
