//! The nodes of the measurement: served by kube-ipvs, or with the same virtual servers by ipvsadm.

use std::{collections::BTreeSet, fmt, net::Ipv4Addr, net::SocketAddr};

use anyhow::Result;
use proxier::{
    Config, PodSources,
    model::{
        Conditions, Endpoint, EndpointPort, EndpointSlice, Event, Family, Hints, NodeAddress, PortNumber, Protocol,
        Service, ServiceId, ServicePort, SliceId,
    },
};
use scenarios::{Namespace, VIP_DEVICE};

use super::traffic::PORT;
use crate::{
    network::{NODE, NODE_ADDRESS, Network, POD_NETWORK},
    node::{Node, Place},
    shape::Shape,
};

const CLUSTER_IP: Ipv4Addr = Ipv4Addr::new(10, 111, 0, 80);
const EXTERNAL_IP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 80);
const SERVICE_PORT: u16 = 80;
const NODE_PORT: u16 = 30080;

/// How a client reaches the Service.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    ClusterIp,
    ExternalIp,
    NodePort,
}

impl Kind {
    pub(super) const ALL: [Self; 3] = [Self::ClusterIp, Self::ExternalIp, Self::NodePort];

    /// A pod of the node, or a host outside the cluster.
    pub(super) fn client(self, network: &Network) -> &Namespace {
        match self {
            Self::ClusterIp => network.client(),
            Self::ExternalIp | Self::NodePort => network.api(),
        }
    }

    pub(super) fn address(self) -> SocketAddr {
        match self {
            Self::ClusterIp => (CLUSTER_IP, SERVICE_PORT).into(),
            Self::ExternalIp => (EXTERNAL_IP, SERVICE_PORT).into(),
            Self::NodePort => (node_address(), NODE_PORT).into(),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ClusterIp => "ClusterIP, from a pod",
            Self::ExternalIp => "external IP, from outside, masqueraded",
            Self::NodePort => "node port, from outside, masqueraded",
        })
    }
}

/// Measures a node on which the engine serves all Services of the shape, and the measured one.
pub(super) fn served<T>(network: &Network, shape: Shape, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let config = Config { pod_sources: PodSources::Ranges(vec![POD_NETWORK.parse()?]), ..Config::new(NODE) };
    let address = NodeAddress { address: node_address().into(), global: true };
    let mut node = Node::open_at(place(network)?, config, BTreeSet::from([address]))?;
    let mut events = shape.events();
    events.extend([service(), endpoints(shape)]);
    node.deliver(events)?;
    work()
}

/// Measures a node with the virtual servers of the measured Service, and without rules. `tracks`: with one rule that
/// makes the kernel track connections, as on a node with any NAT.
pub(super) fn bare<T>(network: &Network, shape: Shape, tracks: bool, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let node = place(network)?;
    node.namespace().ip(&format!(
        "link add {VIP_DEVICE} type dummy\n\
         addr add {CLUSTER_IP}/32 dev {VIP_DEVICE}\naddr add {EXTERNAL_IP}/32 dev {VIP_DEVICE}"
    ))?;
    let mut script = String::new();
    for kind in Kind::ALL {
        let at = kind.address();
        script += &format!("ipvsadm -A -t {at} -s rr\n");
        for endpoint in addresses(shape) {
            script += &format!("ipvsadm -a -t {at} -r {endpoint}:{PORT} -m\n");
        }
    }
    if tracks {
        script += "nft 'table ip t { chain c { type filter hook prerouting priority 0; ct state invalid drop; }; }'\n";
    }
    node.namespace().run("sh", &["-e", "-c", &script])?;
    work()
}

/// A node whose kernel tracks the connections of IPVS, as kube-ipvs asks it to.
fn place(network: &Network) -> Result<Place> {
    let place = network.add_node()?;
    // Loads IPVS, whose sysctls do not exist before.
    place.namespace().run("ipvsadm", &["-L", "-n"])?;
    place.namespace().sysctls(&[("ipv4.vs.conntrack", "1")])?;
    Ok(place)
}

fn service() -> Event {
    let port = |number| PortNumber::new(number).unwrap_or(PortNumber::MIN);
    Event::ServiceApplied(Service {
        cluster_ips: vec![CLUSTER_IP.into()],
        external_ips: vec![EXTERNAL_IP.into()],
        ports: vec![ServicePort {
            name: "http".into(),
            protocol: Protocol::Tcp,
            port: port(SERVICE_PORT),
            node_port: Some(port(NODE_PORT)),
        }],
        ..Service::new(id())
    })
}

fn endpoints(shape: Shape) -> Event {
    let endpoint = |address: Ipv4Addr| Endpoint {
        address: address.into(),
        conditions: Conditions::READY,
        node: Some("other".into()),
        hints: Hints::default(),
        weight: 1,
    };
    let port = PortNumber::new(PORT).unwrap_or(PortNumber::MIN);
    Event::SliceApplied(EndpointSlice {
        id: SliceId::new("default", "measured-1"),
        service: id(),
        family: Family::V4,
        ports: vec![EndpointPort { name: "http".into(), protocol: Protocol::Tcp, port }],
        endpoints: addresses(shape).map(endpoint).collect(),
    })
}

fn id() -> ServiceId {
    ServiceId::new("default", "measured")
}

/// As many endpoints as the others have. Many of them would be only more real servers to choose from.
fn addresses(shape: Shape) -> impl Iterator<Item = Ipv4Addr> {
    (0..shape.endpoints.min(100)).map(move |index| shape.pod(0, index))
}

fn node_address() -> Ipv4Addr {
    NODE_ADDRESS.parse().unwrap_or(Ipv4Addr::UNSPECIFIED)
}
