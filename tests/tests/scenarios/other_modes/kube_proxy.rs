//! The Services of the scenarios, as kube-proxy knows them, and its rules for them.

use anyhow::Result;
use scenarios::Namespace;

use super::{iptables, nftables};

/// The mode of kube-proxy, and for `iptables` the kind of iptables on the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Iptables,
    LegacyIptables,
    Nftables,
}

impl Mode {
    /// Writes the rules that kube-proxy writes in its first sync, in both families.
    pub(super) fn write_rules(self, node: &Namespace) -> Result<()> {
        for family in [Family::V4, Family::V6] {
            match self {
                Self::Iptables => iptables::write(node, family, "nft")?,
                Self::LegacyIptables => iptables::write(node, family, "legacy")?,
                Self::Nftables => nftables::write(node, family)?,
            }
        }
        Ok(())
    }
}

pub(super) fn sh(node: &Namespace, script: &str) -> Result<String> {
    node.run("sh", &["-ec", script])
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    /// Chooses the IPv4 or the IPv6 text.
    pub(super) fn of(self, v4: &str, v6: &str) -> String {
        if self == Self::V4 { v4.into() } else { v6.into() }
    }

    pub(super) fn pods(self) -> String {
        self.of("10.244.0.0/16", "fd00:10:244::/56")
    }

    /// The address of the LAN, which is in the source ranges of `local`.
    pub(super) fn lan(self) -> String {
        self.of("192.168.128.0/24", "fd00:128::/64")
    }

    pub(super) fn node(self) -> String {
        self.of("192.168.128.3", "fd00:128::3")
    }

    pub(super) fn cluster_ip(self, number: u8) -> String {
        self.of(&format!("10.96.0.{number}"), &format!("fd00:10:96::{number}"))
    }

    pub(super) fn outer_ip(self, number: u8) -> String {
        self.of(&format!("203.0.113.{number}"), &format!("2001:db8::{number}"))
    }

    pub(super) fn pod(self, node: u8) -> String {
        self.of(&format!("10.244.{node}.2"), &format!("fd00:10:244:{node}::2"))
    }

    /// An address with a port, as clients and DNAT rules write it.
    pub(super) fn at(self, address: &str, port: u16) -> String {
        if self == Self::V4 { format!("{address}:{port}") } else { format!("[{address}]:{port}") }
    }
}

/// A Service port, as kube-proxy sees it.
#[derive(Debug, Clone)]
pub(super) struct ServicePort {
    pub(super) name: &'static str,
    pub(super) protocol: &'static str,
    pub(super) cluster_ip: String,
    pub(super) port: u16,
    /// An external IP, or the load balancer's if the port has source ranges.
    pub(super) outer_ip: Option<String>,
    pub(super) node_port: Option<u16>,
    pub(super) ranges: Vec<String>,
    /// Whether `externalTrafficPolicy` is `Local`.
    pub(super) is_local: bool,
    pub(super) has_affinity: bool,
    pub(super) endpoints: Vec<Endpoint>,
}

#[derive(Debug, Clone)]
pub(super) struct Endpoint {
    pub(super) address: String,
    pub(super) port: u16,
    /// The number of its node. The node under test is the third.
    pub(super) node: u8,
}

impl Endpoint {
    /// The hash in the name of its chain.
    pub(super) fn hash(&self, service: &ServicePort) -> String {
        let family = if self.address.contains(':') { 'b' } else { 'a' };
        hash(&format!("{}{family}{}", service.name, self.node))
    }
}

/// A name in the form of kube-proxy's hashes: 16 characters of base 32.
pub(super) fn hash(name: &str) -> String {
    let letter = |letter: char| match letter.to_ascii_uppercase() {
        letter @ ('A'..='Z' | '2'..='7') => letter,
        _ => 'Z',
    };
    name.chars().map(letter).chain(std::iter::repeat('Q')).take(16).collect()
}

/// `talk` with an external IP and a node port, `names` over UDP, `sticky` with affinity, `local` with the policy Local
/// and source ranges, `empty` without endpoints.
pub(super) fn service_ports(family: Family) -> Vec<ServicePort> {
    let endpoint = |node, port| Endpoint { address: family.pod(node), port, node };
    let port = |name, protocol, number, port, endpoints: Vec<Endpoint>| ServicePort {
        name,
        protocol,
        cluster_ip: family.cluster_ip(number),
        port,
        outer_ip: None,
        node_port: None,
        ranges: Vec::new(),
        is_local: false,
        has_affinity: false,
        endpoints,
    };
    let both = |port| vec![endpoint(1, port), endpoint(2, port)];
    vec![
        ServicePort {
            outer_ip: Some(family.outer_ip(81)),
            node_port: Some(30081),
            ..port("talk", "tcp", 81, 7, both(9090))
        },
        port("names", "udp", 81, 53, both(9053)),
        ServicePort { has_affinity: true, ..port("sticky", "tcp", 82, 7, both(9090)) },
        ServicePort {
            outer_ip: Some(family.outer_ip(83)),
            node_port: Some(30083),
            ranges: vec![family.lan(), family.pods()],
            is_local: true,
            ..port("local", "tcp", 83, 7, vec![endpoint(1, 9090), endpoint(3, 9090)])
        },
        ServicePort { node_port: Some(30084), ..port("empty", "tcp", 84, 7, Vec::new()) },
    ]
}
