//! The source addresses that pods see.

use scenarios::{Service, TestResult, scenario};

use crate::common::{await_web, deploy_web, web_cluster};

/// A pod keeps its address. Processes of nodes and outside hosts get the address of the forwarding node.
#[test]
fn clients_other_than_pods_are_masqueraded() -> TestResult {
    scenario(web_cluster(), |cluster| {
        let _servers = deploy_web(cluster)?;
        let service = Service::new("web").node_port_type().cluster_ip("10.96.0.80");
        cluster.manifests.write("web", &service.port_line("port: 80, targetPort: 8080, nodePort: 30080"))?;
        let _proxies = cluster.start_proxies(&["--cluster-cidr", "10.244.0.0/16"])?;
        for node in cluster.nodes() {
            await_web(cluster, node.name())?;
            node.namespace().await_serving(
                &format!("TCP {}:30080", node.ipv4()),
                &["10.244.1.2:8080", "10.244.2.2:8080", "10.244.2.3:8080"],
            )?;
        }
        cluster.at("client")?.ip("route add 10.96.0.0/16 via 192.168.128.3")?;
        for (from, to, expected) in [
            ("visitor", "10.96.0.80:80", ["10.244.3.9"; 3]),
            ("node-3", "10.96.0.80:80", ["192.168.128.3"; 3]),
            ("node-1", "10.96.0.80:80", ["10.244.1.1", "192.168.128.1", "192.168.128.1"]),
            ("client", "192.168.128.3:30080", ["192.168.128.3"; 3]),
            ("client", "192.168.128.1:30080", ["10.244.1.1", "192.168.128.1", "192.168.128.1"]),
            ("client", "10.96.0.80:80", ["192.168.128.3"; 3]),
        ] {
            let mut seen = Vec::new();
            for _ in 0..3 {
                seen.push(cluster.at(from)?.get(to)?.peer.ip().to_string());
            }
            seen.sort();
            assert_eq!(seen, expected, "from {from} to {to}");
        }
        Ok(())
    })
}
