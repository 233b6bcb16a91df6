//! Both families, all protocols, several ports.

use std::collections::BTreeSet;
use std::time::Duration;

use scenarios::{Cluster, ClusterBuilder, Server, Service, Slice, TestResult, Transport, scenario, throughout};

fn cluster() -> ClusterBuilder {
    Cluster::builder()
        .pod("app-1", "node-1", "10.244.1.2 fd00:10:244:1::2")
        .pod("app-2", "node-2", "10.244.2.2 fd00:10:244:2::2")
        .pod("visitor", "node-3", "10.244.3.9 fd00:10:244:3::9")
}

/// Name, protocol, port, node port, and the pods' port, which slices carry for a named target port.
const PORTS: [(&str, Transport, u16, u16, u16); 4] = [
    ("echo", Transport::Tcp, 7, 30007, 8007),
    ("both-udp", Transport::Udp, 53, 30053, 8053),
    ("both-tcp", Transport::Tcp, 53, 30053, 8054),
    ("assoc", Transport::Sctp, 9, 30009, 8009),
];

fn protocol(transport: Transport) -> &'static str {
    match transport {
        Transport::Tcp => "TCP",
        Transport::Udp => "UDP",
        Transport::Sctp => "SCTP",
    }
}

fn deploy(cluster: &Cluster, cluster_ips: &[&str]) -> anyhow::Result<Vec<Server>> {
    let service = cluster_ips.iter().fold(Service::new("app").node_port_type(), |service, ip| service.cluster_ip(ip));
    let service = PORTS.iter().fold(service, |service, (name, transport, port, node_port, _)| {
        let protocol = protocol(*transport);
        service.port_line(&format!(
            "name: {name}, protocol: {protocol}, port: {port}, targetPort: {name}, nodePort: {node_port}"
        ))
    });
    cluster.manifests.write("app", &service)?;
    let slice = |name: &str| {
        PORTS.iter().fold(Slice::of("app").name(name), |slice, (name, transport, .., target)| {
            slice.named_port(name, protocol(*transport), *target)
        })
    };
    cluster.manifests.write("app-v4", &slice("app-v4").ready("10.244.1.2").ready("10.244.2.2"))?;
    cluster.manifests.write("app-v6", &slice("app-v6").ready("fd00:10:244:1::2").ready("fd00:10:244:2::2"))?;
    let mut servers = Vec::new();
    for pod in ["app-1", "app-2"] {
        for (_, transport, .., target) in PORTS {
            servers.push(cluster.echo(pod, transport, target)?);
        }
    }
    Ok(servers)
}

fn ask(cluster: &Cluster, from: &str, address: &str, node_ports: bool) -> TestResult {
    for (name, transport, port, node_port, _) in PORTS {
        let to = format!("{address}:{}", if node_ports { node_port } else { port });
        let mut names = Vec::new();
        for _ in 0..2 {
            names.push(cluster.at(from)?.echo(transport, &to)?.name);
        }
        names.sort();
        assert_eq!(names, ["app-1", "app-2"], "{name} from {from} to {to}");
    }
    Ok(())
}

fn await_all(cluster: &Cluster, node: &str, cluster_ip: &str, pods: [&str; 2]) -> TestResult {
    for (_, transport, port, _, target) in PORTS {
        let reals = pods.map(|pod| format!("{pod}:{target} 1"));
        let key = format!("{} {cluster_ip}:{port}", protocol(transport));
        cluster.at(node)?.await_service(&key, &[&reals[0], &reals[1]])?;
    }
    Ok(())
}

const V4: [&str; 2] = ["10.244.1.2", "10.244.2.2"];
const V6: [&str; 2] = ["[fd00:10:244:1::2]", "[fd00:10:244:2::2]"];

/// TCP, UDP and SCTP on the ClusterIPs and the node ports of both families.
#[test]
fn dual_stack_service_serves_all_protocols() -> TestResult {
    scenario(cluster(), |cluster| {
        let _servers = deploy(cluster, &["10.96.0.7", "fd00:10:96::7"])?;
        let _proxies = cluster.start_proxies(&["--cluster-cidr", "10.244.0.0/16,fd00:10:244::/48"])?;
        for node in cluster.nodes() {
            await_all(cluster, node.name(), "10.96.0.7", V4)?;
            await_all(cluster, node.name(), "[fd00:10:96::7]", V6)?;
            node.namespace().await_vips(&["10.96.0.7", "fd00:10:96::7"])?;
        }
        for from in ["visitor", "node-3", "node-1"] {
            ask(cluster, from, "10.96.0.7", false)?;
            ask(cluster, from, "[fd00:10:96::7]", false)?;
        }
        for node in ["192.168.128.3", "192.168.128.1", "[fd00:128::3]", "[fd00:128::1]"] {
            ask(cluster, "client", node, true)?;
        }
        for from in ["visitor", "node-3"] {
            ask(cluster, from, "192.168.128.3", true)?;
            ask(cluster, from, "[fd00:128::3]", true)?;
        }
        let seen = cluster.at("visitor")?.echo(Transport::Tcp, "[fd00:10:96::7]:7")?.peer.ip();
        assert_eq!(seen.to_string(), "fd00:10:244:3::9", "a pod keeps its address");
        let seen = cluster.at("client")?.echo(Transport::Sctp, "[fd00:128::3]:30009")?.peer.ip();
        assert_eq!(seen.to_string(), "fd00:128::3", "the pod answers by way of the node");
        Ok(())
    })
}

/// A process of a node keeps its SCTP associations with pods of two families across heartbeats. The servers have one
/// socket per address: a single socket would announce addresses other than the VIP to the client.
#[test]
fn sctp_associations_survive_heartbeats() -> TestResult {
    scenario(cluster(), |cluster| {
        let _servers = deploy(cluster, &["10.96.0.7", "fd00:10:96::7"])?;
        let _proxy = cluster.start_proxy("node-1", &[])?;
        await_all(cluster, "node-1", "10.96.0.7", V4)?;
        // One association per pod. The kernel sends the first heartbeat within three seconds.
        let open = || cluster.at("node-1")?.connect(Transport::Sctp, "10.96.0.7:9");
        let mut conversations = [open()?, open()?];
        let mut names = BTreeSet::new();
        throughout(Duration::from_secs(8), || {
            for conversation in &mut conversations {
                names.insert(conversation.say()?.name);
            }
            Ok(())
        })?;
        assert_eq!(names, BTreeSet::from(["app-1".into(), "app-2".into()]));
        Ok(())
    })
}

/// The Service is IPv6-only, although it has slices of both families.
#[test]
fn ipv6_only_service_has_nothing_in_ipv4() -> TestResult {
    scenario(cluster(), |cluster| {
        let _servers = deploy(cluster, &["fd00:10:96::7"])?;
        let _proxy = cluster.start_proxy("node-3", &[])?;
        await_all(cluster, "node-3", "[fd00:10:96::7]", V6)?;
        ask(cluster, "visitor", "[fd00:10:96::7]", false)?;
        ask(cluster, "client", "[fd00:128::3]", true)?;
        let keys = cluster.at("node-3")?.ipvsadm()?.keys();
        assert!(keys.iter().all(|key| key.contains('[')), "{keys:?}");
        cluster.at("node-3")?.await_vips(&["fd00:10:96::7"])
    })
}

#[test]
fn dual_stack_service_without_endpoints_refuses_all_protocols() -> TestResult {
    scenario(cluster(), |cluster| {
        deploy(cluster, &["10.96.0.7", "fd00:10:96::7"])?.clear();
        cluster.manifests.remove("app-v4")?;
        cluster.manifests.remove("app-v6")?;
        let _proxy = cluster.start_proxy("node-3", &[])?;
        cluster.at("node-3")?.await_vips(&["10.96.0.7", "fd00:10:96::7"])?;
        for from in ["visitor", "node-3"] {
            for (_, transport, port, ..) in PORTS {
                cluster.at(from)?.expect_refused(transport, &format!("10.96.0.7:{port}"))?;
                cluster.at(from)?.expect_refused(transport, &format!("[fd00:10:96::7]:{port}"))?;
            }
        }
        Ok(())
    })
}
