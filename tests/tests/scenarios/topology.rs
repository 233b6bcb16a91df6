//! Topology hints of EndpointSlices: kube-ipvs prefers endpoints in the node's zone, or on the node itself.

use std::collections::BTreeSet;

use anyhow::ensure;
use scenarios::{Cluster, TestResult, scenario};

fn slice(hints: [&str; 3]) -> String {
    let mut text = "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: app-1\n  labels: {kubernetes.io/service-name: app}\naddressType: IPv4\nports: [{port: 8080}]\nendpoints:\n".to_owned();
    for (index, hints) in hints.iter().enumerate() {
        let number = index + 1;
        text += &format!("- addresses: [10.244.{number}.2]\n  nodeName: node-{number}\n  hints: {{{hints}}}\n");
    }
    text
}

#[test]
fn hints_are_followed_where_all_endpoints_have_them() -> TestResult {
    let builder = (1..=3).fold(Cluster::builder(), |builder, number| {
        builder.pod(&format!("app-{number}"), &format!("node-{number}"), &format!("10.244.{number}.2"))
    });
    scenario(builder, |cluster| {
        let _servers = [cluster.http("app-1", 8080)?, cluster.http("app-2", 8080)?, cluster.http("app-3", 8080)?];
        let service = scenarios::Service::new("app").cluster_ip("10.96.0.7").port(80);
        let node = |name: &str, zone: &str| {
            format!(
                "---\napiVersion: v1\nkind: Node\nmetadata:\n  name: {name}\n  labels: {{topology.kubernetes.io/zone: {zone}}}\n"
            )
        };
        let nodes = node("node-1", "a") + &node("node-2", "b") + &node("node-3", "b");
        cluster.manifests.write("app", &format!("{service}{nodes}"))?;
        let zone = |zone: &str| format!("forZones: [{{name: {zone}}}]");
        let (a, b, c) = (zone("a"), zone("b"), zone("c"));
        cluster.manifests.write("slice", &slice([&a, &b, &b]))?;
        let _proxies = cluster.start_proxies(&[])?;
        let serving = |node: &str, numbers: &[u8]| {
            let reals: Vec<String> = numbers.iter().map(|number| format!("10.244.{number}.2:8080")).collect();
            let reals: Vec<&str> = reals.iter().map(String::as_str).collect();
            let node = cluster.at(node)?;
            node.await_serving("TCP 10.96.0.7:80", &reals)?;
            let answered: BTreeSet<String> = node.get_many("10.96.0.7:80", 6)?.into_iter().collect();
            let expected: BTreeSet<String> = numbers.iter().map(|number| format!("app-{number}")).collect();
            ensure!(answered == expected, "{}: {answered:?} answer, not {expected:?}", node.name());
            Ok(())
        };
        serving("node-1", &[1])?;
        serving("node-3", &[2, 3])?;
        // One endpoint has no hints: the hints are out of date, and kube-ipvs ignores them.
        cluster.manifests.write("slice", &slice([&a, &b, ""]))?;
        serving("node-1", &[1, 2, 3])?;
        // No endpoint has a hint for this zone: a distant endpoint is better than none.
        cluster.manifests.write("slice", &slice([&c, &b, &b]))?;
        serving("node-1", &[1, 2, 3])?;
        serving("node-2", &[2, 3])?;
        // Hints for nodes: the node's own endpoints, otherwise those of the zone.
        let both = |node: &str, zone: &str| format!("forNodes: [{{name: {node}}}], {zone}");
        let (first, second, third) = (both("node-1", &a), both("node-2", &b), both("node-2", &b));
        cluster.manifests.write("slice", &slice([&first, &second, &third]))?;
        serving("node-1", &[1])?;
        serving("node-2", &[2, 3])?;
        serving("node-3", &[2, 3])
    })
}
