//! What Nodes and the addresses of this host change, and which Services that touches.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
};

use super::Cluster;
use crate::model::{EndpointSlice, Node, Service};

impl Cluster {
    /// Takes in what a Node says now; `None` when it is gone.
    pub(super) fn apply_node(&mut self, name: Box<str>, new: Option<Node>) {
        let old = match new.clone() {
            Some(node) => self.nodes.insert(name.clone(), node),
            None => self.nodes.remove(&name),
        };
        if old == new {
            return;
        }
        let addresses = |node: &Option<Node>| node.iter().flat_map(|node| node.addresses.clone()).collect();
        let (before, after): (BTreeSet<IpAddr>, BTreeSet<IpAddr>) = (addresses(&old), addresses(&new));
        for address in before.difference(&after) {
            let Some(names) = self.node_addresses.get_mut(address) else { continue };
            names.remove(&name);
            if names.is_empty() {
                self.node_addresses.remove(address);
            }
        }
        for address in after.difference(&before) {
            self.node_addresses.entry(*address).or_default().insert(name.clone());
        }
        if before != after {
            self.changed.extend(self.forwarded.iter().cloned());
        }
        self.mark_users(before.symmetric_difference(&after).copied().collect());
        if name == self.hostname {
            let zone = |node: Option<Node>| node.and_then(|node| node.zone);
            if zone(old) != zone(new) {
                self.mark_hinted();
            }
            self.mark_filtered();
            self.select_node_port_addresses();
            self.pod_sources = self.pod_source_policy.select(self.own_node());
        }
    }

    /// Marks the Services that have one of these addresses.
    pub(super) fn mark_users(&mut self, addresses: Vec<IpAddr>) {
        for address in addresses {
            self.changed.extend(self.on_address.get(&address).into_iter().flatten().cloned());
        }
    }

    /// Marks the Services with source ranges: whether this node is in one of them may have changed.
    pub(super) fn mark_filtered(&mut self) {
        self.changed.extend(self.filtered.iter().cloned());
    }

    /// Marks the Services with endpoints that are for some zone: this node is in another one now.
    fn mark_hinted(&mut self) {
        let is_hinted =
            |slice: &&EndpointSlice| slice.endpoints.iter().any(|endpoint| !endpoint.hints.zones.is_empty());
        self.changed.extend(self.slices.values().filter(is_hinted).map(|slice| slice.service.clone()));
    }

    /// Selects the addresses of node ports again, and moves the claims of the Services that have one.
    pub(super) fn select_node_port_addresses(&mut self) {
        let node = self.nodes.get(&self.hostname);
        let mut selected = self.node_port_policy.select(&self.host_addresses, node);
        selected.extend(self.localhost_node_ports.then_some(IpAddr::V4(Ipv4Addr::LOCALHOST)));
        if selected == self.node_port_addresses {
            return;
        }
        let touched: Vec<Service> =
            self.with_node_port.iter().filter_map(|id| self.services.get(id)).cloned().collect();
        for service in &touched {
            self.release_all(service);
        }
        self.node_port_addresses = selected;
        for service in &touched {
            self.claim_all(service);
            self.changed.insert(service.id.clone());
        }
    }
}
