//! The known state of the kernel.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use foldhash::HashSet;
use ipnet::IpNet;
use ipvs_netlink::Destination;
use litemap::LiteMap;

use crate::{
    cluster::EndpointAddress,
    desired::SharedResource,
    model::{Family, Protocol, VirtualServerKey},
    plan::Change,
    set::{Element, KeySet, KeySets},
};

/// The objects in the kernel that kube-ipvs manages, as the engine last read them or as later changes left them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct State {
    /// Virtual servers on addresses. Virtual servers on firewall marks are never ours, so they are not here.
    pub virtual_servers: BTreeMap<VirtualServerKey, VirtualServerState>,
    /// The elements of the key sets, by key.
    pub elements: BTreeMap<VirtualServerKey, Membership>,
    /// The elements of the set `vips`.
    pub recorded_vips: BTreeSet<IpAddr>,
    /// The elements of the set `firewall-allowed`, by key.
    pub allowed: BTreeMap<VirtualServerKey, BTreeSet<IpNet>>,
    /// The elements of the map `short-circuits`.
    pub short_circuits: BTreeMap<VirtualServerKey, EndpointAddress>,
    /// The elements of the set `hairpin`.
    pub hairpins: BTreeSet<(Protocol, EndpointAddress)>,
    /// The elements of the set `health-checks`.
    pub health_checks: BTreeSet<VirtualServerKey>,
    /// The elements of the set `service-ranges`.
    pub service_ranges: BTreeSet<IpNet>,
    /// The elements of the set `pod-sources`.
    pub pod_sources: BTreeSet<IpNet>,
    /// The elements of the set `remote-pods`.
    pub remote_pods: BTreeSet<IpNet>,
    /// The families whose set `outside` has its element.
    pub outside: BTreeSet<Family>,
    /// The elements of the set `arp-ignore`.
    pub arp_ignore: BTreeSet<Ipv4Addr>,
    /// Virtual servers that are ours although nftables has no record of them.
    pub owned: BTreeSet<VirtualServerKey>,
    /// Addresses that are ours although nftables has no record of them.
    pub owned_vips: BTreeSet<IpAddr>,
    /// The addresses on `kube-ipvs0`.
    pub bound_vips: BTreeSet<IpAddr>,
}

/// One virtual server in the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct VirtualServerState {
    /// Scheduler, flags and persistence.
    pub config: ipvs_netlink::VirtualServer,
    /// Its real servers.
    pub real_servers: LiteMap<EndpointAddress, Destination>,
}

impl VirtualServerState {
    fn apply(&mut self, change: &Change) {
        match change {
            Change::AddRealServer { address, destination, .. }
            | Change::UpdateRealServer { address, destination, .. } => {
                self.real_servers.insert(*address, *destination);
            }
            Change::RemoveRealServer { address, .. } => {
                self.real_servers.remove(address);
            }
            _ => {}
        }
    }

    /// Applies changes of its real servers. A single insertion or removal moves all real servers behind it, so runs of
    /// them take effect at once.
    fn apply_all(&mut self, changes: &[&Change]) {
        for run in changes.chunk_by(|one, other| mem::discriminant(*one) == mem::discriminant(*other)) {
            match run {
                [change] => self.apply(change),
                [Change::AddRealServer { .. }, ..] => {
                    self.real_servers.reserve(run.len());
                    self.real_servers.extend(run.iter().filter_map(|change| match change {
                        Change::AddRealServer { address, destination, .. } => Some((*address, *destination)),
                        _ => None,
                    }));
                }
                [Change::RemoveRealServer { .. }, ..] => {
                    let removed: HashSet<_> = run
                        .iter()
                        .filter_map(|change| match change {
                            Change::RemoveRealServer { address, .. } => Some(*address),
                            _ => None,
                        })
                        .collect();
                    self.real_servers.retain(|address, _| !removed.contains(address));
                }
                _ => run.iter().for_each(|change| self.apply(change)),
            }
        }
    }
}

/// The sets that contain a key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Membership {
    /// The sets.
    pub sets: KeySets,
    /// The comment of its element in `served`: the Service port.
    pub comment: Option<Arc<str>>,
}

impl State {
    /// Every key with a virtual server, an element, a range or a short circuit. Keys repeat.
    pub(crate) fn keys(&self) -> impl Iterator<Item = VirtualServerKey> {
        let servers = self.virtual_servers.keys().chain(self.elements.keys());
        servers.chain(self.allowed.keys()).chain(self.short_circuits.keys()).copied()
    }

    /// The number of objects that grow with the cluster. The cost of reading the state is proportional to it.
    pub(crate) fn objects(&self) -> usize {
        let real_servers = self.virtual_servers.values().map(|server| server.real_servers.len());
        let servers = self.virtual_servers.len() + real_servers.sum::<usize>();
        servers + self.elements.len() + self.hairpins.len() + self.recorded_vips.len() + self.bound_vips.len()
    }

    /// Whether a virtual server is recorded as ours, in nftables or in the copy of the record.
    pub(crate) fn is_recorded(&self, key: &VirtualServerKey) -> bool {
        let served = |entry: &Membership| entry.sets.contains(KeySet::Served);
        self.owned.contains(key) || self.elements.get(key).is_some_and(served)
    }

    /// The recorded resources that several Services can share.
    pub(crate) fn shared(&self) -> impl Iterator<Item = SharedResource> {
        let hairpins = self.hairpins.iter().map(|(protocol, endpoint)| SharedResource::Hairpin(*protocol, *endpoint));
        let health_checks = self.health_checks.iter().copied().map(SharedResource::HealthCheck);
        let silent = self.arp_ignore.iter().map(|address| SharedResource::Vip((*address).into()));
        self.recorded_vips
            .union(&self.owned_vips)
            .copied()
            .map(SharedResource::Vip)
            .chain(silent)
            .chain(hairpins)
            .chain(health_checks)
    }

    /// Applies changes that the kernel made. Changes of one virtual server usually follow each other, so it is looked
    /// up once per run.
    pub(crate) fn apply_all(&mut self, changes: &[&Change]) {
        for run in changes.chunk_by(|one, other| one.real_server_of() == other.real_server_of()) {
            match run[0].real_server_of() {
                Some(key) => {
                    if let Some(server) = self.virtual_servers.get_mut(&key) {
                        server.apply_all(run);
                    }
                }
                None => run.iter().for_each(|change| self.apply(change)),
            }
        }
    }

    /// Applies a change that the kernel made.
    pub fn apply(&mut self, change: &Change) {
        match change {
            Change::AddElement { element, comment, .. } => self.add(*element, comment),
            Change::RemoveElement { element, .. } => self.put(*element, false),
            Change::AddVirtualServer { key, config } => {
                let server = VirtualServerState { config: *config, real_servers: LiteMap::new() };
                self.virtual_servers.insert(*key, server);
            }
            Change::UpdateVirtualServer { key, config } => {
                if let Some(server) = self.virtual_servers.get_mut(key) {
                    server.config = *config;
                }
            }
            Change::RemoveVirtualServer(key) => {
                self.virtual_servers.remove(key);
                self.owned.remove(key);
            }
            Change::AddRealServer { key, .. }
            | Change::UpdateRealServer { key, .. }
            | Change::RemoveRealServer { key, .. } => {
                if let Some(server) = self.virtual_servers.get_mut(key) {
                    server.apply(change);
                }
            }
            Change::Bind(address) => {
                self.bound_vips.insert(*address);
            }
            Change::Unbind(address) => {
                self.bound_vips.remove(address);
                self.owned_vips.remove(address);
            }
            Change::DeleteFlows { .. } => {}
        }
    }

    /// Whether a change is already in effect. Deletions of flows never are.
    pub(crate) fn has(&self, change: &Change) -> bool {
        let server = |key: &VirtualServerKey| self.virtual_servers.get(key);
        match change {
            Change::AddElement { element, .. } => self.has_element(*element),
            Change::RemoveElement { element, .. } => !self.has_element(*element),
            Change::AddVirtualServer { key, config } | Change::UpdateVirtualServer { key, config } => {
                server(key).is_some_and(|server| server.config == *config)
            }
            Change::RemoveVirtualServer(key) => server(key).is_none(),
            Change::AddRealServer { key, address, destination }
            | Change::UpdateRealServer { key, address, destination } => {
                server(key).is_some_and(|server| server.real_servers.get(address) == Some(destination))
            }
            Change::RemoveRealServer { key, address } => {
                server(key).is_none_or(|server| !server.real_servers.contains_key(address))
            }
            Change::Bind(address) => self.bound_vips.contains(address),
            Change::Unbind(address) => !self.bound_vips.contains(address),
            Change::DeleteFlows { .. } => false,
        }
    }

    fn has_element(&self, element: Element) -> bool {
        match element {
            Element::Key(set, key) => self.elements.get(&key).is_some_and(|entry| entry.sets.contains(set)),
            Element::Vip(address) => self.recorded_vips.contains(&address),
            Element::Allowed(key, source) => self.allowed.get(&key).is_some_and(|sources| sources.contains(&source)),
            Element::Hairpin(protocol, endpoint) => self.hairpins.contains(&(protocol, endpoint)),
            Element::HealthCheck(key) => self.health_checks.contains(&key),
            Element::ServiceRange(range) => self.service_ranges.contains(&range),
            Element::PodSource(range) => self.pod_sources.contains(&range),
            Element::RemotePod(range) => self.remote_pods.contains(&range),
            Element::Outside(family) => self.outside.contains(&family),
            Element::ArpIgnore(address) => self.arp_ignore.contains(&address),
            Element::ShortCircuit(key, to) => self.short_circuits.get(&key) == Some(&to),
        }
    }

    pub(crate) fn add(&mut self, element: Element, comment: &Option<Arc<str>>) {
        match (element, comment) {
            (Element::Key(KeySet::Served, key), Some(_)) => {
                let membership = self.elements.entry(key).or_default();
                membership.sets = membership.sets.with(KeySet::Served);
                membership.comment.clone_from(comment);
            }
            _ => self.put(element, true),
        }
    }

    /// Adds or removes an element.
    fn put(&mut self, element: Element, is_there: bool) {
        match element {
            Element::Key(set, key) => {
                let membership = self.elements.entry(key).or_default();
                membership.sets = if is_there { membership.sets.with(set) } else { membership.sets.without(set) };
                if !membership.sets.contains(KeySet::Served) {
                    membership.comment = None;
                }
                if membership.sets == KeySets::NONE {
                    self.elements.remove(&key);
                }
            }
            Element::Allowed(key, source) => {
                let sources = self.allowed.entry(key).or_default();
                put(sources, source, is_there);
                if sources.is_empty() {
                    self.allowed.remove(&key);
                }
            }
            Element::ShortCircuit(key, to) => {
                self.short_circuits.remove(&key);
                self.short_circuits.extend(is_there.then_some((key, to)));
            }
            Element::Vip(address) => put(&mut self.recorded_vips, address, is_there),
            Element::Hairpin(protocol, endpoint) => put(&mut self.hairpins, (protocol, endpoint), is_there),
            Element::HealthCheck(key) => put(&mut self.health_checks, key, is_there),
            Element::ServiceRange(range) => put(&mut self.service_ranges, range, is_there),
            Element::PodSource(range) => put(&mut self.pod_sources, range, is_there),
            Element::RemotePod(range) => put(&mut self.remote_pods, range, is_there),
            Element::Outside(family) => put(&mut self.outside, family, is_there),
            Element::ArpIgnore(address) => put(&mut self.arp_ignore, address, is_there),
        }
    }
}

fn put<T: Ord>(set: &mut BTreeSet<T>, element: T, is_there: bool) {
    match is_there {
        true => set.insert(element),
        false => set.remove(&element),
    };
}
