//! Even distribution of requests.

use anyhow::ensure;
use scenarios::{Service, Slice, TestResult, scenario, tally};

use crate::common::{WEB_ADDRESS, WEB_PODS, await_web, deploy_web, web_cluster, web_reals};

#[test]
fn three_hundred_requests_are_spread_evenly_over_three_pods() -> TestResult {
    scenario(web_cluster(), |cluster| {
        let _servers = deploy_web(cluster)?;
        let _proxies = cluster.start_proxies(&[])?;
        for (node, from) in [("node-3", "visitor"), ("node-1", "node-1")] {
            await_web(cluster, node)?;
            let answers = tally(cluster.at(from)?.get_many(WEB_ADDRESS, 300)?);
            ensure!(answers.len() == 3, "from {from}: {answers:?}");
            ensure!(answers.values().all(|count| (98..=102).contains(count)), "from {from}: {answers:?}");
        }
        Ok(())
    })
}

/// Neither different nodes nor different Services send their first connections to one common endpoint.
#[test]
fn first_connections_of_nodes_and_services_are_spread() -> TestResult {
    const SERVICES: usize = 10;
    scenario(web_cluster(), |cluster| {
        let _servers = deploy_web(cluster)?;
        let mut text = String::new();
        for number in 1..=SERVICES {
            let name = format!("web-{number}");
            let service = Service::new(&name).cluster_ip(&format!("10.96.1.{number}"));
            let slice = WEB_PODS
                .iter()
                .fold(Slice::of(&name).port(8080), |slice, (_, node, address)| slice.ready(address).on(node));
            text += &format!("---\n{}---\n{slice}", service.port_line("port: 80, targetPort: 8080"));
        }
        cluster.manifests.write("many", &text)?;
        let _proxies = cluster.start_proxies(&[])?;
        let mut answers = Vec::new();
        for node in cluster.nodes() {
            let reals = web_reals();
            let reals: Vec<&str> = reals.iter().map(String::as_str).collect();
            for number in 1..=SERVICES {
                node.namespace().await_serving(&format!("TCP 10.96.1.{number}:80"), &reals)?;
                answers.push(node.namespace().get(&format!("10.96.1.{number}:80"))?.name);
            }
        }
        let answers = tally(answers);
        ensure!(answers.len() == 3 && answers.values().all(|count| *count <= 20), "{answers:?}");
        Ok(())
    })
}
