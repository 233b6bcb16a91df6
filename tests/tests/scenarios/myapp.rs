//! Scenario 2: the output of `ipvsadm -Ln` is familiar to users of kube-proxy's ipvs mode.

use anyhow::Context;
use scenarios::{Cluster, TestResult, VIP_DEVICE, scenario};

use crate::common::ensure_rotation;

const PODS: [(&str, &str, &str); 3] =
    [("myapp-1", "node-1", "10.244.1.57"), ("myapp-2", "node-1", "10.244.1.58"), ("myapp-3", "node-2", "10.244.2.50")];

/// The listing field for field before any traffic, and the VIP on its device.
#[test]
fn ipvsadm_listing_is_that_of_kube_proxy() -> TestResult {
    let builder = PODS
        .iter()
        .fold(Cluster::builder().pod("visitor", "node-3", "10.244.3.9"), |cluster, (name, node, address)| {
            cluster.pod(name, node, address)
        });
    scenario(builder, |cluster| {
        let mut servers = Vec::new();
        for (name, ..) in PODS {
            servers.push(cluster.http(name, 80)?);
        }
        cluster.manifests.example("02-myapp")?;
        let _proxies = cluster.start_proxies(&[])?;
        for node in cluster.nodes() {
            let node = node.namespace();
            node.await_service("TCP 10.111.98.163:80", &["10.244.1.57:80 1", "10.244.1.58:80 1", "10.244.2.50:80 1"])?;
            let listing = node.run("ipvsadm", &["-Ln"])?;
            let mut lines = listing.lines().skip_while(|line| *line != "TCP  10.111.98.163:80 rr");
            lines.next().with_context(|| format!("no line `TCP  10.111.98.163:80 rr` in\n{listing}"))?;
            let mut reals: Vec<String> = lines
                .take_while(|line| line.starts_with("  -> "))
                .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
                .collect();
            reals.sort();
            assert_eq!(
                reals,
                ["-> 10.244.1.57:80 Masq 1 0 0", "-> 10.244.1.58:80 Masq 1 0 0", "-> 10.244.2.50:80 Masq 1 0 0"]
            );
            let vips = node.run("ip", &["addr", "show", VIP_DEVICE])?;
            assert!(vips.contains("inet 10.111.98.163/32 "), "{vips}");
            let device = node.run("ip", &["-d", "link", "show", VIP_DEVICE])?;
            assert!(device.contains("dummy") && device.contains("NOARP"), "{device}");
        }
        let names: Vec<&str> = PODS.iter().map(|(name, ..)| *name).collect();
        for from in ["node-1", "node-3", "visitor"] {
            ensure_rotation(&cluster.at(from)?.get_many("10.111.98.163:80", 6)?, &names)?;
        }
        Ok(())
    })
}
