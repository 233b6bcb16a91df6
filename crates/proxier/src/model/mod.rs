//! What the world says: Services, EndpointSlices and Nodes, slim and already valid.
//!
//! These are not the Kubernetes API types. They hold what a proxy acts on and nothing else, and a value that exists is
//! valid: a port is never 0, an address is an address. The program that feeds the [`Engine`](crate::Engine) turns API
//! objects or files into them, and rejects the invalid ones.

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

/// One thing that changed in the world.
///
/// An event carries the whole new object, never a difference, so a repeated or a re-ordered event does no
/// harm: the last one about an object decides.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A Service exists and looks like this.
    ServiceApplied(Service),
    /// A Service is gone.
    ServiceRemoved(ServiceId),
    /// An EndpointSlice exists and looks like this.
    SliceApplied(EndpointSlice),
    /// An EndpointSlice is gone.
    SliceRemoved(SliceId),
    /// A Node exists and looks like this.
    NodeApplied(Node),
    /// A Node is gone.
    NodeRemoved(Box<str>),
    /// A ServiceCIDR exists and looks like this.
    ServiceCidrApplied(ServiceCidr),
    /// A ServiceCIDR is gone.
    ServiceCidrRemoved(Box<str>),
    /// These are all the addresses that this host has, those of `kube-ipvs0` left out.
    NodeAddresses(BTreeSet<NodeAddress>),
    /// This is where we reach the API server. No external or load-balancer IP takes such an address from another host,
    /// and no external IP such a port of this one.
    ApiServerAddresses(BTreeSet<SocketAddr>),
}

/// Which object an event is about.
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
    /// Which object it is about: the last event about it decides.
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
