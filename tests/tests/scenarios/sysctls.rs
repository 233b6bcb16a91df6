//! Kernel settings other than rules: timeouts of IPVS and conntrack.

use anyhow::{Context, Result};
use scenarios::{Cluster, Namespace, Service, TestResult, eventually, scenario};

fn conntrack(node: &Namespace, name: &str) -> Result<String> {
    let text = node.run("cat", &[&format!("/proc/sys/net/netfilter/nf_conntrack_{name}")])?;
    Ok(text.trim().to_owned())
}

/// Waits until IPVS has these timeouts, for TCP, TCP after a FIN, and UDP.
fn await_timeouts(node: &Namespace, expected: [&str; 3]) -> Result<()> {
    eventually(|| {
        let text = node.run("ipvsadm", &["-L", "--timeout"])?;
        let found = text.trim().strip_prefix("Timeout (tcp tcpfin udp): ").context(text.clone())?;
        (found == expected.join(" ")).then_some(()).with_context(|| format!("{expected:?}, but {found}"))
    })
}

#[test]
fn ipvs_timeouts_follow_conntrack_unless_flags_set_them() -> TestResult {
    scenario(Cluster::builder(), |cluster| {
        cluster.manifests.write("web", &Service::new("web").cluster_ip("10.96.0.80").port(80))?;
        let node = cluster.at("node-1")?;
        let proxy = cluster.start_proxy("node-1", &["--ipvs-sync-period=1s"])?;
        node.await_vips(&["10.96.0.80"])?;
        let names = ["tcp_timeout_established", "tcp_timeout_fin_wait", "udp_timeout_stream"];
        let [tcp, tcp_fin, udp] = names.map(|name| conntrack(node, name));
        await_timeouts(node, [&tcp?, &tcp_fin?, &udp?])?;
        node.sysctls(&[
            ("netfilter.nf_conntrack_tcp_timeout_established", "100000"),
            ("netfilter.nf_conntrack_tcp_timeout_fin_wait", "77"),
            ("netfilter.nf_conntrack_udp_timeout_stream", "240"),
        ])?;
        await_timeouts(node, ["100000", "77", "240"])?;
        proxy.terminate()?;
        let flags = ["--ipvs-tcp-timeout=15m", "--ipvs-tcpfin-timeout=30s"];
        let _proxy = cluster.start_proxy("node-1", &flags)?;
        await_timeouts(node, ["900", "30", "240"])
    })
}

/// The shorter timeout decides, so kube-ipvs raises those of conntrack to those of IPVS.
#[test]
fn conntrack_timeouts_are_raised_to_those_of_ipvs() -> TestResult {
    scenario(Cluster::builder(), |cluster| {
        cluster.manifests.write("web", &Service::new("web").cluster_ip("10.96.0.80").port(80))?;
        let node = cluster.at("node-1")?;
        node.sysctls(&[
            ("netfilter.nf_conntrack_tcp_timeout_established", "100"),
            ("netfilter.nf_conntrack_tcp_timeout_fin_wait", "200"),
        ])?;
        let flags = ["--ipvs-tcp-timeout=48h", "--ipvs-tcpfin-timeout=100s", "--ipvs-udp-timeout=300s"];
        let _proxy = cluster.start_proxy("node-1", &flags)?;
        node.await_vips(&["10.96.0.80"])?;
        await_timeouts(node, ["172800", "100", "300"])?;
        for (name, expected) in
            [("tcp_timeout_established", "172800"), ("tcp_timeout_fin_wait", "200"), ("udp_timeout_stream", "300")]
        {
            assert_eq!(conntrack(node, name)?, expected, "{name}");
        }
        Ok(())
    })
}

/// The conntrack timeouts that kube-proxy sets.
#[test]
fn conntrack_timeouts_are_raised_and_never_lowered() -> TestResult {
    scenario(Cluster::builder(), |cluster| {
        cluster.manifests.write("web", &Service::new("web").cluster_ip("10.96.0.80").port(80))?;
        let node = cluster.at("node-1")?;
        node.sysctls(&[
            ("netfilter.nf_conntrack_tcp_timeout_established", "100"),
            ("netfilter.nf_conntrack_tcp_timeout_close_wait", "999999"),
        ])?;
        let flags = ["--conntrack-tcp-be-liberal", "--conntrack-udp-timeout=3m", "--conntrack-udp-timeout-stream=4m"];
        let _proxy = cluster.start_proxy("node-1", &flags)?;
        node.await_vips(&["10.96.0.80"])?;
        for (name, expected) in [
            ("tcp_timeout_established", "86400"),
            ("tcp_timeout_close_wait", "999999"),
            ("udp_timeout", "180"),
            ("udp_timeout_stream", "240"),
            ("tcp_be_liberal", "1"),
        ] {
            assert_eq!(conntrack(node, name)?, expected, "{name}");
        }
        let rules = node.run("nft", &["list", "table", "ip", "kube-ipvs"])?;
        assert!(!rules.contains("ct state invalid"), "packets are dropped that should pass: {rules}");
        await_timeouts(node, ["86400", &conntrack(node, "tcp_timeout_fin_wait")?, "240"])
    })
}

/// A container has a read-only /proc/sys. If kube-ipvs can do without a sysctl, it logs a warning. Otherwise it logs an
/// error with the command for the host.
#[test]
fn read_only_sysctls_cause_a_warning_or_an_error_with_advice() -> TestResult {
    scenario(Cluster::builder(), |cluster| {
        cluster.manifests.write("web", &Service::new("web").cluster_ip("10.96.0.80").port(80))?;
        let node = cluster.at("node-1")?;
        // The sysctls that the data plane needs are already set.
        node.run("modprobe", &["ip_vs"])?;
        node.sysctls(&[
            ("ipv4.vs.conntrack", "1"),
            ("ipv4.vs.expire_nodest_conn", "1"),
            ("ipv4.vs.expire_quiescent_template", "1"),
            ("netfilter.nf_conntrack_tcp_timeout_established", "100"),
        ])?;
        let command = cluster.kube_ipvs("node-1")?.without_sysctls();
        let proxy = command.start(cluster.manifests.directory(), &[])?;
        node.await_vips(&["10.96.0.80"])?;
        let log = proxy.log_text();
        let warning = "cannot set net.netfilter.nf_conntrack_tcp_timeout_established = 86400: Read-only file system";
        assert!(log.contains("WARN") && log.contains(warning), "{log}");
        proxy.terminate()?;

        let proxy = command.start(cluster.manifests.directory(), &["--ipvs-strict-arp"])?;
        let error = "sysctl: cannot set net.ipv4.conf.all.arp_ignore = 1: Read-only file system";
        eventually(|| {
            let log = proxy.log_text();
            let says_what_to_do = log.contains("Set it on the host: sysctl -w net.ipv4.conf.all.arp_ignore=1");
            (log.contains(error) && says_what_to_do).then_some(()).context(log)
        })
    })
}
