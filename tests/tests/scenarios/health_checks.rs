//! Load balancers check on each node whether it has endpoints. Some send the check to the VIP.

use scenarios::{Cluster, Service, Slice, TestResult, Transport, scenario};

/// While the policy is Local, the node answers on the healthCheckNodePort at the load-balancer IP and the external IP.
/// Those addresses reach no other listener of the node.
#[test]
fn the_health_check_node_port_is_reached_through_vips() -> TestResult {
    scenario(Cluster::builder().pod("web", "node-3", "10.244.3.2"), |cluster| {
        let _servers = [cluster.echo("web", Transport::Tcp, 8080)?, cluster.echo("node-3", Transport::Tcp, 32001)?];
        let node = cluster.at("node-3")?;
        let client = cluster.at("client")?;
        client.ip("route add 203.0.113.0/24 via 192.168.128.3")?;
        let _proxy = cluster.start_proxy("node-3", &[])?;
        for (policy, is_asked) in [("Local", true), ("Cluster", false), ("Local", true)] {
            let service = Service::new("web")
                .line("type: LoadBalancer")
                .line(&format!("externalTrafficPolicy: {policy}"))
                .line("healthCheckNodePort: 32000")
                .line("externalIPs: [203.0.113.8]")
                .cluster_ip("10.96.0.7")
                .load_balancer_ip("203.0.113.7")
                .port_line("port: 80, targetPort: 8080, nodePort: 30080");
            let slice = Slice::of("web").port(8080).ready("10.244.3.2").on("node-3");
            cluster.manifests.write("web", &format!("{service}---\n{slice}"))?;
            node.await_vips(&["10.96.0.7", "203.0.113.7", "203.0.113.8"])?;
            scenarios::eventually(|| {
                let asked = node.nft_sets()?["ip health-checks"].len();
                anyhow::ensure!(asked == if is_asked { 2 } else { 0 }, "{asked} health checks with {policy}");
                Ok(())
            })?;
            for vip in ["203.0.113.7", "203.0.113.8"] {
                if is_asked {
                    scenarios::eventually(|| {
                        let answer = client.curl(&format!("http://{vip}:32000/"))?;
                        anyhow::ensure!(answer.contains(r#""localEndpoints":1"#), "{answer}");
                        Ok(())
                    })?;
                } else {
                    client.expect_refused(Transport::Tcp, &format!("{vip}:32000"))?;
                }
                client.expect_refused(Transport::Tcp, &format!("{vip}:32001"))?;
            }
            scenarios::eventually(|| {
                let answer = client.curl("http://192.168.128.3:32000/");
                anyhow::ensure!(answer.is_ok() == is_asked, "at the node's address: {answer:?}");
                Ok(())
            })?;
        }
        Ok(())
    })
}
