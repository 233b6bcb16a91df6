//! Scenario 6: DNS serves ExternalName and headless Services. kube-ipvs programs nothing for them and logs no
//! complaint.

use anyhow::ensure;
use scenarios::{TestResult, scenario};

use crate::common::{WEB, all_web, await_web, deploy_web, web_cluster, web_service, web_slice};

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
            line.contains("WARN") || line.contains("ERROR") || line.contains("baidu") || line.contains("headless")
        });
        ensure!(complaint.is_none(), "a complaint: {complaint:?}");
        Ok(())
    })
}

/// "should implement service.kubernetes.io/service-proxy-name" and ".../headless": with the label, kube-ipvs neither
/// serves nor rejects the Service. Without it, kube-ipvs serves the Service.
#[test]
fn services_of_other_proxies_and_headless_ones_are_left_alone() -> TestResult {
    scenario(web_cluster(), |cluster| {
        let _servers = deploy_web(cluster)?;
        let _proxy = cluster.start_proxy("node-3", &[])?;
        let node = cluster.at("node-3")?;
        await_web(cluster, "node-3")?;
        let (service, slice) = (cluster.manifests.read("web")?, cluster.manifests.read("web-slice")?);
        let proxy_name = "  labels: {service.kubernetes.io/service-proxy-name: another}\nspec:\n";
        let headless = ("  labels: {", "  labels: {service.kubernetes.io/headless: \"\", ");
        for (service, slice) in [
            (service.replace("spec:\n", proxy_name), slice.clone()),
            (service.replace("10.96.0.80", "None"), slice.replace(headless.0, headless.1)),
        ] {
            cluster.manifests.write("web", &service)?;
            cluster.manifests.write("web-slice", &slice)?;
            node.await_no_service(WEB)?;
            node.await_vips(&[])?;
            cluster.manifests.write("web", &web_service())?;
            cluster.manifests.write("web-slice", &web_slice(&all_web()))?;
            await_web(cluster, "node-3")?;
        }
        Ok(())
    })
}
