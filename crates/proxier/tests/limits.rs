//! Objects as large as the API server accepts: which part the engine serves, what it reports, and how its work grows.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use proxier::{Completeness, Config, Engine, SyncReport, desired::Skipped, fake::FakeKernel, model::*};

fn port(number: usize) -> PortNumber {
    PortNumber::new(number.try_into().unwrap()).unwrap()
}

fn service(name: &str, cluster_ip: &str, ports: usize) -> Service {
    let port = |number: usize| ServicePort {
        name: format!("p{number}").into(),
        protocol: Protocol::Udp,
        port: port(number),
        node_port: None,
    };
    Service {
        cluster_ips: vec![cluster_ip.parse().unwrap()],
        ports: (10_000..10_000 + ports).map(port).collect(),
        ..Service::new(ServiceId::new("default", name))
    }
}

fn slice(service: &Service) -> EndpointSlice {
    let endpoint = |address: &str| Endpoint {
        address: address.parse().unwrap(),
        conditions: Conditions::READY,
        node: Some("node-1".into()),
        hints: Hints::default(),
        weight: 1,
    };
    let port = |port: &ServicePort| EndpointPort { name: port.name.clone(), protocol: port.protocol, port: port.port };
    EndpointSlice {
        id: SliceId::new("default", &format!("{}-1", service.id.name)),
        service: service.id.clone(),
        family: Family::V4,
        ports: service.ports.iter().map(port).collect(),
        endpoints: ["10.244.1.2", "10.244.1.3"].map(endpoint).into(),
    }
}

fn external_ips(count: usize) -> Vec<IpAddr> {
    (1..=count).map(|number| IpAddr::from([203, 0, 113, number.try_into().unwrap()])).collect()
}

fn first_sync(config: Config, events: Vec<Event>) -> (Engine, FakeKernel, SyncReport) {
    let (mut engine, mut kernel) = (Engine::new(config, BTreeSet::new()), FakeKernel::default());
    engine.set_complete(Completeness::Complete);
    events.into_iter().for_each(|event| engine.apply(event));
    let report = engine.sync(&mut kernel, Duration::ZERO);
    assert_eq!((report.failures.len(), engine.is_healthy()), (0, true));
    (engine, kernel, report)
}

/// The largest number of ports that a user reported for one Service (kubernetes#102972).
#[test]
fn service_with_1600_ports_is_served() {
    let web = service("web", "10.96.0.80", 1600);
    let events = vec![Event::SliceApplied(slice(&web)), Event::ServiceApplied(web)];
    let (_, kernel, report) = first_sync(Config::new("node-1"), events);
    let served = kernel.virtual_servers.values().filter(|server| server.real_servers.len() == 2);
    assert_eq!((served.count(), report.skipped.len()), (1600, 0));
}

/// The addresses that the API server allocated come first, and the choice is the same on every node.
#[test]
fn external_ips_beyond_the_virtual_server_budget_are_skipped() {
    let web = Service { external_ips: external_ips(100), ..service("web", "10.96.0.80", 1600) };
    let (_, kernel, report) = first_sync(Config::new("node-1"), vec![Event::ServiceApplied(web)]);
    let addresses: BTreeSet<IpAddr> = kernel.virtual_servers.keys().map(|key| key.address).collect();
    let mut expected: BTreeSet<IpAddr> = external_ips(6).into_iter().collect();
    expected.insert("10.96.0.80".parse().unwrap());
    assert_eq!((kernel.virtual_servers.len(), addresses), (10_000, expected));
    let said: Vec<String> = report.skipped.iter().map(ToString::to_string).collect();
    assert_eq!(said, ["Service default/web is served on 10000 addresses and ports; 151600 more are left out"]);
}

/// One object of 300 KB can ask for ports times ranges.
#[test]
fn ranges_of_a_load_balancer_ip_count_as_virtual_servers() {
    let ranges = (0..1000u32).map(|number| std::net::Ipv4Addr::from_bits(0x0b00_0000 + number * 2));
    let web = Service {
        load_balancer_ips: external_ips(1),
        source_ranges: ranges.map(|address| IpAddr::from(address).into()).collect(),
        ..service("web", "10.96.0.80", 5000)
    };
    let (_, kernel, report) = first_sync(Config::new("node-1"), vec![Event::ServiceApplied(web)]);
    let elements: usize = kernel.state().allowed.values().map(BTreeSet::len).sum();
    assert_eq!((kernel.virtual_servers.len(), elements), (5049, 49_000));
    assert!(matches!(report.skipped.first(), Some(Skipped::TooManyVirtualServers { .. })), "{:?}", report.skipped);
}

/// Both Services ask for the same 160,000 keys. The younger one keeps its ClusterIP. The engine reports the rest in a
/// few lines, and reports no line twice.
#[test]
fn conflicting_external_ips_are_reported_in_a_few_lines() {
    let both = [("old", "10.96.0.1"), ("young", "10.96.0.2")];
    let both = both.map(|(name, ip)| Service { external_ips: external_ips(100), ..service(name, ip, 1600) });
    let (mut engine, mut kernel, report) = first_sync(Config::new("node-1"), both.map(Event::ServiceApplied).into());
    assert_eq!(kernel.virtual_servers.len(), 10_000 + 1600);
    let of_young = report.skipped.iter().filter(|reason| &*reason.service().name == "young");
    assert_eq!((report.skipped.len(), of_young.count()), (1 + 21, 21));
    let more = report.skipped.last().unwrap();
    assert!(matches!(more, Skipped::MoreOmitted { count: 8381, .. }), "{more}");
    let later = engine.next_sync();
    engine.verify_at(later);
    let again = engine.sync(&mut kernel, later);
    assert!(again.is_full && again.skipped.is_empty() && again.plan.is_empty(), "{:?}", again.skipped);
}

/// The CPU time of this thread in nanoseconds, which other programs on the machine do not affect.
fn processor_time() -> u64 {
    let counts = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    counts.split_whitespace().next().unwrap().parse().unwrap()
}

/// Asserts that eight times the size takes less than 32 times the work: half of a quadratic growth.
#[track_caller]
fn grows_with_its_size(large: usize, work: impl Fn(usize)) {
    let cost = |size: usize| {
        let once = |_| {
            let start = processor_time();
            work(size);
            processor_time() - start
        };
        (0..3).map(once).min().unwrap()
    };
    // The kernel may count in steps of 4 ms.
    let (small, large) = (cost(large / 8).max(4_000_000), cost(large));
    assert!(large < small * 32, "{small} ns, and for eight times as much {large} ns");
}

/// Serves the Services without a limit, with ports behind short circuits, and verifies the whole state. Then removes
/// them.
fn serve(services: Vec<Service>) {
    let gone: Vec<Event> = services.iter().map(|service| Event::ServiceRemoved(service.id.clone())).collect();
    let config = Config { max_virtual_servers: usize::MAX, ..Config::new("node-1") };
    let slices: Vec<Event> = services.iter().map(|service| Event::SliceApplied(slice(service))).collect();
    let services: Vec<Event> = services.into_iter().map(Event::ServiceApplied).collect();
    let (mut engine, mut kernel, _) = first_sync(config, [slices, services].concat());
    let later = engine.next_sync();
    engine.verify_at(later);
    assert!(engine.sync(&mut kernel, later).plan.is_empty());
    gone.into_iter().for_each(|event| engine.apply(event));
    engine.sync(&mut kernel, later);
    assert!(kernel.virtual_servers.is_empty());
}

#[test]
fn work_grows_with_the_ports_of_a_service_and_its_slice() {
    grows_with_its_size(20_000, |ports| {
        let (internal_policy, external_policy) = (TrafficPolicy::Local, TrafficPolicy::Local);
        let web = service("web", "10.96.0.80", ports);
        serve(vec![Service { external_ips: external_ips(1), internal_policy, external_policy, ..web }]);
    });
}

#[test]
fn work_grows_with_the_ports_of_many_slices() {
    grows_with_its_size(16_000, |ports| {
        let web = service("web", "10.96.0.80", ports);
        let part = |(number, ports): (usize, &[EndpointPort])| EndpointSlice {
            id: SliceId::new("default", &format!("web-{number}")),
            ports: ports.into(),
            ..slice(&web)
        };
        let all = slice(&web);
        let mut events: Vec<Event> =
            all.ports.chunks(20).enumerate().map(|chunk| Event::SliceApplied(part(chunk))).collect();
        events.push(Event::ServiceApplied(web.clone()));
        let config = Config { max_virtual_servers: usize::MAX, ..Config::new("node-1") };
        let (_, kernel, _) = first_sync(config, events);
        assert_eq!(kernel.virtual_servers.len(), ports);
    });
}

#[test]
fn work_grows_with_the_claims_that_are_rejected() {
    grows_with_its_size(40_000, |claims| {
        let both = [("old", "10.96.0.1"), ("young", "10.96.0.2")];
        let both =
            both.map(|(name, ip)| Service { external_ips: external_ips(100), ..service(name, ip, claims / 100) });
        serve(both.into());
    });
}
