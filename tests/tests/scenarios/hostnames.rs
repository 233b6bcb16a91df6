//! Scenario 1: the Service `hostnames`, whose pods answer with their own names.

use scenarios::{Cluster, ClusterBuilder, TestResult, scenario};

use crate::common::ensure_rotation;

const EXAMPLE: &str = "01-hostnames";

const PODS: [&str; 3] = ["hostnames-632524106-bbpiw", "hostnames-632524106-ly40y", "hostnames-632524106-tlaok"];

fn cluster() -> ClusterBuilder {
    Cluster::builder()
        .pod(PODS[0], "node-1", "10.1.161.47")
        .pod(PODS[1], "node-2", "10.1.166.146")
        .pod(PODS[2], "node-2", "10.1.166.166")
        .pod("visitor", "node-3", "10.1.170.9")
}

#[test]
fn requests_rotate_and_go_on_when_a_pod_fails() -> TestResult {
    scenario(cluster(), |cluster| {
        let mut servers = Vec::new();
        for pod in PODS {
            servers.push(cluster.http(pod, 9376)?);
        }
        cluster.manifests.example(EXAMPLE)?;
        let _proxies = cluster.start_proxies(&[])?;
        for node in cluster.nodes() {
            let all = ["10.1.161.47:9376 1", "10.1.166.146:9376 1", "10.1.166.166:9376 1"];
            node.namespace().await_service("TCP 10.0.91.192:80", &all)?;
        }
        // The pods are clients too, and each can be its own endpoint.
        for from in [&["node-1", "node-2", "node-3", "visitor"][..], &PODS].concat() {
            let from = cluster.at(from)?;
            ensure_rotation(&from.get_many("10.0.91.192:80", 9)?, &PODS)?;
        }
        let visitor = cluster.at("visitor")?;
        let by_curl = (0..3).map(|_| visitor.curl("http://10.0.91.192")).collect::<Result<Vec<_>, _>>()?;
        ensure_rotation(&by_curl, &PODS)?;

        cluster.manifests.remove_endpoint(EXAMPLE, "10.1.166.166")?;
        for node in cluster.nodes() {
            let left = ["10.1.161.47:9376", "10.1.166.146:9376"];
            node.namespace().await_serving("TCP 10.0.91.192:80", &left)?;
        }
        servers.pop();
        cluster.remove_pod(PODS[2])?;
        for from in ["node-1", "node-2", "node-3", "visitor"] {
            let answers = cluster.at(from)?.get_many("10.0.91.192:80", 8)?;
            ensure_rotation(&answers, &PODS[..2])?;
        }
        Ok(())
    })
}
