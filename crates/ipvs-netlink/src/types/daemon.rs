use std::{fmt, net::IpAddr};

use crate::InterfaceName;

/// A synchronisation daemon: a kernel thread that sends connections to another director, or receives them.
///
/// A namespace can have one of each role. If an optional field is `None`, the kernel chooses the value and reports it
/// when the daemon is read back. Kernels before 4.3 ignore the optional fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Daemon {
    /// Whether it sends or receives.
    pub role: DaemonRole,
    /// The interface of the multicast. If it does not exist, the kernel rejects the daemon (`ENODEV`).
    pub interface: InterfaceName,
    /// The group of directors, 0 to 255. A backup ignores messages of other groups; with 0 it accepts all.
    pub sync_id: u32,
    /// Maximum size of a UDP payload in bytes. The default fits the interface's MTU.
    pub max_length: Option<u16>,
    /// The multicast group of either family; by default 224.0.0.81.
    pub group: Option<IpAddr>,
    /// The first UDP port; by default 8848. Further threads use the ports after it.
    pub port: Option<u16>,
    /// The multicast TTL; by default 1.
    pub ttl: Option<u8>,
}

impl Daemon {
    /// A daemon with the kernel's defaults.
    pub const fn new(role: DaemonRole, interface: InterfaceName, sync_id: u32) -> Self {
        Self { role, interface, sync_id, max_length: None, group: None, port: None, ttl: None }
    }
}

/// The role of a synchronisation daemon (`IP_VS_STATE_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DaemonRole {
    /// Sends this host's connections.
    Master,
    /// Receives another host's connections.
    Backup,
}

impl DaemonRole {
    /// The value of `IPVS_DAEMON_ATTR_STATE`.
    pub const fn number(self) -> u32 {
        match self {
            Self::Master => 1,
            Self::Backup => 2,
        }
    }

    /// The role with this number.
    pub const fn from_number(number: u32) -> Option<Self> {
        match number {
            1 => Some(Self::Master),
            2 => Some(Self::Backup),
            _ => None,
        }
    }
}

/// `master` or `backup`.
impl fmt::Display for DaemonRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Master => "master",
            Self::Backup => "backup",
        })
    }
}
