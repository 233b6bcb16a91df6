use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;
use ipvs_netlink::Persistence;
use litemap::LiteMap;

use super::{
    Desired, HealthCheck, SharedResource, Skipped, VirtualServer,
    backends::{Backends, any_serves},
    frontends::{Frontend, frontends, taken_health_checks},
    options,
};
use crate::{
    cluster::{Cluster, EndpointAddress, Kind, Listener},
    model::{Affinity, Endpoint, Family, Protocol, Service, ServiceId, ServicePort, TrafficPolicy, VirtualServerKey},
    set::KeySet,
};

/// The desired state of one Service. Empty if the Service does not exist.
pub(crate) fn of_service(cluster: &Cluster, id: &ServiceId) -> Desired {
    let mut desired = Desired::default();
    let Some(service) = cluster.service(id) else { return desired };
    let asked = cluster.listeners(service);
    if asked.left_out > 0 {
        let (limit, left_out) = (cluster.config.max_virtual_servers, asked.left_out);
        desired.skipped.insert(Skipped::TooManyVirtualServers { service: id.clone(), limit, left_out });
    }
    let mut listeners = asked.all;
    let port_of = |listener: &Listener| (listener.key.family(), listener.port);
    listeners.sort_by_key(port_of);
    let mut local_endpoints = 0;
    for family in families(service) {
        let mut local = BTreeSet::new();
        let endpoints = cluster.endpoints(id, family);
        for (index, port) in service.ports.iter().enumerate() {
            let start = listeners.partition_point(|listener| port_of(listener) < (family, index));
            let end = listeners.partition_point(|listener| port_of(listener) <= (family, index));
            let listeners = &listeners[start..end];
            let frontends = frontends(cluster, service, port, family, listeners, &mut desired.skipped);
            let endpoints = endpoints.of_port(port);
            local.extend(add_port(&mut desired, cluster, service, port, &frontends, &endpoints));
        }
        local_endpoints = local_endpoints.max(local.len());
    }
    if let Some(port) = service.asked_health_port() {
        desired.health_checks.insert(id.clone(), HealthCheck { port, local_endpoints });
        desired.skipped.extend(taken_health_checks(cluster, service));
    }
    desired
}

/// A Service has the families of its ClusterIPs. A Service without any is headless, or has no address yet.
fn families(service: &Service) -> impl Iterator<Item = Family> {
    Family::ALL.into_iter().filter(|family| service.has_family(*family))
}

/// Returns the port's endpoints on this node that take connections and do not terminate.
fn add_port(
    desired: &mut Desired,
    cluster: &Cluster,
    service: &Service,
    port: &ServicePort,
    frontends: &[Frontend],
    endpoints: &LiteMap<EndpointAddress, &Endpoint>,
) -> Vec<IpAddr> {
    let backends = Backends::new(cluster, service, endpoints, port.protocol);
    desired.skipped.extend(options::without_effect(cluster, service, port, &backends));
    let target = short_circuit_target(service, frontends);
    let is_target = |frontend: &Frontend| target == Some(frontend.key);
    let shortens = |frontend: &Frontend| frontend.kind.is_external() && service.external_policy == TrafficPolicy::Local;
    for frontend in frontends {
        let mut server = virtual_server(cluster, service, port, frontend, &backends);
        if service.options.is_some() {
            let is_diverted_to = is_target(frontend) && frontends.iter().any(shortens);
            let skipped = &mut desired.skipped;
            options::apply(&mut server, cluster, service, frontend, is_diverted_to, endpoints, skipped);
        }
        if frontend.kind == Kind::Loopback {
            // IPVS does not forward from 127.0.0.1 to another host, so a short circuit bypasses IPVS. The virtual
            // server exists for endpoints that drain.
            server.short_circuit = backends.nearest();
            server.short_circuited = vec![frontend.key];
        }
        match target {
            Some(target) if target == frontend.key => {
                server.short_circuited =
                    frontends.iter().filter(|other| shortens(other)).map(|other| other.key).collect();
            }
            // If no endpoint serves, the address itself must reject the connection. A reset from behind the short
            // circuit would not come from this address.
            Some(target) if shortens(frontend) => {
                let to = Some(EndpointAddress { address: target.address, port: target.port });
                match any_serves(&backends.cluster) {
                    true => server.short_circuit = to,
                    false => server.paused_short_circuit = to,
                }
            }
            _ => {}
        }
        desired.virtual_servers.insert(frontend.key, server);
        if frontend.bind {
            desired.shared.insert(SharedResource::Vip(frontend.key.address));
        }
        desired.shared.extend(health_check(service, frontend).map(SharedResource::HealthCheck));
    }
    if !frontends.is_empty() {
        // An endpoint that names no node can be on this node.
        let unplaced = endpoints.iter().filter(|(_, endpoint)| endpoint.node.is_none()).map(|(address, _)| address);
        let unplaced = unplaced.filter(|address| backends.cluster.contains_key(address));
        let here = backends.local.keys().chain(unplaced);
        let pods = here.filter(|address| !cluster.is_own_address(address.address));
        desired.shared.extend(pods.map(|address| SharedResource::Hairpin(port.protocol, *address)));
    }
    backends.well_on_this_node().collect()
}

/// The health check on a frontend's address, if kube-ipvs binds the address and would otherwise reject the check.
fn health_check(service: &Service, frontend: &Frontend) -> Option<VirtualServerKey> {
    let port = service.asked_health_port().filter(|_| frontend.bind && frontend.kind.is_external())?;
    Some(VirtualServerKey { address: frontend.key.address, protocol: Protocol::Tcp, port })
}

/// The virtual server that has all endpoints under any external policy.
fn short_circuit_target(service: &Service, frontends: &[Frontend]) -> Option<VirtualServerKey> {
    let kind = match service.internal_policy {
        TrafficPolicy::Cluster => Kind::ClusterIp,
        TrafficPolicy::Local => Kind::ShortCircuitTarget,
    };
    frontends.iter().find(|frontend| frontend.kind == kind).map(|frontend| frontend.key)
}

/// The only constructor of virtual servers, for every kind of address.
fn virtual_server(
    cluster: &Cluster,
    service: &Service,
    port: &ServicePort,
    frontend: &Frontend,
    backends: &Backends,
) -> VirtualServer {
    let policy = frontend.kind.policy(service);
    let real_servers = backends.of(policy, port.protocol);
    let allowed = match frontend.kind {
        Kind::LoadBalancerIp => allowed(cluster, service, frontend.key.address),
        _ => BTreeSet::new(),
    };
    let no_local =
        if frontend.kind.is_external() { KeySet::NoLocalEndpointsExternal } else { KeySet::NoLocalEndpoints };
    let sets = match (any_serves(&real_servers), any_serves(&backends.cluster)) {
        (true, _) => frontend.sets(policy),
        (false, true) => frontend.sets(policy).with(no_local),
        (false, false) => frontend.sets(policy).with(KeySet::NoEndpoints),
    };
    let (scheduler, flags) = options::scheduling(cluster, service.options());
    VirtualServer {
        owner: service.port_id(port),
        config: ipvs_netlink::VirtualServer {
            persistence: match service.affinity {
                Affinity::None => None,
                Affinity::ClientIp(seconds) => Some(Persistence::seconds(seconds.get())),
            },
            flags,
            ..ipvs_netlink::VirtualServer::new(scheduler)
        },
        real_servers,
        sets: if allowed.is_empty() { sets } else { sets.with(KeySet::Firewall) },
        allowed,
        short_circuit: None,
        paused_short_circuit: None,
        short_circuited: Vec::new(),
        max_drain_time: None,
    }
}

/// The sources that can reach a load-balancer IP. Empty: all sources. Kubernetes applies the ranges by family. A
/// process of this node uses the IP itself as its source, so the IP is allowed if the ranges contain this node.
fn allowed(cluster: &Cluster, service: &Service, address: IpAddr) -> BTreeSet<IpNet> {
    let family = Family::of(address);
    let mut ranges: Vec<IpNet> =
        service.source_ranges.iter().filter(|range| Family::of(range.addr()) == family).copied().collect();
    if cluster.any_holds_this_node(&ranges) {
        ranges.push(address.into());
    }
    IpNet::aggregate(&ranges).into_iter().collect()
}
