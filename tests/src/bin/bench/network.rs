//! A network for packets: a node, and around it a client, two hosts of endpoints and the API server.
//!
//! Each host of endpoints answers on every address of a range, so every endpoint of every Service is real.

use std::{
    io::Write,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    sync::Arc,
    thread,
};

use anyhow::{Context, Result};
use scenarios::Namespace;

use crate::{node::Place, world::PORT};

/// The name of the node under test, and of its Node object.
pub(crate) const NODE: &str = "node";
/// The network of the client, which is a pod of the node.
pub(crate) const POD_NETWORK: &str = "10.100.1.0/24";
/// The address of the node on the network of the API server.
pub(crate) const NODE_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 100, 4, 1);
pub(crate) const API_SERVER: &str = "10.100.4.2:6443";
/// A host behind the node that is no endpoint.
pub(crate) const BEHIND: Ipv4Addr = Ipv4Addr::new(10, 100, 2, 2);

/// The hosts, in the order of their networks `10.100.1.0/24`, `10.100.2.0/24` and so on. The node is the first address
/// of each network, the host the second.
const HOSTS: [&str; 4] = ["client", "old", "new", "api"];
/// The endpoints of each Service, and the addresses to which endpoints move.
const RANGES: [(&str, &str); 2] = [("old", "10.244.0.0/14"), ("new", "10.252.0.0/14")];

/// A host of endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Host {
    Old,
    New,
}

impl Host {
    pub(crate) fn byte(self) -> u8 {
        match self {
            Self::Old => b'o',
            Self::New => b'n',
        }
    }

    pub(crate) fn other(self) -> Self {
        match self {
            Self::Old => Self::New,
            Self::New => Self::Old,
        }
    }
}

pub(crate) struct Network {
    hosts: [Arc<Namespace>; HOSTS.len()],
}

impl Network {
    pub(crate) fn create() -> Result<Self> {
        let [client, old, new, api] = HOSTS.map(|host| Namespace::create(&name(host)));
        let hosts = [client?, old?, new?, api?];
        for ((host, namespace), number) in HOSTS.iter().zip(&hosts).zip(1..) {
            // Sockets stay bound while there is no node.
            namespace.ip(&format!("link set lo up\naddr add 10.100.{number}.2/32 dev lo"))?;
            for (_, range) in RANGES.iter().filter(|(of, _)| of == host) {
                namespace.ip(&format!("route add local {range} dev lo"))?;
            }
        }
        let [client, old, new, _] = &hosts;
        client.sysctls(&[("ipv4.ping_group_range", "0 0")])?;
        answer(old, Host::Old)?;
        answer(new, Host::New)?;
        Ok(Self { hosts })
    }

    pub(crate) fn client(&self) -> &Arc<Namespace> {
        &self.hosts[0]
    }

    /// The host of the endpoints that have not moved.
    pub(crate) fn old(&self) -> &Arc<Namespace> {
        &self.hosts[1]
    }

    /// The host of the API server, which is outside the cluster.
    pub(crate) fn api(&self) -> &Arc<Namespace> {
        &self.hosts[3]
    }

    /// Connects a new node to all hosts.
    pub(crate) fn add_node(&self) -> Result<Place> {
        let place = Place::new(NODE)?;
        let node = place.namespace();
        for ((host, namespace), number) in HOSTS.iter().zip(&self.hosts).zip(1..) {
            let network = format!("10.100.{number}");
            node.ip(&format!(
                "link add name {host} type veth peer name eth0 netns {}\n\
                 link set {host} up\naddr add {network}.1/24 dev {host}",
                namespace.name()
            ))?;
            namespace.ip(&format!(
                "link set eth0 up\naddr add {network}.2/24 dev eth0\nroute add default via {network}.1"
            ))?;
            for (_, range) in RANGES.iter().filter(|(of, _)| of == host) {
                node.ip(&format!("route add {range} via {network}.2"))?;
            }
        }
        // A client learns at once that an address is not served yet.
        node.sysctls(&[("ipv4.ip_forward", "1"), ("ipv4.icmp_ratelimit", "0")])?;
        Ok(place)
    }
}

fn name(host: &str) -> String {
    format!("bench-{host}")
}

/// Answers each connection with one byte, until the process ends.
fn answer(namespace: &Namespace, host: Host) -> Result<()> {
    let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT));
    let listener = namespace.enter(|| TcpListener::bind(address).context("listening as an endpoint"))?;
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            // A client that has gone needs no answer.
            let _ = stream.write_all(&[host.byte()]);
        }
    });
    Ok(())
}
