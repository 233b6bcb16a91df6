//! Changes of Nodes and of the host's addresses, and the Services that they touch.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
};

use super::Cluster;
use crate::model::{EndpointSlice, Node, NodeAddress, Service};

impl Cluster {
    /// Applies a Node event. `None`: the Node was deleted.
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
            self.node_addresses.remove(address, &name);
        }
        for address in after.difference(&before) {
            self.node_addresses.add(*address, name.clone());
        }
        if before != after {
            self.changed.extend(self.forwarded.iter().cloned());
        }
        let changed = before.symmetric_difference(&after).copied().collect();
        self.mark_users(&changed);
        if name == self.config.hostname {
            self.mark_endpoints(&changed);
            let of_node = |node: Option<Node>| node.map(|node| (node.zone, node.internal_ips)).unwrap_or_default();
            let ((zone, internal_ips), (new_zone, new_internal_ips)) = (of_node(old), of_node(new));
            if zone != new_zone {
                self.mark_hinted();
            }
            if internal_ips != new_internal_ips {
                self.mark_filtered();
            }
            self.select_node_port_addresses();
            self.select_pods();
        }
    }

    pub(super) fn apply_host_addresses(&mut self, addresses: BTreeSet<NodeAddress>) {
        let global: BTreeSet<IpAddr> = self.global_host_addresses().collect();
        let old = std::mem::replace(&mut self.host_addresses, addresses);
        let changed = old.symmetric_difference(&self.host_addresses).map(|changed| changed.address).collect();
        self.mark_users(&changed);
        self.mark_endpoints(&changed);
        // A starting pod adds a link-local address, which makes no difference.
        if self.own_internal_ips().is_empty() && !self.global_host_addresses().eq(global) {
            self.mark_filtered();
        }
        self.select_node_port_addresses();
        self.select_pods();
    }

    /// The host's addresses that other hosts can reach, in ascending order.
    pub(super) fn global_host_addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.host_addresses.iter().filter(|host| host.global).map(|host| host.address)
    }

    pub(super) fn own_internal_ips(&self) -> &[IpAddr] {
        self.own_node().map_or(&[], |node| &node.internal_ips)
    }

    pub(super) fn select_pods(&mut self) {
        let node = self.nodes.get(&self.config.hostname);
        self.pod_sources = self.config.pod_sources.select(node);
        self.remote_pods = self.config.pod_sources.elsewhere(node, &self.host_addresses);
    }

    /// Marks the Services with a VIP at one of these addresses.
    pub(super) fn mark_users(&mut self, addresses: &BTreeSet<IpAddr>) {
        for address in addresses {
            self.changed.extend(self.on_address.get(address).iter().cloned());
        }
    }

    /// Marks the Services with an endpoint on this node at one of these addresses. An endpoint that is the node itself
    /// needs no hairpin.
    fn mark_endpoints(&mut self, addresses: &BTreeSet<IpAddr>) {
        let slices = addresses.iter().flat_map(|address| self.endpoints_here.get(address));
        self.changed.extend(slices.filter_map(|id| Some(self.slices.get(id)?.service.clone())));
    }

    /// Marks the Services with source ranges: different ranges can contain this node now.
    fn mark_filtered(&mut self) {
        self.changed.extend(self.filtered.iter().cloned());
    }

    /// Marks the Services with zone hints: the zone of this node has changed.
    fn mark_hinted(&mut self) {
        let is_hinted =
            |slice: &&EndpointSlice| slice.endpoints.iter().any(|endpoint| !endpoint.hints.zones().is_empty());
        self.changed.extend(self.slices.values().filter(is_hinted).map(|slice| slice.service.clone()));
    }

    /// Selects the addresses of node ports again, and moves the claims of the Services that use them.
    pub(super) fn select_node_port_addresses(&mut self) {
        let node = self.nodes.get(&self.config.hostname);
        let mut selected = self.config.node_ports.select(&self.host_addresses, node);
        selected.extend(self.config.localhost_node_ports.then_some(IpAddr::V4(Ipv4Addr::LOCALHOST)));
        if selected == self.node_port_addresses {
            return;
        }
        let touched: Vec<Service> =
            self.with_node_port.iter().filter_map(|id| self.services.get(id)).cloned().collect();
        for service in &touched {
            self.release(&service.id, &self.claims_of(service));
        }
        self.node_port_addresses = selected;
        for service in &touched {
            self.claim(&service.id, &self.claims_of(service));
            self.changed.insert(service.id.clone());
        }
    }
}
