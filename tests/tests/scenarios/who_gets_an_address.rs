//! kube-ipvs serves allocated addresses, whatever a Node's status or another Service claims.

use scenarios::{Cluster, ClusterBuilder, Node, Server, Service, Slice, TestResult, Transport, scenario};

/// The Nodes. `node-3` has these further addresses in its status.
fn nodes(cluster: &Cluster, of_node_3: &str) -> String {
    let node = |node: &Node| {
        let more = if node.name() == "node-3" { of_node_3 } else { "" };
        format!(
            "---\napiVersion: v1\nkind: Node\nmetadata: {{name: {}}}\nstatus:\n  addresses:\n  - type: InternalIP\n    \
             address: {}\n{more}",
            node.name(),
            node.ipv4()
        )
    };
    cluster.nodes().iter().map(node).collect()
}

fn web() -> Service {
    Service::new("web").cluster_ip("10.96.0.80").port_line("port: 80, targetPort: 8080")
}

fn deploy(cluster: &Cluster) -> anyhow::Result<Vec<Server>> {
    cluster.manifests.write("web", &web())?;
    cluster.manifests.write("web-slice", &Slice::of("web").port(8080).ready("10.244.1.2").on("node-1"))?;
    Ok(vec![cluster.echo("web", Transport::Tcp, 8080)?, cluster.echo("thief", Transport::Tcp, 8080)?])
}

fn builder() -> ClusterBuilder {
    let cluster = Cluster::builder().pod("web", "node-1", "10.244.1.2").pod("thief", "node-2", "10.244.2.2");
    cluster.pod("visitor", "node-3", "10.244.3.9")
}

/// An agent that enumerates interfaces publishes the addresses of `kube-ipvs0` in its Node's status.
#[test]
fn cluster_ip_in_the_status_of_a_node_is_still_served() -> TestResult {
    scenario(builder(), |cluster| {
        let _servers = deploy(cluster)?;
        let of_node_3 = "  - type: ExternalIP\n    address: 10.96.0.80\n";
        cluster.manifests.write("nodes", &nodes(cluster, of_node_3))?;
        let _proxies = cluster.start_proxies(&["--cluster-cidr", "10.244.0.0/16"])?;
        for node in cluster.nodes() {
            node.namespace().await_vips(&["10.96.0.80"])?;
            node.namespace().await_service("TCP 10.96.0.80:80", &["10.244.1.2:8080 1"])?;
            assert_eq!(node.namespace().echo(Transport::Tcp, "10.96.0.80:80")?.name, "web");
        }
        assert_eq!(cluster.at("visitor")?.echo(Transport::Tcp, "10.96.0.80:80")?.name, "web");
        Ok(())
    })
}

/// An older Service lists the ClusterIP of a younger one and a node's address as its external IPs. It has a port 22
/// too.
#[test]
fn cluster_ip_claimed_by_an_older_service_stays_with_its_owner() -> TestResult {
    scenario(builder(), |cluster| {
        let _servers = [deploy(cluster)?, vec![cluster.echo("node-3", Transport::Tcp, 22)?]];
        cluster.manifests.write("nodes", &nodes(cluster, ""))?;
        cluster.manifests.write("web", &web().created("2024-06-01T00:00:00Z"))?;
        let thief = Service::new("thief")
            .cluster_ip("10.96.0.66")
            .created("2020-01-01T00:00:00Z")
            .line("externalIPs: [10.96.0.80, 192.168.128.3]")
            .port_line("name: http, port: 80, targetPort: 8080")
            .port_line("name: ssh, port: 22, targetPort: 8080");
        let slice = Slice::of("thief").named_port("http", "TCP", 8080).named_port("ssh", "TCP", 8080);
        cluster.manifests.write("thief", &thief)?;
        cluster.manifests.write("thief-slice", &slice.ready("10.244.2.2").on("node-2"))?;
        let _proxies = cluster.start_proxies(&["--cluster-cidr", "10.244.0.0/16"])?;
        for node in cluster.nodes() {
            node.namespace().await_service("TCP 10.96.0.80:80", &["10.244.1.2:8080 1"])?;
            node.namespace().await_service("TCP 10.96.0.66:22", &["10.244.2.2:8080 1"])?;
            assert_eq!(node.namespace().echo(Transport::Tcp, "10.96.0.80:80")?.name, "web");
        }
        let (visitor, client) = (cluster.at("visitor")?, cluster.at("client")?);
        assert_eq!(visitor.echo(Transport::Tcp, "10.96.0.80:80")?.name, "web");
        for from in [visitor, client] {
            assert_eq!(from.echo(Transport::Tcp, "192.168.128.3:22")?.name, "node-3");
            assert_eq!(from.echo(Transport::Tcp, "192.168.128.3:80")?.name, "thief");
        }
        Ok(())
    })
}
