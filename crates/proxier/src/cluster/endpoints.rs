use std::{collections::BTreeMap, net::IpAddr};

use crate::model::{Conditions, Endpoint, EndpointSlice, Family, Hints, PortNumber, ServicePort};

/// Where one endpoint of a Service port listens.
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

/// The endpoints of one Service port in one family, each once, in the order of their addresses.
///
/// An endpoint can stand in two slices while the control plane moves it from one to the other. The one with the
/// better conditions counts, so that no order of slices makes a difference.
pub(super) fn of_port<'a>(
    slices: impl Iterator<Item = &'a EndpointSlice>,
    family: Family,
    port: &ServicePort,
) -> BTreeMap<EndpointAddress, &'a Endpoint> {
    let mut endpoints = BTreeMap::new();
    for slice in slices.filter(|slice| slice.family == family) {
        let target = |candidate: &&crate::model::EndpointPort| {
            candidate.name == port.name && candidate.protocol == port.protocol
        };
        for target in slice.ports.iter().filter(target) {
            for endpoint in &slice.endpoints {
                let key = EndpointAddress { address: endpoint.address, port: target.port };
                let known = endpoints.entry(key).or_insert(endpoint);
                if rank(endpoint) > rank(known) {
                    *known = endpoint;
                }
            }
        }
    }
    endpoints
}

/// Better conditions first; what else differs decides only so that something does.
fn rank(endpoint: &Endpoint) -> impl Ord + '_ {
    let Conditions { ready, serving, terminating } = endpoint.conditions;
    let Hints { zones, nodes } = &endpoint.hints;
    (ready, serving, !terminating, endpoint.node.as_deref(), zones, nodes, endpoint.weight)
}
