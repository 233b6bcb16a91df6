//! The device kube-ipvs0, when a network manager takes charge of it.

use anyhow::{Result, ensure};
use scenarios::{Namespace, TestResult, VIP_DEVICE, eventually, scenario};

use crate::common::{WEB_ADDRESS, await_web, deploy_web, web_cluster};

const NODE: &str = "node-3";

/// Set up, it is down again at the next check; and what the kernel gave it does not keep it from being removed.
#[test]
fn a_device_that_was_set_up_is_down_again_and_goes_with_us() -> TestResult {
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
