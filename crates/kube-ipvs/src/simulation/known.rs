//! The reference model: the objects that the daemon has received, and the endpoints to which they entitle clients. It
//! shares no code with the engine.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

use ipnet::IpNet;
use proxier::{
    cluster::EndpointAddress,
    model::{Family, PortNumber, Protocol, VirtualServerKey},
};

use super::{
    api::{Id, Logged},
    objects::{
        Content, Endpoint, Port, Service, Slice, Stored, Which, balancer_ip, cluster_ip, external_ip, host_ip, target,
    },
};

/// The kinds of addresses, in the order of their precedence for a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    ClusterIp,
    Inner,
    NodePort,
    Loopback,
    Balancer,
    External,
}

/// The Service port that holds a key.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Claim {
    kind: Kind,
    created: i64,
    pub(super) service: u8,
    port: Port,
}

/// The state that an endpoint must have in a virtual server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Serving { terminating: bool },
    Draining { terminating: bool },
    Unlisted,
}

#[derive(Debug, Default)]
pub(super) struct Known {
    services: BTreeMap<u8, Service>,
    slices: BTreeMap<String, Slice>,
    /// Objects of which this daemon has read a valid version. They can be deleted since: a deleted Service has no claim
    /// to its state, even if an invalid one now has its name.
    read: BTreeSet<Id>,
    /// Objects that exist, and of which this daemon has read no valid version.
    unread: BTreeSet<Id>,
    localhost: bool,
    claims: BTreeMap<VirtualServerKey, Claim>,
}

impl Known {
    pub(super) fn new(localhost: bool) -> Self {
        Self { localhost, ..Self::default() }
    }

    pub(super) fn list(&mut self, which: Which, objects: &[(Id, Stored)]) {
        let is_listed = |id: &Id| objects.iter().any(|(listed, _)| listed == id);
        match which {
            Which::Services => {
                self.services.retain(|_, service| is_listed(&(which, service.shape.name())));
            }
            Which::Slices => self.slices.retain(|name, _| is_listed(&(which, name.clone()))),
            Which::Node | Which::Cidrs => {}
        }
        self.unread.retain(|id| id.0 != which || is_listed(id));
        objects.iter().for_each(|(id, stored)| self.apply(id, stored));
        self.claim();
    }

    pub(super) fn take(&mut self, id: &Id, logged: &Logged) {
        match logged {
            Logged::Applied(stored) => self.apply(id, stored),
            Logged::Deleted(_) => {
                self.unread.remove(id);
                self.services.retain(|_, service| id.0 != Which::Services || service.shape.name() != id.1);
                if id.0 == Which::Slices {
                    self.slices.remove(&id.1);
                }
            }
        }
        self.claim();
    }

    /// If an object is invalid, its last valid version stays in force.
    fn apply(&mut self, id: &Id, stored: &Stored) {
        match &stored.content {
            Some(Content::Service(service)) => drop(self.services.insert(service.shape.name, service.clone())),
            Some(Content::Slice(slice)) => drop(self.slices.insert(id.1.clone(), slice.clone())),
            Some(Content::Other) => {}
            None => {
                if !self.read.contains(id) {
                    self.unread.insert(id.clone());
                }
                return;
            }
        }
        self.read.insert(id.clone());
        self.unread.remove(id);
    }

    /// Assigns each key to one Service port: the kind of address decides first, and then the age of the Service.
    fn claim(&mut self) {
        self.claims.clear();
        for service in self.services.values() {
            for (kind, key, port) in keys(service, self.localhost) {
                let new = Claim { kind, created: service.created, service: service.shape.name, port };
                let rank = |claim: &Claim| (claim.kind, claim.created, claim.service, port_name(claim.port));
                let there = self.claims.get(&key);
                if there.is_none_or(|there| rank(&new) < rank(there)) {
                    self.claims.insert(key, new);
                }
            }
        }
    }

    pub(super) fn claims(&self) -> &BTreeMap<VirtualServerKey, Claim> {
        &self.claims
    }

    /// Whether a Service exists and the daemon has read no valid version of it. `port`: its port as in the record.
    pub(super) fn is_unread(&self, port: &str) -> bool {
        let service = port.strip_prefix("default/").and_then(|port| port.split(':').next());
        service.is_some_and(|name| self.unread.contains(&(Which::Services, name.to_owned())))
    }

    fn service_of(&self, key: &VirtualServerKey) -> Option<(&Claim, &Service)> {
        let claim = self.claims.get(key)?;
        Some((claim, self.services.get(&claim.service)?))
    }

    pub(super) fn has_affinity(&self, key: &VirtualServerKey) -> bool {
        self.service_of(key).is_some_and(|(_, service)| service.shape.affinity > 0)
    }

    /// The sources that can reach a key; `None` if all can. A process of this node has the key's address as its source.
    pub(super) fn sources(&self, key: &VirtualServerKey) -> Option<Vec<IpNet>> {
        let (claim, service) = self.service_of(key)?;
        let ranges = service.shape.source_ranges();
        if claim.kind != Kind::Balancer || ranges.is_empty() {
            return None;
        }
        let own = IpNet::from(key.address);
        Some(IpNet::aggregate(&[ranges, vec![own]].concat()))
    }

    /// The virtual server to which a short circuit leads clients inside the cluster.
    pub(super) fn short_circuit(&self, key: &VirtualServerKey) -> Option<VirtualServerKey> {
        let (claim, service) = self.service_of(key)?;
        let is_external = matches!(claim.kind, Kind::NodePort | Kind::Balancer | Kind::External);
        if !is_external || !service.shape.local {
            return None;
        }
        let number = if service.shape.local_inside { inner(claim.port) } else { number(claim.port) };
        Some(VirtualServerKey { address: cluster_ip(key.family(), service.ip), port: number, ..*key })
    }

    pub(super) fn place(&self, key: &VirtualServerKey, address: EndpointAddress) -> Place {
        let Some((claim, service)) = self.service_of(key) else { return Place::Unlisted };
        let is_local_only = match claim.kind {
            Kind::ClusterIp => service.shape.local_inside,
            Kind::NodePort | Kind::Balancer | Kind::External => service.shape.local,
            Kind::Inner | Kind::Loopback => false,
        };
        let all = self.endpoints(claim, key.family());
        let Some(endpoint) = all.get(&address) else { return Place::Unlisted };
        let is_in_scope = |endpoint: &Endpoint| !is_local_only || endpoint.is_local;
        let any_ready = all.values().any(|endpoint| is_in_scope(endpoint) && endpoint.ready);
        let takes = if any_ready { endpoint.ready } else { endpoint.serving && endpoint.terminating };
        let terminating = endpoint.terminating;
        match (is_in_scope(endpoint), takes) {
            (true, true) => Place::Serving { terminating },
            _ if key.protocol == Protocol::Udp => Place::Unlisted,
            (true, false) => Place::Draining { terminating },
            // A terminating endpoint of another node can have connections from before the policy was `Local`.
            (false, _) if terminating => Place::Draining { terminating },
            (false, _) => Place::Unlisted,
        }
    }

    /// The endpoints that take new connections.
    pub(super) fn serving(&self, key: &VirtualServerKey) -> BTreeSet<EndpointAddress> {
        let Some((claim, _)) = self.service_of(key) else { return BTreeSet::new() };
        let all = self.endpoints(claim, key.family()).into_keys();
        all.filter(|address| matches!(self.place(key, *address), Place::Serving { .. })).collect()
    }

    /// An endpoint can be in two slices, and then its better entry counts.
    fn endpoints(&self, claim: &Claim, family: Family) -> BTreeMap<EndpointAddress, Endpoint> {
        let mut all: BTreeMap<EndpointAddress, Endpoint> = BTreeMap::new();
        let of_service = |slice: &&Slice| slice.service == claim.service && slice.family == family;
        for slice in self.slices.values().filter(of_service).filter(|slice| slice.ports.contains(&claim.port)) {
            for endpoint in &slice.endpoints {
                let at = EndpointAddress { address: endpoint.address, port: target(claim.port) };
                let rank = |it: &Endpoint| (it.ready, it.serving, !it.terminating, it.is_local);
                if all.get(&at).is_none_or(|there| rank(there) < rank(endpoint)) {
                    all.insert(at, *endpoint);
                }
            }
        }
        all
    }
}

fn number(port: Port) -> PortNumber {
    PortNumber::new(port.1).unwrap()
}

/// The second port on the ClusterIP. It leads to all endpoints if the Service's own port leads only to local ones.
fn inner(port: Port) -> PortNumber {
    PortNumber::new(port.1 ^ 0x8000).unwrap()
}

fn port_name(port: Port) -> String {
    super::objects::port_name(port)
}

fn keys(service: &Service, localhost: bool) -> Vec<(Kind, VirtualServerKey, Port)> {
    let Service { shape, ip, .. } = service;
    let mut keys = Vec::new();
    let has_outer = shape.external.is_some() || shape.balancer.is_some();
    for &port in &shape.ports {
        let key = |address: IpAddr, number| VirtualServerKey { address, protocol: port.0.into(), port: number };
        for family in shape.families() {
            let cluster_ip = cluster_ip(family, *ip);
            keys.push((Kind::ClusterIp, key(cluster_ip, number(port)), port));
            if shape.local && shape.local_inside && (has_outer || shape.node_ports) {
                keys.push((Kind::Inner, key(cluster_ip, inner(port)), port));
            }
            if shape.node_ports {
                keys.push((Kind::NodePort, key(host_ip(family), shape.node_port(port)), port));
            }
        }
        if shape.node_ports && localhost {
            keys.push((Kind::Loopback, key(Ipv4Addr::LOCALHOST.into(), shape.node_port(port)), port));
        }
        keys.extend(shape.balancer.map(|at| (Kind::Balancer, key(balancer_ip(at), number(port)), port)));
        keys.extend(shape.external.map(|at| (Kind::External, key(external_ip(at), number(port)), port)));
    }
    keys
}
