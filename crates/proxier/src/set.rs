//! The nftables sets whose elements vary with the Services. The rules that use them never change.

use std::{fmt, net::IpAddr};

use crate::model::{Family, Protocol, VirtualServerKey};

/// A set whose elements are keys of virtual servers: `address . protocol . port`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeySet {
    /// Every virtual server of ours, with the name of its Service as the comment. This is also the record
    /// of what we own: a virtual server that is not in it is somebody else's.
    Served,
    /// Node ports: their traffic is always masqueraded.
    NodePorts,
    /// ClusterIPs: traffic from outside the cluster's own sources is masqueraded.
    ClusterIps,
    /// Virtual servers without a real server that takes connections: new ones are rejected.
    NoEndpoints,
}

impl KeySet {
    /// All of them, in the order in which elements are written: the record of ownership first.
    pub const ALL: [Self; 4] = [Self::Served, Self::NodePorts, Self::ClusterIps, Self::NoEndpoints];

    /// Its name in nftables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Served => "served",
            Self::NodePorts => "node-ports",
            Self::ClusterIps => "cluster-ips",
            Self::NoEndpoints => "no-endpoints",
        }
    }
}

/// The sets that one key belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct KeySets(u8);

impl KeySets {
    /// In no set at all.
    pub const NONE: Self = Self(0);

    /// With one more set.
    #[must_use]
    pub fn with(self, set: KeySet) -> Self {
        Self(self.0 | 1 << set as u8)
    }

    /// Without a set.
    #[must_use]
    pub fn without(self, set: KeySet) -> Self {
        Self(self.0 & !(1 << set as u8))
    }

    /// Whether it has a set.
    pub fn contains(self, set: KeySet) -> bool {
        self.0 & 1 << set as u8 != 0
    }

    /// The sets, in the order of [`KeySet::ALL`].
    pub fn iter(self) -> impl Iterator<Item = KeySet> {
        KeySet::ALL.into_iter().filter(move |set| self.contains(*set))
    }
}

/// One element of one set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Element {
    /// A key in a [`KeySet`].
    Key(KeySet, VirtualServerKey),
    /// An address that we bound to `kube-ipvs0`, in the set `vips`.
    Vip(IpAddr),
}

impl Element {
    /// The name of its set in nftables.
    pub fn set_name(&self) -> &'static str {
        match self {
            Self::Key(set, _) => set.name(),
            Self::Vip(_) => VIPS,
        }
    }

    /// The family of its address, and so of the table that its set is in.
    pub fn family(&self) -> Family {
        match self {
            Self::Key(_, key) => key.family(),
            Self::Vip(address) => Family::of(*address),
        }
    }
}

/// The name of the set of VIPs in nftables.
pub const VIPS: &str = "vips";

/// Prints as `nft add element` takes it: `served { 10.96.0.10 . udp . 53 }`.
impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(_, VirtualServerKey { address, protocol, port }) => {
                let protocol = match protocol {
                    Protocol::Tcp => "tcp",
                    Protocol::Udp => "udp",
                    Protocol::Sctp => "sctp",
                };
                write!(f, "{} {{ {address} . {protocol} . {port} }}", self.set_name())
            }
            Self::Vip(address) => write!(f, "{} {{ {address} }}", self.set_name()),
        }
    }
}
