use std::{fmt, net::IpAddr};

use ipnet::IpNet;
use ipvs_netlink::Scheduler;

use crate::{
    cluster::{Claim, EndpointAddress},
    model::{Family, ServiceId, ServicePortId, VirtualServerKey},
};

/// A request of a Service that is not fulfilled, with the reason. `Display` prints both, and the remedy.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Skipped {
    /// It asks for more virtual servers than one Service can have. External IPs are left out first.
    TooManyVirtualServers {
        /// The Service.
        service: ServiceId,
        /// The limit of one Service.
        limit: usize,
        /// The number that is left out.
        left_out: usize,
    },
    /// Another Service has the claim: by kind (ClusterIP, node port, load-balancer IP, external IP), age or name.
    AddressInUse {
        /// The Service port.
        port: ServicePortId,
        /// The claim.
        claim: Claim,
        /// The Service port that has it.
        by: ServicePortId,
        /// Whether its address belongs to this node: it differs between nodes.
        is_of_node: bool,
    },
    /// Another program has a virtual server at this key.
    ForeignVirtualServer {
        /// The Service port.
        port: ServicePortId,
        /// The key.
        key: VirtualServerKey,
    },
    /// One of its addresses belongs to another Node. If it were bound here, this host could not reach that Node.
    AddressOfOtherNode {
        /// The Service port.
        port: ServicePortId,
        /// The address.
        address: IpAddr,
        /// The Node that has it.
        node: Box<str>,
    },
    /// No node serves one of its external or load-balancer IPs.
    AddressRejected {
        /// The Service.
        service: ServiceId,
        /// The address.
        address: IpAddr,
        /// The reason.
        why: Rejection,
    },
    /// One of its external IPs is an address of this node, which uses the port itself.
    ReservedPort {
        /// The Service port.
        port: ServicePortId,
        /// The key.
        key: VirtualServerKey,
    },
    /// It has a node port, and no address of this node serves node ports in this family.
    NoNodePortAddress {
        /// The Service port.
        port: ServicePortId,
        /// The family.
        family: Family,
    },
    /// It asks for forwarding without NAT, which is impossible. It is forwarded with NAT.
    ForwardingIgnored {
        /// The Service port.
        port: ServicePortId,
        /// The virtual server.
        key: VirtualServerKey,
        /// The reason.
        why: NatReason,
    },
    /// It asks for separate scheduling of datagrams, and answers would not reach their client. Flows are scheduled.
    DatagramSchedulingIgnored {
        /// The Service port.
        port: ServicePortId,
        /// The virtual server.
        key: VirtualServerKey,
    },
    /// The kernel lacks its scheduler.
    SchedulerMissing {
        /// The Service port.
        port: ServicePortId,
        /// The missing scheduler.
        missing: Scheduler,
        /// The scheduler that it gets.
        instead: Scheduler,
    },
    /// Its endpoints have weights that its scheduler ignores.
    WeightsIgnored {
        /// The Service port.
        port: ServicePortId,
        /// The scheduler.
        scheduler: Scheduler,
    },
    /// It configures hashing, and its scheduler does not hash.
    HashOptionsIgnored {
        /// The Service port.
        port: ServicePortId,
        /// The scheduler.
        scheduler: Scheduler,
    },
    /// More requests are not fulfilled, and their reasons are omitted.
    MoreOmitted {
        /// The Service.
        service: ServiceId,
        /// The number of omitted reasons.
        count: usize,
    },
}

/// Why an external or load-balancer IP is not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Rejection {
    /// The API server has this address. If it were bound here, this node could not reach the API server.
    ApiServerAddress,
    /// An external IP in a range of ClusterIPs. Another Service has it, or can get it.
    ServiceCidr(IpNet),
    /// External IPs are not allowed.
    ExternalIpsDisabled,
    /// External IPs are allowed only in some ranges, and none of them contains it.
    OutsideExternalIpRanges,
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ApiServerAddress => f.write_str("this node reaches the API server at that address"),
            Self::ServiceCidr(range) => {
                write!(f, "it is in the ServiceCIDR {range} and is not a ClusterIP of this Service")
            }
            Self::ExternalIpsDisabled => f.write_str("external IPs are not allowed"),
            Self::OutsideExternalIpRanges => f.write_str("no range for external IPs contains it"),
        }
    }
}

/// Why a virtual server cannot forward without NAT, so that its endpoints answer clients themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum NatReason {
    /// Its address belongs to this node, so no endpoint can have it.
    NodeAddress,
    /// Clients in the cluster come to it by NAT, from addresses with `externalTrafficPolicy: Local`.
    ShortCircuit,
    /// The endpoint listens on another port. Without NAT, ports stay the same.
    Port(EndpointAddress),
    /// The endpoint is on another node, or is one. That node has the VIP too, and would schedule the packet again.
    OtherNode(EndpointAddress),
}

impl fmt::Display for NatReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NodeAddress => f.write_str("it is an address of this node, so no endpoint can have it"),
            Self::ShortCircuit => f.write_str(
                "with externalTrafficPolicy: Local, clients in the cluster reach it by NAT from the Service's external \
                 addresses",
            ),
            Self::Port(endpoint) => {
                write!(f, "endpoint {endpoint} listens on another port, and only NAT translates ports")
            }
            Self::OtherNode(endpoint) => write!(
                f,
                "endpoint {endpoint} is on another node, which has the VIP too. A tunnel reaches pods there. Only \
                 NAT reaches an endpoint with the address of a node"
            ),
        }
    }
}

impl Skipped {
    /// The Service whose request is not fulfilled.
    pub fn service(&self) -> &ServiceId {
        match self {
            Self::TooManyVirtualServers { service, .. }
            | Self::AddressRejected { service, .. }
            | Self::MoreOmitted { service, .. } => service,
            Self::AddressInUse { port, .. }
            | Self::ForeignVirtualServer { port, .. }
            | Self::AddressOfOtherNode { port, .. }
            | Self::ReservedPort { port, .. }
            | Self::NoNodePortAddress { port, .. }
            | Self::ForwardingIgnored { port, .. }
            | Self::DatagramSchedulingIgnored { port, .. }
            | Self::SchedulerMissing { port, .. }
            | Self::WeightsIgnored { port, .. }
            | Self::HashOptionsIgnored { port, .. } => &port.service,
        }
    }
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooManyVirtualServers { service, limit, left_out } => {
                write!(f, "Service {service} is served on {limit} addresses and ports; {left_out} more are left out")
            }
            Self::MoreOmitted { service, count } => {
                write!(f, "Service {service} has {count} more parts that are not served as specified")
            }
            Self::AddressInUse { port, claim, by, .. } => {
                write!(
                    f,
                    "Service {port} does not get {claim}: Service {by} has priority by kind of address, age or name"
                )
            }
            Self::ForeignVirtualServer { port, key } => write!(
                f,
                "Service {port} does not get {key}: another program has a virtual server there. Remove it with ipvsadm \
                 -D, or give the Service another address or port"
            ),
            Self::AddressOfOtherNode { port, address, node } => {
                write!(f, "Service {port} is not served on {address} here: Node {node} has this address and serves it")
            }
            Self::AddressRejected { service, address, why } => {
                write!(f, "Service {service} is not served on {address}: {why}")
            }
            Self::ReservedPort { port, key } => write!(
                f,
                "Service {port} is not served on {key}: it is an address of this node, and the node uses the port \
                 itself"
            ),
            Self::NoNodePortAddress { port, family } => {
                write!(f, "Service {port} has a node port, and no {family} address of this node serves node ports")
            }
            Self::ForwardingIgnored { port, key, why } => {
                write!(f, "Service {port} asks for forwarding without NAT, and is forwarded with NAT on {key}: {why}")
            }
            Self::DatagramSchedulingIgnored { port, key } => write!(
                f,
                "Service {port} is scheduled by flow on {key}, not by datagram: with NAT, no answer would reach its \
                 client. Forward without NAT, or declare that there are no answers"
            ),
            Self::SchedulerMissing { port, missing, instead } => write!(
                f,
                "Service {port} is scheduled by {instead}: the kernel has no scheduler {missing}. Load the module \
                 ip_vs_{missing} and restart this proxy"
            ),
            Self::WeightsIgnored { port, scheduler } => {
                write!(f, "Service {port} has weights, and its scheduler {scheduler} ignores them")
            }
            Self::HashOptionsIgnored { port, scheduler } => write!(
                f,
                "Service {port} configures hashing, and its scheduler {scheduler} does not hash. Only sh and mh do"
            ),
        }
    }
}
