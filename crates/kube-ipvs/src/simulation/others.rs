//! Other programs that change the kernel, and the objects that they own.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use proxier::{
    State, VirtualServerState,
    cluster::EndpointAddress,
    fake::FakeKernel,
    ipvs_netlink::{Destination, Forwarding, Scheduler, VirtualServer},
    model::{Family, PortNumber, Protocol, VirtualServerKey},
    plan::Change,
    set::Element,
};

use super::{
    Violation,
    cluster::SERVICES,
    objects::{cluster_ip, external_ip},
    step::Act,
};

/// The objects of other programs. kube-ipvs must not touch them.
#[derive(Debug, Clone, Default)]
pub(super) struct Foreign {
    pub(super) servers: BTreeMap<VirtualServerKey, VirtualServerState>,
    pub(super) addresses: BTreeSet<IpAddr>,
}

impl Foreign {
    pub(super) fn made(&mut self, change: &Change) {
        match change {
            Change::AddVirtualServer { key, config } => {
                self.servers.insert(*key, VirtualServerState { config: *config, real_servers: Default::default() });
            }
            Change::RemoveVirtualServer(key) => drop(self.servers.remove(key)),
            Change::AddRealServer { key, address, destination }
            | Change::UpdateRealServer { key, address, destination } => {
                if let Some(server) = self.servers.get_mut(key) {
                    server.real_servers.insert(*address, *destination);
                }
            }
            Change::RemoveRealServer { key, address } => {
                if let Some(server) = self.servers.get_mut(key) {
                    server.real_servers.remove(address);
                }
            }
            Change::Bind(address) => drop(self.addresses.insert(*address)),
            Change::Unbind(address) => drop(self.addresses.remove(address)),
            _ => {}
        }
    }

    pub(super) fn check(&self, kernel: &FakeKernel) -> Result<(), Violation> {
        let is_changed =
            |(key, server): &(&VirtualServerKey, &VirtualServerState)| kernel.virtual_servers.get(key) != Some(server);
        if let Some((key, server)) = self.servers.iter().find(is_changed) {
            let now = kernel.virtual_servers.get(key);
            return Err(Violation::new("foreign", format!("{key} of another program was {server:?} and is {now:?}")));
        }
        let bound = kernel.addresses.clone().unwrap_or_default();
        match self.addresses.difference(&bound).next() {
            Some(address) => Err(Violation::new("foreign", format!("{address} of another program is gone"))),
            None => Ok(()),
        }
    }
}

/// The changes that an action makes to the kernel. `known`: the state that kube-ipvs expects there.
pub(super) fn changes(act: Act, kernel: &FakeKernel, known: Option<&State>, foreign: &Foreign) -> Vec<Change> {
    let servers = &kernel.virtual_servers;
    let endpoints = || {
        let all =
            servers.iter().flat_map(|(key, server)| server.real_servers.iter().map(move |(at, to)| (*key, *at, *to)));
        all.collect::<Vec<_>>()
    };
    let elements = || kernel.elements.iter().flat_map(|all| all.keys().copied()).collect::<Vec<Element>>();
    let addresses = || kernel.addresses.iter().flatten().copied().collect::<Vec<IpAddr>>();
    match act {
        Act::ClearIpvs => servers.keys().copied().map(Change::RemoveVirtualServer).collect(),
        Act::FlushRuleset => {
            let removed = |element| Change::RemoveElement { element, with_server: false };
            elements().into_iter().map(removed).collect()
        }
        Act::DeleteDevice => addresses().into_iter().map(Change::Unbind).collect(),
        Act::DeleteServer(pick) => {
            let all: Vec<_> = servers.keys().copied().collect();
            one(&all, pick).map(Change::RemoveVirtualServer).into_iter().collect()
        }
        Act::DeleteRealServer(pick) => {
            let removed = |(key, address, _)| Change::RemoveRealServer { key, address };
            one(&endpoints(), pick).map(removed).into_iter().collect()
        }
        Act::DisableRealServer(pick) => {
            let disabled = |(key, address, destination)| Change::UpdateRealServer {
                key,
                address,
                destination: Destination { weight: 0, ..destination },
            };
            one(&endpoints(), pick).map(disabled).into_iter().collect()
        }
        Act::DeleteElement(pick) => {
            let removed = |element| Change::RemoveElement { element, with_server: false };
            one(&elements(), pick).map(removed).into_iter().collect()
        }
        Act::RenameElement(pick) => {
            let renamed = |element| Change::AddElement { element, comment: Some("theirs".into()), replace: true };
            one(&elements(), pick).map(renamed).into_iter().collect()
        }
        Act::DeleteAddress(pick) => one(&addresses(), pick).map(Change::Unbind).into_iter().collect(),
        Act::AddElement(pick) => {
            let range = |text: &str| text.parse().unwrap();
            let all = [
                Element::PodSource(range("10.244.0.0/28")),
                Element::ServiceRange(range("10.96.0.0/9")),
                Element::RemotePod(range("0.0.0.0/1")),
                Element::Outside(Family::V6),
                Element::Vip([192, 0, 2, 200].into()),
            ];
            let added = |element| Change::AddElement { element, comment: None, replace: false };
            one(&all, pick).map(added).into_iter().collect()
        }
        Act::AddServer(pick) => {
            one(&keys(), pick).into_iter().flat_map(|key| foreign_server(key, kernel, known)).collect()
        }
        Act::AddAddress(pick) => vec![Change::Bind([192, 0, 2, pick % 4].into())],
        Act::RemoveOwnServer(pick) => {
            let own: Vec<_> = foreign.servers.keys().copied().collect();
            one(&own, pick).map(Change::RemoveVirtualServer).into_iter().collect()
        }
    }
}

fn one<T: Copy>(all: &[T], pick: u8) -> Option<T> {
    all.get(usize::from(pick) % all.len().max(1)).copied()
}

/// Keys that Services often ask for.
fn keys() -> Vec<VirtualServerKey> {
    let key =
        |address, protocol, port: u16| VirtualServerKey { address, protocol, port: PortNumber::new(port).unwrap() };
    let cluster = (1..=SERVICES).flat_map(|number| {
        let address = cluster_ip(Family::V4, number);
        [key(address, Protocol::Tcp, 80), key(address, Protocol::Udp, 53), key(address, Protocol::Tcp, 443)]
    });
    let external = (1..3).map(|number| key(external_ip(number), Protocol::Tcp, 80));
    cluster.chain(external).collect()
}

/// Makes a virtual server of another program, unless kube-ipvs has recorded the key or knows it: then kube-ipvs would
/// own the virtual server (docs/architecture.md, invariant 8).
fn foreign_server(key: VirtualServerKey, kernel: &FakeKernel, known: Option<&State>) -> Vec<Change> {
    let is_known = known.is_some_and(|known| known.virtual_servers.contains_key(&key) || known.owned.contains(&key));
    if is_known || kernel.is_recorded(key) || kernel.virtual_servers.contains_key(&key) {
        return Vec::new();
    }
    let address = EndpointAddress { address: [192, 0, 2, 77].into(), port: PortNumber::MIN };
    let destination = Destination::new(Forwarding::Masq, 1);
    let config = VirtualServer::new(Scheduler::WLC);
    vec![Change::AddVirtualServer { key, config }, Change::AddRealServer { key, address, destination }]
}
