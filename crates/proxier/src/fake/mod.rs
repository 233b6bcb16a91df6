//! An in-memory kernel, for the tests of this crate and of embedders.

mod copy;
mod errno;
mod fault;
mod nft;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    net::IpAddr,
    sync::Arc,
};

pub use copy::RecordCopy;
use errno::{EADDRNOTAVAIL, EEXIST, ENODEV, ENOENT, ESRCH, Errno, cause, is_done_already};
pub use fault::{Fault, MadeChange};
use fault::{Faults, KILLED};
use ipvs_netlink::{Scheduler, VirtualServer};
use litemap::LiteMap;

use crate::{
    cluster::EndpointAddress,
    kernel::{Cause, ConnectionCounts, Failure, Kernel, KernelUnavailable, Reason, Report, in_phases},
    model::VirtualServerKey,
    plan::{Change, Plan},
    set::Element,
    state::{State, VirtualServerState},
};

/// A [`Kernel`] that answers as Linux does. It interprets the answers as [`LinuxKernel`](crate::linux::LinuxKernel)
/// does. It starts without the device `kube-ipvs0` and without tables.
///
/// It has its own data model, and does not use the engine's code to predict the effect of a change. So a test can
/// compare [`state`](Self::state) with [`Engine::known`](crate::Engine::known), the engine's prediction.
///
/// ```
/// use proxier::{Config, Engine, fake::FakeKernel, model::Event};
/// use std::{collections::BTreeSet, time::Duration};
/// let mut engine = Engine::new(Config::new("node-1"), BTreeSet::new());
/// let mut kernel = FakeKernel::default();
/// let report = engine.sync(&mut kernel, Duration::ZERO);
/// assert!(report.plan.is_empty());
/// assert_eq!(engine.known(), Some(&kernel.state()));
/// ```
#[derive(Debug, Clone, Default)]
pub struct FakeKernel {
    /// The virtual servers. Change them to act as `ipvsadm`.
    pub virtual_servers: BTreeMap<VirtualServerKey, VirtualServerState>,
    /// The addresses on `kube-ipvs0`; `None` if the device does not exist. Change them to act as `ip`.
    pub addresses: Option<BTreeSet<IpAddr>>,
    /// The elements of the nftables sets, with their comments. `None` if the tables do not exist, as after `nft flush
    /// ruleset`. Change them to act as `nft`.
    pub elements: Option<BTreeMap<Element, Option<Arc<str>>>>,
    /// The number of connections of each real server; 0 for a real server without an entry.
    pub connections: BTreeMap<(VirtualServerKey, EndpointAddress), u64>,
    /// Rejects each change whose `Display` contains one of these texts.
    pub reject: Vec<String>,
    /// Fails each change whose `Display` contains one of these texts with [`Cause::Unknown`], and does not make it.
    pub unanswered: Vec<String>,
    /// Makes each change whose `Display` contains one of these texts, and fails it with [`Cause::Unknown`]: the answer
    /// is lost.
    pub unconfirmed: Vec<String>,
    /// Schedulers that this kernel does not have.
    pub missing_schedulers: Vec<Scheduler>,
    /// Faults in the next plan, each at the change with this number, modulo the number of changes.
    pub faults: Vec<(usize, Fault)>,
    /// Whether [`Fault::Kill`] has happened. Until it is reset, no change is made.
    pub is_killed: bool,
    /// Whether every read fails.
    pub unreadable: bool,
    /// The next [`read_state`](Kernel::read_state) omits each virtual server, real server and element whose removal
    /// prints one of these texts. Dumps of IPVS and of set elements are no snapshots. A virtual server that another
    /// source names is queried individually, and is not omitted.
    pub unlisted: Vec<String>,
    /// How often [`read_state`](Kernel::read_state) was called.
    pub reads: usize,
    /// How often [`correct_settings`](Kernel::correct_settings) was called.
    pub corrections: usize,
    /// Changes that asked for a state that the kernel already had. As with Linux, they succeed.
    pub repeated: Vec<Change>,
    /// All changes that were made, in order. `None`: the kernel does not record them.
    pub made: Option<Vec<MadeChange>>,
    /// The copy of the record of ownership. `None`: there is no copy.
    pub record_copy: Option<RecordCopy>,
}

impl Kernel for FakeKernel {
    fn prepare(&mut self) -> Result<(), KernelUnavailable> {
        self.addresses.get_or_insert_default();
        self.elements.get_or_insert_default();
        Ok(())
    }

    fn read_state(&mut self, believed: &State) -> Result<State, KernelUnavailable> {
        self.reads += 1;
        self.check_readable()?;
        let unlisted = std::mem::take(&mut self.unlisted);
        let mut state = self.list(&unlisted, believed);
        self.read_copy(&mut state);
        Ok(state)
    }

    fn correct_settings(&mut self) -> Result<(), KernelUnavailable> {
        self.corrections += 1;
        Ok(())
    }

    fn virtual_servers(
        &mut self,
        keys: &[VirtualServerKey],
    ) -> Result<BTreeMap<VirtualServerKey, VirtualServer>, KernelUnavailable> {
        self.check_readable()?;
        let found = |key: &VirtualServerKey| Some((*key, self.virtual_servers.get(key)?.config));
        Ok(keys.iter().filter_map(found).collect())
    }

    fn connections(&mut self, servers: &[VirtualServerKey]) -> Result<ConnectionCounts, KernelUnavailable> {
        self.check_readable()?;
        let counted = self.connections.iter().filter(|((key, _), _)| servers.contains(key));
        Ok(counted.map(|(at, count)| (*at, *count)).collect())
    }

    fn apply(&mut self, plan: &Plan) -> Report {
        let mut faults = Faults::default();
        if !plan.is_empty() {
            faults = Faults::new(std::mem::take(&mut self.faults), plan.changes().len());
        }
        in_phases(plan, |phase, changes| {
            self.is_killed |= faults.begin(phase, changes);
            self.apply_phase(changes, &mut faults)
        })
    }
}

impl FakeKernel {
    /// The whole state, as complete dumps show it.
    pub fn state(&self) -> State {
        self.list(&[], &State::default())
    }

    fn check_readable(&self) -> Result<(), KernelUnavailable> {
        match self.unreadable {
            true => Err(KernelUnavailable::new("the fake kernel", "it cannot be read")),
            false => Ok(()),
        }
    }

    /// Makes the changes of one phase. As with Linux, a failure stops no other change of its phase.
    fn apply_phase(&mut self, changes: &[(usize, &Change)], faults: &mut Faults) -> Vec<Failure> {
        let mut failures = Vec::new();
        if !self.is_killed {
            self.record_copy.iter_mut().for_each(|copy| copy.intend(changes.iter().map(|(_, change)| *change)));
        }
        for &(number, change) in changes {
            if let Err((cause, reason)) = self.make_under(faults, number, change) {
                failures.push(Failure { change: number, cause, reason });
            }
        }
        if !self.is_killed {
            self.confirm(changes, &failures);
        }
        failures
    }

    /// The state as incomplete dumps show it, with the believed virtual servers queried individually.
    fn list(&self, unlisted: &[String], believed: &State) -> State {
        let is_listed = |removal: Change| !unlisted.iter().any(|text| removal.to_string().contains(text));
        let mut state = State { bound_vips: self.addresses.clone().unwrap_or_default(), ..State::default() };
        for (&element, comment) in self.elements.iter().flatten() {
            if is_listed(Change::RemoveElement { element, with_server: false }) {
                nft::show(element, comment, &mut state);
            }
        }
        for (&key, server) in &self.virtual_servers {
            let is_expected = state.elements.contains_key(&key)
                || believed.virtual_servers.contains_key(&key)
                || believed.owned.contains(&key)
                || self.record_copy.as_ref().is_some_and(|copy| copy.servers.contains(&key));
            if is_expected || is_listed(Change::RemoveVirtualServer(key)) {
                let mut server = server.clone();
                server.real_servers.retain(|&address, _| is_listed(Change::RemoveRealServer { key, address }));
                state.virtual_servers.insert(key, server);
            }
        }
        state
    }

    fn make(&mut self, change: &Change) -> Result<(), (Cause, Reason)> {
        let named = |texts: &[String]| texts.iter().any(|text| change.to_string().contains(text));
        if self.is_killed {
            return Err((Cause::Unknown, KILLED.into()));
        }
        if named(&self.reject) && !self.has_server_of(change) {
            return Err((Cause::Rejected, "rejected by the test".into()));
        }
        if named(&self.unanswered) {
            return Err((Cause::Unknown, "no answer".into()));
        }
        let is_unconfirmed = named(&self.unconfirmed);
        let asked = self.ask(change);
        if asked == Ok(true) {
            self.note_made(change, false);
        }
        match asked {
            _ if is_unconfirmed => Err((Cause::Unknown, "its answer was lost".into())),
            Ok(true) => Ok(()),
            Ok(false) => {
                self.repeated.push(change.clone());
                Ok(())
            }
            Err(errno) if is_done_already(change, errno) => {
                self.repeated.push(change.clone());
                Ok(())
            }
            Err(errno) => Err((cause(change, errno), errno.into())),
        }
    }

    /// Answers as Linux does. `Ok(false)` if the change made no difference.
    fn ask(&mut self, change: &Change) -> Result<bool, Errno> {
        let missing = &self.missing_schedulers;
        let has_scheduler = |config: &VirtualServer| match missing.contains(&config.scheduler) {
            true => Err(ENOENT),
            false => Ok(()),
        };
        match change {
            Change::AddElement { element, comment, replace } => {
                let elements = self.elements.as_mut().ok_or(ENOENT)?;
                return nft::add(elements, *element, comment.clone(), *replace);
            }
            Change::RemoveElement { element, .. } => {
                nft::delete(self.elements.as_mut().ok_or(ENOENT)?, element)?;
            }
            Change::AddVirtualServer { key, config } => match self.virtual_servers.entry(*key) {
                Entry::Occupied(_) => return Err(EEXIST),
                Entry::Vacant(place) => {
                    has_scheduler(config)?;
                    place.insert(VirtualServerState { config: *config, real_servers: LiteMap::new() });
                }
            },
            Change::UpdateVirtualServer { key, config } => {
                let server = self.virtual_servers.get_mut(key).ok_or(ESRCH)?;
                has_scheduler(config)?;
                server.config = *config;
            }
            Change::RemoveVirtualServer(key) => drop(self.virtual_servers.remove(key).ok_or(ESRCH)?),
            Change::AddRealServer { key, address, destination } => {
                let existing = self.real_servers(key)?.try_insert(*address, *destination);
                if existing.is_some() {
                    return Err(EEXIST);
                }
            }
            Change::UpdateRealServer { key, address, destination } => {
                *self.real_servers(key)?.get_mut(address).ok_or(ENOENT)? = *destination;
            }
            Change::RemoveRealServer { key, address } => {
                self.real_servers(key)?.remove(address).ok_or(ENOENT)?;
            }
            Change::Bind(address) => match self.addresses.as_mut().ok_or(ENODEV)?.insert(*address) {
                true => {}
                false => return Err(EEXIST),
            },
            Change::Unbind(address) => match self.addresses.as_mut().ok_or(ENODEV)?.remove(address) {
                true => {}
                false => return Err(EADDRNOTAVAIL),
            },
            Change::DeleteFlows { .. } => {}
        }
        Ok(true)
    }

    fn real_servers(
        &mut self,
        key: &VirtualServerKey,
    ) -> Result<&mut LiteMap<EndpointAddress, ipvs_netlink::Destination>, Errno> {
        Ok(&mut self.virtual_servers.get_mut(key).ok_or(ESRCH)?.real_servers)
    }
}
