//! Who gets an address, and which address nobody gets.

use expect_test::expect;

use super::{super::*, check, start};
use crate::{model::*, testing::*};

fn with_external_ips(service: Service, ips: &[&str]) -> Service {
    Service { external_ips: ips.iter().map(|ip| ip.parse().unwrap()).collect(), ..service }
}

fn api_server(ips: &[&str]) -> Event {
    Event::ApiServerAddresses(ips.iter().map(|ip| ip.parse().unwrap()).collect())
}

/// FC-07: bound on every node, no node could reach the API server any more, not even to learn of a correction.
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
        &turn(&mut engine, &mut kernel, 0, [both, Event::ServiceApplied(web)]),
        expect![[r#"
            + element served { 10.0.0.1 . tcp . 80 } comment "default/web"
            + element cluster-ips { 10.0.0.1 . tcp . 80 }
            + element no-endpoints { 10.0.0.1 . tcp . 80 }
            + element vips { 10.0.0.1 }
            + virtual server TCP 10.0.0.1:80 rr
            + address 10.0.0.1
            ! Service default/web is not served on 192.168.128.201: this node reaches the API server at that address
            ! Service default/web is not served on 192.168.128.200: this node reaches the API server at that address
        "#]],
    );
    // When the API server is elsewhere, nothing stands in the way.
    turn(&mut engine, &mut kernel, 1, [api_server(&["192.168.128.201"])]);
    let bound = ["10.0.0.1", "192.168.128.200"].map(|ip| ip.parse().unwrap());
    assert_eq!(kernel.state.bound_vips, bound.into());
}

/// A pod reaches the API server at the ClusterIP of `kubernetes`, which has to be served all the same.
#[test]
fn a_cluster_ip_is_served_although_the_api_server_is_reached_at_it() {
    let (mut engine, mut kernel) = start();
    let kubernetes = Event::ServiceApplied(service("kubernetes", &["10.96.0.1"], &[(443, None)]));
    let turn = turn(&mut engine, &mut kernel, 0, [api_server(&["10.96.0.1"]), kubernetes]);
    assert_eq!(turn.skipped, []);
    assert_eq!(kernel.state.bound_vips, ["10.96.0.1".parse().unwrap()].into());
}
