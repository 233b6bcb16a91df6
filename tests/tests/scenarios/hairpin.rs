//! Hairpin: a pod connects to its own Service and can be the endpoint.

use scenarios::{Cluster, Service, Slice, TestResult, Transport, scenario};

/// Through the ClusterIP and the external IP, in both families, over TCP and UDP.
#[test]
fn a_pod_reaches_itself_through_its_service() -> TestResult {
    reaches_itself(|slice| slice.on("node-1"))
}

/// A hand-written EndpointSlice rarely names the node of an endpoint.
#[test]
fn a_pod_reaches_itself_by_an_endpoint_without_a_node() -> TestResult {
    reaches_itself(|slice| slice)
}

fn reaches_itself(place: fn(Slice) -> Slice) -> TestResult {
    let builder = Cluster::builder().pod("app", "node-1", "10.244.1.2 fd00:10:244:1::2");
    scenario(builder, move |cluster| {
        let _servers = [cluster.echo("app", Transport::Tcp, 8080)?, cluster.echo("app", Transport::Udp, 8080)?];
        let service = Service::new("app")
            .cluster_ip("10.96.0.7")
            .cluster_ip("fd00:10:96::7")
            .line("externalIPs: [203.0.113.7, \"2001:db8::7\"]")
            .port_line("name: tcp, protocol: TCP, port: 80, targetPort: 8080")
            .port_line("name: udp, protocol: UDP, port: 80, targetPort: 8080");
        let slice = |name: &str, address: &str| {
            let slice = Slice::of("app").name(name).named_port("tcp", "TCP", 8080).named_port("udp", "UDP", 8080);
            place(slice.ready(address))
        };
        let slices = (slice("v4", "10.244.1.2"), slice("v6", "fd00:10:244:1::2"));
        cluster.manifests.write("app", &format!("{service}---\n{}---\n{}", slices.0, slices.1))?;
        let _proxy = cluster.start_proxy("node-1", &["--cluster-cidr", "10.244.0.0/16,fd00:10:244::/48"])?;
        cluster.at("node-1")?.await_service("UDP [2001:db8::7]:80", &["[fd00:10:244:1::2]:8080 1"])?;
        for to in ["10.96.0.7:80", "203.0.113.7:80", "[fd00:10:96::7]:80", "[2001:db8::7]:80"] {
            for transport in [Transport::Tcp, Transport::Udp] {
                let seen = cluster.at("app")?.echo(transport, to)?.peer.ip().to_string();
                let gateway = if to.starts_with('[') { "fd00:10:244:1::1" } else { "10.244.1.1" };
                assert_eq!(seen, gateway, "{transport:?} {to}: else the answer would not come back through the node");
            }
        }
        Ok(())
    })
}
