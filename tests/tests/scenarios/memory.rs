//! The daemon's memory with thousands of endpoints.

use anyhow::{Context, Result, ensure};
use scenarios::{Cluster, Proxy, Service, Slice, TestResult, eventually, scenario};

use crate::api_server::api_server;

const NODE: &str = "node-3";
const SERVICES: usize = 1000;
const ENDPOINTS: usize = 10;
/// In KiB. The resident pages of the program itself are extra: few for the image, more for a test build.
const MOST: u64 = 16 * 1024;

/// A line of `/proc/PID/status`, in KiB.
pub(crate) fn memory(proxy: &Proxy, name: &str) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", proxy.id()))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)).context("no such line")?;
    Ok(line.trim_start_matches(':').trim().trim_end_matches(" kB").parse()?)
}

#[test]
fn ten_thousand_endpoints_take_less_than_sixteen_mib() -> TestResult {
    scenario(Cluster::builder(), |cluster| {
        let (api, kubeconfig) = api_server(cluster, None)?;
        for number in 0..SERVICES {
            let name = format!("app-{number}");
            let (high, low) = (number / 250, number % 250 + 1);
            let service =
                Service::new(&name).cluster_ip(&format!("10.97.{high}.{low}")).port_line("port: 80, targetPort: 8080");
            let slice = (1..=ENDPOINTS).fold(Slice::of(&name).port(8080), |slice, host| {
                let node = format!("node-{}", host % 5 + 1);
                slice.ready(&format!("10.{}.{low}.{host}", 245 + high)).on(&node)
            });
            api.apply(&format!("{service}---\n{slice}"))?;
        }
        let proxy = cluster.kube_ipvs(NODE)?.start_with_kubeconfig(&kubeconfig, &[])?;
        let node = cluster.at(NODE)?;
        eventually(|| {
            let table = node.ipvsadm()?;
            let reals: usize = table.0.iter().map(|server| server.weights().len()).sum();
            ensure!(reals == SERVICES * ENDPOINTS, "{reals} real servers");
            Ok(())
        })?;
        let [own, resident, peak] = ["RssAnon", "VmRSS", "VmHWM"].map(|name| memory(&proxy, name));
        let (own, resident) = (own?, format!("{} KiB are resident, and were {} at most", resident?, peak?));
        println!("{resident}; {own} KiB of it are the data");
        ensure!(own < MOST, "{resident}; {own} KiB of it are the data, {MOST} are allowed");
        Ok(())
    })
}
