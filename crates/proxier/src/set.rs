//! The nftables sets whose elements vary with the Services. The rules that use them never change.

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
pub enum KeySet {
    /// Every virtual server of ours, with the name of its Service as the comment. This is also the record of what we
    /// own: a virtual server that is not in it is another program's.
    Served,
    /// Addresses of this node, with the policy `Cluster`: for every client, the endpoint sees this node. A pod of
    /// another node may ask, and the answer has to come back by way of this one.
    MasqueradeAlways,
    /// The same with the policy `Local`, where those outside the cluster keep their address.
    MasqueradeInside,
    /// ClusterIPs: traffic from outside the cluster's own sources is masqueraded.
    ClusterIps,
    /// External and load-balancer IPs of the policy `Cluster`: all but the cluster's own sources are masqueraded.
    External,
    /// No endpoint takes connections: kube-ipvs rejects new ones.
    NoEndpoints,
    /// Some endpoint takes connections, but none on this node, as the policy `Local` wants: kube-ipvs drops new ones.
    NoLocalEndpoints,
    /// The same, for clients outside the cluster alone, so that their load balancer tries another node. Those inside
    /// have a short circuit.
    NoLocalEndpointsExternal,
    /// Only from some sources: see [`Element::Allowed`].
    Firewall,
    /// Only for what a short circuit sends there: see [`Element::ShortCircuit`].
    ShortCircuitTarget,
    /// Forwarded without NAT, by this node or by another one: a node can see the answers without the questions.
    DirectReturn,
    /// Virtual servers that another program made: clients reach them as before, on VIPs of ours too.
    Foreign,
}

impl KeySet {
    /// All of them, in the order in which elements are written: the record of ownership first.
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

/// The sets that one key belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct KeySets(u16);

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

    /// The sets, in the order in which their elements are written: the record of ownership first.
    pub fn iter(self) -> impl Iterator<Item = KeySet> {
        KeySet::ALL.into_iter().filter(move |set| self.contains(*set))
    }
}

/// One element of one set or map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Element {
    /// A key in a [`KeySet`].
    Key(KeySet, VirtualServerKey),
    /// An address that we bound to `kube-ipvs0`, in the set `vips`.
    Vip(IpAddr),
    /// Sources that may reach a key of [`KeySet::Firewall`], in the set `firewall-allowed`.
    Allowed(VirtualServerKey, IpNet),
    /// An endpoint on this node, or on an unknown node, in the set `hairpin`: what it sends to itself through a Service
    /// is masqueraded.
    Hairpin(Protocol, EndpointAddress),
    /// Where a load balancer asks for the health of a Service on a VIP, in the set `health-checks`: it reaches the
    /// node's own listener.
    HealthCheck(VirtualServerKey),
    /// A range of ClusterIPs, in the set `service-ranges`: what is not served there is refused.
    ServiceRange(IpNet),
    /// Pods, in the set `pod-sources`.
    PodSource(IpNet),
    /// Pods of other nodes, in the set `remote-pods`: for the external policy `Local` of this node they are outside.
    RemotePod(IpNet),
    /// Sources that are outside the cluster unless they are pods, in the set `outside`. These are all addresses of a
    /// family whose pods are known.
    Outside(Family),
    /// An address bound to `kube-ipvs0` for which this node keeps silent in ARP, in the set `arp-ignore` of the table
    /// `arp`.
    ArpIgnore(Ipv4Addr),
    /// In the map `short-circuits`: where clients in the cluster are sent instead, with the same protocol. Since node
    /// ports, external and load-balancer IPs of the policy `Local` lead to this node's endpoints only.
    ShortCircuit(VirtualServerKey, EndpointAddress),
}

/// The names of the other sets, and of the map, in nftables.
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

/// All addresses of a family.
pub(crate) fn every_address(family: Family) -> IpNet {
    match family {
        Family::V4 => IpNet::new_assert(Ipv4Addr::UNSPECIFIED.into(), 0),
        Family::V6 => IpNet::new_assert(Ipv6Addr::UNSPECIFIED.into(), 0),
    }
}

impl Element {
    /// The name of its set in nftables.
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

    /// The family of its address. The table that its set is in is of that family, except for [`Element::ArpIgnore`].
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

/// Prints as `nft add element` takes it: `served { 10.96.0.10 . udp . 53 }`.
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
