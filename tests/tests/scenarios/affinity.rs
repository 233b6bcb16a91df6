//! Scenario 9: `sessionAffinity: ClientIP`.

use anyhow::ensure;
use scenarios::{Cluster, Service, Slice, TestResult, Transport, scenario};

/// One client stays on one pod, by every kind of address; a pod that is gone is left at once.
#[test]
fn a_client_stays_until_its_pod_is_gone() -> TestResult {
    let builder = Cluster::builder()
        .pod("app-1", "node-3", "10.244.3.2")
        .pod("app-2", "node-3", "10.244.3.3")
        .pod("visitor", "node-3", "10.244.3.9");
    scenario(builder, |cluster| {
        let pods = [("app-1", "10.244.3.2"), ("app-2", "10.244.3.3")];
        let _servers =
            [cluster.echo("app-1", Transport::Tcp, 8080)?, cluster.echo("app-2", Transport::Tcp, 8080)?];
        let manifests = |policy: &str, addresses: &[&str]| {
            let service = Service::new("app")
                .line("type: LoadBalancer")
                .line("sessionAffinity: ClientIP")
                .line(&format!("externalTrafficPolicy: {policy}"))
                .cluster_ip("10.96.0.7")
                .load_balancer_ip("203.0.113.7")
                .port_line("port: 80, targetPort: 8080, nodePort: 30080");
            let slice = Slice::of("app").port(8080);
            let slice = addresses.iter().fold(slice, |slice, address| slice.ready(address).on("node-3"));
            format!("{service}---\n{slice}")
        };
        cluster.at("client")?.ip("route add 203.0.113.0/24 via 192.168.128.3")?;
        let _proxy = cluster.start_proxy("node-3", &["--cluster-cidr", "10.244.0.0/16"])?;
        let node = cluster.at("node-3")?;
        for policy in ["Cluster", "Local"] {
            cluster.manifests.write("app", &manifests(policy, &["10.244.3.2", "10.244.3.3"]))?;
            node.await_serving("TCP 203.0.113.7:80", &["10.244.3.2:8080", "10.244.3.3:8080"])?;
            let listing = node.run("ipvsadm", &["-Ln"])?;
            ensure!(listing.contains("10.96.0.7:80 rr persistent 10800"), "not persistent:\n{listing}");
            for (from, to) in [
                ("visitor", "10.96.0.7:80"),
                ("visitor", "203.0.113.7:80"),
                ("client", "192.168.128.3:30080"),
                ("client", "203.0.113.7:80"),
                ("node-3", "203.0.113.7:80"),
            ] {
                let from = cluster.at(from)?;
                let first = from.echo(Transport::Tcp, to)?.name;
                for _ in 0..3 {
                    let next = from.echo(Transport::Tcp, to)?.name;
                    ensure!(next == first, "{policy}: {} to {to} moved from {first} to {next}", from.name());
                }
                let (_, left) = pods.iter().find(|(name, _)| *name != first).copied().unwrap_or(pods[0]);
                cluster.manifests.write("app", &manifests(policy, &[left]))?;
                node.await_serving("TCP 203.0.113.7:80", &[&format!("{left}:8080")])?;
                node.await_serving("TCP 10.96.0.7:80", &[&format!("{left}:8080")])?;
                let next = from.echo(Transport::Tcp, to)?.name;
                ensure!(next != first, "{policy}: {} to {to} sticks to {first}, which is gone", from.name());
                cluster.manifests.write("app", &manifests(policy, &["10.244.3.2", "10.244.3.3"]))?;
                node.await_serving("TCP 203.0.113.7:80", &["10.244.3.2:8080", "10.244.3.3:8080"])?;
                node.await_serving("TCP 10.96.0.7:80", &["10.244.3.2:8080", "10.244.3.3:8080"])?;
            }
        }
        Ok(())
    })
}
