//! The nodes of the measurement: served by kube-ipvs, or with the same virtual servers by ipvsadm.

use std::{
    collections::BTreeSet,
    fmt,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

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
    world::{SLICE, port},
};

const EXTERNAL_IP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 80);
const SERVICE_PORT: PortNumber = port(80);
const NODE_PORT: PortNumber = port(30080);

/// How a client reaches a Service. Each kind has a Service of its own with other endpoints: IPVS confuses connections
/// from one client port to one endpoint.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    ClusterIp = 1,
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
            Self::ClusterIp => (self.cluster_ip(), SERVICE_PORT.get()).into(),
            Self::ExternalIp => (EXTERNAL_IP, SERVICE_PORT.get()).into(),
            Self::NodePort => (NODE_ADDRESS, NODE_PORT.get()).into(),
        }
    }

    fn cluster_ip(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 111, 0, self as u8)
    }

    fn id(self) -> ServiceId {
        ServiceId::new(
            "default",
            match self {
                Self::ClusterIp => "cluster-ip",
                Self::ExternalIp => "external-ip",
                Self::NodePort => "node-port",
            },
        )
    }

    fn endpoints(self, shape: Shape) -> impl Iterator<Item = Ipv4Addr> {
        (0..shape.endpoints.min(SLICE)).map(move |index| shape.pod(self as u32 - 1, index))
    }

    fn events(self, shape: Shape) -> [Event; 2] {
        let endpoint = |address: Ipv4Addr| Endpoint {
            address: address.into(),
            conditions: Conditions::READY,
            node: Some("other".into()),
            hints: Hints::default(),
            weight: 1,
        };
        let node_port = matches!(self, Self::NodePort).then_some(NODE_PORT);
        let (name, protocol) = (Arc::from("http"), Protocol::Tcp);
        let service = Service {
            cluster_ips: vec![self.cluster_ip().into()],
            external_ips: if matches!(self, Self::ExternalIp) { vec![EXTERNAL_IP.into()] } else { Vec::new() },
            ports: vec![ServicePort { name: Arc::clone(&name), protocol, port: SERVICE_PORT, node_port }],
            ..Service::new(self.id())
        };
        let slice = EndpointSlice {
            id: SliceId::new("default", &format!("{}-1", self.id().name)),
            service: self.id(),
            family: Family::V4,
            ports: vec![EndpointPort { name, protocol, port: PORT }],
            endpoints: self.endpoints(shape).map(endpoint).collect(),
        };
        [Event::ServiceApplied(service), Event::SliceApplied(slice)]
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

/// Measures a node on which the engine serves all Services of the shape, and the measured ones.
pub(super) fn served<T>(network: &Network, shape: Shape, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let config = Config { pod_sources: PodSources::Ranges(vec![POD_NETWORK.parse()?]), ..Config::new(NODE) };
    let address = NodeAddress { address: NODE_ADDRESS.into(), global: true };
    let mut node = Node::open_at(place(network)?, config, BTreeSet::from([address]))?;
    let mut events = shape.events();
    events.extend(Kind::ALL.into_iter().flat_map(|kind| kind.events(shape)));
    node.deliver(events)?;
    work()
}

/// Measures a node with the virtual servers of the measured Services, and without rules. `tracks`: with one rule that
/// makes the kernel track connections, as on a node with any NAT.
pub(super) fn bare<T>(network: &Network, shape: Shape, tracks: bool, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let (node, cluster_ip) = (place(network)?, Kind::ClusterIp.cluster_ip());
    node.namespace().ip(&format!(
        "link add {VIP_DEVICE} type dummy\n\
         addr add {cluster_ip}/32 dev {VIP_DEVICE}\naddr add {EXTERNAL_IP}/32 dev {VIP_DEVICE}"
    ))?;
    let mut script = String::new();
    for kind in Kind::ALL {
        let at = kind.address();
        script += &format!("ipvsadm -A -t {at} -s rr\n");
        for endpoint in kind.endpoints(shape) {
            script += &format!("ipvsadm -a -t {at} -r {endpoint}:{PORT} -m\n");
        }
    }
    if tracks {
        script += "nft 'table ip t { chain c { type filter hook prerouting priority 0; ct state invalid drop; }; }'\n";
    }
    node.namespace().run("sh", &["-e", "-c", &script])?;
    work()
}

/// A node with the sysctl that kube-ipvs sets: conntrack sees the connections of IPVS, if any rule turns it on.
fn place(network: &Network) -> Result<Place> {
    let place = network.add_node()?;
    // Loads IPVS, whose sysctls do not exist before.
    place.namespace().run("ipvsadm", &["-L", "-n"])?;
    place.namespace().sysctls(&[("ipv4.vs.conntrack", "1")])?;
    Ok(place)
}
