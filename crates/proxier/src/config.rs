//! The operator's settings for the whole node.

use std::{collections::BTreeSet, net::IpAddr, ops::RangeInclusive, time::Duration};

use ipnet::IpNet;
use ipvs_netlink::Scheduler;

use crate::model::{Family, Node, NodeAddress, PortNumber};

/// The settings of an [`Engine`](crate::Engine). Its kernel reads them too.
#[derive(Debug, Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Config {
    /// The name of this host's Node.
    pub hostname: Box<str>,
    /// The addresses on which node ports are served.
    pub node_ports: NodePortAddresses,
    /// Whether node ports are also served on 127.0.0.1, for processes of this node.
    pub localhost_node_ports: bool,
    /// The sources that are pods, for [`LocalDetector::Sources`](crate::linux::LocalDetector::Sources).
    pub pod_sources: PodSources,
    /// Whether this node ignores ARP requests for the addresses that are bound to the VIP device.
    pub scoped_arp: bool,
    /// The default scheduler of virtual servers. kube-proxy's default is round robin.
    pub scheduler: Scheduler,
    /// Whether external IPs are served at all.
    pub allow_external_ips: bool,
    /// The ranges in which external IPs are served. Empty: external IPs are served in all ranges.
    pub external_ip_ranges: Vec<IpNet>,
    /// Ports that an external IP does not get if it is an address of this node.
    pub reserved_ports: Vec<RangeInclusive<u16>>,
    /// The maximum number of virtual servers of one Service. A Service with 1,600 ports, both families and a few
    /// addresses stays below the default.
    pub max_virtual_servers: usize,
    /// Schedulers that no Service gets, as if the kernel did not have them.
    pub missing_schedulers: BTreeSet<Scheduler>,
    /// The engine never removes virtual servers on these addresses.
    pub exclude_cidrs: Vec<IpNet>,
    /// The interval at which the engine reads the whole kernel and repairs drift. If the state has more than 1,000
    /// objects, the interval grows in proportion. The engine repairs drift sooner if the kernel reports it, or if a
    /// spot check shows it.
    pub sync_period: Duration,
    /// How long a sync that changed something delays the next one, if a [`Runner`](crate::Runner) decides.
    pub min_sync_period: Duration,
    /// The maximum time for which a real server that left without terminating keeps its connections.
    pub drain_cap: Duration,
}

/// The ports of a node's vital services: ssh, etcd, the API server, metrics and health of the proxy, the kubelet, the
/// controller managers and the scheduler.
pub const RESERVED_PORTS: [RangeInclusive<u16>; 5] = [22..=22, 2379..=2380, 6443..=6443, 10249..=10250, 10256..=10259];

impl Config {
    /// kube-proxy's defaults, for the Node `hostname`.
    pub fn new(hostname: &str) -> Self {
        Self {
            hostname: hostname.into(),
            node_ports: NodePortAddresses::All,
            localhost_node_ports: false,
            pod_sources: PodSources::default(),
            scoped_arp: false,
            scheduler: Scheduler::RR,
            allow_external_ips: true,
            external_ip_ranges: Vec::new(),
            reserved_ports: RESERVED_PORTS.to_vec(),
            max_virtual_servers: 10_000,
            missing_schedulers: BTreeSet::new(),
            exclude_cidrs: Vec::new(),
            sync_period: Duration::from_secs(30),
            min_sync_period: Duration::ZERO,
            drain_cap: Duration::from_secs(600),
        }
    }

    /// Whether `external_ip_ranges` allows an external IP.
    pub fn allows_external_ip(&self, address: IpAddr) -> bool {
        let ranges = &self.external_ip_ranges;
        ranges.is_empty() || ranges.iter().any(|range| range.contains(&address))
    }

    /// Whether a port is in `reserved_ports`.
    pub fn reserves(&self, port: PortNumber) -> bool {
        self.reserved_ports.iter().any(|range| range.contains(&port.get()))
    }

    /// Whether an address is in one of `exclude_cidrs`.
    pub fn excludes(&self, address: IpAddr) -> bool {
        self.exclude_cidrs.iter().any(|cidr| cidr.contains(&address))
    }
}

/// Which sources are pods (kube-proxy's `--detect-local-mode`). If a family has no pod ranges, the engine cannot tell
/// pods from clients outside the cluster in that family.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum PodSources {
    /// These ranges, which contain all pods of the cluster.
    Ranges(Vec<IpNet>),
    /// `spec.podCIDRs` of this host's Node: the pods of this node.
    OwnNode,
}

impl Default for PodSources {
    fn default() -> Self {
        Self::Ranges(Vec::new())
    }
}

impl PodSources {
    /// The pod ranges. None lies within another one: an nftables set accepts such a range and stores nothing.
    pub fn select(&self, node: Option<&Node>) -> BTreeSet<IpNet> {
        let ranges = match self {
            Self::Ranges(ranges) => ranges,
            Self::OwnNode => match node {
                Some(node) => &node.pod_cidrs,
                None => return BTreeSet::new(),
            },
        };
        let ranges: Vec<IpNet> = ranges.iter().map(IpNet::trunc).collect();
        IpNet::aggregate(&ranges).into_iter().collect()
    }

    /// The pod ranges of other nodes, for the families in which this node's pod ranges are known.
    pub(crate) fn elsewhere(&self, node: Option<&Node>, host: &BTreeSet<NodeAddress>) -> BTreeSet<IpNet> {
        let own = self.own(node, host);
        let is_known = |range: &IpNet| has_family(&own, Family::of(range.addr()));
        let all = self.select(node).into_iter().filter(is_known).collect();
        own.iter().fold(all, |ranges: BTreeSet<IpNet>, own| {
            ranges.into_iter().flat_map(|range| without(range, own)).collect()
        })
    }

    /// The families with pod ranges in which the engine does not know this node's pods.
    pub(crate) fn unidentified(&self, node: Option<&Node>, host: &BTreeSet<NodeAddress>) -> Vec<Family> {
        let Self::Ranges(all) = self else { return Vec::new() };
        let own = self.own(node, host);
        let is_unidentified = |family: &Family| has_family(all, *family) && !has_family(&own, *family);
        Family::ALL.into_iter().filter(is_unidentified).collect()
    }

    /// This node's pod ranges. Some networks do not follow `spec.podCIDRs`. If the network does, the node has an
    /// address in each range, such as that of the pod bridge.
    fn own(&self, node: Option<&Node>, host: &BTreeSet<NodeAddress>) -> Vec<IpNet> {
        let is_kept_to = |cidr: &IpNet| host.iter().any(|host| cidr.contains(&host.address));
        match self {
            Self::Ranges(_) => {
                let cidrs = node.into_iter().flat_map(|node| &node.pod_cidrs);
                cidrs.map(IpNet::trunc).filter(is_kept_to).collect()
            }
            Self::OwnNode => Vec::new(),
        }
    }
}

fn has_family(ranges: &[IpNet], family: Family) -> bool {
    ranges.iter().any(|range| Family::of(range.addr()) == family)
}

fn without(range: IpNet, part: &IpNet) -> Vec<IpNet> {
    match (part.contains(&range), range.contains(part)) {
        (true, _) => Vec::new(),
        (false, false) => vec![range],
        (false, true) => {
            let halves = range.subnets(range.prefix_len() + 1).into_iter().flatten();
            halves.flat_map(|half| without(half, part)).collect()
        }
    }
}

/// The node addresses on which node ports are served (kube-proxy's `--nodeport-addresses`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum NodePortAddresses {
    /// Every address that other hosts can reach.
    #[default]
    All,
    /// Only these addresses.
    Chosen {
        /// Whether to select the first `InternalIP` of each family in the Node object.
        primary: bool,
        /// Selects the host's addresses in these ranges.
        ranges: Vec<IpNet>,
    },
}

impl NodePortAddresses {
    /// The selected addresses, in ascending order.
    pub fn select(&self, host: &BTreeSet<NodeAddress>, node: Option<&Node>) -> Vec<IpAddr> {
        let global = host.iter().filter(|address| address.global).map(|address| address.address);
        let Self::Chosen { primary, ranges } = self else { return global.collect() };
        let within = global.filter(|ip| ranges.iter().any(|range| range.contains(ip)));
        let node = node.filter(|_| *primary);
        let first = |family| {
            let ips = node.into_iter().flat_map(|node| &node.internal_ips);
            ips.copied().find(|ip| Family::of(*ip) == family)
        };
        let selected: BTreeSet<IpAddr> = within.chain(Family::ALL.into_iter().filter_map(first)).collect();
        selected.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_ports_listen_on_primary_addresses_and_addresses_in_ranges() {
        let ips = |texts: &str| -> Vec<IpAddr> { texts.split_whitespace().map(|text| text.parse().unwrap()).collect() };
        let addresses = "10.0.0.1 10.0.0.2 192.168.0.1 fd00::1 fd01::1";
        let host = ips(addresses).into_iter().map(|address| NodeAddress { address, global: true }).collect();
        let node = Node {
            name: "node-1".into(),
            internal_ips: ips("192.168.0.1 10.0.0.1 fd01::1"),
            addresses: Vec::new(),
            zone: None,
            pod_cidrs: Vec::new(),
            leaving: false,
        };
        let select = |primary, ranges: &str, node| {
            let ranges = ranges.split_whitespace().map(|range| range.parse().unwrap()).collect();
            NodePortAddresses::Chosen { primary, ranges }.select(&host, node)
        };
        let node = Some(&node);
        assert_eq!(NodePortAddresses::All.select(&host, node), ips(addresses));
        assert_eq!(select(true, "", node), ips("192.168.0.1 fd01::1"));
        assert_eq!(select(false, "10.0.0.0/8 192.168.0.0/16", node), ips("10.0.0.1 10.0.0.2 192.168.0.1"));
        assert_eq!(select(true, "10.0.0.0/8 192.168.0.0/16", node), ips("10.0.0.1 10.0.0.2 192.168.0.1 fd01::1"));
        assert_eq!(select(true, "10.0.0.0/31", None), ips("10.0.0.1"));
        assert_eq!(select(false, "", node), ips(""));
    }
}
