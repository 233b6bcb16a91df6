//! `--ipvs-min-sync-period`: changes of the kernel come no closer than that.

use std::time::{Duration, Instant};

use anyhow::ensure;
use scenarios::{Cluster, Service, TestResult, eventually, scenario, throughout};

fn service(name: &str, ip: &str) -> Service {
    Service::new(name).cluster_ip(ip).port(80)
}

/// How many changes of Services the daemon has heard of.
const HEARD: &str = "kubeproxy_sync_proxy_rules_service_changes_total";

/// The first change is made at once. The next one is heard of and waits; a wish to stop does not.
#[test]
fn the_second_change_waits() -> TestResult {
    scenario(Cluster::builder(), |cluster| {
        cluster.manifests.write("a", &service("a", "10.96.0.1"))?;
        let node = cluster.at("node-1")?;
        // Longer than any wait of the test lasts.
        let proxy = cluster.start_proxy("node-1", &["--ipvs-min-sync-period=24h", "--ipvs-sync-period=24h"])?;
        node.await_vips(&["10.96.0.1"])?;
        let before = eventually(|| node.metric(HEARD))?;
        cluster.manifests.write("b", &service("b", "10.96.0.2"))?;
        eventually(|| {
            ensure!(node.metric(HEARD)? > before, "it has not heard of it");
            Ok(())
        })?;
        // Without the flag it would be there as soon as it is heard of.
        throughout(Duration::from_secs(2), || {
            ensure!(node.vips()?.len() == 1, "it has not waited");
            Ok(())
        })?;
        proxy.terminate()?;
        node.await_vips(&["10.96.0.1"])?;

        // Where it is short the wait ends, and not before its time.
        let start = Instant::now();
        let _proxy = cluster.start_proxy("node-1", &["--ipvs-min-sync-period=3s"])?;
        node.await_vips(&["10.96.0.1", "10.96.0.2"])?;
        cluster.manifests.write("c", &service("c", "10.96.0.3"))?;
        node.await_vips(&["10.96.0.1", "10.96.0.2", "10.96.0.3"])?;
        // The first change came after the start.
        let apart = start.elapsed();
        ensure!(apart >= Duration::from_secs(3), "two changes came within {apart:?}");
        Ok(())
    })
}
