//! Shared by several scenarios: the Service `web` with three pods on two nodes.

use anyhow::{Result, ensure};
use scenarios::{Cluster, ClusterBuilder, Namespace, Server, Service, Slice, Transport, eventually};

/// The pods of `web`. A further pod, `visitor`, is on a node without them.
pub(crate) const WEB_PODS: [(&str, &str, &str); 3] =
    [("web-1", "node-1", "10.244.1.2"), ("web-2", "node-2", "10.244.2.2"), ("web-3", "node-2", "10.244.2.3")];

pub(crate) const WEB: &str = "TCP 10.96.0.80:80";

pub(crate) const WEB_ADDRESS: &str = "10.96.0.80:80";

pub(crate) fn web_cluster() -> ClusterBuilder {
    let cluster = Cluster::builder().pod("visitor", "node-3", "10.244.3.9");
    WEB_PODS.iter().fold(cluster, |cluster, (name, node, address)| cluster.pod(name, node, address))
}

/// The Service `web` with a ClusterIP. Tests can add lines.
pub(crate) fn web_service() -> Service {
    Service::new("web").cluster_ip("10.96.0.80").port_line("port: 80, targetPort: 8080")
}

/// The slice of `web` with these pods (`web-1` ...) ready.
pub(crate) fn web_slice(pods: &[&str]) -> Slice {
    let chosen = WEB_PODS.iter().filter(|(name, ..)| pods.contains(name));
    chosen.fold(Slice::of("web").port(8080), |slice, (_, node, address)| slice.ready(address).on(node))
}

pub(crate) fn all_web() -> Vec<&'static str> {
    WEB_PODS.iter().map(|(name, ..)| *name).collect()
}

pub(crate) fn web_reals() -> Vec<String> {
    WEB_PODS.iter().map(|(_, _, address)| format!("{address}:8080")).collect()
}

pub(crate) fn deploy_web(cluster: &Cluster) -> Result<Vec<Server>> {
    let servers = WEB_PODS.iter().map(|(name, ..)| cluster.http(name, 8080)).collect::<Result<Vec<_>>>()?;
    cluster.manifests.write("web", &web_service())?;
    cluster.manifests.write("web-slice", &web_slice(&all_web()))?;
    Ok(servers)
}

pub(crate) fn await_web(cluster: &Cluster, node: &str) -> Result<()> {
    let reals = web_reals();
    let reals: Vec<&str> = reals.iter().map(String::as_str).collect();
    cluster.at(node)?.await_serving(WEB, &reals)
}

/// Waits for the daemon's first sync. It asks the daemon's readiness port, because listing the kernel's tables would
/// slow the daemon down.
pub(crate) fn await_first_sync(node: &Namespace) -> Result<()> {
    eventually(|| node.connect(Transport::Tcp, "127.0.0.1:10256").map(drop))?;
    eventually(|| node.run("curl", &["-sSf", "http://127.0.0.1:10256/readyz"]).map(drop))
}

/// Fails unless the answers rotate: every name comes once before any comes again.
pub(crate) fn ensure_rotation(answers: &[String], pods: &[&str]) -> Result<()> {
    for round in answers.chunks(pods.len()) {
        let mut names: Vec<&str> = round.iter().map(String::as_str).collect();
        names.sort_unstable();
        names.dedup();
        ensure!(names.len() == round.len(), "no rotation: {answers:?}");
        ensure!(names.iter().all(|name| pods.contains(name)), "answers from elsewhere: {answers:?}");
    }
    Ok(())
}
