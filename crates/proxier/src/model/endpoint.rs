use std::{net::IpAddr, sync::Arc};

use super::{Family, PortNumber, Protocol, ServiceId, SliceId, Weight};

/// The fields of an EndpointSlice (`discovery.k8s.io/v1`) that a proxy acts on.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct EndpointSlice {
    /// `metadata.namespace` and `metadata.name`.
    pub id: SliceId,
    /// The Service named by the label `kubernetes.io/service-name`.
    pub service: ServiceId,
    /// `addressType`. Invariant: every endpoint's address has this family.
    pub family: Family,
    /// `ports`, which apply to every endpoint of the slice.
    pub ports: Vec<EndpointPort>,
    /// `endpoints`.
    pub endpoints: Vec<Endpoint>,
}

impl EndpointSlice {
    /// A slice without ports and endpoints.
    pub fn new(id: SliceId, service: ServiceId, family: Family) -> Self {
        Self { id, service, family, ports: Vec::new(), endpoints: Vec::new() }
    }
}

/// One entry of a slice's `ports`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct EndpointPort {
    /// `name` of the Service port.
    pub name: Arc<str>,
    /// `protocol`.
    pub protocol: Protocol,
    /// `port` on which the endpoint listens.
    pub port: PortNumber,
}

impl EndpointPort {
    /// A port of every endpoint of a slice.
    pub fn new(name: impl Into<Arc<str>>, protocol: Protocol, port: PortNumber) -> Self {
        Self { name: name.into(), protocol, port }
    }
}

/// One entry of a slice's `endpoints`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Endpoint {
    /// The first of `addresses`, the only one with a meaning.
    pub address: IpAddr,
    /// `conditions`.
    pub conditions: Conditions,
    /// `nodeName`.
    pub node: Option<Arc<str>>,
    /// `hints`.
    pub hints: Hints,
    /// The annotation `kube-ipvs.io/weight` of its slice. Default: 1.
    pub weight: Weight,
}

impl Endpoint {
    /// A ready endpoint of weight 1 on an unknown node.
    pub fn ready(address: IpAddr) -> Self {
        Self { address, conditions: Conditions::READY, node: None, hints: Hints::default(), weight: 1 }
    }
}

/// The zones and nodes that prefer an endpoint. The control plane computes them from `spec.trafficDistribution`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(from = "Lists", into = "Lists"))]
pub struct Hints {
    // Most endpoints have no hints, and then take no memory for them.
    lists: Option<Box<Lists>>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
struct Lists {
    zones: Vec<Arc<str>>,
    nodes: Vec<Arc<str>>,
}

impl Hints {
    /// Hints for these zones and nodes.
    pub fn new(zones: Vec<Arc<str>>, nodes: Vec<Arc<str>>) -> Self {
        Lists { zones, nodes }.into()
    }

    /// `forZones[].name`, as in the Node label `topology.kubernetes.io/zone`.
    pub fn zones(&self) -> &[Arc<str>] {
        self.lists.as_ref().map_or(&[], |lists| &lists.zones)
    }

    /// `forNodes[].name`: names of Nodes.
    pub fn nodes(&self) -> &[Arc<str>] {
        self.lists.as_ref().map_or(&[], |lists| &lists.nodes)
    }
}

impl From<Lists> for Hints {
    fn from(lists: Lists) -> Self {
        Self { lists: (lists != Lists::default()).then(|| lists.into()) }
    }
}

#[cfg(feature = "serde")]
impl From<Hints> for Lists {
    fn from(hints: Hints) -> Self {
        hints.lists.map(|lists| *lists).unwrap_or_default()
    }
}

/// An endpoint's `conditions` without the API's nulls: unknown `ready` and `serving` count as true.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Conditions {
    /// Can take new connections. Never set on a terminating endpoint, except with `publishNotReadyAddresses`.
    pub ready: bool,
    /// Answers, terminating or not.
    pub serving: bool,
    /// Is terminating.
    pub terminating: bool,
}

impl Conditions {
    /// A healthy endpoint.
    pub const READY: Self = Self { ready: true, serving: true, terminating: false };
    /// An endpoint that does not answer.
    pub const NOT_READY: Self = Self { ready: false, serving: false, terminating: false };
    /// A terminating endpoint that still answers.
    pub const SERVING_TERMINATING: Self = Self { ready: false, serving: true, terminating: true };
}
