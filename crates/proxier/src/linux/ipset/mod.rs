//! ipset over netlink (`linux/netfilter/ipset/ip_set.h`), limited to the needs of a takeover from kube-proxy: list,
//! flush and destroy. kube-ipvs makes no sets.

mod reply;
mod request;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, path::Path};

use netlink_batch::{Batch, Error, Protocol, Socket};

use crate::takeover::Entry;
use reply::Part;
use request::Command;

/// `EINVAL`: the kernel does not have the subsystem and cannot load it.
const NO_SUBSYSTEM: i32 = 22;
/// `IPSET_ERR_BUSY`: rules still refer to the set.
const BUSY: i32 = 4100;

/// Lists the kernel modules that are loaded or built in.
const MODULES: &str = "/sys/module";

/// Whether there can be ipsets. If `modules` is not readable, there can be.
fn may_exist(modules: &Path) -> bool {
    modules.join("ip_set").exists() || !modules.exists()
}

pub(super) struct IpSets {
    socket: Socket,
}

impl IpSets {
    pub(super) fn open() -> Result<Self, Error> {
        Ok(Self { socket: Socket::open(Protocol::Netfilter)? })
    }

    /// The number of entries of each set, by name. Empty if the kernel has no ipsets or has not loaded their module. A
    /// request would load that module on nodes that never had ipsets.
    pub(super) fn sizes(&mut self) -> Result<BTreeMap<String, u32>, Error> {
        if !may_exist(Path::new(MODULES)) {
            return Ok(BTreeMap::new());
        }
        let headers = self.list(Command::ListHeaders)?;
        Ok(headers.into_iter().map(|part| (part.set, part.size.unwrap_or_default())).collect())
    }

    /// The entries of a set; empty if it does not exist.
    pub(super) fn entries(&mut self, set: &str) -> Result<Vec<Entry>, Error> {
        let parts = self.list(Command::List(set.into()))?;
        Ok(parts.into_iter().flat_map(|part| part.entries).collect())
    }

    pub(super) fn flush(&mut self, sets: &[String]) -> Result<(), Error> {
        match self.execute(sets, Command::Flush)?.into_iter().next() {
            Some((_, error)) => Err(error.into()),
            None => Ok(()),
        }
    }

    /// Destroys sets in this order. Returns those that are in use.
    pub(super) fn destroy(&mut self, sets: &[String]) -> Result<Vec<String>, Error> {
        let mut busy = Vec::new();
        for (set, error) in self.execute(sets, Command::Destroy)? {
            match error.errno() {
                BUSY => busy.push(set),
                _ => return Err(error.into()),
            }
        }
        Ok(busy)
    }

    /// Sends a command for each set, and returns the failures. A set that does not exist is no failure.
    fn execute(
        &mut self,
        sets: &[String],
        command: fn(String) -> Command,
    ) -> Result<Vec<(String, netlink_batch::KernelError)>, Error> {
        let mut batch = Batch::new();
        for set in sets {
            let command = command(set.clone());
            batch.push_with(command.message_type(), 0, |out| out.extend(command.bytes()));
        }
        let failures = self.socket.execute(batch)?.into_iter();
        let rejected = failures.filter(|failure| !failure.error.is_not_found());
        Ok(rejected.map(|failure| (sets[failure.request].clone(), failure.error)).collect())
    }

    fn list(&mut self, command: Command) -> Result<Vec<Part>, Error> {
        match self.socket.dump_with(command.message_type(), &command.bytes(), reply::part) {
            Err(Error::Rejected(error)) if error.is_not_found() || error.errno() == NO_SUBSYSTEM => Ok(Vec::new()),
            outcome => outcome,
        }
    }
}
