use std::{collections::BTreeSet, net::IpAddr};

use crate::model::{Family, Protocol, Service, VirtualServerKey};

/// The kind of an address that a Service port listens on. The order decides who gets an address and port: first
/// addresses that the API server allocated, then those of load balancers, then those that a Service only names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `spec.clusterIPs`.
    ClusterIp,
    /// A port of the ClusterIP behind short circuits, for a Service whose ClusterIPs lead only to local endpoints.
    ShortCircuitTarget,
    /// An address of the node.
    NodePort,
    /// A node port on 127.0.0.1, for processes of this node.
    Loopback,
    /// `status.loadBalancer`.
    LoadBalancerIp,
    /// `spec.externalIPs`.
    ExternalIp,
}

/// One address and port that a Service asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Listener {
    pub kind: Kind,
    /// The index of the port in `spec.ports`.
    pub port: usize,
    pub key: VirtualServerKey,
}

/// The listeners that a Service asks for, by kind, then in the Service's order of addresses and ports.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Listeners {
    pub all: Vec<Listener>,
    /// The number of listeners beyond the limit.
    pub left_out: usize,
}

/// The number of source ranges that count as one virtual server: each range is a set element.
const RANGES: usize = 10;

/// Families without a ClusterIP are left out: the Service cannot serve their addresses, so it must not block others.
pub(super) fn listeners(service: &Service, node_addresses: &[IpAddr], limit: usize) -> Listeners {
    let serves = |address: &IpAddr| service.has_family(Family::of(*address));
    let mut vips = BTreeSet::new();
    let mut sites: Vec<(Kind, IpAddr)> = Vec::new();
    for (kind, addresses) in [
        (Kind::ClusterIp, &service.cluster_ips),
        (Kind::LoadBalancerIp, &service.load_balancer_ips),
        (Kind::ExternalIp, &service.external_ips),
    ] {
        for address in addresses.iter().filter(|address| serves(address)) {
            // An address can be an external and a load-balancer IP at once: the first kind decides.
            if vips.insert(*address) {
                sites.push((kind, *address));
                sites.extend((kind == Kind::ClusterIp).then_some((Kind::ShortCircuitTarget, *address)));
            }
        }
    }
    for address in node_addresses.iter().filter(|address| serves(address)) {
        sites.push((if address.is_loopback() { Kind::Loopback } else { Kind::NodePort }, *address));
    }
    sites.sort_by_key(|(kind, _)| *kind);
    let inner_ports = service.inner_ports();
    let (mut listeners, mut left) = (Listeners::default(), limit);
    for (kind, address) in sites {
        let cost = match kind {
            Kind::LoadBalancerIp => 1 + service.source_ranges.len() / RANGES,
            _ => 1,
        };
        let is_node = node_addresses.contains(&address);
        let is_balanced = is_node && service.load_balancer_ips.contains(&address);
        for (index, port) in service.ports.iter().enumerate() {
            let number = match kind {
                Kind::ClusterIp | Kind::LoadBalancerIp => Some(port.port),
                Kind::ShortCircuitTarget => inner_ports.get(index).copied().flatten(),
                // A node port has no rivals, and can be served where external IPs are not.
                Kind::ExternalIp => Some(port.port).filter(|_| !is_node || port.node_port != Some(port.port)),
                // A load-balancer IP that is a node address comes first: it can have source ranges.
                Kind::NodePort | Kind::Loopback => port.node_port.filter(|number| *number != port.port || !is_balanced),
            };
            let Some(number) = number else { continue };
            if cost <= left {
                left -= cost;
                let key = VirtualServerKey { address, protocol: port.protocol, port: number };
                listeners.all.push(Listener { kind, port: index, key });
            } else {
                listeners.left_out += 1;
            }
        }
    }
    listeners
}

pub(super) fn health_checks(service: &Service, node_addresses: &[IpAddr]) -> Vec<(Kind, VirtualServerKey)> {
    let Some(port) = service.asked_health_port() else { return Vec::new() };
    let by_kind = [
        (Kind::NodePort, node_addresses),
        (Kind::LoadBalancerIp, &service.load_balancer_ips),
        (Kind::ExternalIp, &service.external_ips),
    ];
    let sites = by_kind.into_iter().flat_map(|(kind, addresses)| addresses.iter().map(move |at| (kind, *at)));
    let served = sites.filter(|(_, address)| service.has_family(Family::of(*address)));
    served.map(|(kind, address)| (kind, VirtualServerKey { address, protocol: Protocol::Tcp, port })).collect()
}
