use std::collections::BTreeMap;

use super::super::*;
use crate::{cluster::EndpointAddress, fake::FakeKernel, model::*, plan::Change, testing::*};

/// The real servers of a virtual server in the order in which `rr` uses them: the last one added comes first.
fn syncs(node: &str, virtual_server: &str) -> Vec<EndpointAddress> {
    let (mut engine, mut kernel) = (engine_with(Config::new(node)), FakeKernel::default());
    let endpoints: Vec<String> = (1..=10).map(|last| format!("10.244.1.{last}")).collect();
    let endpoints: Vec<&str> = endpoints.iter().map(String::as_str).collect();
    let web = service("web", &["10.96.0.80"], &[(80, Some(30080))]);
    let events = [
        addresses(&["192.168.128.1"]),
        Event::ServiceApplied(web),
        Event::SliceApplied(slice("web-1", "web", 80, &endpoints)),
    ];
    let report = sync(&mut engine, &mut kernel, 0, events);
    let added = report.plan.changes().iter().filter_map(|change| match change {
        Change::AddRealServer { key: of, address, .. } if *of == key(virtual_server) => Some(*address),
        _ => None,
    });
    let mut added: Vec<EndpointAddress> = added.collect();
    added.reverse();
    added
}

/// For the first and second connections of 50 nodes, none of ten endpoints gets more than three times its share.
#[test]
fn first_connections_of_all_nodes_spread_over_the_endpoints() {
    for connection in [0, 1] {
        let mut connections = BTreeMap::<EndpointAddress, usize>::new();
        for node in 1..=50 {
            let syncs = syncs(&format!("node-{node}"), "TCP 10.96.0.80:80");
            assert_eq!(syncs.len(), 10);
            *connections.entry(syncs[connection]).or_default() += 1;
        }
        assert!(connections.values().all(|count| *count <= 15), "{connections:?}");
    }
}

/// `kube-ipvs diff` prints the same plan each time.
#[test]
fn real_server_order_is_stable_and_differs_per_virtual_server() {
    let first = syncs("node-1", "TCP 10.96.0.80:80");
    assert_eq!(syncs("node-1", "TCP 10.96.0.80:80"), first);
    assert_ne!(syncs("node-1", "TCP 192.168.128.1:30080"), first);
}
