//! Everything that is known of the world, indexed, and which Services a change of it touches.
//!
//! Services are coupled in one place only: the *claims*. A claim is something that one Service port alone can have,
//! such as `TCP 10.96.0.10:53` or a node port. When a Service gains or loses a claim, the cluster also marks the other
//! Services that ask for it as changed, and no others.

mod claims;
mod endpoints;
mod listeners;
mod nodes;

use std::{
    collections::{BTreeMap, BTreeSet},
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

use crate::{
    config::{Config, NodePortAddresses, PodSources},
    model::{
        Endpoint, EndpointSlice, Event, Family, Forwarding, Node, NodeAddress, Protocol, Service, ServiceCidr,
        ServiceId, ServicePort, SliceId, TrafficPolicy, VirtualServerKey,
    },
};

/// The state of the world.
///
/// The order of events never matters: the same set of objects gives the same `Cluster`.
#[derive(Debug)]
pub struct Cluster {
    hostname: Box<str>,
    node_port_policy: NodePortAddresses,
    localhost_node_ports: bool,
    pod_source_policy: PodSources,
    max_virtual_servers: usize,
    services: HashMap<ServiceId, Service>,
    slices: HashMap<SliceId, EndpointSlice>,
    slices_of: HashMap<ServiceId, BTreeSet<SliceId>>,
    nodes: BTreeMap<Box<str>, Node>,
    /// Which Nodes have an address.
    node_addresses: HashMap<IpAddr, BTreeSet<Box<str>>>,
    service_cidrs: BTreeMap<Box<str>, Vec<IpNet>>,
    /// All service CIDRs together. Invariant: no range lies within another one.
    service_ranges: BTreeSet<IpNet>,
    /// Where pods are. Invariant: what `pod_source_policy` selects.
    pod_sources: BTreeSet<IpNet>,
    /// Where pods of other nodes are. Invariant: what `pod_source_policy` selects.
    remote_pods: BTreeSet<IpNet>,
    host_addresses: BTreeSet<NodeAddress>,
    /// Where we reach the API server.
    api_server: BTreeSet<SocketAddr>,
    /// Schedulers that this host's kernel was seen not to have, or is not to be asked for.
    missing_schedulers: BTreeSet<Scheduler>,
    /// The addresses on which node ports are served. Invariant: what `node_port_policy` selects, and 127.0.0.1 if
    /// `localhost_node_ports`.
    node_port_addresses: Vec<IpAddr>,
    /// Which Services have an address: those that are touched when the host gets or loses it.
    on_address: HashMap<IpAddr, BTreeSet<ServiceId>>,
    /// Which slices have an endpoint that may be on this node, by its address: those that are touched when this node
    /// gets or loses the address.
    endpoints_here: HashMap<IpAddr, BTreeSet<SliceId>>,
    /// Services with a port on node addresses: those that a change of the addresses touches.
    with_node_port: BTreeSet<ServiceId>,
    /// Services with source ranges.
    filtered: BTreeSet<ServiceId>,
    /// Services that are to be forwarded without NAT, which endpoints that are Nodes stand in the way of.
    forwarded: BTreeSet<ServiceId>,
    claims: claims::Claims,
    changed: HashSet<ServiceId>,
}

impl Cluster {
    /// Nothing is known yet.
    pub(crate) fn new(config: &Config) -> Self {
        let mut cluster = Self {
            hostname: config.hostname.clone(),
            node_port_policy: config.node_ports.clone(),
            localhost_node_ports: config.localhost_node_ports,
            pod_source_policy: config.pod_sources.clone(),
            pod_sources: config.pod_sources.select(None),
            max_virtual_servers: config.max_virtual_servers,
            remote_pods: BTreeSet::new(),
            services: HashMap::default(),
            slices: HashMap::default(),
            slices_of: HashMap::default(),
            nodes: BTreeMap::new(),
            node_addresses: HashMap::default(),
            service_cidrs: BTreeMap::new(),
            service_ranges: BTreeSet::new(),
            host_addresses: BTreeSet::new(),
            api_server: BTreeSet::new(),
            missing_schedulers: config.missing_schedulers.clone(),
            node_port_addresses: Vec::new(),
            on_address: HashMap::default(),
            endpoints_here: HashMap::default(),
            with_node_port: BTreeSet::new(),
            filtered: BTreeSet::new(),
            forwarded: BTreeSet::new(),
            claims: claims::Claims::default(),
            changed: HashSet::default(),
        };
        cluster.select_node_port_addresses();
        cluster
    }

    /// Takes in one event. What it touches is in [`drain_dirty`](Self::drain_dirty) afterwards.
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

    /// This host's kernel does not have a scheduler. Those that choose it have to do without.
    pub(crate) fn record_missing(&mut self, scheduler: Scheduler) {
        if self.missing_schedulers.insert(scheduler) {
            let choosers = self.services.values().filter(|service| service.options().scheduler == Some(scheduler));
            self.changed.extend(choosers.map(|service| service.id.clone()));
        }
    }

    /// Whether this host's kernel has a scheduler, as far as is known.
    pub(crate) fn has_scheduler(&self, scheduler: Scheduler) -> bool {
        !self.missing_schedulers.contains(&scheduler)
    }

    /// The Services that have to be computed again since the last call, gone ones included, by namespace and name.
    pub(crate) fn drain_dirty(&mut self) -> Vec<ServiceId> {
        let mut changed: Vec<ServiceId> = self.changed.drain().collect();
        changed.sort_unstable();
        changed
    }

    /// Marks every Service changed: the next pass is a full one.
    pub(crate) fn mark_all(&mut self) {
        self.changed.extend(self.services.keys().cloned());
    }

    /// Marks the Service changed that has a claim.
    pub(crate) fn mark_owner_dirty(&mut self, claim: &Claim) {
        if let Some(holder) = self.claims.holder(claim) {
            self.changed.insert(holder.port.service.clone());
        }
    }

    /// A Service.
    pub fn service(&self, id: &ServiceId) -> Option<&Service> {
        self.services.get(id)
    }

    /// The Services that have an address.
    pub fn services_at(&self, address: IpAddr) -> impl Iterator<Item = &ServiceId> {
        self.on_address.get(&address).into_iter().flatten()
    }

    /// Who has a claim: the first in order of those who ask for it.
    pub fn holder(&self, claim: &Claim) -> Option<&Claimant> {
        self.claims.holder(claim)
    }

    /// What a Service asks for, whether or not it gets it.
    pub(crate) fn listeners(&self, service: &Service) -> Listeners {
        listeners::listeners(service, &self.node_port_addresses, self.max_virtual_servers)
    }

    /// Where a Service's load balancer asks for its health.
    pub(crate) fn health_checks(&self, service: &Service) -> Vec<(Kind, VirtualServerKey)> {
        listeners::health_checks(service, &self.node_port_addresses)
    }

    /// The addresses on which node ports are served.
    pub fn node_port_addresses(&self) -> &[IpAddr] {
        &self.node_port_addresses
    }

    /// The name of the Node that we run on.
    pub fn hostname(&self) -> &str {
        &self.hostname
    }

    /// The Node that we run on.
    pub fn own_node(&self) -> Option<&Node> {
        self.nodes.get(&self.hostname)
    }

    /// Whether an endpoint is on this node.
    pub(crate) fn is_local(&self, endpoint: &Endpoint) -> bool {
        endpoint.node.as_deref() == Some(&*self.hostname)
    }

    /// Another Node that has the address. Bound here, that Node could not be reached any more.
    pub(crate) fn other_node_with(&self, address: IpAddr) -> Option<&str> {
        let mut names = self.node_addresses.get(&address).into_iter().flatten().map(|name| &**name);
        names.find(|name| *name != &*self.hostname)
    }

    /// Whether one of the ranges has this node: an `InternalIP` of its Node, or where none is known an address of this
    /// host.
    pub(crate) fn any_holds_this_node(&self, ranges: &[IpNet]) -> bool {
        let holds = |address: &IpAddr| ranges.iter().any(|range| range.contains(address));
        match self.own_internal_ips() {
            [] => self.global_host_addresses().any(|address| holds(&address)),
            ips => ips.iter().any(holds),
        }
    }

    /// The ranges from which ClusterIPs are taken.
    pub fn service_ranges(&self) -> &BTreeSet<IpNet> {
        &self.service_ranges
    }

    /// The range from which ClusterIPs are taken that has an address.
    pub(crate) fn service_range_of(&self, address: IpAddr) -> Option<IpNet> {
        self.service_ranges.iter().copied().find(|range| range.contains(&address))
    }

    /// The sources of pods.
    pub fn pod_sources(&self) -> &BTreeSet<IpNet> {
        &self.pod_sources
    }

    /// Where pods of other nodes are, as far as they can be told from those of this one.
    pub fn remote_pods(&self) -> &BTreeSet<IpNet> {
        &self.remote_pods
    }

    /// The families whose pods of other nodes cannot be told from those of this one, if any Service asks for it: one
    /// whose external policy is `Local`.
    pub fn untold_pods(&self) -> Vec<Family> {
        if !self.services.values().any(|service| service.external_policy == TrafficPolicy::Local) {
            return Vec::new();
        }
        self.pod_source_policy.untold(self.own_node(), &self.host_addresses)
    }

    /// Whether a Service asks that its connections outlive a move of its addresses to another node: every node chooses
    /// the same endpoint for a client, and none translates.
    pub(crate) fn any_fails_over(&self, scheduler: Scheduler) -> bool {
        let mut options = self.forwarded.iter().filter_map(|id| self.services.get(id)).map(Service::options);
        options.any(|options| options.scheduler.unwrap_or(scheduler) == Scheduler::MH)
    }

    /// Whether the address is one of this node, on a link of this host or not.
    pub(crate) fn is_own_address(&self, address: IpAddr) -> bool {
        let of_own_node = |names: &BTreeSet<Box<str>>| names.contains(&self.hostname);
        self.is_host_address(address) || self.node_addresses.get(&address).is_some_and(of_own_node)
    }

    /// Whether we reach the API server at the address.
    pub(crate) fn is_api_server(&self, address: IpAddr) -> bool {
        self.api_server.iter().any(|server| server.ip() == address)
    }

    /// Whether we reach the API server there.
    pub(crate) fn is_api_server_at(&self, key: VirtualServerKey) -> bool {
        key.protocol == Protocol::Tcp && self.api_server.contains(&SocketAddr::new(key.address, key.port.get()))
    }

    /// Whether this host has the address on a link of its own.
    pub(crate) fn is_host_address(&self, address: IpAddr) -> bool {
        [true, false].iter().any(|&global| self.host_addresses.contains(&NodeAddress { address, global }))
    }

    /// The endpoints of a Service in one family.
    pub(crate) fn endpoints(&self, service: &ServiceId, family: Family) -> Endpoints<'_> {
        let ids = self.slices_of.get(service).into_iter().flatten();
        Endpoints::new(ids.filter_map(|id| self.slices.get(id)), family)
    }

    fn apply_service(&mut self, service: Service) {
        let old = self.services.get(&service.id);
        if old == Some(&service) {
            return;
        }
        // Only claims that change touch other Services.
        let before = old.map(|old| self.claims_of(old)).unwrap_or_default();
        let after = self.claims_of(&service);
        self.unindex(&service.id);
        self.changed.insert(service.id.clone());
        self.release(&service.id, before.difference(&after));
        self.claim(&service.id, after.difference(&before));
        for address in service.vips() {
            self.on_address.entry(address).or_default().insert(service.id.clone());
        }
        if !service.source_ranges.is_empty() {
            self.filtered.insert(service.id.clone());
        }
        if service.options().forwarding != Forwarding::Masq {
            self.forwarded.insert(service.id.clone());
        }
        if service.ports.iter().any(|port| port.node_port.is_some()) || service.health_check_port.is_some() {
            self.with_node_port.insert(service.id.clone());
        }
        self.services.insert(service.id.clone(), service);
    }

    fn remove_service(&mut self, id: &ServiceId) {
        let Some(old) = self.services.get(id) else { return };
        let claims = self.claims_of(old);
        self.unindex(id);
        self.changed.insert(id.clone());
        self.release(id, &claims);
    }

    /// Removes a Service from all but the claims.
    fn unindex(&mut self, id: &ServiceId) {
        let Some(old) = self.services.remove(id) else { return };
        self.with_node_port.remove(id);
        self.filtered.remove(id);
        self.forwarded.remove(id);
        for address in old.vips() {
            let Some(users) = self.on_address.get_mut(&address) else { continue };
            users.remove(id);
            if users.is_empty() {
                self.on_address.remove(&address);
            }
        }
    }

    fn collapse_service_ranges(&mut self) {
        let all: Vec<IpNet> = self.service_cidrs.values().flatten().copied().collect();
        let ranges = IpNet::aggregate(&all).into_iter().collect();
        if std::mem::replace(&mut self.service_ranges, ranges) != self.service_ranges {
            // Whether an external IP is in one of them may have changed.
            let with_external_ips = self.services.values().filter(|service| !service.external_ips.is_empty());
            self.changed.extend(with_external_ips.map(|service| service.id.clone()));
        }
    }

    fn apply_slice(&mut self, slice: EndpointSlice) {
        if self.slices.get(&slice.id) == Some(&slice) {
            return;
        }
        // A slice can move to another Service: the one that it leaves changes too.
        self.remove_slice(&slice.id);
        self.changed.insert(slice.service.clone());
        self.slices_of.entry(slice.service.clone()).or_default().insert(slice.id.clone());
        for address in self.may_be_here(&slice) {
            self.endpoints_here.entry(address).or_default().insert(slice.id.clone());
        }
        self.slices.insert(slice.id.clone(), slice);
    }

    fn remove_slice(&mut self, id: &SliceId) {
        let Some(old) = self.slices.remove(id) else { return };
        for address in self.may_be_here(&old) {
            let Some(slices) = self.endpoints_here.get_mut(&address) else { continue };
            slices.remove(id);
            if slices.is_empty() {
                self.endpoints_here.remove(&address);
            }
        }
        if let Some(siblings) = self.slices_of.get_mut(&old.service) {
            siblings.remove(id);
            if siblings.is_empty() {
                self.slices_of.remove(&old.service);
            }
        }
        self.changed.insert(old.service);
    }

    /// The addresses of endpoints that are on this node, or may be, as they name no node.
    fn may_be_here(&self, slice: &EndpointSlice) -> BTreeSet<IpAddr> {
        let endpoints = slice.endpoints.iter();
        let here = endpoints.filter(|endpoint| endpoint.node.is_none() || self.is_local(endpoint));
        here.map(|endpoint| endpoint.address).collect()
    }

    fn claim<'a>(&mut self, id: &ServiceId, claims: impl IntoIterator<Item = &'a (Claim, Claimant)>) {
        for (claim, claimant) in claims {
            let rivals = self.claims.add(*claim, claimant.clone());
            mark_rivals(&mut self.changed, id, rivals);
        }
    }

    fn release<'a>(&mut self, id: &ServiceId, claims: impl IntoIterator<Item = &'a (Claim, Claimant)>) {
        for (claim, claimant) in claims {
            let rivals = self.claims.remove(claim, claimant);
            mark_rivals(&mut self.changed, id, rivals);
        }
    }

    /// What a Service asks for: each address and port, its node ports as such, and where it is asked for its health.
    fn claims_of(&self, service: &Service) -> BTreeSet<(Claim, Claimant)> {
        let claimant =
            |kind, port: &ServicePort| Claimant { kind, created: service.created, port: service.port_id(port) };
        let listeners = self.listeners(service).all;
        let ports = service.ports.iter().filter(|_| !service.cluster_ips.is_empty());
        let node_ports = ports
            .filter_map(|port| Some((Claim::NodePort(port.protocol, port.node_port?), claimant(Kind::NodePort, port))));
        // No virtual server listens there, and none of another Service may: its endpoints would answer for the node.
        let health_checks = service.ports.first().into_iter().flat_map(|port| {
            let mut keys = self.health_checks(service);
            if !keys.is_empty() {
                let own: HashSet<_> = listeners.iter().map(|listener| listener.key).collect();
                keys.retain(|(_, key)| !own.contains(key));
            }
            keys.into_iter().map(move |(kind, key)| (Claim::VirtualServer(key), claimant(kind, port)))
        });
        let served = listeners.iter().filter_map(|Listener { kind, port, key }| {
            Some((Claim::VirtualServer(*key), claimant(*kind, service.ports.get(*port)?)))
        });
        served.chain(node_ports).chain(health_checks).collect()
    }
}

/// Marks those that share a claim with a Service that gained or lost it.
fn mark_rivals(changed: &mut HashSet<ServiceId>, service: &ServiceId, rivals: &[Claimant]) {
    let others = rivals.iter().map(|rival| &rival.port.service).filter(|id| *id != service);
    changed.extend(others.cloned());
}
