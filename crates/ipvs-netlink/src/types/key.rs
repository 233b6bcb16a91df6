use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use crate::{Family, Protocol};

/// Identifies a virtual server in one network namespace.
///
/// `Display` prints it as `ipvsadm -Ln` does: `TCP 10.0.0.1:80`, `UDP [2001:db8::1]:53`, `FWM 1`, `FWM 1 IPv6`.
///
/// ```
/// use ipvs_netlink::{Protocol, VirtualServerKey};
///
/// let key = VirtualServerKey::new(Protocol::Tcp, "10.0.0.1:80".parse()?);
/// assert_eq!(key.to_string(), "TCP 10.0.0.1:80");
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum VirtualServerKey {
    /// Packets to an address, a port and a protocol.
    Address {
        /// The virtual address. It need not be an address of this host.
        address: IpAddr,
        /// The virtual port. 0 means every port; the kernel accepts it only for persistent services. Such a service
        /// gets a packet only if no virtual server has the packet's port.
        port: u16,
        /// The transport protocol.
        protocol: Protocol,
    },
    /// Packets that a firewall rule marked.
    FirewallMark {
        /// The mark; all 32 bits count. Mark 0 means "no mark" to the kernel: requests with it are encoded so that the
        /// kernel rejects them (`EINVAL`).
        mark: u32,
        /// The family of the packets. One mark can have a virtual server of each family.
        family: Family,
    },
}

impl VirtualServerKey {
    /// The key of a protocol, an address and a port.
    pub const fn new(protocol: Protocol, address: SocketAddr) -> Self {
        Self::Address { address: address.ip(), port: address.port(), protocol }
    }

    /// The family of its packets.
    pub const fn family(&self) -> Family {
        match self {
            Self::Address { address, .. } => Family::of(*address),
            Self::FirewallMark { family, .. } => *family,
        }
    }
}

impl fmt::Display for VirtualServerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Address { address, port, protocol } => {
                write!(f, "{protocol} {}", SocketAddr::new(address, port))
            }
            Self::FirewallMark { mark, family: Family::V4 } => write!(f, "FWM {mark}"),
            Self::FirewallMark { mark, family: Family::V6 } => write!(f, "FWM {mark} IPv6"),
        }
    }
}

/// Identifies a destination (a "real server") within its virtual server.
///
/// `Display` prints it as `ipvsadm -Ln` does: `10.1.1.1:80`, `[2001:db8::1]:80`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DestinationKey {
    /// Its address. If its family differs from the virtual server's, only a tunnel reaches it.
    pub address: IpAddr,
    /// Its port. Only masquerading can translate the virtual server's port.
    pub port: u16,
}

impl DestinationKey {
    /// The family of its address.
    pub const fn family(&self) -> Family {
        Family::of(self.address)
    }
}

impl From<SocketAddr> for DestinationKey {
    fn from(address: SocketAddr) -> Self {
        Self { address: address.ip(), port: address.port() }
    }
}

impl From<DestinationKey> for SocketAddr {
    fn from(key: DestinationKey) -> Self {
        Self::new(key.address, key.port)
    }
}

impl fmt::Display for DestinationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", SocketAddr::from(*self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_print_as_ipvsadm_prints_them() {
        let key = |protocol, address: &str| VirtualServerKey::new(protocol, address.parse().unwrap());
        let mark = |family| VirtualServerKey::FirewallMark { mark: 7, family };
        assert_eq!(key(Protocol::Tcp, "10.0.0.1:80").to_string(), "TCP 10.0.0.1:80");
        assert_eq!(key(Protocol::Sctp, "[2001:db8::1]:80").to_string(), "SCTP [2001:db8::1]:80");
        assert_eq!(key(Protocol::Other(50), "10.0.0.1:0").to_string(), "50 10.0.0.1:0");
        assert_eq!(mark(Family::V4).to_string(), "FWM 7");
        assert_eq!(mark(Family::V6).to_string(), "FWM 7 IPv6");
        let destination = DestinationKey { address: "fd00::1".parse().unwrap(), port: 8080 };
        assert_eq!(destination.to_string(), "[fd00::1]:8080");
    }
}
