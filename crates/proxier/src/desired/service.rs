use std::{collections::BTreeMap, net::IpAddr};

use ipvs_netlink::{Destination, Forwarding, Persistence, Scheduler, ServiceFlags};

use super::{Desired, RealServer, Skipped, VirtualServer};
use crate::{
    cluster::{Claim, Cluster, EndpointAddress},
    config::Config,
    model::{
        Affinity, Conditions, Family, Protocol, Service, ServiceId, ServicePort, ServicePortId,
        VirtualServerKey,
    },
    set::{KeySet, KeySets},
};

/// Which kind of address a virtual server is on. The kinds differ in this data only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    ClusterIp,
    NodePort,
}

impl Kind {
    fn sets(self) -> KeySets {
        let served = KeySets::NONE.with(KeySet::Served);
        match self {
            Self::ClusterIp => served.with(KeySet::ClusterIps),
            Self::NodePort => served.with(KeySet::NodePorts),
        }
    }

    /// Whether its address is one that we bind, rather than one that the node has.
    fn is_vip(self) -> bool {
        self == Self::ClusterIp
    }
}

/// Where a Service port is to be reached.
#[derive(Debug, Clone, Copy)]
struct Frontend {
    kind: Kind,
    key: VirtualServerKey,
}

/// What one Service needs. A Service that does not exist (any more) needs nothing.
pub fn of_service(cluster: &Cluster, config: &Config, id: &ServiceId) -> Desired {
    let mut desired = Desired::default();
    let Some(service) = cluster.service(id) else { return desired };
    for port in &service.ports {
        for family in families(service) {
            let backends = real_servers(cluster.endpoints(id, family, port), port.protocol);
            for frontend in frontends(cluster, service, port, family, &mut desired.skipped) {
                let server = virtual_server(config, service, port, frontend.kind, &backends);
                desired.virtual_servers.insert(frontend.key, server);
                let address = frontend.key.address;
                if frontend.kind.is_vip() && !cluster.is_host_address(address) {
                    desired.vips.insert(address);
                }
            }
        }
    }
    desired
}

fn families(service: &Service) -> impl Iterator<Item = Family> {
    Family::ALL.into_iter().filter(|family| service.cluster_ips.iter().any(|ip| Family::of(*ip) == *family))
}

/// Where a port is to be reached in one family, less what others have.
fn frontends(
    cluster: &Cluster,
    service: &Service,
    port: &ServicePort,
    family: Family,
    skipped: &mut Vec<Skipped>,
) -> Vec<Frontend> {
    let id = service.port_id(port);
    let on = |kind, address, number| {
        let key = VirtualServerKey { address, protocol: port.protocol, port: number };
        Frontend { kind, key }
    };
    let cluster_ips = of_family(&service.cluster_ips, family);
    let mut wanted: Vec<_> = cluster_ips.map(|address| on(Kind::ClusterIp, address, port.port)).collect();
    if let Some(number) = port.node_port {
        match node_port_addresses(cluster, &id, Claim::NodePort(port.protocol, number), family) {
            Ok(addresses) => wanted.extend(addresses.map(|address| on(Kind::NodePort, address, number))),
            Err(reason) => skipped.push(reason),
        }
    }
    let taken = |frontend: &Frontend| taken(cluster, &id, Claim::VirtualServer(frontend.key));
    skipped.extend(wanted.iter().filter_map(taken));
    wanted.retain(|frontend| taken(frontend).is_none());
    wanted
}

/// On which addresses a node port is served, or why it is not.
fn node_port_addresses<'a>(
    cluster: &'a Cluster,
    id: &ServicePortId,
    claim: Claim,
    family: Family,
) -> Result<impl Iterator<Item = IpAddr> + use<'a>, Skipped> {
    if let Some(reason) = taken(cluster, id, claim) {
        return Err(reason);
    }
    let mut addresses = of_family(cluster.node_port_addresses(), family).peekable();
    match addresses.peek() {
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

/// The one constructor of virtual servers, for every kind of address.
fn virtual_server(
    config: &Config,
    service: &Service,
    port: &ServicePort,
    kind: Kind,
    backends: &BTreeMap<EndpointAddress, RealServer>,
) -> VirtualServer {
    let serving = backends.values().any(|backend| matches!(backend, RealServer::Serving { .. }));
    VirtualServer {
        owner: service.port_id(port),
        config: ipvs_netlink::VirtualServer {
            persistence: match service.affinity {
                Affinity::None => None,
                Affinity::ClientIp(seconds) => Some(Persistence::seconds(seconds.get())),
            },
            flags: scheduler_flags(config.scheduler),
            ..ipvs_netlink::VirtualServer::new(config.scheduler)
        },
        real_servers: backends.clone(),
        sets: if serving { kind.sets() } else { kind.sets().with(KeySet::NoEndpoints) },
    }
}

/// The hashing schedulers refuse whom they send to a real server of weight 0, unless they may fall back to another
/// one; and `mh` takes the client's port into account, as under kube-proxy.
fn scheduler_flags(scheduler: Scheduler) -> ServiceFlags {
    match scheduler {
        Scheduler::SH => ServiceFlags::SH_FALLBACK,
        Scheduler::MH => ServiceFlags::MH_FALLBACK | ServiceFlags::MH_PORT,
        _ => ServiceFlags::empty(),
    }
}

/// Which endpoints take connections: the ready ones; where there is none, those that are terminating and
/// still answer (KEP-1669). The rest drains, but for UDP: a flow would stay with its endpoint for ever.
fn real_servers(
    endpoints: BTreeMap<EndpointAddress, Conditions>,
    protocol: Protocol,
) -> BTreeMap<EndpointAddress, RealServer> {
    let any_ready = endpoints.values().any(|conditions| conditions.ready);
    let real_server = |conditions: Conditions| {
        let terminating = conditions.terminating;
        let serves = if any_ready { conditions.ready } else { conditions.serving && conditions.terminating };
        match (serves, protocol) {
            (true, _) => {
                Some(RealServer::Serving { destination: Destination::new(Forwarding::Masq, 1), terminating })
            }
            (false, Protocol::Udp) => None,
            (false, _) => Some(RealServer::Draining { terminating }),
        }
    };
    endpoints
        .into_iter()
        .filter_map(|(address, conditions)| Some((address, real_server(conditions)?)))
        .collect()
}
