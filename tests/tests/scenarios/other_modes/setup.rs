//! The cluster, its Services and the servers in its pods.

use anyhow::Result;
use scenarios::{Cluster, ClusterBuilder, Server, Service, Slice, Transport};

use super::kube_proxy::Family;

/// The node under test: all tested traffic passes through it.
pub(super) const NODE: &str = "node-3";
pub(super) const FLAGS: [&str; 8] = [
    "--cluster-cidr",
    "10.244.0.0/16,fd00:10:244::/56",
    "--nodeport-addresses",
    "192.168.128.0/24,fd00:128::/64",
    "--ipvs-sync-period",
    "2s",
    // A handover waits for a connection whose reset IPVS did not see until IPVS forgets it. While IPVS is flushed,
    // connections are quiet for as long as a slow machine takes.
    "--ipvs-tcp-timeout",
    "300s",
];

pub(super) fn cluster() -> ClusterBuilder {
    Cluster::builder()
        .pod("app-1", "node-1", "10.244.1.2 fd00:10:244:1::2")
        .pod("app-2", "node-2", "10.244.2.2 fd00:10:244:2::2")
        .pod("app-3", "node-3", "10.244.3.2 fd00:10:244:3::2")
        .pod("visitor", NODE, "10.244.3.9 fd00:10:244:3::9")
}

/// Writes the Services of [`service_ports`](super::kube_proxy::service_ports), and starts their servers.
pub(super) fn deploy(cluster: &Cluster) -> Result<Vec<Server>> {
    let both = |service: Service, number| {
        [Family::V4, Family::V6].iter().fold(service, |service, family| service.cluster_ip(&family.cluster_ip(number)))
    };
    let outer = |number| [Family::V4, Family::V6].map(|family| family.outer_ip(number));
    let [external_v4, external_v6] = outer(81);
    let [load_balancer_v4, load_balancer_v6] = outer(83);
    let ranges =
        [Family::V4, Family::V6].map(|family| format!("\"{}\", \"{}\"", family.lan(), family.pods())).join(", ");
    let talk = both(Service::new("talk").node_port_type(), 81)
        .line(&format!("externalIPs: [\"{external_v4}\", \"{external_v6}\"]"))
        .port_line("name: tcp, port: 7, targetPort: 9090, nodePort: 30081")
        .port_line("name: udp, protocol: UDP, port: 53, targetPort: 9053, nodePort: 30053");
    let sticky =
        both(Service::new("sticky").line("sessionAffinity: ClientIP"), 82).port_line("port: 7, targetPort: 9090");
    let local = both(Service::new("local").line("type: LoadBalancer").line("externalTrafficPolicy: Local"), 83)
        .line("healthCheckNodePort: 32083")
        .line(&format!("loadBalancerSourceRanges: [{ranges}]"))
        .port_line("port: 7, targetPort: 9090, nodePort: 30083")
        .load_balancer_ip(&load_balancer_v4)
        .load_balancer_ip(&load_balancer_v6);
    let empty =
        both(Service::new("empty").node_port_type(), 84).port_line("port: 7, targetPort: 9090, nodePort: 30084");
    for (name, service) in [("talk", talk), ("sticky", sticky), ("local", local), ("empty", empty)] {
        cluster.manifests.write(name, &service)?;
    }
    for family in [Family::V4, Family::V6] {
        let name = |service: &str| format!("{service}-{}", family.of("v4", "v6"));
        let on = |slice: Slice, node| slice.ready(&family.pod(node)).on(&format!("node-{node}"));
        let talk = Slice::of("talk").name(&name("talk")).named_port("tcp", "TCP", 9090).named_port("udp", "UDP", 9053);
        cluster.manifests.write(&name("talk"), &on(on(talk, 1), 2))?;
        let sticky = Slice::of("sticky").name(&name("sticky")).port(9090);
        cluster.manifests.write(&name("sticky"), &on(on(sticky, 1), 2))?;
        let local = Slice::of("local").name(&name("local")).port(9090);
        cluster.manifests.write(&name("local"), &on(on(local, 1), 3))?;
    }
    // On a slow machine, a round through all connections can take longer than conntrack keeps a quiet flow of UDP.
    let timeouts = ["udp_timeout", "udp_timeout_stream"].map(|name| format!("netfilter.nf_conntrack_{name}"));
    cluster.at(NODE)?.sysctls(&timeouts.each_ref().map(|name| (name.as_str(), "3600")))?;
    let mut servers = Vec::new();
    for pod in ["app-1", "app-2", "app-3"] {
        servers.push(cluster.echo(pod, Transport::Tcp, 9090)?);
        servers.push(cluster.echo(pod, Transport::Udp, 9053)?);
    }
    Ok(servers)
}
