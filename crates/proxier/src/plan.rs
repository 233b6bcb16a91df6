//! What is to be done to the kernel, in order.

use std::{fmt, net::IpAddr, sync::Arc};

use ipvs_netlink::{Destination, VirtualServer};

use crate::{
    cluster::EndpointAddress,
    model::{Family, VirtualServerKey},
    set::{Element, KeySet},
};

/// One change of the kernel's state.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// Writes an element of an nftables set.
    AddElement {
        /// The set and the element.
        element: Element,
        /// The comment that it gets.
        comment: Option<Arc<str>>,
        /// Whether it is there already, with another comment.
        replace: bool,
    },
    /// Takes an element out of its set.
    RemoveElement {
        /// The set and the element.
        element: Element,
        /// Whether the virtual server goes that the element protects, or asks for nothing of its kind any more: then
        /// the element goes after all real servers that do.
        with_server: bool,
    },
    /// Makes a virtual server.
    AddServer {
        /// Where it listens.
        key: VirtualServerKey,
        /// Scheduler, flags and persistence.
        config: VirtualServer,
    },
    /// Changes a virtual server; its connections live on.
    UpdateServer {
        /// Where it listens.
        key: VirtualServerKey,
        /// Scheduler, flags and persistence.
        config: VirtualServer,
    },
    /// Removes a virtual server with its real servers.
    RemoveServer(VirtualServerKey),
    /// Adds a real server.
    AddRealServer {
        /// The virtual server.
        key: VirtualServerKey,
        /// The endpoint.
        address: EndpointAddress,
        /// Forwarding method, weight, thresholds.
        destination: Destination,
    },
    /// Changes a real server; its connections live on.
    UpdateRealServer {
        /// The virtual server.
        key: VirtualServerKey,
        /// The endpoint.
        address: EndpointAddress,
        /// Forwarding method, weight, thresholds.
        destination: Destination,
    },
    /// Removes a real server; what still goes through it is reset.
    RemoveRealServer {
        /// The virtual server.
        key: VirtualServerKey,
        /// The endpoint.
        address: EndpointAddress,
    },
    /// Binds an address to `kube-ipvs0`.
    Bind(IpAddr),
    /// Takes an address off `kube-ipvs0`.
    Unbind(IpAddr),
    /// Makes conntrack forget flows that would stay where they are, though they are wanted elsewhere now.
    DeleteFlows {
        /// Where their clients send to.
        to: VirtualServerKey,
        /// Where they go; none: wherever.
        endpoint: Option<EndpointAddress>,
    },
}

/// When in a plan a change is made. Adding: the record of ownership and the filter, then virtual servers with
/// their real servers, then what sends traffic to them. Removing: the other way round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Phase {
    /// Elements are written.
    WriteElements,
    /// Virtual servers are made or changed.
    WriteVirtualServers,
    /// Real servers are made or changed.
    WriteRealServers,
    /// Addresses are bound.
    BindVips,
    /// Short circuits are made.
    AddShortCircuits,
    /// Short circuits are undone.
    RemoveShortCircuits,
    /// Addresses are taken off.
    UnbindVips,
    /// Real servers and virtual servers are removed.
    RemoveServers,
    /// Elements are taken out.
    RemoveElements,
    /// Flows are forgotten.
    DeleteFlows,
}

impl Phase {
    const COUNT: usize = Self::DeleteFlows as usize + 1;
}

impl Change {
    /// When in a plan it is made.
    pub fn phase(&self) -> Phase {
        match self {
            Self::AddElement { element: Element::ShortCircuit(..), .. } => Phase::AddShortCircuits,
            Self::RemoveElement { element: Element::ShortCircuit(..), .. } => Phase::RemoveShortCircuits,
            // Source ranges protect a virtual server for as long as it is there, and its endpoints if another Service
            // takes its key.
            Self::RemoveElement { with_server: true, .. }
            | Self::RemoveElement { element: Element::Key(KeySet::Firewall, _), .. } => Phase::RemoveElements,
            // A set refuses a range that overlaps with one that is still to be taken out.
            Self::RemoveElement {
                element:
                    Element::Allowed(..)
                    | Element::ServiceRange(_)
                    | Element::PodSource(_)
                    | Element::RemotePod(_)
                    | Element::Outside(_),
                ..
            }
            | Self::AddElement { .. } => Phase::WriteElements,
            Self::AddServer { .. } | Self::UpdateServer { .. } => Phase::WriteVirtualServers,
            Self::AddRealServer { .. } | Self::UpdateRealServer { .. } => Phase::WriteRealServers,
            Self::Bind(_) => Phase::BindVips,
            Self::Unbind(_) => Phase::UnbindVips,
            Self::RemoveServer(_) | Self::RemoveRealServer { .. } => Phase::RemoveServers,
            Self::RemoveElement { .. } => Phase::RemoveElements,
            Self::DeleteFlows { .. } => Phase::DeleteFlows,
        }
    }

    /// The virtual server whose real server it is about, if it is about one.
    pub(crate) fn real_server_of(&self) -> Option<VirtualServerKey> {
        match self {
            Self::AddRealServer { key, .. }
            | Self::UpdateRealServer { key, .. }
            | Self::RemoveRealServer { key, .. } => Some(*key),
            _ => None,
        }
    }

    /// The virtual server that it is about, if it is about one.
    pub fn key(&self) -> Option<VirtualServerKey> {
        match self {
            Self::AddElement { element, .. } | Self::RemoveElement { element, .. } => match element {
                Element::Key(_, key) | Element::Allowed(key, _) | Element::ShortCircuit(key, _) => Some(*key),
                Element::Vip(_)
                | Element::ArpIgnore(_)
                | Element::Hairpin(..)
                | Element::HealthCheck(_)
                | Element::ServiceRange(_)
                | Element::PodSource(_)
                | Element::RemotePod(_)
                | Element::Outside(_) => None,
            },
            Self::AddServer { key, .. }
            | Self::UpdateServer { key, .. }
            | Self::RemoveServer(key)
            | Self::AddRealServer { key, .. }
            | Self::UpdateRealServer { key, .. }
            | Self::RemoveRealServer { key, .. }
            | Self::DeleteFlows { to: key, .. } => Some(*key),
            Self::Bind(_) | Self::Unbind(_) => None,
        }
    }
}

impl Change {
    /// The address on `kube-ipvs0` that it is about, if it is about one and no virtual server.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        match self {
            Self::Bind(address) | Self::Unbind(address) => Some(*address),
            Self::AddElement { element, .. } | Self::RemoveElement { element, .. } => match element {
                Element::Vip(address) => Some(*address),
                Element::ArpIgnore(address) => Some((*address).into()),
                _ => None,
            },
            _ => None,
        }
    }

    /// The family of the addresses that it is about.
    pub fn family(&self) -> Family {
        match self {
            Self::AddElement { element, .. } | Self::RemoveElement { element, .. } => element.family(),
            Self::AddServer { key, .. }
            | Self::UpdateServer { key, .. }
            | Self::RemoveServer(key)
            | Self::AddRealServer { key, .. }
            | Self::UpdateRealServer { key, .. }
            | Self::RemoveRealServer { key, .. }
            | Self::DeleteFlows { to: key, .. } => key.family(),
            Self::Bind(address) | Self::Unbind(address) => Family::of(*address),
        }
    }
}

/// `+` makes, `~` changes, `-` removes; then what it is, in the words of `ipvsadm` and `nft`.
impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddElement { element, comment, replace } => {
                let sign = if *replace { '~' } else { '+' };
                write!(f, "{sign} element {element}")?;
                comment.iter().try_for_each(|comment| write!(f, " comment {comment:?}"))
            }
            Self::RemoveElement { element, .. } => write!(f, "- element {element}"),
            Self::AddServer { key, config } => write!(f, "+ virtual server {key} {config}"),
            Self::UpdateServer { key, config } => write!(f, "~ virtual server {key} {config}"),
            Self::RemoveServer(key) => write!(f, "- virtual server {key}"),
            Self::AddRealServer { key, address, destination } => {
                write!(f, "+ real server {key} -> {address} {} {}", destination.forwarding, destination.weight)
            }
            Self::UpdateRealServer { key, address, destination } => {
                write!(f, "~ real server {key} -> {address} {} {}", destination.forwarding, destination.weight)
            }
            Self::RemoveRealServer { key, address } => write!(f, "- real server {key} -> {address}"),
            Self::Bind(address) => write!(f, "+ address {address}"),
            Self::Unbind(address) => write!(f, "- address {address}"),
            Self::DeleteFlows { to, endpoint: None } => write!(f, "- flows {to}"),
            Self::DeleteFlows { to, endpoint: Some(endpoint) } => write!(f, "- flows {to} -> {endpoint}"),
        }
    }
}

/// Changes in the order in which they are made. Prints one a line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    // Invariant: sorted by phase.
    changes: Vec<Change>,
}

impl Plan {
    /// Puts changes in order. Within a phase they stay as they come.
    pub fn new(mut changes: Vec<Change>) -> Self {
        // By counting, and in place: a first sync has tens of thousands of changes, megabytes of them.
        let mut next = [0; Phase::COUNT];
        changes.iter().for_each(|change| next[change.phase() as usize] += 1);
        let mut start = 0;
        for next in &mut next {
            start += std::mem::replace(next, start);
        }
        let place = |change: &Change| {
            let next = &mut next[change.phase() as usize];
            std::mem::replace(next, *next + 1)
        };
        let mut places: Vec<usize> = changes.iter().map(place).collect();
        for at in 0..changes.len() {
            // Each swap brings one change to its place, so that there are fewer swaps than changes.
            while places[at] != at {
                let to = places[at];
                changes.swap(at, to);
                places.swap(at, to);
            }
        }
        Self { changes }
    }

    /// The changes, in order.
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.changes.iter().try_for_each(|change| writeln!(f, "{change}"))
    }
}
