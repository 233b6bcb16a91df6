use std::{fmt, net::IpAddr};

use ipnet::IpNet;
use ipvs_netlink::Scheduler;

use crate::{
    cluster::{Claim, EndpointAddress},
    model::{Family, ServiceId, ServicePortId, VirtualServerKey},
};

/// Something that a Service asks for and does not get, with the reason. `Display` says both, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Skipped {
    /// It asks for more virtual servers than one Service can have. The last ones by kind of address are left out:
    /// external IPs first.
    TooMany {
        /// Who asks.
        service: ServiceId,
        /// How many it can have.
        limit: usize,
        /// How many are left out.
        left_out: usize,
    },
    /// Another Service has it: one that asks for it as a ClusterIP, a node port, a load-balancer IP or an external IP,
    /// in this order; then the oldest one, then the first by name.
    Taken {
        /// Who asks.
        port: ServicePortId,
        /// For what.
        claim: Claim,
        /// Who has it.
        by: ServicePortId,
        /// Whether its address is this node's own: every node has another one.
        is_of_node: bool,
    },
    /// Another program made a virtual server there.
    Foreign {
        /// Who asks.
        port: ServicePortId,
        /// For what.
        key: VirtualServerKey,
    },
    /// An address of it is another Node's, which could not be reached from here if it were bound.
    NodeAddress {
        /// Who asks.
        port: ServicePortId,
        /// For what.
        address: IpAddr,
        /// Whose it is.
        node: Box<str>,
    },
    /// One of its external or load-balancer IPs is served on no node.
    Refused {
        /// Who asks.
        service: ServiceId,
        /// For what.
        address: IpAddr,
        /// Why not.
        why: Refusal,
    },
    /// One of its external IPs is an address of this node, which uses the port itself.
    ReservedPort {
        /// Who asks.
        port: ServicePortId,
        /// For what.
        key: VirtualServerKey,
    },
    /// It has a node port, and no address of this node is to serve node ports of that family.
    NoNodeAddress {
        /// Who asks.
        port: ServicePortId,
        /// The family that the Service has.
        family: Family,
    },
    /// It is to be forwarded without NAT, and that cannot be: it is forwarded with it.
    Forwarding {
        /// Who asks.
        port: ServicePortId,
        /// Where.
        key: VirtualServerKey,
        /// Why it cannot be.
        why: NotForwardable,
    },
    /// Every datagram is to be scheduled by itself, and answers would not reach their client: flows are scheduled.
    OnePacket {
        /// Who asks.
        port: ServicePortId,
        /// Where.
        key: VirtualServerKey,
    },
    /// The kernel does not have its scheduler.
    Scheduler {
        /// Who asks.
        port: ServicePortId,
        /// For what.
        missing: Scheduler,
        /// What it gets.
        instead: Scheduler,
    },
    /// Its endpoints have weights of which its scheduler takes no notice.
    Weights {
        /// Who asks.
        port: ServicePortId,
        /// The scheduler.
        scheduler: Scheduler,
    },
    /// It says how clients are hashed, and its scheduler does not hash.
    Hash {
        /// Who asks.
        port: ServicePortId,
        /// The scheduler.
        scheduler: Scheduler,
    },
    /// There is more that it does not get, and enough has been said.
    More {
        /// Who asks.
        service: ServiceId,
        /// How many reasons are not said.
        count: usize,
    },
}

/// Why an external or load-balancer IP is not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Refusal {
    /// The API server is there. Bound here, it could not be reached any more.
    ApiServer,
    /// An external IP in a range from which ClusterIPs are taken. It is another Service's, or will be.
    ServiceRange(IpNet),
    /// External IPs are not served.
    Disallowed,
    /// External IPs are served in some ranges only, and it is in none of them.
    OutOfRange,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ApiServer => f.write_str("this node reaches the API server at that address"),
            Self::ServiceRange(range) => {
                write!(f, "the ServiceCIDR {range} is for ClusterIPs, and it is no ClusterIP of this Service")
            }
            Self::Disallowed => f.write_str("external IPs are not allowed"),
            Self::OutOfRange => f.write_str("no range for external IPs contains it"),
        }
    }
}

/// Why a virtual server cannot forward without NAT, so that its endpoints answer clients themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum NotForwardable {
    /// Its address is this node's, and no endpoint can have that.
    NodeAddress,
    /// Clients in the cluster come to it by NAT from other addresses of the Service, those of
    /// `externalTrafficPolicy: Local`.
    ShortCircuit,
    /// The endpoint listens on another port, and without NAT ports stay as they are.
    Port(EndpointAddress),
    /// The endpoint is behind another node, or is one. That node takes the VIP for its own and would schedule the
    /// packet again.
    OtherNode(EndpointAddress),
}

impl fmt::Display for NotForwardable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NodeAddress => f.write_str("it is an address of this node, which no endpoint can have"),
            Self::ShortCircuit => f.write_str(
                "with externalTrafficPolicy Local clients in the cluster come there by NAT from the Service's \
                 external addresses",
            ),
            Self::Port(endpoint) => {
                write!(f, "ports are not translated, and endpoint {endpoint} listens on another one")
            }
            Self::OtherNode(endpoint) => write!(
                f,
                "endpoint {endpoint} is at another node, which takes this address for its own; pods there can be \
                 reached by a tunnel, nodes themselves cannot"
            ),
        }
    }
}

impl Skipped {
    /// The Service that does not get what it asks for.
    pub fn service(&self) -> &ServiceId {
        match self {
            Self::TooMany { service, .. } | Self::Refused { service, .. } | Self::More { service, .. } => service,
            Self::Taken { port, .. }
            | Self::Foreign { port, .. }
            | Self::NodeAddress { port, .. }
            | Self::ReservedPort { port, .. }
            | Self::NoNodeAddress { port, .. }
            | Self::Forwarding { port, .. }
            | Self::OnePacket { port, .. }
            | Self::Scheduler { port, .. }
            | Self::Weights { port, .. }
            | Self::Hash { port, .. } => &port.service,
        }
    }
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooMany { service, limit, left_out } => {
                write!(f, "Service {service} is served on {limit} addresses and ports; {left_out} more are left out")
            }
            Self::More { service, count } => {
                write!(f, "Service {service} does not get {count} more things")
            }
            Self::Taken { port, claim, by, .. } => {
                write!(
                    f,
                    "Service {port} does not get {claim}: Service {by} comes first, by the kind of address, by age or by \
                     name"
                )
            }
            Self::Foreign { port, key } => write!(
                f,
                "Service {port} does not get {key}: the kernel has a virtual server there that another program \
                 made; remove it with ipvsadm -D, or give the Service another address or port"
            ),
            Self::NodeAddress { port, address, node } => write!(
                f,
                "Service {port} is not served on {address} here: it is an address of Node {node}, which serves it"
            ),
            Self::Refused { service, address, why } => {
                write!(f, "Service {service} is not served on {address}: {why}")
            }
            Self::ReservedPort { port, key } => write!(
                f,
                "Service {port} is not served on {key}: it is an address of this node, which uses the port itself"
            ),
            Self::NoNodeAddress { port, family } => {
                write!(f, "Service {port} has a node port and no {family} address of this node serves node ports")
            }
            Self::Forwarding { port, key, why } => {
                write!(f, "Service {port} is forwarded with NAT on {key}, not as it asks: {why}")
            }
            Self::OnePacket { port, key } => write!(
                f,
                "Service {port} does not get each datagram scheduled by itself on {key}: with NAT no answer would \
                 reach its client; forward without NAT, or declare that there are no answers"
            ),
            Self::Scheduler { port, missing, instead } => write!(
                f,
                "Service {port} is scheduled by {instead}: the kernel has no scheduler {missing}; load the module \
                 ip_vs_{missing} and restart this proxy"
            ),
            Self::Weights { port, scheduler } => {
                write!(f, "Service {port} has weights, and its scheduler {scheduler} takes no notice of them")
            }
            Self::Hash { port, scheduler } => write!(
                f,
                "Service {port} says how clients are hashed, and its scheduler {scheduler} hashes none: that is for sh \
                 and mh"
            ),
        }
    }
}
