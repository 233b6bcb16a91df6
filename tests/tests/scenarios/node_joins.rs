//! A node joins a large cluster: everything on it waits for the API server's Service.

use std::time::{Duration, Instant};

use anyhow::ensure;
use scenarios::{Cluster, Service, Slice, TestResult, Transport, eventually, scenario};

use crate::api_server::api_server;

/// Two thousand Services, and the API answers within seconds, by its ClusterIP, from the node and from a pod.
#[test]
fn the_api_is_reached_at_once() -> TestResult {
    const LIMIT: Duration = Duration::from_secs(30);
    let builder =
        Cluster::builder().pod("api", "node-1", "10.244.1.2").pod("visitor", "node-3", "10.244.3.9");
    scenario(builder, |cluster| {
        let _server = cluster.echo("api", Transport::Tcp, 6443)?;
        let (server, kubeconfig) = api_server(cluster, None)?;
        for number in 0..2000 {
            let name = format!("app-{number}");
            let ip = format!("10.97.{}.{}", number / 250, number % 250 + 1);
            let service = Service::new(&name).cluster_ip(&ip).port_line("port: 80, targetPort: 8080");
            let slice =
                Slice::of(&name).port(8080).ready(&format!("10.245.{}.{}", number / 250, number % 250 + 1));
            server.apply(&format!("{service}---\n{slice}"))?;
        }
        let api = Service::new("kubernetes").cluster_ip("10.96.0.1").port_line("port: 443, targetPort: 6443");
        let slice = Slice::of("kubernetes").port(6443).ready("10.244.1.2").on("node-1");
        server.apply(&format!("{api}---\n{slice}"))?;
        let start = Instant::now();
        let flags = ["--cluster-cidr", "10.244.0.0/16"];
        let _proxy = cluster.kube_ipvs("node-3")?.start_with_kubeconfig(&kubeconfig, &flags)?;
        for from in ["node-3", "visitor"] {
            let from = cluster.at(from)?;
            eventually(|| {
                from.try_echo(Transport::Tcp, "10.96.0.1:443")?.map_err(anyhow::Error::from).map(drop)
            })?;
        }
        println!("the API answered after {:?}", start.elapsed());
        ensure!(start.elapsed() < LIMIT, "{:?}", start.elapsed());
        let node = cluster.at("node-3")?;
        eventually(|| {
            let count = node.ipvsadm()?.keys().len();
            ensure!(count == 2001, "{count} virtual servers");
            Ok(())
        })?;
        Ok(())
    })
}
