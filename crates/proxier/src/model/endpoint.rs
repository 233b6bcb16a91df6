use std::{net::IpAddr, sync::Arc};

use super::{Family, PortNumber, Protocol, ServiceId, SliceId, Weight};

/// An EndpointSlice (`discovery.k8s.io/v1`), as far as a proxy acts on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointSlice {
    /// `metadata.namespace` and `metadata.name`.
    pub id: SliceId,
    /// The Service named by the label `kubernetes.io/service-name`.
    pub service: ServiceId,
    /// `addressType`. Invariant: the family of every endpoint's address.
    pub family: Family,
    /// `ports`: they hold for every endpoint of the slice.
    pub ports: Vec<EndpointPort>,
    /// `endpoints`.
    pub endpoints: Vec<Endpoint>,
}

impl EndpointSlice {
    /// A slice of this name that lists nothing yet.
    pub fn new(id: SliceId, service: ServiceId, family: Family) -> Self {
        Self { id, service, family, ports: Vec::new(), endpoints: Vec::new() }
    }
}

/// One entry of a slice's `ports`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointPort {
    /// `name`: the Service port that it belongs to.
    pub name: Arc<str>,
    /// `protocol`.
    pub protocol: Protocol,
    /// `port`: where the endpoint listens.
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
pub struct Endpoint {
    /// The first of `addresses`, the only one that has a meaning.
    pub address: IpAddr,
    /// `conditions`.
    pub conditions: Conditions,
    /// `nodeName`.
    pub node: Option<Arc<str>>,
    /// `hints`.
    pub hints: Hints,
    /// The annotation `kube-ipvs.io/weight` of its slice, by default 1.
    pub weight: Weight,
}

impl Endpoint {
    /// An endpoint that takes connections, of weight 1. On which node it is, is unknown.
    pub fn ready(address: IpAddr) -> Self {
        Self { address, conditions: Conditions::READY, node: None, hints: Hints::default(), weight: 1 }
    }
}

/// From where an endpoint is to be preferred, as the control plane works out of `spec.trafficDistribution`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hints {
    /// `forZones[].name`: zones, as the Node's label `topology.kubernetes.io/zone` has them.
    pub zones: Vec<Arc<str>>,
    /// `forNodes[].name`: names of Nodes.
    pub nodes: Vec<Arc<str>>,
}

/// An endpoint's `conditions`. The API's nulls are resolved: `ready` and `serving` unknown count as true.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conditions {
    /// May take new connections. Never set on a terminating endpoint, except with `publishNotReadyAddresses`.
    pub ready: bool,
    /// Answers, whether or not it is terminating.
    pub serving: bool,
    /// Is going away.
    pub terminating: bool,
}

impl Conditions {
    /// A healthy endpoint.
    pub const READY: Self = Self { ready: true, serving: true, terminating: false };
    /// An endpoint that exists and does not answer (yet).
    pub const NOT_READY: Self = Self { ready: false, serving: false, terminating: false };
    /// An endpoint that is going away and still answers.
    pub const SERVING_TERMINATING: Self = Self { ready: false, serving: true, terminating: true };
}
