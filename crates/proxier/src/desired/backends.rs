//! The endpoints of a Service port that take connections.

use std::{iter, net::IpAddr};

use ipvs_netlink::{Destination, Forwarding};
use litemap::LiteMap;

use super::RealServer;
use crate::{
    cluster::{Cluster, EndpointAddress},
    model::{Conditions, Endpoint, Protocol, Service, TrafficPolicy, Weight},
};

pub(super) type RealServers = LiteMap<EndpointAddress, RealServer>;

pub(super) struct Backends {
    /// `Cluster`: all endpoints, or those that this node prefers.
    pub(super) cluster: RealServers,
    /// `Local`: the endpoints on this node.
    pub(super) local: RealServers,
}

impl Backends {
    pub(super) fn new(
        cluster: &Cluster,
        service: &Service,
        endpoints: &LiteMap<EndpointAddress, &Endpoint>,
        protocol: Protocol,
    ) -> Self {
        let weight = |endpoint: &Endpoint| match &service.options {
            Some(options) => options.weight(endpoint, cluster.is_local(endpoint)),
            None => endpoint.weight,
        };
        let preference = preference(cluster, endpoints);
        let prefers = |endpoint: &Endpoint| match &preference {
            Preference::None => true,
            Preference::Node(node) => endpoint.hints.nodes().iter().any(|hint| **hint == **node),
            Preference::Zone(zone) => endpoint.hints.zones().iter().any(|hint| **hint == **zone),
        };
        let all = endpoints.iter().map(|(address, endpoint)| (*address, *endpoint));
        let local = all.clone().filter(|(_, endpoint)| cluster.is_local(endpoint));
        Self {
            cluster: real_servers(all, prefers, weight, protocol),
            local: real_servers(local, |_| true, weight, protocol),
        }
    }
}

impl Backends {
    /// The real servers of a virtual server with this policy. A terminating endpoint on another node drains until it
    /// leaves the list: it can have connections from before the policy was `Local`.
    pub(super) fn of(&self, policy: TrafficPolicy, protocol: Protocol) -> RealServers {
        match policy {
            TrafficPolicy::Cluster => self.cluster.clone(),
            TrafficPolicy::Local => {
                let mut real_servers = self.local.clone();
                let terminating = self.cluster.iter().filter(|(_, server)| {
                    protocol != Protocol::Udp
                        && matches!(
                            server,
                            RealServer::Serving { terminating: true, .. } | RealServer::Draining { terminating: true }
                        )
                });
                for (address, _) in terminating {
                    real_servers.entry(*address).or_insert(RealServer::Draining { terminating: true });
                }
                real_servers
            }
        }
    }

    /// The endpoints on this node that take connections and do not terminate.
    pub(super) fn well_on_this_node(&self) -> impl Iterator<Item = IpAddr> {
        let is_well = |server: &RealServer| matches!(server, RealServer::Serving { terminating: false, .. });
        self.local.iter().filter(move |(_, server)| is_well(server)).map(|(at, _)| at.address)
    }

    /// An endpoint that takes connections under the policy `Cluster`, preferably on this node.
    pub(super) fn nearest(&self) -> Option<EndpointAddress> {
        let serves = |(_, server): &(&EndpointAddress, &RealServer)| match server {
            RealServer::Serving { destination, .. } => destination.weight > 0,
            RealServer::Draining { .. } => false,
        };
        let mut serving = self.cluster.iter().filter(serves).map(|(address, _)| *address);
        let first = serving.next()?;
        let local = iter::once(first).chain(serving).find(|address| self.local.contains_key(address));
        Some(local.unwrap_or(first))
    }
}

pub(super) fn any_serves(real_servers: &RealServers) -> bool {
    real_servers.values().any(|server| matches!(server, RealServer::Serving { .. }))
}

enum Preference<'a> {
    None,
    Node(&'a str),
    Zone(&'a str),
}

/// The hints apply only if every ready endpoint has hints, and one of them names this node or its zone. Otherwise the
/// hints are out of date, or would exclude all endpoints (KEP-2433, KEP-3015).
fn preference<'a>(cluster: &'a Cluster, endpoints: &LiteMap<EndpointAddress, &Endpoint>) -> Preference<'a> {
    let ready = || endpoints.values().filter(|endpoint| endpoint.conditions.ready).map(|endpoint| &endpoint.hints);
    let node = cluster.hostname();
    let all_for_nodes = ready().all(|hints| !hints.nodes().is_empty());
    if all_for_nodes && ready().any(|hints| hints.nodes().iter().any(|hint| **hint == *node)) {
        return Preference::Node(node);
    }
    let Some(zone) = cluster.own_node().and_then(|node| node.zone.as_deref()) else {
        return Preference::None;
    };
    let all_for_zones = ready().all(|hints| !hints.zones().is_empty());
    if all_for_zones && ready().any(|hints| hints.zones().iter().any(|hint| **hint == *zone)) {
        return Preference::Zone(zone);
    }
    Preference::None
}

/// Ready endpoints that this node prefers take connections. If no endpoint is ready, terminating endpoints that still
/// answer take them (KEP-1669). An endpoint of weight 0 takes none. All others drain, except for UDP: a UDP flow would
/// stay with its endpoint for as long as the endpoint is listed.
fn real_servers<'a>(
    endpoints: impl Iterator<Item = (EndpointAddress, &'a Endpoint)> + Clone,
    prefers: impl Fn(&Endpoint) -> bool,
    weight: impl Fn(&Endpoint) -> Weight,
    protocol: Protocol,
) -> RealServers {
    let any_ready = endpoints.clone().any(|(_, endpoint)| endpoint.conditions.ready);
    let real_server = |endpoint: &Endpoint| {
        let Conditions { ready, serving, terminating } = endpoint.conditions;
        let serves = if any_ready { ready && prefers(endpoint) } else { serving && terminating };
        let weight = if serves { weight(endpoint) } else { 0 };
        match (weight, protocol) {
            (1.., _) => {
                let destination = Destination::new(Forwarding::Masq, weight.into());
                Some(RealServer::Serving { destination, terminating })
            }
            (0, Protocol::Udp) => None,
            (0, _) => Some(RealServer::Draining { terminating }),
        }
    };
    let mut real_servers = Vec::with_capacity(endpoints.size_hint().1.unwrap_or_default());
    real_servers.extend(endpoints.filter_map(|(address, endpoint)| Some((address, real_server(endpoint)?))));
    LiteMap::from_sorted_store_unchecked(real_servers)
}
