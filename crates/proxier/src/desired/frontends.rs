//! The addresses and ports at which a Service port is reached.

use std::{collections::BTreeSet, net::IpAddr};

use super::{Rejection, Skipped};
use crate::{
    cluster::{Claim, Cluster, Kind, Listener},
    model::{Family, Service, ServicePort, ServicePortId, TrafficPolicy, VirtualServerKey},
    set::{KeySet, KeySets},
};

impl Kind {
    pub(super) fn policy(self, service: &Service) -> TrafficPolicy {
        match self {
            Self::ClusterIp => service.internal_policy,
            Self::ExternalIp | Self::LoadBalancerIp | Self::NodePort => service.external_policy,
            Self::Loopback | Self::ShortCircuitTarget => TrafficPolicy::Cluster,
        }
    }

    fn is_node_port(self) -> bool {
        matches!(self, Self::NodePort | Self::Loopback)
    }

    pub(super) fn is_external(self) -> bool {
        matches!(self, Self::ExternalIp | Self::LoadBalancerIp | Self::NodePort)
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Frontend {
    pub(super) kind: Kind,
    pub(super) key: VirtualServerKey,
    pub(super) bind: bool,
}

impl Frontend {
    /// The sets that decide which packets to it are masqueraded, and which are accepted.
    pub(super) fn sets(&self, policy: TrafficPolicy) -> KeySets {
        let served = KeySets::NONE.with(KeySet::Served);
        match (self.kind, policy) {
            (Kind::ClusterIp, _) => served.with(KeySet::ClusterIps),
            (Kind::ShortCircuitTarget, _) => served.with(KeySet::ShortCircuitTarget),
            (Kind::Loopback, _) => served.with(KeySet::MasqueradeInside),
            // Only a node address has pods of other nodes as clients.
            (_, TrafficPolicy::Cluster) if !self.bind => served.with(KeySet::MasqueradeAlways),
            (_, TrafficPolicy::Cluster) => served.with(KeySet::External),
            // The policy `Local` preserves the address of clients outside the cluster.
            (_, TrafficPolicy::Local) if !self.bind => served.with(KeySet::MasqueradeInside),
            (_, TrafficPolicy::Local) => served,
        }
    }
}

/// The frontends of a port in one family: the `listeners` that it can have.
pub(super) fn frontends(
    cluster: &Cluster,
    service: &Service,
    port: &ServicePort,
    family: Family,
    listeners: &[Listener],
    skipped: &mut BTreeSet<Skipped>,
) -> Vec<Frontend> {
    let id = service.port_id(port);
    let no_node_port = without_node_port(cluster, &id, port, family);
    let mut frontends = Vec::new();
    for Listener { kind, key, .. } in listeners {
        if kind.is_node_port() && no_node_port.is_some() {
            continue;
        }
        match place(cluster, &id, *kind, *key) {
            Ok(bind) => frontends.push(Frontend { kind: *kind, key: *key, bind }),
            Err(reason) => drop(skipped.insert(reason)),
        }
    }
    skipped.extend(no_node_port);
    frontends
}

/// Whether a frontend's address must be bound, or why the frontend cannot be served.
fn place(cluster: &Cluster, id: &ServicePortId, kind: Kind, key: VirtualServerKey) -> Result<bool, Skipped> {
    let address = key.address;
    let rejected = |why| Skipped::AddressRejected { service: id.service.clone(), address, why };
    if let Some(why) = rejection(cluster, kind, address) {
        return Err(rejected(why));
    }
    if let Some(reason) = taken(cluster, id, Claim::VirtualServer(key)) {
        return Err(reason);
    }
    // The status of this host's Node does not count: an agent can have published the addresses of `kube-ipvs0` there.
    let bind = !cluster.is_host_address(address);
    match kind {
        Kind::NodePort | Kind::Loopback => Ok(false),
        // The API server allocated it, so it is no Node's address, even if a Node's status names it.
        Kind::ClusterIp | Kind::ShortCircuitTarget => Ok(bind),
        Kind::LoadBalancerIp | Kind::ExternalIp => {
            let is_own = cluster.is_own_address(address);
            if let Some(node) = cluster.other_node_with(address).filter(|_| !is_own) {
                return Err(Skipped::AddressOfOtherNode { port: id.clone(), address, node: node.into() });
            }
            let is_reserved = cluster.config.reserves(key.port) || cluster.is_api_server_at(key);
            if is_own && kind == Kind::ExternalIp && is_reserved {
                return Err(Skipped::ReservedPort { port: id.clone(), key });
            }
            if bind && cluster.is_api_server(address) {
                return Err(rejected(Rejection::ApiServerAddress));
            }
            Ok(bind)
        }
    }
}

/// Why no node serves the address.
fn rejection(cluster: &Cluster, kind: Kind, address: IpAddr) -> Option<Rejection> {
    match kind {
        Kind::ExternalIp if !cluster.config.allow_external_ips => Some(Rejection::ExternalIpsDisabled),
        Kind::ExternalIp if !cluster.config.allows_external_ip(address) => Some(Rejection::OutsideExternalIpRanges),
        Kind::ExternalIp => cluster.service_range_of(address).map(Rejection::ServiceCidr),
        _ => None,
    }
}

/// Why a port is not served on node addresses of a family, if it has a node port.
fn without_node_port(cluster: &Cluster, id: &ServicePortId, port: &ServicePort, family: Family) -> Option<Skipped> {
    let claim = Claim::NodePort(port.protocol, port.node_port?);
    if let Some(reason) = taken(cluster, id, claim) {
        return Some(reason);
    }
    let has_address = cluster.node_port_addresses().iter().any(|address| Family::of(*address) == family);
    (!has_address).then(|| Skipped::NoNodePortAddress { port: id.clone(), family })
}

/// The health checks of a Service that another Service's virtual server would answer.
pub(super) fn taken_health_checks<'a>(
    cluster: &'a Cluster,
    service: &'a Service,
) -> impl Iterator<Item = Skipped> + use<'a> {
    let keys = service.ports.first().into_iter().flat_map(|port| {
        let id = service.port_id(port);
        cluster.health_checks(service).into_iter().map(move |(_, key)| (id.clone(), key))
    });
    let taken = keys.filter_map(|(id, key)| taken(cluster, &id, Claim::VirtualServer(key)));
    taken.filter(|skipped| !matches!(skipped, Skipped::AddressInUse { port, by, .. } if port.service == by.service))
}

fn taken(cluster: &Cluster, id: &ServicePortId, claim: Claim) -> Option<Skipped> {
    let holder = cluster.holder(&claim).filter(|holder| holder.port != *id)?;
    let is_of_node = match claim {
        Claim::VirtualServer(key) => cluster.is_own_address(key.address),
        Claim::NodePort(..) => false,
    };
    Some(Skipped::AddressInUse { port: id.clone(), claim, by: holder.port.clone(), is_of_node })
}
