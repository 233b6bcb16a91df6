//! The copy of the record of ownership, which outlives `nft flush ruleset`.

use std::{collections::BTreeSet, net::IpAddr};

use super::FakeKernel;
use crate::{
    kernel::{Cause, Failure},
    model::VirtualServerKey,
    plan::Change,
    set::{Element, KeySet},
    state::State,
};

/// The objects that the copy of the record names. [`LinuxKernel`](crate::linux::LinuxKernel) keeps it in a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecordCopy {
    /// The recorded virtual servers.
    pub servers: BTreeSet<VirtualServerKey>,
    /// The recorded addresses.
    pub vips: BTreeSet<IpAddr>,
}

impl RecordCopy {
    /// Records objects before they are made.
    pub(super) fn intend<'a>(&mut self, changes: impl Iterator<Item = &'a Change>) {
        for change in changes {
            match change {
                Change::AddVirtualServer { key, .. } => drop(self.servers.insert(*key)),
                Change::Bind(address) => drop(self.vips.insert(*address)),
                _ => {}
            }
        }
    }

    /// Forgets objects that are gone, and a virtual server that another program can own. `cause`: why the change
    /// failed.
    pub(super) fn confirm(&mut self, change: &Change, cause: Option<Cause>) {
        match (change, cause) {
            (Change::AddVirtualServer { key, .. }, Some(Cause::Exists | Cause::Rejected | Cause::NoScheduler))
            | (Change::RemoveVirtualServer(key), None) => drop(self.servers.remove(key)),
            (Change::Unbind(address), None) => drop(self.vips.remove(address)),
            _ => {}
        }
    }
}

impl FakeKernel {
    /// Adds the objects of the copy to a list of the kernel, and then updates the copy from the list.
    pub(super) fn read_copy(&mut self, state: &mut State) {
        let Some(copy) = &mut self.record_copy else { return };
        let is_served =
            |key: &VirtualServerKey| state.elements.get(key).is_some_and(|it| it.sets.contains(KeySet::Served));
        copy.servers.retain(|key| state.virtual_servers.contains_key(key));
        copy.vips.retain(|address| state.bound_vips.contains(address));
        state.owned = copy.servers.clone();
        state.owned_vips = copy.vips.clone();
        copy.servers.extend(state.virtual_servers.keys().filter(|key| is_served(key)));
        copy.vips.extend(state.recorded_vips.intersection(&state.bound_vips));
    }

    /// Whether a virtual server is recorded, in nftables or in the copy.
    pub fn is_recorded(&self, key: VirtualServerKey) -> bool {
        let is_served =
            || self.elements.as_ref().is_some_and(|all| all.contains_key(&Element::Key(KeySet::Served, key)));
        self.record_copy.as_ref().is_some_and(|copy| copy.servers.contains(&key)) || is_served()
    }

    pub(super) fn confirm(&mut self, changes: &[(usize, &Change)], failures: &[Failure]) {
        let Some(copy) = &mut self.record_copy else { return };
        for (number, change) in changes {
            let failure = failures.iter().find(|failure| failure.change == *number);
            copy.confirm(change, failure.map(|failure| failure.cause));
        }
    }
}
