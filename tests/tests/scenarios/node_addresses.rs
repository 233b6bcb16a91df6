//! Node ports follow the node's addresses.

use std::time::Duration;

use anyhow::ensure;
use scenarios::{Cluster, Server, Service, Slice, TestResult, Transport, scenario, throughout};

fn deploy(cluster: &Cluster) -> anyhow::Result<Server> {
    let service = Service::new("web").node_port_type().cluster_ip("10.96.0.80");
    cluster.manifests.write("web", &service.port_line("port: 80, targetPort: 8080, nodePort: 30080"))?;
    cluster.manifests.write("web-slice", &Slice::of("web").port(8080).ready("10.244.1.2"))?;
    cluster.http("web", 8080)
}

/// A new address serves node ports at once, without a sync. A removed address stops serving them.
#[test]
fn node_ports_follow_added_and_removed_node_addresses() -> TestResult {
    scenario(Cluster::builder().pod("web", "node-1", "10.244.1.2"), |cluster| {
        let _server = deploy(cluster)?;
        // The sync period is too long to find the address.
        let _proxy = cluster.start_proxy("node-2", &["--ipvs-sync-period", "10m"])?;
        let (node, client) = (cluster.at("node-2")?, cluster.at("client")?);
        node.await_service("TCP 192.168.128.2:30080", &["10.244.1.2:8080 1"])?;
        assert_eq!(client.get("192.168.128.2:30080")?.name, "web");
        ensure!(client.try_get("192.168.128.51:30080")?.is_err(), "an address that is nowhere answers");

        node.ip("addr add 192.168.128.51/24 dev eth0")?;
        node.await_service("TCP 192.168.128.51:30080", &["10.244.1.2:8080 1"])?;
        assert_eq!(client.get("192.168.128.51:30080")?.name, "web");

        node.ip("addr del 192.168.128.51/24 dev eth0")?;
        node.await_no_service("TCP 192.168.128.51:30080")?;
        assert_eq!(client.get("192.168.128.2:30080")?.name, "web");
        // And again, on a new device.
        node.ip("link add name extra type bridge\nlink set extra up\naddr add 192.168.129.1/24 dev extra")?;
        node.await_service("TCP 192.168.129.1:30080", &["10.244.1.2:8080 1"])?;
        node.ip("link del extra")?;
        node.await_no_service("TCP 192.168.129.1:30080")
    })
}

#[test]
fn node_ports_serve_only_the_chosen_addresses() -> TestResult {
    scenario(Cluster::builder().pod("web", "node-1", "10.244.1.2"), |cluster| {
        let _server = deploy(cluster)?;
        let node = cluster.at("node-2")?;
        node.ip("addr add 172.16.5.1/24 dev eth0")?;
        let _proxy = cluster.start_proxy("node-2", &["--nodeport-addresses", "192.168.128.0/24"])?;
        node.await_service("TCP 192.168.128.2:30080", &["10.244.1.2:8080 1"])?;
        node.ip("addr add 172.16.6.1/24 dev eth0\naddr add 192.168.128.52/24 dev eth0")?;
        node.await_service("TCP 192.168.128.52:30080", &["10.244.1.2:8080 1"])?;
        // The other address came first: if kube-ipvs served it, it would appear by now or a little later.
        throughout(Duration::from_secs(1), || {
            let keys = node.ip_vs()?.keys();
            let expected = ["TCP 10.96.0.80:80", "TCP 192.168.128.2:30080", "TCP 192.168.128.52:30080"];
            ensure!(keys == expected, "{keys:?}");
            Ok(())
        })?;
        assert_eq!(cluster.at("client")?.get("192.168.128.52:30080")?.name, "web");
        Ok(())
    })
}

/// A process uses a node port at an address without a route back from other nodes, such as that of `docker0`. The
/// endpoint sees an address of the node to which it has a route.
#[test]
fn node_port_at_an_unrouted_node_address_reaches_remote_pods() -> TestResult {
    scenario(Cluster::builder().pod("web", "node-1", "10.244.1.2"), |cluster| {
        let _servers = [cluster.echo("web", Transport::Tcp, 8080)?, cluster.echo("web", Transport::Udp, 8080)?];
        let node = cluster.at("node-2")?;
        node.ip("link add name docker0 type bridge\nlink set docker0 up\naddr add 172.17.0.1/16 dev docker0")?;
        let flags = ["--cluster-cidr", "10.244.0.0/16"];
        let _proxy = cluster.start_proxy("node-2", &flags)?;
        for policy in ["Cluster", "Local"] {
            let service = Service::new("web")
                .node_port_type()
                .cluster_ip("10.96.0.80")
                .line(&format!("externalTrafficPolicy: {policy}"))
                .port_line("name: tcp, protocol: TCP, port: 80, targetPort: 8080, nodePort: 30080")
                .port_line("name: udp, protocol: UDP, port: 80, targetPort: 8080, nodePort: 30080");
            let slice = Slice::of("web").named_port("tcp", "TCP", 8080).named_port("udp", "UDP", 8080);
            cluster.manifests.write("web", &format!("{service}---\n{}", slice.ready("10.244.1.2").on("node-1")))?;
            cluster.await_settled("node-2", &flags)?;
            for transport in [Transport::Tcp, Transport::Udp] {
                let answer = node.echo(transport, "172.17.0.1:30080")?;
                ensure!(answer.peer.ip().to_string() == "192.168.128.2", "{policy} {transport:?}: {}", answer.peer);
            }
        }
        Ok(())
    })
}
