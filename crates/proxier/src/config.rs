//! What an operator decides once, for the whole node.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use ipnet::IpNet;
use ipvs_netlink::Scheduler;

use crate::model::{Family, Node, NodeAddress};

/// The settings of an [`Engine`](crate::Engine).
#[derive(Debug, Clone)]
pub struct Config {
    /// The name of the Node that we run on.
    pub hostname: Box<str>,
    /// On which addresses node ports are served.
    pub node_ports: NodePortAddresses,
    /// The scheduler of every virtual server. kube-proxy's default is round robin.
    pub scheduler: Scheduler,
    /// Virtual servers on these addresses are never removed.
    pub exclude_cidrs: Vec<IpNet>,
    /// How often the kernel is read again and repaired where it drifted.
    pub sync_period: Duration,
    /// How long a real server that left without terminating may keep its connections.
    pub drain_cap: Duration,
}

impl Config {
    /// The defaults of kube-proxy, for the Node `hostname`.
    pub fn new(hostname: &str) -> Self {
        Self {
            hostname: hostname.into(),
            node_ports: NodePortAddresses::All,
            scheduler: Scheduler::RR,
            exclude_cidrs: Vec::new(),
            sync_period: Duration::from_secs(30),
            drain_cap: Duration::from_secs(600),
        }
    }

    /// Whether an address lies in one of `exclude_cidrs`.
    pub fn excludes(&self, address: IpAddr) -> bool {
        self.exclude_cidrs.iter().any(|cidr| cidr.contains(&address))
    }
}

/// On which addresses of the node its node ports are served (`--nodeport-addresses`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum NodePortAddresses {
    /// On every address that can be reached from other hosts.
    #[default]
    All,
    /// On the first `InternalIP` of each family that the Node object names.
    Primary,
    /// On the addresses within these ranges.
    Within(Vec<IpNet>),
}

impl NodePortAddresses {
    /// The addresses of the host that this selects, in ascending order.
    pub fn select(&self, host: &BTreeSet<NodeAddress>, node: Option<&Node>) -> Vec<IpAddr> {
        let global = host.iter().filter(|address| address.global).map(|address| address.address);
        match self {
            Self::All => global.collect(),
            Self::Within(ranges) => {
                global.filter(|ip| ranges.iter().any(|range| range.contains(ip))).collect()
            }
            Self::Primary => {
                let primary = |family| {
                    let ips = node.into_iter().flat_map(|node| &node.internal_ips);
                    ips.copied().find(|ip| Family::of(*ip) == family)
                };
                Family::ALL.into_iter().filter_map(primary).collect()
            }
        }
    }
}
