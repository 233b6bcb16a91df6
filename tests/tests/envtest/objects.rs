//! Odd objects that a real API server accepts, and the daemons' Events about them.

use anyhow::{Context, Result, ensure};
use scenarios::{Cluster, Request, Service, TestResult, eventually, scenario};

use crate::common::{WEB, WEB_ADDRESS, deploy_web, web_cluster};

const NODE: &str = "node-3";

/// A slice of `web` with one endpoint, which is terminating and has no `serving` condition. Two ports are invalid.
fn odd_slice(address: &str) -> String {
    format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: web-1\n  labels: {{ \
         kubernetes.io/service-name: web }}\naddressType: IPv4\nports:\n- {{ name: bad, port: 0, protocol: TCP }}\n- {{ name: \
         \"\", port: 8080, protocol: TCP }}\n- {{ name: worse, port: 70000, protocol: TCP }}\nendpoints:\n- addresses: \
         [{address}]\n  conditions: {{ ready: false, terminating: true }}\n"
    )
}

/// Slices with invalid ports, slices of a Service that cannot exist, and a Service with 1,600 ports affect no other
/// Service.
#[test]
fn odd_objects_are_served_as_far_as_they_can_be() -> TestResult {
    scenario(web_cluster(), |cluster| {
        let _servers = deploy_web(cluster)?;
        cluster.manifests.write("web-slice", &odd_slice("10.244.1.2"))?;
        let stray =
            odd_slice("10.244.2.3").replace("name: web-1", "name: stray").replace("name: web }", "name: My_Service }");
        cluster.manifests.write("stray", &stray)?;
        let many = (10_000..11_600).fold(Service::new("many").cluster_ip("10.96.0.82"), |service, port| {
            service.port_line(&format!("name: p{port}, port: {port}, protocol: UDP"))
        });
        cluster.manifests.write("many", &many)?;
        let proxy = cluster.start_proxy(NODE, &[])?;
        let node = cluster.at(NODE)?;
        node.await_serving(WEB, &["10.244.1.2:8080"])?;
        ensure!(cluster.at("visitor")?.get(WEB_ADDRESS)?.name == "web-1");
        eventually(|| {
            let served = node.ip_vs()?.keys().iter().filter(|key| key.starts_with("UDP 10.96.0.82:")).count();
            ensure!(served == 1600, "{served} of 1600 ports");
            Ok(())
        })?;
        cluster.manifests.write("web-slice", &odd_slice("10.244.2.2"))?;
        node.await_serving(WEB, &["10.244.2.2:8080"])?;
        let log = proxy.log_text();
        ensure!(log.contains("ports[0].port: 0 is not a port"), "{log}");
        Ok(())
    })
}

fn events(cluster: &Cluster, before: usize) -> Result<Vec<Request>> {
    let all = cluster.control_plane()?.requests()?.split_off(before);
    Ok(all.into_iter().filter(|request| request.verb == "create" && request.uri.contains("/events")).collect())
}

/// One node's Event is stored. The API server rejects the same Event of the other nodes as a duplicate.
#[test]
fn finding_of_all_nodes_is_stored_as_one_event() -> TestResult {
    scenario(web_cluster(), |cluster| {
        let before = cluster.control_plane()?.requests()?.len();
        for (name, ip) in [("first", "10.96.0.21"), ("second", "10.96.0.22")] {
            let service = Service::new(name).cluster_ip(ip).line("externalIPs: [203.0.113.9]").port(80);
            cluster.manifests.write(name, &service)?;
        }
        let _proxies = cluster.start_proxies(&[])?;
        // Each daemon waits for a random time, at most half a minute.
        let mut statuses: Vec<u64> = eventually(|| {
            let posted = events(cluster, before)?;
            ensure!(posted.len() >= cluster.nodes().len(), "{posted:?}");
            Ok(posted)
        })?
        .iter()
        .map(|request| request.status)
        .collect();
        statuses.sort_unstable();
        ensure!(statuses == [201, 409, 409], "{statuses:?}");
        let stored = cluster.control_plane()?.get("/apis/events.k8s.io/v1/namespaces/default/events")?;
        let stored = stored["items"].as_array().context("no list")?;
        let ours = stored
            .iter()
            .filter(|event| event["regarding"]["name"] == "second" || event["regarding"]["name"] == "first");
        ensure!(ours.count() == 1, "{stored:?}");
        Ok(())
    })
}
