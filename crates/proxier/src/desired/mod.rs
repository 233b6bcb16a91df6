//! What the Services need: virtual servers with their real servers, VIPs and set memberships.
//!
//! Pure: no I/O, no clock, no failure. What a Service asks for and cannot have is returned as a reasoned
//! [`Skipped`], beside everything that it can have.

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
pub(crate) use service::of_service;
pub use skipped::{NotForwardable, Refusal, Skipped};

use crate::{
    cluster::EndpointAddress,
    model::{PortNumber, Protocol, ServiceId, ServicePortId, VirtualServerKey},
    set::KeySets,
};

/// What one Service needs, or several together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Desired {
    /// Its virtual servers. Claims see to it that no two Services have the same key.
    pub virtual_servers: BTreeMap<VirtualServerKey, VirtualServer>,
    /// What others may need too.
    pub shared: BTreeSet<SharedResource>,
    /// What it asks for and cannot have.
    pub skipped: BTreeSet<Skipped>,
    /// What load balancers are to be told that ask this node.
    pub health_checks: BTreeMap<ServiceId, HealthCheck>,
}

/// Where load balancers ask this node whether it has endpoints of a Service, and what they are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct HealthCheck {
    /// `spec.healthCheckNodePort`.
    pub port: PortNumber,
    /// How many endpoints of the Service on this node take connections and do not terminate. One with an address of
    /// each family counts once.
    pub local_endpoints: usize,
}

impl Desired {
    /// Leaves the first reasons, and of the others their number: one object is not to fill a log.
    pub(crate) fn cap_reasons(&mut self, service: &ServiceId) {
        const MOST: usize = 20;
        let count = self.skipped.len().saturating_sub(MOST);
        for _ in 0..count {
            self.skipped.pop_last();
        }
        if count > 0 {
            self.skipped.insert(Skipped::More { service: service.clone(), count });
        }
    }

    /// Adds what another Service needs.
    pub(crate) fn merge(&mut self, other: Self) {
        self.virtual_servers.extend(other.virtual_servers);
        self.shared.extend(other.shared);
        self.skipped.extend(other.skipped);
        self.health_checks.extend(other.health_checks);
    }
}

/// Something that several Services can need; it stays while any does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SharedResource {
    /// An address that `kube-ipvs0` must have.
    Vip(IpAddr),
    /// Where a load balancer asks for a Service's health, on a VIP of its own.
    HealthCheck(VirtualServerKey),
    /// An endpoint that may reach itself through a Service: it is on this node, or its node is unknown.
    Hairpin(Protocol, EndpointAddress),
}

/// One virtual server as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VirtualServer {
    /// The Service port that it serves.
    pub owner: ServicePortId,
    /// Scheduler, flags and persistence.
    pub config: ipvs_netlink::VirtualServer,
    /// Where connections go.
    pub real_servers: BTreeMap<EndpointAddress, RealServer>,
    /// The nftables sets that its key belongs to.
    pub sets: KeySets,
    /// Who may reach it, where only some may: no range lies within another one.
    pub allowed: BTreeSet<IpNet>,
    /// Where clients in the cluster are sent instead.
    pub short_circuit: Option<EndpointAddress>,
    /// The virtual servers whose clients in the cluster are sent here.
    pub short_circuited: Vec<VirtualServerKey>,
    /// How long a real server that left without terminating may keep its connections; none: the node's default.
    pub max_drain_time: Option<Duration>,
}

/// One real server as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RealServer {
    /// Takes connections.
    Serving {
        /// How.
        destination: ipvs_netlink::Destination,
        /// It is going away, and there is no better one. When it leaves the list nothing answers there any more. (One
        /// of UDP leaves as soon as there is a better one, too.)
        terminating: bool,
    },
    /// Is listed and takes no new connections: one that the kernel has keeps its established ones at weight
    /// 0; one that the kernel does not have is not added.
    Draining {
        /// It is going away. When it leaves the list nothing answers there any more.
        terminating: bool,
    },
}
