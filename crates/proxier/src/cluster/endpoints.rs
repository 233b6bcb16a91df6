use std::{collections::BTreeMap, net::IpAddr};

use foldhash::HashMap;

use crate::model::{
    Conditions, Endpoint, EndpointPort, EndpointSlice, Family, Hints, PortNumber, Protocol, ServicePort,
};

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
    targets: HashMap<(&'a str, Protocol), Vec<Target<'a>>>,
}

type Target<'a> = (PortNumber, &'a [Endpoint]);

impl<'a> Endpoints<'a> {
    pub(super) fn new(slices: impl Iterator<Item = &'a EndpointSlice>, family: Family) -> Self {
        let mut targets: HashMap<_, Vec<Target<'a>>> = HashMap::default();
        for slice in slices.filter(|slice| slice.family == family) {
            for EndpointPort { name, protocol, port } in &slice.ports {
                targets.entry((&**name, *protocol)).or_default().push((*port, &slice.endpoints[..]));
            }
        }
        Self { targets }
    }

    /// An endpoint can be in two slices while the control plane moves it between them. The entry with the better
    /// conditions counts, so the order of the slices makes no difference.
    pub(crate) fn of_port(&self, port: &ServicePort) -> BTreeMap<EndpointAddress, &'a Endpoint> {
        let mut endpoints = BTreeMap::new();
        for (port, listed) in self.targets.get(&(&*port.name, port.protocol)).into_iter().flatten() {
            for endpoint in *listed {
                let key = EndpointAddress { address: endpoint.address, port: *port };
                let known = endpoints.entry(key).or_insert(endpoint);
                if rank(endpoint) > rank(known) {
                    *known = endpoint;
                }
            }
        }
        endpoints
    }
}

/// Better conditions rank higher. The other fields only make the order total.
fn rank(endpoint: &Endpoint) -> impl Ord + '_ {
    let Conditions { ready, serving, terminating } = endpoint.conditions;
    let Hints { zones, nodes } = &endpoint.hints;
    (ready, serving, !terminating, endpoint.node.as_deref(), zones, nodes, endpoint.weight)
}
