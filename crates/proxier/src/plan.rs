//! Changes to the kernel, in the order in which they are made.

use std::{fmt, net::IpAddr, sync::Arc};

use ipvs_netlink::{Destination, VirtualServer};

use crate::{
    cluster::EndpointAddress,
    model::{Family, VirtualServerKey},
    set::{Element, KeySet},
};

/// One change to the kernel's state.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Change {
    /// Writes an element of an nftables set.
    AddElement {
        /// The set and the element.
        element: Element,
        /// Its comment.
        comment: Option<Arc<str>>,
        /// Whether the element exists with another comment.
        replace: bool,
    },
    /// Removes an element from its set.
    RemoveElement {
        /// The set and the element.
        element: Element,
        /// Whether the virtual server that the element protects is removed, or needs no element of this kind any more.
        /// The plan then removes the element after real servers and virtual servers.
        with_server: bool,
    },
    /// Creates a virtual server.
    AddVirtualServer {
        /// Its address, protocol and port.
        key: VirtualServerKey,
        /// Scheduler, flags and persistence.
        config: VirtualServer,
    },
    /// Changes a virtual server. Its connections continue.
    UpdateVirtualServer {
        /// Its address, protocol and port.
        key: VirtualServerKey,
        /// Scheduler, flags and persistence.
        config: VirtualServer,
    },
    /// Removes a virtual server with its real servers.
    RemoveVirtualServer(VirtualServerKey),
    /// Adds a real server.
    AddRealServer {
        /// The virtual server.
        key: VirtualServerKey,
        /// The endpoint.
        address: EndpointAddress,
        /// Forwarding method, weight, thresholds.
        destination: Destination,
    },
    /// Changes a real server. Its connections continue.
    UpdateRealServer {
        /// The virtual server.
        key: VirtualServerKey,
        /// The endpoint.
        address: EndpointAddress,
        /// Forwarding method, weight, thresholds.
        destination: Destination,
    },
    /// Removes a real server. Its remaining connections are reset.
    RemoveRealServer {
        /// The virtual server.
        key: VirtualServerKey,
        /// The endpoint.
        address: EndpointAddress,
    },
    /// Binds an address to `kube-ipvs0`.
    Bind(IpAddr),
    /// Unbinds an address from `kube-ipvs0`.
    Unbind(IpAddr),
    /// Deletes conntrack entries, so that their flows move to the endpoint that now serves them.
    DeleteFlows {
        /// The virtual server that clients send to.
        to: VirtualServerKey,
        /// The endpoint of the flows. None: any endpoint.
        endpoint: Option<EndpointAddress>,
        /// Whether to delete only flows by a short circuit. IPVS tracks the other flows itself.
        by_short_circuit: bool,
    },
}

/// The place of a change in a plan. Additions: the record of ownership and the filter, then virtual servers with their
/// real servers, then addresses and short circuits, which send traffic to them. Removals: the reverse order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Phase {
    /// Elements are written.
    WriteElements,
    /// Virtual servers are created or changed.
    WriteVirtualServers,
    /// Real servers are created or changed.
    WriteRealServers,
    /// Addresses are bound.
    BindVips,
    /// Short circuits are added.
    AddShortCircuits,
    /// Short circuits are removed.
    RemoveShortCircuits,
    /// Addresses are unbound.
    UnbindVips,
    /// Real servers and virtual servers are removed.
    RemoveVirtualServers,
    /// Elements are removed.
    RemoveElements,
    /// Conntrack entries are deleted.
    DeleteFlows,
}

impl Phase {
    const COUNT: usize = Self::DeleteFlows as usize + 1;
}

impl Change {
    /// The phase in which a plan makes this change.
    pub fn phase(&self) -> Phase {
        match self {
            Self::AddElement { element: Element::ShortCircuit(..), .. } => Phase::AddShortCircuits,
            Self::RemoveElement { element: Element::ShortCircuit(..), .. } => Phase::RemoveShortCircuits,
            // Source ranges protect a virtual server until it is removed. If another Service takes its key, they
            // protect the old endpoints.
            Self::RemoveElement { with_server: true, .. }
            | Self::RemoveElement { element: Element::Key(KeySet::Firewall, _), .. } => Phase::RemoveElements,
            // A set rejects overlapping ranges, so old ranges go in the phase of the new ones.
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
            Self::AddVirtualServer { .. } | Self::UpdateVirtualServer { .. } => Phase::WriteVirtualServers,
            Self::AddRealServer { .. } | Self::UpdateRealServer { .. } => Phase::WriteRealServers,
            Self::Bind(_) => Phase::BindVips,
            Self::Unbind(_) => Phase::UnbindVips,
            Self::RemoveVirtualServer(_) | Self::RemoveRealServer { .. } => Phase::RemoveVirtualServers,
            Self::RemoveElement { .. } => Phase::RemoveElements,
            Self::DeleteFlows { .. } => Phase::DeleteFlows,
        }
    }

    /// The virtual server, if this change is about one of its real servers.
    pub(crate) fn real_server_of(&self) -> Option<VirtualServerKey> {
        match self {
            Self::AddRealServer { key, .. }
            | Self::UpdateRealServer { key, .. }
            | Self::RemoveRealServer { key, .. } => Some(*key),
            _ => None,
        }
    }

    /// The virtual server that this change is about.
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
            Self::AddVirtualServer { key, .. }
            | Self::UpdateVirtualServer { key, .. }
            | Self::RemoveVirtualServer(key)
            | Self::AddRealServer { key, .. }
            | Self::UpdateRealServer { key, .. }
            | Self::RemoveRealServer { key, .. }
            | Self::DeleteFlows { to: key, .. } => Some(*key),
            Self::Bind(_) | Self::Unbind(_) => None,
        }
    }
}

impl Change {
    /// The VIP, if this change is about a VIP and no virtual server.
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

    /// The family of its addresses.
    pub fn family(&self) -> Family {
        match self {
            Self::AddElement { element, .. } | Self::RemoveElement { element, .. } => element.family(),
            Self::AddVirtualServer { key, .. }
            | Self::UpdateVirtualServer { key, .. }
            | Self::RemoveVirtualServer(key)
            | Self::AddRealServer { key, .. }
            | Self::UpdateRealServer { key, .. }
            | Self::RemoveRealServer { key, .. }
            | Self::DeleteFlows { to: key, .. } => key.family(),
            Self::Bind(address) | Self::Unbind(address) => Family::of(*address),
        }
    }
}

/// `+` adds, `~` changes, `-` removes. The rest uses the words of `ipvsadm` and `nft`.
impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddElement { element, comment, replace } => {
                let sign = if *replace { '~' } else { '+' };
                write!(f, "{sign} element {element}")?;
                comment.iter().try_for_each(|comment| write!(f, " comment {comment:?}"))
            }
            Self::RemoveElement { element, .. } => write!(f, "- element {element}"),
            Self::AddVirtualServer { key, config } => write!(f, "+ virtual server {key} {config}"),
            Self::UpdateVirtualServer { key, config } => write!(f, "~ virtual server {key} {config}"),
            Self::RemoveVirtualServer(key) => write!(f, "- virtual server {key}"),
            Self::AddRealServer { key, address, destination } => {
                write!(f, "+ real server {key} -> {address} {} {}", destination.forwarding, destination.weight)
            }
            Self::UpdateRealServer { key, address, destination } => {
                write!(f, "~ real server {key} -> {address} {} {}", destination.forwarding, destination.weight)
            }
            Self::RemoveRealServer { key, address } => write!(f, "- real server {key} -> {address}"),
            Self::Bind(address) => write!(f, "+ address {address}"),
            Self::Unbind(address) => write!(f, "- address {address}"),
            Self::DeleteFlows { to, endpoint, by_short_circuit } => {
                write!(f, "- flows {to}")?;
                endpoint.iter().try_for_each(|endpoint| write!(f, " -> {endpoint}"))?;
                if *by_short_circuit { f.write_str(" by short circuit") } else { Ok(()) }
            }
        }
    }
}

/// Changes in the order in which the kernel makes them. Prints one per line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    // Invariant: sorted by phase.
    changes: Vec<Change>,
}

impl Plan {
    /// Sorts changes by phase. Within a phase they keep their order.
    pub fn new(mut changes: Vec<Change>) -> Self {
        // Counting sort in place: a first sync has tens of thousands of changes, which take megabytes.
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

    /// Whether the plan has no changes.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.changes.iter().try_for_each(|change| writeln!(f, "{change}"))
    }
}
