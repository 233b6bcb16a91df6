//! Objects that delay a takeover, and objects that do not.

use anyhow::ensure;
use scenarios::{Kind, Service, TestResult, eventually, scenario};

use super::{
    Backend, FLAGS, NODE, Users, await_taken_over, cluster,
    kube_proxy::{prepare, sets},
    objects, servers,
};
use crate::api_server::api_server;

/// If an object has a field that no node can serve, the takeover does not wait. If an object cannot be read, the
/// takeover waits and the log names the object.
#[test]
fn takeover_logs_the_unreadable_object_that_it_waits_for() -> TestResult {
    scenario(cluster(), |cluster| {
        let _servers = servers(cluster)?;
        let node = cluster.at(NODE)?;
        prepare(node, Backend::Nft)?;
        let (api, kubeconfig) = api_server(cluster, None)?;
        for object in objects().iter().flat_map(|(_, objects)| objects) {
            api.apply(object)?;
        }
        let odd = Service::new("odd").cluster_ip("10.96.0.99").port(80);
        api.apply(&odd.line("externalIPs: [127.0.0.1, 203.0.113.99]"))?;
        api.apply(&"kind: EndpointSlice\nmetadata: { name: odd-1 }\nendpoints: 7\n")?;
        let proxy = cluster.kube_ipvs(NODE)?.start_with_kubeconfig(&kubeconfig, &FLAGS)?;
        eventually(|| {
            let log = proxy.log_text();
            let wait = "stay until kube-ipvs can read these objects: EndpointSlice default/odd-1.";
            ensure!(log.contains(wait), "the log does not say {wait:?}:\n{log}");
            Ok(())
        })?;
        ensure!(!sets(node)?.is_empty(), "kube-proxy's sets are gone");
        // The clients start only now: requests during the minute before would test nothing.
        let users = Users::arrive(cluster)?;
        api.delete(Kind::EndpointSlice, "odd-1")?;
        await_taken_over(&proxy)?;
        node.await_vips(&["10.96.0.80", "10.96.0.81", "10.96.0.99", "203.0.113.80", "203.0.113.99"])?;
        assert_eq!(sets(node)?, [""; 0]);
        eventually(|| {
            let events = api.events();
            let said = |reason: &str, kind: &str, name: &str| {
                events.iter().any(|event| {
                    let about = &event["regarding"];
                    event["reason"] == reason && about["kind"] == kind && about["name"] == name
                })
            };
            ensure!(said("PartIgnored", "Service", "odd"), "{events:#?}");
            ensure!(said("InvalidObject", "EndpointSlice", "odd-1"), "{events:#?}");
            ensure!(said("TakeoverWaits", "Node", NODE), "{events:#?}");
            Ok(())
        })?;
        users.leave()
    })
}
