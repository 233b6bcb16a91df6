//! Drop-in replacement of kube-proxy: its name, its flags, its configuration file.

use std::fs;

use scenarios::{Cluster, Service, Slice, TestResult, scenario};

const FILE: &str = "apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
clusterCIDR: 10.244.0.0/16
mode: ipvs
ipvs: {scheduler: lc, strictARP: true, minSyncPeriod: 0s, syncPeriod: 30s}
conntrack: {maxPerCore: null, min: null}
iptables: {masqueradeAll: true, syncPeriod: 5s}
hostnameOverride: another-node
modes: none
";

/// The command line of kubeadm's DaemonSet, with a folder instead of an API server.
#[test]
fn kubeadm_command_line_and_config_file_take_effect() -> TestResult {
    let builder = Cluster::builder().pod("web-1", "node-1", "10.244.1.2").pod("visitor", "node-3", "10.244.3.9");
    scenario(builder, |cluster| {
        let _server = cluster.http("web-1", 8080)?;
        let service = Service::new("web").cluster_ip("10.96.0.80").port_line("port: 80, targetPort: 8080");
        let slice = Slice::of("web").port(8080).ready("10.244.1.2").on("node-1");
        cluster.manifests.write("web", &format!("{service}---\n{slice}"))?;
        let file = cluster.directory().join("config.conf");
        fs::write(&file, FILE)?;
        let config = format!("--config={}", file.display());
        let manifests = format!("--manifests={}", cluster.manifests.directory().display());
        let kube_proxy = cluster.kube_ipvs("node-3")?.as_kube_proxy()?;
        let node = cluster.at("node-3")?;

        // The privileged init container.
        kube_proxy.run(&[&config, "--hostname-override=node-3", "--init-only"])?;
        assert!(node.has_device("kube-ipvs0")?);
        assert_eq!(node.run("cat", &["/proc/sys/net/ipv4/conf/all/arp_announce"])?.trim(), "2");

        let flags = [&*config, &manifests, "--hostname_override=NODE-3", "--v=2", "--ipvs-scheduler=rr", "--profiling"];
        let proxy = kube_proxy.spawn(&flags)?;
        let server = node.await_service("TCP 10.96.0.80:80", &["10.244.1.2:8080 1"])?;
        assert_eq!(server.scheduler, "lc");
        node.await_vips(&["10.96.0.80"])?;
        // The effect of `masqueradeAll`.
        assert_eq!(cluster.at("visitor")?.get("10.96.0.80:80")?.peer.ip(), cluster.node("node-3")?.ipv4());
        let log = proxy.log_text();
        for said in [
            "ignores these flags because --config is set: --ipvs-scheduler",
            "config.conf: kube-ipvs ignores these unknown fields: modes",
            "no effect in kube-ipvs: iptables.syncPeriod, --profiling",
        ] {
            assert!(log.contains(said), "{said} is not in: {log}");
        }

        // A mistake in the ConfigMap reaches all nodes, and must end no proxy.
        fs::write(&file, FILE.replace("lc", "least-conn"))?;
        scenarios::eventually(|| {
            let log = proxy.log_text();
            anyhow::ensure!(
                log.contains("ipvs.scheduler: \"least-conn\"") && log.contains("keeps the configuration"),
                "{log}"
            );
            Ok(())
        })?;
        // A DaemonSet restarts the daemon with the new file.
        fs::write(&file, FILE.replace("lc", "sed"))?;
        let (status, log) = proxy.await_end()?;
        assert!(!status.success() && log.contains("config.conf has changed"), "{status}: {log}");
        let proxy = kube_proxy.spawn(&flags)?;
        scenarios::eventually(|| {
            let server = node.await_service("TCP 10.96.0.80:80", &["10.244.1.2:8080 1"])?;
            anyhow::ensure!(server.scheduler == "sed", "it is {}", server.scheduler);
            Ok(())
        })?;
        proxy.terminate()?;

        kube_proxy.run(&["--cleanup"])?;
        assert!(!node.has_device("kube-ipvs0")? && node.ipvsadm()?.service("TCP 10.96.0.80:80").is_none());

        let written = cluster.directory().join("written.conf");
        kube_proxy.run(&["--ipvs-scheduler=wlc", &format!("--write-config-to={}", written.display())])?;
        let text = fs::read_to_string(&written)?;
        assert!(text.contains("kind: KubeProxyConfiguration") && text.contains("scheduler: wlc"), "{text}");
        Ok(())
    })
}
