//! Who counts as a pod: `--detect-local-mode`, with `--masquerade-all` and without.

use anyhow::{Context, Result, bail};
use scenarios::{Cluster, Failure, Service, Slice, TestResult, eventually, scenario};

const CLUSTER_IP: &str = "10.96.0.80:80";
const LOAD_BALANCER_IP: &str = "203.0.113.10:80";
/// Of the policy Local, on a node without an endpoint.
const LOCAL: &str = "203.0.113.11:80";

const POD: &str = "10.244.3.9";
const NODE: &str = "192.168.128.3";
const DROPPED: &str = "dropped";

fn services() -> String {
    let service = |name: &str, ip: &str, external: &str| {
        Service::new(name)
            .line("type: LoadBalancer")
            .cluster_ip(ip)
            .load_balancer_ip(external)
            .port_line("port: 80, targetPort: 8080")
    };
    let slice = |name: &str| Slice::of(name).port(8080).ready("10.244.1.2").on("node-1");
    let local = service("local", "10.96.0.81", "203.0.113.11").line("externalTrafficPolicy: Local");
    let web = service("web", "10.96.0.80", "203.0.113.10");
    format!("{web}---\n{}---\n{local}---\n{}", slice("web"), slice("local"))
}

fn node(pods: &str) -> String {
    format!("apiVersion: v1\nkind: Node\nmetadata: {{name: node-3}}\nspec: {{podCIDRs: [{pods}]}}\n")
}

/// Whose address the pod sees that `from` reaches.
fn source(cluster: &Cluster, from: &str, to: &str) -> Result<String> {
    match cluster.at(from)?.try_get(to)? {
        Ok(answer) => Ok(answer.peer.ip().to_string()),
        Err(Failure::TimedOut) => Ok(DROPPED.into()),
        Err(failure) => bail!("from {from} to {to}: {failure}"),
    }
}

/// All ways to detect pods, and none: what a pod, a host outside and a process of the node are taken for.
#[test]
fn who_is_a_pod_and_who_is_masqueraded() -> TestResult {
    let builder =
        Cluster::builder().pod("web-1", "node-1", "10.244.1.2").pod("visitor", "node-3", "10.244.3.9");
    scenario(builder, |cluster| {
        let _server = cluster.http("web-1", 8080)?;
        cluster.manifests.write("web", &services())?;
        cluster.manifests.write("node", &node("10.244.3.0/24"))?;
        cluster
            .at("client")?
            .ip(&format!("route add 10.96.0.0/16 via {NODE}\nroute add 203.0.113.0/24 via {NODE}"))?;
        for detector in [
            "--detect-local-mode=ClusterCIDR --cluster-cidr=10.244.0.0/16",
            "--detect-local-mode=NodeCIDR",
            "--detect-local-mode=BridgeInterface --pod-bridge-interface=cni0",
            "--detect-local-mode=InterfaceNamePrefix --pod-interface-name-prefix=cn",
            "--detect-local-mode=ClusterCIDR",
        ] {
            // Nobody is known to be inside or outside.
            let is_blind = detector == "--detect-local-mode=ClusterCIDR";
            for all in ["--masquerade-all=false", "--masquerade-all"] {
                let masquerades_all = all == "--masquerade-all";
                let flags: Vec<&str> = detector.split(' ').chain([all]).collect();
                let proxy = cluster.start_proxy("node-3", &flags)?;
                cluster.at("node-3")?.await_serving(&format!("TCP {CLUSTER_IP}"), &["10.244.1.2:8080"])?;
                cluster.at("node-3")?.await_vips(&[
                    "10.96.0.80",
                    "10.96.0.81",
                    "203.0.113.10",
                    "203.0.113.11",
                ])?;
                let expected = [
                    ("visitor", CLUSTER_IP, if masquerades_all { NODE } else { POD }),
                    ("visitor", LOAD_BALANCER_IP, if is_blind { NODE } else { POD }),
                    (
                        "visitor",
                        LOCAL,
                        match (is_blind, masquerades_all) {
                            (true, _) => DROPPED,
                            (false, true) => NODE,
                            (false, false) => POD,
                        },
                    ),
                    ("client", LOAD_BALANCER_IP, NODE),
                    ("client", LOCAL, DROPPED),
                    ("node-3", CLUSTER_IP, NODE),
                    ("node-3", LOCAL, NODE),
                ];
                for (from, to, source_expected) in expected {
                    let found = source(cluster, from, to)?;
                    assert_eq!(found, source_expected, "from {from} to {to} with {flags:?}");
                }
                // Without masquerade the pod would answer past the node, and somebody outside would get nothing.
                if !is_blind || masquerades_all {
                    assert_eq!(source(cluster, "client", CLUSTER_IP)?, NODE, "with {flags:?}");
                }
                proxy.terminate()?;
                cluster.kube_ipvs("node-3")?.run(&["cleanup"])?;
            }
        }
        Ok(())
    })
}

/// The Node gets its range of pods after the proxy has started, and another one later.
#[test]
fn the_ranges_of_the_node_are_followed() -> TestResult {
    let builder =
        Cluster::builder().pod("web-1", "node-1", "10.244.1.2").pod("visitor", "node-3", "10.244.3.9");
    scenario(builder, |cluster| {
        let _server = cluster.http("web-1", 8080)?;
        cluster.manifests.write("web", &services())?;
        let _proxy = cluster.start_proxy("node-3", &["--detect-local-mode=NodeCIDR"])?;
        let node_3 = cluster.at("node-3")?;
        node_3.await_serving(&format!("TCP {CLUSTER_IP}"), &["10.244.1.2:8080"])?;
        node_3.await_vips(&["10.96.0.80", "10.96.0.81", "203.0.113.10", "203.0.113.11"])?;
        assert_eq!(source(cluster, "visitor", LOAD_BALANCER_IP)?, NODE);
        for (pods, expected) in [
            ("10.244.3.0/24, \"fd00:244:3::/64\"", POD),
            ("10.244.7.0/24", NODE),
            ("10.244.0.0/16", POD),
            ("", NODE),
        ] {
            cluster.manifests.write("node", &node(pods))?;
            eventually(scenarios::SOON, || {
                let found = source(cluster, "visitor", LOAD_BALANCER_IP)?;
                (found == expected).then_some(()).with_context(|| format!("{pods}: the source is {found}"))
            })?;
        }
        Ok(())
    })
}
