//! A daemon whose allocations fail. At a container's limit the kernel kills the daemon instead, as `kill_nine` does.

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use scenarios::{Proxy, Service, TestResult, Transport, eventually, scenario};

use crate::{
    common::{WEB_ADDRESS, await_first_sync, web_cluster},
    faults::{NODE, await_rolled_out, deploy, ensure_healthy, prepare},
    restart::{hold, still_held},
};

const FLAGS: [&str; 2] = ["--ipvs-sync-period", "1s"];
/// Less than the daemon has already: it gets no more memory from the kernel.
const LIMIT: u64 = 1 << 20;
/// More than fits into the memory that the daemon has.
const SERVICES: u32 = 600;

fn limit_memory(proxy: &Proxy) -> Result<()> {
    let pid = i32::try_from(proxy.id()).ok().and_then(Pid::from_raw).context("a process without an id")?;
    let maximum = getrlimit(Resource::Data).maximum;
    prlimit(Some(pid), Resource::Data, Rlimit { current: Some(LIMIT), maximum }).context("prlimit").map(drop)
}

fn many() -> String {
    let service = |number| {
        let address = format!("10.96.{}.{}", 16 + number / 200, 1 + number % 200);
        Service::new(&format!("many-{number}")).cluster_ip(&address).port(80).to_string()
    };
    (0..SERVICES).map(service).collect::<Vec<_>>().join("---\n")
}

/// The first allocation that fails ends the daemon. Services stay served, and the next start applies the changes.
#[test]
fn daemon_out_of_memory_ends_and_the_next_start_catches_up() -> TestResult {
    scenario(web_cluster(), |cluster| {
        let (_servers, mut foreign) = prepare(cluster)?;
        let node = cluster.at(NODE)?;
        let proxy = cluster.start_proxy(NODE, &FLAGS)?;
        await_first_sync(node)?;
        let mut held = hold(cluster)?;
        limit_memory(&proxy)?;
        cluster.manifests.write("many", &many())?;
        let (status, log) = proxy.await_end()?;
        ensure!(!status.success() && log.contains("memory allocation"), "{status}: {log}");
        still_held(&mut held)?;
        cluster.at("visitor")?.connect(Transport::Tcp, WEB_ADDRESS)?.say()?;

        deploy(cluster, true)?;
        let _proxy = cluster.start_proxy(NODE, &FLAGS)?;
        await_rolled_out(cluster)?;
        node.await_service("TCP 10.96.18.200:80", &[])?;
        eventually(|| ensure_healthy(cluster))?;
        still_held(&mut held)?;
        foreign.say().map(drop)?;
        Ok(())
    })
}
