#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::IpsetKind;
use crate::{
    config::Config,
    model::{PortNumber, Protocol, VirtualServerKey},
    state::ServerState,
};

/// One entry of an ipset. Which of its parts are there depends on the type of the set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) address: Option<IpAddr>,
    pub(crate) protocol: Option<Protocol>,
    pub(crate) port: Option<PortNumber>,
}

/// What kube-proxy's ipsets say that it serves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct KubeProxyState {
    servers: BTreeSet<VirtualServerKey>,
    node_ports: BTreeSet<(Protocol, PortNumber)>,
    vips: BTreeSet<IpAddr>,
}

/// What kube-proxy made and we go on with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct AdoptedState {
    pub(crate) servers: BTreeSet<VirtualServerKey>,
    pub(crate) vips: BTreeSet<IpAddr>,
}

impl KubeProxyState {
    /// Takes in an entry of one of its sets.
    pub(crate) fn add(&mut self, holds: IpsetKind, entry: Entry) {
        match (holds, entry) {
            (IpsetKind::Servers, Entry { address: Some(address), protocol: Some(protocol), port: Some(port) }) => {
                self.servers.insert(VirtualServerKey { address, protocol, port });
            }
            (IpsetKind::NodePorts(protocol), Entry { port: Some(port), .. }) => {
                self.node_ports.insert((protocol, port));
            }
            (IpsetKind::Vips, Entry { address: Some(address), .. }) => {
                self.vips.insert(address);
            }
            _ => {}
        }
    }

    /// Whether it served this node: its sets are there, and they hold something. Sets that could not be removed when
    /// the node was taken over have been emptied since.
    pub(crate) fn is_there(&self) -> bool {
        !(self.servers.is_empty() && self.node_ports.is_empty() && self.vips.is_empty())
    }

    /// The virtual servers that its sets name.
    pub(crate) fn servers(&self) -> impl Iterator<Item = VirtualServerKey> {
        self.servers.iter().copied()
    }

    /// What it made of all that there is. `bound` are the addresses on `kube-ipvs0`, `host` those on other devices.
    ///
    /// The device is its own: at every sync it takes off what it does not know. So an address that is on it is its,
    /// and a virtual server on such an address too, also where it was ended between making them and writing its sets.
    /// Only in the ranges of `exclude_cidrs`, which it leaves alone, can there be virtual servers of others on them.
    pub(crate) fn leaves(
        &self,
        there: &BTreeMap<VirtualServerKey, ServerState>,
        bound: &BTreeSet<IpAddr>,
        host: &BTreeSet<IpAddr>,
        config: &Config,
    ) -> AdoptedState {
        if !self.is_there() {
            return AdoptedState::default();
        }
        let is_its = |key: &VirtualServerKey| {
            self.servers.contains(key)
                || self.node_ports.contains(&(key.protocol, key.port)) && host.contains(&key.address)
                || bound.contains(&key.address) && !config.excludes(key.address)
        };
        AdoptedState {
            servers: there.keys().copied().filter(is_its).collect(),
            vips: bound.iter().copied().filter(|address| !is_of_the_link(*address)).collect(),
        }
    }
}

/// Whether the kernel gave a device this address by itself.
pub(crate) fn is_of_the_link(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}
