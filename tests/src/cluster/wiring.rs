//! The `ip` commands that connect namespaces. They are collected, so that each namespace costs one process.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use anyhow::{Context, Result, bail};

use super::{Cluster, Pod, parse_addresses};
use crate::namespace::{Namespace, batch};

/// The LAN's router: the default gateway of nodes and hosts.
const ROUTER: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(192, 168, 128, 254)), IpAddr::V6(Ipv6Addr::new(0xfd00, 0x128, 0, 0, 0, 0, 0, 0xfe))];

/// Lines of `ip` for devices between namespaces, and lines for inside each namespace.
pub(super) struct Wiring {
    links: String,
    inside: BTreeMap<String, (Arc<Namespace>, String)>,
}

impl Wiring {
    pub(super) fn new() -> Self {
        Self { links: String::new(), inside: BTreeMap::new() }
    }

    /// Adds a veth pair: `device` in `namespace`, `port` in `other`.
    fn veth(&mut self, namespace: &Namespace, device: &str, other: &Namespace, port: &str) {
        let (namespace, other) = (namespace.name(), other.name());
        let _ =
            writeln!(self.links, "link add name {device} netns {namespace} type veth peer name {port} netns {other}");
    }

    /// Adds lines to run inside a namespace after all devices exist.
    pub(super) fn inside(&mut self, namespace: &Arc<Namespace>, lines: &str) {
        let entry = self.inside.entry(namespace.name().to_owned());
        let (_, text) = entry.or_insert_with(|| (Arc::clone(namespace), String::new()));
        text.push_str(lines);
        text.push('\n');
    }

    /// Connects `namespace` to the LAN at this port of the switch.
    pub(super) fn join_lan(
        &mut self,
        namespace: &Arc<Namespace>,
        addresses: &[IpAddr],
        switch: &Arc<Namespace>,
        port: usize,
    ) {
        let port = format!("port{port}");
        self.veth(namespace, "eth0", switch, &port);
        self.inside(switch, &format!("link set {port} master lan up"));
        let mut lines = "link set lo up\nlink set eth0 up\n".to_owned();
        for address in addresses {
            let _ = writeln!(lines, "{}", add_address(*address, if address.is_ipv4() { 24 } else { 64 }, "eth0"));
        }
        for router in ROUTER.iter().filter(|router| addresses.iter().any(|own| own.is_ipv4() == router.is_ipv4())) {
            let _ = writeln!(lines, "route add default via {router}");
        }
        self.inside(namespace, &lines);
    }

    pub(super) fn run(self) -> Result<()> {
        if !self.links.is_empty() {
            batch(&[], &self.links)?;
        }
        self.inside.into_values().try_for_each(|(namespace, lines)| namespace.ip(&lines))
    }
}

fn add_address(address: IpAddr, length: u8, device: &str) -> String {
    // Duplicate address detection would delay the use of the address.
    let option = if address.is_ipv6() { " nodad" } else { "" };
    format!("addr add {address}/{length} dev {device}{option}")
}

/// The lines of the switch: a bridge that is the LAN and also its router.
pub(super) fn lan() -> String {
    let mut lines =
        "link set lo up\nlink add name lan address 02:00:00:00:01:fe type bridge\nlink set lan up\n".to_owned();
    for router in ROUTER {
        let _ = writeln!(lines, "{}", add_address(router, if router.is_ipv4() { 24 } else { 64 }, "lan"));
    }
    lines
}

/// The bridge of a node's pods. Its hardware address is fixed, because it would change with every new pod.
pub(super) const POD_BRIDGE: &str = "link add name cni0 address 02:00:00:00:02:01 type bridge\nlink set cni0 up";

/// The /24 or /64 network of a pod, with its gateway and prefix length.
fn network_of(address: IpAddr) -> (String, IpAddr, u8) {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, _] = address.octets();
            (format!("{a}.{b}.{c}.0/24"), Ipv4Addr::new(a, b, c, 1).into(), 24)
        }
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            let network = Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0);
            (format!("{network}/64"), Ipv6Addr::new(a, b, c, d, 0, 0, 0, 1).into(), 64)
        }
    }
}

impl Cluster {
    pub(super) fn wire_pod(
        &mut self,
        wiring: &mut Wiring,
        name: &str,
        node: &str,
        addresses: &str,
        namespace: Arc<Namespace>,
    ) -> Result<()> {
        let addresses = parse_addresses(addresses).with_context(|| format!("pod {name}"))?;
        let index = self.nodes.iter().position(|known| known.name == node);
        let index = index.with_context(|| format!("pod {name}: the cluster has no node {node}"))?;
        self.devices += 1;
        let device = format!("veth{}", self.devices);
        wiring.veth(&namespace, "eth0", &self.nodes[index].namespace, &device);
        let mut inside = "link set lo up\nlink set eth0 up\n".to_owned();
        for address in &addresses {
            let (network, gateway, length) = network_of(*address);
            if *address == gateway {
                bail!("pod {name}: {address} is the gateway's");
            }
            let _ = writeln!(inside, "{}\nroute add default via {gateway}", add_address(*address, length, "eth0"));
            self.wire_network(wiring, index, &network, gateway, length)?;
        }
        wiring.inside(&namespace, &inside);
        // Hairpin mode: a pod that reaches itself through its Service gets its packet back on the same bridge port.
        let node = &self.nodes[index].namespace;
        wiring
            .inside(node, &format!("link set {device} master cni0 up\nlink set {device} type bridge_slave hairpin on"));
        let previous = self.pods.insert(name.to_owned(), Pod { namespace, addresses, node: index, device });
        if previous.is_some() {
            bail!("two pods are called {name}");
        }
        Ok(())
    }

    /// Assigns a pod network to a node and adds the routes to it on all other nodes and the router.
    fn wire_network(
        &mut self,
        wiring: &mut Wiring,
        index: usize,
        network: &str,
        gateway: IpAddr,
        length: u8,
    ) -> Result<()> {
        let network = network.to_owned();
        if self.nodes[index].networks.contains(&network) {
            return Ok(());
        }
        if let Some(other) = self.nodes.iter().find(|node| node.networks.contains(&network)) {
            bail!("pods of {} are on both {} and {}", network, other.name, self.nodes[index].name);
        }
        let node = &self.nodes[index];
        wiring.inside(&node.namespace, &add_address(gateway, length, "cni0"));
        let via = node.addresses[usize::from(gateway.is_ipv6())];
        let route = format!("route add {network} via {via}");
        wiring.inside(&self.switch, &route);
        for other in self.nodes.iter().filter(|other| other.name != node.name) {
            wiring.inside(&other.namespace, &route);
        }
        self.nodes[index].networks.push(network);
        Ok(())
    }
}
