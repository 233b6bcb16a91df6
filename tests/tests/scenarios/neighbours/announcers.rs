//! Programs that decide which node gets the packets of a VIP: MetalLB, kube-vip and keepalived.

use anyhow::{Context, Result, ensure};
use scenarios::{Cluster, Namespace, Service, Slice, TestResult, VIP_DEVICE, eventually, keepalived, scenario};

/// Without `--scoped-arp`, each node would answer ARP requests for all VIPs.
const FLAGS: [&str; 3] = ["--cluster-cidr", "10.244.0.0/16", "--scoped-arp"];
const NODES: [&str; 2] = ["node-1", "node-2"];
/// An address of the LAN that keepalived moves between the nodes, and one that MetalLB announces from one of them.
const MOVED: &str = "192.168.128.200";
const ANNOUNCED: &str = "192.168.128.201";

fn hardware_address(node: &Namespace) -> Result<String> {
    let link = node.run("ip", &["-br", "link", "show", "eth0"])?;
    link.split_whitespace().nth(2).map(str::to_owned).context("eth0 has no hardware address")
}

/// The client reaches the VIP, and by this node.
fn reach(cluster: &Cluster, vip: &str, by: &str) -> Result<()> {
    let client = cluster.at("client")?;
    let hardware = hardware_address(cluster.at(by)?)?;
    eventually(|| {
        let answer = client.get(&format!("{vip}:80"))?;
        ensure!(answer.name == "web", "{vip}: {answer:?}");
        let known = client.run("ip", &["neigh", "show", "to", vip])?;
        ensure!(known.contains(&hardware), "{vip} is not at {by}, {hardware}: {known}");
        Ok(())
    })
}

/// Waits until `holder` has the moved address on a link, where kube-ipvs leaves it, and the other node on kube-ipvs0.
fn await_holder(cluster: &Cluster, holder: &str) -> Result<()> {
    for name in NODES {
        let node = cluster.at(name)?;
        let vips: &[&str] = if name == holder { &["10.96.0.80", ANNOUNCED] } else { &["10.96.0.80", MOVED, ANNOUNCED] };
        node.await_vips(vips).with_context(|| format!("{name}, while {holder} has {MOVED}"))?;
        let on_link = node.run("ip", &["-br", "addr", "show", "dev", "eth0"])?;
        ensure!(on_link.contains(MOVED) == (name == holder), "{name}, while {holder} has {MOVED}: {on_link}");
        let device = node.run("ip", &["-br", "addr", "show", "dev", VIP_DEVICE])?;
        ensure!(device.contains(ANNOUNCED), "{name}: {device}");
    }
    Ok(())
}

/// keepalived, like kube-vip, adds the VIP to a link of one node. kube-ipvs serves it there, and on every other node at
/// kube-ipvs0. It follows the address when that moves.
#[test]
fn vip_that_keepalived_moves_or_an_announcer_places_is_served_there() -> TestResult {
    scenario(Cluster::builder().pod("web", "node-3", "10.244.3.2"), |cluster| {
        let _server = cluster.http("web", 8080)?;
        let service = Service::new("web")
            .line("type: LoadBalancer")
            .cluster_ip("10.96.0.80")
            .load_balancer_ip(MOVED)
            .load_balancer_ip(ANNOUNCED)
            .port_line("port: 80, targetPort: 8080");
        let slice = Slice::of("web").port(8080).ready("10.244.3.2").on("node-3");
        cluster.manifests.write("web", &format!("{service}---\n{slice}"))?;
        let start = |name: &str, priority| {
            keepalived(cluster.at(name)?, name, cluster.directory(), &format!("{MOVED}/32"), priority)
        };
        let first = start("node-1", 150)?;
        let _proxies = NODES.map(|node| cluster.start_proxy(node, &FLAGS));
        await_holder(cluster, "node-1")?;
        let _second = start("node-2", 100)?;
        reach(cluster, MOVED, "node-1")?;

        // MetalLB announces by packets that it makes itself, so it needs no address. A host learns from an announcement
        // if it knows the address already.
        let client = cluster.at("client")?;
        for name in ["node-2", "node-1"] {
            client.ip(&format!("neigh replace {ANNOUNCED} lladdr 02:00:00:00:00:99 dev eth0 nud stale"))?;
            cluster.at(name)?.run("arping", &["-A", "-c", "1", "-I", "eth0", "-s", ANNOUNCED, ANNOUNCED])?;
            reach(cluster, ANNOUNCED, name).with_context(|| format!("after an announcement by {name}"))?;
        }

        first.terminate()?;
        eventually(|| await_holder(cluster, "node-2"))?;
        reach(cluster, MOVED, "node-2")
    })
}
