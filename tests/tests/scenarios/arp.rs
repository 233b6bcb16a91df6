//! ARP: which host answers for a VIP, and the source address of a node's own ARP requests.

use anyhow::{Context, Result};
use scenarios::{Cluster, Namespace, Service, Slice, TestResult, scenario};

const VIP: &str = "203.0.113.10";

/// A node answers for a VIP as for its own addresses. Flags turn that off, by a sysctl or for VIPs alone.
#[test]
fn node_answers_arp_for_a_vip_unless_a_flag_forbids_it() -> TestResult {
    let builder = Cluster::builder().pod("web-1", "node-1", "10.244.1.2");
    scenario(builder, |cluster| {
        let _server = cluster.http("web-1", 8080)?;
        let service = Service::new("web")
            .line("type: LoadBalancer")
            .cluster_ip("10.96.0.80")
            .load_balancer_ip(VIP)
            .port_line("port: 80, targetPort: 8080, nodePort: 30080");
        let slice = Slice::of("web").port(8080).ready("10.244.1.2").on("node-1");
        cluster.manifests.write("web", &format!("{service}---\n{slice}"))?;
        let (node, client) = (cluster.at("node-1")?, cluster.at("client")?);
        for (flag, is_silent, ignore) in
            [("--vip-ping", false, "0"), ("--scoped-arp", true, "0"), ("--ipvs-strict-arp", true, "1")]
        {
            let proxy = cluster.start_proxy("node-1", &["--cluster-cidr=10.244.0.0/16", flag])?;
            node.await_serving(&format!("TCP {VIP}:80"), &["10.244.1.2:8080"])?;
            node.await_vips(&["10.96.0.80", VIP])?;
            assert_eq!(node.run("cat", &["/proc/sys/net/ipv4/conf/all/arp_ignore"])?.trim(), ignore, "{flag}");

            // As if a load balancer had announced the VIP on the LAN: the client asks which host has it.
            client.ip(&format!("route replace {VIP} dev eth0"))?;
            client.run("ip", &["neigh", "flush", "all"])?;
            let answer = client.try_get(&format!("{VIP}:80"))?;
            assert_eq!(answer.is_err(), is_silent, "{flag}: {answer:?}");
            // The flags do not affect the node's own address.
            client.run("ip", &["neigh", "flush", "all"])?;
            client.get("192.168.128.1:30080")?;

            // A packet from the VIP makes the node send an ARP request for the client.
            let learnt = neighbour_after_answer(node, client)?;
            assert_eq!(learnt.is_empty(), is_silent, "{flag}: {learnt}");
            proxy.terminate()?;
            cluster.kube_ipvs("node-1")?.run(&["cleanup"])?;
            let tables = node.run("nft", &["list", "tables"])?;
            assert!(!tables.contains("kube-ipvs"), "left behind: {tables}");
        }
        Ok(())
    })
}

/// The ARP entry of the VIP that the client learns from a node. The node must resolve the client to send its answer.
fn neighbour_after_answer(node: &Namespace, client: &Namespace) -> Result<String> {
    let links = node.run("ip", &["-br", "link", "show", "eth0"])?;
    let hardware = links.split_whitespace().nth(2).context("eth0 has no address")?;
    client.ip(&format!(
        "neigh replace 192.168.128.1 lladdr {hardware} dev eth0 nud permanent\nroute replace {VIP} via 192.168.128.1"
    ))?;
    client.run("ip", &["neigh", "flush", "to", VIP])?;
    node.run("ip", &["neigh", "flush", "to", "192.168.128.100"])?;
    client.get(&format!("{VIP}:80"))?;
    let learnt = client.run("ip", &["neigh", "show", "to", VIP])?;
    client.ip("neigh del 192.168.128.1 dev eth0")?;
    Ok(learnt)
}

/// The flag changes while VIPs are bound.
#[test]
fn arp_table_follows_the_scoped_arp_flag_at_each_restart() -> TestResult {
    scenario(Cluster::builder(), |cluster| {
        cluster.manifests.write("web", &Service::new("web").cluster_ip("10.96.0.80").port(80))?;
        let node = cluster.at("node-1")?;
        for (flags, silent) in [
            (&[][..], None),
            (&["--scoped-arp"], Some("10.96.0.80")),
            (&["--scoped-arp", "--ipvs-sync-period=1s"], Some("10.96.0.80")),
            (&[], None),
        ] {
            let proxy = cluster.start_proxy("node-1", flags)?;
            node.await_vips(&["10.96.0.80"])?;
            scenarios::eventually(|| {
                let table = node.output("nft", &["list", "table", "arp", "kube-ipvs"])?;
                let text = String::from_utf8_lossy(&table.stdout).into_owned();
                let is_right = match silent {
                    Some(address) => text.contains(&format!("elements = {{ {address} }}")),
                    None => text.is_empty(),
                };
                is_right.then_some(()).context(text)
            })?;
            if flags.len() > 1 {
                // Another program deletes the table. kube-ipvs restores it, with its elements.
                node.run("nft", &["delete", "table", "arp", "kube-ipvs"])?;
                scenarios::eventually(|| {
                    let text = node.run("nft", &["list", "table", "arp", "kube-ipvs"])?;
                    text.contains("10.96.0.80").then_some(()).context(text)
                })?;
            }
            proxy.terminate()?;
        }
        Ok(())
    })
}
