//! `--ipvs-min-sync-period`: changes of the kernel come no closer than that.

use std::time::{Duration, Instant};

use scenarios::{Cluster, Service, TestResult, eventually, scenario};

/// The first change is made at once, the next one waits; a wish to stop does not.
#[test]
fn the_second_change_waits() -> TestResult {
    scenario(Cluster::builder(), |cluster| {
        let service = |name: &str, ip: &str| Service::new(name).cluster_ip(ip).port(80);
        cluster.manifests.write("a", &service("a", "10.96.0.1"))?;
        let node = cluster.at("node-1")?;
        let proxy = cluster.start_proxy("node-1", &["--ipvs-min-sync-period=20s"])?;
        node.await_vips(&["10.96.0.1"])?;
        let first = Instant::now();
        cluster.manifests.write("b", &service("b", "10.96.0.2"))?;
        eventually(|| {
            anyhow::ensure!(node.vips()?.len() == 2, "there is one VIP");
            Ok(())
        })?;
        let waited = first.elapsed();
        assert!(waited > Duration::from_secs(10), "it came {waited:?} later");
        cluster.manifests.remove("a")?;
        std::thread::sleep(Duration::from_secs(1));
        let asked = Instant::now();
        proxy.terminate()?;
        let lasted = asked.elapsed();
        assert!(lasted < Duration::from_secs(10), "it ended {lasted:?} later");
        node.await_vips(&["10.96.0.1", "10.96.0.2"])
    })
}
