//! The cluster: a LAN, three nodes, pods and hosts, each a network namespace.

mod builder;
mod wiring;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};

pub use builder::ClusterBuilder;

use crate::client::socket_address;
use crate::control_plane::ControlPlane;
use crate::manifests::Manifests;
use crate::namespace::Namespace;
use crate::proxy::{Proxy, ProxyCommand};
use crate::servers::{Server, Transport};
use crate::wait::eventually;
use wiring::Wiring;

/// A node: its namespace, its LAN addresses and its pod networks.
#[derive(Debug)]
pub struct Node {
    name: String,
    namespace: Arc<Namespace>,
    addresses: [IpAddr; 2],
    networks: Vec<String>,
}

impl Node {
    /// The node's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The node's network namespace.
    pub fn namespace(&self) -> &Arc<Namespace> {
        &self.namespace
    }

    /// The node's IPv4 address on the LAN.
    pub fn ipv4(&self) -> IpAddr {
        self.addresses[0]
    }

    /// The node's IPv6 address on the LAN.
    pub fn ipv6(&self) -> IpAddr {
        self.addresses[1]
    }
}

/// A pod: a namespace whose veth pair ends in its node's bridge.
#[derive(Debug)]
struct Pod {
    namespace: Arc<Namespace>,
    addresses: Vec<IpAddr>,
    node: usize,
    device: String,
}

/// A whole cluster. Dropping it ends every process in it and deletes all namespaces.
#[derive(Debug)]
pub struct Cluster {
    /// The folder that all daemons read instead of an API server. With a real API server, its content goes there.
    pub manifests: Manifests,
    control_plane: Option<&'static ControlPlane>,
    prefix: String,
    directory: PathBuf,
    switch: Arc<Namespace>,
    nodes: Vec<Node>,
    pods: BTreeMap<String, Pod>,
    hosts: BTreeMap<String, Arc<Namespace>>,
    devices: usize,
}

impl Cluster {
    /// Describes a cluster of three nodes, `node-1` to `node-3`, and a host `client` outside it.
    pub fn builder() -> ClusterBuilder {
        ClusterBuilder::new()
    }

    /// The namespace of a node, a pod or a host.
    pub fn at(&self, name: &str) -> Result<&Arc<Namespace>> {
        let node = || self.nodes.iter().find(|node| node.name == name).map(|node| &node.namespace);
        let pod = || self.pods.get(name).map(|pod| &pod.namespace);
        let host = || self.hosts.get(name);
        node().or_else(pod).or_else(host).with_context(|| format!("the cluster has no {name}"))
    }

    /// Returns a node by name.
    pub fn node(&self, name: &str) -> Result<&Node> {
        self.nodes.iter().find(|node| node.name == name).with_context(|| format!("the cluster has no node {name}"))
    }

    /// All nodes.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The directory of this cluster's files: manifests, logs, data of servers.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The first address of a pod.
    pub fn pod_address(&self, pod: &str) -> Result<IpAddr> {
        let pod = self.pods.get(pod).with_context(|| format!("the cluster has no pod {pod}"))?;
        pod.addresses.first().copied().context("a pod without an address")
    }

    /// Adds a pod at `addresses` (separated by spaces), as the kubelet and the CNI plugin do.
    pub fn add_pod(&mut self, name: &str, node: &str, addresses: &str) -> Result<()> {
        let namespace = Namespace::create(&format!("{}{name}", self.prefix))?;
        namespace.sysctls(&builder::QUICK_IPV6)?;
        let mut wiring = Wiring::new();
        self.wire_pod(&mut wiring, name, node, addresses, namespace)?;
        wiring.run()
    }

    /// Removes a pod. Its device disappears at once, even if sockets in the pod are still open.
    pub fn remove_pod(&mut self, name: &str) -> Result<()> {
        let pod = self.pods.remove(name).with_context(|| format!("the cluster has no pod {name}"))?;
        self.nodes[pod.node].namespace.ip(&format!("link del {}", pod.device))?;
        Namespace::delete_all([&*pod.namespace])
    }

    /// Starts an HTTP server in a pod, node or host. It answers with that name.
    pub fn http(&self, name: &str, port: u16) -> Result<Server> {
        Server::http(self.at(name)?, name, port)
    }

    /// Starts an echo server, which prefixes each echo with the name of its pod.
    pub fn echo(&self, name: &str, transport: Transport, port: u16) -> Result<Server> {
        Server::echo(self.at(name)?, name, transport, port)
    }

    /// Starts an echo server at one address only, such as a VIP that the pod also has.
    pub fn echo_at(&self, name: &str, transport: Transport, at: &str) -> Result<Server> {
        Server::echo_at(self.at(name)?, name, transport, socket_address(at)?)
    }

    /// Returns a kube-ipvs command to run on a node.
    pub fn kube_ipvs(&self, node: &str) -> Result<ProxyCommand> {
        let node = self.node(node)?;
        ProxyCommand::new(&node.namespace, &node.name, &self.directory)
    }

    /// Returns a command that runs an example of the libraries on a node, as kube-ipvs runs.
    pub fn example(&self, node: &str, name: &str) -> Result<ProxyCommand> {
        Ok(self.kube_ipvs(node)?.of(name))
    }

    /// The flag, and its value, that names the source of Services and endpoints for kube-ipvs.
    pub fn source(&self) -> [String; 2] {
        let (flag, path) = match self.control_plane {
            None => ("--manifests", self.manifests.directory()),
            Some(control_plane) => ("--kubeconfig", control_plane.kubeconfig()),
        };
        [flag.to_owned(), path.to_string_lossy().into_owned()]
    }

    /// Returns the control plane. Fails if the cluster has none.
    pub fn control_plane(&self) -> Result<&'static ControlPlane> {
        self.control_plane.context("there is no control plane: `cargo xtask e2e --cluster envtest` brings one")
    }

    /// Starts the daemon of one node on this cluster's source.
    pub fn start_proxy(&self, node: &str, extra: &[&str]) -> Result<Proxy> {
        let [flag, path] = self.source();
        let own = ["run", &flag, &path, "--hostname-override", node];
        self.kube_ipvs(node)?.spawn(&[&own[..], extra].concat())
    }

    /// Starts the daemons of all nodes.
    pub fn start_proxies(&self, extra: &[&str]) -> Result<Vec<Proxy>> {
        self.nodes.iter().map(|node| self.start_proxy(&node.name, extra)).collect()
    }

    /// Waits until `kube-ipvs diff` finds no difference between the manifests and a node's kernel. `extra` are the
    /// flags of the node's daemon.
    pub fn await_settled(&self, node: &str, extra: &[&str]) -> Result<()> {
        let [flag, path] = self.source();
        let command = ["diff", &flag, &path, "--hostname-override", node];
        let command = [&command[..], extra].concat();
        eventually(|| {
            let output = self.kube_ipvs(node)?.output(&command)?;
            ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
            Ok(())
        })
    }

    /// Returns the state to print when a test fails.
    pub fn diagnosis(&self) -> Diagnosis {
        let nodes = self.nodes.iter().map(|node| (node.name.clone(), Arc::clone(&node.namespace)));
        Diagnosis { directory: self.directory.clone(), nodes: nodes.collect() }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let left = self.manifests.withdraw();
        let left = left.and_then(|()| self.control_plane.map_or(Ok(()), ControlPlane::leave));
        if let Err(error) = left {
            eprintln!("the control plane keeps what the cluster had: {error:#}");
        }
        let pods = self.pods.values().map(|pod| &*pod.namespace);
        let hosts = self.hosts.values().map(|host| &**host);
        let nodes = self.nodes.iter().map(|node| &*node.namespace);
        let all = pods.chain(hosts).chain(nodes).chain([&*self.switch]);
        if let Err(error) = Namespace::delete_all(all) {
            eprintln!("could not take the cluster down: {error:#}");
        }
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Reads the state of all nodes for the output of a failed test.
#[derive(Debug, Clone)]
pub struct Diagnosis {
    directory: PathBuf,
    nodes: Vec<(String, Arc<Namespace>)>,
}

impl Diagnosis {
    /// Prints the daemon's log, IPVS, VIPs and nftables of every node that ran a daemon.
    pub fn print(&self) {
        for (name, namespace) in &self.nodes {
            let Ok(log) = fs::read_to_string(self.directory.join(format!("{name}.log"))) else { continue };
            let mut text = format!("\n════ {name}: the daemon's log\n{}\n", tail(&log, 20_000));
            for command in
                ["ipvsadm -Ln", "ip addr show kube-ipvs0", "ip -br addr show", "nft list ruleset", "ipvsadm -Lnc"]
            {
                let _ = writeln!(text, "──── {name}: {command}");
                let mut words = command.split(' ');
                let program = words.next().unwrap_or_default();
                let arguments: Vec<&str> = words.collect();
                match namespace.output(program, &arguments) {
                    Ok(output) => {
                        text.push_str(tail(&String::from_utf8_lossy(&output.stdout), 20_000));
                        text.push_str(&String::from_utf8_lossy(&output.stderr));
                    }
                    Err(error) => {
                        let _ = writeln!(text, "{error:#}");
                    }
                }
            }
            eprintln!("{text}");
        }
    }
}

/// The last `limit` bytes of a text, starting at a whole line.
fn tail(text: &str, limit: usize) -> &str {
    let start = text.len().saturating_sub(limit);
    if start == 0 {
        return text;
    }
    let line = text.bytes().skip(start).position(|byte| byte == b'\n').map_or(text.len(), |at| start + at + 1);
    &text[line..]
}

fn parse_addresses(text: &str) -> Result<Vec<IpAddr>> {
    let parse = |word: &str| word.parse().with_context(|| format!("{word} is no address"));
    let addresses: Vec<IpAddr> = text.split_whitespace().map(parse).collect::<Result<_>>()?;
    if addresses.is_empty() {
        bail!("an address is missing");
    }
    Ok(addresses)
}
