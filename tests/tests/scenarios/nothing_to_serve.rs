//! Scenario 6: ExternalName and headless Services are DNS's business: nothing is programmed, nothing complains.

use anyhow::ensure;
use scenarios::{TestResult, scenario};

use crate::common::{WEB, await_web, deploy_web, web_cluster};

/// Only `web` is in the kernel, and the log has no warning.
#[test]
fn external_names_and_headless_services_are_left_alone() -> TestResult {
    scenario(web_cluster(), |cluster| {
        cluster.manifests.example("06-external-name-headless")?;
        let _servers = deploy_web(cluster)?;
        let proxy = cluster.start_proxy("node-3", &[])?;
        await_web(cluster, "node-3")?;
        let node = cluster.at("node-3")?;
        assert_eq!(node.ipvsadm()?.keys(), [WEB]);
        node.await_vips(&["10.96.0.80"])?;
        let log = proxy.log_text();
        let complaint = log.lines().find(|line| {
            line.contains("WARN")
                || line.contains("ERROR")
                || line.contains("baidu")
                || line.contains("headless")
        });
        ensure!(complaint.is_none(), "a complaint: {complaint:?}");
        Ok(())
    })
}
