//! DaemonSets run unchanged in a root that holds only the image: kubeadm's for kube-proxy with the kube-ipvs image, and
//! the shipped one.

use anyhow::ensure;
use scenarios::{Cluster, DaemonPod, Proxy, TestResult, eventually, of_project, scenario};

use crate::api_server::api_server;
use crate::common::{WEB_ADDRESS, WEB_PODS, all_web, await_web, web_cluster, web_service, web_slice};

const KUBEADM: &str = include_str!("../../data/kubeadm.yaml");
/// The node under test. The requests come from a pod on it.
const NODE: &str = "node-3";

/// Replaces the API server by a name from the node's /etc/hosts. The test's API server does not speak TLS.
fn with_api_server(manifests: &str) -> String {
    manifests.replace("https://API-SERVER:6443", "http://control-plane.test:6443")
}

fn serve(cluster: &mut Cluster, manifests: &str, check: fn(&Cluster, &Proxy) -> TestResult) -> TestResult {
    let (api, _) = api_server(cluster, Some("secret"))?;
    api.apply(&web_service())?;
    api.apply(&web_slice(&all_web()))?;
    api.apply(&format!("apiVersion: v1\nkind: Node\nmetadata: {{name: {NODE}}}\n"))?;
    let _servers = WEB_PODS.iter().map(|(name, ..)| cluster.http(name, 8080)).collect::<Result<Vec<_>, _>>()?;
    let pod = DaemonPod::new(cluster, NODE, &with_api_server(manifests))?;
    pod.initialise()?;
    for _ in 0..2 {
        let proxy = pod.start()?;
        await_web(cluster, NODE)?;
        cluster.at("visitor")?.get(WEB_ADDRESS)?;
        eventually(|| {
            let health = cluster.at(NODE)?.curl("http://127.0.0.1:10256/healthz")?;
            ensure!(health.contains("\"healthy\":true"), "it says of its health: {health}");
            Ok(())
        })?;
        check(cluster, &proxy)?;
        ensure!(!proxy.log_text().contains("ERROR"), "it complains:\n{}", proxy.log_text());
        ensure!(proxy.terminate()?.success(), "SIGTERM is its end, and not a failure");
        cluster.at("visitor")?.get(WEB_ADDRESS)?;
    }
    Ok(())
}

#[test]
fn kubeadm_daemon_set_works_with_the_kube_ipvs_image() -> TestResult {
    scenario(web_cluster(), |cluster| serve(cluster, KUBEADM, |_, _| Ok(())))
}

/// The root is read-only, sysctls cannot be set, and CAP_NET_ADMIN is the only capability.
#[test]
fn shipped_daemon_set_works_with_cap_net_admin_alone() -> TestResult {
    scenario(web_cluster(), |cluster| {
        let manifests = ["configmap.yaml", "daemonset.yaml"].map(of_project);
        let [config, set] = manifests;
        let config = config?.replace("clusterCIDR: \"\"", "clusterCIDR: 10.244.0.0/16");
        serve(cluster, &format!("{config}\n---\n{}", set?), |_, proxy| {
            // CAP_NET_ADMIN, and CAP_SYS_CHROOT, which the bench's chroot needs.
            let rights = 1_u64 << 12 | 1 << 18;
            let status = std::fs::read_to_string(format!("/proc/{}/status", proxy.id()))?;
            let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:")).map(str::trim);
            ensure!(effective == Some(&*format!("{rights:016x}")), "its rights are {effective:?}");
            let log = proxy.log_text();
            // If the machine was suspended, the API server has not answered for a while.
            let is_warning = |line: &&str| line.contains("WARN") && !line.contains("keeps the last known state");
            let warning = log.lines().find(is_warning);
            ensure!(warning.is_none(), "it warns: {warning:?}\n{log}");
            Ok(())
        })
    })
}
