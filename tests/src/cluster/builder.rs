//! The description of a cluster, and its construction.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Once};

use anyhow::{Context, Result, bail};

use super::wiring::{self, Wiring};
use super::{Cluster, Node, parse_addresses};
use crate::control_plane::{self, ControlPlane};
use crate::manifests::Manifests;
use crate::namespace::Namespace;

const NODES: u8 = 3;

/// Describes a cluster; [`build`](Self::build) creates it.
#[derive(Debug, Clone)]
#[must_use]
pub struct ClusterBuilder {
    prefix: String,
    pods: Vec<[String; 3]>,
    hosts: Vec<[String; 2]>,
}

impl ClusterBuilder {
    pub(super) fn new() -> Self {
        static CLUSTERS: AtomicUsize = AtomicUsize::new(1);
        let number = CLUSTERS.fetch_add(1, Ordering::Relaxed);
        Self {
            prefix: format!("t{}-{number}-", std::process::id()),
            pods: Vec::new(),
            hosts: vec![["client".into(), "192.168.128.100 fd00:128::100".into()]],
        }
    }

    /// Uses plain namespace names (`node-1`, not `t123-4-node-1`), for people. Only one such cluster can run at a time.
    pub fn plain_names(mut self) -> Self {
        self.prefix.clear();
        self
    }

    /// Adds a pod on a node, with addresses separated by spaces. The network of each address (/24, or /64 for IPv6)
    /// becomes a pod network of that node, with `.1` as its gateway.
    pub fn pod(mut self, name: &str, node: &str, addresses: &str) -> Self {
        self.pods.push([name.into(), node.into(), addresses.into()]);
        self
    }

    /// Adds a host on the LAN outside the cluster. The host `client` at 192.168.128.100 always exists.
    pub fn host(mut self, name: &str, addresses: &str) -> Self {
        self.hosts.push([name.into(), addresses.into()]);
        self
    }

    /// Creates the cluster.
    pub fn build(self) -> Result<Cluster> {
        load_bridge_filter()?;
        let directory = std::env::temp_dir().join(format!("{}kube-ipvs-cluster", self.prefix));
        if self.prefix.is_empty() {
            // An earlier cluster with plain names can have left it.
            let _ = fs::remove_dir_all(&directory);
        }
        let control_plane = ControlPlane::of_process()?;
        let manifests = Manifests::create(&directory.join("manifests"), control_plane)?;

        let nodes: Vec<String> = (1..=NODES).map(|number| format!("node-{number}")).collect();
        let others = self.hosts.iter().map(|host| &host[0]).chain(self.pods.iter().map(|pod| &pod[0]));
        let plain: Vec<&String> = nodes.iter().chain(others).collect();
        let names: Vec<String> = std::iter::once("switch")
            .chain(plain.iter().map(|name| name.as_str()))
            .map(|name| format!("{}{name}", self.prefix))
            .collect();
        if let Some(name) = names.iter().enumerate().find(|(at, name)| names[..*at].contains(name)) {
            bail!("two of the cluster's members are called {}", name.1);
        }
        let mut namespaces = Namespace::create_all(&names)?.into_iter();
        let switch = namespaces.next().context("the switch")?;
        let nodes = nodes.into_iter().zip(1..).zip(namespaces.by_ref()).map(|((name, number), namespace)| Node {
            name,
            namespace,
            addresses: [
                IpAddr::V4(Ipv4Addr::new(192, 168, 128, number)),
                IpAddr::V6(Ipv6Addr::new(0xfd00, 0x128, 0, 0, 0, 0, 0, number.into())),
            ],
            networks: Vec::new(),
        });
        let mut cluster = Cluster {
            manifests,
            control_plane,
            prefix: self.prefix.clone(),
            directory,
            switch,
            nodes: nodes.collect(),
            pods: BTreeMap::new(),
            hosts: BTreeMap::new(),
            devices: 0,
        };
        cluster.wire(&self, namespaces)?;
        cluster.register_nodes()?;
        Ok(cluster)
    }
}

impl Cluster {
    fn wire(&mut self, builder: &ClusterBuilder, mut namespaces: impl Iterator<Item = Arc<Namespace>>) -> Result<()> {
        let mut wiring = Wiring::new();
        wiring.inside(&self.switch, &wiring::lan());
        self.switch.sysctls(&[
            ("ipv4.ip_forward", "1"),
            ("ipv6.conf.all.forwarding", "1"),
            ("ipv4.conf.all.send_redirects", "0"),
            ("ipv4.conf.default.send_redirects", "0"),
            ("bridge.bridge-nf-call-iptables", "0"),
            ("bridge.bridge-nf-call-ip6tables", "0"),
        ])?;
        let mut port = 0;
        for node in &self.nodes {
            node.namespace.sysctls(&[
                ("ipv4.ip_forward", "1"),
                ("ipv6.conf.all.forwarding", "1"),
                ("bridge.bridge-nf-call-iptables", "1"),
                ("bridge.bridge-nf-call-ip6tables", "1"),
            ])?;
            port += 1;
            wiring.join_lan(&node.namespace, &node.addresses, &self.switch, port);
            wiring.inside(&node.namespace, wiring::POD_BRIDGE);
        }
        if let Some(control_plane) = self.control_plane {
            port += 1;
            let host = control_plane.occupy()?;
            wiring.join_lan(host, &[control_plane::ADDRESS.parse()?], &self.switch, port);
        }
        for [name, addresses] in &builder.hosts {
            let namespace = namespaces.next().with_context(|| name.clone())?;
            let addresses = parse_addresses(addresses).with_context(|| format!("host {name}"))?;
            port += 1;
            wiring.join_lan(&namespace, &addresses, &self.switch, port);
            self.hosts.insert(name.clone(), namespace);
        }
        for [name, node, addresses] in &builder.pods {
            let namespace = namespaces.next().with_context(|| name.clone())?;
            self.wire_pod(&mut wiring, name, node, addresses, namespace)?;
        }
        let pods = self.pods.values().map(|pod| &pod.namespace);
        let hosts = self.hosts.values();
        let nodes = self.nodes.iter().map(|node| &node.namespace);
        for namespace in pods.chain(hosts).chain(nodes).chain([&self.switch]) {
            namespace.sysctls(&QUICK_IPV6)?;
        }
        wiring.run()
    }

    /// Registers the Nodes, as their kubelets would, if the cluster has an API server.
    fn register_nodes(&self) -> Result<()> {
        if self.control_plane.is_none() {
            return Ok(());
        }
        let node = |node: &Node| {
            format!(
                "---\napiVersion: v1\nkind: Node\nmetadata: {{name: {}}}\nstatus:\n  addresses:\n  - {{type: InternalIP, address: \
                 \"{}\"}}\n  - {{type: InternalIP, address: \"{}\"}}\n",
                node.name,
                node.ipv4(),
                node.ipv6()
            )
        };
        self.manifests.write("nodes", &self.nodes.iter().map(node).collect::<String>())
    }
}

/// Without this, link-local addresses stay tentative and unusable for a second or two.
pub(super) const QUICK_IPV6: [(&str, &str); 2] =
    [("ipv6.conf.all.accept_dad", "0"), ("ipv6.conf.default.accept_dad", "0")];

/// Without br_netfilter, packets between two pods of one bridge bypass the reply hook of IPVS. A node must load it
/// before its proxy starts.
fn load_bridge_filter() -> Result<()> {
    static LOADED: Once = Once::new();
    const SETTING: &str = "/proc/sys/net/bridge/bridge-nf-call-iptables";
    LOADED.call_once(|| {
        if !fs::exists(SETTING).unwrap_or(false) {
            let _ = Command::new("modprobe").arg("br_netfilter").status();
        }
    });
    if !fs::exists(SETTING)? {
        bail!("{SETTING} is missing: the module br_netfilter is not loaded and cannot be");
    }
    Ok(())
}
