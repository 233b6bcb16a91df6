use std::{path::PathBuf, time::Duration};

use super::Names;

/// The settings of [`LinuxKernel`](super::LinuxKernel) beyond the engine's [`Config`](crate::Config).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The names of the tables and of the device.
    pub names: Names,
    /// The bit of the packet mark for masquerade, 0 to 31. kube-proxy's is 14.
    pub masquerade_bit: u8,
    /// Whether all traffic to ClusterIPs is masqueraded.
    pub masquerade_all: bool,
    /// How kube-ipvs distinguishes packets of pods from others.
    pub local_detector: LocalDetector,
    /// Whether the forward chain lets packets in conntrack's state invalid pass.
    pub tcp_be_liberal: bool,
    /// Whether VIPs answer pings.
    pub vip_ping: bool,
    /// Whether kube-ipvs rejects connections to unallocated addresses of a ServiceCIDR that only a default route
    /// covers.
    pub reject_unallocated_cluster_ips: bool,
    /// kube-proxy's `strictARP`: no device answers ARP for an address of another device, including addresses that are
    /// not VIPs.
    pub strict_arp: bool,
    /// The timeouts of idle connections in IPVS.
    pub timeouts: Timeouts,
    /// A file for a copy of the record of ownership, one for each network namespace. Use a directory that a reboot
    /// clears, such as /run. Without the file, kube-ipvs does not recognize its objects after another program flushed
    /// nftables.
    pub record: Option<PathBuf>,
    /// Whether kube-ipvs adopts the objects of kube-proxy's ipvs mode. Otherwise they belong to another program. A
    /// takeover requires kube-proxy's device name, `kube-ipvs0`.
    pub takeover: bool,
}

/// How kube-ipvs distinguishes packets of pods from others (kube-proxy's `detectLocal`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LocalDetector {
    /// By the source address: [`Config::pod_sources`](crate::Config::pod_sources). Without pod sources, traffic to
    /// ClusterIPs is never masqueraded, and other rules treat pods as clients outside the cluster.
    Sources,
    /// By this bridge as the input interface.
    Bridge(String),
    /// By this prefix of the input interface's name.
    InterfacePrefix(String),
}

/// The timeouts of idle connections in IPVS. `None`: the timeout of conntrack, which tracks each connection too. If
/// IPVS forgot a connection first, its next packet would match no connection of IPVS.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// Established TCP connections, and SCTP, which has no separate timeout.
    pub tcp: Option<Duration>,
    /// TCP connections after a FIN.
    pub tcp_fin: Option<Duration>,
    /// UDP flows.
    pub udp: Option<Duration>,
}

impl Settings {
    pub(super) fn masquerade_mark(&self) -> u32 {
        1 << (self.masquerade_bit & 31)
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            names: Names::default(),
            masquerade_bit: 14,
            masquerade_all: false,
            local_detector: LocalDetector::Sources,
            tcp_be_liberal: false,
            vip_ping: true,
            reject_unallocated_cluster_ips: true,
            strict_arp: false,
            timeouts: Timeouts::default(),
            record: None,
            takeover: false,
        }
    }
}
