//! Whatever happens, in whatever order: increments end where one full pass over the same world ends.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use proptest::{prelude::*, sample::select};
use proxier::{Config, Engine, PodSources, State, fake::FakeKernel, model::*};

/// A small world, so that Services often meet: few names, addresses and ports.
fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => service().prop_map(Event::ServiceApplied),
        1 => name().prop_map(|name| Event::ServiceRemoved(ServiceId::new("default", name))),
        5 => slice().prop_map(Event::SliceApplied),
        1 => name().prop_map(|name| Event::SliceRemoved(SliceId::new("default", name))),
        1 => host_addresses().prop_map(Event::NodeAddresses),
        1 => api_server().prop_map(Event::ApiServerAddresses),
        1 => node().prop_map(Event::NodeApplied),
        1 => select(vec!["node-1", "node-2"]).prop_map(|name| Event::NodeRemoved(name.into())),
        1 => service_cidr().prop_map(Event::ServiceCidrApplied),
    ]
}

fn name() -> impl Strategy<Value = &'static str> {
    select(vec!["a", "b", "c", "d"])
}

fn number() -> impl Strategy<Value = PortNumber> {
    select(vec![80, 443, 30080]).prop_map(|number: u16| number.try_into().unwrap())
}

fn protocol() -> impl Strategy<Value = Protocol> {
    select(vec![Protocol::Tcp, Protocol::Udp, Protocol::Sctp])
}

fn address(list: &[&str]) -> impl Strategy<Value = IpAddr> + use<> {
    select(list.iter().map(|text| text.parse().unwrap()).collect::<Vec<IpAddr>>())
}

fn service() -> impl Strategy<Value = Service> {
    let vip = || address(&["10.0.0.1", "10.0.0.2", "fd00::1", "192.168.0.1"]);
    let port = (select(vec!["", "x"]), protocol(), number(), proptest::option::of(number())).prop_map(
        |(name, protocol, port, node_port)| ServicePort { name: name.into(), protocol, port, node_port },
    );
    let affinity = select(vec![Affinity::None, Affinity::ClientIp(60.try_into().unwrap())]);
    let policy = || select(vec![TrafficPolicy::Cluster, TrafficPolicy::Local]);
    let ranges = select(vec!["10.1.0.0/16", "192.168.0.0/24", "192.168.0.2/32", "fd00::/8", "0.0.0.0/0"]);
    let ranges = prop::collection::vec(ranges.prop_map(|range| range.parse().unwrap()), 0..3);
    let external = (prop::collection::vec(vip(), 0..2), prop::collection::vec(vip(), 0..2), ranges);
    let health_check = proptest::option::of(number());
    let parts = (
        (name(), 0..3i64, prop::collection::vec(vip(), 0..3), prop::collection::vec(port, 0..3), affinity),
        (policy(), policy(), health_check),
        external,
        proptest::option::of(options()),
    );
    parts.prop_map(|(common, policies, external, options)| {
        let (external_ips, load_balancer_ips, source_ranges) = external;
        let (name, created, cluster_ips, mut ports, affinity) = common;
        let (internal_policy, external_policy, health_check_port) = policies;
        // The API server refuses two ports of one name, or of one protocol and number.
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
    let forwarding =
        select(vec![Forwarding::Masq, Forwarding::Direct, Forwarding::Ipip, Forwarding::Gue(port(6080))]);
    let scheduling = (scheduler, hash_on, proptest::option::of(any::<bool>()), udp, forwarding);
    let weight = || select(vec![0, 1, 7, u16::MAX]);
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

fn slice() -> impl Strategy<Value = EndpointSlice> {
    let conditions = select(vec![Conditions::READY, Conditions::NOT_READY, Conditions::SERVING_TERMINATING]);
    let place =
        (select(vec![None, Some("node-1"), Some("node-2")]), select(vec![None, Some("z1"), Some("z2")]));
    let endpoint = (1..6u8, conditions, place);
    let target = (protocol(), select(vec![80, 8080]));
    let weight = select(vec![0, 1, 1, 3]);
    let endpoints = prop::collection::vec(endpoint, 0..4);
    let parts = (name(), name(), any::<bool>(), endpoints, target, weight);
    parts.prop_map(|(name, service, v4, endpoints, (protocol, target), weight)| EndpointSlice {
        id: SliceId::new("default", name),
        service: ServiceId::new("default", service),
        family: if v4 { Family::V4 } else { Family::V6 },
        ports: vec![EndpointPort { name: "".into(), protocol, port: port(target) }],
        endpoints: endpoints
            .into_iter()
            .map(|(last, conditions, (node, zone))| Endpoint {
                address: if v4 {
                    IpAddr::from([10, 1, 0, last])
                } else {
                    format!("fd01::{last}").parse().unwrap()
                },
                conditions,
                weight,
                node: node.map(Into::into),
                hints: Hints {
                    zones: zone.map(Into::into).into_iter().collect(),
                    nodes: node.filter(|_| zone == Some("z2")).map(Into::into).into_iter().collect(),
                },
            })
            .collect(),
    })
}

fn host_addresses() -> impl Strategy<Value = BTreeSet<NodeAddress>> {
    let one = (address(&["192.168.0.1", "192.168.0.2", "fd02::1", "10.1.0.2"]), any::<bool>());
    prop::collection::btree_set(one.prop_map(|(address, global)| NodeAddress { address, global }), 0..3)
}

fn api_server() -> impl Strategy<Value = BTreeSet<SocketAddr>> {
    let address = address(&["10.0.0.1", "10.0.0.2", "fd00::1", "192.168.0.1"]);
    let at = (address, select(vec![80, 443])).prop_map(|(address, port)| SocketAddr::new(address, port));
    prop::collection::btree_set(at, 0..2)
}

fn node() -> impl Strategy<Value = Node> {
    let addresses =
        || prop::collection::vec(address(&["192.168.0.1", "10.0.0.2", "fd00::1", "10.1.0.1"]), 0..2);
    let zone = select(vec![None, Some("z1"), Some("z2")]);
    let pods = select(vec!["10.1.0.0/24", "10.1.0.0/16", "10.1.1.0/24", "fd01::/64"]);
    let pods = prop::collection::vec(pods.prop_map(|range| range.parse().unwrap()), 0..3);
    let parts = (select(vec!["node-1", "node-2"]), addresses(), zone, pods);
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

/// What the kernel has, less what only drains: that depends on what was there before.
fn settled(mut state: State) -> State {
    for server in state.virtual_servers.values_mut() {
        server.real_servers.retain(|_, real_server| real_server.weight > 0);
    }
    state
}

fn config() -> Config {
    Config {
        sync_period: Duration::MAX / 4,
        pod_sources: PodSources::OwnNode,
        scoped_arp: true,
        localhost_node_ports: true,
        reserved_ports: vec![443..=443],
        ..Config::new("node-1")
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..Default::default() })]

    #[test]
    fn increments_end_where_a_full_pass_ends(
        syncs in prop::collection::vec(prop::collection::vec(event(), 1..4), 1..20),
        order in any::<prop::sample::Index>(),
    ) {
        let (mut engine, mut kernel) = (Engine::new(config()), FakeKernel::default());
        for (second, events) in syncs.iter().enumerate() {
            events.iter().cloned().for_each(|event| engine.apply(event));
            let report = engine.sync(&mut kernel, Duration::from_secs(second as u64));
            // Nothing is made twice, and nothing is changed or removed that is not there.
            prop_assert_eq!(&report.failures, &[]);
        }
        prop_assert_eq!(kernel.observations, 1);

        // The same world in one pass, its objects in another order.
        let mut last: Vec<Event> = Vec::new();
        for event in syncs.into_iter().flatten() {
            last.retain(|old| object(old) != object(&event));
            last.push(event);
        }
        let middle = order.index(last.len());
        last.rotate_left(middle);
        let (mut full, mut fresh) = (Engine::new(config()), FakeKernel::default());
        last.iter().cloned().for_each(|event| full.apply(event));
        full.sync(&mut fresh, Duration::ZERO);
        prop_assert_eq!(settled(kernel.state()), settled(fresh.state()));

        // A restarted engine finds nothing to do but what drains.
        let mut restarted = Engine::new(config());
        last.into_iter().for_each(|event| restarted.apply(event));
        let (plan, _) = restarted.plan(fresh.state(), Duration::ZERO);
        prop_assert!(plan.is_empty(), "{}", plan);
    }
}

/// Parts of the texts of changes that the kernel refuses for a while.
fn refusals() -> impl Strategy<Value = Vec<String>> {
    let texts = [
        "- address",
        "+ address 10.0.0.1",
        "+ address",
        "- virtual server",
        "+ virtual server TCP 10.0.0.1:80",
        "+ virtual server",
        "~ virtual server",
        "+ real server",
        "- real server",
        "~ real server",
        "+ element served { 10.0.0.1",
        "+ element vips",
        "+ element arp-ignore",
        "- element arp-ignore",
        "element pod-sources",
        "element outside",
        "+ element",
        "- element served",
        "- element vips",
    ];
    prop::collection::vec(select(texts.map(String::from).to_vec()), 0..3)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..Default::default() })]

    /// Whatever fails on the way, once nothing does the end is the same, and nothing is left behind.
    #[test]
    fn failures_are_made_good(
        syncs in prop::collection::vec((prop::collection::vec(event(), 1..4), refusals()), 1..12),
    ) {
        let (mut engine, mut kernel) = (Engine::new(config()), FakeKernel::default());
        let mut now = Duration::ZERO;
        for (events, refusals) in &syncs {
            kernel.refuse.clone_from(refusals);
            events.iter().cloned().for_each(|event| engine.apply(event));
            engine.sync(&mut kernel, now);
            now += Duration::from_secs(1);
        }
        kernel.refuse.clear();
        while !engine.is_healthy() {
            now = now.max(engine.next_sync());
            let report = engine.sync(&mut kernel, now);
            prop_assert_eq!(&report.failures, &[]);
        }
        // And once more, as an audit does.
        let audit = engine.sync(&mut kernel, engine.next_sync());
        prop_assert_eq!(&audit.failures, &[]);
        let (mut full, mut fresh) = (Engine::new(config()), FakeKernel::default());
        syncs.into_iter().flat_map(|(events, _)| events).for_each(|event| full.apply(event));
        full.sync(&mut fresh, Duration::ZERO);
        prop_assert_eq!(settled(kernel.state()), settled(fresh.state()));
    }
}

/// Which object an event is about.
fn object(event: &Event) -> String {
    match event {
        Event::ServiceApplied(Service { id, .. }) | Event::ServiceRemoved(id) => format!("service {id}"),
        Event::SliceApplied(EndpointSlice { id, .. }) | Event::SliceRemoved(id) => format!("slice {id}"),
        Event::NodeApplied(Node { name, .. }) | Event::NodeRemoved(name) => format!("node {name}"),
        Event::ServiceCidrApplied(ServiceCidr { name, .. }) | Event::ServiceCidrRemoved(name) => {
            format!("ServiceCIDR {name}")
        }
        Event::NodeAddresses(_) => "addresses".into(),
        Event::ApiServerAddresses(_) => "API server".into(),
    }
}
