use std::fmt;

/// How packets reach a destination.
///
/// `Display` prints it as `ipvsadm -Ln` does: `Masq`, `Local`, `Tunnel`, `Route`; and `Bypass`, for which ipvsadm has
/// no name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Forwarding {
    /// The kernel rewrites the destination address and port; replies must come back through this host.
    #[default]
    Masq,
    /// The destination is a process of this host. The kernel detects that with every other method too, so callers
    /// seldom need this one.
    LocalNode,
    /// The kernel encapsulates the packet; the destination answers the client directly.
    Tunnel(Tunnel),
    /// The kernel sends the packet to the destination's link-layer address ("direct routing", ipvsadm's "gatewaying");
    /// the destination answers the client directly.
    Direct,
    /// The packet goes to its original address. The kernel uses this for transparent cache clusters.
    Bypass,
    /// A method that this version does not know (5 to 7).
    Other(u8),
}

impl Forwarding {
    /// The value of `IPVS_DEST_ATTR_FWD_METHOD`.
    pub const fn number(self) -> u32 {
        match self {
            Self::Masq => 0,
            Self::LocalNode => 1,
            Self::Tunnel(_) => 2,
            Self::Direct => 3,
            Self::Bypass => 4,
            Self::Other(number) => number as u32,
        }
    }

    /// The method with this number, of which the kernel reads the lower three bits. `tunnel` is the encapsulation of
    /// the tunnelling method.
    pub const fn from_number(number: u32, tunnel: Tunnel) -> Self {
        match number & 7 {
            0 => Self::Masq,
            1 => Self::LocalNode,
            2 => Self::Tunnel(tunnel),
            3 => Self::Direct,
            4 => Self::Bypass,
            other => Self::Other(other as u8),
        }
    }
}

impl fmt::Display for Forwarding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Masq => f.pad("Masq"),
            Self::LocalNode => f.pad("Local"),
            Self::Tunnel(_) => f.pad("Tunnel"),
            Self::Direct => f.pad("Route"),
            Self::Bypass => f.pad("Bypass"),
            Self::Other(number) => f.pad(&number.to_string()),
        }
    }
}

/// How packets are encapsulated. Kernels before 5.3 support IPIP only and ignore all of this; GRE and checksums came
/// with 5.4.
///
/// ```
/// use ipvs_netlink::{Forwarding, Tunnel, TunnelFlags};
///
/// let gue = Tunnel { flags: TunnelFlags::CHECKSUM, ..Tunnel::gue(6080) };
/// assert_eq!(Forwarding::Tunnel(gue).to_string(), "Tunnel");
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Tunnel {
    /// The encapsulation.
    pub kind: TunnelType,
    /// The UDP port of [`TunnelType::Gue`]; the kernel rejects 0 (`EINVAL`). Other types ignore the port, which is 0.
    pub port: u16,
    /// The checksums of the encapsulation.
    pub flags: TunnelFlags,
}

impl Tunnel {
    /// IP in IP.
    pub const IPIP: Self = Self { kind: TunnelType::Ipip, port: 0, flags: TunnelFlags::empty() };
    /// Generic routing encapsulation.
    pub const GRE: Self = Self { kind: TunnelType::Gre, port: 0, flags: TunnelFlags::empty() };

    /// Generic UDP encapsulation to a UDP port.
    pub const fn gue(port: u16) -> Self {
        Self { kind: TunnelType::Gue, port, flags: TunnelFlags::empty() }
    }
}

/// An encapsulation (`IP_VS_CONN_F_TUNNEL_TYPE_*`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum TunnelType {
    /// IP in IP.
    #[default]
    Ipip,
    /// Generic UDP encapsulation.
    Gue,
    /// Generic routing encapsulation.
    Gre,
    /// An encapsulation that this version does not know.
    Other(u8),
}

impl TunnelType {
    /// The value of `IPVS_DEST_ATTR_TUN_TYPE`.
    pub const fn number(self) -> u8 {
        match self {
            Self::Ipip => 0,
            Self::Gue => 1,
            Self::Gre => 2,
            Self::Other(number) => number,
        }
    }

    /// The encapsulation with this number.
    pub const fn from_number(number: u8) -> Self {
        match number {
            0 => Self::Ipip,
            1 => Self::Gue,
            2 => Self::Gre,
            other => Self::Other(other),
        }
    }
}

bitflags::bitflags! {
    /// Checksums of the encapsulation (`IP_VS_TUNNEL_ENCAP_FLAG_*`); no flag means "nocsum".
    #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
    #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
    pub struct TunnelFlags: u16 {
        /// The encapsulation has a checksum. GUE and GRE.
        const CHECKSUM = 1;
        /// The receiver handles the inner checksum ("remote checksum offload"). GUE only.
        const REMOTE_CHECKSUM = 2;
        const _ = !0;
    }
}
