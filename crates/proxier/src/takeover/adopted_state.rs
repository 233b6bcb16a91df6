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
    state::VirtualServerState,
};

/// An entry of an ipset. The type of the set determines which fields are present.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) address: Option<IpAddr>,
    pub(crate) protocol: Option<Protocol>,
    pub(crate) port: Option<PortNumber>,
}

/// The objects that kube-proxy serves, according to its ipsets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct KubeProxyState {
    servers: BTreeSet<VirtualServerKey>,
    node_ports: BTreeSet<(Protocol, PortNumber)>,
    vips: BTreeSet<IpAddr>,
}

/// Objects of kube-proxy that kube-ipvs takes over.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct AdoptedState {
    pub(crate) servers: BTreeSet<VirtualServerKey>,
    pub(crate) vips: BTreeSet<IpAddr>,
}

impl KubeProxyState {
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

    /// Whether kube-proxy served this node: its sets exist and have entries. A takeover empties the sets that it cannot
    /// remove.
    pub(crate) fn is_there(&self) -> bool {
        !(self.servers.is_empty() && self.node_ports.is_empty() && self.vips.is_empty())
    }

    pub(crate) fn servers(&self) -> impl Iterator<Item = VirtualServerKey> {
        self.servers.iter().copied()
    }

    /// The objects that kube-proxy made. `bound` are the addresses on `kube-ipvs0`, `host` those on other devices.
    ///
    /// `kube-ipvs0` belongs to kube-proxy, which removes unknown addresses from it at every sync. So kube-proxy made
    /// each address on the device, and each virtual server on such an address. This holds even if kube-proxy was killed
    /// before it wrote its sets. Other programs can have virtual servers on these addresses only in the ranges of
    /// `exclude_cidrs`, which kube-proxy does not touch.
    pub(crate) fn leaves(
        &self,
        there: &BTreeMap<VirtualServerKey, VirtualServerState>,
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

/// Link-local: the kernel adds such addresses to a device by itself.
pub(crate) fn is_of_the_link(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}
