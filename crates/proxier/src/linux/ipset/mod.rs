//! ipset over netlink (`linux/netfilter/ipset/ip_set.h`), as far as a takeover from kube-proxy needs it: which sets
//! there are, what they hold, and that they go. We make none.

mod reply;
mod request;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, path::Path};

use netlink_batch::{Batch, Error, Protocol, Socket};

use crate::takeover::Entry;
use reply::Part;
use request::Command;

/// What the kernel answers for a subsystem that it does not have and cannot load.
const NO_SUBSYSTEM: i32 = 22;
/// `IPSET_ERR_BUSY`: rules still look things up in it.
const BUSY: i32 = 4100;

/// Where the kernel shows which of its modules are loaded, or built in.
const MODULES: &str = "/sys/module";

/// Whether there can be any ipsets. If kube-ipvs cannot see which modules there are, there can.
fn may_exist(modules: &Path) -> bool {
    modules.join("ip_set").exists() || !modules.exists()
}

/// The ipsets of one network namespace.
pub(super) struct IpSets {
    socket: Socket,
}

impl IpSets {
    pub(super) fn open() -> Result<Self, Error> {
        Ok(Self { socket: Socket::open(Protocol::Netfilter)? })
    }

    /// The number of entries of each set, by name. The result is empty if the kernel has no ipsets at all, or has not
    /// loaded their module. A request would make the kernel load it, on every node that never had any ipsets.
    pub(super) fn sizes(&mut self) -> Result<BTreeMap<String, u32>, Error> {
        if !may_exist(Path::new(MODULES)) {
            return Ok(BTreeMap::new());
        }
        let headers = self.list(Command::ListHeaders)?;
        Ok(headers.into_iter().map(|part| (part.set, part.size.unwrap_or_default())).collect())
    }

    /// The entries of a set; none if there is no such set.
    pub(super) fn entries(&mut self, set: &str) -> Result<Vec<Entry>, Error> {
        let parts = self.list(Command::List(set.into()))?;
        Ok(parts.into_iter().flat_map(|part| part.entries).collect())
    }

    /// Empties sets, in this order.
    pub(super) fn flush(&mut self, sets: &[String]) -> Result<(), Error> {
        match self.execute(sets, Command::Flush)?.into_iter().next() {
            Some((_, error)) => Err(error.into()),
            None => Ok(()),
        }
    }

    /// Removes sets, in this order. Returns those that are in use.
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

    /// Carries out a command for each set. Returns what failed; that a set is gone is no failure.
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
        let refused = failures.filter(|failure| !failure.error.is_not_found());
        Ok(refused.map(|failure| (sets[failure.request].clone(), failure.error)).collect())
    }

    fn list(&mut self, command: Command) -> Result<Vec<Part>, Error> {
        match self.socket.dump_with(command.message_type(), &command.bytes(), reply::part) {
            Err(Error::Rejected(error)) if error.is_not_found() || error.errno() == NO_SUBSYSTEM => Ok(Vec::new()),
            outcome => outcome,
        }
    }
}
