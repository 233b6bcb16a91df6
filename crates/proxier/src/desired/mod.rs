//! The desired state of Services: virtual servers with their real servers, VIPs and set memberships.
//!
//! Pure: no I/O, no clock, no errors. If a Service cannot have something that it asks for, the result contains a
//! [`Skipped`] with the reason, beside everything that it can have.

mod backends;
mod frontends;
mod options;
mod service;
mod skipped;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use ipnet::IpNet;
use litemap::LiteMap;
pub(crate) use service::of_service;
pub use skipped::{NatReason, Rejection, Skipped};

use crate::{
    cluster::EndpointAddress,
    model::{PortNumber, Protocol, ServiceId, ServicePortId, VirtualServerKey},
    set::KeySets,
};

/// The desired state of one Service, or of several.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Desired {
    /// Its virtual servers. Claims ensure that no two Services have the same key.
    pub virtual_servers: BTreeMap<VirtualServerKey, VirtualServer>,
    /// The resources that other Services can need too.
    pub shared: BTreeSet<SharedResource>,
    /// The requests that cannot be fulfilled.
    pub skipped: BTreeSet<Skipped>,
    /// The answers to load balancers that ask this node for its health.
    pub health_checks: BTreeMap<ServiceId, HealthCheck>,
}

/// The port on which load balancers ask this node whether it has endpoints of a Service, and the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct HealthCheck {
    /// `spec.healthCheckNodePort`.
    pub port: PortNumber,
    /// The number of local endpoints that take connections and do not terminate. A dual-stack endpoint counts once.
    pub local_endpoints: usize,
}

impl Desired {
    /// Keeps the first reasons and counts the others, so that one object cannot fill the log.
    pub(crate) fn cap_reasons(&mut self, service: &ServiceId) {
        const MAX_REASONS: usize = 20;
        let count = self.skipped.len().saturating_sub(MAX_REASONS);
        for _ in 0..count {
            self.skipped.pop_last();
        }
        if count > 0 {
            self.skipped.insert(Skipped::MoreOmitted { service: service.clone(), count });
        }
    }
}

/// A resource that several Services can need. It stays while any of them needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SharedResource {
    /// An address that `kube-ipvs0` must have.
    Vip(IpAddr),
    /// A health check of a Service on one of its VIPs.
    HealthCheck(VirtualServerKey),
    /// An endpoint that can reach itself through a Service: it is on this node, or its node is unknown.
    Hairpin(Protocol, EndpointAddress),
}

/// The desired state of one virtual server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VirtualServer {
    /// The Service port that it serves.
    pub owner: ServicePortId,
    /// Scheduler, flags and persistence.
    pub config: ipvs_netlink::VirtualServer,
    /// Its real servers.
    pub real_servers: LiteMap<EndpointAddress, RealServer>,
    /// The nftables sets that its key belongs to.
    pub sets: KeySets,
    /// The sources that can reach it. Empty: all sources. No range lies within another one.
    pub allowed: BTreeSet<IpNet>,
    /// The address to which a short circuit sends clients in the cluster instead.
    pub short_circuit: Option<EndpointAddress>,
    /// The short circuit that the virtual server would have if an endpoint served. Its connections continue.
    pub paused_short_circuit: Option<EndpointAddress>,
    /// The virtual servers whose short circuits lead to this one or to its endpoints.
    pub short_circuited: Vec<VirtualServerKey>,
    /// The maximum drain time of a real server that left without terminating. None: the node's default.
    pub max_drain_time: Option<Duration>,
}

/// The desired state of one real server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RealServer {
    /// Takes connections.
    Serving {
        /// Forwarding method, weight, thresholds.
        destination: ipvs_netlink::Destination,
        /// It is terminating, and no better endpoint exists. After it leaves the list, it does not answer. (A UDP real
        /// server is also removed as soon as a better endpoint exists.)
        terminating: bool,
    },
    /// Is listed and takes no new connections. It keeps its connections at weight 0, and is not added if missing.
    Draining {
        /// It is terminating. After it leaves the list, it does not answer.
        terminating: bool,
    },
}
