//! Endpoints that are processes of a node, at the node's own address.

use scenarios::{Cluster, Service, Slice, TestResult, Transport, scenario};

/// From a pod, from nodes and from outside, over TCP and UDP. The endpoint is on the node that the client reaches, or
/// on another one.
#[test]
fn host_network_endpoint_is_reached_by_every_kind_of_address() -> TestResult {
    scenario(Cluster::builder().pod("visitor", "node-3", "10.244.3.9"), |cluster| {
        let transports = [Transport::Tcp, Transport::Udp];
        let mut servers = Vec::new();
        for transport in transports {
            servers.push(cluster.echo("node-3", transport, 8080)?);
            servers.push(cluster.echo("node-1", transport, 8080)?);
        }
        // A UDP server on the wildcard address answers from the source address of its route.
        cluster.at("node-3")?.ip("route replace 10.244.3.0/24 dev cni0 src 192.168.128.3")?;
        cluster.at("client")?.ip("route add 203.0.113.0/24 via 192.168.128.3")?;
        let flags = ["--cluster-cidr", "10.244.0.0/16"];
        let _proxy = cluster.start_proxy("node-3", &flags)?;
        for (name, address) in [("node-3", "192.168.128.3"), ("node-1", "192.168.128.1")] {
            let service = Service::new("agent")
                .line("type: LoadBalancer")
                .cluster_ip("10.96.0.7")
                .load_balancer_ip("203.0.113.7")
                .port_line("name: tcp, protocol: TCP, port: 80, targetPort: 8080, nodePort: 30080")
                .port_line("name: udp, protocol: UDP, port: 80, targetPort: 8080, nodePort: 30080");
            let slice = Slice::of("agent").named_port("tcp", "TCP", 8080).named_port("udp", "UDP", 8080);
            let slice = slice.ready(address).on(name);
            cluster.manifests.write("agent", &format!("{service}---\n{slice}"))?;
            cluster.at("node-3")?.await_serving("UDP 203.0.113.7:80", &[&format!("{address}:8080")])?;
            cluster.await_settled("node-3", &flags)?;
            for (from, to) in [
                ("visitor", "10.96.0.7:80"),
                ("visitor", "203.0.113.7:80"),
                ("visitor", "192.168.128.3:30080"),
                ("node-3", "10.96.0.7:80"),
                ("node-3", "192.168.128.3:30080"),
                ("client", "203.0.113.7:80"),
                ("client", "192.168.128.3:30080"),
            ] {
                for transport in transports {
                    let answer = cluster.at(from)?.echo(transport, to)?;
                    assert_eq!(answer.name, name, "{transport:?} from {from} to {to}");
                }
            }
        }
        Ok(())
    })
}
