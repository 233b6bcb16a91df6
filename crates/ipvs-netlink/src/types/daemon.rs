use std::{fmt, net::IpAddr};

use crate::InterfaceName;

/// A synchronisation daemon: a kernel thread that sends connections to, or takes them from, another director.
///
/// A namespace can have one of each role. The optional fields are the kernel's to choose when they are `None`
/// (Linux 4.3; older kernels ignore them); when read back they say what it chose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Daemon {
    /// Whether it sends or receives.
    pub role: DaemonRole,
    /// The interface of the multicast. The kernel refuses one that does not exist (`ENODEV`).
    pub interface: InterfaceName,
    /// Which group of directors this is, 0 to 255: a backup ignores messages of others; 0 takes all.
    pub sync_id: u32,
    /// The most bytes in a UDP payload; by default what fits the interface's MTU.
    pub max_length: Option<u16>,
    /// The multicast group, of either family; by default 224.0.0.81.
    pub group: Option<IpAddr>,
    /// The first UDP port, further threads take those after it; by default 8848.
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

/// What a synchronisation daemon does (`IP_VS_STATE_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DaemonRole {
    /// It sends this host's connections.
    Master,
    /// It takes another host's connections.
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

    /// The role with a number, if it is one.
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
