//! The device kube-ipvs0, if a network manager sets it up.

use anyhow::{Result, ensure};
use scenarios::{Namespace, TestResult, VIP_DEVICE, eventually, scenario};

use crate::common::{WEB_ADDRESS, await_web, deploy_web, web_cluster};

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

fn ensure_down(node: &Namespace) -> Result<()> {
    let link = node.run("ip", &["link", "show", "dev", VIP_DEVICE])?;
    let flags = link.split(['<', '>']).nth(1).unwrap_or_default();
    ensure!(!flags.split(',').any(|flag| flag == "UP"), "{link}");
    Ok(())
}
