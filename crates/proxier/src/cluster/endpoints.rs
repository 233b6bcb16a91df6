use std::{cmp::Reverse, net::IpAddr};

use litemap::LiteMap;

use crate::model::{Conditions, Endpoint, EndpointPort, EndpointSlice, Family, PortNumber, Protocol, ServicePort};

/// The address and port of one endpoint of a Service port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointAddress {
    /// The pod's address.
    pub address: IpAddr,
    /// The target port.
    pub port: PortNumber,
}

impl std::fmt::Display for EndpointAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::net::SocketAddr::new(self.address, self.port.get()).fmt(f)
    }
}

/// The endpoints of a Service in one family, by port. Each slice is visited once for all ports.
#[derive(Debug)]
pub(crate) struct Endpoints<'a> {
    /// Invariant: sorted by port.
    targets: Vec<(&'a EndpointPort, &'a [Endpoint])>,
}

impl<'a> Endpoints<'a> {
    pub(super) fn new(slices: impl Iterator<Item = &'a EndpointSlice>, family: Family) -> Self {
        let of_family = slices.filter(|slice| slice.family == family);
        let mut targets: Vec<_> =
            of_family.flat_map(|slice| slice.ports.iter().map(|port| (port, &*slice.endpoints))).collect();
        targets.sort_by(|(one, _), (other, _)| name(one).cmp(&name(other)));
        Self { targets }
    }

    /// An endpoint can be in two slices while the control plane moves it between them. The entry with the better
    /// conditions counts, so the order of the slices makes no difference.
    pub(crate) fn of_port(&self, port: &ServicePort) -> LiteMap<EndpointAddress, &'a Endpoint> {
        let wanted = (&*port.name, port.protocol);
        let start = self.targets.partition_point(|(port, _)| name(port) < wanted);
        let targets = self.targets[start..].iter().take_while(|(port, _)| name(port) == wanted);
        let mut endpoints = Vec::with_capacity(targets.clone().map(|(_, listed)| listed.len()).sum());
        for (EndpointPort { port, .. }, listed) in targets {
            endpoints.extend(listed.iter().map(|it| (EndpointAddress { address: it.address, port: *port }, it)));
        }
        endpoints.sort_unstable_by(|(one, first), (other, second)| {
            one.cmp(other).then_with(|| Reverse(rank(first)).cmp(&Reverse(rank(second))))
        });
        endpoints.dedup_by_key(|(address, _)| *address);
        LiteMap::from_sorted_store_unchecked(endpoints)
    }
}

/// The name by which a Service port finds its endpoints.
fn name(port: &EndpointPort) -> (&str, Protocol) {
    (&port.name, port.protocol)
}

/// Better conditions rank higher. The other fields only make the order total.
fn rank(endpoint: &Endpoint) -> impl Ord + '_ {
    let Conditions { ready, serving, terminating } = endpoint.conditions;
    let hints = &endpoint.hints;
    (ready, serving, !terminating, endpoint.node.as_deref(), hints.zones(), hints.nodes(), endpoint.weight)
}
