use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use proptest::{prelude::*, sample::select};
use proxier::model::*;

/// The world has few names, addresses and ports, so that Services, Nodes and this host often conflict.
pub(crate) fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => service().prop_map(Event::ServiceApplied),
        1 => name().prop_map(|name| Event::ServiceRemoved(ServiceId::new("default", name))),
        5 => slice().prop_map(Event::SliceApplied),
        1 => name().prop_map(|name| Event::SliceRemoved(SliceId::new("default", name))),
        2 => host_addresses().prop_map(Event::NodeAddresses),
        1 => api_server().prop_map(Event::ApiServerAddresses),
        2 => node().prop_map(Event::NodeApplied),
        1 => select(vec!["node-1", "node-2"]).prop_map(|name| Event::NodeRemoved(name.into())),
        1 => service_cidr().prop_map(Event::ServiceCidrApplied),
        1 => select(vec!["a", "b"]).prop_map(|name| Event::ServiceCidrRemoved(name.into())),
    ]
}

fn name() -> impl Strategy<Value = &'static str> {
    select(vec!["a", "b", "c"])
}

fn number() -> impl Strategy<Value = PortNumber> {
    select(vec![80, 443, 30080]).prop_map(|number: u16| number.try_into().unwrap())
}

fn protocol() -> impl Strategy<Value = Protocol> {
    prop_oneof![4 => Just(Protocol::Tcp), 2 => Just(Protocol::Udp), 1 => Just(Protocol::Sctp)]
}

fn select_address(list: &[&str]) -> impl Strategy<Value = IpAddr> + use<> {
    select(list.iter().map(|text| text.parse().unwrap()).collect::<Vec<IpAddr>>())
}

/// Possible VIPs. Nodes, this host and endpoints on the host network use some of them too.
const VIPS: &[&str] = &["10.0.0.1", "10.0.0.2", "fd00::1", "192.168.0.1"];

/// Addresses of this host, of Nodes and of the API server. Endpoints use some of them, and some are VIPs.
fn node_address() -> impl Strategy<Value = IpAddr> {
    select_address(&["192.168.0.1", "192.168.0.2", "10.0.0.2", "fd00::1", "fd02::1", "10.1.0.1", "10.1.0.2"])
}

/// Mostly one or two, sometimes none or three.
fn some_of<T: std::fmt::Debug + 'static>(one: impl Strategy<Value = T> + 'static) -> impl Strategy<Value = Vec<T>> {
    let count = select(vec![0, 1, 1, 1, 2, 2, 3]);
    let one = one.boxed();
    count.prop_flat_map(move |count| prop::collection::vec(one.clone(), count))
}

fn service() -> impl Strategy<Value = Service> {
    let vip = || select_address(VIPS);
    let port = (select(vec!["", "", "", "x"]), protocol(), number(), proptest::option::of(number()))
        .prop_map(|(name, protocol, port, node_port)| ServicePort { name: name.into(), protocol, port, node_port });
    let affinity = select(vec![Affinity::None, Affinity::ClientIp(60.try_into().unwrap())]);
    let policy = || select(vec![TrafficPolicy::Cluster, TrafficPolicy::Local]);
    let ranges = select(vec!["10.1.0.0/16", "192.168.0.0/24", "192.168.0.2/32", "fd00::/8", "0.0.0.0/0"]);
    let ranges = prop::collection::vec(ranges.prop_map(|range| range.parse().unwrap()), 0..3);
    let external = (prop::collection::vec(vip(), 0..2), prop::collection::vec(vip(), 0..2), ranges);
    let health_check = proptest::option::of(number());
    let parts = (
        (name(), 0..3i64, some_of(vip()), some_of(port), affinity),
        (policy(), policy(), health_check),
        external,
        prop::option::weighted(0.3, options()),
    );
    parts.prop_map(|(common, policies, external, options)| {
        let (external_ips, load_balancer_ips, source_ranges) = external;
        let (name, created, cluster_ips, mut ports, affinity) = common;
        let (internal_policy, external_policy, health_check_port) = policies;
        // The API server rejects two ports with the same name, or with the same protocol and number.
        let mut seen = BTreeSet::new();
        ports.retain(|port| seen.insert(format!("{} {}", port.protocol, port.port)));
        let mut names = BTreeSet::new();
        ports.retain(|port| names.insert(port.name.clone()));
        let service = Service::new(ServiceId::new("default", name));
        Service {
            created,
            cluster_ips,
            ports,
            affinity,
            external_ips,
            load_balancer_ips,
            source_ranges,
            health_check_port,
            internal_policy,
            external_policy,
            options: options.map(Box::new),
            ..service
        }
    })
}

fn options() -> impl Strategy<Value = ServiceOptions> {
    use ipvs_netlink::Scheduler;
    let scheduler = select(vec![None, Some(Scheduler::WRR), Some(Scheduler::SH), Some(Scheduler::MH)]);
    let hash_on = select(vec![None, Some(HashOn::Address), Some(HashOn::AddressAndPort)]);
    let udp = select(vec![UdpScheduling::Flow, UdpScheduling::Datagram, UdpScheduling::OneWayDatagram]);
    let forwarding = select(vec![Forwarding::Masq, Forwarding::Direct, Forwarding::Ipip, Forwarding::Gue(port(6080))]);
    let scheduling = (scheduler, hash_on, proptest::option::of(any::<bool>()), udp, forwarding);
    let weight = || select(vec![0, 1, 1, 7, u16::MAX]);
    let node_weights = prop::collection::vec((select(vec!["node-1", "node-2"]), weight()), 0..2);
    let drain_time = select(vec![None, Some(Duration::ZERO), Some(Duration::from_secs(2))]);
    let parts = (scheduling, weight(), node_weights, drain_time);
    parts.prop_map(|(scheduling, local_weight, node_weights, max_drain_time)| {
        let (scheduler, hash_on, hash_fallback, udp_scheduling, forwarding) = scheduling;
        let node_weights = node_weights.into_iter().map(|(node, weight)| (node.into(), weight)).collect();
        ServiceOptions {
            scheduler,
            hash_on,
            hash_fallback,
            udp_scheduling,
            forwarding,
            local_weight,
            node_weights,
            max_drain_time,
        }
    })
}

fn port(number: u16) -> PortNumber {
    number.try_into().unwrap()
}

/// Pods, and pods on the host network.
const ENDPOINTS_V4: [&str; 6] = ["10.1.0.1", "10.1.0.2", "10.1.0.3", "10.1.0.4", "192.168.0.1", "192.168.0.2"];
const ENDPOINTS_V6: [&str; 6] = ["fd01::1", "fd01::2", "fd01::3", "fd00::1", "fd02::1", "fe80::1"];

fn slice() -> impl Strategy<Value = EndpointSlice> {
    let conditions = prop_oneof![
        3 => Just(Conditions::READY),
        1 => Just(Conditions::NOT_READY),
        1 => Just(Conditions::SERVING_TERMINATING),
    ];
    let place = (select(vec![None, Some("node-1"), Some("node-2")]), select(vec![None, Some("z1"), Some("z2")]));
    let endpoint = (0..6usize, conditions, place);
    use Protocol::{Sctp, Tcp, Udp};
    let protocols = select(vec![vec![Tcp], vec![Tcp, Udp], vec![Tcp, Udp, Sctp], vec![Udp]]);
    let target = (protocols, select(vec![80, 8080]));
    let weight = select(vec![0, 1, 1, 1, 3]);
    let endpoints = some_of(endpoint);
    let parts = (name(), name(), prop::bool::weighted(0.7), endpoints, target, weight);
    parts.prop_map(|(name, service, v4, endpoints, (protocols, target), weight)| EndpointSlice {
        id: SliceId::new("default", name),
        service: ServiceId::new("default", service),
        family: if v4 { Family::V4 } else { Family::V6 },
        ports: protocols
            .into_iter()
            .map(|protocol| EndpointPort { name: "".into(), protocol, port: port(target) })
            .collect(),
        endpoints: endpoints
            .into_iter()
            .map(|(number, conditions, (node, zone))| Endpoint {
                address: if v4 { ENDPOINTS_V4[number] } else { ENDPOINTS_V6[number] }.parse().unwrap(),
                conditions,
                weight,
                node: node.map(Into::into),
                hints: Hints::new(
                    zone.map(Into::into).into_iter().collect(),
                    node.filter(|_| zone == Some("z2")).map(Into::into).into_iter().collect(),
                ),
            })
            .collect(),
    })
}

fn host_addresses() -> impl Strategy<Value = BTreeSet<NodeAddress>> {
    let local = select_address(&["fe80::1"]).prop_map(|address| NodeAddress { address, global: false });
    let one = (node_address(), any::<bool>());
    let one = one.prop_map(|(address, global)| NodeAddress { address, global });
    prop::collection::btree_set(prop_oneof![6 => one, 1 => local], 0..3)
}

fn api_server() -> impl Strategy<Value = BTreeSet<SocketAddr>> {
    let at = (select_address(VIPS), select(vec![80, 443])).prop_map(|(address, port)| SocketAddr::new(address, port));
    prop::collection::btree_set(at, 0..2)
}

fn node() -> impl Strategy<Value = Node> {
    let addresses = || prop::collection::vec(node_address(), 0..3);
    let zone = select(vec![None, Some("z1"), Some("z2")]);
    let pods = select(vec!["10.1.0.0/24", "10.1.0.0/16", "10.1.1.0/24", "fd01::/64"]);
    let pods = prop::collection::vec(pods.prop_map(|range| range.parse().unwrap()), 0..3);
    let parts = (select(vec!["node-1", "node-1", "node-2"]), addresses(), zone, pods);
    parts.prop_map(|(name, addresses, zone, pod_cidrs)| Node {
        name: name.into(),
        internal_ips: addresses.clone(),
        addresses,
        zone: zone.map(Into::into),
        pod_cidrs,
        leaving: false,
    })
}

fn service_cidr() -> impl Strategy<Value = ServiceCidr> {
    let ranges = select(vec!["10.0.0.0/8", "10.0.0.0/16", "11.0.0.0/8", "fd00::/108"]);
    let ranges = prop::collection::vec(ranges.prop_map(|range| range.parse().unwrap()), 0..3);
    (select(vec!["a", "b"]), ranges).prop_map(|(name, ranges)| ServiceCidr { name: name.into(), ranges })
}
