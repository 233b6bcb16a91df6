//! The cluster for takeovers: its Services, their pods, and the daemon's flags.

use anyhow::Result;
use scenarios::{Cluster, ClusterBuilder, Server, Service, Slice, Transport};

/// The node under test: all tested traffic passes through it.
pub(super) const NODE: &str = "node-3";
pub(super) const FLAGS: [&str; 6] =
    ["--cluster-cidr", "10.244.0.0/16", "--nodeport-addresses", "192.168.128.0/24", "--ipvs-sync-period", "2s"];
pub(super) const WEB_PORT: &str = "192.168.128.3:30080";
pub(super) const TALK_PORT: &str = "192.168.128.3:30081";
/// The virtual servers that both kube-proxy and kube-ipvs serve.
pub(super) const SERVED: [&str; 5] = [
    "TCP 10.96.0.80:80",
    "TCP 10.96.0.81:7",
    "TCP 192.168.128.3:30080",
    "TCP 192.168.128.3:30081",
    "TCP 203.0.113.80:80",
];
pub(super) const PODS: [(&str, &str, &str); 3] =
    [("web-1", "node-1", "10.244.1.2"), ("web-2", "node-2", "10.244.2.2"), ("web-3", "node-2", "10.244.2.3")];

pub(super) fn cluster() -> ClusterBuilder {
    let cluster = Cluster::builder().pod("visitor", NODE, "10.244.3.9");
    PODS.iter().fold(cluster, |cluster, (name, node, address)| cluster.pod(name, node, address))
}

/// The Services that kube-proxy served, each with its slice: `web` over HTTP, `talk` for long connections.
pub(super) fn objects() -> [(&'static str, [String; 2]); 2] {
    let web = Service::new("web")
        .line("type: LoadBalancer")
        .cluster_ip("10.96.0.80")
        .port_line("port: 80, targetPort: 8080, nodePort: 30080");
    let status = "status: {loadBalancer: {ingress: [{ip: 203.0.113.80, ipMode: VIP}]}}\n";
    let talk = Service::new("talk")
        .node_port_type()
        .cluster_ip("10.96.0.81")
        .port_line("port: 7, targetPort: 9090, nodePort: 30081");
    let slice = |name, port| {
        PODS.iter().fold(Slice::of(name).port(port), |slice, (_, node, address)| slice.ready(address).on(node))
    };
    let (web_slice, talk_slice) = (slice("web", 8080), slice("talk", 9090));
    [("web", [format!("{web}{status}"), web_slice.to_string()]), ("talk", [talk.to_string(), talk_slice.to_string()])]
}

pub(super) fn deploy(cluster: &Cluster) -> Result<Vec<Server>> {
    for (name, [service, slice]) in objects() {
        cluster.manifests.write(name, &format!("{service}---\n{slice}"))?;
    }
    servers(cluster)
}

pub(super) fn servers(cluster: &Cluster) -> Result<Vec<Server>> {
    let mut servers = Vec::new();
    for (pod, ..) in PODS {
        servers.push(cluster.http(pod, 8080)?);
        servers.push(cluster.echo(pod, Transport::Tcp, 9090)?);
    }
    Ok(servers)
}
