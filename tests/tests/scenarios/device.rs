//! The device kube-ipvs0: a network manager sets it up, or it gets more addresses than fit.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use scenarios::{Namespace, Service, Slice, TestResult, VIP_DEVICE, eventually, scenario};

use crate::common::{WEB_ADDRESS, WEB_PODS, await_first_sync, await_web, deploy_web, web_cluster};

const NODE: &str = "node-3";

/// The next check sets the device down. A link-local address from the kernel does not prevent its removal.
#[test]
fn vip_device_set_up_by_others_is_set_down_and_can_be_removed() -> TestResult {
    scenario(web_cluster(), |cluster| {
        let _servers = deploy_web(cluster)?;
        let node = cluster.at(NODE)?;
        let proxy = cluster.start_proxy(NODE, &["--ipvs-sync-period", "1s"])?;
        await_web(cluster, NODE)?;
        node.run("ip", &["link", "set", VIP_DEVICE, "up"])?;
        eventually(|| ensure_down(node))?;
        node.await_vips(&["10.96.0.80"])?;
        cluster.at("visitor")?.get(WEB_ADDRESS)?;
        proxy.terminate()?;

        node.run("ip", &["link", "set", VIP_DEVICE, "up"])?;
        eventually(|| {
            let addresses = node.run("ip", &["-6", "addr", "show", "dev", VIP_DEVICE])?;
            ensure!(addresses.contains("fe80::"), "no link-local address: {addresses}");
            Ok(())
        })?;
        cluster.kube_ipvs(NODE)?.run(&["cleanup"])?;
        ensure!(!node.has_device(VIP_DEVICE)?, "{VIP_DEVICE} is left");
        Ok(())
    })
}

const FURTHER_DEVICE: &str = "kube-ipvs0-1";
/// 4,200 external IPs and 43 ClusterIPs, of which the first device has 4,096.
const FURTHER: usize = 147;

/// The kernel binds an address to a device in time proportional to the number of its addresses.
#[test]
fn more_than_4096_vips_are_served_on_a_further_device_and_handed_over_on_the_first() -> TestResult {
    scenario(web_cluster(), |cluster| {
        let _servers = deploy_web(cluster)?;
        let node = cluster.at(NODE)?;
        let proxy = cluster.start_proxy(NODE, &[])?;
        await_web(cluster, NODE)?;
        let vips: Vec<_> = (0..4_200).map(|number| format!("198.18.{}.{}", number / 250, number % 250 + 1)).collect();
        // A Service has at most 100 external IPs.
        let many = vips.chunks(100).enumerate().map(|(number, vips)| {
            let name = format!("many-{number}");
            let service = Service::new(&name)
                .cluster_ip(&format!("10.96.1.{}", number + 1))
                .port_line("port: 80, targetPort: 8080")
                .line(&format!("externalIPs: [{}]", vips.join(", ")));
            format!("{service}---\n{}", Slice::of(&name).port(8080).ready(WEB_PODS[0].2))
        });
        cluster.manifests.write("many", &many.collect::<Vec<_>>().join("---\n"))?;
        let has = |device: &str, expected: usize| {
            let count = addresses(node, device)?.len();
            ensure!(count == expected, "{count} addresses on {device}");
            Ok(())
        };
        eventually(|| has(FURTHER_DEVICE, FURTHER))?;
        has(VIP_DEVICE, 4_096)?;
        let further = addresses(node, FURTHER_DEVICE)?;
        let visitor = cluster.at("visitor")?;
        for vip in [vips.iter().find(|vip| further.contains(*vip)), vips.iter().find(|vip| !further.contains(*vip))] {
            visitor.get(&format!("{}:80", vip.map_or("none", String::as_str)))?;
        }

        node.run("ip", &["link", "delete", FURTHER_DEVICE])?;
        eventually(|| has(FURTHER_DEVICE, FURTHER))?;
        proxy.terminate()?;
        let proxy = cluster.start_proxy(NODE, &[])?;
        await_first_sync(node)?;
        proxy.terminate()?;
        cluster.kube_ipvs(NODE)?.run(&["cleanup", "--handover", "--force"])?;
        ensure!(!node.has_device(FURTHER_DEVICE)?, "{FURTHER_DEVICE} is left");
        has(VIP_DEVICE, 4_096 + FURTHER)
    })
}

fn addresses(node: &Namespace, device: &str) -> Result<BTreeSet<String>> {
    if !node.has_device(device)? {
        return Ok(BTreeSet::new());
    }
    let list = node.run("ip", &["-oneline", "-4", "addr", "show", "dev", device])?;
    let address = |line: &str| Some(line.split_whitespace().nth(3)?.trim_end_matches("/32").to_owned());
    Ok(list.lines().filter_map(address).collect())
}

fn ensure_down(node: &Namespace) -> Result<()> {
    let link = node.run("ip", &["link", "show", "dev", VIP_DEVICE])?;
    let flags = link.split(['<', '>']).nth(1).unwrap_or_default();
    ensure!(!flags.split(',').any(|flag| flag == "UP"), "{link}");
    Ok(())
}
