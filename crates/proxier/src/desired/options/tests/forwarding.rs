//! Forwarding without NAT.

use super::*;

#[test]
fn service_forwarded_without_nat_is_not_masqueraded() {
    check(
        web(forwarded(Direct), &["10.1.1.1", "192.168.0.7"]),
        expect![[r#"
            + element direct-return { 10.0.0.1 . tcp . 80 }
            + element hairpin { 10.1.1.1 . 10.1.1.1 . tcp . 80 }
            + element hairpin { 192.168.0.7 . 192.168.0.7 . tcp . 80 }
            + virtual server TCP 10.0.0.1:80 rr
            + real server TCP 10.0.0.1:80 -> 192.168.0.7:80 Route 1
            + real server TCP 10.0.0.1:80 -> 10.1.1.1:80 Route 1
        "#]],
    );
    // The plan does not print the kind of tunnel.
    let (gre, gue) = (Tunnel::GRE, Tunnel::gue(6080));
    for (choice, tunnel) in [(Ipip, Tunnel::IPIP), (Gre, gre), (Gue(port(6080)), gue)] {
        let (mut engine, mut kernel) = start();
        sync(&mut engine, &mut kernel, 0, web(forwarded(choice), &["10.1.1.1", "10.1.2.1"]));
        let servers = kernel.virtual_servers.values().flat_map(|server| server.real_servers.values());
        let forwarding: Vec<_> = servers.map(|server| server.forwarding).collect();
        assert_eq!(forwarding, [ipvs_netlink::Forwarding::Tunnel(tunnel); 2]);
        assert!(kernel.state().elements.values().all(|entry| !entry.sets.contains(KeySet::ClusterIps)));
    }
}

#[test]
fn endpoint_unreachable_without_nat_is_forwarded_by_nat() {
    check(
        web(forwarded(Direct), &["10.1.1.1", "10.1.2.1"]),
        expect![[r#"
            + element cluster-ips { 10.0.0.1 . tcp . 80 }
            + element direct-return { 10.0.0.1 . tcp . 80 }
            + element hairpin { 10.1.1.1 . 10.1.1.1 . tcp . 80 }
            + virtual server TCP 10.0.0.1:80 rr
            + real server TCP 10.0.0.1:80 -> 10.1.1.1:80 Masq 1
            + real server TCP 10.0.0.1:80 -> 10.1.2.1:80 Masq 1
            ! Service default/web asks for forwarding without NAT, and is forwarded with NAT on TCP 10.0.0.1:80: endpoint 10.1.2.1:80 is on another node, which has the VIP too. A tunnel reaches pods there. Only NAT reaches an endpoint with the address of a node
        "#]],
    );
    let [service, slice] = web(forwarded(Ipip), &["10.1.2.1"]);
    let Event::SliceApplied(mut slice) = slice else { panic!() };
    slice.ports[0].port = port(8080);
    check(
        [service, Event::SliceApplied(slice)],
        expect![[r#"
            + element cluster-ips { 10.0.0.1 . tcp . 80 }
            + element direct-return { 10.0.0.1 . tcp . 80 }
            + virtual server TCP 10.0.0.1:80 rr
            + real server TCP 10.0.0.1:80 -> 10.1.2.1:8080 Masq 1
            ! Service default/web asks for forwarding without NAT, and is forwarded with NAT on TCP 10.0.0.1:80: endpoint 10.1.2.1:8080 listens on another port, and only NAT translates ports
        "#]],
    );
}

/// The other node has the VIP too, and would schedule the packet again.
#[test]
fn endpoint_that_is_another_node_is_forwarded_by_nat() {
    let (mut engine, mut kernel) = start();
    sync(&mut engine, &mut kernel, 0, web(forwarded(Ipip), &["192.168.0.2"]));
    let node = Node { addresses: vec!["192.168.0.2".parse().unwrap()], ..Node::new("node-2") };
    let known = sync(&mut engine, &mut kernel, 1, [Event::NodeApplied(node)]);
    let gone = sync(&mut engine, &mut kernel, 2, [Event::NodeRemoved("node-2".into())]);
    expect![[r#"
        + element cluster-ips { 10.0.0.1 . tcp . 80 }
        ~ real server TCP 10.0.0.1:80 -> 192.168.0.2:80 Masq 1
        ! Service default/web asks for forwarding without NAT, and is forwarded with NAT on TCP 10.0.0.1:80: endpoint 192.168.0.2:80 is on another node, which has the VIP too. A tunnel reaches pods there. Only NAT reaches an endpoint with the address of a node
        -
        ~ real server TCP 10.0.0.1:80 -> 192.168.0.2:80 Tunnel 1
        - element cluster-ips { 10.0.0.1 . tcp . 80 }
    "#]]
    .assert_eq(&format!("{}-\n{}", text(&known), text(&gone)));
}

/// A pod cannot have the node's address. Short circuits use NAT, and end at the ClusterIP.
#[test]
fn node_ports_and_short_circuits_stay_nat() {
    let [service, slice] = web(forwarded(Direct), &["10.1.1.1"]);
    let Event::ServiceApplied(mut service) = service else { panic!() };
    service.ports[0].node_port = Some(port(30080));
    service.load_balancer_ips = vec!["203.0.113.1".parse().unwrap()];
    service.external_policy = TrafficPolicy::Local;
    check(
        [addresses(&["192.168.0.1"]), Event::ServiceApplied(service), slice],
        expect![[r#"
            + element cluster-ips { 10.0.0.1 . tcp . 80 }
            + element direct-return { 10.0.0.1 . tcp . 80 }
            + element masquerade-inside { 192.168.0.1 . tcp . 30080 }
            + element direct-return { 203.0.113.1 . tcp . 80 }
            + element hairpin { 10.1.1.1 . 10.1.1.1 . tcp . 80 }
            + virtual server TCP 10.0.0.1:80 rr
            + virtual server TCP 192.168.0.1:30080 rr
            + virtual server TCP 203.0.113.1:80 rr
            + real server TCP 10.0.0.1:80 -> 10.1.1.1:80 Masq 1
            + real server TCP 192.168.0.1:30080 -> 10.1.1.1:80 Masq 1
            + real server TCP 203.0.113.1:80 -> 10.1.1.1:80 Route 1
            + element short-circuits { 192.168.0.1 . tcp . 30080 : 10.0.0.1 . 80 }
            + element short-circuits { 203.0.113.1 . tcp . 80 : 10.0.0.1 . 80 }
            ! Service default/web asks for forwarding without NAT, and is forwarded with NAT on TCP 10.0.0.1:80: with externalTrafficPolicy: Local, clients in the cluster reach it by NAT from the Service's external addresses
            ! Service default/web asks for forwarding without NAT, and is forwarded with NAT on TCP 192.168.0.1:30080: it is an address of this node, so no endpoint can have it
        "#]],
    );
}

#[test]
fn datagram_scheduling_applies_only_to_udp_without_translated_answers() {
    let options = |udp_scheduling, forwarding| ServiceOptions { udp_scheduling, forwarding, ..ServiceOptions::DEFAULT };
    let one_way = options(UdpScheduling::OneWayDatagram, Masq);
    check(
        udp(web(one_way.clone(), &["10.1.1.1"])),
        expect![[r#"
        + element cluster-ips { 10.0.0.1 . udp . 80 }
        + element hairpin { 10.1.1.1 . 10.1.1.1 . udp . 80 }
        + virtual server UDP 10.0.0.1:80 rr ops
        + real server UDP 10.0.0.1:80 -> 10.1.1.1:80 Masq 1
        - flows UDP 10.0.0.1:80
    "#]],
    );
    check(
        udp(web(options(UdpScheduling::Datagram, Ipip), &["10.1.2.1"])),
        expect![[r#"
        + element direct-return { 10.0.0.1 . udp . 80 }
        + virtual server UDP 10.0.0.1:80 rr ops
        + real server UDP 10.0.0.1:80 -> 10.1.2.1:80 Tunnel 1
        - flows UDP 10.0.0.1:80
    "#]],
    );
    check(
        udp(web(options(UdpScheduling::Datagram, Masq), &["10.1.2.1"])),
        expect![[r#"
            + element cluster-ips { 10.0.0.1 . udp . 80 }
            + virtual server UDP 10.0.0.1:80 rr
            + real server UDP 10.0.0.1:80 -> 10.1.2.1:80 Masq 1
            - flows UDP 10.0.0.1:80
            ! Service default/web is scheduled by flow on UDP 10.0.0.1:80, not by datagram: with NAT, no answer would reach its client. Forward without NAT, or declare that there are no answers
        "#]],
    );
    check(
        web(one_way, &["10.1.1.1"]),
        expect![[r#"
        + element cluster-ips { 10.0.0.1 . tcp . 80 }
        + element hairpin { 10.1.1.1 . 10.1.1.1 . tcp . 80 }
        + virtual server TCP 10.0.0.1:80 rr
        + real server TCP 10.0.0.1:80 -> 10.1.1.1:80 Masq 1
    "#]],
    );
}
