//! A node joins a large cluster: every program on it waits for the API server's Service.

use anyhow::ensure;
use scenarios::{Cluster, Service, Slice, TestResult, Transport, eventually, scenario};

use crate::api_server::api_server;
use crate::common::await_first_sync;

/// With two thousand Services, the node and a pod reach the API's ClusterIP right after the daemon's first sync,
/// without a retry.
#[test]
fn api_service_is_reachable_right_after_the_first_sync() -> TestResult {
    let builder = Cluster::builder().pod("api", "node-1", "10.244.1.2").pod("visitor", "node-3", "10.244.3.9");
    scenario(builder, |cluster| {
        let _server = cluster.echo("api", Transport::Tcp, 6443)?;
        let (server, kubeconfig) = api_server(cluster, None)?;
        for number in 0..2000 {
            let name = format!("app-{number}");
            let ip = format!("10.97.{}.{}", number / 250, number % 250 + 1);
            let service = Service::new(&name).cluster_ip(&ip).port_line("port: 80, targetPort: 8080");
            let slice = Slice::of(&name).port(8080).ready(&format!("10.245.{}.{}", number / 250, number % 250 + 1));
            server.apply(&format!("{service}---\n{slice}"))?;
        }
        let api = Service::new("kubernetes").cluster_ip("10.96.0.1").port_line("port: 443, targetPort: 6443");
        let slice = Slice::of("kubernetes").port(6443).ready("10.244.1.2").on("node-1");
        server.apply(&format!("{api}---\n{slice}"))?;
        let flags = ["--cluster-cidr", "10.244.0.0/16"];
        let proxy = cluster.kube_ipvs("node-3")?.start_with_kubeconfig(&kubeconfig, &flags)?;
        let node = cluster.at("node-3")?;
        await_first_sync(node)?;
        for from in ["node-3", "visitor"] {
            cluster.at(from)?.echo(Transport::Tcp, "10.96.0.1:443")?;
        }
        eventually(|| {
            let count = node.ipvsadm()?.keys().len();
            ensure!(count == 2001, "{count} virtual servers");
            Ok(())
        })?;
        let log = proxy.log_text();
        let first = log.lines().find(|line| line.contains("synced"));
        ensure!(first.is_some_and(|line| line.contains("services=default/kubernetes ")), "the first sync: {first:?}");
        let complaint = log.lines().find(|line| line.contains("ERROR"));
        ensure!(complaint.is_none(), "{complaint:?}");
        Ok(())
    })
}
