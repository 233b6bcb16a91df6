//! What the kernel has.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use ipvs_netlink::Destination;

use crate::{
    cluster::EndpointAddress,
    model::VirtualServerKey,
    plan::Change,
    set::{Element, KeySets},
};

/// What the kernel has of the things that we program, as it was read or as our changes left it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// The virtual servers on addresses. Those on firewall marks are never ours and are not here.
    pub virtual_servers: BTreeMap<VirtualServerKey, ServerState>,
    /// The elements of the key sets, by key.
    pub elements: BTreeMap<VirtualServerKey, Membership>,
    /// The elements of the set `vips`.
    pub recorded_vips: BTreeSet<IpAddr>,
    /// The addresses on `kube-ipvs0`.
    pub bound_vips: BTreeSet<IpAddr>,
}

/// One virtual server in the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerState {
    /// Scheduler, flags and persistence.
    pub config: ipvs_netlink::VirtualServer,
    /// Its real servers.
    pub real_servers: BTreeMap<EndpointAddress, Destination>,
}

/// In which sets a key is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Membership {
    /// The sets.
    pub sets: KeySets,
    /// The comment of its element in `served`: the Service port.
    pub comment: Option<Arc<str>>,
}

impl State {
    /// What a change makes of it, if the kernel carries the change out.
    pub fn apply(&mut self, change: &Change) {
        match change {
            Change::AddElement { element: Element::Key(set, key), comment, .. } => {
                let membership = self.elements.entry(*key).or_default();
                membership.sets = membership.sets.with(*set);
                if comment.is_some() {
                    membership.comment.clone_from(comment);
                }
            }
            Change::AddElement { element: Element::Vip(address), .. } => {
                self.recorded_vips.insert(*address);
            }
            Change::RemoveElement(Element::Key(set, key)) => self.remove_from_set(*set, *key),
            Change::RemoveElement(Element::Vip(address)) => {
                self.recorded_vips.remove(address);
            }
            Change::AddServer { key, config } => {
                let server = ServerState { config: *config, real_servers: BTreeMap::new() };
                self.virtual_servers.insert(*key, server);
            }
            Change::UpdateServer { key, config } => {
                if let Some(server) = self.virtual_servers.get_mut(key) {
                    server.config = *config;
                }
            }
            Change::RemoveServer(key) => {
                self.virtual_servers.remove(key);
            }
            Change::AddRealServer { key, address, destination }
            | Change::UpdateRealServer { key, address, destination } => {
                if let Some(server) = self.virtual_servers.get_mut(key) {
                    server.real_servers.insert(*address, *destination);
                }
            }
            Change::RemoveRealServer { key, address } => {
                if let Some(server) = self.virtual_servers.get_mut(key) {
                    server.real_servers.remove(address);
                }
            }
            Change::Bind(address) => {
                self.bound_vips.insert(*address);
            }
            Change::Unbind(address) => {
                self.bound_vips.remove(address);
            }
        }
    }

    fn remove_from_set(&mut self, set: crate::set::KeySet, key: VirtualServerKey) {
        let Some(membership) = self.elements.get_mut(&key) else { return };
        membership.sets = membership.sets.without(set);
        if set == crate::set::KeySet::Served {
            membership.comment = None;
        }
        if membership.sets == KeySets::NONE {
            self.elements.remove(&key);
        }
    }
}
