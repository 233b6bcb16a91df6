use std::net::SocketAddr;

use expect_test::{Expect, expect};

use super::{super::*, check};
use crate::{fake::FakeKernel, model::*, testing::*};

fn with_external_ips(service: Service, ips: &[&str]) -> Service {
    Service { external_ips: ips.iter().map(|ip| ip.parse().unwrap()).collect(), ..service }
}

fn with_load_balancer_ips(service: Service, ips: &[&str]) -> Service {
    Service { load_balancer_ips: ips.iter().map(|ip| ip.parse().unwrap()).collect(), ..service }
}

fn node(name: &str, addresses: &[&str]) -> Event {
    let addresses = addresses.iter().map(|ip| ip.parse().unwrap()).collect();
    Event::NodeApplied(Node { addresses, ..Node::new(name) })
}

fn service_cidr(ranges: &[&str]) -> Event {
    let ranges = ranges.iter().map(|range| range.parse().unwrap()).collect();
    Event::ServiceCidrApplied(ServiceCidr { name: "kubernetes".into(), ranges })
}

fn bound(kernel: &FakeKernel) -> String {
    let addresses: Vec<String> = kernel.state().bound_vips.iter().map(ToString::to_string).collect();
    addresses.join(" ")
}

/// The Service port of each virtual server, from the comment in the record.
fn owners(kernel: &FakeKernel) -> String {
    let owner = |key| kernel.state().elements.get(key).and_then(|element| element.comment.clone());
    let keys = kernel.virtual_servers.keys();
    keys.map(|key| format!("{key} {}\n", owner(key).as_deref().unwrap_or("none"))).collect()
}

fn skipped(report: &SyncReport) -> String {
    report.skipped.iter().map(|reason| format!("{reason}\n")).collect()
}

fn api_server(ips: &[&str]) -> Event {
    Event::ApiServerAddresses(ips.iter().map(|ip| SocketAddr::new(ip.parse().unwrap(), 8443)).collect())
}

/// If every node bound the address, no node could reach the API server, not even to learn of a correction.
#[test]
fn an_external_ip_never_takes_the_address_of_the_api_server() {
    let (mut engine, mut kernel) = start();
    let web = service("web", &["10.0.0.1"], &[(80, None)]);
    let web = Service {
        load_balancer_ips: vec!["192.168.128.201".parse().unwrap()],
        ..with_external_ips(web, &["192.168.128.200"])
    };
    let both = api_server(&["192.168.128.200", "192.168.128.201"]);
    check(
        &sync(&mut engine, &mut kernel, 0, [both, Event::ServiceApplied(web)]),
        expect![[r#"
            + element served { 10.0.0.1 . tcp . 80 } comment "default/web"
            + element cluster-ips { 10.0.0.1 . tcp . 80 }
            + element no-endpoints { 10.0.0.1 . tcp . 80 }
            + element vips { 10.0.0.1 }
            + virtual server TCP 10.0.0.1:80 rr
            + address 10.0.0.1
            ! Service default/web is not served on 192.168.128.200: this node reaches the API server at that address
            ! Service default/web is not served on 192.168.128.201: this node reaches the API server at that address
        "#]],
    );
    // Once the API server is elsewhere, the address is served.
    sync(&mut engine, &mut kernel, 1, [api_server(&["192.168.128.201"])]);
    let bound = ["10.0.0.1", "192.168.128.200"].map(|ip| ip.parse().unwrap());
    assert_eq!(kernel.state().bound_vips, bound.into());
}

/// A control plane of one node: its address is on a link, is not bound, and its other ports stay reachable.
#[test]
fn api_server_address_is_served_on_the_node_that_has_it() {
    let (mut engine, mut kernel) = start();
    let mut web = service("web", &["10.0.0.1"], &[(80, None), (8443, None)]);
    web.ports[1].name = "api".into();
    let web = with_external_ips(web, &["192.168.128.1"]);
    let (host, api_server) = (addresses(&["192.168.128.1"]), api_server(&["192.168.128.1"]));
    let report = sync(&mut engine, &mut kernel, 0, [host, api_server, Event::ServiceApplied(web)]);
    expect![[r#"
        Service default/web:api is not served on TCP 192.168.128.1:8443: it is an address of this node, and the node uses the port itself
    "#]]
    .assert_eq(&skipped(&report));
    assert!(kernel.virtual_servers.contains_key(&key("TCP 192.168.128.1:80")));
    assert_eq!(kernel.state().bound_vips, ["10.0.0.1".parse().unwrap()].into());
}

/// Pods reach the API server at the ClusterIP of `kubernetes`, so it must be served.
#[test]
fn cluster_ip_is_served_if_the_api_server_is_reached_at_it() {
    let (mut engine, mut kernel) = start();
    let kubernetes = Event::ServiceApplied(service("kubernetes", &["10.96.0.1"], &[(443, None)]));
    let report = sync(&mut engine, &mut kernel, 0, [api_server(&["10.96.0.1"]), kubernetes]);
    assert_eq!(report.skipped, []);
    assert_eq!(kernel.state().bound_vips, ["10.96.0.1".parse().unwrap()].into());
}

/// A cloud agent publishes the addresses of `kube-ipvs0` in the status of its Node.
#[test]
fn cluster_ip_in_a_node_status_is_bound_on_every_node() {
    let web = || Event::ServiceApplied(service("web", &["10.96.0.80"], &[(80, None)]));
    for named_by in ["node-1", "node-2"] {
        let (mut engine, mut kernel) = start();
        let status = node(named_by, &["10.96.0.80"]);
        let report = sync(&mut engine, &mut kernel, 0, [addresses(&["192.168.128.1"]), status, web()]);
        assert_eq!((bound(&kernel).as_str(), &report.skipped[..]), ("10.96.0.80", &[][..]), "{named_by}");
    }
}

/// The status of this host's Node repeats the addresses of `kube-ipvs0`. If the engine unbound the address for that
/// reason, it would vanish from the status, and the engine would bind it again, for ever.
#[test]
fn load_balancer_ip_in_the_own_node_status_stays_bound() {
    let (mut engine, mut kernel) = start();
    let web = with_load_balancer_ips(service("web", &["10.96.0.80"], &[(80, None)]), &["203.0.113.7"]);
    sync(&mut engine, &mut kernel, 0, [addresses(&["192.168.128.1"]), Event::ServiceApplied(web)]);
    let published = ["192.168.128.1", "203.0.113.7"];
    let again = sync(&mut engine, &mut kernel, 1, [node("node-1", &published), node("node-2", &published)]);
    check(&again, expect![""]);
    assert_eq!(bound(&kernel), "10.96.0.80 203.0.113.7");
    // An address on a link of this host is not bound. An address that only another Node names belongs to that Node.
    sync(&mut engine, &mut kernel, 2, [addresses(&["192.168.128.1", "203.0.113.7"])]);
    assert_eq!(bound(&kernel), "10.96.0.80");
    let moved = [addresses(&["192.168.128.1"]), node("node-1", &["192.168.128.1"])];
    let report = sync(&mut engine, &mut kernel, 3, moved);
    assert_eq!(bound(&kernel), "10.96.0.80");
    expect![[r#"
        Service default/web is not served on 203.0.113.7 here: Node node-2 has this address and serves it
    "#]]
    .assert_eq(&skipped(&report));
}

/// In any order of creation, allocated addresses come before addresses that a Service only names.
#[test]
fn address_kind_decides_a_claim_before_service_age() {
    let (mut engine, mut kernel) = start();
    let young = |service: Service| Service { created: 20, ..service };
    let thief = with_external_ips(
        service("a-thief", &["10.96.0.66"], &[(80, None), (30080, None)]),
        &["10.96.0.80", "192.168.128.1", "203.0.113.7"],
    );
    let mut thief = thief;
    thief.ports[1].name = "node-port".into();
    let web = young(with_load_balancer_ips(service("web", &["10.96.0.80"], &[(80, Some(30080))]), &["203.0.113.7"]));
    let events = [addresses(&["192.168.128.1"]), Event::ServiceApplied(thief), Event::ServiceApplied(web)];
    let report = sync(&mut engine, &mut kernel, 0, events);
    expect![[r#"
        TCP 10.96.0.66:80 default/a-thief
        TCP 10.96.0.66:30080 default/a-thief:node-port
        TCP 10.96.0.80:80 default/web
        TCP 10.96.0.80:30080 default/a-thief:node-port
        TCP 192.168.128.1:80 default/a-thief
        TCP 192.168.128.1:30080 default/web
        TCP 203.0.113.7:80 default/web
        TCP 203.0.113.7:30080 default/a-thief:node-port
    "#]]
    .assert_eq(&owners(&kernel));
    expect![[r#"
        Service default/a-thief does not get TCP 10.96.0.80:80: Service default/web has priority by kind of address, age or name
        Service default/a-thief does not get TCP 203.0.113.7:80: Service default/web has priority by kind of address, age or name
        Service default/a-thief:node-port does not get TCP 192.168.128.1:30080: Service default/web has priority by kind of address, age or name
    "#]].assert_eq(&skipped(&report));
}

#[test]
fn an_external_ip_within_a_service_cidr_is_rejected() {
    let (mut engine, mut kernel) = start();
    let web = with_external_ips(service("web", &["10.96.0.80"], &[(80, None)]), &["10.97.0.1", "10.98.0.1"]);
    sync(&mut engine, &mut kernel, 0, [Event::ServiceApplied(web), service_cidr(&["10.96.0.0/16"])]);
    assert_eq!(bound(&kernel), "10.96.0.80 10.97.0.1 10.98.0.1");
    let wider = sync(&mut engine, &mut kernel, 1, [service_cidr(&["10.96.0.0/15"])]);
    expect![[r#"
        Service default/web is not served on 10.97.0.1: it is in the ServiceCIDR 10.96.0.0/15 and is not a ClusterIP of this Service
    "#]]
    .assert_eq(&skipped(&wider));
    assert_eq!(bound(&kernel), "10.96.0.80 10.98.0.1");
    sync(&mut engine, &mut kernel, 2, [Event::ServiceCidrRemoved("kubernetes".into())]);
    assert_eq!(bound(&kernel), "10.96.0.80 10.97.0.1 10.98.0.1");
}

/// Otherwise one object of one namespace could take the API server, etcd or the kubelet of a node off the network.
#[test]
fn external_ip_on_a_node_address_gets_no_reserved_port() {
    let (mut engine, mut kernel) = start();
    let ports: Vec<(u16, Option<u16>)> =
        [22, 80, 2379, 2380, 6443, 10248, 10249, 10250, 10256, 10257, 10258, 10259].map(|port| (port, None)).into();
    let mut web = with_external_ips(service("web", &["10.96.0.80"], &ports), &["192.168.128.1"]);
    web.ports.iter_mut().for_each(|port| port.name = format!("p{}", port.port).into());
    let report = sync(&mut engine, &mut kernel, 0, [addresses(&["192.168.128.1"]), Event::ServiceApplied(web)]);
    expect![[r#"
        Service default/web:p10249 is not served on TCP 192.168.128.1:10249: it is an address of this node, and the node uses the port itself
        Service default/web:p10250 is not served on TCP 192.168.128.1:10250: it is an address of this node, and the node uses the port itself
        Service default/web:p10256 is not served on TCP 192.168.128.1:10256: it is an address of this node, and the node uses the port itself
        Service default/web:p10257 is not served on TCP 192.168.128.1:10257: it is an address of this node, and the node uses the port itself
        Service default/web:p10258 is not served on TCP 192.168.128.1:10258: it is an address of this node, and the node uses the port itself
        Service default/web:p10259 is not served on TCP 192.168.128.1:10259: it is an address of this node, and the node uses the port itself
        Service default/web:p22 is not served on TCP 192.168.128.1:22: it is an address of this node, and the node uses the port itself
        Service default/web:p2379 is not served on TCP 192.168.128.1:2379: it is an address of this node, and the node uses the port itself
        Service default/web:p2380 is not served on TCP 192.168.128.1:2380: it is an address of this node, and the node uses the port itself
        Service default/web:p6443 is not served on TCP 192.168.128.1:6443: it is an address of this node, and the node uses the port itself
    "#]].assert_eq(&skipped(&report));
    let served = owners(&kernel);
    let served: Vec<&str> = served.lines().filter(|line| line.contains("192.168.128.1")).collect();
    expect![[r#"
        TCP 192.168.128.1:80 default/web:p80
        TCP 192.168.128.1:10248 default/web:p10248"#]]
    .assert_eq(&served.join("\n"));
}

/// The API server allocates node ports, so they do not depend on external IPs.
#[test]
fn node_port_is_served_if_an_external_ip_with_its_number_is_rejected() {
    let mut config = Config::new("node-1");
    config.allow_external_ips = false;
    let (mut engine, mut kernel) = (engine_with(config), FakeKernel::default());
    let web = service("web", &["10.96.0.80"], &[(30080, Some(30080))]);
    let web = with_external_ips(web, &["192.168.128.1"]);
    let report = sync(&mut engine, &mut kernel, 0, [addresses(&["192.168.128.1"]), Event::ServiceApplied(web)]);
    assert_eq!(skipped(&report), "");
    assert!(kernel.virtual_servers.contains_key(&key("TCP 192.168.128.1:30080")));
}

/// Its endpoints would tell the load balancer of another Service that every node is healthy.
#[test]
fn an_external_ip_takes_no_health_check_port_of_another_service() {
    let (mut engine, mut kernel) = start();
    let thief = service("a-thief", &["10.96.0.66"], &[(32000, None)]);
    let thief = with_external_ips(thief, &["192.168.128.1", "203.0.113.7"]);
    let web = with_load_balancer_ips(service("web", &["10.96.0.80"], &[(80, None)]), &["203.0.113.7"]);
    let web = |number| Service {
        created: 20,
        external_policy: TrafficPolicy::Local,
        health_check_port: PortNumber::new(number),
        ..web.clone()
    };
    let events = [addresses(&["192.168.128.1"]), Event::ServiceApplied(thief)];
    sync(&mut engine, &mut kernel, 0, events.into_iter().chain([Event::ServiceApplied(web(32000))]));
    expect![[r#"
        TCP 10.96.0.66:32000 default/a-thief
        TCP 10.96.0.80:80 default/web
        TCP 203.0.113.7:80 default/web
    "#]]
    .assert_eq(&owners(&kernel));
    sync(&mut engine, &mut kernel, 1, [Event::ServiceApplied(web(32001))]);
    expect![[r#"
        TCP 10.96.0.66:32000 default/a-thief
        TCP 10.96.0.80:80 default/web
        TCP 192.168.128.1:32000 default/a-thief
        TCP 203.0.113.7:80 default/web
        TCP 203.0.113.7:32000 default/a-thief
    "#]]
    .assert_eq(&owners(&kernel));
}

/// Two Services share a load-balancer IP, and the older one has the port.
#[test]
fn health_check_taken_by_another_service_is_reported() {
    let (mut engine, mut kernel) = start();
    let old = with_load_balancer_ips(service("old", &["10.96.0.66"], &[(32000, None)]), &["203.0.113.7"]);
    let web = with_load_balancer_ips(service("web", &["10.96.0.80"], &[(80, None)]), &["203.0.113.7"]);
    let web = Service {
        created: 20,
        external_policy: TrafficPolicy::Local,
        health_check_port: PortNumber::new(32000),
        ..web
    };
    let report = sync(&mut engine, &mut kernel, 0, [old, web].map(Event::ServiceApplied));
    expect![[r#"
        Service default/web does not get TCP 203.0.113.7:32000: Service default/old has priority by kind of address, age or name
    "#]]
    .assert_eq(&skipped(&report));
}

/// A load-balancer IP comes from the cloud's controller, which can write the status of Services.
#[test]
fn load_balancer_ip_on_a_node_address_gets_reserved_ports() {
    let (mut engine, mut kernel) = start();
    let web = with_load_balancer_ips(service("web", &["10.96.0.80"], &[(6443, None)]), &["192.168.128.1"]);
    let report = sync(&mut engine, &mut kernel, 0, [addresses(&["192.168.128.1"]), Event::ServiceApplied(web)]);
    assert_eq!(report.skipped, []);
    assert!(kernel.virtual_servers.contains_key(&key("TCP 192.168.128.1:6443")));
}

#[test]
fn external_ips_are_served_where_the_operator_allows_them() {
    let web = || {
        let web = with_external_ips(service("web", &["10.96.0.80"], &[(80, None)]), &["203.0.113.7", "198.51.100.7"]);
        Event::ServiceApplied(with_load_balancer_ips(web, &["192.0.2.7"]))
    };
    let check = |change: fn(&mut Config), expected: Expect| {
        let mut config = Config::new("node-1");
        change(&mut config);
        let (mut engine, mut kernel) = (engine_with(config), FakeKernel::default());
        let report = sync(&mut engine, &mut kernel, 0, [web()]);
        expected.assert_eq(&format!("{}\n{}", bound(&kernel), skipped(&report)));
    };
    check(
        |_| {},
        expect![[r#"
        10.96.0.80 192.0.2.7 198.51.100.7 203.0.113.7
    "#]],
    );
    check(
        |config| config.external_ip_ranges = vec!["203.0.113.0/24".parse().unwrap()],
        expect![[r#"
        10.96.0.80 192.0.2.7 203.0.113.7
        Service default/web is not served on 198.51.100.7: no range for external IPs contains it
    "#]],
    );
    check(
        |config| config.allow_external_ips = false,
        expect![[r#"
        10.96.0.80 192.0.2.7
        Service default/web is not served on 198.51.100.7: external IPs are not allowed
        Service default/web is not served on 203.0.113.7: external IPs are not allowed
    "#]],
    );
}
