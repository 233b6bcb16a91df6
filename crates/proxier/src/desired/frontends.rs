//! Where a Service port is to be reached.

use std::net::IpAddr;

use super::{Refusal, Skipped};
use crate::{
    cluster::{Claim, Cluster},
    model::{Family, PortNumber, Service, ServicePort, ServicePortId, TrafficPolicy, VirtualServerKey},
    set::{KeySet, KeySets},
};

/// Which kind of address a virtual server is on. The kinds differ in this data only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    ClusterIp,
    ExternalIp,
    LoadBalancerIp,
    NodePort,
    /// A node port on 127.0.0.1, for processes of this node.
    Loopback,
    /// Behind the short cuts of a Service whose ClusterIPs lead to local endpoints only.
    Inner,
}

impl Kind {
    /// To which endpoints it leads.
    pub(super) fn policy(self, service: &Service) -> TrafficPolicy {
        match self {
            Self::ClusterIp => service.internal_policy,
            Self::ExternalIp | Self::LoadBalancerIp | Self::NodePort => service.external_policy,
            Self::Loopback | Self::Inner => TrafficPolicy::Cluster,
        }
    }

    /// Whether its address is one that we bind, rather than one that the node has.
    fn is_vip(self) -> bool {
        !matches!(self, Self::NodePort | Self::Loopback)
    }

    /// Whether clients outside the cluster come by it.
    pub(super) fn is_external(self) -> bool {
        matches!(self, Self::ExternalIp | Self::LoadBalancerIp | Self::NodePort)
    }
}

/// Where a Service port is to be reached.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frontend {
    pub(super) kind: Kind,
    pub(super) key: VirtualServerKey,
    /// Whether its address is to be bound.
    pub(super) bind: bool,
}

impl Frontend {
    /// Which packets to it are masqueraded, and which may come.
    pub(super) fn sets(&self, policy: TrafficPolicy) -> KeySets {
        let served = KeySets::NONE.with(KeySet::Served);
        match (self.kind, policy) {
            (Kind::ClusterIp, _) => served.with(KeySet::ClusterIps),
            (Kind::Inner, _) => served.with(KeySet::Inner),
            (Kind::Loopback, _) => served.with(KeySet::MasqueradeInside),
            // Pods of other nodes come to a node's own address only.
            (_, TrafficPolicy::Cluster) if !self.bind => served.with(KeySet::MasqueradeAlways),
            (_, TrafficPolicy::Cluster) => served.with(KeySet::External),
            // The address of clients outside is kept: that is what the policy is for.
            (_, TrafficPolicy::Local) if !self.bind => served.with(KeySet::MasqueradeInside),
            (_, TrafficPolicy::Local) => served,
        }
    }
}

/// Where a port is to be reached in one family, less what others have.
pub(super) fn frontends(
    cluster: &Cluster,
    service: &Service,
    port: &ServicePort,
    family: Family,
    skipped: &mut Vec<Skipped>,
) -> Vec<Frontend> {
    let id = service.port_id(port);
    let mut wanted: Vec<Frontend> = Vec::new();
    let mut add = |kind: Kind, addresses: &[IpAddr], number: PortNumber| {
        for address in of_family(addresses, family) {
            let key = VirtualServerKey { address, protocol: port.protocol, port: number };
            // An address can be an external and a load-balancer IP at once: the first kind decides.
            if wanted.iter().all(|other| other.key != key) {
                wanted.push(Frontend { kind, key, bind: kind.is_vip() });
            }
        }
    };
    add(Kind::ClusterIp, &service.cluster_ips, port.port);
    add(Kind::LoadBalancerIp, &service.load_balancer_ips, port.port);
    add(Kind::ExternalIp, &service.external_ips, port.port);
    if let Some(number) = port.node_port {
        match node_port_addresses(cluster, &id, Claim::NodePort(port.protocol, number), family) {
            Ok(addresses) => {
                let (loopback, addresses): (Vec<_>, Vec<_>) =
                    addresses.iter().partition(|ip| ip.is_loopback());
                add(Kind::NodePort, &addresses, number);
                add(Kind::Loopback, &loopback, number);
            }
            Err(reason) => skipped.push(reason),
        }
    }
    if let Some(number) = service.inner_port(port) {
        add(Kind::Inner, &service.cluster_ips, number);
    }
    wanted.retain_mut(|frontend| match place(cluster, &id, frontend) {
        Ok(bind) => {
            frontend.bind &= bind;
            true
        }
        Err(reason) => {
            skipped.push(reason);
            false
        }
    });
    wanted
}

/// Whether the address of a frontend may be bound, or why it cannot be served at all.
fn place(cluster: &Cluster, id: &ServicePortId, frontend: &Frontend) -> Result<bool, Skipped> {
    let address = frontend.key.address;
    if let Some(reason) = taken(cluster, id, Claim::VirtualServer(frontend.key)) {
        return Err(reason);
    }
    if matches!(frontend.kind, Kind::ExternalIp | Kind::LoadBalancerIp) && cluster.is_api_server(address) {
        return Err(Skipped::Refused { service: id.service.clone(), address, why: Refusal::ApiServer });
    }
    if cluster.is_own_address(address) {
        return Ok(false);
    }
    match cluster.other_node_with(address) {
        Some(node) if frontend.kind.is_vip() => {
            Err(Skipped::NodeAddress { port: id.clone(), address, node: node.into() })
        }
        _ => Ok(true),
    }
}

/// On which addresses a node port is served, or why it is not.
fn node_port_addresses<'a>(
    cluster: &'a Cluster,
    id: &ServicePortId,
    claim: Claim,
    family: Family,
) -> Result<&'a [IpAddr], Skipped> {
    if let Some(reason) = taken(cluster, id, claim) {
        return Err(reason);
    }
    let addresses = cluster.node_port_addresses();
    match of_family(addresses, family).next() {
        Some(_) => Ok(addresses),
        None => Err(Skipped::NoNodeAddress { port: id.clone(), family }),
    }
}

/// Why a Service port does not have a claim that it asks for.
fn taken(cluster: &Cluster, id: &ServicePortId, claim: Claim) -> Option<Skipped> {
    let holder = cluster.holder(&claim).filter(|holder| holder.port != *id)?;
    Some(Skipped::Taken { port: id.clone(), claim, by: holder.port.clone() })
}

fn of_family(addresses: &[IpAddr], family: Family) -> impl Iterator<Item = IpAddr> {
    addresses.iter().copied().filter(move |address| Family::of(*address) == family)
}
