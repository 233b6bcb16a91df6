use std::{path::PathBuf, time::Duration};

use super::Names;

/// What [`LinuxKernel`](super::LinuxKernel) needs to know beyond its engine's [`Config`](crate::Config).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// How our tables and our device are called.
    pub names: Names,
    /// The bit of the packet mark that asks for masquerade, 0 to 31. kube-proxy's is 14.
    pub masquerade_bit: u8,
    /// Whether all traffic to ClusterIPs is masqueraded.
    pub masquerade_all: bool,
    /// How kube-ipvs tells packets of pods from others.
    pub local_detector: LocalDetector,
    /// Whether packets that conntrack takes for no part of any connection may pass.
    pub tcp_be_liberal: bool,
    /// Whether VIPs answer pings.
    pub vip_ping: bool,
    /// Whether kube-ipvs rejects connections to unallocated addresses of a ServiceCIDR to which only a default route
    /// leads.
    pub refuse_unallocated: bool,
    /// kube-proxy's `strictARP`: no device answers for another one's address, whatever it is for.
    pub strict_arp: bool,
    /// How long IPVS remembers an idle connection.
    pub timeouts: Timeouts,
    /// A file for a copy of the record of what is ours, one for each network namespace, where it ends with the kernel's
    /// state, such as in /run. Without it, kube-ipvs does not know what is ours after another program emptied nftables.
    pub record: Option<PathBuf>,
    /// Whether the kernel adopts what kube-proxy's ipvs mode made. Otherwise that is another program's. It takes
    /// kube-proxy's own name of the device, `kube-ipvs0`.
    pub takeover: bool,
}

/// How kube-ipvs tells packets of pods from others (kube-proxy's `detectLocal`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LocalDetector {
    /// By its source: [`Config::pod_sources`](crate::Config::pod_sources). Where there are none, traffic to ClusterIPs
    /// is never masqueraded, and pods are treated as outsiders elsewhere.
    Sources,
    /// By the bridge that it comes in by.
    Bridge(String),
    /// By how the name of the interface begins that it comes in by.
    InterfacePrefix(String),
}

/// How long IPVS remembers an idle connection. None: as long as conntrack does, which knows each of them too. If IPVS
/// forgot one first, its next packet would be a stranger's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// TCP, established; SCTP has none of its own.
    pub tcp: Option<Duration>,
    /// TCP, after a FIN.
    pub tcp_fin: Option<Duration>,
    /// UDP.
    pub udp: Option<Duration>,
}

impl Settings {
    /// The bit of the packet mark that asks for masquerade, as a mark.
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
            refuse_unallocated: true,
            strict_arp: false,
            timeouts: Timeouts::default(),
            record: None,
            takeover: false,
        }
    }
}
