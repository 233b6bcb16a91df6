//! Deletion of conntrack entries.
//!
//! A known flow keeps its first packet's destination, even if rules and virtual servers have changed since. After
//! conntrack forgets it, its next packet starts a new flow.
//!
//! The table can hold a million entries. If the kernel knows [filters](filter::Filter), it lists only few of them.
//! kube-ipvs compares each listed entry and keeps none. It collects only deletions, up to a bounded number.

mod deletions;
mod entry;
mod filter;

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    time::Instant,
};

use netlink_batch::{Error, Protocol, Socket};
use rustix::io::Errno;

use self::{deletions::Deletions, entry::Entry, filter::Filter};
use super::meter::FlowDeletion;
use crate::{
    cluster::EndpointAddress,
    model::{Family, Protocol as Transport, VirtualServerKey},
    plan::{Change, Plan},
    set::Element,
    state::State,
};

pub(super) struct Conntrack {
    lists: Socket,
    /// A separate socket, because kube-ipvs sends deletions while it reads a list.
    deletions: Socket,
    kernel_filters: bool,
}

impl Conntrack {
    pub(super) fn open() -> Result<Self, Error> {
        let open = || Socket::open(Protocol::Netfilter);
        Ok(Self { lists: open()?, deletions: open()?, kernel_filters: true })
    }

    /// Deletes the flows of these changes, except for flows that another program has DNATed to real servers of virtual
    /// servers that `made` makes. A flow that does not exist counts as deleted.
    pub(super) fn apply(
        &mut self,
        changes: &[(usize, &Change)],
        made: &Plan,
        flow_deletions: &mut Vec<FlowDeletion>,
    ) -> Result<(), Error> {
        self.delete(&Wanted { stay: made_by(made), ..Wanted::new(changes) }, flow_deletions)
    }

    /// Deletes the flows of UDP that another program's rules have DNATed to endpoints which do not serve. Clients would
    /// keep them as long as they send.
    pub(super) fn delete_misled(&mut self, state: &State, flow_deletions: &mut Vec<FlowDeletion>) -> Result<(), Error> {
        let misled = serving(state);
        self.delete(&Wanted { misled, ..Wanted::new(&[]) }, flow_deletions)
    }

    /// Deletes the flows of UDP to virtual servers that are gone. Flows that another program's rules have DNATed stay.
    pub(super) fn delete_flows_through_ipvs(
        &mut self,
        gone: &[VirtualServerKey],
        before: &State,
        flow_deletions: &mut Vec<FlowDeletion>,
    ) -> Result<(), Error> {
        let udp = gone.iter().filter(|key| key.protocol == Transport::Udp);
        let flows = udp.map(|key| (*key, None, false)).collect();
        self.delete(&Wanted { flows, stay: serving(before), ..Wanted::default() }, flow_deletions)
    }

    fn delete(&mut self, wanted: &Wanted, flow_deletions: &mut Vec<FlowDeletion>) -> Result<(), Error> {
        let mut outcome = Ok(());
        for family in wanted.families() {
            let start = Instant::now();
            let Self { lists, deletions, kernel_filters } = self;
            let pass = |filter: &Filter| pass(lists, deletions, filter, wanted);
            match cleanse(kernel_filters, family, wanted, pass) {
                Ok(deleted) => flow_deletions.push(FlowDeletion { family, took: start.elapsed(), deleted }),
                Err(error) => outcome = Err(error),
            }
        }
        outcome
    }
}

/// Deletes the wanted flows of one family: with one pass for each filter, or with one pass over all entries if the
/// kernel does not filter.
fn cleanse(
    kernel_filters: &mut bool,
    family: Family,
    wanted: &Wanted,
    mut pass: impl FnMut(&Filter) -> Result<Pass, Error>,
) -> Result<usize, Error> {
    let all = Filter::all(family);
    let filters = if *kernel_filters { Filter::to(family, &wanted.destinations(family)) } else { vec![all] };
    let mut outcome = Ok(0);
    for filter in filters {
        let mut done = pass(&filter)?;
        let is_rejected = matches!(done, Pass::Rejected);
        if is_rejected {
            done = pass(&all)?;
        }
        let Pass::Done { deleted, is_filtered } = done else {
            // The kernel rejected even a list without a filter, so it has no conntrack and no flows.
            break;
        };
        // A rejected deletion does not stop the others.
        outcome = outcome.and_then(|before| Ok(before + deleted?));
        if is_rejected || !is_filtered {
            // This list had all entries.
            *kernel_filters = false;
            break;
        }
    }
    outcome
}

enum Pass {
    /// The kernel rejected the request for the list.
    Rejected,
    Done {
        /// The number of deleted flows.
        deleted: Result<usize, Error>,
        /// Whether the list had only entries that the filter chooses.
        is_filtered: bool,
    },
}

/// Deletes the wanted flows of one list. If the kernel lists an entry twice, the second deletion finds nothing.
fn pass(lists: &mut Socket, deletions: &mut Socket, filter: &Filter, wanted: &Wanted) -> Result<Pass, Error> {
    let mut deletions = Deletions::new(|batch| deletions.execute(batch));
    let mut is_filtered = true;
    let listed = lists.dump_each(entry::GET, &filter.request(), |message_type, payload| {
        let Some(entry) = Entry::read(message_type, payload) else { return };
        is_filtered &= filter.can_list(&entry);
        if wanted.includes(&entry) {
            deletions.push(&entry);
        }
    });
    let deleted = deletions.finish();
    match listed {
        Err(error) if is_rejection(&error) => Ok(Pass::Rejected),
        Err(error) => Err(error),
        Ok(()) => Ok(Pass::Done { deleted, is_filtered }),
    }
}

type Endpoints = HashMap<VirtualServerKey, BTreeSet<EndpointAddress>>;

/// The real servers of virtual servers that a plan makes. If another program has already DNATed flows to one of them,
/// these flows can stay: conntrack alone handles them, and kube-ipvs deletes them with their endpoint.
///
/// Flows by a short circuit look the same, although IPVS handles them too. It can choose another real server for them.
fn made_by(plan: &Plan) -> Endpoints {
    let mut made = Endpoints::new();
    for change in plan.changes() {
        match change {
            Change::AddVirtualServer { key, .. } if key.protocol == Transport::Udp => {
                made.insert(*key, BTreeSet::new());
            }
            Change::AddRealServer { key, address, .. } => {
                if let Some(endpoints) = made.get_mut(key) {
                    endpoints.insert(*address);
                }
            }
            Change::AddElement { element: Element::ShortCircuit(key, _), .. } => {
                made.remove(key);
            }
            _ => {}
        }
    }
    made
}

/// The endpoints that serve each virtual server of UDP, also by its short circuit.
fn serving(state: &State) -> Endpoints {
    let endpoints = |key: &VirtualServerKey| {
        let server = state.virtual_servers.get(key);
        server.into_iter().flat_map(|server| server.real_servers.keys().copied())
    };
    let own = state.virtual_servers.keys().filter(|key| key.protocol == Transport::Udp && state.is_recorded(key));
    own.map(|key| {
        let target = state.short_circuits.get(key);
        let target = target.map(|at| VirtualServerKey { address: at.address, port: at.port, ..*key });
        (*key, endpoints(key).chain(target.iter().flat_map(endpoints)).collect())
    })
    .collect()
}

/// The flows to delete.
#[derive(Default)]
struct Wanted {
    /// The destination, the real server if only its flows are meant, and whether only flows by a short circuit are
    /// meant.
    flows: HashSet<(VirtualServerKey, Option<EndpointAddress>, bool)>,
    /// DNATed flows that stay.
    stay: Endpoints,
    /// The destinations to which DNATed flows go, unless they lead to one of these endpoints.
    misled: Endpoints,
}

impl Wanted {
    fn new(changes: &[(usize, &Change)]) -> Self {
        let flows = changes.iter().filter_map(|(_, change)| match change {
            Change::DeleteFlows { to, endpoint, by_short_circuit } => Some((*to, *endpoint, *by_short_circuit)),
            _ => None,
        });
        Self { flows: flows.collect(), ..Self::default() }
    }

    fn all_destinations(&self) -> impl Iterator<Item = VirtualServerKey> {
        self.flows.iter().map(|(to, ..)| *to).chain(self.misled.keys().copied())
    }

    fn families(&self) -> BTreeSet<Family> {
        self.all_destinations().map(|to| to.family()).collect()
    }

    fn destinations(&self, family: Family) -> BTreeSet<VirtualServerKey> {
        self.all_destinations().filter(|to| to.family() == family).collect()
    }

    /// Takes only a few lookups, because the table can hold a million entries.
    fn includes(&self, entry: &Entry) -> bool {
        let leads_to = |endpoints: &Endpoints| {
            let endpoints = endpoints.get(&entry.to).filter(|_| entry.is_translated)?;
            Some(entry.endpoint.is_some_and(|endpoint| endpoints.contains(&endpoint)))
        };
        let goes_to = |endpoint| {
            let is_wanted = |by_short_circuit| self.flows.contains(&(entry.to, endpoint, by_short_circuit));
            is_wanted(false) && leads_to(&self.stay) != Some(true) || entry.is_translated && is_wanted(true)
        };
        let is_misled = leads_to(&self.misled) == Some(false);
        is_misled || goes_to(None) || entry.endpoint.is_some() && goes_to(entry.endpoint)
    }
}

/// Whether the kernel rejected the request for a list, because it does not know the filter or has no conntrack.
fn is_rejection(error: &Error) -> bool {
    // The kernel also answers EINVAL if nfnetlink does not know the subsystem and finds no module for it.
    let rejections = [Errno::INVAL, Errno::NOENT, Errno::OPNOTSUPP, Errno::PROTONOSUPPORT];
    let errno = error.kernel().map(|rejection| rejection.errno());
    rejections.iter().any(|rejection| Some(rejection.raw_os_error()) == errno)
}

#[cfg(test)]
mod tests;
