//! Objects that an API server accepts and that no node can serve completely. They affect nothing else.

use anyhow::ensure;
use scenarios::{Kind, Service, Slice, TestResult, eventually, scenario};

use crate::{
    api_server::api_server,
    common::{WEB, WEB_ADDRESS, web_cluster, web_service},
};

const NODE: &str = "node-3";

/// The slice of `web` with one endpoint, which is terminating and has no `serving` condition. Two of its ports are
/// invalid, and a hint names no zone.
fn odd_slice(address: &str) -> String {
    format!(
        "kind: EndpointSlice\nmetadata: {{ name: web-1, labels: {{ kubernetes.io/service-name: web }} }}\n\
         addressType: IPv4\nports: [{{ name: bad, port: 0 }}, {{ name: \"\", port: 8080 }}, {{ name: worse, port: 70000 }}]\n\
         endpoints:\n- addresses: [{address}]\n  conditions: {{ ready: false, terminating: true }}\n  \
         hints: {{ forZones: [{{ name: \"\" }}] }}\n"
    )
}

#[test]
fn odd_objects_affect_no_other_service() -> TestResult {
    scenario(web_cluster(), |cluster| {
        let (api, kubeconfig) = api_server(cluster, None)?;
        let _servers = [cluster.http("web-1", 8080)?, cluster.http("web-2", 8080)?];
        api.apply(&Service::new("gone").cluster_ip("10.96.0.81").port(80))?;
        let start = || cluster.kube_ipvs(NODE)?.start_with_kubeconfig(&kubeconfig, &[]);
        let proxy = start()?;
        let node = cluster.at(NODE)?;
        node.await_service("TCP 10.96.0.81:80", &[])?;
        proxy.terminate()?;

        api.delete(Kind::Service, "gone")?;
        api.apply(&web_service())?;
        api.apply(&odd_slice("10.244.1.2"))?;
        for (number, name) in ["\"\"", "My_Service", "a.b"].iter().enumerate() {
            let stray = Slice::of(name).name(&format!("stray-{number}")).port(8080).ready("10.244.2.3");
            api.apply(&stray)?;
        }
        let many = (10_000..11_600).fold(Service::new("many").cluster_ip("10.96.0.82"), |service, port| {
            service.port_line(&format!("name: p{port}, port: {port}, protocol: UDP"))
        });
        api.apply(&many)?;
        let mut proxy = start()?;
        node.await_serving(WEB, &["10.244.1.2:8080"])?;
        ensure!(cluster.at("visitor")?.get(WEB_ADDRESS)?.name == "web-1");
        // The odd objects do not delay the removal of leftovers.
        node.await_no_service("TCP 10.96.0.81:80")?;
        eventually(|| {
            let served = node.ip_vs()?.keys().iter().filter(|key| key.starts_with("UDP 10.96.0.82:")).count();
            ensure!(served == 1600, "{served} of 1600 ports");
            Ok(())
        })?;
        // The daemon still applies changes of such a slice.
        api.apply(&odd_slice("10.244.2.2"))?;
        node.await_serving(WEB, &["10.244.2.2:8080"])?;
        ensure!(cluster.at("visitor")?.get(WEB_ADDRESS)?.name == "web-2");
        let log = proxy.log_text();
        ensure!(log.contains("ports[0].port: 0 is not a port"), "{log}");
        proxy.check_alive()
    })
}
