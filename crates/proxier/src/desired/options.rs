//! Applies a Service's annotations, and reports those that cannot take effect.

use std::collections::BTreeSet;

use ipvs_netlink::{Forwarding as WireForwarding, Scheduler, ServiceFlags, Tunnel};
use litemap::LiteMap;

use super::{
    NatReason, RealServer, Skipped, VirtualServer,
    backends::{Backends, RealServers},
    frontends::Frontend,
};
use crate::{
    cluster::{Cluster, EndpointAddress, Kind},
    model::{Endpoint, Forwarding, HashOn, Protocol, Service, ServiceOptions, ServicePort, UdpScheduling},
    set::KeySet,
};

pub(super) fn scheduling(cluster: &Cluster, options: &ServiceOptions) -> (Scheduler, ServiceFlags) {
    let scheduler = scheduler(cluster, options);
    // Without the fallback flag, IPVS would reject a client whose endpoint drains. `mh` also hashes the client's port,
    // as under kube-proxy.
    let (fallback, port, hashes_port) = match scheduler {
        Scheduler::SH => (ServiceFlags::SH_FALLBACK, ServiceFlags::SH_PORT, false),
        Scheduler::MH => (ServiceFlags::MH_FALLBACK, ServiceFlags::MH_PORT, true),
        _ => return (scheduler, ServiceFlags::empty()),
    };
    let mut flags = ServiceFlags::empty();
    flags.set(fallback, options.hash_fallback.unwrap_or(true));
    flags.set(port, options.hash_on.map_or(hashes_port, |on| on == HashOn::AddressAndPort));
    (scheduler, flags)
}

fn scheduler(cluster: &Cluster, options: &ServiceOptions) -> Scheduler {
    options.scheduler.filter(|chosen| cluster.has_scheduler(*chosen)).unwrap_or(cluster.config.scheduler)
}

/// A scheduling option that has no effect, if there is one.
pub(super) fn without_effect(
    cluster: &Cluster,
    service: &Service,
    port: &ServicePort,
    backends: &Backends,
) -> Option<Skipped> {
    let options = service.options();
    let scheduler = scheduler(cluster, options);
    let port = || service.port_id(port);
    if let Some(missing) = options.scheduler.filter(|chosen| *chosen != scheduler) {
        return Some(Skipped::SchedulerMissing { port: port(), missing, instead: scheduler });
    }
    let hashes = [Scheduler::SH, Scheduler::MH].contains(&scheduler);
    if !hashes && (options.hash_on.is_some() || options.hash_fallback.is_some()) {
        return Some(Skipped::HashOptionsIgnored { port: port(), scheduler });
    }
    let is_blind = [Scheduler::RR, Scheduler::LC, Scheduler::DH].contains(&scheduler);
    (is_blind && differ(&backends.cluster)).then(|| Skipped::WeightsIgnored { port: port(), scheduler })
}

fn differ(real_servers: &RealServers) -> bool {
    let mut weights = real_servers.values().filter_map(|server| match server {
        RealServer::Serving { destination, .. } => Some(destination.weight),
        RealServer::Draining { .. } => None,
    });
    let first = weights.next();
    weights.any(|weight| Some(weight) != first)
}

/// `is_diverted_to`: whether short circuits lead to `server`.
pub(super) fn apply(
    server: &mut VirtualServer,
    cluster: &Cluster,
    service: &Service,
    frontend: &Frontend,
    is_diverted_to: bool,
    endpoints: &LiteMap<EndpointAddress, &Endpoint>,
    skipped: &mut BTreeSet<Skipped>,
) {
    let options = service.options();
    server.max_drain_time = options.max_drain_time;
    let (port, key) = (|| server.owner.clone(), frontend.key);
    let mut forwarding = Forwarding::Masq;
    if options.forwarding != Forwarding::Masq {
        let hindrance = hindrance(server, cluster, options, frontend, is_diverted_to, endpoints);
        match hindrance {
            Some(why) => drop(skipped.insert(Skipped::ForwardingIgnored { port: port(), key, why })),
            None => forwarding = options.forwarding,
        }
    }
    let per_datagram = match (key.protocol, options.udp_scheduling) {
        (Protocol::Tcp | Protocol::Sctp, _) | (_, UdpScheduling::Flow) => false,
        (Protocol::Udp, UdpScheduling::OneWayDatagram) => true,
        (Protocol::Udp, UdpScheduling::Datagram) => {
            if forwarding == Forwarding::Masq {
                skipped.insert(Skipped::DatagramSchedulingIgnored { port: port(), key });
            }
            forwarding != Forwarding::Masq
        }
    };
    server.config.flags.set(ServiceFlags::ONE_PACKET, per_datagram);
    if options.forwarding != Forwarding::Masq && can_be_endpoints(frontend) {
        // This holds even if this node uses NAT: answers to another node's packets can pass here.
        server.sets = server.sets.with(KeySet::DirectReturn);
    }
    if forwarding != Forwarding::Masq {
        // An endpoint that answers its clients directly must see their addresses.
        server.sets = server.sets.without(KeySet::ClusterIps).without(KeySet::External);
        forward(&mut server.real_servers, forwarding);
    }
}

/// Whether endpoints can have the frontend's address on their own interfaces.
fn can_be_endpoints(frontend: &Frontend) -> bool {
    frontend.bind && !matches!(frontend.kind, Kind::NodePort | Kind::ShortCircuitTarget)
}

/// All real servers forward in the same way: masquerading is decided per virtual server, and no endpoint is left out
/// because only NAT reaches it.
fn hindrance(
    server: &VirtualServer,
    cluster: &Cluster,
    options: &ServiceOptions,
    frontend: &Frontend,
    is_diverted_to: bool,
    endpoints: &LiteMap<EndpointAddress, &Endpoint>,
) -> Option<NatReason> {
    if is_diverted_to || frontend.kind == Kind::ShortCircuitTarget {
        return Some(NatReason::ShortCircuit);
    }
    if !can_be_endpoints(frontend) {
        return Some(NatReason::NodeAddress);
    }
    let serving = server.real_servers.iter().filter(|(_, real)| matches!(real, RealServer::Serving { .. }));
    serving.map(|(at, _)| *at).find_map(|at| {
        if at.port != frontend.key.port {
            return Some(NatReason::Port(at));
        }
        // For direct routing, the link-layer neighbour would be the other node. A tunnel ends at the pod.
        let is_elsewhere = |endpoint: &&Endpoint| endpoint.node.is_some() && !cluster.is_local(endpoint);
        let is_behind_node = options.forwarding == Forwarding::Direct && endpoints.get(&at).is_some_and(is_elsewhere);
        let is_node = cluster.other_node_with(at.address).is_some();
        (is_behind_node || is_node).then_some(NatReason::OtherNode(at))
    })
}

fn forward(real_servers: &mut RealServers, forwarding: Forwarding) {
    let forwarding = match forwarding {
        Forwarding::Masq => WireForwarding::Masq,
        Forwarding::Direct => WireForwarding::Direct,
        Forwarding::Ipip => WireForwarding::Tunnel(Tunnel::IPIP),
        Forwarding::Gre => WireForwarding::Tunnel(Tunnel::GRE),
        Forwarding::Gue(port) => WireForwarding::Tunnel(Tunnel::gue(port.get())),
    };
    for (_, server) in real_servers.iter_mut() {
        if let RealServer::Serving { destination, .. } = server {
            destination.forwarding = forwarding;
        }
    }
}

#[cfg(test)]
mod tests;
