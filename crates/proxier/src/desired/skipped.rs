use std::{fmt, net::IpAddr};

use crate::{
    cluster::Claim,
    model::{Family, ServicePortId, VirtualServerKey},
};

/// Something that a Service asks for and does not get, with the reason. `Display` says both, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Skipped {
    /// Another Service has it: the oldest one that asks, and of the same age the first by name.
    Taken {
        /// Who asks.
        port: ServicePortId,
        /// For what.
        claim: Claim,
        /// Who has it.
        by: ServicePortId,
    },
    /// Somebody else than kube-ipvs made a virtual server there.
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
    /// It has a node port, and no address of this node is to serve node ports of that family.
    NoNodeAddress {
        /// Who asks.
        port: ServicePortId,
        /// The family that the Service has.
        family: Family,
    },
}

impl Skipped {
    /// The Service port that does not get what it asks for.
    pub fn port(&self) -> &ServicePortId {
        match self {
            Self::Taken { port, .. }
            | Self::Foreign { port, .. }
            | Self::NodeAddress { port, .. }
            | Self::NoNodeAddress { port, .. } => port,
        }
    }
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Taken { port, claim, by } => {
                write!(
                    f,
                    "Service {port} does not get {claim}: Service {by} has it, the older one, or the first by name"
                )
            }
            Self::Foreign { port, key } => write!(
                f,
                "Service {port} does not get {key}: the kernel has a virtual server there that kube-ipvs did not \
                 make; remove it with ipvsadm -D, or give the Service another address or port"
            ),
            Self::NodeAddress { port, address, node } => write!(
                f,
                "Service {port} is not served on {address} here: it is an address of Node {node}, which serves it"
            ),
            Self::NoNodeAddress { port, family } => write!(
                f,
                "Service {port} has a node port and no {family} address of this node serves node ports \
                 (--nodeport-addresses)"
            ),
        }
    }
}
