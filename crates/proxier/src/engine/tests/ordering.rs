//! Orders of changes that must hold at every moment, and conflicts with other programs.

use expect_test::expect;
use ipnet::IpNet;

use super::*;

pub(super) fn local(service: Service) -> Service {
    Service { external_policy: TrafficPolicy::Local, ..service }
}

pub(super) fn outer(ips: &[&str]) -> Service {
    let load_balancer_ips = ips.iter().map(|ip| ip.parse().unwrap()).collect();
    Service { load_balancer_ips, ..service("web", &["10.0.0.1"], &[(80, None)]) }
}

fn with_ranges(ranges: &[&str]) -> Event {
    let source_ranges = ranges.iter().map(|range| range.parse::<IpNet>().unwrap()).collect();
    Event::ServiceApplied(Service { source_ranges, ..outer(&["203.0.113.1"]) })
}

/// Clients that are connected by a short circuit stay connected while the last endpoint drains.
#[test]
fn short_circuit_flows_survive_a_moment_without_endpoints() {
    let (mut engine, mut kernel) = start();
    let endpoints = |all: &[&str]| Event::SliceApplied(slice("web-1", "web", 8080, all));
    let web = Event::ServiceApplied(local(outer(&["203.0.113.1"])));
    sync(&mut engine, &mut kernel, 0, [web, endpoints(&["10.1.0.2"])]);
    check(
        &sync(&mut engine, &mut kernel, 1, [endpoints(&[])]),
        expect![[r#"
            + element no-endpoints { 10.0.0.1 . tcp . 80 }
            + element no-endpoints { 203.0.113.1 . tcp . 80 }
            ~ real server TCP 10.0.0.1:80 -> 10.1.0.2:8080 Masq 0
            - element short-circuits { 203.0.113.1 . tcp . 80 : 10.0.0.1 . 80 }
            - element no-local-endpoints-external { 203.0.113.1 . tcp . 80 }
            - element hairpin { 10.1.0.2 . 10.1.0.2 . tcp . 8080 }
        "#]],
    );
}

/// An empty set of ranges admits no client, so the engine removes the firewall element together with the ranges.
#[test]
fn source_ranges_go_in_one_transaction_with_the_firewall_element() {
    let (mut engine, mut kernel) = start();
    sync(&mut engine, &mut kernel, 0, [with_ranges(&["10.0.0.0/8"])]);
    let report = sync(&mut engine, &mut kernel, 1, [with_ranges(&[])]);
    check(
        &report,
        expect![[r#"
            - element firewall { 203.0.113.1 . tcp . 80 }
            - element firewall-allowed { 203.0.113.1 . tcp . 80 . 10.0.0.0/8 }
        "#]],
    );
    assert!(report.plan.changes().iter().all(|change| change.phase() == crate::plan::Phase::RemoveElements));
}

#[test]
fn virtual_server_is_not_created_if_its_firewall_element_fails() {
    let (mut engine, mut kernel) = start();
    kernel.reject = vec!["+ element firewall {".into()];
    engine.apply(with_ranges(&["10.0.0.0/8"]));
    let failed = engine.sync(&mut kernel, Duration::ZERO);
    assert_eq!(failed.failures.len(), 2, "{:?}", failed.failures);
    assert!(!kernel.virtual_servers.contains_key(&key("TCP 203.0.113.1:80")));
    assert!(kernel.virtual_servers.contains_key(&key("TCP 10.0.0.1:80")), "this one is for all");
}

/// A Service is never open to all clients during its removal: its source ranges outlast its virtual server.
#[test]
fn source_ranges_protect_a_service_until_it_is_gone() {
    let (mut engine, mut kernel) = start();
    sync(&mut engine, &mut kernel, 0, [with_ranges(&["10.0.0.0/8"])]);
    let removed = Event::ServiceRemoved(ServiceId::new("default", "web"));
    engine.apply(removed);
    let (before, protected) = (kernel.clone(), key("TCP 203.0.113.1:80"));
    check(
        &engine.sync(&mut kernel, Duration::from_secs(1)),
        expect![[r#"
            - address 10.0.0.1
            - address 203.0.113.1
            - virtual server TCP 10.0.0.1:80
            - virtual server TCP 203.0.113.1:80
            - element served { 10.0.0.1 . tcp . 80 }
            - element cluster-ips { 10.0.0.1 . tcp . 80 }
            - element no-endpoints { 10.0.0.1 . tcp . 80 }
            - element served { 203.0.113.1 . tcp . 80 }
            - element external-ips { 203.0.113.1 . tcp . 80 }
            - element no-endpoints { 203.0.113.1 . tcp . 80 }
            - element firewall { 203.0.113.1 . tcp . 80 }
            - element firewall-allowed { 203.0.113.1 . tcp . 80 . 10.0.0.0/8 }
            - element vips { 10.0.0.1 }
            - element vips { 203.0.113.1 }
        "#]],
    );
    assert_eq!(kernel.state(), State::default());

    // The ranges also stay while the kernel rejects the removal, and after a restart.
    let mut kernel = before;
    kernel.reject = vec!["- virtual server TCP 203".into()];
    let mut restarted = engine_with(Config::new("node-1"));
    assert!(!restarted.sync(&mut kernel, Duration::ZERO).failures.is_empty());
    assert!(kernel.state().elements[&protected].sets.contains(KeySet::Firewall));
    assert_eq!(kernel.state().allowed[&protected], ["10.0.0.0/8".parse().unwrap()].into());
    kernel.reject.clear();
    sync(&mut restarted, &mut kernel, 1, []);
    assert_eq!(kernel.state(), State::default());
}

/// The node would answer ARP requests for an address that is still bound.
#[test]
fn vip_keeps_arp_ignore_after_a_failed_unbind() {
    let config = Config { scoped_arp: true, ..Config::new("node-1") };
    let (mut engine, mut kernel) = (engine_with(config), FakeKernel::default());
    sync(&mut engine, &mut kernel, 0, myapp());
    kernel.reject = vec!["- address".into()];
    engine.apply(Event::ServiceRemoved(ServiceId::new("default", "myapp")));
    assert!(!engine.sync(&mut kernel, Duration::from_secs(1)).failures.is_empty());
    assert_eq!(kernel.state().arp_ignore, ["10.111.98.163".parse().unwrap()].into());
    kernel.reject.clear();
    sync(&mut engine, &mut kernel, 2, []);
    assert_eq!(kernel.state(), State::default());
}

/// Keepalived on a backup host has such virtual servers. The address then belongs to another host.
#[test]
fn address_with_only_foreign_virtual_servers_is_not_bound() {
    let (mut engine, mut kernel) = start();
    let config = ipvs_netlink::VirtualServer::new(ipvs_netlink::Scheduler::WLC);
    let theirs = crate::VirtualServerState { config, real_servers: Default::default() };
    kernel.virtual_servers.insert(key("TCP 203.0.113.1:80"), theirs);
    let web = Event::ServiceApplied(outer(&["203.0.113.1", "203.0.113.2"]));
    sync(&mut engine, &mut kernel, 0, [web]);
    let ours = ["10.0.0.1", "203.0.113.2"].map(|ip| ip.parse().unwrap());
    assert_eq!(kernel.state().bound_vips, ours.into());
    assert_eq!(kernel.state().recorded_vips, ours.into());
}

/// A virtual server of another program does not lead to our endpoints.
#[test]
fn short_circuit_to_a_foreign_virtual_server_is_not_made() {
    let (mut engine, mut kernel) = start();
    let config = ipvs_netlink::VirtualServer::new(ipvs_netlink::Scheduler::WLC);
    let theirs = crate::VirtualServerState { config, real_servers: Default::default() };
    kernel.virtual_servers.insert(key("TCP 10.0.0.1:80"), theirs);
    let endpoints = Event::SliceApplied(slice("web-1", "web", 8080, &["10.1.0.2"]));
    sync(&mut engine, &mut kernel, 0, [Event::ServiceApplied(local(outer(&["203.0.113.1"]))), endpoints]);
    assert!(kernel.virtual_servers.contains_key(&key("TCP 203.0.113.1:80")));
    assert!(kernel.state().short_circuits.is_empty(), "{:?}", kernel.state().short_circuits);
}

/// An older Service does not block a key that it cannot serve itself.
#[test]
fn external_ip_of_a_family_that_a_service_lacks_stays_free() {
    let (mut engine, mut kernel) = start();
    let external = |service: Service| Service { external_ips: vec!["fd00::9".parse().unwrap()], ..service };
    let older = external(service("older", &["10.0.0.1"], &[(80, None)]));
    let younger = external(Service { created: 1, ..service("younger", &["fd00::1"], &[(80, None)]) });
    let report = sync(&mut engine, &mut kernel, 0, [older, younger].map(Event::ServiceApplied));
    assert_eq!(report.skipped, []);
    assert!(kernel.virtual_servers.contains_key(&key("TCP [fd00::9]:80")));
}

/// The kernel's list omits a virtual server, and the kernel then rejects its creation. The virtual server is still
/// ours. Only one that was created after the engine recorded the key would be another program's.
#[test]
fn virtual_server_omitted_from_a_list_stays_ours() {
    let (mut engine, mut kernel) = start();
    sync(&mut engine, &mut kernel, 0, myapp());
    let before = kernel.state();
    let mut now = 30;
    engine.verify_at(Duration::from_secs(now));
    let misled = engine.sync(&mut Forgetful(&mut kernel), Duration::from_secs(now));
    assert_eq!((misled.failures, misled.unavailable), (vec![], None));
    assert!(misled.plan.to_string().contains("+ virtual server"), "{}", misled.plan);
    now = engine.next_sync().as_secs() + 1;
    let again = sync(&mut engine, &mut kernel, now, []);
    assert_eq!((again.skipped.len(), again.failures.len()), (0, 0), "{:?} {:?}", again.skipped, again.failures);
    assert!(again.plan.is_empty(), "{}", again.plan);
    assert_eq!(kernel.state(), before);
}

/// Otherwise connections in the cluster to the other ports would break.
#[test]
fn removed_port_does_not_move_other_short_circuit_targets() {
    let (mut engine, mut kernel) = start();
    let web = |ports: &[u16]| {
        let ports: Vec<_> = ports.iter().map(|port| (*port, None)).collect();
        let mut web = local(Service {
            internal_policy: TrafficPolicy::Local,
            load_balancer_ips: vec!["203.0.113.1".parse().unwrap()],
            ..service("web", &["10.0.0.1"], &ports)
        });
        web.ports.iter_mut().for_each(|port| port.name = format!("p{}", port.port).into());
        Event::ServiceApplied(web)
    };
    sync(&mut engine, &mut kernel, 0, [web(&[80, 443, 8080])]);
    check(
        &sync(&mut engine, &mut kernel, 1, [web(&[8080, 80])]),
        expect![[r#"
            - virtual server TCP 10.0.0.1:443
            - virtual server TCP 10.0.0.1:33211
            - virtual server TCP 203.0.113.1:443
            - element served { 10.0.0.1 . tcp . 443 }
            - element cluster-ips { 10.0.0.1 . tcp . 443 }
            - element no-endpoints { 10.0.0.1 . tcp . 443 }
            - element served { 10.0.0.1 . tcp . 33211 }
            - element no-endpoints { 10.0.0.1 . tcp . 33211 }
            - element short-circuit-targets { 10.0.0.1 . tcp . 33211 }
            - element served { 203.0.113.1 . tcp . 443 }
            - element no-endpoints { 203.0.113.1 . tcp . 443 }
            - flows TCP 203.0.113.1:443 by short circuit
        "#]],
    );
    // The Service keeps the ports that it uses itself. Port 0 does not exist.
    let report = sync(&mut engine, &mut kernel, 2, [web(&[80, 0x8050, 0x8000])]);
    let inner = report.plan.to_string();
    let inner: Vec<&str> = inner.lines().filter(|line| line.contains("element short-circuit-targets")).collect();
    expect![[r#"
        + element short-circuit-targets { 10.0.0.1 . tcp . 65533 }
        + element short-circuit-targets { 10.0.0.1 . tcp . 65534 }
        + element short-circuit-targets { 10.0.0.1 . tcp . 65535 }
        - element short-circuit-targets { 10.0.0.1 . tcp . 32848 }
        - element short-circuit-targets { 10.0.0.1 . tcp . 40848 }"#]]
    .assert_eq(&inner.join("\n"));
}

/// The connections of an endpoint end when it leaves, and not before.
#[test]
fn policy_change_keeps_connections_to_a_terminating_endpoint() {
    let (mut engine, mut kernel) = start();
    let endpoints = |all: &[&str]| Event::SliceApplied(slice("web-1", "web", 8080, all));
    let web = Event::ServiceApplied(outer(&["203.0.113.1"]));
    sync(&mut engine, &mut kernel, 0, [web, endpoints(&["10.1.0.2", "10.1.0.3"])]);
    sync(&mut engine, &mut kernel, 1, [endpoints(&["10.1.0.2~", "10.1.0.3"])]);
    sync(&mut engine, &mut kernel, 2, [Event::ServiceApplied(local(outer(&["203.0.113.1"])))]);
    let at = key("TCP 203.0.113.1:80");
    let weight = |kernel: &FakeKernel| {
        let mut servers = kernel.virtual_servers[&at].real_servers.iter();
        servers.find(|(address, _)| address.address.to_string() == "10.1.0.2").map(|(_, to)| to.weight)
    };
    assert_eq!(weight(&kernel), Some(0));
    sync(&mut engine, &mut kernel, 3, [endpoints(&["10.1.0.3"])]);
    assert_eq!(weight(&kernel), None);
}
