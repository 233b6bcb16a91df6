//! Counters of virtual servers, for metrics.

use ipvs_netlink::{Client, Error, Stats};

use super::unavailable;
use crate::{kernel::KernelUnavailable, model::VirtualServerKey};

/// Reads the counters of virtual servers over a separate socket. Any thread can use it while another thread owns the
/// [`LinuxKernel`](super::LinuxKernel).
///
/// A list of IPVS can lack entries if IPVS changes while the list is read. A query by key cannot: the kernel looks up
/// one virtual server, under the lock that each write takes.
pub struct TrafficReader(Client);

impl TrafficReader {
    /// Opens the socket in the network namespace of the calling thread.
    ///
    /// # Errors
    ///
    /// If the kernel has no IPVS or gives no socket.
    pub fn open() -> Result<Self, KernelUnavailable> {
        Client::open().map(Self).map_err(unavailable("IPVS"))
    }

    /// Reads the counters of those of these virtual servers that exist, with one query each.
    ///
    /// # Errors
    ///
    /// If IPVS cannot be read.
    pub fn read(&mut self, keys: &[VirtualServerKey]) -> Result<Vec<(VirtualServerKey, Stats)>, KernelUnavailable> {
        self.query(keys).map_err(unavailable("IPVS"))
    }

    fn query(&mut self, keys: &[VirtualServerKey]) -> Result<Vec<(VirtualServerKey, Stats)>, Error> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        // If the module was unloaded, the kernel answers queries with the old family number as if no virtual server
        // existed.
        self.0.refresh()?;
        let mut counters = Vec::with_capacity(keys.len());
        for key in keys {
            counters.extend(self.0.service((*key).into())?.map(|entry| (*key, entry.stats)));
        }
        Ok(counters)
    }
}
