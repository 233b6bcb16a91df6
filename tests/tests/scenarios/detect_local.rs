//! Detection of local pods: `--detect-local-mode`, with and without `--masquerade-all`.

use anyhow::{Context, Result, ensure};
use scenarios::{Attempt, Cluster, Service, Slice, TestResult, Transport, eventually, scenario, socket_address};

/// The addresses of one family.
#[derive(Clone, Copy)]
struct Family {
    cluster_ip: &'static str,
    load_balancer_ip: &'static str,
    /// A load-balancer IP with the policy Local, on a node without an endpoint.
    local: &'static str,
    pod: &'static str,
    node: &'static str,
}

const V4: Family = Family {
    cluster_ip: "10.96.0.80:80",
    load_balancer_ip: "203.0.113.10:80",
    local: "203.0.113.11:80",
    pod: "10.244.3.9",
    node: "192.168.128.3",
};
const V6: Family = Family {
    cluster_ip: "[fd00:10:96::80]:80",
    load_balancer_ip: "[2001:db8:1::10]:80",
    local: "[2001:db8:1::11]:80",
    pod: "fd00:10:244:3::9",
    node: "fd00:128::3",
};
const VIPS: [&str; 8] = [
    "10.96.0.80",
    "10.96.0.81",
    "203.0.113.10",
    "203.0.113.11",
    "fd00:10:96::80",
    "fd00:10:96::81",
    "2001:db8:1::10",
    "2001:db8:1::11",
];
/// The comment of the rule that drops packets to `local`.
const DROPPED: &str = "policy Local, no endpoint on this node, and no short circuit";

fn services() -> String {
    let service = |name: &str, number: usize| {
        Service::new(name)
            .line("type: LoadBalancer")
            .cluster_ip(&format!("10.96.0.8{number}"))
            .cluster_ip(&format!("fd00:10:96::8{number}"))
            .load_balancer_ip(&format!("203.0.113.1{number}"))
            .load_balancer_ip(&format!("2001:db8:1::1{number}"))
            .port_line("port: 80, targetPort: 8080")
    };
    let slices = |name: &str| {
        let v4 = Slice::of(name).port(8080).ready("10.244.1.2").on("node-1");
        let v6 = Slice::of(name).name(&format!("{name}-v6")).port(8080).ready("fd00:10:244:1::2").on("node-1");
        format!("{v4}---\n{v6}")
    };
    let local = service("local", 1).line("externalTrafficPolicy: Local");
    let web = service("web", 0);
    format!("{web}---\n{}---\n{local}---\n{}", slices("web"), slices("local"))
}

fn node(pods: &str) -> String {
    format!("apiVersion: v1\nkind: Node\nmetadata: {{name: node-3}}\nspec: {{podCIDRs: [{pods}]}}\n")
}

fn source(cluster: &Cluster, from: &str, to: &str) -> Result<String> {
    Ok(cluster.at(from)?.get(to)?.peer.ip().to_string())
}

/// The rule on node-3 counts the first packet, so the test waits for no time-out.
fn ensure_dropped(cluster: &Cluster, from: &str, to: &str) -> Result<()> {
    let node = cluster.at("node-3")?;
    let before = node.nft_packets(DROPPED)?;
    let mut attempt = Attempt::start(cluster.at(from)?, Transport::Tcp, socket_address(to)?)?;
    eventually(|| {
        ensure!(node.nft_packets(DROPPED)? > before, "from {from} to {to}: nothing is dropped");
        Ok(())
    })?;
    let outcome = attempt.outcome()?;
    ensure!(outcome.is_none(), "from {from} to {to}: dropped, and yet {outcome:?}");
    Ok(())
}

fn ensure_sources(cluster: &Cluster, family: Family, is_blind: bool, masquerades_all: bool) -> Result<()> {
    let Family { cluster_ip, load_balancer_ip, local, pod, node } = family;
    let of_local = match (is_blind, masquerades_all) {
        (true, _) => None,
        (false, true) => Some(node),
        (false, false) => Some(pod),
    };
    let expected = [
        ("visitor", cluster_ip, Some(if masquerades_all { node } else { pod })),
        ("visitor", load_balancer_ip, Some(if is_blind { node } else { pod })),
        ("visitor", local, of_local),
        ("client", load_balancer_ip, Some(node)),
        ("client", local, None),
        ("node-3", cluster_ip, Some(node)),
        ("node-3", local, Some(node)),
    ];
    for (from, to, expected) in expected {
        let Some(expected) = expected else {
            ensure_dropped(cluster, from, to)?;
            continue;
        };
        let found = source(cluster, from, to)?;
        ensure!(found == expected, "from {from} to {to}: {found}, not {expected}");
    }
    // Without masquerade the pod would bypass the node with its answer, and an outside client would get none.
    if !is_blind || masquerades_all {
        ensure!(source(cluster, "client", cluster_ip)? == node, "from the client to {cluster_ip}");
    }
    Ok(())
}

#[test]
fn every_detect_local_mode_masquerades_the_right_clients() -> TestResult {
    let builder = Cluster::builder().pod("web-1", "node-1", "10.244.1.2 fd00:10:244:1::2").pod(
        "visitor",
        "node-3",
        "10.244.3.9 fd00:10:244:3::9",
    );
    scenario(builder, |cluster| {
        let _server = cluster.http("web-1", 8080)?;
        cluster.manifests.write("web", &services())?;
        cluster.manifests.write("node", &node("10.244.3.0/24, \"fd00:10:244:3::/64\""))?;
        for (range, via) in [
            ("10.96.0.0/16", V4.node),
            ("203.0.113.0/24", V4.node),
            ("fd00:10:96::/64", V6.node),
            ("2001:db8:1::/64", V6.node),
        ] {
            cluster.at("client")?.ip(&format!("route add {range} via {via}"))?;
        }
        for detector in [
            "--detect-local-mode=ClusterCIDR --cluster-cidr=10.244.0.0/16,fd00:10:244::/48",
            "--detect-local-mode=NodeCIDR",
            "--detect-local-mode=BridgeInterface --pod-bridge-interface=cni0",
            "--detect-local-mode=InterfaceNamePrefix --pod-interface-name-prefix=cn",
            // kube-ipvs cannot tell inside addresses from outside ones.
            "--detect-local-mode=ClusterCIDR",
        ] {
            let is_blind = detector == "--detect-local-mode=ClusterCIDR";
            for all in ["--masquerade-all=false", "--masquerade-all"] {
                let flags: Vec<&str> = detector.split(' ').chain([all]).collect();
                let proxy = cluster.start_proxy("node-3", &flags)?;
                cluster.at("node-3")?.await_vips(&VIPS)?;
                cluster.await_settled("node-3", &flags)?;
                for family in [V4, V6] {
                    ensure_sources(cluster, family, is_blind, all == "--masquerade-all")
                        .with_context(|| format!("with {flags:?}"))?;
                }
                proxy.terminate()?;
                cluster.kube_ipvs("node-3")?.run(&["cleanup"])?;
            }
        }
        Ok(())
    })
}

/// The Node gets its podCIDR after the daemon has started, and another one later.
#[test]
fn node_cidr_detection_follows_changes_of_the_pod_cidr() -> TestResult {
    let builder = Cluster::builder().pod("web-1", "node-1", "10.244.1.2").pod("visitor", "node-3", "10.244.3.9");
    scenario(builder, |cluster| {
        let _server = cluster.http("web-1", 8080)?;
        cluster.manifests.write("web", &services())?;
        let _proxy = cluster.start_proxy("node-3", &["--detect-local-mode=NodeCIDR"])?;
        let node_3 = cluster.at("node-3")?;
        node_3.await_serving(&format!("TCP {}", V4.cluster_ip), &["10.244.1.2:8080"])?;
        node_3.await_vips(&VIPS)?;
        assert_eq!(source(cluster, "visitor", V4.load_balancer_ip)?, V4.node);
        for (pods, expected) in [
            ("10.244.3.0/24, \"fd00:244:3::/64\"", V4.pod),
            ("10.244.7.0/24", V4.node),
            ("10.244.0.0/16", V4.pod),
            ("", V4.node),
        ] {
            cluster.manifests.write("node", &node(pods))?;
            eventually(|| {
                let found = source(cluster, "visitor", V4.load_balancer_ip)?;
                (found == expected).then_some(()).with_context(|| format!("{pods}: the source is {found}"))
            })?;
        }
        Ok(())
    })
}
