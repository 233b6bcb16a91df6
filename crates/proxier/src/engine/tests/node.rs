use expect_test::expect;

use super::{super::*, check, myapp};
use crate::{PodSources, fake::FakeKernel, model::*, testing::*};

fn start(change: impl FnOnce(&mut Config)) -> (Engine, FakeKernel) {
    let mut config = Config::new("node-1");
    change(&mut config);
    (engine_with(config), FakeKernel::default())
}

fn node(name: &str, pod_cidrs: &[&str]) -> Event {
    let pod_cidrs = pod_cidrs.iter().map(|cidr| cidr.parse().unwrap()).collect();
    Event::NodeApplied(Node { pod_cidrs, ..Node::new(name) })
}

#[test]
fn pod_ranges_are_written_by_the_first_sync_and_do_not_nest() {
    let ranges = ["10.244.0.0/16", "10.244.1.0/24", "10.245.1.2/16"].map(|range| range.parse().unwrap());
    let (mut engine, mut kernel) = start(|config| config.pod_sources = PodSources::Ranges(Vec::from(ranges)));
    check(
        &sync(&mut engine, &mut kernel, 0, []),
        expect![[r#"
            + element pod-sources { 10.244.0.0/15 }
            + element outside { 0.0.0.0/0 }
        "#]],
    );
    check(&sync(&mut engine, &mut kernel, 31, [node("node-1", &["10.9.0.0/16"])]), expect![""]);
}

#[test]
fn own_node_pod_ranges_follow_the_node_object() {
    let (mut engine, mut kernel) = start(|config| config.pod_sources = PodSources::OwnNode);
    check(&sync(&mut engine, &mut kernel, 0, [node("node-2", &["10.244.2.0/24"])]), expect![""]);
    check(
        &sync(&mut engine, &mut kernel, 1, [node("node-1", &["10.244.1.0/24", "fd00:1::/64"])]),
        expect![[r#"
            + element pod-sources { 10.244.1.0/24 }
            + element pod-sources { fd00:1::/64 }
            + element outside { 0.0.0.0/0 }
            + element outside { ::/0 }
        "#]],
    );
    check(
        &sync(&mut engine, &mut kernel, 2, [node("node-1", &["10.244.0.0/20"])]),
        expect![[r#"
            - element pod-sources { 10.244.1.0/24 }
            - element pod-sources { fd00:1::/64 }
            + element pod-sources { 10.244.0.0/20 }
            - element outside { ::/0 }
        "#]],
    );
    check(
        &sync(&mut engine, &mut kernel, 3, [Event::NodeRemoved("node-1".into())]),
        expect![[r#"
            - element pod-sources { 10.244.0.0/20 }
            - element outside { 0.0.0.0/0 }
        "#]],
    );
}

/// The policy `Local` treats a pod of another node as outside the cluster.
#[test]
fn remote_pods_are_known_if_the_network_uses_the_node_pod_cidrs() {
    let ranges = ["10.244.0.0/22", "fd00:244::/63"].map(|range| range.parse().unwrap());
    let (mut engine, mut kernel) = start(|config| config.pod_sources = PodSources::Ranges(Vec::from(ranges)));
    let policy = TrafficPolicy::Local;
    let web = Service { external_policy: policy, ..service("web", &["10.0.0.1"], &[(80, None)]) };
    sync(&mut engine, &mut kernel, 0, [Event::ServiceApplied(web), node("node-2", &["10.244.2.0/24"])]);
    assert_eq!(engine.cluster().unidentified_pods(), [Family::V4, Family::V6]);
    // The controller manager gave the Node these ranges, and the pod network does not use them.
    let own = node("node-1", &["10.244.1.0/24", "fd00:244:0:1::/64"]);
    check(&sync(&mut engine, &mut kernel, 1, [own, addresses(&["10.244.7.1"])]), expect![""]);
    assert_eq!(engine.cluster().unidentified_pods(), [Family::V4, Family::V6]);
    check(
        &sync(&mut engine, &mut kernel, 2, [addresses(&["10.244.7.1", "10.244.1.1"])]),
        expect![[r#"
            + element remote-pods { 10.244.0.0/24 }
            + element remote-pods { 10.244.2.0/23 }
        "#]],
    );
    assert_eq!(engine.cluster().unidentified_pods(), [Family::V6]);
    check(
        &sync(&mut engine, &mut kernel, 3, [addresses(&["10.244.1.1", "fd00:244:0:1::1"])]),
        expect![[r#"
            + element remote-pods { fd00:244::/64 }
        "#]],
    );
    assert_eq!(engine.cluster().unidentified_pods(), []);
    check(
        &sync(&mut engine, &mut kernel, 4, [node("node-1", &["10.244.0.0/22"])]),
        expect![[r#"
            - element remote-pods { 10.244.0.0/24 }
            - element remote-pods { 10.244.2.0/23 }
            - element remote-pods { fd00:244::/64 }
        "#]],
    );
}

#[test]
fn arp_ignore_is_set_before_bind_and_removed_after_unbind() {
    let (mut engine, mut kernel) = start(|config| config.scoped_arp = true);
    check(
        &sync(&mut engine, &mut kernel, 0, myapp()),
        expect![[r#"
            + element served { 10.111.98.163 . tcp . 80 } comment "default/myapp"
            + element cluster-ips { 10.111.98.163 . tcp . 80 }
            + element vips { 10.111.98.163 }
            + element arp-ignore { 10.111.98.163 }
            + element hairpin { 10.244.1.57 . 10.244.1.57 . tcp . 80 }
            + element hairpin { 10.244.1.58 . 10.244.1.58 . tcp . 80 }
            + virtual server TCP 10.111.98.163:80 rr
            + real server TCP 10.111.98.163:80 -> 10.244.1.57:80 Masq 1
            + real server TCP 10.111.98.163:80 -> 10.244.1.58:80 Masq 1
            + address 10.111.98.163
        "#]],
    );
    check(
        &sync(&mut engine, &mut kernel, 1, [Event::ServiceRemoved(ServiceId::new("default", "myapp"))]),
        expect![[r#"
            - address 10.111.98.163
            - virtual server TCP 10.111.98.163:80
            - element served { 10.111.98.163 . tcp . 80 }
            - element cluster-ips { 10.111.98.163 . tcp . 80 }
            - element vips { 10.111.98.163 }
            - element arp-ignore { 10.111.98.163 }
            - element hairpin { 10.244.1.57 . 10.244.1.57 . tcp . 80 }
            - element hairpin { 10.244.1.58 . 10.244.1.58 . tcp . 80 }
        "#]],
    );
}

#[test]
fn vip_is_not_bound_if_its_arp_ignore_element_fails() {
    let (mut engine, mut kernel) = start(|config| config.scoped_arp = true);
    kernel.reject = vec!["+ element arp-ignore".into()];
    myapp().into_iter().for_each(|event| engine.apply(event));
    let failed = engine.sync(&mut kernel, std::time::Duration::ZERO);
    let reasons: Vec<_> = failed.failures.iter().map(|failure| failure.reason.to_string()).collect();
    assert_eq!(reasons, ["rejected by the test", "not tried: this node would answer ARP requests for it"]);
    kernel.reject.clear();
    sync(&mut engine, &mut kernel, 100, []);
    assert!(engine.is_healthy() && kernel.state().bound_vips.len() == 1 && kernel.state().arp_ignore.len() == 1);
}

#[test]
fn localhost_node_port_bypasses_ipvs_to_one_endpoint() {
    let (mut engine, mut kernel) = start(|config| config.localhost_node_ports = true);
    let endpoints = |all: &[&str]| Event::SliceApplied(slice("web-1", "web", 8080, all));
    let web = Event::ServiceApplied(service("web", &["10.0.0.1"], &[(80, Some(30080))]));
    let events = [addresses(&["192.168.0.1"]), web, endpoints(&["10.1.0.2", "10.1.0.3"])];
    sync(&mut engine, &mut kernel, 0, events);
    let localhost = key("TCP 127.0.0.1:30080");
    assert_eq!(kernel.state().short_circuits[&localhost].to_string(), "10.1.0.2:8080");
    // Flows stay with their endpoint for as long as it exists.
    check(
        &sync(&mut engine, &mut kernel, 1, [endpoints(&["10.1.0.1", "10.1.0.2", "10.1.0.3"])]),
        expect![[r#"
            + element hairpin { 10.1.0.1 . 10.1.0.1 . tcp . 8080 }
            + real server TCP 10.0.0.1:80 -> 10.1.0.1:8080 Masq 1
            + real server TCP 127.0.0.1:30080 -> 10.1.0.1:8080 Masq 1
            + real server TCP 192.168.0.1:30080 -> 10.1.0.1:8080 Masq 1
            ~ element short-circuits { 127.0.0.1 . tcp . 30080 : 10.1.0.1 . 8080 }
        "#]],
    );
    check(
        &sync(&mut engine, &mut kernel, 2, [endpoints(&["10.1.0.1~", "10.1.0.2", "10.1.0.3"])]),
        expect![[r#"
            ~ real server TCP 10.0.0.1:80 -> 10.1.0.1:8080 Masq 0
            ~ real server TCP 127.0.0.1:30080 -> 10.1.0.1:8080 Masq 0
            ~ real server TCP 192.168.0.1:30080 -> 10.1.0.1:8080 Masq 0
            ~ element short-circuits { 127.0.0.1 . tcp . 30080 : 10.1.0.2 . 8080 }
        "#]],
    );
    check(
        &sync(&mut engine, &mut kernel, 3, [endpoints(&["10.1.0.2", "10.1.0.3"])]),
        expect![[r#"
            - real server TCP 10.0.0.1:80 -> 10.1.0.1:8080
            - real server TCP 127.0.0.1:30080 -> 10.1.0.1:8080
            - real server TCP 192.168.0.1:30080 -> 10.1.0.1:8080
            - element hairpin { 10.1.0.1 . 10.1.0.1 . tcp . 8080 }
            - flows TCP 127.0.0.1:30080 -> 10.1.0.1:8080 by short circuit
        "#]],
    );
    check(
        &sync(&mut engine, &mut kernel, 4, [endpoints(&[])]),
        expect![[r#"
            + element no-endpoints { 10.0.0.1 . tcp . 80 }
            + element no-endpoints { 127.0.0.1 . tcp . 30080 }
            + element no-endpoints { 192.168.0.1 . tcp . 30080 }
            ~ real server TCP 10.0.0.1:80 -> 10.1.0.2:8080 Masq 0
            ~ real server TCP 10.0.0.1:80 -> 10.1.0.3:8080 Masq 0
            ~ real server TCP 127.0.0.1:30080 -> 10.1.0.2:8080 Masq 0
            ~ real server TCP 127.0.0.1:30080 -> 10.1.0.3:8080 Masq 0
            ~ real server TCP 192.168.0.1:30080 -> 10.1.0.2:8080 Masq 0
            ~ real server TCP 192.168.0.1:30080 -> 10.1.0.3:8080 Masq 0
            - element short-circuits { 127.0.0.1 . tcp . 30080 : 10.1.0.2 . 8080 }
            - element hairpin { 10.1.0.2 . 10.1.0.2 . tcp . 8080 }
            - element hairpin { 10.1.0.3 . 10.1.0.3 . tcp . 8080 }
        "#]],
    );
}

/// An endpoint that is this node itself needs no hairpin.
#[test]
fn endpoint_that_becomes_a_node_address_loses_its_hairpin() {
    let (mut engine, mut kernel) = start(|_| {});
    sync(&mut engine, &mut kernel, 0, myapp());
    check(
        &sync(&mut engine, &mut kernel, 1, [addresses(&["10.244.1.57"])]),
        expect![[r#"
            - element hairpin { 10.244.1.57 . 10.244.1.57 . tcp . 80 }
        "#]],
    );
    let mut own = node("node-1", &[]);
    let Event::NodeApplied(status) = &mut own else { panic!() };
    status.addresses = vec!["10.244.1.58".parse().unwrap()];
    check(
        &sync(&mut engine, &mut kernel, 2, [own]),
        expect![[r#"
            - element hairpin { 10.244.1.58 . 10.244.1.58 . tcp . 80 }
        "#]],
    );
    check(
        &sync(&mut engine, &mut kernel, 3, [addresses(&[]), node("node-1", &[])]),
        expect![[r#"
            + element hairpin { 10.244.1.57 . 10.244.1.57 . tcp . 80 }
            + element hairpin { 10.244.1.58 . 10.244.1.58 . tcp . 80 }
        "#]],
    );
}

/// A starting pod adds a link-local address to the node. Services with source ranges do not depend on it.
#[test]
fn services_with_source_ranges_are_marked_only_if_the_node_ip_changes() {
    let mut cluster = crate::cluster::Cluster::new(Config::new("node-1"));
    let mut web = service("web", &["10.0.0.1"], &[(80, None)]);
    web.source_ranges = vec!["192.168.0.0/24".parse().unwrap()];
    cluster.apply(Event::ServiceApplied(web));
    let mut touches = |event| {
        cluster.drain_dirty();
        cluster.apply(event);
        !cluster.drain_dirty().is_empty()
    };
    let link_local = |global: &[&str]| {
        let Event::NodeAddresses(mut all) = addresses(global) else { panic!() };
        all.insert(NodeAddress { address: "fe80::1".parse().unwrap(), global: false });
        Event::NodeAddresses(all)
    };
    assert!(touches(addresses(&["192.168.0.1"])));
    assert!(!touches(link_local(&["192.168.0.1"])));
    assert!(!touches(node("node-1", &["10.244.1.0/24"])));
    let with_ip = |leaving| {
        let mut own = node("node-1", &[]);
        let Event::NodeApplied(status) = &mut own else { panic!() };
        (status.internal_ips, status.leaving) = (vec!["192.168.0.1".parse().unwrap()], leaving);
        own
    };
    assert!(touches(with_ip(false)));
    assert!(!touches(with_ip(true)));
    // The status of this host's Node counts, and not the host's addresses.
    assert!(!touches(addresses(&["192.168.0.2"])));
    assert!(touches(Event::NodeRemoved("node-1".into())));
}

#[test]
fn node_address_change_marks_only_services_with_an_endpoint_there() {
    let mut cluster = crate::cluster::Cluster::new(Config::new("node-1"));
    let at = |name: &str, address: &str, node: Option<&str>| {
        let mut slice = slice(name, name, 80, &[address]);
        slice.endpoints[0].node = node.map(Into::into);
        Event::SliceApplied(slice)
    };
    let mut touched = |event| {
        cluster.apply(event);
        let services: Vec<String> = cluster.drain_dirty().iter().map(|id| id.name.to_string()).collect();
        services.join(" ")
    };
    for (name, address, node) in [
        ("here", "10.1.0.1", Some("node-1")),
        ("elsewhere", "10.1.0.1", Some("node-2")),
        ("nowhere", "10.1.0.2", None),
        ("link", "fe80::1", None),
        ("other", "10.1.0.3", None),
    ] {
        assert_eq!(touched(at(name, address, node)), name);
    }
    assert_eq!(touched(addresses(&["10.1.0.1", "10.1.0.9"])), "here");
    assert_eq!(touched(addresses(&["10.1.0.2", "fe80::1"])), "here link nowhere");
    let mut own = node("node-1", &[]);
    let Event::NodeApplied(status) = &mut own else { panic!() };
    status.addresses = vec!["10.1.0.1".parse().unwrap()];
    assert_eq!(touched(own), "here");
    assert_eq!(touched(at("nowhere", "10.1.0.4", None)), "nowhere");
    assert_eq!(touched(Event::SliceRemoved(SliceId::new("default", "link"))), "link");
    assert_eq!(touched(addresses(&[])), "");
}
