//! Endpoints come and go under load, and no request fails.

use std::time::Duration;

use anyhow::Result;
use scenarios::{Cluster, Load, Service, TestResult, eventually, scenario};

use crate::common::{WEB, WEB_ADDRESS, all_web, await_web, deploy_web, web_cluster, web_slice};

const ROUNDS: usize = 300;

/// Waits until all nodes serve `web-2` with weight 1, or else have it with weight 0 or not at all.
fn await_second(cluster: &Cluster, serving: bool) -> Result<()> {
    for node in cluster.nodes() {
        eventually(|| {
            let weights = node.namespace().ip_vs()?.weights(WEB).unwrap_or_default();
            let serves = weights.iter().any(|real| real == "10.244.2.2:8080 1");
            anyhow::ensure!(serves == serving, "on {}: {weights:?}", node.namespace().name());
            Ok(())
        })?;
    }
    Ok(())
}

/// 300 removals and additions of an endpoint, each read back from the kernel. Clients in a pod, on a node and outside
/// get an answer to every request.
#[test]
fn no_request_fails_while_an_endpoint_comes_and_goes() -> TestResult {
    scenario(web_cluster(), |cluster| {
        let _servers = deploy_web(cluster)?;
        let service = Service::new("web").node_port_type().cluster_ip("10.96.0.80");
        cluster.manifests.write("web", &service.port_line("port: 80, targetPort: 8080, nodePort: 30080"))?;
        let _proxies = cluster.start_proxies(&[])?;
        for node in cluster.nodes() {
            await_web(cluster, node.name())?;
            let key = format!("TCP {}:30080", node.ipv4());
            let all = ["10.244.1.2:8080", "10.244.2.2:8080", "10.244.2.3:8080"];
            node.namespace().await_serving(&key, &all)?;
        }
        let pause = Duration::from_millis(25);
        let loads = [
            ("a pod", Load::start(cluster.at("visitor")?, WEB_ADDRESS, pause)?),
            ("a node", Load::start(cluster.at("node-1")?, WEB_ADDRESS, pause)?),
            ("a host outside", Load::start(cluster.at("client")?, "192.168.128.3:30080", pause)?),
        ];
        for _ in 0..ROUNDS {
            cluster.manifests.write("web-slice", &web_slice(&["web-1", "web-3"]))?;
            await_second(cluster, false)?;
            cluster.manifests.write("web-slice", &web_slice(&all_web()))?;
            await_second(cluster, true)?;
        }
        for (who, load) in loads {
            // Each load ends with a request that began after the last round.
            let report = load.stop(ROUNDS, who)?;
            println!("{who}: {} answers, the slowest after {:?}", report.answered(), report.slowest);
        }
        Ok(())
    })
}
