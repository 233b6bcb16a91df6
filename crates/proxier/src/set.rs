//! The nftables sets whose elements depend on the Services. The rules that use these sets never change.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;

use crate::{
    cluster::EndpointAddress,
    model::{Family, Protocol, VirtualServerKey},
};

/// A set whose elements are keys of virtual servers: `address . protocol . port`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum KeySet {
    /// Every virtual server of kube-ipvs. The comment names its Service. This is also the record of ownership: a
    /// virtual server that is not in this set belongs to another program.
    Served,
    /// Node addresses with the policy `Cluster`. All clients are masqueraded: a pod of another node can be the client,
    /// and the answer must come back through this node.
    MasqueradeAlways,
    /// Node addresses with the policy `Local`. Only clients in the cluster are masqueraded.
    MasqueradeInside,
    /// ClusterIPs. Clients outside the cluster are masqueraded.
    ClusterIps,
    /// External and load-balancer IPs with the policy `Cluster`. Clients outside the cluster are masqueraded.
    External,
    /// No endpoint takes connections. kube-ipvs rejects new ones.
    NoEndpoints,
    /// Endpoints take connections, none of them local, as the policy `Local` requires. kube-ipvs drops new ones.
    NoLocalEndpoints,
    /// The same for external clients only: their load balancer then tries another node. Others take a short circuit.
    NoLocalEndpointsExternal,
    /// Only some sources can connect: see [`Element::Allowed`].
    Firewall,
    /// Only packets from a short circuit can connect: see [`Element::ShortCircuit`].
    ShortCircuitTarget,
    /// Forwarded without NAT, by this node or another one. A node can then see answers without their requests.
    DirectReturn,
    /// Virtual servers of another program. Clients still reach them, also on VIPs of kube-ipvs.
    Foreign,
}

impl KeySet {
    /// All sets, in the order in which elements are written: the record of ownership first.
    pub(crate) const ALL: [Self; 12] = [
        Self::Served,
        Self::MasqueradeAlways,
        Self::MasqueradeInside,
        Self::ClusterIps,
        Self::External,
        Self::NoEndpoints,
        Self::NoLocalEndpoints,
        Self::NoLocalEndpointsExternal,
        Self::Firewall,
        Self::ShortCircuitTarget,
        Self::DirectReturn,
        Self::Foreign,
    ];

    /// Its name in nftables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Served => "served",
            Self::MasqueradeAlways => "masquerade-always",
            Self::MasqueradeInside => "masquerade-inside",
            Self::ClusterIps => "cluster-ips",
            Self::External => "external-ips",
            Self::NoEndpoints => "no-endpoints",
            Self::NoLocalEndpoints => "no-local-endpoints",
            Self::NoLocalEndpointsExternal => "no-local-endpoints-external",
            Self::Firewall => "firewall",
            Self::ShortCircuitTarget => "short-circuit-targets",
            Self::DirectReturn => "direct-return",
            Self::Foreign => "foreign",
        }
    }
}

/// The sets that contain a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct KeySets(u16);

impl KeySets {
    /// No set.
    pub const NONE: Self = Self(0);

    /// Adds a set.
    #[must_use]
    pub fn with(self, set: KeySet) -> Self {
        Self(self.0 | 1 << set as u8)
    }

    /// Removes a set.
    #[must_use]
    pub fn without(self, set: KeySet) -> Self {
        Self(self.0 & !(1 << set as u8))
    }

    /// Whether the key is in a set.
    pub fn contains(self, set: KeySet) -> bool {
        self.0 & 1 << set as u8 != 0
    }

    /// The sets, in the order in which their elements are written: the record of ownership first.
    pub fn iter(self) -> impl Iterator<Item = KeySet> {
        KeySet::ALL.into_iter().filter(move |set| self.contains(*set))
    }
}

/// One element of one set or map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Element {
    /// A key in a [`KeySet`].
    Key(KeySet, VirtualServerKey),
    /// An address that kube-ipvs bound to `kube-ipvs0`, in the set `vips`.
    Vip(IpAddr),
    /// Sources that can reach a key of [`KeySet::Firewall`], in the set `firewall-allowed`.
    Allowed(VirtualServerKey, IpNet),
    /// An endpoint that can be on this node, in the set `hairpin`: traffic to itself through a Service is masqueraded.
    Hairpin(Protocol, EndpointAddress),
    /// The health check of a Service on a VIP, in the set `health-checks`. It reaches the node's own listener.
    HealthCheck(VirtualServerKey),
    /// A range of ClusterIPs, in the set `service-ranges`. kube-ipvs rejects traffic to unallocated addresses in it.
    ServiceRange(IpNet),
    /// A range of pods, in the set `pod-sources`.
    PodSource(IpNet),
    /// Pods of other nodes, in the set `remote-pods`. The external policy `Local` treats them as outside the cluster.
    RemotePod(IpNet),
    /// All addresses of a family with pod ranges, in the set `outside`: outside the cluster unless they are pods.
    Outside(Family),
    /// A bound address for which this node ignores ARP requests, in the set `arp-ignore` of the table `arp`.
    ArpIgnore(Ipv4Addr),
    /// A short circuit to this endpoint for clients in the cluster, in the map `short-circuits`. The protocol stays the
    /// same. Without it, addresses with the policy `Local` lead only to this node's endpoints.
    ShortCircuit(VirtualServerKey, EndpointAddress),
}

pub(crate) const VIPS: &str = "vips";
pub(crate) const ALLOWED: &str = "firewall-allowed";
pub(crate) const HAIRPIN: &str = "hairpin";
pub(crate) const HEALTH_CHECKS: &str = "health-checks";
pub(crate) const SERVICE_RANGES: &str = "service-ranges";
pub(crate) const POD_SOURCES: &str = "pod-sources";
pub(crate) const REMOTE_PODS: &str = "remote-pods";
pub(crate) const OUTSIDE: &str = "outside";
pub(crate) const ARP_IGNORE: &str = "arp-ignore";
pub(crate) const GATEWAYS: &str = "default-gateways";
pub(crate) const SHORT_CIRCUITS: &str = "short-circuits";

pub(crate) fn every_address(family: Family) -> IpNet {
    match family {
        Family::V4 => IpNet::new_assert(Ipv4Addr::UNSPECIFIED.into(), 0),
        Family::V6 => IpNet::new_assert(Ipv6Addr::UNSPECIFIED.into(), 0),
    }
}

impl Element {
    /// The nftables name of its set.
    pub fn set_name(&self) -> &'static str {
        match self {
            Self::Key(set, _) => set.name(),
            Self::Vip(_) => VIPS,
            Self::Allowed(..) => ALLOWED,
            Self::Hairpin(..) => HAIRPIN,
            Self::HealthCheck(_) => HEALTH_CHECKS,
            Self::ServiceRange(_) => SERVICE_RANGES,
            Self::PodSource(_) => POD_SOURCES,
            Self::RemotePod(_) => REMOTE_PODS,
            Self::Outside(_) => OUTSIDE,
            Self::ArpIgnore(_) => ARP_IGNORE,
            Self::ShortCircuit(..) => SHORT_CIRCUITS,
        }
    }

    /// The family of its address. Its set is in the table of that family, except for [`Element::ArpIgnore`].
    pub fn family(&self) -> Family {
        match self {
            Self::Key(_, key) | Self::Allowed(key, _) | Self::HealthCheck(key) | Self::ShortCircuit(key, _) => {
                key.family()
            }
            Self::Vip(address) => Family::of(*address),
            Self::Hairpin(_, endpoint) => Family::of(endpoint.address),
            Self::ServiceRange(range) | Self::PodSource(range) | Self::RemotePod(range) => Family::of(range.addr()),
            Self::Outside(family) => *family,
            Self::ArpIgnore(_) => Family::V4,
        }
    }
}

/// Prints in the syntax of `nft add element`: `served { 10.96.0.10 . udp . 53 }`.
impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = |VirtualServerKey { address, protocol, port }: &VirtualServerKey| {
            format!("{address} . {} . {port}", nft_name(*protocol))
        };
        write!(f, "{} {{ ", self.set_name())?;
        match self {
            Self::Key(_, at) | Self::HealthCheck(at) => write!(f, "{}", key(at))?,
            Self::Vip(address) => write!(f, "{address}")?,
            Self::Allowed(at, source) => write!(f, "{} . {source}", key(at))?,
            Self::Hairpin(protocol, EndpointAddress { address, port }) => {
                write!(f, "{address} . {address} . {} . {port}", nft_name(*protocol))?;
            }
            Self::ServiceRange(range) | Self::PodSource(range) | Self::RemotePod(range) => {
                write!(f, "{range}")?;
            }
            Self::Outside(family) => write!(f, "{}", every_address(*family))?,
            Self::ArpIgnore(address) => write!(f, "{address}")?,
            Self::ShortCircuit(at, EndpointAddress { address, port }) => {
                write!(f, "{} : {address} . {port}", key(at))?;
            }
        }
        f.write_str(" }")
    }
}

fn nft_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => "sctp",
    }
}
