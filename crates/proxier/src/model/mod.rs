//! The engine's input: Services, EndpointSlices and Nodes, reduced and validated.
//!
//! These are not the Kubernetes API types. They hold only the fields that a proxy acts on, and every value is valid: a
//! port is never 0, an address is an address. The program that feeds the [`Engine`](crate::Engine) converts API objects
//! or files, and rejects invalid ones.

mod address;
mod endpoint;
mod id;
mod node;
mod options;
mod service;

pub use address::{Family, NodeAddress, PortNumber, Protocol, UnknownProtocol, VirtualServerKey};
pub use endpoint::{Conditions, Endpoint, EndpointPort, EndpointSlice, Hints};
pub use id::{ServiceId, ServicePortId, SliceId};
pub use node::{Node, ServiceCidr};
pub use options::{Forwarding, HashOn, ServiceOptions, UdpScheduling, Weight};
pub use service::{Affinity, Service, ServicePort, Timestamp, TrafficPolicy};

use std::{collections::BTreeSet, net::SocketAddr};

/// One change of an input object.
///
/// An event carries the whole new object, never a difference. The last event about an object decides, so repeated and
/// reordered events do no harm.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Event {
    /// A Service was created or updated.
    ServiceApplied(Service),
    /// A Service was deleted.
    ServiceRemoved(ServiceId),
    /// An EndpointSlice was created or updated.
    SliceApplied(EndpointSlice),
    /// An EndpointSlice was deleted.
    SliceRemoved(SliceId),
    /// A Node was created or updated.
    NodeApplied(Node),
    /// A Node was deleted.
    NodeRemoved(Box<str>),
    /// A ServiceCIDR was created or updated.
    ServiceCidrApplied(ServiceCidr),
    /// A ServiceCIDR was deleted.
    ServiceCidrRemoved(Box<str>),
    /// All addresses of this host, except those of `kube-ipvs0`.
    NodeAddresses(BTreeSet<NodeAddress>),
    /// The addresses at which this node reaches the API server. No external or load-balancer IP takes such an address
    /// of another host. No external IP takes such a port of this host.
    ApiServerAddresses(BTreeSet<SocketAddr>),
}

/// The object that an event is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum ObjectId {
    /// A Service.
    Service(ServiceId),
    /// An EndpointSlice.
    Slice(SliceId),
    /// A Node, by its name.
    Node(Box<str>),
    /// A ServiceCIDR, by its name.
    ServiceCidr(Box<str>),
    /// The addresses of this host.
    NodeAddresses,
    /// The addresses of the API server.
    ApiServerAddresses,
}

impl Event {
    /// The object that this event is about. The last event about it decides.
    pub fn object(&self) -> ObjectId {
        match self {
            Self::ServiceApplied(Service { id, .. }) | Self::ServiceRemoved(id) => ObjectId::Service(id.clone()),
            Self::SliceApplied(EndpointSlice { id, .. }) | Self::SliceRemoved(id) => ObjectId::Slice(id.clone()),
            Self::NodeApplied(Node { name, .. }) | Self::NodeRemoved(name) => ObjectId::Node(name.clone()),
            Self::ServiceCidrApplied(ServiceCidr { name, .. }) | Self::ServiceCidrRemoved(name) => {
                ObjectId::ServiceCidr(name.clone())
            }
            Self::NodeAddresses(_) => ObjectId::NodeAddresses,
            Self::ApiServerAddresses(_) => ObjectId::ApiServerAddresses,
        }
    }
}
