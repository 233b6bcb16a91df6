//! Drift: other programs change the daemon's objects while it runs, and the kernel reports it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use scenarios::{Cluster, Load, Namespace, TestResult, VIP_DEVICE, eventually, scenario, throughout};

use crate::{
    common::{WEB_ADDRESS, all_web, await_web, deploy_web, web_cluster, web_service, web_slice},
    restart::{await_repaired, drift, everything},
};

const NODE: &str = "node-3";
/// The sync period is too long to find the drift.
const FLAGS: [&str; 2] = ["--ipvs-sync-period", "1h"];
/// A rule that must always exist.
const RANGES: &str = "loadBalancerSourceRanges";

/// The kernel reports changes of addresses, devices and nftables, and none of IPVS.
const DRIFTS: [&str; 8] = [
    "nft flush ruleset",
    "ip addr flush dev kube-ipvs0",
    "ip link del kube-ipvs0",
    "ip link set kube-ipvs0 up",
    "nft delete table ip6 kube-ipvs",
    "nft flush set ip kube-ipvs served",
    "nft flush chain ip kube-ipvs input",
    // The kernel also removes the device's IPv6 addresses.
    "sysctl -q -w net.ipv6.conf.kube-ipvs0.disable_ipv6=1",
];

fn deploy(cluster: &Cluster) -> Result<Vec<scenarios::Server>> {
    let servers = deploy_web(cluster)?;
    let service = web_service()
        .cluster_ip("fd00:10:96::80")
        .line("type: LoadBalancer")
        .line("loadBalancerSourceRanges: [192.168.128.100/32]")
        .load_balancer_ip("203.0.113.10");
    cluster.manifests.write("web", &service)?;
    Ok(servers)
}

fn await_whole(node: &Namespace) -> Result<()> {
    eventually(|| {
        let rules = node.run("nft", &["-s", "-t", "list", "ruleset"])?;
        ensure!(rules.contains(RANGES), "no source ranges:\n{rules}");
        ensure!(rules.contains("a VIP, on a port that kube-ipvs does not serve"), "no chain input:\n{rules}");
        let device = node.run("ip", &["-br", "link", "show", VIP_DEVICE])?;
        ensure!(!device.contains("UP"), "{device}");
        Ok(())
    })
}

/// One request of the load; its answer does not count. While the rules and the VIP are missing, conntrack tracks a
/// first packet as a connection to another host. The client's next packets then belong to that connection.
fn request(to: SocketAddr) -> Result<String> {
    const LIMIT: Duration = Duration::from_secs(10);
    let mut stream = TcpStream::connect_timeout(&to, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.lines().last().unwrap_or_default().to_owned())
}

/// kube-ipvs repairs the drift under load. With a sync period of one hour, only the kernel's notifications can reveal
/// it.
#[test]
fn drift_that_netlink_reports_is_repaired_at_once() -> TestResult {
    scenario(web_cluster(), |cluster| {
        let _servers = deploy(cluster)?;
        let node = cluster.at(NODE)?;
        let _proxy = cluster.start_proxy(NODE, &FLAGS)?;
        await_web(cluster, NODE)?;
        node.await_vips(&["10.96.0.80", "203.0.113.10", "fd00:10:96::80"])?;
        cluster.await_settled(NODE, &[])?;
        let to: SocketAddr = WEB_ADDRESS.parse()?;
        let load = Load::of(cluster.at("visitor")?, Duration::from_millis(10), move |_| request(to))?;
        let wanted = everything(node)?;
        for commands in DRIFTS {
            drift(node, commands)?;
            let drifted = Instant::now();
            await_repaired(node, &wanted)
                .and_then(|()| await_whole(node))
                .with_context(|| format!("after `{commands}`"))?;
            // kube-ipvs repairs each further drift later than the last one, in case another program fights it.
            println!("{:.1?} after `{commands}` all is repaired", drifted.elapsed());
        }
        load.go_on(1)?;
        for from in ["visitor", NODE] {
            cluster.at(from)?.get(WEB_ADDRESS)?;
        }
        Ok(())
    })
}

/// The kernel also notifies kube-ipvs of its own changes. They cause no read of the kernel.
#[test]
fn own_changes_cause_no_read_of_the_kernel() -> TestResult {
    /// This operation runs only in a full read.
    const READING: &str = r#"kube_ipvs_netlink_seconds_total{operation="read",subsystem="addresses"}"#;
    scenario(web_cluster(), |cluster| {
        let _servers = deploy(cluster)?;
        let node = cluster.at(NODE)?;
        let _proxy = cluster.start_proxy(NODE, &FLAGS)?;
        await_web(cluster, NODE)?;
        cluster.await_settled(NODE, &[])?;
        let before = node.metric(READING)?;
        for pods in [&["web-1"][..], &["web-2", "web-3"], &[], &all_web()] {
            cluster.manifests.write("web-slice", &web_slice(pods))?;
            cluster.await_settled(NODE, &[])?;
        }
        cluster.manifests.remove("web")?;
        node.await_vips(&[])?;
        cluster.manifests.write("web", &web_service())?;
        node.await_vips(&["10.96.0.80"])?;
        cluster.await_settled(NODE, &[])?;
        // The kernel would have reported the daemon's own change by then. A slow machine checks less often.
        throughout(Duration::from_secs(3), || {
            let after = node.metric(READING)?;
            ensure!(after == before, "the kernel was read: {after} s of reading, {before} s before");
            Ok(())
        })
    })
}
