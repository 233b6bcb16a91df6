use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    num::NonZeroU16,
    str::FromStr,
};

pub use ipvs_netlink::Family;

/// A port number, 1 to 65535.
pub type PortNumber = NonZeroU16;

/// The transport protocols that a Service can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Protocol {
    /// TCP, the default of Kubernetes.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// All protocols.
    pub const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Sctp];

    /// Its number in the IP header (`IPPROTO_*`).
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    /// The protocol with this number in the IP header, if a Service can have it.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|protocol| protocol.number() == number)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        })
    }
}

/// A name that is not a protocol of a Service.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown protocol {0:?}: use TCP, UDP or SCTP")]
pub struct UnknownProtocol(Box<str>);

impl FromStr for Protocol {
    type Err = UnknownProtocol;
    fn from_str(name: &str) -> Result<Self, UnknownProtocol> {
        let known = Self::ALL.into_iter().find(|protocol| protocol.to_string() == name);
        known.ok_or_else(|| UnknownProtocol(name.into()))
    }
}

/// The address, protocol and port of a virtual server.
///
/// ```
/// use proxier::model::{Protocol, VirtualServerKey};
/// let key = VirtualServerKey {
///     address: "10.96.0.10".parse().unwrap(),
///     protocol: Protocol::Udp,
///     port: 53.try_into().unwrap(),
/// };
/// assert_eq!(key.to_string(), "UDP 10.96.0.10:53");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VirtualServerKey {
    /// A ClusterIP, another VIP or an address of the node.
    pub address: IpAddr,
    /// The transport protocol.
    pub protocol: Protocol,
    /// The Service's port or its node port.
    pub port: PortNumber,
}

impl VirtualServerKey {
    /// The family of its address.
    pub fn family(&self) -> Family {
        Family::of(self.address)
    }
}

impl fmt::Display for VirtualServerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.protocol, SocketAddr::new(self.address, self.port.get()))
    }
}

/// An address of this host on a link other than `kube-ipvs0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct NodeAddress {
    /// The address.
    pub address: IpAddr,
    /// Whether other hosts can reach it (scope global or site), unlike `127.0.0.1` and `fe80::/10`.
    pub global: bool,
}
