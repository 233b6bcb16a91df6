//! `--ipvs-min-sync-period`: the minimum time between two changes of the kernel.

use std::time::{Duration, Instant};

use anyhow::ensure;
use scenarios::{Cluster, Service, TestResult, eventually, scenario, throughout};

fn service(name: &str, ip: &str) -> Service {
    Service::new(name).cluster_ip(ip).port(80)
}

/// How many changes of Services the daemon has received.
const HEARD: &str = "kubeproxy_sync_proxy_rules_service_changes_total";

/// The first change is applied at once. The next one waits; SIGTERM does not.
#[test]
fn second_change_waits_for_the_min_sync_period() -> TestResult {
    scenario(Cluster::builder(), |cluster| {
        cluster.manifests.write("a", &service("a", "10.96.0.1"))?;
        let node = cluster.at("node-1")?;
        // Longer than the test lasts.
        let proxy = cluster.start_proxy("node-1", &["--ipvs-min-sync-period=24h", "--ipvs-sync-period=24h"])?;
        node.await_vips(&["10.96.0.1"])?;
        let before = eventually(|| node.metric(HEARD))?;
        cluster.manifests.write("b", &service("b", "10.96.0.2"))?;
        eventually(|| {
            ensure!(node.metric(HEARD)? > before, "it has not heard of it");
            Ok(())
        })?;
        // Without the flag the daemon would apply the change at once.
        throughout(Duration::from_secs(2), || {
            ensure!(node.vips()?.len() == 1, "it has not waited");
            Ok(())
        })?;
        proxy.terminate()?;
        node.await_vips(&["10.96.0.1"])?;

        // A short period delays the second change until its end, and not longer.
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
