//! Scenario 8: the selector matches no pod.

use scenarios::{Cluster, TestResult, Transport, scenario};

const EXAMPLE: &str = "08-no-match";

/// The refusal is immediate, never a time-out. After the pods get the right label, the Service works.
#[test]
fn service_without_endpoints_is_refused_at_once_and_explained() -> TestResult {
    let builder = Cluster::builder().pod("web", "node-1", "10.244.1.16").pod("visitor", "node-2", "10.244.2.9");
    scenario(builder, |cluster| {
        let _server = cluster.http("web", 80)?;
        cluster.manifests.example(EXAMPLE)?;
        let _proxies = cluster.start_proxies(&[])?;
        for node in cluster.nodes() {
            node.namespace().await_vips(&["10.102.249.165"])?;
        }
        let complaints = || -> anyhow::Result<usize> {
            let log = cluster.at("node-1")?.run("dmesg", &[])?;
            let of_ours = |line: &&str| line.contains("10.102.249.165") && line.contains("no destination available");
            Ok(log.lines().filter(of_ours).count())
        };
        let before = complaints()?;
        for from in ["visitor", "web", "node-1", "node-3"] {
            let from = cluster.at(from)?;
            from.expect_refused(Transport::Tcp, "10.102.249.165:80")?;
            // A port that the Service does not have.
            from.expect_refused(Transport::Tcp, "10.102.249.165:81")?;
            from.expect_refused(Transport::Udp, "10.102.249.165:80")?;
        }
        // IPVS would log a line for each connection that it saw.
        assert_eq!(complaints()?, before);
        let [flag, source] = cluster.source();
        let explain = ["explain", "default/web-clusterip-svc", &flag, &source];
        let explanation = cluster.kube_ipvs("node-1")?.run(&explain)?;
        assert!(explanation.to_lowercase().contains("no endpoints"), "{explanation}");

        // The pods get the right label: the control plane adds them to the slice.
        cluster.manifests.edit(EXAMPLE, "ports: []", "ports: [{port: 80}]")?;
        cluster.manifests.edit(EXAMPLE, "endpoints: []", "endpoints: [{addresses: [10.244.1.16]}]")?;
        for node in cluster.nodes() {
            node.namespace().await_service("TCP 10.102.249.165:80", &["10.244.1.16:80 1"])?;
        }
        for from in ["visitor", "node-1", "node-3"] {
            assert_eq!(cluster.at(from)?.curl("http://10.102.249.165/")?, "web", "from {from}");
        }
        let explanation = cluster.kube_ipvs("node-1")?.run(&explain)?;
        assert!(explanation.contains("10.244.1.16"), "{explanation}");
        Ok(())
    })
}
