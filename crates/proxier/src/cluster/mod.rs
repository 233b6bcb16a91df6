//! An index of all known objects, which determines the Services that a change touches.
//!
//! Services affect each other only through *claims*. A claim is a resource that only one Service port can have, such as
//! `TCP 10.96.0.10:53` or a node port. When a Service gains or loses a claim, the cluster also marks the other Services
//! that ask for it as changed, and no others.

mod claims;
mod endpoints;
mod index;
mod listeners;
mod names;
mod nodes;
mod services;
mod slices;

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    net::{IpAddr, SocketAddr},
};

use foldhash::{HashMap, HashSet};
use ipnet::IpNet;
use ipvs_netlink::Scheduler;

pub use claims::{Claim, Claimant};
pub use endpoints::EndpointAddress;
pub(crate) use endpoints::Endpoints;
pub use listeners::Kind;
pub(crate) use listeners::{Listener, Listeners};

use index::Index;
use names::Names;

use crate::{
    config::Config,
    model::{
        Endpoint, EndpointSlice, Event, Family, Node, NodeAddress, Protocol, Service, ServiceCidr, ServiceId, SliceId,
        TrafficPolicy, VirtualServerKey,
    },
};

/// The known objects of the cluster and the addresses of this host.
///
/// The order of events never matters: the same set of objects gives the same `Cluster`.
#[derive(Debug)]
pub struct Cluster {
    pub(crate) config: Config,
    services: HashMap<ServiceId, Service>,
    slices: HashMap<SliceId, EndpointSlice>,
    slices_of: Index<ServiceId, SliceId>,
    node_names: Names,
    nodes: BTreeMap<Box<str>, Node>,
    node_addresses: Index<IpAddr, Box<str>>,
    service_cidrs: BTreeMap<Box<str>, Vec<IpNet>>,
    /// Invariant: no range lies within another one.
    service_ranges: BTreeSet<IpNet>,
    /// Invariant: the selection of `config.pod_sources`.
    pod_sources: BTreeSet<IpNet>,
    /// Invariant: the selection of `config.pod_sources`.
    remote_pods: BTreeSet<IpNet>,
    host_addresses: BTreeSet<NodeAddress>,
    api_server: BTreeSet<SocketAddr>,
    /// Schedulers that the kernel lacks, or that the configuration disables.
    missing_schedulers: BTreeSet<Scheduler>,
    /// Invariant: the selection of `config.node_ports`, and 127.0.0.1 if `config.localhost_node_ports`.
    node_port_addresses: Vec<IpAddr>,
    /// The Services with a VIP at an address.
    on_address: Index<IpAddr, ServiceId>,
    /// The slices with an endpoint at an address, if the endpoint can be on this node.
    endpoints_here: Index<IpAddr, SliceId>,
    /// Services with a port on node addresses. A change of these addresses touches them.
    with_node_port: BTreeSet<ServiceId>,
    filtered: BTreeSet<ServiceId>,
    /// Services that ask for forwarding without NAT. Endpoints that are Nodes prevent it.
    forwarded: BTreeSet<ServiceId>,
    claims: claims::Claims,
    changed: HashSet<ServiceId>,
}

impl Cluster {
    pub(crate) fn new(config: Config) -> Self {
        let mut cluster = Self {
            pod_sources: config.pod_sources.select(None),
            remote_pods: BTreeSet::new(),
            services: HashMap::default(),
            slices: HashMap::default(),
            slices_of: Index::default(),
            node_names: Names::default(),
            nodes: BTreeMap::new(),
            node_addresses: Index::default(),
            service_cidrs: BTreeMap::new(),
            service_ranges: BTreeSet::new(),
            host_addresses: BTreeSet::new(),
            api_server: BTreeSet::new(),
            missing_schedulers: config.missing_schedulers.clone(),
            config,
            node_port_addresses: Vec::new(),
            on_address: Index::default(),
            endpoints_here: Index::default(),
            with_node_port: BTreeSet::new(),
            filtered: BTreeSet::new(),
            forwarded: BTreeSet::new(),
            claims: claims::Claims::default(),
            changed: HashSet::default(),
        };
        cluster.select_node_port_addresses();
        cluster
    }

    /// Applies one event. [`drain_dirty`](Self::drain_dirty) then returns the Services that it touched.
    pub(crate) fn apply(&mut self, event: Event) {
        match event {
            Event::ServiceApplied(service) => self.apply_service(service),
            Event::ServiceRemoved(id) => self.remove_service(&id),
            Event::SliceApplied(slice) => self.apply_slice(slice),
            Event::SliceRemoved(id) => self.remove_slice(&id),
            Event::NodeApplied(node) => self.apply_node(node.name.clone(), Some(node)),
            Event::NodeRemoved(name) => self.apply_node(name, None),
            Event::ServiceCidrApplied(ServiceCidr { name, ranges }) => {
                self.service_cidrs.insert(name, ranges);
                self.collapse_service_ranges();
            }
            Event::ServiceCidrRemoved(name) => {
                self.service_cidrs.remove(&name);
                self.collapse_service_ranges();
            }
            Event::NodeAddresses(addresses) => self.apply_host_addresses(addresses),
            Event::ApiServerAddresses(addresses) => {
                let old = std::mem::replace(&mut self.api_server, addresses);
                let changed = old.symmetric_difference(&self.api_server).map(SocketAddr::ip).collect();
                self.mark_users(&changed);
            }
        }
    }

    /// Records that the kernel lacks a scheduler, and marks the Services that chose it.
    pub(crate) fn record_missing(&mut self, scheduler: Scheduler) {
        if self.missing_schedulers.insert(scheduler) {
            let choosers = self.services.values().filter(|service| service.options().scheduler == Some(scheduler));
            self.changed.extend(choosers.map(|service| service.id.clone()));
        }
    }

    pub(crate) fn has_scheduler(&self, scheduler: Scheduler) -> bool {
        !self.missing_schedulers.contains(&scheduler)
    }

    /// The Services to compute again since the last call, including removed ones, sorted by namespace and name.
    pub(crate) fn drain_dirty(&mut self) -> Vec<ServiceId> {
        // Not `drain`: it would keep the capacity of the largest sync, and clear all of it at each later one.
        let mut changed: Vec<ServiceId> = mem::take(&mut self.changed).into_iter().collect();
        changed.sort_unstable();
        changed
    }

    /// Whether [`drain_dirty`](Self::drain_dirty) would return a Service.
    pub(crate) fn is_dirty(&self) -> bool {
        !self.changed.is_empty()
    }

    pub(crate) fn mark_all(&mut self) {
        self.changed.extend(self.services.keys().cloned());
    }

    pub(crate) fn mark_owner_dirty(&mut self, claim: &Claim) {
        if let Some(holder) = self.claims.holder(claim) {
            self.changed.insert(holder.port.service.clone());
        }
    }

    /// The Service with this name.
    pub fn service(&self, id: &ServiceId) -> Option<&Service> {
        self.services.get(id)
    }

    /// All Services, in any order.
    pub fn services(&self) -> impl Iterator<Item = &Service> {
        self.services.values()
    }

    /// The Services that have an address.
    pub fn services_at(&self, address: IpAddr) -> impl Iterator<Item = &ServiceId> {
        self.on_address.get(&address).iter()
    }

    /// The holder of a claim: the first of its claimants.
    pub fn holder(&self, claim: &Claim) -> Option<&Claimant> {
        self.claims.holder(claim)
    }

    /// The listeners that a Service asks for, including those that it does not get.
    pub(crate) fn listeners(&self, service: &Service) -> Listeners {
        listeners::listeners(service, &self.node_port_addresses, self.config.max_virtual_servers)
    }

    pub(crate) fn health_checks(&self, service: &Service) -> Vec<(Kind, VirtualServerKey)> {
        listeners::health_checks(service, &self.node_port_addresses)
    }

    /// The addresses on which node ports are served.
    pub fn node_port_addresses(&self) -> &[IpAddr] {
        &self.node_port_addresses
    }

    /// The name of this host's Node.
    pub fn hostname(&self) -> &str {
        &self.config.hostname
    }

    /// This host's Node.
    pub fn own_node(&self) -> Option<&Node> {
        self.nodes.get(&self.config.hostname)
    }

    pub(crate) fn is_local(&self, endpoint: &Endpoint) -> bool {
        endpoint.node.as_deref() == Some(&*self.config.hostname)
    }

    /// Another Node with this address. If the address were bound here, this host could not reach that Node.
    pub(crate) fn other_node_with(&self, address: IpAddr) -> Option<&str> {
        let mut names = self.node_addresses.get(&address).iter().map(|name| &**name);
        names.find(|name| *name != &*self.config.hostname)
    }

    /// Whether a range contains an `InternalIP` of this node or, if none is known, an address of this host.
    pub(crate) fn any_holds_this_node(&self, ranges: &[IpNet]) -> bool {
        let holds = |address: &IpAddr| ranges.iter().any(|range| range.contains(address));
        match self.own_internal_ips() {
            [] => self.global_host_addresses().any(|address| holds(&address)),
            ips => ips.iter().any(holds),
        }
    }

    /// The ranges of ClusterIPs.
    pub fn service_ranges(&self) -> &BTreeSet<IpNet> {
        &self.service_ranges
    }

    pub(crate) fn service_range_of(&self, address: IpAddr) -> Option<IpNet> {
        self.service_ranges.iter().copied().find(|range| range.contains(&address))
    }

    /// The pod ranges.
    pub fn pod_sources(&self) -> &BTreeSet<IpNet> {
        &self.pod_sources
    }

    /// The pod ranges of other nodes, for the families in which this node's pod ranges are known.
    pub fn remote_pods(&self) -> &BTreeSet<IpNet> {
        &self.remote_pods
    }

    /// The families in which the engine cannot tell pods of other nodes from pods of this node. Empty unless a Service
    /// has the external policy `Local`, which depends on it.
    pub fn unidentified_pods(&self) -> Vec<Family> {
        if !self.services.values().any(|service| service.external_policy == TrafficPolicy::Local) {
            return Vec::new();
        }
        self.config.pod_sources.unidentified(self.own_node(), &self.host_addresses)
    }

    /// Whether a Service's connections survive a failover of its addresses: it uses `mh` without NAT.
    pub(crate) fn any_fails_over(&self) -> bool {
        let mut options = self.forwarded.iter().filter_map(|id| self.services.get(id)).map(Service::options);
        options.any(|options| options.scheduler.unwrap_or(self.config.scheduler) == Scheduler::MH)
    }

    /// Whether an address belongs to this node, by a link of this host or by the status of its Node.
    pub(crate) fn is_own_address(&self, address: IpAddr) -> bool {
        self.is_host_address(address) || self.node_addresses.get(&address).contains(&self.config.hostname)
    }

    pub(crate) fn is_api_server(&self, address: IpAddr) -> bool {
        self.api_server.iter().any(|server| server.ip() == address)
    }

    pub(crate) fn is_api_server_at(&self, key: VirtualServerKey) -> bool {
        key.protocol == Protocol::Tcp && self.api_server.contains(&SocketAddr::new(key.address, key.port.get()))
    }

    /// Whether an address is on a link of this host other than `kube-ipvs0`.
    pub(crate) fn is_host_address(&self, address: IpAddr) -> bool {
        [true, false].iter().any(|&global| self.host_addresses.contains(&NodeAddress { address, global }))
    }

    fn collapse_service_ranges(&mut self) {
        let all: Vec<IpNet> = self.service_cidrs.values().flatten().copied().collect();
        let ranges = IpNet::aggregate(&all).into_iter().collect();
        if std::mem::replace(&mut self.service_ranges, ranges) != self.service_ranges {
            // An external IP can now be in one of the ranges, or out of them.
            let with_external_ips = self.services.values().filter(|service| !service.external_ips.is_empty());
            self.changed.extend(with_external_ips.map(|service| service.id.clone()));
        }
    }
}
